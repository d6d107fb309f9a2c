//! Standard Webhooks signatures, scheme `v1`: HMAC-SHA256 over `{id}.{timestamp}.{body}`.
//!
//! Signing serves our deliveries; verifying serves the demo receiver and the answers of sales.
//! Several secrets make several signatures, so that a secret is replaced without a gap. A secret
//! is a type that cannot be printed, because logs are read by more people than settings.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use engine::time::Timestamp;
use ring::hmac;

/// What every secret's text begins with.
pub const SECRET_PREFIX: &str = "whsec_";
/// The fewest bytes of a secret, by the specification.
pub const SECRET_BYTES_MIN: usize = 24;
/// The most bytes of a secret, by the specification.
pub const SECRET_BYTES_MAX: usize = 64;
/// Secrets an endpoint may have at once: the new one, the old one, and room for a mistake.
pub const SECRETS_MAX: usize = 4;
/// How far a sender's clock may be from ours, either way.
pub const TOLERANCE: Duration = Duration::from_mins(5);
/// Signatures looked at in one header; a longer list is refused, since each costs a hash.
pub const SIGNATURES_MAX: usize = 16;

/// Secrets are pasted by people, who lose the padding.
const FORGIVING: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a text is no secret. It never holds the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretError {
    /// It does not begin with `whsec_`.
    Prefix,
    /// The rest is not base64.
    Base64,
    /// Too short to be safe, or too long for the specification.
    Length {
        /// How many bytes it has.
        bytes: usize,
    },
    /// More than `SECRETS_MAX` at once, or none.
    Count {
        /// How many were given.
        secrets: usize,
    },
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretError::Prefix => write!(f, "a secret begins with {SECRET_PREFIX}"),
            SecretError::Base64 => write!(f, "a secret is base64 after {SECRET_PREFIX}"),
            SecretError::Length { bytes } => write!(
                f,
                "a secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, this one {bytes}"
            ),
            SecretError::Count { secrets } => {
                write!(f, "an endpoint has 1 to {SECRETS_MAX} secrets, this one {secrets}")
            }
        }
    }
}

impl std::error::Error for SecretError {}

/// A signing secret. It is never printed.
#[derive(Clone)]
struct Secret(hmac::Key);

impl Secret {
    fn parse(text: &str) -> Result<Secret, SecretError> {
        let encoded = text.trim().strip_prefix(SECRET_PREFIX).ok_or(SecretError::Prefix)?;
        let bytes = FORGIVING.decode(encoded).map_err(|_| SecretError::Base64)?;
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
            return Err(SecretError::Length { bytes: bytes.len() });
        }
        Ok(Secret(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }
}

/// The secrets in force for one endpoint, newest first: 1 to `SECRETS_MAX`.
#[derive(Clone)]
pub struct Secrets(Vec<Secret>);

impl Secrets {
    /// Reads `whsec_<base64>` texts; blanks around them are dropped.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Secrets, SecretError> {
        // One more than allowed is enough to know that there are too many.
        let secrets: Vec<Secret> =
            texts.into_iter().take(SECRETS_MAX + 1).map(Secret::parse).collect::<Result<_, _>>()?;
        if !(1..=SECRETS_MAX).contains(&secrets.len()) {
            return Err(SecretError::Count { secrets: secrets.len() });
        }
        Ok(Secrets(secrets))
    }

    /// The value of `webhook-signature`: one `v1,<base64>` a secret, space separated.
    pub fn sign(&self, id: &str, timestamp_s: u64, body: &[u8]) -> String {
        let mut header = String::with_capacity(self.0.len() * 48);
        for secret in &self.0 {
            if !header.is_empty() {
                header.push(' ');
            }
            header.push_str("v1,");
            STANDARD.encode_string(tag(secret, id, timestamp_s, body), &mut header);
        }
        header
    }

