//! What JUnit reports say of the tests that a call was to run.
//!
//! Pure. Invariant: a test that no case is about has failed with what the reports have instead; only after a call that died
//! half-way are tests left over, to be run again, and then at least one has a result.

use super::event::{Event, EventOutcome};
use super::junit::{CaseOutcome, Report};
use super::matching::Index;
use super::preset::CallEnd;
use super::progress::{describe, last_lines};

/// How many cases a message names.
const NAMED_MAX: usize = 5;

/// Results for each id, as far as the call got. `Err`: why there is no report.
pub(crate) fn judge(ids: &[String], end: &CallEnd<'_>, report: Result<Report, String>) -> Vec<Event> {
    let (report, fault) = match report {
        Ok(report) => (report, None),
        Err(why) => (Report::default(), Some(why)),
    };
    let index = Index::new(&report.cases);
    let mut all = Vec::new();
    for id in ids {
        match index.judge(id) {
            Some(judged) => {
                let outcome = match judged.outcome {
                    CaseOutcome::Passed => EventOutcome::Passed,
                    CaseOutcome::Skipped => EventOutcome::Skipped,
                    CaseOutcome::Failed => EventOutcome::Failed,
                };
                let message = match (judged.outcome, judged.message.is_empty()) {
                    (CaseOutcome::Passed, _) => String::new(),
                    (_, true) => judged.log.clone(),
                    (_, false) => judged.message,
                };
                let mut log = judged.log;
                if ids.len() == 1 && !end.output.is_empty() {
                    log.push_str("--- output of the command ---\n");
                    log.push_str(&end.text());
                }
                all.push(Event::Result { id: id.clone(), outcome, ms: Some(judged.ms as f64), message, log });
            }
            // A command that died half-way: what it did not get to goes back to the queue, after one that tells.
            None if end.exit.code != 0 && (report.cut_short || fault.is_some()) && !all.is_empty() => {}
            None => all.push(unreported(id, end, fault.as_deref(), &report)),
        }
    }
    all
}

fn unreported(id: &str, end: &CallEnd<'_>, fault: Option<&str>, report: &Report) -> Event {
    let why = match fault {
        Some(why) => format!("{why}; the command ended with {}", describe(end.exit)),
        None => {
            let names: Vec<String> = report
                .cases
                .iter()
                .take(NAMED_MAX)
                .map(|case| format!("{}.{}", case.classname, case.name))
                .collect();
            format!(
                "the command ended with {}, and its JUnit report has no case for this test; it has {}: {}",
                describe(end.exit),
                report.cases.len(),
                names.join(", ")
            )
        }
    };
    let (outcome, ms) = (EventOutcome::Failed, Some(end.spent_ms as f64));
    let message = format!("{why}\n{}", last_lines(&end.text()));
    Event::Result { id: id.to_owned(), outcome, ms, message, log: end.text() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::junit;
    use crate::runner::played::exit;

    fn judged(ids: &[&str], code: i64, report: Result<&str, &str>) -> Vec<Event> {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let (exit, nothing) = (exit(code), |_: &str, _: u64| Ok(None));
        let output = b"Segmentation fault\n";
        let end = CallEnd { exit: &exit, spent_ms: 77, output, read_out: &nothing };
        let report = match report {
            Ok(text) => junit::read(text.as_bytes()).map_err(|refused| refused.to_string()),
            Err(why) => Err(why.to_owned()),
        };
        judge(&ids, &end, report)
    }

    fn outcomes(all: &[Event]) -> Vec<(&str, EventOutcome)> {
        let result = |event| match event {
            &Event::Result { ref id, outcome, .. } => (id.as_str(), outcome),
            other => panic!("only results: {other:?}"),
        };
        all.iter().map(result).collect()
    }

    fn message(event: &Event) -> &str {
        match event {
            Event::Result { message, .. } => message,
            other => panic!("only results: {other:?}"),
        }
    }

    #[test]
    fn a_report_gives_each_test_its_own_outcome() {
        let report =
            "<testsuite><testcase name='a' time='0.5'/><testcase name='b'><error message='bad'/></testcase>
              <testcase name='c'><skipped message='no'/></testcase></testsuite>";
        let all = judged(&["a", "b", "c"], 0, Ok(report));
        let expected =
            [("a", EventOutcome::Passed), ("b", EventOutcome::Failed), ("c", EventOutcome::Skipped)];
        assert_eq!(outcomes(&all), expected);
        assert!(matches!(&all[0], Event::Result { ms, .. } if *ms == Some(500.0)));
        assert_eq!(message(&all[1]), "bad");
    }

    #[test]
    fn a_test_that_the_report_does_not_know_has_failed_and_says_what_the_report_has() {
        let all = judged(&["a"], 0, Ok("<testsuite><testcase name='other' classname='K'/></testsuite>"));
        assert_eq!(outcomes(&all), [("a", EventOutcome::Failed)]);
        assert!(message(&all[0]).contains("K.other"), "{all:?}");
    }

    #[test]
    fn a_crash_without_a_report_fails_the_first_and_leaves_the_rest() {
        let all = judged(&["a", "b", "c"], 139, Err("the command wrote no JUnit file"));
        assert_eq!(outcomes(&all), [("a", EventOutcome::Failed)]);
        let said = message(&all[0]);
        assert!(said.contains("SIGSEGV") && said.contains("Segmentation fault"), "{said}");
    }
}
