//! A made history (`andon_figures::made`) as the records that a coordinator would have stored, and a store that is filled with it: by the
//! records' own way in, and entered into the ledger by the code that enters every run.
//!
//! What the model does not say is said here: a unit is one test; an attempt waits from the run's start, or from the attempt before it;
//! preparing takes 3 to 7 ms; a test dirties between 64 KiB and 4 MiB, always the same; a failure prints a traceback of about 2 kB and has
//! a message, whatever passes prints a dot. The whole history is moved by whole days, so that it ends now.
//!
//! A run is one transaction: filling goes on after the last run that is there.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use andon_coordinator::store::Store;
use andon_coordinator::store::ledger::DAY_MS;
use andon_coordinator::testing::enter_ended;
use andon_core::ids::{AttemptId, Fence, LaneIx, Lease, RunId, TestIx, WorkId, WorkerId};
use andon_core::model::{Ended, LeaseKind, Outcome, Record, RunEnd, RunHeader, RunState, Trigger, Verdict};
use andon_core::verdict::{Decision, decide};
use andon_figures::flow::End;
use andon_figures::made::{MadeAttempt, MadeRun, Model, TestAt, World};
use andon_proto as wire;
use futures::StreamExt;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::Failure;

/// Retries of a real failure, as in the model.
const RETRIES: u32 = 1;
/// No run has more leases.
const FENCES_A_RUN: u64 = 1 << 20;
/// Runs that are made while others are written.
const MADE_AHEAD: usize = 2;
/// Lanes of one worker.
const LANES_A_WORKER: u32 = 2;
/// Beside the database.
const STAMP: &str = "made.json";
pub(crate) const BRANCH: &str = "refs/heads/main";

/// What a folder was filled with, beside its database.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Stamp {
    model: Model,
    moved_ms: u64,
    /// What filling took so far.
    filled_ms: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) world: World,
    /// Project and commit of each run, by its number less one.
    pub(crate) order: Vec<(usize, usize)>,
    /// So much later than the model says is everything.
    moved_ms: u64,
    printed: Printed,
}

/// What tests print, compressed.
#[derive(Debug)]
struct Printed {
    passed: Vec<u8>,
    failed: Vec<u8>,
}

impl History {
    /// That ended within the last day.
    pub(crate) fn new(model: Model, now_unix_ms: u64) -> Self {
        let mut history = Self::moved(model, 0);
        let last = history.order.last().map(|(project, commit)| history.world.run(*project, *commit));
        let ended = last.map_or(now_unix_ms, |run| run.ended_unix_ms);
        history.moved_ms = now_unix_ms.saturating_sub(ended) / DAY_MS * DAY_MS;
        history
    }

    fn moved(model: Model, moved_ms: u64) -> Self {
        let world = World::new(model);
        let compressed = |text: &str| zstd::bulk::compress(text.as_bytes(), 3).expect("it compresses");
        let printed = Printed { passed: compressed(".\n"), failed: compressed(&traceback()) };
        Self { order: world.order(), world, moved_ms, printed }
    }

    /// The history that a folder was filled with, or is from now on, and what filling took so far.
    ///
    /// # Errors
    /// Where it holds another one.
    pub(crate) fn of_folder(
        folder: &Path,
        model: Model,
        now_unix_ms: u64,
    ) -> Result<(Self, Duration), Failure> {
        let path = folder.join(STAMP);
        if path.exists() {
            let stamp: Stamp = serde_json::from_slice(&std::fs::read(&path)?)?;
            if stamp.model != model {
                return Err(format!("{} holds another history: remove the folder", folder.display()).into());
            }
            return Ok((Self::moved(model, stamp.moved_ms), Duration::from_millis(stamp.filled_ms)));
        }
        let history = Self::new(model, now_unix_ms);
        history.keep(folder, Duration::ZERO)?;
        Ok((history, Duration::ZERO))
    }

    /// Remembers beside the database what it is filled with.
    pub(crate) fn keep(&self, folder: &Path, filled: Duration) -> Result<(), Failure> {
        let (model, moved_ms) = (*self.world.model(), self.moved_ms);
        let stamp = Stamp { model, moved_ms, filled_ms: u64::try_from(filled.as_millis())? };
        Ok(std::fs::write(folder.join(STAMP), serde_json::to_vec(&stamp)?)?)
    }

