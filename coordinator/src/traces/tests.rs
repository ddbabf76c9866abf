//! Against a collector that is a real HTTP server on loopback and takes the requests apart as any would.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;

use andon_core::ids::{AttemptId, Fence, LaneIx, Lease, TestIx, WorkId, WorkerId};
use andon_core::model::{Ended, LeaseKind, Outcome, Record, RunEnd, RunHeader, RunState, Trigger, Verdict};
use andon_figures::trace::NAME_MAX;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message as _;
use tokio::net::TcpListener;

use super::*;
use crate::owning::Owning;
use crate::store::memory::Memory;
use crate::views::entering;

const RUN: RunId = RunId(7);
const CREATED_MS: u64 = 1_800_000_000_000;
const LEASED_MS: u64 = CREATED_MS + 200;
const ENDED_MS: u64 = CREATED_MS + 9_000;
/// Long enough for a machine that does other things.
const DEADLINE: Duration = Duration::from_secs(60);
const SECRET: &str = "hunter2";

fn header(run: RunId) -> RunHeader {
    RunHeader {
        project: "shop".into(),
        repository: format!("https://bot:{SECRET}@forge.example/shop.git?token={SECRET}"),
        commit: format!("c0ffee{}", run.0),
        git_ref: "refs/heads/main".into(),
        trigger: Trigger::Push,
        requested_by: "hook".into(),
        spec_digest: "d1".into(),
        dedup_key: None,
        rerun_of: None,
    }
}

fn moved(run: RunId, state: RunState, at_unix_ms: u64) -> Record {
    Record::RunMoved { run, state, reason: format!("a seed said {SECRET}"), at_unix_ms }
}

/// One attempt of a test of its own; 100 ms after the one before.
fn attempt(run: RunId, number: u64, outcome: Outcome) -> Record {
    let ended = Ended {
        outcome,
        prepare_ms: 20,
        start_ms: 15,
        rebase_us: 1_500,
        run_ms: 50,
        report_us: 400,
        message: format!("password {SECRET}"),
        log_zstd: Vec::new(),
        started_unix_ms: LEASED_MS + 800 + 100 * number,
        driver: "restart".into(),
    };
    Record::AttemptEnded { run, attempt: AttemptId(number), ended, at_unix_ms: ENDED_MS }
}

/// A run with as many tests as outcomes, each attempted once.
fn whole(run: RunId, ids: &[String], outcomes: &[Outcome]) -> Vec<Record> {
    let lease = Lease { run, work: WorkId(1), fence: Fence(run.0) };
    let places = || (0..).map(TestIx).zip(ids);
    let mut records = vec![
        Record::RunCreated { run, header: header(run), at_unix_ms: CREATED_MS },
        moved(run, RunState::Preparing, LEASED_MS),
        Record::BaselinePinned { run, key: "k".into() },
        Record::TestsAdded {
            run,
            suite: "it".into(),
            tests: places().map(|(at, id)| (at, id.clone())).collect(),
        },
        Record::Leased {
            lease,
            kind: LeaseKind::Unit,
            worker: WorkerId("w1".into()),
            lane: LaneIx(1),
            attempts: places().zip(1..).map(|((at, _), number)| (AttemptId(number), at, 7)).collect(),
        },
    ];
    let passed =
        |outcome: &Outcome| if *outcome == Outcome::Passed { Verdict::Passed } else { Verdict::Failed };
    for ((test, _), (outcome, number)) in places().zip(outcomes.iter().zip(1..)) {
        records.push(attempt(run, number, *outcome));
        records.push(Record::VerdictGiven { run, test, verdict: passed(outcome), run_ms: Some(50) });
    }
    let is_green = outcomes.iter().all(|outcome| *outcome == Outcome::Passed);
    let end = if is_green { RunEnd::Passed } else { RunEnd::Failed };
    records.push(Record::LeaseClosed { fence: lease.fence });
    records.push(moved(run, RunState::Ended(end), ENDED_MS));
    records
}

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

async fn stored(records: Vec<Record>) -> Arc<Memory> {
    let store = Arc::new(Memory::default());
    store.apply(&records).await.expect("the records are taken");
    store
}

/// What came, and what is answered first.
#[derive(Default)]
struct Taken {
    requests: Vec<(HeaderMap, ExportTraceServiceRequest)>,
    first_answers: VecDeque<StatusCode>,
    refused: u64,
}

