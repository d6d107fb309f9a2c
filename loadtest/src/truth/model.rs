//! What the score of a person must be, and what must have been told of them: a model as plain as
//! it can be. All rows stand in one list; what each is granted, on which side of each line the
//! person is, and what follows, is worked out from that list.
//!
//! Where the order of two things within a moment cannot be known from outside, the server may say
//! which it was: `at` of a message may be up to [`SLACK_MS`] later than the hit that caused it, and
//! a crossing that time alone made may have come before a hit that was received before it
//! ([`Lead::doubtful`]).

use std::collections::BTreeSet;

use super::fade::{Score, Worth, power};
use super::rules::{Line, Rule, Rules};

/// How late the server may act on something, in milliseconds.
pub const SLACK_MS: u64 = 1_000;

/// Why a row was granted less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It was not.
    None,
    /// Its rule had counted already.
    Counted,
    /// Not all of it fitted.
    Max,
}

/// A rule that matched a hit.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// When.
    pub when: u64,
    /// The record that brought it.
    pub position: u64,
    /// Which one of that record's.
    pub order: u16,
    /// Which rule.
    pub rule: u16,
    /// On which browser.
    pub browser: u32,
    /// What it was granted, in thousandths.
    pub granted: i64,
    cut: Cut,
    power: u64,
}

impl Row {
    /// Of a rule, before it is settled what it is granted.
    pub fn new(
        rules: &Rules,
        rule: u16,
        (when, position, order): (u64, u64, u16),
        browser: u32,
    ) -> Row {
        let half_life = rules.categories[rules.behaviour[usize::from(rule)].category].half_life;
        let power = power(when, half_life);
        Row { when, position, order, rule, browser, granted: 0, cut: Cut::None, power }
    }

    fn key(&self) -> (u64, u64, u16) {
        (self.when, self.position, self.order)
    }
}

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Somebody is in at a line.
    Hot,
    /// And out again.
    Cooled,
    /// A rule tells at once.
    Action,
}

/// What tells one message from another of the same person.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// What is told.
    pub kind: Kind,
    /// To whom.
    pub audience: String,
    /// Of a line: its name, and which of the rises it was.
    pub line: Option<(String, u32)>,
    /// Of a rule: its name, and when its hit was received.
    pub rule: Option<(String, u64)>,
}

/// A message that must have been sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// What it is.
    pub key: Key,
    /// Of when it speaks.
    pub at: u64,
    /// The score then.
    pub exact: i64,
    /// Besides, a rule told at once.
    pub also: bool,
    /// The rule that is given as the reason, and its points.
    pub because: Option<(String, i64)>,
    /// It waited for the cool-down.
    pub waited: bool,
    /// The record of the hit that caused it; none where time did.
    pub cause: Option<u64>,
}

/// Where a person stands at a line.
#[derive(Clone, Debug, Default)]
struct Band {
    inside: bool,
    since: u64,
    number: u32,
    told: bool,
    waits_until: Option<u64>,
    last_told: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Side {
    inside: bool,
    since: u64,
}

/// What time alone does.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Flip,
    Release,
}

/// What the server said of the times of its messages, by what they are and which of them it is.
pub type Stated<'a> = &'a dyn Fn(&Key, usize) -> Option<u64>;

/// A person.
pub struct Lead<'a> {
    rules: &'a Rules,
    stated: Stated<'a>,
    /// In order of time, then of the journal.
    pub rows: Vec<Row>,
    /// What must have been told, in order.
    pub told: Vec<Expected>,
    /// Since when somebody said who this is, and by which record.
    known: Option<(u64, u64)>,
    proved: BTreeSet<u32>,
    bands: Vec<Band>,
    settled: u64,
    /// Records before which a crossing may have come that they did not know of, by which one.
    pub doubtful: Vec<u64>,
    /// Those before which it did.
    before: &'a [u64],
}

