//! From a request to an [`Event`]: signature first, then what it says. Pure.
//!
//! Nothing of a body is parsed before its signature was found right. Every refusal has a name.

use hyper::HeaderMap;

use super::payload::Malformed;
use super::signature::{self, SIGNED_AGE_MAX_S};
use super::{Kind, Meaning, Secret, gitea, github, gitlab};

/// The longest delivery id.
const DELIVERY_LEN_MAX: usize = 128;

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No header with a signature.
    #[error("the signature is missing: {0}")]
    Missing(&'static str),
    /// Not by whom it says.
    #[error("the signature is wrong: the secret is another, or the body was changed on its way")]
    Wrong,
    /// Signed long ago: a replay, or a clock that is wrong.
    #[error(
        "the signature is {age_s} s old, at most {SIGNED_AGE_MAX_S} s are taken: a replay, or a wrong clock"
    )]
    Stale {
        /// How old.
        age_s: u64,
    },
    /// Nothing that tells deliveries apart.
    #[error("the delivery's id is missing: {0}")]
    NoDelivery(&'static str),
    /// Nothing that says what it is about.
    #[error("the event's name is missing: {0}")]
    NoEvent(&'static str),
    /// The body is not what the forge documents.
    #[error("the body of the event {event:?} is malformed: {why}")]
    Malformed {
        /// The event's name.
        event: String,
        /// What is wrong.
        #[source]
        why: Malformed,
    },
}

/// A delivery whose signature is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The forge's id of it, the same when it is sent again.
    pub id: String,
    /// What it means.
    pub meaning: Meaning,
}

/// Which headers of a forge carry what.
struct Names {
    delivery: &'static [&'static str],
    event: &'static [&'static str],
    said_delivery: &'static str,
    said_event: &'static str,
}

const GITHUB: Names = Names {
    delivery: &["x-github-delivery"],
    event: &["x-github-event"],
    said_delivery: "X-GitHub-Delivery",
    said_event: "X-GitHub-Event",
};
const GITLAB: Names = Names {
    // The first two are the same when a delivery is sent again.
    delivery: &["webhook-id", "idempotency-key", "x-gitlab-event-uuid"],
    event: &["x-gitlab-event"],
    said_delivery: "webhook-id, Idempotency-Key or X-Gitlab-Event-UUID",
    said_event: "X-Gitlab-Event",
};
const GITEA: Names = Names {
    delivery: &["x-forgejo-delivery", "x-gitea-delivery"],
    event: &["x-forgejo-event", "x-gitea-event"],
    said_delivery: "X-Forgejo-Delivery or X-Gitea-Delivery",
    said_event: "X-Forgejo-Event or X-Gitea-Event",
};

fn header<'h>(headers: &'h HeaderMap, names: &[&str]) -> Option<&'h str> {
    names.iter().find_map(|name| headers.get(*name)?.to_str().ok()).filter(|value| !value.is_empty())
}

/// Checks a request and reads it. `repository` is the one that the project is configured for (`owner/name`).
pub fn read(
    kind: Kind,
    secrets: &[Secret],
    repository: &str,
    headers: &HeaderMap,
    body: &[u8],
    now_unix_s: u64,
) -> Result<Delivery, Refusal> {
    match kind {
        Kind::GitHub => signed_github(secrets, headers, body)?,
        Kind::GitLab => signed_gitlab(secrets, headers, body, now_unix_s)?,
        Kind::Gitea | Kind::Forgejo => signed_gitea(secrets, headers, body)?,
    }
    let names = match kind {
        Kind::GitHub => GITHUB,
        Kind::GitLab => GITLAB,
        Kind::Gitea | Kind::Forgejo => GITEA,
    };
    let is_id = |id: &&str| id.len() <= DELIVERY_LEN_MAX && id.bytes().all(|byte| byte.is_ascii_graphic());
    let id = header(headers, names.delivery).filter(is_id).ok_or(Refusal::NoDelivery(names.said_delivery))?;
    let event = header(headers, names.event).ok_or(Refusal::NoEvent(names.said_event))?;
    let meaning = match kind {
        Kind::GitHub => github::event(event, repository, body),
        Kind::GitLab => gitlab::event(event, repository, body),
        Kind::Gitea | Kind::Forgejo => gitea::event(event, repository, body),
    };
    let malformed = |why| Refusal::Malformed { event: event.chars().take(64).collect(), why };
    Ok(Delivery { id: id.to_owned(), meaning: meaning.map_err(malformed)? })
}

fn signed_github(secrets: &[Secret], headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
    let missing = if headers.contains_key("x-hub-signature") {
        "only the SHA-1 of X-Hub-Signature is there, X-Hub-Signature-256 is needed"
    } else {
        "X-Hub-Signature-256 (the webhook has no secret?)"
    };
    let signature = header(headers, &["x-hub-signature-256"]).ok_or(Refusal::Missing(missing))?;
    let hex = signature.strip_prefix("sha256=").ok_or(Refusal::Wrong)?;
    right(signature::hex_matches(secrets, body, hex))
}

/// A signing token, where one is configured, is demanded: the plain token does not stand in for it.
fn signed_gitlab(
    secrets: &[Secret],
    headers: &HeaderMap,
    body: &[u8],
    now_unix_s: u64,
) -> Result<(), Refusal> {
    let keys = signature::signing_keys(secrets);
    if keys.is_empty() {
        let token = header(headers, &["x-gitlab-token"]);
        let token = token.ok_or(Refusal::Missing("X-Gitlab-Token (the webhook has no secret token?)"))?;
        return right(signature::token_matches(secrets, token));
    }
    let needed =
        Refusal::Missing("webhook-signature with webhook-id and webhook-timestamp (a signing token)");
    let parts = ["webhook-signature", "webhook-id", "webhook-timestamp"].map(|name| header(headers, &[name]));
    let [Some(signature), Some(id), Some(timestamp)] = parts else { return Err(needed) };
    right(signature::standard_matches(&keys, id, timestamp, body, signature))?;
    // Only a time that is part of what was signed says anything.
    let signed: u64 = timestamp.parse().map_err(|_| Refusal::Wrong)?;
    let age_s = now_unix_s.abs_diff(signed);
    if age_s > SIGNED_AGE_MAX_S { Err(Refusal::Stale { age_s }) } else { Ok(()) }
}

fn signed_gitea(secrets: &[Secret], headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
    // Forgejo sends both; the one of its own name counts where it is there.
    let signature = header(headers, &["x-forgejo-signature", "x-gitea-signature"]);
    let missing = Refusal::Missing("X-Forgejo-Signature or X-Gitea-Signature (the webhook has no secret?)");
    right(signature::hex_matches(secrets, body, signature.ok_or(missing)?))
}

fn right(matches: bool) -> Result<(), Refusal> {
    if matches { Ok(()) } else { Err(Refusal::Wrong) }
}

#[cfg(test)]
mod tests;
