//! What a run measured. Two times stand side by side for each request: *response time*, from the
//! moment at which it was due, and *service time*, from the moment at which it was sent. Where
//! requests wait because the one before is slow, only the first of them tells.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest time that is told apart, an hour; more counts as that.
const MICROSECONDS_MAX: u64 = 3_600_000_000;
/// Digits of a time that are kept.
pub const DIGITS: u8 = 3;
/// Intervals of a run at most: a longer run has longer ones.
const INTERVALS_MAX: f64 = 600.0;
/// What is noticed so much after the end of the schedule was still in time.
const IN_TIME: Duration = Duration::from_millis(100);

/// Times in microseconds, to three digits.
pub type Times = Histogram<u64>;

/// No times yet. It grows with the longest: most intervals have none over a second.
pub fn times() -> Times {
    Histogram::new(DIGITS).expect("so many digits can be kept")
}

/// Adds one.
pub fn add(times: &mut Times, time: Duration) {
    let microseconds = (time.as_micros() as u64).clamp(1, MICROSECONDS_MAX);
    times.record(microseconds).expect("it grows");
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// A status of 200 to 399.
    Success(u16),
    /// The same, and the collector says that it kept nothing of it on purpose, and why.
    Dropped(&'static str),
    /// The same, and the collector says that some hits of it were refused.
    RejectedInPart,
    /// Another status.
    Refused(u16),
    /// No connection could be had.
    Connect,
    /// No whole answer in time.
    Timeout,
    /// The connection ended before its answer.
    Broken,
    /// Not HTTP.
    Malformed,
    /// Never sent: nothing was free for it until the end.
    Unsent,
}

impl Outcome {
    /// Whether it is one.
    pub fn is_error(self) -> bool {
        !matches!(self, Outcome::Success(_) | Outcome::Dropped(_))
    }

    /// Whether there was a whole answer, of any kind.
    pub fn is_answer(self) -> bool {
        matches!(self, Outcome::Refused(_) | Outcome::RejectedInPart) || !self.is_error()
    }

    /// In words, short.
    pub fn name(self) -> String {
        match self {
            Outcome::Success(status) | Outcome::Refused(status) => format!("status_{status}"),
            Outcome::Dropped(why) => format!("dropped_{why}"),
            Outcome::RejectedInPart => "rejected_in_part".to_owned(),
            Outcome::Connect => "connect".to_owned(),
            Outcome::Timeout => "timeout".to_owned(),
            Outcome::Broken => "broken".to_owned(),
            Outcome::Malformed => "malformed".to_owned(),
            Outcome::Unsent => "unsent".to_owned(),
        }
    }
}

/// One request's times since the run began.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When it was due.
    pub intended: Duration,
    /// When it was sent.
    pub sent: Duration,
    /// When the first byte of its answer came.
    pub first_byte: Duration,
    /// When its answer was whole, or was given up.
    pub end: Duration,
    /// What became of it.
    pub outcome: Outcome,
}

/// A stretch of time, by the moment at which requests were due.
#[derive(Clone)]
pub struct Interval {
    /// Response times.
    pub response: Times,
    /// Service times.
    pub service: Times,
    /// Requests due.
    pub due: u64,
    /// Answers that came within it, whenever their requests were due.
    pub answered: u64,
    /// Requests due within it that failed, by cause.
    pub errors: BTreeMap<Outcome, u64>,
    /// The latest that the generator began with a request after it was due.
    pub lag_max: Duration,
    /// The time that requests were on their way in it, whenever they were due, added up.
    pub in_flight: Duration,
    /// The same from when they were due, what waited for a connection among them.
    pub unanswered: Duration,
}

impl Default for Interval {
    fn default() -> Interval {
        Interval {
            response: times(),
            service: times(),
            due: 0,
            answered: 0,
            errors: BTreeMap::new(),
            lag_max: Duration::ZERO,
            in_flight: Duration::ZERO,
            unanswered: Duration::ZERO,
        }
    }
}

/// All of a run, its warm-up left out.
#[derive(Clone)]
pub struct Measured {
    /// What came before is not counted.
    pub warm: Duration,
    /// How long an interval is.
    pub every: Duration,
    /// What is noticed until then was noticed in time.
    in_time_until: Duration,
    /// One after the other.
    pub intervals: Vec<Interval>,
    /// From being sent to the first byte of the answer.
    pub first_byte: Times,
    /// How late the generator began with what was due: its own fault alone.
    pub lag: Times,
    /// Requests noticed before the schedule was over.
    pub in_time: u64,
    /// Requests that waited since every connection was busy.
    pub waited: u64,
    /// Connections opened.
    pub connections: u64,
    /// Requests by what became of them.
    pub outcomes: BTreeMap<Outcome, u64>,
}

