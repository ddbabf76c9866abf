//! JUnit in and out: what is read is in proportion to the file; what is written of it is read again as the same.

use andon_proto::{Attempt, Outcome, Run, Test, Verdict};
use andon_worker::runner::junit::{CASES_MAX, Case, CaseOutcome, read};
use quick_junit::XmlString;

use crate::report::ids;
use crate::report::junit::{Form, write};
use crate::said;

/// What is kept of suites' names beside their cases.
const INHERITED_BYTES_MAX: usize = 32 << 20;
/// So many cases are written again.
const WRITTEN_MAX: usize = 32;
/// The farm takes no longer names.
const NAME_BYTES_MAX: usize = 1024;

/// See the module.
pub fn check(input: &[u8]) {
    let report = match read(input) {
        Ok(report) => report,
        Err(refused) => return said::showable(&refused.to_string()),
    };
    assert!(report.cases.len() <= CASES_MAX);
    let texts = |case: &Case| case.name.len() + case.classname.len() + case.message.len() + case.log.len();
    // Bytes that are no text become three; a title of its own says of each piece of a log what it is.
    said::bounded(report.cases.iter().map(texts).sum(), input, 16, 1024);
    let inherited = report.cases.iter().map(|case| case.suite.len() + case.file.len()).sum();
    said::bounded(inherited, input, 3, INHERITED_BYTES_MAX);
    written_and_read(&report.cases);
}

fn written_and_read(cases: &[Case]) {
    let fit = |case: &&Case| !case.name.is_empty() && case.name.len() <= NAME_BYTES_MAX;
    let cases: Vec<&Case> = cases.iter().filter(fit).take(WRITTEN_MAX).collect();
    let run = Run { tests: cases.iter().map(|case| test(case)).collect(), ..Run::default() };
    for form in [Form::Usual, Form::Strict] {
        let mut text = Vec::new();
        write(&run, form, &mut text).expect("a report can always be written");
        let read = read(&text).expect("what was written is read");
        assert!(!read.cut_short, "it is whole");
        assert_eq!(read.cases.len(), cases.len());
        for (wrote, read) in cases.iter().zip(&read.cases) {
            assert_eq!(read.outcome, wrote.outcome);
            assert_eq!(read.name, writable(ids::parts(&wrote.name).name));
            // The file counts whole milliseconds.
            assert_eq!(read.ms, wrote.ms.min(MS_MAX), "{wrote:?}");
        }
    }
}

/// A year: beyond that a time is written with fewer digits than milliseconds need.
const MS_MAX: u64 = 366 * 24 * 3600 * 1000;

fn test(case: &Case) -> Test {
    let (verdict, outcome) = match case.outcome {
        CaseOutcome::Passed => (Verdict::Passed, Outcome::Passed),
        CaseOutcome::Skipped => (Verdict::Skipped, Outcome::Skipped),
        CaseOutcome::Failed => (Verdict::Failed, Outcome::Failed),
    };
    let attempt = Attempt {
        attempt: 1,
        outcome: outcome.into(),
        run_ms: case.ms.min(MS_MAX),
        message: case.message.clone(),
        ..Attempt::default()
    };
    Test {
        id: case.name.clone(),
        suite: "suite".to_owned(),
        verdict: verdict.into(),
        attempts: vec![attempt],
        ..Test::default()
    }
}

/// What of a text XML can hold.
fn writable(text: &str) -> String {
    XmlString::new(text.replace(['\u{fffe}', '\u{ffff}'], "")).as_str().to_owned()
}
