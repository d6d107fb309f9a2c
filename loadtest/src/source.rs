//! What is sent: hits of people who use a site, one request again and again, or requests out of a
//! file.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::http::response;

use crate::measured::Outcome;
use crate::people::People;
use crate::requests::Requests;
use crate::truth::sent::Log;

/// The ticket of a request whose answer is nobody's.
pub const NOBODY: u64 = u64::MAX;

/// A request, and for whom its answer is.
pub struct Asked {
    /// As it is sent.
    pub request: Request<Full<Bytes>>,
    /// Handed back with the answer.
    pub ticket: u64,
}

/// Where requests come from.
pub enum Source {
    /// People.
    People(Box<People>),
    /// Given ones, one after another.
    Requests(Requests),
}

impl Source {
    /// The next one, which was due at a moment of the run.
    pub fn next(&mut self, _due: Duration) -> Asked {
        match self {
            Source::People(people) => people.next(),
            Source::Requests(requests) => requests.next(),
        }
    }

    /// The log of what was sent, if one was kept.
    pub fn into_log(self) -> Option<Log> {
        match self {
            Source::People(people) => people.into_log(),
            Source::Requests(_) => None,
        }
    }

    /// Takes what came of one, and when it was sent.
    pub fn hear(
        &mut self,
        ticket: u64,
        answer: Result<&response::Parts, &Outcome>,
        sent: Option<Instant>,
    ) {
        match self {
            Source::People(people) => people.hear(ticket, answer, sent),
            Source::Requests(_) => {}
        }
    }
}
