//! The records of one round, gathered by kind, so that a round costs a handful of statements however many records it has.
//!
//! Each kind is a list of rows that a database reads as one JSON text. Sound because of what records are: what a record
//! needs is always of a kind that is written before it (a test before its attempts, an attempt before its end, all of
//! them before the run moves on), and within a kind the order is kept.

use std::collections::HashSet;
use std::hash::Hash;

use andon_core::ids::AttemptId;
use andon_core::model::{Record, Verdict};
use serde::Serialize;

use super::codes;
use super::outputs::Place;

/// Rows of one statement.
const ROWS_MAX: usize = 5_000;

/// (run, attempt, test, work, fence, worker, lane, queue_ms)
type Attempt<'a> = (u64, u64, u32, u64, u64, &'a str, u32, u64);
/// (run, attempt, outcome, prepare_ms, rebase_us, run_ms, message, driver, started_ms, ended_ms, start_ms, report_us)
type End<'a> = (u64, u64, i64, u64, u64, u64, String, &'a str, u64, u64, u64, u64);
/// (fence, run, work, kind, suite, worker, lane)
type LeaseRow<'a> = (u64, u64, u64, i64, &'a str, &'a str, u32);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Round<'a> {
    /// Those that are rare, in order: run created, baseline published and pinned.
    pub(super) first: Vec<&'a Record>,
    /// (run, suite)
    pub(super) suites: Vec<(u64, &'a str)>,
    /// (run, test, suite, id)
    pub(super) tests: Vec<(u64, u32, &'a str, &'a str)>,
    pub(super) leases: Vec<LeaseRow<'a>>,
    pub(super) attempts: Vec<Attempt<'a>>,
    pub(super) ends: Vec<End<'a>>,
    /// (run, attempt, zstd)
    outputs: Vec<(u64, u64, &'a [u8])>,
    /// (run, fence, starts, raw_bytes, zstd)
    pieces: Vec<(u64, u64, u64, u32, &'a [u8])>,
    /// (run, attempt, test, of, of_attempt)
    pub(super) shared: Vec<(u64, u64, u32, u64, u64)>,
    /// (run, attempt, fence, worker, dirtied_bytes, changes)
    pub(super) footprints: Vec<(u64, u64, u64, &'a str, u64, &'a str)>,
    /// (run, test, verdict)
    pub(super) verdicts: Vec<(u64, u32, i64)>,
    /// (run, test, run_ms, failed, flaky), the last two as 0 or 1; for the history
    pub(super) seen: Vec<(u64, u32, u64, u8, u8)>,
    pub(super) closed: Vec<u64>,
    /// Those that come after all others, in order: notes, artifacts, losses, run moved.
    pub(super) last: Vec<&'a Record>,
}

impl<'a> Round<'a> {
    pub(super) fn of(records: &'a [Record]) -> Self {
        let mut round = Self::default();
        for record in records {
            round.add(record);
        }
        // What is said twice in one round is what was said first, as it would be in two rounds.
        keep_first(&mut round.ends, |end| (end.0, end.1));
        keep_first(&mut round.verdicts, |verdict| (verdict.0, verdict.1));
        keep_first(&mut round.seen, |seen| (seen.0, seen.1));
        keep_first(&mut round.footprints, |print| (print.0, print.1, print.2, print.3));
        round
    }

    fn add(&mut self, record: &'a Record) {
        match record {
            Record::RunCreated { .. } | Record::BaselinePublished { .. } | Record::BaselinePinned { .. } => {
                self.first.push(record);
            }
            Record::Noted { .. }
            | Record::ArtifactsKept { .. }
            | Record::WorkLost { .. }
            | Record::Inexact { .. }
            | Record::RunMoved { .. } => {
                self.last.push(record);
            }
            Record::TestsAdded { run, suite, tests } => {
                self.suites.push((run.0, suite));
                self.tests
                    .extend(tests.iter().map(|(test, id)| (run.0, test.0, suite.as_str(), id.as_str())));
            }
            Record::Leased { lease, kind, worker, lane, attempts } => {
                let (run, work, fence) = (lease.run.0, lease.work.0, lease.fence.0);
                let (kind, suite) = codes::from_lease_kind(kind);
                self.leases.push((fence, run, work, kind, suite, &worker.0, lane.0));
                self.attempts.extend(attempts.iter().map(|(attempt, test, queue_ms)| {
                    (run, attempt.0, test.0, work, fence, worker.0.as_str(), lane.0, *queue_ms)
                }));
            }
            Record::LeaseClosed { fence } => self.closed.push(fence.0),
            Record::AttemptEnded { run, attempt, ended, at_unix_ms } => {
                self.ends.push((
                    run.0,
                    attempt.0,
                    codes::from_outcome(ended.outcome),
                    ended.prepare_ms,
                    ended.rebase_us,
                    ended.run_ms,
                    without_nul(&ended.message),
                    &ended.driver,
                    ended.started_unix_ms,
                    *at_unix_ms,
                    ended.start_ms,
                    ended.report_us,
                ));
                if !ended.log_zstd.is_empty() {
                    self.outputs.push((run.0, attempt.0, &ended.log_zstd));
                }
            }
            Record::AttemptShared { run, attempt, test, of, of_attempt } => {
                self.shared.push((run.0, attempt.0, test.0, of.0, of_attempt.0));
            }
            Record::Footprint { lease, worker, attempts, dirtied_bytes, changes } => {
                let (run, fence) = (lease.run.0, lease.fence.0);
                let row = |attempt: &AttemptId| {
                    (run, attempt.0, fence, worker.0.as_str(), *dirtied_bytes, changes.as_str())
                };
                self.footprints.extend(attempts.iter().map(row));
            }
            Record::Printed { lease, starts, raw_bytes, zstd } => {
                self.pieces.push((lease.run.0, lease.fence.0, *starts, *raw_bytes, zstd));
            }
            Record::VerdictGiven { run, test, verdict, run_ms } => {
                self.verdicts.push((run.0, test.0, codes::from_verdict(*verdict)));
                let failed = matches!(verdict, Verdict::Failed | Verdict::TimedOut | Verdict::Quarantined);
                let failed = u8::from(failed);
                let flaky = u8::from(*verdict == Verdict::Flaky);
                self.seen.extend(run_ms.map(|ms| (run.0, test.0, ms, failed, flaky)));
            }
        }
    }

    /// The lowest and the highest fence that it grants; `None` for none. An error where one is not above the one before.
    pub(super) fn fences(&self) -> Result<Option<(u64, u64)>, String> {
        let grows = self.leases.windows(2).find(|pair| pair[0].0 >= pair[1].0);
        match (grows, self.leases.first(), self.leases.last()) {
            (Some(pair), ..) => Err(format!("fence {} was given after fence {}", pair[1].0, pair[0].0)),
            (None, Some(first), Some(last)) => Ok(Some((first.0, last.0))),
            _ => Ok(None),
        }
    }
}

/// (run, attempt, segment, at, bytes, digest)
type OutputRow = (u64, u64, u64, u64, u64, String);
/// (run, fence, starts, raw_bytes, segment, at, bytes, digest)
type PieceRow = (u64, u64, u64, u32, u64, u64, u64, String);

impl Round<'_> {
    /// What goes beside the database.
    pub(super) fn printed(&self) -> Vec<Vec<u8>> {
        let outputs = self.outputs.iter().map(|output| output.2);
        outputs.chain(self.pieces.iter().map(|piece| piece.4)).map(<[u8]>::to_vec).collect()
    }

    /// Its rows, once it lies in these places.
    pub(super) fn placed(&self, places: Vec<Place>) -> (Vec<OutputRow>, Vec<PieceRow>) {
        let mut places = places.into_iter();
        let outputs = self.outputs.iter().zip(places.by_ref());
        let outputs = outputs
            .map(|((run, attempt, _), place)| {
                (*run, *attempt, place.segment, place.at, place.bytes, place.digest)
            })
            .collect();
        let pieces = self.pieces.iter().zip(places);
        let pieces = pieces
            .map(|((run, fence, starts, raw, _), place)| {
                (*run, *fence, *starts, *raw, place.segment, place.at, place.bytes, place.digest)
            })
            .collect();
        (outputs, pieces)
    }
}

fn keep_first<T, K: Eq + Hash>(rows: &mut Vec<T>, key: impl Fn(&T) -> K) {
    let mut known = HashSet::with_capacity(rows.len());
    rows.retain(|row| known.insert(key(row)));
}

/// Rows as the JSON texts of as many statements as they need.
pub(super) fn statements<T: Serialize>(rows: &[T]) -> impl Iterator<Item = String> {
    rows.chunks(ROWS_MAX).map(|rows| serde_json::to_string(rows).expect("numbers and texts are valid JSON"))
}

/// Databases end a text at a NUL, or refuse it.
pub(super) fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
