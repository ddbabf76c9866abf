//! Carries out what `machine.rs` decides: the one task that owns the two processes.
//!
//! The task waits for whatever comes first (a request to stop, the end of a process, an answer of the daemon, a timer),
//! hands it to the machine as an input and carries out the effects, one after the other.

use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::config::NestedConfig;
use super::machine::{Effect, Input, Process, STABLE_AFTER, START_LIMIT, State, Tries};
use super::memory::KillCount;
use super::prepare::DataRoot;
use super::process::{LastLines, Program, Spawner};
use super::{DaemonState, images, leftovers, mounts, orphans, prepare};
use crate::engine::{DockerEngine, Engine, Status};
use crate::host::mounts::is_mount_point;

/// Between two looks for something that is about to appear (a socket, a first answer).
const POLL: Duration = Duration::from_millis(2);
/// Between two questions whether a running daemon still answers.
const PING_EVERY: Duration = Duration::from_secs(5);
/// So many questions in a row without an answer make it unresponsive.
const PINGS_MISSED_MAX: u32 = 6;
/// Ending all containers at a shutdown.
const CONTAINERS_LIMIT: Duration = Duration::from_secs(20);
/// From SIGTERM to SIGKILL for dockerd.
const DOCKERD_GRACE: Duration = Duration::from_secs(15);
/// From SIGTERM to SIGKILL for containerd.
const CONTAINERD_GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Slot {
    child: Option<Child>,
    last_lines: LastLines,
}

impl Slot {
    /// The end of the process; never, where none runs.
    async fn ended(&mut self) -> io::Result<ExitStatus> {
        match &mut self.child {
            Some(child) => child.wait().await,
            None => pending().await,
        }
    }

    /// Waits for a process that was asked to end; kills it after the grace.
    async fn end(&mut self, process: Process, grace: Duration) {
        let Some(mut child) = self.child.take() else { return };
        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed()))
            && !grace.is_zero()
        {
            // It may have ended meanwhile: then waiting answers at once.
            let _ = kill_process(pid, Signal::TERM);
            if timeout(grace, child.wait()).await.is_ok() {
                return;
            }
            tracing::warn!(process = process.name(), ?grace, "did not end when asked to; killing it");
        }
        if let Err(error) = child.kill().await {
            tracing::warn!(process = process.name(), %error, "cannot be killed");
        }
    }
}

pub(super) struct Driver {
    config: NestedConfig,
    announce: watch::Sender<DaemonState>,
    stop: mpsc::Receiver<()>,
    stop_seen: bool,
    spawner: Spawner,
    containerd: Slot,
    dockerd: Slot,
    /// What is waited for beside the processes: the first answer, or the lack of one.
    probe: BoxFuture<'static, Input>,
    timer: Option<(Instant, Input)>,
    /// The process that failed last.
    failed: Option<Process>,
    kills: KillCount,
    /// The data root was no mount point before us: dockerd makes it one, and leaves it so when it is killed.
    root_was_plain: bool,
}

impl Driver {
    pub(super) fn new(
        config: NestedConfig,
        announce: watch::Sender<DaemonState>,
        stop: mpsc::Receiver<()>,
    ) -> io::Result<Self> {
        // A folder that does not exist yet is no mount point either.
        let root_was_plain = !is_mount_point(&config.data_root)?;
        Ok(Self {
            config,
            announce,
            stop,
            stop_seen: false,
            spawner: Spawner::new()?,
            containerd: Slot::default(),
            dockerd: Slot::default(),
            probe: Box::pin(pending()),
            timer: None,
            failed: None,
            kills: KillCount::now(),
            root_was_plain,
        })
    }

    /// Runs until the daemon is stopped or given up.
    pub(super) async fn run(mut self) {
        let mut state = State::New;
        let mut next = Some(Input::Begin);
        while !state.is_final() {
            let input = match next.take() {
                Some(input) => input,
                None => self.wait().await,
            };
            tracing::debug!(?state, ?input, "nested daemon");
            if let Input::Died(process, _) = &input {
                self.failed = Some(*process);
            }
            let (entered, effects) = state.step(input);
            state = entered;
            self.tell(&state);
            for effect in effects {
                // An effect's answer is the next input: at most one effect of a step has one.
                if let Some(answer) = self.carry_out(effect, &state).await {
                    next = Some(answer);
                }
            }
        }
    }

