//! A receipt says where a hit stands in the journal: its position and the checksum of the batch
//! that holds it. It is signed with a key of the installation, so that nobody can make one up;
//! `mikomi verify --receipt` proves it on the disk.
//!
//! Its form: `r1.<position>.<checksum>.<mac>`, in lower-case hex, the latter two with 8 and 16
//! digits.

use std::fmt;

use engine::id::{Key, Position};

/// Bytes of the longest receipt.
pub const RECEIPT_BYTES_MAX: usize = 2 + 3 + 16 + 8 + 16;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Receipt {
    /// Its position.
    pub position: Position,
    /// The checksum of its batch.
    pub batch: u32,
}

/// Why a text is no receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptFault {
    /// It has not the form of one.
    Malformed,
    /// It is of a version that this program does not know.
    Version,
    /// This installation did not sign it.
    Forged,
}

impl ReceiptFault {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            ReceiptFault::Malformed => "receipt_malformed",
            ReceiptFault::Version => "receipt_version",
            ReceiptFault::Forged => "receipt_forged",
        }
    }
}

impl fmt::Display for ReceiptFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReceiptFault::Malformed => "it has not the form of a receipt",
            ReceiptFault::Version => "it is of a version that this program does not know",
            ReceiptFault::Forged => "this installation did not sign it",
        })
    }
}

impl Receipt {
    /// The text, signed.
    pub fn sign(&self, key: &Key) -> String {
        let Receipt { position, batch } = self;
        format!("r1.{:x}.{batch:08x}.{:016x}", position.0, self.mac(key))
    }

    /// Reads one that this installation signed. Each has one form only.
    pub fn read(text: &str, key: &Key) -> Result<Receipt, ReceiptFault> {
        if text.len() > RECEIPT_BYTES_MAX {
            return Err(ReceiptFault::Malformed);
        }
        let mut parts = text.split('.');
        let version = parts.next().unwrap_or_default();
        let number = version.strip_prefix('r').filter(|it| !it.is_empty());
        if !number.is_some_and(|it| it.bytes().all(|it| it.is_ascii_digit())) {
            return Err(ReceiptFault::Malformed);
        }
        if version != "r1" {
            return Err(ReceiptFault::Version);
        }
        let mut hex = || u64::from_str_radix(parts.next()?, 16).ok();
        let (Some(position), Some(batch), Some(_)) = (hex(), hex(), hex()) else {
            return Err(ReceiptFault::Malformed);
        };
        let batch = u32::try_from(batch).map_err(|_| ReceiptFault::Malformed)?;
        let receipt = Receipt { position: Position(position), batch };
        let signed = receipt.sign(key);
        // What stands before the last dot is not secret.
        let body = |it: &str| it.rsplit_once('.').map(|(body, _)| body.to_owned());
        if body(text) != body(&signed) || text.len() != signed.len() {
            return Err(ReceiptFault::Malformed);
        }
        if signed == text { Ok(receipt) } else { Err(ReceiptFault::Forged) }
    }

    fn mac(&self, key: &Key) -> u64 {
        key.hash64(&[b"receipt v1", &self.position.0.to_le_bytes(), &self.batch.to_le_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key([7; 16]);

    #[test]
    fn a_receipt_reads_back_under_the_key_that_signed_it_alone() {
        let receipt = Receipt { position: Position(0x1234), batch: 0xab };
        let text = receipt.sign(&KEY);
        assert_eq!(Receipt::read(&text, &KEY), Ok(receipt));
        assert_eq!(Receipt::read(&text, &Key([8; 16])), Err(ReceiptFault::Forged));
    }

    #[test]
    fn hostile_receipts_are_refused_by_name() {
        let text = Receipt { position: Position(77), batch: 0xdead_beef }.sign(&KEY);
        // Every changed letter, and every shorter or longer one.
        for at in 0..text.len() {
            for letter in ['0', '1', 'f', 'F', '.', 'x', '+'] {
                let mut edited: Vec<char> = text.chars().collect();
                if std::mem::replace(&mut edited[at], letter) != letter {
                    let edited: String = edited.into_iter().collect();
                    assert!(Receipt::read(&edited, &KEY).is_err(), "{edited}");
                }
            }
            assert!(Receipt::read(&text[..at], &KEY).is_err(), "{at}");
        }
        for (hostile, fault) in [
            ("", ReceiptFault::Malformed),
            ("r1", ReceiptFault::Malformed),
            ("r1.4d.deadbeef", ReceiptFault::Malformed),
            ("r2.4d.deadbeef.0000000000000000", ReceiptFault::Version),
            ("r1.4d.deadbeef.0000000000000000", ReceiptFault::Forged),
            ("r1.04d.deadbeef.0000000000000000", ReceiptFault::Malformed),
            ("r1.4D.deadbeef.0000000000000000", ReceiptFault::Malformed),
            ("r1.4d.1deadbeef.000000000000000", ReceiptFault::Malformed),
            ("領収書", ReceiptFault::Malformed),
        ] {
            assert_eq!(Receipt::read(hostile, &KEY), Err(fault), "{hostile}");
        }
        let longer = format!("{text}0");
        assert_eq!(Receipt::read(&longer, &KEY), Err(ReceiptFault::Malformed));
        assert!(Receipt::read(&"9".repeat(1 << 20), &KEY).is_err());
    }
}
