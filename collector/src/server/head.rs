//! Judges the head of a request, and finds where its body ends, before hyper sees a byte of it.
//!
//! hyper's parser is lenient where HTTP allows it to be (a bare line feed ends a line, a length
//! beside `chunked` is overlooked), and it answers 431 to any head that is too long. Whoever stands
//! in front of us may read such a message differently, and that difference is what request
//! smuggling lives on. So there is one strict reading here, which refuses what can be read in two
//! ways, tells the request line from the headers, and gives every refusal its name.
//! Pure: bytes in, verdict out.

use std::io::BufRead;

use hyper::StatusCode;

use super::counters::{Counter, ServerCounters};

/// Empty lines tolerated before a request line; some old clients send one after a body.
const BLANK_LINES_MAX: u32 = 4;
/// Digits of a chunk's size: 8 reach 4 GiB, far above any body limit.
const CHUNK_DIGITS_MAX: u32 = 8;
/// Bytes of a chunk's extension, which nobody uses.
const CHUNK_EXTENSION_BYTES_MAX: u32 = 256;
/// Digits of a Content-Length: 18 always fit into 64 bits.
const LENGTH_DIGITS_MAX: usize = 18;

/// How large the head of a request may be.
#[derive(Clone, Debug)]
pub struct HeadLimits {
    /// Bytes of the request line, without its line end.
    pub line_bytes_max: usize,
    /// Bytes of the request line for the paths below: a vendor's pixel carries everything there.
    pub long_line_bytes_max: usize,
    /// Beginnings of paths that may use the longer line.
    pub long_line_prefixes: Vec<String>,
    /// Bytes of all header lines together.
    pub header_bytes_max: usize,
    /// Number of header lines.
    pub headers_max: usize,
}

impl Default for HeadLimits {
    fn default() -> HeadLimits {
        HeadLimits {
            line_bytes_max: 8 * 1024,
            long_line_bytes_max: 20 * 1024,
            long_line_prefixes: Vec::new(),
            header_bytes_max: 16 * 1024,
            headers_max: 100,
        }
    }
}

impl HeadLimits {
    /// The limit for this line, of which perhaps only the beginning is known.
    fn line_max(&self, line: &[u8]) -> usize {
        let target = line.iter().position(|byte| *byte == b' ').map_or(line, |at| &line[at + 1..]);
        let long = self.long_line_prefixes.iter().any(|it| target.starts_with(it.as_bytes()));
        if long { self.long_line_bytes_max.max(self.line_bytes_max) } else { self.line_bytes_max }
    }

    fn check_line(&self, line: &[u8]) -> Result<(), Refusal> {
        // The prefixes are looked at only when it matters.
        if line.len() > self.line_bytes_max && line.len() > self.line_max(line) {
            return Err(Refusal::LineTooLong);
        }
        Ok(())
    }

    /// No head that passes is longer than this.
    pub(super) fn head_bytes_max(&self) -> usize {
        self.line_bytes_max.max(self.long_line_bytes_max) + self.header_bytes_max + 64
    }
}

/// Why a request was refused before any handler saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    LineTooLong,
    HeadersTooLarge,
    TooManyHeaders,
    HeaderTimedOut,
    /// What is wrong, in a few words for whoever looks at the answer.
    Malformed(&'static str),
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Refusal::LineTooLong => StatusCode::URI_TOO_LONG,
            Refusal::HeadersTooLarge | Refusal::TooManyHeaders => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Refusal::HeaderTimedOut => StatusCode::REQUEST_TIMEOUT,
            Refusal::Malformed(_) => StatusCode::BAD_REQUEST,
        }
    }

    pub(super) fn reason(self) -> &'static str {
        match self {
            Refusal::LineTooLong => "request line too long",
            Refusal::HeadersTooLarge => "headers too large",
            Refusal::TooManyHeaders => "too many headers",
            Refusal::HeaderTimedOut => "the request took too long to arrive",
            Refusal::Malformed(what) => what,
        }
    }

    pub(super) fn counter(self, counters: &ServerCounters) -> &Counter {
        match self {
            Refusal::LineTooLong => &counters.too_long_line,
            Refusal::HeadersTooLarge => &counters.too_large_headers,
            Refusal::TooManyHeaders => &counters.too_many_headers,
            Refusal::HeaderTimedOut => &counters.timed_out_header,
            Refusal::Malformed(_) => &counters.malformed,
        }
    }
}

/// Where the body of a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks, up to the empty one.
    Chunked(Chunk),
}

