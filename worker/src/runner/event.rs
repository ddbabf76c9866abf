//! What Andon's own files in test runners say, line by line. See `ci/runners/andon_pytest.py`.
//!
//! Pure. The lines come from a process that runs the project's code: whatever does not parse is no event.

use serde::{Deserialize, Serialize};

use super::preset::LineCutter;

/// Longest event line, in bytes; a longer one is dropped.
pub(crate) const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One line.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "e", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// Discovery found a test.
    Test {
        /// Its id.
        id: String,
    },
    /// Discovery found a test that cannot be named.
    Refused {
        /// As Python shows it.
        id: String,
        /// Why not.
        why: String,
    },
    /// A file or folder could not be collected.
    CollectError {
        /// Which.
        id: String,
        /// First lines.
        message: String,
        /// All of it.
        log: String,
    },
    /// Collection is over.
    Collected {
        /// What was asked for and is not there.
        missing: Vec<String>,
    },
    /// A test starts.
    Start {
        /// Its id.
        id: String,
    },
    /// A test ended.
    Result {
        /// Its id.
        id: String,
        /// How.
        outcome: EventOutcome,
        /// How long it took; counted from its start where the runner does not say.
        #[serde(default)]
        ms: Option<f64>,
        /// First lines of a failure, or why it was skipped.
        message: String,
        /// Failure and captured output.
        log: String,
    },
    /// A test is over its limit and still runs.
    Timeout {
        /// Its id.
        id: String,
        /// Stacks and output so far.
        log: String,
    },
    /// The session is over.
    End,
}

/// How a test ended, as pytest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EventOutcome {
    /// Also an expected failure that did not happen, where that is not strict.
    Passed,
    /// In its setup, its call or its teardown.
    Failed,
    /// Also an expected failure.
    Skipped,
}

/// What the pytest plugin is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Job<'a> {
    /// `discover` or `run`; a process that waits is told none.
    pub mode: &'static str,
    /// Where events go, as the container sees it.
    pub events: String,
    /// What to run.
    pub tests: Vec<&'a str>,
    /// The number of each test's attempt, for its environment.
    pub attempts: Vec<u64>,
    /// Of one test; 0 for none.
    pub timeout_ms: u64,
    /// Ask for a rebase before each test but the first.
    pub rebase: bool,
    /// Put into the environment before any of the project's code runs.
    pub env: std::collections::BTreeMap<&'a str, &'a str>,
}

/// Events from chunks of bytes, a line each.
#[derive(Debug, Default)]
pub(crate) struct Lines(LineCutter);

impl Lines {
    /// Takes a chunk and answers with the events that it completed.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        self.0.push(chunk, |line| events.extend(serde_json::from_slice(line).ok()));
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_over_any_chunking() {
        let text = concat!(
            "{\"e\": \"start\", \"id\": \"a::b\"}\n",
            "not json\n",
            "{\"e\": \"result\", \"id\": \"a::b\", \"outcome\": \"failed\", \"ms\": 1.5, \"message\": \"m\", \"log\": \"\\u00e9\"}\n",
            "{\"e\": \"unknown\"}\n{\"e\": \"end\"}\n{\"e\": \"end\"",
        );
        for size in [1, 7, 1000] {
            let mut lines = Lines::default();
            let events: Vec<Event> =
                text.as_bytes().chunks(size).flat_map(|chunk| lines.push(chunk)).collect();
            assert_eq!(events.len(), 3, "chunks of {size}");
            assert_eq!(events[0], Event::Start { id: "a::b".into() });
            assert!(
                matches!(&events[1], Event::Result { outcome: EventOutcome::Failed, log, .. } if log == "é")
            );
            assert_eq!(events[2], Event::End);
        }
    }

    #[test]
    fn an_endless_line_costs_no_memory_and_the_next_one_is_read() {
        let mut lines = Lines::default();
        for _ in 0..2000 {
            assert_eq!(lines.push(&[b'x'; 8192]), Vec::new());
            assert!(lines.0.held() <= LINE_BYTES_MAX);
        }
        assert_eq!(lines.push(b"\n{\"e\": \"end\"}\n"), vec![Event::End]);
    }
}
