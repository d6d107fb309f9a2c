//! One way to read a TOML table: fields are asked for by name and type, every refusal knows its
//! line and column, and at the end whatever nobody asked for is reported with the nearest known
//! word. So no key is ignored in silence, and the list of known words is never written twice.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::problem::{Problem, Problems, half_width, nearest};
use super::spelling::{likely_duration, parse_duration, syntax_message};

/// Longest text of a setting, in bytes.
const TEXT_BYTES_MAX: usize = 4_096;
/// Longest name a person gives to something, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 64;
/// What every variable that sets something begins with.
const VARIABLE_PREFIX: &str = "MIKOMI__";
/// Known words listed when none is near.
const WORDS_LISTED_MAX: usize = 16;

/// A text being read, and where its problems go.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub file: &'a str,
    /// Nothing for the environment, which has no lines.
    text: Option<&'a str>,
    problems: &'a Problems,
}

impl<'a> Source<'a> {
    pub fn new(file: &'a str, text: &'a str, problems: &'a Problems) -> Source<'a> {
        Source { file, text: Some(text), problems }
    }

    /// Parses the text. Where it stops being TOML is reported, and then nothing comes back: what
    /// a parser says after that, and what is missing then, only buries the cause.
    pub fn parse(self) -> Option<DeTable<'a>> {
        let text = self.text?;
        let (table, errors) = DeTable::parse_recoverable(text);
        let offset = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
        let is_repeated = |error: &&toml::de::Error| error.message() == "duplicate key";
        match errors.iter().filter(|error| !is_repeated(error)).min_by_key(|error| offset(error)) {
            Some(first) => {
                let (at, message) = syntax_message(text, offset(first), first.message());
                self.report(at, message, None);
            }
            None => {
                for error in errors.iter().filter(is_repeated) {
                    self.report(offset(error), "this word stands here twice".to_owned(), None);
                }
            }
        }
        errors.is_empty().then(|| table.into_inner())
    }

    /// Reports a problem at a byte.
    pub fn report(self, offset: usize, message: String, suggestion: Option<String>) {
        // Finding a line costs its distance from the beginning; a thousand are not looked for.
        if self.problems.is_full() {
            return self.problems.pass_over();
        }
        let problem = match self.text {
            Some(text) => Problem::at(self.file, text, offset, message),
            None => Problem::of_file(self.file, message),
        };
        self.problems.add(problem.meant(suggestion));
    }
}

/// A word as it may be repeated to a person: not a whole page, and nothing that looks secret.
pub(super) fn quoted(word: &str) -> String {
    if word.contains("whsec_") {
        return "(hidden)".to_owned();
    }
    let mut shown: String = word.chars().take(NAME_BYTES_MAX).collect();
    if shown.len() < word.len() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

/// The variables that may set something: `MIKOMI__section__key`.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    variables: BTreeMap<String, String>,
    known: RefCell<BTreeSet<String>>,
}

impl Environment {
    pub fn new(variables: &BTreeMap<String, String>) -> Environment {
        let ours = |(name, value): (&String, &String)| {
            name.starts_with(VARIABLE_PREFIX).then(|| (name.clone(), value.clone()))
        };
        Environment {
            variables: variables.iter().filter_map(ours).collect(),
            known: RefCell::default(),
        }
    }

    fn get(&self, section: &str, key: &str) -> Option<(&str, &str)> {
        let name = format!("{VARIABLE_PREFIX}{section}__{key}");
        let found = self.variables.get_key_value(&name);
        self.known.borrow_mut().insert(name);
        found.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Reports the variables that nobody asked for.
    pub fn finish(&self, problems: &Problems) {
        let known = self.known.borrow();
        for name in self.variables.keys().filter(|name| !known.contains(*name)) {
            // A name may be long; `nearest` compares short words, and the prefix is all alike.
            let tail = name.strip_prefix(VARIABLE_PREFIX).unwrap_or(name);
            let tails = known.iter().filter_map(|name| name.strip_prefix(VARIABLE_PREFIX));
            let meant = nearest(tail, tails).map(|tail| format!("{VARIABLE_PREFIX}{tail}"));
            let problem = Problem::of_file(name, "sets nothing: no setting has this name");
            problems.add(problem.meant(meant));
        }
    }
}

#[derive(Clone, Copy)]
struct Layer<'a> {
    source: Source<'a>,
    entries: &'a DeTable<'a>,
    at: usize,
}

