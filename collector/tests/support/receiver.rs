//! A receiver of webhooks that keeps every request and answers as it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{GUARD, wait_for};

/// The secret most endpoints of the tests have: 24 bytes and their text.
pub const SECRET: &str = "whsec_bWlrb21pIHRlc3Qgc2VjcmV0IG51bWJlciBvbmUh";
/// Another, for rotation.
pub const SECOND_SECRET: &str = "whsec_YW5vdGhlciBzZWNyZXQgb2YgdGhlc2UgdGVzdHMhIQ==";

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Received {
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or_else(|| panic!("no {name}: {:?}", self.headers), |(_, value)| value)
    }

    /// The fields of a form, in their order.
    pub fn form(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(&self.body).into_owned().collect()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }

    pub fn email(&self) -> String {
        self.json()["data"]["lead"]["email"].as_str().unwrap_or_default().to_owned()
    }

    /// Whether one of its signatures is this secret's, by the specification and nobody's code.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
        let mut signed =
            format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp"))
                .into_bytes();
        signed.extend_from_slice(&self.body);
        let tag = STANDARD.encode(ring::hmac::sign(&key, &signed));
        self.header("webhook-signature").split(' ').any(|one| one == format!("v1,{tag}"))
    }
}

type Answering = Box<dyn FnMut(&Received) -> u16 + Send>;

struct Shared {
    received: Mutex<Vec<Received>>,
    answering: Mutex<Answering>,
}

/// A receiver on a port of its own, for as long as the test runs.
pub struct Receiver {
    port: u16,
    shared: Arc<Shared>,
}

impl Receiver {
    /// One that answers 204.
    pub fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            received: Mutex::default(),
            answering: Mutex::new(Box::new(|_| 204)),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                // A sender that breaks off is its own affair.
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Receiver { port, shared }
    }

    /// `http://127.0.0.1:PORT`, and the lines of an endpoint that let it be reached.
    pub fn place(&self) -> (String, String) {
        let port = self.port;
        let lines = format!(
            "allow_http = true\nallow_private = [\"127.0.0.0/8\"]\nallow_ports = [{port}]\n"
        );
        (format!("http://127.0.0.1:{port}"), lines)
    }

    /// From now on it answers with these statuses.
    pub fn answer_with(&self, answering: impl FnMut(&Received) -> u16 + Send + 'static) {
        *self.shared.answering.lock().unwrap() = Box::new(answering);
    }

    /// An entry of endpoints.toml; `more` are further lines of it.
    pub fn endpoint(&self, id: &str, more: &str) -> String {
        let usual = [
            ("secrets", format!("secrets = [\"{SECRET}\"]\n")),
            ("mode", "mode = \"live\"\n".into()),
        ];
        let usual = usual.into_iter().filter(|(name, _)| !more.contains(name));
        let usual: String = usual.map(|(_, line)| line).collect();
        format!(
            "[[endpoint]]\nid = \"{id}\"\nurl = \"http://127.0.0.1:{port}/hook/{id}\"\n\
             {usual}allow_http = true\nallow_private = [\"127.0.0.0/8\"]\n\
             allow_ports = [{port}]\n{more}\n",
            port = self.port,
        )
    }

    /// Everything so far.
    pub fn all(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// Everything about one person, but that nobody took them: as the stories count.
    pub fn about(&self, email: &str) -> Vec<Received> {
        let mut found = self.all_about(email);
        found.retain(|one| one.kind() != "lead.reminder");
        found
    }

    /// Everything about one person.
    pub fn all_about(&self, email: &str) -> Vec<Received> {
        self.all().into_iter().filter(|one| one.email() == email).collect()
    }

    /// Waits until there are so many messages about one person.
    #[track_caller]
    pub fn wait_about(&self, email: &str, count: usize) -> Vec<Received> {
        wait_for(&format!("{count} messages about {email}"), || {
            Some(self.about(email)).filter(|found| found.len() >= count)
        })
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> Option<()> {
    stream.set_read_timeout(Some(GUARD)).ok()?;
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut headers = Vec::new();
        let mut line = String::new();
        (reader.read_line(&mut line).ok()? > 0).then_some(())?;
        let (method, rest) = line.split_once(' ')?;
        let (method, path) = (method.to_owned(), rest.split(' ').next()?.to_owned());
        loop {
            line.clear();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let mut body = vec![0; length?.1.parse().ok()?];
        reader.read_exact(&mut body).ok()?;
        let received = Received { method, path, headers, body };
        let status = shared.answering.lock().unwrap()(&received);
        shared.received.lock().unwrap().push(received);
        write!(writer, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}
