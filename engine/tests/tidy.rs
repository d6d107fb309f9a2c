//! The style that a machine can keep: widths and lengths, reading order, forbidden words, and
//! who may read the clock. Walks the whole repository.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "this test reads the sources")]

use std::path::{Path, PathBuf};

const COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;

/// Functions that were longer when this test came: none may join them.
const LONG_FUNCTIONS: [(&str, &str); 0] = [];

/// What the engine may depend on.
const ENGINE_DEPENDENCIES: [&str; 6] =
    ["dashmap", "idna", "regex-automata", "rkyv", "siphasher", "unicode-normalization"];
/// What stands in for the locks where a test schedules the threads (`--cfg shuttle`). No other
/// build has it.
const SCHEDULED: (&str, [&str; 1]) = ("[target.'cfg(shuttle)'.dependencies]", ["shuttle"]);

struct File {
    /// Relative to the repository.
    name: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn walk(folder: &Path, endings: &[&str], found: &mut Vec<File>) {
    // What is built, stored or fetched is not ours.
    const OTHERS: [&str; 5] = ["target", ".git", "node_modules", "data", ".venv"];
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !OTHERS.contains(&name.as_str()) {
                walk(&path, endings, found);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            found.push(File { name, text });
        }
    }
}

fn files(folder: &str, endings: &[&str]) -> Vec<File> {
    let mut found = Vec::new();
    walk(&root().join(folder), endings, &mut found);
    assert!(!found.is_empty(), "{folder} is empty");
    found
}

fn sources() -> Vec<File> {
    files("", &[".rs"])
}

impl File {
    /// The lines before the inline tests; none of a file that is all tests.
    fn production(&self) -> Vec<&str> {
        let tests = ["/tests/", "/benches/"].iter().any(|folder| self.name.contains(folder));
        if tests || self.name.ends_with("tests.rs") {
            return Vec::new();
        }
        self.text.lines().take_while(|line| *line != "#[cfg(test)]").collect()
    }
}

/// The functions of a text: name and number of lines, from `fn` to the brace that closes it.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let bare = line.trim_start();
        let indent = line.len() - bare.len();
        let words = ["pub ", "pub(crate) ", "pub(super) ", "const ", "async ", "extern \"C\" "];
        let mut rest = bare;
        while let Some(shorter) = words.iter().find_map(|word| rest.strip_prefix(word)) {
            rest = shorter;
        }
        let Some(signature) = rest.strip_prefix("fn ") else {
            continue;
        };
        if bare.ends_with(';') || bare.ends_with('}') {
            continue;
        }
        let name: String =
            signature.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let closing = format!("{}}}", " ".repeat(indent));
        let end = lines[start..].iter().position(|line| *line == closing);
        found.push((name, end.map_or(1, |end| end + 1)));
    }
    found
}

/// Whether a word stands in a line by itself.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(start, _)| {
        let after = &line[start + word.len()..];
        !part(line[..start].chars().next_back()) && !part(after.chars().next())
    })
}

#[track_caller]
fn none(broken: &[String], what: &str) {
    assert!(broken.is_empty(), "{what}:\n{}", broken.join("\n"));
}

#[test]
fn no_line_is_wider_than_a_hundred_columns() {
    let mut broken = Vec::new();
    for file in sources() {
        for (number, line) in file.text.lines().enumerate() {
            if line.chars().count() > COLUMNS_MAX {
                broken.push(format!("{}:{}", file.name, number + 1));
            }
        }
    }
    none(&broken, "too wide");
}

#[test]
fn no_function_is_longer_than_seventy_lines() {
    let mut broken = Vec::new();
    let mut count = 0;
    for file in sources() {
        for (name, lines) in functions(&file.text) {
            count += 1;
            let known = LONG_FUNCTIONS.contains(&(file.name.as_str(), name.as_str()));
            if lines > FUNCTION_LINES_MAX && !known {
                broken.push(format!("{}: {name} has {lines} lines", file.name));
            }
        }
    }
    assert!(count > 300, "{count} functions found: the search is broken");
    none(&broken, "too long");
}

#[test]
fn no_file_has_more_than_six_hundred_production_lines() {
    let mut broken = Vec::new();
    for file in sources() {
        let lines = file.production().len();
        if lines > FILE_LINES_MAX {
            broken.push(format!("{} has {lines}", file.name));
        }
    }
    none(&broken, "too long");
}

#[test]
fn every_source_says_first_what_it_is() {
    let silent = |file: &File| !file.text.starts_with("//! ");
    let broken: Vec<String> = sources().into_iter().filter(silent).map(|file| file.name).collect();
    none(&broken, "no module comment");
}

