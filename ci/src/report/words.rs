//! The words that every rendering shares: states, verdicts, outcomes; how numbers are said is in `andon_figures::words`.
//!
//! The lowercase words are part of the `--json` interface.

pub(crate) use andon_figures::words::{
    ago, bytes, day, micros, millis, plural, seconds, short, spent, tally, thousands,
};
use andon_proto::{Counts, Outcome, RunState, Trigger, Verdict};

/// A run's state, as `--json` writes it.
pub(crate) const fn state(state: RunState) -> &'static str {
    match state {
        RunState::Unspecified => "unknown",
        RunState::Queued => "queued",
        RunState::Preparing => "preparing",
        RunState::Discovering => "discovering",
        RunState::Running => "running",
        RunState::Passed => "passed",
        RunState::Failed => "failed",
        RunState::NoTests => "no_tests",
        RunState::ConfigError => "config_error",
        RunState::BaselineFailed => "baseline_failed",
        RunState::Incomplete => "incomplete",
    }
}

/// A run's state, as a person reads it.
pub(crate) fn state_said(of: RunState) -> String {
    state(of).replace('_', " ")
}

/// A verdict, as `--json` writes it.
pub(crate) const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unspecified => "open",
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::Flaky => "flaky",
        Verdict::TimedOut => "timed_out",
        Verdict::Skipped => "skipped",
        Verdict::Infrastructure => "infrastructure",
        Verdict::NotRun => "not_run",
        Verdict::Quarantined => "quarantined",
    }
}

/// An attempt's outcome, as `--json` writes it.
pub(crate) const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Unspecified => "open",
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::Skipped => "skipped",
        Outcome::TimedOut => "timed_out",
        Outcome::Infrastructure => "infrastructure",
        Outcome::Cancelled => "cancelled",
    }
}

/// What asked for a run, as `--json` writes it.
pub(crate) const fn trigger(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::Unspecified => "unknown",
        Trigger::Push => "push",
        Trigger::Person => "person",
        Trigger::Rerun => "rerun",
        Trigger::Scheduled => "scheduled",
    }
}

/// A verdict that a person has to look at.
pub(crate) const fn is_bad(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Failed | Verdict::TimedOut | Verdict::Infrastructure)
}

/// `1,203 passed, 2 failed, 1 flaky`: what is not zero.
pub(crate) fn counts(counts: &Counts) -> String {
    let named = [
        (counts.passed, "passed"),
        (counts.failed, "failed"),
        (counts.timed_out, "timed out"),
        (counts.quarantined, "quarantined"),
        (counts.flaky, "flaky"),
        (counts.skipped, "skipped"),
        (counts.infrastructure, "infrastructure"),
        (counts.not_run, "not run"),
        (counts.open, "open"),
    ];
    tally(&named.map(|(count, name)| (u64::from(count), name)), "no tests")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_name_only_what_there_is() {
        assert_eq!(counts(&Counts::default()), "no tests");
        let some = Counts { total: 1204, passed: 1203, failed: 1, ..Counts::default() };
        assert_eq!(counts(&some), "1,203 passed, 1 failed");
    }
}
