//! Configuration: files a person edits, read into types once.
//!
//! `mikomi.toml` says how the machine runs, `scoring.toml` who earns points, `endpoints.toml` who
//! is told, `owners.toml` by what names, `lists.toml` who is on which list and
//! `lists/do_not_send.txt` who is not to be written to. They are looked for in the folder given by
//! `--config`, else in `./config`, else the compiled-in ones are used. Everything wrong in them is
//! reported at once, with line, column and the nearest right word; nothing in them is ignored.

mod chat;
mod crm_link;
mod do_not_send;
mod endpoints;
mod filter;
mod lists;
mod manner;
mod mikomi_toml;
mod owners;
mod problem;
mod reload;
mod scoring;
mod settings;
mod sites;
mod spelling;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

pub use self::chat::{Chat, Quiet};
pub use self::crm_link::CrmLink;
pub use self::do_not_send::DoNotSend;
pub use self::endpoints::{Endpoint, EndpointMode};
pub use self::filter::{About, Choice, NO_OWNER};
pub use self::owners::{Owner, Owners};
pub use self::problem::Problem;
pub use self::reload::{Changes, Contents, Watcher};
pub use self::scoring::{Around, Excluded, NameKind, ScoringFile, later};
pub use self::settings::{
    Admin, Audit, Collector, Cookie, Durability, ForRules, Journal, Limits, Privacy, Rate,
    RulesFrom, Secret, SecureCookie, Settings, Snapshots, TlsFiles, Webhooks, are_same,
};
pub use self::sites::{Origins, Site, SiteConsent};

use self::endpoints::Known;
use crate::named::NamedLists;

pub(crate) use self::problem::{Problems, nearest};
pub(crate) use self::sites::path as globs_of_path;
pub(crate) use self::table::{Field, Source, Table};

/// The compiled-in mikomi.toml: every setting with its default and its reason.
pub const DEFAULT_MIKOMI: &str = include_str!("../../../config/mikomi.toml");
/// The compiled-in scoring.toml: the rules to begin with.
pub const DEFAULT_SCORING: &str = include_str!("../../../config/scoring.toml");
/// The compiled-in endpoints.toml: an example that sends nothing.
pub const DEFAULT_ENDPOINTS: &str = include_str!("../../../config/endpoints.toml");
/// The compiled-in owners.toml: an example that names nobody.
pub const DEFAULT_OWNERS: &str = include_str!("../../../config/owners.toml");
/// The compiled-in stories.toml: what the rules to begin with should do.
pub const DEFAULT_STORIES: &str = include_str!("../../../config/stories.toml");

/// The compiled-in lists.toml: lists to begin with.
pub const DEFAULT_LISTS: &str = include_str!("../../../config/lists.toml");

/// The names of the files.
pub const FILE_NAMES: [&str; 6] = [
    "mikomi.toml",
    "scoring.toml",
    "endpoints.toml",
    "owners.toml",
    "lists.toml",
    "lists/do_not_send.txt",
];
/// Longest file of settings, in bytes. Two thousand rules have half of it.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Most files of one kind in a folder that are watched.
const WATCHED_MAX: usize = 100;
/// Longest list of words, in bytes: it is journaled with every version of the rules.
const LIST_BYTES_MAX: u64 = 64 << 10;
/// Longest file of secrets, in bytes.
const SECRETS_BYTES_MAX: u64 = 64 << 10;

impl From<NameKind> for engine::record::NameKind {
    fn from(kind: NameKind) -> engine::record::NameKind {
        match kind {
            NameKind::Rule => Self::Rule,
            NameKind::Category => Self::Category,
            NameKind::Threshold => Self::Threshold,
        }
    }
}

/// What tells one content of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// Its length in bytes.
    pub bytes: u64,
    /// The CRC32C of its bytes.
    pub crc32c: u32,
}

impl Fingerprint {
    /// Of a content.
    pub fn of(content: &[u8]) -> Fingerprint {
        Fingerprint::of_all(content, "")
    }

    /// Of a content, and of what it refers to.
    fn of_all(content: &[u8], besides: &str) -> Fingerprint {
        Fingerprint {
            bytes: content.len() as u64 + besides.len() as u64,
            crc32c: crc32c::crc32c_append(crc32c::crc32c(content), besides.as_bytes()),
        }
    }
}

