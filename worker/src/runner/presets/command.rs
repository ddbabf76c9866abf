//! The `command` preset: any command that lists tests, any command that runs them.
//!
//! With `{junit}` one call runs the whole unit and its report is read; without it each test is a call of its own and the exit
//! code is its outcome. Invariant: ids are quoted in one pass; the report is read as untrusted input.

use std::collections::VecDeque;

use crate::runner::event::{Event, EventOutcome};
use crate::runner::lines_of_ids::Ids;
use crate::runner::preset::{Call, CallEnd, Course, Facts, Limit, Options, Preset, Surroundings, Unit};
use crate::runner::progress::{describe, last_lines};
use crate::runner::{OUT_FOLDER, junit, reported, template};

/// The report, in the out folder.
const JUNIT_FILE: &str = "junit.xml";

/// See the module.
#[derive(Debug)]
pub(crate) struct Command;

impl Preset for Command {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "command",
            needs: &["discover", "run"],
            takes: &[],
            places: &["tests", "junit"],
            shares_process: false,
            files: &[],
        }
    }

    fn discovery(&self, options: &Options, _: &Surroundings) -> Box<dyn Course> {
        Box::new(Ids::of(&options.discover))
    }

    fn unit(&self, options: &Options, _: &Surroundings, unit: &Unit) -> Box<dyn Course> {
        if template::writes_junit(&options.run) {
            Box::new(Batch { run: Some(options.run.clone()), ids: unit.ids().map(str::to_owned).collect() })
        } else {
            let ids = unit.ids().map(str::to_owned).collect();
            Box::new(Singly { run: options.run.clone(), ids, current: String::new() })
        }
    }
}

/// One call a test.
struct Singly {
    run: String,
    ids: VecDeque<String>,
    current: String,
}

impl Course for Singly {
    fn next(&mut self) -> Option<Call> {
        self.current = self.ids.pop_front()?;
        let mut call = Call::running(template::expand(&self.run, [self.current.as_str()], ""));
        call.alone = Some(self.current.clone());
        Some(call)
    }

    fn ended(&mut self, end: &CallEnd<'_>, events: &mut Vec<Event>) -> Result<(), String> {
        events.push(by_exit_code(&self.current, end));
        Ok(())
    }
}

/// What a call for one test alone amounts to.
pub(super) fn by_exit_code(id: &str, end: &CallEnd<'_>) -> Event {
    let (outcome, message) = match end.exit.code {
        0 => (EventOutcome::Passed, String::new()),
        _ => (EventOutcome::Failed, format!("{}\n{}", describe(end.exit), last_lines(&end.text()))),
    };
    Event::Result { id: id.to_owned(), outcome, ms: Some(end.spent_ms as f64), message, log: end.text() }
}

/// One call for all tests.
struct Batch {
    run: Option<String>,
    ids: Vec<String>,
}

impl Course for Batch {
    fn next(&mut self) -> Option<Call> {
        let run = self.run.take()?;
        let path = format!("{OUT_FOLDER}/{JUNIT_FILE}");
        let script = template::expand(&run, self.ids.iter().map(String::as_str), &path);
        let count = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        Some(Call::running(script).within(Limit::Whole(count)))
    }

    fn ended(&mut self, end: &CallEnd<'_>, events: &mut Vec<Event>) -> Result<(), String> {
        let report = match (end.read_out)(JUNIT_FILE, junit::FILE_BYTES_MAX) {
            Ok(Some(bytes)) => junit::read(&bytes).map_err(|refused| refused.to_string()),
            Ok(None) => Err(format!("the command wrote no JUnit file to {OUT_FOLDER}/{JUNIT_FILE}")),
            Err(why) => Err(why),
        };
        events.extend(reported::judge(&self.ids, end, report));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::played::{Played, exit, unit};

    fn options(run: &str) -> Options {
        Options { discover: "list".into(), run: run.into(), ..Options::default() }
    }

    fn played(run: &str, ids: &[&str]) -> Played {
        Played::new(Command.unit(&options(run), &Surroundings::default(), &unit(ids)))
    }

    #[test]
    fn without_a_report_each_test_is_a_call_of_its_own_and_its_exit_code_counts() {
        let mut played = played("check {tests}", &["a", "it's"]);
        let call = played.call();
        assert_eq!((call.alone.as_deref(), call.limit), (Some("a"), Limit::Each));
        played.end(&exit(0), b"fine").unwrap();
        assert_eq!(played.script(), "check 'it'\\''s'");
        played.end(&exit(139), b"Segmentation fault\n").unwrap();
        assert_eq!(played.outcomes(), [("a", EventOutcome::Passed), ("it's", EventOutcome::Failed)]);
        let (message, log) = played.said_of("it's");
        assert!(message.contains("SIGSEGV") && log.contains("Segmentation fault"), "{message}");
        assert!(played.next().is_none());
    }

    #[test]
    fn with_a_report_one_call_runs_all_and_each_test_has_its_case() {
        let mut played = played("check --out {junit} {tests}", &["a", "b"]);
        let call = played.call();
        assert_eq!(call.limit, Limit::Whole(2));
        let report = b"<testsuite><testcase name='a' time='0.5'/><testcase name='b'><error message='bad'/></testcase></testsuite>";
        played.files.insert(JUNIT_FILE.to_owned(), report.to_vec());
        played.end(&exit(1), b"").unwrap();
        assert_eq!(played.outcomes(), [("a", EventOutcome::Passed), ("b", EventOutcome::Failed)]);
        assert_eq!(played.said_of("b").0, "bad");
    }
}
