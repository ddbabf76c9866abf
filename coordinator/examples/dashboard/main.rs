//! The dashboard over a farm that never was: a history is put into a store, a coordinator serves it, workers are played, and one run after
//! the other is under way. For looking at pages, and for the browser's tests.
//!
//! ```text
//! dashboard [listen=127.0.0.1:7979] [state=FOLDER] [still]      still: no workers, no run
//! ```
//!
//! Prints `dashboard on http://…` once it answers; port 0 takes one that is free. Ends with SIGINT.

mod made;
mod played;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use andon_coordinator::store::Store;
use andon_coordinator::store::sqlite::Sqlite;
use andon_coordinator::{CoordinatorConfig, CoreConfig, WhereLed};
use andon_proto as wire;
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const CLIENT: &str = "client-token-of-the-dashboard";
const JOIN: &str = "join-token-of-the-dashboard";
/// Between two runs.
const PAUSE: Duration = Duration::from_secs(10);

struct Options {
    listen: SocketAddr,
    state: PathBuf,
    is_still: bool,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let scratch = tempfile::tempdir()?;
    let mut options =
        Options { listen: "127.0.0.1:7979".parse()?, state: scratch.path().to_owned(), is_still: false };
    for arg in std::env::args().skip(1) {
        match arg.split_once('=') {
            Some(("listen", value)) => options.listen = value.parse()?,
            Some(("state", value)) => options.state = value.into(),
            None if arg == "still" => options.is_still = true,
            _ => return Err(format!("{arg:?}: write listen=ADDRESS, state=FOLDER or still").into()),
        }
    }
    if options.listen.port() == 0 {
        options.listen = std::net::TcpListener::bind(options.listen)?.local_addr()?;
    }
    fill(&options.state).await?;
    let config = CoordinatorConfig {
        state_dir: options.state.clone(),
        store: None,
        listen: Some(options.listen),
        socket: None,
        client_token: CLIENT.into(),
        role_tokens: Vec::new(),
        join_token: JOIN.into(),
        core: CoreConfig::default(),
        keep_runs: None,
        where_led: WhereLed::Refuse,
        traces: None,
    };
    let stop = CancellationToken::new();
    let serving = tokio::spawn(andon_coordinator::serve(config, stop.clone()));
    let channel = connected(options.listen).await?;
    println!("dashboard on http://{} (client token: {CLIENT})", options.listen);
    if !options.is_still {
        for (worker, lanes) in made::WORKERS {
            for lane in 0..lanes {
                let (channel, name) = (connected(options.listen).await?, format!("{worker}-{lane}"));
                tokio::spawn(async move { played::work(channel, &name).await });
            }
        }
        tokio::spawn(async move { keep_running(channel).await });
    }
    tokio::signal::ctrl_c().await?;
    stop.cancel();
    serving.await??;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a history that ends now")]
fn now_unix_ms() -> Result<u64, Failure> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

async fn fill(state: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(state)?;
    made::put_blobs(state)?;
    let store = Sqlite::open(&state.join("farm.db")).await?;
    let history = made::history(now_unix_ms()?);
    for rounds in history.chunks(200) {
        store.apply(&rounds.concat()).await?;
    }
    Ok(())
}

/// A run, and another one once it has ended.
async fn keep_running(channel: Channel) -> Result<(), Failure> {
    let source_digest = put(&channel, b"source".to_vec()).await?;
    let mut farm = wire::farm_client::FarmClient::new(channel.clone());
    for number in 0_u64.. {
        let spec = wire::RunSpec {
            project: "shop".into(),
            repository: "https://git.example/acme/shop.git".into(),
            commit: blake3::hash(&number.to_le_bytes()).to_hex()[..40].to_owned(),
            git_ref: "refs/heads/main".into(),
            source_digest: source_digest.clone(),
            suites: vec![wire::Suite { name: "integration".into(), ..wire::Suite::default() }],
            ..wire::RunSpec::default()
        };
        let spec_digest = put(&channel, spec.encode_to_vec()).await?;
        let request = wire::SubmitRunRequest { spec_digest, ..wire::SubmitRunRequest::default() };
        let run = farm.submit_run(with(CLIENT, request)).await?.into_inner().run;
        let mut events = farm.watch_run(with(CLIENT, wire::WatchRunRequest { run })).await?.into_inner();
        while events.message().await?.is_some() {}
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn put(channel: &Channel, bytes: Vec<u8>) -> Result<String, Failure> {
    let digest = blake3::hash(&bytes).to_hex().to_string();
    let chunk = wire::BlobChunk { digest: digest.clone(), data: bytes };
    let mut blobs = wire::blobs_client::BlobsClient::new(channel.clone());
    blobs.put(with(CLIENT, tokio_stream::iter([chunk]))).await?;
    Ok(digest)
}

async fn connected(address: SocketAddr) -> Result<Channel, Failure> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let connecting = async {
        loop {
            if let Ok(channel) = endpoint.connect().await {
                return channel;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    Ok(tokio::time::timeout(Duration::from_secs(20), connecting).await?)
}

fn with<T>(token: &str, body: T) -> Request<T> {
    let mut request = Request::new(body);
    let value = MetadataValue::try_from(format!("Bearer {token}")).expect("a token is ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}
