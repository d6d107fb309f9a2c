//! A copy of a data folder, taken beside a server that runs, and its way back.
//!
//! Snapshots are copied first, then segments, then the keys of people: so the journal has
//! everything that a snapshot knows of, and there is a key for everything in the journal. The
//! copy is read through before it gets its name, which comes last and at once: what has the name
//! of a backup is a whole one.

mod manifest;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use engine::id::{LeadId, Position};
use engine::time::Timestamp;

use crate::clock::Clock;
use crate::erasures::{self, Erasures};
use crate::install::Install;
use crate::journal::scan::{Finding, Seen};
use crate::journal::segment::{HEADER_BYTES, decode_frame};
use crate::past::{Past, PastError, is_damage};

pub use self::manifest::ManifestFault;
use self::manifest::{Entry, FILE as MANIFEST, Manifest, hash_file};

/// The mark in a data folder that was put back: its first start begins an incarnation.
pub const RESTORED: &str = "restored";
/// How often a backup is begun anew: a copy that was read while it was written may hold the end of
/// the journal in part.
const TRIES: usize = 3;
/// Bytes copied at a time.
const COPY_BYTES: usize = 1 << 20;
/// Files of the data folder itself; the first must be there.
const ROOT_FILES: [&str; 2] = ["install.keys", "admin.tokens"];

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The last record.
    pub until: Position,
    /// The incarnation of the journal.
    pub incarnation: u32,
    /// Erasures that came from another folder.
    pub erasures: usize,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// Why there is no backup, or none was put back.
