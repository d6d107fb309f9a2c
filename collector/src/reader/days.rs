//! Daily roll-ups: what was told, what sales answered and when, what was held back. An answer
//! counts on the day on which what it answers was told. Rebuilt by replay; people under a test
//! key are in none of it.

pub mod saved;

use std::collections::BTreeMap;

use engine::alert::AlertKind;
use engine::id::{LeadId, Position, RuleId, ThresholdId};
use engine::ledger::Cut;
use engine::points::Points;
use engine::record::{LeadPart, Message};
use engine::sales::Feedback;
use engine::stage::FeedbackKind;
use engine::threshold::{Crossing, Direction};
use engine::time::{Timestamp, UtcOffset};

use crate::outbox::entry::{Entry, Queued};

/// Days kept; the oldest goes when another begins.
pub const DAYS_MAX: usize = 400;
/// Answers of one day whose times are kept; of further ones the times are not known.
pub const TIMES_MAX: usize = 1_000;
/// Messages of one lead that wait for an answer. An older one stays unanswered.
const ASKS_MAX: usize = 16;

/// The days.
#[derive(Default)]
pub struct Days {
    kept: BTreeMap<i64, Day>,
    /// Since the journal began.
    total: Day,
    /// Messages that ask sales for an answer, by lead: the last ones, answered or not.
    asks: BTreeMap<LeadId, Vec<Ask>>,
    /// Leads that are in at a line, and whose message waits for the cool-down.
    waiting: BTreeMap<(LeadId, ThresholdId), i64>,
}

/// What happened on one day, or on several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Day {
    /// Messages by type and audience.
    pub alerts: BTreeMap<(&'static str, String), u64>,
    /// Messages that ask sales for an answer.
    pub asked: u64,
    /// Such messages that were taken back before anybody answered. They are not among those.
    pub retracted: u64,
    /// Those that were answered, by the kind of the first answer.
    pub answered: BTreeMap<FeedbackKind, u64>,
    /// Those that were answered in time.
    pub in_time: u64,
    /// Those that sales took, by its last word, and those that it rejected.
    pub verdicts: [u64; 2],
    /// The same of those that tell that a lead is hot, by line and by the rule that did it.
    pub hot: BTreeMap<(Option<ThresholdId>, Option<RuleId>), [u64; 2]>,
    /// When a message was told, and when it was answered.
    pub times: Vec<(Timestamp, Timestamp)>,
    /// Answers for whose times there was no room.
    pub times_unknown: u64,
    /// Messages that had to wait for the cool-down.
    pub waited: u64,
    /// Those that were dropped, since the lead was out again by then.
    pub dropped: u64,
    /// New rows of leads that a max cut, by which, and the points that were cut off.
    pub cuts: BTreeMap<&'static str, (u64, Points)>,
    /// Messages that a fact held back from somebody.
    pub held: BTreeMap<String, u64>,
}

/// A message that asks sales for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ask {
    position: Position,
    place: u16,
    /// The day on which it was told.
    day: i64,
    told: Timestamp,
    answer_by: Timestamp,
    hot: Option<(Option<ThresholdId>, Option<RuleId>)>,
    answered: bool,
    verdict: Option<Verdict>,
}

/// Sales' last word on a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Taken,
    Rejected,
}

/// What is still to be answered of some days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unanswered {
    /// Messages that nobody has answered.
    pub open: u64,
    /// Those of them that should have been.
    pub overdue: u64,
}

impl Days {
    /// Takes what a record decided about a lead.
    pub fn take_part(
        &mut self,
        part: &LeadPart,
        (time, position): (Timestamp, Position),
        offset: UtcOffset,
    ) {
        let today = time.day(offset);
        for row in part.rows.iter().filter(|row| row.position == Position::NONE) {
            let cut =
                matches!(row.cut, Cut::RuleMax | Cut::CategoryMax | Cut::TotalMax | Cut::ClaimsMax);
            if cut {
                self.count(today, |day| {
                    let (rows, points) = day.cuts.entry(row.cut.name()).or_default();
                    *rows += 1;
                    points.0 += row.base.0 - row.granted.0;
                });
            }
        }
        for crossing in &part.crossings {
            self.cross(part.lead, crossing, offset);
        }
        for message in &part.messages {
            self.tell(part, message, position, offset);
        }
    }

