//! Erasures: who was erased, and when, apart from the journal in
//! `keys/erased.log`. An older copy of the data that is put back does not know them; what stands
//! here is done again before anybody is let in.
//!
//! An entry is `lead (8) | time in ms (8) | CRC32C of the 16 bytes (4)`, little endian.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use engine::id::LeadId;
use engine::time::Timestamp;

use crate::entry_log::{self, Found};

/// Of an entry: a lead, and when.
pub const BODY_BYTES: usize = 16;
const ENTRY_BYTES: usize = BODY_BYTES + 4;

/// Those of a data folder, to be added to.
pub struct Erasures {
    path: PathBuf,
    /// When each name was erased last.
    erased: BTreeMap<LeadId, Timestamp>,
}

impl Erasures {
    /// Opens their log; a folder without one has none. A torn last entry is cut off: what it
    /// tells is in the journal.
    pub fn open(folder: &Path) -> io::Result<Erasures> {
        let path = log_of(folder);
        let folder = folder.join("keys");
        fs::create_dir_all(&folder)?;
        let (file, found) = entry_log::open(&path)?;
        let mut erasures = Erasures { path, erased: BTreeMap::new() };
        for (lead, time) in found.bodies.iter().map(erasure_of) {
            erasures.note(lead, time);
        }
        file.sync_all()?;
        File::open(&folder)?.sync_all()?;
        Ok(erasures)
    }

    /// When each name was erased last.
    pub fn erased(&self) -> &BTreeMap<LeadId, Timestamp> {
        &self.erased
    }

    /// Whether it tells of an erasure at this time or later.
    pub fn knows(&self, lead: LeadId, time: Timestamp) -> bool {
        self.erased.get(&lead).is_some_and(|known| *known >= time)
    }

    /// Adds names that were erased, durably. What it knows already is not added again.
    pub fn add(&mut self, leads: &[LeadId], time: Timestamp) -> io::Result<()> {
        let new: Vec<LeadId> =
            leads.iter().copied().filter(|lead| !self.knows(*lead, time)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let mut file = entry_log::appended(&self.path)?;
        // After a write that failed half an entry may stand there.
        file.set_len(file.metadata()?.len() / ENTRY_BYTES as u64 * ENTRY_BYTES as u64)?;
        let bytes: Vec<u8> = new.iter().flat_map(|lead| entry_of(*lead, time)).collect();
        file.write_all(&bytes)?;
        file.sync_all()?;
        for lead in new {
            self.note(lead, time);
        }
        Ok(())
    }

    fn note(&mut self, lead: LeadId, time: Timestamp) {
        let known = self.erased.entry(lead).or_default();
        *known = time.max(*known);
    }
}

/// The bytes of an entry.
pub fn entry_of(lead: LeadId, time: Timestamp) -> Vec<u8> {
    entry_log::entry(&[lead.0.to_le_bytes(), time.0.to_le_bytes()].concat())
}

fn erasure_of(body: &[u8; BODY_BYTES]) -> (LeadId, Timestamp) {
    let (mut lead, mut time) = ([0; 8], [0; 8]);
    lead.copy_from_slice(&body[..8]);
    time.copy_from_slice(&body[8..]);
    (LeadId(u64::from_le_bytes(lead)), Timestamp(u64::from_le_bytes(time)))
}

/// Who was erased by the log of a data folder that is only looked at, and the log itself.
pub fn read(folder: &Path) -> io::Result<(BTreeMap<LeadId, Timestamp>, Found<BODY_BYTES>)> {
    let found = entry_log::read(&log_of(folder))?;
    let mut erasures = Erasures { path: PathBuf::new(), erased: BTreeMap::new() };
    for (lead, time) in found.bodies.iter().map(erasure_of) {
        erasures.note(lead, time);
    }
    Ok((erasures.erased, found))
}

fn log_of(folder: &Path) -> PathBuf {
    folder.join("keys").join("erased.log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_there_after_a_restart_and_a_torn_entry_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut erasures = Erasures::open(folder.path()).unwrap();
        erasures.add(&[LeadId(1), LeadId(2)], Timestamp(50)).unwrap();
        erasures.add(&[LeadId(2)], Timestamp(40)).unwrap();
        erasures.add(&[LeadId(2)], Timestamp(90)).unwrap();
        let path = folder.path().join("keys/erased.log");
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 3 * ENTRY_BYTES, "what it knows is not added again");
        let erasures = Erasures::open(folder.path()).unwrap();
        assert!(
            erasures.knows(LeadId(1), Timestamp(50)) && !erasures.knows(LeadId(1), Timestamp(51))
        );
        assert!(erasures.knows(LeadId(2), Timestamp(90)));
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let mut erasures = Erasures::open(folder.path()).unwrap();
        assert!(!erasures.knows(LeadId(2), Timestamp(90)), "torn");
        erasures.add(&[LeadId(3)], Timestamp(60)).unwrap();
        let erasures = Erasures::open(folder.path()).unwrap();
        assert_eq!(erasures.erased().len(), 3);
        assert!(erasures.knows(LeadId(3), Timestamp(60)));
    }
}
