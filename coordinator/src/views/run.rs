//! One run: what it amounts to, its failures first, its lanes over time.

use std::collections::BTreeMap;

use andon_core::ids::{AttemptId, RunId, TestIx};
use andon_core::model::{Outcome, Verdict};
use andon_figures::Sketch;

use super::{
    DriverRebases, FAILURES_MAX, Failure, LaneLoad, NOTES_MAX, NoteLine, Page, Phases, Run, RunLine,
    SPANS_MAX, Span, SuiteCounts, SuiteEntered, TestLine, TestOfRun, TestsAsk, Timeline, TimelineLane,
    ViewError, Views, lines, page_size, words,
};
use crate::owning::RunOwners;
use crate::rpc::log_text;
use crate::store::ledger::{EnteredRun, FROM_THE_NEWEST, LaneSums, RunsOf, Spent, TestFilter};
use crate::store::{AttemptRow, RunRow, TestRow};

/// Lines of a failed attempt's output that are shown,
const EXCERPT_LINES: usize = 30;
/// and of each so many characters.
const EXCERPT_CHARS: usize = 500;
/// Suites of which it is told what was spent on them.
const SPENT_SUITES_MAX: usize = 50;
/// Runs of the same commit that are told.
const SAME_COMMIT_MAX: u32 = 20;
/// Tests whose verdict needs a look that are counted.
const BAD_MAX: u32 = 10_000;
/// Runs that a beginning of a commit is looked for among, per project.
const COMMITS_MAX: u32 = 50;
/// Fewer digits of a commit say nothing.
const COMMIT_DIGITS_MIN: usize = 7;

const BAD: [Verdict; 5] =
    [Verdict::Failed, Verdict::TimedOut, Verdict::Infrastructure, Verdict::Quarantined, Verdict::Flaky];

/// What an attempt, or the run itself, printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    /// As it was written: neither escaped nor necessarily UTF-8.
    pub(crate) text: Vec<u8>,
    /// 0 for the run's own log.
    pub(crate) attempt: u64,
}

impl Views {
    async fn row(&self, run: u64) -> Result<RunRow, ViewError> {
        let row = if run <= FROM_THE_NEWEST.0 { self.store.run(RunId(run)).await? } else { None };
        row.ok_or_else(|| ViewError::NotFound(format!("there is no run {run}")))
    }

    async fn test_row(&self, run: u64, test: u32) -> Result<(RunRow, TestRow), ViewError> {
        let row = self.row(run).await?;
        let missing = match row.forgotten {
            true => format!("the tests of run {run} were deleted: it ended too long ago"),
            false => format!("run {run} has no test {test}"),
        };
        let test = self.store.test(RunId(run), TestIx(test)).await?;
        Ok((row, test.ok_or(ViewError::NotFound(missing))?))
    }

    /// One run.
    pub(crate) async fn run(&self, run: u64) -> Result<Run, ViewError> {
        let row = self.row(run).await?;
        let id = row.run;
        let lanes = self.store.lanes_of(id).await?;
        let suites = self.suites(&row).await?;
        let rebased = self.store.rebases_of(id, SPANS_MAX).await?;
        let owners = self.owning.of(&row.header.spec_digest).await;
        let (failures, failures_left_out) = self.failures(id, &owners).await?;
        let mut notes = self.store.notes(id).await?;
        notes.drain(..notes.len().saturating_sub(NOTES_MAX));
        let of_commit = RunsOf::Commit(row.header.project.clone(), row.header.commit.clone());
        let mut same_commit = self.store.runs_of(&of_commit, FROM_THE_NEWEST, SAME_COMMIT_MAX).await?;
        same_commit.retain(|other| other.run != id);
        let spec_digest = row.header.spec_digest.clone();
        Ok(Run {
            phases: phases(&row, &lanes),
            now_unix_ms: self.now_unix_ms(),
            spec_digest,
            suites,
            lanes: lanes.iter().map(load).collect(),
            rebases: rebases(rebased),
            failures,
            failures_left_out,
            notes: notes
                .into_iter()
                .map(|note| NoteLine { at_unix_ms: note.at_ms, text: note.text })
                .collect(),
            same_commit: same_commit.into_iter().map(lines::run).collect(),
            line: lines::run(row),
        })
    }

