//! The coordinator: one task drives the pure core ([`andon_core`]), a store makes every decision durable before it
//! takes effect, and three gRPC services speak to clients and workers. It knows no Docker and no git.

mod asked;
mod blobs;
mod clock;
mod drift;
mod driver;
mod lead;
mod looking;
mod owning;
mod plan;
mod printed;
mod quarantining;
mod restore;
mod retention;
mod roles;
mod round;
mod rpc;
mod sessions;
pub mod store;
#[doc(hidden)]
pub mod testing;
mod traces;
mod unreferenced;
mod verifying;
mod views;
mod watch;
mod web;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

pub use andon_core::Config as CoreConfig;
pub use lead::WhereLed;
pub use roles::Role;
pub use traces::{TracesConfig, TracesError};

/// In the state folder: where the coordinator that runs, or that ran last, listens for TCP.
pub const ADDRESS_FILE: &str = "address";

/// Where a coordinator keeps its state and how it is reached.
#[derive(Debug, Clone)]
pub struct CoordinatorConfig {
    /// Blobs live here, and the database unless `store` says otherwise; made where it is missing.
    pub state_dir: PathBuf,
    /// `postgres://…`; `None` for SQLite in the state folder.
    pub store: Option<String>,
    /// TCP address; loopback unless the operator says otherwise. `None` for the socket alone.
    pub listen: Option<SocketAddr>,
    /// Unix socket, made (and a stale one replaced) with mode 0600.
    pub socket: Option<PathBuf>,
    /// What clients show that may do everything: CLI, hook, gateway.
    pub client_token: String,
    /// What others show, who may less.
    pub role_tokens: Vec<(Role, String)>,
    /// What workers show.
    pub join_token: String,
    /// Lease times.
    pub core: CoreConfig,
    /// Tests, attempts and logs of runs that ended longer ago are deleted; `None` to keep all.
    pub keep_runs: Option<Duration>,
    /// What to do where another coordinator leads this farm.
    pub where_led: WhereLed,
    /// Where traces of runs go; `None` for nowhere.
    pub traces: Option<TracesConfig>,
}

