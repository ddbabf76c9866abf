//! What the farm has: baselines with where they come from, workers with their lanes.

use andon_figures::text;
use askama::Template;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Shared};

use super::say::NAME_CHARS_MAX;
use super::{Failure, Frame, Page, filters, page};
use crate::views::{self, ViewError};
use crate::web::State;

#[derive(Template)]
#[template(path = "baselines.html")]
struct Baselines {
    frame: Frame,
    baselines: Vec<views::BaselineLine>,
    now: u64,
}

#[derive(Template)]
#[template(path = "baseline.html")]
struct Baseline {
    frame: Frame,
    view: views::Baseline,
    now: u64,
}

#[derive(Template)]
#[template(path = "workers.html")]
struct Workers {
    frame: Frame,
    workers: Vec<views::WorkerLine>,
}

#[derive(Template)]
#[template(path = "worker.html")]
struct Worker {
    frame: Frame,
    view: views::Worker,
}

pub(super) async fn baselines(Shared(state): Shared<State>, frame: Frame) -> Page {
    let (baselines, now) = (state.views.baselines().await?, state.views.now_unix_ms());
    page(&Baselines { frame: frame.within("baselines"), baselines, now })
}

pub(super) async fn baseline(
    Shared(state): Shared<State>,
    frame: Frame,
    key: Result<Path<String>, PathRejection>,
) -> Page {
    let Path(key) = key?;
    let (view, now) = (state.views.baseline(&key).await?, state.views.now_unix_ms());
    page(&Baseline { frame: frame.within("baselines"), view, now })
}

pub(super) async fn workers(Shared(state): Shared<State>, frame: Frame) -> Page {
    page(&Workers { frame: frame.within("workers"), workers: state.views.workers().await? })
}

pub(super) async fn worker(
    Shared(state): Shared<State>,
    frame: Frame,
    name: Result<Path<String>, PathRejection>,
) -> Page {
    let Path(name) = name?;
    let view = state.views.worker(&name).await.map_err(|error| match error {
        // Attempts name workers for years; who they are is known while they are connected.
        ViewError::NotFound(_) => Failure::not_found(format!(
            "No worker called {} has connected since the coordinator started.",
            text::cut(&name, NAME_CHARS_MAX)
        )),
        error => error.into(),
    })?;
    page(&Worker { frame: frame.within("workers"), view })
}
