//! A farm's history that never happened, as the records that a coordinator would have stored: two projects over some days, with a change of
//! the baseline, a commit that makes things slower, red commits, a flaky test, lost workers, a pulled cord. Seeded: the same each time.

use std::path::Path;

use andon_core::ids::{AttemptId, Fence, LaneIx, Lease, RunId, TestIx, WorkId, WorkerId};
use andon_core::model::{Ended, LeaseKind, Outcome, Record, RunEnd, RunHeader, RunState, Trigger, Verdict};
use andon_proto as wire;
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const HOUR_MS: u64 = 3_600_000;
/// Runs of the larger project.
const RUNS: u64 = 64;
/// Runs of the larger project between two of the smaller one.
const EVERY: u64 = 6;
/// Who owns the tests of both.
const OWNERS: &str = "\
* @acme/shop
/tests/integration/test_cart.py      @acme/checkout @mira
/tests/integration/test_payments.py  @acme/checkout payments@acme.example
/tests/integration/test_stock.py     @acme/warehouse
";
const SOURCE: &[u8] = b"source";
/// Names of this farm's workers, with their lanes.
pub(crate) const WORKERS: [(&str, u32); 3] = [("forge-1", 4), ("forge-2", 4), ("forge-3", 2)];
/// What its runs start from, before and after a change of the schema.
const KEYS: [&str; 2] = [
    "71ac4df15488c0de9f0e4a7b1d52c86370e9b4f1aa2d7c5538e6f1904bd3c7a2",
    "c20b9e4417fd38a6b5de0c91e2f7408ad6135bb9ef60427c1b8d9a3354e7f016",
];
const ROOT: &str = "0d4b1f7732a95ce86b1f30aa47d89e2cc5410b6ef7930d8a24c6be5119f8d073";

/// What happens to one run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Green,
    /// These tests fail: a bug in one place.
    Red(&'static [usize]),
    /// Everything fails, and the cord is pulled.
    Cord,
    Lost,
}

struct Farm {
    dice: StdRng,
    records: Vec<Vec<Record>>,
    fence: u64,
}

/// The records of all runs, in rounds that belong together; the last of them ended shortly before this moment.
pub(crate) fn history(now_unix_ms: u64) -> Vec<Vec<Record>> {
    let mut farm = Farm { dice: StdRng::seed_from_u64(7), records: Vec::new(), fence: 0 };
    farm.records.push(KEYS.iter().enumerate().map(|(at, key)| baseline(at, key, now_unix_ms)).collect());
    let from = now_unix_ms - RUNS * 4 * HOUR_MS;
    let mut run = 0;
    for at in 0..RUNS {
        run += 1;
        let fate = match at {
            17 | 18 => Fate::Red(&[12, 13, 40]),
            29 => Fate::Cord,
            36 => Fate::Lost,
            47 => Fate::Red(&[77]),
            61 => Fate::Red(&[3, 51, 52, 90]),
            _ => Fate::Green,
        };
        farm.run(run, "shop", at, fate, from + at * 4 * HOUR_MS);
        if at % EVERY == EVERY - 1 {
            run += 1;
            farm.run(run, "billing", at / EVERY, Fate::Green, from + at * 4 * HOUR_MS + HOUR_MS);
        }
    }
    farm.records
}

/// Test ids of the larger suite.
pub(crate) fn names() -> Vec<String> {
    let files = ["cart", "orders", "payments", "stock", "search", "accounts"];
    let cases =
        ["adds_up", "is_refused_without_stock", "keeps_its_order", "survives_a_restart", "is_idempotent"];
    let of = |file: &&str| {
        let file = (*file).to_owned();
        cases.iter().flat_map(move |case| {
            let file = file.clone();
            (0..4).map(move |n| {
                format!("tests/integration/test_{file}.py::Test{}::test_{case}[{n}]", title(&file))
            })
        })
    };
    files.iter().flat_map(of).collect()
}

fn title(word: &str) -> String {
    word[..1].to_uppercase() + &word[1..]
}

