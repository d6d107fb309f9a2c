//! One-tap answers: links in a message. To open one shows a button and changes nothing, since
//! previews of chats and mail scanners open every link; the button acts. A link says which answer
//! to which alert it is, and is worthless for any other.

use engine::alert::AlertKind;
use engine::id::LeadId;
use engine::record::{Message, Record};
use engine::sales::BY;
use engine::stage::{FeedbackKind, SALES};
use hyper::Response;

use super::page::{self, Shown};
use super::request::{BY_BYTES_MAX, REASON_BYTES_MAX, checked};
use super::{Desk, Refused, Said};
use crate::app::App;
use crate::config::are_same;
use crate::install::Install;
use crate::outbox::message::OWNER;
use crate::server::Body;
use crate::timeline;

/// How long after its alert a link acts.
const LIFE_DAYS: u64 = 90;
/// What alerts' ids begin with; links leave it out.
const ALERT_PREFIX: &str = "msg_";
/// The answers that links give, each by its letter.
const TAPS: [(char, FeedbackKind); 3] =
    [('a', FeedbackKind::Accepted), ('r', FeedbackKind::Rejected), ('s', FeedbackKind::Snooze)];

/// The links by which a message is answered with one tap: taken, no lead, later. Only what asks
/// something of sales has them.
pub fn links(app: &App, alert: &str, message: &Message) -> Option<[String; 3]> {
    let asks = matches!(
        message.kind,
        AlertKind::Hot | AlertKind::Action | AlertKind::Escalated | AlertKind::Reminder
    );
    let tokens = TAPS.map(|(_, kind)| token(&app.install, alert, kind));
    let [Some(accept), Some(reject), Some(later)] = tokens else {
        return None;
    };
    let to_sales = message.audience.as_deref() == Some(SALES);
    let base = app.collector_url();
    (asks && to_sales).then(|| [accept, reject, later].map(|token| format!("{base}/f/{token}")))
}

fn token(install: &Install, alert: &str, kind: FeedbackKind) -> Option<String> {
    let (letter, _) = TAPS.into_iter().find(|(_, known)| *known == kind)?;
    let digits = alert.strip_prefix(ALERT_PREFIX)?;
    Some(format!("{letter}.{digits}.{:032x}", mark(install, digits, letter)))
}

/// What only we can add to an alert and a letter.
fn mark(install: &Install, digits: &str, letter: char) -> u128 {
    let letter = [letter as u8];
    install.alert.hash128(&[b"one tap v1", digits.as_bytes(), &letter])
}

/// Reads a token: which answer, to which alert.
fn read(install: &Install, token: &str) -> Option<(FeedbackKind, String)> {
    let mut parts = token.split('.');
    let (letter, digits, given) = (parts.next()?, parts.next()?, parts.next()?);
    let mut letters = letter.chars();
    let (letter, more) = (letters.next()?, letters.next());
    let (_, kind) = TAPS.into_iter().find(|(known, _)| *known == letter)?;
    let plain = digits.len() <= 32 && digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let whole = plain && more.is_none() && parts.next().is_none();
    let expected = format!("{:032x}", mark(install, digits, letter));
    let same = are_same(expected.as_bytes(), given.as_bytes());
    (whole && same).then(|| (kind, format!("{ALERT_PREFIX}{digits}")))
}

/// What a link is about.
struct Tapped {
    kind: FeedbackKind,
    alert: String,
    about: LeadId,
}

impl Desk {
    /// Shows the button of a link. Nothing about anybody is in it.
    pub fn show_tap(&self, token: &str) -> Response<Body> {
        match self.tapped(token) {
            Some(tapped) => page::page(Shown::Button(tapped.kind)),
            None => page::page(Shown::Void),
        }
    }