/// Why a coordinator could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// Neither an address nor a socket was given.
    #[error("the coordinator needs a TCP address or a unix socket to listen on")]
    NowhereToListen,
    /// A token is too short to protect anything.
    #[error("the {0} token is shorter than {MIN_TOKEN} characters")]
    WeakToken(&'static str),
    /// The state folder is another coordinator's.
    #[error("another coordinator uses {0}")]
    InUse(PathBuf),
    /// A file or socket.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The address is taken or not ours.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// Traces cannot be sent to where they are to go.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// The store.
    #[error("the store failed")]
    Store(#[from] store::StoreError),
    /// A server stopped.
    #[error("the server stopped")]
    Serve(#[from] tonic::transport::Error),
}

/// How long connections may take to end when the coordinator stops.
const STOP_GRACE: std::time::Duration = std::time::Duration::from_secs(5);
/// The shortest token that is accepted.
pub const MIN_TOKEN: usize = 16;

/// A token nobody can guess: 32 random bytes in hex.
#[must_use]
pub fn new_token() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

/// Runs a coordinator until `stop` is cancelled. Everything acknowledged before is durable.
///
/// # Errors
/// Where it cannot start, or a server breaks.
pub async fn serve(config: CoordinatorConfig, stop: CancellationToken) -> Result<(), CoordinatorError> {
    let of_roles = config.role_tokens.iter().map(|(role, token)| (role.word(), token));
    for (name, token) in of_roles.chain([("client", &config.client_token), ("join", &config.join_token)]) {
        if token.len() < MIN_TOKEN {
            return Err(CoordinatorError::WeakToken(name));
        }
    }
    if config.listen.is_none() && config.socket.is_none() {
        return Err(CoordinatorError::NowhereToListen);
    }
    let collector = config.traces.as_ref().map(traces::Collector::new).transpose()?;
    let Some(opened) = stop.run_until_cancelled(open(&config)).await else { return Ok(()) };
    let (_lock, store) = opened?;
    let blobs = blobs::Blobs::open(config.state_dir.join("blobs"))
        .map_err(|source| io("open", config.state_dir.join("blobs"), source))?;
    let forgetting = config.keep_runs.map(|keep| (Arc::clone(&store), keep));
    let farm = driver::Farm::start(store, blobs, config.core, stop.clone()).await?;
    let of_roles = config.role_tokens.iter().map(|(role, token)| (*role, token.as_str()));
    let tokens = roles::Tokens::new(of_roles.chain([(Role::Admin, config.client_token.as_str())]));
    let services = rpc::services(&farm, &tokens, &config.join_token);

    let traces = collector.map(|collector| {
        let (traces, exporter) = traces::open(collector, Arc::clone(&farm.store), Arc::clone(&farm.meters));
        tokio::spawn(exporter.run(stop.clone()));
        traces
    });
    tokio::spawn({
        let entering = views::entering::run(Arc::clone(&farm.store), farm.owning.clone(), traces);
        let stop = stop.clone();
        async move { stop.run_until_cancelled(entering).await }
    });
    if let Some((store, keep)) = forgetting {
        let forgetting = retention::run(store, farm.blobs.clone(), keep, farm.clock);
        let stop = stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(forgetting).await });
    }
    let mut servers = tokio::task::JoinSet::new();
    if let Some(address) = config.listen {
        let listener =
            TcpListener::bind(address).await.map_err(|source| CoordinatorError::Listen(address, source))?;
        // Of port 0 the system makes another one.
        let address = listener.local_addr().map_err(|source| CoordinatorError::Listen(address, source))?;
        let told = config.state_dir.join(ADDRESS_FILE);
        std::fs::write(&told, format!("{address}\n")).map_err(|source| io("write", told, source))?;
        let stop = stop.clone();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let state = web::State {
            views: views::Views::of(&farm),
            meters: Arc::clone(&farm.meters),
            access: web::Access::new(tokens, address.ip().is_loopback(), farm.clock),
            reruns: rpc::Reruns::new(farm.clone()),
            stop: farm.stop.clone(),
        };
        let pages = web::router(state);
        let both = rpc::server(services.clone(), Some(pages));
        servers.spawn(both.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()));
        tracing::info!(%address, "listening");
    }
    if let Some(path) = &config.socket {
        let listener = bind_socket(path)?;
        let stop = stop.clone();
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        servers.spawn(
            rpc::server(services, None).serve_with_incoming_shutdown(incoming, stop.cancelled_owned()),
        );
        tracing::info!(socket = %path.display(), "listening");
    }
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        ended = end_of(&mut servers, &stop) => ended?,
        () = overdue => {
            // Who does not read its connection must not keep everybody else from the next coordinator.
            tracing::warn!(grace = ?STOP_GRACE, "connections that do not end are cut");
            servers.shutdown().await;
        }
    }
    farm.finish().await;
    if let Some(path) = &config.socket {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Until every server has ended; one takes the others along.
async fn end_of(
    servers: &mut tokio::task::JoinSet<Result<(), tonic::transport::Error>>,
    stop: &CancellationToken,
) -> Result<(), CoordinatorError> {
    while let Some(ended) = servers.join_next().await {
        stop.cancel();
        ended.expect("a server does not panic")?;
    }
    Ok(())
}

/// Waits for its turn where that was asked for, and opens the store.
async fn open(
    config: &CoordinatorConfig,
) -> Result<(std::fs::File, Arc<dyn store::Store>), CoordinatorError> {
    let lock = config.where_led.get(|| std::future::ready(lead::lock(&config.state_dir))).await?;
    let store: Arc<dyn store::Store> = match &config.store {
        Some(url) => {
            let outputs = config.state_dir.join("outputs");
            let open = || async { Ok(store::postgres::Postgres::open(url, &outputs).await?) };
            Arc::new(config.where_led.get(open).await?)
        }
        None => Arc::new(store::sqlite::Sqlite::open(&config.state_dir.join("farm.db")).await?),
    };
    Ok((lock, store))
}

fn bind_socket(path: &std::path::Path) -> Result<UnixListener, CoordinatorError> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|source| io("make", folder.to_owned(), source))?;
    }
    // The lock on the state folder is ours, so a socket that is there is a dead coordinator's.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(io("replace", path.to_owned(), error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(|source| io("listen on", path.to_owned(), source))?;
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, mode).map_err(|source| io("protect", path.to_owned(), source))?;
    Ok(listener)
}

fn io(what: &'static str, path: PathBuf, source: std::io::Error) -> CoordinatorError {
    CoordinatorError::Io { what, path, source }
}