#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Taken>>);

impl Receiver {
    /// Serves until the test's runtime ends. With its address.
    async fn start(first_answers: &[u16]) -> (Self, String) {
        let receiver = Self::default();
        let codes = first_answers.iter().map(|code| StatusCode::from_u16(*code).expect("a status"));
        receiver.taken().first_answers.extend(codes);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}/v1/traces", listener.local_addr().expect("it is bound"));
        let router = axum::Router::new().route("/v1/traces", post(take)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, url)
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.0.lock().expect("nobody panics with it")
    }

    /// So many requests were not taken at first, and so many were.
    fn answered(&self) -> (u64, usize) {
        let taken = self.taken();
        (taken.refused, taken.requests.len())
    }

    fn spans(&self) -> Vec<Span> {
        let taken = self.taken();
        let resources = taken.requests.iter().flat_map(|(_, request)| &request.resource_spans);
        resources.flat_map(|of| &of.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    let mut taken = receiver.taken();
    if let Some(status) = taken.first_answers.pop_front() {
        taken.refused += 1;
        return (status, [(header::RETRY_AFTER, "0")]);
    }
    let request = ExportTraceServiceRequest::decode(body).expect("it is OTLP in protobuf");
    taken.requests.push((headers, request));
    (StatusCode::OK, [(header::RETRY_AFTER, "0")])
}

fn collector(endpoint: &str) -> Collector {
    let headers = vec![("api-key".to_owned(), "of the farm".to_owned())];
    let service_name = "farm-of-tests".to_owned();
    Collector::new(&TracesConfig { endpoint: endpoint.to_owned(), headers, service_name })
        .expect("an address of HTTP")
}

/// Sends these runs and answers when all of them are sent or dropped, with what was counted.
async fn export(endpoint: &str, store: &Arc<Memory>, runs: &[RunId]) -> (u64, u64, u64) {
    export_within(DEADLINE, endpoint, store, runs).await
}

async fn export_within(
    patience: Duration,
    endpoint: &str,
    store: &Arc<Memory>,
    runs: &[RunId],
) -> (u64, u64, u64) {
    let meters = Arc::new(Meters::default());
    let (traces, mut exporter) =
        open(collector(endpoint), Arc::clone(store) as Arc<dyn Store>, Arc::clone(&meters));
    exporter.patience = patience;
    runs.iter().for_each(|run| traces.offer(*run));
    drop(traces);
    exporter.run(CancellationToken::new()).await;
    counted(&meters)
}

/// Exported, dropped for want of room, dropped by the collector.
fn counted(meters: &Meters) -> (u64, u64, u64) {
    let dropped = |why| meters.traces_dropped(why);
    (meters.traces_exported(), dropped(TraceLoss::Queue), dropped(TraceLoss::Collector))
}

fn word<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

const MS: u64 = 1_000_000;

#[tokio::test]
async fn a_run_that_was_entered_is_one_trace_from_push_to_status() {
    let (receiver, url) = Receiver::start(&[]).await;
    let tests = ids(&["a.py::one", "a.py::two", "a.py::three"]);
    let outcomes = [Outcome::Passed, Outcome::Failed, Outcome::Passed];
    let store = stored(whole(RUN, &tests, &outcomes)).await;
    let meters = Arc::new(Meters::default());
    let (traces, exporter) = open(collector(&url), Arc::clone(&store) as Arc<dyn Store>, Arc::clone(&meters));
    for expected in [1, 0] {
        let offer = |run| traces.offer(run);
        let entered = entering::step(&*store, &Owning::silent(), offer).await.expect("it is entered");
        assert_eq!(entered, expected, "a run is entered, and offered, once");
    }
    drop(traces);
    exporter.run(CancellationToken::new()).await;
    assert_eq!(counted(&meters), (1, 0, 0));

    let spans = receiver.spans();
    let by_id: BTreeMap<&[u8], &Span> = spans.iter().map(|span| (span.span_id.as_slice(), span)).collect();
    assert_eq!(by_id.len(), spans.len(), "each span has an id of its own");
    assert_eq!(spans.iter().map(|span| &span.trace_id).collect::<BTreeSet<_>>().len(), 1);
    let roots: Vec<_> = spans.iter().filter(|span| span.parent_span_id.is_empty()).collect();
    let [root] = roots[..] else { panic!("one root is expected: {roots:?}") };
    assert_eq!((root.trace_id.len(), root.span_id.len()), (16, 8));
    assert_eq!(
        (root.name.as_str(), root.start_time_unix_nano, root.end_time_unix_nano),
        ("RUN shop", CREATED_MS * MS, ENDED_MS * MS)
    );
    for (key, expected) in [
        ("cicd.pipeline.run.id", "7"),
        ("cicd.pipeline.result", "failure"),
        ("error.type", "failed"),
        ("vcs.ref.head.name", "main"),
        ("vcs.ref.head.type", "branch"),
        ("vcs.ref.head.revision", "c0ffee7"),
        ("vcs.repository.url.full", "https://forge.example/shop.git"),
    ] {
        assert_eq!(word(root, key), Some(expected), "{key}");
    }

    let parent = |span: &Span| *by_id.get(span.parent_span_id.as_slice()).expect("its parent came, too");
    for span in spans.iter().filter(|span| !span.parent_span_id.is_empty()) {
        let parent = parent(span);
        assert!(parent.start_time_unix_nano <= span.start_time_unix_nano, "{} in {}", span.name, parent.name);
        assert!(parent.end_time_unix_nano >= span.end_time_unix_nano, "{} in {}", span.name, parent.name);
    }
    let below = |name: &str| -> Vec<(&str, u64, u64)> {
        let of = spans.iter().filter(|span| !span.parent_span_id.is_empty() && parent(span).name == name);
        let since = |nanos: u64| (nanos - CREATED_MS * MS) / 1_000;
        of.map(|span| (span.name.as_str(), since(span.start_time_unix_nano), since(span.end_time_unix_nano)))
            .collect()
    };
    assert_eq!(
        below("RUN shop"),
        [
            ("queue", 0, 200_000),
            ("baseline and discovery", 200_000, 1_078_500),
            ("tests", 1_078_500, 9_000_000)
        ]
    );
    assert_eq!(
        below("tests"),
        [
            ("a.py::one", 1_078_500, 1_150_400),
            ("a.py::two", 1_178_500, 1_250_400),
            ("a.py::three", 1_278_500, 1_350_400)
        ]
    );
    assert_eq!(
        below("a.py::two"),
        [
            ("rebase", 1_178_500, 1_180_000),
            ("prepare", 1_180_000, 1_185_000),
            ("start", 1_185_000, 1_200_000),
            ("test", 1_200_000, 1_250_000),
            ("report", 1_250_000, 1_250_400)
        ]
    );
    let two = spans.iter().find(|span| span.name == "a.py::two").expect("it is there");
    assert_eq!(
        (word(two, "test.case.result.status"), word(two, "cicd.worker.name")),
        (Some("fail"), Some("w1"))
    );
    assert_eq!(two.status.as_ref().expect("it failed").code(), SpanStatus::Error);

    let taken = receiver.taken();
    let (headers, request) = &taken.requests[0];
    assert_eq!(headers[header::CONTENT_TYPE], "application/x-protobuf");
    assert_eq!(headers["api-key"], "of the farm");
    let bytes = request.encode_to_vec();
    let leaks = bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
    assert!(!leaks, "messages, reasons and credentials stay here");
}

#[tokio::test]
async fn a_run_that_is_sent_again_is_the_same_trace_and_another_one_is_not() {
    let (receiver, url) = Receiver::start(&[]).await;
    let tests = ids(&["a", "b"]);
    let outcomes = [Outcome::Passed; 2];
    let other = RunId(8);
    let records = [whole(RUN, &tests, &outcomes), whole(other, &tests, &outcomes)].concat();
    let store = stored(records).await;
    // Each is a coordinator of its own, as after a restart.
    export(&url, &store, &[RUN]).await;
    let first = receiver.spans();
    export(&url, &store, &[RUN]).await;
    assert_eq!(receiver.spans(), [first.clone(), first.clone()].concat());
    export(&url, &store, &[other]).await;
    let traces: BTreeSet<_> = receiver.spans().into_iter().map(|span| span.trace_id).collect();
    assert_eq!(traces.len(), 2);
}

#[tokio::test]
async fn a_large_run_comes_in_parts_and_whole() {
    let (receiver, url) = Receiver::start(&[]).await;
    let tests: Vec<_> = (0..2 * TESTS_MAX + 1).map(|test| format!("t{test}")).collect();
    let store = stored(whole(RUN, &tests, &vec![Outcome::Passed; tests.len()])).await;
    assert_eq!(export(&url, &store, &[RUN]).await, (1, 0, 0));
    let spans = receiver.spans();
    assert_eq!(spans.len(), tests.len() * 6 + 4, "each attempt with five phases; the run with three");
    assert_eq!(spans.iter().map(|span| &span.trace_id).collect::<BTreeSet<_>>().len(), 1);
    assert_eq!(spans.iter().map(|span| &span.span_id).collect::<BTreeSet<_>>().len(), spans.len());
    let sizes =
        receiver.taken().requests.iter().map(|(_, request)| request.encoded_len()).collect::<Vec<_>>();
    assert!(sizes.len() > 1 && sizes.iter().all(|size| *size < 4 << 20), "{sizes:?}");
}

#[tokio::test]
async fn a_collector_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    let store = stored(whole(RUN, &ids(&["a"]), &[Outcome::Passed])).await;
    let (receiver, url) = Receiver::start(&[503, 429]).await;
    assert_eq!(export(&url, &store, &[RUN]).await, (1, 0, 0));
    assert_eq!(receiver.answered(), (2, 1));

    let (receiver, url) = Receiver::start(&[400]).await;
    assert_eq!(export(&url, &store, &[RUN, RUN]).await, (1, 0, 1), "the next one goes its way");
    assert_eq!(receiver.answered(), (1, 1));
}

