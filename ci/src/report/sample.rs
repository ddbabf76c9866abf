//! Hand-made runs for the tests of this folder.

use andon_proto::{Attempt, Counts, Outcome, Run, RunState, Test, Trigger, Verdict};

/// An attempt with plausible times; `lane` decides the worker too.
pub(crate) fn attempt(number: u64, lane: u32, outcome: Outcome, run_ms: u64, message: &str) -> Attempt {
    Attempt {
        attempt: number,
        worker: format!("w{}", lane % 2),
        lane: lane / 2,
        outcome: outcome.into(),
        queue_ms: 120,
        prepare_ms: 40,
        start_ms: 30,
        rebase_us: 600_000 + 1_000 * number,
        run_ms,
        report_us: 700,
        dirtied_bytes: 4_096 * number,
        message: message.to_owned(),
        started_unix_ms: 1_700_000_010_000 + number * 1_000,
        unit: number,
        driver: "restart".to_owned(),
        dirt_known: true,
    }
}

/// A test of the suite `integration`.
pub(crate) fn test(id: &str, verdict: Verdict, attempts: Vec<Attempt>) -> Test {
    Test {
        suite: "integration".to_owned(),
        id: id.to_owned(),
        verdict: verdict.into(),
        attempts,
        ..Test::default()
    }
}

/// A failed run with one test of each verdict, and hostile names among them.
pub(crate) fn mixed() -> Run {
    let tests = vec![
        test(
            "tests/test_orders.py::TestOrders::test_place[1-b]",
            Verdict::Passed,
            vec![attempt(1, 0, Outcome::Passed, 900, "")],
        ),
        test(
            "tests/test_orders.py::TestOrders::test_cancel",
            Verdict::Failed,
            vec![
                attempt(2, 1, Outcome::Failed, 300, "AssertionError: assert 2 == 3\n  stock was 2"),
                attempt(7, 2, Outcome::Failed, 310, "AssertionError: assert 2 == 3\n  stock was 2"),
            ],
        ),
        test(
            "tests/test_stock.py::test_flaky",
            Verdict::Flaky,
            vec![
                attempt(3, 2, Outcome::Failed, 200, "OperationalError: deadlock"),
                attempt(8, 3, Outcome::Passed, 210, ""),
            ],
        ),
        test(
            "tests/test_stock.py::test_hangs",
            Verdict::TimedOut,
            vec![attempt(4, 3, Outcome::TimedOut, 60_000, "no end after 60 s")],
        ),
        test(
            "tests/test_stock.py::test_skip",
            Verdict::Skipped,
            vec![attempt(5, 0, Outcome::Skipped, 1, "needs a printer")],
        ),
        test(
            "tests/test_evil.py::test_\u{1b}[2J\u{202e}x",
            Verdict::Infrastructure,
            vec![attempt(6, 1, Outcome::Infrastructure, 0, "worker w1 was lost")],
        ),
        test("tests/test_late.py::test_never", Verdict::NotRun, vec![]),
    ];
    Run {
        run: 12,
        project: "shop".to_owned(),
        repository: "/srv/git/shop.git".to_owned(),
        commit: "4f2a9c1b7d3e8f60112233445566778899aabbcc".to_owned(),
        git_ref: "refs/heads/main".to_owned(),
        trigger: Trigger::Push.into(),
        state: RunState::Failed.into(),
        reason: String::new(),
        baseline_key: "b1".repeat(32),
        spec_digest: "5d".repeat(32),
        created_unix_ms: 1_700_000_000_000,
        started_unix_ms: 1_700_000_000_500,
        ended_unix_ms: 1_700_000_090_000,
        counts: Some(Counts {
            total: 7,
            passed: 1,
            failed: 1,
            flaky: 1,
            timed_out: 1,
            skipped: 1,
            infrastructure: 1,
            not_run: 1,
            ..Counts::default()
        }),
        tests,
        rerun_of: 0,
        requested_by: "ann".to_owned(),
        forgotten: false,
    }
}

/// A run of which everything passed.
pub(crate) fn green() -> Run {
    let tests: Vec<Test> = (0..4)
        .map(|n| {
            let id = format!("tests/test_a.py::test_{n}");
            test(&id, Verdict::Passed, vec![attempt(n + 1, n as u32, Outcome::Passed, 1_000, "")])
        })
        .collect();
    Run {
        run: 13,
        state: RunState::Passed.into(),
        counts: Some(Counts { total: 4, passed: 4, ..Counts::default() }),
        tests,
        ended_unix_ms: 1_700_000_016_000,
        ..mixed()
    }
}
