//! Gitea's and Forgejo's webhooks, and their REST API for commit statuses and collaborators.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::client::{Api, ForgeError, OpenPull, PULLS_PAGE};
use super::payload::{Malformed, Payload, nothing, pushed};
use super::status::Status;
use super::{Author, May, Meaning, alike};

/// Kept short: the pages show one line.
const DESCRIPTION_LEN_MAX: usize = 255;

pub(super) fn event(name: &str, repository: &str, body: &[u8]) -> Result<Meaning, Malformed> {
    let payload = Payload::parse(body)?;
    let known =
        ["push", "create", "pull_request", "pull_request_sync", "issue_comment", "pull_request_comment"];
    if !known.contains(&name) {
        return nothing(format!("the event {} starts nothing", crate::config::quoted(name)));
    }
    payload.about("repository.full_name", repository)?;
    match name {
        "push" => pushed(payload.text("ref")?, payload.commit("after")?),
        "pull_request" | "pull_request_sync" => alike::pull(&payload, "synchronized", "repo_id"),
        "create" => nothing("a new ref is told of by its push"),
        _ => {
            let is_pull = payload.get("is_pull").and_then(Value::as_bool).unwrap_or(false);
            alike::comment(&payload, is_pull || payload.get("issue.pull_request").is_some(), || Ok(May::Ask))
        }
    }
}

/// See [`alike::status`].
pub(super) async fn status(api: &Api, repository: &str, status: &Status) -> Result<(), ForgeError> {
    alike::status(api, repository, status, DESCRIPTION_LEN_MAX).await
}

/// `GET /repos/{owner}/{repo}/collaborators/{user}/permission`: those who may write may.
pub(super) async fn may(api: &Api, repository: &str, author: &Author) -> Result<bool, ForgeError> {
    let user = utf8_percent_encode(&author.name, NON_ALPHANUMERIC);
    match api.get(&format!("/repos/{repository}/collaborators/{user}/permission")).await {
        Ok(sent) => {
            let level = sent.body.get("permission").and_then(Value::as_str).unwrap_or_default();
            let same = sent.body.get("user").and_then(|user| user.get("id")).and_then(Value::as_u64);
            Ok(same == Some(author.id) && matches!(level, "owner" | "admin" | "write"))
        }
        Err(ForgeError::Denied { status: 404, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// `GET /repos/{owner}/{repo}/pulls`.
pub(super) async fn open_pulls(api: &Api, repository: &str) -> Result<Vec<OpenPull>, ForgeError> {
    let query = format!("state=open&sort=recentupdate&limit={PULLS_PAGE}");
    let sent = api.get(&format!("/repos/{repository}/pulls?{query}")).await?;
    let read = |entry| OpenPull::read(entry, "number", "head.sha", "head.repo_id", "base.repo_id");
    Ok(sent.entries().filter_map(read).collect())
}
