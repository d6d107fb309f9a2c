//! `mikomi rules test`: stories of people, told in dated steps, with what should come of them.
//! They are played with the rules of the settings, in memory, and nobody is told anything.

mod read;

use std::collections::BTreeMap;
use std::time::Duration;

use engine::alert::AlertKind;
use engine::attribute::Attributes;
use engine::engine::{Arrival, Engine, Ingested, Means};
use engine::glob::normal_path;
use engine::hit::{Claim, Exclusion, Hit, HitKind, Named};
use engine::id::{Key, LeadId, Position, SiteId, VisitorId};
use engine::identity::{Assurance, Identity, IdentityKind};
use engine::lead::explain;
use engine::points::Points;
use engine::record::{Name, NameKind, Published, Record};
use engine::sales::{Feedback, Unheard};
use engine::scoring::Scoring;
use engine::stage::FeedbackKind;
use engine::terms::Versions;
use engine::time::Timestamp;

use self::read::{Act, Expects, Step};
pub use self::read::{Story, read, read_file};
use crate::config::{Problem, ScoringFile, Site};

/// How far a score may be from the one expected.
const TOLERANCE: f64 = 0.010_5;
/// How long before a story its rules are in force.
const BEFORE: Duration = Duration::from_hours(24 * 400);

/// What came of one story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What it is called.
    pub name: String,
    /// What was not as expected, each with its line in the file.
    pub failures: Vec<String>,
    /// Expectations that held.
    pub held: usize,
}

/// Plays stories with rules, as if a site's pages had sent them.
pub fn play(
    stories: &[Story],
    file: &ScoringFile,
    site: Option<&Site>,
) -> Result<Vec<Told>, Problem> {
    stories.iter().map(|story| Ok(Stage::new(file, site, story)?.play(story))).collect()
}

/// The world of one story.
struct Stage<'a> {
    file: &'a ScoringFile,
    scoring: Scoring,
    names: Vec<Name>,
    areas: Vec<(String, engine::glob::Globs)>,
    engine: Engine,
    records: u64,
    messages: Vec<(LeadId, String)>,
    browsers: BTreeMap<String, Page>,
    person: Option<LeadId>,
    /// Answers that changed nothing, and why.
    unheard: Vec<String>,
    /// Whether the story speaks of reminders; most do not care who takes a lead when.
    reminders: bool,
}

/// Where a browser is.
#[derive(Clone, Debug, Default)]
struct Page {
    number: u64,
    path: String,
    views: u64,
}

