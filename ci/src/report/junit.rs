//! JUnit XML in the Jenkins dialect.
//!
//! A `<testsuite>` for each suite. Verdicts become: failed and timed out `<failure>` (earlier attempts
//! `<rerunFailure>`), flaky a success with `<flakyFailure>`, infrastructure `<error>` (never `<failure>`), skipped
//! and not run `<skipped>` with the reason. Invariant: the output is well-formed XML 1.0 whatever the names hold.

use std::io;
use std::time::Duration;

use andon_proto::{Attempt, Outcome, Run, Test, Verdict};
use quick_junit::{
    NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestRerun, TestSuite, XmlString,
};

use super::{attempts, ids, words};

/// Writes the run's report.
pub(crate) fn write(run: &Run, to: impl io::Write) -> io::Result<()> {
    report(run).serialize(to).map_err(io::Error::other)
}

fn report(run: &Run) -> Report {
    let mut report = Report::new(xml(&run.project));
    if run.ended_unix_ms > run.created_unix_ms {
        report.set_time(Duration::from_millis(run.ended_unix_ms - run.created_unix_ms));
    }
    let mut names: Vec<&str> = Vec::new();
    for test in &run.tests {
        if !names.contains(&test.suite.as_str()) {
            names.push(&test.suite);
        }
    }
    report.add_test_suites(names.into_iter().map(|name| suite(run, name)));
    report
}

fn suite(run: &Run, name: &str) -> TestSuite {
    let mut suite = TestSuite::new(xml(name));
    let mut busy = Duration::ZERO;
    for test in run.tests.iter().filter(|test| test.suite == name) {
        let case = case(run, test);
        busy += case.time.unwrap_or_default();
        suite.add_test_case(case);
    }
    suite.set_time(busy);
    for (name, value) in [
        ("andon.run", run.run.to_string()),
        ("andon.commit", run.commit.clone()),
        ("andon.ref", run.git_ref.clone()),
        ("andon.baseline", run.baseline_key.clone()),
        ("andon.state", words::state(run.state()).to_owned()),
    ] {
        suite.add_property(Property::new(name, xml(&value)));
    }
    suite
}

fn case(run: &Run, test: &Test) -> TestCase {
    let parts = ids::parts(&test.id);
    let mut case = TestCase::new(xml(parts.name), status(run, test));
    case.set_classname(xml(parts.classname.as_deref().unwrap_or(&test.suite)));
    if let Some(file) = parts.file {
        case.extra.insert(XmlString::new("file"), xml(file));
    }
    if let Some(last) = attempts::last(test) {
        case.set_time(Duration::from_millis(last.run_ms));
        if !last.worker.is_empty() {
            let lane = format!("{}/{}", last.worker, last.lane);
            case.add_property(Property::new("andon.lane", xml(&lane)));
        }
    }
    case
}

fn status(run: &Run, test: &Test) -> TestCaseStatus {
    let last = attempts::last(test);
    let message = last.map_or("", |attempt| attempt.message.as_str());
    match test.verdict() {
        Verdict::Passed => TestCaseStatus::success(),
        Verdict::Flaky => {
            let mut status = TestCaseStatus::success();
            status.add_reruns(test.attempts.iter().filter_map(earlier));
            status
        }
        Verdict::Failed | Verdict::TimedOut => {
            let deciding = deciding(test);
            let mut status = non_success(
                NonSuccessKind::Failure,
                words::verdict(test.verdict()),
                deciding.map_or(message, |attempt| attempt.message.as_str()),
            );
            let others = test
                .attempts
                .iter()
                .filter(|attempt| deciding.is_none_or(|deciding| deciding.attempt != attempt.attempt));
            status.add_reruns(others.filter_map(earlier));
            status
        }
        Verdict::Infrastructure => non_success(NonSuccessKind::Error, "infrastructure", message),
        Verdict::Skipped => skipped(message),
        Verdict::NotRun if run.reason.is_empty() => skipped("not run"),
        Verdict::NotRun => skipped(&format!("not run: {}", first_line(&run.reason))),
        Verdict::Unspecified => skipped("no verdict yet"),
    }
}

/// The last attempt that is the test's own failure.
fn deciding(test: &Test) -> Option<&Attempt> {
    test.attempts
        .iter()
        .rev()
        .find(|attempt| matches!(attempt.outcome(), Outcome::Failed | Outcome::TimedOut))
}

/// Another attempt that failed; attempts that passed or were cancelled have no place in the format.
fn earlier(attempt: &Attempt) -> Option<TestRerun> {
    let kind = match attempt.outcome() {
        Outcome::Failed | Outcome::TimedOut => NonSuccessKind::Failure,
        Outcome::Infrastructure => NonSuccessKind::Error,
        Outcome::Unspecified | Outcome::Passed | Outcome::Skipped | Outcome::Cancelled => return None,
    };
    let mut rerun = TestRerun::new(kind);
    rerun
        .set_type(words::outcome(attempt.outcome()))
        .set_message(xml(first_line(&attempt.message)))
        .set_description(xml(&attempt.message))
        .set_time(Duration::from_millis(attempt.run_ms));
    Some(rerun)
}

fn non_success(kind: NonSuccessKind, ty: &str, message: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(ty).set_message(xml(first_line(message)));
    if !message.is_empty() {
        status.set_description(xml(message));
    }
    status
}

fn skipped(message: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    status.set_message(xml(message));
    status
}

fn first_line(message: &str) -> &str {
    message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("")
}

