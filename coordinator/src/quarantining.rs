//! Which tests of a run may fail without blocking: the quarantines of its specification, held against what is known of the tests. The
//! rule itself is [`andon_figures::quarantine`]; here are the history that it is given, and the words for what it said.
//!
//! It is asked before a test runs: *if every try that it has left fails, does that block?* The core is then told with the test, so that a
//! verdict still follows from attempts alone. A test that was never seen to flake would be broken by that, and blocks.
//!
//! Bounded: [`TESTS_MAX`] tests of a run are looked up, each over [`RUNS_MAX`] runs; a test beyond is not excused.

use std::collections::BTreeMap;

use andon_core::model::{Candidate, Plan};
use andon_core::quarantine::Quarantine as Rule;
use andon_figures::Outcome;
use andon_figures::flake::{self, Attempt, Standing};
use andon_figures::quarantine::{Block, Quarantine, QuarantineError, Verdict, Weight, weigh};

use crate::store::ledger::{FROM_THE_NEWEST, PastTest};
use crate::store::{Store, StoreError};
use crate::views::judged_attempts;

/// Tests in quarantine that are looked up for one run at a time.
const TESTS_MAX: usize = 500;
/// Runs of each that are looked at, the latest.
const RUNS_MAX: u32 = 100;
/// Tests that one note names.
const NAMED_MAX: usize = 5;

/// On what the tests are about to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ground<'a> {
    pub(crate) project: &'a str,
    pub(crate) commit: &'a str,
    /// Empty while it is not known.
    pub(crate) baseline: &'a str,
    pub(crate) now_unix_ms: u64,
}

/// Why a test in quarantine blocks all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Blocked {
    Ended,
    TooLong,
    Broken,
    Steady,
    TooMany,
}

/// Marks the tests whose failure blocks nothing, and says in words what a person should know of the others in quarantine.
///
/// # Errors
/// Where the store fails.
pub(crate) async fn excuse<'a>(
    store: &dyn Store,
    plan: &Plan,
    ground: Ground<'_>,
    tests: Vec<(&'a str, &'a mut Candidate)>,
) -> Result<Vec<String>, StoreError> {
    // Who repeats tests wants to know of each failure.
    if plan.quarantine.is_empty() || plan.asked.trial || plan.asked.repeat.is_wanted() {
        return Ok(Vec::new());
    }
    let (mut excused, mut looked_up) = (0_usize, 0_usize);
    let mut blocked: BTreeMap<Blocked, Vec<String>> = BTreeMap::new();
    for (suite, test) in tests {
        let Some(rule) = Rule::of(&plan.quarantine, suite, &test.id) else { continue };
        looked_up += 1;
        let verdict = if looked_up > TESTS_MAX {
            Err(Blocked::TooMany)
        } else {
            let past = store.past(ground.project, suite, &test.id, FROM_THE_NEWEST, RUNS_MAX).await?;
            let retries = plan.suites.iter().find(|of| of.name == suite).map_or(0, |of| of.retries);
            judge(rule, &past, ground, retries)
        };
        match verdict {
            Ok(()) => {
                test.excused = true;
                excused += 1;
            }
            Err(why) => {
                let owner = &rule.owner;
                blocked.entry(why).or_default().push(format!("{suite}/{} ({owner})", test.id));
            }
        }
    }
    let mut notes = Vec::new();
    if excused > 0 {
        notes.push(format!("quarantine: a failure of {} blocks nothing", counted(excused)));
    }
    notes.extend(blocked.iter().map(|(why, tests)| told(*why, tests)));
    Ok(notes)
}

fn judge(rule: &Rule, past: &[PastTest], ground: Ground<'_>, retries: u32) -> Result<(), Blocked> {
    let now = ground.now_unix_ms;
    // What has ended began at some time before.
    let since = now.min(rule.until_unix_ms.saturating_sub(1));
    let held = Quarantine::new(&rule.owner, since, rule.until_unix_ms).map_err(|error| match error {
        QuarantineError::TooLong { .. } => Blocked::TooLong,
        QuarantineError::Owner | QuarantineError::Ended => Blocked::Ended,
    })?;
    let mut attempts = judged_attempts(past);
    let was_broken = matches!(flake::judge(&attempts).standing, Standing::Broken { .. });
    let failed = Attempt {
        commit: ground.commit,
        baseline: ground.baseline,
        started_unix_ms: now,
        outcome: Outcome::Failed,
    };
    attempts.extend(std::iter::repeat_n(failed, retries as usize + 1));
    match weigh(Verdict::Failed, Some(&held), &flake::judge(&attempts), now) {
        Weight::Reports { .. } => Ok(()),
        Weight::Blocks(Block::Broken { .. }) if was_broken => Err(Blocked::Broken),
        Weight::Blocks(Block::Broken { .. }) => Err(Blocked::Steady),
        Weight::Blocks(Block::Ended { .. } | Block::NotQuarantined) | Weight::Fine | Weight::Undecided => {
            Err(Blocked::Ended)
        }
    }
}

fn counted(tests: usize) -> String {
    if tests == 1 { "1 test".to_owned() } else { format!("{tests} tests") }
}

fn told(why: Blocked, tests: &[String]) -> String {
    let why = match why {
        Blocked::Ended => "the quarantine has ended, a failure blocks again",
        Blocked::TooLong => "the quarantine ends too far ahead and is none",
        Blocked::Broken => "in quarantine, but broken: it fails always, and that blocks",
        Blocked::Steady => "in quarantine, but not known to be flaky: a failure blocks",
        Blocked::TooMany => "more tests are in quarantine than are looked up: a failure blocks",
    };
    let more = tests.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("quarantine: {why}: {}{more}", tests[..tests.len().min(NAMED_MAX)].join(", "))
}

