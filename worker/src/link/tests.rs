//! The link's wiring, with a real socket, a coordinator that is scripted and a crew that is played by the test.

use std::time::Duration;

use andon_proto::report::Body as Fact;
use andon_proto::worker_message::Body as Said;
use andon_proto::{
    BaselineReady, Discover, Discovered, Execute, Inexact, Lease, PrepareBaseline, Revoke, RunSpec,
    Superseded, TestCase, TestResult, Verified, VerifyBaseline, assign, coordinator_message, work_failed,
};
use andon_snapshot::{Changes, Footprint as Dirt};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::testing::{Call, Calls, FakeCoordinator, FakeCrew, TOKEN, Talk, soon};
use super::*;
use crate::hands::{Farm, FarmError, Settled, Unfit};
use crate::runner::UnitNews;

mod look;

struct Scene {
    farm: FakeCoordinator,
    calls: Calls,
    health: Option<mpsc::Sender<Health>>,
    inexact: mpsc::Sender<Inexact>,
    stop: CancellationToken,
    link: JoinHandle<Result<(), LinkError>>,
    spec: String,
}

impl Scene {
    fn new(lanes: u32) -> Self {
        Self::with_token(lanes, TOKEN)
    }

    fn with_token(lanes: u32, token: &str) -> Self {
        let farm = FakeCoordinator::start();
        let spec = RunSpec { project: "shop".into(), ..RunSpec::default() };
        let spec = farm.put(&spec.encode_to_vec());
        let (crew, calls) = FakeCrew::new();
        let (health, news) = mpsc::channel(4);
        let (inexact, told) = mpsc::channel(4);
        let coordinator = farm.address(token);
        let options = LinkOptions {
            farm: FarmClient::new(&coordinator),
            coordinator,
            worker: "w1".into(),
            lanes,
            pool: "reflink".into(),
            crew,
            health: news,
            inexact: told,
        };
        let stop = CancellationToken::new();
        let link = tokio::spawn(run(options, stop.clone()));
        Self { farm, calls, health: Some(health), inexact, stop, link, spec }
    }

    async fn call(&mut self) -> Call {
        soon("a call to the crew", self.calls.recv()).await.unwrap()
    }

    async fn execute(&mut self, talk: &Talk, fence: u64, lane: u32, attempts: &[u64]) -> Running {
        self.assign_unit(talk, fence, lane, attempts).await;
        match self.call().await {
            Call::Execute { unit, project, news, cancel, done } => {
                assert_eq!((project.as_str(), unit.suite.as_str(), unit.lane), ("shop", "it", lane));
                Running { news, cancel, done }
            }
            other => panic!("expected Execute, got {other:?}"),
        }
    }

    async fn assign_unit(&self, talk: &Talk, fence: u64, lane: u32, attempts: &[u64]) {
        let tests = attempts.iter().map(|attempt| TestCase { attempt: *attempt, id: format!("t{attempt}") });
        let execute = Execute { suite: "it".into(), baseline_key: "k".into(), tests: tests.collect() };
        talk.assign(fence, lane, &self.spec, assign::Work::Execute(execute)).await;
    }

    async fn settle(&mut self, key: &str) {
        match self.call().await {
            Call::Settle(lane, reply) => {
                assert_eq!(lane, 0, "only lane 0 works in these tests");
                let (measured, footprint) = oneshot::channel();
                let footprint_of = Dirt { files: 1, bytes: 8192 };
                measured.send(Changes { footprint: footprint_of, trees: Vec::new() }).unwrap();
                let settled = Settled { baseline_key: key.into(), footprint: Some(footprint) };
                reply.send(Ok(settled)).unwrap();
            }
            other => panic!("expected Settle, got {other:?}"),
        }
    }

    async fn ends(self) -> Result<(), LinkError> {
        soon("the link's end", self.link).await.unwrap()
    }
}

struct Running {
    news: mpsc::Sender<UnitNews>,
    cancel: CancellationToken,
    done: oneshot::Sender<Result<(), crate::hands::WorkFailure>>,
}

