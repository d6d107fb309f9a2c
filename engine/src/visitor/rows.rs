//! A visitor's own ledger in few bytes, by rule: most hits earn nothing that is new, and need look
//! at no row but those of the rules that matched.
//!
//! Rows that are alike in all but when they were earned and what they were granted are a run; a run
//! begins with what they have in common, and then has the latest row first, each later one as the
//! difference to the one before it. So a row takes some eight bytes, and a new one goes in front of
//! its run without the others being read.

use std::cmp::Ordering;
use std::ops::Range;

use crate::facts::Source;
use crate::id::{CategoryId, LeadId, Position, RuleId, VisitorId};
use crate::ledger::{Cut, Fold, Prior, Regrant, Row, apply_rows};
use crate::points::Points;
use crate::time::Timestamp;
use crate::wire::{Context, Read, Reader, WireError, Writer};

/// See the module's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Whose rows they are: what came from this browser says so in a bit.
    visitor: VisitorId,
    count: u32,
    /// The runs, in the order of their first rows: each its length, what its rows have in common,
    /// and these.
    bytes: Vec<u8>,
}

/// What the rows of a run have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Alike {
    rule: RuleId,
    category: CategoryId,
    version: u32,
    base: Points,
    source: Source,
    origin: LeadId,
    /// Whether they have counted: only these are asked for when another row is granted.
    counted: bool,
}

/// A run that is being read.
struct Run<'a> {
    alike: Alike,
    /// Where it is said what its rows have in common.
    head: Range<usize>,
    /// The rows.
    rows: &'a [u8],
    /// Where all of it lies.
    lies: Range<usize>,
}

/// When a row was earned, and its record: what the next one in its run is the difference to.
#[derive(Clone, Copy, Default)]
struct When(Timestamp, Position);

impl When {
    fn of(row: &Row) -> When {
        When(row.when, row.position)
    }
}

/// Bits of a row's flags. The lowest four are why it was granted less.
const ZERO: u8 = 1 << 4;
/// What was granted follows.
const GRANTED: u8 = 1 << 5;
/// Its place among its record's rows follows: it is not the first.
const ORDER: u8 = 1 << 6;
/// Marks follow: that it was withdrawn, that it stands for many.
const MARKS: u8 = 1 << 7;
const CUT: u8 = 0x0f;

const SERVER: u8 = 0;
const OWN: u8 = 1;
const ANOTHER: u8 = 2;
const WHOSE: u8 = 3;
/// The name of the person who earned them follows.
const ORIGIN: u8 = 1 << 2;
const COUNTED: u8 = 1 << 3;

impl Alike {
    fn of(row: &Row) -> Alike {
        Alike {
            rule: row.rule,
            category: row.category,
            version: row.version,
            base: row.base,
            source: row.source,
            origin: row.origin,
            counted: row.cut.counted(),
        }
    }

    fn write(&self, visitor: VisitorId, writer: &mut Writer<'_>) {
        writer.varint(u64::from(self.rule.0));
        writer.byte(self.category.0);
        writer.varint(u64::from(self.version));
        writer.signed(self.base.0);
        let (whose, another) = match self.source {
            Source::Server => (SERVER, None),
            Source::Visitor(id) if id == visitor => (OWN, None),
            Source::Visitor(id) => (ANOTHER, Some(id)),
        };
        let named = self.origin != LeadId(0);
        let counted = if self.counted { COUNTED } else { 0 };
        writer.byte(whose | if named { ORIGIN } else { 0 } | counted);
        if let Some(id) = another {
            writer.out.extend_from_slice(&id.0.to_le_bytes());
        }
        if named {
            writer.lead_id(self.origin);
        }
    }