#[derive(Debug)]
pub enum BackupError {
    /// The folder to write to has something in it.
    NotEmpty(PathBuf),
    /// The data folder cannot be read.
    Past(PastError),
    /// What was copied is damaged, every time: so is what it was copied from.
    Damaged(Finding),
    /// Another installation's folder: what it knows of erasures is about others.
    OtherInstall(PathBuf),
    /// The manifest is missing or damaged.
    Manifest(PathBuf, ManifestFault),
    /// A file of the backup is missing.
    Missing(PathBuf),
    /// A file of the backup has other bytes than the manifest says.
    Differs(PathBuf),
    /// The disk answered with an error.
    Disk(PathBuf, io::Error),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEmpty(path) => {
                write!(f, "{} is not empty: nothing is written over", path.display())
            }
            Self::Past(error) => error.fmt(f),
            Self::Damaged(Finding { name, file, offset, about, .. }) => write!(
                f,
                "the journal is damaged, so there is no backup of it: {name} in {file} at byte {}: \
                 {about}",
                offset.unwrap_or_default()
            ),
            Self::OtherInstall(path) => write!(f, "{}: another installation's", path.display()),
            Self::Manifest(path, fault) => write!(f, "{}: {fault}", path.display()),
            Self::Missing(path) => write!(f, "{}: the backup lacks it", path.display()),
            Self::Differs(path) => {
                write!(f, "{}: it is damaged, the manifest has another hash", path.display())
            }
            Self::Disk(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl From<PastError> for BackupError {
    fn from(error: PastError) -> BackupError {
        BackupError::Past(error)
    }
}

fn disk(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |error| BackupError::Disk(path, error)
}

/// Copies a data folder to a folder that is empty or not there.
pub fn backup(data: &Path, to: &Path) -> Result<Copied, BackupError> {
    let clock = Clock::system();
    let began = clock.boot_ms();
    refuse_full(to)?;
    let beside = beside(to, "backup.new");
    let mut taken = copy_once(data, &beside, &clock);
    for _ in 1..TRIES {
        if !matches!(taken, Err(BackupError::Damaged(_) | BackupError::Past(PastError::NoBase(_))))
        {
            break;
        }
        taken = copy_once(data, &beside, &clock);
    }
    let named = taken.and_then(|copied| {
        name_it(&beside, to)?;
        Ok(Copied { took_ms: clock.boot_ms() - began, ..copied })
    });
    tidied(named, &beside)
}

fn copy_once(data: &Path, to: &Path, clock: &Clock) -> Result<Copied, BackupError> {
    empty(to)?;
    Copying { data, to, entries: Vec::new() }.run(clock)
}

/// What came to nothing leaves nothing personal behind.
fn tidied<T>(done: Result<T, BackupError>, folder: &Path) -> Result<T, BackupError> {
    if done.is_err() {
        let _ = fs::remove_dir_all(folder);
    }
    done
}

/// Puts a backup back into a data folder that is empty or not there.
pub fn restore(
    from: &Path,
    data: &Path,
    erasures_from: Option<&Path>,
) -> Result<Copied, BackupError> {
    let clock = Clock::system();
    let began = clock.boot_ms();
    refuse_full(data)?;
    let manifest =
        Manifest::read(from).map_err(|fault| BackupError::Manifest(from.join(MANIFEST), fault))?;
    let beside = beside(data, "restore.new");
    let restored = put_back(from, &manifest, &beside, erasures_from).and_then(|copied| {
        name_it(&beside, data)?;
        Ok(Copied { took_ms: clock.boot_ms() - began, ..copied })
    });
    tidied(restored, &beside)
}

/// Copies and checks what a manifest lists.
fn put_back(
    from: &Path,
    manifest: &Manifest,
    to: &Path,
    erasures_from: Option<&Path>,
) -> Result<Copied, BackupError> {
    empty(to)?;
    let mut copied =
        Copied { until: manifest.until, incarnation: manifest.incarnation, ..Copied::default() };
    for entry in &manifest.entries {
        let (source, target) = (from.join(&entry.path), to.join(&entry.path));
        if !source.is_file() {
            return Err(BackupError::Missing(source));
        }
        make_parent(&target)?;
        let done = copy_file(&source, &target, None).map_err(disk(&source))?;
        if (done.bytes, &done.hash) != (entry.bytes, &entry.hash) {
            return Err(BackupError::Differs(source));
        }
        copied.files += 1;
        copied.bytes += entry.bytes;
    }
    if let Some(old) = erasures_from {
        copied.erasures = merge_erasures(old, to)?;
    }
    let mark = to.join(RESTORED);
    let text = format!("until = {}\nincarnation = {}\n", manifest.until.0, manifest.incarnation);
    write_file(&mark, text.as_bytes()).map_err(disk(&mark))?;
    Ok(copied)
}

/// Whether a data folder was put back and not started since.
pub fn is_restored(data: &Path) -> bool {
    data.join(RESTORED).exists()
}

/// The journal has begun its incarnation: the mark goes. A crash before that begins another one.
pub fn begun(data: &Path) -> io::Result<()> {
    fs::remove_file(data.join(RESTORED))?;
    File::open(data)?.sync_all()
}

/// One attempt at a copy.
struct Copying<'a> {
    data: &'a Path,
    to: &'a Path,
    entries: Vec<Entry>,
}

impl Copying<'_> {
    fn run(mut self, clock: &Clock) -> Result<Copied, BackupError> {
        let created = clock.now();
        for name in names(&self.data.join("snapshots"))? {
            if name.strip_suffix(".snap").is_some() {
                self.copy(&format!("snapshots/{name}"), None)?;
            }
        }
        for name in names(&self.data.join("journal"))? {
            if name.starts_with("segment-") && name.strip_suffix(".log").is_some() {
                self.copy(&format!("journal/{name}"), Some(trimmed))?;
            } else if name.starts_with("accepted-") && name.strip_suffix(".new").is_none() {
                self.copy(&format!("journal/{name}"), None)?;
            }
        }
        self.copy("keys/subjects.log", None)?;
        for name in ROOT_FILES {
            self.copy(name, None)?;
        }
        // What was erased meanwhile is erased in the copy too, whatever key that still has.
        self.copy("keys/erased.log", None)?;
        let past = Past::open(self.to)?;
        let mut damage = None;
        let scanned = past.scan(&mut |seen| {
            if let Seen::Wrong(finding) = seen
                && is_damage(&finding)
            {
                damage.get_or_insert(finding);
            }
        })?;
        if let Some(finding) = damage {
            return Err(BackupError::Damaged(finding));
        }
        // The beginning may have been removed meanwhile, after the base of before was copied.
        // And it is a part of the data: what is damaged in it no other file of the copy has.
        if let Some(base) = past.base()? {
            base.verify(None).map_err(|fault| PastError::NoBase(Some(fault)))?;
        }
        let copied = Copied {
            files: self.entries.len(),
            bytes: self.entries.iter().map(|entry| entry.bytes).sum(),
            until: scanned.last,
            incarnation: scanned.incarnation,
            ..Copied::default()
        };
        let manifest = Manifest {
            until: scanned.last,
            incarnation: scanned.incarnation,
            created,
            entries: self.entries,
        };
        let path = self.to.join(MANIFEST);
        write_file(&path, manifest.text().as_bytes()).map_err(disk(&path))?;
        Ok(copied)
    }

