//! Reads mikomi.toml: the file over the compiled-in one, the environment over both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::super::net::Network;
use super::Surroundings;
use super::crm_link::CrmLink;
use super::problem::Problems;
use super::settings::{
    Admin, Audit, Collector, Cookie, Durability, Journal, Limits, Privacy, Rate, RulesFrom, Secret,
    SecureCookie, Settings, Snapshots, TlsFiles, Webhooks,
};
use super::sites::read_sites;
use super::table::{Environment, Field, Source, Table};

/// The longest time-out that can be set: a request that takes longer has been forgotten.
const TIMEOUT_MS_MAX: i64 = 3_600_000;
/// The highest rate that can be set; what counts them has 32 bits.
const RATE_MAX: i64 = 1_000_000_000;
/// The longest wait between two attempts of a webhook: a week.
const RETRY_MS_MAX: i64 = 604_800_000;
/// Nobody guesses so long a token.
const LOAD_TOKEN_BYTES_MIN: usize = 24;

/// Reads mikomi.toml, `text` over `defaults`. Without a text the defaults are all there is.
pub(super) fn read(
    file: &str,
    text: Option<&str>,
    defaults: &str,
    surroundings: &Surroundings,
    problems: &Problems,
) -> Option<Settings> {
    let environment = Environment::new(&surroundings.env);
    let default_source = Source::new("the built-in mikomi.toml", defaults, problems);
    let default_entries = default_source.parse()?;
    let source = text.map(|text| Source::new(file, text, problems));
    let entries = match source {
        Some(source) => Some(source.parse()?),
        None => None,
    };
    let built_in = Table::root(default_source, &default_entries);
    let root = match (source, &entries) {
        (Some(source), Some(entries)) => Table::root(source, entries).over(&built_in),
        _ => Table::root(default_source, &default_entries),
    };
    let section = |name| root.section(name, &environment);
    let collector = read_collector(section("collector"), surroundings);
    let admin = read_admin(section("admin"), surroundings);
    if let (Some(one), Some(other)) = (&collector, &admin)
        && one.listen == other.listen
        && one.listen.port() != 0
        && let Some(field) = section("admin").get("listen")
    {
        field.problem("the collector listens here already; the admin side needs its own door");
    }
    let limits = read_limits(section("limits"));
    let journal = read_journal(section("journal"));
    let snapshots = read_snapshots(section("snapshots"));
    let audit = read_audit(section("audit"));
    let cookie = read_cookie(section("cookie"));
    let shards = read_shards(section("engine"));
    let rules_from = read_rules_from(section("rules"));
    let webhooks = read_webhooks(section("webhooks"));
    let privacy = read_privacy(section("privacy"));
    // Sites are not mixed with the defaults: nothing is assumed for a person's own site.
    let own = match (source, &entries) {
        (Some(source), Some(entries)) => Table::root(source, entries),
        _ => built_in,
    };
    let sites = own.get("site");
    if sites.is_none() {
        own.problem("there is no [[site]]: say at least id, key, consent and origins of one");
    }
    let sites = sites.and_then(|field| read_sites(&field, surroundings));
    root.get("site");
    root.finish();
    environment.finish(problems);
    Some(Settings {
        collector: collector?,
        admin: admin?,
        limits: limits?,
        journal: journal?,
        snapshots: snapshots?,
        audit: audit?,
        cookie: cookie?,
        shards: shards?,
        rules_from: rules_from?,
        webhooks: webhooks?,
        privacy: privacy?,
        sites: sites?,
    })
}

fn read_rules_from(table: Table<'_>) -> Option<RulesFrom> {
    let from = table.need("from").and_then(|field| field.word(&["file", "dashboard"]));
    table.finish();
    Some(if from? == "dashboard" { RulesFrom::Dashboard } else { RulesFrom::File })
}

fn read_shards(table: Table<'_>) -> Option<usize> {
    let field = table.need("shards");
    table.finish();
    let field = field?;
    let shards = field.count(2)? as usize;
    if !shards.is_power_of_two() || shards > 65_536 {
        field.problem("\"shards\" needs a power of two from 2 to 65536");
        return None;
    }
    Some(shards)
}

