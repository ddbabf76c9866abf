//! The worker's hands in a real box, without a farm: builds a baseline, discovers, runs tests, rebases, prints what it took.
//!
//! Runs inside a worker box as root: `hands JOB.json DATA_DIR IMAGE.tar…`. The job names a source archive, a stack and suites
//! in short form; blobs lie in a folder. A tool for whoever works on Andon, and the proof that the parts fit.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use andon_proto::{
    BaselineManifest, BaselineSpec, CommandRunner, Healthcheck, Image, KeyValue, Mount, Outcome,
    PytestRunner, RunSpec, Service, Stack, Suite, TestCase, image, mount, suite,
};
use andon_snapshot::{Pool, PoolOptions};
use andon_worker::engine::SharedEngine;
use andon_worker::hands::{
    Driver, Farm, FarmError, Hands, HandsOptions, ImageSource, Notices, ResolvedImage, WorkFailure,
};
use andon_worker::host::Pressure;
use andon_worker::nested::{NestedConfig, NestedDaemon};
use andon_worker::runner::UnitNews;
use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error>;

#[derive(Debug, Deserialize)]
struct Job {
    source: PathBuf,
    #[serde(default)]
    db_image: String,
    suite_image: String,
    #[serde(default)]
    db_command: Vec<String>,
    #[serde(default)]
    health: Vec<String>,
    #[serde(default)]
    seed: Vec<String>,
    #[serde(default)]
    discover: String,
    #[serde(default)]
    run: String,
    #[serde(default)]
    timeout_ms: u64,
    #[serde(default)]
    drivers: Vec<String>,
    #[serde(default)]
    per_unit: usize,
    #[serde(default)]
    lanes: u32,
    #[serde(default)]
    quiet: bool,
}

/// Blobs in a folder, no published baselines.
#[derive(Debug)]
struct FolderFarm(PathBuf);

#[async_trait]
impl Farm for FolderFarm {
    async fn find_baseline(&self, _: &str) -> Result<Option<BaselineManifest>, FarmError> {
        Ok(None)
    }

    async fn related_baselines(&self, _: &str, _: &str) -> Result<Vec<BaselineManifest>, FarmError> {
        Ok(Vec::new())
    }

    async fn has_blob(&self, digest: &str) -> Result<bool, FarmError> {
        Ok(self.0.join(digest).exists())
    }

    async fn put_blob(&self, file: &Path) -> Result<String, FarmError> {
        let failed = |error: std::io::Error| FarmError::Failed(error.to_string());
        let bytes = std::fs::read(file).map_err(failed)?;
        let digest = blake3::hash(&bytes).to_hex().to_string();
        std::fs::write(self.0.join(&digest), bytes).map_err(failed)?;
        Ok(digest)
    }

    async fn resume_blob(&self, digest: &str, part: &Path) -> Result<(), FarmError> {
        let _ = std::fs::remove_file(part);
        self.get_blob(digest, part).await
    }

    async fn get_blob(&self, digest: &str, into: &Path) -> Result<(), FarmError> {
        let copied = std::fs::copy(self.0.join(digest), into);
        copied.map(drop).map_err(|error| FarmError::Failed(error.to_string()))
    }
}

/// Images that are loaded already.
#[derive(Debug)]
struct Loaded(SharedEngine);

#[async_trait]
impl ImageSource for Loaded {
    async fn resolve(&self, image: &Image, _: &Path, _: &Notices) -> Result<ResolvedImage, WorkFailure> {
        let Some(image::Source::Reference(reference)) = &image.source else {
            return Err(WorkFailure::config("only references here"));
        };
        let found = self.0.inspect_image(reference).await;
        let found = found.map_err(|error| WorkFailure::infrastructure(error.to_string()))?;
        let found = found.ok_or_else(|| WorkFailure::config(format!("{reference} is not loaded")))?;
        Ok(ResolvedImage { id: found.id, reference: reference.clone(), build_key: String::new() })
    }
}

fn image_of(reference: &str) -> Option<Image> {
    Some(Image { source: Some(image::Source::Reference(reference.to_owned())) })
}