    fn cross(&mut self, lead: LeadId, crossing: &Crossing, offset: UtcOffset) {
        let (key, today) = ((lead, crossing.threshold), crossing.at.day(offset));
        match crossing.direction {
            Direction::Rise if crossing.waits_until.is_some() => {
                self.waiting.insert(key, today);
                self.count(today, |day| day.waited += 1);
            }
            Direction::Rise | Direction::Release => {
                self.waiting.remove(&key);
            }
            Direction::Fall => {
                if self.waiting.remove(&key).is_some() {
                    self.count(today, |day| day.dropped += 1);
                }
            }
            Direction::Settle => {}
        }
    }

    fn tell(&mut self, part: &LeadPart, message: &Message, position: Position, offset: UtcOffset) {
        let told = message.told.at;
        let today = told.day(offset);
        let audience = message.audience.clone().unwrap_or_default();
        self.count(today, |day| {
            *day.alerts.entry((message.kind.name(), audience.clone())).or_default() += 1;
        });
        if let Some(back) = &message.takes_back {
            self.take_back(part.lead, (back.position, back.place));
        }
        let Some((answer_by, _)) = message.told.asks else {
            return;
        };
        let hot = (message.kind == AlertKind::Hot).then(|| {
            let crossing = message.crossing.and_then(|it| part.crossings.get(usize::from(it)));
            let line = crossing.map(|crossing| crossing.threshold);
            (line, message.told.because.map(|because| because.rule))
        });
        let asks = self.asks.entry(part.lead).or_default();
        asks.retain(|ask| !ask.answered);
        if asks.len() == ASKS_MAX {
            asks.remove(0);
        }
        let place = message.place;
        let (answered, verdict) = (false, None);
        asks.push(Ask { position, place, day: today, told, answer_by, hot, answered, verdict });
        self.count(today, |day| day.asked += 1);
    }

    /// A message that nobody has answered asks no more.
    fn take_back(&mut self, lead: LeadId, message: (Position, u16)) {
        if let Some(day) = self.forget(lead, |ask| (ask.position, ask.place) == message) {
            self.count(day, |day| {
                day.asked = day.asked.saturating_sub(1);
                day.retracted += 1;
            });
        }
    }

    /// Takes out a message that nobody has answered; the day on which it was told.
    fn forget(&mut self, lead: LeadId, is: impl Fn(&Ask) -> bool) -> Option<i64> {
        let asks = self.asks.get_mut(&lead)?;
        let place = asks.iter().position(|ask| !ask.answered && is(ask))?;
        Some(asks.remove(place).day)
    }

    /// Takes an answer of sales.
    pub fn answer(&mut self, lead: LeadId, feedback: &Feedback, time: Timestamp) {
        let Some(mut asks) = self.asks.remove(&lead) else {
            return;
        };
        if feedback.kind == FeedbackKind::Snooze {
            // Later is no answer: it says by when there will be one.
            let later = feedback.asks.map(|(answer_by, _)| answer_by);
            for ask in asks.iter_mut().filter(|ask| !ask.answered) {
                ask.answer_by = later.unwrap_or(ask.answer_by);
            }
        } else {
            let verdict = match feedback.kind {
                kind if kind.takes() => Some(Verdict::Taken),
                FeedbackKind::Rejected => Some(Verdict::Rejected),
                _ => None,
            };
            for ask in &mut asks {
                self.answer_one(ask, (feedback.kind, feedback.at.min(time)), verdict);
            }
        }
        self.asks.insert(lead, asks);
    }

    fn answer_one(
        &mut self,
        ask: &mut Ask,
        (kind, at): (FeedbackKind, Timestamp),
        verdict: Option<Verdict>,
    ) {
        let at = at.max(ask.told);
        let first = !std::mem::replace(&mut ask.answered, true);
        let before = ask.verdict;
        ask.verdict = verdict.or(before);
        let (after, ask) = (ask.verdict, *ask);
        self.count(ask.day, |day| {
            if first {
                *day.answered.entry(kind).or_default() += 1;
                day.in_time += u64::from(at <= ask.answer_by);
                if day.times.len() < TIMES_MAX {
                    day.times.push((ask.told, at));
                } else {
                    day.times_unknown += 1;
                }
            }
            let move_to = |verdicts: &mut [u64; 2]| {
                if let Some(before) = before {
                    verdicts[before as usize] = verdicts[before as usize].saturating_sub(1);
                }
                if let Some(after) = after {
                    verdicts[after as usize] += 1;
                }
            };
            move_to(&mut day.verdicts);
            if let Some(hot) = ask.hot {
                move_to(day.hot.entry(hot).or_default());
            }
        });
    }

