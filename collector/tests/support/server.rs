//! The real binary, started with folders of its own, stopped with the test.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::http::{Answer, Client};
use super::wait_for;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_mikomi");
/// The server key of the test site.
pub const SERVER_KEY: &str = "sk_test_0123456789abcdef";
/// The rules that ship.
pub const RULES: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/scoring.toml"));
/// Limits that a flood of test hits under a standing clock does not meet.
const NO_RATES: &str = "address_hits_per_s_max = 0\nsite_hits_per_s_max = 0\n\
                        claims_per_hour_max = 1000000\n";

/// The settings of a server.
#[derive(Clone, Debug)]
pub struct Setup {
    /// All of mikomi.toml.
    pub mikomi: String,
    /// All of scoring.toml.
    pub scoring: String,
    /// All of endpoints.toml.
    pub endpoints: String,
    /// Further files beside them, by their path.
    pub files: Vec<(String, String)>,
    /// Where the clock stands; the system's clock if nowhere.
    pub clock: Option<u64>,
}

impl Setup {
    /// One site at www.vendor.example, that assumes consent, and these endpoints.
    pub fn new(clock: u64, endpoints: &[String]) -> Setup {
        let www = site("www", "assumed", "https://www.vendor.example");
        Setup {
            mikomi: format!("{}{www}", listeners("", NO_RATES)),
            scoring: RULES.to_owned(),
            endpoints: endpoints.concat(),
            files: Vec::new(),
            clock: Some(clock),
        }
    }

    /// With an address of the admin side that is stated, so that messages link to it.
    pub fn with_admin_url(mut self) -> Setup {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let stated = format!("[admin]\nlisten = \"{free}\"\nadmin_url = \"http://{free}\"");
        self.mikomi = self.mikomi.replace("[admin]\nlisten = \"127.0.0.1:0\"", &stated);
        self
    }
}

/// The beginning of mikomi.toml: any port, and these further lines of [collector] and [limits].
pub fn listeners(collector: &str, limits: &str) -> String {
    format!(
        "[collector]\nlisten = \"127.0.0.1:0\"\n{collector}\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [limits]\n{limits}\n"
    )
}

/// A site whose key is its id, with a test key and the server key.
pub fn site(id: &str, consent: &str, origin: &str) -> String {
    format!(
        "[[site]]\nid = \"{id}\"\nkey = \"{id}\"\ntest_key = \"{id}-test\"\n\
         consent = \"{consent}\"\n\
         origins = [\"{origin}\"]\nserver_keys_file = \"keys/{id}.txt\"\n"
    )
}

/// What the browsers of a server share with it: it may move to another port meanwhile.
pub struct Shared {
    pub collector: Mutex<SocketAddr>,
    pub now_ms: Mutex<u64>,
    /// Every answer to a browser.
    pub answered: Mutex<String>,
}

/// A running server.
pub struct Server {
    child: Child,
    folder: tempfile::TempDir,
    clock: Option<u64>,
    env: Vec<(String, String)>,
    pub admin: SocketAddr,
    /// The printed link.
    pub once: String,
    token: String,
    pub shared: Arc<Shared>,
    /// What it prints on stderr.
    log: Arc<Mutex<String>>,
    stopped: AtomicBool,
}

impl Server {
    pub fn start(setup: &Setup) -> Server {
        Server::start_with(setup, &[])
    }

    /// The same with variables in its environment.
    pub fn start_with(setup: &Setup, env: &[(String, String)]) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config");
        fs::create_dir_all(config.join("keys")).unwrap();
        for (index, id) in setup.mikomi.split("\nid = \"").skip(1).enumerate() {
            let id = id.split('"').next().unwrap();
            let key = if index == 0 { SERVER_KEY.into() } else { format!("{SERVER_KEY}{index}") };
            fs::write(config.join(format!("keys/{id}.txt")), key).unwrap();
        }
        fs::write(config.join("mikomi.toml"), &setup.mikomi).unwrap();
        fs::write(config.join("scoring.toml"), &setup.scoring).unwrap();
        fs::write(config.join("endpoints.toml"), &setup.endpoints).unwrap();
        for (path, text) in &setup.files {
            let path = config.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let shared = Arc::new(Shared {
            collector: Mutex::new(([127, 0, 0, 1], 0).into()),
            now_ms: Mutex::new(setup.clock.unwrap_or_default()),
            answered: Mutex::default(),
        });
        let log = Arc::default();
        let started = spawn(folder.path(), setup.clock, env, &log);
        *shared.collector.lock().unwrap() = started.collector;
        let token = run(folder.path(), env, &["token"]).0.trim().to_owned();
        Server {
            child: started.child,
            folder,
            clock: setup.clock,
            env: env.to_vec(),
            admin: started.admin,
            once: started.once,
            token,
            shared,
            log,
            stopped: AtomicBool::new(false),
        }
    }

