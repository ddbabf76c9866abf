//! Where a run's number or a commit leads.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Shared};
use axum::response::{IntoResponse, Redirect};
use serde::Deserialize;

use super::run::Runs;
use super::{Failure, Frame, Page, page};
use crate::web::State;

/// A number up to so many digits is a run, not a commit.
const RUN_DIGITS_MAX: usize = 6;

#[derive(Debug, Deserialize)]
pub(super) struct FindAsk {
    #[serde(default)]
    q: String,
}

pub(super) async fn find(ask: Result<Query<FindAsk>, QueryRejection>) -> Page {
    let Query(FindAsk { q }) = ask?;
    let wanted = q.trim().trim_start_matches('#');
    let is = |digit: fn(&u8) -> bool| !wanted.is_empty() && wanted.bytes().all(|byte| digit(&byte));
    if is(u8::is_ascii_digit) && wanted.len() <= RUN_DIGITS_MAX {
        return Ok(Redirect::to(&format!("/runs/{wanted}")).into_response());
    }
    if is(u8::is_ascii_hexdigit) {
        return Ok(Redirect::to(&format!("/commits/{}", wanted.to_ascii_lowercase())).into_response());
    }
    Err(Failure::bad("Ask for a run by its number, or for a commit by the first digits of its name."))
}

pub(super) async fn commit(
    Shared(state): Shared<State>,
    frame: Frame,
    commit: Result<Path<String>, PathRejection>,
) -> Page {
    let Path(commit) = commit?;
    let runs = state.views.commit(&commit).await?;
    if runs.is_empty() {
        return Err(Failure::not_found(format!("No run was asked for at commit {}.", commit.escape_debug())));
    }
    let now = state.views.now_unix_ms();
    let title = format!("Runs of commit {}", andon_figures::words::short(&commit));
    page(&Runs { frame: frame.within("runs"), title, runs, now, next: None })
}
