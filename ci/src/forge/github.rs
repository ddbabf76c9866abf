//! GitHub's webhooks ("Webhook events and payloads") and its REST API for commit statuses and check runs.

use serde_json::{Value, json};

use super::client::{Api, ForgeError, OpenPull, PULLS_PAGE, Sent};
use super::payload::{Malformed, Payload, miss, nothing, pushed};
use super::status::{Annotation, State, Status};
use super::{Event, May, Meaning, alike};

/// The most annotations that GitHub takes in one request.
const ANNOTATIONS_MAX: usize = 50;
/// The longest description of a commit status.
pub(super) const DESCRIPTION_LEN_MAX: usize = 140;

pub(super) fn event(name: &str, repository: &str, body: &[u8]) -> Result<Meaning, Malformed> {
    let payload = Payload::parse(body)?;
    if name == "ping" {
        return nothing("the webhook is set up");
    }
    let known = ["push", "create", "pull_request", "issue_comment", "check_run", "check_suite"];
    if !known.contains(&name) {
        return nothing(format!("the event {} starts nothing", crate::config::quoted(name)));
    }
    payload.about("repository.full_name", repository)?;
    match name {
        "push" => pushed(payload.text("ref")?, payload.commit("after")?),
        "pull_request" => alike::pull(&payload, "synchronize", "repo.id"),
        "issue_comment" => {
            alike::comment(&payload, payload.get("issue.pull_request").is_some(), || may(&payload))
        }
        "check_run" => rerequested(&payload, "check_run.head_sha"),
        "check_suite" => rerequested(&payload, "check_suite.head_sha"),
        // What it says comes as a push, too.
        _ => nothing("a new ref is told of by its push"),
    }
}

fn may(payload: &Payload) -> Result<May, Malformed> {
    Ok(match payload.text("comment.author_association")? {
        "OWNER" | "MEMBER" | "COLLABORATOR" => May::Yes,
        _ => May::No,
    })
}

/// Only those who may write can ask for it.
fn rerequested(payload: &Payload, commit: &str) -> Result<Meaning, Malformed> {
    if payload.text("action")? != "rerequested" {
        return nothing("only a re-run that was asked for starts something");
    }
    if payload.get("sender").is_none() {
        return Err(miss("sender", "a user"));
    }
    Ok(Meaning::Work(Event::Rerun { commit: payload.commit(commit)?, by: payload.login("sender.login")? }))
}

/// See [`alike::status`].
pub(super) async fn status(api: &Api, repository: &str, status: &Status) -> Result<(), ForgeError> {
    alike::status(api, repository, status, DESCRIPTION_LEN_MAX).await
}

/// A check run, made or brought up to date: `POST /repos/{owner}/{repo}/check-runs`, `PATCH …/check-runs/{id}`. Gives its
/// id.
pub(super) async fn check(
    api: &Api,
    repository: &str,
    status: &Status,
    known: Option<&str>,
) -> Result<Option<String>, ForgeError> {
    let folder = format!("/repos/{repository}/check-runs");
    let body = check_body(status);
    // GitHub adds the annotations of an update to those that are there: a later page repeats none.
    let sent: Sent = match known {
        Some(id) => api.patch(&format!("{folder}/{id}"), &body).await?,
        None => api.post(&folder, &body).await?,
    };
    Ok(sent.body.get("id").and_then(Value::as_u64).map(|id| id.to_string()).or(known.map(str::to_owned)))
}

fn check_body(status: &Status) -> Value {
    let mut output = json!({ "title": status.described(DESCRIPTION_LEN_MAX), "summary": status.summary() });
    if status.state.is_final() {
        output["annotations"] = status.annotations.iter().take(ANNOTATIONS_MAX).map(annotation).collect();
    }
    let mut body = json!({
        "name": status.context,
        "head_sha": status.commit,
        "output": output,
        "status": match status.state {
            State::Pending => "queued",
            State::Running => "in_progress",
            State::Success | State::Failure | State::Error => "completed",
        },
    });
    let conclusion = match status.state {
        State::Pending | State::Running => None,
        State::Success => Some("success"),
        State::Failure => Some("failure"),
        State::Error => Some("cancelled"),
    };
    if let Some(conclusion) = conclusion {
        body["conclusion"] = conclusion.into();
    }
    if let Some(url) = &status.target_url {
        body["details_url"] = url.as_str().into();
    }
    body
}

fn annotation(annotation: &Annotation) -> Value {
    json!({
        "path": annotation.path,
        "start_line": annotation.line,
        "end_line": annotation.line,
        "annotation_level": "failure",
        "title": annotation.test,
        "message": annotation.message,
    })
}

/// `GET /repos/{owner}/{repo}/pulls`.
pub(super) async fn open_pulls(api: &Api, repository: &str) -> Result<Vec<OpenPull>, ForgeError> {
    let query = format!("state=open&sort=updated&direction=desc&per_page={PULLS_PAGE}");
    let sent = api.get(&format!("/repos/{repository}/pulls?{query}")).await?;
    let read = |entry| OpenPull::read(entry, "number", "head.sha", "head.repo.id", "base.repo.id");
    Ok(sent.entries().filter_map(read).collect())
}