/// Where we are in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    Size { digits: u32, value: u64 },
    Extension { bytes: u32, value: u64 },
    SizeEnd { value: u64 },
    Bytes { left: u64 },
    BytesCr,
    BytesLf,
    LastCr,
    LastLf,
    Done,
}

impl Framing {
    fn chunked() -> Framing {
        Framing::Chunked(Chunk::Size { digits: 0, value: 0 })
    }

    /// Whether the body is complete.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Framing::Length(0) | Framing::Chunked(Chunk::Done))
    }

    /// How many of `bytes` belong to this body; beyond them the next request begins.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        match self {
            Framing::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                Ok(taken)
            }
            Framing::Chunked(chunk) => {
                let mut taken = 0;
                while taken < bytes.len() && *chunk != Chunk::Done {
                    if let Chunk::Bytes { left } = chunk {
                        let run =
                            (bytes.len() - taken).min(usize::try_from(*left).unwrap_or(usize::MAX));
                        *left -= run as u64;
                        taken += run;
                        if *left == 0 {
                            *chunk = Chunk::BytesCr;
                        }
                    } else {
                        *chunk = chunk.after(bytes[taken])?;
                        taken += 1;
                    }
                }
                Ok(taken)
            }
        }
    }
}

impl Chunk {
    fn after(self, byte: u8) -> Result<Chunk, Refusal> {
        match (self, byte) {
            (Chunk::Size { digits, value }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if digits == CHUNK_DIGITS_MAX {
                    return Err(Refusal::Malformed("chunk size too large"));
                }
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                Ok(Chunk::Size { digits: digits + 1, value: value * 16 + digit })
            }
            (Chunk::Size { digits: 1.., value }, b';') => Ok(Chunk::Extension { bytes: 0, value }),
            (Chunk::Size { digits: 1.., value } | Chunk::Extension { value, .. }, b'\r') => {
                Ok(Chunk::SizeEnd { value })
            }
            (Chunk::Extension { bytes, value }, b'\t' | b' '..=b'~')
                if bytes < CHUNK_EXTENSION_BYTES_MAX =>
            {
                Ok(Chunk::Extension { bytes: bytes + 1, value })
            }
            (Chunk::SizeEnd { value: 0 }, b'\n') => Ok(Chunk::LastCr),
            (Chunk::SizeEnd { value }, b'\n') => Ok(Chunk::Bytes { left: value }),
            (Chunk::BytesCr, b'\r') => Ok(Chunk::BytesLf),
            (Chunk::BytesLf, b'\n') => Ok(Chunk::Size { digits: 0, value: 0 }),
            (Chunk::LastCr, b'\r') => Ok(Chunk::LastLf),
            (Chunk::LastLf, b'\n') => Ok(Chunk::Done),
            // Trailers are refused as well: nothing we serve has a use for them.
            _ => Err(Refusal::Malformed("malformed chunk")),
        }
    }
}

/// Reads a head as it arrives. Made anew for every request.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    /// Where the line begins that is being looked for.
    line_at: usize,
    /// Up to here no line end is left to be found.
    seen: usize,
    /// Where the header lines begin; `None` before the request line.
    headers_at: Option<usize>,
    blank_lines: u32,
    headers: usize,
    hosts: u32,
    http_11: bool,
    length: Option<u64>,
    chunked: bool,
}

impl HeadScan {
    /// Whether nothing but empty lines has come so far.
    pub(super) fn is_untouched(&self) -> bool {
        self.headers_at.is_none() && self.seen == self.line_at
    }

    /// `bytes` starts where the request starts, and only grows from call to call.
    /// Answers the length of the head and the shape of the body, `None` while more is needed.
    pub(super) fn scan(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
    ) -> Result<Option<(usize, Framing)>, Refusal> {
        loop {
            let Some(end) = line_end(bytes, self.seen) else {
                self.seen = bytes.len();
                match self.headers_at {
                    None => limits.check_line(&bytes[self.line_at..])?,
                    Some(at) if bytes.len() - at > limits.header_bytes_max => {
                        return Err(Refusal::HeadersTooLarge);
                    }
                    Some(_) => {}
                }
                return Ok(None);
            };
            let line = &bytes[self.line_at..end];
            (self.line_at, self.seen) = (end, end);
            let Some(at) = self.headers_at else {
                self.request_line(line, end, limits)?;
                continue;
            };
            if end - at > limits.header_bytes_max {
                return Err(Refusal::HeadersTooLarge);
            }
            let line = without_line_end(line)?;
            if line.is_empty() {
                return self.finish().map(|framing| Some((end, framing)));
            }
            self.headers += 1;
            if self.headers > limits.headers_max {
                return Err(Refusal::TooManyHeaders);
            }
            self.header(line)?;
        }
    }

