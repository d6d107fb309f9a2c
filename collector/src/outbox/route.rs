//! Who is told, and when: for each message and endpoint whether it is sent, held, kept for a
//! digest, or only ends what waits. Pure; the outbox journals what was decided.

use engine::alert::AlertKind;
use engine::attribute::{EMAIL_DOMAIN, value_of};
use engine::id::LeadId;
use engine::record::{Body, NameKind, Step};
use engine::time::Timestamp;

use super::book::{Book, Standing};
use super::entry::{Counts, Frozen};
use super::message::Material;
use super::plan::Plan;
use super::when::Calendar;
use crate::config::{About, Chat, Endpoint, EndpointMode, Owner};

/// What a message is about, as far as it matters for who is told.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its kind.
    pub kind: AlertKind,
    /// Who is told; nothing: all.
    pub audience: Option<String>,
    /// The threshold it is about.
    pub threshold: Option<String>,
    /// Whether a test key caused it.
    pub test: bool,
    /// The category of its reason; without one, that with most points.
    pub category: Option<String>,
    /// The fit.
    pub grade: &'static str,
    /// Whose lead it is.
    pub owner: Option<String>,
    /// What the company is called.
    pub company: Option<String>,
    /// What stands behind the `@` of the lead's address.
    pub domain: Option<String>,
    /// What it tells the state of.
    pub topic: Option<String>,
    /// Whether it also tells something that happened.
    pub event: bool,
    /// The alert it takes back.
    pub retracts: Option<String>,
    /// All names of the lead, and the other one of a merge.
    pub leads: Vec<LeadId>,
}

/// What an endpoint gets of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// The message.
    Sent,
    /// Nothing; but what waits there becomes needless.
    Ends,
    /// Nothing.
    None,
}

impl Subject {
    /// Of what a message is made of.
    pub fn of(material: &Material<'_>) -> Subject {
        let Material { message, catalog, scoring, lead, attributes, .. } = material;
        let told = &message.told;
        let category = told.because.and_then(|because| {
            let rule = scoring.rules.rule(because.rule);
            rule.map(|rule| rule.category)
        });
        let most = || told.categories.iter().max_by_key(|(_, points)| *points).map(|it| it.0);
        let category = category.or_else(most);
        let name = |kind, number: u16| catalog.name(kind, number).map(str::to_owned);
        let crossed = material.crossing.map(|crossing| crossing.threshold);
        let threshold = crossed.and_then(|it| name(NameKind::Threshold, u16::from(it.0)));
        let said = |word: &str| value_of(attributes, word).map(str::to_owned);
        let owner = lead.owner().map(str::to_owned).or_else(|| said("owner"));
        let mut leads: Vec<LeadId> = lead.content.members.iter().map(|it| it.id).collect();
        leads.extend([material.lead_id].into_iter().chain(message.other));
        // Of whom nothing is left the record says by which names they were told of.
        if let Body::Step(step) = &material.cause.body
            && let Step::Erase { names } = &step.step
        {
            leads.extend(names);
        }
        leads.sort_unstable();
        leads.dedup();
        Subject {
            kind: message.kind,
            audience: message.audience.clone(),
            topic: topic_of(material),
            event: message.kind == AlertKind::Hot && message.also.contains(&AlertKind::Action),
            threshold,
            test: lead.test,
            category: category.and_then(|it| name(NameKind::Category, u16::from(it.0))),
            grade: told.grade.letter(),
            owner: owner.filter(|owner| !owner.is_empty()),
            company: said("company"),
            domain: said(EMAIL_DOMAIN),
            retracts: material.retracts.as_ref().map(|id| id.as_str().to_owned()),
            leads,
        }
    }

    /// What filters look at.
    pub fn about(&self) -> About<'_> {
        About {
            audience: self.audience.as_deref(),
            kind: self.kind.name(),
            threshold: self.threshold.as_deref(),
            test: self.test,
            category: self.category.as_deref(),
            grade: self.grade,
            owner: self.owner.as_deref(),
            company: self.company.as_deref(),
            domain: self.domain.as_deref(),
        }
    }
}

/// What a message tells the state of: its audience at a line. Rising, rising further and falling
/// each say all that is still true of it; what somebody did, and what moves or takes back, is
/// news of its own.
fn topic_of(material: &Material<'_>) -> Option<String> {
    let message = material.message;
    match message.kind {
        AlertKind::Hot | AlertKind::Escalated | AlertKind::Cooled => {}
        AlertKind::Action
        | AlertKind::Signal
        | AlertKind::Reminder
        | AlertKind::Retracted
        | AlertKind::Merged
        | AlertKind::Unmerged
        | AlertKind::Erased => return None,
    }
    let crossed = material.crossing.map(|crossing| crossing.threshold);
    let line = crossed.or_else(|| message.lines.first().copied())?;
    let line = material.catalog.name(NameKind::Threshold, u16::from(line.0))?;
    Some(format!("{}/{line}", message.audience.as_deref()?))
}

