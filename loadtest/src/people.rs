//! Visitors with browsers that keep cookies, and what they do next: pages one after another, how
//! long they stay, events, and now and then a form that says who they are. Where a log is kept,
//! each hit is remembered with its answer, and can be told by its title.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, ACCEPT_LANGUAGE, COOKIE, HOST, ORIGIN, REFERER, USER_AGENT};
use hyper::http::{HeaderMap, HeaderName, HeaderValue, response};
use hyper::{Method, Request};

use crate::clock::since_1970;
use crate::cookies::Cookies;
use crate::measured::Outcome;
use crate::random::{Random, Zipf};
use crate::scenario::Scenario;
use crate::sign::Signer;
use crate::source::{Asked, NOBODY};
use crate::truth::sent::{self, Did, Log, SentHit};

/// Says the truth about itself.
const ROBOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
/// What browsers say they are.
const AGENTS: [&str; 3] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
     Chrome/141.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like \
     Gecko) Version/18.6 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
];
/// How often another visitor is drawn instead of one whose first answer is still to come: a
/// browser's script waits for that.
const DRAWS: usize = 8;

/// Who is due a hit, and where they are.
#[derive(Clone, Default)]
struct Visitor {
    cookies: Cookies,
    /// Its first request is in flight.
    waits: bool,
    /// Where it reads.
    page: u16,
    /// Page views left of this visit.
    left: u16,
    /// What comes before the next page view.
    next: Next,
    /// Hits so far.
    hits: u32,
    /// Page views so far.
    views: u32,
    /// They said who they are.
    known: bool,
    last: Option<Hit>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    View,
    Stay,
    Event,
    /// Of a form: the page it stands on was read, then where it leads, then who it was.
    Thanks,
    Identify,
}

/// A hit, in what it takes to say it again.
#[derive(Clone, Copy, Debug)]
struct Hit {
    number: u32,
    view: u32,
    page: Place,
    what: What,
    /// How much earlier than it is sent.
    ago_ms: u32,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Page(u16),
    Form,
    Thanks,
}

#[derive(Clone, Copy, Debug)]
enum What {
    View,
    Stay(u32),
    Event(u16),
    /// Whether a server signs it.
    Identify(bool),
}

/// Some of the visitors, those of one thread.
pub struct People {
    scenario: Scenario,
    links: Vec<Vec<u16>>,
    entries: Vec<u32>,
    visitors: Vec<Visitor>,
    /// Who they are among all: every so many, from the first.
    numbers: (usize, usize),
    law: Zipf,
    random: Random,
    /// Makes hits of one run differ from those of another.
    run: u16,
    host: HeaderValue,
    headers: Vec<(HeaderName, HeaderValue)>,
    signer: Option<Signer>,
    log: Option<Log>,
    /// Of robots, where each is told from the others.
    robots: u32,
}

