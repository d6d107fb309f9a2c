//! A Site as configured: who may send hits, under which keys, and with what consent.

use std::collections::{BTreeMap, BTreeSet};

use engine::glob::Globs;
use engine::hit::AREAS_MAX;
use engine::rule::MY_PAGE;

use super::Surroundings;
use super::problem::nearest;
use super::settings::Secret;
use super::table::{Field, Table};

/// Most sites: their ids are 16 bits, and a person must be able to read the file.
const SITES_MAX: usize = 1_000;
/// Most keys of one kind, so that a list of keys is searched in no time.
const KEYS_MAX: usize = 16;
/// The fewest bytes of a server key: shorter ones can be guessed.
const SERVER_KEY_BYTES_MIN: usize = 20;
/// The most bytes of a server key: it travels in a header.
const SERVER_KEY_BYTES_MAX: usize = 256;
/// The most identity secrets.
const IDENTITY_SECRETS_MAX: usize = 2;
/// The site that anybody's page may send to.
const DEMO: &str = "demo";

/// Whether hits are kept before the page has said that its visitor agrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteConsent {
    /// Nothing is kept until the page says yes.
    Required,
    /// The site has it already.
    Assumed,
}

/// One business, with as many origins as it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its name in the journal.
    pub id: String,
    /// What snippets carry; not secret. At least one, each of one site only.
    pub keys: Vec<String>,
    /// Hits under it alert test endpoints only.
    pub test_key: Option<String>,
    /// Who has one of these may speak for people.
    pub server_keys: Vec<Secret>,
    /// Sites of one namespace share their people.
    pub namespace: String,
    /// Stated by the site; nothing is assumed for it.
    pub consent: SiteConsent,
    /// Pages that may send.
    pub origins: Origins,
    /// Secrets with which the site's own server signs who its visitors are: two, for a change.
    pub identity_secrets: Vec<Secret>,
    /// Parts of the site by name, each some globs. `my_page` is what only people who have logged
    /// in can see.
    pub areas: BTreeMap<String, Vec<String>>,
    /// A form's name for something -> our attribute.
    pub form_fields: BTreeMap<String, String>,
}

/// The origins a site takes hits from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    exact: BTreeSet<String>,
    /// (scheme with `://`, `.domain` with its port)
    below: Vec<(String, String)>,
}

impl Origins {
    /// Whether a page of this origin, as its browser states it, may send. `*.example.jp` is
    /// every name below `example.jp`, not `example.jp` itself.
    pub fn allow(&self, origin: &str) -> bool {
        if self.any {
            return true;
        }
        let origin = origin.to_ascii_lowercase();
        self.exact.contains(&origin)
            || self.below.iter().any(|(scheme, domain)| {
                let host = origin.strip_prefix(scheme.as_str());
                let label = host.and_then(|host| host.strip_suffix(domain.as_str()));
                label.is_some_and(|label| !label.is_empty() && !label.contains(['/', '@', ':']))
            })
    }

    /// Whether a page at this host is the site's own, by whatever scheme and port.
    pub fn allow_host(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let is_host = |origin: &String| {
            url::Url::parse(origin).is_ok_and(|url| url.host_str() == Some(host.as_str()))
        };
        let is_below = |(_, domain): &(String, String)| {
            let domain = domain.split(':').next().unwrap_or_default();
            host.strip_suffix(domain).is_some_and(|label| !label.is_empty())
        };
        self.any || self.exact.iter().any(is_host) || self.below.iter().any(is_below)
    }

    /// Whether every origin may send.
    pub fn allow_any(&self) -> bool {
        self.any
    }

    fn add(&mut self, field: &Field<'_>, demo: bool) -> Option<()> {
        let text = field.text()?;
        if text == "*" {
            if !demo {
                field.problem("\"*\" is for the demo site only: list the origins of your pages");
            }
            self.any = true;
            return Some(());
        }
        let plain = text.to_ascii_lowercase();
        let below = plain.replacen("://*.", "://", 1);
        let is_below = below != plain;
        let parsed = url::Url::parse(&below).ok();
        let parsed = parsed.filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(url) = parsed.filter(|url| url.has_host() && !below.contains('*')) else {
            let message = "an origin is a scheme and a host, as in \"https://www.example.jp\"";
            let bare = !text.contains("://") && !text.contains(['*', ' ', '/']);
            field.problem_meant(message, bare.then(|| format!("https://{text}")));
            return None;
        };
        // The browser leaves out a port that goes without saying, and so does this.
        let origin = url.origin().ascii_serialization();
        if url.path() != "/" || url.query().is_some() || below.ends_with('/') {
            let meant = if is_below { origin.replacen("://", "://*.", 1) } else { origin };
            field.problem_meant("an origin has no path", Some(meant));
            return None;
        }
        if is_below {
            let (scheme, domain) = origin.split_once("://")?;
            self.below.push((format!("{scheme}://"), format!(".{domain}")));
        } else {
            self.exact.insert(origin);
        }
        Some(())
    }
}

