//! stories.toml, read: dated steps in plain words, and what should be true after them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use engine::stage::FeedbackKind;
use engine::time::{Timestamp, UtcOffset};

use crate::config::{self, Field, Problem, Problems, Source, Table, globs_of_path};

/// Most steps of one story, repetitions included.
const STEPS_MAX: usize = 20_000;
/// Most stories in a file.
const STORIES_MAX: usize = 1_000;

/// A story.
#[derive(Clone, Debug, PartialEq)]
pub struct Story {
    /// What it is called.
    pub name: String,
    /// What happens and what should be true, in order of time.
    pub steps: Vec<Step>,
}

impl Story {
    /// Whether it says anywhere that such a message is told.
    pub fn tells(&self, kind: &str) -> bool {
        let told = self.steps.iter().filter_map(|step| step.expects.messages.as_ref());
        told.flatten().any(|message| message == kind)
    }
}

/// What happens at one moment, and what should be true after it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// When.
    pub at: Timestamp,
    /// The line it stands in.
    pub line: u32,
    /// On which browser.
    pub browser: String,
    /// What happens.
    pub acts: Vec<Act>,
    /// Whom the expectations are about; the last person named, if nobody.
    pub person: Option<String>,
    /// What should be true.
    pub expects: Expects,
    /// From our own network, or by a robot.
    pub sender: Sender,
}

/// Who is behind a browser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// The address.
    pub address: Option<std::net::IpAddr>,
    /// Whether it is a known robot.
    pub robot: bool,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// A page is looked at.
    Page(String),
    /// So much time on the page so far.
    Stay(Duration),
    /// Something named happens.
    Event(String),
    /// A form, or a page's script, says who it is.
    Says(BTreeMap<String, String>),
    /// A link in our mail to this person is clicked.
    Click(String),
    /// Our own server says something of a person.
    Server(BTreeMap<String, String>),
    /// A card is brought in; nobody is told.
    Import(BTreeMap<String, String>),
    /// The browser forgets who it is.
    Reset,
    /// Sales answers about the person, perhaps until a moment.
    Answers(FeedbackKind, Option<Timestamp>),
}

/// What should be true.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expects {
    /// The exact score, within a hundredth.
    pub score: Option<f64>,
    /// The score is at most this.
    pub score_at_most: Option<f64>,
    /// Points of a category, within a hundredth.
    pub category: Vec<(String, f64)>,
    /// Where the lead stands.
    pub stage: Option<String>,
    /// The grade.
    pub grade: Option<String>,
    /// Grade and interest digit.
    pub cell: Option<String>,
    /// Every message about the person so far, in order.
    pub messages: Option<Vec<String>>,
}

/// Reads a file of stories from disk.
pub fn read_file(path: &Path, offset: UtcOffset) -> Result<Vec<Story>, Vec<Problem>> {
    let file = path.display().to_string();
    let unread = |error| vec![Problem::of_file(&file, format!("cannot be read: {error}"))];
    let text = std::fs::read(path).map_err(unread)?;
    read(&file, config::decode(&file, &text)?, offset)
}

/// Reads a file of stories, or says everything that is wrong with it.
pub fn read(file: &str, text: &str, offset: UtcOffset) -> Result<Vec<Story>, Vec<Problem>> {
    let problems = Problems::default();
    let source = Source::new(file, text, &problems);
    let stories = source.parse().map(|entries| {
        let root = Table::root(source, &entries);
        let list = root.need("story").and_then(|field| field.list()).unwrap_or_default();
        root.finish();
        let story = |field: &Field<'_>| story(field, offset);
        list.iter().take(STORIES_MAX).filter_map(story).collect()
    });
    problems.judge(stories)
}

fn story(field: &Field<'_>, offset: UtcOffset) -> Option<Story> {
    let table = field.table()?;
    let name = table.need("name").and_then(|field| field.text()).map(str::to_owned);
    let list = table.need("steps").and_then(|field| field.list()).unwrap_or_default();
    table.finish();
    let mut steps = Vec::new();
    for line in &list {
        step(line, offset, &mut steps);
        if steps.len() > STEPS_MAX {
            line.problem(format!("a story has at most {STEPS_MAX} steps, repetitions included"));
            break;
        }
    }
    // What is repeated goes on beside the rest.
    steps.sort_by_key(|step: &Step| step.at);
    Some(Story { name: name?, steps })
}