    /// A run's suites, each with what was spent on it once the ledger knows.
    async fn suites(&self, row: &RunRow) -> Result<Vec<SuiteCounts>, ViewError> {
        let (project, after) = (&row.header.project, RunId(row.run.0.saturating_add(1)));
        let mut suites = Vec::new();
        for (at, (suite, counts)) in self.store.suites_of(row.run).await?.into_iter().enumerate() {
            let entered = if at < SPENT_SUITES_MAX {
                self.store.entered(project, &suite, None, after, 1).await?
            } else {
                Vec::new()
            };
            let entered = entered.first().filter(|entered| entered.run == row.run).map(suite_entered);
            suites.push(SuiteCounts { suite, total: counts.total(), counts, entered });
        }
        Ok(suites)
    }

    /// The first tests that need a look, each with why, and how many more there are.
    async fn failures(&self, run: RunId, owners: &RunOwners) -> Result<(Vec<Failure>, u32), ViewError> {
        let (mut failures, mut left_out) = (Vec::new(), 0);
        for verdict in BAD {
            let room = FAILURES_MAX - u32::try_from(failures.len()).unwrap_or(FAILURES_MAX);
            let verdicts = vec![Some(verdict)];
            let tests = if room > 0 {
                let filter = TestFilter { verdicts: verdicts.clone(), limit: room, ..TestFilter::default() };
                self.store.tests_of(run, &filter).await?
            } else {
                Vec::new()
            };
            let is_full = u32::try_from(tests.len()).is_ok_and(|found| found == room);
            for test in tests {
                failures.push(self.failure(run, test, owners).await?);
            }
            if is_full {
                left_out += self.count(run, verdict).await?.saturating_sub(room);
            }
        }
        Ok((failures, left_out))
    }

    async fn count(&self, run: RunId, verdict: Verdict) -> Result<u32, ViewError> {
        let counts = self.store.run(run).await?.map(|row| row.counts).unwrap_or_default();
        let count = match verdict {
            Verdict::Failed => counts.failed,
            Verdict::TimedOut => counts.timed_out,
            Verdict::Infrastructure => counts.infrastructure,
            Verdict::Flaky => counts.flaky,
            Verdict::Quarantined => counts.quarantined,
            _ => 0,
        };
        Ok(count.min(BAD_MAX))
    }

    async fn failure(&self, run: RunId, test: TestRow, owners: &RunOwners) -> Result<Failure, ViewError> {
        let quarantine = owners.quarantine_of(&test.suite, &test.id);
        let line = lines::test(&test, owners.of_test(&test.id), quarantine);
        let class = lines::class(test.verdict);
        let is_bad = |attempt: &&AttemptRow| {
            matches!(attempt.outcome, Some(Outcome::Failed | Outcome::TimedOut | Outcome::Infrastructure))
        };
        let Some(last) = test.attempts.iter().rev().find(is_bad) else {
            let (message, excerpt) = (String::new(), Vec::new());
            return Ok(Failure { test: line, class, message, excerpt, attempt: None });
        };
        let text = self.printed(run, last).await?;
        Ok(Failure {
            test: line,
            class,
            message: last.message.clone(),
            excerpt: excerpt(&text),
            attempt: Some(last.attempt.0),
        })
    }

    async fn printed(&self, run: RunId, attempt: &AttemptRow) -> Result<Vec<u8>, ViewError> {
        let output = self.store.output(run, attempt.attempt).await?;
        Ok(log_text::of_attempt(output, attempt.outcome == Some(Outcome::Infrastructure)))
    }