fn size(table: &Table<'_>, key: &'static str, min: u64) -> Option<usize> {
    usize::try_from(table.need(key)?.count(min)?).ok()
}

/// A number of which 0 means that there is no limit.
fn optional_size(table: &Table<'_>, key: &'static str) -> Option<usize> {
    size(table, key, 0).filter(|size| *size > 0)
}

fn timeout(table: &Table<'_>, key: &'static str) -> Option<Duration> {
    table.need(key)?.millis(1..=TIMEOUT_MS_MAX)
}

/// Reports at `key` when it is greater than `other`.
fn in_order<T: PartialOrd>(
    table: &Table<'_>,
    (key, value): (&'static str, Option<T>),
    (other, greater): (&'static str, Option<T>),
) {
    if let (Some(value), Some(greater), Some(field)) = (value, greater, table.get(key))
        && value > greater
    {
        field.problem(format!("\"{key}\" must not be more than \"{other}\""));
    }
}

fn address(table: &Table<'_>, key: &'static str) -> Option<SocketAddr> {
    let field = table.need(key)?;
    let text = field.text()?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        let message = format!("\"{key}\" needs an address and a port, as in \"127.0.0.1:8080\"");
        let meant = match (text.parse::<IpAddr>(), text.strip_prefix("localhost:")) {
            (Ok(IpAddr::V4(address)), _) => Some(format!("{address}:8080")),
            (Ok(IpAddr::V6(address)), _) => Some(format!("[{address}]:8080")),
            (Err(_), Some(port)) => Some(format!("127.0.0.1:{port}")),
            (Err(_), None) => None,
        };
        field.problem_meant(message, meant);
    }
    parsed
}

/// Nothing when it is not set, or when what is wrong with it was reported.
fn web_address(table: &Table<'_>, key: &'static str) -> Option<String> {
    let field = table.need(key)?;
    let text = field.set_text()?;
    let parsed = url::Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    if let Some(url) = parsed {
        Some(url.as_str().trim_end_matches('/').to_owned())
    } else {
        let message = format!(
            "\"{key}\" needs a web address without \"?\" and \"#\", as in \"https://t.example.jp\""
        );
        field.problem(message);
        None
    }
}

pub(super) fn networks(list: &[Field<'_>]) -> Vec<Network> {
    let network = |field: &Field<'_>| {
        let text = field.text()?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            field.problem_meant(
                "a network is written as \"203.0.113.0/24\" or \"2001:db8::/32\"",
                likely_network(text),
            );
        }
        parsed
    };
    list.iter().filter_map(network).collect()
}

/// What was meant by an address without its number of bits, or with bits below them.
fn likely_network(text: &str) -> Option<String> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
        None => (text, None),
    };
    match address.trim().parse().ok()? {
        IpAddr::V4(address) => {
            let bits = bits.unwrap_or(32).min(32);
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            let base = Ipv4Addr::from_bits(address.to_bits() & mask);
            Some(format!("{base}/{bits}"))
        }
        IpAddr::V6(address) => {
            let bits = bits.unwrap_or(128).min(128);
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            let base = Ipv6Addr::from_bits(address.to_bits() & mask);
            Some(format!("{base}/{bits}"))
        }
    }
}

/// Nothing when neither is set, or when what is wrong was reported.
fn tls(table: &Table<'_>, surroundings: &Surroundings) -> Option<TlsFiles> {
    let certificate = table.need("tls_certificate_file")?;
    let key = table.need("tls_key_file")?;
    // Both are read before either is judged, so that both are reported.
    let (certificate_text, key_text) = (certificate.text(), key.text());
    match (certificate_text?, key_text?) {
        ("", "") => None,
        ("", _) => {
            key.problem("\"tls_key_file\" needs \"tls_certificate_file\" beside it");
            None
        }
        (_, "") => {
            certificate.problem("\"tls_certificate_file\" needs \"tls_key_file\" beside it");
            None
        }
        (certificate, key) => Some(TlsFiles {
            certificate: surroundings.path(certificate),
            key: surroundings.path(key),
        }),
    }
}

