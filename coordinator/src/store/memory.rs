//! The store's in-memory side: for tests and simulation. Nothing of it is durable.

mod ledger;
mod owned;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};

use andon_core::ids::{AttemptId, Fence, RunId, TestIx, WorkId, WorkerId};
use andon_core::inexact::{INEXACT_KEPT_MAX, INEXACT_KEPT_MS, Inexact};
use andon_core::model::{Artifacts, LeaseKind, Record, RunState, Verdict};
use async_trait::async_trait;

use super::{
    Active, ActiveLease, ActiveRun, AttemptRow, Cause, Counts, Forgotten, ImageRow, InexactFilter,
    InexactRow, Note, Output, Past, Piece, Result, RunFilter, RunRow, Store, StoreError, TestRow, UsualDirt,
    smoothed,
};

/// A store that lives as long as the process.
#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Debug, Default, Clone)]
struct State {
    runs: BTreeMap<RunId, Stored>,
    leases: BTreeMap<Fence, ActiveLease>,
    last_fence: u64,
    history: HashMap<(String, String), HashMap<String, (Past, RunId)>>,
    artifacts: BTreeMap<Fence, (RunId, Artifacts)>,
    baselines: Vec<(u64, String, Vec<u8>)>,
    images: BTreeMap<String, ImageRow>,
    /// With when each was heard.
    inexact: Vec<(u64, InexactRow)>,
    /// By project, suite and id.
    causes: BTreeMap<[String; 3], Cause>,
    entered: ledger::Entered,
    owners: owned::Owners,
}

#[derive(Debug, Clone)]
struct Stored {
    row: RunRow,
    tests: BTreeMap<TestIx, TestRow>,
    discovered: Vec<String>,
    outputs: HashMap<AttemptId, Vec<u8>>,
    pieces: BTreeMap<(Fence, u64), Piece>,
    losses: Vec<(LeaseKind, WorkerId)>,
    notes: Vec<Note>,
    changes: HashMap<AttemptId, String>,
}

impl Stored {
    fn forget(&mut self) {
        self.row = RunRow { forgotten: true, ..self.row() };
        self.tests.clear();
        self.discovered.clear();
        self.outputs.clear();
        self.pieces.clear();
        self.notes.clear();
        self.changes.clear();
    }

    fn row(&self) -> RunRow {
        if self.row.forgotten {
            return self.row.clone();
        }
        let mut counts = Counts::default();
        for test in self.tests.values() {
            counts.add(test.verdict, 1);
            let running = test.attempts.iter().filter(|attempt| attempt.outcome.is_none()).count();
            counts.running += u32::try_from(running).unwrap_or(u32::MAX);
        }
        RunRow { counts, ..self.row.clone() }
    }