#[tokio::test]
async fn a_collector_that_is_away_or_silent_is_given_up_and_counted() {
    let store = stored(whole(RUN, &ids(&["a"]), &[Outcome::Passed])).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = format!("http://{}/v1/traces", listener.local_addr().expect("it is bound"));
    let patience = Duration::from_millis(100);
    // Connections are taken, and nobody answers.
    assert_eq!(export_within(patience, &address, &store, &[RUN]).await, (0, 0, 1));
    drop(listener);
    assert_eq!(export_within(patience, &address, &store, &[RUN, RUN]).await, (0, 0, 2));
}

#[tokio::test]
async fn what_finds_no_room_is_dropped_and_counted_and_nobody_waits() {
    let meters = Arc::new(Meters::default());
    let store = Arc::new(Memory::default()) as Arc<dyn Store>;
    let (traces, exporter) = open(collector("http://127.0.0.1:9"), store, Arc::clone(&meters));
    (0..QUEUE_MAX as u64 + 3).for_each(|run| traces.offer(RunId(run)));
    assert_eq!(counted(&meters), (0, 3, 0));
    let stop = CancellationToken::new();
    stop.cancel();
    // And the end of the coordinator waits for none of them.
    exporter.run(stop).await;
    assert_eq!(counted(&meters), (0, 3, 0));
}