    /// Takes an entry of the outbox: what was held back from everybody asks nobody.
    pub fn take_outbox(&mut self, entry: &[u8], time: Timestamp, offset: UtcOffset) {
        if !holds_back(entry) {
            return;
        }
        let Some(Entry::Queued(Queued { lead, kind, cause, test, held: Some(held), .. })) =
            Entry::decode(entry)
        else {
            return;
        };
        if test {
            return;
        }
        self.count(time.day(offset), |day| *day.held.entry(held.by.clone()).or_default() += 1);
        let asks = [AlertKind::Hot, AlertKind::Action].iter().any(|it| it.name() == kind);
        if let Some(lead) = LeadId::parse(&lead).filter(|_| asks && held.everybody)
            && let Some(day) = self.forget(lead, |ask| ask.position.0 == cause)
        {
            self.count(day, |day| day.asked = day.asked.saturating_sub(1));
        }
    }

    /// One lead is another's name from now on: whoever answers, answers for both.
    pub fn join(&mut self, from: LeadId, into: LeadId) {
        let asks = self.asks.remove(&from).unwrap_or_default();
        if !asks.is_empty() {
            let own = self.asks.entry(into).or_default();
            own.extend(asks);
            own.sort_by_key(|ask| (ask.told, ask.position, ask.place));
            own.drain(..own.len().saturating_sub(ASKS_MAX));
        }
        self.waiting.retain(|(lead, _), _| *lead != from);
    }

    /// Somebody was erased: what they still had to be answered for goes. The days' counts name
    /// nobody, and stay.
    pub fn erase(&mut self, lead: LeadId) {
        self.asks.remove(&lead);
        self.waiting.retain(|(known, _), _| *known != lead);
    }

    fn count(&mut self, today: i64, count: impl Fn(&mut Day)) {
        let oldest = self.kept.first_key_value().map(|(day, _)| *day);
        // What is answered so late that its day is gone counts in the total alone.
        let is_kept = self.kept.len() < DAYS_MAX || oldest.is_some_and(|oldest| oldest <= today);
        if is_kept {
            count(self.kept.entry(today).or_default());
            if self.kept.len() > DAYS_MAX {
                self.kept.pop_first();
            }
        }
        count(&mut self.total);
        self.total.times.clear();
    }

    /// Everything since the journal began, without the times.
    pub fn total(&self) -> Day {
        self.total.clone()
    }

    /// The days from one to another, both included.
    pub fn between(&self, from: i64, to: i64) -> Vec<(i64, Day)> {
        self.kept.range(from..=to).map(|(number, day)| (*number, day.clone())).collect()
    }

    /// What is still to be answered of what was told from a day on.
    pub fn unanswered(&self, from: i64, now: Timestamp) -> Unanswered {
        let mut found = Unanswered::default();
        let open = self.asks.values().flatten().filter(|ask| !ask.answered && ask.day >= from);
        for ask in open {
            found.open += 1;
            found.overdue += u64::from(ask.answer_by < now);
        }
        found
    }

    /// Leads about whom sales was told and has not answered.
    pub fn asked(&self) -> Vec<LeadId> {
        let open = |asks: &Vec<Ask>| asks.iter().any(|ask| !ask.answered);
        self.asks.iter().filter(|(_, asks)| open(asks)).map(|(lead, _)| *lead).collect()
    }
}

/// Whether an entry of the outbox says that something was held back, at a glance: few do, and
/// the others are long.
pub fn holds_back(entry: &[u8]) -> bool {
    const WORD: &[u8] = b"\"held\":";
    entry.windows(WORD.len()).any(|part| part == WORD)
}

