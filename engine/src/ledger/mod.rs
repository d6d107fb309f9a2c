//! A Ledger is the rows of points granted; the score is their sum. `settle` alone says what a
//! row is granted, in the order (when, position, order in the record), so that a row that
//! arrives late, or one that goes, leads to the same ledger as if it had always (never) been.

mod fold;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decay::{HalfLife, Sum, Total};
use crate::facts::{Profile, Said, Seen, Source, was_there};
use crate::id::{CategoryId, LeadId, Position, RuleId};
use crate::points::Points;
use crate::rule::{Guards, OnRemove, Once, Period};
use crate::sales::{feedback_of, takes_half};
use crate::terms::{CategoryTerms, RuleTerms, Terms, Versions};
use crate::time::Timestamp;

pub use self::fold::{LEDGER_ROWS_FOLDED, apply_fold, fold, fold_for};

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

    /// Whether the row used up its rule's "once": also when a max cut it to nothing.
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

/// Running sums of the rows settled so far, as they fade under one version.
struct Tally<'a> {
    basis: Basis<'a>,
    terms: &'a Arc<Terms>,
    // A rule that moved to another category has rows in both, and each fades at its own speed.
    rules: BTreeMap<(RuleId, CategoryId), Sum>,
    /// How many rows stand before the last lost deal: a rule's max counts afresh after it.
    lost: usize,
    categories: BTreeMap<CategoryId, Sum>,
    claims: BTreeMap<CategoryId, Sum>,
}

/// Settles rows that are in order, from an index on; those before keep what they were granted.
pub fn settle(rows: &mut [Row], from: usize, basis: &Basis<'_>) {
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
        let (granted, cut) = tally.grant(&rows[..index], &row);
        rows[index].granted = granted;
        rows[index].cut = cut;
        tally.add(&rows[..=index], index);
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

impl<'a> Tally<'a> {
    fn of(rows: &[Row], basis: Basis<'a>, terms: &'a Arc<Terms>) -> Tally<'a> {
        let mut tally = Tally {
            basis,
            terms,
            rules: BTreeMap::new(),
            lost: rows.iter().rposition(is_lost).map_or(0, |place| place + 1),
            categories: BTreeMap::new(),
            claims: BTreeMap::new(),
        };
        // One pass a sum, not one a row: the base of a sum is that of its latest row.
        for category in &terms.categories {
            let id = category.id;
            tally.categories.insert(id, sum(rows, category.half_life, |row| row.category == id));
            let claimed = |row: &Row| row.category == id && tally_claims(row, &basis);
            tally.claims.insert(id, sum(rows, category.half_life, claimed));
        }
        tally
    }

    fn half_life(&self, category: CategoryId) -> Option<HalfLife> {
        self.terms.category(category).map(|category| category.half_life)
    }

    /// What a row is granted after these.
    fn grant(&self, prior: &[Row], row: &Row) -> (Points, Cut) {
        if row.withdrawn {
            return (Points(0), Cut::Withdrawn);
        }
        match feedback_of(row.rule) {
            Some(_) if row.folded => return (row.base, Cut::Folded),
            Some(_) if takes_half(row.rule, row.order) => return (self.half(row), Cut::None),
            Some(_) if row.base.0 <= 0 => return (row.base, Cut::None),
            Some(_) => return self.fit(prior, row, &Guards::default()),
            None => {}
        }
        // A rule of a version that is no longer kept: what was granted stays.
        let Some(rule) = self.terms.rule(row.rule) else {
            return (row.granted, row.cut);
        };
        if self.basis.is_removed(row, rule) {
            return (Points(0), Cut::Removed);
        }
        if row.folded {
            return (row.base, Cut::Folded);
        }
        let guards = &rule.guards;
        if guards.away.is_some_and(|away| was_there(self.basis.visits, row.when, away)) {
            return (Points(0), Cut::NotAway);
        }
        if !self.basis.is_for(row, guards) {
            return (Points(0), Cut::NotFor);
        }
        if has_counted(prior, row, guards, self.terms) {
            return (Points(0), Cut::Counted);
        }
        if row.base.0 <= 0 {
            return (row.base, Cut::None);
        }
        self.fit(prior, row, guards)
    }

    /// What a lost deal takes: half of what the row's category is worth at its moment, rounded
    /// towards zero. What is worth less than nothing stays.
    fn half(&self, row: &Row) -> Points {
        let value = self.categories.get(&row.category).map_or(0, |sum| sum.value(row.when).0);
        Points(-(value.max(0) / 2))
    }

    /// The whole points that still fit under every max; the tightest names the cut.
    fn fit(&self, prior: &[Row], row: &Row, guards: &Guards) -> (Points, Cut) {
        let terms = self.terms;
        let Some(category) = terms.category(row.category) else {
            return (row.base, Cut::None);
        };
        let mut fits = (row.base, Cut::None);
        let mut limit = |max: Option<Points>, used: Points, cut: Cut| {
            let room =
                max.map(|max| Points::whole(max.0.saturating_sub(used.0).div_euclid(1_000).max(0)));
            if let Some(room) = room.filter(|room| *room < fits.0) {
                fits = (room, cut);
            }
        };
        if guards.max.is_some() {
            limit(guards.max, self.rule_value(prior, row), Cut::RuleMax);
        }
        let value = |sums: &BTreeMap<CategoryId, Sum>, id: CategoryId| {
            sums.get(&id).map_or(Points(0), |sum| sum.value(row.when))
        };
        limit(category.max, value(&self.categories, category.id), Cut::CategoryMax);
        if category.in_total {
            let total = |sums| {
                let counted = terms.categories.iter().filter(|category| category.in_total);
                Points(counted.map(|category| value(sums, category.id).0).sum())
            };
            limit(terms.total_max, total(&self.categories), Cut::TotalMax);
            if (self.basis.claimed)(row.source, row.origin) {
                limit(terms.claims_max, total(&self.claims), Cut::ClaimsMax);
            }
        }
        fits
    }

    /// What a row's rule is worth at its moment, in whatever categories its rows stand.
    fn rule_value(&self, prior: &[Row], row: &Row) -> Points {
        let fresh = prior.get(self.lost..).unwrap_or_default();
        let of_category = |category: &CategoryTerms| {
            if let Some(sum) = self.rules.get(&(row.rule, category.id)) {
                return sum.value(row.when).0;
            }
            let same = |it: &Row| it.rule == row.rule && it.category == category.id;
            sum(fresh, category.half_life, same).value(row.when).0
        };
        Points(self.terms.categories.iter().map(of_category).sum())
    }

    /// Adds a settled row; `rows` ends with it.
    fn add(&mut self, rows: &[Row], index: usize) {
        let row = rows[index];
        let Some(half_life) = self.half_life(row.category) else {
            return;
        };
        let basis = self.basis;
        if is_lost(&row) {
            self.rules.clear();
            self.lost = index + 1;
        } else {
            let fresh = &rows[self.lost.min(index)..];
            add_to(&mut self.rules, (row.rule, row.category), &row, || {
                let same = |it: &Row| it.rule == row.rule && it.category == row.category;
                sum(fresh, half_life, same)
            });
        }
        add_to(&mut self.categories, row.category, &row, || {
            sum(rows, half_life, |other| other.category == row.category)
        });
        if tally_claims(&row, &basis) {
            add_to(&mut self.claims, row.category, &row, || {
                let same = |other: &Row| other.category == row.category;
                sum(rows, half_life, |other| same(other) && tally_claims(other, &basis))
            });
        }
    }
}