impl Running {
    async fn result(&self, attempt: u64) {
        self.news.send(UnitNews::Result(TestResult { attempt, ..TestResult::default() })).await.unwrap();
    }
}

fn attempt(said: &(u64, Fact)) -> (u64, u64) {
    match said {
        (fence, Fact::TestResult(result)) => (*fence, result.attempt),
        other => panic!("expected a result, got {other:?}"),
    }
}

fn lease(fence: u64) -> Lease {
    Lease { run: 7, lease: fence, fence }
}

#[tokio::test]
async fn a_worker_prepares_discovers_executes_and_measures() {
    let mut scene = Scene::new(1);
    let mut talk = scene.farm.welcomed().await;
    let hello = &talk.hello;
    assert_eq!((hello.worker.as_str(), hello.lanes, hello.pool.as_str()), ("w1", 1, "reflink"));
    assert_eq!((hello.driver.as_str(), hello.held.len()), ("restart", 0));
    assert_eq!(talk.lane_ready().await.baseline_key, "");

    talk.assign(1, 0, &scene.spec, assign::Work::PrepareBaseline(PrepareBaseline {})).await;
    let Call::Prepare(reply) = scene.call().await else { panic!("expected Prepare") };
    assert_eq!(talk.report().await, (1, Fact::Notice("preparing".into())));
    reply.send(Ok(BaselineReady { built: true, ..BaselineReady::default() })).unwrap();
    assert!(matches!(talk.report().await, (1, Fact::BaselineReady(ready)) if ready.built));
    talk.lane_ready().await;

    let what = Discover { suite: "it".into(), baseline_key: "k".into() };
    talk.assign(2, 0, &scene.spec, assign::Work::Discover(what)).await;
    let Call::Discover(suite, reply) = scene.call().await else { panic!("expected Discover") };
    assert_eq!(suite, "it");
    reply.send(Ok(Discovered { tests: vec!["t1".into()], ..Discovered::default() })).unwrap();
    assert!(matches!(talk.report().await, (2, Fact::Discovered(found)) if found.tests == ["t1"]));
    scene.settle("k").await;
    assert_eq!(talk.lane_ready().await.baseline_key, "k");

    let running = scene.execute(&talk, 3, 0, &[1, 2]).await;
    running.result(1).await;
    assert_eq!(attempt(&talk.report().await), (3, 1), "told before the unit ends");
    running.result(2).await;
    running.done.send(Ok(())).unwrap();
    assert_eq!(attempt(&talk.report().await), (3, 2));
    assert!(matches!(talk.report().await, (3, Fact::UnitEnded(_))), "told before the lane is put back");
    scene.settle("k").await;
    assert_eq!(talk.lane_ready().await.baseline_key, "k", "not kept waiting for what is measured");
    let (_, Fact::Footprint(print)) = talk.report().await else { panic!("expected a footprint") };
    assert_eq!((print.attempts, print.dirtied_bytes, print.dirtied_files), (vec![1, 2], 8192, 1));
    assert_eq!(print.changes, r#"{"footprint":{"files":1,"bytes":8192},"trees":[]}"#);
    assert!(talk.seqs.iter().zip(1..).all(|(seq, place)| *seq == place), "from 1, growing by one");
}

#[tokio::test]
async fn an_assignment_that_comes_twice_is_worked_on_once() {
    let mut scene = Scene::new(1);
    let mut talk = scene.farm.welcomed().await;
    talk.lane_ready().await;
    let running = scene.execute(&talk, 3, 0, &[1]).await;
    scene.assign_unit(&talk, 3, 0, &[1]).await;
    // Another lease for the same lane, after it, shows that the repeated one was passed over.
    scene.assign_unit(&talk, 4, 0, &[2]).await;
    assert!(
        matches!(talk.report().await, (4, Fact::WorkFailed(failed)) if failed.reason == "lane 0 is busy")
    );
    running.result(1).await;
    running.done.send(Ok(())).unwrap();
    assert_eq!(attempt(&talk.report().await), (3, 1));
    assert!(matches!(talk.report().await, (3, Fact::UnitEnded(_))));
    assert!(matches!(scene.call().await, Call::Settle(..)), "and no second Execute");
}

#[tokio::test]
async fn a_revoked_unit_is_cancelled_and_its_lane_is_offered_again() {
    let mut scene = Scene::new(1);
    let mut talk = scene.farm.welcomed().await;
    talk.lane_ready().await;
    let running = scene.execute(&talk, 3, 0, &[1, 2]).await;
    let revoke = Revoke { lease: Some(lease(3)), reason: "cancelled".into() };
    talk.say(coordinator_message::Body::Revoke(revoke)).await;
    soon("the cancelling", running.cancel.cancelled()).await;
    scene.settle("k").await;
    assert_eq!(talk.lane_ready().await.baseline_key, "k", "without a word of the lease");
}

#[tokio::test]
async fn a_superseded_preparation_is_dropped() {
    let mut scene = Scene::new(1);
    let mut talk = scene.farm.welcomed().await;
    talk.lane_ready().await;
    talk.assign(3, 0, &scene.spec, assign::Work::PrepareBaseline(PrepareBaseline {})).await;
    let Call::Prepare(mut reply) = scene.call().await else { panic!("expected Prepare") };
    talk.report().await;
    let superseded = Superseded { lease: Some(lease(3)), reason: "late".into() };
    talk.say(coordinator_message::Body::Superseded(superseded)).await;
    soon("the dropping", reply.closed()).await;
    talk.lane_ready().await;
}

#[tokio::test]
async fn work_goes_on_over_a_restart_of_the_coordinator_and_only_the_unacknowledged_is_sent_again() {
    let mut scene = Scene::new(2);
    let mut talk = scene.farm.welcomed().await;
    talk.lane_ready().await;
    talk.lane_ready().await;
    let running = scene.execute(&talk, 3, 0, &[1, 2, 3]).await;
    running.result(1).await;
    assert_eq!(attempt(&talk.report().await), (3, 1));
    talk.ack().await;
    running.result(2).await;
    assert_eq!(attempt(&talk.report().await), (3, 2));
    let seen = *talk.seqs.last().unwrap();
    drop(talk);
    scene.farm.down().await;
    running.result(3).await;
    running.done.send(Ok(())).unwrap();
    let Call::Settle(_, settled) = scene.call().await else { panic!("expected Settle") };

    scene.farm.up();
    let mut talk = scene.farm.welcomed().await;
    assert_eq!(talk.hello.held, [lease(3)], "until its end is acknowledged");
    assert!(talk.seqs[0] > seen);
    assert_eq!(talk.lane_ready().await.lane, 1);
    assert_eq!(attempt(&talk.report().await), (3, 2));
    assert_eq!(attempt(&talk.report().await), (3, 3));
    assert!(matches!(talk.report().await, (3, Fact::UnitEnded(_))));
    talk.ack().await;
    settled.send(Ok(Settled::default())).unwrap();
    assert_eq!(talk.lane_ready().await.lane, 0);
    drop(talk);
    let talk = scene.farm.talk().await;
    assert!(talk.hello.held.is_empty());
}

#[tokio::test]
async fn after_silence_work_is_given_up_and_the_connection_made_anew() {
    let mut scene = Scene::new(1);
    let mut talk = scene.farm.talk().await;
    talk.keeps_alive = false;
    let ttl = Duration::from_millis(2_000);
    talk.welcome(ttl).await;
    talk.lane_ready().await;
    let running = scene.execute(&talk, 3, 0, &[1]).await;
    running.result(1).await;
    assert_eq!(attempt(&talk.report().await), (3, 1));
    soon("the fence", running.cancel.cancelled()).await;
    let mut talk = scene.farm.welcomed().await;
    assert!(talk.hello.held.is_empty());
    scene.settle("k").await;
    assert_eq!(talk.lane_ready().await.lane, 0, "and no result of the lease that was given up");
}

#[tokio::test]
async fn a_crew_that_panics_is_the_farms_failure_and_not_a_silent_lane() {
    let mut scene = Scene::new(1);
    let mut talk = scene.farm.welcomed().await;
    talk.lane_ready().await;
    let running = scene.execute(&talk, 3, 0, &[1]).await;
    drop(running.done);
    let (_, Fact::WorkFailed(failed)) = talk.report().await else { panic!("expected a failure") };
    assert_eq!(failed.class(), work_failed::Class::Infrastructure);
    let Call::Settle(_, reply) = scene.call().await else { panic!("expected Settle") };
    reply.send(Err(Unfit { reason: "3 rebases failed".into() })).unwrap();
    assert_eq!(talk.unfit().await, "lane 0: 3 rebases failed");
}

#[tokio::test]
async fn a_specification_that_cannot_be_had_fails_the_work_by_class() {
    let mut scene = Scene::new(1);
    let mut talk = scene.farm.welcomed().await;
    let garbage = scene.farm.put(b"\xff\xff");
    for (fence, digest, class) in
        [(1, "0".repeat(64), work_failed::Class::Infrastructure), (2, garbage, work_failed::Class::Config)]
    {
        talk.lane_ready().await;
        talk.assign(fence, 0, &digest, assign::Work::PrepareBaseline(PrepareBaseline {})).await;
        let (_, Fact::WorkFailed(failed)) = talk.report().await else { panic!("expected a failure") };
        assert_eq!(failed.class(), class, "{}", failed.reason);
    }
}

#[tokio::test]
async fn a_stopping_worker_gives_its_leases_back_and_ends() {
    let mut scene = Scene::new(2);
    let mut talk = scene.farm.welcomed().await;
    talk.lane_ready().await;
    talk.lane_ready().await;
    let running = scene.execute(&talk, 3, 0, &[1]).await;
    scene.stop.cancel();
    assert_eq!(talk.unfit().await, "worker is shutting down");
    let (3, Fact::WorkFailed(failed)) = talk.report().await else { panic!("expected the lease back") };
    assert_eq!(failed.class(), work_failed::Class::Infrastructure);
    assert_eq!(failed.reason, "worker is shutting down");
    assert!(running.cancel.is_cancelled());
    assert!(!scene.link.is_finished(), "until it is acknowledged");
    talk.ack().await;
    scene.ends().await.unwrap();
}

#[tokio::test]
async fn a_stopping_worker_does_not_wait_for_a_coordinator_that_is_gone() {
    let mut scene = Scene::new(1);
    let mut talk = scene.farm.welcomed().await;
    talk.lane_ready().await;
    let running = scene.execute(&talk, 3, 0, &[1]).await;
    drop(talk);
    scene.farm.down().await;
    let told = std::time::Instant::now();
    scene.stop.cancel();
    soon("the cancelling", running.cancel.cancelled()).await;
    scene.ends().await.unwrap();
    assert!(told.elapsed() < DRAIN_LIMIT);
}

#[tokio::test]
async fn a_broken_daemon_gives_the_work_back_and_lanes_are_rebuilt() {
    let mut scene = Scene::new(1);
    let mut talk = scene.farm.welcomed().await;
    talk.lane_ready().await;
    let running = scene.execute(&talk, 3, 0, &[1]).await;
    let health = scene.health.clone().unwrap();
    health.send(Health::Down { reason: "dockerd died".into() }).await.unwrap();
    assert_eq!(talk.unfit().await, "dockerd died");
    assert!(matches!(talk.report().await, (3, Fact::WorkFailed(failed)) if failed.reason == "dockerd died"));
    soon("the cancelling", running.cancel.cancelled()).await;
    health.send(Health::Up).await.unwrap();
    let Call::Distrust(0, reply) = scene.call().await else { panic!("expected Distrust") };
    reply.send(()).unwrap();
    scene.settle("").await;
    assert_eq!(talk.unfit().await, "");
    assert_eq!(talk.lane_ready().await.lane, 0);
}

#[tokio::test]
async fn a_link_whose_health_is_not_watched_works_on() {
    let mut scene = Scene::new(1);
    scene.health = None;
    let mut talk = scene.farm.welcomed().await;
    talk.lane_ready().await;
    scene.execute(&talk, 3, 0, &[1]).await;
}

#[tokio::test]
async fn a_worker_whose_token_is_refused_ends_and_says_by_whom() {
    let scene = Scene::with_token(1, "a-wrong-token");
    let socket = scene.farm.socket();
    let refusal = scene.ends().await.unwrap_err().to_string();
    assert_eq!(refusal, format!("the coordinator at unix://{} refuses this worker: who?", socket.display()));
}

#[tokio::test]
async fn a_blob_is_uploaded_once_in_chunks_and_again_where_it_broke_off() {
    let farm = FakeCoordinator::start();
    let client = FarmClient::new(&farm.address(TOKEN));
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..700_000u32).map(|place| (place % 251) as u8).collect();
    let file = folder.path().join("blob");
    std::fs::write(&file, &bytes).unwrap();
    farm.shelf().broken_uploads = 1;
    let digest = client.put_blob(&file).await.unwrap();
    assert_eq!(digest, blake3::hash(&bytes).to_hex().as_str());
    assert_eq!(farm.shelf().blobs[&digest], bytes);
    client.put_blob(&file).await.unwrap();
    assert_eq!(farm.shelf().uploads, 2, "the second time it was there");
    std::fs::write(&file, b"").unwrap();
    let empty = client.put_blob(&file).await.unwrap();
    assert!(farm.shelf().blobs[&empty].is_empty());
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke_off() {
    let farm = FakeCoordinator::start();
    let client = FarmClient::new(&farm.address(TOKEN));
    let folder = tempfile::tempdir().unwrap();
    let bytes = vec![42; 10_000];
    let digest = farm.put(&bytes);
    farm.shelf().breaks = vec![2_048, 5_120];
    let into = folder.path().join("blob");
    client.get_blob(&digest, &into).await.unwrap();
    assert_eq!(std::fs::read(&into).unwrap(), bytes);
    assert_eq!(farm.shelf().offsets, [0, 5_120, 7_168]);
    let taken = client.get_blob(&digest, &into).await.unwrap_err();
    assert!(matches!(taken, FarmError::Failed(_)), "a file that is there is not written over");
    assert_eq!(std::fs::read(&into).unwrap(), bytes);
}

#[tokio::test]
async fn a_download_that_was_given_up_is_taken_up_by_another_worker_process_at_the_same_byte() {
    let farm = FakeCoordinator::start();
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..100_000u32).map(|byte| (byte % 251) as u8).collect();
    let digest = farm.put(&bytes);
    let part = folder.path().join("part");
    // The first process ends in the midst of it: the connection stays broken after 40 kB.
    farm.shelf().breaks = [vec![0; 1_000], vec![40_960]].concat();
    let first = FarmClient::new(&farm.address(TOKEN));
    let got = |part: &std::path::Path| std::fs::metadata(part).map_or(0, |meta| meta.len());
    tokio::select! {
        ended = first.resume_blob(&digest, &part) => panic!("{ended:?}"),
        () = async {
            while farm.shelf().offsets.len() < 2 {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    drop(first);
    assert!((1..=40_960).contains(&got(&part)), "{}", got(&part));
    // What a process had in its hands and not in the file is lost with it.
    let kept = got(&part);
    (farm.shelf().breaks, farm.shelf().served) = (Vec::new(), 0);
    let second = FarmClient::new(&farm.address(TOKEN));
    second.resume_blob(&digest, &part).await.unwrap();
    assert_eq!(std::fs::read(&part).unwrap(), bytes);
    assert_eq!(farm.shelf().served as u64, bytes.len() as u64 - kept, "no byte is sent twice");
    assert_eq!(farm.shelf().offsets.last(), Some(&kept));

    // A whole file costs nothing; a wrong one is thrown away, and then fetched anew.
    farm.shelf().served = 0;
    second.resume_blob(&digest, &part).await.unwrap();
    assert_eq!(farm.shelf().served, 0);
    std::fs::write(&part, b"something else").unwrap();
    let wrong = second.resume_blob(&digest, &part).await.unwrap_err().to_string();
    assert!(wrong.contains("came with the content of") && !part.exists(), "{wrong}");
    second.resume_blob(&digest, &part).await.unwrap();
    assert_eq!(std::fs::read(&part).unwrap(), bytes);
}

#[tokio::test]
async fn a_blob_that_is_wrong_too_large_or_missing_leaves_no_file() {
    let farm = FakeCoordinator::start();
    let client = FarmClient::new(&farm.address(TOKEN));
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("blob");
    let digest = farm.put(b"right");
    farm.shelf().blobs.insert(digest.clone(), b"wrong".to_vec());
    let wrong = client.get_blob(&digest, &into).await.unwrap_err().to_string();
    assert!(wrong.contains("came with the content of"), "{wrong}");
    let missing = client.get_blob(&"0".repeat(64), &into).await.unwrap_err();
    assert!(matches!(missing, FarmError::NoBlob(_)));
    assert!(!into.exists());
    let digest = farm.put(&[7; 100]);
    assert_eq!(client.read_blob(&digest, 100).await.unwrap(), [7; 100]);
    assert!(client.read_blob(&digest, 99).await.is_err());
}

#[tokio::test]
async fn baselines_and_images_are_found_or_not() {
    let mut farm = FakeCoordinator::start();
    let client = FarmClient::new(&farm.address(TOKEN));
    farm.shelf()
        .baselines
        .insert("k".into(), andon_proto::BaselineManifest { key: "k".into(), ..Default::default() });
    farm.shelf()
        .images
        .insert("db:1".into(), andon_proto::SharedImage { reference: "db:1".into(), ..Default::default() });
    assert_eq!(client.find_baseline("k").await.unwrap().unwrap().key, "k");
    assert!(client.find_baseline("other").await.unwrap().is_none());
    // Questions outlive a restart of the coordinator.
    farm.down().await;
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.find_image("db:1").await }
    });
    tokio::task::yield_now().await;
    farm.up();
    assert_eq!(soon("the image", asking).await.unwrap().unwrap().unwrap().reference, "db:1");
    assert!(client.find_image("other").await.unwrap().is_none());
}

