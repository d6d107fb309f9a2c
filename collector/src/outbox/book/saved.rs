//! The book as a snapshot holds it: its lines and parts. What is found by them is made anew.

use engine::alert::AlertKind;
use engine::id::{LeadId, Position};
use rkyv::{Archive, Deserialize, Serialize};

use super::super::held::REASONS;
use super::{Book, Line, Names, Part, Standing, range_of};
use crate::followers::Unfit;

/// A number for nothing.
const NONE: u8 = u8::MAX;

/// See the module's comment.
#[derive(Archive, Serialize, Deserialize)]
pub struct SavedBook {
    lines: Vec<SavedLine>,
    /// Endpoint and standing.
    parts: Vec<(u16, u8)>,
    endpoints: Vec<(String, u16)>,
    topics: Vec<(String, u16)>,
}

#[derive(Archive, Serialize, Deserialize)]
struct SavedLine {
    alert_low: u64,
    alert_high: u64,
    entry: u64,
    cause: u64,
    lead: u64,
    sequence: u32,
    first: u32,
    parts: u16,
    topic: u16,
    /// By the places in `AlertKind::ALL` and `REASONS`.
    kind: u8,
    held: u8,
    test: bool,
}

fn place<T: PartialEq>(all: &[T], one: Option<&T>) -> u8 {
    let place = one.and_then(|one| all.iter().position(|it| it == one));
    place.map_or(NONE, |place| place as u8)
}

fn at<T: Copy>(all: &[T], place: u8) -> Result<Option<T>, Unfit> {
    if place == NONE {
        return Ok(None);
    }
    all.get(usize::from(place)).copied().map(Some).ok_or(Unfit::Number)
}

impl Names {
    fn save(&self) -> Vec<(String, u16)> {
        self.numbers.iter().map(|(name, number)| (name.clone(), *number)).collect()
    }
}

impl Book {
    /// Its saved form.
    pub fn save(&self) -> SavedBook {
        let line = |line: &Line| SavedLine {
            alert_low: line.alert as u64,
            alert_high: (line.alert >> 64) as u64,
            entry: line.entry.0,
            cause: line.cause.0,
            lead: line.lead.0,
            sequence: line.sequence,
            first: line.first,
            parts: line.parts,
            topic: line.topic,
            kind: place(&AlertKind::ALL, line.kind.as_ref()),
            held: place(&REASONS, line.held.as_ref()),
            test: line.test,
        };
        let part = |part: &Part| (part.endpoint, place(&Standing::ALL, Some(&part.standing)));
        SavedBook {
            lines: self.lines.iter().map(line).collect(),
            parts: self.parts.iter().map(part).collect(),
            endpoints: self.endpoints.save(),
            topics: self.topics.save(),
        }
    }

    /// What was saved.
    pub fn load(saved: SavedBook) -> Result<Book, Unfit> {
        let part = |(endpoint, standing)| {
            let standing = at(&Standing::ALL, standing)?.ok_or(Unfit::Number)?;
            Ok(Part { endpoint, standing })
        };
        let mut book = Book {
            parts: saved.parts.into_iter().map(part).collect::<Result<_, Unfit>>()?,
            endpoints: Names { numbers: saved.endpoints.into_iter().collect() },
            topics: Names { numbers: saved.topics.into_iter().collect() },
            ..Book::default()
        };
        let mut end = 0;
        for saved in saved.lines {
            let lead = LeadId(saved.lead);
            let line = Line {
                alert: u128::from(saved.alert_high) << 64 | u128::from(saved.alert_low),
                entry: Position(saved.entry),
                cause: Position(saved.cause),
                lead,
                sequence: saved.sequence,
                kind: at(&AlertKind::ALL, saved.kind)?,
                test: saved.test,
                held: at(&REASONS, saved.held)?,
                topic: saved.topic,
                first: saved.first,
                parts: saved.parts,
            };
            // Each line's parts begin where those of the one before end.
            let range = range_of(&line);
            let parts = book.parts.get(range.clone()).filter(|_| range.start == end);
            for part in parts.ok_or(Unfit::Places)? {
                *book.counts.entry((part.endpoint, line.test, part.standing)).or_default() += 1;
            }
            end = range.end;
            let number = book.lines.len() as u32;
            book.all[usize::from(line.test)] += 1;
            book.by_alert.insert(line.alert, number);
            book.by_lead.entry(lead).or_default().push(number);
            book.lines.push(line);
        }
        let whole = end == book.parts.len() && book.by_alert.len() == book.lines.len();
        whole.then_some(book).ok_or(Unfit::Places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_by_number_keeps_its_number() {
        let standings = Standing::ALL.map(Standing::name);
        let pinned = [
            "pending",
            "listed",
            "digested",
            "delivered",
            "shadowed",
            "superseded",
            "retracted",
            "dead",
            "held_back",
            "filtered",
            "not_queued",
        ];
        assert_eq!(standings, pinned);
        assert_eq!(REASONS, ["trial", "registered_events", "do_not_send"]);
    }
}
