//! The journal's disk, with one duty more: the keys that a batch's personal payloads need are
//! durable before the batch is written.

use std::any::Any;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::journal::disk::{Disk, DiskFile, RealDisk};
use crate::seal::Sealer;

/// The real disk, syncing personal keys before every write.
pub struct KeyedDisk {
    disk: RealDisk,
    sealer: Arc<Sealer>,
}

struct KeyedFile {
    file: Arc<dyn DiskFile>,
    sealer: Arc<Sealer>,
}

impl KeyedDisk {
    /// The journal's folder, and the keys its records are sealed with.
    pub fn open(folder: impl Into<PathBuf>, sealer: Arc<Sealer>) -> io::Result<KeyedDisk> {
        Ok(KeyedDisk { disk: RealDisk::open(folder)?, sealer })
    }

    fn keyed(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(KeyedFile { file, sealer: Arc::clone(&self.sealer) })
    }
}

impl Disk for KeyedDisk {
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.disk.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.keyed(self.disk.create(name, bytes)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.keyed(self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }
}

impl DiskFile for KeyedFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.sealer.sync()?;
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn trim(&self, bytes: u64) -> io::Result<()> {
        self.file.trim(bytes)
    }

    fn drop_cache(&self) {
        self.file.drop_cache();
    }
}