fn proxies(table: &Table<'_>) -> Option<Vec<Network>> {
    Some(networks(&table.need("trusted_proxies")?.list()?))
}

fn read_collector(table: Table<'_>, surroundings: &Surroundings) -> Option<Collector> {
    let listen = address(&table, "listen");
    let public_url = web_address(&table, "public_url");
    let tls = tls(&table, surroundings);
    let trusted_proxies = proxies(&table);
    let workers = optional_size(&table, "workers");
    if let (Some(1_025..), Some(field)) = (workers, table.get("workers")) {
        field.problem("\"workers\" needs a number from 0 to 1024");
    }
    let connections_max = size(&table, "connections_max", 1);
    let connections_per_address_max = optional_size(&table, "connections_per_address_max");
    let silent = timeout(&table, "silent_ms");
    let header = timeout(&table, "header_ms");
    let body_gap = timeout(&table, "body_gap_ms");
    let body = timeout(&table, "body_ms");
    let request = timeout(&table, "request_ms");
    let idle = timeout(&table, "idle_ms");
    let write = timeout(&table, "write_ms");
    let linger = timeout(&table, "linger_ms");
    let stop = timeout(&table, "stop_ms");
    let load_token = load_token(&table, surroundings);
    in_order(&table, ("body_gap_ms", body_gap), ("body_ms", body));
    in_order(&table, ("body_ms", body), ("request_ms", request));
    in_order(
        &table,
        ("connections_per_address_max", connections_per_address_max),
        ("connections_max", connections_max),
    );
    table.finish();
    Some(Collector {
        listen: listen?,
        public_url,
        tls,
        trusted_proxies: trusted_proxies?,
        workers,
        connections_max: connections_max?,
        connections_per_address_max,
        silent: silent?,
        header: header?,
        body_gap: body_gap?,
        body: body?,
        request: request?,
        idle: idle?,
        write: write?,
        linger: linger?,
        stop: stop?,
        load_token,
    })
}

/// One secret at most; an empty name is none.
fn load_token(table: &Table<'_>, surroundings: &Surroundings) -> Option<Secret> {
    let named = |key| table.get(key).filter(|field| field.text() != Some(""));
    let (file, variable) = (named("load_token_file"), named("load_token_env"));
    let mut found = None;
    for (field, texts) in surroundings.secrets(file, variable) {
        for text in texts {
            if text.len() < LOAD_TOKEN_BYTES_MIN || !text.bytes().all(|it| it.is_ascii_graphic()) {
                field.problem(format!(
                    "a load token has at least {LOAD_TOKEN_BYTES_MIN} letters, digits and signs"
                ));
            } else if found.is_some() {
                field.problem("there is one load token at most");
            }
            found = Some(Secret(text));
        }
    }
    found
}

fn read_admin(table: Table<'_>, surroundings: &Surroundings) -> Option<Admin> {
    let listen = address(&table, "listen");
    let admin_url = web_address(&table, "admin_url");
    let crm_link = table.need("crm_url").and_then(|field| CrmLink::read(&field));
    let tls = tls(&table, surroundings);
    let trusted_proxies = proxies(&table);
    table.finish();
    Some(Admin { listen: listen?, admin_url, crm_link, tls, trusted_proxies: trusted_proxies? })
}

fn rate(table: &Table<'_>, per_s: &'static str, burst: &'static str) -> Option<Rate> {
    let (per_s, burst) = (table.need(per_s), table.need(burst));
    let (per_s, burst) = (per_s?.whole(0..=RATE_MAX), burst?.whole(0..=RATE_MAX));
    let (per_s, burst) = (per_s? as u64, burst? as u64);
    (per_s > 0).then_some(Rate { per_s, burst })
}

