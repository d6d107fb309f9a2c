//! As much of HTTP/1.1 as these clients need: requests are written out by hand, and of an answer
//! its status, its length and its cookies are read.

/// What a browser says it is.
pub const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
/// The name of the visitor cookie.
pub const COOKIE: &str = "mikomi";
/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A whole answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Its status.
    pub status: u16,
    /// Its bytes, head and body.
    pub bytes: usize,
    head: &'a [u8],
}

/// Not HTTP, or none that tells its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl<'a> Answer<'a> {
    /// The answer at the beginning of what was received; nothing if it is not complete.
    pub fn parse(received: &'a [u8]) -> Result<Option<Answer<'a>>, Malformed> {
        let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
            return if received.len() > HEAD_BYTES_MAX { Err(Malformed) } else { Ok(None) };
        };
        let head = &received[..end + 2];
        let digits = head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = digits.and_then(number).ok_or(Malformed)? as u16;
        let length = match header(head, "content-length") {
            Some(digits) => number(digits).ok_or(Malformed)?,
            None if matches!(status, 204 | 304) => 0,
            None => return Err(Malformed),
        };
        let bytes = end + 4 + length;
        Ok((received.len() >= bytes).then_some(Answer { status, bytes, head }))
    }

    /// Whether it says that something was taken.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether it says something about hits that were not kept, in a header of mikomi's own.
    pub fn has_remark(&self) -> bool {
        let own = |line: &[u8]| line.get(..7).is_some_and(|it| it.eq_ignore_ascii_case(b"mikomi-"));
        lines(self.head).any(own)
    }

    /// One of its headers.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        header(self.head, name)
    }

    /// The value that it gives to the visitor cookie.
    pub fn visitor_cookie(&self) -> Option<&'a str> {
        let lines = lines(self.head).filter_map(|line| value(line, "set-cookie"));
        let mut cookies = lines.filter_map(|line| line.split(|byte| *byte == b';').next());
        let pair = cookies.find_map(|pair| {
            pair.strip_prefix(COOKIE.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
        });
        pair.and_then(|value| std::str::from_utf8(value).ok())
    }
}

/// The length of a whole request at the beginning of what was received, with its body's start.
pub fn request(received: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if received.len() > HEAD_BYTES_MAX { Err(Malformed) } else { Ok(None) };
    };
    let digits = header(&received[..end + 2], "content-length").ok_or(Malformed)?;
    let bytes = end + 4 + number(digits).ok_or(Malformed)?;
    Ok((received.len() >= bytes).then_some((bytes, end + 4)))
}

/// The first header of a name; the head ends with its last line's end.
pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    lines(head).find_map(|line| value(line, name))
}

fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end)
}

fn value<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let rest = found.eq_ignore_ascii_case(name.as_bytes()).then_some(rest)?;
    rest.strip_prefix(b":").map(<[u8]>::trim_ascii)
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A page view as the pixel sends it. `path` stands in the query as it is.
pub fn pixel(request: &mut Vec<u8>, path: &str, query: &str, cookie: &str, headers: &str) {
    let line = if cookie.is_empty() { "" } else { "\r\nCookie: mikomi=" };
    let text = format!(
        "GET /p.gif?s=demo&u=https%3A%2F%2Fwww.site.example{path}{query} HTTP/1.1\r\n\
         Host: t.site.example\r\nUser-Agent: {AGENT}{headers}{line}"
    );
    request.extend_from_slice(text.as_bytes());
    request.extend_from_slice(cookie.as_bytes());
    request.extend_from_slice(b"\r\n\r\n");
}

/// A beacon.
pub fn beacon(request: &mut Vec<u8>, body: &str, cookie: &str, headers: &str) {
    let line =
        if cookie.is_empty() { String::new() } else { format!("\r\nCookie: mikomi={cookie}") };
    let text = format!(
        "POST /b HTTP/1.1\r\nHost: t.site.example\r\nUser-Agent: {AGENT}{headers}{line}\r\n\
         Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    request.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_only_when_it_is_whole() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nSet-Cookie: a=1\r\n\
                      set-cookie: mikomi=v1.x; Path=/\r\n\r\nGIFHTTP/1.1";
        for length in 0..bytes.len() - 8 {
            assert!(Answer::parse(&bytes[..length]).unwrap().is_none(), "{length}");
        }
        let answer = Answer::parse(bytes).unwrap().unwrap();
        assert_eq!((answer.status, answer.bytes), (200, bytes.len() - 8));
        assert_eq!(answer.visitor_cookie(), Some("v1.x"));
    }

    #[test]
    fn an_answer_without_a_length_is_malformed_unless_it_has_no_body() {
        assert_eq!(Answer::parse(b"HTTP/1.1 200 OK\r\n\r\n").unwrap_err(), Malformed);
        assert_eq!(Answer::parse(b"SSH-2.0\r\n\r\n").unwrap_err(), Malformed);
        let empty = Answer::parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap();
        assert_eq!((empty.status, empty.visitor_cookie()), (204, None));
        assert!(!empty.has_remark());
    }

    #[test]
    fn what_was_not_kept_shows_in_an_answer() {
        let bytes = b"HTTP/1.1 204 No Content\r\nMikomi-Rejected: 1 malformed\r\n\r\n";
        assert!(Answer::parse(bytes).unwrap().unwrap().has_remark());
    }
}