fn spec_of(job: &Job, digest: String) -> RunSpec {
    let db = Service {
        name: "db".into(),
        image: image_of(&job.db_image),
        command: (!job.db_command.is_empty()).then(|| andon_proto::Argv { words: job.db_command.clone() }),
        mounts: vec![Mount {
            target: "/var/lib/mysql".into(),
            read_only: false,
            source: Some(mount::Source::Volume("data".into())),
        }],
        healthcheck: Some(Healthcheck { test: job.health.clone(), ..Healthcheck::default() }),
        stop_grace_ms: 60_000,
        ..Service::default()
    };
    let runner = if job.run.is_empty() {
        suite::Runner::Pytest(PytestRunner::default())
    } else {
        suite::Runner::Command(CommandRunner { discover: job.discover.clone(), run: job.run.clone() })
    };
    RunSpec {
        project: "proof".into(),
        commit: "0".repeat(40),
        source_digest: digest,
        stack: (!job.db_image.is_empty())
            .then(|| Stack { services: vec![db], compose_digest: String::new() }),
        baseline: Some(BaselineSpec { seed: job.seed.clone(), ..BaselineSpec::default() }),
        suites: vec![Suite {
            name: "proof".into(),
            image: image_of(&job.suite_image),
            timeout_ms: job.timeout_ms,
            runner: Some(runner),
            environment: vec![KeyValue { key: "DB".into(), value: "db".into() }],
            ..Suite::default()
        }],
        ..RunSpec::default()
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let mut args = std::env::args().skip(1);
    let job: Job = serde_json::from_slice(&std::fs::read(args.next().ok_or("a job file")?)?)?;
    let data = PathBuf::from(args.next().ok_or("a data folder")?);
    let pool = Pool::open(&data.join("pool"), PoolOptions::default())?;
    println!("pool: {} {:?}", pool.kind(), pool.notes());
    let began = Instant::now();
    let config = NestedConfig {
        data_root: pool.dir().join("docker"),
        run_dir: PathBuf::from("/run/andon-proof"),
        own_network: true,
        fsync: false,
        direct: true,
    };
    let daemon = NestedDaemon::start(config).await?;
    println!("daemon: {:?}", began.elapsed());
    let engine = daemon.engine();
    for image in args {
        let bytes = tokio::fs::read(&image).await?;
        let stream = futures::stream::iter([Ok(bytes::Bytes::from(bytes))]);
        println!("loaded {:?}", engine.load_image(Box::pin(stream)).await?);
    }
    let worked = Box::pin(work(&job, &data, &pool, &engine)).await;
    daemon.shutdown().await;
    pool.close()?;
    worked
}

async fn work(job: &Job, data: &Path, pool: &Pool, engine: &SharedEngine) -> Result<(), Failure> {
    let blobs = data.join("blobs");
    std::fs::create_dir_all(&blobs)?;
    let farm = Arc::new(FolderFarm(blobs));
    let digest = farm.put_blob(&job.source).await?;
    let spec = spec_of(job, digest);
    let (notices, mut heard) = mpsc::channel::<String>(64);
    tokio::spawn(async move {
        while let Some(line) = heard.recv().await {
            println!("  · {line}");
        }
    });
    let drivers: Vec<Option<Driver>> = match job.drivers.is_empty() {
        true => vec![None],
        false => job.drivers.iter().map(|name| name.parse().map(Some)).collect::<Result<_, _>>()?,
    };
    for driver in drivers {
        let options = HandsOptions {
            engine: engine.clone(),
            pool: pool.clone(),
            images: Arc::new(Loaded(engine.clone())),
            farm: farm.clone(),
            registry: None,
            data_dir: pool.dir().join("hands"),
            lanes: job.lanes.max(1),
            driver,
            deep_every: 1,
            pressure: Pressure::look,
            worker: "proof".into(),
            inexact: mpsc::channel(1).0,
            docker_socket: None,
        };
        let hands = Arc::new(Hands::start(options).await?);
        let outcome = Box::pin(with(&hands, job, &spec, &notices)).await;
        hands.shutdown().await;
        outcome?;
    }
    Ok(())
}

async fn with(hands: &Arc<Hands>, job: &Job, spec: &RunSpec, notices: &Notices) -> Result<(), Failure> {
    let began = Instant::now();
    let ready = hands.prepare_baseline(1, spec, notices).await?;
    let manifest = ready.manifest.unwrap_or_default();
    println!("baseline: built {} in {:?}, driver {}", ready.built, began.elapsed(), hands.driver());
    for tree in &manifest.trees {
        println!("  {} {} files {} bytes, blob {}", tree.name, tree.files, tree.bytes, tree.blob_size);
    }
    let began = Instant::now();
    let found = hands.discover(0, 1, spec, "proof", &manifest.key, notices).await?;
    println!("discovered {} tests in {:?}", found.tests.len(), began.elapsed());
    let began = Instant::now();
    println!("settled {:?} in {:?}", hands.settle(0).await?, began.elapsed());
    let tests = found.tests.iter().enumerate();
    let tests: Vec<TestCase> =
        tests.map(|(n, id)| TestCase { attempt: n as u64 + 1, id: id.clone() }).collect();
    let mut queue: Vec<Vec<TestCase>> = tests.chunks(job.per_unit.max(1)).map(<[TestCase]>::to_vec).collect();
    queue.reverse();
    let queue = Arc::new(std::sync::Mutex::new(queue));
    let began = Instant::now();
    let mut lanes = Vec::new();
    for lane in 0..job.lanes.max(1) {
        let (hands, queue, spec, key, quiet) =
            (Arc::clone(hands), Arc::clone(&queue), spec.clone(), manifest.key.clone(), job.quiet);
        lanes.push(tokio::spawn(async move {
            let mut times = Times::default();
            loop {
                let Some(unit) = queue.lock().expect("no panics").pop() else { break };
                Box::pin(run_unit(&hands, lane, &spec, &key, unit, quiet, &mut times)).await;
            }
            times
        }));
    }
    let mut all = Times::default();
    for lane in lanes {
        let times = lane.await?;
        all.rebase.extend(times.rebase);
        all.settle.extend(times.settle);
        all.execute.extend(times.execute);
        all.prepare.extend(times.prepare);
    }
    println!("{} tests in {:?} with {}", tests.len(), began.elapsed(), hands.driver());
    all.print();
    Ok(())
}

#[derive(Default)]
struct Times {
    rebase: Vec<Duration>,
    settle: Vec<Duration>,
    execute: Vec<Duration>,
    prepare: Vec<Duration>,
}

impl Times {
    fn print(&mut self) {
        for (name, times) in [
            ("rebase", &mut self.rebase),
            ("settle", &mut self.settle),
            ("execute", &mut self.execute),
            ("prepare", &mut self.prepare),
        ] {
            times.sort_unstable();
            if let (Some(least), Some(most)) = (times.first(), times.last()) {
                println!(
                    "  {name}: p50 {:?} [{least:?} … {most:?}] of {}",
                    times[times.len() / 2],
                    times.len()
                );
            }
        }
    }
}

async fn run_unit(
    hands: &Hands,
    lane: u32,
    spec: &RunSpec,
    key: &str,
    unit: Vec<TestCase>,
    quiet: bool,
    times: &mut Times,
) {
    let (sender, mut results) = mpsc::channel(256);
    let names: std::collections::HashMap<u64, String> =
        unit.iter().map(|test| (test.attempt, test.id.clone())).collect();
    let began = Instant::now();
    let cancel = CancellationToken::new();
    let executing = hands.execute(lane, 1, spec, "proof", key, unit, sender, cancel);
    let reading = async {
        while let Some(news) = results.recv().await {
            let UnitNews::Result(result) = news else { continue };
            let name = names.get(&result.attempt).map_or("?", String::as_str);
            if result.rebase_us > 0 {
                times.rebase.push(Duration::from_micros(result.rebase_us));
                times.prepare.push(Duration::from_millis(result.prepare_ms));
            }
            if !quiet || !matches!(result.outcome(), Outcome::Passed | Outcome::Skipped) {
                println!(
                    "  {lane} {name}: {:?} {} ms, prepared {} ms, rebase {} us\n{}",
                    result.outcome(),
                    result.run_ms,
                    result.prepare_ms,
                    result.rebase_us,
                    result.message
                );
            }
        }
    };
    let (outcome, ()) = tokio::join!(executing, reading);
    times.execute.push(began.elapsed());
    if let Err(failure) = outcome {
        println!(
            "  {lane} FAILED {:?}: {}\n{}",
            failure.class,
            failure.reason,
            String::from_utf8_lossy(&failure.log)
        );
    }
    let began = Instant::now();
    match hands.settle(lane).await {
        Ok(settled) => {
            if !quiet {
                println!("  settled {:?}", settled.footprint);
            }
        }
        Err(unfit) => println!("  UNFIT {unfit}"),
    }
    times.settle.push(began.elapsed());
}
