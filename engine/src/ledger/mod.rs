//! A Ledger is the rows of points granted; the score is their sum. `settle` alone says what a
//! row is granted, in the order (when, position, order in the record), so that a row that
//! arrives late, or one that goes, leads to the same ledger as if it had always (never) been.

mod fold;
mod tally;

use std::sync::Arc;

use crate::decay::{HalfLife, Sum, Total};
use crate::facts::{Profile, Said, Seen, Source};
use crate::id::{CategoryId, LeadId, Position, RuleId};
use crate::points::Points;
use crate::rule::{Guards, OnRemove};
use crate::terms::{RuleTerms, Terms, Versions};
use crate::time::Timestamp;

pub use self::fold::{LEDGER_ROWS_FOLDED, apply_fold, fold, fold_for};
use self::tally::{Earlier, Tally};

/// Rows one ledger holds. Beyond it the oldest fold into one row per (origin, source, rule):
/// still removable, no longer arbitrated anew.
pub const LEDGER_ROWS_MAX: usize = 4_096;

/// Why a row was granted less than its rule gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cut {
    /// It was not.
    #[default]
    None,
    /// The rule had counted already: `once`, `once_per`, `at_most`.
    Counted,
    /// The person was not away as long as the browser was.
    NotAway,
    /// The rule's max.
    RuleMax,
    /// The category's max.
    CategoryMax,
    /// The total max.
    TotalMax,
    /// The limit on unproved claims.
    ClaimsMax,
    /// It was not, but stands for many that folded: its grant is final.
    Folded,
    /// The rule is not for people like this one: `only`.
    NotFor,
    /// The hit was withdrawn: nobody was there.
    Withdrawn,
    /// The rule is gone, and took its points along.
    Removed,
}

impl Cut {
    /// All reasons, by their number in the journal.
    pub const ALL: [Cut; 11] = [
        Cut::None,
        Cut::Counted,
        Cut::NotAway,
        Cut::RuleMax,
        Cut::CategoryMax,
        Cut::TotalMax,
        Cut::ClaimsMax,
        Cut::Folded,
        Cut::NotFor,
        Cut::Withdrawn,
        Cut::Removed,
    ];

    /// The name people and programs read.
    pub fn name(self) -> &'static str {
        match self {
            Cut::None => "none",
            Cut::Counted => "already_counted",
            Cut::NotAway => "not_away",
            Cut::RuleMax => "rule_max",
            Cut::CategoryMax => "category_max",
            Cut::TotalMax => "total_max",
            Cut::ClaimsMax => "claims_max",
            Cut::Folded => "folded",
            Cut::NotFor => "not_for",
            Cut::Withdrawn => "withdrawn",
            Cut::Removed => "rule_removed",
        }
    }

    /// Whether the row used up its rule's "once": also when a max cut it to nothing. What did not
    /// is granted nothing.
    pub fn counted(self) -> bool {
        !matches!(self, Cut::Counted | Cut::NotAway | Cut::NotFor | Cut::Withdrawn | Cut::Removed)
    }
}

/// One entry: a rule that matched (an award), and what it was granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// When it was earned.
    pub when: Timestamp,
    /// The record that brought it.
    pub position: Position,
    /// Its place among that record's rows.
    pub order: u16,
    /// The rule.
    pub rule: RuleId,
    /// Where the points went.
    pub category: CategoryId,
    /// Where it came from.
    pub source: Source,
    /// The name of the person who earned it; 0 while nobody said who it was.
    pub origin: LeadId,
    /// The version of the scoring under which it was earned.
    pub version: u32,
    /// What the rule gives.
    pub base: Points,
    /// What was granted.
    pub granted: Points,
    /// Why it was less, if it was.
    pub cut: Cut,
    /// Whether the hit was withdrawn.
    pub withdrawn: bool,
    /// Whether it stands for many that folded.
    pub folded: bool,
}

/// A row that is granted something else, because another one came or went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regrant {
    /// The row's record.
    pub position: Position,
    /// The row's place in it.
    pub order: u16,
    /// What it is granted now.
    pub granted: Points,
    /// Why it is less, if it is.
    pub cut: Cut,
}

/// The oldest rows replaced by fewer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fold {
    /// How many, from the oldest on.
    pub rows: u32,
    /// By these.
    pub into: Vec<Row>,
}

impl Row {
    /// Its place in a ledger.
    pub fn key(&self) -> (Timestamp, Position, u16) {
        (self.when, self.position, self.order)
    }
}

/// Rows that are settled and stay as they are, wherever they lie: what is settled comes after them.
pub trait Prior {
    /// Those of a rule that have counted, the latest first.
    fn counted_of(&self, rule: RuleId) -> impl Iterator<Item = Row> + Clone;

