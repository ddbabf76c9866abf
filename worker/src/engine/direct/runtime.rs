//! The program that makes containers of configurations: runc, which the daemon uses too, so that each life of a container is
//! made by the same hands. (crun takes the same words and half the time, but what it makes differs: who owns /dev/null, what can
//! be written beneath /sys/fs/cgroup.) Knows command lines, not which container is whose.
//!
//! Invariant: it is started with the same filter of system calls as the daemon's own programs, so that containers inherit it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use thiserror::Error;
use tokio::process::Command;

use crate::engine::limits;

const PROGRAM: &str = "runc";

/// Why a container, or a process in one, was not started.
#[derive(Debug, Error)]
pub(super) enum RuntimeFault {
    #[error("{PROGRAM} cannot be run")]
    Spawn(#[source] io::Error),
    #[error("{PROGRAM} did not end within {:?}", limits::CALL)]
    Slow,
    #[error("{PROGRAM} ended with {0}")]
    Failed(std::process::ExitStatus),
    #[error("{PROGRAM} does not say which process it started")]
    NoPid,
}

/// Where a process's output goes and its input comes from.
pub(super) struct Streams {
    pub(super) stdin: Stdio,
    pub(super) stdout: Stdio,
    pub(super) stderr: Stdio,
}

/// The program and where it keeps what it knows of containers.
#[derive(Debug, Clone)]
pub(super) struct Runtime {
    state: PathBuf,
    prefix: Vec<OsString>,
}

impl Runtime {
    /// `prefix` is what it is started by.
    pub(super) fn new(state: PathBuf, prefix: Vec<OsString>) -> Self {
        Self { state, prefix }
    }

    fn command(&self) -> Command {
        let mut command = match self.prefix.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(PROGRAM);
                command
            }
            None => Command::new(PROGRAM),
        };
        command.arg("--root").arg(&self.state);
        command
    }

    async fn end(&self, mut command: Command) -> Result<(), RuntimeFault> {
        let mut child = command.kill_on_drop(true).spawn().map_err(RuntimeFault::Spawn)?;
        // With it go the ends of pipes that only the container is to hold.
        drop(command);
        let ended = tokio::time::timeout(limits::CALL, child.wait()).await;
        match ended.map_err(|_| RuntimeFault::Slow)?.map_err(RuntimeFault::Spawn)? {
            status if status.success() => Ok(()),
            status => Err(RuntimeFault::Failed(status)),
        }
    }

    async fn started(
        &self,
        mut command: Command,
        pid_file: &Path,
        streams: Streams,
    ) -> Result<u32, RuntimeFault> {
        // Absent is what it should be.
        let _ = fs::remove_file(pid_file);
        command.stdin(streams.stdin).stdout(streams.stdout).stderr(streams.stderr);
        self.end(command).await?;
        let said = fs::read_to_string(pid_file).unwrap_or_default();
        said.trim().parse().map_err(|_| RuntimeFault::NoPid)
    }

    /// Makes and starts a container of `config.json` in the folder; answers with its first process.
    pub(super) async fn run(&self, id: &str, folder: &Path, streams: Streams) -> Result<u32, RuntimeFault> {
        let pid_file = folder.join("pid");
        let mut command = self.command();
        command.args(["run", "--detach", "--bundle"]).arg(folder).arg("--pid-file").arg(&pid_file).arg(id);
        self.started(command, &pid_file, streams).await
    }

    /// Starts a further process in a container; `process` is a file with its description.
    pub(super) async fn exec(&self, id: &str, process: &Path, streams: Streams) -> Result<u32, RuntimeFault> {
        let pid_file = process.with_extension("pid");
        let mut command = self.command();
        command.args(["exec", "--detach", "--process"]).arg(process);
        command.arg("--pid-file").arg(&pid_file).arg(id);
        let started = self.started(command, &pid_file, streams).await;
        let _ = fs::remove_file(&pid_file);
        started
    }

    /// `pause`, `resume`, or `kill` with a signal.
    pub(super) async fn tell(&self, id: &str, what: &str, how: Option<&str>) -> Result<(), RuntimeFault> {
        let mut command = self.command();
        command.arg(what).arg(id).args(how);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.end(command).await
    }

    /// Forgets a container whose processes have ended. Blocking.
    pub(super) fn forget(&self, id: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.state.join(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_it_is_told_and_what_it_answers() {
        let folder = tempfile::tempdir().unwrap();
        let script = "echo \"$@\" > \"$0/said\"; for word; do case $last in --pid-file) echo 42 > \"$word\";; esac; last=$word; done";
        let prefix = ["sh", "-c", script, &folder.path().to_string_lossy()].map(OsString::from).to_vec();
        let runtime = Runtime::new("/state".into(), prefix);
        let streams = || Streams { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null() };
        assert_eq!(runtime.run("c", folder.path(), streams()).await.unwrap(), 42);
        let said = fs::read_to_string(folder.path().join("said")).unwrap();
        let at = folder.path().display();
        assert_eq!(said, format!("runc --root /state run --detach --bundle {at} --pid-file {at}/pid c\n"));
        let failing = ["sh", "-c", "exit 3"].map(OsString::from).to_vec();
        let failing = Runtime::new("/state".into(), failing);
        let error = failing.run("c", folder.path(), streams()).await.unwrap_err();
        assert_eq!(error.to_string(), "runc ended with exit status: 3");
    }
}