fn commit(project: &str, at: u64) -> String {
    blake3::hash(format!("{project} {at}").as_bytes()).to_hex()[..40].to_owned()
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// What one of the runs was asked for.
fn specification(project: &str, at: u64) -> Vec<u8> {
    let rules = wire::OwnersRules::Github.into();
    let owners = wire::CodeOwners { path: ".github/CODEOWNERS".into(), rules, text: OWNERS.into() };
    let spec = wire::RunSpec {
        project: project.into(),
        repository: format!("https://git.example/acme/{project}.git"),
        commit: commit(project, at),
        source_digest: digest(SOURCE),
        suites: vec![wire::Suite { name: "integration".into(), ..wire::Suite::default() }],
        owners: Some(owners),
        ..wire::RunSpec::default()
    };
    spec.encode_to_vec()
}

/// Puts the specifications of all runs, and their source, where a coordinator with this state folder has its blobs.
pub(crate) fn put_blobs(state: &Path) -> std::io::Result<()> {
    let of_shop = (0..RUNS).map(|at| specification("shop", at));
    let of_billing = (0..RUNS / EVERY).map(|at| specification("billing", at));
    for bytes in of_shop.chain(of_billing).chain([SOURCE.to_vec()]) {
        let digest = digest(&bytes);
        let folder = state.join("blobs").join(&digest[..2]);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(&digest), bytes)?;
    }
    Ok(())
}

fn baseline(at: usize, key: &str, now_unix_ms: u64) -> Record {
    let label = |key: &str, value: &str| wire::KeyValue { key: key.into(), value: value.into() };
    let step = |name: &str, run: &str, took_ms| wire::BaselineStepDone {
        key: blake3::hash(format!("{key}{name}").as_bytes()).to_hex().to_string(),
        name: name.into(),
        run: vec![run.into()],
        took_ms,
        ..wire::BaselineStepDone::default()
    };
    let manifest = wire::BaselineManifest {
        key: key.into(),
        project: "shop".into(),
        root_key: ROOT.into(),
        parent_key: if at == 0 { String::new() } else { KEYS[0].into() },
        built_unix_ms: now_unix_ms - (10 - 5 * at as u64) * 24 * HOUR_MS,
        build_ms: if at == 0 { 61_400 } else { 8_200 },
        services: vec![wire::BaselineService {
            name: "db".into(),
            reference: "mysql:9.7".into(),
            image_id: format!("sha256:{ROOT}"),
            ..wire::BaselineService::default()
        }],
        trees: vec![wire::BaselineTree {
            name: "db/var/lib/mysql".into(),
            files: 190,
            bytes: 290 << 20,
            blob_size: 22 << 20,
            tree_digest: ROOT.into(),
            ..wire::BaselineTree::default()
        }],
        steps: vec![
            step("load", "mysql -h db shop < db/seed.sql", 48_200),
            step("migrate", "python3 -m db.migrate", 4_900 + 300 * at as u64),
        ],
        labels: vec![
            label("org.opencontainers.image.revision", &commit("shop", 30 * at as u64)),
            label("org.opencontainers.image.source", "https://git.example/acme/shop.git"),
            label("com.acme.team", "checkout"),
        ],
        ..wire::BaselineManifest::default()
    };
    let built = manifest.built_unix_ms;
    Record::BaselinePublished {
        key: key.into(),
        manifest: manifest.encode_to_vec(),
        at_unix_ms: built,
        replaces: false,
    }
}

/// A lane that works off tests.
struct Lane {
    worker: &'static str,
    lane: u32,
    free_ms: u64,
}

impl Farm {
    fn run(&mut self, run: u64, project: &str, at: u64, fate: Fate, pushed_ms: u64) {
        let id = RunId(run);
        let header = RunHeader {
            project: project.into(),
            repository: format!("https://git.example/acme/{project}.git"),
            commit: commit(project, at),
            git_ref: if at % 9 == 4 { "refs/heads/prices".into() } else { "refs/heads/main".into() },
            trigger: if at % 11 == 7 { Trigger::Person } else { Trigger::Push },
            requested_by: if at.is_multiple_of(2) { "mira".into() } else { "tomasz".into() },
            spec_digest: digest(&specification(project, at)),
            ..RunHeader::default()
        };
        let moved = |state, reason: &str, at_unix_ms| Record::RunMoved {
            run: id,
            state,
            reason: reason.into(),
            at_unix_ms,
        };
        let queue_ms = self.dice.random_range(40..2_600);
        let begin_ms = pushed_ms + queue_ms + self.dice.random_range(900..2_200);
        let key = KEYS[usize::from(at >= 30)];
        let names = names();
        let tests = names.iter().enumerate().map(|(n, name)| (TestIx(n as u32), name.clone())).collect();
        let noted =
            |text: String, at_unix_ms| Record::Noted { run: id, text, log_zstd: Vec::new(), at_unix_ms };
        self.records.push(vec![
            Record::RunCreated { run: id, header, at_unix_ms: pushed_ms },
            moved(RunState::Preparing, "", pushed_ms + queue_ms),
            noted(format!("baseline {} was in the pool of forge-1", &key[..12]), pushed_ms + queue_ms + 80),
            Record::BaselinePinned { run: id, key: key.into() },
            moved(RunState::Discovering, "", pushed_ms + queue_ms + 90),
            Record::TestsAdded { run: id, suite: "integration".into(), tests },
            noted(format!("integration has {} tests", names.len()), begin_ms),
            moved(RunState::Running, "", begin_ms),
        ]);
        let (end, reason, ended_ms) = self.tests(run, at, fate, begin_ms, &names);
        self.records.push(vec![moved(RunState::Ended(end), reason, ended_ms)]);
    }

