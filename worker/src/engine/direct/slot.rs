//! One container that the daemon made, started once and let go, and its further lives without the daemon.
//!
//! ```text
//!   kept ── the daemon kills it ──> Leaving ── its end is known ──> Left ──start──> Running ──end──> Ended
//!                                                                                      ^               │
//!                                                                                      └─────start─────┘
//! ```
//!
//! `Leaving` and `Left` are the daemon's to tell of, `Running` and `Ended` are told here. Invariants: who sees `Ended` finds
//! every process dead, its root file system unmounted, and its output in the log; the control group and what the runtime
//! remembers go behind that, and a start waits for them; nothing is started beside a sandbox that has ended; a further process
//! that was asked for in one life is never started in the next.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use thiserror::Error;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, RwLock, watch};
use tokio::task::JoinHandle;

use super::bundle::{Bundle, Refused};
use super::log::Log;
use super::overlay::Overlay;
use super::process::{Adopted, Foreign};
use super::runtime::{Runtime, RuntimeFault, Streams};
use super::{KILL, ROOT, groups};
use crate::engine::{ContainerState, EngineError, HeadTail, OutputStream, Status};
use crate::host::mounts::is_mount_point;

/// Read of a pipe at once, in bytes.
const CHUNK_BYTES: usize = 16 * 1024;
/// The output of a container ends with its last process, unless one has handed it on to another container.
const OUTPUT_LIMIT: Duration = Duration::from_millis(100);
/// What is kept of what a runtime says that fails, in bytes.
const WORDS_BYTES_MAX: usize = 4 * 1024;

/// Why a container cannot be started here, and has to be by the daemon.
#[derive(Debug, Error)]
pub(super) enum StartFault {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the container whose network it joins has ended")]
    SandboxEnded,
    #[error("the daemon still has its root file system mounted")]
    StillMounted,
    #[error("its root file system is no overlay that can be mounted again")]
    NoOverlay,
    #[error("cannot {what}")]
    Io {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{said}")]
    Runtime {
        said: String,
        #[source]
        source: RuntimeFault,
    },
    #[error(transparent)]
    Engine(EngineError),
    #[error("a worker thread failed")]
    Thread(#[from] tokio::task::JoinError),
}

pub(super) fn io_fault(what: &'static str) -> impl FnOnce(io::Error) -> StartFault {
    move |source| StartFault::Io { what, source }
}

/// A life of a container.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) process: Adopted,
    pub(super) is_paused: AtomicBool,
}

/// Who tells of a container, and what.
#[derive(Debug, Clone)]
pub(super) enum Now {
    /// The daemon: it is ending it.
    Leaving,
    /// The daemon: it has ended it.
    Left,
    Running(Arc<Run>),
    Ended {
        exit_code: i64,
        oom_killed: bool,
    },
}

/// What the daemon says of a container that is to be started again.
#[derive(Debug)]
pub(super) struct About {
    pub(super) name: String,
    pub(super) stop_signal: String,
}

/// Where a container is and what it is made of.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) id: String,
    pub(super) bundle: Bundle,
    pub(super) overlay: Overlay,
    pub(super) sandbox: Foreign,
    /// The folder of its configuration, and of the place for its root file system.
    pub(super) folder: PathBuf,
    /// Nothing that it writes has to outlive a crash.
    pub(super) is_volatile: bool,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) made: Made,
    /// Absent until it is started for the first time.
    pub(super) about: OnceLock<About>,
    pub(super) log: Arc<Log>,
    now: watch::Sender<Now>,
    /// Held by whoever starts it; what tidies up after the last life.
    turn: Mutex<Option<JoinHandle<()>>>,
    /// Read while a further process is being started, written while a life begins.
    pub(super) entering: RwLock<()>,
}

impl Slot {
    pub(super) fn new(made: Made) -> Arc<Self> {
        let now = watch::Sender::new(Now::Leaving);
        let (about, log, turn, entering) =
            (OnceLock::new(), Arc::default(), Mutex::default(), RwLock::default());
        Arc::new(Self { made, about, log, now, turn, entering })
    }

    /// Its id where no name is known yet.
    pub(super) fn name(&self) -> &str {
        self.about.get().map_or(&self.made.id, |about| &about.name)
    }

    pub(super) fn stop_signal(&self) -> &str {
        self.about.get().map_or(KILL, |about| &about.stop_signal)
    }

    pub(super) fn now(&self) -> Now {
        self.now.borrow().clone()
    }

