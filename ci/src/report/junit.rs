//! JUnit XML in the Jenkins dialect.
//!
//! A `<testsuite>` for each suite. Verdicts become: failed and timed out `<failure>` (earlier attempts
//! `<rerunFailure>`), flaky a success with `<flakyFailure>`, infrastructure `<error>` (never `<failure>`), skipped
//! and not run `<skipped>` with the reason. A quarantined failure is `<skipped>`, too, so that what reads the report does not block either;
//! what failed is in its message and text. Invariants: the output is well-formed XML 1.0 whatever the names hold; in
//! [`Form::Strict`] it is valid by the schema of Jenkins' xunit plugin (junit-10.xsd), whose rules `junit/rules.rs` has.

use std::io;
use std::time::Duration;

use andon_proto::{Attempt, Outcome, Run, Test, Verdict};
use quick_junit::{
    NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestRerun, TestSuite, XmlString,
};

use super::{attempts, ids, words};

/// Which attributes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A test has its `file`, which GitLab and others show and the schema does not know.
    Usual,
    /// Only what the schema knows.
    Strict,
}

/// Writes the run's report.
pub(crate) fn write(run: &Run, form: Form, mut to: impl io::Write) -> io::Result<()> {
    let text = report(run, form).to_string().map_err(io::Error::other)?;
    let (before, after) = around_total_of_skipped(&text);
    to.write_all(before.as_bytes())?;
    to.write_all(after.as_bytes())
}

/// The schema counts what was skipped for each suite and not for the whole; the library writes both. A quote within a value is
/// escaped, so what is found is the attribute.
fn around_total_of_skipped(text: &str) -> (&str, &str) {
    const ATTRIBUTE: &str = " skipped=\"";
    let root_ends = text.find("<testsuites").and_then(|at| Some(at + text[at..].find('>')?)).unwrap_or(0);
    let Some(at) = text[..root_ends].find(ATTRIBUTE) else { return (text, "") };
    let value = &text[at + ATTRIBUTE.len()..];
    (&text[..at], value.split_once('"').map_or("", |(_, after)| after))
}

fn report(run: &Run, form: Form) -> Report {
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
    report.add_test_suites(names.into_iter().map(|name| suite(run, form, name)));
    report
}

fn suite(run: &Run, form: Form, name: &str) -> TestSuite {
    let mut suite = TestSuite::new(xml(name));
    let mut busy = Duration::ZERO;
    for test in run.tests.iter().filter(|test| test.suite == name) {
        let case = case(run, form, test);
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

fn case(run: &Run, form: Form, test: &Test) -> TestCase {
    let parts = ids::parts(&test.id);
    let mut case = TestCase::new(xml(parts.name), status(run, test));
    case.set_classname(xml(parts.classname.as_deref().unwrap_or(&test.suite)));
    if let (Some(file), Form::Usual) = (parts.file, form) {
        case.extra.insert(XmlString::new("file"), xml(file));
    }
    if let Some(last) = attempts::last(test) {
        case.set_time(Duration::from_millis(last.run_ms));
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
        Verdict::Quarantined => {
            let failure = deciding(test).map_or(message, |attempt| attempt.message.as_str());
            let mut status = skipped(&quarantined(test, failure));
            if !failure.is_empty() {
                status.set_description(xml(failure));
            }
            status
        }
        Verdict::NotRun if run.reason.is_empty() => skipped("not run"),
        Verdict::NotRun => skipped(&format!("not run: {}", first_line(&run.reason))),
        Verdict::Unspecified => skipped("no verdict yet"),
    }
}

/// `quarantined until 2026-12-31 by @shop/cart: assert 1 == 2`.
fn quarantined(test: &Test, failure: &str) -> String {
    let held = test
        .quarantine
        .as_ref()
        .map(|of| format!(" until {} by {}", words::day(of.until_unix_ms.saturating_sub(1)), of.owner));
    format!("quarantined{}: {}", held.unwrap_or_default(), first_line(failure))
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
        .set_description(xml(&attempt.message));
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
mod rules;
#[cfg(test)]
mod tests;