    async fn wait(&mut self) -> Input {
        let timer = self.timer.clone();
        let timed = async {
            match timer {
                Some((at, input)) => {
                    sleep_until(at).await;
                    input
                }
                None => pending().await,
            }
        };
        tokio::select! {
            _ = self.stop.recv(), if !self.stop_seen => {
                self.stop_seen = true;
                Input::StopAsked
            }
            status = self.containerd.ended() => {
                self.containerd.child = None;
                Input::Died(Process::Containerd, describe(status, &mut self.kills))
            }
            status = self.dockerd.ended() => {
                self.dockerd.child = None;
                Input::Died(Process::Dockerd, describe(status, &mut self.kills))
            }
            input = &mut self.probe => {
                self.probe = Box::pin(pending());
                input
            }
            input = timed => {
                self.timer = None;
                input
            }
        }
    }

    fn tell(&self, state: &State) {
        let told = match state {
            State::New
            | State::Preparing { tries: Tries { attempt: 1, .. } }
            | State::Starting { tries: Tries { attempt: 1, .. } } => DaemonState::Starting,
            // Further attempts: what was said when the last one failed still holds.
            State::Preparing { .. } | State::Starting { .. } => return,
            State::Running { .. } => DaemonState::Running,
            State::Clearing { reason, .. } | State::BackingOff { reason, .. } => {
                DaemonState::Restarting { reason: reason.clone() }
            }
            State::Stopping | State::Stopped => DaemonState::Stopped,
            State::GaveUp { reason } => {
                let log = match self.failed {
                    Some(Process::Containerd) => self.containerd.last_lines.text(),
                    _ => self.dockerd.last_lines.text(),
                };
                DaemonState::GaveUp { reason: reason.clone(), log }
            }
        };
        self.announce.send_if_modified(|current| {
            let changed = *current != told;
            *current = told;
            changed
        });
    }

    async fn carry_out(&mut self, effect: Effect, state: &State) -> Option<Input> {
        match effect {
            Effect::Prepare => {
                return Some(prepare(self.config.clone(), DataRoot::Kept, self.root_was_plain).await);
            }
            Effect::Renew => {
                return Some(prepare(self.config.clone(), DataRoot::Renewed, self.root_was_plain).await);
            }
            Effect::Spawn => return self.spawn().await,
            Effect::Kill => {
                self.kill().await;
                if *state == State::Stopping {
                    remove_mounts(self.config.clone(), self.root_was_plain).await;
                }
                return Some(Input::Cleared);
            }
            Effect::ShutDown => {
                self.shut_down().await;
                return Some(Input::Cleared);
            }
            Effect::ArmStartLimit => self.arm(START_LIMIT, Input::StartLimitPassed),
            Effect::ArmStableLimit => {
                self.arm(STABLE_AFTER, Input::StableLimitPassed);
                self.probe = Box::pin(until_unresponsive(self.config.address()));
            }
            Effect::ArmBackoff(pause) => self.arm(pause, Input::BackoffElapsed),
            Effect::Disarm => self.timer = None,
        }
        None
    }

    fn arm(&mut self, after: Duration, input: Input) {
        self.timer = Some((Instant::now() + after, input));
    }

    /// Both at the same time: each takes most of its start to load itself. dockerd waits for its configuration.
    async fn spawn(&mut self) -> Option<Input> {
        self.failed = None;
        self.kills = KillCount::now();
        let both = [
            (Process::Containerd, &mut self.containerd, self.config.containerd_arguments()),
            (Process::Dockerd, &mut self.dockerd, self.config.docker_arguments()),
        ];
        let filter = Some(self.config.filter()).filter(|path| path.is_file());
        for (process, slot, arguments) in both {
            let program = Program { name: process.name(), arguments, filter: filter.clone() };
            if let Err(error) = start(&self.spawner, slot, program).await {
                return Some(Input::Died(process, format!("cannot be started: {error}")));
            }
        }
        self.probe = Box::pin(until_answered(self.config.clone()));
        None
    }

    async fn kill(&mut self) {
        self.probe = Box::pin(pending());
        self.dockerd.end(Process::Dockerd, Duration::ZERO).await;
        self.containerd.end(Process::Containerd, Duration::ZERO).await;
        let socket = self.config.containerd_socket();
        let killed = tokio::task::spawn_blocking(move || orphans::kill(&socket)).await;
        tracing::debug!(?killed, "containers that outlived the nested daemon");
        end_direct(self.config.direct_folder()).await;
    }

    async fn shut_down(&mut self) {
        self.probe = Box::pin(pending());
        end_direct(self.config.direct_folder()).await;
        if timeout(CONTAINERS_LIMIT, end_containers(&self.config.address())).await.is_err() {
            tracing::warn!(limit = ?CONTAINERS_LIMIT, "containers did not end");
        }
        self.dockerd.end(Process::Dockerd, DOCKERD_GRACE).await;
        self.containerd.end(Process::Containerd, CONTAINERD_GRACE).await;
        remove_mounts(self.config.clone(), self.root_was_plain).await;
    }
}

