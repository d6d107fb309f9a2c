//! Who someone claims or proves to be: a kind and a value, the value in its frozen v1 normal
//! form (trim, NFKC, lower case, IDNA domain). What cannot name a person is refused by name.

use std::fmt;

use unicode_normalization::UnicodeNormalization;

use crate::id::{Key, LeadId};

/// What kind of name an identity is, in the order in which one call's identities pick the head
/// of a lead: the first present wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdentityKind {
    /// The site's own account id.
    UserId,
    /// The sales system's id.
    CrmId,
    /// An e-mail address.
    #[default]
    Email,
}

impl IdentityKind {
    /// All kinds, the one that heads a lead first.
    pub const ORDER: [IdentityKind; 3] = [Self::UserId, Self::CrmId, Self::Email];

    /// The name used on the wire and in hashes. Frozen.
    pub fn name(self) -> &'static str {
        match self {
            Self::UserId => "user_id",
            Self::CrmId => "crm_id",
            Self::Email => "email",
        }
    }

    /// Reads the wire name.
    pub fn parse(name: &str) -> Option<IdentityKind> {
        Self::ORDER.into_iter().find(|kind| kind.name() == name)
    }
}

/// How sure a link between a visitor and a lead is. Greater is surer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Assurance {
    /// A form or a call in a browser said so; nobody proved it.
    #[default]
    Claimed,
    /// Worked out: the browser was proved to be somebody's who is this person by a claim only.
    /// Shown, never stored.
    Derived,
    /// A server with our key, an identity secret, or a click on a link we signed proved it.
    Verified,
}

impl Assurance {
    /// The name in messages and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Derived => "derived",
            Self::Verified => "verified",
        }
    }

    /// Whether somebody proved it all the way.
    pub fn is_proved(self) -> bool {
        self == Self::Verified
    }
}

/// Longest value of an identity, in bytes of its normal form.
pub const IDENTITY_BYTES_MAX: usize = 254;

/// Why a value cannot name a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// Nothing but white space.
    Empty,
    /// More than [`IDENTITY_BYTES_MAX`] bytes.
    TooLong,
    /// A word that programs write when they have no value: `null`, `undefined`, zeros.
    Garbage,
    /// Control characters, or no address where one is needed.
    Malformed,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the identity is empty",
            Self::TooLong => "the identity is longer than 254 bytes",
            Self::Garbage => "the identity is a placeholder, not a person",
            Self::Malformed => "the identity is malformed",
        })
    }
}

/// Words that name nobody, compared after normalisation and without quotes. The union of what
/// PostHog and Segment refuse, with what JavaScript and Python print for "no value".
const GARBAGE: [&str; 22] = [
    "anonymous",
    "guest",
    "distinctid",
    "distinct_id",
    "id",
    "not_authenticated",
    "email",
    "undefined",
    "true",
    "false",
    "[object object]",
    "nan",
    "none",
    "null",
    "nil",
    "unknown",
    "user",
    "user_id",
    "userid",
    "test@test",
    "-1",
    "(null)",
];

/// An identity in its normal form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// What kind of name it is.
    pub kind: IdentityKind,
    value: String,
}

impl Identity {
    /// Parses what somebody sent.
    pub fn parse(kind: IdentityKind, raw: &str) -> Result<Identity, IdentityError> {
        // NFKC can make a text longer; what is absurd beforehand is not worth normalising.
        if raw.len() > 8 * IDENTITY_BYTES_MAX {
            return Err(IdentityError::TooLong);
        }
        let folded: String = raw.trim().nfkc().flat_map(char::to_lowercase).collect();
        let value = folded.trim();
        refuse_garbage(value)?;
        let value = match kind {
            IdentityKind::Email => normal_email(value)?,
            IdentityKind::UserId | IdentityKind::CrmId => value.to_owned(),
        };
        if value.len() > IDENTITY_BYTES_MAX {
            return Err(IdentityError::TooLong);
        }
        Ok(Identity { kind, value })
    }