/// Reads all `[[site]]` of a file.
pub(super) fn read_sites(field: &Field<'_>, surroundings: &Surroundings) -> Option<Vec<Site>> {
    let list = field.list()?;
    if list.is_empty() || list.len() > SITES_MAX {
        field.problem(format!("there are 1 to {SITES_MAX} sites"));
    }
    let mut taken = Taken::default();
    let mut sites = Vec::new();
    for field in list {
        sites.extend(field.table().and_then(|it| site(it, surroundings, &mut taken)));
    }
    Some(sites)
}

/// What belongs to one site and cannot belong to another.
#[derive(Default)]
struct Taken {
    ids: BTreeSet<String>,
    keys: BTreeMap<String, String>,
    server_keys: BTreeSet<String>,
}

impl Taken {
    fn key(&mut self, field: &Field<'_>, site: &str) -> Option<String> {
        let key = field.name()?;
        if let Some(owner) = self.keys.insert(key.to_owned(), site.to_owned()) {
            field.problem(format!("the key \"{key}\" is used already, by site \"{owner}\""));
        }
        Some(key.to_owned())
    }
}

fn site(table: Table<'_>, surroundings: &Surroundings, taken: &mut Taken) -> Option<Site> {
    let id = table.need("id").and_then(|field| {
        let id = field.name()?;
        if !taken.ids.insert(id.to_owned()) {
            field.problem(format!("there is a site \"{id}\" already"));
        }
        Some(id.to_owned())
    });
    let shown = id.clone().unwrap_or_default();
    let keys = table.need("key").and_then(|field| {
        let list = field.one_or_more()?;
        if list.len() > KEYS_MAX {
            field.problem(format!("at most {KEYS_MAX} keys"));
        }
        let keys = list.iter().map(|key| taken.key(key, &shown));
        keys.collect::<Option<Vec<String>>>()
    });
    let test_key = table.get("test_key");
    let test_key = test_key.and_then(|field| taken.key(&field, &shown));
    let server_keys = server_keys(&table, surroundings, taken);
    let namespace = table.get("namespace").and_then(|field| field.name());
    let consent = table.need("consent").and_then(|field| field.word(&["required", "assumed"]));
    let origins = table.need("origins").and_then(|field| {
        let mut origins = Origins::default();
        for origin in field.one_or_more()? {
            origins.add(&origin, shown == DEMO);
        }
        Some(origins)
    });
    let areas = table.get("areas").map(|field| areas(&field)).unwrap_or_default();
    let identity_secrets = identity_secrets(&table, surroundings);
    let form_fields = table.get("form_fields").map(|field| form_fields(&field));
    table.finish();
    let id = id?;
    Some(Site {
        keys: keys?,
        test_key,
        server_keys,
        namespace: namespace.unwrap_or(&id).to_owned(),
        consent: match consent? {
            "assumed" => SiteConsent::Assumed,
            _ => SiteConsent::Required,
        },
        origins: origins?,
        identity_secrets,
        areas,
        form_fields: form_fields.unwrap_or_default(),
        id,
    })
}

fn server_keys(table: &Table<'_>, surroundings: &Surroundings, taken: &mut Taken) -> Vec<Secret> {
    let (file, variable) = (table.get("server_keys_file"), table.get("server_keys_env"));
    let mut keys = Vec::new();
    for (field, texts) in surroundings.secrets(file, variable) {
        if texts.len() > KEYS_MAX {
            field.problem(format!("at most {KEYS_MAX} server keys"));
        }
        for text in texts.into_iter().take(KEYS_MAX) {
            let bytes = text.len();
            if !(SERVER_KEY_BYTES_MIN..=SERVER_KEY_BYTES_MAX).contains(&bytes)
                || !text.bytes().all(|byte| byte.is_ascii_graphic())
            {
                field.problem(format!(
                    "a server key has {SERVER_KEY_BYTES_MIN} to {SERVER_KEY_BYTES_MAX} \
                     letters, digits and signs; one there has {bytes} bytes"
                ));
            } else if !taken.server_keys.insert(text.clone()) {
                field.problem("a server key there is used already");
            }
            keys.push(Secret(text));
        }
    }
    keys
}

