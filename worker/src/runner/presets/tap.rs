//! The `tap` preset: a command that prints a TAP stream.
//!
//! With `{tests}` in `run` one call runs the unit, and each id is the description of a point, with its result as soon as the next point
//! comes. With `{test}` each id (a file, say) is a call of its own, and all of the stream is its outcome.

use std::collections::VecDeque;

use crate::runner::event::{Event, EventOutcome};
use crate::runner::lines_of_ids::Ids;
use crate::runner::preset::{Call, CallEnd, Course, Facts, Options, Preset, Source, Surroundings, Unit};
use crate::runner::progress::{describe, last_lines};
use crate::runner::tap::{Directive, Point, Said, Tap as Stream};
use crate::runner::template;

/// How many points a message names.
const NAMED_MAX: usize = 5;

/// See the module.
#[derive(Debug)]
pub(crate) struct Tap;

impl Preset for Tap {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "tap",
            needs: &["discover", "run"],
            takes: &[],
            places: &["tests", "test", "list", "regex"],
            shares_process: false,
            files: &[],
        }
    }

    fn discovery(&self, options: &Options, _: &Surroundings) -> Box<dyn Course> {
        Box::new(Ids::of(&options.discover))
    }

    fn unit(&self, options: &Options, _: &Surroundings, unit: &Unit) -> Box<dyn Course> {
        let (run, ids) = (options.run.clone(), unit.ids().map(str::to_owned));
        if run.contains("{test}") {
            let (ids, current, stream) = (ids.collect(), String::new(), Whole::default());
            Box::new(Singly { run, ids, current, stream })
        } else {
            let (ids, stream) = (ids.collect(), Stream::default());
            Box::new(Together {
                run: Some(run),
                ids,
                stream,
                ended: 0,
                failed: false,
                held: None,
                others: Vec::new(),
            })
        }
    }
}

fn outcome_of(point: &Point) -> (EventOutcome, String) {
    match (&point.directive, point.ok) {
        (Directive::Skip(why), _) => (EventOutcome::Skipped, why.clone()),
        (Directive::Todo(why), false) => (EventOutcome::Skipped, format!("expected failure: {why}")),
        (_, true) => (EventOutcome::Passed, String::new()),
        (Directive::None, false) if point.detail.trim().is_empty() => {
            (EventOutcome::Failed, format!("not ok - {}", point.description))
        }
        (Directive::None, false) => (EventOutcome::Failed, point.detail.clone()),
    }
}

/// All ids in one call.
struct Together {
    run: Option<String>,
    ids: Vec<String>,
    stream: Stream,
    ended: usize,
    failed: bool,
    /// The last test's result: it waits for how the command ends.
    held: Option<Event>,
    /// Descriptions that are no id of the unit's.
    others: Vec<String>,
}

impl Together {
    fn take(&mut self, said: Vec<Said>, events: &mut Vec<Event>) {
        for one in said {
            match one {
                Said::Begins(id) => events.push(Event::Start { id }),
                Said::BailOut(_) => self.failed = true,
                Said::Point(point) => self.point(point, events),
            }
        }
    }

    fn point(&mut self, point: Point, events: &mut Vec<Event>) {
        let (outcome, message) = outcome_of(&point);
        self.failed |= outcome == EventOutcome::Failed;
        if self.ids.contains(&point.description) {
            self.ended += 1;
            let (id, log) = (point.description, point.detail);
            let result = Event::Result { id, outcome, ms: None, message, log };
            if self.ended < self.ids.len() {
                events.push(result);
            } else {
                events.extend(self.held.replace(result));
            }
        } else if self.others.len() < NAMED_MAX {
            self.others.push(point.description);
        }
    }
}

impl Course for Together {
    fn next(&mut self) -> Option<Call> {
        let script = template::expand(&self.run.take()?, self.ids.iter().map(String::as_str), "");
        Some(Call::running(script))
    }

    fn hear(&mut self, from: Source, bytes: &[u8], events: &mut Vec<Event>) {
        if from == Source::Stdout {
            let mut said = Vec::new();
            self.stream.hear(bytes, &mut said);
            self.take(said, events);
        }
    }

    fn ended(&mut self, end: &CallEnd<'_>, events: &mut Vec<Event>) -> Result<(), String> {
        let mut said = Vec::new();
        self.stream.end(&mut said);
        self.take(said, events);
        let unexplained = end.exit.code != 0 && !self.failed;
        let mut held = self.held.take();
        if unexplained
            && self.ended == self.ids.len()
            && let Some(Event::Result { outcome, message, .. }) = &mut held
        {
            *outcome = EventOutcome::Failed;
            *message = format!(
                "the command failed after its tests: {}\n{}",
                describe(end.exit),
                last_lines(&end.text())
            );
        }
        events.extend(held);
        if self.ended == self.ids.len() || (end.exit.code != 0 && self.ended > 0) {
            return Ok(());
        }
        let has = match self.others.as_slice() {
            [] => String::new(),
            others => format!("; it has: {}", others.join(", ")),
        };
        Err(format!(
            "the stream has no point of this name{has}\n{}\n{}",
            describe(end.exit),
            last_lines(&end.text())
        ))
    }
}

/// A stream that is one test.
#[derive(Default)]
struct Whole {
    stream: Stream,
    skipped: u64,
    failures: Vec<String>,
}