/// A hit of a known person.
#[derive(Clone, Copy, Debug)]
pub struct News {
    /// Its record.
    pub position: u64,
    /// When it was received.
    pub received: u64,
    /// Whose browser it proves this to be, if it does.
    pub proves: Option<u32>,
}

impl<'a> Lead<'a> {
    /// Nobody yet. `before`: the records that a crossing by time came before, though they were
    /// received before it.
    pub fn new(rules: &'a Rules, stated: Stated<'a>, before: &'a [u64]) -> Lead<'a> {
        Lead {
            rules,
            stated,
            rows: Vec::new(),
            told: Vec::new(),
            known: None,
            proved: BTreeSet::new(),
            bands: vec![Band::default(); rules.lines.len()],
            settled: 0,
            doubtful: Vec::new(),
            before,
        }
    }

    /// The score at a moment after everything.
    pub fn score_at(&self, at: u64) -> i64 {
        self.score().at(at)
    }

    /// Takes a hit, with the rows that it brings and those that come along.
    pub fn receive(&mut self, news: News, mut new: Vec<Row>) {
        // Nobody's time goes backwards: what was received before and recorded after counts as
        // received then.
        let mut now = news.received.max(self.settled);
        self.pass_time(now);
        if let Some((at, _, _)) = self.next_turn(now + 1, now + SLACK_MS) {
            self.doubtful.push(news.position);
            if self.before.contains(&news.position) {
                now = at;
                self.pass_time(now);
            }
        }
        self.settled = self.settled.max(now);
        let first = self.known.is_none();
        if first {
            self.known = Some((news.received, news.position));
        }
        let surer = news.proves.is_some_and(|browser| self.proved.insert(browser));
        new.sort_by_key(Row::key);
        let changed = self.earn(&new, surer && !first);
        let by_time = self.told.len();
        if changed || first {
            self.reconsider(news, now);
        }
        self.act(news, now, &new, by_time);
    }

    /// Puts rows in their places and settles what they and those behind them are granted; whether
    /// that is anything new.
    fn earn(&mut self, new: &[Row], all: bool) -> bool {
        let mut from = if all { 0 } else { self.rows.len() };
        for row in new {
            let place = self.rows.partition_point(|other| other.key() < row.key());
            self.rows.insert(place, *row);
            from = from.min(place);
        }
        let mut changed = false;
        for place in from..self.rows.len() {
            let (granted, cut) = self.grant(place);
            let row = &mut self.rows[place];
            changed |= granted != row.granted;
            (row.granted, row.cut) = (granted, cut);
        }
        changed
    }

    /// The rule of a row.
    pub fn rule(&self, row: &Row) -> &'a Rule {
        &self.rules.behaviour[usize::from(row.rule)]
    }

    /// What a row is granted after those before it.
    fn grant(&self, place: usize) -> (i64, Cut) {
        let row = &self.rows[place];
        let rule = self.rule(row);
        if self.has_counted(place) {
            return (0, Cut::Counted);
        }
        if rule.points <= 0 {
            return (rule.points, Cut::None);
        }
        let own = |other: &Row| other.rule == row.rule;
        let category = &self.rules.categories[rule.category];
        let mut fits = rule.points;
        let mut limit = |max: Option<i64>, used: &dyn Fn() -> i64| {
            if let Some(max) = max {
                fits = fits.min((max - used()).div_euclid(1_000).max(0) * 1_000);
            }
        };
        limit(rule.max, &|| self.worth(place, rule.category, &own).at(row.when));
        limit(category.max, &|| self.worth(place, rule.category, &|_| true).at(row.when));
        if category.in_total {
            let sum = |which: &dyn Fn(&Row) -> bool| -> i64 {
                self.counted().map(|it| self.worth(place, it, which).at(row.when)).sum()
            };
            let claimed = |other: &Row| !self.proved.contains(&other.browser);
            limit(self.rules.total_max, &|| sum(&|_| true));
            if claimed(row) {
                limit(self.rules.claims_max, &|| sum(&claimed));
            }
        }
        (fits, if fits < rule.points { Cut::Max } else { Cut::None })
    }

