//! Replay in stages, each on a thread of its own: while one batch of records is applied, the next
//! is decoded, and the one after that read. Every stage sees them in the journal's order.

use std::sync::mpsc::{self, SyncSender};
use std::thread;

use engine::id::Position;
use engine::record::Record;

use crate::journal::Entry;

/// Bytes that go to the next stage at once: enough to wake a thread for, and little to hold.
const BATCH_BYTES: usize = 256 * 1_024;
/// Batches between two stages.
const BATCHES: usize = 4;

/// What is decoded next: the records' bytes, and where each ends.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    entries: Vec<(Position, u32, usize)>,
}

impl Batch {
    fn add(&mut self, entry: &Entry<'_>) {
        self.bytes.extend_from_slice(entry.bytes);
        self.entries.push((entry.position, entry.incarnation, self.bytes.len()));
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut from = 0;
        self.entries.iter().map(move |&(position, incarnation, end)| {
            let bytes = &self.bytes[from..end];
            from = end;
            Entry { position, incarnation, bytes }
        })
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
}

/// Records that are applied next.
type Decoded = Vec<(Record, Position)>;

/// Everything that `read` hands out is decoded, and then applied. Ends when all of it is.
///
/// What a stage is done with goes back to where it was made, and is used again or freed there:
/// memory that one thread asks for and another gives back comes fresh from the system every time,
/// and zeroing it was a fifth of the processor time that a start took.
pub(super) fn in_stages<T>(
    read: impl FnOnce(&mut dyn FnMut(Entry<'_>)) -> T,
    mut decode: impl FnMut(Entry<'_>) -> Option<Record> + Send,
    mut apply: impl FnMut(&Record, Position) + Send,
) -> T {
    thread::scope(|scope| {
        let (to_decode, raw) = mpsc::sync_channel::<Batch>(BATCHES);
        let (read_out, spare_batches) = mpsc::channel::<Batch>();
        let (to_apply, decoded) = mpsc::sync_channel::<Decoded>(BATCHES);
        let (applied, spare_records) = mpsc::channel::<Decoded>();
        scope.spawn(move || {
            for batch in raw {
                let mut records = spare_records.try_recv().unwrap_or_default();
                records.clear();
                records.extend(batch.entries().filter_map(|entry| {
                    let position = entry.position;
                    Some((decode(entry)?, position))
                }));
                drop(read_out.send(batch));
                send(&to_apply, records);
            }
        });
        scope.spawn(move || {
            for records in decoded {
                for (record, position) in &records {
                    apply(record, *position);
                }
                drop(applied.send(records));
            }
        });
        let mut batch = Batch::default();
        let done = read(&mut |entry| {
            batch.add(&entry);
            if batch.bytes.len() >= BATCH_BYTES {
                let next = spare_batches.try_recv().unwrap_or_default();
                send(&to_decode, std::mem::replace(&mut batch, next));
                batch.clear();
            }
        });
        send(&to_decode, batch);
        drop(to_decode);
        done
    })
}

/// Whoever should take it ends before only by a panic, and that is passed on when all is joined.
fn send<T>(to: &SyncSender<T>, batch: T) {
    drop(to.send(batch));
}
