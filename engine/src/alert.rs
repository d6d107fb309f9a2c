//! An Alert is a message worth sending. Its id is derived from the record that holds its cause,
//! so that a crash, a replay or a retry finds the same id again (law 5).

use std::fmt;

use crate::id::{Key, LeadId, Position};

/// What kind of message an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertKind {
    /// A lead went in at a line, or was released by the cool-down or by hand.
    Hot,
    /// A lead went out.
    Cooled,
    /// A rule that tells somebody at once counted.
    Action,
    /// A lead that is in rose far above what was last told.
    Escalated,
    /// A message was wrong.
    Retracted,
    /// Two records were found to be one person.
    Merged,
    /// They were found to be two.
    Unmerged,
    /// Somebody sales works with, or a customer, did something.
    Signal,
    /// Nobody took a lead in working hours.
    Reminder,
    /// The person asked to be forgotten.
    Erased,
}

impl AlertKind {
    /// All kinds, by their number in the journal.
    pub const ALL: [AlertKind; 10] = [
        AlertKind::Hot,
        AlertKind::Cooled,
        AlertKind::Action,
        AlertKind::Escalated,
        AlertKind::Retracted,
        AlertKind::Merged,
        AlertKind::Unmerged,
        AlertKind::Signal,
        AlertKind::Reminder,
        AlertKind::Erased,
    ];

    /// The type in the message.
    pub fn name(self) -> &'static str {
        match self {
            AlertKind::Hot => "lead.hot",
            AlertKind::Cooled => "lead.cooled",
            AlertKind::Action => "lead.action",
            AlertKind::Escalated => "lead.escalated",
            AlertKind::Retracted => "alert.retracted",
            AlertKind::Merged => "lead.merged",
            AlertKind::Unmerged => "lead.unmerged",
            AlertKind::Signal => "lead.signal",
            AlertKind::Reminder => "lead.reminder",
            AlertKind::Erased => "lead.erased",
        }
    }

    /// Reads the type.
    pub fn parse(name: &str) -> Option<AlertKind> {
        AlertKind::ALL.into_iter().find(|kind| kind.name() == name)
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
    /// The record that holds the cause.
    pub position: Position,
    /// The message's place in it.
    pub place: u16,
    /// What kind of message.
    pub kind: AlertKind,
    /// Who it is about.
    pub lead: LeadId,
    /// Who is told; empty for all.
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
            &cause.place.to_le_bytes(),
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

    /// Reads an id; nothing if it has not the form that they have.
    pub fn parse(text: &str) -> Option<AlertId> {
        let digits = text.strip_prefix("msg_")?;
        let plain = digits.len() == 22 && digits.bytes().all(|it| it.is_ascii_alphanumeric());
        plain.then(|| AlertId(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
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
            place: 0,
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
            Cause { place: 1, ..cause },
            Cause { kind: AlertKind::Cooled, ..cause },
            Cause { lead: LeadId(8), ..cause },
            Cause { audience: "hr", ..cause },
        ] {
            assert_ne!(id, AlertId::derive(&key, &other), "{other:?}");
        }
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        for kind in AlertKind::ALL {
            assert_eq!(AlertKind::parse(kind.name()), Some(kind));
        }
        assert_eq!(AlertKind::parse("lead"), None);
    }
}