    /// The categories that count in the score.
    fn counted(&self) -> impl Iterator<Item = usize> {
        let all = self.rules.categories.iter().enumerate();
        all.filter(|(_, category)| category.in_total).map(|(place, _)| place)
    }

    /// What some of the first rows of a category are.
    fn worth(&self, until: usize, category: usize, which: &dyn Fn(&Row) -> bool) -> Worth {
        let rows = self.rows[..until].iter();
        let rows = rows.filter(|row| self.rule(row).category == category && which(row));
        let granted = rows.map(|row| (row.when, row.granted, row.power));
        Worth::of(self.rules.categories[category].half_life, granted)
    }

    fn score(&self) -> Score {
        Score(self.counted().map(|it| self.worth(self.rows.len(), it, &|_| true)).collect())
    }

    fn has_counted(&self, place: usize) -> bool {
        let row = &self.rows[place];
        let rule = self.rule(row);
        let same = |other: &&Row| other.rule == row.rule && other.cut != Cut::Counted;
        let earlier = || self.rows[..place].iter().rev().filter(same);
        let Some(last) = earlier().next() else {
            return false;
        };
        let within = |period, other: &Row| self.rules.holds(period, other.when, row.when);
        let once = rule.once.is_some_and(|after| row.when.saturating_sub(last.when) < after);
        once || rule.once_per.is_some_and(|period| within(period, last))
            || rule.at_most.is_some_and(|(most, period)| {
                earlier().take_while(|other| within(period, other)).take(most).count() >= most
            })
    }

    /// Acts on every moment until one, each at its own.
    pub fn pass_time(&mut self, until: u64) {
        let mut from = self.settled;
        while let Some((at, line, turn)) = self.next_turn(from, until) {
            self.turn(at, line, turn);
            from = at;
            self.settled = at;
        }
    }

    /// What time does first from one moment to another.
    fn next_turn(&self, from: u64, until: u64) -> Option<(u64, usize, Turn)> {
        if self.known.is_none() || from > until {
            return None;
        }
        let score = self.score();
        let lines = self.rules.lines.iter().zip(&self.bands).enumerate();
        let turns = lines.filter_map(|(place, (line, band))| {
            let side = Side { inside: band.inside, since: band.since };
            let flip = flip(line, side, &score, true, (from, until));
            let release = band.waits_until.filter(|_| band.inside).map(|at| at.max(from));
            match (flip, release.filter(|at| *at <= until)) {
                (Some(flip), release) if release.is_none_or(|release| flip <= release) => {
                    Some((flip, place, Turn::Flip))
                }
                (_, release) => release.map(|at| (at, place, Turn::Release)),
            }
        });
        turns.min_by_key(|(at, ..)| *at)
    }

    fn turn(&mut self, at: u64, place: usize, turn: Turn) {
        match turn {
            Turn::Flip if self.bands[place].inside => self.fall(place, (at, at), None),
            Turn::Flip => self.rise(place, (at, at), None, None),
            Turn::Release => {
                let band = &mut self.bands[place];
                band.told = true;
                band.waits_until = None;
                band.last_told = Some(at);
                let key = self.key_of(Kind::Hot, place);
                let exact = self.score_at(at);
                let (also, because, cause) = (false, None, None);
                self.told.push(Expected { key, at, exact, also, because, waited: true, cause });
            }
        }
    }

    fn key_of(&self, kind: Kind, place: usize) -> Key {
        let line = &self.rules.lines[place];
        Key {
            kind,
            audience: line.tell.clone(),
            line: Some((line.name.clone(), self.bands[place].number)),
            rule: None,
        }
    }