/// What an endpoint gets. `is_on` says whether the lead is on a named list.
///
/// What ends, takes back or moves something goes to whoever was told of it, whatever the lead is
/// like by now: an endpoint that chooses, and a room, gets it then and only then.
pub fn share(
    endpoint: &Endpoint,
    subject: &Subject,
    book: &Book,
    is_on: impl Fn(&str) -> bool,
) -> Share {
    let about = subject.about();
    let follows = match subject.kind {
        AlertKind::Hot
        | AlertKind::Action
        | AlertKind::Escalated
        | AlertKind::Signal
        | AlertKind::Reminder => {
            return if endpoint.wants(&about, is_on) { Share::Sent } else { Share::None };
        }
        AlertKind::Cooled
        | AlertKind::Retracted
        | AlertKind::Merged
        | AlertKind::Unmerged
        | AlertKind::Erased => endpoint.chat.is_some() || !endpoint.choice.is_empty(),
    };
    if endpoint.hears(&about) && (!follows || was_told(endpoint, subject, book)) {
        return Share::Sent;
    }
    let ends = match subject.kind {
        AlertKind::Retracted => endpoint.chat.is_some() || endpoint.supersede,
        AlertKind::Cooled => endpoint.chat.is_some(),
        _ => false,
    };
    if ends && endpoint.test == subject.test && waits(endpoint, subject, book) {
        Share::Ends
    } else {
        Share::None
    }
}

/// Whether an endpoint was told what a message ends, takes back or moves.
fn was_told(endpoint: &Endpoint, subject: &Subject, book: &Book) -> bool {
    let has = |standing: Standing| match standing {
        Standing::Pending | Standing::Delivered | Standing::Dead | Standing::Digested => true,
        Standing::Superseded => endpoint.chat.is_none(),
        Standing::Shadowed => endpoint.mode == EndpointMode::Shadow,
        Standing::Listed
        | Standing::Retracted
        | Standing::HeldBack
        | Standing::Filtered
        | Standing::NotQueued => false,
    };
    let mut told = book.told(&subject.leads, &endpoint.id);
    match (&subject.retracts, &subject.topic) {
        (Some(back), _) => {
            let standing = book.standing(back, &endpoint.id);
            // A newer one said the same in its place.
            let replaced = standing == Some(Standing::Superseded);
            let topic = book.topic(back);
            let instead = |it: &(_, Option<&str>, Standing)| it.1 == topic && has(it.2);
            standing.is_some_and(has)
                || (replaced && topic.is_some() && told.any(|it| instead(&it)))
        }
        (None, Some(topic)) => {
            let hot = told.find(|(kind, of, _)| {
                *kind == Some(AlertKind::Hot) && of.is_none_or(|of| of == topic)
            });
            hot.is_some_and(|(.., standing)| has(standing))
        }
        (None, None) => told.any(|(.., standing)| has(standing)),
    }
}

/// Whether something waits at an endpoint that a message makes needless.
fn waits(endpoint: &Endpoint, subject: &Subject, book: &Book) -> bool {
    if let Some(back) = &subject.retracts {
        return book.standing(back, &endpoint.id) == Some(Standing::Pending);
    }
    let mut told = book.told(&subject.leads, &endpoint.id);
    told.any(|(_, topic, standing)| {
        standing == Standing::Pending && topic.is_some() && topic == subject.topic.as_deref()
    })
}

/// What it takes to say when a room is written to.
pub struct Room<'a> {
    /// Its endpoint's name.
    pub endpoint: &'a str,
    /// When it is written to.
    pub chat: &'a Chat,
    /// Days and hours.
    pub calendar: &'a Calendar,
    /// What was sent today, and what is kept.
    pub plan: &'a Plan,
}

