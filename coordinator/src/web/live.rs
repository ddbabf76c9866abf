//! Live parts of pages, as server-sent events: each message is a page's `parts` block, rendered again because something changed. The page
//! replaces the parts that it has; it needs to know nothing of what is in them.
//!
//! Bounded: so many listeners at a time, one rendering a second and listener at most, nothing where nothing changed.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use askama::Template;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, stream};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::State;
use super::pages::{Failure, Frame, Overview, RunPage};
use crate::watch::Change;

/// Listeners at a time, all pages together.
const LISTENERS_MAX: usize = 256;
/// Between two renderings for one listener.
const PACE: Duration = Duration::from_secs(1);
/// How often the overview is looked at.
const OVERVIEW_PACE: Duration = Duration::from_secs(2);
/// A run is looked at again after this even where nothing was told: attempts start without a word.
const RUN_PATIENCE: Duration = Duration::from_secs(5);

static LISTENERS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(LISTENERS_MAX)));

/// What one listener was told last, and his place among the listeners.
struct Listener {
    told: Option<blake3::Hash>,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    fn new() -> Option<Self> {
        let place = Arc::clone(&LISTENERS).try_acquire_owned().ok()?;
        Some(Self { told: None, _place: place })
    }

    /// The event for these parts; `None` where he knows them.
    fn news(&mut self, parts: &str) -> Option<Event> {
        let digest = blake3::hash(parts.as_bytes());
        (self.told.replace(digest) != Some(digest)).then(|| Event::default().event("part").data(parts))
    }
}

/// The overview, while somebody looks.
pub(super) async fn overview(Shared(state): Shared<State>, frame: Frame) -> Response {
    let Some(listener) = Listener::new() else { return too_many() };
    let mut pace = tokio::time::interval(OVERVIEW_PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let events =
        stream::unfold((state, frame, listener, pace), |(state, frame, mut listener, mut pace)| async move {
            loop {
                tokio::select! {
                    () = state.stop.cancelled() => return None,
                    _ = pace.tick() => {}
                }
                let view = state.views.overview().await.ok()?;
                let page = Overview { frame: frame.clone(), view };
                let parts = page.as_parts().render().ok()?;
                if let Some(event) = listener.news(&parts) {
                    return Some((event, (state, frame, listener, pace)));
                }
            }
        });
    told(events)
}

/// A run, until it has ended.
pub(super) async fn run(
    Shared(state): Shared<State>,
    frame: Frame,
    run: Result<Path<u64>, PathRejection>,
) -> Result<Response, Failure> {
    let Path(run) = run?;
    let Some(listener) = Listener::new() else { return Ok(too_many()) };
    // Subscribed before it is read: nothing that happens meanwhile is missed.
    let changes = state.views.changes(run);
    RunPage::read(&state, run, frame.clone()).await?;
    let watch = RunWatch { state, frame, run, changes, listener, stage: Stage::First };
    Ok(told(stream::unfold(watch, RunWatch::next)))
}

struct RunWatch {
    state: State,
    frame: Frame,
    run: u64,
    changes: broadcast::Receiver<Change>,
    listener: Listener,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    First,
    Following,
    /// Its last parts were told; what remains is to say that it was all.
    Last,
    Over,
}

impl RunWatch {
    async fn next(mut self) -> Option<(Event, Self)> {
        loop {
            match self.stage {
                Stage::Over => return None,
                Stage::Last => {
                    self.stage = Stage::Over;
                    return Some((Event::default().event("end").data("over"), self));
                }
                Stage::First => self.stage = Stage::Following,
                Stage::Following => self.something_happens().await?,
            }
            let page = RunPage::read(&self.state, self.run, self.frame.clone()).await.ok()?;
            if page.is_over() {
                self.stage = Stage::Last;
            }
            let parts = page.as_parts().render().ok()?;
            if let Some(event) = self.listener.news(&parts) {
                return Some((event, self));
            }
        }
    }

    /// Waits for news, and then for what comes with it. `None` where there will be none.
    async fn something_happens(&mut self) -> Option<()> {
        let stop = self.state.stop.clone();
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(RUN_PATIENCE) => return Some(()),
            change = self.changes.recv() => if change == Err(RecvError::Closed) { return None },
        }
        tokio::time::sleep(PACE).await;
        self.changes = self.changes.resubscribe();
        Some(())
    }
}

fn told(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    use futures::StreamExt;
    Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(KeepAlive::default()).into_response()
}

fn too_many() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "too many pages listen already\n").into_response()
}
