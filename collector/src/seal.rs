//! Personal payloads are sealed under a key per person, kept apart from the journal in
//! `keys/subjects.log`. Dropping a person's key makes every copy of what it sealed unreadable.
//!
//! Who is erased has no key any more: the log is written anew without it, beside the old one, and
//! takes its place at once. Until all that erases them is done nothing is sealed for them: a new
//! key would be dropped with the old one by a start that goes on with it.
//!
//! A sealed payload is `1 | nonce (12) | ChaCha20-Poly1305 of the payload`, the person's lead id
//! being authenticated beside it. A key log entry is `lead (8) | key (32) | CRC32C (4)`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::attribute::Attributes;
use engine::id::LeadId;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::entry_log;
use crate::ids::Ids;
use crate::journal::committer::is_no_space;

const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 12;
/// Of an entry of the key log: a lead and their key.
const BODY_BYTES: usize = 8 + 32;
const ENTRY_BYTES: usize = BODY_BYTES + 4;

/// Seals and unseals.
pub struct Sealer {
    log: Mutex<KeyLog>,
    ids: Ids,
    /// `keys` in the data folder.
    folder: PathBuf,
}

/// The key log's name.
const LOG: &str = "subjects.log";
/// What it is called while it is written anew. One that is found at the start is void.
const NEW: &str = "subjects.log.new";

struct KeyLog {
    file: File,
    keys: BTreeMap<LeadId, [u8; 32]>,
    /// Leads that are being erased: nothing is sealed for them until their keys are gone.
    closing: BTreeSet<LeadId>,
    /// Of whole entries.
    bytes: u64,
    /// Entries written and not synced yet.
    dirty: bool,
    /// A write or sync failed: no key may be used any more.
    failed: bool,
}

/// Why nothing could be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// The disk has no space for a new key. Ends by itself when it has some.
    DiskFull,
    /// The person is being erased. Ends by itself when all that erases them is done.
    Erasing,
    /// The log of personal keys failed; it is trusted again after a restart only.
    Failed,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DiskFull => "the disk has no space for a personal key",
            Self::Erasing => "the person is being erased",
            Self::Failed => "the log of personal keys cannot be written",
        })
    }
}

impl Sealer {
    /// Opens the key log of a data folder. A torn last entry was never used by anything durable.
    pub fn open(folder: &Path) -> io::Result<Sealer> {
        let folder = folder.join("keys");
        fs::create_dir_all(&folder)?;
        if let Err(error) = fs::remove_file(folder.join(NEW))
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let (file, found) = entry_log::open(&folder.join(LOG))?;
        File::open(&folder)?.sync_all()?;
        let (keys, bytes) = (found.bodies.iter().map(key_of).collect(), found.valid as u64);
        let closing = BTreeSet::new();
        let log = KeyLog { file, keys, closing, bytes, dirty: false, failed: false };
        Ok(Sealer { log: Mutex::new(log), ids: Ids::default(), folder })
    }

    /// From now on nothing is sealed for these leads, until they are open again.
    pub fn close(&self, leads: &[LeadId]) {
        self.locked().closing.extend(leads);
    }

    /// They may have new keys: all that erases them is done, or they are not erased after all.
    pub fn reopen(&self, leads: &[LeadId]) {
        self.locked().closing.retain(|lead| !leads.contains(lead));
    }

    /// Whether a lead is being erased just now.
    pub fn is_closing(&self, lead: LeadId) -> bool {
        self.locked().closing.contains(&lead)
    }

