//! endpoints.toml: who is told, where, and about what. Secrets are read and never shown.

use std::collections::BTreeSet;
use std::fmt;

use super::super::webhook::address::{Permit, Target, TargetError};
use super::super::webhook::sign::Secrets;
use super::chat::Chat;
use super::filter::{About, Choice, chat_types};
use super::mikomi_toml::networks;
use super::problem::{Problem, Problems, nearest};
use super::table::{Field, Source, Table};
use super::{Fingerprint, ScoringFile, Surroundings};

/// Most endpoints in the file.
const ENDPOINTS_MAX: usize = 1_000;
/// The kinds of messages there are.
pub(super) const ALERT_TYPES: [&str; 12] = [
    "lead.hot",
    "lead.action",
    "lead.escalated",
    "lead.signal",
    "lead.cooled",
    "lead.reminder",
    "alert.retracted",
    "account.hot",
    "account.cooled",
    "lead.merged",
    "lead.unmerged",
    "lead.erased",
];

/// Whether an endpoint is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointMode {
    /// Messages are recorded and not sent.
    Shadow,
    /// Messages are sent.
    Live,
}

/// One receiver of webhooks.
#[derive(Clone)]
pub struct Endpoint {
    /// Its name in the journal.
    pub id: String,
    /// Where messages are posted, with what it may reach that others may not.
    pub target: Target,
    /// What messages are signed with, newest first.
    pub secrets: Secrets,
    /// Whether it is sent to; shadow unless stated.
    pub mode: EndpointMode,
    /// Whether it gets the messages of test keys, and only those.
    pub test: bool,
    /// Whose messages it gets; empty: all.
    pub audience: BTreeSet<String>,
    /// Which kinds of messages it gets; empty: all.
    pub types: BTreeSet<&'static str>,
    /// Messages of which thresholds it gets; empty: all.
    pub thresholds: BTreeSet<String>,
    /// Attributes left out of the body for it.
    pub hide: BTreeSet<String>,
    /// What else it chooses by.
    pub choice: Choice,
    /// When it is written to, if people read it.
    pub chat: Option<Chat>,
    /// Whether a newer state of a lead replaces one that was never sent.
    pub supersede: bool,
    /// Attempts at once, if it differs from the setting for all.
    pub in_flight_max: Option<usize>,
    /// Of everything above, secrets too: differs when the endpoint does.
    pub fingerprint: Fingerprint,
}

impl Endpoint {
    /// Whether it hears of a message: of its audience (nothing: for all), type, threshold (if it
    /// is about one), and of test keys or not.
    pub fn hears(&self, about: &About<'_>) -> bool {
        let takes = |set: &BTreeSet<String>, word: &str| set.is_empty() || set.contains(word);
        self.test == about.test
            && about.audience.is_none_or(|audience| takes(&self.audience, audience))
            && (self.types.is_empty() || self.types.contains(about.kind))
            && about.threshold.is_none_or(|name| takes(&self.thresholds, name))
    }

    /// Whether it wants a message: hears of it, and chooses it.
    pub fn wants(&self, about: &About<'_>, is_on: impl Fn(&str) -> bool) -> bool {
        self.hears(about) && self.choice.takes(about, is_on)
    }
}

// By hand: many services put a secret into the address.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("id", &self.id)
            .field("authority", &self.target.authority)
            .field("mode", &self.mode)
            .field("test", &self.test)
            .finish_non_exhaustive()
    }
}

/// Names that endpoints may choose by; nothing where the file they stand in could not be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Thresholds of scoring.toml.
    pub thresholds: Option<Vec<String>>,
    /// Categories of scoring.toml.
    pub categories: Option<Vec<String>>,
    /// Named lists.
    pub lists: Option<Vec<String>>,
}

impl Known {
    /// Those of the rules, if they could be read.
    pub fn of(scoring: Option<&ScoringFile>) -> Known {
        let categories = scoring.map(|file| file.categories.iter().map(|it| it.0.name.clone()));
        Known {
            thresholds: scoring.map(ScoringFile::threshold_names),
            categories: categories.map(Iterator::collect),
            lists: None,
        }
    }
}

/// Reads the file.
pub(super) fn parse(
    file: &str,
    text: &str,
    known: &Known,
    surroundings: &Surroundings,
) -> Result<Vec<Endpoint>, Vec<Problem>> {
    let problems = Problems::default();
    let source = Source::new(file, text, &problems);
    let endpoints = source.parse().and_then(|entries| {
        let root = Table::root(source, &entries);
        let list = match root.get("endpoint") {
            Some(field) => field.list()?,
            None => Vec::new(),
        };
        root.finish();
        if list.len() > ENDPOINTS_MAX {
            source.report(0, format!("at most {ENDPOINTS_MAX} endpoints"), None);
        }
        let mut ids = BTreeSet::new();
        let mut endpoints = Vec::new();
        for table in list.iter().filter_map(Field::table) {
            endpoints.extend(endpoint(table, known, surroundings, &mut ids));
        }
        Some(endpoints)
    });
    problems.judge(endpoints)
}