    /// A run's tests, a page at a time.
    pub(crate) async fn tests(&self, run: u64, ask: &TestsAsk) -> Result<Page<TestLine>, ViewError> {
        let row = self.row(run).await?;
        let id = row.run;
        let verdicts = match ask.verdict.as_deref() {
            None | Some("") => Vec::new(),
            Some(word) => {
                let known = words::VERDICTS.iter().find(|(known, _)| *known == word);
                let (_, verdict) = known.ok_or_else(|| {
                    let all: Vec<&str> = words::VERDICTS.iter().map(|(word, _)| *word).collect();
                    ViewError::BadAsk(format!("{word:?} is no verdict: {}", all.join(", ")))
                })?;
                vec![*verdict]
            }
        };
        let limit = page_size(ask.limit);
        let suite = ask.suite.clone().filter(|suite| !suite.is_empty());
        let filter = TestFilter { verdicts, suite, after: ask.after.map(TestIx), limit };
        let rows = self.store.tests_of(id, &filter).await?;
        let is_full = rows.len() == limit as usize;
        let next = rows.last().filter(|_| is_full).map(|last| u64::from(last.test.0));
        let owners = self.owning.of(&row.header.spec_digest).await;
        let of_rows = owners.of_tests(rows.iter().map(|row| row.id.as_str()));
        let items = rows.iter().zip(of_rows).map(|(row, of)| {
            let quarantine = owners.quarantine_of(&row.suite, &row.id);
            lines::test(row, of, quarantine)
        });
        Ok(Page { items: items.collect(), next })
    }

    /// What each lane of a run did when.
    pub(crate) async fn timeline(&self, run: u64) -> Result<Timeline, ViewError> {
        let row = self.row(run).await?;
        let attempts = self.store.attempts_of(row.run, SPANS_MAX + 1).await?;
        let known: u64 = self.store.lanes_of(row.run).await?.iter().map(|lane| lane.attempts).sum();
        let known = known + u64::from(row.counts.running);
        let mut lanes: BTreeMap<(String, u32), Vec<Span>> = BTreeMap::new();
        let (mut shown, mut to_unix_ms) = (0, row.ended_ms.max(row.started_ms));
        for (test, suite, id, attempt) in attempts.into_iter().take(SPANS_MAX as usize) {
            shown += 1;
            to_unix_ms = to_unix_ms.max(attempt.started_ms.saturating_add(attempt.run_ms));
            lanes.entry((attempt.worker.0.clone(), attempt.lane.0)).or_default().push(Span {
                test: test.0,
                suite,
                id,
                attempt: attempt.attempt.0,
                outcome: words::outcome(attempt.outcome),
                started_unix_ms: attempt.started_ms,
                prepare_ms: attempt.prepare_ms,
                start_ms: attempt.start_ms,
                rebase_us: attempt.rebase_us,
                run_ms: attempt.run_ms,
                report_us: attempt.report_us,
            });
        }
        let lanes = lanes.into_iter().map(|((worker, lane), mut spans)| {
            spans.sort_by_key(|span| (span.started_unix_ms, span.attempt));
            TimelineLane { worker, lane, spans }
        });
        let from_unix_ms = if row.started_ms > 0 { row.started_ms } else { row.created_ms };
        Ok(Timeline {
            run,
            from_unix_ms,
            to_unix_ms: to_unix_ms.max(from_unix_ms),
            lanes: lanes.collect(),
            left_out: known.saturating_sub(shown),
        })
    }

    /// One test in one run.
    pub(crate) async fn test_of_run(&self, run: u64, test: u32) -> Result<TestOfRun, ViewError> {
        let (row, test) = self.test_row(run, test).await?;
        let owners = self.owning.of(&row.header.spec_digest).await;
        let quarantine = owners.quarantine_of(&test.suite, &test.id);
        let line = lines::test(&test, owners.of_test(&test.id), quarantine);
        let all_attempts = test.attempts.into_iter().map(lines::attempt).collect();
        Ok(TestOfRun { run: lines::run(row), test: line, all_attempts })
    }

    /// What an attempt printed, the last one where none is named; without a test, the run's own log.
    pub(crate) async fn log(
        &self,
        run: u64,
        test: Option<u32>,
        attempt: Option<u64>,
    ) -> Result<Log, ViewError> {
        let Some(test) = test else {
            let id = self.row(run).await?.run;
            return Ok(Log { text: log_text::of_run(self.store.notes(id).await?, 0), attempt: 0 });
        };
        let (row, test) = self.test_row(run, test).await?;
        let named = |known: &&AttemptRow| attempt.is_none_or(|wanted| known.attempt == AttemptId(wanted));
        let missing = || ViewError::NotFound(format!("run {run} has no such attempt of this test"));
        let found = test.attempts.iter().rev().find(named).ok_or_else(missing)?;
        Ok(Log { text: self.printed(row.run, found).await?, attempt: found.attempt.0 })
    }

