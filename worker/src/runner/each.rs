//! Many tests in one call, each in a process of its own: a script that says when each begins and how it ended.
//!
//! Pure. What a test prints lies between two marks of the script's, so each has its own output, and the outcome is an exit code.
//! A test could print such marks: they are of its own unit's tests and of nobody else's.

use super::event::{Event, EventOutcome};
use super::preset::LineCutter;
use super::template::quote;
use crate::engine::HeadTail;

const MARK: &str = "==== andon: test ";

/// One test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct One {
    /// Its id.
    pub id: String,
    /// Of the lease.
    pub attempt: u64,
    /// Commands of a shell; the last one's exit code counts.
    pub commands: String,
}

/// The script.
pub(crate) fn script(tests: &[One]) -> String {
    let mut script = String::from("exec 2>&1\n");
    for (place, test) in tests.iter().enumerate() {
        let attempt = quote(&test.attempt.to_string());
        script.push_str(&format!(
            "printf '\\n{MARK}%s begins ====\\n' {place}\n(\nANDON_ATTEMPT={attempt}; export ANDON_ATTEMPT\n{}\n) </dev/null\n\
             printf '\\n{MARK}%s ends %s ====\\n' {place} \"$?\"\n",
            test.commands
        ));
    }
    script
}

/// Reads what the script prints.
pub(crate) struct Reader {
    ids: Vec<String>,
    lines: LineCutter,
    current: Option<(usize, HeadTail)>,
}

/// From an exit code and what the test printed: its outcome, and a message for one that did not pass.
pub(crate) type Judge = fn(i64, &str) -> (EventOutcome, String);

impl Reader {
    /// For these tests' script.
    pub(crate) fn of(tests: &[One]) -> Self {
        let ids = tests.iter().map(|test| test.id.clone()).collect();
        Self { ids, lines: LineCutter::default(), current: None }
    }

    /// Takes a chunk.
    pub(crate) fn hear(&mut self, bytes: &[u8], judge: Judge, events: &mut Vec<Event>) {
        let Self { ids, lines, current } = self;
        lines.push(bytes, |line| match mark(line).filter(|(place, _)| *place < ids.len()) {
            Some((place, None)) => {
                *current = Some((place, HeadTail::with_limit(super::OUTPUT_BYTES_MAX)));
                events.push(Event::Start { id: ids[place].clone() });
            }
            Some((place, Some(code))) => {
                let printed = current.take().filter(|(running, _)| *running == place);
                let bytes = printed.map(|(_, text)| text.to_bytes()).unwrap_or_default();
                let log = String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned();
                let (outcome, message) = judge(code, &log);
                events.push(Event::Result { id: ids[place].clone(), outcome, ms: None, message, log });
            }
            None => {
                if let Some((_, text)) = current {
                    text.push(line);
                    text.push(b"\n");
                }
            }
        });
    }
}

/// The place and, at its end, the exit code.
fn mark(line: &[u8]) -> Option<(usize, Option<i64>)> {
    let line = std::str::from_utf8(line).ok()?;
    let (place, what) = line.strip_prefix(MARK)?.strip_suffix(" ====")?.split_once(' ')?;
    let place = place.parse().ok()?;
    match what.strip_prefix("ends ") {
        Some(code) => Some((place, Some(code.parse().ok()?))),
        None => (what == "begins").then_some((place, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn judge(code: i64, log: &str) -> (EventOutcome, String) {
        (if code == 0 { EventOutcome::Passed } else { EventOutcome::Failed }, format!("{code} {log}"))
    }

    #[test]
    fn a_real_shell_runs_each_test_alone_and_keeps_their_output_apart() {
        let one = |attempt: u64, id: &str, commands: &str| One {
            attempt,
            id: id.to_owned(),
            commands: commands.to_owned(),
        };
        let tests = [
            one(7, "a", "printf 'no end of line'; cd /; exit 3"),
            one(8, "b c", "echo \"$ANDON_ATTEMPT\"; cat; echo error >&2"),
            one(9, "d", "kill -9 $$"),
            one(10, "never", "true"),
        ];
        let output = Command::new("sh").arg("-c").arg(script(&tests)).output().unwrap();
        let (mut reader, mut events) = (Reader::of(&tests), Vec::new());
        output.stdout.chunks(5).for_each(|chunk| reader.hear(chunk, judge, &mut events));
        let said: Vec<String> = events
            .iter()
            .map(|event| match event {
                Event::Start { id } => format!("start {id}"),
                Event::Result { id, message, .. } => format!("{id}: {message}"),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(said, ["start a", "a: 3 no end of line", "start b c", "b c: 0 8\nerror", "start d"]);
    }
}