/// A table whose fields are asked for one by one.
pub(crate) struct Table<'a> {
    /// The first that has a key decides.
    layers: Vec<Layer<'a>>,
    overlay: Option<(&'a Environment, &'static str)>,
    known: RefCell<BTreeSet<&'static str>>,
    missing: RefCell<Vec<&'static str>>,
    open: Cell<bool>,
}

impl<'a> Table<'a> {
    /// The whole of a file.
    pub fn root(source: Source<'a>, entries: &'a DeTable<'a>) -> Table<'a> {
        Table::of_layers(vec![Layer { source, entries, at: 0 }])
    }

    fn of_layers(layers: Vec<Layer<'a>>) -> Table<'a> {
        Table {
            layers,
            overlay: None,
            known: RefCell::default(),
            missing: RefCell::default(),
            open: Cell::new(false),
        }
    }

    /// A file over the file of defaults.
    #[must_use]
    pub fn over(mut self, defaults: &Table<'a>) -> Table<'a> {
        self.layers.extend(defaults.layers.iter().copied());
        self
    }

    /// The section of this name, of all layers, with the environment above them.
    pub fn section(&self, name: &'static str, environment: &'a Environment) -> Table<'a> {
        self.known.borrow_mut().insert(name);
        let layers = self.layers.iter().filter_map(|layer| layer.field(name)?.layer());
        Table { overlay: Some((environment, name)), ..Table::of_layers(layers.collect()) }
    }

    /// A field, if it is written.
    pub fn get(&self, key: &'static str) -> Option<Field<'a>> {
        self.known.borrow_mut().insert(key);
        let variable = self.overlay.and_then(|(environment, section)| {
            let (name, value) = environment.get(section, key)?;
            Some(Field {
                source: Source {
                    file: name,
                    text: None,
                    problems: self.layers.first()?.source.problems,
                },
                name: key,
                value: Value::Variable(value),
                at: 0,
                key_at: 0,
            })
        });
        variable.or_else(|| self.layers.iter().find_map(|layer| layer.field(key)))
    }

    /// A field that must be written; `finish` reports its absence.
    pub fn need(&self, key: &'static str) -> Option<Field<'a>> {
        let found = self.get(key);
        if found.is_none() {
            self.missing.borrow_mut().push(key);
        }
        found
    }

    /// All fields of a table whose words are free, in the order of the file.
    pub fn entries(&self) -> Vec<Field<'a>> {
        self.open.set(true);
        let mut fields: Vec<Field<'a>> = self.layers.first().map_or_else(Vec::new, |layer| {
            let names = layer.entries.keys();
            names.filter_map(|key| layer.field(key.get_ref())).collect()
        });
        fields.sort_by_key(|field| field.key_at);
        fields
    }

    /// Whether every word that is written was asked for so far.
    pub fn is_known(&self) -> bool {
        let known = self.known.borrow();
        let keys = self.layers.iter().flat_map(|layer| layer.entries.keys());
        keys.into_iter().all(|key| known.contains(&**key.get_ref()))
    }

    /// Reports a problem of the table as a whole.
    pub fn problem(&self, message: impl Into<String>) {
        if let Some(layer) = self.layers.first() {
            layer.source.report(layer.at, message.into(), None);
        }
    }

    /// Reports what nobody asked for, and what is missing.
    pub fn finish(self) {
        let known = self.known.into_inner();
        let mut meant = BTreeSet::new();
        for layer in self.layers.iter().filter(|_| !self.open.get()) {
            for key in layer.entries.keys() {
                let word: &str = key.get_ref();
                if known.contains(word) {
                    continue;
                }
                let near = nearest(word, known.iter().copied());
                meant.extend(near);
                let message = match near {
                    None if known.len() <= WORDS_LISTED_MAX => {
                        let words: Vec<&str> = known.iter().copied().collect();
                        let words = words.join(", ");
                        format!("unknown word {}; known here: {words}", quoted(word))
                    }
                    _ => format!("unknown word {}", quoted(word)),
                };
                let near = near.map(str::to_owned);
                layer.source.report(key.span().start, message, near);
            }
        }
        let missing = self.missing.into_inner();
        if let Some(layer) = self.layers.first() {
            // A misspelt word is one mistake, not two.
            for key in missing.iter().filter(|key| !meant.contains(**key)) {
                let message = format!("\"{key}\" is missing");
                layer.source.report(layer.at, message, None);
            }
        }
    }
}

impl<'a> Layer<'a> {
    fn field(&self, key: &str) -> Option<Field<'a>> {
        let (key, value) = self.entries.get_key_value(key)?;
        Some(Field {
            source: self.source,
            name: key.get_ref(),
            value: Value::Toml(value.get_ref()),
            at: value.span().start,
            key_at: key.span().start,
        })
    }
}

