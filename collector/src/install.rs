//! The keys of one installation: drawn once, kept in `install.keys` in the data folder, and as
//! old as every id, cookie and alert derived from them. Losing the file makes every visitor new.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use engine::id::Key;

use crate::cookie::CookieKeys;
use crate::ids::Ids;

const FILE: &str = "install.keys";
const NAMES: [&str; 6] = ["install", "identity", "cookie_mac", "cookie_seal", "visitor", "alert"];

/// The keys. Its `Debug` shows none of them.
#[derive(Clone, Copy, Debug)]
pub struct Install {
    /// Names the installation in its journal.
    pub id: Key,
    /// Derives lead ids from identities. Never rotated.
    pub identity: Key,
    /// Signs and seals visitor cookies.
    pub cookie: CookieKeys,
    /// Derives visitor ids from device ids and page nonces.
    pub visitor: Key,
    /// Derives alert ids.
    pub alert: Key,
}

/// Why the keys cannot be had.
#[derive(Debug)]
pub enum InstallError {
    /// The file or folder cannot be read or written.
    Io(PathBuf, io::Error),
    /// The file is there but holds something else.
    Damaged(PathBuf),
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Damaged(path) => write!(
                f,
                "{}: not the keys of an installation; restore it from a backup, since without it \
                 every cookie, lead id and alert id changes",
                path.display()
            ),
        }
    }
}

impl Install {
    /// Reads the keys of a data folder, or draws them if it has none.
    pub fn open(folder: &Path, ids: &Ids) -> Result<Install, InstallError> {
        let path = folder.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => parse(&text).ok_or(InstallError::Damaged(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let keys: [[u8; 16]; NAMES.len()] = std::array::from_fn(|_| ids.bytes());
                write(folder, &path, &keys).map_err(|error| InstallError::Io(path, error))?;
                Ok(Install::of(&keys))
            }
            Err(error) => Err(InstallError::Io(path, error)),
        }
    }

    /// Reads those of a folder that has them; draws none.
    pub fn read(folder: &Path) -> Result<Install, InstallError> {
        let path = folder.join(FILE);
        let text = fs::read_to_string(&path).map_err(|error| InstallError::Io(path.clone(), error));
        parse(&text?).ok_or(InstallError::Damaged(path))
    }

    fn of(keys: &[[u8; 16]; NAMES.len()]) -> Install {
        let [id, identity, mac, seal, visitor, alert] = keys.map(Key);
        let cookie = CookieKeys { id: 1, mac, seal };
        Install { id, identity, cookie, visitor, alert }
    }
}

/// Beside its place, synced, then renamed: a crash leaves no file or a whole one.
fn write(folder: &Path, path: &Path, keys: &[[u8; 16]; NAMES.len()]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let beside = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    for (name, key) in NAMES.iter().zip(keys) {
        writeln!(file, "{name} = {:032x}", u128::from_be_bytes(*key))?;
    }
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

fn parse(text: &str) -> Option<Install> {
    let mut keys = [[0; 16]; NAMES.len()];
    let mut lines = text.lines();
    for (name, key) in NAMES.iter().zip(&mut keys) {
        let hex = lines.next()?.strip_prefix(name)?.strip_prefix(" = ")?;
        if hex.len() != 32 {
            return None;
        }
        *key = u128::from_str_radix(hex, 16).ok()?.to_be_bytes();
    }
    lines.next().is_none().then(|| Install::of(&keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_drawn_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = Install::open(folder.path(), &Ids::default()).unwrap();
        let second = Install::open(folder.path(), &Ids::default()).unwrap();
        assert_eq!(first.identity.0, second.identity.0);
        assert_eq!(first.cookie.mac.0, second.cookie.mac.0);
        assert_ne!(first.identity.0, first.alert.0);
    }

    #[test]
    fn a_damaged_file_is_refused_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        Install::open(folder.path(), &Ids::default()).unwrap();
        let path = folder.path().join(FILE);
        fs::write(&path, "install = 12").unwrap();
        let refused = Install::open(folder.path(), &Ids::default());
        assert!(matches!(refused, Err(InstallError::Damaged(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "install = 12");
    }
}
