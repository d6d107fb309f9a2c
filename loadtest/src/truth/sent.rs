//! Every hit that was sent, with its answer: what is remembered is as small as can be, since there
//! are millions of them.

use std::time::{Duration, Instant};

use hyper::http::response;

use crate::measured::Outcome;

/// The place of the page with the form.
pub const FORM: u16 = u16::MAX - 1;
/// The place of the page behind it.
pub const THANKS: u16 = u16::MAX;
/// No request.
pub const NONE: u32 = u32::MAX;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// A page was read.
    View,
    /// It was read so long by now.
    Stay(u32),
    /// One of the scenario's events.
    Event(u16),
    /// Somebody said who they are; whether a server signed it.
    Identify(bool),
    /// A robot read a page.
    Robot,
}

/// A hit as it was sent.
#[derive(Clone, Copy, Debug)]
pub struct SentHit {
    /// Whose browser.
    pub who: u32,
    /// Which of their hits, from 0.
    pub number: u32,
    /// What.
    pub did: Did,
    /// On which page.
    pub place: u16,
    /// On which page view of theirs.
    pub view: u32,
    /// How long before it was sent.
    pub ago_ms: u32,
    /// In which request, by its place in the log.
    pub request: u32,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Still to come, or it never came: the server may have it.
    Unknown,
    /// The server cannot have it.
    NeverSent,
    /// It was taken: up to which position, and when it was received.
    Taken(u64, u64),
    /// It was refused, or a part of it.
    Refused(u16),
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct SentRequest {
    /// For whom its answer is.
    pub who: u32,
    /// Whether the browser had a cookie.
    pub cookie: bool,
    /// When it was sent, in tens of microseconds since the beginning.
    pub sent: u32,
    /// What became of it.
    pub answer: Answer,
}

/// What one thread sent.
pub struct Log {
    /// The hits, in their order.
    pub hits: Vec<SentHit>,
    /// The requests, in theirs.
    pub requests: Vec<SentRequest>,
    began: Instant,
}

impl Log {
    /// Nothing yet; times count from a moment.
    pub fn new(began: Instant) -> Log {
        Log { hits: Vec::new(), requests: Vec::new(), began }
    }

    /// A request with these hits is about to be sent; its ticket.
    pub fn note(&mut self, who: u32, cookie: bool, hits: impl Iterator<Item = SentHit>) -> u64 {
        let request = self.requests.len() as u32;
        self.hits.extend(hits.map(|hit| SentHit { request, ..hit }));
        let sent = tens(self.began.elapsed());
        self.requests.push(SentRequest { who, cookie, sent, answer: Answer::Unknown });
        u64::from(request)
    }

    /// Its answer came, or never will; whose it is.
    pub fn hear(
        &mut self,
        ticket: u64,
        answer: Result<&response::Parts, &Outcome>,
        sent: Option<Instant>,
    ) -> Option<u32> {
        let request = self.requests.get_mut(ticket as usize)?;
        if let Some(sent) = sent {
            request.sent = tens(sent.saturating_duration_since(self.began));
        }
        request.answer = match answer {
            Ok(head) => taken(head),
            Err(Outcome::Connect | Outcome::Unsent) => Answer::NeverSent,
            Err(_) => Answer::Unknown,
        };
        Some(request.who)
    }
}

fn tens(time: Duration) -> u32 {
    (time.as_micros() / 10) as u32
}

fn taken(head: &response::Parts) -> Answer {
    let number = |name| head.headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
    let whole =
        ["mikomi-rejected", "mikomi-dropped"].iter().all(|it| !head.headers.contains_key(*it));
    let place = number("mikomi-position").zip(number("mikomi-received-ms"));
    match place.filter(|_| head.status.is_success() && whole) {
        Some((position, received)) => Answer::Taken(position, received),
        None => Answer::Refused(head.status.as_u16()),
    }
}

/// What a hit calls itself, so that it is found again among what the server has.
pub fn title(who: u32, number: u32) -> String {
    format!("hit {who:x} {number:x}")
}

/// Which hit calls itself so.
pub fn of_title(title: &str) -> Option<(u32, u32)> {
    let (who, number) = title.strip_prefix("hit ")?.split_once(' ')?;
    Some((u32::from_str_radix(who, 16).ok()?, u32::from_str_radix(number, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)]) -> Answer {
        let mut builder = response::Builder::new().status(status);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let mut log = Log::new(Instant::now());
        let ticket = log.note(7, true, std::iter::empty());
        let head = builder.body(()).unwrap().into_parts().0;
        assert_eq!(log.hear(ticket, Ok(&head), None), Some(7));
        log.requests[0].answer
    }

    #[test]
    fn only_what_was_taken_as_a_whole_is_acknowledged() {
        let place = [("mikomi-position", "9"), ("mikomi-received-ms", "1700")];
        assert_eq!(answer(204, &place), Answer::Taken(9, 1_700));
        assert_eq!(answer(503, &[]), Answer::Refused(503));
        assert_eq!(
            answer(204, &[place[0], place[1], ("mikomi-rejected", "1")]),
            Answer::Refused(204)
        );
    }

    #[test]
    fn a_request_without_an_answer_may_be_there_unless_nobody_heard_of_it() {
        let mut log = Log::new(Instant::now());
        for (outcome, becomes) in [
            (Outcome::Timeout, Answer::Unknown),
            (Outcome::Broken, Answer::Unknown),
            (Outcome::Connect, Answer::NeverSent),
        ] {
            let ticket = log.note(1, true, std::iter::empty());
            log.hear(ticket, Err(&outcome), None);
            assert_eq!(log.requests[ticket as usize].answer, becomes);
        }
    }

    #[test]
    fn a_hit_is_found_again_by_its_title() {
        assert_eq!(of_title(&title(199_999, 0)), Some((199_999, 0)));
        assert_eq!(of_title("A page"), None);
    }
}
