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
}

/// Everything that `read` hands out is decoded, and then applied. Ends when all of it is.
pub(super) fn in_stages<T>(
    read: impl FnOnce(&mut dyn FnMut(Entry<'_>)) -> T,
    mut decode: impl FnMut(Entry<'_>) -> Option<Record> + Send,
    mut apply: impl FnMut(Record, Position) + Send,
) -> T {
    thread::scope(|scope| {
        let (to_decode, raw) = mpsc::sync_channel::<Batch>(BATCHES);
        let (to_apply, decoded) = mpsc::sync_channel::<Vec<(Record, Position)>>(BATCHES);
        scope.spawn(move || {
            for batch in raw {
                let one = |entry: Entry<'_>| {
                    let position = entry.position;
                    Some((decode(entry)?, position))
                };
                send(&to_apply, batch.entries().filter_map(one).collect());
            }
        });
        scope.spawn(move || {
            for (record, position) in decoded.into_iter().flatten() {
                apply(record, position);
            }
        });
        let mut batch = Batch::default();
        let done = read(&mut |entry| {
            batch.add(&entry);
            if batch.bytes.len() >= BATCH_BYTES {
                send(&to_decode, std::mem::take(&mut batch));
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