    /// Does what the button says. Waits for locks and the disk.
    pub fn tap(&self, token: &str, body: &[u8]) -> Response<Body> {
        let Some(tapped) = self.tapped(token) else {
            self.app.metrics.refuse_feedback(Refused::Unknown.name());
            return page::page(Shown::Void);
        };
        let kind = tapped.kind;
        match self.said_by_tap(&tapped, body).and_then(|said| self.hear(said)) {
            Ok(unheard) => {
                self.count(kind, unheard);
                page::page(unheard.map_or(Shown::Done(kind), Shown::Unheard))
            }
            Err(refused) => {
                self.app.metrics.refuse_feedback(refused.name());
                page::page(Shown::Failed(refused))
            }
        }
    }

    fn tapped(&self, token: &str) -> Option<Tapped> {
        let (kind, alert) = read(&self.app.install, token)?;
        let about = self.lead_of(&alert)?;
        // What is older than the journal is kept was told too long ago.
        let cause: Record = timeline::read(&self.app, self.log.cause(&alert)?).ok()?;
        let age = self.app.clock.now().since(cause.time);
        (age.as_secs() < LIFE_DAYS * 86_400).then_some(Tapped { kind, alert, about })
    }

    /// What a tap says: it is given now, by who says so, else by whom the lead belongs to. The
    /// same link again is the same answer.
    fn said_by_tap(&self, tapped: &Tapped, body: &[u8]) -> Result<Said, Refused> {
        let app = &self.app;
        let mut details = engine::attribute::Attributes::new();
        for (name, value) in form_urlencoded::parse(body) {
            let (field, most) = match name.as_ref() {
                "by" => (BY, BY_BYTES_MAX),
                "reason" => ("reason", REASON_BYTES_MAX),
                _ => continue,
            };
            if let Some(text) = checked(value.trim(), field, most)? {
                details.insert(field.to_owned(), text.to_owned());
            }
        }
        let lead = app.engine.lead(app.engine.head(tapped.about)).ok_or(Refused::Unknown)?;
        if !details.contains_key(BY) {
            let owner = lead.owner().map(str::to_owned);
            let owner = owner.or_else(|| lead.attributes().get(OWNER).cloned());
            details.extend(owner.map(|owner| (BY.to_owned(), owner)));
        }
        let parts = [&b"one tap"[..], tapped.alert.as_bytes(), tapped.kind.name().as_bytes()];
        Ok(Said {
            id: app.install.visitor.hash64(&parts),
            kind: tapped.kind,
            about: tapped.about,
            at: app.clock.now(),
            until: None,
            details,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cookie::CookieKeys;
    use engine::id::Key;

    const ALERT: &str = "msg_5Yk2Qv8dT3mR9sLx0aWbNc";

    fn install(byte: u8) -> Install {
        let key = Key([byte; 16]);
        let cookie = CookieKeys { id: 1, mac: key, seal: key };
        Install { id: key, identity: key, cookie, visitor: key, alert: key }
    }

    #[test]
    fn a_link_reads_back_and_every_edit_makes_it_none() {
        for (_, kind) in TAPS {
            let token = token(&install(7), ALERT, kind).unwrap();
            assert_eq!(read(&install(7), &token), Some((kind, ALERT.to_owned())));
            assert_eq!(read(&install(8), &token), None, "another installation's");
            for place in 0..token.len() {
                for other in ["a", "r", "0", ".", "-"] {
                    let mut edited = token.clone();
                    edited.replace_range(place..=place, other);
                    if edited != token {
                        assert_eq!(read(&install(7), &edited), None, "{edited}");
                    }
                }
            }
            assert_eq!(read(&install(7), &format!("{token}.x")), None);
            assert_eq!(read(&install(7), &token[..token.len() - 1]), None);
        }
    }

    #[test]
    fn what_takes_more_than_a_tap_has_no_link() {
        assert_eq!(token(&install(7), ALERT, FeedbackKind::Won), None);
        assert_eq!(token(&install(7), "other", FeedbackKind::Accepted), None);
    }
}
