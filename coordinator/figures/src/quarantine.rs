//! Whether a failure blocks. A quarantined test runs and reports, and does not block, under three conditions that nobody can leave out:
//! somebody owns the quarantine, it ends at a time, and the test is flaky. One that fails always is broken, and blocks again.
//!
//! ```text
//!   verdict        quarantine   standing          →
//!   passed, skipped                               nothing to say
//!   flaky                                         reports: a retry passed
//!   failed         none                           blocks
//!   failed         ended                          blocks: its owner is to decide anew
//!   failed         runs         broken            blocks: it is not luck
//!   failed         runs         anything else     reports, with the owner and the end
//!   infrastructure, not run                       not decided: a quarantine is not about the farm
//! ```
//!
//! The standing is that of `flake.rs` with this run's attempts among those judged.

use crate::flake::{Judgement, Seen, Standing};

/// A quarantine ends after so long at most; whoever needs more decides again.
pub const DURATION_MAX_MS: u64 = 90 * 24 * 60 * 60 * 1_000;

/// No owner's name is longer, in bytes.
pub const OWNER_MAX: usize = 256;

/// Why a quarantine is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuarantineError {
    /// Nobody would look after it.
    #[error(
        "a quarantine needs an owner: a name, @user, @org/team or an address, of at most {OWNER_MAX} bytes"
    )]
    Owner,
    /// It would end before it begins.
    #[error("the quarantine ends before it begins")]
    Ended,
    /// It would be for ever.
    #[error("a quarantine of {days} days is longer than {} days", DURATION_MAX_MS / (24 * 60 * 60 * 1_000))]
    TooLong {
        /// What was asked for.
        days: u64,
    },
}

/// A test may fail without blocking, until a time, and somebody owns that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    owner: String,
    since_unix_ms: u64,
    until_unix_ms: u64,
}

impl Quarantine {
    /// Checks what was asked for.
    ///
    /// # Errors
    ///
    /// Without an owner, and where the end is not after the beginning or too long after it.
    pub fn new(owner: &str, since_unix_ms: u64, until_unix_ms: u64) -> Result<Self, QuarantineError> {
        let owner = owner.trim();
        if owner.is_empty() || owner.len() > OWNER_MAX || owner.contains(char::is_control) {
            return Err(QuarantineError::Owner);
        }
        let duration_ms = until_unix_ms.checked_sub(since_unix_ms).filter(|ms| *ms > 0);
        let duration_ms = duration_ms.ok_or(QuarantineError::Ended)?;
        if duration_ms > DURATION_MAX_MS {
            return Err(QuarantineError::TooLong { days: duration_ms.div_ceil(24 * 60 * 60 * 1_000) });
        }
        Ok(Self { owner: owner.to_owned(), since_unix_ms, until_unix_ms })
    }

    /// Who looks after it.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// From when on.
    #[must_use]
    pub fn since_unix_ms(&self) -> u64 {
        self.since_unix_ms
    }

    /// It has ended from then on.
    #[must_use]
    pub fn until_unix_ms(&self) -> u64 {
        self.until_unix_ms
    }

    /// It runs at this time.
    #[must_use]
    pub fn runs(&self, now_unix_ms: u64) -> bool {
        (self.since_unix_ms..self.until_unix_ms).contains(&now_unix_ms)
    }
}

/// What a test's attempts of one run amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Passed at once, or does not apply.
    Fine,
    /// Passed after it had failed.
    Flaky,
    /// Failed or timed out as often as it was tried.
    Failed,
    /// The farm could not run it, or the run was stopped before.
    Undecided,
}

/// Why a failure blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// The test is not in quarantine.
    NotQuarantined,
    /// Its quarantine has ended.
    Ended {
        /// Then.
        until_unix_ms: u64,
    },
    /// It is in quarantine as flaky, and fails always.
    Broken {
        /// From this commit on.
        since: Seen,
    },
}

/// What is made of a test's verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weight {
    /// Nothing to say.
    Fine,
    /// Shown, and blocks nothing.
    Reports {
        /// The quarantine that it is owed to; `None` where a retry passed.
        quarantine: Option<Quarantine>,
    },
    /// Counts against the run.
    Blocks(Block),
    /// Nothing is known.
    Undecided,
}

/// Decides. See the module's table.
#[must_use]
pub fn weigh(
    verdict: Verdict,
    quarantine: Option<&Quarantine>,
    judgement: &Judgement,
    now_unix_ms: u64,
) -> Weight {
    match verdict {
        Verdict::Fine => Weight::Fine,
        Verdict::Undecided => Weight::Undecided,
        Verdict::Flaky => {
            Weight::Reports { quarantine: quarantine.filter(|held| held.runs(now_unix_ms)).cloned() }
        }
        Verdict::Failed => failed(quarantine, &judgement.standing, now_unix_ms),
    }
}

