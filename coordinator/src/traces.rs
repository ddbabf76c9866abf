//! Runs that have ended, as traces for a collector of OpenTelemetry: OTLP over HTTP with protobuf.
//!
//! ```text
//!   entering (a run has ended) ──run──> queue (1,000 numbers) ──> one task: rows ──> spans ──> POST …/v1/traces
//! ```
//!
//! A trace is a run, from when it was asked for to its end: its phases are spans below it, its attempts below the phase of the tests, their
//! phases below them (`spans.rs`); the same that `andon show RUN --trace` writes. What is queued is a number, and what is sent is read from
//! the store a page of tests at a time, so that neither a large run nor a collector that is away costs memory.
//!
//! Invariants: whoever offers a run never waits; a run that finds no room, or that the collector does not take within [`PATIENCE`], is dropped
//! and counted. Ids follow from the run alone: a trace that is sent twice is the same one. A run is offered when it has been entered into the
//! ledger, which the store remembers: once, over restarts; what waits here when the coordinator ends is lost, and said.

mod sending;
mod spans;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use andon_core::ids::RunId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::store::ledger::TestFilter;
use crate::store::{Store, StoreError};
use crate::web::metrics::{Meters, TraceLoss};
pub(crate) use sending::Collector;
use sending::Refused;
use spans::RunTrace;

/// Runs that wait to be sent.
const QUEUE_MAX: usize = 1_000;
/// Tests that are read at a time.
const TESTS_MAX: u32 = 500;
/// A request is sent with so many spans, and those of one more attempt at most.
const SPANS_MAX: usize = 2_000;
/// A run is tried for so long.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where traces go, and in whose name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracesConfig {
    /// The whole address, such as `http://collector:4318/v1/traces`.
    pub endpoint: String,
    /// Sent with each request: a collector's key, say.
    pub headers: Vec<(String, String)>,
    /// What the collector calls this farm.
    pub service_name: String,
}

/// Why traces cannot be sent to where they are to go. Says nothing that may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// It is no address of HTTP.
    #[error("traces go to an http:// or https:// address, and the one that is given is none")]
    Endpoint,
    /// A header cannot be one; its place, from 1.
    #[error("the requests that send traces cannot have the header at place {0}")]
    Header(usize),
    /// TLS, mostly.
    #[error("no client of HTTP for traces")]
    Client(#[from] reqwest::Error),
}

/// Takes runs that have ended. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Traces {
    queue: mpsc::Sender<RunId>,
    meters: Arc<Meters>,
}

/// Sends what [`Traces`] takes.
pub(crate) struct Exporter {
    queued: mpsc::Receiver<RunId>,
    store: Arc<dyn Store>,
    collector: Collector,
    meters: Arc<Meters>,
    patience: Duration,
}

/// Both ends.
pub(crate) fn open(collector: Collector, store: Arc<dyn Store>, meters: Arc<Meters>) -> (Traces, Exporter) {
    let (queue, queued) = mpsc::channel(QUEUE_MAX);
    let traces = Traces { queue, meters: Arc::clone(&meters) };
    (traces, Exporter { queued, store, collector, meters, patience: PATIENCE })
}

impl Traces {
    /// Hands a run over, or drops it where too many wait.
    pub(crate) fn offer(&self, run: RunId) {
        if self.queue.try_send(run).is_err() {
            self.meters.trace_dropped(TraceLoss::Queue);
        }
    }
}

/// Why a run was not sent.
#[derive(Debug, thiserror::Error)]
enum Unsent {
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("the collector did not take it")]
    Refused(#[from] Refused),
    #[error("the collector was away for too long")]
    Away,
}

impl Unsent {
    fn loss(&self) -> TraceLoss {
        match self {
            Self::Store(_) => TraceLoss::Store,
            Self::Refused(_) | Self::Away => TraceLoss::Collector,
        }
    }
}

impl Exporter {
    /// Sends runs, one after the other. Ends when nobody can offer any, or at once with `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while let Some(Some(run)) = stop.run_until_cancelled(self.queued.recv()).await {
            let sending = tokio::time::timeout(self.patience, self.export(run));
            let Some(sent) = stop.run_until_cancelled(sending).await else {
                tracing::warn!(run = run.0, "the coordinator ends: the trace of a run is not sent");
                break;
            };
            match sent.unwrap_or(Err(Unsent::Away)) {
                Ok(()) => self.meters.trace_exported(),
                Err(error) => {
                    self.meters.trace_dropped(error.loss());
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(run = run.0, error, "the trace of a run is dropped");
                }
            }
        }
        if !self.queued.is_empty() {
            tracing::warn!(runs = self.queued.len(), "the coordinator ends: traces that wait are not sent");
        }
    }

    /// Attempts as they are read, and the run itself last: by then it is known when the first of them began.
    async fn export(&self, run: RunId) -> Result<(), Unsent> {
        let Some(row) = self.store.run(run).await? else { return Ok(()) };
        let mut trace = RunTrace::of(&row);
        let mut spans = Vec::new();
        let mut filter = TestFilter { limit: TESTS_MAX, ..TestFilter::default() };
        loop {
            let tests = self.store.tests_of(run, &filter).await?;
            for test in &tests {
                for (attempt, number) in test.attempts.iter().zip(1..) {
                    spans.extend(trace.attempt(test, attempt, number));
                    if spans.len() >= SPANS_MAX {
                        self.collector.send(std::mem::take(&mut spans)).await?;
                    }
                }
            }
            filter.after = tests.last().map(|last| last.test);
            if tests.len() < TESTS_MAX as usize {
                break;
            }
        }
        spans.extend(trace.end());
        Ok(self.collector.send(spans).await?)
    }
}
