//! What GitHub's, Gitea's and Forgejo's webhooks and REST APIs have in common: pull requests, comments on them, commit statuses.

use serde_json::{Value, json};

use super::client::{Api, ForgeError};
use super::event::command;
use super::payload::{Malformed, Payload, nothing};
use super::status::{State, Status};
use super::{Author, Event, May, Meaning};

/// A pull request was opened, opened again or got new commits, which the action `synchronized` tells; `id` is where, below its base
/// and its head, their repository's id is.
pub(super) fn pull(payload: &Payload, synchronized: &str, id: &str) -> Result<Meaning, Malformed> {
    let action = payload.text("action")?;
    if ![synchronized, "opened", "reopened"].contains(&action) {
        return nothing(format!("the pull request was {}", crate::config::quoted(action)));
    }
    let base = payload.number(&format!("pull_request.base.{id}"))?;
    // A fork that was deleted is null: still a fork.
    let head = payload.get(&format!("pull_request.head.{id}")).and_then(Value::as_u64);
    Ok(Meaning::Work(Event::Pull {
        number: payload.number("pull_request.number")?,
        commit: payload.commit("pull_request.head.sha")?,
        fork: head != Some(base),
    }))
}

/// A command in a comment, where it is one `on_pull`; `may` tells of its author.
pub(super) fn comment(
    payload: &Payload,
    on_pull: bool,
    may: impl FnOnce() -> Result<May, Malformed>,
) -> Result<Meaning, Malformed> {
    if payload.text("action")? != "created" {
        return nothing("only new comments give commands");
    }
    if !on_pull {
        return nothing("the comment is on an issue");
    }
    let command = match command(payload.text("comment.body")?) {
        Ok(command) => command,
        Err(why) => return nothing(why),
    };
    let by = Author { name: payload.login("comment.user.login")?, id: payload.number("comment.user.id")? };
    Ok(Meaning::Work(Event::Comment { number: payload.number("issue.number")?, command, by, may: may()? }))
}

/// A commit status, described in at most so many characters: `POST /repos/{owner}/{repo}/statuses/{sha}`.
pub(super) async fn status(
    api: &Api,
    repository: &str,
    status: &Status,
    description_max: usize,
) -> Result<(), ForgeError> {
    let state = match status.state {
        State::Pending | State::Running => "pending",
        State::Success => "success",
        State::Failure => "failure",
        State::Error => "error",
    };
    let body = json!({
        "state": state,
        "context": status.context,
        "description": status.described(description_max),
        "target_url": status.target_url,
    });
    api.post(&format!("/repos/{repository}/statuses/{}", status.commit), &body).await.map(drop)
}
