//! Templates: how a message is laid out for a receiver, in a file that people may edit. Whatever
//! stands in a message is data to it: no text of a visitor is ever read as a template.

use std::fmt;

use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error, State, UndefinedBehavior, escape_formatter};
use serde::Serialize;

/// What one rendering may cost, in the template engine's steps: a loop without end is cut.
const FUEL: u64 = 100_000;
/// Longest text rendered, in bytes: far above any body that a receiver takes.
const RENDERED_BYTES_MAX: usize = 256 << 10;
/// The one template of an environment.
const NAME: &str = "message";

/// A template, read once.
pub struct Template(Environment<'static>);

/// Why a template cannot be read or rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// The line, from 1; 0 if it is not known.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.why),
            line => write!(f, "line {line}: {}", self.why),
        }
    }
}

impl std::error::Error for TemplateError {}

impl From<Error> for TemplateError {
    fn from(error: Error) -> TemplateError {
        let kind = error.kind().to_string();
        let why = error.detail().map_or(kind.clone(), |detail| format!("{kind}: {detail}"));
        TemplateError { line: error.line().unwrap_or(0), why }
    }
}

impl Template {
    /// Reads a template.
    pub fn new(source: &str) -> Result<Template, TemplateError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_formatter(|out, state, value| {
            if value.is_none() { Ok(()) } else { escape_formatter(out, state, value) }
        });
        environment.add_filter("slack", slack);
        environment.add_filter("slack_link", slack_link);
        environment.add_filter("chatwork", chatwork);
        environment.add_filter("cut", cut);
        environment.add_filter("seconds", seconds);
        environment.add_template_owned(NAME, source.to_owned())?;
        Ok(Template(environment))
    }

    /// Renders it with what a message says.
    pub fn render(&self, message: impl Serialize) -> Result<String, TemplateError> {
        let mut out = Bounded(Vec::new());
        let template = self.0.get_template(NAME)?;
        template.render_captured_to(Serde(message), &mut out)?;
        let text = String::from_utf8(out.0);
        text.map_err(|_| TemplateError { line: 0, why: "the text is not UTF-8".to_owned() })
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Template")
    }
}

/// Takes so much and no more.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > RENDERED_BYTES_MAX {
            let why = format!("more than {RENDERED_BYTES_MAX} bytes");
            return Err(std::io::Error::other(why));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A text in which Slack sees no markup.
fn slack(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// An address that may stand between `<` and `|` in Slack.
fn slack_link(address: &str) -> String {
    address.replace('<', "%3C").replace('>', "%3E").replace('|', "%7C").replace(' ', "%20")
}

/// A text in which Chatwork sees no markup. It has no escape, so the bracket becomes a wide one.
fn chatwork(text: &str) -> String {
    text.replace('[', "［")
}

/// At most so many characters as JavaScript and Java count them, which most receivers do; an
/// escaped sign is not cut in half.
fn cut(text: Option<&str>, most: usize) -> Value {
    let Some(text) = text else {
        return Value::from(());
    };
    let mut units = 0;
    // Where the text must end if it is too long: there is room for the mark of that.
    let mut end = 0;
    for (at, letter) in text.char_indices() {
        if units < most {
            end = at;
        }
        units += letter.len_utf16();
    }
    if units <= most {
        return Value::from(text);
    }
    let kept = &text[..end];
    let whole = match kept.rfind('&') {
        Some(sign) if !kept[sign..].contains(';') => &kept[..sign],
        _ => kept,
    };
    Value::from(format!("{whole}…"))
}

/// A moment without the part of a second: not everybody reads it.
fn seconds(_: &State<'_, '_>, moment: Option<&str>) -> Value {
    let Some(moment) = moment else {
        return Value::from(());
    };
    match (moment.split_once('.'), moment.ends_with('Z')) {
        (Some((whole, _)), true) => Value::from(format!("{whole}Z")),
        _ => Value::from(moment),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(source: &str) -> Result<String, TemplateError> {
        let message = json!({
            "name": "a<b>&[c]", "none": null, "n": 3, "at": "2026-12-07T04:00:00.012Z",
        });
        Template::new(source)?.render(message)
    }

    #[test]
    fn a_text_is_data_and_none_is_empty() {
        assert_eq!(rendered("{{ name }}|{{ none }}|{{ n }}").unwrap(), "a<b>&[c]||3");
        assert_eq!(rendered("{{ name | slack }}").unwrap(), "a&lt;b&gt;&amp;[c]");
        assert_eq!(rendered("{{ name | chatwork }}").unwrap(), "a<b>&［c]");
        let json: serde_json::Value =
            serde_json::from_str(&rendered("[{{ name | tojson }}]").unwrap()).unwrap();
        assert_eq!(json, json!(["a<b>&[c]"]));
        assert_eq!(
            rendered("{{ at | seconds }}{{ none | seconds }}").unwrap(),
            "2026-12-07T04:00:00Z"
        );
    }

    #[test]
    fn a_cut_never_halves_a_sign_or_a_letter() {
        let of = |text: &str, most: usize| cut(Some(text), most).to_string();
        assert_eq!(of("abc", 3), "abc");
        assert_eq!(of("abcd", 3), "ab…");
        assert_eq!(of("a&lt;b", 4), "a…");
        assert_eq!(of("a&lt;bcd", 6), "a&lt;…");
        assert_eq!(of("𝄞𝄞𝄞", 4), "𝄞…");
        assert_eq!(of("𝄞𝄞", 4), "𝄞𝄞");
        assert_eq!(of("", 0), "");
        for most in 1..40 {
            let long = cut(Some("&amp;𝄞x&lt;日本&gt;".repeat(5).as_str()), most).to_string();
            assert!(long.encode_utf16().count() <= most, "{most}: {long}");
        }
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let unread = Template::new("a\n{% if %}").err().unwrap();
        assert_eq!(unread.line, 2, "{unread}");
        let unknown = rendered("a\nb\n{{ nam }}").unwrap_err();
        assert_eq!(unknown.line, 3, "{unknown}");
        assert!(unknown.to_string().starts_with("line 3: undefined value"), "{unknown}");
        assert!(rendered("{{ name | slak }}").is_err());
    }

    #[test]
    fn a_template_without_end_is_cut() {
        let loops = "{% for i in range(99999) %}{% for j in range(99999) %}{{ j }}{% endfor %}";
        assert!(rendered(&format!("{loops}{{% endfor %}}")).is_err());
        let long = format!("{{% for i in range(900) %}}{}{{% endfor %}}", "x".repeat(1_000));
        assert!(rendered(&long).unwrap_err().why.contains("write"));
    }
}