/// What the files refer to: their folder, and the environment.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// The folder the files were found in; nothing when the compiled-in ones are used.
    pub dir: Option<PathBuf>,
    /// The process's environment, as `std::env::vars()` gives it. May hold secrets.
    pub env: BTreeMap<String, String>,
}

impl Surroundings {
    /// A file named in the settings: beside them unless its path is absolute.
    fn path(&self, name: &str) -> PathBuf {
        match &self.dir {
            Some(dir) => dir.join(name),
            None => PathBuf::from(name),
        }
    }

    /// The lists that are compiled in.
    const LISTS: [(&'static str, &'static str); 2] = [
        ("free_mail", include_str!("../../../config/lists/free_mail.txt")),
        ("holidays-jp", include_str!("../../../config/lists/holidays-jp.txt")),
    ];

    /// The words of a list, one a line, in small letters: of the file beside the settings, else
    /// of the compiled-in list. Says what is wrong if there is none.
    fn list(&self, name: &str) -> Result<Vec<String>, String> {
        let file = format!("lists/{name}.txt");
        let own = self.dir.as_ref().map(|dir| dir.join(&file)).filter(|path| path.exists());
        let built_in = Surroundings::LISTS.iter().find(|(known, _)| *known == name);
        let text = match (own, built_in) {
            (Some(path), _) => String::from_utf8(read_at_most(&path, LIST_BYTES_MAX)?)
                .map_err(|_| "is not UTF-8 text".to_owned())?,
            (None, Some((_, text))) => (*text).to_owned(),
            (None, None) => return Err(format!("is not there: {file}")),
        };
        let lines = text.trim_start_matches('\u{feff}').lines();
        let words = lines.map(|line| line.split('#').next().unwrap_or_default().trim());
        let words: Vec<String> =
            words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
        if words.is_empty() { Err("is empty".to_owned()) } else { Ok(words) }
    }

    /// The secrets that a `_file` and an `_env` setting lead to, each with its setting. What
    /// is wrong is reported without a word of what was found, or of the setting's own text:
    /// people put the secret there by mistake.
    fn secrets<'a>(
        &self,
        file: Option<Field<'a>>,
        variable: Option<Field<'a>>,
    ) -> Vec<(Field<'a>, Vec<String>)> {
        let mut found = Vec::new();
        if let Some((field, name)) = file.and_then(|field| Some((field, field.text()?))) {
            match read_at_most(&self.path(name), SECRETS_BYTES_MAX) {
                Ok(bytes) => found.push((field, split_secrets(&String::from_utf8_lossy(&bytes)))),
                Err(why) => field.problem(format!("\"{}\" names a file that {why}", field.name)),
            }
        }
        if let Some((field, name)) = variable.and_then(|field| Some((field, field.text()?))) {
            match self.env.get(name) {
                Some(text) => found.push((field, split_secrets(text))),
                None => field.problem(format!("\"{}\" names a variable not set", field.name)),
            }
        }
        for (field, _) in found.iter().filter(|(_, secrets)| secrets.is_empty()) {
            field.problem(format!("\"{}\" leads to no secret: it is empty", field.name));
        }
        found
    }
}

/// Secrets stand one a line or with commas between them; a line that begins with `#` is a comment.
fn split_secrets(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let words = lines.flat_map(|line| line.split([',', ' ', '\t']));
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn read_at_most(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "is not there".to_owned(),
        kind => format!("cannot be read: {kind}"),
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("has more than {bytes_max} bytes"));
    }
    Ok(bytes)
}

/// The contents of the files, as found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The folder they are in; nothing when the compiled-in ones are used.
    pub dir: Option<PathBuf>,
    /// Those of [`FILE_NAMES`] that are there, by their places.
    pub contents: [Option<Vec<u8>>; FILE_NAMES.len()],
    /// Of the lists beside them, if there are any.
    pub lists: Option<Fingerprint>,
    /// Of the templates beside them, if there are any.
    pub templates: Option<Fingerprint>,
}

