//! A load on a real coordinator: workers that are played, over real gRPC on loopback, against a coordinator in a process
//! of its own with SQLite on disk. Prints one JSON object.
//!
//! ```text
//! load workers=1000 tests=100000 think_ms=100 unit=1 seconds=20 state=/tmp/load
//! ```
//!
//! `workers` sessions with one lane each; `tests` queued in one run (of as many suites as it takes); `unit` tests in each
//! lease; `think_ms` how long a unit takes on its lane; the load ends after `seconds`, or with the run. Dispatch is measured
//! at the worker: from sending LaneReady to hearing Assign, while the queue is not empty.

mod options;
mod played;
mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use andon_proto as wire;
use prost::Message;
use tokio::task::JoinSet;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use options::Options;
use played::{Figures, Measured};

/// The most tests that discovery may name in one suite.
const TESTS_A_SUITE: u32 = 200_000;
/// Sessions that are opened at the same time.
const JOINING: usize = 64;
/// Not measured: connections warm up, the first leases go out together.
const WARM_UP: Duration = Duration::from_secs(2);

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let options = Options::from_args(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match options.serve {
        Some(address) => runtime.block_on(server::serve(&options.state, address)),
        None => runtime.block_on(load(options)),
    }
}

async fn load(options: Options) -> Result<(), Failure> {
    let mut server = server::Server::spawn(&options.state)?;
    let channel = connected(&server.url()).await?;
    let empty = server.memory_bytes()?;

    let suites = options.tests.div_ceil(TESTS_A_SUITE);
    let run = submit(&channel, suites, options.unit).await?;
    played::discover(channel.clone(), suites, options.tests).await?;
    let queued = server.memory_bytes()?;

    let measured = Arc::new(Measured::default());
    let mut workers = join_all(&server, &options, &measured).await?;
    let joined = server.memory_bytes()?;

    measured.begin();
    tokio::time::sleep(WARM_UP).await;
    measured.forget();
    let (began, cpu_before) = (Instant::now(), server.cpu()?);
    let over = Duration::from_secs(options.seconds);
    let ended = tokio::time::timeout(over, until_ended(&channel, run)).await.is_ok();
    let (spent, cpu) = (began.elapsed(), server.cpu()? - cpu_before);
    let figures = measured.figures();
    workers.abort_all();
    while workers.join_next().await.is_some() {}
    server.stop()?;
    print(&options, &figures, ended, spent, cpu, [empty, queued, joined]);
    Ok(())
}

async fn join_all(
    server: &server::Server,
    options: &Options,
    measured: &Arc<Measured>,
) -> Result<JoinSet<Result<(), Failure>>, Failure> {
    let mut workers = JoinSet::new();
    let gate = Arc::new(tokio::sync::Semaphore::new(JOINING));
    let (joined, mut joins) = tokio::sync::mpsc::channel(1);
    for number in 0..options.workers {
        let (url, think) = (server.url(), options.think);
        let (gate, measured, joined) = (gate.clone(), measured.clone(), joined.clone());
        workers.spawn(async move {
            let permit = gate.acquire_owned().await?;
            // A connection for each, as real workers have.
            let channel = connected(&url).await?;
            let worker = played::join(channel, number).await?;
            drop(permit);
            joined.send(()).await?;
            drop(joined);
            worker.work(think, &measured).await
        });
    }
    drop(joined);
    for number in 0..options.workers {
        if joins.recv().await.is_none() {
            let failed = workers.join_next().await.expect("a worker that did not join has ended")?;
            failed?;
            return Err(format!("only {number} workers could join").into());
        }
    }
    Ok(workers)
}

async fn connected(url: &str) -> Result<Channel, Failure> {
    let endpoint = Endpoint::from_shared(url.to_owned())?.tcp_nodelay(true);
    for _ in 0..200 {
        match endpoint.connect().await {
            Ok(channel) => return Ok(channel),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    Err("the coordinator does not answer".into())
}

pub(crate) fn with<T>(token: &str, body: T) -> Request<T> {
    let mut request = Request::new(body);
    let value = MetadataValue::try_from(format!("Bearer {token}")).expect("a token is ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

async fn submit(channel: &Channel, suites: u32, unit: u32) -> Result<u64, Failure> {
    let rebase = if unit == 1 { wire::RebaseUnit::Test } else { wire::RebaseUnit::File };
    let suite = |n| wire::Suite { name: format!("s{n}"), rebase: rebase.into(), ..wire::Suite::default() };
    let source_digest = put(channel, b"source".to_vec()).await?;
    let spec = wire::RunSpec {
        project: "load".into(),
        commit: "c0ffee".into(),
        source_digest,
        suites: (0..suites).map(suite).collect(),
        ..wire::RunSpec::default()
    };
    let spec_digest = put(channel, spec.encode_to_vec()).await?;
    let request = wire::SubmitRunRequest { spec_digest, ..Default::default() };
    let mut farm = wire::farm_client::FarmClient::new(channel.clone());
    Ok(farm.submit_run(with(server::CLIENT, request)).await?.into_inner().run)
}

async fn put(channel: &Channel, bytes: Vec<u8>) -> Result<String, Status> {
    let digest = blake3::hash(&bytes).to_hex().to_string();
    let chunk = wire::BlobChunk { digest: digest.clone(), data: bytes };
    let mut blobs = wire::blobs_client::BlobsClient::new(channel.clone());
    blobs.put(with(server::CLIENT, tokio_stream::iter([chunk]))).await?;
    Ok(digest)
}

async fn until_ended(channel: &Channel, run: u64) {
    let mut farm = wire::farm_client::FarmClient::new(channel.clone());
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let request = wire::GetRunRequest { run, with_tests: false };
        if let Ok(answer) = farm.get_run(with(server::CLIENT, request)).await
            && answer.into_inner().ended_unix_ms > 0
        {
            return;
        }
    }
}

fn print(
    options: &Options,
    figures: &Figures,
    ended: bool,
    spent: Duration,
    cpu: Duration,
    [empty, queued, joined]: [u64; 3],
) {
    let seconds = spent.as_secs_f64();
    let line = serde_json::json!({
        "workers": options.workers,
        "tests": options.tests,
        "unit": options.unit,
        "think_ms": options.think.as_millis() as u64,
        "ended": ended,
        "seconds": (seconds * 100.0).round() / 100.0,
        "attempts": figures.attempts,
        "attempts_per_s": (figures.attempts as f64 / seconds).round(),
        "dispatches": figures.dispatches,
        "dispatch_p50_ms": figures.p50_ms,
        "dispatch_p99_ms": figures.p99_ms,
        "coordinator_cpus": (cpu.as_secs_f64() / seconds * 100.0).round() / 100.0,
        "bytes_per_queued_test": queued.saturating_sub(empty) / u64::from(options.tests.max(1)),
        "bytes_per_worker": joined.saturating_sub(queued) / u64::from(options.workers.max(1)),
    });
    println!("{line}");
}
