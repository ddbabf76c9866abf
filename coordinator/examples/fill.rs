//! Fills a store with many attempts and times what people ask of it. Prints one JSON object.
//!
//! ```text
//! fill attempts=5000000 store=/tmp/farm.db
//! fill attempts=5000000 store=postgres://andon@127.0.0.1/andon
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use andon_coordinator::store::postgres::Postgres;
use andon_coordinator::store::sqlite::Sqlite;
use andon_coordinator::store::{RunFilter, Store};
use andon_core::ids::{AttemptId, Fence, LaneIx, Lease, RunId, TestIx, WorkId, WorkerId};
use andon_core::model::{Ended, LeaseKind, Outcome, Record, RunEnd, RunHeader, RunState, Verdict};

/// Tests of one run: what a team has, not what a benchmark would like.
const TESTS_A_RUN: u64 = 2_000;
/// Attempts that share a transaction.
const A_ROUND: u64 = 1_000;
const ASKED: usize = 50;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (mut attempts, mut place) = (100_000_u64, String::new());
    for arg in std::env::args().skip(1) {
        match arg.split_once('=') {
            Some(("attempts", value)) => attempts = value.parse()?,
            Some(("store", value)) => value.clone_into(&mut place),
            _ => return Err(format!("{arg:?}: write attempts=N store=PATH|URL").into()),
        }
    }
    let store: Arc<dyn Store> = if place.starts_with("postgres") {
        Arc::new(Postgres::open(&place, &std::env::temp_dir().join("andon-fill-outputs")).await?)
    } else {
        Arc::new(Sqlite::open(Path::new(&place)).await?)
    };
    let began = Instant::now();
    let runs = attempts.div_ceil(TESTS_A_RUN);
    for run in 1..=runs {
        fill(&*store, RunId(run)).await?;
    }
    let filled = began.elapsed();

    let list = timed(async || {
        let filter = RunFilter { limit: 20, ..RunFilter::default() };
        store.runs(&filter).await.map(|rows| assert_eq!(rows.len(), 20))
    });
    let list = list.await?;
    let of_commit = timed(async || {
        let commit = Some(commit_of(runs / 2));
        let filter = RunFilter { limit: 20, commit, ..RunFilter::default() };
        store.runs(&filter).await.map(|rows| assert_eq!(rows.len(), 1))
    });
    let of_commit = of_commit.await?;
    let show = timed(async || {
        store.run(RunId(runs / 2)).await?.expect("it was filled");
        store.tests(RunId(runs / 2)).await.map(|tests| assert_eq!(tests.len() as u64, TESTS_A_RUN))
    });
    let show = show.await?;
    let line = serde_json::json!({
        "attempts": runs * TESTS_A_RUN,
        "runs": runs,
        "filled_per_s": (runs * TESTS_A_RUN) as f64 / filled.as_secs_f64(),
        "list_p50_ms": list.0, "list_max_ms": list.1,
        "list_of_a_commit_p50_ms": of_commit.0, "list_of_a_commit_max_ms": of_commit.1,
        "show_p50_ms": show.0, "show_max_ms": show.1,
    });
    println!("{line}");
    Ok(())
}

/// Median and maximum in milliseconds.
async fn timed<E>(ask: impl AsyncFn() -> Result<(), E>) -> Result<(f64, f64), E> {
    let mut times = Vec::with_capacity(ASKED);
    for _ in 0..ASKED {
        let began = Instant::now();
        ask().await?;
        times.push((began.elapsed().as_secs_f64() * 100_000.0).round() / 100.0);
    }
    times.sort_by(f64::total_cmp);
    Ok((times[ASKED / 2], times[ASKED - 1]))
}

fn commit_of(run: u64) -> String {
    blake3::hash(&run.to_le_bytes()).to_hex()[..40].to_owned()
}

async fn fill(store: &dyn Store, run: RunId) -> Result<(), Failure> {
    let header = RunHeader {
        project: format!("project{}", run.0 % 7),
        commit: commit_of(run.0),
        git_ref: "refs/heads/main".into(),
        ..RunHeader::default()
    };
    let name = |n: u64| format!("tests/integration/test_{:03}.py::TestThings::test_{n:05}[case]", n / 20);
    let tests = (0..TESTS_A_RUN).map(|n| (TestIx(n as u32), name(n))).collect();
    let moved = |state, at_unix_ms| Record::RunMoved { run, state, reason: String::new(), at_unix_ms };
    let first = [
        Record::RunCreated { run, header, at_unix_ms: run.0 * 1_000 },
        Record::TestsAdded { run, suite: "integration".into(), tests },
        moved(RunState::Running, run.0 * 1_000),
    ];
    store.apply(&first).await?;
    for begin in (0..TESTS_A_RUN).step_by(A_ROUND as usize) {
        let records: Vec<_> = (begin..begin + A_ROUND).flat_map(|test| attempt(run, test)).collect();
        store.apply(&records).await?;
    }
    Ok(store.apply(&[moved(RunState::Ended(RunEnd::Passed), run.0 * 1_000 + 900)]).await?)
}

fn attempt(run: RunId, n: u64) -> [Record; 4] {
    let (attempt, test) = (AttemptId(n + 1), TestIx(n as u32));
    let fence = Fence((run.0 - 1) * TESTS_A_RUN + n + 1);
    let lease = Lease { run, work: WorkId(n + 1), fence };
    let worker = WorkerId(format!("worker-{}", n % 16));
    let ended = Ended {
        run_ms: 100 + n % 900,
        rebase_us: 600_000,
        driver: "restart".into(),
        ..Ended::without_report(Outcome::Passed, "")
    };
    [
        Record::Leased {
            lease,
            kind: LeaseKind::Unit,
            worker,
            lane: LaneIx(1),
            attempts: vec![(attempt, test, 5)],
        },
        Record::AttemptEnded { run, attempt, ended, at_unix_ms: 1 },
        Record::VerdictGiven { run, test, verdict: Verdict::Passed, run_ms: Some(100 + n % 900) },
        Record::LeaseClosed { fence },
    ]
}
