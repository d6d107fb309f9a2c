//! Senders who never keep a cookie, each from a network of its own.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value;

use super::Failure;
use super::drive::{Talk, drive};
use super::http::{self, Answer};

const CONNECTIONS: usize = 64;

struct Strangers {
    next: u32,
    end: u32,
    identify: bool,
}

impl Talk for Strangers {
    fn ask(&mut self, _: usize, request: &mut Vec<u8>) -> bool {
        if self.next == self.end {
            return false;
        }
        let number = self.next;
        self.next += 1;
        // One address of each /24, from 1.0.0.0 on.
        let address = Ipv4Addr::from(0x0100_0001 + (number << 8));
        let headers = format!("\r\nX-Forwarded-For: {address}");
        if self.identify {
            let body = format!(
                "{{\"s\":\"demo\",\"e\":\"identify\",\"u\":\"https://www.site.example/\",\
                 \"i\":\"f{number}\",\"id\":{{\"email\":\"m{number}@stranger.example\"}}}}"
            );
            http::beacon(request, &body, "", &headers);
        } else {
            let query = format!("&i=f{number}&n=p{number}");
            http::pixel(request, "%2Fcolumn%2F", &query, "", &headers);
        }
        true
    }

    fn hear(&mut self, _: usize, _: &Answer<'_>) {}
}

/// Sends `count` of them.
pub fn run(target: SocketAddr, first: u32, count: u32, identify: bool) -> Result<Value, Failure> {
    // Networks from 1.0.0 to 223.255.255, beyond which addresses are nobody's.
    let end = first.checked_add(count).filter(|end| *end < 222 << 16);
    let end = end.ok_or(Failure::Input("there are not so many networks"))?;
    let driven = drive(target, CONNECTIONS, &mut Strangers { next: first, end, identify })?;
    Ok(driven.to_json())
}
