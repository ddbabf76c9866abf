//! Starts a nested Docker daemon inside a worker box and says what each stage took, one line of JSON a start.
//!
//! A tool of `ci/bench daemon`. Runs inside a worker box as root:
//!
//! - `nested start andon|plain DATA_ROOT RUN_DIR IMAGE`: from nothing to the end of a first container, then down again.
//!   `andon` is the worker's own way, `plain` a dockerd as one starts it by hand: its own containerd, bridge, iptables.
//! - `nested renew DATA_ROOT`: seals its images, and puts another data root in its place that has them.
//! - `nested load DATA_ROOT RUN_DIR TAR…`: loads archives of images, says what each took, and leaves no container.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use andon_worker::engine::{
    ContainerSpec, DockerEngine, Engine, NetworkMode, NetworkSpec, Removal, SharedEngine,
};
use andon_worker::nested::{NestedConfig, NestedDaemon};
use serde_json::json;
use tokio::process::{Child, Command};

type Failure = Box<dyn std::error::Error>;

/// A daemon that does not answer by then is broken.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at a plain daemon.
const POLL: Duration = Duration::from_millis(2);
const NETWORK: &str = "first";
const NAME: &str = "first";

enum Daemon {
    Andon(NestedDaemon),
    Plain(Box<Child>, SharedEngine),
}

impl Daemon {
    async fn start(way: &str, data_root: &Path, run_dir: &Path) -> Result<Self, Failure> {
        match way {
            "andon" => {
                let config = NestedConfig {
                    data_root: data_root.to_owned(),
                    run_dir: run_dir.to_owned(),
                    own_network: true,
                    fsync: false,
                    direct: true,
                };
                Ok(Self::Andon(NestedDaemon::start(config).await?))
            }
            "plain" => Self::plain(data_root, run_dir).await,
            other => Err(format!("there is no way {other:?}; there are: andon, plain").into()),
        }
    }

    /// The box's control groups must have been made writable: a start of the other way does that.
    async fn plain(data_root: &Path, run_dir: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(run_dir)?;
        let address = format!("unix://{}", run_dir.join("docker.sock").display());
        let mut dockerd = Command::new("dockerd");
        dockerd.arg("--host").arg(&address).arg("--data-root").arg(data_root);
        dockerd.arg("--exec-root").arg(run_dir.join("exec")).arg("--pidfile").arg(run_dir.join("docker.pid"));
        dockerd
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(run_dir.join("log"))?);
        let mut child = Box::new(dockerd.kill_on_drop(true).spawn()?);
        let answered = async {
            loop {
                if let Ok(engine) = DockerEngine::connect(&address).await
                    && engine.ping().await.is_ok()
                {
                    return engine;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::select! {
            status = child.wait() => {
                let log = std::fs::read_to_string(run_dir.join("log"))?;
                Err(format!("dockerd ended: {}\n{log}", status?).into())
            }
            engine = tokio::time::timeout(START_LIMIT, answered) => Ok(Self::Plain(child, Arc::new(engine?))),
        }
    }

    fn engine(&self) -> SharedEngine {
        match self {
            Self::Andon(daemon) => daemon.engine(),
            Self::Plain(_, engine) => Arc::clone(engine),
        }
    }

    async fn stop(self) -> Result<(), Failure> {
        match self {
            Self::Andon(daemon) => daemon.shutdown().await,
            Self::Plain(mut child, _) => {
                let id = child.id().ok_or("dockerd ended by itself")?;
                let stopped = Command::new("kill").arg(id.to_string()).status().await?;
                if !stopped.success() {
                    return Err("dockerd cannot be asked to end".into());
                }
                tokio::time::timeout(STOP_LIMIT, child.wait()).await??;
            }
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match &words[..] {
        ["start", way, data_root, run_dir, image] => {
            start(way, Path::new(data_root), Path::new(run_dir), image).await
        }
        ["renew", data_root] => renew(Path::new(data_root)),
        ["load", data_root, run_dir, tars @ ..] => {
            let tars: Vec<PathBuf> = tars.iter().map(PathBuf::from).collect();
            load(Path::new(data_root), Path::new(run_dir), &tars).await
        }
        _ => {
            Err("nested start andon|plain DATA_ROOT RUN_DIR IMAGE, nested renew DATA_ROOT, nested load DATA_ROOT RUN_DIR TAR…"
                .into())
        }
    }
}

async fn start(way: &str, data_root: &Path, run_dir: &Path, image: &str) -> Result<(), Failure> {
    let began = Instant::now();
    let daemon = Daemon::start(way, data_root, run_dir).await?;
    let answers = began.elapsed();
    let ended = first_container(way, &daemon.engine(), image, began).await;
    let found = daemon.engine().inspect_image(image).await?;
    let id = found.as_ref().map(|found| found.id.as_str());
    let told = ended.map(|(started, ended)| tell(way, answers, started, ended, id));
    daemon.stop().await?;
    told
}

fn tell(way: &str, answers: Duration, started: Duration, ended: Duration, image: Option<&str>) {
    let line = json!({
        "way": way,
        "image": image,
        "answers_ms": millis(answers),
        "container_started_ms": millis(started),
        "container_ended_ms": millis(ended),
    });
    println!("{line}");
}

fn renew(data_root: &Path) -> Result<(), Failure> {
    let config = NestedConfig {
        data_root: data_root.to_owned(),
        run_dir: PathBuf::new(),
        own_network: false,
        fsync: true,
        direct: true,
    };
    let (images, took) = andon_worker::nested::renew(&config)?;
    println!("{}", json!({ "images": images, "renew_ms": millis(took) }));
    Ok(())
}

/// On a network of its own in Andon's way, as every lane's are; on the default bridge in the plain way. Answers with when its
/// process had started, and when its end was known.
async fn first_container(
    way: &str,
    engine: &SharedEngine,
    image: &str,
    began: Instant,
) -> Result<(Duration, Duration), Failure> {
    let mut network = NetworkMode::Bridge;
    if way == "andon" {
        let spec = NetworkSpec { name: NETWORK.into(), ..NetworkSpec::default() };
        engine.create_network(&spec).await?;
        network = NetworkMode::Named { network: NETWORK.into(), aliases: Vec::new() };
    }
    let spec = ContainerSpec {
        name: NAME.into(),
        image: image.to_owned(),
        entrypoint: Some(vec!["true".into()]),
        network,
        ..ContainerSpec::default()
    };
    let id = engine.create_container(&spec).await?;
    engine.start_container(&id).await?;
    let started = began.elapsed();
    let code = engine.wait_container(&id, START_LIMIT).await?;
    let ended = began.elapsed();
    engine.remove_container(&id, Removal::EVERYTHING).await?;
    if way == "andon" {
        engine.remove_network(NETWORK).await?;
    }
    if code != 0 {
        return Err(format!("the first container ended with {code}").into());
    }
    Ok((started, ended))
}

async fn load(data_root: &Path, run_dir: &Path, tars: &[PathBuf]) -> Result<(), Failure> {
    let daemon = Daemon::start("andon", data_root, run_dir).await?;
    for tar in tars {
        let began = Instant::now();
        let file = tokio::fs::File::open(tar).await?;
        let loaded = daemon.engine().load_image(Box::pin(tokio_util::io::ReaderStream::new(file))).await?;
        println!("{}", json!({ "loaded": loaded, "load_ms": millis(began.elapsed()) }));
    }
    daemon.stop().await
}

fn millis(took: Duration) -> f64 {
    (took.as_secs_f64() * 10_000.0).round() / 10.0
}