    /// Drops the keys of leads, on the disk before in memory. After a stop anywhere in between all
    /// of them are there, or none. An error means that they may come back at the next start.
    pub fn forget(&self, leads: &[LeadId]) -> io::Result<()> {
        let mut log = self.locked();
        if log.failed {
            return Err(io::Error::other("the log of personal keys failed before"));
        }
        if leads.iter().any(|lead| log.keys.contains_key(lead)) {
            let mut kept = log.keys.clone();
            kept.retain(|lead, _| !leads.contains(lead));
            let bytes: Vec<u8> = kept.iter().flat_map(|(lead, key)| entry_of(*lead, key)).collect();
            let (new, path) = (self.folder.join(NEW), self.folder.join(LOG));
            let mut file = entry_log::appended(&new)?;
            file.set_len(0)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            // Whoever has the old file open would add to what nobody finds any more.
            (log.file, log.keys, log.dirty) = (file, kept, false);
            log.bytes = bytes.len() as u64;
            let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
            log.failed = synced.is_err();
            synced?;
        }
        Ok(())
    }

    /// Seals a payload for a person, drawing their key if they have none.
    pub fn seal(&self, lead: LeadId, payload: &[u8]) -> Result<Vec<u8>, SealError> {
        let key = self.key_or_new(lead)?;
        let nonce: [u8; NONCE_BYTES] = self.ids.bytes();
        let mut sealed = Vec::with_capacity(1 + NONCE_BYTES + payload.len() + 16);
        sealed.push(FORMAT);
        sealed.extend_from_slice(&nonce);
        let mut body = payload.to_vec();
        cipher(&key)
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad(lead), &mut body)
            .map_err(|_| SealError::Failed)?;
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Unseals; nothing if the person's key is gone or the payload is not theirs.
    pub fn unseal(&self, lead: LeadId, sealed: &[u8]) -> Option<Vec<u8>> {
        let key = *self.locked().keys.get(&lead)?;
        unseal_with(&key, lead, sealed)
    }

    /// Makes every key drawn so far durable. Called before a batch that may use them is written.
    pub fn sync(&self) -> io::Result<()> {
        let mut log = self.locked();
        if log.failed {
            return Err(io::Error::other("the log of personal keys failed before"));
        }
        if !log.dirty {
            return Ok(());
        }
        let synced = log.file.sync_data();
        log.failed = synced.is_err();
        log.dirty = false;
        synced
    }

    fn key_or_new(&self, lead: LeadId) -> Result<[u8; 32], SealError> {
        let mut log = self.locked();
        if log.closing.contains(&lead) {
            return Err(SealError::Erasing);
        }
        if let Some(key) = log.keys.get(&lead) {
            return Ok(*key);
        }
        if log.failed {
            return Err(SealError::Failed);
        }
        let key: [u8; 32] = self.ids.bytes();
        if let Err(error) = log.file.write_all(&entry_of(lead, &key)) {
            return Err(log.cut(&error));
        }
        log.bytes += ENTRY_BYTES as u64;
        log.dirty = true;
        log.keys.insert(lead, key);
        Ok(key)
    }

    fn locked(&self) -> MutexGuard<'_, KeyLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry_of(lead: LeadId, key: &[u8; 32]) -> Vec<u8> {
    entry_log::entry(&[&lead.0.to_le_bytes()[..], key].concat())
}

fn key_of(body: &[u8; BODY_BYTES]) -> (LeadId, [u8; 32]) {
    let (mut lead, mut key) = ([0; 8], [0; 32]);
    lead.copy_from_slice(&body[..8]);
    key.copy_from_slice(&body[8..]);
    (LeadId(u64::from_le_bytes(lead)), key)
}

/// The keys of a data folder, only looked at.
pub struct Keys {
    of_people: BTreeMap<LeadId, [u8; 32]>,
    /// Bytes of the log.
    pub bytes: usize,
    /// Bytes up to the end of the last sound entry.
    pub valid: usize,
    /// Where the first entry stands that is damaged.
    pub damaged: Option<usize>,
}

impl Keys {
    /// Reads the log; a folder without one has no keys.
    pub fn read(folder: &Path) -> io::Result<Keys> {
        let found = entry_log::read(&folder.join("keys").join(LOG))?;
        let of_people = found.bodies.iter().map(key_of).collect();
        Ok(Keys { of_people, bytes: found.bytes, valid: found.valid, damaged: found.damaged })
    }