    fn attempt(&mut self, wanted: AttemptId) -> Option<&mut AttemptRow> {
        self.tests.values_mut().flat_map(|test| &mut test.attempts).find(|attempt| attempt.attempt == wanted)
    }
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl State {
    fn run(&mut self, run: RunId) -> Result<&mut Stored> {
        self.runs.get_mut(&run).ok_or(StoreError::Database(sqlx::Error::RowNotFound))
    }

    fn record(&mut self, record: &Record) -> Result<()> {
        match record.clone() {
            Record::RunCreated { run, header, at_unix_ms } => {
                let row = RunRow {
                    run,
                    header,
                    state: RunState::Queued,
                    reason: String::new(),
                    baseline_key: String::new(),
                    created_ms: at_unix_ms,
                    started_ms: 0,
                    based_ms: 0,
                    ended_ms: 0,
                    forgotten: false,
                    counts: Counts::default(),
                };
                let stored = Stored {
                    row,
                    tests: BTreeMap::new(),
                    discovered: Vec::new(),
                    outputs: HashMap::new(),
                    pieces: BTreeMap::new(),
                    losses: Vec::new(),
                    notes: Vec::new(),
                    changes: HashMap::new(),
                };
                self.runs.insert(run, stored);
            }
            Record::RunMoved { run, state, reason, at_unix_ms } => {
                let row = &mut self.run(run)?.row;
                row.state = state;
                row.reason = reason;
                if row.based_ms == 0 && state.has_its_baseline() {
                    row.based_ms = at_unix_ms;
                }
                if matches!(state, RunState::Ended(_)) {
                    row.ended_ms = at_unix_ms;
                    self.leases.retain(|_, lease| lease.lease.run != run);
                } else if row.started_ms == 0 {
                    row.started_ms = at_unix_ms;
                }
            }
            Record::BaselinePinned { run, key } => self.run(run)?.row.baseline_key = key,
            Record::TestsAdded { run, suite, tests } => {
                let stored = self.run(run)?;
                stored.discovered.push(suite.clone());
                stored.discovered.sort();
                for (test, id) in tests {
                    let row = TestRow { test, suite: suite.clone(), id, verdict: None, attempts: Vec::new() };
                    stored.tests.insert(test, row);
                }
            }
            leased @ Record::Leased { .. } => self.leased(leased)?,
            Record::LeaseClosed { fence } => {
                self.leases.remove(&fence);
            }
            Record::AttemptEnded { run, attempt, ended, at_unix_ms: _ } => {
                let stored = self.run(run)?;
                if !ended.log_zstd.is_empty() {
                    stored.outputs.entry(attempt).or_insert_with(|| ended.log_zstd.clone());
                }
                if let Some(row) = stored.attempt(attempt).filter(|row| row.outcome.is_none()) {
                    row.outcome = Some(ended.outcome);
                    row.prepare_ms = ended.prepare_ms;
                    row.start_ms = ended.start_ms;
                    row.rebase_us = ended.rebase_us;
                    row.run_ms = ended.run_ms;
                    row.report_us = ended.report_us;
                    row.message = ended.message;
                    row.driver = ended.driver;
                    row.started_ms = ended.started_unix_ms;
                }
            }
            Record::AttemptShared { run, attempt, test, of, of_attempt } => {
                let leader = self.run(of)?;
                let output = leader.outputs.get(&of_attempt).cloned();
                let copied = leader.attempt(of_attempt).map(|row| AttemptRow { attempt, ..row.clone() });
                let stored = self.run(run)?;
                stored.outputs.extend(output.map(|output| (attempt, output)));
                if let Some(row) = stored.tests.get_mut(&test) {
                    row.attempts.extend(copied);
                }
            }
            Record::Footprint { lease, worker, attempts, dirtied_bytes, changes } => {
                // A worker may name any run, and must not be able to stop a round with it.
                let Some(stored) = self.runs.get_mut(&lease.run) else { return Ok(()) };
                for attempt in attempts {
                    let ours = |row: &&mut AttemptRow| {
                        row.fence == lease.fence
                            && row.worker == worker
                            && row.outcome.is_some()
                            && row.dirtied_bytes.is_none()
                    };
                    if let Some(row) = stored.attempt(attempt).filter(ours) {
                        row.dirtied_bytes = Some(dirtied_bytes);
                        if !changes.is_empty() {
                            stored.changes.insert(attempt, changes.clone());
                        }
                    }
                }
            }
            Record::Printed { lease, starts, raw_bytes, zstd } => {
                let piece = Piece { starts, raw_bytes: raw_bytes.into(), content: Ok(zstd) };
                self.run(lease.run)?.pieces.entry((lease.fence, starts)).or_insert(piece);
            }
            Record::WorkLost { run, kind, worker } => self.run(run)?.losses.push((kind, worker)),
            Record::ArtifactsKept { lease, artifacts } => {
                self.artifacts.entry(lease.fence).or_insert((lease.run, artifacts));
            }
            Record::BaselinePublished { key, manifest, at_unix_ms, replaces } => {
                if replaces {
                    self.baselines.retain(|(_, known, _)| *known != key);
                }
                if !self.baselines.iter().any(|(_, known, _)| *known == key) {
                    self.baselines.push((at_unix_ms, key, manifest));
                }
            }
            Record::Inexact { worker, inexact, at_unix_ms } => self.inexact(worker, inexact, at_unix_ms),
            Record::VerdictGiven { run, test, verdict, run_ms } => {
                self.verdict(run, test, verdict, run_ms)?;
            }
            Record::Noted { run, text, log_zstd, at_unix_ms } => {
                self.run(run)?.notes.push(Note { at_ms: at_unix_ms, text, zstd: log_zstd });
            }
        }
        Ok(())
    }

    fn inexact(&mut self, worker: WorkerId, inexact: Inexact, at_unix_ms: u64) {
        let of_worker = self.inexact.iter().map(|(_, row)| row).filter(|row| row.worker == worker);
        let last = of_worker.clone().map(|row| row.number).max().unwrap_or(0);
        if of_worker.clone().any(|row| row.inexact.id == inexact.id) {
            return;
        }
        let number = last + 1;
        let is_kept = |(heard, row): &(u64, InexactRow)| {
            heard.saturating_add(INEXACT_KEPT_MS) >= at_unix_ms
                && (row.worker != worker || row.number + INEXACT_KEPT_MAX > number)
        };
        self.inexact.retain(is_kept);
        self.inexact.push((at_unix_ms, InexactRow { worker, number, inexact }));
    }

    fn leased(&mut self, record: Record) -> Result<()> {
        let Record::Leased { lease, kind, worker, lane, attempts } = record else { return Ok(()) };
        if lease.fence.0 <= self.last_fence {
            let text = format!("fence {} was given before", lease.fence.0);
            return Err(sqlx::Error::Protocol(text).into());
        }
        self.last_fence = lease.fence.0;
        let active = ActiveLease { lease, kind, worker: worker.clone(), lane };
        self.leases.insert(lease.fence, active);
        let stored = self.run(lease.run)?;
        for (attempt, test, queue_ms) in attempts {
            let row = AttemptRow {
                attempt,
                work: lease.work,
                fence: lease.fence,
                worker: worker.clone(),
                lane,
                outcome: None,
                queue_ms,
                prepare_ms: 0,
                start_ms: 0,
                rebase_us: 0,
                run_ms: 0,
                report_us: 0,
                dirtied_bytes: None,
                message: String::new(),
                driver: String::new(),
                started_ms: 0,
            };
            if let Some(test) = stored.tests.get_mut(&test) {
                test.attempts.push(row);
            }
        }
        Ok(())
    }

    fn verdict(&mut self, run: RunId, test: TestIx, verdict: Verdict, run_ms: Option<u64>) -> Result<()> {
        let stored = self.run(run)?;
        let project = stored.row.header.project.clone();
        let Some(row) = stored.tests.get_mut(&test).filter(|row| row.verdict.is_none()) else {
            return Ok(());
        };
        row.verdict = Some(verdict);
        let (suite, id) = (row.suite.clone(), row.id.clone());
        if let Some(seen_ms) = run_ms {
            let known = self.history.entry((project, suite)).or_default();
            let failed = matches!(verdict, Verdict::Failed | Verdict::TimedOut | Verdict::Quarantined);
            let flaky = verdict == Verdict::Flaky;
            let before = known.get(&id).map(|(past, _)| *past);
            let sum = before.unwrap_or_default();
            let past = Past {
                mean_ms: smoothed(before.map(|past| past.mean_ms), seen_ms),
                failed_last: failed || flaky,
                runs: sum.runs + 1,
                failures: sum.failures + u32::from(failed),
                flakes: sum.flakes + u32::from(flaky),
            };
            known.insert(id, (past, run));
        }
        Ok(())
    }

    fn active_run(&self, stored: &Stored) -> ActiveRun {
        let run = stored.row.run;
        let leases: Vec<_> = self.leases.values().filter(|lease| lease.lease.run == run).cloned().collect();
        let tests: Vec<_> = stored.tests.values().cloned().collect();
        let of_attempts = tests.iter().flat_map(|test| &test.attempts).map(|attempt| attempt.work);
        let of_leases = leases.iter().map(|lease| lease.lease.work);
        let last_work = of_attempts.chain(of_leases).max().unwrap_or(WorkId(0)).0;
        ActiveRun {
            row: stored.row(),
            tests,
            discovered: stored.discovered.clone(),
            leases,
            losses: stored.losses.clone(),
            last_work,
        }
    }
}

#[async_trait]
impl Store for Memory {
    async fn apply(&self, records: &[Record]) -> Result<()> {
        let mut state = self.state();
        // All or nothing, as a transaction is.
        let mut next = state.clone();
        for record in records {
            next.record(record)?;
        }
        *state = next;
        Ok(())
    }

