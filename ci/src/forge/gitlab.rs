//! GitLab's webhooks ("Webhook events") and its REST API for commit statuses and members.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::client::{Api, ForgeError, OpenPull, PULLS_PAGE};
use super::event::command;
use super::payload::{Malformed, Payload, nothing, pushed};
use super::status::{State, Status};
use super::{Author, Event, May, Meaning};

/// The longest description of a commit status.
const DESCRIPTION_LEN_MAX: usize = 255;
/// Access level "Developer": may push.
const DEVELOPER: u64 = 30;

pub(super) fn event(name: &str, repository: &str, body: &[u8]) -> Result<Meaning, Malformed> {
    let payload = Payload::parse(body)?;
    if !["Push Hook", "Tag Push Hook", "Merge Request Hook", "Note Hook"].contains(&name) {
        return nothing(format!("the event {} starts nothing", crate::config::quoted(name)));
    }
    payload.about("project.path_with_namespace", repository)?;
    match name {
        "Push Hook" => pushed(payload.text("ref")?, payload.commit("after")?),
        // Of an annotated tag `after` is the tag's own object.
        "Tag Push Hook" => {
            let commit = match payload.get("checkout_sha") {
                Some(_) => payload.commit("checkout_sha")?,
                None => payload.commit("after")?,
            };
            pushed(payload.text("ref")?, commit)
        }
        "Merge Request Hook" => merge(&payload),
        _ => note(&payload),
    }
}

fn is_fork(payload: &Payload, path: &str) -> Result<bool, Malformed> {
    let target = payload.number(&format!("{path}.target_project_id"))?;
    let source = payload.get(&format!("{path}.source_project_id")).and_then(Value::as_u64);
    Ok(source != Some(target))
}

fn merge(payload: &Payload) -> Result<Meaning, Malformed> {
    let action = payload.text("object_attributes.action")?;
    // `update` is also a new title; only with `oldrev` the head has moved.
    let moved = action == "update" && payload.get("object_attributes.oldrev").is_some();
    if !(moved || matches!(action, "open" | "reopen")) {
        return nothing(format!("the merge request's {} moves no head", crate::config::quoted(action)));
    }
    Ok(Meaning::Work(Event::Pull {
        number: payload.number("object_attributes.iid")?,
        commit: payload.commit("object_attributes.last_commit.id")?,
        fork: is_fork(payload, "object_attributes")?,
    }))
}

fn note(payload: &Payload) -> Result<Meaning, Malformed> {
    if payload.text("object_attributes.noteable_type")? != "MergeRequest" {
        return nothing("the comment is on no merge request");
    }
    // GitLab before 16.11 tells of new comments alone, and names no action.
    let action = payload.get("object_attributes.action").and_then(Value::as_str).unwrap_or("create");
    if action != "create" {
        return nothing("only new comments give commands");
    }
    let command = match command(payload.text("object_attributes.note")?) {
        Ok(command) => command,
        Err(why) => return nothing(why),
    };
    let by = Author { name: payload.login("user.username")?, id: payload.number("user.id")? };
    let number = payload.number("merge_request.iid")?;
    Ok(Meaning::Work(Event::Comment { number, command, by, may: May::Ask }))
}

fn project(repository: &str) -> String {
    utf8_percent_encode(repository, NON_ALPHANUMERIC).to_string()
}

/// `POST /projects/:id/statuses/:sha`.
pub(super) async fn status(api: &Api, repository: &str, status: &Status) -> Result<(), ForgeError> {
    let state = match status.state {
        State::Pending => "pending",
        State::Running => "running",
        State::Success => "success",
        State::Failure => "failed",
        State::Error => "canceled",
    };
    let mut body = json!({
        "state": state,
        "name": status.context,
        "description": status.described(DESCRIPTION_LEN_MAX),
    });
    if let Some(url) = &status.target_url {
        body["target_url"] = url.as_str().into();
    }
    match api.post(&format!("/projects/{}/statuses/{}", project(repository), status.commit), &body).await {
        // GitLab refuses a state that the status has already, even with another description: nothing is lost.
        Err(ForgeError::Refused { said, .. }) if said.contains("Cannot transition status") => Ok(()),
        sent => sent.map(drop),
    }
}

/// `GET /projects/:id/members/all/:user_id`: developers and above may.
pub(super) async fn may(api: &Api, repository: &str, author: &Author) -> Result<bool, ForgeError> {
    let path = format!("/projects/{}/members/all/{}", project(repository), author.id);
    match api.get(&path).await {
        Ok(sent) => {
            let level = sent.body.get("access_level").and_then(Value::as_u64).unwrap_or(0);
            // The level belongs to the account that wrote, not to one that took its name since.
            let same = sent.body.get("id").and_then(Value::as_u64) == Some(author.id);
            Ok(same && level >= DEVELOPER)
        }
        Err(ForgeError::Denied { status: 404, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// `GET /projects/:id/merge_requests`.
pub(super) async fn open_pulls(api: &Api, repository: &str) -> Result<Vec<OpenPull>, ForgeError> {
    let query = format!("state=opened&order_by=updated_at&per_page={PULLS_PAGE}");
    let sent = api.get(&format!("/projects/{}/merge_requests?{query}", project(repository))).await?;
    let read = |entry| OpenPull::read(entry, "iid", "sha", "source_project_id", "target_project_id");
    Ok(sent.entries().filter_map(read).collect())
}
