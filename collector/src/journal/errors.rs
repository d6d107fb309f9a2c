//! Every way the journal says no, each by its name.

use std::fmt;
use std::io;

use engine::id::Position;

use super::segment::BatchFault;

/// The status a process exits with when the journal is poisoned, so that a supervisor starts it
/// again and replay decides.
pub const EXIT_POISONED: i32 = 70;

/// Why capacity was refused. Nothing was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// More bytes wait for the disk than `pending_bytes_max`.
    Busy,
    /// The disk has no space. Ends by itself when space returns.
    DiskFull,
    /// More than one reservation may hold.
    TooLarge {
        /// Bytes asked for.
        bytes: usize,
    },
    /// The disk failed; the process is about to exit.
    Poisoned,
    /// The journal is being stopped.
    Stopping,
}

/// Why a record will never be durable, as far as this process can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poisoned {
    /// A sync failed. What is on the disk is unknown; it is never tried again.
    Sync(io::ErrorKind),
    /// A write failed for another reason than space.
    Write(io::ErrorKind),
    /// A segment could not be made for another reason than space.
    Create(io::ErrorKind),
    /// The journal was stopped while the disk was full.
    DiskFull,
    /// The journal was stopped before.
    Stopped,
    /// No record was pushed at this position.
    NeverPushed,
}

/// Why a record could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// Not durable yet, or never pushed.
    NotDurable,
    /// Older than the oldest segment kept.
    Removed {
        /// The oldest position kept.
        first: Position,
    },
    /// In a range whose loss was accepted.
    Lost,
    /// The bytes are not sound.
    Damaged {
        /// File name.
        file: String,
        /// Offset of the batch.
        offset: u64,
    },
    /// The disk answered with an error.
    Disk(io::ErrorKind),
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Full::Busy => write!(f, "too many bytes wait for the disk"),
            Full::DiskFull => write!(f, "the disk is full"),
            Full::TooLarge { bytes } => write!(f, "{bytes} bytes are too many for one record"),
            Full::Poisoned => write!(f, "the disk failed"),
            Full::Stopping => write!(f, "the journal is being stopped"),
        }
    }
}

impl fmt::Display for Poisoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Poisoned::Sync(kind) => write!(f, "syncing the journal failed: {kind}"),
            Poisoned::Write(kind) => write!(f, "writing the journal failed: {kind}"),
            Poisoned::Create(kind) => write!(f, "creating a segment failed: {kind}"),
            Poisoned::DiskFull => write!(f, "the journal was stopped while the disk was full"),
            Poisoned::Stopped => write!(f, "the journal was stopped"),
            Poisoned::NeverPushed => write!(f, "no record was pushed at this position"),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::NotDurable => write!(f, "the record is not durable yet"),
            ReadError::Removed { first } => {
                write!(f, "the journal is kept from position {} on", first.ordinal())
            }
            ReadError::Lost => write!(f, "the record was lost, and the loss accepted"),
            ReadError::Damaged { file, offset } => {
                write!(f, "{file} is damaged at byte {offset}")
            }
            ReadError::Disk(kind) => write!(f, "reading the journal failed: {kind}"),
        }
    }
}

impl std::error::Error for Full {}
impl std::error::Error for Poisoned {}
impl std::error::Error for ReadError {}

/// Bytes that had been durable and are sound no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// File name.
    pub file: String,
    /// First damaged byte.
    pub from: u64,
    /// Byte after the last damaged one.
    pub to: u64,
    /// First position that is lost. Beyond `last` when no record is, as in a header or a seal.
    pub first: Position,
    /// Last position that is lost, as far as it can be known.
    pub last: Position,
    /// What is wrong.
    pub what: DamageKind,
}

/// What is wrong with damaged bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// The segment's header does not match its checksum or its file's name.
    Header,
    /// A batch is not sound.
    Batch(BatchFault),
    /// A sound batch does not follow the one before it.
    Chain,
    /// The bytes or files that should come next are not there.
    Missing,
}

/// Why a journal does not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Another process has it.
    InUse,
    /// The disk answered with an error.
    Disk {
        /// What was tried.
        doing: &'static str,
        /// The error.
        kind: io::ErrorKind,
    },
    /// Acknowledged records may be lost; `accept_loss` opens what is left.
    Damaged(Damage),
    /// A segment of a format this program does not know.
    Format {
        /// File name.
        file: String,
        /// Its format.
        format: u16,
    },
    /// A segment whose records need a newer program.
    Evolve {
        /// File name.
        file: String,
        /// Its version.
        evolve: u16,
        /// The newest this program knows.
        known: u16,
    },
    /// A segment written with another byte order.
    ByteOrder {
        /// File name.
        file: String,
    },
    /// A segment of another installation or partition.
    Foreign {
        /// File name.
        file: String,
    },
    /// An option outside its bounds.
    Setting {
        /// Its name.
        name: &'static str,
        /// The least and the greatest value.
        bounds: (u64, u64),
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { file, from, to, .. } = self;
        write!(f, "{file}, bytes {from} to {to}")?;
        if self.first <= self.last {
            let (first, last) = (self.first.ordinal(), self.last.ordinal());
            write!(f, ", positions {first} to {last}")?;
        } else {
            write!(f, ", no record")?;
        }
        f.write_str(match self.what {
            DamageKind::Header => ": the header is not sound",
            DamageKind::Batch(BatchFault::End) => ": zeros where a batch was",
            DamageKind::Batch(BatchFault::Header) => ": not the header of a batch",
            DamageKind::Batch(BatchFault::Length) => ": a length past the end",
            DamageKind::Batch(BatchFault::Checksum) => ": the checksum does not match",
            DamageKind::Batch(BatchFault::Records) => ": the records are miscounted",
            DamageKind::Chain => ": a batch that does not follow the one before it",
            DamageKind::Missing => ": what should come next is not there",
        })
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::InUse => write!(f, "the journal is in use by another process"),
            OpenError::Disk { doing, kind } => write!(f, "could not {doing}: {kind}"),
            OpenError::Damaged(damage) => write!(
                f,
                "acknowledged records are damaged: {damage}; restore a backup, or start with \
                 --accept-loss to go on without them"
            ),
            OpenError::Format { file, format } => {
                write!(f, "{file} has format {format}, which this version cannot read")
            }
            OpenError::Evolve { file, evolve, known } => write!(
                f,
                "{file} has records of version {evolve}, and this version knows up to {known}"
            ),
            OpenError::ByteOrder { file } => {
                write!(f, "{file} was written with another byte order")
            }
            OpenError::Foreign { file } => write!(f, "{file} belongs to another installation"),
            OpenError::Setting { name, bounds } => {
                write!(f, "{name} must be between {} and {}", bounds.0, bounds.1)
            }
        }
    }
}

impl std::error::Error for OpenError {}
