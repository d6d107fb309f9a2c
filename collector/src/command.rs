//! The commands that are not the server itself: check, rules test, sample, notice, tail, export,
//! forget, explain, token. Those that read a data folder by themselves have their own files.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use engine::alert::AlertKind;
use engine::id::LeadId;
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::{DEFAULT_STORIES, nearest};
use crate::ids::Ids;
use crate::notice;
use crate::outbox::look::{Form, Lang};
use crate::sample::{self, For};
use crate::serve::{self, Options};
use crate::stories;
use crate::tokens::{self, Role};
use crate::webhook::MessageId;

/// The stories beside the rules.
const STORIES_FILE: &str = "stories.toml";

/// Why a command failed.
#[derive(Debug)]
pub enum CommandError {
    /// The settings are wrong; each problem is a line.
    Settings(Vec<crate::config::Problem>),
    /// The data folder cannot be used.
    Data(String),
    /// The server does not answer.
    Server(String),
    /// The server refuses.
    Refused(StatusCode),
    /// There is no such alert.
    NoAlert(String),
    /// There is no such lead.
    NoLead(String),
    /// An address is of one site's person: of which, if there are several?
    WhichSite(Vec<String>),
    /// A word that is none of those known here, and those.
    Word(&'static str, String, Vec<&'static str>),
    /// The settings have no such endpoint.
    NoEndpoint(String, Option<String>),
    /// So many stories of so many did not end as they tell.
    Untrue(usize, usize),
    /// The output is gone or cannot be written.
    Output(io::Error),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(problems) => {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Data(why) | Self::Server(why) => f.write_str(why),
            Self::Refused(StatusCode::UNAUTHORIZED) => f.write_str(
                "the server knows no such token; give one with --token or MIKOMI_TOKEN, or run \
                 this where the data folder is",
            ),
            Self::Refused(status) => write!(f, "the server answers {status}"),
            Self::NoAlert(alert) => write!(
                f,
                "there is no alert {alert:?}; its id stands in the message, as \"alert_id\""
            ),
            Self::NoLead(whom) => write!(f, "nobody is known as {whom:?}"),
            Self::WhichSite(sites) => {
                write!(f, "there are several sites; say --site, one of {}", sites.join(", "))
            }
            Self::Word(what, word, known) => {
                write!(f, "there is no {what} {word:?}")?;
                match nearest(word, known.iter().copied()) {
                    Some(near) => write!(f, "; did you mean {near:?}?"),
                    None => write!(f, "; there is {}", known.join(", ")),
                }
            }
            Self::NoEndpoint(id, near) => {
                write!(f, "endpoints.toml has no endpoint {id:?}")?;
                near.as_ref().map_or(Ok(()), |near| write!(f, "; did you mean {near:?}?"))
            }
            Self::Untrue(failed, all) => write!(f, "{failed} of {all} stories are not so"),
            Self::Output(error) => write!(f, "the output cannot be written: {error}"),
        }
    }
}

/// Reads the settings and says what is wrong, or what is in them.
pub fn check(options: &Options) -> Result<String, CommandError> {
    let (loaded, files, _) = serve::load(options).map_err(CommandError::Settings)?;
    let from = match &files.dir {
        Some(dir) => dir.display().to_string(),
        None => "the compiled-in defaults".to_owned(),
    };
    let mut text = format!(
        "{from}: fine. {} sites, {} rules, {} categories, {} thresholds, {} endpoints.",
        loaded.settings.sites.len(),
        loaded.scoring.rules.len(),
        loaded.scoring.categories.len(),
        loaded.scoring.thresholds.len(),
        loaded.endpoints.len(),
    );
    let later = loaded.scoring.later.sections();
    if !later.is_empty() {
        text.push_str("\nRead and checked, but not acted on by this version: ");
        text.push_str(&later.join(", "));
    }
    Ok(text)
}

/// Plays the stories with the rules of the settings and writes a line for each, and one for all
/// that is not as told. The stories are those of the given file, else of stories.toml beside the
/// rules, else the compiled-in ones.
pub fn rules_test(
    options: &Options,
    stories: Option<&Path>,
    output: &mut dyn Write,
) -> Result<(), CommandError> {
    let (loaded, files, _) = serve::load(options).map_err(CommandError::Settings)?;
    let beside = files.dir.map(|dir| dir.join(STORIES_FILE)).filter(|path| path.exists());
    let stories = match stories.or(beside.as_deref()) {
        Some(path) => stories::read_file(path, loaded.scoring.utc_offset),
        None => stories::read(STORIES_FILE, DEFAULT_STORIES, loaded.scoring.utc_offset),
    }
    .map_err(CommandError::Settings)?;
    let site = loaded.settings.sites.first();
    let told = stories::play(&stories, &loaded.scoring, site)
        .map_err(|problem| CommandError::Settings(vec![problem]))?;
    let mut failed = 0;
    for story in &told {
        let mark = if story.failures.is_empty() { "ok    " } else { "FAILED" };
        failed += usize::from(!story.failures.is_empty());
        writeln!(output, "{mark} {} ({} as told)", story.name, story.held)
            .map_err(CommandError::Output)?;
        for failure in &story.failures {
            writeln!(output, "       {failure}").map_err(CommandError::Output)?;
        }
    }
    if failed > 0 { Err(CommandError::Untrue(failed, told.len())) } else { Ok(()) }
}

