//! The files beside each other in the journal's directory.

use std::collections::BTreeSet;
use std::io;

use engine::id::Position;

use super::disk::{Disk, read_all};
use super::errors::OpenError;
use super::recovery::failed;
use super::segment::{Index, file_name, index_name};

/// The files of the directory, by what they are.
pub(super) struct Names {
    pub(super) firsts: BTreeSet<Position>,
    pub(super) stale: Vec<String>,
    pub(super) indexes: BTreeSet<Position>,
    // (segment, offset) of damage an operator has accepted
    pub(super) accepted: BTreeSet<(u64, u64)>,
    pub(super) all: BTreeSet<String>,
}

impl Names {
    pub(super) fn read(disk: &dyn Disk, partition: u16) -> Result<Names, OpenError> {
        let all: BTreeSet<String> =
            disk.list().map_err(failed("list the journal's directory"))?.into_iter().collect();
        let segment = |name: &str, end: &str| {
            let digits = name.strip_prefix("segment-")?.strip_suffix(end)?;
            let ordinal = hex(digits).filter(|ordinal| (1..1 << 48).contains(ordinal))?;
            Some(Position::new(partition, ordinal))
        };
        let accepted = |name: &String| {
            let (first, offset) = name.strip_prefix("accepted-")?.split_once('-')?;
            Some((hex(first)?, hex(offset)?))
        };
        Ok(Names {
            firsts: all.iter().filter_map(|n| segment(n, ".log")).collect(),
            indexes: all.iter().filter_map(|n| segment(n, ".idx")).collect(),
            stale: all.iter().filter(|n| n.strip_suffix(".new").is_some()).cloned().collect(),
            accepted: all.iter().filter_map(accepted).collect(),
            all,
        })
    }
}

/// Where the journal in a directory begins, if there is any.
pub fn first_kept(disk: &dyn Disk) -> io::Result<Option<Position>> {
    let names = Names::read(disk, 0).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(names.firsts.first().copied())
}

/// The ordinal of the segment to which a file belongs that is not the segment itself.
pub(super) fn belongs_to(name: &str) -> Option<u64> {
    if let Some(rest) = name.strip_prefix("accepted-") {
        return hex(rest.split_once('-')?.0);
    }
    let (digits, end) = name.strip_prefix("segment-")?.split_once('.')?;
    if end == "idx" || end.starts_with("log.cut-") { hex(digits) } else { None }
}

fn hex(digits: &str) -> Option<u64> {
    let plain = digits.len() == 16 && digits.bytes().all(|b| b"0123456789abcdef".contains(&b));
    plain.then(|| u64::from_str_radix(digits, 16).ok())?
}

/// Writes an index file. It is not synced: a torn one does not match its checksum, and is made
/// again.
pub fn write_index(disk: &dyn Disk, first: Position, index: &Index) {
    if let Ok(file) = disk.create(&index_name(first), 0) {
        let _ = file.write_at(&index.encode(), 0);
    }
}

/// Reads a segment's index file, when it is there and sound.
pub fn read_index(disk: &dyn Disk, first: Position) -> Option<Index> {
    let file = disk.open(&index_name(first)).ok()?;
    Index::decode(&read_all(file.as_ref()).ok()?)
}

/// Copies a segment that is about to be replaced, torn bytes and all, to a name of its own.
pub(super) fn keep_evidence(disk: &dyn Disk, names: &Names, segment: Position) -> io::Result<()> {
    let name = file_name(segment);
    let bytes = read_all(disk.open(&name)?.as_ref())?;
    let dirt = bytes.iter().rposition(|byte| *byte != 0);
    let kept = &bytes[..dirt.map_or(0, |at| at + 1)];
    let free = |number: &u32| !names.all.contains(&format!("{name}.cut-{number}"));
    let number = (1..=u32::MAX).find(free).unwrap_or(u32::MAX);
    let copy = disk.create(&format!("{name}.cut-{number}.new"), 0)?;
    copy.write_at(kept, 0)?;
    copy.sync()?;
    let to = format!("{name}.cut-{number}");
    disk.rename(&format!("{to}.new"), &to)?;
    disk.sync_directory()
}