#[tokio::test]
async fn names_are_cut_and_hold_nothing_that_turns_text() {
    let (receiver, url) = Receiver::start(&[]).await;
    let hostile = ids(&["\u{202e}evil\u{1b}[31m", &"x".repeat(1 << 20)]);
    let store = stored(whole(RUN, &hostile, &[Outcome::Passed; 2])).await;
    assert_eq!(export(&url, &store, &[RUN]).await, (1, 0, 0));
    let spans = receiver.spans();
    let attempts: Vec<_> = spans.iter().filter(|span| word(span, "test.case.name").is_some()).collect();
    assert_eq!(attempts.len(), 2);
    for span in &attempts {
        for shown in [span.name.as_str(), word(span, "test.case.name").expect("it was found by it")] {
            assert!(shown.len() <= NAME_MAX && !shown.contains(['\u{202e}', '\u{1b}']), "{shown:?}");
        }
    }
}

#[test]
fn what_cannot_be_an_address_or_a_header_is_refused_and_not_repeated() {
    let of = |endpoint: &str, header: &str| {
        let headers = vec![(header.to_owned(), SECRET.to_owned())];
        let config = TracesConfig { endpoint: endpoint.into(), headers, service_name: "andon".into() };
        Collector::new(&config).map(drop)
    };
    assert!(of("https://collector.example/v1/traces", "api-key").is_ok());
    for (endpoint, header) in
        [("collector:4318", "k"), ("ftp://c/", "k"), ("", "k"), ("http://c", "a b"), ("http://c", "")]
    {
        let refused = of(endpoint, header).expect_err("it cannot be meant");
        assert!(!format!("{refused}{refused:?}").contains(SECRET), "{refused:?}");
    }
}
