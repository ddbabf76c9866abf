//! `andon coordinator`, `andon worker`: the servers in the foreground. `andon up` starts these same commands in the
//! background. The third one is in `gateway`.
//!
//! Tokens come from `farm.json` or the environment, never from arguments of a server that somebody else could read
//! in the process list.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use andon_coordinator::{CoordinatorConfig, CoreConfig, Role, WhereLed};
use andon_worker::agent::{DATA_DIR_DEFAULT, PoolKind, PoolOptions, WorkerConfig};
use clap::{ArgAction, Args};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::error::CliError;
use super::farm::FarmArgs;
use super::gateway::Whose;
use super::out;
use super::registry::{RegistryArgs, Surroundings};
use super::shares::{ShareArgs, Shares};
use super::traces::TracesArgs;
use crate::report::exit::Exit;
use crate::state::{FarmFile, StateDir, StateError};

/// Where a coordinator listens unless told otherwise: nobody but this machine reaches it.
pub(crate) const LISTEN_DEFAULT: &str = "127.0.0.1:7077";
/// Digits of a farm's name.
const FARM_NAME_DIGITS: usize = 8;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon coordinator\n  andon coordinator --state /var/lib/andon --listen \
                        0.0.0.0:7077\n\nIts tokens are in farm.json of the state folder; they are made at the first start."
)]
pub(crate) struct CoordinatorArgs {
    /// TCP address to listen on [default: the farm's, at first 127.0.0.1:7077]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    shares: ShareArgs,
    #[command(flatten)]
    traces: TracesArgs,
    /// Where another coordinator leads this farm: wait for as long as it does, and take over
    #[arg(long)]
    standby: bool,
}

pub(crate) async fn coordinator(args: CoordinatorArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    log_to_stderr();
    let traces = args.traces.checked()?;
    let state = farm.state_dir()?;
    let file = ensure_farm(
        &state,
        &Told { listen: args.listen, store: args.store.checked()?, shares: args.shares, ..Told::default() },
    )?;
    let config = CoordinatorConfig {
        state_dir: state.coordinator(),
        listen: Some(listen_address(&file)?),
        store: file.store,
        socket: Some(state.socket()?),
        client_token: file.client_token,
        role_tokens: [(Role::Viewer, file.viewer_token), (Role::Developer, file.developer_token)]
            .into_iter()
            .filter_map(|(role, token)| Some((role, token?)))
            .collect(),
        join_token: file.join_token,
        core: CoreConfig {
            quotas: file.shares.quotas,
            weights: file.shares.weights,
            ..CoreConfig::default()
        },
        keep_runs: (file.keep_runs_days > 0)
            .then(|| Duration::from_secs(u64::from(file.keep_runs_days) * 86_400)),
        where_led: if args.standby { WhereLed::StandBy } else { WhereLed::Refuse },
        traces,
    };
    andon_coordinator::serve(config, stop_on_signal()?)
        .await
        .map_err(|error| CliError::infrastructure("the coordinator cannot go on").because(&error))?;
    Ok(Exit::Passed)
}

/// How long runs are kept unless told.
const KEEP_DAYS_DEFAULT: u32 = 90;
const KEEP_DAYS_MAX: i64 = 36_500;

/// For a `farm.json` that does not say.
pub(crate) fn keep_days_default() -> u32 {
    KEEP_DAYS_DEFAULT
}

/// Takes the farm back to the database in its own folder.
const SQLITE: &str = "sqlite";

/// Where a coordinator keeps its runs.
#[derive(Debug, Default, Clone, Args)]
pub(crate) struct StoreArgs {
    /// Where runs are kept: postgres://USER:PASSWORD@HOST/DATABASE, or sqlite for a file in the state folder. Better given in
    /// the environment: others can read arguments
    #[arg(long, value_name = "URL", env = "ANDON_STORE", hide_env_values = true)]
    store: Option<String>,
    /// Delete tests, attempts and logs of runs that ended so many days ago; the runs stay listed. 0 keeps all [default: 90]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=KEEP_DAYS_MAX))]
    keep_runs_days: Option<u32>,
}

impl StoreArgs {
    /// What is told of it, where that can be meant.
    pub(crate) fn checked(&self) -> Result<Self, CliError> {
        let is_known = |url: &String| {
            url == SQLITE || url.starts_with("postgres://") || url.starts_with("postgresql://")
        };
        match &self.store {
            Some(url) if !is_known(url) => {
                Err(CliError::usage("--store is neither sqlite nor a postgres:// URL"))
            }
            _ => Ok(self.clone()),
        }
    }
}

/// What a farm is told on the command line; what is not given stays as it is.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) watch: Vec<String>,
    pub(crate) credentials: Option<Whose>,
    pub(crate) store: StoreArgs,
    pub(crate) shares: ShareArgs,
}

