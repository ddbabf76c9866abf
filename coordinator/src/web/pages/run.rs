//! Runs: the list, one run with its failures first, its tests, one test of it.

use andon_figures::text;
use askama::Template;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Shared};
use serde::Deserialize;

use super::timeline::Timeline;
use super::{Frame, Page, filters, page};
use crate::views::{self, TestsAsk};
use crate::web::State;

/// What a list of tests can be narrowed to.
const VERDICTS: [&str; 9] =
    ["failed", "timed_out", "infrastructure", "quarantined", "flaky", "passed", "skipped", "not_run", "open"];

#[derive(Template)]
#[template(path = "runs.html")]
pub(super) struct Runs {
    pub(super) frame: Frame,
    pub(super) title: String,
    pub(super) runs: Vec<views::RunLine>,
    pub(super) now: u64,
    pub(super) next: Option<u64>,
}

/// One run; the live parts are its block `parts`.
#[derive(Template)]
#[template(path = "run.html", blocks = ["parts"])]
pub(in crate::web) struct RunPage {
    frame: Frame,
    view: views::Run,
    timeline: Timeline,
}

#[derive(Template)]
#[template(path = "run_tests.html")]
struct Tests {
    frame: Frame,
    run: views::Run,
    page: views::Page<views::TestLine>,
    verdicts: [&'static str; 9],
    asked_verdict: String,
    asked_suite: String,
}

#[derive(Template)]
#[template(path = "test_of_run.html")]
struct TestOfRun {
    frame: Frame,
    view: views::TestOfRun,
    rerun: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunsAsk {
    before: Option<u64>,
}

impl RunPage {
    /// Reads what the page shows.
    pub(in crate::web) async fn read(
        state: &State,
        run: u64,
        frame: Frame,
    ) -> Result<Self, views::ViewError> {
        let view = state.views.run(run).await?;
        let timeline = Timeline::of(&state.views.timeline(run).await?);
        Ok(Self { frame: frame.within("runs"), view, timeline })
    }

    /// There is something that failed, and its tests are still known.
    fn may_rerun(&self) -> bool {
        let counts = &self.view.line.counts;
        !self.view.line.forgotten && counts.failed + counts.timed_out + counts.infrastructure > 0
    }

    /// The run has ended.
    pub(in crate::web) fn is_over(&self) -> bool {
        self.view.line.over
    }
}

pub(super) async fn runs(
    Shared(state): Shared<State>,
    frame: Frame,
    ask: Result<Query<RunsAsk>, QueryRejection>,
) -> Page {
    let Query(ask) = ask?;
    let views::Page { items: runs, next } = state.views.runs(ask.before, None).await?;
    let now = state.views.now_unix_ms();
    page(&Runs { frame: frame.within("runs"), title: "Runs".to_owned(), runs, now, next })
}

pub(super) async fn run(
    Shared(state): Shared<State>,
    frame: Frame,
    run: Result<Path<u64>, PathRejection>,
) -> Page {
    let Path(run) = run?;
    page(&RunPage::read(&state, run, frame).await?)
}

pub(super) async fn tests(
    Shared(state): Shared<State>,
    frame: Frame,
    run: Result<Path<u64>, PathRejection>,
    ask: Result<Query<TestsAsk>, QueryRejection>,
) -> Page {
    let (Path(run), Query(mut ask)) = (run?, ask?);
    ask.suite = ask.suite.filter(|suite| !suite.is_empty());
    ask.verdict = ask.verdict.filter(|verdict| !verdict.is_empty());
    let tests = state.views.tests(run, &ask).await?;
    let run = state.views.run(run).await?;
    page(&Tests {
        frame: frame.within("runs"),
        run,
        page: tests,
        verdicts: VERDICTS,
        asked_verdict: ask.verdict.unwrap_or_default(),
        asked_suite: ask.suite.unwrap_or_default(),
    })
}

pub(super) async fn test(
    Shared(state): Shared<State>,
    frame: Frame,
    place: Result<Path<(u64, u32)>, PathRejection>,
) -> Page {
    let Path((run, test)) = place?;
    let view = state.views.test_of_run(run, test).await?;
    let rerun = rerun_command(run, &view.test.suite, &view.test.id);
    page(&TestOfRun { frame: frame.within("runs"), view, rerun })
}

/// What reruns one test, to be pasted into a shell. An id that is too long for a command line is left to the run's own rerun.
fn rerun_command(run: u64, suite: &str, id: &str) -> String {
    const ID_BYTES_MAX: usize = 4_000;
    if id.len() > ID_BYTES_MAX {
        return format!("andon rerun {run} --failed");
    }
    format!("andon rerun {run} {}", text::shell_word(&format!("{suite}/{id}")))
}
