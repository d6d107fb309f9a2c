//! A Ledger is the rows of points granted; the score is their sum. `settle` alone says what a
//! row is granted, in the order (when, position, order in the record), so that a row that
//! arrives late, or one that goes, leads to the same ledger as if it had always (never) been.

use std::collections::BTreeMap;

use crate::decay::{HalfLife, Sum, Total};
use crate::id::{CategoryId, Position, RuleId, VisitorId};
use crate::rule::{Guards, Once, Period, Points, Rule};
use crate::scoring::{Category, Scoring};
use crate::time::Timestamp;

/// Rows one ledger holds. Beyond it the oldest fold into one row per (source, rule): still
/// removable, no longer arbitrated anew.
pub const LEDGER_ROWS_MAX: usize = 4_096;
/// Rows folded at a time, so that folding is rare.
pub const LEDGER_ROWS_FOLDED: usize = 1_024;

/// Where a row came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A server of ours that named the person, without any browser.
    #[default]
    Server,
    /// A browser.
    Visitor(VisitorId),
}

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
}

impl Cut {
    /// All reasons, by their number in the journal.
    pub const ALL: [Cut; 8] = [
        Cut::None,
        Cut::Counted,
        Cut::NotAway,
        Cut::RuleMax,
        Cut::CategoryMax,
        Cut::TotalMax,
        Cut::ClaimsMax,
        Cut::Folded,
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
        }
    }

    /// Whether the row used up its rule's "once": also when a max cut it to nothing.
    pub fn counted(self) -> bool {
        !matches!(self, Cut::Counted | Cut::NotAway)
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
    /// What the rule gives.
    pub base: Points,
    /// What was granted.
    pub granted: Points,
    /// Why it was less, if it was.
    pub cut: Cut,
}

/// A row that is granted something else, because an earlier one arrived late.
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
    fn key(&self) -> (Timestamp, Position, u16) {
        (self.when, self.position, self.order)
    }
}

/// What settling needs besides the rows.
pub struct Terms<'a> {
    /// The limits in force.
    pub scoring: &'a Scoring,
    /// Whether a source is tied to the person by a claim only.
    pub claimed: &'a dyn Fn(Source) -> bool,
}

/// Running sums of the rows settled so far.
struct Tally<'a> {
    terms: &'a Terms<'a>,
    // A rule that moved to another category has rows in both, and each fades at its own speed.
    rules: BTreeMap<(RuleId, CategoryId), Sum>,
    categories: BTreeMap<CategoryId, Sum>,
    claims: BTreeMap<CategoryId, Sum>,
}