/// Reads `farm.json`, or makes it with fresh tokens; brings it up to date.
pub(crate) fn ensure_farm(state: &StateDir, told: &Told) -> Result<FarmFile, CliError> {
    state.create()?;
    let before = match state.farm() {
        Ok(file) => Some(file),
        Err(StateError::NoFarm(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let mut file = before.clone().unwrap_or_else(|| {
        let mut farm = andon_coordinator::new_token();
        farm.truncate(FARM_NAME_DIGITS);
        FarmFile {
            farm,
            listen: LISTEN_DEFAULT.to_owned(),
            client_token: andon_coordinator::new_token(),
            viewer_token: None,
            developer_token: None,
            join_token: andon_coordinator::new_token(),
            watch: Vec::new(),
            credentials: Whose::None,
            shares: Shares::default(),
            store: None,
            keep_runs_days: KEEP_DAYS_DEFAULT,
        }
    });
    for token in [&mut file.viewer_token, &mut file.developer_token] {
        token.get_or_insert_with(andon_coordinator::new_token);
    }
    if let Some(whose) = told.credentials {
        file.credentials = whose;
    }
    if let Some(days) = told.store.keep_runs_days {
        file.keep_runs_days = days;
    }
    match told.store.store.as_deref() {
        Some(SQLITE) => file.store = None,
        Some(url) => file.store = Some(url.to_owned()),
        None => {}
    }
    file.shares.take(&told.shares);
    if let Some(listen) = told.listen {
        file.listen = listen.to_string();
    }
    for watched in &told.watch {
        let name = watched.split_once('=').map_or(watched.as_str(), |(name, _)| name);
        file.watch.retain(|before| before.split_once('=').map_or(before.as_str(), |(name, _)| name) != name);
        file.watch.push(watched.clone());
    }
    if before.as_ref() != Some(&file) {
        state.write_farm(&file)?;
    }
    Ok(file)
}

fn listen_address(file: &FarmFile) -> Result<SocketAddr, CliError> {
    file.listen.parse().map_err(|error: std::net::AddrParseError| {
        CliError::usage(format!("farm.json names {:?} as the address to listen on", file.listen))
            .because(&error)
            .hint("--listen sets it")
    })
}

/// Cancelled at SIGTERM, SIGINT and SIGHUP.
pub(crate) fn stop_on_signal() -> Result<CancellationToken, CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| {
        signal(kind).map_err(|error| CliError::infrastructure("cannot listen for signals").because(&error))
    };
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
        stopping.cancel();
    });
    Ok(stop)
}

/// Servers say what they do on stderr; `ANDON_LOG` chooses how much.
pub(crate) fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("ANDON_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // A second call in one process would be refused; there is none.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(out::stderr_colour())
        .try_init();
}

const DAY_SECS: u64 = 24 * 60 * 60;

/// A worker's variables that `andon up` hands on to its boxes.
pub(crate) const WORKER_VARIABLES: [&str; 8] = [
    "ANDON_DEEP_CHECK_EVERY",
    "ANDON_DIRECT",
    "ANDON_FSYNC",
    "ANDON_LOG",
    "ANDON_POOL_KIND",
    "ANDON_POOL_MAX_GIB",
    "ANDON_POOL_SET_ASIDE",
    "ANDON_POOL_UNUSED_DAYS",
];