    /// The moment that a message of a hit speaks of: the server's word for it, within bounds.
    fn stated(&mut self, key: &Key, at: u64) -> u64 {
        let nth = self.told.iter().filter(|it| it.key == *key).count();
        let stated = (self.stated)(key, nth).filter(|it| (at..=at + SLACK_MS).contains(it));
        let at = stated.unwrap_or(at);
        self.settled = self.settled.max(at);
        at
    }

    fn rise(
        &mut self,
        place: usize,
        (at, since): (u64, u64),
        cause: Option<u64>,
        because: Option<(String, i64)>,
    ) {
        let cooldown = self.rules.lines[place].cooldown;
        let band = &mut self.bands[place];
        band.number += 1;
        (band.inside, band.since) = (true, since);
        band.waits_until = band.last_told.map(|told| told + cooldown).filter(|free| *free > at);
        band.told = band.waits_until.is_none();
        if !band.told {
            return;
        }
        let key = self.key_of(Kind::Hot, place);
        let at = if cause.is_some() { self.stated(&key, at) } else { at };
        self.bands[place].last_told = Some(at);
        let exact = self.score_at(at);
        self.told.push(Expected { key, at, exact, also: false, because, waited: false, cause });
    }

    fn fall(&mut self, place: usize, (at, since): (u64, u64), cause: Option<u64>) {
        let band = &mut self.bands[place];
        (band.inside, band.since, band.waits_until) = (false, since, None);
        if !band.told {
            return;
        }
        let key = self.key_of(Kind::Cooled, place);
        let at = if cause.is_some() { self.stated(&key, at) } else { at };
        let exact = self.score_at(at);
        let (also, because) = (false, None);
        self.told.push(Expected { key, at, exact, also, because, waited: false, cause });
    }

    /// Works the sides out anew and acts on what differs.
    fn reconsider(&mut self, news: News, now: u64) {
        let sides = self.walk(now);
        let own = self.rows.iter().filter(|row| row.position == news.position && row.granted > 0);
        let best = own.max_by_key(|row| row.granted);
        let because = best.map(|row| (self.rule(row).id.clone(), row.granted));
        for (place, side) in sides.into_iter().enumerate() {
            let times = (now, side.since);
            match (self.bands[place].inside, side.inside) {
                (false, true) => self.rise(place, times, Some(news.position), because.clone()),
                (true, false) => self.fall(place, times, Some(news.position)),
                _ => self.bands[place].since = side.since,
            }
        }
    }

    /// On which side of each line the person is, by their rows from the first on.
    fn walk(&self, until: u64) -> Vec<Side> {
        let mut sides = vec![Side::default(); self.rules.lines.len()];
        let counted: Vec<usize> = self.counted().collect();
        let nothing = |it: &usize| self.worth(0, *it, &|_| true);
        let mut score = Score(counted.iter().map(nothing).collect());
        let known = self.known.unwrap_or((u64::MAX, 0));
        let rows = self.rows.iter().enumerate().filter(|(_, row)| row.granted != 0);
        let mut events: Vec<((u64, u64), Option<usize>)> =
            rows.map(|(place, row)| ((row.when, row.position), Some(place))).collect();
        let place = events.partition_point(|(key, _)| *key < known);
        events.insert(place, (known, None));
        let mut identified = false;
        for (place, (key, row)) in events.iter().enumerate() {
            if key.0 > until {
                break;
            }
            match row {
                Some(row) => self.learn(&mut score, &counted, *row),
                None => identified = true,
            }
            let next = events.get(place + 1).map(|(next, _)| *next);
            if next == Some(*key) {
                continue;
            }
            let end = next.map_or(until, |next| next.0.saturating_sub(1)).min(until).max(key.0);
            for (side, line) in sides.iter_mut().zip(&self.rules.lines) {
                let mut from = key.0;
                while let Some(at) = flip(line, *side, &score, identified, (from, end)) {
                    *side = Side { inside: !side.inside, since: at };
                    from = at;
                }
            }
        }
        sides
    }

