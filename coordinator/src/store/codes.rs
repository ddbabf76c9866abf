//! Enumerations as the small numbers that databases keep. A number never changes its meaning; new ones are added.

use andon_core::model::{LeaseKind, Outcome, RunEnd, RunState, Trigger, Verdict};

use andon_figures::flow::End;

use super::{Result, StoreError};

macro_rules! codes {
    ($to:ident, $from:ident, $type:ty, $what:literal, { $($value:pat => $variant:expr, $code:literal;)* }) => {
        pub(super) fn $to(value: $type) -> i64 {
            match value { $($value => $code,)* }
        }

        pub(super) fn $from(code: i64) -> Result<$type> {
            match code {
                $($code => Ok($variant),)*
                value => Err(StoreError::Unknown { what: $what, value }),
            }
        }
    };
}

codes!(from_state, to_state, RunState, "run state", {
    RunState::Queued => RunState::Queued, 1;
    RunState::Preparing => RunState::Preparing, 2;
    RunState::Discovering => RunState::Discovering, 3;
    RunState::Running => RunState::Running, 4;
    RunState::Ended(RunEnd::Passed) => RunState::Ended(RunEnd::Passed), 5;
    RunState::Ended(RunEnd::Failed) => RunState::Ended(RunEnd::Failed), 6;
    RunState::Ended(RunEnd::NoTests) => RunState::Ended(RunEnd::NoTests), 7;
    RunState::Ended(RunEnd::ConfigError) => RunState::Ended(RunEnd::ConfigError), 8;
    RunState::Ended(RunEnd::BaselineFailed) => RunState::Ended(RunEnd::BaselineFailed), 9;
    RunState::Ended(RunEnd::Incomplete) => RunState::Ended(RunEnd::Incomplete), 10;
});

/// States below this one are active.
pub(super) const FIRST_ENDED_STATE: i64 = 5;

codes!(from_outcome, to_outcome, Outcome, "outcome", {
    Outcome::Passed => Outcome::Passed, 1;
    Outcome::Failed => Outcome::Failed, 2;
    Outcome::Skipped => Outcome::Skipped, 3;
    Outcome::TimedOut => Outcome::TimedOut, 4;
    Outcome::Infrastructure => Outcome::Infrastructure, 5;
    Outcome::Cancelled => Outcome::Cancelled, 6;
});

codes!(from_verdict, to_verdict, Verdict, "verdict", {
    Verdict::Passed => Verdict::Passed, 1;
    Verdict::Failed => Verdict::Failed, 2;
    Verdict::Flaky => Verdict::Flaky, 3;
    Verdict::TimedOut => Verdict::TimedOut, 4;
    Verdict::Skipped => Verdict::Skipped, 5;
    Verdict::Infrastructure => Verdict::Infrastructure, 6;
    Verdict::NotRun => Verdict::NotRun, 7;
    Verdict::Quarantined => Verdict::Quarantined, 8;
});

codes!(from_trigger, to_trigger, Trigger, "trigger", {
    Trigger::Push => Trigger::Push, 1;
    Trigger::Person => Trigger::Person, 2;
    Trigger::Rerun => Trigger::Rerun, 3;
    Trigger::Scheduled => Trigger::Scheduled, 4;
});

codes!(from_ending, to_ending, End, "ending", {
    End::Green => End::Green, 1;
    End::Red => End::Red, 2;
    End::Superseded => End::Superseded, 3;
    End::Cancelled => End::Cancelled, 4;
    End::Infrastructure => End::Infrastructure, 5;
});

/// 0 stands for "not yet".
pub(super) fn to_option<T>(code: i64, known: fn(i64) -> Result<T>) -> Result<Option<T>> {
    if code == 0 { Ok(None) } else { known(code).map(Some) }
}

pub(super) fn from_lease_kind(kind: &LeaseKind) -> (i64, &str) {
    match kind {
        LeaseKind::Baseline => (1, ""),
        LeaseKind::Discover(suite) => (2, suite),
        LeaseKind::Unit => (3, ""),
    }
}

pub(super) fn to_lease_kind(code: i64, suite: String) -> Result<LeaseKind> {
    match code {
        1 => Ok(LeaseKind::Baseline),
        2 => Ok(LeaseKind::Discover(suite)),
        3 => Ok(LeaseKind::Unit),
        value => Err(StoreError::Unknown { what: "kind of lease", value }),
    }
}