    /// All tests of a run, on lanes that take what comes next.
    fn tests(
        &mut self,
        run: u64,
        at: u64,
        fate: Fate,
        begin_ms: u64,
        names: &[String],
    ) -> (RunEnd, &'static str, u64) {
        let mut lanes: Vec<Lane> = WORKERS
            .iter()
            .flat_map(|(worker, lanes)| (0..*lanes).map(|lane| Lane { worker, lane, free_ms: begin_ms }))
            .collect();
        let slower = if at >= 44 { 1.35 } else { 1.0 };
        let (mut attempt, mut failed, mut last_ms) = (0, 0, begin_ms);
        let mut end = (RunEnd::Passed, "");
        for (test, name) in names.iter().enumerate() {
            if end.0 == RunEnd::Incomplete {
                let run = RunId(run);
                let test = TestIx(test as u32);
                self.records.push(vec![Record::VerdictGiven {
                    run,
                    test,
                    verdict: Verdict::NotRun,
                    run_ms: None,
                }]);
                continue;
            }
            let outcomes = self.outcomes(test, at, fate);
            for (place, outcome) in outcomes.iter().enumerate() {
                attempt += 1;
                let lane = lanes.iter_mut().min_by_key(|lane| lane.free_ms).expect("there are lanes");
                let usual = 140.0 + 40.0 * ((test * 37) % 23) as f64;
                let run_ms = match outcome {
                    Outcome::TimedOut => 10_000,
                    _ => (usual * slower * self.dice.random_range(0.85..1.2)) as u64,
                };
                let rebase_us = self.dice.random_range(4_800..11_500);
                let started_ms = lane.free_ms + rebase_us / 1_000 + 2;
                lane.free_ms = started_ms + run_ms + 3;
                last_ms = last_ms.max(lane.free_ms);
                let verdict = (place + 1 == outcomes.len()).then(|| verdict_of(&outcomes));
                let (worker, lane) = (lane.worker, lane.lane);
                let ended = ended(name, *outcome, run_ms, rebase_us, started_ms);
                self.attempt(run, attempt, test, (worker, lane), ended, verdict);
            }
            failed += usize::from(matches!(verdict_of(&outcomes), Verdict::Failed | Verdict::TimedOut));
            if failed > 0 {
                end = (RunEnd::Failed, "");
            }
            if failed >= 20 {
                end = (RunEnd::Incomplete, "the cord was pulled: 20 tests failed");
            }
        }
        if fate == Fate::Lost {
            end = (RunEnd::Incomplete, "the farm could not run 1 test: forge-3 was lost three times");
        }
        (end.0, end.1, last_ms + 20)
    }

    fn outcomes(&mut self, test: usize, at: u64, fate: Fate) -> Vec<Outcome> {
        match fate {
            Fate::Cord => vec![Outcome::Failed, Outcome::Failed],
            Fate::Red(tests) if tests.contains(&test) => {
                let how = if test == 77 { Outcome::TimedOut } else { Outcome::Failed };
                vec![how, how]
            }
            Fate::Lost if test == 70 => vec![Outcome::Infrastructure; 3],
            _ if test == 66 && self.dice.random_bool(0.14) => vec![Outcome::Failed, Outcome::Passed],
            _ if test == 31 && at % 13 == 6 => vec![Outcome::Infrastructure, Outcome::Passed],
            _ if test == 101 => vec![Outcome::Skipped],
            _ => vec![Outcome::Passed],
        }
    }