/// `XmlString` removes escapes and most of what XML 1.0 forbids; the two noncharacters are left to us.
fn xml(text: &str) -> XmlString {
    if text.contains(['\u{fffe}', '\u{ffff}']) {
        return XmlString::new(text.replace(['\u{fffe}', '\u{ffff}'], ""));
    }
    XmlString::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn written(run: &Run) -> String {
        let mut xml = Vec::new();
        write(run, &mut xml).unwrap();
        String::from_utf8(xml).unwrap()
    }

    #[test]
    fn every_verdict_has_its_element() {
        // The compiler refuses direction controls in source text.
        let shown = written(&sample::mixed()).replace('\u{202e}', "<RLO>");
        insta::assert_snapshot!(shown, @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites name="shop" tests="7" skipped="2" failures="2" errors="1" time="90.000">
            <testsuite name="integration" tests="7" skipped="2" errors="1" failures="2" time="61.421">
                <properties>
                    <property name="andon.run" value="12"/>
                    <property name="andon.commit" value="4f2a9c1b7d3e8f60112233445566778899aabbcc"/>
                    <property name="andon.ref" value="refs/heads/main"/>
                    <property name="andon.baseline" value="b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1"/>
                    <property name="andon.state" value="failed"/>
                </properties>
                <testcase name="test_place[1-b]" classname="tests.test_orders.TestOrders" time="0.900" file="tests/test_orders.py">
                    <properties>
                        <property name="andon.lane" value="w0/0"/>
                    </properties>
                </testcase>
                <testcase name="test_cancel" classname="tests.test_orders.TestOrders" time="0.310" file="tests/test_orders.py">
                    <properties>
                        <property name="andon.lane" value="w0/1"/>
                    </properties>
                    <failure message="AssertionError: assert 2 == 3" type="failed">AssertionError: assert 2 == 3
          stock was 2</failure>
                    <rerunFailure time="0.300" message="AssertionError: assert 2 == 3" type="failed">AssertionError: assert 2 == 3
          stock was 2</rerunFailure>
                </testcase>
                <testcase name="test_flaky" classname="tests.test_stock" time="0.210" file="tests/test_stock.py">
                    <properties>
                        <property name="andon.lane" value="w1/1"/>
                    </properties>
                    <flakyFailure time="0.200" message="OperationalError: deadlock" type="failed">OperationalError: deadlock</flakyFailure>
                </testcase>
                <testcase name="test_hangs" classname="tests.test_stock" time="60.000" file="tests/test_stock.py">
                    <properties>
                        <property name="andon.lane" value="w1/1"/>
                    </properties>
                    <failure message="no end after 60 s" type="timed_out">no end after 60 s</failure>
                </testcase>
                <testcase name="test_skip" classname="tests.test_stock" time="0.001" file="tests/test_stock.py">
                    <properties>
                        <property name="andon.lane" value="w0/0"/>
                    </properties>
                    <skipped message="needs a printer"/>
                </testcase>
                <testcase name="test_<RLO>x" classname="tests.test_evil" time="0.000" file="tests/test_evil.py">
                    <properties>
                        <property name="andon.lane" value="w1/0"/>
                    </properties>
                    <error message="worker w1 was lost" type="infrastructure">worker w1 was lost</error>
                </testcase>
                <testcase name="test_never" classname="tests.test_late" file="tests/test_late.py">
                    <skipped message="not run"/>
                </testcase>
            </testsuite>
        </testsuites>
        "#);
    }

    #[test]
    fn infrastructure_is_never_a_failure_element() {
        let run = Run {
            tests: vec![sample::test(
                "a",
                Verdict::Infrastructure,
                vec![sample::attempt(1, 0, Outcome::Infrastructure, 0, "worker lost")],
            )],
            ..sample::mixed()
        };
        let xml = written(&run);
        assert!(xml.contains("<error") && !xml.contains("<failure"), "{xml}");
        assert!(xml.contains(r#"failures="0""#) && xml.contains(r#"errors="1""#), "{xml}");
    }

    #[test]
    fn a_failure_before_a_lost_worker_keeps_its_message() {
        let attempts = vec![
            sample::attempt(1, 0, Outcome::Failed, 5, "assert 1 == 2"),
            sample::attempt(2, 0, Outcome::Infrastructure, 0, "worker lost"),
        ];
        let run = Run { tests: vec![sample::test("a", Verdict::Failed, attempts)], ..sample::mixed() };
        let xml = written(&run);
        assert!(xml.contains(r#"<failure message="assert 1 == 2""#), "{xml}");
        assert!(xml.contains("<rerunError"), "{xml}");
    }

    #[test]
    fn hostile_names_and_messages_give_well_formed_xml() {
        let nasty = "a\u{0}b\u{1b}[31m\u{fffe}\u{ffff}]]>&<x y=\"\u{8}\">'\u{b}";
        let mut test =
            sample::test(nasty, Verdict::Failed, vec![sample::attempt(1, 0, Outcome::Failed, 5, nasty)]);
        test.suite = nasty.to_owned();
        let run = Run { project: nasty.to_owned(), tests: vec![test], ..sample::mixed() };
        let xml = written(&run);
        let allowed =
            |c: char| matches!(c, '\n' | '\t' | '\r') || (c >= ' ' && !matches!(c, '\u{fffe}'..='\u{ffff}'));
        assert!(xml.chars().all(allowed), "{xml:?}");
        let back = Report::deserialize_from_str(&xml).expect("the report is read back");
        assert_eq!(back.test_suites.len(), 1);
        assert_eq!(back.test_suites[0].test_cases.len(), 1);
    }
}
