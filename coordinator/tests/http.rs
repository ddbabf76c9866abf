//! HTTP and gRPC on one TCP address of a real coordinator over SQLite: each path of the API's document answers with what the document says,
//! whatever names and messages hold; figures are entered behind a run's end.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use andon_coordinator::store::{Store, sqlite::Sqlite};
use andon_coordinator::{CoordinatorConfig, CoreConfig, Role, WhereLed, serve};
use andon_core::ids::{AttemptId, Fence, LaneIx, Lease, RunId, TestIx, WorkId, WorkerId};
use andon_core::model::{Ended, LeaseKind, Outcome, Record, RunEnd, RunHeader, RunState, Trigger, Verdict};
use andon_proto as wire;
use prost::Message;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

const CLIENT: &str = "client-token-of-the-tests";
const VIEWER: &str = "viewer-token-of-the-tests";
const DEVELOPER: &str = "developer-token-of-the-tests";
const JOIN: &str = "join-token-of-the-tests-too";
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// HTML, an escape sequence that sets a terminal's title, text that runs backwards, a quote.
const HOSTILE: &str = "<script>alert('x')</script>\u{1b}]0;gone\u{7}\u{202e}\"\\/../%2e%2e";

struct Coordinator {
    stop: CancellationToken,
    task: JoinHandle<()>,
    address: SocketAddr,
}

impl Coordinator {
    async fn start(folder: &Path) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let config = CoordinatorConfig {
            state_dir: folder.to_owned(),
            store: None,
            listen: Some(address),
            socket: None,
            client_token: CLIENT.into(),
            role_tokens: vec![(Role::Viewer, VIEWER.into()), (Role::Developer, DEVELOPER.into())],
            join_token: JOIN.into(),
            core: CoreConfig::default(),
            keep_runs: None,
            where_led: WhereLed::Refuse,
            traces: None,
        };
        let stop = CancellationToken::new();
        let serving = serve(config, stop.clone());
        let task = tokio::spawn(async move { serving.await.expect("the coordinator serves") });
        Self { stop, task, address }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(self.url("")).expect("an address is an endpoint");
        eventually("the coordinator answers", async || endpoint.connect().await.ok()).await
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        client().get(self.url(path)).send().await.expect("the coordinator answers")
    }

    async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        let status = answer.status();
        let body = answer.text().await.expect("the answer comes whole");
        assert!(status.is_success(), "{path}: {status}: {body}");
        serde_json::from_str(&body).expect("the answer is JSON")
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it stops").expect("it does not panic");
    }
}

/// Whatever proxy this machine's environment names.
fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("a client of HTTP")
}