#[test]
fn every_engine_file_uses_only_those_above_it() {
    let lib = std::fs::read_to_string(root().join("engine/src/lib.rs")).unwrap();
    let modules = lib.lines().filter_map(|line| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        line.strip_prefix("mod ")?.strip_suffix(';')
    });
    let order: Vec<&str> = modules.collect();
    assert!(order.len() > 15, "{order:?}");
    let mut broken = Vec::new();
    let mut seen = 0;
    for file in files("engine/src", &[".rs"]) {
        let module = file.name["engine/src/".len()..].split(['/', '.']).next().unwrap();
        if module == "lib" {
            continue;
        }
        let Some(place) = order.iter().position(|known| *known == module) else {
            broken.push(format!("{} is not in lib.rs", file.name));
            continue;
        };
        for line in file.production() {
            for (start, _) in line.match_indices("crate::") {
                let used = line[start + 7..].split(|c: char| !c.is_alphanumeric() && c != '_');
                let used = used.into_iter().next().unwrap();
                seen += 1;
                if order.iter().position(|known| *known == used).is_none_or(|at| at >= place) {
                    broken.push(format!("{} uses {used}", file.name));
                }
            }
        }
    }
    assert!(seen > 50, "{seen} uses found: the search is broken");
    none(&broken, "against the reading order");
}

#[test]
fn nothing_is_left_for_later() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
        concat!("HA", "CK"),
        concat!("db", "g!"),
        concat!("to", "do!"),
        concat!("unimpl", "emented!"),
    ];
    let mut broken = Vec::new();
    for file in files("", &[".rs", ".toml", ".md", ".js", ".html", ".css", ".sh", ".yml"]) {
        for (number, line) in file.text.lines().enumerate() {
            for word in words.iter().filter(|word| has_word(line, word)) {
                broken.push(format!("{}:{}: {word}", file.name, number + 1));
            }
        }
    }
    none(&broken, "left for later");
}

#[test]
fn only_one_file_reads_the_clock_and_one_draws_chance() {
    let rules = [
        ("SystemTime::now", "collector/src/clock.rs"),
        ("Instant::now", "collector/src/clock.rs"),
        ("SystemRandom", "collector/src/ids.rs"),
    ];
    let mut broken = Vec::new();
    for file in files("collector/src", &[".rs"]) {
        // The runtime's own timers end silent connections; they decide nothing that is kept.
        let timer =
            |line: &&str| line.starts_with("use tokio::time::") && has_word(line, "Instant");
        let has_timer = file.text.lines().any(|line| timer(&line));
        for (number, line) in file.production().iter().enumerate() {
            let comment = line.trim_start().starts_with("//");
            let by_runtime = has_timer && !line.contains("std::time");
            let used = |(what, home): &&(&str, &str)| {
                line.contains(what)
                    && file.name != *home
                    && !(by_runtime && *what == "Instant::now")
            };
            for (what, _) in rules.iter().filter(used).filter(|_| !comment) {
                broken.push(format!("{}:{}: {what}", file.name, number + 1));
            }
        }
    }
    none(&broken, "time and chance are arguments");
}

#[test]
fn the_engine_depends_on_little() {
    let manifest = std::fs::read_to_string(root().join("engine/Cargo.toml")).unwrap();
    let section = |name: &str| -> Vec<String> {
        let lines = manifest.lines().skip_while(|line| *line != name).skip(1);
        let lines = lines.take_while(|line| !line.starts_with('['));
        let key = |line: &str| line.split(['.', '=', ' ']).next().unwrap().to_owned();
        lines.map(key).filter(|key| !key.is_empty() && !key.starts_with('#')).collect()
    };
    let found = section("[dependencies]");
    assert!(!found.is_empty());
    let broken: Vec<String> =
        found.into_iter().filter(|name| !ENGINE_DEPENDENCIES.contains(&name.as_str())).collect();
    none(&broken, "not among the engine's few");
    assert_eq!(section("[dev-dependencies]"), ["proptest"]);
    assert_eq!(section(SCHEDULED.0), SCHEDULED.1);
    assert!(section("[build-dependencies]").is_empty());
}

#[test]
fn the_searches_find_what_they_look_for() {
    let long = format!("fn a() {{\n{}}}\nfn b() -> u8 {{\n    1\n}}\n", "    x();\n".repeat(80));
    assert_eq!(functions(&long), [("a".to_owned(), 82), ("b".to_owned(), 3)]);
    assert!(has_word("// XY: later", "XY") && !has_word("AXY", "XY") && !has_word("XYZ", "XY"));
    let file = File { name: "x/src/a.rs".into(), text: "a\n#[cfg(test)]\nb\n".into() };
    assert_eq!(file.production(), ["a"]);
}