#[cfg(test)]
mod tests {
    use andon_core::asked::{Asked, Pattern, Repeat};
    use andon_core::ids::{AttemptId, Fence, LaneIx, Lease, RunId, TestIx, WorkId, WorkerId};
    use andon_core::model::{
        Ended, Grain, LeaseKind, Outcome as Ran, Policy, Record, RunEnd, RunHeader, RunState, SuitePlan,
        Verdict as Given,
    };

    use super::*;
    use crate::owning::RunOwners;
    use crate::store::memory::Memory;
    use crate::views::entering::amount;

    const NOW: u64 = 1_800_000_000_000;
    const DAY: u64 = 86_400_000;

    /// Runs of one test, `a.py::x`, on a commit each, entered; each with the outcomes of its attempts.
    async fn past(runs: &[&[Ran]]) -> Memory {
        let store = Memory::default();
        for (at, outcomes) in (1..).zip(runs) {
            let run = RunId(at);
            let header =
                RunHeader { project: "shop".into(), commit: format!("c{at}"), ..RunHeader::default() };
            let lease = Lease { run, work: WorkId(1), fence: Fence(at) };
            let attempts =
                (1..).zip(*outcomes).map(|(number, _)| (AttemptId(number), TestIx(0), 0)).collect();
            let mut records = vec![
                Record::RunCreated { run, header, at_unix_ms: at },
                Record::TestsAdded { run, suite: "it".into(), tests: vec![(TestIx(0), "a.py::x".into())] },
                Record::Leased {
                    lease,
                    kind: LeaseKind::Unit,
                    worker: WorkerId("w".into()),
                    lane: LaneIx(0),
                    attempts,
                },
            ];
            for (number, outcome) in (1..).zip(*outcomes) {
                let ended =
                    Ended { started_unix_ms: at * 10 + number, ..Ended::without_report(*outcome, "") };
                records.push(Record::AttemptEnded { run, attempt: AttemptId(number), ended, at_unix_ms: at });
            }
            let verdict = if outcomes.contains(&Ran::Passed) { Given::Passed } else { Given::Failed };
            records.push(Record::VerdictGiven { run, test: TestIx(0), verdict, run_ms: Some(1) });
            let state = RunState::Ended(RunEnd::Passed);
            records.push(Record::RunMoved { run, state, reason: String::new(), at_unix_ms: at });
            store.apply(&records).await.expect("the records are taken");
            let row = store.run(run).await.expect("it is read").expect("it is there");
            let entry = amount(&store, &row, &RunOwners::silent()).await.expect("its tests are read");
            crate::store::ledger::Ledger::enter(&store, &entry).await.expect("it is entered");
        }
        store
    }

    fn plan(until_unix_ms: u64) -> Plan {
        Plan {
            suites: vec![SuitePlan { name: "it".into(), retries: 1, grain: Grain::Test }],
            policy: Policy::default(),
            baseline_group: None,
            merge_key: None,
            asked: Asked::default(),
            quarantine: vec![Rule {
                suite: None,
                tests: Pattern::Exact("a.py::x".into()),
                owner: "@shop".into(),
                until_unix_ms,
                reason: String::new(),
            }],
        }
    }

    async fn asked(runs: &[&[Ran]], plan: &Plan) -> (bool, String) {
        let store = past(runs).await;
        let mut test = crate::restore::candidate("a.py::x".into(), None);
        let mut other = crate::restore::candidate("a.py::y".into(), None);
        let ground = Ground { project: "shop", commit: "new", baseline: "", now_unix_ms: NOW };
        let tests = vec![("it", &mut test), ("it", &mut other)];
        let notes = excuse(&store, plan, ground, tests).await.expect("the store answers");
        assert!(!other.excused, "it is in no quarantine");
        (test.excused, notes.join("\n"))
    }

    const FLAKY: [&[Ran]; 4] = [&[Ran::Passed], &[Ran::Failed, Ran::Passed], &[Ran::Passed], &[Ran::Passed]];

    #[tokio::test]
    async fn a_flaky_test_is_excused_until_its_quarantine_ends() {
        let (is_excused, said) = asked(&FLAKY, &plan(NOW + DAY)).await;
        assert!(is_excused);
        assert_eq!(said, "quarantine: a failure of 1 test blocks nothing");
        let (is_excused, said) = asked(&FLAKY, &plan(NOW)).await;
        assert!(!is_excused);
        assert!(said.contains("has ended, a failure blocks again: it/a.py::x (@shop)"), "{said}");
        let (is_excused, said) = asked(&FLAKY, &plan(NOW + 91 * DAY)).await;
        assert!(!is_excused && said.contains("too far ahead"), "{said}");
    }

    #[tokio::test]
    async fn a_broken_test_is_never_hidden_and_neither_is_one_that_was_never_flaky() {
        let failed: &[Ran] = &[Ran::Failed, Ran::Failed];
        let broken = [&FLAKY[..], &[failed; 3]].concat();
        let (is_excused, said) = asked(&broken, &plan(NOW + DAY)).await;
        assert!(!is_excused && said.contains("broken: it fails always"), "{said}");
        for steady in [&[&[Ran::Passed] as &[Ran]; 5] as &[&[Ran]], &[]] {
            let (is_excused, said) = asked(steady, &plan(NOW + DAY)).await;
            assert!(!is_excused && said.contains("not known to be flaky"), "{said}");
        }
    }

    #[tokio::test]
    async fn who_repeats_a_test_wants_to_know_of_each_failure() {
        let repeat = Repeat { times: 5, until_fail: false };
        let plan = Plan { asked: Asked { repeat, ..Asked::default() }, ..plan(NOW + DAY) };
        assert_eq!(asked(&FLAKY, &plan).await, (false, String::new()));
    }
}