/// Settles rows that are in order, from an index on; those before keep what they were granted.
pub fn settle(rows: &mut [Row], from: usize, terms: &Terms<'_>) {
    let mut tally = Tally::of(&rows[..from], terms);
    for index in from..rows.len() {
        let (granted, cut) = tally.grant(&rows[..index], &rows[index]);
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
    fn of(rows: &[Row], terms: &'a Terms<'a>) -> Tally<'a> {
        let mut tally = Tally {
            terms,
            rules: BTreeMap::new(),
            categories: BTreeMap::new(),
            claims: BTreeMap::new(),
        };
        // One pass a sum, not one a row: the base of a sum is that of its latest row.
        for category in &terms.scoring.categories {
            let id = category.id;
            tally.categories.insert(id, sum(rows, category.half_life, |row| row.category == id));
            let claimed = |row: &Row| row.category == id && tally_claims(row, terms);
            tally.claims.insert(id, sum(rows, category.half_life, claimed));
        }
        tally
    }

    fn half_life(&self, category: CategoryId) -> Option<HalfLife> {
        self.terms.scoring.category(category).map(|category| category.half_life)
    }

    /// What a row is granted after these.
    fn grant(&self, prior: &[Row], row: &Row) -> (Points, Cut) {
        // A rule or category that this version no longer has: what was granted stays.
        let Some(rule) = self.terms.scoring.rules.rule(row.rule) else {
            return (row.granted, row.cut);
        };
        match row.cut {
            Cut::NotAway => return (Points(0), Cut::NotAway),
            Cut::Folded => return (row.granted, Cut::Folded),
            _ => {}
        }
        if has_counted(prior, row, &rule.guards, self.terms) {
            return (Points(0), Cut::Counted);
        }
        if row.base.0 <= 0 {
            return (row.base, Cut::None);
        }
        self.fit(prior, row, rule)
    }

    /// The whole points that still fit under every max; the tightest names the cut.
    fn fit(&self, prior: &[Row], row: &Row, rule: &Rule) -> (Points, Cut) {
        let scoring = self.terms.scoring;
        let Some(category) = scoring.category(row.category) else {
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
        if rule.guards.max.is_some() {
            limit(rule.guards.max, self.rule_value(prior, row), Cut::RuleMax);
        }
        let value = |sums: &BTreeMap<CategoryId, Sum>, id: CategoryId| {
            sums.get(&id).map_or(Points(0), |sum| sum.value(row.when))
        };
        limit(category.max, value(&self.categories, category.id), Cut::CategoryMax);
        if category.in_total {
            let total = |sums| {
                let counted = scoring.categories.iter().filter(|category| category.in_total);
                Points(counted.map(|category| value(sums, category.id).0).sum())
            };
            limit(scoring.total_max, total(&self.categories), Cut::TotalMax);
            if (self.terms.claimed)(row.source) {
                limit(scoring.claims_max, total(&self.claims), Cut::ClaimsMax);
            }
        }
        fits
    }

    /// What a row's rule is worth at its moment, in whatever categories its rows stand.
    fn rule_value(&self, prior: &[Row], row: &Row) -> Points {
        let of_category = |category: &Category| match self.rules.get(&(row.rule, category.id)) {
            Some(sum) => sum.value(row.when).0,
            None => {
                sum(prior, category.half_life, |other| {
                    other.rule == row.rule && other.category == category.id
                })
                .value(row.when)
                .0
            }
        };
        Points(self.terms.scoring.categories.iter().map(of_category).sum())
    }

    /// Adds a settled row; `rows` ends with it.
    fn add(&mut self, rows: &[Row], index: usize) {
        let row = rows[index];
        let Some(half_life) = self.half_life(row.category) else {
            return;
        };
        let terms = self.terms;
        add_to(&mut self.rules, (row.rule, row.category), &row, || {
            sum(rows, half_life, |other| other.rule == row.rule && other.category == row.category)
        });
        add_to(&mut self.categories, row.category, &row, || {
            sum(rows, half_life, |other| other.category == row.category)
        });
        if tally_claims(&row, terms) {
            add_to(&mut self.claims, row.category, &row, || {
                let same = |other: &Row| other.category == row.category;
                sum(rows, half_life, |other| same(other) && tally_claims(other, terms))
            });
        }
    }
}

/// Minus rows too: what was earned by a claim and taken away again leaves room, as under any
/// other max.
fn tally_claims(row: &Row, terms: &Terms<'_>) -> bool {
    row.granted.0 != 0 && (terms.claimed)(row.source)
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

/// The score of rows as a function of time: the categories that count in the total.
pub fn total(rows: &[Row], scoring: &Scoring) -> Total {
    let counted = scoring.categories.iter().filter(|category| category.in_total);
    let sums =
        counted.map(|category| sum(rows, category.half_life, |row| row.category == category.id));
    Total::new(sums.collect())
}

/// Whether the rule has used up what its guards allow, before this row.
fn has_counted(prior: &[Row], row: &Row, guards: &Guards, terms: &Terms<'_>) -> bool {
    let offset = terms.scoring.rules.offset();
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

/// What the oldest rows fold into: one row per (source, rule, category), at the moment at which
/// the rule last counted, worth what they are worth together then. Rows that did not count are
/// worth nothing and leave no trace.
pub fn fold(rows: &[Row], scoring: &Scoring) -> Vec<Row> {
    let mut groups: BTreeMap<(Source, RuleId, CategoryId), Vec<Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.cut.counted()) {
        groups.entry((row.source, row.rule, row.category)).or_default().push(*row);
    }
    let mut folded: Vec<Row> =
        groups.into_values().filter_map(|group| fold_group(&group, scoring)).collect();
    folded.sort_by_key(Row::key);
    folded
}

fn fold_group(group: &[Row], scoring: &Scoring) -> Option<Row> {
    let latest = *group.last()?;
    if group.len() == 1 && latest.cut == Cut::Folded {
        return Some(latest);
    }
    let granted = scoring.category(latest.category).map_or(latest.granted, |category| {
        sum(group, category.half_life, |_| true).value(latest.when)
    });
    // Its grant is final, so nothing of it is held back.
    Some(Row { granted, base: granted, cut: Cut::Folded, ..latest })
}

/// How many of the oldest rows to fold so that this many fit, and into what. Nothing, if there
/// is room, or if so many sources and rules are behind them that folding gains little.
pub fn fold_for(rows: &[Row], fit: usize, scoring: &Scoring) -> Option<Fold> {
    let over = (rows.len() + fit).checked_sub(LEDGER_ROWS_MAX).filter(|over| *over > 0)?;
    [over.max(LEDGER_ROWS_FOLDED).min(rows.len()), rows.len()].into_iter().find_map(|count| {
        let into = fold(&rows[..count], scoring);
        let gain = count - into.len();
        (gain >= over.max(count / 2)).then_some(Fold { rows: count as u32, into })
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
            row.base.0 as u64,
            row.granted.0 as u64,
            row.cut as u64,
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

/// Replaces the oldest rows.
pub fn apply_fold(rows: &mut Vec<Row>, fold: &Fold) {
    rows.drain(..(fold.rows as usize).min(rows.len()));
    for row in &fold.into {
        insert(rows, *row);
    }
}

/// What a ledger becomes with new rows: settled, folded if it is too long, and the difference.
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
const UNDECIDED: Position = Position(u64::MAX);

/// Settles a ledger with new rows. `whole` settles it from the beginning.
pub fn settle_with(
    old: &[Row],
    new: &[Row],
    whole: bool,
    scoring: &Scoring,
    claimed: &dyn Fn(Source) -> bool,
) -> Settled {
    let mut rows = old.to_vec();
    let fold = fold_for(&rows, new.len(), scoring);
    if let Some(fold) = &fold {
        apply_fold(&mut rows, fold);
    }
    let before = rows.clone();
    let mut from = if whole { 0 } else { rows.len() };
    for row in new {
        let undecided = row.position == Position::NONE;
        let position = if undecided { UNDECIDED } else { row.position };
        from = from.min(insert(&mut rows, Row { position, ..*row }));
    }
    settle(&mut rows, from, &Terms { scoring, claimed });
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