fn endpoint(
    table: Table<'_>,
    known: &Known,
    surroundings: &Surroundings,
    ids: &mut BTreeSet<String>,
) -> Option<Endpoint> {
    let id = table.need("id").and_then(|field| {
        let id = field.name()?;
        if !ids.insert(id.to_owned()) {
            field.problem(format!("there is an endpoint \"{id}\" already"));
        }
        Some(id.to_owned())
    });
    let target = target(&table);
    let secrets = secrets(&table, surroundings);
    let mode = match table.get("mode") {
        Some(field) => field.word(&["shadow", "live"]),
        None => Some("shadow"),
    };
    let test = flag(&table, "test");
    let audience = names(&table, "audience");
    let types = table.get("types").and_then(|field| field.one_or_more());
    let types = types.unwrap_or_default();
    let mut types: BTreeSet<_> =
        types.iter().filter_map(|field| field.word(&ALERT_TYPES)).collect();
    let wanted = table.get("thresholds").and_then(|field| field.one_or_more());
    let wanted = wanted.unwrap_or_default();
    for field in &wanted {
        check_threshold(field, known.thresholds.as_deref());
    }
    let hide = names(&table, "hide");
    let choice = Choice::read(&table, known.categories.as_deref(), known.lists.as_deref());
    let is_chat = flag(&table, "chat");
    let chat = Chat::read(&table, is_chat.unwrap_or(true));
    if chat.is_some() && types.is_empty() {
        types = chat_types();
    }
    let supersede = flag(&table, "supersede");
    let in_flight_max = table.get("in_flight_max").and_then(|field| field.whole(1..=1_000));
    if let Some(field) = table.get("order") {
        field.word(&["lead"]);
    }
    table.finish();
    let (secrets, secrets_print) = secrets?;
    let mut endpoint = Endpoint {
        id: id?,
        target: target?,
        secrets,
        mode: match mode? {
            "live" => EndpointMode::Live,
            _ => EndpointMode::Shadow,
        },
        test: test?,
        audience,
        types,
        thresholds: wanted.iter().filter_map(|field| field.name().map(str::to_owned)).collect(),
        hide,
        choice,
        chat: chat.filter(|_| is_chat == Some(true)),
        supersede: supersede?,
        in_flight_max: in_flight_max.map(|most| most as usize),
        fingerprint: secrets_print,
    };
    endpoint.fingerprint = endpoint.print(secrets_print);
    Some(endpoint)
}

impl Endpoint {
    /// The fingerprint, given that of the secrets. The text it is made of stays in here.
    fn print(&self, secrets: Fingerprint) -> Fingerprint {
        let said = format!(
            "{secrets:?} {:?} {:?} {} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {}",
            self.target,
            self.mode,
            self.test,
            self.audience,
            self.types,
            self.thresholds,
            self.hide,
            self.in_flight_max,
            self.choice,
            self.chat,
            self.supersede
        );
        Fingerprint::of(said.as_bytes())
    }
}

/// A flag that is off unless it is written; nothing, if what is written is none.
fn flag(table: &Table<'_>, key: &'static str) -> Option<bool> {
    table.get(key).map_or(Some(false), |field| field.flag())
}

fn names(table: &Table<'_>, key: &'static str) -> BTreeSet<String> {
    let list = table.get(key).and_then(|field| field.one_or_more());
    let list = list.unwrap_or_default();
    let name = |field: &Field<'_>| field.name().map(str::to_owned);
    list.iter().filter_map(name).collect()
}

fn check_threshold(field: &Field<'_>, thresholds: Option<&[String]>) {
    let (Some(name), Some(known)) = (field.name(), thresholds) else {
        return;
    };
    if !known.iter().any(|threshold| threshold == name) {
        let near = nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
        let message = format!("there is no threshold \"{name}\" in scoring.toml");
        field.problem_meant(message, near);
    }
}

fn target(table: &Table<'_>) -> Option<Target> {
    let allow_http = match table.get("allow_http") {
        Some(field) => field.flag(),
        None => Some(false),
    };
    let private = table.get("allow_private").and_then(|field| field.list());
    let ports = table.get("allow_ports").and_then(|field| field.list());
    let ports = ports.unwrap_or_default();
    let permit = Permit {
        allow_http: allow_http.unwrap_or(true),
        allow_ports: ports
            .iter()
            .filter_map(|field| Some(field.whole(1..=65_535)? as u16))
            .collect(),
        allow_private: networks(&private.unwrap_or_default()),
    };
    let field = table.need("url")?;
    match Target::parse(field.text()?, &permit) {
        Ok(target) => Some(target),
        Err(error) => {
            let meant = match error {
                // The address itself may hold a secret, so it is never repeated.
                TargetError::Unreadable | TargetError::Scheme => "; it begins with \"https://\"",
                _ => "",
            };
            field.problem(format!("{error}{meant}"));
            None
        }
    }
}

/// The secrets, and a fingerprint of their texts.
fn secrets(table: &Table<'_>, surroundings: &Surroundings) -> Option<(Secrets, Fingerprint)> {
    let written = table.get("secrets");
    let (file, variable) = (table.get("secret_file"), table.get("secret_env"));
    let given = [written, file, variable];
    let Some(first) = given.into_iter().flatten().next() else {
        table.problem("a secret is missing: \"secret_file\", \"secret_env\" or \"secrets\"");
        return None;
    };
    let mut texts = Vec::new();
    if let Some(list) = written.and_then(|field| field.one_or_more()) {
        texts.extend(list.iter().filter_map(|it| it.text().map(str::to_owned)));
    }
    for (_, found) in surroundings.secrets(file, variable) {
        texts.extend(found);
    }
    if texts.is_empty() {
        return None;
    }
    match Secrets::parse(texts.iter().map(String::as_str)) {
        Ok(secrets) => Some((secrets, Fingerprint::of(texts.join(" ").as_bytes()))),
        Err(error) => {
            first.problem(error.to_string());
            None
        }
    }
}