    /// The normal form.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The lead this identity heads within a namespace of sites.
    pub fn lead(&self, key: &Key, namespace: &str) -> LeadId {
        let parts = [
            b"identity v1".as_slice(),
            namespace.as_bytes(),
            self.kind.name().as_bytes(),
            self.value.as_bytes(),
        ];
        LeadId(key.hash64(&parts))
    }
}

fn refuse_garbage(value: &str) -> Result<(), IdentityError> {
    let bare = value.trim_matches(|c| matches!(c, '"' | '\'' | '`')).trim();
    if bare.is_empty() {
        return Err(IdentityError::Empty);
    }
    if bare.chars().all(|c| c == '0' || c == '-') || GARBAGE.contains(&bare) {
        return Err(IdentityError::Garbage);
    }
    if bare.chars().any(char::is_control) {
        return Err(IdentityError::Malformed);
    }
    Ok(())
}

/// Local part and domain, the domain in its ASCII (IDNA) form and with at least one dot.
fn normal_email(value: &str) -> Result<String, IdentityError> {
    let (local, domain) = value.rsplit_once('@').ok_or(IdentityError::Malformed)?;
    let odd = |c: char| c.is_whitespace() || matches!(c, '@' | ',' | ';' | '<' | '>' | '"' | '(');
    if local.is_empty() || local.len() > 64 || local.contains(odd) {
        return Err(IdentityError::Malformed);
    }
    let domain = idna::domain_to_ascii_strict(domain.trim_end_matches('.'))
        .map_err(|_| IdentityError::Malformed)?;
    if !domain.contains('.') || domain.len() > 253 {
        return Err(IdentityError::Malformed);
    }
    Ok(format!("{local}@{domain}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn email(raw: &str) -> Result<String, IdentityError> {
        Identity::parse(IdentityKind::Email, raw).map(|identity| identity.value)
    }

    #[test]
    fn one_address_written_in_many_ways_is_one_identity() {
        for raw in [
            "tanaka@sample-seiki.example",
            "  Tanaka@Sample-Seiki.EXAMPLE ",
            "ｔａｎａｋａ@sample-seiki.example.",
        ] {
            assert_eq!(email(raw).unwrap(), "tanaka@sample-seiki.example", "{raw}");
        }
        assert_eq!(email("a@例え.テスト").unwrap(), "a@xn--r8jz45g.xn--zckzah");
    }

    #[test]
    fn words_that_name_nobody_are_refused_by_name() {
        for raw in
            ["null", "undefined", "[object Object]", "\"NULL\"", "000", "-1", "NaN", "'none'"]
        {
            for kind in IdentityKind::ORDER {
                assert_eq!(Identity::parse(kind, raw), Err(IdentityError::Garbage), "{raw}");
            }
        }
        assert_eq!(email("  "), Err(IdentityError::Empty));
        assert_eq!(email("\"\""), Err(IdentityError::Empty));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for raw in [
            "tanaka",
            "@x.example",
            "a@",
            "a@localhost",
            "a b@x.example",
            "a@b@x.example",
            "a\u{0}@x.example",
            "a@-x.example",
        ] {
            assert_eq!(email(raw), Err(IdentityError::Malformed), "{raw}");
        }
        assert_eq!(email(&format!("a@{}.example", "x".repeat(3_000))), Err(IdentityError::TooLong));
    }

    #[test]
    fn the_same_value_of_another_kind_or_namespace_is_another_lead() {
        let key = Key([1; 16]);
        let user = Identity::parse(IdentityKind::UserId, "tanaka@x.example").unwrap();
        let mail = Identity::parse(IdentityKind::Email, "tanaka@x.example").unwrap();
        assert_ne!(user.lead(&key, "a"), mail.lead(&key, "a"));
        assert_ne!(mail.lead(&key, "a"), mail.lead(&key, "b"));
        assert_eq!(mail.lead(&key, "a"), mail.lead(&key, "a"));
    }
}