impl People {
    /// Those of thread `numbers.0` of `numbers.1`.
    pub fn new(
        scenario: &Scenario,
        numbers: (usize, usize),
        seed: u64,
        host: HeaderValue,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> People {
        let links = scenario.pages.iter().map(|page| {
            page.to.iter().filter_map(|path| scenario.page(path)).map(|it| it as u16).collect()
        });
        let mut sum = 0;
        let entries = scenario.pages.iter().map(|page| {
            sum += page.weight;
            sum
        });
        let count = (scenario.visitors.count.saturating_sub(numbers.0)).div_ceil(numbers.1).max(1);
        let mut random = Random::new(seed ^ 0x9e0_91e ^ ((numbers.0 as u64) << 32));
        People {
            links: links.collect(),
            entries: entries.collect(),
            visitors: vec![Visitor::default(); count],
            numbers,
            law: Zipf::new(count, scenario.visitors.exponent),
            run: random.number() as u16,
            random,
            scenario: scenario.clone(),
            host,
            headers,
            signer: None,
            log: None,
            robots: 0,
        }
    }

    /// The same, with a server that signs who some of them are.
    pub fn signed(self, signer: Option<Signer>) -> People {
        People { signer, ..self }
    }

    /// The same, with a log of what they send.
    pub fn logged(self, log: Option<Log>) -> People {
        People { log, ..self }
    }

    /// The log, at the end.
    pub fn into_log(self) -> Option<Log> {
        self.log
    }

    /// The next request, of whoever comes next.
    pub fn next(&mut self) -> Asked {
        if self.random.happens(self.scenario.noise.robots) {
            return self.robot();
        }
        let who = self.draw();
        // Where each hit is accounted for, a browser sends one page view until it has its cookie.
        let first = self.log.is_some() && self.visitors[who].cookies.is_empty();
        let carried = self.random.share();
        let shares = &self.scenario.requests;
        let (pixel, single) = (shares.pixel, shares.pixel + shares.beacon);
        let [from, to] = shares.batch_hits;
        let count = if carried < single || first { 1 } else { self.between(from, to) };
        let mut hits = Vec::with_capacity(count as usize);
        let repeated =
            self.visitors[who].last.filter(|_| self.random.happens(self.scenario.noise.duplicates));
        hits.extend(repeated);
        while hits.len() < count as usize {
            if first {
                self.visitors[who].next = Next::View;
            }
            hits.push(self.hit(who));
        }
        let visitor = &mut self.visitors[who];
        visitor.last = hits.last().copied();
        visitor.waits = visitor.cookies.is_empty();
        let by_pixel = carried < pixel && matches!(hits[0].what, What::View | What::Event(_));
        // The pixel cannot say that it is late.
        let by_pixel = by_pixel && (self.log.is_none() || hits[0].ago_ms == 0);
        let request = if by_pixel { self.pixel(who, hits[0]) } else { self.beacon(who, &hits) };
        Asked { request, ticket: self.note(who, &hits) }
    }

    /// Who comes next.
    fn draw(&mut self) -> usize {
        let mut who = self.law.draw(&mut self.random);
        for _ in 0..DRAWS {
            if !self.visitors[who].waits {
                return who;
            }
            who = self.law.draw(&mut self.random);
        }
        if self.log.is_some() {
            // Two first hits at once would be two browsers; whoever is next does not wait.
            let after = (who..self.visitors.len()).chain(0..who);
            return after.into_iter().find(|who| !self.visitors[*who].waits).unwrap_or(who);
        }
        who
    }

    fn note(&mut self, who: usize, hits: &[Hit]) -> u64 {
        let (number, cookie) = (self.number(who) as u32, !self.visitors[who].cookies.is_empty());
        match &mut self.log {
            None => who as u64,
            Some(log) => log.note(number, cookie, hits.iter().map(|hit| hit.sent(number))),
        }
    }

    /// Takes an answer to a visitor's request.
    pub fn hear(
        &mut self,
        ticket: u64,
        answer: Result<&response::Parts, &Outcome>,
        sent: Option<Instant>,
    ) {
        let place = match &mut self.log {
            None => ticket as usize,
            Some(log) => match log.hear(ticket, answer, sent) {
                // Robots stand behind the browsers, and keep nothing.
                Some(number)
                    if number as usize % self.numbers.1 == self.numbers.0
                        && (number as usize) < self.scenario.visitors.count =>
                {
                    number as usize / self.numbers.1
                }
                _ => return,
            },
        };
        let Some(visitor) = self.visitors.get_mut(place) else {
            return;
        };
        visitor.waits = false;
        if let Ok(head) = answer {
            visitor.cookies.keep(&head.headers);
        }
    }

    fn between(&mut self, from: u32, to: u32) -> u32 {
        from + self.random.below((to - from + 1) as usize) as u32
    }

    /// What a visitor does next.
    fn hit(&mut self, who: usize) -> Hit {
        let (page, what) = self.step(who);
        let noise = &self.scenario.noise;
        let late = matches!(what, What::View) && self.random.happens(noise.late);
        let ago_ms =
            if late { self.random.below(noise.late_ms_max as usize + 1) as u32 } else { 0 };
        let visitor = &mut self.visitors[who];
        let number = visitor.hits;
        visitor.hits += 1;
        Hit { number, view: visitor.views, page, what, ago_ms }
    }

    fn step(&mut self, who: usize) -> (Place, What) {
        let visitor = &self.visitors[who];
        let (page, next) = (visitor.page, visitor.next);
        match next {
            Next::Stay => {
                let [from, to] = self.scenario.visits.stay_ms;
                let stayed = self.between(from, to);
                self.visitors[who].next = self.after_stay();
                (Place::Page(page), What::Stay(stayed))
            }
            Next::Event => {
                let event = self.random.below(self.scenario.visits.event_names.len());
                self.visitors[who].next = Next::View;
                (Place::Page(page), What::Event(event as u16))
            }
            Next::Thanks => {
                let visitor = &mut self.visitors[who];
                (visitor.views, visitor.next) = (visitor.views + 1, Next::Identify);
                (Place::Thanks, What::View)
            }
            Next::Identify => {
                let signed = self.is_signed(who);
                let visitor = &mut self.visitors[who];
                (visitor.next, visitor.known) = (Next::View, true);
                (Place::Thanks, What::Identify(signed))
            }
            Next::View => self.view(who),
        }
    }

    fn after_stay(&mut self) -> Next {
        let event = self.random.happens(self.scenario.visits.events);
        if event { Next::Event } else { Next::View }
    }

    fn view(&mut self, who: usize) -> (Place, What) {
        let ends = self.visitors[who].left == 0;
        if ends && self.visitors[who].views > 0 && self.random.happens(self.scenario.visits.forms) {
            let visitor = &mut self.visitors[who];
            (visitor.views, visitor.next) = (visitor.views + 1, Next::Thanks);
            return (Place::Form, What::View);
        }
        let links = self.links[self.visitors[who].page as usize].len();
        let page = if ends || links == 0 {
            let sum = self.entries.last().copied().unwrap_or(1).max(1);
            let drawn = self.random.below(sum as usize) as u32;
            self.entries.partition_point(|until| *until <= drawn) as u16
        } else {
            let link = self.random.below(links);
            self.links[self.visitors[who].page as usize][link]
        };
        let [from, to] = self.scenario.visits.pages;
        let left = if ends { self.between(from, to) } else { u32::from(self.visitors[who].left) };
        let stays = self.random.happens(self.scenario.visits.stays);
        let next = if stays { Next::Stay } else { self.after_stay() };
        let visitor = &mut self.visitors[who];
        visitor.left = left.saturating_sub(1).min(u32::from(u16::MAX)) as u16;
        (visitor.page, visitor.views, visitor.next) = (page, visitor.views + 1, next);
        (Place::Page(page), What::View)
    }

    fn path(&self, place: Place) -> &str {
        match place {
            Place::Page(page) => &self.scenario.pages[page as usize].path,
            Place::Form => &self.scenario.form.page,
            Place::Thanks => &self.scenario.form.thanks,
        }
    }

    /// Who somebody is among all.
    fn number(&self, who: usize) -> usize {
        self.numbers.0 + who * self.numbers.1
    }

    /// Whose browser it is, by the number of their first one.
    fn person(&self, who: usize) -> usize {
        person(self.number(who) as u32, self.scenario.form.second_browsers) as usize
    }

    /// Whether a server says who they are: of half of them from the first time on.
    fn is_signed(&self, who: usize) -> bool {
        let mut chance = Random::new(self.person(who) as u64 ^ 0x51_69ed);
        let proved = chance.happens(self.scenario.form.proved);
        let at_once = chance.happens(0.5);
        self.signer.is_some() && proved && (at_once || self.visitors[who].known)
    }

    /// What a hit calls its page.
    fn title(&self, who: usize, hit: Hit) -> String {
        match self.log {
            None => "A page".to_owned(),
            Some(_) => sent::title(self.number(who) as u32, hit.number),
        }
    }

    fn id(&self, who: usize, number: u32) -> String {
        format!("{:04x}{:06x}{number:06x}", self.run, self.number(who))
    }

    fn pixel(&self, who: usize, hit: Hit) -> Request<Full<Bytes>> {
        let mut target = String::with_capacity(320);
        let (site, origin) = (&self.scenario.site, &self.scenario.origin);
        let event = match hit.what {
            What::Event(event) => Some(&self.scenario.visits.event_names[event as usize]),
            What::View | What::Stay(_) | What::Identify(_) => None,
        };
        let mut query = form_urlencoded::Serializer::new(&mut target);
        query.append_pair("s", site);
        if let Some(event) = event {
            query.append_pair("e", event);
        }
        query.append_pair("u", &format!("{origin}{}", self.path(hit.page)));
        query.append_pair("r", "https://search.example/");
        query.append_pair("i", &self.id(who, hit.number));
        query.append_pair("n", &self.nonce(who, hit));
        if self.log.is_some() {
            query.append_pair("t", &self.title(who, hit));
        }
        let target = format!("/p.gif?{target}");
        self.request(Some(who), Method::GET, &target, Bytes::new())
    }

    fn nonce(&self, who: usize, hit: Hit) -> String {
        format!("{:04x}{:06x}{:05x}a", self.run, self.number(who), hit.view)
    }

    fn beacon(&self, who: usize, hits: &[Hit]) -> Request<Full<Bytes>> {
        let now = since_1970();
        let mut body = String::with_capacity(300 * hits.len());
        for (at, hit) in hits.iter().enumerate() {
            body.push_str(match (at, hits.len()) {
                (_, 1) => "",
                (0, _) => "[",
                _ => ",",
            });
            self.write_hit(&mut body, who, *hit, now);
        }
        if hits.len() > 1 {
            body.push(']');
        }
        self.request(Some(who), Method::POST, "/b", Bytes::from(body))
    }

    fn write_hit(&self, body: &mut String, who: usize, hit: Hit, now: Duration) {
        let Scenario { site, origin, form, visits, .. } = &self.scenario;
        let sent = now.as_millis() as u64;
        let at = sent - u64::from(hit.ago_ms);
        let (event, more) = match hit.what {
            What::View => ("page_view", "\"r\":\"https://search.example/\"".to_owned()),
            What::Stay(ms) => ("engagement", format!("\"ms\":{ms},\"sc\":80")),
            What::Event(event) => (visits.event_names[event as usize].as_str(), "\"p\":{}".into()),
            What::Identify(signed) => {
                let mail = mail(self.person(who) as u32, &form.domain);
                let proof = self.signer.as_ref().filter(|_| signed);
                let proof = proof.map(|it| it.email(&mail, now.as_secs())).unwrap_or_default();
                ("identify", format!("\"id\":{{\"email\":\"{mail}\"{proof}}}"))
            }
        };
        // Every text in it is checked with the scenario, or our own.
        let _ = write!(
            body,
            "{{\"s\":\"{site}\",\"e\":\"{event}\",\"u\":\"{origin}{}\",\"t\":\"{}\",{more},\
             \"i\":\"{}\",\"n\":\"{}\",\"at\":{at},\"st\":{sent}}}",
            self.path(hit.page),
            self.title(who, hit),
            self.id(who, hit.number),
            self.nonce(who, hit),
        );
    }

    fn robot(&mut self) -> Asked {
        let page = self.random.below(self.scenario.pages.len());
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("s", &self.scenario.site);
        query.append_pair(
            "u",
            &format!("{}{}", self.scenario.origin, self.scenario.pages[page].path),
        );
        let ticket = match &mut self.log {
            None => NOBODY,
            Some(log) => {
                // After all browsers.
                let who =
                    (self.scenario.visitors.count.max(self.numbers.1) + self.numbers.0) as u32;
                let (number, did) = (self.robots, Did::Robot);
                self.robots += 1;
                query.append_pair("t", &sent::title(who, number));
                let (place, view, ago_ms, request) = (page as u16, 0, 0, sent::NONE);
                let hit = SentHit { who, number, did, place, view, ago_ms, request };
                log.note(who, false, std::iter::once(hit))
            }
        };
        let target = format!("/p.gif?{}", query.finish());
        let request = self.request(None, Method::GET, &target, Bytes::new());
        Asked { request, ticket }
    }

    /// As a browser sends it, or a robot.
    fn request(
        &self,
        who: Option<usize>,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Request<Full<Bytes>> {
        let mut headers = HeaderMap::with_capacity(10 + self.headers.len());
        headers.insert(HOST, self.host.clone());
        let agent = who.map_or(ROBOT, |who| AGENTS[self.number(who) % AGENTS.len()]);
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        headers.insert(ACCEPT, HeaderValue::from_static("image/avif,image/webp,*/*;q=0.5"));
        headers.insert(ACCEPT_LANGUAGE, HeaderValue::from_static("ja,en-US;q=0.7,en;q=0.3"));
        if let Ok(origin) = HeaderValue::from_str(&self.scenario.origin) {
            headers.insert(REFERER, origin.clone());
            if method == Method::POST {
                headers.insert(ORIGIN, origin);
            }
        }
        if let Some(cookies) = who.and_then(|who| self.visitors[who].cookies.header()) {
            headers.insert(COOKIE, cookies);
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        // Made of what the scenario was checked for.
        *request.uri_mut() = target.parse().unwrap_or_default();
        *request.headers_mut() = headers;
        request
    }
}

impl Hit {
    /// As it is remembered.
    fn sent(&self, who: u32) -> SentHit {
        SentHit {
            who,
            number: self.number,
            did: match self.what {
                What::View => Did::View,
                What::Stay(ms) => Did::Stay(ms),
                What::Event(event) => Did::Event(event),
                What::Identify(signed) => Did::Identify(signed),
            },
            place: match self.page {
                Place::Page(page) => page,
                Place::Form => sent::FORM,
                Place::Thanks => sent::THANKS,
            },
            view: self.view,
            ago_ms: self.ago_ms,
            request: sent::NONE,
        }
    }
}

/// Whose browser is which: every so many is the second one of whoever has the one before.
pub fn person(browser: u32, second_browsers: f64) -> u32 {
    // Only of each second one is it asked, so that nobody has three.
    let second = browser % 2 == 1
        && Random::new(u64::from(browser) ^ 0x02_4d).happens(2.0 * second_browsers);
    if second { browser - 1 } else { browser }
}

/// The mail address of a person.
pub fn mail(person: u32, domain: &str) -> String {
    format!("v{person}@{domain}")
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::Value;

    use super::*;

    fn people(text: &str) -> People {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        std::fs::write(&path, text).unwrap();
        let scenario = Scenario::open(Some(&path), None, None).unwrap();
        People::new(&scenario, (0, 1), 5, HeaderValue::from_static("t.example"), Vec::new())
    }

    /// The hits of a request, as a collector reads them.
    fn hits(request: Request<Full<Bytes>>) -> Vec<Value> {
        if request.method() == Method::GET {
            let query = request.uri().query().unwrap_or_default().as_bytes();
            let pairs = form_urlencoded::parse(query);
            return vec![
                pairs.map(|(name, value)| (name.into_owned(), Value::from(value))).collect(),
            ];
        }
        let mut body = std::pin::pin!(request.into_body().collect());
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        let std::task::Poll::Ready(Ok(body)) = body.as_mut().poll(&mut context) else {
            panic!("a body that is there is read at once");
        };
        match serde_json::from_slice(&body.to_bytes()).unwrap() {
            Value::Array(hits) => hits,
            one => vec![one],
        }
    }

    #[test]
    fn whoever_was_given_a_cookie_brings_it_and_keeps_the_newest() {
        let mut people = people("[visitors]\ncount = 1\n[noise]\nrobots = 0.0\n");
        let asked = people.next();
        assert!(!asked.request.headers().contains_key(COOKIE));
        for value in ["one", "two"] {
            let mut head = response::Builder::new().body(()).unwrap().into_parts().0;
            let cookie = format!("mikomi={value}; Path=/; HttpOnly");
            head.headers.insert("set-cookie", cookie.parse().unwrap());
            people.hear(asked.ticket, Ok(&head), None);
            let next = people.next();
            assert_eq!(next.request.headers()[COOKIE], format!("mikomi={value}"));
        }
    }

    #[test]
    fn hits_have_ids_of_their_own_but_for_the_repeated_ones() {
        let mut people =
            people("[visitors]\ncount = 50\n[noise]\nduplicates = 0.2\nrobots = 0.0\n");
        let mut seen = std::collections::BTreeMap::new();
        let mut requests = 0;
        for _ in 0..2_000 {
            let asked = people.next();
            requests += 1;
            for hit in hits(asked.request) {
                let id = hit["i"].as_str().unwrap().to_owned();
                *seen.entry(id).or_insert(0) += 1;
            }
        }
        let repeated: i32 = seen.values().map(|times| times - 1).sum();
        let share = f64::from(repeated) / f64::from(requests);
        assert!((0.15..0.25).contains(&share), "{share}");
    }

    #[test]
    fn shares_are_what_the_scenario_says() {
        let mut people = people(
            "[requests]\npixel = 0.25\nbeacon = 0.5\nbatch = 0.25\n\
             [visits]\nstays = 0.0\nevents = 0.0\nforms = 0.0\n[noise]\nrobots = 0.1\n",
        );
        let (mut robots, mut pixels, mut batches) = (0, 0, 0);
        for _ in 0..10_000 {
            let asked = people.next();
            if asked.ticket == NOBODY {
                robots += 1;
                continue;
            }
            let by_pixel = asked.request.method() == Method::GET;
            pixels += u32::from(by_pixel);
            batches += u32::from(hits(asked.request).len() > 1);
        }
        let near = |count: u32, share: f64| (f64::from(count) - 10_000.0 * share).abs() < 200.0;
        assert!(near(robots, 0.1) && near(pixels, 0.225) && near(batches, 0.225));
    }

    #[test]
    fn a_form_is_read_sent_and_thanked_for_and_says_who_it_was() {
        let mut people =
            people("[visitors]\ncount = 1\n[visits]\nforms = 1.0\n[noise]\nrobots = 0.0\n");
        let all: Vec<Value> = (0..200).flat_map(|_| hits(people.next().request)).collect();
        let path =
            |hit: &Value| hit["u"].as_str().unwrap()["https://www.site.example".len()..].to_owned();
        let form = all.iter().position(|hit| path(hit) == "/document/" && hit["e"] != "engagement");
        assert!(form.is_some());
        let identify = all.iter().find(|hit| hit["e"] == "identify").unwrap();
        assert_eq!(identify["id"]["email"], "v0@buyer.example");
        assert_eq!(path(identify), "/thanks/document/guide");
    }

    #[test]
    fn the_same_seed_plays_the_same_hits() {
        let text = "[visitors]\ncount = 20\n";
        let (mut one, mut two) = (people(text), people(text));
        for _ in 0..500 {
            let (a, b) = (one.next(), two.next());
            assert_eq!((a.request.uri(), a.ticket), (b.request.uri(), b.ticket));
        }
    }
}
