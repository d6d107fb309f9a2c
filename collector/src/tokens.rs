//! Who may use the admin side: whoever has a token, as far as its role allows. The data folder
//! holds only their hashes; a new one is made with `mikomi token`, and the one printed at the start
//! works once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ring::digest::{SHA256, digest};

use crate::ids::Ids;

const FILE: &str = "admin.tokens";

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// To read the feed of alerts, and nothing else: for a system that pulls.
    Alerts,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 2] = [Role::Admin, Role::Alerts];

    /// The name on the command line and in the file of tokens.
    pub fn name(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Alerts => "alerts",
        }
    }

    /// Reads a name.
    pub fn parse(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// The tokens of one data folder.
pub struct Tokens {
    path: PathBuf,
    known: Mutex<BTreeMap<String, Role>>,
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

    /// What a token allows; nothing, if it is not known. It may have been made a moment ago.
    pub fn role(&self, token: &str) -> Option<Role> {
        let hashed = hash(token);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains_key(&hashed) {
            *known = read(&self.path);
        }
        known.get(&hashed).copied()
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
        create(folder, ids, Role::Admin).map(Some)
    }
}

/// Makes a token for a data folder; it is printed once and kept as a hash.
pub fn create(folder: &Path, ids: &Ids, role: Role) -> io::Result<String> {
    let token = draw(ids);
    let mut options = fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(folder.join(FILE))?;
    // An admin's stands alone, as it did before there were roles.
    let named = if role == Role::Admin { String::new() } else { format!(" {}", role.name()) };
    writeln!(file, "{}{named}", hash(&token))?;
    file.sync_data()?;
    Ok(token)
}

/// The lines of a data folder's tokens that are none, from 1.
pub fn strange_lines(folder: &Path) -> io::Result<Vec<usize>> {
    let text = match fs::read_to_string(folder.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let fine = |line: &str| {
        let (hash, role) = line.split_once(' ').unwrap_or((line, Role::Admin.name()));
        let digit = |it: u8| it.is_ascii_digit() || (b'a'..=b'f').contains(&it);
        hash.len() == 64 && hash.bytes().all(digit) && Role::parse(role).is_some()
    };
    let lines = text.lines().enumerate().filter(|(_, line)| !fine(line));
    Ok(lines.map(|(at, _)| at + 1).collect())
}

fn read(path: &Path) -> BTreeMap<String, Role> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let token = |line: &str| {
        let (hash, role) = line.split_once(' ').unwrap_or((line, Role::Admin.name()));
        // Of a role of a later version nothing is known, so nothing is allowed.
        Some((hash.to_owned(), Role::parse(role)?)).filter(|(hash, _)| hash.len() == 64)
    };
    text.lines().filter_map(token).collect()
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
        assert_eq!(tokens.role(&once), None);
        let token = tokens.exchange(&once, &ids).unwrap().unwrap();
        assert_eq!(tokens.role(&token), Some(Role::Admin));
        assert_eq!(tokens.exchange(&once, &ids).unwrap(), None);
        let (again, _) = Tokens::open(folder.path(), &ids);
        assert_eq!((again.role(&token), again.role("mk_0")), (Some(Role::Admin), None));
        let kept = fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert!(!kept.contains(&token));
    }

    #[test]
    fn a_token_made_by_another_process_works_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (tokens, _) = Tokens::open(folder.path(), &Ids::default());
        let token = create(folder.path(), &Ids::default(), Role::Admin).unwrap();
        assert_eq!(tokens.role(&token), Some(Role::Admin));
    }

    #[test]
    fn a_token_allows_what_its_role_says_and_one_of_an_unknown_role_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let made = Role::ALL.map(|role| create(folder.path(), &Ids::default(), role).unwrap());
        let path = folder.path().join(FILE);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{} owner\n", hash("mk_1"))).unwrap();
        let (tokens, _) = Tokens::open(folder.path(), &Ids::default());
        assert_eq!(made.map(|token| tokens.role(&token)), Role::ALL.map(Some));
        assert_eq!(tokens.role("mk_1"), None);
    }
}
