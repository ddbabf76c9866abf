//! The `pytest` preset: Andon's plugin inside pytest, a job in by one named pipe, events out by another.
//!
//! A process can be started before its unit is known: it has loaded Python and pytest and waits on the job pipe, with none of the
//! project's code imported. Invariant: ids travel as JSON, never by a command line.

use std::collections::BTreeMap;

use crate::runner::event::{Event, Job, Lines};
use crate::runner::preset::{
    Call, CallEnd, Course, Facts, Limit, Options, Preset, Source, Surroundings, Unit, Words,
};
use crate::runner::progress::{describe, last_lines};
use crate::runner::{EVENTS_FILE, JOB_FILE, OUT_FOLDER, RUNNERS_FOLDER};

/// How pytest is called where the suite does not say.
const COMMAND_DEFAULT: &str = "python3 -m pytest";
/// Exit code of pytest for a collection that found nothing.
const EXIT_NO_TESTS: i64 = 5;

/// See the module.
#[derive(Debug)]
pub(crate) struct Pytest;

impl Preset for Pytest {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "pytest",
            needs: &[],
            takes: &["command", "args"],
            places: &[],
            shares_process: true,
            files: &[("andon_pytest.py", include_str!("../../../../ci/runners/andon_pytest.py"))],
        }
    }

    fn discovery(&self, options: &Options, surroundings: &Surroundings) -> Box<dyn Course> {
        let job = Job::of("discover", surroundings);
        Box::new(Discovery {
            call: Some(call(options, surroundings, &job)),
            lines: Lines::default(),
            heard: Heard::default(),
        })
    }

    fn unit(&self, options: &Options, surroundings: &Surroundings, unit: &Unit) -> Box<dyn Course> {
        let mut job = Job::of("run", surroundings);
        job.tests = unit.ids().collect();
        job.attempts = unit.tests.iter().map(|test| test.attempt).collect();
        job.timeout_ms = unit.timeout_ms;
        job.rebase = unit.rebase;
        Box::new(Execution { call: Some(call(options, surroundings, &job)), lines: Lines::default() })
    }

    fn warm(&self, options: &Options, surroundings: &Surroundings) -> Option<Call> {
        Some(call(options, surroundings, &Job::of("warm", surroundings)))
    }
}

impl<'a> Job<'a> {
    fn of(mode: &'static str, surroundings: &'a Surroundings) -> Self {
        let env: BTreeMap<&str, &str> =
            surroundings.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let events = format!("{OUT_FOLDER}/{EVENTS_FILE}");
        Self { mode, events, tests: Vec::new(), attempts: Vec::new(), timeout_ms: 0, rebase: false, env }
    }
}

fn call(options: &Options, surroundings: &Surroundings, job: &Job<'_>) -> Call {
    let command = if options.command.is_empty() { COMMAND_DEFAULT } else { &options.command };
    let mut words = vec!["sh".to_owned(), "-c".to_owned(), format!("{command} \"$@\""), "sh".to_owned()];
    words.extend(["-p", "andon_pytest"].map(str::to_owned));
    words.extend(options.args.iter().cloned());
    let python_path = match surroundings.python_path.as_str() {
        "" => RUNNERS_FOLDER.to_owned(),
        kept => format!("{RUNNERS_FOLDER}:{kept}"),
    };
    let job = serde_json::to_vec(job).expect("a job is plain data");
    let call =
        Call { words: Words::Plain(words), env: Vec::new(), job: Some(job), limit: Limit::Each, alone: None };
    call.with_env("PYTHONPATH", python_path).with_env("ANDON_PYTEST_JOB", format!("{OUT_FOLDER}/{JOB_FILE}"))
}

struct Execution {
    call: Option<Call>,
    lines: Lines,
}

impl Course for Execution {
    fn next(&mut self) -> Option<Call> {
        self.call.take()
    }

