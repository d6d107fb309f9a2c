//! Receipts, proved on the disk: the record stands there, in a batch of that checksum.

use std::collections::BTreeMap;

use engine::id::{Key, Position};

use super::Report;
use crate::journal::scan::Finding;
use crate::journal::segment::BatchView;
use crate::receipt::Receipt;

/// Receipts that are looked for.
pub(super) struct Receipts {
    // receipt -> what is known of its record
    wanted: BTreeMap<Receipt, Proof>,
    first: Option<Position>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Proof {
    Missing,
    OtherBatch(u32),
    Proved,
}

impl Receipts {
    /// Reads the texts; what is no receipt is wrong by name.
    pub(super) fn read(texts: &[String], key: &Key, report: &mut Report) -> Receipts {
        let mut wanted = BTreeMap::new();
        for text in texts {
            match Receipt::read(text, key) {
                Ok(receipt) => {
                    wanted.insert(receipt, Proof::Missing);
                }
                Err(fault) => {
                    let shown: String = text.chars().take(80).collect();
                    report.wrong(Finding {
                        name: fault.name(),
                        file: "receipt".to_owned(),
                        offset: None,
                        position: None,
                        about: format!("{}: {fault}", shown.escape_debug()),
                    });
                }
            }
        }
        Receipts { wanted, first: None }
    }

    /// A batch of the journal, also one whose records stand in another one since a restart.
    pub(super) fn see(&mut self, batch: &BatchView<'_>) {
        self.first.get_or_insert(batch.first);
        let least = Receipt { position: batch.first, batch: 0 };
        let beyond = Receipt { position: batch.next(), batch: 0 };
        for (receipt, proof) in self.wanted.range_mut(least..beyond) {
            if receipt.batch == batch.crc {
                *proof = Proof::Proved;
            } else if *proof == Proof::Missing {
                *proof = Proof::OtherBatch(batch.crc);
            }
        }
    }

    /// Says what was not proved.
    pub(super) fn finish(self, report: &mut Report) {
        for (receipt, proof) in self.wanted {
            let (name, about) = match proof {
                Proof::Proved => {
                    report.receipts += 1;
                    continue;
                }
                Proof::OtherBatch(found) => (
                    "receipt_other",
                    format!("its batch is {found:08x} and not {:08x}", receipt.batch),
                ),
                Proof::Missing if self.first.is_some_and(|first| receipt.position < first) => {
                    ("receipt_removed", "the journal is not kept from so early on".to_owned())
                }
                Proof::Missing => ("receipt_missing", "there is no such record".to_owned()),
            };
            let position = Some(receipt.position);
            let file = "receipt".to_owned();
            report.wrong(Finding { name, file, offset: None, position, about });
        }
    }
}
