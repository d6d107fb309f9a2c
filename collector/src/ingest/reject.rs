//! Bad input has a name. Every refused hit is one variant of one enum, mapped once to a status
//! and a reason that the sender, the counter and `tail` all show.

use engine::identity::IdentityError;
use hyper::StatusCode;

use crate::journal::Full;
use crate::seal::SealError;

/// Why a hit was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// No such path.
    UnknownPath,
    /// The path is there, but not for this method.
    Method,
    /// The key names no site.
    UnknownSite,
    /// There is an Authorization header, and it holds no server key of the site.
    BadKey,
    /// The page's origin is not one of the site's.
    Origin,
    /// The body is no JSON.
    MalformedJson,
    /// A field holds something else than it should.
    MalformedField(&'static str),
    /// A field that must be there is not.
    MissingField(&'static str),
    /// The JSON nests deeper than the limit.
    TooDeep,
    /// There is no hit in the body.
    Empty,
    /// More hits than a body may hold.
    TooManyHits,
    /// One hit is larger than the limit.
    HitTooLarge,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The body came too slowly.
    BodyTimedOut,
    /// The body broke off.
    BodyBroken,
    /// The query is malformed.
    MalformedQuery,
    /// More properties or attributes than a hit may have.
    TooManyProperties,
    /// A name or value is longer than the limit.
    TooLong(&'static str),
    /// The identity names nobody.
    Identity(IdentityError),
    /// The signature of an identity is not the site's server's.
    Hmac,
    /// It was good once, or will be good for too long.
    HmacExpired,
    /// The page token or device id is not valid.
    Token,
    /// Too many hits from this network.
    RateAddress(u64),
    /// Too many hits for this site.
    RateSite(u64),
    /// Too many new people claimed for this site in this hour.
    ClaimQuota(u64),
    /// The journal has grown to its limit.
    JournalFull,
    /// As many visitors as may be in memory.
    VisitorsFull,
    /// As many people as may be in memory.
    LeadsFull,
    /// More is waiting for the disk than may wait.
    Busy,
    /// The disk has no space. Ends by itself when it has some.
    DiskFull,
    /// The journal cannot be trusted any more; the process is about to end.
    Poisoned,
    /// Replay is not finished, or the server is stopping.
    NotReady,
}

impl Reject {
    /// The status that tells the sender.
    pub fn status(self) -> StatusCode {
        match self {
            Self::UnknownPath | Self::UnknownSite => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::BadKey | Self::Hmac | Self::HmacExpired => StatusCode::UNAUTHORIZED,
            Self::Origin => StatusCode::FORBIDDEN,
            Self::BodyTimedOut => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge | Self::HitTooLarge | Self::TooManyHits => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::RateAddress(_) | Self::RateSite(_) | Self::ClaimQuota(_) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::JournalFull
            | Self::VisitorsFull
            | Self::LeadsFull
            | Self::Busy
            | Self::DiskFull
            | Self::Poisoned
            | Self::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            Self::MalformedJson
            | Self::MalformedField(_)
            | Self::MissingField(_)
            | Self::TooDeep
            | Self::Empty
            | Self::BodyBroken
            | Self::MalformedQuery
            | Self::TooManyProperties
            | Self::TooLong(_)
            | Self::Identity(_)
            | Self::Token => StatusCode::BAD_REQUEST,
        }
    }

    /// The reason, as counters, headers and `tail` show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::UnknownPath => "unknown_path",
            Self::Method => "method_not_allowed",
            Self::UnknownSite => "unknown_site",
            Self::BadKey => "bad_key",
            Self::Origin => "origin_not_listed",
            Self::MalformedJson => "malformed_json",
            Self::MalformedField(_) => "malformed_field",
            Self::MissingField(_) => "missing_field",
            Self::TooDeep => "json_too_deep",
            Self::Empty => "empty_body",
            Self::TooManyHits => "too_many_hits",
            Self::HitTooLarge => "hit_too_large",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimedOut => "body_timed_out",
            Self::BodyBroken => "body_broken",
            Self::MalformedQuery => "malformed_query",
            Self::TooManyProperties => "too_many_properties",
            Self::TooLong(_) => "too_long",
            Self::Identity(error) => match error {
                IdentityError::Empty => "identity_empty",
                IdentityError::TooLong => "identity_too_long",
                IdentityError::Garbage => "identity_garbage",
                IdentityError::Malformed => "identity_malformed",
            },
            Self::Hmac => "bad_hmac",
            Self::HmacExpired => "hmac_expired",
            Self::Token => "bad_token",
            Self::RateAddress(_) => "rate_address",
            Self::RateSite(_) => "rate_site",
            Self::ClaimQuota(_) => "claim_quota",
            Self::JournalFull => "journal_full",
            Self::VisitorsFull => "visitors_full",
            Self::LeadsFull => "leads_full",
            Self::Busy => "busy",
            Self::DiskFull => "disk_full",
            Self::Poisoned => "journal_failed",
            Self::NotReady => "not_ready",
        }
    }

    /// Which field it is about, if it is about one.
    pub fn field(self) -> Option<&'static str> {
        match self {
            Self::MalformedField(field) | Self::MissingField(field) | Self::TooLong(field) => {
                Some(field)
            }
            _ => None,
        }
    }

    /// After how many seconds it may be tried again, if it may.
    pub fn retry_after(self) -> Option<u64> {
        match self {
            Self::RateAddress(seconds) | Self::RateSite(seconds) | Self::ClaimQuota(seconds) => {
                Some(seconds.max(1))
            }
            Self::Busy | Self::NotReady | Self::Poisoned => Some(1),
            Self::DiskFull => Some(10),
            Self::JournalFull | Self::VisitorsFull | Self::LeadsFull => Some(60),
            _ => None,
        }
    }

    /// All reasons, for counters that begin at zero.
    pub const NAMES: [&'static str; 35] = [
        "unknown_path",
        "method_not_allowed",
        "unknown_site",
        "bad_key",
        "origin_not_listed",
        "malformed_json",
        "malformed_field",
        "missing_field",
        "json_too_deep",
        "empty_body",
        "too_many_hits",
        "hit_too_large",
        "body_too_large",
        "body_timed_out",
        "body_broken",
        "malformed_query",
        "too_many_properties",
        "too_long",
        "identity_empty",
        "identity_too_long",
        "identity_garbage",
        "identity_malformed",
        "bad_hmac",
        "hmac_expired",
        "bad_token",
        "rate_address",
        "rate_site",
        "claim_quota",
        "journal_full",
        "visitors_full",
        "leads_full",
        "busy",
        "disk_full",
        "journal_failed",
        "not_ready",
    ];
}