async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let asking = async {
        loop {
            match ask().await {
                Some(found) => return found,
                None => tokio::time::sleep(POLL).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("never: {what}"))
}

fn with<T>(token: &str, body: T) -> Request<T> {
    let mut request = Request::new(body);
    let value = MetadataValue::try_from(format!("Bearer {token}")).expect("a token is ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

fn attempt(run: RunId, number: u64, outcome: Outcome, message: &str) -> Record {
    let log = zstd::bulk::compress(format!("line one\n{HOSTILE}\n").as_bytes(), 1).expect("it compresses");
    let ended = Ended {
        outcome,
        prepare_ms: 12,
        start_ms: 10,
        rebase_us: 1_500,
        run_ms: 30 + number,
        report_us: 400,
        message: message.into(),
        log_zstd: log,
        started_unix_ms: 1_800_000_000_500 + number,
        driver: "restart".into(),
    };
    Record::AttemptEnded { run, attempt: AttemptId(number), ended, at_unix_ms: 1_800_000_000_900 }
}

/// A run with three tests: one passed, one failed with a huge name and message, one flaky.
async fn fill(folder: &Path) {
    let store = Sqlite::open(&folder.join("farm.db")).await.expect("the store opens");
    let run = RunId(1);
    let rules = wire::OwnersRules::Github.into();
    let owners = wire::CodeOwners { path: "CODEOWNERS".into(), rules, text: "* @acme/shop\n".into() };
    let spec = wire::RunSpec { owners: Some(owners), ..wire::RunSpec::default() }.encode_to_vec();
    let spec_digest = blake3::hash(&spec).to_hex().to_string();
    let blobs = folder.join("blobs").join(&spec_digest[..2]);
    std::fs::create_dir_all(&blobs).expect("a folder for the blob");
    std::fs::write(blobs.join(&spec_digest), spec).expect("the blob is written");
    let header = RunHeader {
        project: "shop".into(),
        repository: HOSTILE.into(),
        commit: "c0ffee00c0ffee00".into(),
        git_ref: "refs/heads/main".into(),
        trigger: Trigger::Push,
        requested_by: HOSTILE.into(),
        spec_digest,
        dedup_key: None,
        rerun_of: None,
    };
    let moved = |state, at_unix_ms| Record::RunMoved { run, state, reason: HOSTILE.into(), at_unix_ms };
    let verdict = |test, verdict| Record::VerdictGiven { run, test: TestIx(test), verdict, run_ms: Some(30) };
    let label = wire::KeyValue { key: "org.example.note".into(), value: HOSTILE.into() };
    let manifest = |key: &str, parent: &str| wire::BaselineManifest {
        key: key.into(),
        parent_key: parent.into(),
        project: "shop".into(),
        labels: vec![label.clone()],
        built_unix_ms: 5,
        ..wire::BaselineManifest::default()
    };
    let published = |key: &str, parent: &str| Record::BaselinePublished {
        key: key.into(),
        manifest: manifest(key, parent).encode_to_vec(),
        at_unix_ms: 5,
        replaces: false,
    };
    let names = vec![
        (TestIx(0), "a.py::one".to_owned()),
        (TestIx(1), HOSTILE.to_owned()),
        (TestIx(2), "n".repeat(1 << 20)),
    ];
    let huge = format!("{HOSTILE}{}", "m".repeat(1 << 20));
    let lease = Lease { run, work: WorkId(1), fence: Fence(1) };
    let attempts = [(1, 0), (2, 1), (3, 2), (4, 2)];
    let records = [
        Record::RunCreated { run, header, at_unix_ms: 1_800_000_000_000 },
        moved(RunState::Preparing, 1_800_000_000_100),
        moved(RunState::Discovering, 1_800_000_000_300),
        published("parent", ""),
        published("key", "parent"),
        Record::BaselinePinned { run, key: "key".into() },
        Record::TestsAdded { run, suite: "it".into(), tests: names },
        Record::Leased {
            lease,
            kind: LeaseKind::Unit,
            worker: WorkerId("w1".into()),
            lane: LaneIx(0),
            attempts: attempts
                .iter()
                .map(|(attempt, test)| (AttemptId(*attempt), TestIx(*test), 7))
                .collect(),
        },
        attempt(run, 1, Outcome::Passed, ""),
        attempt(run, 2, Outcome::Failed, &huge),
        attempt(run, 3, Outcome::Failed, "first"),
        attempt(run, 4, Outcome::Passed, ""),
        verdict(0, Verdict::Passed),
        verdict(1, Verdict::Failed),
        verdict(2, Verdict::Flaky),
        Record::LeaseClosed { fence: Fence(1) },
        Record::Noted { run, text: HOSTILE.into(), log_zstd: Vec::new(), at_unix_ms: 1 },
        moved(RunState::Ended(RunEnd::Failed), 1_800_000_001_000),
    ];
    store.apply(&records).await.expect("the records are taken");
}

/// A session that stays open for as long as the sender lives.
async fn join(channel: &Channel) -> mpsc::Sender<wire::WorkerMessage> {
    let (say, said) = mpsc::channel(4);
    let hello =
        wire::Hello { worker: "w1".into(), lanes: 2, driver: "restart".into(), ..wire::Hello::default() };
    let body = Some(wire::worker_message::Body::Hello(hello));
    say.send(wire::WorkerMessage { seq: 1, body }).await.expect("open");
    let mut work = wire::work_client::WorkClient::new(channel.clone());
    let mut hear = work.session(with(JOIN, ReceiverStream::new(said))).await.expect("it joins").into_inner();
    hear.message().await.expect("the session holds");
    tokio::spawn(async move { while let Ok(Some(_)) = hear.message().await {} });
    say
}

/// The path with something in each place, and what must be asked beside it.
fn asked(path: &str) -> String {
    let filled = path
        .replace("{run}", "1")
        .replace("{test}", "1")
        .replace("{commit}", "c0ffee00")
        .replace("{project}", "shop")
        .replace("{key}", "key")
        .replace("{owner}", "%40acme%2Fshop")
        .replace("{worker}", "w1");
    if path.ends_with("/{project}/test") { format!("{filled}?suite=it&id=a.py::one") } else { filled }
}

#[tokio::test]
async fn http_and_grpc_share_an_address_and_every_path_answers_as_its_document_says() {
    let folder = tempfile::tempdir().expect("a folder");
    fill(folder.path()).await;
    let farm = Coordinator::start(folder.path()).await;
    let channel = farm.channel().await;
    let _session = join(&channel).await;

    let mut client = wire::farm_client::FarmClient::new(channel.clone());
    let runs = client.list_runs(with(CLIENT, wire::ListRunsRequest::default())).await.expect("it lists");
    assert_eq!(runs.into_inner().runs.len(), 1);
    let refused = client.list_runs(wire::ListRunsRequest::default()).await.expect_err("it needs its token");
    assert_eq!(refused.code(), Code::Unauthenticated);

    eventually("the run is entered", async || {
        let project = farm.json("/api/v1/projects/shop?days=366").await;
        (project["runs"]["items"][0]["lead_ms"] == 1_000).then_some(())
    })
    .await;

    let document = farm.json("/api/v1/openapi.json").await;
    let paths = document["paths"].as_object().expect("paths").clone();
    assert!(paths.len() > 12, "{:?}", paths.keys());
    for (path, operation) in &paths {
        let at = asked(path);
        let content = &operation["get"]["responses"]["200"]["content"];
        if content["text/plain"].is_object() {
            let answer = farm.get(&at).await;
            assert!(answer.status().is_success(), "{at}: {}", answer.status());
            assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
            assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
            assert!(answer.text().await.expect("text").contains(HOSTILE), "{at}");
            continue;
        }
        let mut schema = content["application/json"]["schema"].clone();
        schema["components"] = document["components"].clone();
        let validator = jsonschema::validator_for(&schema).expect("the schema is one");
        let answer = farm.json(&at).await;
        let mistakes: Vec<String> =
            validator.iter_errors(&answer).map(|mistake| mistake.to_string()).collect();
        assert!(mistakes.is_empty(), "{at}: {mistakes:?}");
    }

    let run = farm.json("/api/v1/runs/1").await;
    assert_eq!(run["failures"][0]["id"], HOSTILE);
    assert_eq!(run["failures"][0]["excerpt"][1], HOSTILE);
    assert_eq!(run["failures"][1]["class"], "flaky");
    let spent = serde_json::json!({
        "queue_ms": 28, "set_up_ms": 8, "rebase_us": 6_000, "start_ms": 40, "test_ms": 130, "report_us": 1_600
    });
    let wall = |name: &str| run["phases"][name].as_u64();
    let wall = ["queue_ms", "baseline_ms", "discovery_ms", "testing_ms"].map(wall);
    assert_eq!(wall, [Some(100), Some(200), Some(201), Some(499)], "together the run's second");
    assert_eq!(run["baseline_ms"], 200);
    let of_suite = &run["suites"][0]["entered"];
    assert_eq!((&run["phases"]["spent"], &of_suite["spent"]), (&spent, &spent));
    assert_eq!(
        (&of_suite["lanes"], &of_suite["attempts"], &of_suite["retries"]),
        (&1.into(), &4.into(), &1.into())
    );
    let project = farm.json("/api/v1/projects/shop?days=366").await;
    let of_run = &project["runs"]["items"][0];
    assert_eq!((&of_run["spent"], &of_run["lanes"], &of_run["retries"]), (&spent, &1.into(), &1.into()));
    assert_eq!(
        (&project["suites"][0]["figures"]["spent"], &project["suites"][0]["flow"]["red_commit"]),
        (&spent, &"c0ffee00c0ffee00".into())
    );
    let test = farm.json("/api/v1/projects/shop/test?suite=it&id=a.py::one").await;
    assert_eq!((&test["lane_ms"]["p50"], &test["history"]["items"][0]["lane_ms"]), (&44.into(), &44.into()));
    assert_eq!(test["spent"]["start_ms"], 10);
    assert_eq!((&test["standing"], &test["history"]["items"][0]["run"]), (&"steady".into(), &1.into()));
    assert_eq!(test["owners"][0], "@acme/shop");
    for (finding, remembered) in [("unclear", "unclear"), ("flaky", "flaky"), ("unclear", "flaky")] {
        let (suite, id, said) = ("it".to_owned(), "a.py::one".to_owned(), String::new());
        let cause = wire::TellCauseRequest { run: 1, suite, id, finding: finding.into(), said };
        client.tell_cause(with(CLIENT, cause)).await.expect("it is taken");
        let test = farm.json("/api/v1/projects/shop/test?suite=it&id=a.py::one").await;
        assert_eq!(test["cause"]["finding"], remembered, "what is unclear replaces nothing");
    }
    let owner = farm.json("/api/v1/projects/shop/owners/%40acme%2Fshop?days=366").await;
    assert_eq!((&owner["tests"], &owner["runs"]["items"][0]["state"]), (&1.into(), &"passed".into()));
    assert_eq!(owner["slow_tests"][0]["id"], "a.py::one");
    let request = wire::GetRunRequest { run: 1, with_tests: true };
    let told = client.get_run(with(CLIENT, request)).await.expect("it is told").into_inner();
    assert_eq!((&*told.tests[0].owners, told.tests[1].owners.len()), (&["@acme/shop".to_owned()][..], 0));
    let request = wire::GetFiguresRequest { project: "shop".into(), owners: true, ..Default::default() };
    let told = client.get_figures(with(CLIENT, request)).await.expect("it is told").into_inner().json;
    assert!(told.contains("\"owner\":\"@acme/shop\""), "{told}");
    let baseline = farm.json("/api/v1/baselines/key").await;
    assert_eq!(baseline["ancestors"][0]["line"]["key"], "parent");
    assert_eq!(baseline["runs"][0]["run"], 1);
    let worker = farm.json("/api/v1/workers/w1").await;
    assert_eq!((&worker["connected"], &worker["lanes"]), (&true.into(), &2.into()));

    let metrics = farm.get("/metrics").await.text().await.expect("text");
    assert!(metrics.contains("\nandon_lanes 2\n") && metrics.ends_with("# EOF\n"), "{metrics}");
    farm.stop().await;
}

#[tokio::test]
async fn what_is_not_there_or_makes_no_sense_is_refused_in_json_and_other_names_of_this_machine_are_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let farm = Coordinator::start(folder.path()).await;
    farm.channel().await;
    for (path, status) in [
        ("/api/v1/runs/7", 404),
        ("/api/v1/runs/18446744073709551615", 404),
        ("/api/v1/runs/7/tests/0", 404),
        ("/api/v1/projects/none", 404),
        ("/api/v1/baselines/none", 404),
        ("/api/v1/workers/none", 404),
        ("/api/v1/runs/seven", 400),
        ("/api/v1/runs?limit=many", 400),
        ("/api/v1/runs?page=2", 400),
        ("/api/v1/commits/c0", 400),
        ("/api/v1/projects/shop/test", 400),
    ] {
        let answer = farm.get(path).await;
        assert_eq!(answer.status(), status, "{path}");
        let told: Value = answer.json().await.expect("a refusal is JSON");
        assert!(told["error"].as_str().is_some_and(|said| !said.is_empty()), "{path}: {told}");
    }
    assert_eq!(farm.get("/api/v1/nothing").await.status(), 404);

    let rebound = client().get(farm.url("/api/v1/overview")).header("host", "evil.example").send().await;
    assert_eq!(rebound.expect("an answer").status(), 401);
    let posted = client().post(farm.url("/api/v1/overview")).send().await.expect("an answer");
    assert_eq!(posted.status(), 405, "there is nothing to change here");
    farm.stop().await;
}

#[tokio::test]
async fn a_viewer_looks_a_developer_runs_and_an_admin_shares_images() {
    let folder = tempfile::tempdir().expect("a folder");
    fill(folder.path()).await;
    let farm = Coordinator::start(folder.path()).await;
    let channel = farm.channel().await;
    let codes = async |token: &str| {
        let mut farm = wire::farm_client::FarmClient::new(channel.clone());
        let mut blobs = wire::blobs_client::BlobsClient::new(channel.clone());
        let list = farm.list_runs(with(token, wire::ListRunsRequest::default())).await.err();
        let again = wire::RerunRequest { run: 77, failed: true, ..wire::RerunRequest::default() };
        let rerun = farm.rerun(with(token, again)).await.err();
        let cancel = wire::CancelRunRequest { run: 77, ..wire::CancelRunRequest::default() };
        let cancel = farm.cancel_run(with(token, cancel)).await.err();
        let submit = farm.submit_run(with(token, wire::SubmitRunRequest::default())).await.err();
        let has = blobs.has(with(token, wire::HasBlobsRequest::default())).await.err();
        let image = farm.add_image(with(token, wire::SharedImage::default())).await.err();
        let cause = wire::TellCauseRequest { run: 77, finding: "real".into(), ..Default::default() };
        let cause = farm.tell_cause(with(token, cause)).await.err();
        [list, rerun, cancel, submit, has, image, cause]
            .map(|error| error.map_or(Code::Ok, |status| status.code()))
    };
    use Code::{InvalidArgument, NotFound, Ok, PermissionDenied as Denied, Unauthenticated as Nobody};
    assert_eq!(codes(VIEWER).await, [Ok, Denied, Denied, Denied, Denied, Denied, Denied]);
    assert_eq!(codes(DEVELOPER).await, [Ok, NotFound, NotFound, InvalidArgument, Ok, Denied, NotFound]);
    assert_eq!(codes(CLIENT).await, [Ok, NotFound, NotFound, InvalidArgument, Ok, InvalidArgument, NotFound]);
    assert_eq!(codes("somebody-else-s-token").await, [Nobody; 7]);
    assert_eq!(codes(JOIN).await, [Nobody, Nobody, Nobody, Nobody, Ok, Nobody, Nobody]);
    let mut client = wire::farm_client::FarmClient::new(channel.clone());
    let refused = client.submit_run(with(VIEWER, wire::SubmitRunRequest::default())).await;
    let refused = refused.expect_err("a viewer looks");
    assert_eq!(refused.message(), "the token is a viewer's: this takes a developer's");
    farm.stop().await;
}