impl<'a> Stage<'a> {
    fn new(
        file: &'a ScoringFile,
        site: Option<&Site>,
        story: &Story,
    ) -> Result<Stage<'a>, Problem> {
        let begins = story.steps.first().map_or(Timestamp(0), |step| step.at.minus(BEFORE));
        let mut names: Vec<Name> = Vec::new();
        let mut counts = BTreeMap::new();
        let scoring = file.publish(&Versions::default(), (1, begins), &mut |kind, name| {
            let kind = NameKind::from(kind);
            let number = counts.entry(kind).or_insert(0_u16);
            names.push(Name { kind, number: *number, name: name.to_owned() });
            *number += 1;
            *number - 1
        })?;
        let areas = site.into_iter().flat_map(|site| &site.areas).filter_map(|(name, globs)| {
            Some((name.clone(), engine::glob::Globs::new(globs).ok()?))
        });
        let mut stage = Stage {
            file,
            names: names.clone(),
            areas: areas.collect(),
            engine: Engine::new(2),
            records: 0,
            messages: Vec::new(),
            browsers: BTreeMap::new(),
            person: None,
            unheard: Vec::new(),
            reminders: story.tells(AlertKind::Reminder.name()),
            scoring,
        };
        let (terms, text) = (stage.scoring.terms().clone(), file.text.as_bytes().to_vec());
        let published = Published { names, terms, text };
        let records = &mut stage.records;
        stage.engine.publish(published, begins, &mut |_| next(records));
        Ok(stage)
    }

    fn play(mut self, story: &Story) -> Told {
        let mut told = Told { name: story.name.clone(), failures: Vec::new(), held: 0 };
        for step in &story.steps {
            self.pass(step.at);
            for act in &step.acts {
                self.act(step, act);
            }
            if let Some(mail) = &step.person {
                self.person = lead_of(&[("email".to_owned(), mail.clone())].into());
            }
            let unheard = self.unheard.drain(..);
            told.failures.extend(unheard.map(|why| format!("line {}: {why}", step.line)));
            self.check(step, &mut told);
        }
        told
    }

    /// Lets time act at each of its own moments.
    fn pass(&mut self, now: Timestamp) {
        while let Some(due) = self.engine.next_due().filter(|due| *due <= now) {
            let (records, messages) = (&mut self.records, &mut self.messages);
            self.engine.advance(due, &self.scoring, &mut |record| take(record, records, messages));
        }
    }

    fn act(&mut self, step: &Step, act: &Act) {
        let claimed = Assurance::Claimed;
        match act {
            Act::Page(path) => {
                normal_path(path).clone_into(&mut self.browser(step).path);
                self.browser(step).views += 1;
                self.send(step, Hit::default());
            }
            Act::Stay(time) => {
                let engaged_ms = time.as_millis() as u32;
                self.send(step, Hit { kind: HitKind::Engagement, engaged_ms, ..Hit::default() });
            }
            Act::Event(name) => {
                let event = name.clone();
                self.send(step, Hit { kind: HitKind::Event, event, ..Hit::default() });
            }
            Act::Says(said) => {
                let claim = Some(self.claim(said, claimed));
                self.send(step, Hit { kind: HitKind::Identify, claim, ..Hit::default() });
            }
            Act::Click(mail) => {
                let said = [("email".to_owned(), mail.clone())].into();
                let claim = self.claim(&said, Assurance::Verified);
                let claim = Some(Claim { by_link: true, ..claim });
                let (kind, event) = (HitKind::Event, "mail_click".to_owned());
                self.send(step, Hit { kind, event, claim, via_our_link: true, ..Hit::default() });
            }
            Act::Server(said) => self.tell(step, said, false),
            Act::Import(said) => self.tell(step, said, true),
            Act::Reset => self.send(step, Hit { kind: HitKind::Reset, ..Hit::default() }),
            Act::Answers(kind, until) => self.answer(step, *kind, *until),
        }
    }

    /// Sales answers about the person of the step, or the last one named.
    fn answer(&mut self, step: &Step, kind: FeedbackKind, until: Option<Timestamp>) {
        let mail = step.person.as_ref().map(|mail| [("email".to_owned(), mail.clone())].into());
        let whom = mail.map_or(self.person, |mail| lead_of(&mail));
        let (at, id) = (step.at, self.records);
        let feedback = |origin| Feedback { id, at, kind, origin, until, ..Feedback::default() };
        let (records, messages) = (&mut self.records, &mut self.messages);
        let mut push = |record: &Record| take(record, records, messages);
        let mut means = Means { scoring: &self.scoring, now: at, push: &mut push };
        let answered = whom.map(|whom| self.engine.answer(whom, feedback(whom), &mut means));
        let why = match answered {
            Some(Ok(answered)) => answered.unheard.map(Unheard::name),
            Some(Err(why)) => Some(why.name()),
            None => Some("nobody is named"),
        };
        let unheard = |why| format!("\"{}\" is not heard: {why}", kind.name());
        self.unheard.extend(why.map(unheard));
    }

    fn browser(&mut self, step: &Step) -> &mut Page {
        let number = self.browsers.len() as u64 + 1;
        let page = || Page { number, ..Page::default() };
        self.browsers.entry(step.browser.clone()).or_insert_with(page)
    }

    fn claim(&mut self, said: &BTreeMap<String, String>, assurance: Assurance) -> Claim {
        let names = names_of(said).into_iter().map(|(kind, id)| Named { kind, id, assurance });
        let names: Vec<Named> = names.collect();
        self.person = names.first().map(|name| name.id).or(self.person);
        let attributes: Attributes = said.clone();
        Claim { names, attributes_by: assurance, attributes, ..Claim::default() }
    }

    fn tell(&mut self, step: &Step, said: &BTreeMap<String, String>, silent: bool) {
        let claim = Some(self.claim(said, Assurance::Verified));
        let (kind, by_server) = (HitKind::Identify, true);
        let (received, when) = (step.at, step.at);
        self.take(Hit { received, when, kind, claim, by_server, silent, ..Hit::default() });
    }

    fn send(&mut self, step: &Step, hit: Hit) {
        let page = self.browser(step).clone();
        let in_area = |(name, globs): &(String, engine::glob::Globs)| {
            globs.any(&page.path).then(|| name.clone())
        };
        let areas: Vec<String> = self.areas.iter().filter_map(in_area).collect();
        let authenticated = areas.iter().any(|area| area == engine::rule::MY_PAGE);
        let excluded = self.excluded(step, &page.path, &hit);
        self.take(Hit {
            site: SiteId(0),
            visitor: Some(VisitorId(u128::from(page.number) << 64 | u128::from(page.number))),
            received: step.at,
            when: step.at,
            path: page.path,
            page: page.views,
            claim: hit.claim.filter(|_| excluded != Some(Exclusion::EmailDomain)),
            authenticated,
            areas,
            excluded,
            ..hit
        });
    }

    fn excluded(&self, step: &Step, path: &str, hit: &Hit) -> Option<Exclusion> {
        let rules = &self.file.excluded;
        let own = |address| rules.networks.iter().any(|network| network.contains(address));
        let mail = hit.claim.as_ref().and_then(|claim| claim.attributes.get("email"));
        let domain = mail.and_then(|mail| mail.rsplit_once('@')).map(|(_, domain)| domain);
        if rules.robots && step.sender.robot {
            Some(Exclusion::Robot)
        } else if step.sender.address.is_some_and(own) {
            Some(Exclusion::Network)
        } else if self.scoring.excluded_paths.any(path) {
            Some(Exclusion::Path)
        } else if domain.is_some_and(|domain| rules.email_domains.contains(domain)) {
            Some(Exclusion::EmailDomain)
        } else {
            None
        }
    }

    fn take(&mut self, hit: Hit) {
        let (records, messages) = (&mut self.records, &mut self.messages);
        let mut push = |record: &Record| take(record, records, messages);
        let taken = self.engine.ingest(Arrival { hit, first: None }, &self.scoring, &mut push);
        debug_assert!(matches!(taken, Ingested::Recorded(_)), "no hit of a story has an id");
    }

    fn check(&self, step: &Step, told: &mut Told) {
        let found = self.find(step);
        let mut say = |what: &str, is: String, expected: String, holds: bool| {
            if holds {
                told.held += 1;
            } else {
                told.failures.push(format!("line {}: {what} is {is}, not {expected}", step.line));
            }
        };
        let Expects { score, score_at_most, category, stage, grade, cell, messages } =
            &step.expects;
        let near = |found: f64, expected: f64| (found - expected).abs() <= TOLERANCE;
        if let Some(expected) = score {
            let holds = near(found.score, *expected);
            say("the score", format!("{:.3}", found.score), format!("{expected:.3}"), holds);
        }
        if let Some(most) = score_at_most {
            let holds = found.score <= most + TOLERANCE;
            say("the score", format!("{:.3}", found.score), format!("at most {most}"), holds);
        }
        for (name, expected) in category {
            let is = found.categories.get(name).copied().unwrap_or(f64::NAN);
            say(
                &format!("\"{name}\""),
                format!("{is:.3}"),
                format!("{expected:.3}"),
                near(is, *expected),
            );
        }
        for (what, is, expected) in [
            ("the stage", &found.stage, stage),
            ("the grade", &found.grade, grade),
            ("the cell", &found.cell, cell),
        ] {
            if let Some(expected) = expected {
                say(what, is.clone(), expected.clone(), is == expected);
            }
        }
        if let Some(expected) = messages {
            let is = &found.messages;
            say("what was told", listed(is), listed(expected), is == expected);
        }
    }

    fn find(&self, step: &Step) -> Found {
        let lead = self.person.and_then(|name| self.engine.lead(name));
        let terms = self.scoring.terms();
        let Some(lead) = lead else {
            return self.nobody(step);
        };
        let explained = explain(&lead.content.rows, terms, step.at);
        let standing = lead.standing(&self.scoring, step.at);
        let head = self.person.map(|name| self.engine.head(name));
        let counts = |kind: &str| self.reminders || kind != AlertKind::Reminder.name();
        let own = self.messages.iter().filter(|(_, kind)| counts(kind));
        let own = own.filter(|(id, _)| Some(self.engine.head(*id)) == head);
        Found {
            score: shown(explained.score),
            categories: self.categories(&explained.categories),
            stage: lead.stage(&self.scoring, step.at).name().to_owned(),
            grade: standing.grade.letter().to_owned(),
            cell: terms.cell(standing.grade, standing.score),
            messages: own.map(|(_, kind)| kind.clone()).collect(),
        }
    }

    /// A browser of which nobody has said whose it is.
    fn nobody(&self, step: &Step) -> Found {
        let number = self.browsers.get(&step.browser).map_or(0, |page| page.number);
        let id = VisitorId(u128::from(number) << 64 | u128::from(number));
        let visitor = self.engine.visitor(id, step.at).unwrap_or_default();
        let explained = explain(&visitor.rows.in_order(), self.scoring.terms(), step.at);
        Found {
            score: shown(explained.score),
            categories: self.categories(&explained.categories),
            stage: "anonymous".to_owned(),
            ..Found::default()
        }
    }

    fn categories(&self, values: &[(engine::id::CategoryId, Points)]) -> BTreeMap<String, f64> {
        let name = |number: u8| {
            let of = |it: &&Name| it.kind == NameKind::Category && it.number == u16::from(number);
            self.names.iter().find(of).map(|it| it.name.clone()).unwrap_or_default()
        };
        values.iter().map(|(id, value)| (name(id.0), shown(*value))).collect()
    }
}

