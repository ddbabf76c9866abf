//! Signatures of webhooks: over the raw body, compared in constant time.
//!
//! A secret may have several values (lines of its file) so that it can be changed without losing a delivery. Every
//! value is tried; which of them was right is not told.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::Secret;

/// What GitLab's signing tokens begin with (the Standard Webhooks specification).
const SIGNING_PREFIX: &str = "whsec_";
/// How far a signed time may be from ours.
pub(super) const SIGNED_AGE_MAX_S: u64 = 5 * 60;
/// The most signatures of one header that are looked at.
const SIGNATURES_MAX: usize = 8;

fn hmac(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac
}

/// Whether `hex` is the HMAC-SHA256 of the body under one of the secrets.
pub(super) fn hex_matches(secrets: &[Secret], body: &[u8], hex: &str) -> bool {
    let Ok(given) = hex::decode(hex) else { return false };
    secrets.iter().fold(false, |found, secret| {
        hmac(secret.reveal().as_bytes(), &[body]).verify_slice(&given).is_ok() | found
    })
}

/// Whether one of the `v1,<base64>` signatures of a header is over `id.timestamp.body`.
pub(super) fn standard_matches(
    keys: &[Vec<u8>],
    id: &str,
    timestamp: &str,
    body: &[u8],
    header: &str,
) -> bool {
    let given = header.split_ascii_whitespace().filter_map(|word| word.strip_prefix("v1,"));
    let given: Vec<_> = given.take(SIGNATURES_MAX).filter_map(|text| STANDARD.decode(text).ok()).collect();
    let mut found = false;
    for key in keys {
        for given in &given {
            let mac = hmac(key, &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body]);
            found |= mac.verify_slice(given).is_ok();
        }
    }
    found
}

/// The keys of those secrets that are signing tokens (`whsec_…`).
pub(super) fn signing_keys(secrets: &[Secret]) -> Vec<Vec<u8>> {
    let encoded = secrets.iter().filter_map(|secret| secret.reveal().strip_prefix(SIGNING_PREFIX));
    encoded.filter_map(|text| STANDARD.decode(text).ok()).collect()
}

/// Whether a secret looks like a signing token and cannot be one.
pub(crate) fn is_broken_signing_token(secret: &Secret) -> bool {
    let encoded = secret.reveal().strip_prefix(SIGNING_PREFIX);
    encoded.is_some_and(|text| STANDARD.decode(text).map_or(true, |key| key.is_empty()))
}

/// Whether a token is one of the secrets. What is compared are digests, so that not even the length is told by time.
pub(super) fn token_matches(secrets: &[Secret], token: &str) -> bool {
    let given = blake3::hash(token.as_bytes());
    secrets.iter().fold(false, |found, secret| {
        let known = blake3::hash(secret.reveal().as_bytes());
        bool::from(known.as_bytes().ct_eq(given.as_bytes())) | found
    })
}
