//! The receiver: takes webhooks as sales would, answers 204 at once, and notes when each was read.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use super::Failure;
use super::http;

/// A webhook.
#[derive(Clone, Debug)]
pub struct Told {
    /// When its last byte had been read.
    pub at: Instant,
    /// Its `webhook-id`.
    pub id: String,
    /// Its body.
    pub body: Value,
}

impl Told {
    /// A text of the body, by the path of names to it.
    pub fn text(&self, path: &str) -> String {
        match self.body.pointer(path) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        }
    }
}

/// Listens, and hands on what it is told. Its threads end with the process.
pub fn listen(address: SocketAddr) -> Result<Receiver<Told>, Failure> {
    let listener = TcpListener::bind(address)?;
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sender = sender.clone();
            thread::spawn(move || take(stream, &sender));
        }
    });
    Ok(receiver)
}

/// Whatever is wrong with a connection ends it, and the sender tries again.
fn take(mut stream: TcpStream, sender: &Sender<Told>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut received = Vec::new();
    let mut chunk = [0; 16 * 1_024];
    loop {
        let read = stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
        received.extend_from_slice(&chunk[..read]);
        while let Some((bytes, body)) = http::request(&received).ok()? {
            let at = Instant::now();
            let id = http::header(&received[..body - 2], "webhook-id").unwrap_or_default();
            let id = String::from_utf8_lossy(id).into_owned();
            let body = serde_json::from_slice(&received[body..bytes]).ok()?;
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()?;
            sender.send(Told { at, id, body }).ok()?;
            received.drain(..bytes);
        }
    }
}
