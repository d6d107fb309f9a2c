//! Who may use the admin side: whoever has a token. The data folder holds only their hashes; a
//! new one is made with `mikomi token`, and the one printed at the start works once.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ring::digest::{SHA256, digest};

use crate::ids::Ids;

const FILE: &str = "admin.tokens";

/// The tokens of one data folder.
pub struct Tokens {
    path: PathBuf,
    known: Mutex<BTreeSet<String>>,
    once: Mutex<Option<String>>,
}

impl Tokens {
    /// Those of a data folder, and one that works once, to be printed.
    pub fn open(folder: &Path, ids: &Ids) -> (Tokens, String) {
        let once = draw(ids);
        let path = folder.join(FILE);
        let known = Mutex::new(read(&path));
        (Tokens { path, known, once: Mutex::new(Some(hash(&once))) }, once)
    }

    /// Whether a token is good. An unknown one may have been made a moment ago.
    pub fn allow(&self, token: &str) -> bool {
        let hashed = hash(token);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(&hashed) {
            *known = read(&self.path);
        }
        known.contains(&hashed)
    }

    /// Takes the token that works once for a lasting one.
    pub fn exchange(&self, once: &str, ids: &Ids) -> io::Result<Option<String>> {
        let mut expected = self.once.lock().unwrap_or_else(PoisonError::into_inner);
        if expected.as_deref() != Some(&hash(once)) {
            return Ok(None);
        }
        *expected = None;
        drop(expected);
        let folder = self.path.parent().unwrap_or(Path::new("."));
        create(folder, ids).map(Some)
    }
}

/// Makes a token for a data folder; it is printed once and kept as a hash.
pub fn create(folder: &Path, ids: &Ids) -> io::Result<String> {
    let token = draw(ids);
    let mut options = fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(folder.join(FILE))?;
    writeln!(file, "{}", hash(&token))?;
    file.sync_data()?;
    Ok(token)
}

fn read(path: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).filter(|line| line.len() == 64).collect()
}

fn draw(ids: &Ids) -> String {
    format!("mk_{:032x}", u128::from_le_bytes(ids.bytes()))
}

// Tokens are compared by their hashes, so timing tells nothing about a token.
fn hash(token: &str) -> String {
    let mut text = String::with_capacity(64);
    for byte in digest(&SHA256, token.as_bytes()).as_ref() {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_token_works_once_and_gives_one_that_lasts() {
        let folder = tempfile::tempdir().unwrap();
        let ids = Ids::default();
        let (tokens, once) = Tokens::open(folder.path(), &ids);
        assert!(!tokens.allow(&once));
        let token = tokens.exchange(&once, &ids).unwrap().unwrap();
        assert!(tokens.allow(&token));
        assert_eq!(tokens.exchange(&once, &ids).unwrap(), None);
        let (again, _) = Tokens::open(folder.path(), &ids);
        assert!(again.allow(&token) && !again.allow("mk_0"));
        let kept = fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert!(!kept.contains(&token));
    }

    #[test]
    fn a_token_made_by_another_process_works_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (tokens, _) = Tokens::open(folder.path(), &Ids::default());
        let token = create(folder.path(), &Ids::default()).unwrap();
        assert!(tokens.allow(&token));
    }
}