/// Whether a row is what a lost deal took.
fn is_lost(row: &Row) -> bool {
    takes_half(row.rule, row.order)
}

/// Minus rows too: what was earned by a claim and taken away again leaves room, as under any
/// other max.
fn tally_claims(row: &Row, basis: &Basis<'_>) -> bool {
    row.granted.0 != 0 && (basis.claimed)(row.source, row.origin)
}

fn add_to<K: Ord>(sums: &mut BTreeMap<K, Sum>, key: K, row: &Row, anew: impl FnOnce() -> Sum) {
    let grown = sums.get(&key).and_then(|sum| sum.with(row.when, row.granted));
    sums.insert(key, grown.unwrap_or_else(anew));
}

/// The sum of some rows.
pub fn sum(rows: &[Row], half_life: HalfLife, which: impl Fn(&Row) -> bool) -> Sum {
    let rows = rows.iter().filter(|row| which(row)).map(|row| (row.when, row.granted));
    Sum::of(half_life, rows.collect::<Vec<_>>().into_iter())
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

/// Whether the rule has used up what its guards allow, before this row.
fn has_counted(prior: &[Row], row: &Row, guards: &Guards, terms: &Terms) -> bool {
    let offset = terms.offset;
    let same = |other: &&Row| other.rule == row.rule && other.cut.counted();
    let mut earlier = prior.iter().rev().filter(same);
    if let Some(once) = guards.once {
        let blocked = earlier.clone().next().is_some_and(|last| match once {
            Once::Ever => true,
            Once::Rearmed(after) => row.when.since(last.when) < after,
        });
        if blocked {
            return true;
        }
    }
    let latest = earlier.clone().next();
    let holds =
        |period: Period| latest.is_some_and(|last| period.holds(last.when, row.when, offset));
    if guards.once_per.is_some_and(holds) {
        return true;
    }
    guards.at_most.is_some_and(|(most, period)| {
        let within =
            earlier.by_ref().take_while(|other| period.holds(other.when, row.when, offset));
        within.take(most as usize).count() >= most as usize
    })
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
    /// The ledger with the new rows, settled. New rows have no position yet.
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

/// Settles a ledger with new rows. What was settled before stands, but for rows from `since` on:
/// something else changed there.
pub fn settle_with(
    old: &[Row],
    new: &[Row],
    since: Option<Timestamp>,
    basis: &Basis<'_>,
) -> Settled {
    let mut rows = old.to_vec();
    let terms = basis.versions.numbered(basis.now);
    let fold = terms.and_then(|terms| fold_for(&rows, new.len(), terms));
    if let Some(fold) = &fold {
        apply_fold(&mut rows, fold);
    }
    let before = rows.clone();
    let mut from = since.map_or(rows.len(), |since| rows.partition_point(|row| row.when < since));
    for row in new {
        let undecided = row.position == Position::NONE;
        let position = if undecided { UNDECIDED } else { row.position };
        from = from.min(insert(&mut rows, Row { position, ..*row }));
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