    fn learn(&self, score: &mut Score, counted: &[usize], place: usize) {
        let row = &self.rows[place];
        let category = self.rule(row).category;
        let Some(own) = counted.iter().position(|it| *it == category) else {
            return;
        };
        if !score.0[own].add((row.when, row.granted, row.power)) {
            score.0[own] = self.worth(place + 1, category, &|_| true);
        }
    }

    /// Rules that tell at once. Where the same hit made the person hot, that message says it.
    fn act(&mut self, news: News, now: u64, new: &[Row], by_time: usize) {
        let mut wishes: Vec<(&str, Row)> = Vec::new();
        for row in new {
            let Ok(place) = self.rows.binary_search_by_key(&row.key(), Row::key) else {
                continue;
            };
            let row = self.rows[place];
            let Some(audience) = self.rule(&row).tell.as_deref() else {
                continue;
            };
            if row.cut == Cut::Counted {
                continue;
            }
            match wishes.iter_mut().find(|(other, _)| *other == audience) {
                Some((_, best)) if self.rule(best).points >= self.rule(&row).points => {}
                Some((_, best)) => *best = row,
                None => wishes.push((audience, row)),
            }
        }
        for (audience, row) in wishes {
            let hot = |it: &&mut Expected| it.key.kind == Kind::Hot && it.key.audience == audience;
            if let Some(message) = self.told[by_time..].iter_mut().find(hot) {
                message.also = true;
                continue;
            }
            let rule = self.rule(&row).id.clone();
            let key = Key {
                kind: Kind::Action,
                audience: audience.to_owned(),
                line: None,
                rule: Some((rule.clone(), news.received)),
            };
            let at = self.stated(&key, now);
            let (exact, because) = (self.score_at(at), Some((rule, row.granted)));
            let (also, waited, cause) = (false, false, Some(news.position));
            self.told.push(Expected { key, at, exact, also, because, waited, cause });
        }
    }
}

