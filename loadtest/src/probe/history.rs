//! Visits of known visitors as a past to look back on: ten hits a visit over a quarter of an hour,
//! some pages worth points, and every fourth visitor says who they are at the end of each visit.

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::Value;

use super::Failure;
use super::drive::{Talk, drive};
use super::http::{self, Answer};
use crate::random::Random;

const CONNECTIONS: usize = 64;
/// Hits of one visit; they come as one beacon.
const HITS_A_VISIT: u64 = 10;
const BETWEEN_HITS_MS: u64 = 90_000;
const PAGES: [&str; 12] = [
    "column", "column", "column", "news", "news", "company", "case", "product", "product",
    "library", "pricing", "",
];

struct Visits {
    cookies: Vec<String>,
    next: u64,
    end: u64,
    random: Random,
    refused: Option<u16>,
}

impl Visits {
    fn body(&mut self, visit: u64, visitor: usize) -> String {
        let mut body = String::from("[");
        let own = HITS_A_VISIT - u64::from(is_named(visitor));
        for number in 0..own {
            let page = PAGES[self.random.below(PAGES.len())];
            let item = self.random.below(400);
            let ago = (HITS_A_VISIT - number) * BETWEEN_HITS_MS;
            let _ = write!(
                body,
                "{{\"s\":\"demo\",\"e\":\"page_view\",\
                 \"u\":\"https://www.site.example/{page}/{item}\",\
                 \"i\":\"h{visit}.{number}\",\"n\":\"p{visit}.{number}\",\"at\":0,\"st\":{ago}}},"
            );
        }
        if is_named(visitor) {
            let _ = write!(
                body,
                "{{\"s\":\"demo\",\"e\":\"identify\",\"u\":\"https://www.site.example/form\",\
                 \"i\":\"h{visit}.form\",\"id\":{{\"email\":\"m{visitor}@people.example\"}}}},"
            );
        }
        body.pop();
        body.push(']');
        body
    }
}

fn is_named(visitor: usize) -> bool {
    visitor.is_multiple_of(4)
}

impl Talk for Visits {
    fn ask(&mut self, _: usize, request: &mut Vec<u8>) -> bool {
        if self.next == self.end {
            return false;
        }
        let visit = self.next;
        self.next += 1;
        let visitor = (visit % self.cookies.len() as u64) as usize;
        let body = self.body(visit, visitor);
        http::beacon(request, &body, &self.cookies[visitor], "");
        true
    }

    fn hear(&mut self, _: usize, answer: &Answer<'_>) {
        if !answer.is_success() {
            self.refused = Some(answer.status);
        }
    }
}

/// Sends so many visits, the first of them being visit number `first`.
pub fn run(
    target: SocketAddr,
    cookies: Vec<String>,
    (first, visits): (u64, u64),
    seed: u64,
) -> Result<Value, Failure> {
    let random = Random::new(seed ^ first);
    let mut visits = Visits { cookies, next: first, end: first + visits, random, refused: None };
    let driven = drive(target, CONNECTIONS, &mut visits)?;
    match visits.refused {
        Some(status) => Err(Failure::Answer(format!("{status} to a visit"))),
        None => Ok(driven.to_json()),
    }
}