    fn hear(&mut self, from: Source, bytes: &[u8], events: &mut Vec<Event>) {
        if from == Source::Events {
            events.extend(self.lines.push(bytes));
        }
    }

    fn ended(&mut self, _: &CallEnd<'_>, _: &mut Vec<Event>) -> Result<(), String> {
        Ok(())
    }
}

struct Discovery {
    call: Option<Call>,
    lines: Lines,
    heard: Heard,
}

/// What the plugin has said.
#[derive(Default)]
struct Heard {
    any: bool,
    over: bool,
    errors: bool,
}

impl Course for Discovery {
    fn next(&mut self) -> Option<Call> {
        self.call.take()
    }

    fn hear(&mut self, from: Source, bytes: &[u8], events: &mut Vec<Event>) {
        if from == Source::Events {
            for event in self.lines.push(bytes) {
                self.heard.any |= matches!(event, Event::Test { .. });
                self.heard.errors |= matches!(event, Event::CollectError { .. });
                self.heard.over |= event == Event::End;
                events.push(event);
            }
        }
    }

    fn ended(&mut self, end: &CallEnd<'_>, _: &mut Vec<Event>) -> Result<(), String> {
        if end.exit.code == EXIT_NO_TESTS && !self.heard.any {
            return Ok(());
        }
        if end.exit.code != 0 {
            let why = if self.heard.errors { String::new() } else { last_lines(&end.text()) };
            return Err(format!("pytest cannot collect the tests: {}\n{why}", describe(end.exit))
                .trim_end()
                .to_owned());
        }
        if !self.heard.over {
            return Err(format!(
                "the suite's pytest command ended without Andon's plugin in it\n{}",
                last_lines(&end.text())
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::played::{Played, exit};

    fn listed(said: &[&str], code: i64, printed: &str) -> Result<Vec<String>, String> {
        let mut played = Played::new(Pytest.discovery(&Options::default(), &Surroundings::default()));
        played.call();
        said.iter().for_each(|line| played.hear(Source::Events, format!("{line}\n").as_bytes()));
        played.end(&exit(code), printed.as_bytes())?;
        Ok(played.tests())
    }

    #[test]
    fn found_ids_keep_their_order() {
        let said = ["{\"e\":\"test\",\"id\":\"b\"}", "{\"e\":\"test\",\"id\":\"a\"}", "{\"e\":\"end\"}"];
        assert_eq!(listed(&said, 0, ""), Ok(vec!["b".to_owned(), "a".to_owned()]));
    }

    #[test]
    fn finding_nothing_is_an_empty_list_and_failing_is_not() {
        assert_eq!(listed(&["{\"e\":\"end\"}"], 5, ""), Ok(Vec::new()));
        let reason = listed(&["{\"e\":\"test\",\"id\":\"a\"}"], 2, "ImportError").unwrap_err();
        assert!(reason.contains("exit code 2") && reason.contains("ImportError"), "{reason}");
    }

    #[test]
    fn a_command_that_does_not_load_the_plugin_is_told_so() {
        let reason = listed(&[], 0, "hello").unwrap_err();
        assert!(reason.contains("without Andon's plugin") && reason.contains("hello"), "{reason}");
    }

    #[test]
    fn ids_go_by_the_job_and_never_by_words() {
        let hostile = "t.py::x[$(id); 'a' -rf]";
        let test = andon_proto::TestCase { attempt: 4, id: hostile.into() };
        let unit = Unit { tests: vec![test], timeout_ms: 5, rebase: false };
        let options = Options { args: vec!["--deselect=a b".into()], ..Options::default() };
        let call = Pytest.unit(&options, &Surroundings::default(), &unit).next().unwrap();
        assert!(!format!("{:?}", call.words).contains("$(id)"), "{:?}", call.words);
        let job: serde_json::Value = serde_json::from_slice(&call.job.unwrap()).unwrap();
        assert_eq!((job["tests"][0].as_str(), job["attempts"][0].as_u64()), (Some(hostile), Some(4)));
    }
}
