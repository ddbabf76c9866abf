//! Gitea's and Forgejo's webhooks, and their REST API for commit statuses and collaborators.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::client::{Api, ForgeError, OpenPull, PULLS_PAGE};
use super::event::command;
use super::payload::{Malformed, Payload, nothing, pushed};
use super::status::{State, Status};
use super::{Author, Event, May, Meaning};

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
        "pull_request" | "pull_request_sync" => pull(&payload),
        "create" => nothing("a new ref is told of by its push"),
        _ => comment(&payload),
    }
}

fn pull(payload: &Payload) -> Result<Meaning, Malformed> {
    let action = payload.text("action")?;
    if !matches!(action, "opened" | "synchronized" | "reopened") {
        return nothing(format!("the pull request was {}", crate::config::quoted(action)));
    }
    let base = payload.number("pull_request.base.repo_id")?;
    let head = payload.get("pull_request.head.repo_id").and_then(Value::as_u64);
    Ok(Meaning::Work(Event::Pull {
        number: payload.number("pull_request.number")?,
        commit: payload.commit("pull_request.head.sha")?,
        fork: head != Some(base),
    }))
}

fn comment(payload: &Payload) -> Result<Meaning, Malformed> {
    if payload.text("action")? != "created" {
        return nothing("only new comments give commands");
    }
    let on_pull = payload.get("is_pull").and_then(Value::as_bool).unwrap_or(false)
        || payload.get("issue.pull_request").is_some();
    if !on_pull {
        return nothing("the comment is on an issue");
    }
    let command = match command(payload.text("comment.body")?) {
        Ok(command) => command,
        Err(why) => return nothing(why),
    };
    let by = Author { name: payload.login("comment.user.login")?, id: payload.number("comment.user.id")? };
    let number = payload.number("issue.number")?;
    Ok(Meaning::Work(Event::Comment { number, command, by, may: May::Ask }))
}

/// `POST /repos/{owner}/{repo}/statuses/{sha}`.
pub(super) async fn status(api: &Api, repository: &str, status: &Status) -> Result<(), ForgeError> {
    let state = match status.state {
        State::Pending | State::Running => "pending",
        State::Success => "success",
        State::Failure => "failure",
        State::Error => "error",
    };
    let body = json!({
        "state": state,
        "context": status.context,
        "description": status.described(DESCRIPTION_LEN_MAX),
        "target_url": status.target_url.as_deref().unwrap_or_default(),
    });
    api.post(&format!("/repos/{repository}/statuses/{}", status.commit), &body).await.map(drop)
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