    /// A life that was begun elsewhere.
    #[cfg(test)]
    pub(super) fn lives_on(&self, life: &Arc<Run>) {
        self.now.send_replace(Now::Running(Arc::clone(life)));
    }

    /// Whether this is the life that it has now.
    pub(super) fn lives(&self, life: &Arc<Run>) -> bool {
        matches!(self.now(), Now::Running(run) if Arc::ptr_eq(&run, life))
    }

    /// The daemon has ended it.
    pub(super) fn has_left(&self) {
        self.now.send_if_modified(|now| {
            let is_leaving = matches!(now, Now::Leaving);
            if is_leaving {
                *now = Now::Left;
            }
            is_leaving
        });
    }

    /// Waits while it runs; answers with its exit code.
    pub(super) async fn ended(&self) -> i64 {
        let mut now = self.now.subscribe();
        let ended = now.wait_for(|now| !matches!(now, Now::Running(_))).await;
        match ended.as_deref() {
            Ok(Now::Ended { exit_code, .. }) => *exit_code,
            // Nobody asks before it ran, and the sender is ours.
            _ => 0,
        }
    }

    fn root(&self) -> PathBuf {
        self.made.folder.join(ROOT)
    }

    /// Writes the configuration where the runtime looks for it.
    pub(super) fn write_folder(&self) -> io::Result<()> {
        let root = self.root();
        fs::create_dir_all(&root)?;
        fs::write(self.made.folder.join("config.json"), self.made.bundle.for_root(&root).to_string())
    }

    /// Starts it. On an error nothing of it is left, and the daemon may start it.
    pub(super) async fn start(self: &Arc<Self>, runtime: &Arc<Runtime>) -> Result<(), StartFault> {
        let (slot, runtime) = (Arc::clone(self), Arc::clone(runtime));
        // Whoever asked may go away: then it is started all the same, and watched.
        tokio::spawn(async move { slot.start_to_end(runtime).await }).await?
    }

    async fn start_to_end(self: Arc<Self>, runtime: Arc<Runtime>) -> Result<(), StartFault> {
        let mut turn = self.turn.lock().await;
        if let Now::Running(_) = self.now() {
            return Ok(());
        }
        if let Some(tidying) = turn.take() {
            tidying.await?;
        }
        if !self.made.sandbox.lives() {
            return Err(StartFault::SandboxEnded);
        }
        let _nobody_enters = self.entering.write().await;
        let slot = Arc::clone(&self);
        tokio::task::spawn_blocking(move || slot.mount()).await??;
        match self.run(&runtime).await {
            Ok((run, pipes)) => {
                let run = Arc::new(run);
                self.now.send_replace(Now::Running(Arc::clone(&run)));
                *turn = Some(tokio::spawn(Arc::clone(&self).watch(runtime, run, pipes)));
                Ok(())
            }
            Err(fault) => {
                let slot = Arc::clone(&self);
                let tidying = tokio::task::spawn_blocking(move || {
                    groups::kill(&slot.made.bundle.group);
                    slot.tidy(&runtime);
                });
                tidying.await?;
                Err(fault)
            }
        }
    }

    fn mount(&self) -> Result<(), StartFault> {
        let failed = io_fault("mount its root file system");
        if is_mount_point(&self.made.bundle.root).map_err(io_fault("read the mounts"))? {
            return Err(StartFault::StillMounted);
        }
        self.made.overlay.mount(&self.root(), self.made.is_volatile).map_err(failed)
    }

    async fn run(&self, runtime: &Runtime) -> Result<(Run, [pipe::Receiver; 2]), StartFault> {
        let piped = || new_pipe().map_err(io_fault("make a pipe"));
        let ((stdout, to_stdout), (mut stderr, to_stderr)) = (piped()?, piped()?);
        let streams = Streams { stdin: Stdio::null(), stdout: to_stdout.into(), stderr: to_stderr.into() };
        match runtime.run(&self.made.id, &self.made.folder, streams).await {
            Ok(pid) => {
                let process = Adopted::of(pid).map_err(io_fault("look after its first process"))?;
                Ok((Run { process, is_paused: AtomicBool::new(false) }, [stdout, stderr]))
            }
            Err(source) => Err(StartFault::Runtime { said: last_words(&mut stderr).await, source }),
        }
    }