fn failed(quarantine: Option<&Quarantine>, standing: &Standing, now_unix_ms: u64) -> Weight {
    match (quarantine, standing) {
        (None, _) => Weight::Blocks(Block::NotQuarantined),
        (Some(held), _) if now_unix_ms < held.since_unix_ms => Weight::Blocks(Block::NotQuarantined),
        (Some(held), _) if !held.runs(now_unix_ms) => {
            Weight::Blocks(Block::Ended { until_unix_ms: held.until_unix_ms })
        }
        (Some(_), Standing::Broken { since, .. }) => Weight::Blocks(Block::Broken { since: since.clone() }),
        (Some(held), _) => Weight::Reports { quarantine: Some(held.clone()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome::{Failed, Passed};
    use crate::flake::{Attempt, judge};

    const NOW: u64 = 1_000_000;

    fn quarantine() -> Quarantine {
        Quarantine::new("@shop/checkout", NOW - 10, NOW + 10).expect("an owner and an end")
    }

    /// Flaky for some commits; then these attempts on one more.
    fn judged(last: &[crate::Outcome]) -> Judgement {
        let mut attempts = Vec::new();
        for (at, commit) in (0..).zip(["a", "b", "c", "d"]) {
            let of = |late: u64, outcome| Attempt {
                commit,
                baseline: "k",
                started_unix_ms: at * 10 + late,
                outcome,
            };
            attempts.extend([of(0, Failed), of(1, Passed)]);
        }
        let of = |(at, outcome): (u64, crate::Outcome)| Attempt {
            commit: "z",
            baseline: "k",
            started_unix_ms: 100 + at,
            outcome,
        };
        attempts.extend((0..).zip(last.iter().copied()).map(of));
        judge(&attempts)
    }

    #[test]
    fn a_failure_blocks_unless_a_quarantine_runs() {
        let flaky = judged(&[Failed, Failed]);
        assert_eq!(weigh(Verdict::Failed, None, &flaky, NOW), Weight::Blocks(Block::NotQuarantined));
        let held = quarantine();
        assert_eq!(
            weigh(Verdict::Failed, Some(&held), &flaky, NOW),
            Weight::Reports { quarantine: Some(held.clone()) }
        );
        let ended = Weight::Blocks(Block::Ended { until_unix_ms: NOW + 10 });
        assert_eq!(weigh(Verdict::Failed, Some(&held), &flaky, NOW + 10), ended);
        let early = weigh(Verdict::Failed, Some(&held), &flaky, NOW - 11);
        assert_eq!(early, Weight::Blocks(Block::NotQuarantined));
    }

    #[test]
    fn a_broken_test_is_never_hidden() {
        let broken = judged(&[Failed; 30]);
        let Weight::Blocks(Block::Broken { since }) =
            weigh(Verdict::Failed, Some(&quarantine()), &broken, NOW)
        else {
            panic!("30 failures in a row are not luck: {broken:?}");
        };
        assert_eq!(since.commit, "z");
    }

    #[test]
    fn a_steady_test_cannot_hide_in_a_quarantine() {
        let of = |commit, outcome| Attempt { commit, baseline: "k", started_unix_ms: 1, outcome };
        let judgement = judge(&[of("a", Passed), of("b", Failed), of("b", Failed)]);
        let weight = weigh(Verdict::Failed, Some(&quarantine()), &judgement, NOW);
        assert!(matches!(weight, Weight::Blocks(Block::Broken { .. })), "{weight:?}");
    }

    #[test]
    fn what_did_not_fail_never_blocks() {
        let broken = judged(&[Failed; 30]);
        assert_eq!(weigh(Verdict::Fine, None, &broken, NOW), Weight::Fine);
        assert_eq!(weigh(Verdict::Undecided, Some(&quarantine()), &broken, NOW), Weight::Undecided);
        assert_eq!(weigh(Verdict::Flaky, None, &broken, NOW), Weight::Reports { quarantine: None });
    }

    #[test]
    fn a_quarantine_has_an_owner_and_an_end() {
        let of = |owner: &str, until| Quarantine::new(owner, NOW, until);
        assert_eq!(of("  ", NOW + 1), Err(QuarantineError::Owner));
        assert_eq!(of("a\nb", NOW + 1), Err(QuarantineError::Owner));
        assert_eq!(of(&"a".repeat(OWNER_MAX + 1), NOW + 1), Err(QuarantineError::Owner));
        assert_eq!(of("a", NOW), Err(QuarantineError::Ended));
        assert_eq!(of("a", 0), Err(QuarantineError::Ended));
        assert_eq!(of("a", NOW + DURATION_MAX_MS + 1), Err(QuarantineError::TooLong { days: 91 }));
        assert_eq!(of(" a ", NOW + DURATION_MAX_MS).map(|held| held.owner().to_owned()), Ok("a".to_owned()));
    }
}
