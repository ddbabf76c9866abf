//! Why a registry did not do what it was asked: what the same question gets again, and what may pass.
//!
//! Pure. Invariant: what may pass is [`RegistryError::Away`], and nothing else is.

use oci_client::errors::{OciDistributionError, OciErrorCode};
use thiserror::Error;

use crate::hands::chain;

/// Longest answer of a registry that is repeated in a message, in characters.
const SAID_CHARS_MAX: usize = 200;

/// See the module. `registry` is `HOST[:PORT]/PREFIX`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RegistryError {
    /// The credentials are wrong, or may not do this.
    #[error("the registry {registry} refuses {who}: {why}")]
    Denied {
        /// The registry.
        registry: String,
        /// As whom it was asked.
        who: String,
        /// Its answer.
        why: String,
    },
    /// It has no such thing.
    #[error("the registry {registry} has no {what}")]
    Missing {
        /// The registry.
        registry: String,
        /// What was asked for.
        what: String,
    },
    /// It did not answer, or says that it cannot right now.
    #[error("the registry {registry} is away: {why}")]
    Away {
        /// The registry.
        registry: String,
        /// How that showed.
        why: String,
    },
    /// Anything else: a digest that does not match, a disk, an answer that makes no sense.
    #[error("{0}")]
    Failed(String),
}

/// What kind of answer it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Denied,
    Missing,
    Away,
    Refused,
}

pub(super) fn kind_of_status(status: u16) -> Kind {
    match status {
        401 | 403 => Kind::Denied,
        404 => Kind::Missing,
        408 | 425 | 429 | 500..=599 => Kind::Away,
        _ => Kind::Refused,
    }
}

pub(super) fn kind_of(error: &OciDistributionError) -> Kind {
    use OciDistributionError as E;
    match error {
        E::UnauthorizedError { .. } | E::AuthenticationFailure(_) => Kind::Denied,
        E::ImageManifestNotFoundError(_) => Kind::Missing,
        E::ServerError { code, .. } => kind_of_status(*code),
        E::RequestError(request) => match request.status() {
            Some(status) => kind_of_status(status.as_u16()),
            None if request.is_builder() => Kind::Refused,
            // No connection, a broken one, a time limit.
            None => Kind::Away,
        },
        E::IoError(_) => Kind::Away,
        E::RegistryError { envelope, .. } => {
            let codes = || envelope.errors.iter().map(|error| &error.code);
            let any = |test: fn(&OciErrorCode) -> bool| codes().any(test);
            if any(|code| matches!(code, OciErrorCode::Unauthorized | OciErrorCode::Denied)) {
                Kind::Denied
            } else if any(|code| matches!(code, OciErrorCode::Toomanyrequests)) {
                Kind::Away
            } else if any(|code| {
                matches!(
                    code,
                    OciErrorCode::BlobUnknown
                        | OciErrorCode::ManifestUnknown
                        | OciErrorCode::NameUnknown
                        | OciErrorCode::NotFound
                )
            }) {
                Kind::Missing
            } else {
                Kind::Refused
            }
        }
        _ => Kind::Refused,
    }
}

/// What it said, without line breaks and not too long: it comes from outside.
pub(super) fn said(error: &OciDistributionError) -> String {
    let text = chain(error);
    let mut plain: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SAID_CHARS_MAX).collect();
    if text.chars().count() > SAID_CHARS_MAX {
        plain.push('…');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_away() {
        let server = |code| OciDistributionError::ServerError { code, url: "u".into(), message: "m".into() };
        for (code, kind) in [
            (400, Kind::Refused),
            (401, Kind::Denied),
            (403, Kind::Denied),
            (404, Kind::Missing),
            (413, Kind::Refused),
            (429, Kind::Away),
            (500, Kind::Away),
            (503, Kind::Away),
        ] {
            assert_eq!(kind_of(&server(code)), kind, "{code}");
        }
        assert_eq!(kind_of(&OciDistributionError::IoError(std::io::Error::other("cut"))), Kind::Away);
        assert_eq!(kind_of(&OciDistributionError::AuthenticationFailure("no".into())), Kind::Denied);
        assert_eq!(kind_of(&OciDistributionError::RegistryNoDigestError), Kind::Refused);
        let envelope = |code: &str| {
            let text = format!(r#"{{"errors": [{{"code": "{code}", "message": "m"}}]}}"#);
            OciDistributionError::RegistryError {
                envelope: serde_json::from_str(&text).unwrap(),
                url: "u".into(),
            }
        };
        for (code, kind) in [
            ("DENIED", Kind::Denied),
            ("BLOB_UNKNOWN", Kind::Missing),
            ("TOOMANYREQUESTS", Kind::Away),
            ("MANIFEST_INVALID", Kind::Refused),
        ] {
            assert_eq!(kind_of(&envelope(code)), kind, "{code}");
        }
    }

    #[test]
    fn what_a_registry_says_is_one_short_line() {
        let message = format!("a\nb\u{1b}[31m{}", "x".repeat(500));
        let said = said(&OciDistributionError::ServerError { code: 500, url: "u".into(), message });
        assert!(said.chars().count() <= SAID_CHARS_MAX + 1 && !said.contains(char::is_control), "{said}");
    }
}