impl Whole {
    fn take(&mut self, said: Vec<Said>) {
        for one in said {
            match one {
                Said::Begins(_) => {}
                Said::BailOut(reason) => self.failures.push(format!("Bail out! {reason}")),
                Said::Point(point) => match outcome_of(&point) {
                    (EventOutcome::Failed, detail) if self.failures.len() < NAMED_MAX => {
                        self.failures.push(format!("not ok - {}\n{}", point.description, detail.trim_end()));
                    }
                    (EventOutcome::Skipped, _) => self.skipped += 1,
                    _ => {}
                },
            }
        }
    }

    fn judge(&self, end: &CallEnd<'_>) -> (EventOutcome, String) {
        let Stream { plan, skip_all, points, .. } = &self.stream;
        if !self.failures.is_empty() {
            return (EventOutcome::Failed, self.failures.join("\n"));
        }
        let short = match plan {
            Some(plan) if plan != points => format!("{plan} points were planned, {points} came"),
            None if *points == 0 => "there is no TAP in what the command printed".to_owned(),
            _ => String::new(),
        };
        if end.exit.code != 0 || !short.is_empty() {
            let why = format!("{}\n{short}\n{}", describe(end.exit), last_lines(&end.text()));
            return (EventOutcome::Failed, why);
        }
        match skip_all {
            Some(why) => (EventOutcome::Skipped, why.clone()),
            None if self.skipped == *points => {
                (EventOutcome::Skipped, "all of its points are skipped".to_owned())
            }
            None => (EventOutcome::Passed, String::new()),
        }
    }
}

/// One call an id.
struct Singly {
    run: String,
    ids: VecDeque<String>,
    current: String,
    stream: Whole,
}

impl Course for Singly {
    fn next(&mut self) -> Option<Call> {
        self.current = self.ids.pop_front()?;
        self.stream = Whole::default();
        let mut call = Call::running(template::expand(&self.run, [self.current.as_str()], ""));
        call.alone = Some(self.current.clone());
        Some(call)
    }

    fn hear(&mut self, from: Source, bytes: &[u8], _: &mut Vec<Event>) {
        if from == Source::Stdout {
            let mut said = Vec::new();
            self.stream.stream.hear(bytes, &mut said);
            self.stream.take(said);
        }
    }

    fn ended(&mut self, end: &CallEnd<'_>, events: &mut Vec<Event>) -> Result<(), String> {
        let mut said = Vec::new();
        self.stream.stream.end(&mut said);
        self.stream.take(said);
        let (outcome, message) = self.stream.judge(end);
        let ms = Some(end.spent_ms as f64);
        events.push(Event::Result { id: self.current.clone(), outcome, ms, message, log: end.text() });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::played::{Played, unit};

    fn played(run: &str, ids: &[&str]) -> Played {
        let options = Options { run: run.into(), ..Options::default() };
        Played::new(Tap.unit(&options, &Surroundings::default(), &unit(ids)))
    }

    fn whole(text: &str, code: i64) -> (EventOutcome, String) {
        let mut played = played("prove -v {test}", &["t/a b.t"]);
        let call = played.call();
        assert_eq!(call.alone.as_deref(), Some("t/a b.t"));
        played.play(text.as_bytes(), code).unwrap();
        (played.outcomes()[0].1, played.said_of("t/a b.t").0.to_owned())
    }

    #[test]
    fn points_of_one_stream_are_tests_as_they_come() {
        let mut played = played("run {tests}", &["a", "b", "c"]);
        assert_eq!(played.script(), "run a b c");
        played.hear(Source::Stdout, b"1..4\nok 1 - a\nnot ok 2 - b\n  ---\n  at: x.js:3\n  ...\n");
        assert_eq!(played.outcomes(), [("a", EventOutcome::Passed)]);
        played.play(b"ok 3 - c # SKIP no\nok 4 - else\n", 1).unwrap();
        let expected =
            [("a", EventOutcome::Passed), ("b", EventOutcome::Failed), ("c", EventOutcome::Skipped)];
        assert_eq!(played.outcomes(), expected);
        assert!(played.said_of("b").0.contains("x.js:3"));
    }

    #[test]
    fn a_command_that_fails_after_points_that_are_fine_is_no_success() {
        let mut played = played("run {tests}", &["a"]);
        played.call();
        played.play(b"ok 1 - a\n1..1\n", 2).unwrap();
        assert_eq!(played.outcomes(), [("a", EventOutcome::Failed)]);
    }

    #[test]
    fn a_stream_of_other_names_says_which() {
        let mut played = played("run {tests}", &["a"]);
        played.call();
        let reason = played.play(b"ok 1 - other\n", 0).unwrap_err();
        assert!(reason.contains("it has: other"), "{reason}");
    }

    #[test]
    fn a_stream_that_is_one_test_fails_by_any_sign() {
        assert_eq!(whole("1..2\nok 1\nok 2 # SKIP x\n", 0).0, EventOutcome::Passed);
        assert_eq!(whole("1..0 # SKIP no database\n", 0), (EventOutcome::Skipped, "no database".into()));
        assert_eq!(whole("ok 1\nnot ok 2 # TODO later\n1..2\n", 0).0, EventOutcome::Passed);
        for (text, code, said) in [
            ("1..2\nok 1\n", 0, "2 points were planned, 1 came"),
            ("1..1\nnot ok 1 - x\n", 0, "not ok - x"),
            ("1..1\nok 1\n", 3, "exit code 3"),
            ("ok 1\nBail out! no disk\n", 0, "Bail out! no disk"),
            ("hello\n", 0, "no TAP"),
        ] {
            let (outcome, message) = whole(text, code);
            assert_eq!(outcome, EventOutcome::Failed, "{text}");
            assert!(message.contains(said), "{message}");
        }
    }
}
