//! From what ended to what is reported: the unit's own facts on its first test, output compressed.

use std::time::{Duration, Instant};

use andon_proto::{Outcome, TestResult};
use tokio::sync::mpsc;

use super::cell::SharedOutput;
use super::live::Live;
use super::progress::Ended;
use super::rebases::Rebases;
use super::{UnitNews, Witness};
use crate::hands::{WorkFailure, compress_log};

/// What is true of a unit before its first test.
#[derive(Debug, Clone)]
pub struct UnitFacts {
    /// When the work arrived.
    pub arrived: Instant,
    /// How long a rebase took that was done after the work had arrived; it is no part of the preparation.
    pub rebased_within: Duration,
    /// The rebase that made the lane pristine, and those that follow within the unit.
    pub rebases: Rebases,
}

/// Sends results as they come.
#[derive(Debug)]
pub struct Reporter {
    news: mpsc::Sender<UnitNews>,
    facts: UnitFacts,
    /// What earlier commands of the unit printed, in bytes, and what the last one prints.
    printed: (u64, Option<SharedOutput>),
    /// The runner's command was started,
    commanded: Option<Instant>,
    /// and then its first test.
    first_started: Option<Instant>,
    first_sent: bool,
}

impl Reporter {
    /// For one unit.
    #[must_use]
    pub fn new(news: mpsc::Sender<UnitNews>, facts: UnitFacts) -> Self {
        Self { news, facts, printed: (0, None), commanded: None, first_started: None, first_sent: false }
    }

    /// A command of the unit starts: what it prints is sent for as long as the answer lives.
    pub(crate) fn follow(&mut self, output: &SharedOutput) -> Live {
        self.commanded.get_or_insert_with(Instant::now);
        let (before, last) = &mut self.printed;
        *before += last.replace(output.clone()).map_or(0, |last| last.printed());
        Live::of(output.clone(), *before, self.news.clone())
    }

    /// What was rebased within the unit.
    pub(crate) fn rebases(&self) -> Rebases {
        self.facts.rebases.clone()
    }

    /// A test started.
    pub fn started(&mut self) {
        self.first_started.get_or_insert_with(Instant::now);
    }

    /// Sends a result, unless the farm turns out to be at fault.
    pub async fn ended(&mut self, ended: Ended, witness: &dyn Witness) -> Result<(), WorkFailure> {
        let told = Instant::now();
        let failed = matches!(ended.outcome, Outcome::Failed | Outcome::TimedOut);
        if failed {
            witness.check().await?;
        }
        self.facts.rebases.note(ended.attempt, failed);
        let first = !std::mem::replace(&mut self.first_sent, true);
        let (prepared, starting) = if first { self.before_the_first(told) } else { Default::default() };
        let (rebase_us, driver) = self.facts.rebases.carried_by(ended.attempt);
        let result = TestResult {
            attempt: ended.attempt,
            outcome: ended.outcome.into(),
            prepare_ms: millis(prepared),
            start_ms: millis(starting),
            rebase_us,
            run_ms: ended.run_ms,
            message: ended.message,
            log_zstd: compress_log(&ended.log),
            started_unix_ms: ended.started_unix_ms,
            driver,
            report_us: 0,
        };
        // Nobody takes results any more: the link has let go of the lease, and will cancel.
        let Ok(place) = self.news.reserve().await else { return Ok(()) };
        place.send(UnitNews::Result(TestResult { report_us: micros(told.elapsed()), ..result }));
        Ok(())
    }

    /// What came before the unit's first test without the rebase, and what of it was the runner's start.
    fn before_the_first(&self, told: Instant) -> (Duration, Duration) {
        let started = self.first_started.unwrap_or(told);
        let prepared = started.duration_since(self.facts.arrived).saturating_sub(self.facts.rebased_within);
        let starting = self.commanded.map_or(Duration::ZERO, |at| started.saturating_duration_since(at));
        (prepared, starting.min(prepared))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;

    struct Says(Result<(), WorkFailure>);

    #[async_trait]
    impl Witness for Says {
        async fn check(&self) -> Result<(), WorkFailure> {
            self.0.clone()
        }
    }

    fn ended(attempt: u64, outcome: Outcome) -> Ended {
        Ended { attempt, outcome, run_ms: 1, message: String::new(), log: Vec::new(), started_unix_ms: 7 }
    }

    fn reporter() -> (Reporter, mpsc::Receiver<UnitNews>) {
        let (sender, receiver) = mpsc::channel(8);
        let arrived = Instant::now();
        let rebases = Rebases::after(Duration::from_micros(42), "restart");
        let facts = UnitFacts { arrived, rebased_within: Duration::ZERO, rebases };
        (Reporter::new(sender, facts), receiver)
    }

    async fn next(results: &mut mpsc::Receiver<UnitNews>) -> Option<TestResult> {
        match results.recv().await? {
            UnitNews::Result(result) => Some(result),
            other => panic!("only results are told: {other:?}"),
        }
    }

    #[tokio::test]
    async fn only_the_first_test_of_a_unit_carries_the_rebase() {
        let (mut reporter, mut results) = reporter();
        for attempt in [1, 2] {
            reporter.ended(ended(attempt, Outcome::Passed), &Says(Ok(()))).await.unwrap();
        }
        assert_eq!(next(&mut results).await.unwrap().rebase_us, 42);
        assert_eq!(next(&mut results).await.unwrap().rebase_us, 0);
    }

    #[tokio::test]
    async fn the_runners_start_is_a_part_of_what_was_prepared_for_the_first_test() {
        let (mut reporter, mut results) = reporter();
        let ago =
            |ms| Instant::now().checked_sub(Duration::from_millis(ms)).expect("the machine runs for longer");
        reporter.facts.arrived = ago(50);
        reporter.commanded = Some(ago(30));
        let _live = reporter.follow(&SharedOutput::new());
        for attempt in [1, 2] {
            reporter.started();
            reporter.ended(ended(attempt, Outcome::Passed), &Says(Ok(()))).await.unwrap();
        }
        let (first, second) = (next(&mut results).await.unwrap(), next(&mut results).await.unwrap());
        assert!(first.start_ms >= 30 && first.prepare_ms >= first.start_ms + 20, "{first:?}");
        assert_eq!((second.prepare_ms, second.start_ms), (0, 0));
        assert!(first.report_us > 0 && second.report_us > 0);
    }

    #[tokio::test]
    async fn a_failure_that_is_the_farms_is_never_sent() {
        let (mut reporter, mut results) = reporter();
        let farm = Says(Err(WorkFailure::infrastructure("service `db` ran out of memory")));
        reporter.ended(ended(1, Outcome::Passed), &farm).await.unwrap();
        reporter.ended(ended(2, Outcome::Failed), &farm).await.unwrap_err();
        reporter.ended(ended(3, Outcome::TimedOut), &farm).await.unwrap_err();
        drop(reporter);
        assert_eq!(next(&mut results).await.unwrap().attempt, 1);
        assert_eq!(next(&mut results).await, None);
    }
}