impl Files {
    /// The folder of the settings: the one given, else `./config` if it holds mikomi.toml.
    pub fn find(given: Option<&Path>, working_folder: &Path) -> Option<PathBuf> {
        let usual = working_folder.join("config");
        match given {
            Some(dir) => Some(dir.to_owned()),
            None => usual.join(FILE_NAMES[0]).is_file().then_some(usual),
        }
    }

    /// Reads what is there. A folder without mikomi.toml is refused: it was named by mistake.
    pub fn read(dir: Option<PathBuf>) -> Result<Files, Vec<Problem>> {
        let Some(dir) = dir else {
            return Ok(Files::default());
        };
        let (files, problems) = Files::look(&dir);
        if !problems.is_empty() {
            return Err(problems);
        }
        if files.contents[0].is_none() {
            let message = format!("is not in {}", dir.display());
            return Err(vec![Problem::of_file(FILE_NAMES[0], message)]);
        }
        Ok(files)
    }

    /// The files of a folder as they are now, and why those that are there cannot be read.
    pub fn look(dir: &Path) -> (Files, Vec<Problem>) {
        let mut problems = Vec::new();
        let contents = FILE_NAMES.map(|name| {
            let path = dir.join(name);
            if !path.exists() {
                return None;
            }
            read_at_most(&path, bytes_max(name))
                .map_err(|why| problems.push(Problem::of_file(name, why)))
                .ok()
        });
        let lists = fingerprint_of_all(&dir.join("lists"), "txt");
        let templates = fingerprint_of_all(&dir.join("templates"), "j2");
        (Files { dir: Some(dir.to_owned()), contents, lists, templates }, problems)
    }

    /// What they say, for [`Watcher::changed`].
    pub fn contents(&self) -> Contents<'_> {
        let contents = self.contents.each_ref().map(Option::as_deref);
        let [mikomi, scoring, endpoints, owners, named, do_not_send] = contents;
        let (lists, templates) = (self.lists, self.templates);
        Contents { mikomi, scoring, endpoints, owners, named, do_not_send, lists, templates }
    }
}

/// Of all files of a folder with an ending together: another one when any of them changes.
fn fingerprint_of_all(folder: &Path, ending: &str) -> Option<Fingerprint> {
    let entries = std::fs::read_dir(folder).ok()?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|it| it.ok().map(|it| it.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == ending));
    paths.sort();
    let mut all = Vec::new();
    for path in paths.iter().take(WATCHED_MAX) {
        all.extend_from_slice(path.as_os_str().as_encoded_bytes());
        all.extend(read_at_most(path, LIST_BYTES_MAX).unwrap_or_default());
    }
    Some(Fingerprint::of(&all))
}

/// Everything configured.
#[derive(Debug)]
pub struct Loaded {
    /// How the machine runs.
    pub settings: Settings,
    /// Who earns points; becomes the engine's by [`ScoringFile::publish`].
    pub scoring: ScoringFile,
    /// Who is told, in the file's order.
    pub endpoints: Vec<Endpoint>,
    /// The people of sales.
    pub owners: Owners,
    /// Filters of leads with a name.
    pub named: NamedLists,
    /// Who is not to be written to.
    pub do_not_send: DoNotSend,
}

