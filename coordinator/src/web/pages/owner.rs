//! Owners: the list of a project, and one of them with what fails, flakes and takes long.

use askama::Template;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Shared};

use super::{Frame, Page, filters, page};
use crate::views::{self, DAYS_DEFAULT, DAYS_MAX, ProjectAsk};
use crate::web::State;

#[derive(Template)]
#[template(path = "owners.html")]
struct Owners {
    frame: Frame,
    view: views::Owners,
}

#[derive(Template)]
#[template(path = "owner.html")]
struct Owner {
    frame: Frame,
    view: views::Owner,
    days: u32,
    asked_ref: String,
}

impl Owner {
    /// Title, anchor and words for an empty one, and the tests.
    fn lists(&self) -> [(&'static str, &'static str, &'static str, &[views::OwnedTest]); 3] {
        [
            ("Failing", "failing", "None of their tests failed the last time.", &self.view.failing_tests),
            ("Flaky", "flaky", "None of their tests was ever flaky.", &self.view.flaky_tests),
            ("Slowest", "slow", "None of their tests ran.", &self.view.slow_tests),
        ]
    }
}

pub(super) async fn owners(
    Shared(state): Shared<State>,
    frame: Frame,
    project: Result<Path<String>, PathRejection>,
) -> Page {
    let Path(project) = project?;
    page(&Owners { frame: frame.within("projects"), view: state.views.owners(&project).await? })
}

pub(super) async fn owner(
    Shared(state): Shared<State>,
    frame: Frame,
    at: Result<Path<(String, String)>, PathRejection>,
    ask: Result<Query<ProjectAsk>, QueryRejection>,
) -> Page {
    let (Path((project, owner)), Query(mut ask)) = (at?, ask?);
    ask.git_ref = ask.git_ref.filter(|git_ref| !git_ref.is_empty());
    let view = state.views.owner(&project, &owner, &ask).await?;
    let days = ask.days.unwrap_or(DAYS_DEFAULT).min(DAYS_MAX);
    page(&Owner { frame: frame.within("projects"), view, days, asked_ref: ask.git_ref.unwrap_or_default() })
}