/// What a worker is told. Inside a box all of it comes from the environment.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// Name of the worker, unique in the farm [default: the host's name]
    #[arg(long, value_name = "NAME", env = "ANDON_WORKER_NAME")]
    name: Option<String>,
    /// How many lanes [default: one a CPU, at most 8]
    #[arg(long, value_name = "N", env = "ANDON_LANES")]
    lanes: Option<u32>,
    /// How a lane is put back to its baseline [default: the fastest that works here]
    #[arg(long, value_enum, env = "ANDON_DRIVER")]
    driver: Option<Driver>,
    /// Pool, images, sockets: a folder on a real file system
    #[arg(long, value_name = "DIR", env = "ANDON_DATA", default_value = DATA_DIR_DEFAULT)]
    data: PathBuf,
    /// The farm's join token; the environment variable keeps it out of the process list
    #[arg(long, value_name = "TOKEN", env = "ANDON_JOIN_TOKEN", hide_env_values = true)]
    join_token: Option<String>,
    /// This network namespace is the worker's own, as in a box: routing between lanes is turned off in it
    #[arg(long, env = "ANDON_OWN_NETWORK")]
    own_network: bool,
    /// How the pool clones file trees [default: the fastest that the host's file system can, or one in an image]
    #[arg(long, env = "ANDON_POOL_KIND")]
    pool_kind: Option<Pool>,
    /// Most that the pool's image may grow to, in GiB, where the host's file system cannot clone [default: 256]
    #[arg(long, value_name = "GIB", env = "ANDON_POOL_MAX_GIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pool_max_gib: Option<u64>,
    /// A pool image that is damaged is kept as pool.img.broken-N and made anew, instead of refusing to start
    #[arg(long, env = "ANDON_POOL_SET_ASIDE")]
    pool_set_aside: bool,
    /// Baselines that nothing used for so many days are removed from the pool; 0 keeps them while there is room
    #[arg(long, value_name = "DAYS", env = "ANDON_POOL_UNUSED_DAYS", default_value_t = 14, value_parser = clap::value_parser!(u32).range(..=3_650))]
    pool_unused_days: u32,
    /// Each N rebases of a stack every byte of it is read and compared with the baseline's digests; 0 for never
    #[arg(long, value_name = "N", env = "ANDON_DEEP_CHECK_EVERY", default_value_t = 200)]
    deep_check_every: u32,
    /// Let services and tests sync to the disk when they ask for it. Otherwise a sync in a lane succeeds at once: what lanes
    /// write has to outlive nothing
    #[arg(long, env = "ANDON_FSYNC")]
    fsync: bool,
    /// Kill and start services' containers without the nested daemon between units, where that can be
    #[arg(long, value_name = "BOOL", env = "ANDON_DIRECT", default_value_t = true, action = ArgAction::Set)]
    direct: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(crate) async fn worker(args: AgentArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    log_to_stderr();
    let (coordinator, token) = match (&farm.coordinator, args.join_token) {
        (Some(url), Some(token)) => (url.clone(), token),
        (Some(_), None) => {
            return Err(CliError::usage("a worker needs the farm's join token")
                .hint("give it as ANDON_JOIN_TOKEN; it is in farm.json of the coordinator's state folder"));
        }
        (None, token) => {
            let state = farm.state_dir()?;
            let url = format!("unix://{}", state.socket()?.display());
            (url, token.map_or_else(|| state.farm().map(|file| file.join_token), Ok)?)
        }
    };
    let registry = args.registry.config(&Surroundings::of_process())?;
    let config = WorkerConfig {
        coordinator,
        token,
        name: args.name,
        lanes: args.lanes,
        data_dir: args.data,
        driver: args.driver.map(Driver::of_worker),
        pool: PoolOptions {
            kind: args.pool_kind.map(Pool::of_worker),
            image_bytes_max: args.pool_max_gib.map(|gib| gib << 30),
            set_aside_damaged: args.pool_set_aside,
            ..PoolOptions::default()
        },
        deep_every: args.deep_check_every,
        fsync: args.fsync,
        direct: args.direct,
        pool_unused: (args.pool_unused_days > 0)
            .then(|| Duration::from_secs(u64::from(args.pool_unused_days) * DAY_SECS)),
        registry,
        own_network: args.own_network,
    };
    Box::pin(andon_worker::agent::run(config))
        .await
        .map_err(|error| CliError::infrastructure("the worker cannot go on").because(&error))?;
    Ok(Exit::Passed)
}

/// One way to put a stack back to its baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Driver {
    /// Freeze the services' processes and put their memory and files back; where a stack does not allow it, as `standby`
    Rewind,
    /// Change over to a stack that stands by, and put the used one back behind the tests
    Standby,
    /// Kill, put the volumes back, start
    Restart,
    /// Remove and create anew: slower, works everywhere
    Recreate,
}

impl Driver {
    /// As the worker knows it.
    pub(crate) const fn of_worker(self) -> andon_worker::hands::Driver {
        match self {
            Self::Rewind => andon_worker::hands::Driver::Rewind,
            Self::Standby => andon_worker::hands::Driver::Standby,
            Self::Restart => andon_worker::hands::Driver::Restart,
            Self::Recreate => andon_worker::hands::Driver::Recreate,
        }
    }
}

/// One way to clone file trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Pool {
    /// Snapshots of btrfs, in an image where the host's file system is another
    Btrfs,
    /// Shared extents (XFS), in an image where the host's file system has none
    Reflink,
    /// An overlay mount over the baseline, on the host's file system
    Overlay,
    /// Plain copies, on the host's file system
    Copy,
}

impl Pool {
    /// As the worker knows it.
    const fn of_worker(self) -> PoolKind {
        match self {
            Self::Btrfs => PoolKind::Btrfs,
            Self::Reflink => PoolKind::Reflink,
            Self::Overlay => PoolKind::Overlay,
            Self::Copy => PoolKind::Copy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_farm_keeps_its_tokens_and_takes_new_watches() {
        let temp = tempfile::tempdir().unwrap();
        let state = StateDir::choose(Some(temp.path()), None, None).unwrap();
        let ask = |watch: &[&str]| Told {
            store: StoreArgs::default(),
            shares: ShareArgs::default(),
            listen: None,
            watch: watch.iter().map(|&watched| watched.to_owned()).collect(),
            credentials: None,
        };
        let first = ensure_farm(&state, &ask(&["a=/one"])).unwrap();
        let second = ensure_farm(&state, &ask(&["b=/two", "a=/three"])).unwrap();
        assert_eq!(first.client_token, second.client_token);
        assert_eq!(second.watch, ["b=/two", "a=/three"]);
        assert_eq!(state.farm().unwrap(), second);
    }
}