    fn read(visitor: VisitorId, reader: &mut Reader<'_>) -> Read<Alike> {
        let rule = RuleId(reader.number("rule")?);
        let category = CategoryId(reader.byte()?);
        let version = reader.number("version")?;
        let base = reader.points()?;
        let flags = reader.bits(4)?;
        let source = match flags & WHOSE {
            SERVER => Source::Server,
            OWN => Source::Visitor(visitor),
            ANOTHER => Source::Visitor(reader.visitor_id()?),
            _ => return Err(WireError::UnknownNumber("source")),
        };
        let origin = if flags & ORIGIN == 0 { LeadId(0) } else { reader.lead_id()? };
        let counted = flags & COUNTED != 0;
        Ok(Alike { rule, category, version, base, source, origin, counted })
    }
}

fn reader(bytes: &[u8]) -> Reader<'_> {
    Reader { rest: bytes, context: Context::default() }
}

fn writer(out: &mut Vec<u8>) -> Writer<'_> {
    Writer { out, context: Context::default() }
}

/// Writes a row as the difference to the one before it in its run, which is later.
fn write_row(row: &Row, before: When, writer: &mut Writer<'_>) {
    let granted = match row.granted {
        granted if granted == row.base => 0,
        Points(0) => ZERO,
        _ => GRANTED,
    };
    let order = if row.order == 0 { 0 } else { ORDER };
    let marked = if row.withdrawn || row.folded { MARKS } else { 0 };
    writer.byte(row.cut as u8 | granted | order | marked);
    writer.signed(before.0.0.wrapping_sub(row.when.0) as i64);
    writer.signed(before.1.0.wrapping_sub(row.position.0) as i64);
    if order != 0 {
        writer.varint(u64::from(row.order));
    }
    if granted == GRANTED {
        writer.signed(row.granted.0);
    }
    if marked != 0 {
        writer.byte(u8::from(row.withdrawn) | u8::from(row.folded) << 1);
    }
}

fn read_row(alike: &Alike, before: When, reader: &mut Reader<'_>) -> Read<Row> {
    let flags = reader.byte()?;
    let cut = Cut::ALL.get(usize::from(flags & CUT)).copied();
    let cut = cut.filter(|cut| cut.counted() == alike.counted);
    let mut row = Row {
        when: Timestamp(before.0.0.wrapping_sub(reader.signed()? as u64)),
        position: Position(before.1.0.wrapping_sub(reader.signed()? as u64)),
        rule: alike.rule,
        category: alike.category,
        source: alike.source,
        origin: alike.origin,
        version: alike.version,
        base: alike.base,
        cut: cut.ok_or(WireError::UnknownNumber("cut"))?,
        ..Row::default()
    };
    if flags & ORDER != 0 {
        row.order = reader.number("row")?;
    }
    row.granted = match flags & (ZERO | GRANTED) {
        0 => row.base,
        ZERO => Points(0),
        GRANTED => reader.points()?,
        _ => return Err(WireError::UnknownNumber("flag")),
    };
    if flags & MARKS != 0 {
        let marks = reader.bits(2)?;
        (row.withdrawn, row.folded) = (marks & 1 == 1, marks & 2 == 2);
    }
    Ok(row)
}

/// The rows of a run, the latest first.
#[derive(Clone)]
struct OfRun<'a> {
    alike: Alike,
    before: When,
    rest: &'a [u8],
}

impl Iterator for OfRun<'_> {
    type Item = Row;

    #[inline]
    fn next(&mut self) -> Option<Row> {
        if self.rest.is_empty() {
            return None;
        }
        let mut reader = reader(self.rest);
        let row = read_row(&self.alike, self.before, &mut reader).expect(READ_BEFORE);
        (self.rest, self.before) = (reader.rest, When::of(&row));
        Some(row)
    }
}

const READ_BEFORE: &str = "rows were read when they came, or written here";

/// The rows of several runs, the latest first: of each the one that is next.
#[derive(Clone)]
struct OfRuns<'a>(Vec<(Row, OfRun<'a>)>);

impl Iterator for OfRuns<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let latest = (0..self.0.len()).max_by_key(|run| self.0[*run].0.key())?;
        let (row, rest) = &mut self.0[latest];
        let taken = *row;
        match rest.next() {
            Some(next) => *row = next,
            None => drop(self.0.swap_remove(latest)),
        }
        Some(taken)
    }
}

