//! The engine is pure (law 7), and what keeps it so works: a copy of it with the world planted
//! in one file is refused by name, and the same copy without it passes.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "this test copies the sources")]
#![allow(clippy::disallowed_types, reason = "this test runs the linter")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// What is planted, and the ban that must be named.
const PLANTED: [(&str, &str); 5] = [
    ("std::time::SystemTime::now()", "`std::time::SystemTime::now`"),
    ("std::time::Instant::now()", "`std::time::Instant::now`"),
    ("std::thread::spawn(|| {})", "`std::thread::spawn`"),
    ("std::fs::read(\"x\")", "`std::fs::read`"),
    ("std::collections::HashMap::<u8, u8>::new()", "`std::collections::HashMap`"),
];

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// A workspace of the engine alone, in the build folder.
fn copy_of_the_engine() -> PathBuf {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = engine.parent().unwrap();
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("purity");
    let _ = std::fs::remove_dir_all(home.join("engine"));
    copy(&engine.join("src"), &home.join("engine/src"));
    for name in ["Cargo.toml", "clippy.toml"] {
        std::fs::copy(engine.join(name), home.join("engine").join(name)).unwrap();
    }
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let alone: Vec<&str> = manifest
        .lines()
        .filter(|line| !line.starts_with("default-members"))
        .map(|line| if line.starts_with("members") { "members = [\"engine\"]" } else { line })
        .collect();
    std::fs::write(home.join("Cargo.toml"), alone.join("\n")).unwrap();
    std::fs::copy(root.join("Cargo.lock"), home.join("Cargo.lock")).unwrap();
    home
}

/// Whether the linter accepts it, and what it says.
fn lint(home: &Path) -> (bool, String) {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["clippy", "--offline", "--quiet", "--", "-D", "warnings"])
        .current_dir(home)
        .env("CARGO_TARGET_DIR", home.join("target"))
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn the_world_planted_in_the_engine_is_refused_by_name() {
    let home = copy_of_the_engine();
    let (passes, said) = lint(&home);
    assert!(passes, "the engine as it is must pass:\n{said}");
    let file = home.join("engine/src/stage.rs");
    let clean = std::fs::read_to_string(&file).unwrap();
    let calls: Vec<String> =
        PLANTED.iter().map(|(call, _)| format!("    let _ = {call};\n")).collect();
    let calls = calls.concat();
    let planted = format!("{clean}\n/// Planted.\npub fn planted() {{\n{calls}}}\n");
    std::fs::write(&file, planted).unwrap();
    let (passes, said) = lint(&home);
    assert!(!passes, "planted impurities were not noticed");
    for (call, ban) in PLANTED {
        let named = said.lines().any(|line| line.contains("disallowed") && line.contains(ban));
        assert!(named, "{call} was not refused by name:\n{said}");
    }
}
