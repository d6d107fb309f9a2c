//! endpoints.toml: who is told, where, and about what. Secrets are read and never shown.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::super::outbox::look::{Form, Lang, Look};
use super::super::outbox::template::Template;
use super::super::sample::try_out;
use super::super::webhook::address::{Permit, Target, TargetError};
use super::super::webhook::manner::Manner;
use super::super::webhook::sign::Secrets;
use super::chat::Chat;
use super::filter::{About, Choice, chat_types};
use super::mikomi_toml::networks;
use super::problem::{Problem, Problems, nearest};
use super::table::{Field, Source, Table};
use super::{Fingerprint, ScoringFile, Surroundings, manner, read_at_most};

/// Most endpoints in the file.
const ENDPOINTS_MAX: usize = 1_000;
/// Longest template, in bytes: those that ship have 4,000.
const TEMPLATE_BYTES_MAX: u64 = 64 << 10;
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
    /// How requests to it look, and what they are signed with.
    pub manner: Manner,
    /// How its messages look.
    pub look: Arc<Look>,
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

    /// Whether it hears that somebody was erased.
    pub fn hears_of_erasures(&self) -> bool {
        self.types.is_empty() || self.types.contains("lead.erased")
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
    let target = target(&table, surroundings);
    let (look, template_print) = look(&table, surroundings);
    let form = look.form;
    let mut manner = manner::read(&table, surroundings, form.request());
    let unsigned = form != Form::Json || look.template.is_some();
    let secrets = secrets(&table, surroundings, unsigned);
    let mode = match table.get("mode") {
        Some(field) => field.word(&["shadow", "live"]),
        None => Some("shadow"),
    };
    let test = flag(&table, "test");
    let audience = names(&table, "audience");
    let mut types = types(&table);
    let wanted = table.get("thresholds").and_then(|field| field.one_or_more());
    let wanted = wanted.unwrap_or_default();
    for field in &wanted {
        check_threshold(field, known.thresholds.as_deref());
    }
    let hide = hide(&table, form);
    let choice = Choice::read(&table, known.categories.as_deref(), known.lists.as_deref());
    let is_chat = is_chat(&table, form);
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
    manner.secrets = secrets;
    let mut endpoint = Endpoint {
        id: id?,
        target: target?,
        manner,
        look: Arc::new(look),
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
        fingerprint: Fingerprint::of(b""),
    };
    endpoint.fingerprint = endpoint.print(secrets_print, template_print);
    Some(endpoint)
}

/// How its messages look, and the fingerprint of a template of its own.
fn look(table: &Table<'_>, surroundings: &Surroundings) -> (Look, Option<Fingerprint>) {
    let form = table.get("as").and_then(|field| field.word(&Form::NAMES));
    let form = form.and_then(Form::parse).unwrap_or_default();
    let lang = table.get("lang").and_then(|field| field.word(&Lang::NAMES));
    let lang = lang.and_then(Lang::parse).unwrap_or_default();
    let file = table.get("body_template_file");
    let app = table.get("app");
    match app {
        Some(field) if form != Form::Kintone => {
            field.problem_of_word("\"app\" is for as = \"kintone\"", None);
        }
        None if form == Form::Kintone && file.is_none() => {
            table.problem("\"app\" is missing: the number of the kintone app");
        }
        _ => {}
    }
    let app = app.and_then(|field| field.count(1));
    let read = file.and_then(|field| template(&field, surroundings));
    let (template, print) = read.map_or((None, None), |(it, print)| (Some(it), Some(print)));
    let look = Look { form, lang, app, template };
    if let (Some(field), Err((kind, error))) = (file, try_out(&look)) {
        field.problem(format!("with a {} this template fails: {error}", kind.name()));
    }
    (look, print)
}

/// A template of one's own, from a file beside the settings.
fn template(field: &Field<'_>, surroundings: &Surroundings) -> Option<(Template, Fingerprint)> {
    let name = field.text()?;
    let read = read_at_most(&surroundings.path(name), TEMPLATE_BYTES_MAX);
    let read = read.and_then(|bytes| {
        let print = Fingerprint::of(&bytes);
        let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
        let template = Template::new(&text).map_err(|error| format!("is wrong: {error}"))?;
        Ok((template, print))
    });
    read.map_err(|why| field.problem(format!("{name} {why}"))).ok()
}

/// What is left out of the body for it. A chat is read by many, so there the least is shown
/// unless it is said; an empty list says that all may be.
fn hide(table: &Table<'_>, form: Form) -> BTreeSet<String> {
    match table.get("hide") {
        None => form.hidden(),
        Some(field) if form.is_chat() && !field.is_text() => {
            let list = field.list().unwrap_or_default();
            list.iter().filter_map(|field| field.name().map(str::to_owned)).collect()
        }
        _ => names(table, "hide"),
    }
}

impl Endpoint {
    /// The fingerprint, given that of the secrets. The text it is made of stays in here.
    fn print(&self, secrets: Option<Fingerprint>, template: Option<Fingerprint>) -> Fingerprint {
        let manner = &self.manner;
        let headers: Vec<_> =
            manner.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let said = format!(
            "{secrets:?} {template:?} {:?} {:?} {:?} {:?} {:?} {headers:?} {:?} {:?} {} {:?} {:?} \
             {:?} {:?} {:?} {:?} {:?} {}",
            self.look.form,
            self.look.lang,
            self.look.app,
            manner.method,
            manner.content_type,
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

fn types(table: &Table<'_>) -> BTreeSet<&'static str> {
    let types = table.get("types").and_then(|field| field.one_or_more());
    let types = types.unwrap_or_default();
    types.iter().filter_map(|field| field.word(&ALERT_TYPES)).collect()
}

/// Whether people read it. Records of a system wait for nobody and are never listed.
fn is_chat(table: &Table<'_>, form: Form) -> Option<bool> {
    let Some(field) = table.get("chat") else {
        return Some(form.is_chat());
    };
    let said = field.flag()?;
    if said && matches!(form, Form::Kintone | Form::Salesforce) {
        field.problem(format!("as = \"{form}\" keeps records; nobody reads it as a chat"));
        return None;
    }
    Some(said)
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

fn target(table: &Table<'_>, surroundings: &Surroundings) -> Option<Target> {
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
    match Target::parse(&surroundings.filled(&field, true)?, &permit) {
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

/// The secrets, and a fingerprint of their texts. Who is `unsigned` may have none.
fn secrets(
    table: &Table<'_>,
    surroundings: &Surroundings,
    unsigned: bool,
) -> Option<(Option<Secrets>, Option<Fingerprint>)> {
    let written = table.get("secrets");
    let (file, variable) = (table.get("secret_file"), table.get("secret_env"));
    let given = [written, file, variable];
    let Some(first) = given.into_iter().flatten().next() else {
        if unsigned {
            return Some((None, None));
        }
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
        Ok(secrets) => Some((Some(secrets), Some(Fingerprint::of(texts.join(" ").as_bytes())))),
        Err(error) => {
            first.problem(error.to_string());
            None
        }
    }
}
