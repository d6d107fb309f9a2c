//! A closed loop over a fixed number of connections, one request in flight on each: one thread,
//! one epoll, one write and one read a request, so that the load costs little and the same for
//! every server.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::net::sockopt::set_socket_send_buffer_size;
use serde_json::{Value, json};

use super::http::Answer;

/// How long a server may keep everybody waiting.
const SILENCE_MAX: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };
/// Connections that may break before the run is given up.
const BROKEN_MAX: u64 = 1_000;
/// Room for the largest request, so that writing it waits for nobody.
const SEND_BYTES: usize = 128 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 4 * 1024;

/// What is said on the connections.
pub trait Talk {
    /// Writes the next request of a connection, which comes empty; false if there is none.
    fn ask(&mut self, connection: usize, request: &mut Vec<u8>) -> bool;
    /// Takes the answer.
    fn hear(&mut self, connection: usize, answer: &Answer<'_>);
}

/// What came of it.
pub struct Driven {
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Connections that ended without their answer.
    pub broken: u64,
    /// From the first request to the last answer.
    pub took: Duration,
}

impl Driven {
    /// The same for people and programs.
    pub fn to_json(&self) -> Value {
        let statuses: BTreeMap<String, u64> =
            self.statuses.iter().map(|(status, count)| (status.to_string(), *count)).collect();
        let took = self.took.as_secs_f64();
        json!({ "statuses": statuses, "broken": self.broken, "seconds": took })
    }
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// It has nothing more to ask: whether the server closes it is of no interest.
    done: bool,
}

struct Loop<'a> {
    target: SocketAddr,
    poll: rustix::fd::OwnedFd,
    connections: Vec<Connection>,
    talking: usize,
    talk: &'a mut dyn Talk,
    request: Vec<u8>,
    driven: Driven,
}

/// Talks until every connection has nothing left to ask.
pub fn drive(target: SocketAddr, connections: usize, talk: &mut dyn Talk) -> io::Result<Driven> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let started = Instant::now();
    let driven = Driven { statuses: BTreeMap::new(), broken: 0, took: Duration::ZERO };
    let mut run = Loop {
        target,
        poll,
        connections: Vec::with_capacity(connections),
        talking: 0,
        talk,
        request: Vec::with_capacity(1_024),
        driven,
    };
    for index in 0..connections {
        let connection = run.connect(index)?;
        run.connections.push(connection);
    }
    run.talking = connections;
    for index in 0..connections {
        run.ask(index)?;
    }
    let mut events = Vec::with_capacity(connections.max(1));
    while run.talking > 0 {
        events.clear();
        let found = epoll::wait(&run.poll, spare_capacity(&mut events), Some(&SILENCE_MAX));
        match found {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let event: &epoll::Event = event;
            let data = event.data;
            run.read(data.u64() as usize)?;
        }
    }
    run.driven.took = started.elapsed();
    Ok(run.driven)
}

impl Loop<'_> {
    /// Sockets block, but are read only when something is there, and a request fits the send
    /// buffer of a connection that has nothing else in flight.
    fn connect(&self, index: usize) -> io::Result<Connection> {
        let stream = TcpStream::connect(self.target)?;
        stream.set_nodelay(true)?;
        set_socket_send_buffer_size(&stream, SEND_BYTES)?;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.poll, &stream, data, epoll::EventFlags::IN)?;
        Ok(Connection { stream, received: Vec::with_capacity(READ_BYTES), done: false })
    }

    fn ask(&mut self, index: usize) -> io::Result<()> {
        self.request.clear();
        if !self.talk.ask(index, &mut self.request) {
            self.talking -= 1;
            self.connections[index].done = true;
            epoll::delete(&self.poll, &self.connections[index].stream)?;
            return Ok(());
        }
        if self.connections[index].stream.write_all(&self.request).is_err() {
            return self.mend(index);
        }
        Ok(())
    }

    /// The request in flight is given up: nobody knows what became of it.
    fn mend(&mut self, index: usize) -> io::Result<()> {
        self.driven.broken += 1;
        if self.driven.broken > BROKEN_MAX {
            return Err(io::Error::other("the server keeps closing connections"));
        }
        self.connections[index] = self.connect(index)?;
        self.ask(index)
    }

    fn read(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        // Of the events found together, one may come after its end.
        if connection.done {
            return Ok(());
        }
        let filled = connection.received.len();
        connection.received.resize(filled + READ_BYTES, 0);
        let read = match connection.stream.read(&mut connection.received[filled..]) {
            Ok(0) | Err(_) => return self.mend(index),
            Ok(read) => read,
        };
        connection.received.truncate(filled + read);
        let answer = Answer::parse(&connection.received)
            .map_err(|_| io::Error::other("an answer is malformed"))?;
        let Some(answer) = answer else {
            return Ok(());
        };
        *self.driven.statuses.entry(answer.status).or_default() += 1;
        self.talk.hear(index, &answer);
        let bytes = answer.bytes;
        connection.received.drain(..bytes);
        self.ask(index)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Two requests on the first connection, none on the second.
    struct Two(u32);

    impl Talk for Two {
        fn ask(&mut self, connection: usize, request: &mut Vec<u8>) -> bool {
            request.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
            connection == 0 && self.0 < 2
        }

        fn hear(&mut self, _: usize, _: &Answer<'_>) {
            self.0 += 1;
        }
    }

    #[test]
    fn a_connection_that_is_closed_after_its_last_answer_ends_nobody_elses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let [mut first, second] = [(); 2].map(|()| listener.accept().unwrap().0);
            let mut request = [0; 18];
            first.read_exact(&mut request).unwrap();
            drop(second);
            for _ in 0..2 {
                first.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
                let _ = first.read_exact(&mut request);
            }
        });
        let driven = drive(target, 2, &mut Two(0)).unwrap();
        server.join().unwrap();
        assert_eq!((driven.statuses, driven.broken), (BTreeMap::from([(204, 2)]), 0));
    }
}