    /// All that have counted, in whatever order: sums do not mind.
    fn counted(&self) -> impl Iterator<Item = Row> + Clone;
}

impl Prior for [Row] {
    fn counted_of(&self, rule: RuleId) -> impl Iterator<Item = Row> + Clone {
        let theirs = move |row: &&Row| row.rule == rule && row.cut.counted();
        self.iter().rev().filter(theirs).copied()
    }

    fn counted(&self) -> impl Iterator<Item = Row> + Clone {
        self.iter().filter(|row| row.cut.counted()).copied()
    }
}

/// What settling needs besides the rows.
#[derive(Clone, Copy)]
pub struct Basis<'a> {
    /// The limits, of every version.
    pub versions: &'a Versions,
    /// The version in force now.
    pub now: u32,
    /// Whether a source is tied to that name of the person by a claim only.
    pub claimed: &'a dyn Fn(Source, LeadId) -> bool,
    /// What was said of the person.
    pub said: &'a [Said],
    /// Their visits.
    pub visits: &'a [Seen],
}

impl<'a> Basis<'a> {
    /// For the ledger of a browser: nobody's.
    pub fn nobody(versions: &'a Versions) -> Basis<'a> {
        let now = versions.latest().map_or(0, |terms| terms.version);
        Basis { versions, now, claimed: &|_, _| false, said: &[], visits: &[] }
    }

    /// The terms a row was earned under.
    fn terms(&self, row: &Row) -> Option<&'a Arc<Terms>> {
        self.versions.numbered(row.version)
    }

    /// Whether a rule is gone, and its rows with it.
    fn is_removed(&self, row: &Row, rule: &RuleTerms) -> bool {
        let now = self.versions.numbered(self.now);
        let gone = now.is_some_and(|terms| terms.rule(row.rule).is_none());
        gone && rule.on_remove == OnRemove::Withdraw
    }

    /// Whether a rule is for this person, as they were known when it counted for them: at its
    /// time, or, of what they did before anybody knew them, when they were first known.
    fn is_for(&self, row: &Row, guards: &Guards) -> bool {
        if guards.only.is_empty() {
            return true;
        }
        let first = self.said.first().map_or(row.when, |said| said.time);
        let known = row.when.max(first);
        let profile = Profile::of(self.said.iter().take_while(|said| said.time <= known));
        guards.only.iter().all(|test| test.holds(&profile.attributes))
    }
}

/// Settles rows that are in order, from an index on; those before keep what they were granted.
pub fn settle(rows: &mut [Row], from: usize, basis: &Basis<'_>) {
    settle_after(&[][..], rows, from, basis);
}

/// The same of rows that come after those of `prior`, of which none is what sales answered.
fn settle_after<P: Prior + ?Sized>(prior: &P, rows: &mut [Row], from: usize, basis: &Basis<'_>) {
    let mut tally: Option<Tally<'_>> = None;
    for index in from..rows.len() {
        let row = rows[index];
        // What no version kept speaks of stays as it was granted.
        let Some(terms) = basis.terms(&row) else {
            continue;
        };
        let stale =
            |tally: &Tally<'_>| !basis.versions.fade_alike(tally.terms.version, terms.version);
        if tally.as_ref().is_none_or(stale) {
            tally = Some(Tally::of(&rows[..index], *basis, terms));
        }
        let Some(tally) = &mut tally else {
            continue;
        };
        tally.terms = terms;
        let (granted, cut) = tally.grant(Earlier { prior, rows: &rows[..index] }, &row);
        rows[index].granted = granted;
        rows[index].cut = cut;
        tally.add(&rows[index], index);
    }
}

/// Puts a row in its place and says where. A row already there stays the only one.
pub fn insert(rows: &mut Vec<Row>, row: Row) -> usize {
    let index = rows.partition_point(|other| other.key() < row.key());
    if rows.get(index).is_none_or(|other| other.key() != row.key()) {
        rows.insert(index, row);
    }
    index
}

/// The sum of some rows.
pub fn sum(rows: &[Row], half_life: HalfLife, which: impl Fn(&Row) -> bool) -> Sum {
    Sum::of(half_life, rows.iter().filter(|row| which(row)).map(|row| (row.when, row.granted)))
}

/// The score of rows as a function of time: the categories that count in the total, and their
/// urgency if a line asks for it.
pub fn total(rows: &[Row], terms: &Terms) -> Total {
    let counted = terms.categories.iter().filter(|category| category.in_total);
    let sums =
        counted.map(|category| sum(rows, category.half_life, |row| row.category == category.id));
    let urgency = terms.asked_urgency().map(|_| urgency(rows, terms));
    Total::new(sums.collect()).with_urgency(urgency)
}

