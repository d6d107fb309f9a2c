//! What a sender said, before anything is decided: the common form of pixel and beacon.

use engine::attribute::Level;
use engine::hit::{NAME_BYTES_MAX, PROPERTIES_MAX, VALUE_BYTES_MAX};
use engine::identity::IdentityKind;

use super::fact::Fact;
use super::reject::Reject;

/// Longest hit id, nonce or device id, in bytes.
pub const ID_BYTES_MAX: usize = 128;

/// One hit as it was sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawHit {
    /// `s`: the site's key.
    pub site: String,
    /// `e`: what it is; a page view if nothing.
    pub event: String,
    /// `u`: the page's address.
    pub url: String,
    /// `t`: the page's title.
    pub title: String,
    /// `r`: where the browser came from.
    pub referrer: String,
    /// `i`: the hit's own id.
    pub id: String,
    /// `n`: the page view's nonce.
    pub nonce: String,
    /// `v`: a page token or a cookie's value.
    pub token: String,
    /// `c`: whether the person agreed.
    pub consent: Option<bool>,
    /// `at`: when it happened, by the client's clock.
    pub at: Option<u64>,
    /// `st`: when it was sent, by the client's clock.
    pub sent: Option<u64>,
    /// `ms`: engaged time on this page view so far.
    pub engaged_ms: u32,
    /// `sc`: the farthest part of the page shown, in percent.
    pub scroll: u8,
    /// `p`: what the event says about itself.
    pub properties: Vec<(String, String)>,
    /// `id`: who it is.
    pub identities: Vec<(IdentityKind, String)>,
    /// `id.hmac`: the site's server's signature of the first identity, in hex.
    pub hmac: String,
    /// `id.exp`: until when it is good, as it was signed.
    pub exp: String,
    /// `id.kiosk`: the form stands where many people use one browser.
    pub kiosk: bool,
    /// `id.level`, with a server key: of whom the attributes are.
    pub level: Level,
    /// `id.attributes`: what is known of them.
    pub attributes: Vec<(String, String)>,
    /// Facts among them, in canonical form; nothing of one that cannot be read.
    pub facts: Vec<(Fact, Option<String>)>,
    /// `silent`, with a server key: nobody is told.
    pub silent: bool,
    /// `d`: a device id, with a server key.
    pub device: String,
    /// `ip`: the address of whom a server speaks.
    pub ip: String,
    /// `ua`: their user agent.
    pub agent: String,
}

impl RawHit {
    /// What is too long or too much is refused by name; URL and title are cut instead, since
    /// pages do not choose them.
    pub fn check(&self) -> Result<(), Reject> {
        let short = |text: &str, most: usize, field: &'static str| {
            (text.len() <= most).then_some(()).ok_or(Reject::TooLong(field))
        };
        short(&self.event, NAME_BYTES_MAX, "e")?;
        short(&self.id, ID_BYTES_MAX, "i")?;
        short(&self.nonce, ID_BYTES_MAX, "n")?;
        short(&self.device, ID_BYTES_MAX, "d")?;
        short(&self.hmac, ID_BYTES_MAX, "id.hmac")?;
        short(&self.exp, ID_BYTES_MAX, "id.exp")?;
        for (list, field) in [(&self.properties, "p"), (&self.attributes, "id.attributes")] {
            if list.len() > PROPERTIES_MAX {
                return Err(Reject::TooManyProperties);
            }
            for (name, value) in list {
                short(name, NAME_BYTES_MAX, field)?;
                short(value, VALUE_BYTES_MAX, field)?;
            }
        }
        if self.event.chars().any(char::is_control) {
            return Err(Reject::MalformedField("e"));
        }
        Ok(())
    }
}

/// The text up to a number of bytes, cut between characters and without control characters.
pub fn cut(text: &str, bytes_max: usize) -> String {
    let text = &text[..text.floor_char_boundary(bytes_max.min(text.len()))];
    // Nearly no text has any: so the bytes are looked at, of which only these may begin one.
    if text.bytes().any(|byte| byte < b' ' || byte == 0x7f || byte == 0xc2) {
        return text.chars().filter(|c| !c.is_control()).collect();
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_loses_its_control_characters() {
        for (text, kept) in [
            ("", ""),
            ("plain", "plain"),
            ("a\tb\u{7f}c\u{80}d\u{9f}e\0", "abcde"),
            ("£5 \u{a0}é 料金", "£5 \u{a0}é 料金"),
        ] {
            assert_eq!(cut(text, 100), kept);
        }
        assert_eq!((cut("料金", 5).as_str(), cut("料金", 2).as_str()), ("料", ""));
    }
}
