//! `andon up` and `andon down`: the farm of this machine.
//!
//! `up` adds what is missing and leaves alone what runs: coordinator, gateway (where something is watched), worker
//! boxes; then it waits until every worker is connected. `down` stops all of it. Both hold the state folder's lock.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use andon::connect::Connection;
use andon_proto::{ListWorkersRequest, Worker};
use clap::Args;
use tokio::time::Instant;

use super::boxes::{self, Boxes};
use super::error::CliError;
use super::farm::{self, Address, FarmArgs};
use super::gateway::{Whose, absolute_watch, config_file, parse_watch};
use super::process::{Background, ProcessError};
use super::registry::{RegistryArgs, Surroundings};
use super::servers::{Driver, StoreArgs, Told, ensure_farm};
use super::shares::ShareArgs;
use super::{engine, out};
use crate::report::exit::Exit;
use crate::report::text::cut;
use crate::report::words;
use crate::state::{FarmFile, StateDir, StateError};

/// How long the coordinator may take until it answers.
const COORDINATOR_READY: Duration = Duration::from_secs(30);
/// How long the workers may take: a nested daemon starts, a pool is made.
const WORKERS_READY: Duration = Duration::from_secs(180);
/// Between two looks at what is being waited for.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Of a log that explains a failure.
const LOG_LINES: u32 = 15;
/// Most boxes on one machine.
const WORKERS_MAX: i64 = 64;
/// Most lanes of one box.
const LANES_MAX: i64 = 64;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  andon up\n  andon up --workers 4 --lanes 2 --watch \
                        shop=/srv/git/shop.git#main\n  andon up --state /var/lib/andon --listen 0.0.0.0:7077\n\nWhat runs \
                        already stays as it is; what is missing is added. A privileged worker box is root on its host.")]
pub(crate) struct UpArgs {
    /// Worker boxes on this machine's Docker engine
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=WORKERS_MAX))]
    workers: u32,
    /// Lanes of each: tests that run at the same time, each on its own clone of the stack
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=LANES_MAX))]
    lanes: u32,
    /// How a lane is put back to its baseline [default: the fastest that the worker can]
    #[arg(long, value_enum)]
    driver: Option<Driver>,
    /// Poll this repository and run each new commit of these branches [default: as its andon.toml says]
    #[arg(long, value_name = "NAME=URL[#BRANCH]")]
    watch: Vec<String>,
    /// Whose credentials git uses to fetch what is watched [default: none]
    #[arg(long, value_enum, value_name = "WHOSE")]
    credentials: Option<Whose>,
    /// TCP address of the coordinator [default: 127.0.0.1:7077]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Image of the worker boxes, present in this machine's engine
    #[arg(long, value_name = "NAME", default_value = "andon-worker")]
    image: String,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    shares: ShareArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon down\n  andon down --purge    also forget runs, baselines and tokens"
)]
pub(crate) struct DownArgs {
    /// Remove the state folder too: runs, baselines, tokens
    #[arg(long)]
    purge: bool,
}

pub(crate) async fn up(args: UpArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let state = farm.state_dir()?;
    state.create()?;
    let _lock = state.lock()?;
    let told = Told {
        listen: args.listen,
        watch: args.watch.iter().map(|watched| absolute_watch(watched)).collect(),
        credentials: args.credentials,
        store: args.store.checked()?,
        shares: args.shares.clone(),
    };
    for watched in &told.watch {
        parse_watch(watched, Whose::None)?;
    }
    let registry = args.registry.config(&Surroundings::of_process())?;
    // Before anything starts: no engine is the commonest reason why nothing will work.
    let engine = if args.workers > 0 { Some(engine::connect().await?) } else { None };
    let before = state.farm().ok();
    let file = ensure_farm(&state, &told)?;
    let processes = Processes::of(&state);

    let moved = before.as_ref().is_some_and(|before| {
        let settings = |file: &FarmFile| {
            (file.listen.clone(), file.shares.clone(), file.store.clone(), file.keep_runs_days)
        };
        settings(before) != settings(&file)
    });
    if moved && processes.coordinator.stop().await? {
        out::line("coordinator stopped, to start with its new settings")?;
    }
    let connection = coordinator(&state, &file, &processes.coordinator).await?;
    gateway(&state, &file, before.as_ref(), &processes.gateway).await?;
    if let Some(engine) = engine {
        let boxes = Boxes::new(engine, &file.farm)?;
        let wanted = boxes::Wanted {
            count: args.workers,
            lanes: args.lanes,
            driver: args.driver,
            image: args.image,
            socket: state.socket()?,
            join_token: file.join_token.clone(),
            registry,
        };
        let names = boxes.start_missing(&wanted).await?;
        wait_for_workers(&connection, &boxes, &names).await?;
    }
    out::line(&format!(
        "the farm is up: look at it on http://{}; its state is in {}",
        file.listen,
        state.path().display()
    ))?;
    out::line("next: `andon run` in a project, `andon worker list`, `andon down`")?;
    Ok(Exit::Passed)
}