impl Day {
    /// Adds another day's.
    pub fn add(&mut self, other: &Day) {
        for (key, count) in &other.alerts {
            *self.alerts.entry(key.clone()).or_default() += count;
        }
        self.asked += other.asked;
        self.retracted += other.retracted;
        for (kind, count) in &other.answered {
            *self.answered.entry(*kind).or_default() += count;
        }
        self.in_time += other.in_time;
        add_verdicts(&mut self.verdicts, other.verdicts);
        for (key, verdicts) in &other.hot {
            add_verdicts(self.hot.entry(*key).or_default(), *verdicts);
        }
        self.times.extend_from_slice(&other.times);
        self.times_unknown += other.times_unknown;
        self.waited += other.waited;
        self.dropped += other.dropped;
        for (name, (rows, points)) in &other.cuts {
            let cut = self.cuts.entry(name).or_default();
            cut.0 += rows;
            cut.1.0 += points.0;
        }
        for (by, count) in &other.held {
            *self.held.entry(by.clone()).or_default() += count;
        }
    }

    /// Messages that were answered.
    pub fn answers(&self) -> u64 {
        self.answered.values().sum()
    }
}

fn add_verdicts(to: &mut [u64; 2], more: [u64; 2]) {
    to[0] += more[0];
    to[1] += more[1];
}

#[cfg(test)]
mod tests {
    use engine::record::{Because, Sent, Subject, Told};

    use super::*;
    use crate::outbox::held::HeldBack;

    const JAPAN: UtcOffset = UtcOffset(9 * 3_600_000);
    const HER: LeadId = LeadId(1);
    const HIM: LeadId = LeadId(2);
    const HOT: ThresholdId = ThresholdId(1);
    const PRICING: RuleId = RuleId(7);
    const HOUR: u64 = 3_600_000;
    /// 9:00 in Japan, on day 20,000.
    const MORNING: Timestamp = Timestamp(20_000 * 24 * HOUR);
    const DAY: i64 = 20_000;

    fn after(hours: u64) -> Timestamp {
        Timestamp(MORNING.0 + hours * HOUR)
    }

    fn message(kind: AlertKind, at: Timestamp, within: Option<u64>) -> Message {
        let because = Some(Because { rule: PRICING, ..Because::default() });
        let by = |hours: u64| Timestamp(at.0 + hours * HOUR);
        let asks = within.map(|hours| (by(hours), by(2 * hours)));
        Message {
            place: 0,
            kind,
            audience: Some("sales".into()),
            also: Vec::new(),
            crossing: (kind == AlertKind::Hot).then_some(0),
            lines: Vec::new(),
            other: None,
            takes_back: None,
            told: Told { at, because, asks, ..Told::default() },
        }
    }

    fn crossing(direction: Direction, at: Timestamp) -> Crossing {
        Crossing {
            threshold: HOT,
            direction,
            at,
            since: at,
            number: 1,
            opened_by: None,
            told: true,
            held: false,
            waits_until: None,
        }
    }

    /// A record by which a lead becomes hot, and sales is asked within four hours.
    fn hot(days: &mut Days, lead: LeadId, at: Timestamp) {
        let part = LeadPart {
            lead,
            crossings: vec![crossing(Direction::Rise, at)],
            messages: vec![message(AlertKind::Hot, at, Some(4))],
            ..LeadPart::default()
        };
        days.take_part(&part, (at, Position(at.0)), JAPAN);
    }

    fn answer(days: &mut Days, lead: LeadId, kind: FeedbackKind, at: Timestamp) {
        days.answer(lead, &Feedback { kind, at, ..Feedback::default() }, at);
    }

    fn day(days: &Days, number: i64) -> Day {
        days.between(number, number).pop().map(|(_, day)| day).unwrap_or_default()
    }

    #[test]
    fn an_answer_counts_on_the_day_of_what_it_answers() {
        let mut days = Days::default();
        hot(&mut days, HER, MORNING);
        hot(&mut days, HIM, MORNING);
        assert_eq!(days.asked(), [HER, HIM]);
        assert_eq!(days.unanswered(DAY, after(4)), Unanswered { open: 2, overdue: 0 });
        assert_eq!(days.unanswered(DAY, after(5)), Unanswered { open: 2, overdue: 2 });
        answer(&mut days, HER, FeedbackKind::Accepted, after(4));
        answer(&mut days, HIM, FeedbackKind::Rejected, after(30));
        let told = day(&days, DAY);
        assert_eq!((told.asked, told.answers(), told.in_time), (2, 2, 1));
        assert_eq!(told.verdicts, [1, 1]);
        assert_eq!(told.hot, [((Some(HOT), Some(PRICING)), [1, 1])].into());
        assert_eq!(told.times, [(MORNING, after(4)), (MORNING, after(30))]);
        assert_eq!(told.alerts, [(("lead.hot", "sales".to_owned()), 2)].into());
        assert_eq!(days.between(DAY + 1, DAY + 2), []);
        assert_eq!(days.asked(), []);
        assert_eq!(Day { times: Vec::new(), ..told }, days.total());
    }