/// The first moment from one to another at which time alone changes a side.
fn flip(
    line: &Line,
    side: Side,
    score: &Score,
    identified: bool,
    (from, until): (u64, u64),
) -> Option<u64> {
    if side.inside {
        return score.first_below(line.fall, from.max(side.since + line.dwell), until);
    }
    if !identified || from > until {
        return None;
    }
    let there = (score.at(from) >= line.rise).then_some(from);
    there.or_else(|| score.may_rise().then(|| score.first_at_least(line.rise, from, until))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::truth::rules::tests::TEXT;

    const MINUTE: u64 = 60_000;
    const HOUR: u64 = 60 * MINUTE;
    /// Monday, 7 December 2026, 9:00 in Japan.
    const MONDAY: u64 = 1_796_601_600_000;

    struct Play<'a> {
        lead: Lead<'a>,
        rules: &'a Rules,
        position: u64,
    }

    impl<'a> Play<'a> {
        fn new(rules: &'a Rules) -> Play<'a> {
            Play { lead: Lead::new(rules, &|_, _| None, &[]), rules, position: 0 }
        }

        fn hit(&mut self, received: u64, when: u64, rule: &str, proves: bool) {
            self.position += 1;
            let rule = self.rules.behaviour.iter().position(|it| it.id == rule);
            let key = (when, self.position, 0);
            let row = rule.map(|rule| Row::new(self.rules, rule as u16, key, 1));
            let proves = proves.then_some(1);
            let news = News { position: self.position, received, proves };
            self.lead.receive(news, row.into_iter().collect());
        }

        fn told(&self) -> Vec<(Kind, u64, i64)> {
            self.lead.told.iter().map(|it| (it.key.kind, it.at, it.exact)).collect()
        }
    }

    #[test]
    fn points_fade_as_the_stories_say() {
        // Story 4: pricing 14:01, document 14:05: 31.998.
        let rules = Rules::parse(TEXT).unwrap();
        let mut play = Play::new(&rules);
        play.hit(MONDAY + HOUR, MONDAY + HOUR, "pricing", true);
        let then = MONDAY + HOUR + 4 * MINUTE;
        play.hit(then, then, "document", false);
        assert_eq!(play.lead.score_at(then), 31_998);
    }

    #[test]
    fn whoever_asks_for_a_quote_is_hot_once_and_cools_after_the_dwell_to_the_millisecond() {
        // Story 2, the second lead: 60.000, then careers 49.384, then out when the day is over.
        let text = TEXT.replace("points = -10", "points = -30");
        let rules = Rules::parse(&text).unwrap();
        let mut play = Play::new(&rules);
        play.hit(MONDAY, MONDAY, "contact", true);
        play.hit(MONDAY + 5 * HOUR, MONDAY + 5 * HOUR, "careers", false);
        play.lead.pass_time(MONDAY + 48 * HOUR);
        let told = play.told();
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[0], (Kind::Hot, MONDAY, 60_000));
        assert_eq!((told[1].0, told[1].1), (Kind::Cooled, MONDAY + 24 * HOUR));
        assert!(play.lead.told[0].also);
    }

    #[test]
    fn what_is_only_claimed_counts_up_to_the_limit_and_all_of_it_once_it_is_proved() {
        let rules =
            Rules::parse(&TEXT.replace("[claims]\nmax = 80", "[claims]\nmax = 25")).unwrap();
        assert_eq!(rules.claims_max, Some(25_000));
        let mut play = Play::new(&rules);
        play.hit(MONDAY, MONDAY, "pricing", false);
        play.hit(MONDAY, MONDAY, "document", false);
        assert_eq!(play.lead.score_at(MONDAY), 25_000);
        play.hit(MONDAY + 1, MONDAY + 1, "", true);
        assert_eq!(play.lead.score_at(MONDAY), 32_000);
    }

    #[test]
    fn a_late_hit_takes_its_place_and_those_behind_it_are_granted_anew() {
        let rules = Rules::parse(TEXT).unwrap();
        let mut play = Play::new(&rules);
        for minute in [10, 11, 12] {
            play.hit(MONDAY + minute * MINUTE, MONDAY + minute * MINUTE, "article", true);
        }
        play.hit(MONDAY + 20 * MINUTE, MONDAY, "article", false);
        let granted: Vec<i64> = play.lead.rows.iter().map(|row| row.granted).collect();
        assert_eq!(granted, [1_000, 1_000, 1_000, 0]);
    }

    #[test]
    fn a_second_message_waits_for_the_cool_down_and_is_dropped_by_whoever_is_out_by_then() {
        let text = TEXT.replace("dwell = \"24h\"", "dwell = \"1h\"");
        let text = text.replace("max = 60, once_per", "once_per");
        let rules =
            Rules::parse(&text.replace("half_life = \"14d\"", "half_life = \"2h\"")).unwrap();
        let mut play = Play::new(&rules);
        play.hit(MONDAY, MONDAY, "contact", true);
        for (day, rule) in [(1, "contact"), (2, "contact")] {
            let at = MONDAY + day * 24 * HOUR + HOUR;
            play.hit(at, at, rule, false);
        }
        // The third one rises two hours before the cool-down is over, and is in at its end.
        let at = MONDAY + 72 * HOUR - 1_000;
        play.hit(at, at, "contact", false);
        play.lead.pass_time(MONDAY + 100 * HOUR);
        let kinds: Vec<(Kind, u64)> = play.told().iter().map(|it| (it.0, it.1)).collect();
        let hot: Vec<u64> = kinds.iter().filter(|it| it.0 == Kind::Hot).map(|it| it.1).collect();
        assert_eq!(hot, [MONDAY, MONDAY + 72 * HOUR], "{kinds:?}");
        assert_eq!(play.lead.told.iter().filter(|it| it.waited).count(), 1);
    }
}
