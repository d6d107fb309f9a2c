//! mikomi: web tracking and lead scoring in one binary. This file is the table of contents: what
//! each command does stands in the library.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use collector::serve::{Options, Running};
use collector::tokens::Role;
use collector::{backup, command, demo, replay, serve};
use engine::id::LeadId;
use engine::time::Timestamp;
use mimalloc::MiMalloc;
use tracing_subscriber::EnvFilter;

// The allocator that the field's sketches of this workload were made with; whether it pays here
// is not measured yet.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Web tracking and lead scoring in one binary.
#[derive(Parser)]
#[command(name = "mikomi", version, about)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args, Clone)]
struct Common {
    /// Folder of mikomi.toml, scoring.toml, endpoints.toml and owners.toml. Without it ./config if
    /// it holds mikomi.toml, else the compiled-in defaults.
    #[arg(long, global = true, value_name = "FOLDER")]
    config: Option<PathBuf>,
    /// Data folder, instead of the settings' one.
    #[arg(long, global = true, value_name = "FOLDER")]
    data: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Take hits, score, tell sales. This is what no command does too.
    Serve {
        /// Start although acknowledged records are damaged; they are named and lost.
        #[arg(long)]
        accept_loss: bool,
        /// A clock that stands still at these milliseconds since 1970 until POST /api/test-clock
        /// moves it. For acceptance tests only.
        #[arg(long, value_name = "MS")]
        test_clock: Option<u64>,
        /// Take other ports if those of the settings are taken.
        #[arg(long)]
        any_port: bool,
    },
    /// Watch an unknown visitor become a hot lead, in one minute, on this machine alone.
    Demo {
        /// End after the story was told once.
        #[arg(long)]
        once: bool,
    },
    /// Check the settings: every mistake with its line and the nearest right word.
    Check,
    /// What the scoring rules do.
    Rules {
        #[command(subcommand)]
        what: Rules,
    },
    /// What an endpoint would be sent, for an example that never happened.
    Sample {
        /// The message's type, as in lead.hot or hot.
        #[arg(value_name = "TYPE", required_unless_present = "list")]
        kind: Option<String>,
        /// Who reads it: json, slack, chatwork, kintone, salesforce.
        #[arg(long = "as", value_name = "FORM")]
        form: Option<String>,
        /// What is read there: ja, en.
        #[arg(long)]
        lang: Option<String>,
        /// One of your endpoints, with its template and what it hides.
        #[arg(long, value_name = "ID", conflicts_with_all = ["form", "lang"])]
        endpoint: Option<String>,
        /// List the types and forms.
        #[arg(long, conflicts_with = "kind")]
        list: bool,
    },
    /// A line for each hit: who, page, points, or why none.
    Tail(Access),
    /// Print what is stored: all hits, one JSON object a line, or all that is held about one lead.
    Export {
        /// What: hits, or lead.
        #[arg(value_parser = ["hits", "lead"])]
        what: String,
        /// Of lead: its id.
        #[arg(required_if_eq("what", "lead"))]
        lead: Option<String>,
        #[command(flatten)]
        access: Access,
    },
    /// Erase a person: everything known of them goes, and receivers are told.
    Forget {
        /// The lead's id, or an address.
        #[arg(value_name = "LEAD_OR_EMAIL")]
        whom: String,
        /// The site whose person has the address.
        #[arg(long)]
        site: Option<String>,
        /// Of the site's test key.
        #[arg(long)]
        test: bool,
        /// Why; it is kept, so name nobody.
        #[arg(long)]
        reason: String,
        /// Who does it.
        #[arg(long, env = "USER", default_value = "operator")]
        actor: String,
        #[command(flatten)]
        access: Access,
    },
    /// Where a message comes from: each row of its score, back to its hit, rule and tie.
    Explain {
        /// The alert's id, as in the message.
        alert: String,
        #[command(flatten)]
        access: Access,
    },
    /// Print what a privacy policy must say, from the settings as they are: what is collected and
    /// sent, to whom, why, for how long. Have it read by somebody who knows the law.
    Notice {
        /// In which language: ja, en.
        #[arg(long, default_value = "ja")]
        lang: String,
    },
    /// Replay the journal of a data folder, and print its state hash. It changes nothing.
    Replay {
        /// Up to a record (its position), or to what was known at a moment (ISO 8601 with an
        /// offset, or @ and milliseconds since 1970).
        #[arg(long, value_name = "POSITION|TIME")]
        until: Option<String>,
        /// A line for what each record did to this lead.
        #[arg(long, value_name = "ID")]
        lead: Option<String>,
        /// A line for each record.
        #[arg(long)]
        trace: bool,
        /// Decide each hit again with the rules that were in force, and say where this program
        /// would decide otherwise.
        #[arg(long)]
        recheck: bool,
        /// Locks each map is divided into; the hash does not depend on it.
        #[arg(long, default_value_t = 1024)]
        shards: usize,
        /// The moment the hash is taken at, in milliseconds since 1970; that of --until, or now, if
        /// not stated.
        #[arg(long)]
        now: Option<u64>,
    },
    /// Look at everything in a data folder, without changing it, also beside a server that runs:
    /// every checksum, record, pointer, key and sum. Ends with 1 if anything is wrong.
    Verify {
        /// Only bytes and records; do not work out what came of them.
        #[arg(long)]
        no_replay: bool,
        /// One JSON object, for machines.
        #[arg(long)]
        json: bool,
        /// A receipt to be proved on the disk; may be given again.
        #[arg(long, value_name = "RECEIPT")]
        receipt: Vec<String>,
        /// A file of receipts, one a line.
        #[arg(long, value_name = "FILE")]
        receipts: Option<PathBuf>,
    },
    /// Copy the data folder, also of a server that runs, to one that is empty or not there. The
    /// copy is read through before it gets its name.
    Backup {
        /// Where to.
        #[arg(value_name = "FOLDER")]
        to: PathBuf,
    },
    /// Put a backup back into a data folder that is empty or not there.
    Restore {
        /// The backup.
        #[arg(value_name = "BACKUP")]
        from: PathBuf,
        /// The data folder that is given up: who was erased there since the backup is erased again.
        #[arg(long, value_name = "FOLDER")]
        erasures_from: Option<PathBuf>,
    },
    /// Make a token for the admin side.
    Token {
        /// What it allows: admin everything, alerts to read the feed of alerts and nothing else.
        #[arg(long, default_value = "admin", value_parser = Role::ALL.map(Role::name))]
        role: String,
    },
}

