//! Projects: throughput per commit, and how the line flows.

use askama::Template;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Shared};

use super::{Frame, Page, filters, page, say};
use crate::views::{self, DAYS_DEFAULT, DAYS_MAX, ProjectAsk};
use crate::web::State;

#[derive(Template)]
#[template(path = "projects.html")]
struct Projects {
    frame: Frame,
    view: views::Overview,
}

#[derive(Template)]
#[template(path = "project.html")]
struct Project {
    frame: Frame,
    view: views::Project,
    days: u32,
    asked_ref: String,
}

pub(super) async fn projects(Shared(state): Shared<State>, frame: Frame) -> Page {
    page(&Projects { frame: frame.within("projects"), view: state.views.overview().await? })
}

pub(super) async fn project(
    Shared(state): Shared<State>,
    frame: Frame,
    name: Result<Path<String>, PathRejection>,
    ask: Result<Query<ProjectAsk>, QueryRejection>,
) -> Page {
    let (Path(name), Query(mut ask)) = (name?, ask?);
    // A form without a choice sends an empty one.
    ask.git_ref = ask.git_ref.filter(|git_ref| !git_ref.is_empty());
    let mut view = state.views.project(&name, &ask).await?;
    view.refs.retain(|git_ref| say::is_choice(git_ref));
    let days = ask.days.unwrap_or(DAYS_DEFAULT).min(DAYS_MAX);
    page(&Project { frame: frame.within("projects"), view, days, asked_ref: ask.git_ref.unwrap_or_default() })
}