    /// Whether there is one of a person's.
    pub fn has(&self, lead: LeadId) -> bool {
        self.of_people.contains_key(&lead)
    }

    /// How many people have one.
    pub fn people(&self) -> usize {
        self.of_people.len()
    }

    /// Opens a payload that was sealed for a person.
    pub fn unseal(&self, lead: LeadId, sealed: &[u8]) -> Option<Vec<u8>> {
        unseal_with(self.of_people.get(&lead)?, lead, sealed)
    }
}

fn unseal_with(key: &[u8; 32], lead: LeadId, sealed: &[u8]) -> Option<Vec<u8>> {
    let (format, rest) = sealed.split_first()?;
    if *format != FORMAT {
        return None;
    }
    let (nonce, body) = rest.split_first_chunk::<NONCE_BYTES>()?;
    let mut body = body.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let plain = cipher(key).open_in_place(nonce, aad(lead), &mut body).ok()?.len();
    body.truncate(plain);
    Some(body)
}

impl KeyLog {
    /// After a failed write half an entry may stand there, and whatever came after it would be
    /// unreadable. Where only space was lacking it is cut off, and the log is as it was.
    fn cut(&mut self, error: &io::Error) -> SealError {
        let whole = self.file.set_len(self.bytes);
        self.failed = whole.is_err() || !is_no_space(error);
        if self.failed { SealError::Failed } else { SealError::DiskFull }
    }
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key has 32 bytes"))
}

fn aad(lead: LeadId) -> Aad<[u8; 8]> {
    Aad::from(lead.0.to_le_bytes())
}

/// Attributes as bytes: each name and value behind its length, four bytes little endian.
pub fn attributes_to_bytes(attributes: &Attributes) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in attributes.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// The attributes that were sealed; none where nothing could be unsealed.
pub fn attributes_of(plain: Option<Vec<u8>>) -> Attributes {
    plain.and_then(|plain| attributes_from_bytes(&plain)).unwrap_or_default()
}