pub(crate) async fn down(args: &DownArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let state = farm.state_dir()?;
    let file = match state.farm() {
        Ok(file) => Some(file),
        Err(StateError::NoFarm(_)) => None,
        // A damaged file must not keep `--purge` from cleaning up.
        Err(error) if args.purge => {
            out::note(&format!("{error}; going on, because everything is to be removed"));
            None
        }
        Err(error) => return Err(error.into()),
    };
    if !state.path().is_dir() {
        out::line(&format!("there is no farm in {}", state.path().display()))?;
        return Ok(Exit::Passed);
    }
    let lock = state.lock()?;
    let processes = Processes::of(&state);
    if processes.gateway.stop().await? {
        out::line("gateway stopped")?;
    }
    if let Some(file) = &file {
        remove_boxes(file).await?;
    }
    if processes.coordinator.stop().await? {
        out::line("coordinator stopped")?;
    }
    if args.purge {
        state.purge()?;
        out::line(&format!("removed {}", state.path().display()))?;
    }
    drop(lock);
    Ok(Exit::Passed)
}

/// The background processes of a farm.
pub(crate) struct Processes {
    pub(crate) coordinator: Background,
    pub(crate) gateway: Background,
}

impl Processes {
    /// Those of this state folder.
    pub(crate) fn of(state: &StateDir) -> Self {
        let named = |name| Background::new(&state.pids(), &state.logs(), name);
        Self { coordinator: named("coordinator"), gateway: named("gateway") }
    }
}

async fn remove_boxes(file: &FarmFile) -> Result<(), CliError> {
    let engine = match engine::connect().await {
        Ok(engine) => engine,
        // Without an engine there are no boxes that run; the rest is still to be stopped.
        Err(error) => {
            out::note(&format!("worker boxes were not looked for: {error}"));
            return Ok(());
        }
    };
    let removed = Boxes::new(engine, &file.farm)?.remove_all().await?;
    if removed > 0 {
        out::line(&format!(
            "{} removed",
            words::plural(removed as u64, "worker box").replace("boxs", "boxes")
        ))?;
    }
    Ok(())
}

/// This same program, as another of its servers.
fn this_program(state: &StateDir, server: &str) -> Result<Command, CliError> {
    let program = std::env::current_exe()
        .map_err(|error| CliError::infrastructure("cannot find this program's own file").because(&error))?;
    let mut command = Command::new(program);
    command.arg(server).arg("--state").arg(state.path());
    // What this call was told about other farms must not reach the servers of this one.
    command.env_remove("ANDON_COORDINATOR").env_remove("ANDON_TOKEN").env_remove("ANDON_STATE");
    Ok(command)
}

