//! What a site's server signs for its pages: who is logged in (API.md).

use std::fmt::Write as _;

use ring::hmac;

/// Longer than any run.
const GOOD_FOR_S: u64 = 6 * 3_600;

/// A site's identity secret.
#[derive(Clone)]
pub struct Signer {
    key: hmac::Key,
    site_id: String,
}

impl Signer {
    /// Of the secret's text.
    pub fn new(secret: &str, site_id: &str) -> Signer {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Signer { key, site_id: site_id.to_owned() }
    }

    /// What stands beside an address in a hit to prove it.
    pub fn email(&self, email: &str, now_s: u64) -> String {
        let until = now_s + GOOD_FOR_S;
        let signed = format!("v1|{}|email|{email}|{until}", self.site_id);
        let tag = hmac::sign(&self.key, signed.as_bytes());
        let mut hex = String::with_capacity(64);
        for byte in tag.as_ref() {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        format!(",\"exp\":{until},\"hmac\":\"{hex}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_signed_as_the_api_says() {
        // Given by: printf 'v1|demo|email|a@b.example|22600' | openssl dgst -sha256 -hmac secret
        let proof = Signer::new("secret", "demo").email("a@b.example", 1_000);
        assert!(proof.starts_with(",\"exp\":22600,\"hmac\":\""), "{proof}");
        assert!(
            proof.ends_with("c97a6fc0c783cfa0af6ab62967f6d20833faafa476b7b73ab59e146cd8d4d356\""),
            "{proof}"
        );
    }
}
