//! The ledger's part.

use andon_figures::flow::End;

use super::*;
use crate::owning::{Owning, RunOwners};
use crate::store::ledger::{
    DAY_MS, Entering, FROM_THE_NEWEST, Named, RunsOf, Spent, TestFilter, has_own_verdict, name_of,
};
use crate::store::owned::OwnedWhich;
use crate::views::entering;

/// Enters what waits for it; no specification is there, so that nobody owns anything.
async fn enter(store: &dyn Store) -> usize {
    entering::step(store, &Owning::silent(), |_| ()).await.unwrap()
}

const MAIN: &str = "refs/heads/main";

fn header_of(project: &str, commit: &str) -> RunHeader {
    RunHeader { project: project.into(), commit: commit.into(), dedup_key: None, ..header() }
}

/// What so many attempts of these tests took: see `ended`.
fn of_attempts(count: u64) -> Spent {
    Spent {
        queue_ms: 7 * count,
        set_up_ms: 4 * count,
        rebase_us: 2 * count,
        start_ms: 5 * count,
        test_ms: 3 * count,
        report_us: 6 * count,
    }
}

/// A run of two tests that has ended: the first passed, the second failed and then passed where `is_flaky`, else failed.
fn whole(run: u64, commit: &str, is_flaky: bool) -> Vec<Record> {
    let id = RunId(run);
    let lease = Lease { run: id, work: WorkId(1), fence: Fence(run * 10) };
    let attempts = [(1, 0), (2, 1), (3, 1)];
    let of_run = |record: Record| match record {
        Record::AttemptEnded { attempt, ended, at_unix_ms, .. } => {
            Record::AttemptEnded { run: id, attempt, ended, at_unix_ms }
        }
        other => other,
    };
    let verdict =
        |test, verdict| Record::VerdictGiven { run: id, test: TestIx(test), verdict, run_ms: Some(3) };
    let (last, second, state) = match is_flaky {
        true => (Outcome::Passed, Verdict::Flaky, RunEnd::Passed),
        false => (Outcome::Failed, Verdict::Failed, RunEnd::Failed),
    };
    vec![
        Record::RunCreated { run: id, header: header_of("shop", commit), at_unix_ms: run * 1_000 },
        Record::BaselinePinned { run: id, key: "k".into() },
        Record::TestsAdded {
            run: id,
            suite: "it".into(),
            tests: vec![(TestIx(0), "a.py::one".into()), (TestIx(1), "a.py::two".into())],
        },
        Record::Leased {
            lease,
            kind: LeaseKind::Unit,
            worker: WorkerId("w1".into()),
            lane: LaneIx(1),
            attempts: attempts.iter().map(|(at, test)| (AttemptId(*at), TestIx(*test), 7)).collect(),
        },
        of_run(ended(1, Outcome::Passed)),
        of_run(ended(2, Outcome::Failed)),
        of_run(ended(3, last)),
        verdict(0, Verdict::Passed),
        verdict(1, second),
        Record::LeaseClosed { fence: lease.fence },
        Record::RunMoved {
            run: id,
            state: RunState::Ended(state),
            reason: String::new(),
            at_unix_ms: run * 1_000 + 500,
        },
    ]
}

