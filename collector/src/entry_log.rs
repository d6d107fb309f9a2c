//! A log of entries of one size that is only added to: `body | CRC32C of it (4, little endian)`.
//! The keys of people and who was erased are kept so.
//!
//! An entry that does not match is passed over, and those behind it still count: each is somebody
//! else's. What stands behind the last sound one was never finished, and is cut off when the log
//! is opened.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

const CHECKSUM_BYTES: usize = 4;

/// What stands in a log whose bodies have `B` bytes.
pub struct Found<const B: usize> {
    /// The entries that match, in their order.
    pub bodies: Vec<[u8; B]>,
    /// Bytes up to the end of the last of them.
    pub valid: usize,
    /// Bytes there are.
    pub bytes: usize,
    /// Where the first one stands that does not match and that no crash leaves: one is left short,
    /// or as zeros in a file that grew before it was written.
    pub damaged: Option<usize>,
}

/// Reads one; where no file is, nothing stands.
pub fn read<const B: usize>(path: &Path) -> io::Result<Found<B>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(found(&[])),
        read => Ok(found(&read?)),
    }
}

/// Opens one to add to it, and cuts off what was never finished. Says damage aloud.
pub fn open<const B: usize>(path: &Path) -> io::Result<(File, Found<B>)> {
    let mut file = appended(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let found = found(&bytes);
    if let Some(offset) = found.damaged {
        tracing::error!(file = %path.display(), offset, "an entry is damaged; the others count");
    }
    file.set_len(found.valid as u64)?;
    Ok((file, found))
}

fn found<const B: usize>(bytes: &[u8]) -> Found<B> {
    let size = B + CHECKSUM_BYTES;
    let mut found = Found { bodies: Vec::new(), valid: 0, bytes: bytes.len(), damaged: None };
    for (number, entry) in bytes.chunks_exact(size).enumerate() {
        if let Some(body) = body_of(entry) {
            found.bodies.push(body);
            found.valid = (number + 1) * size;
        } else if entry.iter().any(|byte| *byte != 0) {
            found.damaged.get_or_insert(number * size);
        }
    }
    found
}

fn body_of<const B: usize>(entry: &[u8]) -> Option<[u8; B]> {
    let (body, checksum) = entry.split_first_chunk::<B>()?;
    (crc32c::crc32c(body).to_le_bytes() == checksum).then_some(*body)
}

/// The bytes of an entry.
pub fn entry(body: &[u8]) -> Vec<u8> {
    let mut entry = body.to_vec();
    entry.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    entry
}

/// Opens a file of secrets to read and to append.
pub fn appended(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_entry_takes_no_other_with_it_and_an_unfinished_one_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let whole: Vec<u8> = (1..=4_u8).flat_map(|number| entry(&[number; 8])).collect();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            fs::write(&path, &bytes).unwrap();
            let (_, found) = open::<8>(&path).unwrap();
            let hit = at / 12;
            let expected = (0..4).filter(|it| *it != hit).map(|it| [it as u8 + 1; 8]);
            assert_eq!(found.bodies, expected.collect::<Vec<_>>(), "byte {at}");
            assert_eq!(found.damaged, Some(hit * 12));
            // Only what stands behind the last sound one goes.
            let left = if hit == 3 { 36 } else { 48 };
            assert_eq!(fs::metadata(&path).unwrap().len(), left);
        }
        for end in [vec![1; 7], vec![0; 30]] {
            fs::write(&path, [&whole[..], &end].concat()).unwrap();
            let (_, found) = open::<8>(&path).unwrap();
            assert_eq!((found.bodies.len(), found.valid, found.damaged), (4, 48, None));
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
        assert_eq!(read::<8>(&folder.path().join("none")).unwrap().bytes, 0);
    }
}