#[derive(Subcommand)]
enum Rules {
    /// Play stories of people with the rules, in memory: is the score, the stage, the message as
    /// told? Ends with 1 if not.
    Test {
        /// The stories, instead of stories.toml beside the rules.
        #[arg(long, value_name = "FILE")]
        stories: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Access {
    /// Address of the admin side, instead of the settings' one.
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
    /// A token; without it one is made in the data folder.
    #[arg(long, env = "MIKOMI_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let options =
        Options { config: cli.common.config, data: cli.common.data, ..Options::default() };
    let none = Command::Serve { accept_loss: false, test_clock: None, any_port: false };
    let done = match cli.command.unwrap_or(none) {
        Command::Serve { accept_loss, test_clock, any_port } => {
            log_to_stderr("info");
            let test_clock = test_clock.map(Timestamp);
            run(&Options { accept_loss, test_clock, any_port, ..options })
        }
        Command::Demo { once } => {
            log_to_stderr("error");
            demo::run(once).map_err(|error| error.to_string())
        }
        Command::Check => say(command::check(&options)),
        Command::Rules { what: Rules::Test { stories } } => {
            command::rules_test(&options, stories.as_deref(), &mut io::stdout())
                .map_err(|error| error.to_string())
        }
        Command::Sample { kind, form, lang, endpoint, .. } => {
            sample(&options, &command::SampleWish { kind, form, lang, endpoint })
        }
        Command::Tail(access) => copy(&options, access, "/api/stream"),
        Command::Export { lead, access, .. } => {
            let what = lead.unwrap_or_else(|| "hits".to_owned());
            copy(&options, access, &format!("/api/export/{what}"))
        }
        Command::Forget { whom, site, test, reason, actor, access } => {
            let wish = command::ForgetWish { whom, site, test, actor, reason };
            forget(&options, access, &wish)
        }
        Command::Explain { alert, access } => {
            let access = command::access(&options, access.admin, access.token);
            let done = access.and_then(|it| command::explain(&it, &alert, &mut io::stdout()));
            done.map_err(|error| error.to_string())
        }
        Command::Notice { lang } => say(command::notice(&options, &lang)),
        Command::Replay { until, lead, trace, recheck, shards, now } => {
            let now = now.map(Timestamp);
            let wish = replay::Wish { shards, now, trace, ..replay::Wish::default() };
            replayed(&options, &wish, (until, lead, recheck))
        }
        Command::Backup { to } => backed_up(&options, &to),
        Command::Restore { from, erasures_from } => {
            restored(&options, &from, erasures_from.as_deref())
        }
        Command::Verify { no_replay, json, receipt, receipts } => {
            verify(&options, no_replay, json, (receipt, receipts))
        }
        Command::Token { role } => {
            // The command line takes no other word.
            let role = Role::parse(&role).unwrap_or(Role::Alerts);
            say(command::data_folder(&options).and_then(|it| command::make_token(&it, role)))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(io::stderr(), "mikomi: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let running = serve::start(options).map_err(|error| error.to_string())?;
    let _ = writeln!(io::stdout(), "{}", greeting(&running));
    running.wait_for_signal();
    running.stop().map(|_| ()).map_err(|why| format!("the journal failed: {why:?}"))
}

/// Where everything is, with real values.
fn greeting(running: &Running) -> String {
    let settings = &running.app.settings;
    let collector = settings.collector.public_url.clone();
    let collector = collector.unwrap_or_else(|| format!("http://{}", running.collector));
    let admin = settings.admin.admin_url.clone();
    let admin = admin.unwrap_or_else(|| format!("http://{}", running.admin));
    let mut text = format!(
        "mikomi {} is running.\n\
         collector  {collector}\n\
         admin      {admin}/?once={}   (this link works once)\n\
         data       {} ({} records replayed)\n",
        env!("CARGO_PKG_VERSION"),
        running.once,
        running.data.display(),
        running.found.records,
    );
    for site in running.app.sites.all() {
        let key = site.site.keys.first().map_or("", String::as_str);
        let consent = match site.site.consent {
            collector::config::SiteConsent::Required => " data-consent=\"denied\"",
            collector::config::SiteConsent::Assumed => "",
        };
        let fields = if site.site.form_fields.is_empty() {
            String::new()
        } else {
            format!(" data-fields='{}'", serde_json::json!(site.site.form_fields))
        };
        let script = format!("<script defer src=\"{collector}/m.js\" data-site=\"{key}\"");
        let _ = writeln!(text, "site {:<6} {script}{consent}{fields}></script>", site.site.id);
    }
    if collector.starts_with("http://") {
        text.push_str("note       plain http: the visitor cookie is not marked Secure\n");
    }
    text.trim_end().to_owned()
}

fn say(outcome: Result<String, command::CommandError>) -> Result<(), String> {
    let text = outcome.map_err(|error| error.to_string())?;
    writeln!(io::stdout(), "{text}").map_err(|error| error.to_string())
}

fn replayed(
    options: &Options,
    wish: &replay::Wish,
    (until, lead, recheck): (Option<String>, Option<String>, bool),
) -> Result<(), String> {
    let until = until.map(|text| {
        let parsed = replay::Until::parse(&text);
        parsed.ok_or_else(|| format!("--until {text:?}: neither a position nor a moment"))
    });
    let lead = lead.map(|text| {
        LeadId::parse(&text).ok_or_else(|| format!("--lead {text:?}: not the id of a lead"))
    });
    let recheck = recheck.then(|| serve::load(options).map(|(_, _, surroundings)| surroundings));
    let recheck = recheck.transpose().map_err(|problems| {
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    })?;
    let data = command::data_folder(options).map_err(|error| error.to_string())?;
    let wish = replay::Wish {
        until: until.transpose()?,
        lead: lead.transpose()?,
        recheck,
        ..wish.clone()
    };
    let mut output = io::BufWriter::new(io::stdout());
    replay::replay(&data, &wish, &mut output).map_err(|error| error.to_string())?;
    output.flush().map_err(|error| error.to_string())
}

fn backed_up(options: &Options, to: &Path) -> Result<(), String> {
    let data = command::data_folder(options).map_err(|error| error.to_string())?;
    let copied = backup::backup(&data, to).map_err(|error| error.to_string())?;
    let backup::Copied { files, bytes, until, incarnation, took_ms, .. } = copied;
    let text = format!(
        "{}: {files} files, {bytes} bytes, every record up to position {}, incarnation \
         {incarnation}; after {:.1} s",
        to.display(),
        until.0,
        took_ms as f64 / 1e3,
    );
    writeln!(io::stdout(), "{text}").map_err(|error| error.to_string())
}

fn restored(options: &Options, from: &Path, erasures: Option<&Path>) -> Result<(), String> {
    let data = command::data_folder(options).map_err(|error| error.to_string())?;
    let copied = backup::restore(from, &data, erasures).map_err(|error| error.to_string())?;
    let backup::Copied { files, bytes, until, incarnation, erasures, took_ms } = copied;
    let text = format!(
        "{}: {files} files, {bytes} bytes, every record up to position {}; {erasures} erasures \
         added. The next start begins incarnation {}; after {:.1} s",
        data.display(),
        until.0,
        incarnation + 1,
        took_ms as f64 / 1e3,
    );
    writeln!(io::stdout(), "{text}").map_err(|error| error.to_string())
}

/// Says what is wrong, and that something is.
fn verify(
    options: &Options,
    no_replay: bool,
    json: bool,
    (mut receipts, file): (Vec<String>, Option<PathBuf>),
) -> Result<(), String> {
    if let Some(file) = file {
        let text = std::fs::read_to_string(&file);
        let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
        receipts.extend(text.lines().map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned));
    }
    let data = command::data_folder(options).map_err(|error| error.to_string())?;
    let wanted = collector::verify::Options { no_replay, receipts };
    let report = collector::verify::verify(&data, &wanted).map_err(|error| error.to_string())?;
    let text = if json { report.json().to_string() } else { report.text() };
    writeln!(io::stdout(), "{text}").map_err(|error| error.to_string())?;
    match report.wrong {
        0 => Ok(()),
        wrong => Err(format!("{}: {wrong} things are wrong", data.display())),
    }
}

fn sample(options: &Options, wish: &command::SampleWish) -> Result<(), String> {
    let done = command::sample(options, wish, &mut io::stdout());
    if let Some(note) = done.map_err(|error| error.to_string())? {
        // What is printed may be sent on as it is.
        let _ = writeln!(io::stderr(), "mikomi: {note}");
    }
    Ok(())
}

fn copy(options: &Options, access: Access, path: &str) -> Result<(), String> {
    let access = command::access(options, access.admin, access.token);
    let access = access.map_err(|error| error.to_string())?;
    command::copy(&access, path, &mut io::stdout()).map_err(|error| error.to_string())
}

fn forget(options: &Options, access: Access, wish: &command::ForgetWish) -> Result<(), String> {
    let access = command::access(options, access.admin, access.token);
    let done = access.and_then(|it| command::forget(options, &it, wish, &mut io::stdout()));
    done.map_err(|error| error.to_string())
}

/// Readable on a terminal, JSON for machines; `RUST_LOG` says how much.
fn log_to_stderr(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if io::stderr().is_terminal() {
        log.compact().init();
    } else {
        log.json().init();
    }
}