    /// Copies a file, if it is there: a snapshot may go meanwhile, and not every folder has all.
    fn copy(&mut self, path: &str, length: Option<Length>) -> Result<(), BackupError> {
        let (source, target) = (self.data.join(path), self.to.join(path));
        make_parent(&target)?;
        match copy_file(&source, &target, length) {
            Ok(done) => {
                self.entries.push(Entry { path: path.to_owned(), ..done });
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(BackupError::Disk(source, error)),
        }
    }
}

/// How many bytes of a file are worth copying.
type Length = fn(&[u8]) -> usize;

/// A segment without the zeros that it was allocated with. Batches may end with zeros of their own:
/// each is as long as it says.
fn trimmed(bytes: &[u8]) -> usize {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    let mut end = HEADER_BYTES.min(bytes.len());
    while end < used
        && let Ok(frame) = decode_frame(&bytes[end..], bytes.len() - end)
    {
        end += frame.size;
    }
    used.max(end)
}

fn copy_file(source: &Path, target: &Path, length: Option<Length>) -> io::Result<Entry> {
    let mut from = File::open(source)?;
    let mut to = private(target)?;
    if let Some(length) = length {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        to.write_all(&bytes[..length(&bytes)])?;
    } else {
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            match from.read(&mut buffer)? {
                0 => break,
                read => to.write_all(&buffer[..read])?,
            }
        }
    }
    to.sync_all()?;
    // Of the copy, not of what it was made from.
    let (bytes, hash) = hash_file(target)?;
    Ok(Entry { path: String::new(), bytes, hash })
}

fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = private(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn names(folder: &Path) -> Result<Vec<String>, BackupError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(disk(folder))?,
    };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}

fn refuse_full(folder: &Path) -> Result<(), BackupError> {
    match fs::read_dir(folder) {
        Ok(mut entries) => {
            let full = entries.next().is_some();
            if full { Err(BackupError::NotEmpty(folder.to_owned())) } else { Ok(()) }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(BackupError::Disk(folder.to_owned(), error)),
    }
}

/// `NAME.what`, on the same disk as `NAME`.
fn beside(folder: &Path, what: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{what}"));
    folder.with_file_name(name)
}

/// An empty folder, without what an attempt that was cut off has left there.
fn empty(folder: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk(folder)(error))?,
        _ => {}
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(disk(folder))
}

fn make_parent(path: &Path) -> Result<(), BackupError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(disk(parent))
}

/// Makes the names in it durable, and then gives the folder its own.
fn name_it(folder: &Path, to: &Path) -> Result<(), BackupError> {
    for inner in ["journal", "keys", "snapshots", ""] {
        let path = folder.join(inner);
        if path.exists() {
            File::open(&path).and_then(|it| it.sync_all()).map_err(disk(&path))?;
        }
    }
    fs::rename(folder, to).map_err(disk(to))?;
    let parent = to.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|it| it.sync_all()).map_err(disk(parent))
}

/// Adds to a folder's log of erasures what another one's of the same installation tells besides.
fn merge_erasures(old: &Path, data: &Path) -> Result<usize, BackupError> {
    let installed = |folder: &Path| Install::read(folder).map_err(PastError::Install);
    if installed(old)?.id.0 != installed(data)?.id.0 {
        return Err(BackupError::OtherInstall(old.to_owned()));
    }
    let (erased, _) = erasures::read(old).map_err(disk(&old.join("keys")))?;
    let mut known = Erasures::open(data).map_err(disk(&data.join("keys")))?;
    let new = erased.into_iter().filter(|(lead, time)| !known.knows(*lead, *time));
    let new: Vec<(LeadId, Timestamp)> = new.collect();
    for (lead, time) in &new {
        known.add(&[*lead], *time).map_err(disk(&data.join("keys")))?;
    }
    Ok(new.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::segment::Group;

    #[test]
    fn a_batch_that_ends_with_zeros_is_copied_whole_and_the_empty_rest_of_a_segment_is_not() {
        for zeros in 0..40 {
            let mut segment = vec![1; HEADER_BYTES];
            for position in 1..3 {
                let mut group = Group::new(Position(position), Vec::new());
                group.push(&[vec![7], vec![0; zeros]].concat());
                segment.extend_from_slice(group.finish(0, Position(0), 0).bytes());
            }
            let whole = segment.len();
            segment.resize(whole + 4_096, 0);
            assert_eq!(trimmed(&segment), whole, "{zeros} zeros");
        }
        assert_eq!(trimmed(&[0; 100]), HEADER_BYTES, "nothing is in it yet");
        assert_eq!(trimmed(&[]), 0);
    }
}