    async fn forget(&self, ended_before_ms: u64, _: u32) -> Result<Forgotten> {
        let state = &mut *self.state();
        let is_old = |row: &RunRow| !row.forgotten && row.ended_ms > 0 && row.ended_ms < ended_before_ms;
        let oldest = state.runs.values_mut().filter(|stored| is_old(&stored.row));
        let Some(stored) = oldest.min_by_key(|stored| stored.row.ended_ms) else {
            return Ok(Forgotten::default());
        };
        stored.forget();
        let blobs = {
            let run = stored.row.run;
            let (gone, kept): (Vec<_>, Vec<_>) =
                std::mem::take(&mut state.artifacts).into_iter().partition(|(_, (of, _))| *of == run);
            state.artifacts = kept.into_iter().collect();
            let is_used = |digest: &String| {
                state.artifacts.values().any(|(_, artifacts)| artifacts.blob_digest == *digest)
            };
            let mut blobs: Vec<_> = gone.into_iter().map(|(_, (_, gone))| gone.blob_digest).collect();
            blobs.retain(|digest| !is_used(digest));
            blobs.sort_unstable();
            blobs.dedup();
            blobs
        };
        let (run, project) = (stored.row.run, stored.row.header.project.clone());
        state.owners.forget(run);
        for ((of, _), known) in &mut state.history {
            known.retain(|_, (_, last_run)| *of != project || *last_run != run);
        }
        Ok(Forgotten { is_more: true, blobs })
    }