impl<'a> Run<'a> {
    /// The one at a place, if there is one.
    fn at(rows: &'a Rows, place: usize) -> Read<Option<Run<'a>>> {
        let bytes = rows.bytes.as_slice();
        let mut run = reader(&bytes[place..]);
        if run.rest.is_empty() {
            return Ok(None);
        }
        let length: usize = run.number("length")?;
        let begins = bytes.len() - run.rest.len();
        if length > run.rest.len() {
            return Err(WireError::Short);
        }
        let end = begins + length;
        run.rest = &bytes[begins..end];
        let alike = Alike::read(rows.visitor, &mut run)?;
        let head = begins..end - run.rest.len();
        Ok(Some(Run { alike, head, rows: run.rest, lies: place..end }))
    }

    fn rows(&self) -> OfRun<'a> {
        OfRun { alike: self.alike, before: When::default(), rest: self.rows }
    }
}

impl Prior for Rows {
    fn counted_of(&self, rule: RuleId) -> impl Iterator<Item = Row> + Clone {
        let of_rule = move |run: &Run<'_>| run.alike.rule == rule && run.alike.counted;
        let mut runs = self.runs().filter(of_rule).map(|run| run.rows());
        // Nearly always there is one at most.
        let first = runs.next();
        let (alone, several) = match (first, runs.next()) {
            (first, None) => (first, None),
            (first, second) => {
                let all = first.into_iter().chain(second).chain(runs);
                let all = all.filter_map(|mut rows| Some((rows.next()?, rows)));
                (None, Some(OfRuns(all.collect())))
            }
        };
        alone.into_iter().flatten().chain(several.into_iter().flatten())
    }

    fn counted(&self) -> impl Iterator<Item = Row> + Clone {
        self.runs().filter(|run| run.alike.counted).flat_map(|run| run.rows())
    }
}

impl Rows {
    /// Of rows in order. `visitor`: whose they are.
    pub(super) fn of(visitor: VisitorId, rows: &[Row]) -> Rows {
        let mut runs: Vec<(Alike, Vec<&Row>)> = Vec::new();
        for row in rows {
            let alike = Alike::of(row);
            match runs.iter_mut().find(|run| run.0 == alike) {
                Some(run) => run.1.push(row),
                None => runs.push((alike, vec![row])),
            }
        }
        let mut packed = Rows { visitor, count: rows.len() as u32, bytes: Vec::new() };
        let mut bytes = Vec::new();
        for (alike, rows) in runs {
            bytes.clear();
            alike.write(visitor, &mut writer(&mut bytes));
            let mut before = When::default();
            for row in rows.into_iter().rev() {
                write_row(row, before, &mut writer(&mut bytes));
                before = When::of(row);
            }
            writer(&mut packed.bytes).bytes(&bytes);
        }
        packed
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All of them, in whatever order.
    pub fn all(&self) -> impl Iterator<Item = Row> {
        self.runs().flat_map(|run| run.rows())
    }

    /// All of them, in order.
    pub fn in_order(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.all().collect();
        rows.sort_unstable_by_key(Row::key);
        rows
    }

    fn runs(&self) -> impl Iterator<Item = Run<'_>> + Clone {
        let mut place = 0;
        std::iter::from_fn(move || {
            let run = Run::at(self, place).expect(READ_BEFORE)?;
            place = run.lies.end;
            Some(run)
        })
    }

    /// Applies what was decided about them. `in_order`: new ones are later than all others.
    pub(super) fn apply(
        &mut self,
        (new, regrants): (&[Row], &[Regrant]),
        fold: Option<&Fold>,
        position: Position,
        in_order: bool,
    ) {
        if in_order && regrants.is_empty() && fold.is_none() {
            for row in new {
                let brought = row.position == Position::NONE;
                let position = if brought { position } else { row.position };
                self.push(&Row { position, ..*row });
            }
        } else {
            self.change(|rows| apply_rows(rows, new, regrants, fold, position));
        }
    }

