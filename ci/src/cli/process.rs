//! Background processes of the farm: started apart from the terminal, known by a file, stopped by name.
//!
//! A process id alone says nothing after a while: the kernel gives it to others. The file therefore holds the
//! process's start time and the machine's boot too, and a signal is sent through a pidfd that was opened before
//! they were compared. Invariant: a process that we did not start is never signalled.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// Set for a background process, which then leaves the terminal's session.
pub(crate) const DETACHED_ENV: &str = "ANDON_DETACHED";
/// Between asking and killing.
const STOP_GRACE: Duration = Duration::from_secs(20);
/// After SIGKILL.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// A log that is longer is moved aside at the next start; one older log is kept.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A background process by its name: `coordinator`, `gateway`.
#[derive(Debug)]
pub(crate) struct Background {
    pid_file: PathBuf,
    log: PathBuf,
}

#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
struct PidFile {
    pid: i32,
    /// Clock ticks between boot and the process's start (`/proc/PID/stat`, field 22).
    start_ticks: u64,
    boot_id: String,
}

/// Why a background process could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error("cannot {what} {path}")]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("process {0} does not end, not even when killed")]
    Unkillable(i32),
}

impl Background {
    /// Names it; touches nothing.
    pub(crate) fn new(pids: &Path, logs: &Path, name: &str) -> Self {
        Self { pid_file: pids.join(format!("{name}.json")), log: logs.join(format!("{name}.log")) }
    }

    /// Where it writes what it says.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Starts `command`, its output into the log. The command must call [`leave_terminal`] first thing.
    pub(crate) fn start(&self, mut command: Command) -> Result<(), ProcessError> {
        if fs::metadata(&self.log).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
            let old = self.log.with_extension("log.old");
            fs::rename(&self.log, &old).map_err(failed("move", &self.log))?;
        }
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(failed("open", &self.log))?;
        let log_again = log.try_clone().map_err(failed("open", &self.log))?;
        let child = command
            .env(DETACHED_ENV, "1")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_again)
            .spawn()
            .map_err(failed("start", Path::new(command.get_program())))?;
        let pid = i32::try_from(child.id()).expect("process ids fit an i32");
        let stat = proc_stat(pid).map_err(failed("look at the process of", &self.pid_file))?;
        let boot_id = boot_id().map_err(failed("read the boot id for", &self.pid_file))?;
        let file = PidFile { pid, start_ticks: stat.start_ticks, boot_id };
        let text = serde_json::to_vec(&file).expect("numbers and a string are valid JSON");
        fs::write(&self.pid_file, text).map_err(failed("write", &self.pid_file))
    }

    /// The process, where it lives and is the one that was started.
    pub(crate) fn alive(&self) -> Option<i32> {
        self.open().map(|(pid, _)| pid)
    }

    /// Asks it to end, kills it after the grace, and forgets it. One that does not run is no error.
    /// Answers whether there was one.
    pub(crate) async fn stop(&self) -> Result<bool, ProcessError> {
        let Some((pid, pidfd)) = self.open() else {
            self.forget()?;
            return Ok(false);
        };
        for (signal, grace) in [(Signal::TERM, STOP_GRACE), (Signal::KILL, KILL_GRACE)] {
            // It may end by itself in between; waiting tells.
            let _ = pidfd_send_signal(&pidfd, signal);
            if ended_within(&pidfd, grace).await.map_err(failed("wait for", &self.pid_file))? {
                self.forget()?;
                return Ok(true);
            }
        }
        Err(ProcessError::Unkillable(pid))
    }

    /// The end of its log, for an error message.
    pub(crate) fn log_tail(&self, lines: usize) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(8 * 1024)..]).into_owned();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn open(&self) -> Option<(i32, OwnedFd)> {
        let file: PidFile = serde_json::from_slice(&fs::read(&self.pid_file).ok()?).ok()?;
        let pidfd = pidfd_open(Pid::from_raw(file.pid)?, PidfdFlags::empty()).ok()?;
        // Compared after the pidfd is open: from here on the id cannot come to mean another process.
        let stat = proc_stat(file.pid).ok()?;
        let same = stat.start_ticks == file.start_ticks && boot_id().ok()? == file.boot_id;
        (same && !stat.is_zombie).then_some((file.pid, pidfd))
    }

    fn forget(&self) -> Result<(), ProcessError> {
        match fs::remove_file(&self.pid_file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &self.pid_file)(source))
            }
            _ => Ok(()),
        }
    }
}

