//! What a forge is told of a suite at a commit; and what a run amounts to for that. Pure.
//!
//! A context is stable: `andon/<suite>`, whatever run it is about, so that branch protection can name it.

use andon_figures::owners;
use andon_proto as wire;
use serde::{Deserialize, Serialize};

/// The most annotations of a status.
pub const ANNOTATIONS_MAX: usize = 50;
/// The longest message of an annotation.
const MESSAGE_LEN_MAX: usize = 4 * 1024;
/// Failures that a summary names.
const NAMED_MAX: usize = 20;
/// The most tests' worth of name that is shown.
const NAME_LEN_MAX: usize = 200;

/// How far a suite is, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Asked for.
    Pending,
    /// Tests run.
    Running,
    /// All passed.
    Success,
    /// Tests failed.
    Failure,
    /// No verdict: infrastructure, cancelled, superseded, a mistake in the configuration.
    Error,
}

impl State {
    /// Whether nothing more comes of this run.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Error)
    }
}

/// A failure with its place in the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// Beneath the repository's root.
    pub path: String,
    /// From 1.
    pub line: u32,
    /// The test.
    pub test: String,
    /// Its message.
    pub message: String,
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Full id.
    pub commit: String,
    /// `andon/<suite>`.
    pub context: String,
    /// How far.
    pub state: State,
    /// One line.
    pub description: String,
    /// The run's page, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_url: Option<String>,
    /// Failures whose place is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<Annotation>,
    /// Names of tests that failed, a few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
}

impl Status {
    /// The description in at most so many characters.
    pub(super) fn described(&self, max: usize) -> String {
        cut(&self.description, max)
    }

    /// A few lines of Markdown. Names of tests stand in code, with backticks taken out: they are hostile.
    pub(super) fn summary(&self) -> String {
        let mut text = self.description.clone();
        for test in &self.failed {
            text.push_str(&format!("\n- `{}`", test.replace('`', "'")));
        }
        text
    }
}

/// The text in at most so many characters, on one line.
pub(crate) fn cut(text: &str, max: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= max {
        return line;
    }
    let mut head: String = line.chars().take(max.saturating_sub(1)).collect();
    head.push('…');
    head
}

/// The context of a suite.
pub fn context(suite: &str) -> String {
    format!("andon/{suite}")
}

/// What a run says of its suites: those that are named, in that order, then others that its tests are of.
pub fn of_run(run: &wire::Run, suites: &[String], target_url: Option<&str>) -> Vec<Status> {
    let mut names: Vec<&str> = suites.iter().map(String::as_str).collect();
    for test in &run.tests {
        if !names.contains(&test.suite.as_str()) {
            names.push(&test.suite);
        }
    }
    names.into_iter().filter_map(|suite| of_suite(run, suite, target_url)).collect()
}

#[derive(Default)]
struct Tally {
    total: usize,
    open: usize,
    passed: usize,
    failed: usize,
    flaky: usize,
    quarantined: usize,
    skipped: usize,
    unsure: usize,
}

impl Tally {
    fn count(&mut self, verdict: wire::Verdict) {
        self.total += 1;
        match verdict {
            wire::Verdict::Unspecified => self.open += 1,
            wire::Verdict::Passed => self.passed += 1,
            wire::Verdict::Failed | wire::Verdict::TimedOut => self.failed += 1,
            wire::Verdict::Flaky => self.flaky += 1,
            wire::Verdict::Skipped => self.skipped += 1,
            wire::Verdict::Quarantined => self.quarantined += 1,
            wire::Verdict::Infrastructure | wire::Verdict::NotRun => self.unsure += 1,
        }
    }

    fn words(&self) -> String {
        let parts = [
            (self.passed, "passed"),
            (self.failed, "failed"),
            (self.quarantined, "quarantined"),
            (self.flaky, "flaky"),
            (self.skipped, "skipped"),
            (self.unsure, "without a verdict"),
        ];
        let said =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
        said.collect::<Vec<_>>().join(", ")
    }
}

