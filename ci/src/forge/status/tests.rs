//! What a run amounts to for a forge.

use super::*;
use wire::{RunState, Verdict};

fn test(suite: &str, id: &str, verdict: Verdict, message: &str) -> wire::Test {
    let attempt = wire::Attempt { message: message.into(), ..wire::Attempt::default() };
    let mut test =
        wire::Test { suite: suite.into(), id: id.into(), attempts: vec![attempt], ..wire::Test::default() };
    test.set_verdict(verdict);
    test
}

fn run(state: RunState, reason: &str, tests: Vec<wire::Test>) -> wire::Run {
    let mut run =
        wire::Run { run: 9, commit: "c0ffee".into(), reason: reason.into(), tests, ..wire::Run::default() };
    run.set_state(state);
    run
}

fn said(run: &wire::Run, suites: &[&str]) -> Vec<(String, State, String)> {
    let suites: Vec<_> = suites.iter().map(|suite| (*suite).to_owned()).collect();
    let statuses = of_run(run, &suites, None).into_iter();
    statuses.map(|status| (status.context, status.state, status.description)).collect()
}

fn one(run: &wire::Run) -> (State, String) {
    let (_, state, text) = said(run, &["unit"]).remove(0);
    (state, text)
}

#[test]
fn each_suite_has_its_own_stable_context() {
    let tests = vec![
        test("unit", "a", Verdict::Passed, ""),
        test("unit", "b", Verdict::Flaky, ""),
        test("db", "c", Verdict::Failed, "no"),
    ];
    let run = run(RunState::Failed, "", tests);
    assert_eq!(
        said(&run, &["unit", "db"]),
        [
            ("andon/unit".to_owned(), State::Success, "1 passed, 1 flaky".to_owned()),
            ("andon/db".to_owned(), State::Failure, "1 failed".to_owned()),
        ]
    );
}

#[test]
fn progress_and_ends_are_told_in_words() {
    use RunState::{BaselineFailed, ConfigError, Incomplete, NoTests, Passed, Preparing, Queued, Running};
    let passed = || vec![test("unit", "a", Verdict::Passed, "")];
    let half = || vec![test("unit", "a", Verdict::Passed, ""), test("unit", "b", Verdict::Unspecified, "")];
    for (state, reason, tests, expected, text) in [
        (Queued, "", vec![], State::Pending, "queued"),
        (Preparing, "", vec![], State::Pending, "preparing the baseline"),
        (Running, "", half(), State::Running, "1 of 2: 1 passed"),
        (Passed, "", passed(), State::Success, "1 passed"),
        (Incomplete, "cancelled: no time", half(), State::Error, "incomplete: cancelled: no time (1 passed)"),
        (ConfigError, "x", vec![], State::Error, "mistakes in the configuration: x"),
        (
            BaselineFailed,
            "the seed failed",
            vec![],
            State::Error,
            "the baseline could not be built: the seed failed",
        ),
        (NoTests, "", vec![], State::Error, "no tests"),
    ] {
        assert_eq!(one(&run(state, reason, tests)), (expected, text.to_owned()), "{state:?}");
    }
    let lost = run(RunState::Incomplete, "", vec![test("unit", "a", Verdict::Infrastructure, "")]);
    assert_eq!(one(&lost).0, State::Error, "infrastructure is never the tests' failure");
}

#[test]
fn a_superseded_commit_says_by_which() {
    let reason = format!("superseded by run 12 of commit {}", "ab".repeat(20));
    let run = run(RunState::Incomplete, &reason, vec![test("unit", "a", Verdict::NotRun, "")]);
    assert_eq!(one(&run), (State::Error, "cancelled, superseded by abababababab".to_owned()));
}

#[test]
fn a_rerun_says_nothing_of_suites_it_has_no_test_of() {
    let mut run = run(RunState::Passed, "", vec![test("db", "c", Verdict::Passed, "")]);
    run.rerun_of = 8;
    assert_eq!(
        said(&run, &["unit", "db"]),
        [("andon/db".to_owned(), State::Success, "rerun of run 8: 1 passed".to_owned())]
    );
}

#[test]
fn a_failure_whose_place_is_told_becomes_an_annotation() {
    let message = "def test_b():\n>   assert 1 == 2\nE   assert 1 == 2\n\ntests/test_a.py:12: AssertionError";
    let tests = vec![
        test("unit", "tests/test_a.py::test_b", Verdict::Failed, message),
        test("unit", "tests/test_a.py::test_c", Verdict::Failed, "no place"),
        test("unit", "../../etc/passwd::x", Verdict::Failed, "../../etc/passwd:1: x"),
        test("unit", "/etc/passwd::x", Verdict::Failed, "/etc/passwd:1: x"),
        test("unit", "plain", Verdict::Failed, "plain:1"),
        test("unit", "tests/test_a.py::test_d", Verdict::Passed, message),
    ];
    let run = run(RunState::Failed, "", tests);
    let status = of_run(&run, &["unit".to_owned()], Some("https://a/{run}")).remove(0);
    assert_eq!(status.target_url.as_deref(), Some("https://a/9"));
    assert_eq!(status.annotations.len(), 1, "{:?}", status.annotations);
    assert_eq!((status.annotations[0].path.as_str(), status.annotations[0].line), ("tests/test_a.py", 12));
    assert_eq!(status.failed.len(), 5);
}

#[test]
fn hostile_names_and_messages_are_bounded_and_cannot_leave_their_place() {
    let name = format!("tests/a.py::`<img src=x>`\n# big {}", "x".repeat(10_000));
    let message = format!("tests/a.py:3: {}", "\u{e9}".repeat(100_000));
    let many = (0..500).map(|_| test("unit", &name, Verdict::Failed, &message)).collect();
    let status = of_run(&run(RunState::Failed, "", many), &["unit".to_owned()], None).remove(0);
    assert!(status.annotations.len() <= ANNOTATIONS_MAX && status.failed.len() <= NAMED_MAX);
    let size = serde_json::to_string(&status).unwrap().len();
    assert!(size < 400_000, "{size}");
    let summary = status.summary();
    assert!(
        summary.lines().skip(1).all(|line| line.starts_with("- `") && line.matches('`').count() == 2),
        "{summary}"
    );
    let long = Status { description: "x".repeat(500), ..status };
    assert_eq!(long.described(140).chars().count(), 140);
}

#[test]
fn what_is_in_quarantine_is_counted_and_blocks_nothing() {
    let tests = vec![
        test("unit", "a", Verdict::Passed, ""),
        test("unit", "b", Verdict::Quarantined, "no"),
        test("unit", "c", Verdict::Quarantined, "no"),
    ];
    assert_eq!(
        one(&run(RunState::Passed, "", tests)),
        (State::Success, "1 passed, 2 quarantined".to_owned())
    );
}