/// One written value, and where it stands.
#[derive(Clone, Copy)]
pub(crate) struct Field<'a> {
    source: Source<'a>,
    /// The word it was asked for by; an element of a list has its list's.
    pub name: &'a str,
    value: Value<'a>,
    at: usize,
    key_at: usize,
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Toml(&'a DeValue<'a>),
    Variable(&'a str),
}

impl<'a> Field<'a> {
    /// Reports a problem of the value.
    pub fn problem(&self, message: impl Into<String>) {
        self.source.report(self.at, message.into(), None);
    }

    /// Reports a problem of the value, with what was probably meant.
    pub fn problem_meant(&self, message: impl Into<String>, suggestion: Option<String>) {
        self.source.report(self.at, message.into(), suggestion);
    }

    /// Reports a problem of the word itself.
    pub fn problem_of_word(&self, message: impl Into<String>, suggestion: Option<String>) {
        self.source.report(self.key_at, message.into(), suggestion);
    }

    /// Reports a problem at the first place where a part of the value stands in the file.
    pub fn problem_within(&self, part: &str, message: String, suggestion: Option<String>) {
        let text = self.source.text.unwrap_or_default();
        let within = text.get(self.at..).and_then(|rest| rest.find(part));
        let at = self.at + within.unwrap_or_default();
        self.source.report(at, message, suggestion);
    }

    /// How many problems were reported so far, to tell whether a part has any of its own.
    pub fn problems_so_far(&self) -> usize {
        self.source.problems.count()
    }

    fn needs(&self, what: &str) {
        self.problem(format!("{} needs {what}", quoted(self.name)));
    }