/// Two at most: the new one and the one it takes over from.
fn identity_secrets(table: &Table<'_>, surroundings: &Surroundings) -> Vec<Secret> {
    let (file, variable) = (table.get("identity_secrets_file"), table.get("identity_secrets_env"));
    let mut secrets = Vec::new();
    for (field, texts) in surroundings.secrets(file, variable) {
        if texts.len() > IDENTITY_SECRETS_MAX {
            field.problem("at most two identity secrets: the new one and the old one");
        }
        for text in texts.into_iter().take(IDENTITY_SECRETS_MAX) {
            if !(SERVER_KEY_BYTES_MIN..=SERVER_KEY_BYTES_MAX).contains(&text.len()) {
                field.problem(format!(
                    "an identity secret has {SERVER_KEY_BYTES_MIN} to {SERVER_KEY_BYTES_MAX} bytes"
                ));
            }
            secrets.push(Secret(text));
        }
    }
    secrets
}

/// `[site.areas]`: names that rules may ask for, and where they are.
fn areas(field: &Field<'_>) -> BTreeMap<String, Vec<String>> {
    let Some(table) = field.table() else {
        return BTreeMap::new();
    };
    let entries = table.entries();
    table.finish();
    if entries.len() > AREAS_MAX {
        field.problem_of_word(format!("at most {AREAS_MAX} areas"), None);
    }
    for entry in &entries {
        entry.check_name(entry.name);
        let near = nearest(entry.name, [MY_PAGE]).filter(|near| *near != entry.name);
        if let Some(near) = near {
            let message = "an area that is named almost like the one for people logged in";
            entry.problem_of_word(message, Some(near.to_owned()));
        }
    }
    entries.iter().map(|entry| (entry.name.to_owned(), globs(entry))).collect()
}

fn form_fields(field: &Field<'_>) -> BTreeMap<String, String> {
    let Some(table) = field.table() else {
        return BTreeMap::new();
    };
    let entries = table.entries();
    table.finish();
    let pair = |entry: &Field<'_>| Some((entry.name.to_owned(), entry.name()?.to_owned()));
    entries.iter().filter_map(pair).collect()
}

/// Reads path globs, one or several; each is one the engine takes and that can match a path.
pub(super) fn globs(field: &Field<'_>) -> Vec<String> {
    let list = field.one_or_more().unwrap_or_default();
    let glob = |field: &Field<'_>| {
        let text = field.text()?;
        match glob_fault(text) {
            Some((message, meant)) => {
                field.problem_meant(message, meant);
                None
            }
            None => Some(text.to_owned()),
        }
    };
    list.iter().filter_map(glob).collect()
}

/// Reads one path of a page, as rules see it.
pub(crate) fn path(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    let fault = glob_fault(text)
        .or_else(|| text.contains('*').then_some(("a page has no \"*\" in its path", None)));
    match fault {
        Some((message, meant)) => field.problem_meant(message, meant),
        None => return Some(text.to_owned()),
    }
    None
}

/// What is wrong with a glob: what the engine refuses, and what could never match a path.
fn glob_fault(text: &str) -> Option<(&'static str, Option<String>)> {
    if text.contains("://") {
        let url = url::Url::parse(text).ok();
        let message = "a path begins with \"/\", without scheme and host";
        return Some((message, url.map(|url| url.path().to_owned())));
    }
    if let Some(at) = text.find(['?', '#']) {
        let message = "a path has no \"?\" and no \"#\": pages are compared without them";
        return Some((message, Some(text[..at].to_owned())));
    }
    if text.contains('\\') {
        return Some(("a path has \"/\", not \"\\\"", Some(text.replace('\\', "/"))));
    }
    if text.split('/').any(|part| part.contains("**") && part != "**") {
        let meant = text.trim_end_matches('*').trim_end_matches('/');
        let simple = (text.ends_with("**") && !meant.contains('*')).then(|| format!("{meant}/**"));
        return Some(("\"**\" stands alone between two \"/\"", simple));
    }
    if let Some(decoded) = decoded(text) {
        let message = "paths are compared as people read them, without \"%\"";
        return Some((message, Some(decoded).filter(|path| !path.contains(char::is_control))));
    }
    let refused = Globs::new(&[text.to_owned()]).is_err();
    let meant = (!text.starts_with('/') && !text.is_empty()).then(|| format!("/{text}"));
    refused.then_some(("a path begins with \"/\" and has at most 512 bytes", meant))
}

/// The text with its percent signs decoded, if that changes it.
fn decoded(text: &str) -> Option<String> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8().ok()?;
    (decoded != text).then(|| decoded.into_owned())
}