/// Ends what was started without the daemon: it goes with it all the same.
async fn end_direct(folder: PathBuf) {
    match tokio::task::spawn_blocking(move || leftovers::end(&folder)).await {
        Ok(Ok(ended)) => tracing::debug!(ended, "containers that were started without the nested daemon"),
        Ok(Err(error)) => tracing::warn!(%error, "a container started without the nested daemon stays"),
        Err(error) => tracing::warn!(%error, "a container started without the nested daemon stays"),
    }
}

async fn prepare(config: NestedConfig, root: DataRoot, root_was_plain: bool) -> Input {
    let preparing = move || prepare::prepare(&config, root, root_was_plain);
    match tokio::task::spawn_blocking(preparing).await {
        Ok(Ok(doomed)) => {
            // Nobody waits for it: what is left of it at the end is deleted at the next start.
            drop(tokio::task::spawn_blocking(move || images::delete(&doomed)));
            Input::Prepared
        }
        Ok(Err(error)) => Input::PrepareFailed(error.to_string()),
        Err(error) => Input::PrepareFailed(error.to_string()),
    }
}

async fn remove_mounts(config: NestedConfig, root_was_plain: bool) {
    let removal = move || -> io::Result<usize> {
        let count = mounts::remove_beneath(&config.run_dir)? + mounts::remove_beneath(&config.data_root)?;
        if root_was_plain {
            mounts::remove_at(&config.data_root)?;
        }
        Ok(count)
    };
    match tokio::task::spawn_blocking(removal).await.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(0) => {}
        Ok(count) => tracing::debug!(count, "removed mounts that the nested daemon had left"),
        Err(error) => tracing::warn!(%error, "a mount of the nested daemon stays"),
    }
}

async fn start(spawner: &Spawner, slot: &mut Slot, program: Program) -> io::Result<()> {
    let name = program.name;
    let mut child = spawner.spawn(program).await?;
    slot.last_lines = LastLines::default();
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(slot.last_lines.clone().follow(name, stderr));
    }
    slot.child = Some(child);
    Ok(())
}

fn describe(status: io::Result<ExitStatus>, kills: &mut KillCount) -> String {
    match status {
        Ok(status) => format!("{status}{}", kills.words(status)),
        Err(error) => format!("its end cannot be waited for: {error}"),
    }
}

/// Lets dockerd go on once containerd listens, and waits for its first answer. A process that ends meanwhile, and a limit on
/// the whole, are looked after by [`Driver::wait`].
async fn until_answered(config: NestedConfig) -> Input {
    until_listening(&config.containerd_socket()).await;
    hand_over(&config).await;
    // dockerd listens before it serves: the first question waits in the socket's queue for its answer.
    until_listening(&config.docker_socket()).await;
    let address = config.address();
    while !answers(&address).await {
        sleep(POLL).await;
    }
    Input::Answered
}

async fn until_listening(socket: &Path) {
    while UnixStream::connect(socket).await.is_err() {
        sleep(POLL).await;
    }
}

/// Writes dockerd's configuration into the pipe that it reads it from. A dockerd that looks for containerd before it is there
/// looks again after a pause of a second; with its configuration it gets the word that it is. Until dockerd has come as far
/// as to read nobody can write.
async fn hand_over(config: &NestedConfig) {
    let pipe = config.docker_config();
    loop {
        if let Ok(mut sender) = pipe::OpenOptions::new().open_sender(&pipe)
            && sender.write_all(NestedConfig::docker_file().as_bytes()).await.is_ok()
        {
            return;
        }
        sleep(POLL).await;
    }
}

async fn answers(address: &str) -> bool {
    match DockerEngine::open(address) {
        Ok(engine) => engine.ping().await.is_ok(),
        Err(_) => false,
    }
}

async fn until_unresponsive(address: String) -> Input {
    let mut missed = 0;
    while missed < PINGS_MISSED_MAX {
        sleep(PING_EVERY).await;
        missed = if answers(&address).await { 0 } else { missed + 1 };
    }
    Input::Unresponsive
}

/// Kills every container: what runs in them is disposable, and a paused one would hold up the daemon's own shutdown.
async fn end_containers(address: &str) {
    let Ok(engine) = DockerEngine::open(address) else { return };
    let containers = match engine.list_containers("").await {
        Ok(containers) => containers,
        Err(error) => {
            tracing::warn!(%error, "cannot list the containers to end");
            return;
        }
    };
    let engine = &engine;
    join_all(containers.iter().map(|container| async move {
        if container.status == Status::Paused
            && let Err(error) = engine.unpause_container(&container.id).await
        {
            tracing::warn!(%error, "a paused container may hold up the shutdown");
        }
        if matches!(container.status, Status::Running | Status::Paused | Status::Restarting) {
            // Ended by itself meanwhile: nothing to do.
            let _ = engine.kill_container(&container.id, "SIGKILL").await;
        }
    }))
    .await;
}
