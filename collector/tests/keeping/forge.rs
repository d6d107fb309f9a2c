//! A journal taken apart and put together again with sound checksums: what only a program, and no
//! failing disk, could have written.

use std::fs;
use std::path::{Path, PathBuf};

use collector::install::Install;
use collector::journal::segment::{Group, HEADER_BYTES, Header, Records, decode_batch};
use engine::id::Position;
use engine::record::Record;

/// A batch before it is laid out.
#[derive(Clone)]
pub struct Batch {
    pub first: Position,
    pub synced: Position,
    pub records: Vec<Vec<u8>>,
    /// Instead of the checksum of the batch before.
    pub previous: Option<u32>,
}

/// A segment before it is laid out.
#[derive(Clone)]
pub struct Segment {
    pub header: Header,
    pub batches: Vec<Batch>,
}

/// A journal before it is laid out.
pub struct Journal {
    folder: PathBuf,
    pub segments: Vec<Segment>,
}

impl Journal {
    pub fn read(data: &Path) -> Journal {
        let install = Install::read(data).unwrap().id.0;
        let folder = data.join("journal");
        let files = logs(data);
        let headers: Vec<(PathBuf, Vec<u8>, Header)> = files
            .into_iter()
            .map(|file| {
                let bytes = fs::read(&file).unwrap();
                let header = Header::decode(&bytes).unwrap();
                assert_eq!(header.install, install);
                (file, bytes, header)
            })
            .collect();
        let ends = headers.iter().skip(1).map(|it| it.2.previous as usize).chain([usize::MAX]);
        let segments = headers.iter().zip(ends).map(|((_, bytes, header), end)| {
            let valid = &bytes[..end.min(bytes.len())];
            let mut batches = Vec::new();
            let mut offset = HEADER_BYTES;
            while let Ok(batch) = decode_batch(valid, offset, header.seed()) {
                offset = batch.end();
                batches.push(Batch {
                    first: batch.first,
                    synced: batch.synced,
                    records: Records::new(batch.payload).map(<[u8]>::to_vec).collect(),
                    previous: None,
                });
            }
            Segment { header: *header, batches }
        });
        Journal { folder, segments: segments.collect() }
    }

    /// Changes the first record that `change` wants to change; its position.
    #[track_caller]
    pub fn change(&mut self, mut change: impl FnMut(&mut Record, Position) -> bool) -> Position {
        for batch in self.segments.iter_mut().flat_map(|segment| &mut segment.batches) {
            for (at, bytes) in batch.records.iter_mut().enumerate() {
                let position = Position(batch.first.0 + at as u64);
                let mut record = Record::decode(bytes).unwrap();
                if change(&mut record, position) {
                    bytes.clear();
                    record.encode(bytes);
                    return position;
                }
            }
        }
        panic!("no record is of the kind that is to be changed");
    }

    /// Writes it, every checksum and length as it has to be.
    pub fn write(mut self) {
        for entry in fs::read_dir(&self.folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with("segment-") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        let (mut chain, mut previous) = (0, 0);
        for (at, segment) in self.segments.iter_mut().enumerate() {
            let header = &mut segment.header;
            if at > 0 {
                header.previous = previous;
            }
            let copied = header.proven > HEADER_BYTES as u32;
            let mut bytes = Vec::new();
            let mut proven = HEADER_BYTES;
            for (nth, batch) in segment.batches.iter().enumerate() {
                let mut group = if batch.records.is_empty() {
                    Group::seal(batch.first)
                } else {
                    Group::new(batch.first, Vec::new())
                };
                for record in &batch.records {
                    group.push(record);
                }
                let previous = batch.previous.unwrap_or(chain);
                let done = group.finish(header.seed(), batch.synced, previous);
                chain = done.crc();
                bytes.extend_from_slice(done.bytes());
                if nth == 0 && copied {
                    proven += done.bytes().len();
                }
            }
            header.proven = proven as u32;
            let whole = [&header.encode()[..], &bytes].concat();
            previous = whole.len() as u32;
            let name = format!("segment-{:016x}.log", header.first.ordinal());
            fs::write(self.folder.join(name), whole).unwrap();
        }
    }
}

/// The segments of a data folder, the oldest first.
pub fn logs(data: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(data.join("journal")).unwrap().map(|it| it.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|it| it == "log")).collect();
    files.sort();
    files
}

/// The batches of a segment as they lie: offset and size.
pub fn batches(file: &Path) -> Vec<(usize, usize)> {
    let bytes = fs::read(file).unwrap();
    let header = Header::decode(&bytes).unwrap();
    let mut found = Vec::new();
    let mut offset = HEADER_BYTES;
    while let Ok(batch) = decode_batch(&bytes, offset, header.seed()) {
        found.push((offset, batch.size));
        offset = batch.end();
    }
    found
}
