//! From the times that are stored of a run and of its attempts to phases: the one place that says what lies where.
//!
//! A run's times are the coordinator's, an attempt's start is its worker's, whose clock may be wrong by years. So an attempt is moved
//! into its run where it lies outside, with what it took; and nothing of it lies before the run or after it.

use super::Phase;

/// The phase of a run in which its attempts lie.
pub const TESTS: &str = "tests";

/// When a run was asked for, when something of it was first leased, and when it ended: UTC in milliseconds, 0 for not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "said above")]
pub struct RunTimes {
    pub created_unix_ms: u64,
    pub started_unix_ms: u64,
    pub ended_unix_ms: u64,
}

/// What an attempt took, as it is stored: `started_unix_ms` is the test's start by its worker's clock; of what was prepared before,
/// the last `start_ms` were the runner's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "said above")]
pub struct AttemptTimes {
    pub started_unix_ms: u64,
    pub prepare_ms: u64,
    pub start_ms: u64,
    pub rebase_us: u64,
    pub run_ms: u64,
    pub report_us: u64,
}

impl RunTimes {
    /// What happened to the run as a whole, as far as it is known: each phase until the next one began or the run ended.
    /// `first_unix_us` is when its first attempt began.
    #[must_use]
    pub fn phases(self, first_unix_us: Option<u64>) -> Vec<Phase<'static>> {
        let micros = |ms: u64| (ms > 0).then(|| ms.saturating_mul(1_000));
        let [created, started, ended] =
            [self.created_unix_ms, self.started_unix_ms, self.ended_unix_ms].map(micros);
        let all = [
            ("queue", created, started.or(ended)),
            ("baseline and discovery", started, first_unix_us.or(ended)),
            (TESTS, first_unix_us, ended),
        ];
        let known = |(name, from, to): (&'static str, Option<u64>, Option<u64>)| {
            Some(Phase { name, from_unix_us: from?, to_unix_us: to? })
        };
        all.into_iter().filter_map(known).collect()
    }

    /// The rebase, then what else came before the test, the start of its runner, the test, and its report.
    #[must_use]
    pub fn attempt(self, took: AttemptTimes) -> Vec<Phase<'static>> {
        let AttemptTimes { started_unix_ms, prepare_ms, start_ms, rebase_us, run_ms, report_us } = took;
        let micros = |ms: u64| ms.saturating_mul(1_000);
        let created = micros(self.created_unix_ms);
        let ended = if self.ended_unix_ms == 0 { u64::MAX } else { micros(self.ended_unix_ms).max(created) };
        let latest = ended.saturating_sub(micros(run_ms)).saturating_sub(report_us).max(created);
        let started = micros(started_unix_ms).clamp(created, latest);
        let commanded = started.saturating_sub(micros(start_ms.min(prepare_ms)));
        let rebased = started.saturating_sub(micros(prepare_ms));
        let tested = started.saturating_add(micros(run_ms));
        // A lane may have been put back before anybody asked for the run.
        let all = [
            ("rebase", rebased.saturating_sub(rebase_us), rebased),
            ("prepare", rebased, commanded),
            ("start", commanded, started),
            ("test", started, tested),
            ("report", tested, tested.saturating_add(report_us)),
        ];
        let within = |(name, from, to): (&'static str, u64, u64)| Phase {
            name,
            from_unix_us: from.clamp(created, ended),
            to_unix_us: to.clamp(created, ended),
        };
        let took_time = |phase: &Phase<'_>| phase.to_unix_us > phase.from_unix_us || phase.name == "test";
        all.into_iter().map(within).filter(took_time).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(phases: &[Phase<'static>]) -> Vec<(&'static str, u64, u64)> {
        phases.iter().map(|phase| (phase.name, phase.from_unix_us, phase.to_unix_us)).collect()
    }

    const RUN: RunTimes = RunTimes { created_unix_ms: 10, started_unix_ms: 12, ended_unix_ms: 40 };

    #[test]
    fn each_phase_lasts_until_the_next_one_or_the_end() {
        assert_eq!(
            told(&RUN.phases(Some(20_000))),
            [("queue", 10_000, 12_000), ("baseline and discovery", 12_000, 20_000), (TESTS, 20_000, 40_000)]
        );
        let no_baseline = told(&RUN.phases(None));
        assert_eq!(no_baseline, [("queue", 10_000, 12_000), ("baseline and discovery", 12_000, 40_000)]);
        let never_leased = RunTimes { started_unix_ms: 0, ..RUN };
        assert_eq!(told(&never_leased.phases(None)), [("queue", 10_000, 40_000)]);
        let still_runs = RunTimes { ended_unix_ms: 0, ..RUN };
        assert_eq!(told(&still_runs.phases(Some(20_000))).len(), 2);
    }

    #[test]
    fn an_attempt_keeps_its_times_where_clocks_agree_and_what_it_took_where_they_do_not() {
        let took = |phases: &[Phase<'static>]| -> Vec<(&'static str, u64)> {
            phases.iter().map(|phase| (phase.name, phase.to_unix_us - phase.from_unix_us)).collect()
        };
        let times = AttemptTimes {
            started_unix_ms: 30,
            prepare_ms: 5,
            start_ms: 3,
            rebase_us: 1_500,
            run_ms: 4,
            report_us: 700,
        };
        let right = RUN.attempt(times);
        assert_eq!(
            told(&right),
            [
                ("rebase", 23_500, 25_000),
                ("prepare", 25_000, 27_000),
                ("start", 27_000, 30_000),
                ("test", 30_000, 34_000),
                ("report", 34_000, 34_700)
            ]
        );
        let of_1970 = AttemptTimes { started_unix_ms: 1, run_ms: 4, ..AttemptTimes::default() };
        assert_eq!(told(&RUN.attempt(of_1970)), [("test", 10_000, 14_000)]);
        let ahead = RUN.attempt(AttemptTimes { started_unix_ms: 9_000, ..times });
        assert_eq!((took(&ahead), ahead[4].to_unix_us), (took(&right), 40_000));
    }

    proptest! {
        #[test]
        fn whatever_is_told_of_an_attempt_lies_in_its_run_in_order(
            took in any::<[u64; 6]>(), created in any::<u64>(), ended in any::<u64>(),
        ) {
            let times = RunTimes { created_unix_ms: created, started_unix_ms: created, ended_unix_ms: ended };
            let [started_unix_ms, prepare_ms, start_ms, rebase_us, run_ms, report_us] = took;
            let took = AttemptTimes { started_unix_ms, prepare_ms, start_ms, rebase_us, run_ms, report_us };
            let phases = times.attempt(took);
            let mut at = created.saturating_mul(1_000);
            for phase in &phases {
                prop_assert!(at <= phase.from_unix_us && phase.from_unix_us <= phase.to_unix_us);
                at = phase.to_unix_us;
            }
            let end = if ended == 0 { u64::MAX } else { ended.max(created).saturating_mul(1_000) };
            prop_assert!(at <= end);
        }
    }
}
