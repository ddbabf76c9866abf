//! Which tests a rerun is of; and tests that a submission names by itself, without a discovery on this farm: an exported run,
//! rerun elsewhere. Those names come from a file that anybody may have written, so they are held to what a discovery may bring.

use std::collections::BTreeSet;

use andon_core::model::{Candidate, Outcome, Start, Verdict};
use andon_proto as wire;
use tonic::Status;

use crate::store::{AttemptRow, Store, TestRow};

use super::internal;

/// Of one submission.
const TESTS_MAX: usize = 200_000;
/// Of an id; as the workers have it.
const ID_BYTES_MAX: usize = 4_096;
/// Of a message.
const NAMED_MAX: usize = 5;

/// Where a run begins whose tests are named; their durations are those that this farm knows.
pub(super) async fn start(
    store: &dyn Store,
    spec: &wire::RunSpec,
    tests: Vec<wire::ChosenTest>,
) -> Result<Start, Status> {
    check(spec, &tests).map_err(Status::invalid_argument)?;
    let mut histories = std::collections::HashMap::new();
    for suite in tests.iter().map(|test| &test.suite).collect::<BTreeSet<_>>() {
        let known = store.history(&spec.project, suite).await.map_err(|error| internal(&error))?;
        histories.insert(suite.clone(), known);
    }
    let tests = tests.into_iter().map(|wire::ChosenTest { suite, id }| {
        let candidate = crate::restore::candidate(id, histories.get(&suite));
        (suite, candidate)
    });
    Ok(Start::Chosen { tests: tests.collect(), baseline: None })
}

fn check(spec: &wire::RunSpec, tests: &[wire::ChosenTest]) -> Result<(), String> {
    if tests.len() > TESTS_MAX {
        return Err(format!("a submission names at most {TESTS_MAX} tests"));
    }
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for test in tests {
        let fault = if !spec.suites.iter().any(|suite| suite.name == test.suite) {
            Some("is of a suite that is not in the specification")
        } else if test.id.is_empty() || test.id.len() > ID_BYTES_MAX {
            Some("is empty or longer than ids may be")
        } else if test.id.starts_with('-') || test.id.chars().any(char::is_control) {
            Some("begins with a dash or holds a control character")
        } else if !seen.insert((&test.suite, &test.id)) {
            Some("is there twice")
        } else {
            None
        };
        wrong.extend(fault.map(|why| format!("{:?} {why}", test.id)));
    }
    match wrong.len() {
        0 => Ok(()),
        count => Err(format!("{count} test(s) are refused: {}", wrong[..count.min(NAMED_MAX)].join(", "))),
    }
}

pub(super) fn is_named(test: &TestRow, name: &str) -> bool {
    test.id == name
        || name.strip_prefix(test.suite.as_str()).and_then(|rest| rest.strip_prefix('/')) == Some(&test.id)
}

/// The tests that a rerun asks for. All names that are unknown are told at once.
pub(super) fn choose(
    request: &wire::RerunRequest,
    tests: Vec<TestRow>,
) -> Result<Vec<(String, Candidate)>, Status> {
    let unknown: Vec<_> =
        request.tests.iter().filter(|name| !tests.iter().any(|test| is_named(test, name))).collect();
    if !unknown.is_empty() {
        let text = format!("run {} has no test {unknown:?}", request.run);
        return Err(Status::not_found(text));
    }
    let failed = |test: &TestRow| {
        matches!(test.verdict, Some(Verdict::Failed | Verdict::TimedOut | Verdict::Infrastructure))
    };
    let not_run = |test: &TestRow| matches!(test.verdict, None | Some(Verdict::NotRun));
    let everything = !request.failed && !request.not_run && request.tests.is_empty();
    let wanted = |test: &TestRow| {
        everything
            || (request.failed && failed(test))
            || (request.not_run && not_run(test))
            || request.tests.iter().any(|name| is_named(test, name))
    };
    let chosen: Vec<_> = tests.into_iter().filter(|test| wanted(test)).map(chosen).collect();
    if chosen.is_empty() {
        return Err(Status::failed_precondition(format!(
            "run {} has no such tests to run again",
            request.run
        )));
    }
    Ok(chosen)
}

fn chosen(test: TestRow) -> (String, Candidate) {
    let expected_ms = test.attempts.iter().rev().find(|a| a.run_ms > 0).map(|a| a.run_ms);
    let failed_last = counted(&test).is_some_and(|a| a.outcome == Some(Outcome::Failed));
    (test.suite, Candidate { id: test.id, expected_ms, failed_last, excused: false })
}

/// The last attempt that has ended and counts.
pub(super) fn counted(test: &TestRow) -> Option<&AttemptRow> {
    test.attempts.iter().rfind(|a| a.outcome.is_some_and(|outcome| outcome != Outcome::Cancelled))
}

/// The tests that a rerun names, in the order in which it names them; the rest as it was.
pub(super) fn in_order(
    request: &wire::RerunRequest,
    mut chosen: Vec<(String, Candidate)>,
) -> Vec<(String, Candidate)> {
    let place = |suite: &str, id: &str| {
        let is_it = |name: &String| {
            name == id || name.strip_prefix(suite).and_then(|rest| rest.strip_prefix('/')) == Some(id)
        };
        request.tests.iter().position(is_it).unwrap_or(usize::MAX)
    };
    chosen.sort_by_cached_key(|(suite, test)| place(suite, &test.id));
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> wire::RunSpec {
        let suite = wire::Suite { name: "it".into(), ..Default::default() };
        wire::RunSpec { suites: vec![suite], ..Default::default() }
    }

    fn named(suite: &str, id: &str) -> wire::ChosenTest {
        wire::ChosenTest { suite: suite.into(), id: id.into() }
    }

    #[test]
    fn names_that_no_discovery_could_bring_are_refused() {
        assert_eq!(check(&spec(), &[named("it", "a.py::x[1]"), named("it", "b")]), Ok(()));
        let long = "x".repeat(5_000);
        for (suite, id) in [("ui", "a"), ("it", ""), ("it", "-rf"), ("it", "a\nb"), ("it", long.as_str())] {
            let said = check(&spec(), &[named(suite, id)]).expect_err(id);
            assert!(said.contains("refused"), "{said}");
        }
        assert!(check(&spec(), &[named("it", "a"), named("it", "a")]).expect_err("twice").contains("twice"));
    }

    #[test]
    fn a_rerun_in_order_runs_as_it_names() {
        let candidate = |id: &str| {
            (
                "it".to_owned(),
                Candidate { id: id.into(), expected_ms: None, failed_last: false, excused: false },
            )
        };
        let request = wire::RerunRequest { tests: vec!["c".into(), "it/a".into()], ..Default::default() };
        let ordered = in_order(&request, ["a", "b", "c"].map(candidate).into());
        let ids: Vec<_> = ordered.iter().map(|(_, test)| test.id.as_str()).collect();
        assert_eq!(ids, ["c", "a", "b"]);
    }
}
