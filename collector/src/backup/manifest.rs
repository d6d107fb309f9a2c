//! The list of what is in a backup, with sizes and hashes, and a hash of itself.

use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path};

use engine::id::Position;
use engine::time::Timestamp;
use ring::digest::{Context, SHA256, digest};

/// Its name in the backup.
pub(super) const FILE: &str = "manifest";
const TITLE: &str = "mikomi backup 1";
/// Bytes of the longest one that is read: some hundred thousand files.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What is in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// The last record.
    pub(super) until: Position,
    /// The journal's incarnation.
    pub(super) incarnation: u32,
    /// When it was begun.
    pub(super) created: Timestamp,
    /// The files.
    pub(super) entries: Vec<Entry>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its path within the backup.
    pub(super) path: String,
    /// Its bytes.
    pub(super) bytes: u64,
    /// SHA-256 of them, in hex.
    pub(super) hash: String,
}

/// Why a manifest is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestFault {
    /// There is none: this is no backup, or not a whole one.
    Missing,
    /// It cannot be read.
    Disk(io::ErrorKind),
    /// A newer program wrote it.
    Version,
    /// Its own hash does not match, or a line is not of its form.
    Damaged,
}

impl fmt::Display for ManifestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is none: this is no backup, or not a whole one"),
            Self::Disk(kind) => write!(f, "the manifest cannot be read: {kind}"),
            Self::Version => f.write_str("a newer program wrote this manifest"),
            Self::Damaged => f.write_str("the manifest is damaged"),
        }
    }
}

impl Manifest {
    /// Its text, as FORMAT.md lays it out.
    pub(super) fn text(&self) -> String {
        let Manifest { until, incarnation, created, entries } = self;
        let mut text = format!(
            "{TITLE}\nuntil {}\nincarnation {incarnation}\ncreated {}\n",
            until.0, created.0
        );
        for Entry { path, bytes, hash } in entries {
            // Writing into a string does not fail.
            let _ = writeln!(text, "file {hash} {bytes} {path}");
        }
        let _ = writeln!(text, "end {}", hex(digest(&SHA256, text.as_bytes()).as_ref()));
        text
    }

    /// That of a backup.
    pub(super) fn read(folder: &Path) -> Result<Manifest, ManifestFault> {
        let mut text = String::new();
        let opened = File::open(folder.join(FILE));
        let read = opened.and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text));
        match read {
            Ok(_) => Manifest::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ManifestFault::Missing),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(ManifestFault::Damaged),
            Err(error) => Err(ManifestFault::Disk(error.kind())),
        }
    }

    fn parse(text: &str) -> Result<Manifest, ManifestFault> {
        if text.starts_with("mikomi backup ") && !text.starts_with(&format!("{TITLE}\n")) {
            return Err(ManifestFault::Version);
        }
        Manifest::parts(text).ok_or(ManifestFault::Damaged)
    }

    fn parts(text: &str) -> Option<Manifest> {
        let (body, end) = text.strip_suffix('\n')?.rsplit_once('\n')?;
        let body = format!("{body}\n");
        if end.strip_prefix("end ")? != hex(digest(&SHA256, body.as_bytes()).as_ref()) {
            return None;
        }
        let mut lines = body.lines().skip(1);
        let mut number = |word: &str| lines.next()?.strip_prefix(word)?.parse::<u64>().ok();
        let (until, incarnation, created) =
            (number("until ")?, number("incarnation ")?, number("created ")?);
        let entry = |line: &str| {
            let mut words = line.strip_prefix("file ")?.splitn(3, ' ');
            let (hash, bytes, path) = (words.next()?, words.next()?, words.next()?);
            // Nothing outside of the folder is read or written.
            let mut parts = Path::new(path).components();
            let inside = !path.is_empty() && parts.all(|it| matches!(it, Component::Normal(_)));
            let bytes = bytes.parse().ok()?;
            inside.then(|| Entry { path: path.to_owned(), bytes, hash: hash.to_owned() })
        };
        Some(Manifest {
            until: Position(until),
            incarnation: u32::try_from(incarnation).ok()?,
            created: Timestamp(created),
            entries: lines.map(entry).collect::<Option<_>>()?,
        })
    }
}

/// Bytes and hash of a file.
pub(super) fn hash_file(path: &Path) -> io::Result<(u64, String)> {
    let mut file = fs::File::open(path)?;
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; super::COPY_BYTES];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((bytes, hex(hash.finish().as_ref()))),
            read => {
                hash.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_back_and_no_changed_letter_of_it_does() {
        let manifest = Manifest {
            until: Position(77),
            incarnation: 2,
            created: Timestamp(1_796_947_200_000),
            entries: vec![Entry {
                path: "journal/segment-0000000000000001.log".into(),
                bytes: 4_096,
                hash: hex(digest(&SHA256, b"x").as_ref()),
            }],
        };
        let text = manifest.text();
        assert_eq!(Manifest::parse(&text), Ok(manifest));
        for at in 0..text.len() {
            let mut edited = text.clone().into_bytes();
            edited[at] ^= 1;
            let edited = String::from_utf8(edited).unwrap();
            assert!(Manifest::parse(&edited).is_err(), "byte {at}");
            assert!(Manifest::parse(&text[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_path_out_of_the_backup_is_refused() {
        for path in ["../x", "/etc/passwd", "keys/../../x", ""] {
            let manifest = Manifest {
                until: Position(1),
                incarnation: 1,
                created: Timestamp(0),
                entries: vec![Entry { path: path.into(), bytes: 0, hash: String::new() }],
            };
            let read = Manifest::parse(&manifest.text());
            assert_eq!(read, Err(ManifestFault::Damaged), "{path:?}");
        }
    }
}