fn read_limits(table: Table<'_>) -> Option<Limits> {
    let line = size(&table, "line_bytes_max", 256);
    let vendor_line = size(&table, "vendor_line_bytes_max", 256);
    let headers_bytes = size(&table, "headers_bytes_max", 1_024);
    let headers = size(&table, "headers_max", 8);
    let hit_bytes = size(&table, "hit_bytes_max", 1_024);
    let batch_bytes = size(&table, "batch_bytes_max", 1_024);
    let batch_hits = size(&table, "batch_hits_max", 1);
    let json_depth = table.need("json_depth_max").and_then(|it| it.whole(4..=128));
    let address_rate = rate(&table, "address_hits_per_s_max", "address_hits_burst_max");
    let addresses = size(&table, "addresses_max", 1);
    let site_rate = rate(&table, "site_hits_per_s_max", "site_hits_burst_max");
    let claims = size(&table, "claims_per_hour_max", 0);
    let visitors = size(&table, "visitors_max", 1);
    let leads = size(&table, "leads_max", 1);
    let journal_bytes = size(&table, "journal_bytes_max", 1 << 20);
    let pending_bytes = size(&table, "pending_bytes_max", 1 << 20);
    let long = ("vendor_line_bytes_max", vendor_line);
    in_order(&table, ("line_bytes_max", line), long);
    let batch = ("batch_bytes_max", batch_bytes);
    in_order(&table, ("hit_bytes_max", hit_bytes), batch);
    // A body is reserved as a whole; one that can never be would be refused for ever.
    in_order(&table, batch, ("pending_bytes_max", pending_bytes));
    table.finish();
    Some(Limits {
        line_bytes_max: line?,
        vendor_line_bytes_max: vendor_line?,
        headers_bytes_max: headers_bytes?,
        headers_max: headers?,
        hit_bytes_max: hit_bytes?,
        batch_bytes_max: batch_bytes?,
        batch_hits_max: batch_hits?,
        json_depth_max: json_depth? as usize,
        address_rate,
        addresses_max: addresses?,
        site_rate,
        claims_per_hour_max: claims? as u64,
        visitors_max: visitors?,
        leads_max: leads?,
        journal_bytes_max: journal_bytes? as u64,
        pending_bytes_max: pending_bytes? as u64,
    })
}

fn read_journal(table: Table<'_>) -> Option<Journal> {
    let dir = table.need("dir").and_then(|field| {
        let dir = field.text()?;
        if dir.is_empty() {
            field.problem("\"dir\" needs a folder");
        }
        Some(PathBuf::from(dir))
    });
    let durability = table.need("durability").and_then(|field| field.word(&["durable", "lossy"]));
    let segment_bytes = table
        .need("segment_bytes")
        // The format counts a segment's bytes in 32 bits.
        .and_then(|field| field.whole(1 << 20..=1 << 30));
    let reserve_bytes = table.need("reserve_bytes").and_then(|field| field.whole(0..=1 << 30));
    let keep_days = table.need("keep_days").and_then(|field| field.whole(0..=36_500));
    table.finish();
    Some(Journal {
        dir: dir?,
        durability: match durability? {
            "lossy" => Durability::Lossy,
            _ => Durability::Durable,
        },
        segment_bytes: segment_bytes? as u64,
        reserve_bytes: reserve_bytes? as u64,
        keep: match keep_days? as u64 {
            0 => None,
            days => Some(Duration::from_hours(24 * days)),
        },
    })
}

fn read_snapshots(table: Table<'_>) -> Option<Snapshots> {
    let day_ms = 24 * 3_600_000;
    let every_ms = table.need("every_ms").and_then(|field| field.whole(1_000..=day_ms));
    let every_bytes = table.need("every_bytes").and_then(|field| field.whole(1 << 20..=1 << 40));
    table.finish();
    Some(Snapshots {
        every: Duration::from_millis(every_ms? as u64),
        every_bytes: every_bytes? as u64,
    })
}