fn step(line: &Field<'_>, offset: UtcOffset, steps: &mut Vec<Step>) -> Option<()> {
    let table = line.table()?;
    let at = table.need("at").and_then(|field| moment(&field, offset));
    let text = |word| table.get(word).and_then(|field| field.text()).map(str::to_owned);
    let browser = text("browser").unwrap_or_else(|| "1".to_owned());
    let page = table.get("page").and_then(|field| globs_of_path(&field));
    let stay_field = table.get("stay");
    let stay = stay_field.and_then(|field| field.duration());
    let mut acts = Vec::new();
    acts.extend(table.get("form").and_then(|field| person(&field)).map(Act::Says));
    acts.extend(table.get("server").and_then(|field| person(&field)).map(Act::Server));
    acts.extend(table.get("import").and_then(|field| person(&field)).map(Act::Import));
    acts.extend(text("click").map(Act::Click));
    acts.extend(page.map(Act::Page));
    acts.extend(text("event").map(Act::Event));
    if table.get("reset").and_then(|field| field.flag()) == Some(true) {
        acts.push(Act::Reset);
    }
    acts.extend(answer(&table, offset));
    let sender = Sender {
        address: table.get("network").and_then(|field| {
            let address = field.text()?.parse();
            address.map_err(|_| field.problem("\"network\" needs an address")).ok()
        }),
        robot: table.get("robot").and_then(|field| field.flag()).unwrap_or(false),
    };
    let person = text("person");
    let expects = expects(&table);
    let repeat = table.get("repeat").and_then(|field| field.whole(1..=STEPS_MAX as i64));
    let every = table.get("every").and_then(|field| field.duration());
    if let (Some(field), None) = (table.get("repeat"), every) {
        field.problem_of_word("\"repeat\" needs \"every\" beside it", None);
    }
    table.finish();
    let at = at?;
    for time in 0..repeat.unwrap_or(1) as u32 {
        let at = at.plus(every.unwrap_or_default().saturating_mul(time));
        let own = Step {
            at,
            line: line.line(),
            browser: browser.clone(),
            acts: acts.clone(),
            person: person.clone(),
            expects: expects.clone(),
            sender: sender.clone(),
        };
        // A stay ends so long after the page was opened; what should be true is asked then.
        match stay {
            None => steps.push(own),
            Some(stay) => {
                let then = Step { at: at.plus(stay), acts: vec![Act::Stay(stay)], ..own.clone() };
                steps.push(Step { expects: Expects::default(), ..own });
                steps.push(then);
            }
        }
    }
    Some(())
}

/// `answers = "snooze", until = "2026-12-15 10:00"`.
fn answer(table: &Table<'_>, offset: UtcOffset) -> Option<Act> {
    let (answers, until_field) = (table.get("answers"), table.get("until"));
    let until = until_field.and_then(|field| moment(&field, offset));
    if let (None, Some(field)) = (answers, until_field) {
        field.problem_of_word("\"until\" needs \"answers\" beside it", None);
    }
    let kind = answers?.word(&FeedbackKind::ALL.map(FeedbackKind::name))?;
    Some(Act::Answers(FeedbackKind::parse(kind)?, until))
}

/// `2026-12-01 09:00`, where the rules' day begins.
fn moment(field: &Field<'_>, offset: UtcOffset) -> Option<Timestamp> {
    let text = field.text()?;
    let parsed = text.parse::<jiff::civil::DateTime>().ok().and_then(|date| {
        let zone = jiff::tz::Offset::from_seconds((offset.0 / 1_000) as i32).ok()?;
        u64::try_from(zone.to_timestamp(date).ok()?.as_millisecond()).ok()
    });
    if parsed.is_none() {
        let name = field.name;
        field.problem(format!("\"{name}\" needs a moment such as \"2026-12-01 09:00\""));
    }
    parsed.map(Timestamp)
}

/// `{ email = "…", title = "…" }`: at least one name of theirs.
fn person(field: &Field<'_>) -> Option<BTreeMap<String, String>> {
    let table = field.table()?;
    let entries = table.entries();
    table.finish();
    let pair = |entry: &Field<'_>| Some((entry.name.to_owned(), entry.text()?.to_owned()));
    let said: BTreeMap<String, String> = entries.iter().filter_map(pair).collect();
    let named = ["email", "user_id", "crm_id"].into_iter().any(|name| said.contains_key(name));
    if !named {
        field.problem("say who it is: \"email\", \"user_id\" or \"crm_id\"");
    }
    Some(said)
}

fn expects(table: &Table<'_>) -> Expects {
    let text = |word| table.get(word).and_then(|field| field.text()).map(str::to_owned);
    let number = |word| table.get(word).and_then(|field: Field<'_>| field.number());
    let category = table.get("category").and_then(|field| field.table()).map(|inner| {
        let entries = inner.entries();
        inner.finish();
        let pair = |entry: &Field<'_>| Some((entry.name.to_owned(), entry.number()?));
        entries.iter().filter_map(pair).collect()
    });
    let messages = table
        .get("messages")
        .and_then(|field| field.list())
        .map(|list| list.iter().filter_map(Field::text).map(str::to_owned).collect());
    Expects {
        score: number("score"),
        score_at_most: number("score_at_most"),
        category: category.unwrap_or_default(),
        stage: text("stage"),
        grade: text("grade"),
        cell: text("cell"),
        messages,
    }
}
