//! `/metrics`, for Prometheus: what was counted since the coordinator's start, from records that are durable, and how the farm is now.
//!
//! Labels come from closed sets, but for workers' names; of workers the first [`WORKERS_MAX`] are told. `docs/monitoring/` has a
//! dashboard and alerts, and a test holds that each metric which they name is told here.

use std::sync::{Mutex, PoisonError};

use andon_core::model::{Outcome, Record, RunState, Verdict};
use andon_proto::BaselineManifest;
use axum::extract::State as Of;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use prost::Message as _;

use super::State;
use super::api::ApiError;
use crate::views::{LineState, Overview, verdict_word};

/// Workers that have series of their own.
const WORKERS_MAX: usize = 1_000;
/// What rebases are told by; what else a worker says is `other`.
const DRIVERS: [&str; 4] = ["recreate", "restart", "standby", "rewind"];
/// The label of a baseline that says which run it was built for.
const BUILT_FOR: &str = "dev.andon.run";

type Labels = [(&'static str, &'static str); 1];
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// 1 ms to two hours.
fn waits() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 24))
}

/// 0.1 ms to three minutes.
fn moments() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 22))
}

/// Why a run's trace was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TraceLoss {
    /// Too many waited before it.
    Queue,
    /// It was not taken: refused, or nobody was there for too long.
    Collector,
    /// The run could not be read.
    Store,
}

impl TraceLoss {
    const ALL: [Self; 3] = [Self::Queue, Self::Collector, Self::Store];

    const fn word(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Collector => "collector",
            Self::Store => "store",
        }
    }
}

/// What has happened since the start.
#[derive(Debug)]
pub(crate) struct Meters {
    registry: Registry,
    tests: Family<Labels, Counter>,
    attempts: Family<Labels, Counter>,
    runs: Family<Labels, Counter>,
    queue_wait: Histogram,
    prepare: Histogram,
    start: Histogram,
    test: Histogram,
    report: Histogram,
    rebase: Histograms,
    baseline_hits: Counter,
    baseline_builds: Counter,
    inexact: Counter,
    traces_exported: Counter,
    traces_dropped: Family<Labels, Counter>,
    /// Key and run of the baseline that was published last, until a run is pinned to it.
    published: Mutex<Option<(String, String)>>,
}

impl Default for Meters {
    fn default() -> Self {
        let mut registry = Registry::default();
        let (queue_wait, prepare, start, test) = (waits(), waits(), waits(), waits());
        let report = moments();
        let rebase = Histograms::new_with_constructor(moments as fn() -> Histogram);
        let (tests, attempts, runs) = (Family::default(), Family::default(), Family::default());
        let (hits, builds, inexact) = (Counter::default(), Counter::default(), Counter::default());
        registry.register("andon_tests", "Tests that have their verdict", tests.clone());
        registry.register("andon_attempts", "Attempts that have ended, by outcome", attempts.clone());
        registry.register("andon_runs", "Runs that have ended, by state", runs.clone());
        registry.register(
            "andon_queue_wait_seconds",
            "From an attempt queued to its lease",
            queue_wait.clone(),
        );
        registry.register(
            "andon_prepare_seconds",
            "From a lease to the test's start, without the rebase",
            prepare.clone(),
        );
        registry.register(
            "andon_runner_start_seconds",
            "Of that, from the start of a unit's runner to its first test",
            start.clone(),
        );
        registry.register("andon_test_seconds", "What tests themselves took", test.clone());
        registry.register(
            "andon_report_seconds",
            "From a test's end until its result was on its way",
            report.clone(),
        );
        registry.register(
            "andon_rebase_seconds",
            "What putting a stack back took, by driver",
            rebase.clone(),
        );
        registry.register("andon_baseline_hits", "Runs that found their baseline built", hits.clone());
        registry.register("andon_baseline_builds", "Runs for which a baseline was built", builds.clone());
        registry.register(
            "andon_inexact_rebases",
            "Stands that were put back and not exact",
            inexact.clone(),
        );
        let (exported, dropped) = (Counter::default(), Family::<Labels, Counter>::default());
        registry.register("andon_traces_exported", "Runs whose trace a collector has", exported.clone());
        registry.register(
            "andon_traces_dropped",
            "Runs whose trace it does not get, by why",
            dropped.clone(),
        );
        for why in TraceLoss::ALL {
            let _ = dropped.get_or_create(&[("reason", why.word())]);
        }
        for verdict in
            [Verdict::Passed, Verdict::Failed, Verdict::Flaky, Verdict::TimedOut, Verdict::Quarantined]
        {
            let _ = tests.get_or_create(&[("verdict", verdict_word(verdict))]);
        }
        Self {
            registry,
            tests,
            attempts,
            runs,
            queue_wait,
            prepare,
            start,
            test,
            report,
            rebase,
            baseline_hits: hits,
            baseline_builds: builds,
            inexact,
            traces_exported: exported,
            traces_dropped: dropped,
            published: Mutex::default(),
        }
    }
}

impl Meters {
    /// Counts records that have become durable.
    pub(crate) fn count(&self, records: &[Record]) {
        for record in records {
            self.count_one(record);
        }
    }