/// Says in `frozen` when a room is written to about somebody's lead: at once, when people work
/// again, or in a digest.
pub fn place(
    room: &Room<'_>,
    owner: (Option<&Owner>, String),
    now: Timestamp,
    frozen: &mut Frozen,
) {
    let Room { endpoint, chat, calendar, plan } = room;
    let (owner, hashed) = owner;
    let theirs = calendar.at(owner.and_then(|owner| owner.utc_offset));
    let quiet = owner.and_then(|owner| owner.quiet).or(chat.quiet);
    let held = quiet.and_then(|quiet| theirs.rests_until(&quiet, now));
    let due = held.unwrap_or(now);
    let counts = Counts { owner: hashed, day: due.day(theirs.offset) };
    if plan.sent(endpoint, &counts) >= chat.daily_max && plan.has_room(endpoint) {
        frozen.listed = Some(calendar.next_slot(due, chat.summary).at.0);
    } else {
        frozen.not_before = held.map(|until| until.0);
    }
    frozen.counts = Some(counts);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use engine::id::Position;
    use engine::time::UtcOffset;

    use super::super::book::id_of;
    use super::super::entry::{Attempt, Queued};
    use super::*;
    use crate::config::{self, Files, Quiet, Surroundings};

    fn endpoint(more: &str) -> Endpoint {
        let text = format!(
            "[[endpoint]]\nid = \"e\"\nurl = \"https://e.example.jp/\"\nmode = \"live\"\n\
             secrets = [\"whsec_bWlrb21pIHRlc3Qgc2VjcmV0IG51bWJlciBvbmUh\"]\n{more}"
        );
        let mut files = Files::default();
        files.contents[2] = Some(text.into_bytes());
        config::load(&files, &Surroundings::default()).unwrap().endpoints.remove(0)
    }

    fn subject(kind: AlertKind) -> Subject {
        Subject {
            kind,
            audience: Some("sales".into()),
            threshold: None,
            test: false,
            category: Some("intent".into()),
            grade: "D",
            owner: None,
            company: None,
            domain: None,
            topic: None,
            event: false,
            retracts: None,
            leads: vec![LeadId(5)],
        }
    }

    fn cooled() -> Subject {
        Subject { topic: Some("sales/hot".into()), ..subject(AlertKind::Cooled) }
    }

    fn retraction() -> Subject {
        Subject { retracts: Some(id_of(1)), ..subject(AlertKind::Retracted) }
    }

    /// A hot message that stands so with the endpoint.
    fn book(outcome: Option<(&str, &str)>) -> Book {
        let mut book = Book::default();
        let to = outcome.map(|_| Frozen { endpoint: Some("e".into()), ..Frozen::default() });
        let hot = Queued {
            alert: id_of(1),
            lead: LeadId(5).to_string(),
            kind: "lead.hot".into(),
            sequence: 1,
            topic: Some("sales/hot".into()),
            bodies: to.into_iter().collect(),
            ..Queued::default()
        };
        book.add(&hot, Position(1));
        if let Some((outcome, state)) = outcome {
            book.take(&Attempt {
                alert: id_of(1),
                endpoint: "e".into(),
                attempt: 1,
                outcome: outcome.into(),
                state: state.into(),
                attempts: 1,
                ..Attempt::default()
            });
        }
        book
    }

    fn of(endpoint: &Endpoint, subject: &Subject, book: &Book) -> Share {
        share(endpoint, subject, book, |_| false)
    }

    const ALL: &str = "";
    const GRADE_A: &str = "grades = [\"A\"]";
    const ROOM: &str = "chat = true";
    const ROOM_FOR_ALL: &str =
        "chat = true\ntypes = [\"lead.hot\", \"lead.cooled\", \"alert.retracted\"]";

    #[test]
    fn whoever_got_the_hot_gets_its_end_although_the_filter_matches_no_more() {
        let delivered = book(Some(("answered", "delivered")));
        let dead = book(Some(("answered", "exhausted")));
        let waiting = book(Some(("answered", "waiting")));
        let not_sent = book(None);
        for end in [cooled(), retraction()] {
            let chooses = endpoint(GRADE_A);
            assert_eq!(of(&chooses, &subject(AlertKind::Hot), &not_sent), Share::None);
            for got in [&delivered, &dead, &waiting] {
                assert_eq!(of(&chooses, &end, got), Share::Sent, "{end:?}");
                assert_eq!(of(&endpoint(ROOM_FOR_ALL), &end, got), Share::Sent, "{end:?}");
            }
            assert_eq!(of(&chooses, &end, &not_sent), Share::None, "{end:?}");
            assert_eq!(of(&endpoint(ROOM_FOR_ALL), &end, &not_sent), Share::None, "{end:?}");
            assert_eq!(of(&endpoint(ALL), &end, &not_sent), Share::Sent, "it chooses nothing");
        }
        for kind in [AlertKind::Merged, AlertKind::Unmerged] {
            let merge = Subject { audience: None, ..subject(kind) };
            assert_eq!(of(&endpoint(GRADE_A), &merge, &delivered), Share::Sent);
            assert_eq!(of(&endpoint(GRADE_A), &merge, &not_sent), Share::None);
            let elsewhere = Subject { leads: vec![LeadId(6)], ..merge };
            assert_eq!(of(&endpoint(GRADE_A), &elsewhere, &delivered), Share::None);
        }
    }

    #[test]
    fn a_message_that_was_never_told_is_not_taken_back_in_a_room() {
        let room = endpoint(ROOM_FOR_ALL);
        for never in
            [("superseded", "dropped"), ("retracted", "dropped"), ("shadowed", "delivered")]
        {
            assert_eq!(of(&room, &retraction(), &book(Some(never))), Share::None, "{never:?}");
        }
        let mut instead = book(Some(("superseded", "dropped")));
        let rising = Queued {
            alert: id_of(2),
            lead: LeadId(5).to_string(),
            kind: "lead.escalated".into(),
            sequence: 2,
            topic: Some("sales/hot".into()),
            bodies: vec![Frozen { endpoint: Some("e".into()), ..Frozen::default() }],
            ..Queued::default()
        };
        instead.add(&rising, Position(2));
        assert_eq!(of(&room, &retraction(), &instead), Share::Sent, "a newer one said the same");
    }

    #[test]
    fn what_a_room_is_not_told_ends_what_waits_there() {
        let waiting = book(Some(("answered", "waiting")));
        let delivered = book(Some(("answered", "delivered")));
        assert_eq!(of(&endpoint(ROOM), &cooled(), &waiting), Share::Ends);
        assert_eq!(of(&endpoint(ROOM), &cooled(), &delivered), Share::None);
        let other = Subject { topic: Some("hr/hot".into()), ..cooled() };
        assert_eq!(of(&endpoint(ROOM), &other, &waiting), Share::None);
        let only_hot = "types = [\"lead.hot\"]";
        assert_eq!(of(&endpoint(only_hot), &retraction(), &waiting), Share::None);
        let newest = format!("{only_hot}\nsupersede = true");
        assert_eq!(of(&endpoint(&newest), &retraction(), &waiting), Share::Ends);
        assert_eq!(of(&endpoint(&newest), &cooled(), &waiting), Share::None);
        let test = Subject { test: true, ..cooled() };
        assert_eq!(of(&endpoint(ROOM), &test, &waiting), Share::None);
    }

    #[test]
    fn a_message_is_sent_held_or_listed_by_the_hour_and_by_how_many_there_were() {
        // Monday, 7 December 2026, 18:00 and 20:00 in Japan.
        let (day, night) = (Timestamp(1_796_634_000_000), Timestamp(1_796_641_200_000));
        let hour = Duration::from_hours(1);
        let quiet = Quiet { from: 19 * hour, to: 8 * hour, weekend: true };
        let chat = Chat { quiet: Some(quiet), daily_max: 2, summary: Some(9 * hour) };
        let calendar = Calendar { offset: UtcOffset(9 * 3_600_000), hours: None };
        let mut plan = Plan::default();
        let mut next = |owner: Option<&Owner>, now: Timestamp| {
            let room = Room { endpoint: "e", chat: &chat, calendar: &calendar, plan: &plan };
            let mut frozen = Frozen { endpoint: Some("e".into()), ..Frozen::default() };
            place(
                &room,
                (owner, owner.map_or_else(String::new, |it| it.mail.clone())),
                now,
                &mut frozen,
            );
            let queued = Queued {
                alert: id_of(9),
                lead: LeadId(5).to_string(),
                bodies: vec![frozen.clone()],
                ..Queued::default()
            };
            plan.take(&queued, Position(1));
            (frozen.not_before, frozen.listed)
        };
        let hours = |from: Timestamp, hours: u32| Some(from.plus(hour * hours).0);
        assert_eq!(next(None, day), (None, None));
        assert_eq!(next(None, day), (None, None));
        assert_eq!(next(None, day), (None, hours(day, 15)), "work is over: the next morning");
        let tomorrow = hours(night, 12);
        assert_eq!(next(None, night), (tomorrow, None), "it counts on the day it is sent");
        assert_eq!(next(None, night), (tomorrow, None));
        assert_eq!(next(None, night), (None, hours(night, 13)));
        let paris = Owner {
            mail: "sato".into(),
            utc_offset: Some(UtcOffset(3_600_000)),
            ..Owner::default()
        };
        assert_eq!(next(Some(&paris), night), (None, None), "noon where they are");
        let early = Owner { quiet: Some(Quiet { from: 10 * hour, ..quiet }), ..paris };
        assert_eq!(next(Some(&early), night), (hours(night, 20), None), "their own hours");
    }
}