/// The same rows with the short memory of urgency.
pub fn urgency(rows: &[Row], terms: &Terms) -> Sum {
    sum(rows, terms.urgency, |row| terms.is_in_total(row.category))
}

/// A ledger in the fixed form that the state hash is taken of.
pub fn canonical_rows(rows: &[Row], out: &mut Vec<u8>) {
    for row in rows {
        let visitor = match row.source {
            Source::Server => 0,
            Source::Visitor(visitor) => visitor.0,
        };
        for value in [
            row.when.0,
            row.position.0,
            u64::from(row.order),
            u64::from(row.rule.0),
            u64::from(row.category.0),
            visitor as u64,
            (visitor >> 64) as u64,
            row.origin.0,
            u64::from(row.version),
            row.base.0 as u64,
            row.granted.0 as u64,
            row.cut as u64,
            u64::from(row.withdrawn) | u64::from(row.folded) << 1,
        ] {
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

/// Applies what was decided about a ledger: the fold, new rows, new grants.
pub fn apply_rows(
    rows: &mut Vec<Row>,
    new: &[Row],
    regrants: &[Regrant],
    fold: Option<&Fold>,
    position: Position,
) {
    if let Some(fold) = fold {
        apply_fold(rows, fold);
    }
    for row in new {
        let brought = row.position == Position::NONE;
        insert(rows, Row { position: if brought { position } else { row.position }, ..*row });
    }
    for regrant in regrants {
        let same = |row: &&mut Row| row.position == regrant.position && row.order == regrant.order;
        if let Some(row) = rows.iter_mut().find(same) {
            row.granted = regrant.granted;
            row.cut = regrant.cut;
        }
    }
}

/// What a ledger becomes: settled, folded if it is too long, and the difference.
#[derive(Debug, Default)]
pub struct Settled {
    /// The ledger with the new rows, settled. New rows have no position yet. Of [`settle_next`]
    /// nothing: what was there stands.
    pub rows: Vec<Row>,
    /// The new rows, as granted.
    pub new: Vec<Row>,
    /// What changed among the others.
    pub regrants: Vec<Regrant>,
    /// The oldest rows folded.
    pub fold: Option<Fold>,
}

/// A position after every real one: where rows of the record being decided stand.
pub const UNDECIDED: Position = Position(u64::MAX);

/// Where something stands among others of its time: what is being decided comes last.
pub fn placed(position: Position) -> Position {
    if position == Position::NONE { UNDECIDED } else { position }
}

/// Settles new rows, in order, that come after all others, which stand: see [`settle_with`].
pub fn settle_next<P: Prior + ?Sized>(prior: &P, new: &[Row], basis: &Basis<'_>) -> Settled {
    let mut new = new.to_vec();
    settle_after(prior, &mut new, 0, basis);
    Settled { new, ..Settled::default() }
}

/// Settles a ledger with new rows. What was settled before stands, but for rows from `since` on:
/// something else changed there.
pub fn settle_with(
    mut rows: Vec<Row>,
    new: &[Row],
    since: Option<Timestamp>,
    basis: &Basis<'_>,
) -> Settled {
    let terms = basis.versions.numbered(basis.now);
    let fold = terms.and_then(|terms| fold_for(&rows, new.len(), terms));
    if new.is_empty() && since.is_none() && fold.is_none() {
        return Settled { rows, ..Settled::default() };
    }
    if let Some(fold) = &fold {
        apply_fold(&mut rows, fold);
    }
    let new = new.iter().map(|row| {
        let undecided = row.position == Position::NONE;
        Row { position: if undecided { UNDECIDED } else { row.position }, ..*row }
    });
    let place = |row: Row| rows.partition_point(|other| other.key() < row.key());
    let since = since.map(|since| rows.partition_point(|row| row.when < since));
    let from = new.clone().map(place).chain(since).min().unwrap_or(rows.len());
    // New rows are nearly always the last ones: then nothing that stood there is looked at again.
    let before = rows[from..].to_vec();
    for row in new {
        insert(&mut rows, row);
    }
    settle(&mut rows, from, basis);
    let mut settled = Settled { fold, ..Settled::default() };
    let known = |row: &Row| {
        before.binary_search_by_key(&row.key(), Row::key).ok().map(|index| before[index])
    };
    for row in &mut rows[from..] {
        match known(row) {
            Some(old) if (old.granted, old.cut) == (row.granted, row.cut) => {}
            Some(_) => settled.regrants.push(Regrant {
                position: row.position,
                order: row.order,
                granted: row.granted,
                cut: row.cut,
            }),
            None => {
                if row.position == UNDECIDED {
                    row.position = Position::NONE;
                }
                settled.new.push(*row);
            }
        }
    }
    settled.rows = rows;
    settled
}