impl From<Full> for Reject {
    fn from(full: Full) -> Reject {
        match full {
            Full::Busy => Reject::Busy,
            Full::DiskFull => Reject::DiskFull,
            Full::TooLarge { .. } => Reject::BodyTooLarge,
            Full::Poisoned => Reject::Poisoned,
            Full::Stopping => Reject::NotReady,
        }
    }
}

impl From<SealError> for Reject {
    fn from(error: SealError) -> Reject {
        match error {
            SealError::DiskFull => Reject::DiskFull,
            SealError::Erasing => Reject::Busy,
            SealError::Failed => Reject::Poisoned,
        }
    }
}

/// Why a hit was deliberately dropped: answered 2xx, recorded nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The person has not agreed, and the site needs them to.
    Consent,
    /// The browser says it wants no tracking.
    GlobalPrivacyControl,
    /// The person opted out.
    OptOut,
    /// Nobody saw it: the browser fetched ahead.
    Prefetch,
}

impl Dropped {
    /// All reasons.
    pub const ALL: [Dropped; 4] =
        [Self::Consent, Self::GlobalPrivacyControl, Self::OptOut, Self::Prefetch];

    /// The reason, as counters and headers show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consent => "consent",
            Self::GlobalPrivacyControl => "gpc",
            Self::OptOut => "opt_out",
            Self::Prefetch => "prefetch",
        }
    }
}
