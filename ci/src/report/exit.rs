//! The exit code of the command is a function of the run alone.
//!
//! Invariants: 100 is given only where a test really failed; what the farm did wrong is 106 and never 100; 0 only
//! where every test that was asked for has passed, was skipped by itself, or passed on a retry.

use andon_proto::{Counts, Run, RunState};

/// How the command ends. The numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Every test passed, was flaky or was skipped.
    Passed,
    /// What was compared is not the same.
    Differs,
    /// The command line, or something that it names, does not exist.
    Usage,
    /// Nothing was found to run.
    NoTests,
    /// `andon.toml`, the compose file or the discovery is at fault.
    Config,
    /// At least one test failed or timed out.
    TestsFailed,
    /// The baseline could not be built.
    Baseline,
    /// Nothing failed, and not everything was decided: the farm's fault, cancelled, or the cord.
    Incomplete,
    /// The person stopped following; the run goes on.
    Interrupted,
    /// Whoever read the output went away.
    BrokenPipe,
    /// A command that was run for the person ended so.
    Command(u8),
}

impl Exit {
    /// The process's exit code.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Differs => 1,
            Self::Usage => 2,
            Self::NoTests => 4,
            Self::Config => 16,
            Self::TestsFailed => 100,
            Self::Baseline => 105,
            Self::Incomplete => 106,
            Self::Interrupted => 130,
            Self::BrokenPipe => 141,
            Self::Command(code) => code,
        }
    }
}

/// Whether the run has come to its end.
pub(crate) fn is_over(state: RunState) -> bool {
    match state {
        RunState::Unspecified
        | RunState::Queued
        | RunState::Preparing
        | RunState::Discovering
        | RunState::Running => false,
        RunState::Passed
        | RunState::Failed
        | RunState::NoTests
        | RunState::ConfigError
        | RunState::BaselineFailed
        | RunState::Incomplete => true,
    }
}

/// The exit code of a run, `None` while it is not over.
pub(crate) fn of_run(run: &Run) -> Option<Exit> {
    let state = run.state();
    let counts = run.counts.unwrap_or_default();
    if !is_over(state) {
        return None;
    }
    Some(match state {
        RunState::NoTests => Exit::NoTests,
        RunState::ConfigError => Exit::Config,
        RunState::BaselineFailed => Exit::Baseline,
        // The counts decide, not the state: a run that the farm could not finish still has failures worth a 100,
        // and one that only the farm failed never has.
        _ if counts.failed + counts.timed_out > 0 => Exit::TestsFailed,
        // Who repeated tests on purpose is told of each that did not always pass.
        RunState::Failed if counts.flaky > 0 && undecided(&counts) == 0 => Exit::TestsFailed,
        RunState::Passed if undecided(&counts) == 0 => {
            if counts.total == 0 {
                Exit::NoTests
            } else {
                Exit::Passed
            }
        }
        _ => Exit::Incomplete,
    })
}

/// Tests that were asked for and have no verdict of their own.
pub(crate) fn undecided(counts: &Counts) -> u32 {
    counts.infrastructure + counts.not_run + counts.open
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(state: RunState, counts: Counts) -> Run {
        Run { state: state.into(), counts: Some(counts), ..Run::default() }
    }

    fn counts(passed: u32, failed: u32, timed_out: u32, infrastructure: u32, not_run: u32) -> Counts {
        let total = passed + failed + timed_out + infrastructure + not_run;
        Counts { total, passed, failed, timed_out, infrastructure, not_run, ..Counts::default() }
    }

    #[test]
    fn every_end_has_its_code() {
        let flaky = Counts { total: 2, passed: 1, flaky: 1, ..Counts::default() };
        let skipped = Counts { total: 2, skipped: 2, ..Counts::default() };
        let open = Counts { total: 2, passed: 1, open: 1, ..Counts::default() };
        let table = [
            (RunState::Passed, counts(3, 0, 0, 0, 0), Some(0)),
            (RunState::Passed, flaky, Some(0)),
            (RunState::Failed, flaky, Some(100)),
            (RunState::Failed, Counts { infrastructure: 1, ..flaky }, Some(106)),
            (RunState::Passed, skipped, Some(0)),
            (RunState::Passed, Counts::default(), Some(4)),
            (RunState::NoTests, Counts::default(), Some(4)),
            (RunState::ConfigError, Counts::default(), Some(16)),
            (RunState::Failed, counts(3, 1, 0, 0, 0), Some(100)),
            (RunState::Failed, counts(3, 0, 1, 0, 0), Some(100)),
            (RunState::BaselineFailed, counts(0, 0, 0, 0, 9), Some(105)),
            (RunState::Incomplete, counts(3, 0, 0, 0, 2), Some(106)),
            (RunState::Incomplete, counts(3, 0, 0, 2, 0), Some(106)),
            (RunState::Incomplete, Counts::default(), Some(106)),
            // Tests failed for real before the run was stopped, or beside the farm's own failures.
            (RunState::Incomplete, counts(3, 1, 0, 2, 5), Some(100)),
            (RunState::Failed, counts(3, 1, 0, 2, 0), Some(100)),
            (RunState::Passed, Counts { total: 2, passed: 1, quarantined: 1, ..Counts::default() }, Some(0)),
            // Infrastructure is never 100 and never 0, whatever the state says.
            (RunState::Failed, counts(3, 0, 0, 1, 0), Some(106)),
            (RunState::Passed, counts(3, 0, 0, 1, 0), Some(106)),
            (RunState::Passed, counts(3, 0, 0, 0, 1), Some(106)),
            (RunState::Passed, open, Some(106)),
            (RunState::Queued, Counts::default(), None),
            (RunState::Preparing, Counts::default(), None),
            (RunState::Discovering, Counts::default(), None),
            (RunState::Running, counts(3, 1, 0, 0, 0), None),
            (RunState::Unspecified, Counts::default(), None),
        ];
        for (state, counts, code) in table {
            assert_eq!(of_run(&run(state, counts)).map(Exit::code), code, "{state:?} {counts:?}");
        }
    }

    #[test]
    fn infrastructure_alone_is_never_a_test_failure() {
        for state in [RunState::Passed, RunState::Failed, RunState::Incomplete, RunState::BaselineFailed] {
            for infrastructure in 1..4 {
                let exit = of_run(&run(state, counts(5, 0, 0, infrastructure, 0)));
                assert_ne!(exit, Some(Exit::TestsFailed));
                assert_ne!(exit, Some(Exit::Passed));
            }
        }
    }
}
