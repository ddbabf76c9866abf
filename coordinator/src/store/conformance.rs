//! What every store must do. Each case runs on each implementation.

mod ledger;

use andon_core::ids::{AttemptId, Fence, LaneIx, Lease, RunId, TestIx, WorkId, WorkerId};
use andon_core::inexact::{INEXACT_KEPT_MAX, INEXACT_KEPT_MS, Inexact, InexactPart};
use andon_core::model::{
    Artifacts, Ended, LeaseKind, Outcome, Record, RunEnd, RunHeader, RunState, Trigger, Verdict,
};

use super::memory::Memory;
use super::sqlite::Sqlite;
use super::testing::TestDatabase;
use super::{AttemptRow, Cause, Forgotten, ImageRow, InexactFilter, Output, Piece, RunFilter, Store};

const RUN: RunId = RunId(1);

async fn on_each(case: impl AsyncFn(&dyn Store)) {
    case(&Memory::default()).await;
    let folder = tempfile::tempdir().unwrap();
    case(&Sqlite::open(&folder.path().join("farm.db")).await.unwrap()).await;
    let database = TestDatabase::make().await;
    case(&database.open().await.unwrap()).await;
    database.remove().await;
}

fn header() -> RunHeader {
    RunHeader {
        project: "shop".into(),
        repository: "/srv/shop.git".into(),
        commit: "c0ffee".into(),
        git_ref: "refs/heads/main".into(),
        trigger: Trigger::Push,
        requested_by: "hook".into(),
        spec_digest: "d1".into(),
        dedup_key: Some("push:shop:c0ffee".into()),
        rerun_of: None,
    }
}

fn created() -> Record {
    Record::RunCreated { run: RUN, header: header(), at_unix_ms: 10 }
}

fn added() -> Record {
    let tests = vec![(TestIx(0), "a.py::one".into()), (TestIx(1), "a.py::two".into())];
    Record::TestsAdded { run: RUN, suite: "it".into(), tests }
}

fn lease(work: u64, fence: u64) -> Lease {
    Lease { run: RUN, work: WorkId(work), fence: Fence(fence) }
}

fn leased(work: u64, fence: u64, attempts: &[(u64, u32)]) -> Record {
    Record::Leased {
        lease: lease(work, fence),
        kind: LeaseKind::Unit,
        worker: WorkerId("w1".into()),
        lane: LaneIx(1),
        attempts: attempts.iter().map(|(attempt, test)| (AttemptId(*attempt), TestIx(*test), 7)).collect(),
    }
}

fn ended(attempt: u64, outcome: Outcome) -> Record {
    let ended = Ended {
        outcome,
        prepare_ms: 9,
        start_ms: 5,
        rebase_us: 2,
        run_ms: 3,
        report_us: 6,
        message: "why".into(),
        log_zstd: vec![1, 2],
        started_unix_ms: 4,
        driver: "restart".into(),
    };
    Record::AttemptEnded { run: RUN, attempt: AttemptId(attempt), ended, at_unix_ms: 30 }
}

