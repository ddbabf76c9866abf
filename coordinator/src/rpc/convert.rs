//! Domain types to wire types and back: the coordinator's only place for it.

use andon_core::Void;
use andon_core::asked::Pattern;
use andon_core::ids::{AttemptId, Fence, LaneIx, Lease, RunId, WorkId};
use andon_core::model::{
    Artifacts, Ended, FailureClass, Outcome, Report, RunEnd, RunState, Trigger, Verdict, Work,
};
use andon_core::quarantine::Quarantine;
use andon_proto as wire;
use andon_proto::coordinator_message::Body;

use crate::drift::Drift;
use crate::store::{AttemptRow, Counts, ImageRow, RunRow, TestRow};

/// A failure's message is cut to so many bytes.
const MESSAGE_BYTES_MAX: usize = 8 << 10;
/// Of what a worker tells of changed files.
const CHANGES_BYTES_MAX: usize = 16 << 10;

pub(crate) fn lease(lease: wire::Lease) -> Lease {
    Lease { run: RunId(lease.run), work: WorkId(lease.lease), fence: Fence(lease.fence) }
}

fn wire_lease(lease: Lease) -> wire::Lease {
    wire::Lease { run: lease.run.0, lease: lease.work.0, fence: lease.fence.0 }
}

fn message(body: Body) -> wire::CoordinatorMessage {
    wire::CoordinatorMessage { body: Some(body) }
}

pub(crate) fn ack(seq: u64) -> wire::CoordinatorMessage {
    message(Body::Ack(wire::Ack { seq }))
}

pub(crate) fn welcome(welcome: wire::Welcome) -> wire::CoordinatorMessage {
    message(Body::Welcome(welcome))
}

pub(crate) fn revoke(lease: Lease, reason: String) -> wire::CoordinatorMessage {
    message(Body::Revoke(wire::Revoke { lease: Some(wire_lease(lease)), reason }))
}

pub(crate) fn superseded(lease: Lease, reason: Void) -> wire::CoordinatorMessage {
    let reason = match reason {
        Void::NotCurrent => "no such lease is out",
        Void::NotYours => "the lease is another worker's",
        Void::NotCovered => "the lease is not for this",
    };
    message(Body::Superseded(wire::Superseded { lease: Some(wire_lease(lease)), reason: reason.to_owned() }))
}

pub(crate) fn assign(
    lane: LaneIx,
    lease: Lease,
    spec_digest: String,
    work: Work,
) -> wire::CoordinatorMessage {
    let work = match work {
        Work::PrepareBaseline => wire::assign::Work::PrepareBaseline(wire::PrepareBaseline {}),
        Work::Discover { suite, baseline } => {
            wire::assign::Work::Discover(wire::Discover { suite, baseline_key: baseline })
        }
        Work::Execute { suite, baseline, tests } => {
            let tests =
                tests.into_iter().map(|(attempt, _, id)| wire::TestCase { attempt: attempt.0, id }).collect();
            wire::assign::Work::Execute(wire::Execute { suite, baseline_key: baseline, tests })
        }
    };
    message(Body::Assign(wire::Assign {
        lease: Some(wire_lease(lease)),
        lane: lane.0,
        spec_digest,
        work: Some(work),
    }))
}

/// A worker's report. Discoveries are enriched with history by the caller; notices, output and artifacts are not reports.
pub(crate) fn report(body: wire::report::Body) -> Option<Report> {
    use wire::report::Body as Wire;
    Some(match body {
        Wire::BaselineReady(ready) => {
            let manifest = ready.manifest?;
            Report::BaselineReady {
                key: manifest.key.clone(),
                manifest: prost::Message::encode_to_vec(&manifest),
                replaces: ready.replaces,
            }
        }
        Wire::Discovered(found) => Report::Discovered {
            tests: found.tests.into_iter().map(|id| crate::restore::candidate(id, None)).collect(),
        },
        Wire::TestResult(result) => test_ended(result)?,
        Wire::UnitEnded(_) => Report::UnitEnded,
        Wire::WorkFailed(failed) => Report::WorkFailed {
            class: match failed.class() {
                wire::work_failed::Class::Baseline => FailureClass::Baseline,
                wire::work_failed::Class::Config => FailureClass::Config,
                wire::work_failed::Class::Infrastructure | wire::work_failed::Class::Unspecified => {
                    FailureClass::Infrastructure
                }
            },
            reason: cut(failed.reason),
            log_zstd: failed.log_zstd,
        },
        Wire::Footprint(print) => Report::Footprint {
            attempts: print.attempts.into_iter().map(AttemptId).collect(),
            dirtied_bytes: print.dirtied_bytes,
            changes: if print.changes.len() > CHANGES_BYTES_MAX { String::new() } else { print.changes },
        },
        Wire::Notice(_) | Wire::Output(_) | Wire::Artifacts(_) => return None,
    })
}