    /// What a run is stored as.
    fn records(&self, at: usize) -> Vec<Record> {
        let (project, commit) = self.order[at];
        let mut made = self.world.run(project, commit);
        made.attempts.sort_by_key(|attempt| attempt.started_unix_ms);
        let run = RunId(at as u64 + 1);
        let pushed = made.pushed_unix_ms + self.moved_ms;
        let started = made.attempts.first().map_or(pushed, |first| first.started_unix_ms + self.moved_ms);
        let moved = |state, reason: String, at_unix_ms| Record::RunMoved { run, state, reason, at_unix_ms };
        let mut records = Vec::with_capacity(made.attempts.len() * 5 + 16);
        if commit == 0 || self.world.truth().baselines.contains(&(project, commit)) {
            records.push(baseline(&made, project, run, pushed));
        }
        records.extend([
            Record::RunCreated { run, header: header(&made), at_unix_ms: pushed },
            Record::BaselinePinned { run, key: key(&made.baseline) },
            moved(RunState::Running, String::new(), started),
        ]);
        let model = self.world.model();
        for suite in 0..model.suites {
            let tests = (0..model.tests).map(|test| {
                let at = TestAt { project, suite, test };
                (self.place(at), test_name(at))
            });
            records.push(Record::TestsAdded { run, suite: suite_name(suite), tests: tests.collect() });
        }
        self.attempts(run, &made, started, &mut records);
        self.verdicts(run, &made, &mut records);
        let (end, reason) = match made.end {
            End::Green => (RunEnd::Passed, String::new()),
            End::Superseded => (RunEnd::Incomplete, "superseded by a newer commit".to_owned()),
            _ => (RunEnd::Failed, String::new()),
        };
        records.push(moved(RunState::Ended(end), reason, made.ended_unix_ms + self.moved_ms));
        records
    }

    fn place(&self, at: TestAt) -> TestIx {
        let place = at.suite * self.world.model().tests + at.test;
        TestIx(u32::try_from(place).expect("tests of a run are counted by a u32"))
    }

    fn attempts(&self, run: RunId, made: &MadeRun, started: u64, records: &mut Vec<Record>) {
        let mut queued: HashMap<TestAt, u64> = HashMap::new();
        for (one, number) in made.attempts.iter().zip(1..) {
            let attempt = AttemptId(number);
            let lease =
                Lease { run, work: WorkId(number), fence: Fence((run.0 - 1) * FENCES_A_RUN + number) };
            let worker = WorkerId(format!(
                "{}-{}-{}",
                project_name(made.project),
                made.farm,
                one.lane / LANES_A_WORKER + 1
            ));
            let began = one.started_unix_ms + self.moved_ms;
            let ended_ms = began + (one.rebase_us + one.duration_us).div_ceil(1_000);
            let queue_ms = began.saturating_sub(*queued.get(&one.at).unwrap_or(&started));
            queued.insert(one.at, ended_ms);
            let dirtied_bytes = 65_536 * (1 + (one.at.test as u64 * 37 + one.at.suite as u64) % 64);
            records.extend([
                Record::Leased {
                    lease,
                    kind: LeaseKind::Unit,
                    worker: worker.clone(),
                    lane: LaneIx(one.lane % LANES_A_WORKER),
                    attempts: vec![(attempt, self.place(one.at), queue_ms)],
                },
                Record::AttemptEnded {
                    run,
                    attempt,
                    ended: self.ended(one, began + one.rebase_us / 1_000),
                    at_unix_ms: ended_ms,
                },
                Record::Footprint {
                    lease,
                    worker,
                    attempts: vec![attempt],
                    dirtied_bytes,
                    changes: String::new(),
                },
                Record::LeaseClosed { fence: lease.fence },
            ]);
        }
    }

    fn ended(&self, one: &MadeAttempt, started_unix_ms: u64) -> Ended {
        let outcome = outcome(one.outcome);
        let message = match outcome {
            Outcome::Failed => "AssertionError: order 4711 is 'open', not 'paid'",
            Outcome::TimedOut => "it did not end within its time",
            Outcome::Infrastructure => "the worker was lost",
            _ => "",
        };
        let log_zstd = match outcome {
            Outcome::Failed | Outcome::TimedOut => self.printed.failed.clone(),
            Outcome::Passed => self.printed.passed.clone(),
            _ => Vec::new(),
        };
        Ended {
            outcome,
            prepare_ms: 3 + (one.started_unix_ms + one.at.test as u64) % 5,
            start_ms: 2,
            rebase_us: one.rebase_us,
            run_ms: one.duration_us / 1_000,
            report_us: 300,
            message: message.to_owned(),
            log_zstd,
            started_unix_ms,
            driver: "rewind".to_owned(),
        }
    }

    fn verdicts(&self, run: RunId, made: &MadeRun, records: &mut Vec<Record>) {
        let mut of_tests: BTreeMap<TestIx, (Vec<Outcome>, u64)> = BTreeMap::new();
        for one in &made.attempts {
            let (outcomes, run_ms) = of_tests.entry(self.place(one.at)).or_default();
            outcomes.push(outcome(one.outcome));
            *run_ms = one.duration_us / 1_000;
        }
        records.extend(self.world.tests(made.project).map(|at| {
            let test = self.place(at);
            let (verdict, run_ms) = match of_tests.get(&test) {
                None => (Verdict::NotRun, None),
                Some((outcomes, run_ms)) => (decided(outcomes), Some(*run_ms)),
            };
            let run_ms = run_ms.filter(|_| verdict != Verdict::Infrastructure);
            Record::VerdictGiven { run, test, verdict, run_ms }
        }));
    }
}