    /// Checks the three headers of a message against its exact body at `now`. Any secret may match
    /// any `v1` signature; other schemes are passed over. Comparing takes constant time.
    pub fn verify(
        &self,
        headers: SignedHeaders<'_>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), VerifyError> {
        if headers.id.is_empty() || headers.id.contains('.') {
            return Err(VerifyError::Id);
        }
        let digits = !headers.timestamp.is_empty()
            && headers.timestamp.bytes().all(|byte| byte.is_ascii_digit());
        if !digits {
            return Err(VerifyError::Timestamp);
        }
        let sent_s: u64 = headers.timestamp.parse().map_err(|_| VerifyError::Timestamp)?;
        // Whole seconds on both sides, as the receivers' libraries count them.
        let now_s = now.0 / 1000;
        if now_s.saturating_sub(sent_s) > TOLERANCE.as_secs() {
            return Err(VerifyError::TooOld);
        }
        if sent_s.saturating_sub(now_s) > TOLERANCE.as_secs() {
            return Err(VerifyError::TooNew);
        }
        if headers.signature.split(' ').count() > SIGNATURES_MAX {
            return Err(VerifyError::TooManySignatures);
        }
        let signed = signed_text(headers.id, headers.timestamp, body);
        let candidates = headers.signature.split(' ').filter_map(|part| part.strip_prefix("v1,"));
        for candidate in candidates {
            let Ok(candidate) = STANDARD.decode(candidate) else {
                continue;
            };
            if self.0.iter().any(|key| hmac::verify(&key.0, &signed, &candidate).is_ok()) {
                return Ok(());
            }
        }
        Err(VerifyError::NoMatch)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(hidden)")
    }
}

/// The three headers of a signed message, as received.
#[derive(Clone, Copy, Debug)]
pub struct SignedHeaders<'a> {
    /// `webhook-id`.
    pub id: &'a str,
    /// `webhook-timestamp`, seconds.
    pub timestamp: &'a str,
    /// `webhook-signature`.
    pub signature: &'a str,
}

/// Why a signed message is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// The id is empty, or holds a dot, which would let text move between id, time and body.
    Id,
    /// The timestamp is not a number of seconds.
    Timestamp,
    /// Sent more than `TOLERANCE` ago.
    TooOld,
    /// Sent more than `TOLERANCE` ahead of us.
    TooNew,
    /// More than `SIGNATURES_MAX` in the list.
    TooManySignatures,
    /// No signature fits any secret.
    NoMatch,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VerifyError::Id => "webhook-id is empty or holds a dot",
            VerifyError::Timestamp => "webhook-timestamp is not a number of seconds",
            VerifyError::TooOld => "webhook-timestamp is too old",
            VerifyError::TooNew => "webhook-timestamp is in the future",
            VerifyError::TooManySignatures => "webhook-signature holds too many signatures",
            VerifyError::NoMatch => "webhook-signature matches no secret",
        })
    }
}

impl std::error::Error for VerifyError {}

fn tag(secret: &Secret, id: &str, timestamp_s: u64, body: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&secret.0);
    context.update(id.as_bytes());
    context.update(b".");
    context.update(timestamp_s.to_string().as_bytes());
    context.update(b".");
    context.update(body);
    context.sign()
}