fn test_ended(result: wire::TestResult) -> Option<Report> {
    let outcome = match result.outcome() {
        wire::Outcome::Passed => Outcome::Passed,
        wire::Outcome::Failed => Outcome::Failed,
        wire::Outcome::Skipped => Outcome::Skipped,
        wire::Outcome::TimedOut => Outcome::TimedOut,
        wire::Outcome::Infrastructure => Outcome::Infrastructure,
        wire::Outcome::Cancelled => Outcome::Cancelled,
        wire::Outcome::Unspecified => return None,
    };
    let ended = Ended {
        outcome,
        prepare_ms: result.prepare_ms,
        start_ms: result.start_ms.min(result.prepare_ms),
        rebase_us: result.rebase_us,
        run_ms: result.run_ms,
        report_us: result.report_us,
        message: cut(result.message),
        log_zstd: result.log_zstd,
        started_unix_ms: result.started_unix_ms,
        driver: result.driver,
    };
    Some(Report::TestEnded { attempt: AttemptId(result.attempt), ended })
}

fn cut(mut text: String) -> String {
    if text.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

pub(crate) fn run(row: RunRow) -> wire::Run {
    let header = row.header;
    wire::Run {
        run: row.run.0,
        project: header.project,
        repository: header.repository,
        commit: header.commit,
        git_ref: header.git_ref,
        trigger: trigger(header.trigger).into(),
        state: state(row.state).into(),
        reason: row.reason,
        baseline_key: row.baseline_key,
        spec_digest: header.spec_digest,
        created_unix_ms: row.created_ms,
        started_unix_ms: row.started_ms,
        ended_unix_ms: row.ended_ms,
        counts: Some(counts(row.counts)),
        tests: Vec::new(),
        rerun_of: header.rerun_of.map_or(0, |run| run.0),
        requested_by: header.requested_by,
        forgotten: row.forgotten,
    }
}

pub(crate) fn artifacts(artifacts: wire::Artifacts) -> Artifacts {
    let wire::Artifacts { blob_digest, blob_size, files, bytes, left_out } = artifacts;
    Artifacts { blob_digest, blob_size, files, bytes, left_out }
}

pub(crate) fn artifacts_told(artifacts: Artifacts) -> wire::Artifacts {
    let Artifacts { blob_digest, blob_size, files, bytes, left_out } = artifacts;
    wire::Artifacts { blob_digest, blob_size, files, bytes, left_out }
}

fn trigger(trigger: Trigger) -> wire::Trigger {
    match trigger {
        Trigger::Push => wire::Trigger::Push,
        Trigger::Person => wire::Trigger::Person,
        Trigger::Rerun => wire::Trigger::Rerun,
        Trigger::Scheduled => wire::Trigger::Scheduled,
    }
}

pub(crate) fn trigger_of(provenance: Option<&wire::Provenance>) -> Trigger {
    match provenance.map(wire::Provenance::trigger) {
        Some(wire::Trigger::Push) => Trigger::Push,
        Some(wire::Trigger::Rerun) => Trigger::Rerun,
        Some(wire::Trigger::Scheduled) => Trigger::Scheduled,
        _ => Trigger::Person,
    }
}

fn state(state: RunState) -> wire::RunState {
    match state {
        RunState::Queued => wire::RunState::Queued,
        RunState::Preparing => wire::RunState::Preparing,
        RunState::Discovering => wire::RunState::Discovering,
        RunState::Running => wire::RunState::Running,
        RunState::Ended(RunEnd::Passed) => wire::RunState::Passed,
        RunState::Ended(RunEnd::Failed) => wire::RunState::Failed,
        RunState::Ended(RunEnd::NoTests) => wire::RunState::NoTests,
        RunState::Ended(RunEnd::ConfigError) => wire::RunState::ConfigError,
        RunState::Ended(RunEnd::BaselineFailed) => wire::RunState::BaselineFailed,
        RunState::Ended(RunEnd::Incomplete) => wire::RunState::Incomplete,
    }
}

pub(crate) fn counts(counts: Counts) -> wire::Counts {
    wire::Counts {
        total: counts.total(),
        passed: counts.passed,
        failed: counts.failed,
        flaky: counts.flaky,
        timed_out: counts.timed_out,
        skipped: counts.skipped,
        infrastructure: counts.infrastructure,
        not_run: counts.not_run,
        quarantined: counts.quarantined,
        open: counts.open,
        running: counts.running,
    }
}

fn verdict(verdict: Option<Verdict>) -> wire::Verdict {
    match verdict {
        None => wire::Verdict::Unspecified,
        Some(Verdict::Passed) => wire::Verdict::Passed,
        Some(Verdict::Failed) => wire::Verdict::Failed,
        Some(Verdict::Flaky) => wire::Verdict::Flaky,
        Some(Verdict::TimedOut) => wire::Verdict::TimedOut,
        Some(Verdict::Skipped) => wire::Verdict::Skipped,
        Some(Verdict::Infrastructure) => wire::Verdict::Infrastructure,
        Some(Verdict::NotRun) => wire::Verdict::NotRun,
        Some(Verdict::Quarantined) => wire::Verdict::Quarantined,
    }
}

pub(crate) fn test(row: TestRow, owners: Vec<String>, quarantine: Option<&Quarantine>) -> wire::Test {
    wire::Test {
        suite: row.suite,
        id: row.id,
        verdict: verdict(row.verdict).into(),
        attempts: row.attempts.into_iter().map(attempt).collect(),
        owners,
        quarantine: quarantine.map(self::quarantine),
    }
}

fn quarantine(of: &Quarantine) -> wire::Quarantine {
    use wire::quarantine::Tests;
    wire::Quarantine {
        suite: of.suite.clone().unwrap_or_default(),
        tests: Some(match &of.tests {
            Pattern::Exact(name) => Tests::Test(name.clone()),
            Pattern::Glob(glob) => Tests::Pattern(glob.clone()),
            Pattern::Part(part) => Tests::Pattern(format!("*{part}*")),
        }),
        owner: of.owner.clone(),
        until_unix_ms: of.until_unix_ms,
        reason: of.reason.clone(),
    }
}

fn attempt(row: AttemptRow) -> wire::Attempt {
    let outcome = match row.outcome {
        None => wire::Outcome::Unspecified,
        Some(Outcome::Passed) => wire::Outcome::Passed,
        Some(Outcome::Failed) => wire::Outcome::Failed,
        Some(Outcome::Skipped) => wire::Outcome::Skipped,
        Some(Outcome::TimedOut) => wire::Outcome::TimedOut,
        Some(Outcome::Infrastructure) => wire::Outcome::Infrastructure,
        Some(Outcome::Cancelled) => wire::Outcome::Cancelled,
    };
    wire::Attempt {
        attempt: row.attempt.0,
        worker: row.worker.0,
        lane: row.lane.0,
        outcome: outcome.into(),
        queue_ms: row.queue_ms,
        prepare_ms: row.prepare_ms,
        start_ms: row.start_ms,
        rebase_us: row.rebase_us,
        run_ms: row.run_ms,
        report_us: row.report_us,
        dirtied_bytes: row.dirtied_bytes.unwrap_or(0),
        dirt_known: row.dirtied_bytes.is_some(),
        message: row.message,
        started_unix_ms: row.started_ms,
        unit: row.work.0,
        driver: row.driver,
    }
}

pub(crate) fn image(row: ImageRow) -> wire::SharedImage {
    wire::SharedImage {
        reference: row.reference,
        image_id: row.image_id,
        blob_digest: row.blob_digest,
        blob_size: row.blob_size,
    }
}
pub(super) fn drift_told(drift: Drift) -> wire::TestDrift {
    let Drift { suite, id, dirtied_bytes, usual_bytes, grows } = drift;
    wire::TestDrift { suite, id, dirtied_bytes, usual_bytes, grows }
}
