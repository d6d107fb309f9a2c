//! A browser as the page script makes it speak, and a server with the site's key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::http::{Answer, Client};
use super::server::{SERVER_KEY, Server, Shared};

/// A person's user agent.
pub const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 \
                         (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";

/// One browser with its cookies.
pub struct Browser {
    shared: Arc<Shared>,
    client: (SocketAddr, Client),
    /// The site's key in the snippet.
    pub site: String,
    /// The pages' origin.
    pub origin: String,
    /// Headers beyond those that every browser sends.
    pub extra: Vec<(String, String)>,
    /// Cookies by name.
    pub jar: BTreeMap<String, String>,
    number: u64,
    sent: u64,
    url: String,
    nonce: String,
}

impl Browser {
    /// A browser on the site "www". Different numbers are different browsers.
    pub fn new(server: &Server, number: u64) -> Browser {
        let address = server.collector();
        Browser {
            shared: Arc::clone(&server.shared),
            client: (address, Client::new(address)),
            site: "www".into(),
            origin: "https://www.vendor.example".into(),
            extra: Vec::new(),
            jar: BTreeMap::new(),
            number,
            sent: 0,
            url: String::new(),
            nonce: String::new(),
        }
    }

    /// One that has our cookie already, from a page view worth nothing.
    pub fn returning(server: &Server, number: u64) -> Browser {
        let mut browser = Browser::new(server, number);
        browser.page("/", "");
        assert!(browser.jar.contains_key("mikomi"), "no cookie came");
        browser
    }

    /// A hit as the script makes it, with `more` on top.
    pub fn hit(&mut self, more: &Value) -> Value {
        self.sent += 1;
        let now = *self.shared.now_ms.lock().unwrap();
        let mut hit = json!({
            "s": self.site, "e": "page_view", "u": self.url,
            "i": format!("{:08x}{:08x}", self.number, self.sent), "n": self.nonce,
            "at": now, "st": now,
        });
        for (name, value) in more.as_object().unwrap() {
            hit[name] = value.clone();
        }
        hit
    }

    /// Goes to a page, without telling anybody: what `hit` fills in next.
    pub fn visit(&mut self, path: &str) {
        self.url = format!("{}{path}", self.origin);
        self.nonce = format!("{:08x}{:08x}", self.number, self.sent + 1_000_000);
    }

    #[track_caller]
    pub fn page(&mut self, path: &str, title: &str) -> Answer {
        self.page_from(path, title, "")
    }

    #[track_caller]
    pub fn page_from(&mut self, path: &str, title: &str, referrer: &str) -> Answer {
        self.visit(path);
        let hit = self.hit(&json!({ "t": title, "r": referrer }));
        self.kept(&hit)
    }

    /// What the script sends after so long on a page. The clock is the caller's to move.
    #[track_caller]
    pub fn stay(&mut self, seconds: u64) -> Answer {
        let hit = self.hit(&json!({ "e": "engagement", "ms": seconds * 1_000, "sc": 80 }));
        self.kept(&hit)
    }

    #[track_caller]
    pub fn event(&mut self, name: &str) -> Answer {
        let hit = self.hit(&json!({ "e": name }));
        self.kept(&hit)
    }

    #[track_caller]
    pub fn identify(&mut self, email: &str, attributes: &Value) -> Answer {
        let who = json!({ "email": email, "attributes": attributes });
        let hit = self.hit(&json!({ "e": "identify", "id": who }));
        self.kept(&hit)
    }

    /// A form: who it is, then its thanks page.
    #[track_caller]
    pub fn form(&mut self, email: &str, attributes: &Value, thanks: &str, title: &str) {
        self.identify(email, attributes);
        self.page(thanks, title);
    }

    /// Sends hits that must be kept.
    #[track_caller]
    fn kept(&mut self, hit: &Value) -> Answer {
        let answer = self.beacon(hit.to_string().as_bytes());
        assert_eq!(answer.status, 204, "{hit}: {}", answer.raw());
        assert_eq!(answer.header("mikomi-dropped"), None, "{hit}");
        answer
    }

    /// Sends any body.
    #[track_caller]
    pub fn beacon(&mut self, body: &[u8]) -> Answer {
        self.send("POST", "/b", body)
    }

    /// Sends any request, and keeps the cookies of its answer.
    #[track_caller]
    pub fn send(&mut self, method: &str, target: &str, body: &[u8]) -> Answer {
        let address = *self.shared.collector.lock().unwrap();
        if self.client.0 != address {
            self.client = (address, Client::new(address));
        }
        let cookies: Vec<String> =
            self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = cookies.join("; ");
        let mut headers = vec![
            ("user-agent", AGENT),
            ("origin", self.origin.as_str()),
            ("content-type", "text/plain;charset=UTF-8"),
        ];
        if !cookies.is_empty() {
            headers.push(("cookie", &cookies));
        }
        for (name, value) in &self.extra {
            headers.retain(|(known, _)| known != name);
            headers.push((name, value));
        }
        let answer = self.client.1.send(method, target, &headers, body).unwrap();
        self.shared.answered.lock().unwrap().push_str(&answer.raw());
        let cookies = answer.headers.iter().filter(|(name, _)| name == "set-cookie");
        for (name, value) in cookies.filter_map(|(_, value)| value.split_once('=')) {
            let gone = value.contains("Max-Age=0");
            let value = value.split(';').next().unwrap();
            if gone {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }
}

/// Sends hits with the server key.
#[track_caller]
pub fn server_call(server: &Server, hits: &Value) -> Answer {
    server_call_with(server, SERVER_KEY, hits)
}

/// Sends hits with any key.
#[track_caller]
pub fn server_call_with(server: &Server, key: &str, hits: &Value) -> Answer {
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = hits.to_string();
    Client::new(server.collector()).send("POST", "/b", &headers, body.as_bytes()).unwrap()
}