/// Reads what `attributes_to_bytes` writes; nothing if it is something else.
pub fn attributes_from_bytes(mut bytes: &[u8]) -> Option<Attributes> {
    let mut text = || -> Option<Option<String>> {
        if bytes.is_empty() {
            return Some(None);
        }
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        bytes = rest;
        Some(Some(String::from_utf8(text.to_vec()).ok()?))
    };
    let mut attributes = Attributes::new();
    while let Some(name) = text()? {
        attributes.insert(name, text()??);
    }
    Some(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_person_s_own_key_unseals() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Sealer::open(folder.path()).unwrap();
        let sealed = keys.seal(LeadId(1), b"tanaka@sample.example").unwrap();
        keys.seal(LeadId(2), b"x").unwrap();
        assert_eq!(keys.unseal(LeadId(1), &sealed).unwrap(), b"tanaka@sample.example");
        assert_eq!(keys.unseal(LeadId(2), &sealed), None);
        assert_eq!(keys.unseal(LeadId(3), &sealed), None);
        for index in 0..sealed.len() {
            let mut edited = sealed.clone();
            edited[index] ^= 1;
            assert_eq!(keys.unseal(LeadId(1), &edited), None, "byte {index}");
        }
    }

    #[test]
    fn keys_survive_a_restart_and_a_torn_last_entry() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = {
            let keys = Sealer::open(folder.path()).unwrap();
            let sealed = keys.seal(LeadId(1), b"a").unwrap();
            keys.seal(LeadId(2), b"b").unwrap();
            keys.sync().unwrap();
            sealed
        };
        let path = folder.path().join("keys/subjects.log");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let keys = Sealer::open(folder.path()).unwrap();
        assert_eq!(keys.unseal(LeadId(1), &sealed).unwrap(), b"a");
        let again = keys.seal(LeadId(2), b"b").unwrap();
        let keys = Sealer::open(folder.path()).unwrap();
        assert_eq!(keys.unseal(LeadId(2), &again).unwrap(), b"b");
    }

    #[test]
    fn a_forgotten_key_is_nowhere_and_the_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/subjects.log");
        let keys = Sealer::open(folder.path()).unwrap();
        let [gone, stays] = [1, 2].map(|lead| keys.seal(LeadId(lead), b"x").unwrap());
        let key = fs::read(&path).unwrap()[8..40].to_vec();
        keys.close(&[LeadId(1)]);
        assert_eq!(
            keys.seal(LeadId(1), b"y"),
            Err(SealError::Erasing),
            "not while it is being erased"
        );
        keys.forget(&[LeadId(1), LeadId(3)]).unwrap();
        assert_eq!(keys.unseal(LeadId(1), &gone), None);
        assert_eq!(
            keys.seal(LeadId(1), b"y"),
            Err(SealError::Erasing),
            "nor before all of it is done"
        );
        keys.reopen(&[LeadId(1)]);
        let later = keys.seal(LeadId(4), b"z").unwrap();
        let again = keys.seal(LeadId(1), b"anew").unwrap();
        keys.sync().unwrap();
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(32).any(|part| part == key), "not in the file");
        let keys = Sealer::open(folder.path()).unwrap();
        assert_eq!(keys.unseal(LeadId(1), &gone), None, "who comes again has another key");
        assert_eq!(keys.unseal(LeadId(1), &again).unwrap(), b"anew");
        assert_eq!(keys.unseal(LeadId(2), &stays).unwrap(), b"x");
        assert_eq!(keys.unseal(LeadId(4), &later).unwrap(), b"z");
    }

    #[test]
    fn a_stop_before_the_new_log_has_its_name_leaves_all_keys() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = Sealer::open(folder.path()).unwrap().seal(LeadId(1), b"x").unwrap();
        let half = folder.path().join("keys/subjects.log.new");
        fs::write(&half, [7; 50]).unwrap();
        let keys = Sealer::open(folder.path()).unwrap();
        assert_eq!(keys.unseal(LeadId(1), &sealed).unwrap(), b"x");
        assert!(!half.exists(), "what was half written is void");
        keys.forget(&[LeadId(1)]).unwrap();
        let keys = Sealer::open(folder.path()).unwrap();
        assert_eq!(keys.unseal(LeadId(1), &sealed), None);
        assert!(keys.locked().keys.is_empty());
    }

    #[test]
    fn a_full_disk_refuses_a_new_key_and_cuts_off_the_half_that_it_took() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Sealer::open(folder.path()).unwrap();
        let sealed = keys.seal(LeadId(1), b"a").unwrap();
        // given a disk that took half an entry
        keys.locked().file.write_all(&[7; ENTRY_BYTES / 2]).unwrap();
        let said = keys.locked().cut(&io::ErrorKind::StorageFull.into());
        assert_eq!(said, SealError::DiskFull);
        // then with space again the log goes on where it was
        keys.seal(LeadId(2), b"b").unwrap();
        keys.sync().unwrap();
        drop(keys);
        let keys = Sealer::open(folder.path()).unwrap();
        assert_eq!(keys.locked().keys.len(), 2);
        assert_eq!(keys.unseal(LeadId(1), &sealed).unwrap(), b"a");
        // and after any other error no key is given out any more
        assert_eq!(keys.locked().cut(&io::ErrorKind::Other.into()), SealError::Failed);
        assert_eq!(keys.seal(LeadId(3), b"c"), Err(SealError::Failed));
        assert!(keys.sync().is_err(), "and no batch is written that might need one");
    }

    #[test]
    fn attributes_read_back_and_other_bytes_do_not() {
        let attributes: Attributes =
            [("name".into(), "田中 恵".into()), ("email".into(), String::new())].into();
        let bytes = attributes_to_bytes(&attributes);
        assert_eq!(attributes_from_bytes(&bytes), Some(attributes));
        assert_eq!(attributes_from_bytes(&bytes[..bytes.len() - 1]), None);
        assert_eq!(attributes_from_bytes(&[255; 9]), None);
    }
}