#[tokio::test]
async fn a_run_is_entered_once_and_its_figures_outlive_its_tests() {
    on_each(async |store| {
        store.apply(&whole(1, "c1", false)).await.unwrap();
        store.apply(&whole(2, "c1", true)).await.unwrap();
        assert_eq!(store.to_enter(10).await.unwrap(), [RunId(1), RunId(2)]);
        let row = store.run(RUN).await.unwrap().unwrap();
        let pushed_ms = store.pushed_ms("shop", "c1").await.unwrap();
        assert_eq!(pushed_ms, Some(1_000));
        let entry = entering::amount(store, &row, &RunOwners::silent()).await.unwrap();
        store.enter(&entry).await.unwrap();
        store.enter(&entry).await.unwrap();
        assert_eq!(store.to_enter(10).await.unwrap(), [RunId(2)]);
        assert_eq!(enter(store).await, 1);
        assert_eq!(enter(store).await, 0);

        let look = async || {
            let days = store.days("shop", 0, 10).await.unwrap();
            let of_suite = store.entered("shop", "it", Some(MAIN), FROM_THE_NEWEST, 10).await.unwrap();
            (days, of_suite, store.rebase_days("w1", 0, 10).await.unwrap())
        };
        let (days, of_suite, rebases) = look().await;
        assert_eq!(
            days.iter().map(|(day, suite, _)| (*day, suite.as_str())).collect::<Vec<_>>(),
            [(0, ""), (0, "it")]
        );
        let all = &days[0].2;
        assert_eq!((all.runs, all.tests, all.attempts, all.failed, all.flaky), (2, 4, 6, 1, 1));
        assert_eq!((all.rebase_us.count(), all.queue_ms.quantile(0.5)), (6, Some(7)));
        let told: Vec<_> =
            of_suite.iter().map(|run| (run.run.0, run.failed, run.flaky, run.pushed_ms)).collect();
        assert_eq!(told, [(2, 0, 1, 1_000), (1, 1, 0, 1_000)]);
        assert_eq!((of_suite[0].spent, all.spent), (of_attempts(3), of_attempts(6)));
        assert_eq!((of_suite[0].lanes, of_suite[0].retries()), (1, 1));
        assert_eq!((all.start_ms.quantile(0.5), all.report_us.quantile(0.5)), (Some(5), Some(6)));
        assert_eq!(
            rebases.iter().map(|(day, driver, of)| (*day, driver.as_str(), of.count())).collect::<Vec<_>>(),
            [(0, "restart", 6)]
        );
        assert!(
            store
                .entered("shop", "", Some("refs/heads/other"), FROM_THE_NEWEST, 10)
                .await
                .unwrap()
                .is_empty()
        );
        assert_eq!(store.entered("shop", "", None, RunId(2), 10).await.unwrap()[0].run, RUN);

        while store.forget(DAY_MS, 1_000).await.unwrap().is_more {}
        assert_eq!(look().await, (days, of_suite, rebases));
        assert!(store.past("shop", "it", "a.py::one", FROM_THE_NEWEST, 10).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_test_is_found_over_its_runs_by_its_words() {
    on_each(async |store| {
        for (run, commit, is_flaky) in [(1, "c1", true), (2, "c2", false), (3, "c3", true)] {
            store.apply(&whole(run, commit, is_flaky)).await.unwrap();
        }
        while enter(store).await > 0 {}
        let past = store.past("shop", "it", "a.py::two", FROM_THE_NEWEST, 2).await.unwrap();
        assert_eq!(past.iter().map(|past| past.run.0).collect::<Vec<_>>(), [3, 2]);
        assert_eq!((past[0].commit.as_str(), past[0].baseline_key.as_str()), ("c3", "k"));
        assert_eq!(past[0].test.attempts.len(), 2);
        assert_eq!((past[1].test.verdict, past[1].test.test), (Some(Verdict::Failed), TestIx(1)));
        let older = store.past("shop", "it", "a.py::two", RunId(2), 2).await.unwrap();
        assert_eq!(older.iter().map(|past| past.run.0).collect::<Vec<_>>(), [1]);
        for (project, suite, id) in
            [("other", "it", "a.py::two"), ("shop", "", "a.py::two"), ("shop", "it", "two")]
        {
            assert!(store.past(project, suite, id, FROM_THE_NEWEST, 2).await.unwrap().is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn runs_are_found_by_what_they_are_of() {
    on_each(async |store| {
        store.apply(&whole(1, "c0ffee1", true)).await.unwrap();
        store.apply(&whole(2, "c0ffee2", true)).await.unwrap();
        let open = [
            Record::RunCreated { run: RunId(3), header: header_of("bank", "c0ffee1"), at_unix_ms: 5 },
            Record::RunCreated { run: RunId(4), header: header_of("shop", "dead"), at_unix_ms: 6 },
        ];
        store.apply(&open).await.unwrap();
        let found = async |of: RunsOf, before: RunId| {
            let rows = store.runs_of(&of, before, 10).await.unwrap();
            rows.iter().map(|row| row.run.0).collect::<Vec<_>>()
        };
        let (shop, all) = (|| "shop".to_owned(), FROM_THE_NEWEST);
        assert_eq!(found(RunsOf::Active, all).await, [4, 3]);
        assert_eq!(found(RunsOf::Over, all).await, [2, 1]);
        assert_eq!(found(RunsOf::Project(shop()), all).await, [4, 2, 1]);
        assert_eq!(found(RunsOf::Project(shop()), RunId(2)).await, [1]);
        assert_eq!(found(RunsOf::Ref(shop(), MAIN.into()), all).await, [4, 2, 1]);
        assert_eq!(found(RunsOf::Ref(shop(), "refs/heads/x".into()), all).await, Vec::<u64>::new());
        assert_eq!(found(RunsOf::Commit(shop(), "c0ffee1".into()), all).await, [1]);
        assert_eq!(found(RunsOf::CommitsFrom(shop(), "c0ffee".into()), all).await, [2, 1]);
        assert_eq!(found(RunsOf::CommitsFrom(shop(), "c0ffee1".into()), all).await, [1]);
        assert_eq!(found(RunsOf::Baseline("k".into()), all).await, [2, 1]);
        assert_eq!(store.projects().await.unwrap(), ["bank", "shop"]);
        assert_eq!(store.runs_of(&RunsOf::Over, all, 1).await.unwrap()[0].counts.flaky, 1);
    })
    .await;
}

#[tokio::test]
async fn a_runs_tests_lanes_and_attempts_are_told_as_far_as_was_asked() {
    on_each(async |store| {
        store.apply(&whole(1, "c1", true)).await.unwrap();
        let page = async |verdicts: Vec<Option<Verdict>>, suite: Option<&str>, after: Option<u32>, limit| {
            let filter =
                TestFilter { verdicts, suite: suite.map(str::to_owned), after: after.map(TestIx), limit };
            let tests = store.tests_of(RUN, &filter).await.unwrap();
            tests.iter().map(|test| (test.test.0, test.attempts.len())).collect::<Vec<_>>()
        };
        assert_eq!(page(vec![], None, None, 9).await, [(0, 1), (1, 2)]);
        assert_eq!(page(vec![], None, None, 1).await, [(0, 1)]);
        assert_eq!(page(vec![], None, Some(0), 9).await, [(1, 2)]);
        assert_eq!(page(vec![Some(Verdict::Flaky), Some(Verdict::Failed)], None, None, 9).await, [(1, 2)]);
        assert_eq!(page(vec![None], None, None, 9).await, []);
        assert_eq!(page(vec![], Some("other"), None, 9).await, []);

        let suites = store.suites_of(RUN).await.unwrap();
        assert_eq!((suites.len(), suites[0].0.as_str(), suites[0].1.total()), (1, "it", 2));
        let lanes = store.lanes_of(RUN).await.unwrap();
        let lane = &lanes[0];
        assert_eq!((lanes.len(), lane.lane, lane.attempts, lane.spent), (1, LaneIx(1), 3, of_attempts(3)));
        assert_eq!((lane.dirtied_bytes, lane.first_started_ms), (0, 4));
        let attempts = store.attempts_of(RUN, 2).await.unwrap();
        let told: Vec<_> = attempts
            .iter()
            .map(|(test, suite, id, at)| (test.0, suite.as_str(), id.as_str(), at.attempt.0))
            .collect();
        assert_eq!(told, [(0, "it", "a.py::one", 1), (1, "it", "a.py::two", 2)]);
        assert_eq!(
            store.rebases_of(RUN, 2).await.unwrap(),
            [("restart".to_owned(), 2), ("restart".to_owned(), 2)]
        );

        store.apply(&[leased_for("w2", 99)]).await.unwrap();
        let out = store.out("w2").await.unwrap();
        assert_eq!((out.len(), out[0].0, out[0].1.fence), (1, LaneIx(2), Fence(99)));
        assert!(store.out("w1").await.unwrap().is_empty());
    })
    .await;
}

fn leased_for(worker: &str, fence: u64) -> Record {
    Record::Leased {
        lease: lease(9, fence),
        kind: LeaseKind::Discover("it".into()),
        worker: WorkerId(worker.into()),
        lane: LaneIx(2),
        attempts: Vec::new(),
    }
}

#[tokio::test]
async fn change_points_are_what_was_put_last() {
    on_each(async |store| {
        for (git_ref, suite, shifts) in
            [(MAIN, "it", "[1]"), (MAIN, "it", "[2]"), ("refs/heads/x", "it", "[3]")]
        {
            store.put_shifts("shop", git_ref, suite, shifts).await.unwrap();
        }
        let one = store.shifts("shop", Some(MAIN), 10).await.unwrap();
        assert_eq!(one, [(MAIN.to_owned(), "it".to_owned(), "[2]".to_owned())]);
        assert_eq!(store.shifts("shop", None, 10).await.unwrap().len(), 2);
        assert!(store.shifts("bank", None, 10).await.unwrap().is_empty());
    })
    .await;
}

/// Enters a run of [`whole`] whose tests have these owners.
async fn enter_owned(store: &dyn Store, run: u64, owners: [&[&str]; 2]) {
    let (row, tests) =
        (store.run(RunId(run)).await.unwrap().unwrap(), store.tests(RunId(run)).await.unwrap());
    let (mut entering, mut names) = (Entering::of(&row), Vec::new());
    for (test, owners) in tests.iter().zip(owners) {
        let owners: Vec<_> = owners.iter().map(|owner| (*owner).to_owned()).collect();
        entering.add(test, &owners);
        let name = name_of("shop", &test.suite, &test.id);
        names.push(Named { test: test.test, name, owners: has_own_verdict(test).then_some(owners) });
    }
    let entry = entering.end(run * 1_000);
    for _ in 0..2 {
        store.name_tests(RunId(run), &names).await.unwrap();
        store.enter(&entry).await.unwrap();
    }
}

#[tokio::test]
async fn owners_have_what_their_tests_were_in_the_last_run_and_how_it_went_over_all() {
    on_each(async |store| {
        for (run, is_flaky) in [(1, false), (2, true), (3, false)] {
            store.apply(&whole(run, &format!("c{run}"), is_flaky)).await.unwrap();
        }
        enter_owned(store, 1, [&["@a"], &["@a", "@b"]]).await;
        enter_owned(store, 3, [&["@a"], &["@b"]]).await;
        // A run that ended later and was asked for earlier takes nothing back.
        enter_owned(store, 2, [&["@a", "@c"], &["@a"]]).await;

        let ids = async |owner: &str, which| {
            let tests = store.owned("shop", owner, which, 10).await.unwrap();
            tests.iter().map(|test| (test.id.clone(), test.run.0, test.flakes)).collect::<Vec<_>>()
        };
        let (one, two) = (|| "a.py::one".to_owned(), || "a.py::two".to_owned());
        assert_eq!(ids("@a", OwnedWhich::Slow).await, [(one(), 3, 0)]);
        assert_eq!(ids("@a", OwnedWhich::Failing).await, []);
        assert_eq!(ids("@b", OwnedWhich::Failing).await, [(two(), 3, 1)]);
        assert_eq!(ids("@b", OwnedWhich::Flaky).await, [(two(), 3, 1)]);
        assert_eq!(ids("@c", OwnedWhich::Slow).await, []);
        let failing = store.owned("shop", "@b", OwnedWhich::Failing, 1).await.unwrap().remove(0);
        assert_eq!((failing.test, failing.verdict), (TestIx(1), Some(Verdict::Failed)));
        assert_eq!((failing.runs, failing.failures, failing.git_ref.as_str()), (3, 2, MAIN));

        let sums = store.owners("shop", None, 10).await.unwrap();
        let told: Vec<_> = sums.iter().map(|of| (&*of.owner, of.tests, of.failing, of.flaky)).collect();
        assert_eq!(told, [("@a", 1, 0, 0), ("@b", 1, 1, 1)]);
        assert_eq!(store.owners("shop", Some("@b"), 10).await.unwrap(), sums[1..]);
        assert!(store.owners("bank", None, 10).await.unwrap().is_empty());

        let line = async |owner: &str, git_ref, before| {
            let runs = store.entered_of("shop", owner, git_ref, before, 10).await.unwrap();
            runs.iter().map(|run| (run.run.0, run.ending, run.tests)).collect::<Vec<_>>()
        };
        let all = FROM_THE_NEWEST;
        assert_eq!(line("@a", None, all).await, [(3, End::Green, 1), (2, End::Green, 2), (1, End::Red, 2)]);
        assert_eq!(line("@b", Some(MAIN), all).await, [(3, End::Red, 1), (1, End::Red, 1)]);
        assert_eq!(line("@b", None, RunId(3)).await, [(1, End::Red, 1)]);
        assert_eq!(line("@b", Some("refs/heads/x"), all).await, []);

        while store.forget(DAY_MS, 1_000).await.unwrap().is_more {}
        assert!(store.owners("shop", None, 10).await.unwrap().is_empty(), "their tests are gone");
        assert_eq!(line("@b", None, all).await.len(), 2, "figures outlive them");
    })
    .await;
}

#[tokio::test]
async fn what_a_run_does_not_say_of_owners_stands() {
    on_each(async |store| {
        store.apply(&whole(1, "c1", true)).await.unwrap();
        store.apply(&whole(2, "c2", true)).await.unwrap();
        enter_owned(store, 1, [&["@a"], &["@a"]]).await;
        assert_eq!(enter(store).await, 1, "its specification is gone");
        assert_eq!(store.owners("shop", None, 10).await.unwrap()[0].tests, 2);
        assert_eq!(store.entered_of("shop", "@a", None, FROM_THE_NEWEST, 10).await.unwrap().len(), 1);
    })
    .await;
}