    fn count_one(&self, record: &Record) {
        match record {
            Record::VerdictGiven { verdict, .. } => {
                self.tests.get_or_create(&[("verdict", verdict_word(*verdict))]).inc();
            }
            Record::Leased { attempts, .. } => {
                for (_, _, queue_ms) in attempts {
                    self.queue_wait.observe(seconds(*queue_ms));
                }
            }
            Record::AttemptEnded { ended, .. } => {
                self.attempts.get_or_create(&[("outcome", crate::views::outcome_word(ended.outcome))]).inc();
                if matches!(ended.outcome, Outcome::Passed | Outcome::Failed | Outcome::TimedOut) {
                    self.prepare.observe(seconds(ended.prepare_ms));
                    self.test.observe(seconds(ended.run_ms));
                    self.report.observe(ended.report_us as f64 / 1e6);
                }
                if ended.start_ms > 0 {
                    self.start.observe(seconds(ended.start_ms));
                }
                if ended.rebase_us > 0 {
                    let known = DRIVERS.iter().find(|known| **known == ended.driver);
                    let driver = known.copied().unwrap_or("other");
                    self.rebase.get_or_create(&[("driver", driver)]).observe(ended.rebase_us as f64 / 1e6);
                }
            }
            Record::RunMoved { state: state @ RunState::Ended(_), .. } => {
                self.runs.get_or_create(&[("state", crate::views::state_word(*state))]).inc();
            }
            Record::BaselinePublished { key, manifest, .. } => {
                let labels = BaselineManifest::decode(manifest.as_slice()).unwrap_or_default().labels;
                let run = labels.into_iter().find(|label| label.key == BUILT_FOR).map(|label| label.value);
                *self.published() = Some((key.clone(), run.unwrap_or_default()));
            }
            Record::BaselinePinned { run, key } => {
                let published = self.published().take().filter(|(known, _)| known == key);
                let is_new = published.is_some_and(|(_, built_for)| built_for == run.0.to_string());
                if is_new {
                    self.baseline_builds.inc()
                } else {
                    self.baseline_hits.inc()
                };
            }
            Record::Inexact { .. } => {
                self.inexact.inc();
            }
            _ => {}
        }
    }

    fn published(&self) -> std::sync::MutexGuard<'_, Option<(String, String)>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A collector has the trace of one more run.
    pub(crate) fn trace_exported(&self) {
        self.traces_exported.inc();
    }

    /// One more run whose trace it does not get.
    pub(crate) fn trace_dropped(&self, why: TraceLoss) {
        self.traces_dropped.get_or_create(&[("reason", why.word())]).inc();
    }

    #[cfg(test)]
    pub(crate) fn traces_exported(&self) -> u64 {
        self.traces_exported.get()
    }

    #[cfg(test)]
    pub(crate) fn traces_dropped(&self, why: TraceLoss) -> u64 {
        self.traces_dropped.get_or_create(&[("reason", why.word())]).get()
    }

    /// In OpenMetrics' text form, with how the farm is now.
    pub(crate) fn text(&self, now: &Overview) -> String {
        let mut text = String::new();
        let written = encode_registry(&mut text, &self.registry)
            .and_then(|()| encode_registry(&mut text, &gauges(now)))
            .and_then(|()| encode_eof(&mut text));
        written.expect("a string takes every write");
        text
    }
}

/// The encoder writes values as they are.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

/// How the farm is now.
fn gauges(now: &Overview) -> Registry {
    let mut registry = Registry::default();
    let mut one = |name: &str, help: &str, value: i64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    one("andon_runs_queued", "Runs that wait for their first lane", now.runs_queued.into());
    one("andon_runs_running", "Runs that are worked on", now.runs_running.into());
    one("andon_tests_open", "Tests of those runs without a verdict", now.tests_open.into());
    one("andon_tests_running", "Attempts that are out", now.tests_running.into());
    one("andon_workers_connected", "Workers with a session", now.workers_connected.into());
    one("andon_lanes", "Lanes of connected workers", now.lanes.into());
    one("andon_lanes_busy", "Lanes that have work", now.lanes_busy.into());
    one(
        "andon_line_stands",
        "1 while work waits and nobody can do it",
        (now.line.state == LineState::Stands).into(),
    );
    let unfit = now.workers.iter().filter(|worker| worker.connected && !worker.unfit.is_empty()).count();
    one(
        "andon_workers_unfit",
        "Connected workers that take no work",
        i64::try_from(unfit).unwrap_or(i64::MAX),
    );

    let free: Family<Vec<(&'static str, String)>, Gauge> = Family::default();
    let all: Family<Vec<(&'static str, String)>, Gauge> = Family::default();
    for worker in now.workers.iter().take(WORKERS_MAX) {
        let labels = vec![("worker", escaped(&worker.name))];
        if let (Some(free_bytes), Some(bytes)) = (worker.disk_free_bytes, worker.disk_bytes) {
            free.get_or_create(&labels).set(i64::try_from(free_bytes).unwrap_or(i64::MAX));
            all.get_or_create(&labels).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }
    registry.register("andon_worker_disk_free_bytes", "Free room on a worker's pool", free);
    registry.register("andon_worker_disk_bytes", "Size of a worker's pool", all);
    registry
}

pub(super) async fn answer(Of(state): Of<State>) -> Result<Response, ApiError> {
    let now = state.views.overview().await?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], state.meters.text(&now)).into_response())
}

#[cfg(test)]
mod tests;
