//! An Alert is a crossing worth telling. Its id is derived from the record that holds the
//! crossing, so that a crash, a replay or a retry finds the same id again (law 5).

use std::fmt;

use crate::id::{Key, LeadId, Position};
use crate::record::Crossed;
use crate::threshold::Direction;

/// What kind of message an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertKind {
    /// A lead went in at a line, or was released by the cool-down.
    Hot,
    /// A lead went out.
    Cooled,
}

impl AlertKind {
    /// The type in the message.
    pub fn name(self) -> &'static str {
        match self {
            AlertKind::Hot => "lead.hot",
            AlertKind::Cooled => "lead.cooled",
        }
    }

    /// What a crossing is told as.
    pub fn of(direction: Direction) -> AlertKind {
        match direction {
            Direction::Rise | Direction::Release => AlertKind::Hot,
            Direction::Fall => AlertKind::Cooled,
        }
    }
}

/// An alert's id: `msg_` and 22 digits of base 62.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlertId(String);

impl fmt::Display for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an alert's id is derived from.
#[derive(Clone, Copy, Debug)]
pub struct Cause<'a> {
    /// Which life of the installation: a restored backup is another one.
    pub incarnation: u32,
    /// The record that holds the crossing.
    pub position: Position,
    /// The crossing's place in it.
    pub index: u16,
    /// What kind of message.
    pub kind: AlertKind,
    /// Who it is about.
    pub lead: LeadId,
    /// Who is told.
    pub audience: &'a str,
}

impl AlertId {
    /// Derives the id with the installation's key.
    pub fn derive(key: &Key, cause: &Cause<'_>) -> AlertId {
        const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut rest = key.hash128(&[
            b"alert v1",
            &cause.incarnation.to_le_bytes(),
            &cause.position.0.to_le_bytes(),
            &cause.index.to_le_bytes(),
            cause.kind.name().as_bytes(),
            &cause.lead.0.to_le_bytes(),
            cause.audience.as_bytes(),
        ]);
        let mut digits = [0_u8; 22];
        for digit in digits.iter_mut().rev() {
            *digit = DIGITS[(rest % 62) as usize];
            rest /= 62;
        }
        AlertId(format!("msg_{}", String::from_utf8_lossy(&digits)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The crossings of a part that are told, with their places.
pub fn told(crossings: &[Crossed]) -> impl Iterator<Item = (u16, &Crossed)> {
    let places = crossings.iter().enumerate();
    places
        .filter(|(_, crossed)| crossed.told.is_some())
        .map(|(index, crossed)| (index as u16, crossed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_depends_on_every_part_of_its_cause_and_on_nothing_else() {
        let key = Key([3; 16]);
        let cause = Cause {
            incarnation: 1,
            position: Position(9),
            index: 0,
            kind: AlertKind::Hot,
            lead: LeadId(7),
            audience: "sales",
        };
        let id = AlertId::derive(&key, &cause);
        assert_eq!(id, AlertId::derive(&key, &cause));
        assert_eq!((id.as_str().len(), &id.as_str()[..4]), (26, "msg_"));
        for other in [
            Cause { incarnation: 2, ..cause },
            Cause { position: Position(10), ..cause },
            Cause { index: 1, ..cause },
            Cause { kind: AlertKind::Cooled, ..cause },
            Cause { lead: LeadId(8), ..cause },
            Cause { audience: "hr", ..cause },
        ] {
            assert_ne!(id, AlertId::derive(&key, &other), "{other:?}");
        }
    }
}