/// A text for a privacy policy, from the settings.
pub fn notice(options: &Options, lang: &str) -> Result<String, CommandError> {
    let unknown = || CommandError::Word("language", lang.to_owned(), Lang::NAMES.to_vec());
    let lang = Lang::parse(lang).ok_or_else(unknown)?;
    let (loaded, _, _) = serve::load(options).map_err(CommandError::Settings)?;
    Ok(notice::notice(&loaded, lang))
}

/// Which sample is wanted.
#[derive(Clone, Debug, Default)]
pub struct SampleWish {
    /// The type, `lead.hot` or `hot`; nothing: the list of them.
    pub kind: Option<String>,
    /// The form.
    pub form: Option<String>,
    /// The language.
    pub lang: Option<String>,
    /// The endpoint, instead of a form and a language.
    pub endpoint: Option<String>,
}

/// Writes what an endpoint would be sent for an example. Says what people should know of it.
pub fn sample(
    options: &Options,
    wish: &SampleWish,
    output: &mut dyn Write,
) -> Result<Option<String>, CommandError> {
    let Some(word) = &wish.kind else {
        let kinds = AlertKind::ALL.map(|kind| format!("{}\n", kind.name())).concat();
        let (forms, langs) = (Form::NAMES.join(" "), Lang::NAMES.join(" "));
        let list = format!("{kinds}--as {forms}\n--lang {langs}\n");
        return output.write_all(list.as_bytes()).map(|()| None).map_err(CommandError::Output);
    };
    let short = |kind: AlertKind| kind.name().rsplit('.').next().unwrap_or_default();
    let said = |kind: &AlertKind| kind.name() == word || short(*kind) == word;
    let kind = AlertKind::ALL.into_iter().find(said);
    let kinds = || AlertKind::ALL.map(|it| if word.contains('.') { it.name() } else { short(it) });
    let kinds = || kinds().to_vec();
    let kind = kind.ok_or_else(|| CommandError::Word("message", word.clone(), kinds()))?;
    let form = wish.form.as_ref().map_or(Ok(Form::default()), |word| {
        let unknown = || CommandError::Word("form", word.clone(), Form::NAMES.to_vec());
        Form::parse(word).ok_or_else(unknown)
    })?;
    let lang = wish.lang.as_ref().map_or(Ok(Lang::default()), |word| {
        let unknown = || CommandError::Word("language", word.clone(), Lang::NAMES.to_vec());
        Lang::parse(word).ok_or_else(unknown)
    })?;
    let (loaded, _, _) = serve::load(options).map_err(CommandError::Settings)?;
    let whose = match &wish.endpoint {
        None => For::Form(form, lang),
        Some(id) => {
            let found = loaded.endpoints.iter().find(|it| it.id == *id);
            let near = || nearest(id, loaded.endpoints.iter().map(|it| it.id.as_str()));
            let unknown = || CommandError::NoEndpoint(id.clone(), near().map(str::to_owned));
            For::Endpoint(found.ok_or_else(unknown)?)
        }
    };
    let sample = sample::sample(kind, &whose, &loaded).map_err(CommandError::Settings)?;
    writeln!(output, "{}", sample.text).map_err(CommandError::Output)?;
    if let Some(error) = sample.failed {
        return Ok(Some(format!("the template fails, so the one that ships is used: {error}")));
    }
    let shipped = "your rules tell no such message of the example's person, so those that ship \
                   are used";
    Ok(sample.by_shipped_rules.then(|| shipped.to_owned()))
}

/// Where the admin side is and how to be let in.
#[derive(Clone, Debug)]
pub struct AdminAccess {
    /// `host:port`.
    pub address: String,
    /// A token, or one made in the data folder.
    pub token: String,
}

/// The access given on the command line, or made from the settings and the data folder.
pub fn access(
    options: &Options,
    admin: Option<String>,
    token: Option<String>,
) -> Result<AdminAccess, CommandError> {
    let (loaded, _, _) = serve::load(options).map_err(CommandError::Settings)?;
    let data = options.data.clone().unwrap_or(loaded.settings.journal.dir);
    let address = admin.unwrap_or_else(|| loaded.settings.admin.listen.to_string());
    let token = token.map_or_else(|| make_token(&data, Role::Admin), Ok)?;
    Ok(AdminAccess { address, token })
}

