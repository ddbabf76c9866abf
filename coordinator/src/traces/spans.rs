//! A run as spans of OpenTelemetry. Pure. What lies where is said by `andon_figures::trace`, for the trace file as well.
//!
//! Attributes are those of OpenTelemetry's conventions for CI (`cicd.*`, `test.*`, `vcs.*`, `error.type`) where they have one, and `andon.*`
//! beside them. What tests print, the messages of failures and the reasons of runs stay in the farm: there may be secrets in them.

use andon_core::model::{RunEnd, RunState};
use andon_figures::Outcome;
use andon_figures::flow::End;
use andon_figures::trace::times::{AttemptTimes, RunTimes, TESTS};
use andon_figures::trace::{Phase, clean};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{Span, Status, status::StatusCode};
use reqwest::Url;

use crate::store::ledger::{ending, outcome_of};
use crate::store::{AttemptRow, RunRow, TestRow};
use crate::views::{outcome_word, state_word};

/// The spans of one run, as its attempts come.
pub(super) struct RunTrace<'a> {
    row: &'a RunRow,
    times: RunTimes,
    trace_id: [u8; 16],
    /// When its first attempt began, in microseconds.
    first_us: Option<u64>,
}

const ROOT: &str = "run";

impl<'a> RunTrace<'a> {
    /// Without any attempt yet.
    pub(super) fn of(row: &'a RunRow) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("andon 2026 trace of a run");
        hasher.update(&row.run.0.to_le_bytes());
        hasher.update(&row.created_ms.to_le_bytes());
        // Runs of two farms may have the same number, and be of the same moment.
        for text in [&row.header.project, &row.header.repository, &row.header.commit] {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        let mut trace_id = [0; 16];
        hasher.finalize_xof().fill(&mut trace_id);
        let times = RunTimes {
            created_unix_ms: row.created_ms,
            started_unix_ms: row.started_ms,
            ended_unix_ms: row.ended_ms,
        };
        Self { row, times, trace_id, first_us: None }
    }

    /// The span of an attempt, and those of its phases; none where it never started or has not ended. `number` is 1 for the first of its test.
    pub(super) fn attempt(&mut self, test: &TestRow, row: &AttemptRow, number: u32) -> Vec<Span> {
        let ended = row.outcome.filter(|_| row.started_ms > 0);
        let (Some(ended), Some(outcome)) = (ended, outcome_of(row)) else { return Vec::new() };
        let phases = self.times.attempt(AttemptTimes {
            started_unix_ms: row.started_ms,
            prepare_ms: row.prepare_ms,
            start_ms: row.start_ms,
            rebase_us: row.rebase_us,
            run_ms: row.run_ms,
            report_us: row.report_us,
        });
        let (Some(first), Some(last)) = (phases.first(), phases.last()) else { return Vec::new() };
        let (from_unix_us, to_unix_us) = (first.from_unix_us, last.to_unix_us);
        self.first_us = Some(self.first_us.map_or(from_unix_us, |known| known.min(from_unix_us)));

        let place = format!("attempt {}", row.attempt.0);
        let whole = Phase { name: &test.id, from_unix_us, to_unix_us };
        let mut span = self.span(&place, Some(TESTS), whole);
        let (result, is_error) = task_result(outcome);
        span.attributes = vec![
            text("cicd.pipeline.task.type", "test"),
            text("cicd.pipeline.task.name", &test.id),
            text("cicd.pipeline.task.run.id", &format!("{}/{}", self.row.run.0, row.attempt.0)),
            text("cicd.pipeline.task.run.result", result),
            text("cicd.worker.name", &row.worker.0),
            text("test.case.name", &test.id),
            text("test.suite.name", &test.suite),
            text("andon.outcome", outcome_word(ended)),
            count("andon.attempt", number.into()),
            count("andon.lane", row.lane.0.into()),
            count("andon.queue_ms", row.queue_ms),
            count("andon.rebase_us", row.rebase_us),
            text("andon.rebase.driver", &row.driver),
        ];
        if let Some(status) = case_status(outcome) {
            span.attributes.push(text("test.case.result.status", status));
        }
        if is_error {
            fail(&mut span, outcome_word(ended));
        }
        let mut spans = vec![span];
        for phase in phases {
            spans.push(self.span(&format!("{place} {}", phase.name), Some(&place), phase));
        }
        spans
    }

    /// The run itself and its phases.
    pub(super) fn end(self) -> Vec<Span> {
        let row = self.row;
        let micros = |ms: u64| ms.saturating_mul(1_000);
        let whole = Phase {
            name: &format!("RUN {}", row.header.project),
            from_unix_us: micros(row.created_ms),
            to_unix_us: micros(row.ended_ms),
        };
        let mut root = self.span(ROOT, None, whole);
        root.kind = SpanKind::Server.into();
        let (kind, head) = ref_of(&row.header.git_ref);
        root.attributes = vec![
            text("cicd.pipeline.name", &row.header.project),
            text("cicd.pipeline.action.name", "RUN"),
            text("cicd.pipeline.run.id", &row.run.0.to_string()),
            text("cicd.pipeline.result", pipeline_result(row)),
            text("vcs.repository.url.full", &without_credentials(&row.header.repository)),
            text("vcs.ref.head.revision", &row.header.commit),
            text("andon.state", state_word(row.state)),
            text("andon.baseline", &row.baseline_key),
            count("andon.tests", row.counts.total().into()),
            count("andon.tests.failed", u64::from(row.counts.failed) + u64::from(row.counts.timed_out)),
            count("andon.tests.flaky", row.counts.flaky.into()),
        ];
        if !head.is_empty() {
            root.attributes.push(text("vcs.ref.head.name", head));
        }
        if let Some(kind) = kind {
            root.attributes.push(text("vcs.ref.head.type", kind));
        }
        if let Some(of) = row.header.rerun_of {
            root.attributes.push(count("andon.rerun_of", of.0));
        }
        if row.state != RunState::Ended(RunEnd::Passed) {
            fail(&mut root, state_word(row.state));
        }
        let phases = self.times.phases(self.first_us);
        let below = phases.into_iter().map(|phase| self.span(phase.name, Some(ROOT), phase));
        std::iter::once(root).chain(below).collect()
    }

    /// `place` and `parent` say which span of its trace it is, and below which.
    fn span(&self, place: &str, parent: Option<&str>, phase: Phase<'_>) -> Span {
        let nanos = |us: u64| us.saturating_mul(1_000);
        Span {
            trace_id: self.trace_id.to_vec(),
            span_id: self.id(place),
            parent_span_id: parent.map(|parent| self.id(parent)).unwrap_or_default(),
            name: clean(phase.name),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: nanos(phase.from_unix_us),
            // An end before its beginning is a moment.
            end_time_unix_nano: nanos(phase.to_unix_us.max(phase.from_unix_us)),
            ..Span::default()
        }
    }

    fn id(&self, place: &str) -> Vec<u8> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.trace_id).update(place.as_bytes());
        hasher.finalize().as_bytes()[..8].to_vec()
    }
}