    #[test]
    fn the_first_answer_makes_the_time_and_the_last_word_the_verdict() {
        let mut days = Days::default();
        hot(&mut days, HER, MORNING);
        answer(&mut days, HER, FeedbackKind::Contacted, after(1));
        answer(&mut days, HER, FeedbackKind::Rejected, after(9));
        let told = day(&days, DAY);
        assert_eq!((told.in_time, told.verdicts), (1, [0, 1]));
        assert_eq!(told.answered, [(FeedbackKind::Contacted, 1)].into());
        answer(&mut days, HER, FeedbackKind::Recycle, after(10));
        assert_eq!(day(&days, DAY).verdicts, [0, 1], "given back is no other word");
        answer(&mut days, HER, FeedbackKind::Won, after(11));
        assert_eq!(day(&days, DAY).verdicts, [1, 0]);
        assert_eq!(day(&days, DAY).times.len(), 1);
    }

    #[test]
    fn later_is_no_answer_and_says_by_when_one_is_due() {
        let mut days = Days::default();
        hot(&mut days, HER, MORNING);
        let asks = Some((after(28), after(32)));
        let later = Feedback { kind: FeedbackKind::Snooze, asks, ..Feedback::default() };
        days.answer(HER, &later, after(1));
        assert_eq!(days.unanswered(DAY, after(28)), Unanswered { open: 1, overdue: 0 });
        answer(&mut days, HER, FeedbackKind::Accepted, after(27));
        assert_eq!((day(&days, DAY).in_time, day(&days, DAY).answers()), (1, 1));
    }

    #[test]
    fn a_clock_of_sales_that_goes_wrong_makes_no_time_below_nothing() {
        let mut days = Days::default();
        hot(&mut days, HER, after(2));
        let early = Feedback { at: MORNING, ..Feedback::default() };
        days.answer(HER, &early, after(3));
        hot(&mut days, HIM, after(2));
        let late = Feedback { at: after(900), ..Feedback::default() };
        days.answer(HIM, &late, after(3));
        assert_eq!(day(&days, DAY).times, [(after(2), after(2)), (after(2), after(3))]);
    }

    #[test]
    fn what_is_taken_back_or_held_back_asks_nobody() {
        let mut days = Days::default();
        hot(&mut days, HER, MORNING);
        let back = Message {
            takes_back: Some(Sent {
                position: Position(MORNING.0),
                place: 0,
                lead: HER,
                kind: AlertKind::Hot,
                audience: None,
                at: MORNING,
                about: Subject::Line(HOT),
            }),
            crossing: None,
            ..message(AlertKind::Retracted, after(1), None)
        };
        let part = LeadPart { lead: HER, messages: vec![back], ..LeadPart::default() };
        days.take_part(&part, (after(1), Position(1)), JAPAN);
        let told = day(&days, DAY);
        assert_eq!((told.asked, told.retracted), (0, 1));

        hot(&mut days, HIM, after(2));
        let held = |everybody| HeldBack {
            by: "do_not_send".into(),
            everybody,
            endpoints: vec!["mailer".into()],
        };
        let entry = |held: Option<HeldBack>| {
            let (lead, kind, cause) = (HIM.to_string(), "lead.hot".to_owned(), after(2).0);
            let queued = Queued { lead, kind, cause, held, ..Queued::default() };
            Entry::Queued(queued).encode()
        };
        assert!(holds_back(&entry(Some(held(false)))) && !holds_back(&entry(None)));
        let mut take = |entry: Vec<u8>| {
            days.take_outbox(&entry, after(2), JAPAN);
            (day(&days, DAY).asked, day(&days, DAY).held.get("do_not_send").copied())
        };
        assert_eq!(take(entry(None)), (1, None));
        assert_eq!(take(entry(Some(held(false)))), (1, Some(1)), "somebody was told");
        assert_eq!(take(entry(Some(held(true)))), (0, Some(2)));
        assert_eq!(days.asked(), []);
    }

