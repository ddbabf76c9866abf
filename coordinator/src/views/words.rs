//! The words for what is stored as enumerations; the same as the command line's `--json`.

use andon_core::model::{LeaseKind, Outcome, RunEnd, RunState, Trigger, Verdict};

pub(crate) const fn state(state: RunState) -> &'static str {
    match state {
        RunState::Queued => "queued",
        RunState::Preparing => "preparing",
        RunState::Discovering => "discovering",
        RunState::Running => "running",
        RunState::Ended(RunEnd::Passed) => "passed",
        RunState::Ended(RunEnd::Failed) => "failed",
        RunState::Ended(RunEnd::NoTests) => "no_tests",
        RunState::Ended(RunEnd::ConfigError) => "config_error",
        RunState::Ended(RunEnd::BaselineFailed) => "baseline_failed",
        RunState::Ended(RunEnd::Incomplete) => "incomplete",
    }
}

/// What a test's verdict can be called.
pub(super) const VERDICTS: [(&str, Option<Verdict>); 9] = [
    ("open", None),
    ("passed", Some(Verdict::Passed)),
    ("failed", Some(Verdict::Failed)),
    ("flaky", Some(Verdict::Flaky)),
    ("timed_out", Some(Verdict::TimedOut)),
    ("skipped", Some(Verdict::Skipped)),
    ("infrastructure", Some(Verdict::Infrastructure)),
    ("not_run", Some(Verdict::NotRun)),
    ("quarantined", Some(Verdict::Quarantined)),
];

pub(super) fn verdict(verdict: Option<Verdict>) -> &'static str {
    VERDICTS.iter().find(|(_, of)| *of == verdict).map_or("open", |(word, _)| word)
}

pub(super) const fn outcome(outcome: Option<Outcome>) -> &'static str {
    match outcome {
        None => "open",
        Some(Outcome::Passed) => "passed",
        Some(Outcome::Failed) => "failed",
        Some(Outcome::Skipped) => "skipped",
        Some(Outcome::TimedOut) => "timed_out",
        Some(Outcome::Infrastructure) => "infrastructure",
        Some(Outcome::Cancelled) => "cancelled",
    }
}

pub(super) const fn trigger(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::Push => "push",
        Trigger::Person => "person",
        Trigger::Rerun => "rerun",
        Trigger::Scheduled => "scheduled",
    }
}

pub(super) const fn work(kind: &LeaseKind) -> &'static str {
    match kind {
        LeaseKind::Baseline => "baseline",
        LeaseKind::Discover(_) => "discover",
        LeaseKind::Unit => "unit",
    }
}

/// A verdict that was given.
pub(crate) fn verdict_word(given: Verdict) -> &'static str {
    verdict(Some(given))
}

/// How an attempt ended.
pub(crate) const fn outcome_word(ended: Outcome) -> &'static str {
    outcome(Some(ended))
}
