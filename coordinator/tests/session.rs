//! The services over real gRPC and real SQLite, with a worker played by hand.

#[path = "session/asked.rs"]
mod asked;
#[path = "session/exact.rs"]
mod exact;
#[path = "session/look.rs"]
mod look;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use andon_coordinator::{CoordinatorConfig, CoreConfig, WhereLed, serve};
use andon_proto as wire;
use andon_proto::coordinator_message::Body as Told;
use andon_proto::worker_message::Body as Said;
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

const CLIENT: &str = "client-token-of-the-tests";
const JOIN: &str = "join-token-of-the-tests-too";
const PATIENCE: Duration = Duration::from_secs(20);

struct Coordinator {
    stop: CancellationToken,
    task: JoinHandle<()>,
    socket: std::path::PathBuf,
}

impl Coordinator {
    async fn start(folder: &Path) -> Self {
        let started = Self::begin(folder, WhereLed::Refuse);
        started.channel().await;
        started
    }

    fn begin(folder: &Path, where_led: WhereLed) -> Self {
        let socket = folder.join("coordinator.sock");
        let config = CoordinatorConfig {
            state_dir: folder.join("state"),
            store: None,
            listen: None,
            socket: Some(socket.clone()),
            client_token: CLIENT.into(),
            role_tokens: Vec::new(),
            join_token: JOIN.into(),
            core: CoreConfig::default(),
            keep_runs: None,
            where_led,
            traces: None,
        };
        let stop = CancellationToken::new();
        let serving = serve(config, stop.clone());
        let task = tokio::spawn(async move { serving.await.expect("the coordinator serves") });
        Self { stop, task, socket }
    }

