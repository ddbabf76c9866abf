//! A discovery by a command that prints one id a line, for the presets whose tests a project lists itself.
//!
//! Pure. Invariant: a command that fails, or prints more than is taken, has listed nothing.

use super::event::Event;
use super::ids;
use super::preset::{Call, CallEnd, Course, Source};
use super::progress::{describe, last_lines};

/// Most bytes that a discover command may print.
const LISTING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// See the module.
pub(crate) struct Ids {
    script: Option<String>,
    stdout: Vec<u8>,
    overflow: bool,
}

impl Ids {
    /// By this command.
    pub(crate) fn of(script: &str) -> Self {
        Self { script: Some(script.to_owned()), stdout: Vec::new(), overflow: false }
    }
}

impl Course for Ids {
    fn next(&mut self) -> Option<Call> {
        self.script.take().map(Call::listing)
    }

    fn hear(&mut self, from: Source, bytes: &[u8], _: &mut Vec<Event>) {
        if from == Source::Stdout {
            self.overflow |= self.stdout.len() + bytes.len() > LISTING_BYTES_MAX;
            if !self.overflow {
                self.stdout.extend_from_slice(bytes);
            }
        }
    }

    fn ended(&mut self, end: &CallEnd<'_>, events: &mut Vec<Event>) -> Result<(), String> {
        if end.exit.code != 0 {
            return Err(format!("{}\n{}", describe(end.exit), last_lines(&end.text())));
        }
        if self.overflow {
            return Err(format!("it printed more than {LISTING_BYTES_MAX} bytes"));
        }
        let found = ids::ids_of_lines(&self.stdout).map_err(|refused| refused.to_string())?;
        events.extend(found.into_iter().map(|id| Event::Test { id }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::played::{Played, exit};

    #[test]
    fn standard_error_is_no_id() {
        let mut played = Played::new(Box::new(Ids::of("list")));
        assert_eq!(played.script(), "list");
        played.hear(Source::Stderr, b"warning: slow\n");
        played.hear(Source::Stdout, b"a b\nc");
        played.end(&exit(0), b"").unwrap();
        assert_eq!(played.tests(), ["a b", "c"]);
    }

    #[test]
    fn a_list_of_a_command_that_failed_is_none() {
        let mut played = Played::new(Box::new(Ids::of("list")));
        played.call();
        played.hear(Source::Stdout, b"a\n");
        let reason = played.end(&exit(3), b"a\nno such table\n").unwrap_err();
        assert!(reason.contains("exit code 3") && reason.contains("no such table"), "{reason}");
        assert_eq!(played.tests(), Vec::<String>::new());
    }
}