#[tokio::test]
async fn a_stand_that_was_not_exact_is_told_again_until_the_coordinator_has_it() {
    let mut scene = Scene::new(1);
    let mut talk = scene.farm.welcomed().await;
    talk.lane_ready().await;
    let inexact = Inexact { id: "1".into(), ..Inexact::default() };
    scene.inexact.send(inexact.clone()).await.unwrap();
    assert_eq!(talk.next().await, Some(Said::Inexact(inexact.clone())));
    drop(talk);
    let mut talk = scene.farm.welcomed().await;
    talk.lane_ready().await;
    assert_eq!(talk.next().await, Some(Said::Inexact(inexact)));
    talk.ack().await;
    // It has nothing more to say, so it need not wait for anything.
    scene.stop.cancel();
    scene.ends().await.unwrap();
}

#[tokio::test]
async fn what_a_worker_holds_is_looked_at_beside_its_work() {
    let mut scene = Scene::new(1);
    let mut talk = scene.farm.welcomed().await;
    talk.lane_ready().await;
    let unit = scene.execute(&talk, 1, 0, &[1]).await;
    let ask = VerifyBaseline { request: 7, baseline_key: "k".into(), limit_ms: 1_000 };
    talk.say(coordinator_message::Body::VerifyBaseline(ask)).await;
    let Call::Verify(key, reply) = scene.call().await else { panic!("it looks") };
    assert_eq!(key, "k");
    reply.send(Verified { refused: "not now".into(), ..Verified::default() }).unwrap();
    let answer = Verified { request: 7, refused: "not now".into(), ..Verified::default() };
    assert_eq!(talk.next().await, Some(Said::Verified(answer)));
    unit.done.send(Ok(())).unwrap();
}