    /// Runs of commits that begin so, newest first.
    pub(crate) async fn commit(&self, prefix: &str) -> Result<Vec<RunLine>, ViewError> {
        let is_hex = prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
        if prefix.len() < COMMIT_DIGITS_MIN || !is_hex {
            let text = format!("{COMMIT_DIGITS_MIN} or more hexadecimal digits of a commit are asked for");
            return Err(ViewError::BadAsk(text));
        }
        let prefix = prefix.to_ascii_lowercase();
        let mut rows = Vec::new();
        for project in self.store.projects().await? {
            rows.extend(
                self.store
                    .runs_of(&RunsOf::CommitsFrom(project, prefix.clone()), FROM_THE_NEWEST, COMMITS_MAX)
                    .await?,
            );
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.run));
        rows.truncate(COMMITS_MAX as usize);
        Ok(rows.into_iter().map(lines::run).collect())
    }
}

fn load(lane: &LaneSums) -> LaneLoad {
    LaneLoad {
        worker: lane.worker.0.clone(),
        lane: lane.lane.0,
        attempts: lane.attempts,
        busy_ms: lane.spent.lane_ms(),
    }
}

fn suite_entered(run: &EnteredRun) -> SuiteEntered {
    let pace = || lines::hundredths(run.tests as f64 * 60_000.0 / run.lane_ms as f64);
    SuiteEntered {
        lane_ms: run.lane_ms,
        spent: run.spent,
        lanes: run.lanes,
        tests_per_lane_minute: (run.lane_ms > 0).then(pace),
        attempts: run.attempts,
        retries: run.retries(),
        dirtied_bytes: run.dirtied_bytes,
    }
}

fn phases(row: &RunRow, lanes: &[LaneSums]) -> Phases {
    let some = |ms: u64| (ms > 0).then_some(ms);
    let first = lanes.iter().filter_map(|lane| some(lane.first_started_ms)).min();
    let between = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?));
    let sum = |of: fn(&LaneSums) -> u64| lanes.iter().map(of).sum();
    let mut spent = Spent::default();
    lanes.iter().for_each(|lane| spent.merge(&lane.spent));
    Phases {
        queue_ms: between(some(row.created_ms), some(row.started_ms)),
        set_up_ms: between(some(row.started_ms), first),
        baseline_ms: between(some(row.started_ms), some(row.based_ms)),
        discovery_ms: between(some(row.based_ms), first),
        testing_ms: between(first, some(row.ended_ms)),
        attempts: sum(|lane| lane.attempts),
        attempts_queue_ms: spent.queue_ms,
        attempts_prepare_ms: spent.set_up_ms + spent.start_ms,
        attempts_rebase_us: spent.rebase_us,
        attempts_run_ms: spent.test_ms,
        dirtied_bytes: sum(|lane| lane.dirtied_bytes),
        spent,
    }
}

fn rebases(of: Vec<(String, u64)>) -> Vec<DriverRebases> {
    let mut drivers: BTreeMap<String, Sketch> = BTreeMap::new();
    for (driver, us) in of {
        drivers.entry(driver).or_default().add(us);
    }
    let told = |(driver, sketch)| DriverRebases { driver, rebase_us: lines::spread(&sketch) };
    drivers.into_iter().map(told).collect()
}

/// The last lines, each cut.
fn excerpt(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let mut last: Vec<String> = text
        .lines()
        .rev()
        .skip_while(|line| line.trim().is_empty())
        .take(EXCERPT_LINES)
        .map(|line| line.chars().take(EXCERPT_CHARS).collect())
        .collect();
    last.reverse();
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_the_last_lines_that_say_something_and_bounded() {
        assert_eq!(excerpt(b""), Vec::<String>::new());
        assert_eq!(excerpt(b"one\n\ntwo\n\n \n"), ["one", "", "two"]);
        let long = format!("{}\n", "x".repeat(1 << 20)).repeat(3);
        assert_eq!(excerpt(long.as_bytes()).iter().map(String::len).collect::<Vec<_>>(), [EXCERPT_CHARS; 3]);
        let many: String = (0..1_000).map(|line| format!("{line}\n")).collect();
        assert_eq!(excerpt(many.as_bytes()).len(), EXCERPT_LINES);
        assert_eq!(excerpt(b"\xff\n"), ["\u{fffd}"]);
    }
}