    fn attempt(
        &mut self,
        run: u64,
        attempt: u64,
        test: usize,
        (worker, lane): (&str, u32),
        ended: Ended,
        verdict: Option<Verdict>,
    ) {
        self.fence += 1;
        let (run, attempt, test) = (RunId(run), AttemptId(attempt), TestIx(test as u32));
        let lease = Lease { run, work: WorkId(attempt.0), fence: Fence(self.fence) };
        let worker = WorkerId(worker.into());
        let (run_ms, at_unix_ms) = (ended.run_ms, ended.started_unix_ms + ended.run_ms);
        let queue_ms = self.dice.random_range(2..900);
        let dirtied_bytes = self.dice.random_range(40_000..3_000_000);
        let mut records = vec![
            Record::Leased {
                lease,
                kind: LeaseKind::Unit,
                worker: worker.clone(),
                lane: LaneIx(lane),
                attempts: vec![(attempt, test, queue_ms)],
            },
            Record::AttemptEnded { run, attempt, ended, at_unix_ms },
            Record::LeaseClosed { fence: lease.fence },
            Record::Footprint {
                lease,
                worker,
                attempts: vec![attempt],
                dirtied_bytes,
                changes: String::new(),
            },
        ];
        if let Some(verdict) = verdict {
            records.push(Record::VerdictGiven { run, test, verdict, run_ms: Some(run_ms) });
        }
        self.records.push(records);
    }
}

fn verdict_of(outcomes: &[Outcome]) -> Verdict {
    match outcomes.last() {
        Some(Outcome::Passed) if outcomes.contains(&Outcome::Failed) => Verdict::Flaky,
        Some(Outcome::Passed) => Verdict::Passed,
        Some(Outcome::Failed) => Verdict::Failed,
        Some(Outcome::TimedOut) => Verdict::TimedOut,
        Some(Outcome::Skipped) => Verdict::Skipped,
        Some(Outcome::Infrastructure) => Verdict::Infrastructure,
        Some(Outcome::Cancelled) | None => Verdict::NotRun,
    }
}

fn ended(name: &str, outcome: Outcome, run_ms: u64, rebase_us: u64, started_unix_ms: u64) -> Ended {
    let (message, log) = match outcome {
        Outcome::Failed => {
            let message =
                "assert Decimal('104.72') == Decimal('104.71')\n +  where Decimal('104.72') = total(cart)"
                    .to_owned();
            (message.clone(), log(name, "E       assert Decimal('104.72') == Decimal('104.71')"))
        }
        Outcome::TimedOut => {
            ("killed after 10 s".to_owned(), log(name, "waiting for lock on stock_levels …"))
        }
        Outcome::Infrastructure => ("forge-3 was lost while it ran the test".to_owned(), String::new()),
        _ => (String::new(), format!("{name} PASSED\n")),
    };
    let log_zstd = zstd::bulk::compress(log.as_bytes(), 3).expect("it compresses");
    Ended {
        prepare_ms: 30,
        start_ms: 26,
        report_us: 350,
        rebase_us,
        run_ms,
        log_zstd: if log.is_empty() { Vec::new() } else { log_zstd },
        started_unix_ms,
        driver: "standby".into(),
        ..Ended::without_report(outcome, message)
    }
}

/// As pytest prints it, colours included.
fn log(name: &str, why: &str) -> String {
    let mut log = String::from(
        "============ test session starts ============\nplatform linux -- Python 3.13, pytest-8.4\n",
    );
    for n in 1..=40 {
        log.push_str(&format!("db: select * from cart_items where cart = {n};\t{} rows\n", n % 7));
    }
    log.push_str(&format!("\x1b[31m____ {name} ____\x1b[0m\n\n    def test(cart, db):\n        cart.add(\"tea\", 3)\n        cart.add(\"cup\", 1)\n"));
    log.push_str(&format!(
        ">       assert total(cart) == Decimal(\"104.71\")\n\x1b[1m\x1b[31m{why}\x1b[0m\n"
    ));
    log.push_str(
        "\ntests/integration/test_cart.py:118: AssertionError\n============ 1 failed ============\n",
    );
    log
}