/// Reads all files, or says everything that is wrong with them. Where there is no folder
/// the compiled-in files are used; in a folder a missing scoring.toml is the compiled-in one,
/// a missing endpoints.toml tells nobody, a missing owners.toml names nobody, and no list is one
/// without entries.
pub fn load(files: &Files, surroundings: &Surroundings) -> Result<Loaded, Vec<Problem>> {
    let [mikomi, scoring, endpoints, owners, named, do_not_send] = &files.contents;
    let settings = read_settings(mikomi.as_deref(), surroundings);
    let for_rules = settings.as_ref().ok().map(Settings::for_rules);
    let around = Around { surroundings, settings: for_rules.as_ref() };
    let scoring = read_scoring(scoring.as_deref(), around);
    let mut known = Known::of(scoring.as_ref().ok());
    let own_folder = files.dir.is_some();
    let categories = known.categories.as_deref();
    let named = read_named(named.as_deref(), own_folder, categories, surroundings);
    known.lists = named.as_ref().ok().map(NamedLists::ids);
    let endpoints = read_endpoints(endpoints.as_deref(), own_folder, &known, surroundings);
    let owners = owners.as_deref().map_or_else(|| Ok(Owners::default()), read_owners);
    let do_not_send = read_do_not_send(do_not_send.as_deref());
    match (settings, scoring, endpoints, owners, named, do_not_send) {
        (Ok(settings), Ok(scoring), Ok(endpoints), Ok(owners), Ok(named), Ok(do_not_send)) => {
            Ok(Loaded { settings, scoring, endpoints, owners, named, do_not_send })
        }
        (settings, scoring, endpoints, owners, named, do_not_send) => {
            let mut problems = settings.err().unwrap_or_default();
            problems.extend(scoring.err().unwrap_or_default());
            problems.extend(endpoints.err().unwrap_or_default());
            problems.extend(owners.err().unwrap_or_default());
            problems.extend(named.err().unwrap_or_default());
            problems.extend(do_not_send.err().unwrap_or_default());
            Err(problems)
        }
    }
}

/// A file's text, unless it is too long or not UTF-8.
pub(crate) fn decode<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, Vec<Problem>> {
    let most = bytes_max(file);
    if bytes.len() as u64 > most {
        let message = format!("has more than {most} bytes");
        return Err(vec![Problem::of_file(file, message)]);
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let message = "not UTF-8 text from here on; save the file as UTF-8, not as Shift_JIS";
        vec![Problem::at(file, &good, good.len(), message.to_owned())]
    })
}

fn read_settings(
    bytes: Option<&[u8]>,
    surroundings: &Surroundings,
) -> Result<Settings, Vec<Problem>> {
    let file = FILE_NAMES[0];
    let text = bytes.map(|bytes| decode(file, bytes)).transpose()?;
    let problems = Problems::default();
    let settings = mikomi_toml::read(file, text, DEFAULT_MIKOMI, surroundings, &problems);
    problems.judge(settings)
}

fn read_scoring(bytes: Option<&[u8]>, around: Around<'_>) -> Result<ScoringFile, Vec<Problem>> {
    let file = FILE_NAMES[1];
    match bytes {
        Some(bytes) => ScoringFile::parse(file, decode(file, bytes)?, around),
        None => ScoringFile::parse("the built-in scoring.toml", DEFAULT_SCORING, around),
    }
}

fn read_endpoints(
    bytes: Option<&[u8]>,
    own_folder: bool,
    known: &Known,
    surroundings: &Surroundings,
) -> Result<Vec<Endpoint>, Vec<Problem>> {
    let file = FILE_NAMES[2];
    match bytes {
        Some(bytes) => endpoints::parse(file, decode(file, bytes)?, known, surroundings),
        None if own_folder => Ok(Vec::new()),
        None => {
            let file = "the built-in endpoints.toml";
            endpoints::parse(file, DEFAULT_ENDPOINTS, known, surroundings)
        }
    }
}

fn read_owners(bytes: &[u8]) -> Result<Owners, Vec<Problem>> {
    let file = FILE_NAMES[3];
    owners::parse(file, decode(file, bytes)?)
}

fn read_named(
    bytes: Option<&[u8]>,
    own_folder: bool,
    categories: Option<&[String]>,
    surroundings: &Surroundings,
) -> Result<NamedLists, Vec<Problem>> {
    let file = FILE_NAMES[4];
    match bytes {
        Some(bytes) => lists::parse(file, decode(file, bytes)?, categories, surroundings),
        None if own_folder => Ok(NamedLists::default()),
        None => lists::parse("the built-in lists.toml", DEFAULT_LISTS, categories, surroundings),
    }
}

fn read_do_not_send(bytes: Option<&[u8]>) -> Result<DoNotSend, Vec<Problem>> {
    let file = FILE_NAMES[5];
    bytes.map_or_else(
        || Ok(DoNotSend::default()),
        |bytes| do_not_send::parse(file, decode(file, bytes)?),
    )
}

/// Longest content of a file, in bytes.
fn bytes_max(file: &str) -> u64 {
    if file == FILE_NAMES[5] { do_not_send::BYTES_MAX } else { FILE_BYTES_MAX }
}
