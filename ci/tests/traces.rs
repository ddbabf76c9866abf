//! Traces of runs, over a real coordinator and a collector that is a real HTTP server: what comes there is the run, as the trace file has it.

mod support;
#[path = "support/worker.rs"]
mod worker;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::Value as Json;
use support::{Coordinator, complained, said};
use worker::HandWorker;

const PATIENCE: Duration = Duration::from_secs(60);
const PROJECT: &[(&str, &str)] = &[(
    "andon.toml",
    "[[suite]]\nname = \"unit\"\nimage = \"debian:trixie-slim\"\ndiscover = \"ls\"\nrun = \"true {tests}\"\nretries = 1\n",
)];

#[derive(Default)]
struct Came {
    requests: Vec<ExportTraceServiceRequest>,
    /// Path, content type and key of each.
    heads: Vec<(String, String, String)>,
    /// Answers that come before the right ones.
    instead: Vec<u16>,
}

/// A collector; ends with its value.
struct Collector {
    came: Arc<(Mutex<Came>, Condvar)>,
    url: String,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Collector {
    fn start(instead: &[u16]) -> Self {
        let came = Came { instead: instead.to_vec(), ..Came::default() };
        let came = Arc::new((Mutex::new(came), Condvar::new()));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener =
            runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let shared = Arc::clone(&came);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let came = Arc::clone(&shared);
                let serve = service_fn(move |request| answer(Arc::clone(&came), request));
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), serve));
            }
        });
        Self { came, url, runtime: Some(runtime) }
    }

    /// All spans, once there are so many roots among them.
    fn traces(&self, roots: usize) -> Vec<Span> {
        let is_root = |span: &&Span| span.parent_span_id.is_empty();
        let whole = |came: &mut Came| spans(came).iter().filter(is_root).count() < roots;
        let came = self.came.0.lock().expect("nobody panics with it");
        let (came, waited) =
            self.came.1.wait_timeout_while(came, PATIENCE, whole).expect("nobody panics with it");
        assert!(!waited.timed_out(), "no trace came: {:?}", came.heads);
        spans(&came)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.runtime.take().expect("it is taken once").shutdown_background();
    }
}

