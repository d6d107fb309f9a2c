//! How requests to an endpoint look: its address, method and headers. Tokens stand in files or
//! variables, and `{file:NAME}` and `{env:NAME}` stand for them here; neither the text around
//! them nor what they lead to is ever repeated.

use hyper::Method;
use hyper::header::HeaderValue;

use super::super::webhook::address::ALERT_ID;
use super::super::webhook::manner::{HEADERS_MAX, HeaderError, Manner, VALUE_BYTES_MAX, header};
use super::problem::nearest;
use super::table::{Field, Table};
use super::{SECRETS_BYTES_MAX, Surroundings, read_at_most};

/// What may stand in braces.
const WORDS: [&str; 2] = ["file", "env"];
/// Longest content type, in bytes.
const CONTENT_TYPE_BYTES_MAX: usize = 100;

impl Surroundings {
    /// A text with what its `{file:NAME}` and `{env:NAME}` lead to; `{alert_id}` stays where it
    /// is `kept`. What is wrong is reported at the field.
    pub(super) fn filled(&self, field: &Field<'_>, kept: bool) -> Option<String> {
        let mut rest = field.text()?;
        let mut filled = String::new();
        while let Some(open) = rest.find(['{', '}']) {
            let (before, inner) = rest.split_at(open);
            filled.push_str(before);
            let Some(length) = inner.strip_prefix('{').and_then(|it| it.find(['{', '}'])) else {
                field.problem("a brace without its partner; \"{env:NAME}\" stands for a secret");
                return None;
            };
            let (whole, after) = inner.split_at(length + 2);
            if whole == ALERT_ID && kept {
                filled.push_str(whole);
            } else {
                filled.push_str(&self.secret(field, &whole[1..=length], kept)?);
            }
            rest = after;
        }
        filled.push_str(rest);
        Some(filled)
    }

    fn secret(&self, field: &Field<'_>, word: &str, kept: bool) -> Option<String> {
        let (kind, name) = word.split_once(':').unwrap_or((word, ""));
        let found = match kind {
            "file" if !name.is_empty() => read_at_most(&self.path(name), SECRETS_BYTES_MAX)
                .map_err(|why| format!("\"{{file:...}}\" names a file that {why}"))
                .and_then(|bytes| one_line(&String::from_utf8_lossy(&bytes))),
            "env" if !name.is_empty() => match self.env.get(name) {
                Some(text) => one_line(text),
                None => Err("\"{env:...}\" names a variable not set".to_owned()),
            },
            _ => {
                let also = if kept { " {alert_id}" } else { "" };
                let message = format!("here may stand {{file:NAME}} {{env:NAME}}{also}");
                let words = WORDS.into_iter().chain(kept.then_some("alert_id"));
                let near = nearest(kind, words).map(|near| match near {
                    "alert_id" => ALERT_ID.to_owned(),
                    kind => format!("{{{kind}:NAME}}"),
                });
                field.problem_meant(message, near);
                return None;
            }
        };
        found.map_err(|why| field.problem(why)).ok()
    }
}

/// The one line that says something.
fn one_line(text: &str) -> Result<String, String> {
    let mut lines = text.lines().map(str::trim);
    let mut lines = lines.by_ref().filter(|line| !line.is_empty() && !line.starts_with('#'));
    match (lines.next(), lines.next()) {
        (Some(line), None) if line.len() <= VALUE_BYTES_MAX => Ok(line.to_owned()),
        (Some(_), None) => Err(format!("a secret here has at most {VALUE_BYTES_MAX} bytes")),
        (None, _) => Err("this leads to no secret: it is empty".to_owned()),
        (Some(_), Some(_)) => Err("this leads to several lines; one is needed".to_owned()),
    }
}

/// Reads what an endpoint says of its requests over how its form makes them.
pub(super) fn read(
    table: &Table<'_>,
    surroundings: &Surroundings,
    (method, content_type): (Method, &'static str),
) -> Manner {
    let stated = table.get("method").and_then(|field| field.word(&["POST", "PUT", "PATCH"]));
    let method = match stated {
        Some("PUT") => Method::PUT,
        Some("PATCH") => Method::PATCH,
        Some(_) => Method::POST,
        None => method,
    };
    let content_type = table
        .get("content_type")
        .and_then(|field| stated_type(&field))
        .unwrap_or_else(|| HeaderValue::from_static(content_type));
    let mut headers: Vec<(hyper::header::HeaderName, HeaderValue)> = Vec::new();
    if let Some(field) = table.get("headers") {
        let given = field.table().map(|table| (table.entries(), table));
        for entry in given.iter().flat_map(|(entries, _)| entries) {
            let Some(value) = surroundings.filled(entry, false) else {
                continue;
            };
            match header(entry.name, &value) {
                Ok((name, _)) if headers.iter().any(|(known, _)| *known == name) => {
                    entry.problem_of_word("this header stands here already", None);
                }
                Ok(made) => headers.push(made),
                Err(error @ HeaderError::Value) => entry.problem(error.to_string()),
                Err(error) => entry.problem_of_word(error.to_string(), None),
            }
        }
        if headers.len() > HEADERS_MAX {
            field.problem(format!("at most {HEADERS_MAX} headers"));
        }
        if let Some((_, table)) = given {
            table.finish();
        }
    }
    Manner { method, content_type, headers, secrets: None }
}

fn stated_type(field: &Field<'_>) -> Option<HeaderValue> {
    let text = field.text()?;
    let plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    let shaped = text.split_once('/').is_some_and(|(kind, rest)| {
        !kind.is_empty() && !rest.is_empty() && text.bytes().all(plain)
    });
    if !shaped || text.len() > CONTENT_TYPE_BYTES_MAX {
        field.problem("\"content_type\" is written as in \"application/json\"");
        return None;
    }
    HeaderValue::try_from(text).ok()
}
