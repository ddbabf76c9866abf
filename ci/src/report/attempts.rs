//! Which of a test's attempts tells what.

use andon_proto::{Attempt, Outcome, Test};

/// The last attempt that counts; where none does, the last. An attempt that was cancelled because another was quicker says
/// nothing of the test.
pub(crate) fn last(test: &Test) -> Option<&Attempt> {
    let counts = |attempt: &&Attempt| attempt.outcome() != Outcome::Cancelled;
    test.attempts.iter().rfind(counts).or(test.attempts.last())
}

/// The last attempt that says something: of a flaky test the one that failed, not the one that passed.
pub(crate) fn speaking(test: &Test) -> Option<&Attempt> {
    let speaks = |attempt: &&Attempt| !attempt.message.is_empty() && attempt.outcome() != Outcome::Cancelled;
    test.attempts.iter().rfind(speaks)
}

/// How many failed or timed out.
pub(crate) fn failed(test: &Test) -> usize {
    let failed = |attempt: &&Attempt| matches!(attempt.outcome(), Outcome::Failed | Outcome::TimedOut);
    test.attempts.iter().filter(failed).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_attempt_tells_nothing() {
        let attempt = |number, outcome: Outcome, message: &str| Attempt {
            attempt: number,
            outcome: outcome.into(),
            message: message.into(),
            ..Attempt::default()
        };
        let attempts = vec![
            attempt(1, Outcome::Failed, "why"),
            attempt(2, Outcome::Passed, ""),
            attempt(3, Outcome::Cancelled, "another attempt of this test was quicker"),
        ];
        let test = Test { attempts, ..Test::default() };
        assert_eq!((last(&test).unwrap().attempt, speaking(&test).unwrap().attempt), (2, 1));
        let only = Test { attempts: test.attempts[2..].to_vec(), ..Test::default() };
        assert_eq!((last(&only).unwrap().attempt, speaking(&only)), (3, None));
    }
}
