//! A worker played by hand: real sessions with a real coordinator, and no Docker. What it discovers and how tests end is
//! said by the test.
#![allow(dead_code, reason = "each test file uses a part of it")]

#[path = "../../src/clock.rs"]
mod clock;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use andon_proto as wire;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use wire::assign::Work;
use wire::coordinator_message::Body as Told;
use wire::report::Body as Report;
use wire::worker_message::Body as Said;

/// How often it says that it is there.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
/// What it says that each test takes.
const RUN_MS: u64 = 3;

#[derive(Debug, Default)]
struct Rules {
    tests: Vec<String>,
    /// Tests that fail, with their message.
    failing: BTreeMap<String, String>,
    /// Tests that fail where another ran before them in their unit.
    polluted: BTreeMap<String, String>,
    /// Tests that fail each so many times that they are run.
    flaky: BTreeMap<String, u32>,
    runs: BTreeMap<String, u32>,
    /// Tests do not end while it is set.
    hold: bool,
    /// What tests print, from the first on.
    printed: String,
    started: BTreeSet<String>,
    first_start: Option<Instant>,
}

/// The worker; ends with its value.
pub(crate) struct HandWorker {
    rules: Arc<(Mutex<Rules>, Notify)>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl HandWorker {
    /// Joins the farm of this state folder, with these tests to discover.
    pub(crate) fn join(state: &Path, tests: &[&str]) -> Self {
        Self::join_as("by-hand", state, tests)
    }

    /// The same under a name.
    pub(crate) fn join_as(name: &str, state: &Path, tests: &[&str]) -> Self {
        let text = std::fs::read_to_string(state.join("farm.json")).expect("the farm's file");
        let farm: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let token = farm["join_token"].as_str().expect("a token").to_owned();
        let url = format!("unix://{}", state.join("run/coordinator.sock").display());
        let tests = tests.iter().map(|test| (*test).to_owned()).collect();
        let rules = Arc::new((Mutex::new(Rules { tests, ..Rules::default() }), Notify::new()));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.spawn(session(name.to_owned(), url, token, Arc::clone(&rules)));
        Self { rules, runtime: Some(runtime) }
    }

    fn rules<T>(&self, change: impl FnOnce(&mut Rules) -> T) -> T {
        let changed = change(&mut self.rules.0.lock().expect("nobody panics with it"));
        self.rules.1.notify_waiters();
        changed
    }

    /// From now on this test fails.
    pub(crate) fn fail(&self, test: &str, message: &str) {
        self.rules(|rules| drop(rules.failing.insert(test.to_owned(), message.to_owned())));
    }

    /// From now on it fails where that one ran before it in its unit.
    pub(crate) fn pollute(&self, test: &str, by: &str) {
        self.rules(|rules| drop(rules.polluted.insert(test.to_owned(), by.to_owned())));
    }

    /// From now on it fails each so many times that it is run, the first time too.
    pub(crate) fn fail_each(&self, test: &str, times: u32) {
        self.rules(|rules| rules.flaky.insert(test.to_owned(), times));
    }

    /// Tests that were started.
    pub(crate) fn started(&self) -> BTreeSet<String> {
        self.rules(|rules| rules.started.clone())
    }

    /// From now on it passes.
    pub(crate) fn pass(&self, test: &str) {
        self.rules(|rules| drop(rules.failing.remove(test)));
    }

    /// The test that is held prints this now; it goes to the farm while the test runs, and with its result.
    pub(crate) fn print(&self, text: &str) {
        self.rules(|rules| rules.printed.push_str(text));
    }

    /// Whether tests stay where they are.
    pub(crate) fn hold(&self, hold: bool) {
        self.rules(|rules| {
            rules.hold = hold;
            rules.first_start = None;
        });
    }

    /// When the first test since [`HandWorker::hold`] was started.
    pub(crate) fn first_start(&self) -> Option<Instant> {
        self.rules(|rules| rules.first_start)
    }
}

impl Drop for HandWorker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

type Shared = Arc<(Mutex<Rules>, Notify)>;

async fn session(name: String, url: String, token: String, rules: Shared) {
    let channel = loop {
        match Endpoint::from_shared(url.clone()).expect("a socket is an endpoint").connect().await {
            Ok(channel) => break channel,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let (say, said) = mpsc::channel(64);
    let hello = wire::Hello { worker: name, lanes: 1, ..wire::Hello::default() };
    say.send(wire::WorkerMessage { seq: 1, body: Some(Said::Hello(hello)) }).await.expect("open");
    let mut request = tonic::Request::new(ReceiverStream::new(said));
    let value = MetadataValue::try_from(format!("Bearer {token}")).expect("a token is ASCII");
    request.metadata_mut().insert("authorization", value);
    let mut work = wire::work_client::WorkClient::new(channel);
    let mut hear = work.session(request).await.expect("the worker joins").into_inner();
    let mut seq = 1;
    let mut send = async |body: Said| {
        seq += 1;
        let _ = say.send(wire::WorkerMessage { seq, body: Some(body) }).await;
    };
    let ready = || Said::LaneReady(wire::LaneReady { lane: 0, baseline_key: String::new() });
    send(ready()).await;
    let mut held: Option<(wire::Lease, wire::Execute)> = None;
    let mut told = 0;
    let mut heartbeat = tokio::time::interval(HEARTBEAT_EVERY);
    loop {
        if let Some((lease, _)) = &held
            && let Some(piece) = news(&rules, &mut told)
        {
            send(Said::Report(wire::Report { lease: Some(*lease), body: Some(Report::Output(piece)) })).await;
        }
        if let Some((lease, execute)) = held.take_if(|_| !rules.0.lock().expect("whole").hold) {
            for body in results(&rules, &execute) {
                send(Said::Report(wire::Report { lease: Some(lease), body: Some(body) })).await;
            }
            send(ready()).await;
        }
        tokio::select! {
            message = hear.message() => {
                let Ok(Some(message)) = message else { return };
                match message.body {
                    Some(Told::Assign(assign)) => {
                        let (Some(lease), Some(work)) = (assign.lease, assign.work) else { continue };
                        match work {
                            Work::Discover(_) => {
                                let tests = rules.0.lock().expect("whole").tests.clone();
                                let found = wire::Discovered { tests, log_zstd: Vec::new() };
                                let body = Some(Report::Discovered(found));
                                send(Said::Report(wire::Report { lease: Some(lease), body })).await;
                                send(ready()).await;
                            }
                            Work::Execute(execute) => {
                                let mut rules = rules.0.lock().expect("whole");
                                rules.started.extend(execute.tests.iter().map(|test| test.id.clone()));
                                rules.first_start.get_or_insert_with(Instant::now);
                                drop(rules);
                                held = Some((lease, execute));
                                told = 0;
                            }
                            other => panic!("not for a worker by hand: {other:?}"),
                        }
                    }
                    Some(Told::Revoke(_)) if held.take().is_some() => send(ready()).await,
                    _ => {}
                }
            }
            () = rules.1.notified() => {}
            _ = heartbeat.tick() => {
                let held = held.iter().map(|(lease, _)| *lease).collect();
                send(Said::Heartbeat(wire::Heartbeat { held, ..wire::Heartbeat::default() })).await;
            }
        }
    }
}

/// What was printed and not told yet.
fn news(rules: &Shared, told: &mut usize) -> Option<wire::OutputPiece> {
    let rules = rules.0.lock().expect("whole");
    let new = rules.printed.get(*told..).filter(|new| !new.is_empty())?;
    let piece = wire::OutputPiece { starts: *told as u64, raw_bytes: new.len() as u32, zstd: packed(new) };
    *told = rules.printed.len();
    Some(piece)
}

fn packed(text: &str) -> Vec<u8> {
    zstd::bulk::compress(text.as_bytes(), 1).expect("it compresses")
}

fn results(rules: &Shared, execute: &wire::Execute) -> Vec<Report> {
    let mut rules = rules.0.lock().expect("whole");
    let mut before: BTreeSet<&str> = BTreeSet::new();
    let mut reports = Vec::new();
    for test in &execute.tests {
        let mut result = wire::TestResult {
            attempt: test.attempt,
            run_ms: RUN_MS,
            started_unix_ms: clock::unix_ms() - RUN_MS,
            ..Default::default()
        };
        if !rules.printed.is_empty() {
            result.log_zstd = packed(&rules.printed);
        }
        result.set_outcome(wire::Outcome::Passed);
        if let Some(message) = rules.message(&test.id, &before) {
            result.set_outcome(wire::Outcome::Failed);
            result.message = message;
        }
        before.insert(&test.id);
        reports.push(Report::TestResult(result));
    }
    reports.push(Report::UnitEnded(wire::UnitEnded {}));
    reports
}

impl Rules {
    /// Why this execution fails, where it does.
    fn message(&mut self, test: &str, before: &BTreeSet<&str>) -> Option<String> {
        let runs = self.runs.entry(test.to_owned()).or_default();
        *runs += 1;
        let is_turn = self.flaky.get(test).is_some_and(|each| (*runs - 1).is_multiple_of(*each));
        let polluted = self.polluted.get(test).filter(|by| before.contains(by.as_str()));
        let flaky = is_turn.then(|| "now and then".to_owned());
        self.failing.get(test).cloned().or_else(|| polluted.map(|by| format!("{by} was here"))).or(flaky)
    }
}