async fn coordinator(
    state: &StateDir,
    file: &FarmFile,
    process: &Background,
) -> Result<Connection, CliError> {
    let address =
        Address { url: format!("unix:{}", state.socket()?.display()), token: file.client_token.clone() };
    let mut started = process.alive().is_none();
    if started {
        process.start(this_program(state, "coordinator")?)?;
    }
    let deadline = Instant::now() + COORDINATOR_READY;
    loop {
        let error = match farm::open(&address).await {
            Ok(connection) => match connection.farm().list_workers(ListWorkersRequest {}).await {
                Ok(_) => {
                    out::line(&format!("coordinator on http://{}", listening(state, file)))?;
                    return Ok(connection);
                }
                Err(status) => CliError::from(status),
            },
            Err(error) => error,
        };
        if process.alive().is_none() && !std::mem::replace(&mut started, true) {
            // It was there when this began, and was ending.
            process.start(this_program(state, "coordinator")?)?;
        } else if process.alive().is_none() {
            return Err(died(process, "the coordinator ended at once"));
        }
        if Instant::now() > deadline {
            return Err(error.hint(format!("its log: {}", process.log().display())));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Where it listens really; as it was asked for where that cannot be read.
fn listening(state: &StateDir, file: &FarmFile) -> String {
    let said = std::fs::read_to_string(state.coordinator().join(andon_coordinator::ADDRESS_FILE));
    said.map_or_else(|_| file.listen.clone(), |said| said.trim().to_owned())
}

fn died(process: &Background, what: &str) -> CliError {
    let tail = process.log_tail(LOG_LINES as usize);
    let said = if tail.is_empty() { "it said nothing".to_owned() } else { format!("it said:\n{tail}") };
    CliError::infrastructure(format!("{what}; {said}"))
        .hint(format!("the whole log: {}", process.log().display()))
}

async fn gateway(
    state: &StateDir,
    file: &FarmFile,
    before: Option<&FarmFile>,
    process: &Background,
) -> Result<(), CliError> {
    if file.watch.is_empty() && !config_file(state).is_file() {
        return Ok(());
    }
    let changed =
        before.is_none_or(|before| (&before.watch, before.credentials) != (&file.watch, file.credentials));
    if changed && process.stop().await? {
        out::line("gateway stopped, to watch more")?;
    }
    if process.alive().is_none() {
        process.start(this_program(state, "gateway")?)?;
    }
    for watched in &file.watch {
        let project = parse_watch(watched, file.credentials)?;
        let url = project.url.to_string();
        out::line(&format!("watching {}: {}", project.name, cut(&url, 200)))?;
    }
    Ok(())
}

async fn wait_for_workers(connection: &Connection, boxes: &Boxes, names: &[String]) -> Result<(), CliError> {
    let deadline = Instant::now() + WORKERS_READY;
    let mut said: Vec<String> = Vec::new();
    loop {
        let workers = connection.farm().list_workers(ListWorkersRequest {}).await?.into_inner().workers;
        for name in names {
            let ready = workers.iter().find(|worker| &worker.name == name && is_ready(worker));
            if let Some(worker) = ready.filter(|_| !said.contains(name)) {
                said.push(name.clone());
                out::line(&format!(
                    "worker {name} connected: {}, pool {}, driver {}",
                    words::plural(u64::from(worker.lanes), "lane"),
                    cut(&worker.pool, 60),
                    cut(&worker.driver, 60)
                ))?;
            }
        }
        let missing: Vec<&String> = names.iter().filter(|name| !said.contains(name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let unfit = workers.iter().find(|worker| missing.contains(&&worker.name) && !worker.unfit.is_empty());
        if let Some(worker) = unfit {
            return Err(CliError::infrastructure(format!("worker {} takes no work", worker.name))
                .because(&std::io::Error::other(worker.unfit.clone()))
                .hint("`andon doctor` looks at what the machine allows"));
        }
        if let Some((name, how)) = boxes.first_dead(&missing).await? {
            return Err(silent(boxes, name, &format!("ended before it connected{how}")).await);
        }
        if Instant::now() > deadline {
            return Err(silent(boxes, missing[0], "has not connected in time").await);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn is_ready(worker: &Worker) -> bool {
    worker.connected && worker.unfit.is_empty()
}

async fn silent(boxes: &Boxes, name: &str, what: &str) -> CliError {
    let tail = boxes.log_tail(name, LOG_LINES).await;
    CliError::infrastructure(format!("worker {name} {what}; it said:\n{tail}"))
        .hint(format!("the whole log: docker logs {name}\n`andon doctor` looks at what the machine allows"))
}

impl From<ProcessError> for CliError {
    fn from(error: ProcessError) -> Self {
        Self::infrastructure("a background process cannot be started or stopped").because(&error)
    }
}