/// First thing in a background process: leaves the session of the terminal it was started from, so that neither
/// Ctrl-C nor a closed window reaches it.
pub(crate) fn leave_terminal() {
    if std::env::var_os(DETACHED_ENV).is_some() {
        // Refused only for a process that leads a group already, which then is not in the terminal's either.
        let _ = rustix::process::setsid();
    }
}

/// A pidfd becomes readable when its process ends.
async fn ended_within(pidfd: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let pidfd = pidfd.try_clone()?;
    let waiting = tokio::task::spawn_blocking(move || {
        let limit = Timespec::try_from(limit).expect("the graces are constants of seconds");
        let mut watched = [PollFd::new(&pidfd, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut watched, Some(&limit)))
    });
    Ok(waiting.await.expect("waiting does not panic")? > 0)
}

struct Stat {
    is_zombie: bool,
    start_ticks: u64,
}

fn proc_stat(pid: i32) -> io::Result<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat"))?).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "the kernel's stat line is not as proc(5) says")
    })
}

/// The command's name is in parentheses and may hold spaces and parentheses itself, so fields count from the last.
fn parse_stat(line: &str) -> Option<Stat> {
    let (_, fields) = line.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some(Stat { is_zombie: matches!(state, "Z" | "X"), start_ticks })
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ProcessError + use<> {
    let path = path.to_owned();
    move |source| ProcessError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn background(temp: &tempfile::TempDir) -> Background {
        Background::new(temp.path(), temp.path(), "sleeper")
    }

    fn sleeper() -> Command {
        let mut command = Command::new("sleep");
        command.arg("600");
        command
    }

    #[test]
    fn a_command_name_with_parentheses_does_not_confuse_the_start_time() {
        let line = "7 (a) R (b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 4096 1";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.start_ticks, stat.is_zombie), (98_765, false));
        assert!(parse_stat("7 (a").is_none());
    }

    #[tokio::test]
    async fn a_background_process_lives_until_it_is_stopped() {
        let temp = tempfile::tempdir().unwrap();
        let process = background(&temp);
        assert_eq!(process.alive(), None);
        process.start(sleeper()).unwrap();
        assert!(process.alive().is_some());
        assert!(process.stop().await.unwrap());
        assert_eq!(process.alive(), None);
        assert!(!process.stop().await.unwrap(), "stopping again is no error");
    }

    #[tokio::test]
    async fn a_reused_process_id_is_never_signalled() {
        let temp = tempfile::tempdir().unwrap();
        let process = background(&temp);
        process.start(sleeper()).unwrap();
        let theirs: PidFile = serde_json::from_slice(&fs::read(&process.pid_file).unwrap()).unwrap();
        for forged in [
            PidFile { start_ticks: theirs.start_ticks + 1, boot_id: theirs.boot_id.clone(), pid: theirs.pid },
            PidFile { start_ticks: theirs.start_ticks, boot_id: "another boot".into(), pid: theirs.pid },
        ] {
            fs::write(&process.pid_file, serde_json::to_vec(&forged).unwrap()).unwrap();
            assert_eq!(process.alive(), None);
            assert!(!process.stop().await.unwrap());
            assert!(!proc_stat(theirs.pid).unwrap().is_zombie, "the other process goes on");
        }
        fs::write(&process.pid_file, serde_json::to_vec(&theirs).unwrap()).unwrap();
        assert!(process.stop().await.unwrap());
    }

    #[test]
    fn a_process_that_says_nothing_has_an_empty_tail() {
        let temp = tempfile::tempdir().unwrap();
        let process = background(&temp);
        assert_eq!(process.log_tail(5), "");
        fs::write(process.log(), "1\n2\n3\n").unwrap();
        assert_eq!(process.log_tail(2), "2\n3");
    }
}