/// The data folder given on the command line, else the settings' one.
pub fn data_folder(options: &Options) -> Result<PathBuf, CommandError> {
    if let Some(data) = &options.data {
        return Ok(data.clone());
    }
    let (loaded, _, _) = serve::load(options).map_err(CommandError::Settings)?;
    Ok(loaded.settings.journal.dir)
}

/// Makes a token for a data folder.
pub fn make_token(data: &Path, role: Role) -> Result<String, CommandError> {
    let made = tokens::create(data, &Ids::default(), role);
    made.map_err(|error| CommandError::Data(format!("{}: {error}", data.display())))
}

/// Copies an answer of the admin side to the output as it comes. Server-sent events lose their
/// framing.
pub fn copy(access: &AdminAccess, path: &str, output: &mut dyn Write) -> Result<(), CommandError> {
    ask(access, Request::get(path), String::new(), output)
}

/// Whom to forget, and why.
#[derive(Clone, Debug, Default)]
pub struct ForgetWish {
    /// The lead's id, or an address.
    pub whom: String,
    /// The site whose person has the address; the only one, if nothing is said.
    pub site: Option<String>,
    /// Whether they came under the site's test key.
    pub test: bool,
    /// Who does it.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// Erases a person, and writes what was erased.
pub fn forget(
    options: &Options,
    access: &AdminAccess,
    wish: &ForgetWish,
    output: &mut dyn Write,
) -> Result<(), CommandError> {
    let mut body = serde_json::json!({ "actor": wish.actor, "reason": wish.reason });
    if LeadId::parse(&wish.whom).is_some() {
        body["lead"] = wish.whom.as_str().into();
    } else {
        body["site"] = site_of(options, wish.site.as_deref())?.into();
        body["test"] = wish.test.into();
        body["email"] = wish.whom.as_str().into();
    }
    let request = Request::post("/api/erase");
    match ask(access, request, body.to_string(), output) {
        Err(CommandError::Refused(StatusCode::NOT_FOUND)) => {
            Err(CommandError::NoLead(wish.whom.clone()))
        }
        done => done,
    }
}

/// The site that is meant: the one that is named, or the only one there is.
fn site_of(options: &Options, site: Option<&str>) -> Result<String, CommandError> {
    let (loaded, _, _) = serve::load(options).map_err(CommandError::Settings)?;
    let ids = || loaded.settings.sites.iter().map(|site| site.id.clone());
    match (site, loaded.settings.sites.as_slice()) {
        (Some(site), _) => Ok(site.to_owned()),
        (None, [only]) => Ok(only.id.clone()),
        (None, _) => Err(CommandError::WhichSite(ids().collect())),
    }
}

fn ask(
    access: &AdminAccess,
    request: hyper::http::request::Builder,
    body: String,
    output: &mut dyn Write,
) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::Server(error.to_string()))?;
    runtime.block_on(async {
        let lost =
            |error: &dyn fmt::Display| CommandError::Server(format!("{}: {error}", access.address));
        let stream = TcpStream::connect(&access.address).await.map_err(|error| lost(&error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| lost(&error))?;
        // Its end is seen as the end of the answer.
        tokio::spawn(connection);
        let request = request
            .header(HOST, &access.address)
            .header(AUTHORIZATION, format!("Bearer {}", access.token))
            .body(Full::<bytes::Bytes>::from(body))
            .map_err(|error| lost(&error))?;
        let response = sender.send_request(request).await.map_err(|error| lost(&error))?;
        if !response.status().is_success() {
            return Err(CommandError::Refused(response.status()));
        }
        let mut body = response.into_body();
        let mut line = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| lost(&error))?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            line.extend_from_slice(data);
            write_lines(&mut line, output).map_err(CommandError::Output)?;
        }
        output.write_all(&line).map_err(CommandError::Output)
    })
}

/// Writes where a message comes from.
pub fn explain(
    access: &AdminAccess,
    alert: &str,
    output: &mut dyn Write,
) -> Result<(), CommandError> {
    let unknown = || CommandError::NoAlert(alert.to_owned());
    let id = MessageId::parse(alert).map_err(|_| unknown())?;
    match copy(access, &format!("/api/alerts/{id}/explain?as=text"), output) {
        Err(CommandError::Refused(StatusCode::NOT_FOUND)) => Err(unknown()),
        done => done,
    }
}

fn write_lines(pending: &mut Vec<u8>, output: &mut dyn Write) -> io::Result<()> {
    while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = pending.drain(..=end).collect();
        let event = line.strip_prefix(b"data: ");
        let framing = line == b"\n" || line.starts_with(b":") || line.starts_with(b"event:");
        match event {
            Some(text) => output.write_all(text)?,
            None if framing => {}
            None => output.write_all(&line)?,
        }
    }
    output.flush()
}