    fn request_line(
        &mut self,
        line: &[u8],
        end: usize,
        limits: &HeadLimits,
    ) -> Result<(), Refusal> {
        limits.check_line(line.strip_suffix(b"\r\n").unwrap_or(line))?;
        let line = without_line_end(line)?;
        if line.is_empty() {
            self.blank_lines += 1;
            if self.blank_lines > BLANK_LINES_MAX {
                return Err(Refusal::Malformed("too many empty lines"));
            }
            return Ok(());
        }
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::Malformed("malformed request line"));
        };
        if method.is_empty() || !all(method, &TOKEN) {
            return Err(Refusal::Malformed("malformed method"));
        }
        if method == b"CONNECT" {
            return Err(Refusal::Malformed("not a proxy"));
        }
        if !is_target(target) {
            return Err(Refusal::Malformed("malformed target"));
        }
        self.http_11 = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            _ => return Err(Refusal::Malformed("not HTTP/1.1")),
        };
        self.headers_at = Some(end);
        Ok(())
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if matches!(line[0], b' ' | b'\t') {
            return Err(Refusal::Malformed("folded header"));
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Err(Refusal::Malformed("header without a colon"));
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || !all(name, &TOKEN) {
            return Err(Refusal::Malformed("malformed header name"));
        }
        if !all(value, &VALUE) {
            return Err(Refusal::Malformed("control character in a header"));
        }
        // By length first: most headers are none of these three.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        self.hosts += 1;
        if self.hosts > 1 || !all(value, &HOST) {
            return Err(Refusal::Malformed("malformed or repeated host"));
        }
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        if self.length.is_some() || !digits || value.len() > LENGTH_DIGITS_MAX {
            return Err(Refusal::Malformed("malformed or repeated content-length"));
        }
        self.length = Some(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(*digit - b'0')));
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked || !self.http_11 || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::Malformed("unsupported or repeated transfer-encoding"));
        }
        self.chunked = true;
        Ok(())
    }

    fn finish(&self) -> Result<Framing, Refusal> {
        if self.http_11 && self.hosts == 0 {
            return Err(Refusal::Malformed("no host"));
        }
        match (self.length, self.chunked) {
            (Some(_), true) => Err(Refusal::Malformed("content-length beside transfer-encoding")),
            (_, true) => Ok(Framing::chunked()),
            (length, false) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

/// The index after the next line feed at or after `from`.
fn line_end(bytes: &[u8], from: usize) -> Option<usize> {
    // `skip_until` is the standard library's door to its fast byte search.
    let skipped = (&bytes[from..]).skip_until(b'\n').unwrap_or(0);
    let end = from + skipped;
    (skipped > 0 && bytes[end - 1] == b'\n').then_some(end)
}

/// Whether hyper takes it too. What it does not, it would answer without saying why.
fn is_target(target: &[u8]) -> bool {
    let query_at = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    let (path, query) = target.split_at(query_at);
    !target.is_empty() && all(path, &PATH) && all(query, &QUERY)
}

/// Which bytes may stand somewhere. Every byte of every head is held against one of these.
type Bytes = [bool; 256];

const TOKEN: Bytes = bytes(true, b"!#$%&'*+-.^_`|~", b"");
const HOST: Bytes = bytes(true, b"-._~%[]:", b"");
const VALUE: Bytes = bytes(false, b"\t", b"");
const PATH: Bytes = bytes(false, b"", b"<>`");
const QUERY: Bytes = bytes(false, b"", b"\"<>");

/// Letters and digits alone, or everything but control characters; these too, and those not.
const fn bytes(letters_alone: bool, too: &[u8], not: &[u8]) -> Bytes {
    let mut bytes = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let ascii = byte as u8;
        bytes[byte] =
            if letters_alone { ascii.is_ascii_alphanumeric() } else { !ascii.is_ascii_control() };
        byte += 1;
    }
    let mut place = 0;
    while place < too.len() {
        bytes[too[place] as usize] = true;
        place += 1;
    }
    place = 0;
    while place < not.len() {
        bytes[not[place] as usize] = false;
        place += 1;
    }
    bytes
}

fn all(text: &[u8], may: &Bytes) -> bool {
    text.iter().all(|byte| may[usize::from(*byte)])
}

fn without_line_end(line: &[u8]) -> Result<&[u8], Refusal> {
    line.strip_suffix(b"\r\n").ok_or(Refusal::Malformed("line feed without carriage return"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn judge(text: &str) -> Result<Option<(usize, Framing)>, Refusal> {
        HeadScan::default().scan(text.as_bytes(), &HeadLimits::default())
    }

    #[test]
    fn a_target_that_hyper_would_refuse_without_a_word_is_refused_by_name() {
        for target in ["/p.gif?u=<b>", "/p.gif?u=\"", "/<script>", "/a`b", ""] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let refused = HeadScan::default().scan(head.as_bytes(), &HeadLimits::default());
            assert!(matches!(refused, Err(Refusal::Malformed("malformed target"))), "{target}");
        }
        for target in ["/p.gif?u=`a{b}|c^'\\\\", "/{a}\"b|c"] {
            assert!(
                is_target(target.as_bytes()) && hyper::Uri::try_from(target).is_ok(),
                "{target}"
            );
        }
    }

    #[test]
    fn a_head_cut_anywhere_is_judged_as_if_it_had_come_whole() {
        let text = "\r\nPOST /b?x=1 HTTP/1.1\r\nHost: a.example:80\r\nContent-Length: 12\r\n\r\n";
        for cut in 0..text.len() {
            let mut scan = HeadScan::default();
            let limits = HeadLimits::default();
            assert_eq!(scan.scan(&text.as_bytes()[..cut], &limits), Ok(None), "cut at {cut}");
            let whole = scan.scan(text.as_bytes(), &limits);
            assert_eq!(whole, Ok(Some((text.len(), Framing::Length(12)))), "cut at {cut}");
        }
    }

    #[test]
    fn the_longer_line_is_for_the_paths_that_were_given_it() {
        let limits =
            HeadLimits { long_line_prefixes: vec!["/i".to_string()], ..HeadLimits::default() };
        let head = |path: &str, bytes: usize| {
            let text = format!("GET {path}?{}", "x".repeat(bytes));
            HeadScan::default().scan(text.as_bytes(), &limits)
        };
        assert_eq!(head("/b", 7_000), Ok(None));
        assert_eq!(head("/b", 9_000), Err(Refusal::LineTooLong));
        assert_eq!(head("/i", 20_000), Ok(None));
        assert_eq!(head("/i", 21_000), Err(Refusal::LineTooLong));
    }

    #[test]
    fn a_chunked_body_cut_anywhere_ends_at_the_same_byte() {
        let body = b"5\r\nhello\r\nA;name=v\r\n0123456789\r\n0\r\n\r\nGET ";
        for cut in 0..body.len() - 4 {
            let mut framing = Framing::chunked();
            let first = framing.take(&body[..cut]).unwrap();
            assert_eq!(first, cut);
            assert!(!framing.is_done(), "done after {cut}");
            let rest = framing.take(&body[cut..]).unwrap();
            assert_eq!((cut + rest, framing.is_done()), (body.len() - 4, true), "cut at {cut}");
        }
    }

    #[test]
    fn a_chunk_that_can_be_read_in_two_ways_is_refused() {
        for body in [
            "\r\n",
            "g\r\n",
            " 5\r\n",
            "5 \r\n",
            "-1\r\n",
            "+5\r\n",
            "0x5\r\n",
            "5\n",
            ";x\r\n",
            "5\r\nhelloX",
            "5\r\nhello\n",
            "0\r\nX: y\r\n\r\n",
            "0\r\n\n",
            "123456789\r\n",
            "5;a\nb\r\n",
            "5;\u{7f}\r\n",
        ] {
            assert!(Framing::chunked().take(body.as_bytes()).is_err(), "{body:?} passed");
        }
        let long = format!("5;{}\r\n", "x".repeat(300));
        assert!(Framing::chunked().take(long.as_bytes()).is_err());
    }

    #[test]
    fn a_length_is_digits_and_nothing_else() {
        let with = |value: &str| {
            judge(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:{value}\r\n\r\n"))
        };
        assert!(matches!(with(" 007 "), Ok(Some((_, Framing::Length(7))))));
        for bad in ["", " ", "-1", "+1", "1,1", "0x10", "1 1", "1.0", "1234567890123456789"] {
            assert!(with(bad).is_err(), "{bad:?} passed");
        }
    }
}