    async fn active(&self) -> Result<Active> {
        let state = self.state();
        let last_run = state.runs.keys().last().map_or(0, |run| run.0);
        let open = state.runs.values().filter(|stored| !matches!(stored.row.state, RunState::Ended(_)));
        let runs = open.map(|stored| state.active_run(stored)).collect();
        Ok(Active { last_run, last_fence: state.last_fence, runs })
    }

    async fn find_dedup(&self, key: &str) -> Result<Option<RunId>> {
        let state = self.state();
        let found = state.runs.values().find(|stored| stored.row.header.dedup_key.as_deref() == Some(key));
        Ok(found.map(|stored| stored.row.run))
    }

    async fn run(&self, run: RunId) -> Result<Option<RunRow>> {
        Ok(self.state().runs.get(&run).map(Stored::row))
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>> {
        let state = self.state();
        let wanted = |row: &RunRow| {
            filter.project.as_ref().is_none_or(|project| row.header.project == *project)
                && filter.commit.as_ref().is_none_or(|commit| row.header.commit.starts_with(commit))
        };
        let rows = state.runs.values().rev().map(Stored::row).filter(wanted);
        Ok(rows.take(filter.limit as usize).collect())
    }

    async fn tests(&self, run: RunId) -> Result<Vec<TestRow>> {
        let state = self.state();
        Ok(state.runs.get(&run).map(|stored| stored.tests.values().cloned().collect()).unwrap_or_default())
    }

    async fn test(&self, run: RunId, test: TestIx) -> Result<Option<TestRow>> {
        Ok(self.state().runs.get(&run).and_then(|stored| stored.tests.get(&test).cloned()))
    }

    async fn output(&self, run: RunId, attempt: AttemptId) -> Result<Output> {
        let mut state = self.state();
        let Some(stored) = state.runs.get_mut(&run) else { return Ok(Output::Nothing) };
        if let Some(whole) = stored.outputs.get(&attempt) {
            return Ok(Output::Whole(Ok(whole.clone())));
        }
        let Some(fence) = stored.attempt(attempt).map(|row| row.fence) else { return Ok(Output::Nothing) };
        let of_grant = stored.pieces.range((fence, 0)..=(fence, u64::MAX));
        let pieces: Vec<_> = of_grant.map(|(_, piece)| piece.clone()).collect();
        Ok(if pieces.is_empty() { Output::Nothing } else { Output::Pieces(pieces) })
    }

    async fn artifacts(&self, run: RunId, attempt: AttemptId) -> Result<Option<Artifacts>> {
        let mut state = self.state();
        let stored = state.runs.get_mut(&run);
        let fence = stored.and_then(|stored| stored.attempt(attempt)).map(|row| row.fence);
        Ok(fence.and_then(|fence| state.artifacts.get(&fence)).map(|(_, artifacts)| artifacts.clone()))
    }

    async fn changes(&self, run: RunId, attempt: AttemptId) -> Result<Option<String>> {
        Ok(self.state().runs.get(&run).and_then(|stored| stored.changes.get(&attempt).cloned()))
    }

    async fn usual_dirt(&self, run: RunId, runs_max: u32) -> Result<UsualDirt> {
        let state = self.state();
        let Some(project) = state.runs.get(&run).map(|stored| stored.row.header.project.clone()) else {
            return Ok(UsualDirt::new());
        };
        let earlier =
            state.runs.range(..run).rev().filter(|(_, stored)| stored.row.header.project == project);
        let mut sums: HashMap<(String, String), (u64, u64)> = HashMap::new();
        for (_, stored) in earlier.take(runs_max as usize) {
            for test in stored.tests.values() {
                for bytes in test.attempts.iter().filter_map(|attempt| attempt.dirtied_bytes) {
                    let sum = sums.entry((test.suite.clone(), test.id.clone())).or_default();
                    *sum = (sum.0 + bytes, sum.1 + 1);
                }
            }
        }
        Ok(sums.into_iter().map(|(test, (sum, count))| (test, (sum / count, count))).collect())
    }

    async fn specifications(
        &self,
        forgotten: bool,
        after: RunId,
        limit: u32,
    ) -> Result<Vec<(RunId, String)>> {
        let state = self.state();
        let later =
            state.runs.iter().filter(|(run, stored)| **run > after && stored.row.forgotten == forgotten);
        let specs = later.map(|(run, stored)| (*run, stored.row.header.spec_digest.clone()));
        Ok(specs.take(usize::try_from(limit).unwrap_or(usize::MAX)).collect())
    }

    async fn inexact(&self, filter: &InexactFilter) -> Result<Vec<InexactRow>> {
        let is_wanted = |row: &InexactRow| {
            filter.worker.as_ref().is_none_or(|worker| row.worker.0 == *worker)
                && filter.baseline_key.as_ref().is_none_or(|key| row.inexact.baseline_key == *key)
        };
        let mut rows = self.state().inexact.clone();
        rows.retain(|(_, row)| is_wanted(row));
        rows.sort_by(|(a_ms, a), (b_ms, b)| {
            b_ms.cmp(a_ms).then_with(|| b.number.cmp(&a.number)).then_with(|| a.worker.cmp(&b.worker))
        });
        Ok(rows.into_iter().map(|(_, row)| row).take(filter.limit as usize).collect())
    }

    async fn inexact_counts(&self) -> Result<HashMap<WorkerId, u64>> {
        let mut counts = HashMap::new();
        for (_, row) in &self.state().inexact {
            let count: &mut u64 = counts.entry(row.worker.clone()).or_default();
            *count = row.number.max(*count);
        }
        Ok(counts)
    }

    async fn notes(&self, run: RunId) -> Result<Vec<Note>> {
        Ok(self.state().runs.get(&run).map(|stored| stored.notes.clone()).unwrap_or_default())
    }

    async fn history(&self, project: &str, suite: &str) -> Result<HashMap<String, Past>> {
        let key = (project.to_owned(), suite.to_owned());
        let known = self.state().history.get(&key).cloned().unwrap_or_default();
        Ok(known.into_iter().map(|(id, (past, _))| (id, past)).collect())
    }

    async fn baseline(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let state = self.state();
        Ok(state.baselines.iter().find(|(_, known, _)| known == key).map(|(_, _, manifest)| manifest.clone()))
    }

    async fn baselines(&self) -> Result<Vec<Vec<u8>>> {
        let mut all = self.state().baselines.clone();
        all.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        Ok(all.into_iter().map(|(_, _, manifest)| manifest).collect())
    }

    async fn put_cause(&self, project: &str, suite: &str, id: &str, cause: &Cause) -> Result<()> {
        let test = [project, suite, id].map(str::to_owned);
        self.state().causes.insert(test, cause.clone());
        Ok(())
    }

    async fn cause(&self, project: &str, suite: &str, id: &str) -> Result<Option<Cause>> {
        Ok(self.state().causes.get(&[project, suite, id].map(str::to_owned)).cloned())
    }

    async fn put_image(&self, image: &ImageRow) -> Result<()> {
        self.state().images.insert(image.reference.clone(), image.clone());
        Ok(())
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageRow>> {
        let state = self.state();
        let by_id = || state.images.values().find(|image| image.image_id == reference);
        Ok(state.images.get(reference).or_else(by_id).cloned())
    }
}