    #[test]
    fn whoever_answers_answers_for_whom_they_were_found_to_be_too() {
        let mut days = Days::default();
        hot(&mut days, HER, MORNING);
        hot(&mut days, HIM, after(1));
        days.join(HIM, HER);
        assert_eq!(days.asked(), [HER]);
        answer(&mut days, HER, FeedbackKind::Accepted, after(2));
        assert_eq!((day(&days, DAY).answers(), day(&days, DAY).verdicts), (2, [2, 0]));
    }

    #[test]
    fn a_message_dropped_after_the_cool_down_is_counted() {
        let mut days = Days::default();
        let mut cross = |direction, waits_until, at: Timestamp| {
            let crossing = Crossing { waits_until, ..crossing(direction, at) };
            let part = LeadPart { lead: HER, crossings: vec![crossing], ..LeadPart::default() };
            days.take_part(&part, (at, Position(1)), JAPAN);
        };
        cross(Direction::Rise, Some(after(72)), MORNING);
        cross(Direction::Release, None, after(72));
        cross(Direction::Fall, None, after(80));
        cross(Direction::Rise, Some(after(150)), after(90));
        cross(Direction::Fall, None, after(100));
        cross(Direction::Rise, None, after(300));
        cross(Direction::Fall, None, after(310));
        let total = days.total();
        assert_eq!((total.waited, total.dropped), (2, 1));
        assert_eq!(day(&days, after(100).day(JAPAN)).dropped, 1);
    }

    #[test]
    fn rows_that_a_max_cut_are_counted_with_what_was_cut_off() {
        use engine::ledger::Row;
        let row = |base: i64, granted: i64, cut: Cut, position: u64| Row {
            base: Points::whole(base),
            granted: Points::whole(granted),
            cut,
            position: Position(position),
            ..Row::default()
        };
        let rows = vec![
            row(12, 5, Cut::RuleMax, 0),
            row(12, 0, Cut::RuleMax, 0),
            row(20, 1, Cut::TotalMax, 0),
            row(20, 0, Cut::Counted, 0),
            row(12, 12, Cut::None, 0),
            row(12, 0, Cut::RuleMax, 99),
        ];
        let mut days = Days::default();
        let part = LeadPart { lead: HER, rows, ..LeadPart::default() };
        days.take_part(&part, (MORNING, Position(100)), JAPAN);
        let expected =
            [("rule_max", (2, Points::whole(19))), ("total_max", (1, Points::whole(19)))];
        assert_eq!(days.total().cuts, expected.into(), "a history's rows were counted before");
    }

    #[test]
    fn days_and_times_are_bounded() {
        let mut days = Days::default();
        for number in 0..DAYS_MAX as u64 + 10 {
            hot(&mut days, LeadId(100 + number), after(24 * number));
        }
        let all = days.between(i64::MIN, i64::MAX);
        assert_eq!((all.len(), all[0].0), (DAYS_MAX, DAY + 10));
        // Of a day that is gone an answer counts in the total alone.
        answer(&mut days, LeadId(100), FeedbackKind::Accepted, after(24 * 409));
        assert_eq!(days.between(i64::MIN, i64::MAX), all);
        assert_eq!((days.total().asked, days.total().answers()), (410, 1));

        let mut days = Days::default();
        for number in 0..=TIMES_MAX as u64 {
            hot(&mut days, LeadId(number), MORNING);
            answer(&mut days, LeadId(number), FeedbackKind::Accepted, after(1));
        }
        let told = day(&days, DAY);
        assert_eq!((told.times.len(), told.times_unknown), (TIMES_MAX, 1));
        assert_eq!(told.answers(), TIMES_MAX as u64 + 1);

        let mut days = Days::default();
        for hour in 0..ASKS_MAX as u64 + 4 {
            hot(&mut days, HER, after(hour));
        }
        answer(&mut days, HER, FeedbackKind::Accepted, after(100));
        assert_eq!(days.total().answers(), ASKS_MAX as u64);
    }
}