/// Fills a store with what of a history is not there yet, and enters it into the ledger.
pub(crate) async fn fill(store: &dyn Store, history: &Arc<History>) -> Result<(), Failure> {
    let there = usize::try_from(store.active().await?.last_run)?;
    let missing = there..history.order.len();
    let making = futures::stream::iter(missing).map(|at| {
        let history = Arc::clone(history);
        tokio::task::spawn_blocking(move || history.records(at))
    });
    let mut making = making.buffered(MADE_AHEAD);
    while let Some(records) = making.next().await {
        store.apply(&records?).await?;
    }
    while enter_ended(store).await? > 0 {}
    Ok(())
}

/// The model runs a test until it is decided.
fn decided(outcomes: &[Outcome]) -> Verdict {
    match decide(outcomes, RETRIES) {
        Decision::Final(verdict) => verdict,
        Decision::RunAgain => Verdict::Infrastructure,
    }
}

const fn outcome(made: andon_figures::Outcome) -> Outcome {
    match made {
        andon_figures::Outcome::Passed => Outcome::Passed,
        andon_figures::Outcome::Failed => Outcome::Failed,
        andon_figures::Outcome::TimedOut => Outcome::TimedOut,
        andon_figures::Outcome::Skipped => Outcome::Skipped,
        andon_figures::Outcome::Infrastructure => Outcome::Infrastructure,
        andon_figures::Outcome::Cancelled => Outcome::Cancelled,
    }
}

fn header(made: &MadeRun) -> RunHeader {
    let project = project_name(made.project);
    RunHeader {
        repository: format!("https://git.example/acme/{project}.git"),
        project,
        commit: made.commit_name.clone(),
        git_ref: BRANCH.to_owned(),
        trigger: Trigger::Push,
        requested_by: "push".to_owned(),
        spec_digest: key("specification"),
        dedup_key: None,
        rerun_of: None,
    }
}

pub(crate) fn project_name(project: usize) -> String {
    ["shop", "billing", "search", "stock"]
        .get(project)
        .map_or_else(|| format!("project-{project}"), |name| (*name).to_owned())
}

pub(crate) fn suite_name(suite: usize) -> String {
    format!("suite-{suite}")
}

/// Twenty tests a file.
pub(crate) fn test_name(at: TestAt) -> String {
    let (file, test) = (at.test / 20, at.test);
    format!("tests/suite_{}/test_{file:03}.py::TestThings::test_{test:05}[case]", at.suite)
}

/// A key looks like one.
pub(crate) fn key(name: &str) -> String {
    blake3::hash(name.as_bytes()).to_hex().to_string()
}

fn baseline(made: &MadeRun, project: usize, run: RunId, at_unix_ms: u64) -> Record {
    let name = project_name(project);
    let label = |key: &str, value: String| wire::KeyValue { key: key.to_owned(), value };
    let tree = |service: &str, path: &str, bytes| wire::BaselineTree {
        name: format!("{service}{path}"),
        files: 190,
        bytes,
        blob_size: bytes / 12,
        tree_digest: key(&format!("{}{service}{path}", made.baseline)),
        ..wire::BaselineTree::default()
    };
    let step = |name: &str, took_ms| wire::BaselineStepDone {
        key: key(&format!("{}{name}", made.baseline)),
        name: name.to_owned(),
        run: vec![format!("python3 -m db.{name}")],
        took_ms,
        ..wire::BaselineStepDone::default()
    };
    let manifest = wire::BaselineManifest {
        key: key(&made.baseline),
        project: name.clone(),
        root_key: key(&format!("root-{project}")),
        built_unix_ms: at_unix_ms,
        build_ms: 61_400,
        services: vec![wire::BaselineService {
            name: "db".to_owned(),
            reference: "mysql:9.7".to_owned(),
            image_id: format!("sha256:{}", key("mysql")),
            ..wire::BaselineService::default()
        }],
        trees: vec![tree("db", "/var/lib/mysql", 290 << 20), tree("cache", "/data", 4 << 20)],
        steps: vec![step("migrate", 8_100), step("seed", 41_000)],
        labels: vec![label("dev.andon.built-for", run.0.to_string()), label("com.acme.team", name)],
        ..wire::BaselineManifest::default()
    };
    Record::BaselinePublished {
        key: key(&made.baseline),
        manifest: manifest.encode_to_vec(),
        at_unix_ms,
        replaces: false,
    }
}

fn traceback() -> String {
    let frames = (1..20).map(|line| {
        format!(
            "tests/support/orders.py:{}: in step_{line}\n    assert order.state == 'paid', order\n",
            line * 7
        )
    });
    format!("{}E   AssertionError: order 4711 is 'open', not 'paid'\n", frames.collect::<String>())
}