    /// Changes them as a list in order.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Vec<Row>)) {
        let mut rows = self.in_order();
        change(&mut rows);
        let first = rows.first().map(|row| row.source);
        let visitor = match first {
            Some(Source::Visitor(visitor)) if self.is_empty() => visitor,
            _ => self.visitor,
        };
        *self = Rows::of(visitor, &rows);
    }

    /// Adds a row that is later than all others.
    fn push(&mut self, row: &Row) {
        if let (true, Source::Visitor(visitor)) = (self.is_empty(), row.source) {
            self.visitor = visitor;
        }
        self.count += 1;
        let alike = Alike::of(row);
        let known = self.runs().find(|run| run.alike == alike);
        // The one that was the first so far becomes a difference.
        let known = known.map(|run| {
            let mut rows = run.rows();
            (run.lies, run.head, rows.next(), rows.rest.len())
        });
        // Written behind all others, and moved to where it belongs.
        let end = self.bytes.len();
        let Some((lies, head, second, rest)) = known else {
            alike.write(self.visitor, &mut writer(&mut self.bytes));
            write_row(row, When::default(), &mut writer(&mut self.bytes));
            self.prefix_length(end, 0);
            return;
        };
        self.bytes.extend_from_within(head);
        write_row(row, When::default(), &mut writer(&mut self.bytes));
        if let Some(second) = second {
            write_row(&second, When::of(row), &mut writer(&mut self.bytes));
        }
        self.prefix_length(end, rest);
        let begun = self.bytes.len() - end;
        self.bytes[lies.start..].rotate_right(begun);
        let replaced = lies.len() - rest;
        self.bytes.drain(lies.start + begun..lies.start + begun + replaced);
    }

    /// Puts the length of a run in front of what there is of it; so much of it lies elsewhere.
    fn prefix_length(&mut self, from: usize, elsewhere: usize) {
        let until = self.bytes.len();
        writer(&mut self.bytes).varint((until - from + elsewhere) as u64);
        let length = self.bytes.len() - until;
        self.bytes[from..].rotate_right(length);
    }

    /// Appends their bytes: how many, and the runs up to the end.
    pub(super) fn write(&self, visitor: VisitorId, out: &mut Vec<u8>) {
        writer(out).varint(u64::from(self.count));
        if self.is_empty() || self.visitor == visitor {
            out.extend_from_slice(&self.bytes);
        } else {
            out.extend_from_slice(&Rows::of(visitor, &self.in_order()).bytes);
        }
    }

    /// Takes over what [`Rows::write`] wrote, up to the end. None of it is looked at: see
    /// [`Rows::check`].
    pub(super) fn take(&mut self, visitor: VisitorId, reader: &mut Reader<'_>) -> Read<()> {
        self.count = reader.number("rows")?;
        self.visitor = if self.count == 0 { VisitorId::default() } else { visitor };
        self.bytes.clear();
        self.bytes.extend_from_slice(std::mem::take(&mut reader.rest));
        Ok(())
    }

    /// Whether all can be read, and are so many.
    pub(super) fn check(&self) -> Read<()> {
        let (mut place, mut count) = (0, 0);
        while let Some(run) = Run::at(self, place)? {
            place = run.lies.end;
            let (mut rows, mut before) = (reader(run.rows), When::default());
            while !rows.rest.is_empty() {
                before = When::of(&read_row(&run.alike, before, &mut rows)?);
                count += 1;
            }
        }
        match self.len().cmp(&count) {
            Ordering::Equal => Ok(()),
            Ordering::Less => Err(WireError::Long),
            Ordering::Greater => Err(WireError::Short),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN_ID: VisitorId = VisitorId(7 << 100 | 5);

    /// Rows as a visitor may have them, few enough kinds that runs have more than one, in order.
    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let row = (0..4_u64, 0..3_u16, 0..4_u8, 0..3_u16, 0..11_usize, 0..3_u8, 0..4_u8);
        let row = row.prop_map(|(when, rule, kind, order, cut, granted, marks)| Row {
            when: Timestamp(when * 40_000),
            rule: RuleId(rule * 100),
            category: CategoryId(kind & 1),
            version: u32::from(kind >> 1),
            base: Points(5_000 - 3_000 * i64::from(rule)),
            source: match kind {
                0..=1 => Source::Visitor(OWN_ID),
                2 => Source::Visitor(VisitorId(9)),
                _ => Source::Server,
            },
            origin: LeadId(u64::from(kind == 3) << 60),
            order,
            granted: [Points(5_000 - 3_000 * i64::from(rule)), Points(0), Points(-1)]
                [usize::from(granted)],
            cut: Cut::ALL[cut],
            withdrawn: marks & 1 == 1,
            folded: marks & 2 == 2,
            ..Row::default()
        });
        prop::collection::vec(row, 0..40).prop_map(|mut rows| {
            rows.sort_by_key(Row::key);
            for (place, row) in rows.iter_mut().enumerate() {
                row.position = Position(1_000_000 + place as u64 * 300);
            }
            rows
        })
    }

    fn read(bytes: &[u8]) -> Read<Rows> {
        let mut rows = Rows::default();
        rows.take(OWN_ID, &mut reader(bytes))?;
        rows.check()?;
        Ok(rows)
    }

    proptest! {
        #[test]
        fn what_is_packed_is_found_again_however_it_came(rows in rows(), cut in 0..40_usize) {
            let whole = Rows::of(OWN_ID, &rows);
            prop_assert_eq!(whole.len(), rows.len());
            prop_assert_eq!(whole.in_order(), rows.clone());
            for rule in [0, 100, 200].map(RuleId) {
                let of_rule: Vec<Row> = whole.counted_of(rule).collect();
                let expected: Vec<Row> = rows[..].counted_of(rule).collect();
                prop_assert_eq!(of_rule, expected);
            }
            let mut counted: Vec<Row> = whole.counted().collect();
            counted.sort_by_key(Row::key);
            prop_assert_eq!(counted, rows[..].counted().collect::<Vec<Row>>());
            // One after the other, and some of them at once.
            let (before, after) = rows.split_at(cut.min(rows.len()));
            let mut grown = Rows::of(OWN_ID, before);
            grown.apply((after, &[]), None, Position::NONE, true);
            prop_assert_eq!(grown.in_order(), rows.clone());
            let mut bytes = Vec::new();
            grown.write(OWN_ID, &mut bytes);
            let again = read(&bytes).unwrap();
            prop_assert_eq!(again.in_order(), rows);
            let mut same = Vec::new();
            whole.write(OWN_ID, &mut same);
            prop_assert_eq!(&bytes, &same);
        }

        #[test]
        fn bytes_that_are_no_rows_are_refused(rows in rows(), at in any::<usize>(), bit in 0..8) {
            let mut bytes = Vec::new();
            Rows::of(OWN_ID, &rows).write(OWN_ID, &mut bytes);
            for end in 0..bytes.len() {
                prop_assert!(read(&bytes[..end]).is_err());
            }
            let place = at % bytes.len();
            bytes[place] ^= 1_u8 << bit;
            // Whatever they are now: they are refused, or can be looked at.
            if let Ok(rows) = read(&bytes) {
                prop_assert_eq!(rows.in_order().len(), rows.len());
            }
        }
    }

    #[test]
    fn a_row_of_most_takes_few_bytes() {
        let row = |place: u64| Row {
            when: Timestamp(1_796_000_000_000 + place * 20_000),
            position: Position(20_000_000 + place * 9_000),
            rule: RuleId(3),
            base: Points(3_000),
            source: Source::Visitor(OWN_ID),
            ..Row::default()
        };
        let few: Vec<Row> = (0..2).map(row).collect();
        let many: Vec<Row> = (0..102).map(row).collect();
        let bytes = |rows: &[Row]| Rows::of(OWN_ID, rows).bytes.len();
        assert!(bytes(&few) <= 28, "{}", bytes(&few));
        let each = (bytes(&many) - bytes(&few)).div_ceil(100);
        assert!(each <= 8, "{each}");
    }
}