fn signed_text(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example every library of the specification tests itself with.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const SENT_S: u64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn secrets(texts: &[&str]) -> Secrets {
        Secrets::parse(texts.iter().copied()).unwrap()
    }

    fn check(
        secrets: &Secrets,
        id: &str,
        timestamp: &str,
        signature: &str,
        body: &[u8],
        now_s: u64,
    ) -> Result<(), VerifyError> {
        let headers = SignedHeaders { id, timestamp, signature };
        secrets.verify(headers, body, Timestamp(now_s * 1000))
    }

    fn check_at(signature: &str, now_s: u64) -> Result<(), VerifyError> {
        check(&secrets(&[SECRET]), ID, &SENT_S.to_string(), signature, BODY, now_s)
    }

    #[test]
    fn the_published_example_is_signed_and_verified() {
        assert_eq!(secrets(&[SECRET]).sign(ID, SENT_S, BODY), SIGNATURE);
        assert_eq!(check_at(SIGNATURE, SENT_S), Ok(()));
    }

    #[test]
    fn two_secrets_give_two_signatures_and_either_receiver_accepts() {
        let both = secrets(&[OTHER, SECRET]).sign(ID, SENT_S, BODY);
        assert_eq!(both.split(' ').count(), 2);
        assert!(both.ends_with(SIGNATURE));
        for receiver in [SECRET, OTHER] {
            let receiver = secrets(&[receiver]);
            assert_eq!(check(&receiver, ID, "1614265330", &both, BODY, SENT_S), Ok(()));
        }
    }

    #[test]
    fn any_changed_part_breaks_the_signature() {
        let ours = secrets(&[SECRET]);
        let at = SENT_S.to_string();
        let no = Err(VerifyError::NoMatch);
        assert_eq!(check(&ours, ID, &at, SIGNATURE, br#"{"test": 2432232315}"#, SENT_S), no);
        assert_eq!(check(&ours, ID, &at, SIGNATURE, br#"{"test": 2432232314} "#, SENT_S), no);
        assert_eq!(check(&ours, "msg_other", &at, SIGNATURE, BODY, SENT_S), no);
        assert_eq!(check(&ours, ID, "1614265331", SIGNATURE, BODY, SENT_S), no);
        assert_eq!(check(&secrets(&[OTHER]), ID, &at, SIGNATURE, BODY, SENT_S), no);
    }

    #[test]
    fn text_cannot_move_between_the_id_and_the_body() {
        let body = [b"77.", BODY].concat();
        let signature = secrets(&[SECRET]).sign("msg_a", 1_614_265_330, &body);
        let moved = check(&secrets(&[SECRET]), "msg_a.1614265330", "77", &signature, BODY, SENT_S);
        assert_eq!(moved, Err(VerifyError::Id));
    }

    #[test]
    fn the_clock_may_be_off_by_five_minutes_and_no_more() {
        assert_eq!(check_at(SIGNATURE, SENT_S + 300), Ok(()));
        assert_eq!(check_at(SIGNATURE, SENT_S + 301), Err(VerifyError::TooOld));
        assert_eq!(check_at(SIGNATURE, SENT_S - 300), Ok(()));
        assert_eq!(check_at(SIGNATURE, SENT_S - 301), Err(VerifyError::TooNew));
    }

    #[test]
    fn unusable_headers_are_refused_by_name() {
        let ours = secrets(&[SECRET]);
        for bad in ["", " 1614265330", "+1614265330", "-1", "1e9", "99999999999999999999999"] {
            let answer = check(&ours, ID, bad, SIGNATURE, BODY, SENT_S);
            assert_eq!(answer, Err(VerifyError::Timestamp), "{bad:?}");
        }
        assert_eq!(check(&ours, "", "1", SIGNATURE, BODY, SENT_S), Err(VerifyError::Id));
        for bad in ["", "v1,", "v1,%%%", "v2,AAAA", "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="]
        {
            assert_eq!(check_at(bad, SENT_S), Err(VerifyError::NoMatch), "{bad:?}");
        }
        let list = vec![SIGNATURE; SIGNATURES_MAX + 1].join(" ");
        assert_eq!(check_at(&list, SENT_S), Err(VerifyError::TooManySignatures));
    }

    #[test]
    fn a_known_signature_among_unknown_schemes_is_found() {
        let list = format!("v1a,AAAA v1,AAAA {SIGNATURE}");
        assert_eq!(check_at(&list, SENT_S), Ok(()));
    }

    #[test]
    fn a_truncated_signature_does_not_match() {
        let whole = STANDARD.decode(&SIGNATURE[3..]).unwrap();
        let cut = format!("v1,{}", STANDARD.encode(&whole[..31]));
        assert_eq!(check_at(&cut, SENT_S), Err(VerifyError::NoMatch));
    }

    #[test]
    fn weak_or_malformed_secrets_are_refused_by_name() {
        let parse = |text: &str| Secrets::parse([text]).err();
        let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        assert_eq!(parse("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), Some(SecretError::Prefix));
        assert_eq!(parse("whsec_not base64"), Some(SecretError::Base64));
        assert_eq!(parse("whsec_"), Some(SecretError::Length { bytes: 0 }));
        assert_eq!(parse(&of(23)), Some(SecretError::Length { bytes: 23 }));
        assert_eq!(parse(&of(24)), None);
        assert_eq!(parse(&of(64)), None);
        assert_eq!(parse(&of(65)), Some(SecretError::Length { bytes: 65 }));
        assert_eq!(parse(of(25).trim_end_matches('=')), None);
        assert_eq!(Secrets::parse([]).err(), Some(SecretError::Count { secrets: 0 }));
        let five = Secrets::parse([SECRET; 5]).err();
        assert_eq!(five, Some(SecretError::Count { secrets: 5 }));
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", secrets(&[SECRET])), "Secrets(hidden)");
        assert_eq!(format!("{:#?}", secrets(&[SECRET, OTHER])), "Secrets(hidden)");
    }
}