impl Measured {
    /// Nothing yet, of a run that is to be so long.
    pub fn new(warm: Duration, length: Duration) -> Measured {
        let seconds = (length.as_secs_f64() / INTERVALS_MAX).ceil().max(1.0);
        Measured {
            warm,
            every: Duration::from_secs_f64(seconds),
            in_time_until: length + IN_TIME,
            intervals: Vec::new(),
            first_byte: times(),
            lag: times(),
            in_time: 0,
            waited: 0,
            connections: 0,
            outcomes: BTreeMap::new(),
        }
    }

    /// The same where the generator may lag so much.
    pub fn with_lag(mut self, lag_max: Duration) -> Measured {
        self.in_time_until += lag_max;
        self
    }

    fn interval(&mut self, at: Duration) -> Option<&mut Interval> {
        let place = at.checked_sub(self.warm)?.as_nanos() / self.every.as_nanos();
        let place = place as usize;
        if self.intervals.len() <= place {
            self.intervals.resize_with(place + 1, Interval::default);
        }
        self.intervals.get_mut(place)
    }

    /// A request was noticed to be due; whether it then had to wait for a connection. From there
    /// on its waiting is the server's doing, and the generator's lag is what it was until here.
    pub fn notice(&mut self, intended: Duration, now: Duration, waits: bool) {
        let in_schedule = now <= self.in_time_until;
        let Some(interval) = self.interval(intended) else {
            return;
        };
        interval.due += 1;
        self.waited += u64::from(waits);
        self.in_time += u64::from(in_schedule);
        if waits {
            self.lagged(intended, now);
        }
    }

    /// A connection that was free began with a request: until here it was the generator's time.
    pub fn begin(&mut self, intended: Duration, now: Duration) {
        self.lagged(intended, now);
    }

    fn lagged(&mut self, intended: Duration, now: Duration) {
        let late = now.saturating_sub(intended);
        if let Some(interval) = self.interval(intended) {
            interval.lag_max = interval.lag_max.max(late);
            add(&mut self.lag, late);
        }
    }

    /// A stretch of time, cut up by the intervals that it lies in. What is of the warm-up is not
    /// counted; a request of the warm-up that goes on after it is.
    fn spread(&mut self, from: Duration, until: Duration, sum: fn(&mut Interval) -> &mut Duration) {
        let mut from = from.max(self.warm);
        while from < until {
            let before = from.saturating_sub(self.warm).as_nanos() / self.every.as_nanos();
            let next = self.warm + self.every * (before as u32 + 1);
            let Some(interval) = self.interval(from) else {
                return;
            };
            *sum(interval) += until.min(next).saturating_sub(from);
            from = next;
        }
    }

    /// A request came to its end.
    pub fn end(&mut self, sample: &Sample) {
        self.spread(sample.intended, sample.end, |interval| &mut interval.unanswered);
        if sample.outcome != Outcome::Unsent {
            self.spread(sample.sent, sample.end, |interval| &mut interval.in_flight);
        }
        let Some(interval) = self.interval(sample.intended) else {
            return;
        };
        add(&mut interval.response, sample.end.saturating_sub(sample.intended));
        if sample.outcome != Outcome::Unsent {
            add(&mut interval.service, sample.end.saturating_sub(sample.sent));
        }
        if sample.outcome.is_error() {
            *interval.errors.entry(sample.outcome).or_default() += 1;
        }
        *self.outcomes.entry(sample.outcome).or_default() += 1;
        if sample.outcome.is_answer() {
            add(&mut self.first_byte, sample.first_byte.saturating_sub(sample.sent));
            if let Some(interval) = self.interval(sample.end) {
                interval.answered += 1;
            }
        }
    }

    /// What another thread measured of the same run.
    pub fn merge(&mut self, other: &Measured) {
        if self.intervals.len() < other.intervals.len() {
            self.intervals.resize_with(other.intervals.len(), Interval::default);
        }
        for (mine, theirs) in self.intervals.iter_mut().zip(&other.intervals) {
            mine.response.add(&theirs.response).expect("all have the same digits");
            mine.service.add(&theirs.service).expect("all have the same digits");
            mine.due += theirs.due;
            mine.answered += theirs.answered;
            mine.lag_max = mine.lag_max.max(theirs.lag_max);
            mine.in_flight += theirs.in_flight;
            mine.unanswered += theirs.unanswered;
            for (outcome, count) in &theirs.errors {
                *mine.errors.entry(*outcome).or_default() += count;
            }
        }
        self.first_byte.add(&other.first_byte).expect("all have the same digits");
        self.lag.add(&other.lag).expect("all have the same digits");
        self.in_time += other.in_time;
        self.waited += other.waited;
        self.connections += other.connections;
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(*outcome).or_default() += count;
        }
    }

    /// Response times of the whole run.
    pub fn response(&self) -> Times {
        sum(self.intervals.iter().map(|interval| &interval.response))
    }

    /// Service times of the whole run.
    pub fn service(&self) -> Times {
        sum(self.intervals.iter().map(|interval| &interval.service))
    }

    /// Requests that were due.
    pub fn due(&self) -> u64 {
        self.intervals.iter().map(|interval| interval.due).sum()
    }

    /// Requests that came to an end.
    pub fn ended(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// Those that failed.
    pub fn errors(&self) -> u64 {
        let errors = self.outcomes.iter().filter(|(outcome, _)| outcome.is_error());
        errors.map(|(_, count)| count).sum()
    }
}