/// What is true of whom a step is about.
#[derive(Debug, Default)]
struct Found {
    score: f64,
    categories: BTreeMap<String, f64>,
    stage: String,
    grade: String,
    cell: String,
    messages: Vec<String>,
}

fn listed(kinds: &[String]) -> String {
    if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") }
}

fn shown(points: Points) -> f64 {
    points.0 as f64 / 1_000.0
}

fn next(records: &mut u64) -> Position {
    *records += 1;
    Position::new(0, *records)
}

/// In place of a journal: notes who would be told what.
fn take(record: &Record, records: &mut u64, messages: &mut Vec<(LeadId, String)>) -> Position {
    if let Some(part) = record.lead_part() {
        let told = part.messages.iter().map(|it| (part.lead, it.kind.name().to_owned()));
        messages.extend(told);
    }
    next(records)
}

/// A story has no keys: any will do.
fn names_of(said: &BTreeMap<String, String>) -> Vec<(IdentityKind, LeadId)> {
    let named = |kind: IdentityKind| {
        let identity = Identity::parse(kind, said.get(kind.name())?).ok()?;
        Some((kind, identity.lead(&Key([0; 16]), "story")))
    };
    IdentityKind::ORDER.into_iter().filter_map(named).collect()
}

fn lead_of(said: &BTreeMap<String, String>) -> Option<LeadId> {
    names_of(said).first().map(|(_, id)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Around, DEFAULT_SCORING, DEFAULT_STORIES, Surroundings};
    use engine::time::UtcOffset;

    fn rules() -> ScoringFile {
        let around = Surroundings::default();
        let around = Around { surroundings: &around, settings: None };
        ScoringFile::parse("scoring.toml", DEFAULT_SCORING, around).unwrap()
    }

    fn site() -> Site {
        let loaded = config::load(&config::Files::default(), &Surroundings::default());
        loaded.unwrap().settings.sites.remove(0)
    }

    fn told(stories: &str) -> Vec<Told> {
        let rules = rules();
        let stories = read("stories.toml", stories, rules.utc_offset).unwrap();
        play(&stories, &rules, Some(&site())).unwrap()
    }

    #[test]
    fn every_story_that_ships_is_true_of_the_rules_that_ship() {
        let told = told(DEFAULT_STORIES);
        assert!(told.len() >= 12, "{} stories", told.len());
        for story in told {
            assert_eq!(story.failures, Vec::<String>::new(), "{}", story.name);
            assert!(story.held >= 2, "{}: {} expectations", story.name, story.held);
        }
    }

    #[test]
    fn what_is_not_as_expected_is_told_with_its_line() {
        let story = "[[story]]\nname = \"x\"\nsteps = [\n\
            { at = \"2026-12-07 10:00\", page = \"/pricing/\", score = 12 },\n\
            { at = \"2026-12-07 10:01\", form = { email = \"a@x.example\" }, score = 13 },\n\
            { at = \"2026-12-07 10:02\", stage = \"warm\", messages = [\"lead.hot\"] },\n]\n";
        let told = told(story).remove(0);
        assert_eq!(told.held, 1);
        assert_eq!(
            told.failures,
            [
                "line 5: the score is 12.000, not 13.000",
                "line 6: the stage is known, not warm",
                "line 6: what was told is nothing, not lead.hot",
            ]
        );
    }

    #[test]
    fn an_answer_that_changes_nothing_is_told_with_its_line() {
        let story = "[[story]]\nname = \"x\"\nsteps = [\n\
            { at = \"2026-12-07 10:00\", answers = \"won\" },\n\
            { at = \"2026-12-07 10:01\", form = { email = \"a@x.example\" } },\n\
            { at = \"2026-12-07 10:02\", answers = \"won\", stage = \"won\" },\n\
            { at = \"2026-12-07 10:03\", answers = \"rejected\", stage = \"won\" },\n\
            { at = \"2026-12-07 10:04\", person = \"b@x.example\", answers = \"lost\" },\n]\n";
        let told = told(story).remove(0);
        assert_eq!(told.held, 2);
        assert_eq!(
            told.failures,
            [
                "line 4: \"won\" is not heard: nobody is named",
                "line 7: \"rejected\" is not heard: not_here",
                "line 8: \"lost\" is not heard: no_such_lead",
            ]
        );
    }

    #[test]
    fn a_mistake_in_a_story_is_found_with_its_place_and_the_right_word() {
        for (step, problem) in [
            ("{ at = \"soon\" }", "3:17: \"at\" needs a moment"),
            ("{ at = \"2026-12-07 10:00\", pagee = \"/a\" }", "did you mean \"page\"?"),
            ("{ page = \"/a\" }", "\"at\" is missing"),
            ("{ at = \"2026-12-07 10:00\", form = { title = \"x\" } }", "say who it is"),
            ("{ at = \"2026-12-07 10:00\", page = \"a\" }", "a path begins with \"/\""),
            ("{ at = \"2026-12-07 10:00\", repeat = 3 }", "\"repeat\" needs \"every\""),
            ("{ at = \"2026-12-07 10:00\", answers = \"acepted\" }", "did you mean \"accepted\"?"),
            ("{ at = \"2026-12-07 10:00\", until = \"2026-12-08 10:00\" }", "needs \"answers\""),
            (
                "{ at = \"2026-12-07 10:00\", answers = \"snooze\", until = \"later\" }",
                "\"until\" needs a moment",
            ),
        ] {
            let text = format!("[[story]]\nname = \"x\"\nsteps = [{step}]\n");
            let problems = read("stories.toml", &text, UtcOffset(0)).unwrap_err();
            assert!(problems[0].to_string().contains(problem), "{step}: {}", problems[0]);
        }
    }
}
