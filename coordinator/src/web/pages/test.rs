//! One test over its runs: history, durations, flakes.

use andon_figures::words;
use askama::Template;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Shared};
use serde::Deserialize;

use super::{Frame, Page, filters, page, say};
use crate::views::{self, PastRun};
use crate::web::State;

#[derive(Template)]
#[template(path = "test.html")]
struct Test {
    frame: Frame,
    view: views::Test,
    history: Vec<HistoryRow>,
    older: Option<String>,
}

/// A past run, with what the chart marks of it.
struct HistoryRow {
    past: PastRun,
    mark: String,
    attempts: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ByName {
    suite: String,
    id: String,
    before: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Older {
    before: Option<u64>,
}

pub(super) async fn by_name(
    Shared(state): Shared<State>,
    frame: Frame,
    project: Result<Path<String>, PathRejection>,
    ask: Result<Query<ByName>, QueryRejection>,
) -> Page {
    let (Path(project), Query(ask)) = (project?, ask?);
    let view = state.views.test(&project, &ask.suite, &ask.id, ask.before, None).await?;
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let here = format!("?suite={}&id={}&before=", encoded(&ask.suite), encoded(&ask.id));
    shown(frame, view, &here)
}

/// Of a test in a run: an id that is too long for an address has a page all the same.
pub(super) async fn by_place(
    Shared(state): Shared<State>,
    frame: Frame,
    place: Result<Path<(u64, u32)>, PathRejection>,
    ask: Result<Query<Older>, QueryRejection>,
) -> Page {
    let (Path((run, test)), Query(ask)) = (place?, ask?);
    let there = state.views.test_of_run(run, test).await?;
    let view =
        state.views.test(&there.run.project, &there.test.suite, &there.test.id, ask.before, None).await?;
    shown(frame, view, "?before=")
}

fn shown(frame: Frame, view: views::Test, here: &str) -> Page {
    let older = view.history.next.map(|next| format!("{here}{next}"));
    let items = &view.history.items;
    let keys: Vec<&str> = items.iter().map(|past| past.baseline_key.as_str()).collect();
    let row = |(at, past): (usize, &PastRun)| {
        let is_other = views::is_other_baseline(&keys, at);
        let counts = [
            (u64::from(past.failed), "failed"),
            (u64::from(past.passed), "passed"),
            (u64::from(past.infrastructure), "lost by the farm"),
        ];
        HistoryRow {
            past: past.clone(),
            mark: say::marks(say::tone(past.verdict) == "failed", is_other),
            attempts: words::tally(&counts, "none"),
        }
    };
    let history = items.iter().enumerate().map(row).collect();
    page(&Test { frame: frame.within("projects"), view, history, older })
}