    /// Reads what it writes, waits for its end, and takes down what it stood on.
    async fn watch(self: Arc<Self>, runtime: Arc<Runtime>, run: Arc<Run>, pipes: [pipe::Receiver; 2]) {
        let [stdout, stderr] = pipes;
        let log = &self.log;
        let mut reading = [(OutputStream::Stdout, stdout), (OutputStream::Stderr, stderr)]
            .map(|(stream, pipe)| tokio::spawn(follow(Arc::clone(log), stream, pipe)));
        let exit_code = run.process.ended().await;
        let read = futures::future::join_all(&mut reading);
        // What comes later is read all the same.
        let _ = tokio::time::timeout(OUTPUT_LIMIT, read).await;
        let slot = Arc::clone(&self);
        let cleared = tokio::task::spawn_blocking(move || {
            let oom_killed = groups::ran_out_of_memory(&slot.made.bundle.group);
            slot.now_unmounted();
            slot.now.send_replace(Now::Ended { exit_code, oom_killed });
            slot.tidy(&runtime);
        });
        if let Err(error) = cleared.await {
            tracing::warn!(%error, container = self.name(), "taking a container down");
        }
    }

    fn now_unmounted(&self) {
        if let Err(error) = self.made.overlay.unmount(&self.root()) {
            tracing::warn!(%error, container = self.name(), "its root file system stays mounted");
        }
    }

    /// Leaves nothing of a life. Blocking.
    fn tidy(&self, runtime: &Runtime) {
        self.now_unmounted();
        let forgotten = runtime.forget(&self.made.id).and_then(|()| groups::remove(&self.made.bundle.group));
        if let Err(error) = forgotten {
            tracing::warn!(%error, container = self.name(), "something of a container that has ended stays");
        }
    }

    /// Kills it where it runs, and answers when nothing is left of it.
    pub(super) async fn remove(&self, runtime: &Runtime) -> io::Result<()> {
        let mut turn = self.turn.lock().await;
        if let Now::Running(run) = self.now() {
            self.thaw(runtime, &run).await;
            run.process.kill()?;
        }
        if let Some(tidying) = turn.take() {
            tidying.await.map_err(io::Error::other)?;
        }
        match tokio::fs::remove_dir_all(&self.made.folder).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// A frozen process cannot die under version 1 of the control groups.
    pub(super) async fn thaw(&self, runtime: &Runtime, run: &Run) {
        if run.is_paused.swap(false, Ordering::SeqCst)
            && let Err(error) = runtime.tell(&self.made.id, "resume", None).await
        {
            tracing::warn!(%error, container = self.name(), "a paused container cannot be thawed");
        }
    }

    /// The daemon's word on it, with what it cannot know.
    pub(super) fn correct(&self, state: ContainerState) -> ContainerState {
        match self.now() {
            Now::Leaving | Now::Left => state,
            Now::Running(run) => ContainerState {
                status: run.status(),
                exit_code: 0,
                oom_killed: groups::ran_out_of_memory(&self.made.bundle.group),
                error: String::new(),
                pid: run.process.pid,
                ..state
            },
            Now::Ended { exit_code, oom_killed } => ContainerState {
                status: Status::Exited,
                exit_code,
                oom_killed,
                error: String::new(),
                pid: 0,
                ..state
            },
        }
    }
}

impl Run {
    pub(super) fn status(&self) -> Status {
        if self.is_paused.load(Ordering::SeqCst) { Status::Paused } else { Status::Running }
    }
}

/// A pipe whose end for reading is the agent's.
pub(super) fn new_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (receiver, sender) = io::pipe()?;
    Ok((pipe::Receiver::from_owned_fd(receiver.into())?, sender.into()))
}

async fn follow(log: Arc<Log>, stream: OutputStream, mut pipe: pipe::Receiver) {
    let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
    while let Ok(1..) = pipe.read_buf(&mut buffer).await {
        // A copy of its own: a few bytes must not hold the whole buffer.
        log.push(stream, bytes::Bytes::copy_from_slice(&buffer));
        buffer.clear();
    }
}

/// What a runtime that has ended said.
pub(super) async fn last_words(pipe: &mut pipe::Receiver) -> String {
    let mut kept = HeadTail::with_limit(WORDS_BYTES_MAX);
    let mut buffer = [0; 1024];
    let read = async {
        while let Ok(bytes @ 1..) = pipe.read(&mut buffer).await {
            kept.push(&buffer[..bytes]);
        }
    };
    // Something that it started may hold the other end.
    let _ = tokio::time::timeout(OUTPUT_LIMIT, read).await;
    kept.to_text().trim().to_owned()
}
