//! A Problem says what is wrong with a file of settings, where, and what was probably meant.
//! Problems are gathered, not thrown: a person who corrects a file wants to see all of them.

use std::cell::{Cell, RefCell};
use std::fmt;

/// Most problems kept of one reading; a file with more has one cause, and it is among the first.
const PROBLEMS_MAX: usize = 100;
/// Longest word compared with the known ones, in bytes: comparing costs the product of lengths.
const WORD_BYTES_MAX: usize = 64;

/// What is wrong, where, and what was probably meant. It never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file's name, or the environment variable's.
    pub file: String,
    /// The line, from 1; 0 when the whole file is meant.
    pub line: u32,
    /// The column in characters, from 1; 0 when the whole file is meant.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to write instead, as it stands in the file, without quotes.
    pub suggestion: Option<String>,
}

impl Problem {
    /// A problem of a whole file.
    pub fn of_file(file: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem { file: file.into(), line: 0, column: 0, message: message.into(), suggestion: None }
    }

    /// A problem at a byte of a text.
    pub(super) fn at(file: &str, text: &str, offset: usize, message: String) -> Problem {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let line_start = before.iter().rposition(|byte| *byte == b'\n');
        let line_start = line_start.map_or(0, |newline| newline + 1);
        let on_line = &before[line_start..];
        let characters = on_line.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
        // The mark some editors put at the beginning of a file is nothing a person sees.
        let mark = usize::from(line_start == 0 && on_line.starts_with(b"\xef\xbb\xbf"));
        Problem {
            file: file.to_owned(),
            line: before.split(|byte| *byte == b'\n').count() as u32,
            column: (characters - mark) as u32 + 1,
            message,
            suggestion: None,
        }
    }

    /// The same, with what was probably meant.
    #[must_use]
    pub(super) fn meant(self, suggestion: Option<String>) -> Problem {
        Problem { suggestion, ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.file, self.message)?;
        } else {
            write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        }
        match &self.suggestion {
            Some(number) if number.parse::<i64>().is_ok() => write!(f, "; did you mean {number}?"),
            Some(word) => write!(f, "; did you mean \"{word}\"?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// Where problems are gathered while files are read.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    kept: RefCell<Vec<Problem>>,
    count: Cell<usize>,
}

impl Problems {
    /// Adds one.
    pub fn add(&self, problem: Problem) {
        self.pass_over();
        if !self.is_full() {
            self.kept.borrow_mut().push(problem);
        }
    }

    /// Whether further ones are only counted.
    pub fn is_full(&self) -> bool {
        self.kept.borrow().len() >= PROBLEMS_MAX
    }

    /// Counts one, kept or not.
    pub fn pass_over(&self) {
        self.count.set(self.count.get() + 1);
    }

    /// How many there are, those not kept included.
    pub fn count(&self) -> usize {
        self.count.get()
    }

    /// The value, if nothing was wrong; else all problems in the order of the text, each once.
    pub fn judge<T>(self, value: Option<T>) -> Result<T, Vec<Problem>> {
        let mut problems = self.kept.into_inner();
        problems.sort();
        problems.dedup();
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => Err(problems),
        }
    }
}

/// The known word that was probably meant: a few letters off, or begun and not finished.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > WORD_BYTES_MAX {
        return None;
    }
    let word = half_width(word).unwrap_or_else(|| word.to_owned());
    let word = word.trim().to_lowercase().replace(['-', ' '], "_");
    let allowed = (word.chars().count() / 3).max(1);
    let distance = |candidate: &str| match strsim::damerau_levenshtein(&word, candidate) {
        // Nothing of a short word is left when every letter of it is replaced.
        whole if whole >= candidate.chars().count() => None,
        near if near <= allowed => Some(near),
        _ if word.len() >= 3 && candidate.starts_with(&word) => Some(allowed + 1),
        _ => None,
    };
    known
        .into_iter()
        .filter_map(|candidate| Some((distance(&candidate.to_lowercase())?, candidate)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The text with the full-width letters, digits and signs of Japanese typing made plain; nothing
/// if there are none.
pub(super) fn half_width(text: &str) -> Option<String> {
    let plain = |letter: char| match letter {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(letter as u32 - 0xfee0).unwrap_or(letter),
        '\u{3000}' => ' ',
        '\u{3001}' => ',',
        '\u{3002}' => '.',
        '\u{201c}' | '\u{201d}' => '"',
        other => other,
    };
    let made: String = text.chars().map(plain).collect();
    (made != text).then_some(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_a_compiler_would_print_it() {
        let text = "a = 1\n点 = half_lif";
        let offset = text.find("half").unwrap();
        let problem = Problem::at("scoring.toml", text, offset, "unknown word".to_owned());
        assert_eq!(
            problem.meant(Some("half_life".to_owned())).to_string(),
            "scoring.toml:2:5: unknown word; did you mean \"half_life\"?"
        );
    }

    #[test]
    fn a_byte_order_mark_moves_no_column() {
        let problem = Problem::at("f", "\u{feff}ab", 4, String::new());
        assert_eq!((problem.line, problem.column), (1, 2));
    }

    #[test]
    fn a_word_a_few_letters_off_finds_its_neighbour() {
        let known = ["half_life", "max", "in_total", "ja", "en"];
        for (typed, meant) in [
            ("half_lif", Some("half_life")),
            ("hafl_life", Some("half_life")),
            ("half-life", Some("half_life")),
            ("Half_Life", Some("half_life")),
            ("half", Some("half_life")),
            ("ｍａｘ", Some("max")),
            ("intotal", Some("in_total")),
            ("zz", None),
            ("", None),
            ("something_else", None),
        ] {
            assert_eq!(nearest(typed, known), meant, "{typed}");
        }
    }

    #[test]
    fn a_reading_keeps_a_bounded_number_of_problems() {
        let problems = Problems::default();
        for index in 0..1_000 {
            problems.add(Problem::of_file("f", index.to_string()));
        }
        assert_eq!(problems.judge(Some(())).unwrap_err().len(), PROBLEMS_MAX);
    }
}