    /// Ends it as a power cut would: nothing is told to stop.
    pub fn kill(&mut self) {
        if !self.stopped.swap(true, Ordering::SeqCst) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }

    /// The same while others still use it.
    pub fn kill_now(&self) {
        let killed = Command::new("kill").args(["-KILL", &self.child.id().to_string()]).status();
        assert!(killed.unwrap().success());
    }

    /// Moves the clock that the next start stands at.
    pub fn pass_clock_ms(&self, ms: u64) {
        assert!(self.stopped.load(Ordering::SeqCst), "it still runs");
        *self.shared.now_ms.lock().unwrap() += ms;
    }

    /// Tells it to stop, and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.wait()
    }

    /// Tells it to stop.
    pub fn terminate(&self) {
        let told = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(told.unwrap().success());
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let status = wait_for("the end of the server", || child.try_wait().unwrap());
        self.stopped.store(true, Ordering::SeqCst);
        status
    }

    /// Starts it again on the same data, its clock where it was.
    pub fn restart(&mut self) {
        assert!(self.stopped.load(Ordering::SeqCst), "it still runs");
        let clock = self.clock.map(|_| self.now());
        let started = spawn(self.folder.path(), clock, &self.env, &self.log);
        self.child = started.child;
        self.admin = started.admin;
        self.once = started.once;
        *self.shared.collector.lock().unwrap() = started.collector;
        self.stopped.store(false, Ordering::SeqCst);
    }

    /// The same by the machine's own clock.
    pub fn restart_by_the_machine_s_clock(&mut self) {
        self.clock = None;
        self.restart();
    }

    pub fn collector(&self) -> SocketAddr {
        *self.shared.collector.lock().unwrap()
    }

    pub fn now(&self) -> u64 {
        *self.shared.now_ms.lock().unwrap()
    }

    /// Moves the test clock to a moment in Japan.
    pub fn to(&self, text: &str) -> &Server {
        self.to_ms(super::at(text))
    }

    /// Moves the test clock.
    pub fn to_ms(&self, now_ms: u64) -> &Server {
        let answer = self.post("/api/test-clock", &json!({ "now_ms": now_ms }));
        assert_eq!(answer.status, 200, "{}", answer.text());
        *self.shared.now_ms.lock().unwrap() = now_ms;
        self
    }

    /// Moves the test clock on.
    pub fn pass_ms(&self, ms: u64) -> &Server {
        self.to_ms(self.now() + ms)
    }

    /// Asks the admin side.
    pub fn ask(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str()), ("connection", "close")];
        Client::new(self.admin).send(method, path, &headers, body).unwrap()
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, b"");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, body.to_string().as_bytes())
    }

    /// A step of an operator, which must be taken.
    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "callers write it in place")]
    pub fn step(&self, path: &str, more: Value) -> Value {
        let mut wish = json!({ "actor": "yamada", "reason": "told by phone" });
        for (name, value) in more.as_object().unwrap() {
            wish[name] = value.clone();
        }
        let answer = self.post(path, &wish);
        assert_eq!(answer.status, 200, "{path} {wish}: {}", answer.text());
        answer.json()
    }

    /// The lead of an address, whoever's name it is; at once, without the lists.
    #[track_caller]
    pub fn lead_by(&self, email: &str) -> Value {
        let found = self.get(&format!("/api/leads/by?site=www&email={email}"));
        self.get(&format!("/api/leads/{}", found["lead"].as_str().unwrap()))
    }

    /// The lead's exact score now.
    #[track_caller]
    pub fn exact(&self, email: &str) -> Value {
        self.lead_by(email)["exact"].clone()
    }

    /// Every hit of the journal.
    pub fn hits(&self) -> Vec<Value> {
        let answer = self.ask("GET", "/api/export/hits", b"");
        assert_eq!(answer.status, 200);
        answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// One figure of the metrics, all labels added up.
    #[track_caller]
    pub fn figure(&self, name: &str) -> u64 {
        let text = self.ask("GET", "/metrics", b"").text();
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        let values: Vec<f64> =
            lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        assert!(!values.is_empty(), "no {name}");
        values.iter().sum::<f64>() as u64
    }

    /// The id of the one lead that a search finds; looked for until the reader has got there.
    #[track_caller]
    pub fn lead_id(&self, words: &str) -> String {
        wait_for(&format!("a lead for {words}"), || {
            let found = self.get(&format!("/api/leads?q={words}"));
            let leads = found["leads"].as_array().unwrap();
            assert!(leads.len() < 2, "{found}");
            Some(leads.first()?["id"].as_str().unwrap().to_owned())
        })
    }

    #[track_caller]
    pub fn lead(&self, words: &str) -> Value {
        self.get(&format!("/api/leads/{}", self.lead_id(words)))
    }

    /// Waits until everything that time alone does to a lead up to now has been done.
    #[track_caller]
    pub fn settle(&self, words: &str) {
        let id = self.lead_id(words);
        wait_for("what is due has been done", || {
            let why = self.get(&format!("/api/leads/{id}/why"));
            let due = why["next_by_time"].as_str().map(str::parse::<jiff::Timestamp>);
            let later = |due: jiff::Timestamp| due.as_millisecond() as u64 > self.now();
            due.is_none_or(|due| later(due.unwrap())).then_some(())
        });
    }

    /// Waits until so many deliveries are recorded as made: a power cut repeats none of them.
    #[track_caller]
    pub fn wait_delivered(&self, count: usize) {
        wait_for(&format!("{count} deliveries in the journal"), || {
            let found = self.get("/api/deliveries");
            let lines = found["deliveries"].as_array().unwrap();
            let delivered = lines.iter().filter(|line| line["state"] == "delivered");
            (delivered.count() >= count).then_some(())
        });
    }

    /// The files of the settings.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Runs another command of the binary on the same folders: stdout and whether it went well.
    pub fn command(&self, arguments: &[&str]) -> (String, bool) {
        run(self.folder.path(), &self.env, arguments)
    }

    /// A command of the binary on the same folders, not run yet, that may ask the admin side.
    pub fn asking(&self, arguments: &[&str]) -> Command {
        let mut command = command(self.folder.path(), &self.env);
        command.args(arguments).args(["--admin", &self.admin.to_string()]);
        command.env("MIKOMI_TOKEN", &self.token);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}

fn command(folder: &Path, env: &[(String, String)]) -> Command {
    let mut command = Command::new(BINARY);
    command.envs(env.iter().cloned());
    command.arg("--config").arg(folder.join("config")).arg("--data").arg(folder.join("data"));
    command.current_dir(folder);
    command
}

fn run(folder: &Path, env: &[(String, String)], arguments: &[&str]) -> (String, bool) {
    let output = command(folder, env).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (text + &String::from_utf8_lossy(&output.stderr), output.status.success())
}

struct Started {
    child: Child,
    collector: SocketAddr,
    admin: SocketAddr,
    once: String,
}

fn spawn(
    folder: &Path,
    clock: Option<u64>,
    env: &[(String, String)],
    log: &Arc<Mutex<String>>,
) -> Started {
    let mut command = command(folder, env);
    command.args(["serve", "--any-port"]);
    if let Some(clock) = clock {
        command.args(["--test-clock", &clock.to_string()]);
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let kept = Arc::clone(log);
    thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            let mut kept = kept.lock().unwrap();
            kept.push_str(&line);
            kept.push('\n');
        }
    });
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut printed = String::new();
    let mut find = |word: &str| loop {
        let mut line = String::new();
        let read = stdout.read_line(&mut line).unwrap();
        assert!(read > 0, "it did not start: {printed}{}", log.lock().unwrap());
        printed.push_str(&line);
        if let Some(rest) = line.strip_prefix(word) {
            return rest.split_whitespace().next().unwrap().to_owned();
        }
    };
    let address = |url: &str| {
        let host = url.strip_prefix("http://").unwrap();
        host.split('/').next().unwrap().parse().unwrap()
    };
    let collector = address(&find("collector"));
    let once = find("admin");
    let admin = address(&once);
    thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
    Started { child, collector, admin, once }
}