/// Of many, one.
pub fn sum<'a>(all: impl Iterator<Item = &'a Times>) -> Times {
    let mut sum = times();
    all.for_each(|one| sum.add(one).expect("all have the same digits"));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(intended: u64, sent: u64, end: u64, outcome: Outcome) -> Sample {
        let ms = Duration::from_millis;
        Sample {
            intended: ms(intended),
            sent: ms(sent),
            first_byte: ms(end),
            end: ms(end),
            outcome,
        }
    }

    #[test]
    fn a_request_that_waited_is_late_by_when_it_was_due_and_not_by_when_it_was_sent() {
        let mut measured = Measured::new(Duration::ZERO, Duration::from_secs(10));
        measured.end(&sample(1_000, 1_900, 1_910, Outcome::Success(200)));
        assert!((900..=920).contains(&(measured.response().max() / 1_000)));
        assert_eq!(measured.service().max() / 1_000, 10);
        assert_eq!(measured.intervals[1].response.len(), 1);
    }

    #[test]
    fn the_warm_up_is_left_out() {
        let mut measured = Measured::new(Duration::from_secs(2), Duration::from_secs(10));
        for at in [0, 1_999, 2_000, 2_001] {
            measured.notice(Duration::from_millis(at), Duration::from_millis(at), true);
            measured.end(&sample(at, at, at + 1, Outcome::Success(204)));
        }
        assert_eq!((measured.due(), measured.ended()), (2, 2));
    }

    #[test]
    fn what_is_not_answered_counts_in_the_response_time_and_by_its_cause() {
        let mut measured = Measured::new(Duration::ZERO, Duration::from_secs(10));
        measured.end(&sample(0, 0, 5_000, Outcome::Timeout));
        measured.end(&sample(0, 4_000, 4_000, Outcome::Unsent));
        measured.end(&sample(0, 0, 1, Outcome::Success(200)));
        assert_eq!((measured.errors(), measured.ended()), (2, 3));
        assert_eq!((measured.response().len(), measured.service().len()), (3, 2));
        assert_eq!(measured.intervals[0].errors.len(), 2);
    }

    #[test]
    fn a_request_is_in_flight_while_it_is_sent_and_unanswered_since_it_was_due() {
        let mut measured = Measured::new(Duration::from_secs(1), Duration::from_secs(10));
        // Due in the warm-up, and answered after it.
        measured.end(&sample(500, 900, 1_250, Outcome::Success(200)));
        // Over three intervals, of the first of which it waits for half.
        measured.end(&sample(1_250, 1_750, 3_500, Outcome::Timeout));
        // Never sent.
        measured.end(&sample(3_000, 3_000, 4_000, Outcome::Unsent));
        let ms = |pick: fn(&Interval) -> Duration| -> Vec<u128> {
            measured.intervals.iter().map(|it| pick(it).as_millis()).collect()
        };
        assert_eq!(ms(|it| it.in_flight), [500, 1_000, 500]);
        assert_eq!(ms(|it| it.unanswered), [1_000, 1_000, 1_500]);
    }

    #[test]
    fn what_was_refused_in_part_is_an_error_and_what_was_dropped_on_purpose_is_none() {
        let mut measured = Measured::new(Duration::ZERO, Duration::from_secs(10));
        for outcome in [Outcome::RejectedInPart, Outcome::Dropped("consent")] {
            measured.end(&sample(0, 0, 1, outcome));
        }
        let names: Vec<String> = measured.outcomes.keys().map(|it| it.name()).collect();
        assert_eq!(names, ["dropped_consent", "rejected_in_part"]);
        assert_eq!((measured.errors(), measured.intervals[0].answered), (1, 2));
    }

    #[test]
    fn threads_add_up_to_what_one_would_have_measured() {
        let mut one = Measured::new(Duration::ZERO, Duration::from_secs(10));
        let mut parts = [one.clone(), one.clone()];
        for at in 0..400 {
            let sample = sample(at * 20, at * 20 + 1, at * 20 + at, Outcome::Success(200));
            one.end(&sample);
            parts[at as usize % 2].end(&sample);
        }
        let [mut sum, other] = parts;
        sum.merge(&other);
        assert_eq!(sum.response(), one.response());
        assert_eq!(sum.intervals.len(), one.intervals.len());
        let answered = |it: &Measured| it.intervals.iter().map(|it| it.answered).sum::<u64>();
        assert_eq!(answered(&sum), answered(&one));
    }
}
