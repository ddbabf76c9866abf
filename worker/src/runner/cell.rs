//! The container that a unit runs in, as the runner sees it.
//!
//! Knows the engine's trait; must not know who made the container and who removes it. What lies in its out folder was written
//! by the project's code: files are opened without following links and read up to a limit.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{Mode, OFlags};

use super::OUTPUT_BYTES_MAX;
use super::progress::{Exit, Overrun};
use crate::engine::{ContainerState, EngineError, HeadTail, OutputSink, OutputStream, SharedEngine};
use crate::hands::WorkFailure;

/// Where the out folder is in the container.
pub const OUT_FOLDER: &str = "/andon/out";
/// Where Andon's own files for runners are in the container; read-only.
pub const RUNNERS_FOLDER: &str = "/andon/runners";
/// Where tests leave files for people, in the out folder; `ANDON_ARTIFACTS` names it.
pub const ARTIFACTS_FOLDER: &str = "artifacts";
/// The named pipe for events, in the out folder.
pub const EVENTS_FILE: &str = "events";
/// The named pipe for the job, in the out folder.
pub const JOB_FILE: &str = "job";

/// A running container for one unit.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The daemon.
    pub engine: SharedEngine,
    /// The container's id.
    pub container: String,
    /// The out folder on the worker's side.
    pub out_dir: PathBuf,
    /// `PYTHONPATH` of the image or the suite, to be kept; mostly empty.
    pub python_path: String,
    /// Known with the unit: `ANDON_RUN_ID`, `ANDON_ATTEMPT`.
    pub unit_env: BTreeMap<String, String>,
    /// Why the lane's keeper ended the container, if it did.
    pub(crate) overrun: Arc<OnceLock<Overrun>>,
}

/// Output that can be looked at while it grows.
#[derive(Debug, Clone)]
pub(crate) struct SharedOutput(Arc<Mutex<HeadTail>>);

impl SharedOutput {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(HeadTail::with_limit(OUTPUT_BYTES_MAX))))
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).to_bytes()
    }

    /// All that was printed so far, in bytes; not all of it is still there.
    pub(crate) fn printed(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pushed()
    }

    /// See [`HeadTail::after`].
    pub(crate) fn after(&self, from: u64, bytes_max: usize) -> Option<(u64, Vec<u8>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).after(from, bytes_max)
    }
}

impl OutputSink for SharedOutput {
    fn write(&mut self, _: OutputStream, chunk: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(chunk);
    }
}

impl Cell {
    /// Of this container, whose out folder is here.
    #[must_use]
    pub fn new(engine: SharedEngine, container: String, out_dir: PathBuf) -> Self {
        let (python_path, unit_env) = (String::new(), BTreeMap::new());
        Self { engine, container, out_dir, python_path, unit_env, overrun: Arc::default() }
    }

    /// A shell command's words. The script goes by a file: one word of a command line has at most 128 KiB.
    pub(crate) fn shell(&self, name: &str, script: &str) -> Result<Vec<String>, WorkFailure> {
        let file = self.out_dir.join(name);
        std::fs::write(&file, script).map_err(|error| {
            WorkFailure::infrastructure(format!("cannot write {}: {error}", file.display()))
        })?;
        Ok(vec!["sh".to_owned(), format!("{OUT_FOLDER}/{name}")])
    }

    /// Ends every process of the container. Errors do not matter: it is removed next.
    pub(crate) async fn kill(&self) {
        if let Err(error) = self.engine.kill_container(&self.container, "SIGKILL").await {
            tracing::debug!(%error, "killing a runner container");
        }
    }

    /// Whether the end of a process was for want of memory. `Err` where the container vanished or the daemon is gone.
    pub(crate) async fn exit(&self, code: i64) -> Result<Exit, WorkFailure> {
        if code == 0 {
            return Ok(Exit { code, out_of_memory: false, memory_bytes: 0, disk: None });
        }
        let state = self.engine.inspect_container(&self.container).await.map_err(|error| vanished(&error))?;
        Ok(self.exit_of(code, &state))
    }

    /// What an exec that did not end by itself means. `Ok`: the container ended with everything in it.
    pub(crate) async fn broken(&self, error: &EngineError) -> Result<Exit, WorkFailure> {
        let state = self.engine.inspect_container(&self.container).await.map_err(|error| vanished(&error))?;
        if state.is_running() {
            return Err(WorkFailure::infrastructure(error.to_string()));
        }
        Ok(self.exit_of(state.exit_code, &state))
    }

    fn exit_of(&self, code: i64, state: &ContainerState) -> Exit {
        Exit {
            code,
            out_of_memory: state.oom_killed,
            memory_bytes: state.memory_limit_bytes,
            disk: self.overrun.get().cloned(),
        }
    }

    /// Reads a file that the project's code wrote; `None` where there is none.
    pub(crate) fn read_out(&self, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, String> {
        let path = self.out_dir.join(name);
        // NONBLOCK: a named pipe in its place must not stop us.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(format!("{name} cannot be opened: {error}")),
        };
        let kind = file.metadata().map_err(|error| error.to_string())?;
        if !kind.is_file() {
            return Err(format!("{name} is no regular file"));
        }
        let mut bytes = Vec::new();
        file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() as u64 > bytes_max {
            return Err(format!("{name} is larger than {bytes_max} bytes"));
        }
        Ok(Some(bytes))
    }
}

fn vanished(error: &EngineError) -> WorkFailure {
    WorkFailure::infrastructure(format!("the test's container vanished: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn cell(out_dir: PathBuf) -> Cell {
        Cell::new(Arc::new(crate::engine::fake::FakeEngine::default()), "c".into(), out_dir)
    }

    #[test]
    fn only_plain_small_files_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let cell = cell(dir.path().to_owned());
        std::fs::write(dir.path().join("fine"), "abc").unwrap();
        symlink("/etc/passwd", dir.path().join("link")).unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.path().join("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RWXU,
            0,
        )
        .unwrap();
        assert_eq!(cell.read_out("fine", 3), Ok(Some(b"abc".to_vec())));
        assert_eq!(cell.read_out("absent", 3), Ok(None));
        for refused in ["link", "folder", "pipe"] {
            cell.read_out(refused, 3).unwrap_err();
        }
        assert!(cell.read_out("fine", 2).unwrap_err().contains("larger"));
    }
}
