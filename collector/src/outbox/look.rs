//! How an endpoint's messages look: the JSON body, or what a chat or a company's own system takes.
//! What comes out is what is sent, byte for byte, and is frozen as such.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::OnceLock;

use engine::scoring::Text;
use hyper::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::chat::Wording;
use super::template::{Template, TemplateError};

/// Bytes of a Chatwork message, in plain words: two public integrations report 2,048.
pub const CHATWORK_BYTES_MAX: usize = 1_999;

/// A language that people read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lang {
    /// Japanese.
    #[default]
    Ja,
    /// English.
    En,
}

impl Lang {
    /// Both, by name.
    pub const NAMES: [&'static str; 2] = ["ja", "en"];

    /// Reads the name.
    pub fn parse(name: &str) -> Option<Lang> {
        match name {
            "ja" => Some(Lang::Ja),
            "en" => Some(Lang::En),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Lang::Ja => "ja",
            Lang::En => "en",
        }
    }

    /// A text in it.
    pub fn of(self, text: &Text) -> &str {
        match self {
            Lang::Ja => &text.ja,
            Lang::En => &text.en,
        }
    }
}

/// What takes the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// A program that reads our JSON, signed.
    #[default]
    Json,
    /// A Slack incoming webhook.
    Slack,
    /// A Chatwork room.
    Chatwork,
    /// A kintone app.
    Kintone,
    /// A Salesforce object.
    Salesforce,
}

impl Form {
    /// All forms.
    pub const ALL: [Form; 5] =
        [Form::Json, Form::Slack, Form::Chatwork, Form::Kintone, Form::Salesforce];
    /// Their names, in the same order.
    pub const NAMES: [&'static str; 5] = ["json", "slack", "chatwork", "kintone", "salesforce"];

    /// Reads the name.
    pub fn parse(name: &str) -> Option<Form> {
        Form::ALL.into_iter().find(|form| form.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Form::NAMES[self as usize]
    }

    /// Whether people read it as it comes: then no address or number of the person is in it
    /// unless that is said.
    pub fn is_chat(self) -> bool {
        matches!(self, Form::Slack | Form::Chatwork)
    }

    /// What it is not shown of a person unless that is said.
    pub fn hidden(self) -> BTreeSet<String> {
        let hidden: &[&str] = if self.is_chat() { &["email", "phone"] } else { &[] };
        hidden.iter().map(|name| (*name).to_owned()).collect()
    }

    /// The method and content type of its requests.
    pub fn request(self) -> (Method, &'static str) {
        match self {
            Form::Json | Form::Slack => (Method::POST, "application/json"),
            Form::Chatwork => (Method::POST, "application/x-www-form-urlencoded"),
            Form::Kintone => (Method::PUT, "application/json"),
            Form::Salesforce => (Method::PATCH, "application/json"),
        }
    }

    /// Its template as it ships; the JSON body needs none.
    pub fn template(self, lang: Lang) -> Option<&'static str> {
        match (self, lang) {
            (Form::Json, _) => None,
            (Form::Slack, Lang::Ja) => Some(include_str!("../../../config/templates/slack.ja.j2")),
            (Form::Slack, Lang::En) => Some(include_str!("../../../config/templates/slack.en.j2")),
            (Form::Chatwork, Lang::Ja) => {
                Some(include_str!("../../../config/templates/chatwork.ja.j2"))
            }
            (Form::Chatwork, Lang::En) => {
                Some(include_str!("../../../config/templates/chatwork.en.j2"))
            }
            (Form::Kintone, _) => Some(include_str!("../../../config/templates/kintone.j2")),
            (Form::Salesforce, _) => Some(include_str!("../../../config/templates/salesforce.j2")),
        }
    }

    /// The same, read.
    fn built_in(self, lang: Lang) -> Option<&'static Template> {
        static READ: [OnceLock<Option<Template>>; 10] = [const { OnceLock::new() }; 10];
        let place = self as usize * 2 + lang as usize;
        let read = || Template::new(self.template(lang)?).ok();
        READ[place].get_or_init(read).as_ref()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Look {
    /// What takes it.
    pub form: Form,
    /// What people there read.
    pub lang: Lang,
    /// The number of the app, for kintone.
    pub app: Option<u64>,
    /// A template of one's own.
    pub template: Option<Template>,
}

/// A message as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The request's body.
    pub bytes: Vec<u8>,
    /// Why it is in the form that ships, and not in one's own.
    pub failed: Option<TemplateError>,
}

/// What a template may use.
#[derive(Serialize)]
struct Context<'a> {
    #[serde(flatten)]
    body: &'a Value,
    chat: &'a Wording,
    lang: &'static str,
    app: Option<u64>,
}

impl Look {
    /// Whether it is our JSON, in full.
    pub fn is_ours(&self) -> bool {
        self.form == Form::Json && self.template.is_none()
    }

    /// A message as it is sent. If the template fails, the one that ships takes its place, and
    /// that is said: a message is never lost to a mistake in a template.
    pub fn render(&self, body: &Value, chat: &Wording) -> Rendered {
        let own = self.template.as_ref().map(|template| self.with(template, body, chat));
        let failed = match own {
            Some(Ok(bytes)) => return Rendered { bytes, failed: None },
            Some(Err(error)) => Some(error),
            None => None,
        };
        let Some(built_in) = self.form.built_in(self.lang) else {
            return Rendered { bytes: body.to_string().into_bytes(), failed };
        };
        match self.with(built_in, body, chat) {
            Ok(bytes) => Rendered { bytes, failed },
            Err(error) => {
                Rendered { bytes: self.plain(body, chat), failed: failed.or(Some(error)) }
            }
        }
    }

    /// Renders with one template, or says why not.
    pub fn with(
        &self,
        template: &Template,
        body: &Value,
        chat: &Wording,
    ) -> Result<Vec<u8>, TemplateError> {
        let text = |chat: &Wording| {
            template.render(Context { body, chat, lang: self.lang.name(), app: self.app })
        };
        match self.form {
            Form::Json => Ok(text(chat)?.into_bytes()),
            Form::Slack | Form::Kintone | Form::Salesforce => {
                let read: Result<Value, _> = serde_json::from_str(&text(chat)?);
                // Its own words would repeat what stands there.
                let wrong = |error: serde_json::Error| TemplateError {
                    line: 0,
                    why: format!(
                        "what comes out is not JSON (its line {}, column {})",
                        error.line(),
                        error.column()
                    ),
                };
                Ok(read.map_err(wrong)?.to_string().into_bytes())
            }
            Form::Chatwork => {
                let mut chat = chat.clone();
                let mut said = text(&chat)?;
                while said.len() > CHATWORK_BYTES_MAX {
                    if !chat.shorten() {
                        let why = format!("more than {CHATWORK_BYTES_MAX} bytes");
                        return Err(TemplateError { line: 0, why });
                    }
                    said = text(&chat)?;
                }
                Ok(form_field("body", &said))
            }
        }
    }

    /// The first line alone: what is left when no template can be rendered.
    fn plain(&self, body: &Value, chat: &Wording) -> Vec<u8> {
        match self.form {
            Form::Slack => json!({ "text": chat.headline }).to_string().into_bytes(),
            Form::Chatwork => form_field("body", &chat.headline),
            Form::Json | Form::Kintone | Form::Salesforce => body.to_string().into_bytes(),
        }
    }
}

/// A form of one field.
pub fn form_field(name: &str, value: &str) -> Vec<u8> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair(name, value);
    form.finish().into_bytes()
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