#[tokio::test]
async fn a_run_reads_back_as_it_was_written() {
    on_each(async |store| {
        let moved =
            |state, at_unix_ms| Record::RunMoved { run: RUN, state, reason: String::new(), at_unix_ms };
        let verdict =
            Record::VerdictGiven { run: RUN, test: TestIx(0), verdict: Verdict::Passed, run_ms: Some(100) };
        let records = [
            created(),
            moved(RunState::Preparing, 20),
            Record::BaselinePinned { run: RUN, key: "k".into() },
            moved(RunState::Running, 25),
            added(),
            leased(2, 1, &[(1, 0)]),
            ended(1, Outcome::Passed),
            verdict,
            Record::LeaseClosed { fence: Fence(1) },
        ];
        store.apply(&records).await.unwrap();

        let row = store.run(RUN).await.unwrap().unwrap();
        assert_eq!(row.header, header());
        assert_eq!((row.created_ms, row.started_ms, row.based_ms, row.ended_ms), (10, 20, 25, 0));
        assert_eq!((row.state, row.baseline_key.as_str()), (RunState::Running, "k"));
        assert_eq!((row.counts.passed, row.counts.open, row.counts.total()), (1, 1, 2));

        let tests = store.tests(RUN).await.unwrap();
        assert_eq!(tests.len(), 2);
        let attempt = &tests[0].attempts[0];
        assert_eq!((attempt.outcome, attempt.queue_ms, attempt.rebase_us), (Some(Outcome::Passed), 7, 2));
        assert_eq!((attempt.message.as_str(), attempt.driver.as_str()), ("why", "restart"));
        assert_eq!(attempt.dirtied_bytes, None);
        assert_eq!(store.test(RUN, TestIx(0)).await.unwrap().as_ref(), Some(&tests[0]));
        assert_eq!(store.output(RUN, AttemptId(1)).await.unwrap(), Output::Whole(Ok(vec![1, 2])));
        assert_eq!(store.find_dedup("push:shop:c0ffee").await.unwrap(), Some(RUN));
        assert_eq!(store.find_dedup("push:shop:other").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn ended_attempts_and_given_verdicts_never_change() {
    on_each(async |store| {
        let verdict = |verdict| Record::VerdictGiven { run: RUN, test: TestIx(0), verdict, run_ms: Some(8) };
        let first = [
            created(),
            added(),
            leased(1, 1, &[(1, 0)]),
            ended(1, Outcome::Failed),
            verdict(Verdict::Failed),
        ];
        store.apply(&first).await.unwrap();
        let before = store.tests(RUN).await.unwrap();
        store.apply(&[ended(1, Outcome::Passed), verdict(Verdict::Passed)]).await.unwrap();
        assert_eq!(store.tests(RUN).await.unwrap(), before);
    })
    .await;
}

#[tokio::test]
async fn a_transaction_that_fails_leaves_nothing() {
    on_each(async |store| {
        store.apply(&[created(), added(), leased(1, 5, &[(1, 0)])]).await.unwrap();
        let note = Record::Noted { run: RUN, text: "half".into(), log_zstd: vec![], at_unix_ms: 1 };
        let given_before = leased(2, 5, &[(2, 1)]);
        store.apply(&[note, given_before]).await.unwrap_err();
        assert!(store.notes(RUN).await.unwrap().is_empty());
        assert_eq!(store.active().await.unwrap().last_fence, 5);
    })
    .await;
}

fn artifacts(blob: &str) -> Artifacts {
    Artifacts { blob_digest: blob.to_owned(), blob_size: 1, files: 2, bytes: 3, left_out: 4 }
}

#[tokio::test]
async fn of_a_run_that_is_forgotten_its_counts_stay_and_others_are_not_touched() {
    on_each(async |store| {
        const LATER: RunId = RunId(2);
        let over = |run, at_unix_ms| Record::RunMoved {
            run,
            state: RunState::Ended(RunEnd::Passed),
            reason: String::new(),
            at_unix_ms,
        };
        let passed = |run, test| Record::VerdictGiven {
            run,
            test: TestIx(test),
            verdict: Verdict::Passed,
            run_ms: Some(8),
        };
        let later = [
            Record::RunCreated {
                run: LATER,
                header: RunHeader { dedup_key: None, ..header() },
                at_unix_ms: 50,
            },
            Record::TestsAdded {
                run: LATER,
                suite: "it".into(),
                tests: vec![(TestIx(0), "a.py::one".into())],
            },
            passed(LATER, 0),
            over(LATER, 60),
        ];
        let note = Record::Noted { run: RUN, text: "half".into(), log_zstd: vec![], at_unix_ms: 1 };
        let piece = Record::Printed { lease: lease(2, 1), starts: 0, raw_bytes: 1, zstd: vec![3] };
        let kept = |run, fence, blob| Record::ArtifactsKept {
            lease: Lease { run, ..lease(2, fence) },
            artifacts: artifacts(blob),
        };
        let more = leased(3, 2, &[(3, 1)]);
        let before = [created(), added(), leased(2, 1, &[(1, 0), (2, 1)]), more, piece, note];
        store.apply(&before).await.unwrap();
        store
            .apply(&[ended(1, Outcome::Passed), passed(RUN, 0), passed(RUN, 1), over(RUN, 40)])
            .await
            .unwrap();
        store.apply(&later).await.unwrap();
        let left = [kept(RUN, 1, "own"), kept(RUN, 1, "twice"), kept(RUN, 2, "same"), kept(LATER, 7, "same")];
        store.apply(&left).await.unwrap();
        let kept = store.run(LATER).await.unwrap();

        assert_eq!(store.forget(40, 9).await.unwrap(), Forgotten::default(), "it ended then, not before");
        assert_eq!(store.artifacts(RUN, AttemptId(1)).await.unwrap(), Some(artifacts("own")));
        // One row at a time is as good as all at once.
        let mut blobs = Vec::new();
        loop {
            let forgotten = store.forget(41, 1).await.unwrap();
            blobs.extend(forgotten.blobs);
            if !forgotten.is_more {
                break;
            }
        }
        assert_eq!(blobs, ["own"], "a later run left the other, too");
        let row = store.run(RUN).await.unwrap().unwrap();
        assert_eq!((row.forgotten, row.counts.passed, row.ended_ms), (true, 2, 40));
        assert_eq!(store.specifications(true, RunId(0), 9).await.unwrap(), [(RUN, "d1".to_owned())]);
        assert_eq!(store.specifications(false, RunId(0), 9).await.unwrap(), [(LATER, "d1".to_owned())]);
        assert!(store.specifications(false, LATER, 9).await.unwrap().is_empty());
        assert!(store.tests(RUN).await.unwrap().is_empty() && store.notes(RUN).await.unwrap().is_empty());
        assert_eq!(store.output(RUN, AttemptId(1)).await.unwrap(), Output::Nothing);
        assert_eq!(store.run(LATER).await.unwrap(), kept);
        assert_eq!(store.tests(LATER).await.unwrap().len(), 1);
        let known = store.history("shop", "it").await.unwrap();
        assert_eq!(known.keys().collect::<Vec<_>>(), ["a.py::one"], "no later run had the other");
        assert_eq!(known["a.py::one"].runs, 2);
    })
    .await;
}

#[tokio::test]
async fn a_restart_finds_what_was_out() {
    on_each(async |store| {
        let second = RunId(2);
        let lost = LeaseKind::Discover("it".into());
        let mut other = header();
        other.dedup_key = None;
        let over = Record::RunMoved {
            run: second,
            state: RunState::Ended(RunEnd::Passed),
            reason: String::new(),
            at_unix_ms: 9,
        };
        let records = [
            created(),
            added(),
            Record::WorkLost { run: RUN, kind: lost.clone(), worker: WorkerId("w2".into()) },
            leased(3, 7, &[(1, 0), (2, 1)]),
            ended(1, Outcome::Passed),
            Record::RunCreated { run: second, header: other, at_unix_ms: 8 },
            over,
        ];
        store.apply(&records).await.unwrap();
        let active = store.active().await.unwrap();
        assert_eq!((active.last_run, active.last_fence, active.runs.len()), (2, 7, 1));
        let run = &active.runs[0];
        assert_eq!((run.last_work, run.discovered.as_slice()), (3, ["it".to_owned()].as_slice()));
        assert_eq!(run.leases[0].lease, lease(3, 7));
        assert_eq!(run.losses, [(lost, WorkerId("w2".into()))]);
        assert_eq!(run.tests[1].attempts[0].outcome, None);
    })
    .await;
}

#[tokio::test]
async fn a_footprint_is_taken_once_and_only_with_its_own_fence_and_worker() {
    on_each(async |store| {
        let print = |fence, worker: &str, dirtied_bytes| Record::Footprint {
            lease: lease(1, fence),
            worker: WorkerId(worker.into()),
            attempts: vec![AttemptId(1)],
            dirtied_bytes,
            changes: format!("changes {dirtied_bytes}"),
        };
        store.apply(&[created(), added(), leased(1, 1, &[(1, 0)])]).await.unwrap();
        let dirt = async || store.tests(RUN).await.unwrap()[0].attempts[0].dirtied_bytes;
        store.apply(&[print(1, "w1", 1)]).await.unwrap();
        assert_eq!(dirt().await, None, "the attempt has not ended");
        store.apply(&[ended(1, Outcome::Passed), print(9, "w1", 2), print(1, "w2", 3)]).await.unwrap();
        assert_eq!(dirt().await, None);
        store.apply(&[print(1, "w1", 4), print(1, "w1", 5)]).await.unwrap();
        assert_eq!(dirt().await, Some(4));
        assert_eq!(store.changes(RUN, AttemptId(1)).await.unwrap().as_deref(), Some("changes 4"));
        assert_eq!(store.changes(RUN, AttemptId(2)).await.unwrap(), None);
        let lease = Lease { run: RunId(77), ..lease(1, 1) };
        let worker = WorkerId("w1".into());
        let changes = String::new();
        let attempts = vec![AttemptId(1)];
        let of_nothing = Record::Footprint { lease, worker, attempts, dirtied_bytes: 6, changes };
        store.apply(&[of_nothing]).await.expect("a forged run is no reason to refuse a round");
        assert_eq!(dirt().await, Some(4));
    })
    .await;
}

#[tokio::test]
async fn history_smooths_durations_and_remembers_failures() {
    on_each(async |store| {
        let run = |number: u64, verdict, run_ms| {
            let run = RunId(number);
            let header = RunHeader { dedup_key: None, ..header() };
            let tests = vec![(TestIx(0), "t".to_owned())];
            [
                Record::RunCreated { run, header, at_unix_ms: 1 },
                Record::TestsAdded { run, suite: "it".into(), tests },
                Record::VerdictGiven { run, test: TestIx(0), verdict, run_ms },
            ]
        };
        store.apply(&run(1, Verdict::Passed, Some(100))).await.unwrap();
        store.apply(&run(2, Verdict::Failed, Some(500))).await.unwrap();
        store.apply(&run(3, Verdict::NotRun, None)).await.unwrap();
        let past = store.history("shop", "it").await.unwrap()["t"];
        assert_eq!((past.mean_ms, past.failed_last), (175, true), "500 ms counts as 4 times what was known");
        let quick = |number, seen_ms| {
            let mut records = run(number, Verdict::Passed, Some(seen_ms));
            if let Record::TestsAdded { tests, .. } = &mut records[1] {
                tests[0].1 = "quick".into();
            }
            records
        };
        store.apply(&quick(4, 0)).await.unwrap();
        store.apply(&quick(5, 5_000)).await.unwrap();
        assert_eq!(store.history("shop", "it").await.unwrap()["quick"].mean_ms, 25, "it may grow again");
        assert!(store.history("shop", "other").await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn lists_are_newest_first_and_filtered() {
    on_each(async |store| {
        for number in 1..=3 {
            let project = if number == 2 { "other" } else { "shop" };
            let header = RunHeader {
                dedup_key: None,
                project: project.into(),
                commit: format!("{number}abc"),
                ..header()
            };
            store
                .apply(&[Record::RunCreated { run: RunId(number), header, at_unix_ms: number }])
                .await
                .unwrap();
        }
        let list = async |filter: RunFilter| -> Vec<u64> {
            store.runs(&filter).await.unwrap().iter().map(|row| row.run.0).collect()
        };
        assert_eq!(list(RunFilter { limit: 2, ..RunFilter::default() }).await, [3, 2]);
        let shop = RunFilter { project: Some("shop".into()), limit: 9, ..RunFilter::default() };
        assert_eq!(list(shop).await, [3, 1]);
        let commit = RunFilter { commit: Some("2a".into()), limit: 9, ..RunFilter::default() };
        assert_eq!(list(commit).await, [2]);
    })
    .await;
}

#[tokio::test]
async fn baselines_are_immutable_unless_they_are_gone_and_images_are_replaced() {
    on_each(async |store| {
        let published = |manifest: &[u8], replaces| Record::BaselinePublished {
            key: "k".into(),
            manifest: manifest.to_vec(),
            at_unix_ms: 1,
            replaces,
        };
        store.apply(&[published(b"one", false), published(b"two", false)]).await.unwrap();
        assert_eq!(store.baseline("k").await.unwrap().unwrap(), b"one");
        store.apply(&[published(b"three", true)]).await.unwrap();
        assert_eq!(store.baselines().await.unwrap(), [b"three"]);

        let image = |id: &str| ImageRow {
            reference: "mysql:9".into(),
            image_id: id.into(),
            blob_digest: "d".into(),
            blob_size: 3,
        };
        store.put_image(&image("sha256:1")).await.unwrap();
        store.put_image(&image("sha256:2")).await.unwrap();
        assert_eq!(store.image("mysql:9").await.unwrap(), Some(image("sha256:2")));
        assert_eq!(store.image("sha256:2").await.unwrap(), Some(image("sha256:2")));
        assert_eq!(store.image("sha256:1").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn an_attempt_of_another_run_is_copied_with_its_log() {
    on_each(async |store| {
        const OTHER: RunId = RunId(8);
        let other = Record::RunCreated {
            run: OTHER,
            header: RunHeader { dedup_key: None, ..header() },
            at_unix_ms: 11,
        };
        let named = Record::TestsAdded {
            run: OTHER,
            suite: "it".into(),
            tests: vec![(TestIx(0), "a".into()), (TestIx(1), "b".into())],
        };
        let shared = Record::AttemptShared {
            run: OTHER,
            attempt: AttemptId(5),
            test: TestIx(1),
            of: RUN,
            of_attempt: AttemptId(1),
        };
        let before = [created(), added(), leased(2, 1, &[(1, 0)]), ended(1, Outcome::Failed), other, named];
        store.apply(&before).await.unwrap();
        store.apply(&[shared]).await.unwrap();
        let original = store.test(RUN, TestIx(0)).await.unwrap().unwrap().attempts.remove(0);
        let copy = store.test(OTHER, TestIx(1)).await.unwrap().unwrap().attempts.remove(0);
        assert_eq!(copy, AttemptRow { attempt: AttemptId(5), ..original });
        assert_eq!(store.output(OTHER, AttemptId(5)).await.unwrap(), Output::Whole(Ok(vec![1, 2])));
    })
    .await;
}

#[tokio::test]
async fn pieces_of_a_grant_are_shown_until_the_attempt_has_its_own_output() {
    on_each(async |store| {
        let printed = |fence, starts, raw_bytes, byte: u8| Record::Printed {
            lease: lease(2, fence),
            starts,
            raw_bytes,
            zstd: vec![byte],
        };
        let before = [created(), added(), leased(2, 1, &[(1, 0)]), leased(3, 2, &[(2, 1)])];
        store.apply(&before).await.unwrap();
        assert_eq!(store.output(RUN, AttemptId(1)).await.unwrap(), Output::Nothing);
        store.apply(&[printed(1, 0, 10, 7), printed(2, 0, 5, 8)]).await.unwrap();
        // Sent again under another number, as after a broken connection; and one after a gap.
        store.apply(&[printed(1, 0, 10, 7), printed(1, 99, 1, 9)]).await.unwrap();
        let piece = |starts, raw_bytes, byte: u8| Piece { starts, raw_bytes, content: Ok(vec![byte]) };
        let of_grant = Output::Pieces(vec![piece(0, 10, 7), piece(99, 1, 9)]);
        assert_eq!(store.output(RUN, AttemptId(1)).await.unwrap(), of_grant);
        store.apply(&[ended(1, Outcome::Passed)]).await.unwrap();
        assert_eq!(store.output(RUN, AttemptId(1)).await.unwrap(), Output::Whole(Ok(vec![1, 2])));
        assert_eq!(store.output(RUN, AttemptId(2)).await.unwrap(), Output::Pieces(vec![piece(0, 5, 8)]));
    })
    .await;
}

#[tokio::test]
async fn a_run_that_has_ended_keeps_its_counts() {
    on_each(async |store| {
        let verdict =
            |test, verdict| Record::VerdictGiven { run: RUN, test: TestIx(test), verdict, run_ms: None };
        store.apply(&[created(), added(), verdict(0, Verdict::Flaky)]).await.unwrap();
        let over = Record::RunMoved {
            run: RUN,
            state: RunState::Ended(RunEnd::Incomplete),
            reason: "the cord".into(),
            at_unix_ms: 50,
        };
        // In one round, and in an order that the core does not promise.
        store.apply(&[over, verdict(1, Verdict::NotRun)]).await.unwrap();
        let counts = store.run(RUN).await.unwrap().unwrap().counts;
        assert_eq!((counts.flaky, counts.not_run, counts.open, counts.total()), (1, 1, 0, 2));
        let filter = RunFilter { limit: 5, ..RunFilter::default() };
        assert_eq!(store.runs(&filter).await.unwrap()[0].counts, counts);
    })
    .await;
}

#[tokio::test]
async fn the_latest_word_on_why_a_test_failed_stands_for_that_test_alone() {
    on_each(async |store| {
        let cause = |run, finding: &str, said: &str| Cause {
            run: RunId(run),
            told_unix_ms: run * 10,
            finding: finding.to_owned(),
            said: said.to_owned(),
        };
        store.put_cause("p", "it", "t", &cause(1, "unclear", "too few")).await.unwrap();
        store.put_cause("p", "it", "t", &cause(2, "polluted", "by `a`\0")).await.unwrap();
        let found = store.cause("p", "it", "t").await.unwrap().unwrap();
        assert_eq!((found.run, found.told_unix_ms, found.finding.as_str()), (RunId(2), 20, "polluted"));
        assert!(found.said.starts_with("by `a`"), "{found:?}");
        for (project, suite, id) in [("q", "it", "t"), ("p", "at", "t"), ("p", "it", "u")] {
            assert_eq!(store.cause(project, suite, id).await.unwrap(), None);
        }
    })
    .await;
}

#[tokio::test]
async fn stands_that_were_not_exact_are_remembered_once_each_counted_and_the_oldest_go() {
    on_each(async |store| {
        let inexact = |id: String, key: &str| Inexact {
            id,
            lane: LaneIx(1),
            run: Some(RUN),
            suite: "it".into(),
            baseline_key: key.into(),
            driver: "restart".into(),
            deep: true,
            parts: vec![InexactPart {
                place: "volume/data".into(),
                what: "ibdata1".into(),
                difference: "has other contents \0".into(),
            }],
            left_out: 3,
            found_unix_ms: 5,
        };
        let told = |worker: &str, id: u64, key: &str| Record::Inexact {
            worker: WorkerId(worker.into()),
            inexact: inexact(id.to_string(), key),
            at_unix_ms: 10 + id,
        };
        store.apply(&[told("w1", 1, "a"), told("w2", 2, "b"), told("w1", 1, "again")]).await.unwrap();
        let all = store.inexact(&InexactFilter { limit: 10, ..InexactFilter::default() }).await.unwrap();
        assert_eq!(all.len(), 2, "what is told twice is one");
        assert_eq!((all[0].worker.0.as_str(), all[1].number), ("w2", 1));
        assert_eq!((&all[1].inexact.baseline_key, all[1].inexact.left_out), (&"a".to_owned(), 3));
        assert_eq!(all[1].inexact, inexact("1".into(), "a"));

        let more: Vec<_> = (3..3 + INEXACT_KEPT_MAX).map(|id| told("w1", id, "a")).collect();
        store.apply(&more).await.unwrap();
        let counts = store.inexact_counts().await.unwrap();
        assert_eq!(counts[&WorkerId("w1".into())], INEXACT_KEPT_MAX + 1);
        let of = |worker: Option<&str>, key: Option<&str>| InexactFilter {
            worker: worker.map(str::to_owned),
            baseline_key: key.map(str::to_owned),
            limit: 1_000,
        };
        let kept = store.inexact(&of(Some("w1"), None)).await.unwrap();
        assert_eq!(kept.len() as u64, INEXACT_KEPT_MAX);
        assert_eq!(kept.last().unwrap().number, 2, "the oldest went");
        assert_eq!(store.inexact(&of(None, Some("b"))).await.unwrap().len(), 1);

        let late = Record::Inexact {
            worker: WorkerId("w3".into()),
            inexact: inexact("late".into(), "a"),
            at_unix_ms: 1_000 + INEXACT_KEPT_MS,
        };
        store.apply(&[late]).await.unwrap();
        assert_eq!(store.inexact(&of(None, None)).await.unwrap().len(), 1, "nothing is kept for ever");
    })
    .await;
}