fn read_audit(table: Table<'_>) -> Option<Audit> {
    // It rests at least as long as it works.
    let share = table.need("core_percent_max").and_then(|field| field.whole(0..=50));
    let round_ms = table.need("round_ms").and_then(|field| field.whole(100..=604_800_000));
    table.finish();
    Some(Audit {
        core_percent_max: Some(share? as u64).filter(|share| *share > 0),
        round: Duration::from_millis(round_ms? as u64),
    })
}

fn read_cookie(table: Table<'_>) -> Option<Cookie> {
    let name = table.need("name").and_then(|field| field.name());
    let third_party = table.need("third_party").and_then(|field| field.flag());
    let secure = table.need("secure").and_then(|field| field.word(&["auto", "always", "never"]));
    if let (Some(true), Some("never"), Some(field)) = (third_party, secure, table.get("secure")) {
        field.problem("a third-party cookie must be secure: browsers drop it otherwise");
    }
    table.finish();
    Some(Cookie {
        name: name?.to_owned(),
        third_party: third_party?,
        secure: match secure? {
            "always" => SecureCookie::Always,
            "never" => SecureCookie::Never,
            _ => SecureCookie::Auto,
        },
    })
}

fn read_webhooks(table: Table<'_>) -> Option<Webhooks> {
    let schedule = table.need("retry_schedule_ms").and_then(|field| {
        let waits = field.list()?;
        if !(1..=32).contains(&waits.len()) {
            field.problem("\"retry_schedule_ms\" needs 1 to 32 waits");
        }
        waits.iter().map(|wait| wait.millis(0..=RETRY_MS_MAX)).collect::<Option<Vec<Duration>>>()
    });
    let attempt = timeout(&table, "timeout_ms");
    let connect = timeout(&table, "connect_ms");
    in_order(&table, ("connect_ms", connect), ("timeout_ms", attempt));
    let rest = |key| table.need(key).and_then(|field| field.millis(1..=RETRY_MS_MAX));
    let (rest_min, rest_max) = (rest("rest_min_ms"), rest("rest_max_ms"));
    in_order(&table, ("rest_min_ms", rest_min), ("rest_max_ms", rest_max));
    let in_flight = size(&table, "in_flight_max", 1);
    let endpoints = size(&table, "endpoints_max", 1);
    let pending = size(&table, "pending_max", 1);
    let dead = size(&table, "dead_max", 0);
    let bodies_bytes = size(&table, "bodies_bytes_max", 1_024);
    let body_bytes = size(&table, "body_bytes_max", 1_024);
    let bodies = ("bodies_bytes_max", bodies_bytes);
    in_order(&table, ("body_bytes_max", body_bytes), bodies);
    table.finish();
    Some(Webhooks {
        retry_schedule: schedule?,
        timeout: attempt?,
        connect: connect?,
        rest_min: rest_min?,
        rest_max: rest_max?,
        in_flight_max: in_flight?,
        endpoints_max: endpoints?,
        pending_max: pending?,
        dead_max: dead?,
        bodies_bytes_max: bodies_bytes?,
        body_bytes_max: body_bytes?,
    })
}

fn read_privacy(table: Table<'_>) -> Option<Privacy> {
    let ipv4 = table.need("address_ipv4_bits").and_then(|it| it.whole(0..=32));
    let ipv6 = table.need("address_ipv6_bits").and_then(|it| it.whole(0..=128));
    let names = table.need("query_names").and_then(|field| field.list());
    let gpc = table.need("honour_gpc").and_then(|field| field.flag());
    for name in names.iter().flatten() {
        let text = name.text().unwrap_or("x");
        let stem = text.strip_suffix('*').unwrap_or(text);
        if stem.is_empty() || stem.contains('*') {
            name.problem("a name of a query, or its beginning and one \"*\", as in \"utm_*\"");
        }
    }
    table.finish();
    let names = names?;
    Some(Privacy {
        address_ipv4_bits: ipv4? as u8,
        address_ipv6_bits: ipv6? as u8,
        query_names: names.iter().filter_map(|field| field.text().map(str::to_owned)).collect(),
        honour_gpc: gpc?,
    })
}
