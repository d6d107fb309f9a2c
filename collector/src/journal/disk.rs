//! What the journal asks of a disk, and the real one.
//!
//! This is the one trait of the collector: its other half is the simulated disk of the tests,
//! which loses, tears and reorders what was not synced.

use std::any::Any;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file that a second process finds locked.
pub const LOCK_NAME: &str = "journal.lock";

/// One directory of files.
pub trait Disk: Send + Sync {
    /// Takes the directory for this process until the guard is dropped; `WouldBlock` when another
    /// one holds it.
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>>;

    /// Names of the files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes an empty file of `bytes` zeros, really allocated where the file system can, so that
    /// a full disk is met here and not in the middle of a commit. Replaces one of that name.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file to read and to trim.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, replacing what had it, at once or not at all.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names themselves durable.
    fn sync_directory(&self) -> io::Result<()>;
}

/// One open file.
pub trait DiskFile: Send + Sync {
    /// Bytes in the file.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset`; `UnexpectedEof` when the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`. Durable only after `sync`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Returns when everything written is durable. After an error nothing is known, and it must
    /// not be tried again: the kernel may have dropped the pages and would answer well.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file.
    fn trim(&self, bytes: u64) -> io::Result<()>;

    /// Forgets cached pages, so that what is read next comes from the disk. A wish.
    fn drop_cache(&self);

    /// Begins to read all of it into the cache, for whoever is about to. A wish.
    fn read_ahead(&self) {}
}

/// A directory of the operating system.
#[derive(Debug)]
pub struct RealDisk {
    directory: PathBuf,
}

impl RealDisk {
    /// Opens the directory, making it and its parents when they are missing.
    pub fn open(directory: impl Into<PathBuf>) -> io::Result<RealDisk> {
        let directory = directory.into();
        fs::create_dir_all(&directory)?;
        if let Some(parent) = directory.parent().filter(|p| !p.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(RealDisk { directory })
    }
}

impl Disk for RealDisk {
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.directory.join(LOCK_NAME))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        names_in(&self.directory)
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.directory.join(name))?;
        allocate(&file, bytes)?;
        Ok(Arc::new(RealFile { file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.directory.join(name);
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(RealFile { file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.directory.join(from), self.directory.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.directory.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

/// A directory that is only looked at: whoever has it may go on, and nothing can be changed.
#[derive(Debug)]
pub struct ReadOnlyDisk {
    directory: PathBuf,
}

impl ReadOnlyDisk {
    /// Of a directory, which need not be there.
    pub fn new(directory: impl Into<PathBuf>) -> ReadOnlyDisk {
        ReadOnlyDisk { directory: directory.into() }
    }
}

impl Disk for ReadOnlyDisk {
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        names_in(&self.directory)
    }

    fn create(&self, _: &str, _: u64) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        // The operating system refuses every write to it.
        Ok(Arc::new(RealFile { file: File::open(self.directory.join(name))? }))
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

fn names_in(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        // A name that is not UTF-8 is not ours.
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}

#[derive(Debug)]
struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn trim(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn drop_cache(&self) {
        forget_pages(&self.file);
    }

    fn read_ahead(&self) {
        ask_for_pages(&self.file);
    }
}

/// Reserves the blocks themselves. Where the file system cannot, only the size is set, and a full
/// disk is met by a write.
#[cfg(target_os = "linux")]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;

    if bytes == 0 {
        return Ok(());
    }
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return file.set_len(bytes),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    file.set_len(bytes)
}

#[cfg(target_os = "linux")]
fn forget_pages(file: &File) {
    use rustix::fs::{Advice, fadvise};

    // Advice may be ignored: what cannot be proven durable is copied in any case.
    let _ = fadvise(file, 0, None, Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn forget_pages(_file: &File) {}

#[cfg(target_os = "linux")]
fn ask_for_pages(file: &File) {
    use rustix::fs::{Advice, fadvise};

    // Whoever is not heard reads at the disk's pace.
    let _ = fadvise(file, 0, None, Advice::WillNeed);
}

#[cfg(not(target_os = "linux"))]
fn ask_for_pages(_file: &File) {}

/// Reads a whole file. The zeros at its end may be cut off meanwhile, beside a process that writes.
pub fn read_all(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    loop {
        let size = file.size()?;
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        match file.read_at(&mut bytes, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && file.size()? < size => {}
            read => return read.map(|()| bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_created_file_has_its_size_in_zeros_and_keeps_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(folder.path().join("a/b")).unwrap();
        let file = disk.create("x", 8_192).unwrap();
        assert_eq!(read_all(file.as_ref()).unwrap(), vec![0; 8_192]);

        file.write_at(b"hello", 100).unwrap();
        file.sync().unwrap();
        file.trim(105).unwrap();
        disk.rename("x", "y").unwrap();
        disk.sync_directory().unwrap();

        assert_eq!(disk.list().unwrap(), ["y"]);
        let bytes = read_all(disk.open("y").unwrap().as_ref()).unwrap();
        assert_eq!(&bytes[100..], b"hello");
    }

    #[test]
    fn a_directory_is_locked_for_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(folder.path()).unwrap();
        let guard = disk.lock().unwrap();
        let refused = disk.lock().expect_err("already locked").kind();
        assert_eq!(refused, io::ErrorKind::WouldBlock);
        drop(guard);
        assert!(disk.lock().is_ok());
    }
}