/// The conventions' word for how a run ended.
fn pipeline_result(row: &RunRow) -> &'static str {
    match ending(row) {
        End::Green => "success",
        End::Red => "failure",
        End::Superseded | End::Cancelled => "cancellation",
        End::Infrastructure => "error",
    }
}

/// The conventions' word for how an attempt ended, and whether that is an error.
fn task_result(outcome: Outcome) -> (&'static str, bool) {
    match outcome {
        Outcome::Passed => ("success", false),
        Outcome::Failed => ("failure", true),
        Outcome::TimedOut => ("timeout", true),
        Outcome::Infrastructure => ("error", true),
        Outcome::Skipped => ("skip", false),
        Outcome::Cancelled => ("cancellation", false),
    }
}

/// The conventions know two ways for a test to end.
fn case_status(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Passed => Some("pass"),
        Outcome::Failed | Outcome::TimedOut => Some("fail"),
        Outcome::Skipped | Outcome::Infrastructure | Outcome::Cancelled => None,
    }
}

/// The conventions' kind of a reference, and its name without it.
fn ref_of(git_ref: &str) -> (Option<&'static str>, &str) {
    let of = |kind, prefix| git_ref.strip_prefix(prefix).map(|name| (Some(kind), name));
    of("branch", "refs/heads/").or_else(|| of("tag", "refs/tags/")).unwrap_or((None, git_ref))
}

/// Those who submit leave credentials out; nobody has to rely on that.
fn without_credentials(repository: &str) -> String {
    let Ok(mut url) = Url::parse(repository) else { return repository.to_owned() };
    if !url.has_host() {
        return repository.to_owned();
    }
    let _ = url.set_password(None);
    if url.scheme() != "ssh" {
        // A token is often given as the name.
        let _ = url.set_username("");
    }
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

pub(super) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(clean(value)))
}

fn count(key: &str, value: u64) -> KeyValue {
    attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn fail(span: &mut Span, why: &str) {
    span.attributes.push(text("error.type", why));
    span.status = Some(Status { message: why.to_owned(), code: StatusCode::Error.into() });
}