/// `None` for a suite that a rerun has no test of: what was said of it stands.
fn of_suite(run: &wire::Run, suite: &str, target_url: Option<&str>) -> Option<Status> {
    let mut tally = Tally::default();
    let tests = || run.tests.iter().filter(|test| test.suite == suite);
    tests().for_each(|test| tally.count(test.verdict()));
    if run.rerun_of != 0 && tally.total == 0 {
        return None;
    }
    let (state, description) = judged(run, &tally);
    let failed =
        || tests().filter(|test| matches!(test.verdict(), wire::Verdict::Failed | wire::Verdict::TimedOut));
    Some(Status {
        commit: run.commit.clone(),
        context: context(suite),
        state,
        description,
        target_url: target_url.map(|url| url.replace("{run}", &run.run.to_string())),
        annotations: failed().filter_map(annotation).take(ANNOTATIONS_MAX).collect(),
        failed: failed().take(NAMED_MAX).map(|test| cut(&test.id, NAME_LEN_MAX)).collect(),
    })
}

fn judged(run: &wire::Run, tally: &Tally) -> (State, String) {
    let words = tally.words();
    let error = |what: &str| {
        let reason = if run.reason.is_empty() { what.to_owned() } else { format!("{what}: {}", run.reason) };
        (State::Error, reason)
    };
    let rerun = if run.rerun_of == 0 { String::new() } else { format!("rerun of run {}: ", run.rerun_of) };
    match run.state() {
        wire::RunState::Unspecified | wire::RunState::Queued => (State::Pending, format!("{rerun}queued")),
        wire::RunState::Preparing => (State::Pending, format!("{rerun}preparing the baseline")),
        wire::RunState::Discovering => (State::Pending, format!("{rerun}looking for tests")),
        wire::RunState::Running => {
            let done = tally.total - tally.open;
            let more = if words.is_empty() { String::new() } else { format!(": {words}") };
            (State::Running, format!("{rerun}{done} of {}{more}", tally.total))
        }
        wire::RunState::ConfigError => error("mistakes in the configuration"),
        wire::RunState::BaselineFailed => error("the baseline could not be built"),
        wire::RunState::NoTests => error("no tests"),
        wire::RunState::Incomplete if superseded_by(&run.reason).is_some() => {
            let by = superseded_by(&run.reason).unwrap_or_default();
            (State::Error, format!("cancelled, superseded by {}", by.get(..12).unwrap_or(by)))
        }
        // A suite may be done when the run is not.
        _ if tally.failed > 0 => (State::Failure, format!("{rerun}{words}")),
        wire::RunState::Incomplete if tally.open + tally.unsure > 0 || tally.total == 0 => {
            let (state, reason) = error("incomplete");
            (state, if words.is_empty() { reason } else { format!("{reason} ({words})") })
        }
        _ if tally.unsure > 0 => error("infrastructure"),
        _ if words.is_empty() => (State::Success, format!("{rerun}no tests")),
        _ => (State::Success, format!("{rerun}{words}")),
    }
}

/// The commit of the run that took this one's place.
pub fn superseded_by(reason: &str) -> Option<&str> {
    let (_, commit) = reason.strip_prefix("superseded by run ")?.split_once(" of commit ")?;
    Some(commit.trim())
}

/// Where a failure is, if its message says so of the file that the test is in: `tests/test_a.py::test_b` with
/// `tests/test_a.py:12: AssertionError`.
fn annotation(test: &wire::Test) -> Option<Annotation> {
    let path = owners::file_of(&test.id)?;
    let attempt = test.attempts.iter().rev().find(|attempt| !attempt.message.is_empty())?;
    let after = attempt.message.rmatch_indices(path).find_map(|(at, _)| {
        let rest = attempt.message[at + path.len()..].strip_prefix(':')?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok().filter(|line| *line > 0)
    });
    let message = &attempt.message[..attempt.message.floor_char_boundary(MESSAGE_LEN_MAX)];
    Some(Annotation {
        path: path.to_owned(),
        line: after?,
        test: cut(&test.id, NAME_LEN_MAX),
        message: message.to_owned(),
    })
}

#[cfg(test)]
mod tests;