    fn layer(&self) -> Option<Layer<'a>> {
        match self.value {
            Value::Toml(DeValue::Table(entries)) => {
                Some(Layer { source: self.source, entries, at: self.at })
            }
            Value::Toml(_) | Value::Variable(_) => {
                self.needs("a table, as in { word = value }");
                None
            }
        }
    }

    /// A table.
    pub fn table(&self) -> Option<Table<'a>> {
        Some(Table::of_layers(vec![self.layer()?]))
    }

    /// Text, whatever it says.
    pub fn text(&self) -> Option<&'a str> {
        let text: &str = match self.value {
            Value::Toml(DeValue::String(text)) => text,
            Value::Variable(text) => text,
            Value::Toml(_) => {
                self.needs("text in quotes");
                return None;
            }
        };
        if text.len() > TEXT_BYTES_MAX {
            self.needs(&format!("at most {TEXT_BYTES_MAX} bytes"));
            return None;
        }
        if text.chars().any(char::is_control) {
            self.needs("text without line breaks and control characters");
            return None;
        }
        Some(text)
    }

    /// Text that says something; the empty text stands for "not set".
    pub fn set_text(&self) -> Option<&'a str> {
        self.text().filter(|text| !text.is_empty())
    }

    /// A name: letters, digits, `_`, `-` and `.`.
    pub fn name(&self) -> Option<&'a str> {
        let text = self.text()?;
        self.check_name(text).then_some(text)
    }

    /// Whether a text, the value or the word of this field, can be a name; reports if not.
    pub fn check_name(&self, text: &str) -> bool {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let good = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(fine);
        if !good {
            let message = format!(
                "a name has 1 to {NAME_BYTES_MAX} letters a-z, digits, \"_\", \"-\" or \".\""
            );
            let near = half_width(text).filter(|text| text.bytes().all(fine));
            self.problem_meant(message, near);
        }
        good
    }

    /// True or false.
    pub fn flag(&self) -> Option<bool> {
        match self.value {
            Value::Toml(DeValue::Boolean(flag)) => Some(*flag),
            Value::Variable("true") => Some(true),
            Value::Variable("false") => Some(false),
            Value::Toml(_) | Value::Variable(_) => {
                self.needs("true or false, without quotes");
                None
            }
        }
    }

    /// A whole number within a range.
    pub fn whole(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let number = match self.value {
            Value::Toml(DeValue::Integer(number)) => {
                i64::from_str_radix(number.as_str(), number.radix()).ok()
            }
            Value::Variable(text) => text.trim().parse().ok(),
            Value::Toml(DeValue::String(text)) => {
                let plain = half_width(text);
                let plain = plain.as_deref().unwrap_or(text).trim();
                let number = plain.parse::<i64>().ok().map(|number| number.to_string());
                let message = format!("{} needs a whole number, without quotes", quoted(self.name));
                self.problem_meant(message, number);
                return None;
            }
            Value::Toml(_) => None,
        };
        let Some(number) = number else {
            self.needs("a whole number");
            return None;
        };
        if !range.contains(&number) {
            self.needs(&format!("a number from {} to {}", range.start(), range.end()));
            return None;
        }
        Some(number)
    }

    /// Any number.
    pub fn number(&self) -> Option<f64> {
        let number = match self.value {
            Value::Toml(DeValue::Integer(_)) => {
                Some(self.whole(-1_000_000_000..=1_000_000_000)? as f64)
            }
            Value::Toml(DeValue::Float(number)) => number.as_str().replace('_', "").parse().ok(),
            Value::Variable(text) => text.trim().parse().ok(),
            Value::Toml(_) => None,
        };
        let number: Option<f64> = number.filter(|number: &f64| number.is_finite());
        if number.is_none() {
            self.needs("a number");
        }
        number
    }

    /// The line it stands in, from 1.
    pub fn line(&self) -> u32 {
        let text = self.source.text.unwrap_or_default();
        let before = text.as_bytes().get(..self.at).unwrap_or_default();
        before.split(|byte| *byte == b'\n').count() as u32
    }

    /// A whole number of things, from `min` up to a thousand million million.
    pub fn count(&self, min: u64) -> Option<u64> {
        let max = 1_000_000_000_000_000;
        let number = self.whole(min as i64..=max)?;
        Some(number as u64)
    }

    /// A length of time in quotes: `"90d"`, `"24h"`, `"30m"`, `"60s"`, `"500ms"`.
    pub fn duration(&self) -> Option<Duration> {
        let (text, message) = match self.value {
            Value::Toml(DeValue::String(text)) => {
                (&**text, "needs a time such as \"14d\", \"24h\", \"30m\", \"60s\"")
            }
            Value::Variable(text) => (text, "needs a time such as 14d, 24h, 30m, 60s"),
            Value::Toml(DeValue::Integer(number)) => {
                let message = format!(
                    "\"{}\" needs a time with its unit, in quotes, such as \"{number}d\"",
                    self.name
                );
                self.problem(message);
                return None;
            }
            Value::Toml(_) => ("", "needs a time such as \"14d\", \"24h\", \"30m\", \"60s\""),
        };
        let parsed = parse_duration(text);
        if parsed.is_none() {
            let message = format!("{} {message}", quoted(self.name));
            self.problem_meant(message, likely_duration(text));
        }
        parsed
    }

    /// A time of day, `09:00` to `24:00`, as what has passed since midnight.
    pub fn time_of_day(&self) -> Option<Duration> {
        let text = self.text()?;
        let parsed = text.split_once(':').and_then(|(hours, minutes)| {
            let whole = |part: &str| {
                let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
                part.parse::<u16>().ok().filter(|_| digits)
            };
            let (hours, minutes) = (whole(hours)?, whole(minutes)?);
            (hours * 60 + minutes <= 1_440 && minutes < 60).then_some(hours * 60 + minutes)
        });
        if parsed.is_none() {
            let meant = (text.len() == 4 && text.as_bytes()[1] == b':').then(|| format!("0{text}"));
            self.problem_meant("a time of day is written as \"09:00\"", meant);
        }
        parsed.map(|minutes| Duration::from_mins(minutes.into()))
    }

    /// A number of milliseconds within a range.
    pub fn millis(&self, range: RangeInclusive<i64>) -> Option<Duration> {
        Some(Duration::from_millis(self.whole(range)? as u64))
    }

    /// The elements of a list.
    pub fn list(&self) -> Option<Vec<Field<'a>>> {
        match self.value {
            Value::Toml(DeValue::Array(elements)) => {
                let element = |element: &'a toml::Spanned<DeValue<'a>>| Field {
                    value: Value::Toml(element.get_ref()),
                    at: element.span().start,
                    ..*self
                };
                Some(elements.iter().map(element).collect())
            }
            Value::Variable(text) => {
                let parts = text.split(',').map(str::trim);
                let element = |part| Field { value: Value::Variable(part), ..*self };
                Some(parts.filter(|part| !part.is_empty()).map(element).collect())
            }
            Value::Toml(_) => {
                self.needs("a list, as in [\"a\", \"b\"]");
                None
            }
        }
    }

    /// One text, or a list of them that is not empty.
    pub fn one_or_more(&self) -> Option<Vec<Field<'a>>> {
        if let Value::Toml(DeValue::String(_)) = self.value {
            return Some(vec![*self]);
        }
        let list = self.list()?;
        if list.is_empty() {
            self.needs("at least one value, or leave it out");
            return None;
        }
        Some(list)
    }

    /// One of a few words.
    pub fn word(&self, words: &[&'static str]) -> Option<&'static str> {
        let text = self.text()?;
        let found = words.iter().copied().find(|word| *word == text);
        if found.is_none() {
            let near = nearest(text, words.iter().copied()).map(str::to_owned);
            let choices: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            let message = format!(
                "\"{}\" cannot be {}; it is {}",
                self.name,
                quoted(text),
                choices.join(" or ")
            );
            self.problem_meant(message, near);
        }
        found
    }

    /// A day: TOML's own form of one, or the text of it.
    pub fn date_text(&self) -> Option<String> {
        match self.value {
            Value::Toml(DeValue::Datetime(date)) => Some(date.to_string()),
            Value::Toml(_) | Value::Variable(_) => Some(self.text()?.to_owned()),
        }
    }

    /// Whether the value is a table.
    pub fn is_table(&self) -> bool {
        matches!(self.value, Value::Toml(DeValue::Table(_)))
    }

    /// Whether the value is text, whatever it says.
    pub fn is_text(&self) -> bool {
        matches!(self.value, Value::Toml(DeValue::String(_)) | Value::Variable(_))
    }
}