fn spans(came: &Came) -> Vec<Span> {
    let resources = came.requests.iter().flat_map(|request| &request.resource_spans);
    resources.flat_map(|of| &of.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
}

async fn answer(
    came: Arc<(Mutex<Came>, Condvar)>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let header = |name: &str| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let head = (request.uri().path().to_owned(), header("content-type"), header("api-key"));
    let body = request.into_body().collect().await.expect("the request comes whole").to_bytes();
    let mut of = came.0.lock().expect("nobody panics with it");
    of.heads.push(head);
    let status = if of.instead.is_empty() { 200 } else { of.instead.remove(0) };
    if status == 200 {
        of.requests.push(ExportTraceServiceRequest::decode(body).expect("it is OTLP in protobuf"));
    }
    came.1.notify_all();
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    Ok(response)
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

/// Name, parent's name, from and to in microseconds since the trace's first moment.
type Placed = (String, String, u64, u64);

fn placed_spans(spans: &[Span]) -> Vec<Placed> {
    let by_id: BTreeMap<&[u8], &Span> = spans.iter().map(|span| (span.span_id.as_slice(), span)).collect();
    assert_eq!(by_id.len(), spans.len(), "each span has an id of its own");
    let root = spans.iter().find(|span| span.parent_span_id.is_empty()).expect("there is a root");
    let us = |nanos: u64| (nanos - root.start_time_unix_nano) / 1_000;
    let placed = |span: &Span| {
        assert_eq!(span.trace_id, root.trace_id);
        let parent = by_id.get(span.parent_span_id.as_slice()).expect("its parent came, too");
        assert!(parent.start_time_unix_nano <= span.start_time_unix_nano, "{} in {}", span.name, parent.name);
        assert!(parent.end_time_unix_nano >= span.end_time_unix_nano, "{} in {}", span.name, parent.name);
        (span.name.clone(), parent.name.clone(), us(span.start_time_unix_nano), us(span.end_time_unix_nano))
    };
    let mut all: Vec<Placed> =
        spans.iter().filter(|span| !span.parent_span_id.is_empty()).map(placed).collect();
    all.sort();
    all
}

/// The same of a trace file, where what lies in what is said by its kind and its order.
fn placed_events(trace: &Json, run: &str) -> Vec<Placed> {
    let (mut all, mut attempt) = (Vec::new(), String::new());
    for event in trace["traceEvents"].as_array().expect("events").iter().filter(|event| event["ph"] == "X") {
        let name = event["name"].as_str().expect("a name").to_owned();
        let parent = match event["cat"].as_str().expect("a kind") {
            "run" => run.to_owned(),
            "attempt" => {
                attempt.clone_from(&name);
                "tests".to_owned()
            }
            _ => attempt.clone(),
        };
        let from = event["ts"].as_u64().expect("a time");
        all.push((name, parent, from, from + event["dur"].as_u64().expect("a duration")));
    }
    all.sort();
    all
}

#[test]
fn a_run_comes_to_the_collector_as_the_trace_file_has_it() {
    // The first two answers are those of a collector that is not ready.
    let collector = Collector::start(&[503, 429]);
    let mut farm = Coordinator::start_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=of%20the%20farm"),
        ("OTEL_SERVICE_NAME", "farm-of-tests"),
    ]);
    let project = support::repository(PROJECT);
    let worker = HandWorker::join(&farm.state(), &["a", "b", "c"]);
    worker.fail("b", "AssertionError: no");
    worker.fail_each("c", 2);
    let output =
        farm.command(&["run", "--project", "p"]).current_dir(project.path()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(100), "{}{}", said(&output), complained(&output));

    let spans = collector.traces(1);
    let file = farm.run(&["show", "1", "--trace", "-"]);
    let trace: Json = serde_json::from_slice(&file.stdout).expect("JSON");
    let expected = placed_events(&trace, "RUN p");
    assert_eq!(placed_spans(&spans), expected);
    for name in ["a", "b", "c", "queue", "tests", "test"] {
        assert!(expected.iter().any(|placed| placed.0 == name), "{name} is not in the trace");
    }
    let root = spans.iter().find(|span| span.parent_span_id.is_empty()).expect("a root");
    assert_eq!((root.name.as_str(), root.trace_id.len(), root.span_id.len()), ("RUN p", 16, 8));
    assert_eq!(text(&root.attributes, "cicd.pipeline.name"), Some("p"));
    assert_eq!(text(&root.attributes, "cicd.pipeline.result"), Some("failure"));
    let outcomes = |test: &str| -> Vec<&str> {
        let of = spans.iter().filter(|span| span.name == test);
        of.filter_map(|span| text(&span.attributes, "andon.outcome")).collect()
    };
    assert_eq!(
        (outcomes("a"), outcomes("b"), outcomes("c")),
        (vec!["passed"], vec!["failed", "failed"], vec!["failed", "passed"])
    );

    // After a restart the next run is a trace of its own, and the one before is not sent again.
    drop(worker);
    farm.restart();
    let _worker = HandWorker::join(&farm.state(), &["a"]);
    let output =
        farm.command(&["run", "--project", "p"]).current_dir(project.path()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{}{}", said(&output), complained(&output));
    let all = collector.traces(2);
    assert_eq!(all[..spans.len()], spans);
    assert!(all[spans.len()..].iter().all(|span| span.trace_id != root.trace_id));

    let came = collector.came.0.lock().expect("nobody panics with it");
    let head = ("/v1/traces".to_owned(), "application/x-protobuf".to_owned(), "of the farm".to_owned());
    assert!(came.heads.len() >= 3 && came.heads.iter().all(|came| *came == head), "{:?}", came.heads);
    let resource = came.requests[0].resource_spans[0].resource.as_ref().expect("it says who it is");
    assert_eq!(text(&resource.attributes, "service.name"), Some("farm-of-tests"));
}

#[test]
fn a_collector_that_is_away_holds_nothing_up() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let nobody = format!("http://{}", free.local_addr().expect("it is bound"));
    drop(free);
    let farm = Coordinator::start_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", nobody.as_str())]);
    let project = support::repository(PROJECT);
    let _worker = HandWorker::join(&farm.state(), &["a"]);
    for _ in 0..2 {
        let run =
            farm.command(&["run", "--project", "p"]).current_dir(project.path()).output().expect("it runs");
        assert_eq!(run.status.code(), Some(0), "{}{}", said(&run), complained(&run));
    }
    assert_eq!(farm.stop(), Some(0), "and the coordinator ends as always");
}

#[test]
fn an_address_that_is_none_is_refused_at_the_start() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    for (name, value) in
        [("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]
    {
        let mut command = support::andon();
        command.args(["coordinator", "--listen", "127.0.0.1:0", "--state"]).arg(temp.path().join("state"));
        let output =
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1").env(name, value).output();
        let output = output.expect("it runs");
        assert!(!output.status.success(), "{name}={value}");
        assert!(complained(&output).contains("traces"), "{}", complained(&output));
    }
}