    async fn channel(&self) -> Channel {
        let url = format!("unix://{}", self.socket.display());
        let connecting = async {
            loop {
                match Endpoint::from_shared(url.clone()).expect("a socket is an endpoint").connect().await {
                    Ok(channel) => return channel,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, connecting).await.expect("the coordinator answers")
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it stops").expect("it does not panic");
    }
}

fn with<T>(token: &str, body: T) -> Request<T> {
    let mut request = Request::new(body);
    let value = MetadataValue::try_from(format!("Bearer {token}")).expect("a token is ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

async fn put(channel: &Channel, bytes: Vec<u8>) -> String {
    let digest = blake3::hash(&bytes).to_hex().to_string();
    let chunk = wire::BlobChunk { digest: digest.clone(), data: bytes };
    let mut blobs = wire::blobs_client::BlobsClient::new(channel.clone());
    blobs.put(with(CLIENT, tokio_stream::iter([chunk]))).await.expect("the blob is taken");
    digest
}

async fn spec(channel: &Channel) -> String {
    let source_digest = put(channel, b"source".to_vec()).await;
    let suite = wire::Suite { name: "it".into(), ..wire::Suite::default() };
    let spec = wire::RunSpec {
        project: "shop".into(),
        commit: "c0ffee".into(),
        source_digest,
        suites: vec![suite],
        ..wire::RunSpec::default()
    };
    put(channel, spec.encode_to_vec()).await
}

async fn submit(channel: &Channel, key: &str) -> wire::SubmitRunResponse {
    let spec_digest = spec(channel).await;
    let request = wire::SubmitRunRequest { spec_digest, dedup_key: key.into(), tests: Vec::new() };
    let mut farm = wire::farm_client::FarmClient::new(channel.clone());
    farm.submit_run(with(CLIENT, request)).await.expect("the run is taken").into_inner()
}

async fn get(channel: &Channel, run: u64) -> wire::Run {
    let mut farm = wire::farm_client::FarmClient::new(channel.clone());
    let request = wire::GetRunRequest { run, with_tests: true };
    farm.get_run(with(CLIENT, request)).await.expect("the run is there").into_inner()
}

struct Worker {
    seq: u64,
    say: mpsc::Sender<wire::WorkerMessage>,
    hear: Streaming<wire::CoordinatorMessage>,
}

impl Worker {
    async fn join(channel: &Channel, token: &str, held: Vec<wire::Lease>) -> Result<Self, Status> {
        Self::join_as("w1", channel, token, held).await
    }

    async fn join_as(
        name: &str,
        channel: &Channel,
        token: &str,
        held: Vec<wire::Lease>,
    ) -> Result<Self, Status> {
        let (say, said) = mpsc::channel(64);
        let hello = wire::Hello { worker: name.into(), lanes: 1, held, ..wire::Hello::default() };
        say.send(wire::WorkerMessage { seq: 1, body: Some(Said::Hello(hello)) }).await.expect("open");
        let mut work = wire::work_client::WorkClient::new(channel.clone());
        let hear = work.session(with(token, ReceiverStream::new(said))).await?.into_inner();
        Ok(Self { seq: 1, say, hear })
    }

    async fn say(&mut self, body: Said) -> u64 {
        self.seq += 1;
        let message = wire::WorkerMessage { seq: self.seq, body: Some(body) };
        self.say.send(message).await.expect("the session is open");
        self.seq
    }

    async fn report(&mut self, lease: wire::Lease, body: wire::report::Body) -> u64 {
        self.say(Said::Report(wire::Report { lease: Some(lease), body: Some(body) })).await
    }

    async fn hear_until<T>(&mut self, wanted: impl Fn(Told) -> Option<T>) -> T {
        let hearing = async {
            loop {
                let message = self.hear.message().await.expect("the session holds").expect("it goes on");
                if let Some(found) = message.body.and_then(&wanted) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, hearing).await.expect("it is said")
    }

    async fn assignment(&mut self) -> (wire::Lease, wire::assign::Work) {
        self.hear_until(|told| match told {
            Told::Assign(assign) => Some((assign.lease?, assign.work?)),
            _ => None,
        })
        .await
    }

    async fn acknowledged(&mut self, seq: u64) {
        self.hear_until(|told| matches!(told, Told::Ack(ack) if ack.seq >= seq).then_some(())).await;
    }

    async fn ready(&mut self) {
        self.say(Said::LaneReady(wire::LaneReady { lane: 0, baseline_key: String::new() })).await;
    }

    /// Takes the discovery and names these tests.
    async fn discover(&mut self, tests: &[&str]) {
        self.ready().await;
        let (lease, work) = self.assignment().await;
        assert!(matches!(work, wire::assign::Work::Discover(_)), "{work:?}");
        let tests = tests.iter().map(|id| (*id).to_owned()).collect();
        let found = wire::Discovered { tests, log_zstd: Vec::new() };
        self.report(lease, wire::report::Body::Discovered(found)).await;
        self.ready().await;
    }

    async fn pass(&mut self, lease: wire::Lease, work: &wire::assign::Work) -> u64 {
        let wire::assign::Work::Execute(execute) = work else { panic!("{work:?}") };
        let mut seq = 0;
        for test in &execute.tests {
            let mut result = wire::TestResult { attempt: test.attempt, run_ms: 3, ..Default::default() };
            result.set_outcome(wire::Outcome::Passed);
            seq = self.report(lease, wire::report::Body::TestResult(result)).await;
        }
        self.report(lease, wire::report::Body::UnitEnded(wire::UnitEnded {})).await.max(seq)
    }
}

#[tokio::test]
async fn without_the_right_token_nothing_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let channel = coordinator.channel().await;
    let mut farm = wire::farm_client::FarmClient::new(channel.clone());
    for token in ["", "wrong-token-wrong-token", JOIN] {
        let refused = farm.list_workers(with(token, wire::ListWorkersRequest {})).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{token}");
    }
    let refused = Worker::join(&channel, CLIENT, vec![]).await.err().expect("a client is no worker");
    assert_eq!(refused.code(), Code::Unauthenticated);
    coordinator.stop().await;
}

#[tokio::test]
async fn a_run_is_persisted_before_it_is_acknowledged_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let channel = coordinator.channel().await;
    let run = submit(&channel, "push:shop:c0ffee").await.run;
    let again = submit(&channel, "push:shop:c0ffee").await;
    assert_eq!((again.run, again.existed), (run, true), "one commit is one run");

    let mut worker = Worker::join(&channel, JOIN, vec![]).await.unwrap();
    worker.discover(&["a", "b"]).await;
    let (first, work) = worker.assignment().await;
    let seq = worker.pass(first, &work).await;
    worker.acknowledged(seq).await;
    worker.ready().await;
    let (held, rest) = worker.assignment().await;
    drop(worker);
    drop(channel);
    coordinator.stop().await;

    let coordinator = Coordinator::start(folder.path()).await;
    let channel = coordinator.channel().await;
    let before = get(&channel, run).await;
    assert_eq!(before.counts.unwrap().passed, 1, "what was acknowledged is there");
    let mut worker = Worker::join(&channel, JOIN, vec![held]).await.unwrap();
    let seq = worker.pass(held, &rest).await;
    worker.acknowledged(seq).await;
    let after = get(&channel, run).await;
    assert_eq!(after.state(), wire::RunState::Passed);
    let attempts: Vec<_> = after.tests.iter().map(|test| test.attempts.len()).collect();
    assert_eq!(attempts, [1, 1], "the restart cost no test a second attempt");
    coordinator.stop().await;
}

#[tokio::test]
async fn a_published_baseline_is_found_by_its_root_and_by_its_own_project_alone() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let channel = coordinator.channel().await;
    let source_digest = put(&channel, b"source".to_vec()).await;
    let spec = wire::RunSpec {
        project: "shop".into(),
        commit: "c0ffee".into(),
        source_digest,
        stack: Some(wire::Stack { services: vec![wire::Service::default()], ..Default::default() }),
        suites: vec![wire::Suite { name: "it".into(), ..wire::Suite::default() }],
        ..wire::RunSpec::default()
    };
    let spec_digest = put(&channel, spec.encode_to_vec()).await;
    let mut farm = wire::farm_client::FarmClient::new(channel.clone());
    let request = wire::SubmitRunRequest { spec_digest, ..Default::default() };
    farm.submit_run(with(CLIENT, request)).await.unwrap();
    let mut worker = Worker::join(&channel, JOIN, vec![]).await.unwrap();
    worker.ready().await;
    let (lease, work) = worker.assignment().await;
    assert!(matches!(work, wire::assign::Work::PrepareBaseline(_)), "{work:?}");
    let manifest = wire::BaselineManifest {
        key: "k".repeat(64),
        root_key: "r".repeat(64),
        project: "shop".into(),
        ..wire::BaselineManifest::default()
    };
    let ready = wire::BaselineReady { manifest: Some(manifest.clone()), built: true, replaces: false };
    let seq = worker.report(lease, wire::report::Body::BaselineReady(ready)).await;
    worker.acknowledged(seq).await;

    let mut asking = wire::work_client::WorkClient::new(channel.clone());
    let mut related = async |root: &str, project: &str| {
        let (root_key, project) = (root.repeat(64), project.to_owned());
        let request = wire::FindBaselineRequest { key: String::new(), root_key, project };
        asking.find_baseline(with(JOIN, request)).await.unwrap().into_inner().related
    };
    assert_eq!(related("r", "shop").await, [manifest]);
    assert_eq!(related("r", "another").await, []);
    assert_eq!(related("q", "shop").await, []);
    coordinator.stop().await;
}

#[tokio::test]
async fn a_standby_takes_over_what_the_first_had() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Coordinator::start(folder.path()).await;
    let standby = Coordinator::begin(folder.path(), WhereLed::StandBy);
    let run = submit(&first.channel().await, "push-1").await.run;
    assert!(!standby.task.is_finished(), "it waits");
    first.stop().await;
    assert_eq!(get(&standby.channel().await, run).await.project, "shop");
    standby.stop().await;
}

#[tokio::test]
async fn what_a_unit_printed_can_be_read_while_it_runs_also_after_a_crash() {
    let folder = tempfile::tempdir().expect("a folder");
    let coordinator = Coordinator::start(folder.path()).await;
    let channel = coordinator.channel().await;
    let mut worker = Worker::join(&channel, JOIN, vec![]).await.expect("the worker joins");
    let run = submit(&channel, "push-1").await.run;
    worker.discover(&["slow"]).await;
    let (lease, _) = worker.assignment().await;
    let piece = |starts, text: &str| wire::OutputPiece {
        starts,
        raw_bytes: u32::try_from(text.len()).expect("short"),
        zstd: zstd::bulk::compress(text.as_bytes(), 1).expect("it compresses"),
    };
    worker.report(lease, wire::report::Body::Output(piece(0, "one\n"))).await;
    let forged = wire::Lease { fence: lease.fence + 1, ..lease };
    worker.report(forged, wire::report::Body::Output(piece(4, "forged\n"))).await;
    // As after a gap; then once more, as after a broken connection.
    worker.report(lease, wire::report::Body::Output(piece(9, "two\n"))).await;
    let said = worker.report(lease, wire::report::Body::Output(piece(9, "two\n"))).await;
    worker.acknowledged(said).await;
    coordinator.stop().await;

    let coordinator = Coordinator::start(folder.path()).await;
    let mut farm = wire::farm_client::FarmClient::new(coordinator.channel().await);
    let request = wire::GetLogRequest { run, test: "slow".into(), ..wire::GetLogRequest::default() };
    let log = farm.get_log(with(CLIENT, request)).await.expect("there is a log").into_inner();
    assert_eq!(String::from_utf8_lossy(&log.text), "one\n[… 5 bytes are missing …]\ntwo\n");
    coordinator.stop().await;
}

#[tokio::test]
async fn watchers_see_the_run_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let channel = coordinator.channel().await;
    let run = submit(&channel, "").await.run;
    let mut farm = wire::farm_client::FarmClient::new(channel.clone());
    let mut events = farm.watch_run(with(CLIENT, wire::WatchRunRequest { run })).await.unwrap().into_inner();
    let mut worker = Worker::join(&channel, JOIN, vec![]).await.unwrap();
    worker.discover(&["only"]).await;
    let (lease, work) = worker.assignment().await;
    worker.pass(lease, &work).await;
    let (mut states, mut verdicts) = (Vec::new(), Vec::new());
    let watching = async {
        while let Some(event) = events.message().await.expect("the stream holds") {
            match event.event {
                Some(wire::run_event::Event::Run(run)) => states.push(run.state()),
                Some(wire::run_event::Event::Verdict(test)) => {
                    verdicts.push((test.id.clone(), test.verdict()));
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, watching).await.expect("the stream ends with the run");
    assert_eq!(states.last(), Some(&wire::RunState::Passed));
    assert_eq!(verdicts, [("only".to_owned(), wire::Verdict::Passed)]);
    coordinator.stop().await;
}

#[tokio::test]
async fn a_rerun_takes_the_failed_tests_alone() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let channel = coordinator.channel().await;
    let run = submit(&channel, "").await.run;
    let mut worker = Worker::join(&channel, JOIN, vec![]).await.unwrap();
    worker.discover(&["good", "bad"]).await;
    for _ in 0..2 {
        let (lease, work) = worker.assignment().await;
        let wire::assign::Work::Execute(execute) = &work else { panic!("{work:?}") };
        let mut result = wire::TestResult { attempt: execute.tests[0].attempt, ..Default::default() };
        let bad = execute.tests[0].id == "bad";
        result.set_outcome(if bad { wire::Outcome::Failed } else { wire::Outcome::Passed });
        worker.report(lease, wire::report::Body::TestResult(result)).await;
        worker.report(lease, wire::report::Body::UnitEnded(wire::UnitEnded {})).await;
        worker.ready().await;
    }
    let mut farm = wire::farm_client::FarmClient::new(channel.clone());
    let ended = async {
        while get(&channel, run).await.ended_unix_ms == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the run ends");
    assert_eq!(get(&channel, run).await.state(), wire::RunState::Failed);
    let unknown = wire::RerunRequest { run, tests: vec!["nobody".into()], ..Default::default() };
    assert_eq!(farm.rerun(with(CLIENT, unknown)).await.unwrap_err().code(), Code::NotFound);

    let request = wire::RerunRequest { run, failed: true, dedup_key: "rerun:1".into(), ..Default::default() };
    let rerun = farm.rerun(with(CLIENT, request.clone())).await.unwrap().into_inner().run;
    let again = farm.rerun(with(CLIENT, request)).await.unwrap().into_inner();
    assert_eq!((again.run, again.existed), (rerun, true), "asked twice, it is one rerun");
    let (lease, work) = worker.assignment().await;
    let seq = worker.pass(lease, &work).await;
    worker.acknowledged(seq).await;
    let rerun = get(&channel, rerun).await;
    let names: Vec<_> = rerun.tests.iter().map(|test| test.id.as_str()).collect();
    assert_eq!((names, rerun.state(), rerun.rerun_of), (vec!["bad"], wire::RunState::Passed, run));
    coordinator.stop().await;
}

#[tokio::test]
async fn hostile_workers_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let channel = coordinator.channel().await;
    let run = submit(&channel, "").await.run;
    let mut worker = Worker::join(&channel, JOIN, vec![]).await.unwrap();
    let forged = wire::Lease { run, lease: 1, fence: 77 };
    worker.report(forged, wire::report::Body::UnitEnded(wire::UnitEnded {})).await;
    let result = wire::TestResult { attempt: 1, outcome: wire::Outcome::Passed.into(), ..Default::default() };
    worker.report(forged, wire::report::Body::TestResult(result)).await;
    let void =
        worker.hear_until(|told| if let Told::Superseded(void) = told { void.lease } else { None }).await;
    assert_eq!(void, forged);

    worker.discover(&["twice", "twice"]).await;
    let ended = async {
        while get(&channel, run).await.ended_unix_ms == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the run ends");
    let run = get(&channel, run).await;
    assert_eq!(run.state(), wire::RunState::ConfigError);
    assert!(run.reason.contains("\"twice\" twice"), "{}", run.reason);
    coordinator.stop().await;
}

#[tokio::test]
async fn a_flood_of_forged_reports_harms_nobody() {
    const FLOOD: u64 = 1_000_000;
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let channel = coordinator.channel().await;
    let hostile = Worker::join_as("hostile", &coordinator.channel().await, JOIN, vec![]).await.unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let flood = tokio::spawn(async move {
        // It never listens: its session is closed before it has filled anybody's memory.
        let Worker { say, hear: _hear, .. } = hostile;
        for seq in 2..FLOOD {
            let lease = wire::Lease { run: 1, lease: 1, fence: seq };
            let result = wire::TestResult {
                attempt: seq,
                outcome: wire::Outcome::Passed.into(),
                ..Default::default()
            };
            let body =
                wire::Report { lease: Some(lease), body: Some(wire::report::Body::TestResult(result)) };
            let message = wire::WorkerMessage { seq, body: Some(Said::Report(body)) };
            if say.send(message).await.is_err() {
                break;
            }
            counted.store(seq, Ordering::Relaxed);
        }
    });
    let run = submit(&channel, "").await.run;
    let mut honest = Worker::join(&channel, JOIN, vec![]).await.unwrap();
    honest.discover(&["a", "b"]).await;
    for _ in 0..2 {
        let (lease, work) = honest.assignment().await;
        honest.pass(lease, &work).await;
        honest.ready().await;
    }
    let ended = async {
        while get(&channel, run).await.ended_unix_ms == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the run ends beside the flood");
    assert_eq!(get(&channel, run).await.state(), wire::RunState::Passed);
    let closed = async {
        let mut farm = wire::farm_client::FarmClient::new(channel.clone());
        loop {
            let listed = farm.list_workers(with(CLIENT, wire::ListWorkersRequest {})).await.expect("a list");
            if listed.into_inner().workers.iter().any(|worker| worker.name == "hostile" && !worker.connected)
            {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("the session of the flood is closed");
    assert!(sent.load(Ordering::Relaxed) < FLOOD - 1, "all of it was taken");
    // Who is not read any more may wait for ever.
    flood.abort();
    coordinator.stop().await;
}
