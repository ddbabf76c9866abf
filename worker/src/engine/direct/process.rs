//! Processes that somebody else started for us: the kernel hands them to the agent when their starter has ended, and the agent
//! waits for them, as it is the only one who can (prctl(2), PR_SET_CHILD_SUBREAPER).
//!
//! Invariant: one is looked at and signalled by a descriptor (pidfd_open(2)) alone, never by a number that another may have.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal,
    set_child_subreaper, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// As shells and engines tell an end by a signal.
const SIGNALLED: i64 = 128;
/// Of one whose end nobody can tell.
const UNKNOWN: i64 = 255;

/// From now on orphans of what the agent starts are the agent's.
pub(super) fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// A process that is somebody else's.
#[derive(Debug)]
pub(super) struct Foreign(OwnedFd);

impl Foreign {
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        open(pid).map(Self)
    }

    /// Whether it has not ended. While it has not, its number is its own.
    pub(super) fn lives(&self) -> bool {
        let mut look = [PollFd::new(&self.0, PollFlags::IN)];
        matches!(poll(&mut look, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
    }
}

/// A process that was handed to the agent.
#[derive(Debug)]
pub(super) struct Adopted {
    process: AsyncFd<OwnedFd>,
    pub(super) pid: u32,
}

impl Adopted {
    /// Its starter has ended: until it is waited for nobody else can have its number.
    // Unsound only for what closes its descriptor while it is registered: this one is owned.
    #[allow(deprecated)]
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        Ok(Self { process: AsyncFd::with_interest(open(pid)?, Interest::READABLE)?, pid })
    }

    /// One that has ended already is fine.
    pub(super) fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(self.process.get_ref(), Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for its end; answers with its exit code. For one caller.
    pub(super) async fn ended(&self) -> i64 {
        if let Err(error) = self.process.readable().await {
            tracing::warn!(%error, pid = self.pid, "the end of a process cannot be waited for");
        }
        match waitid(WaitId::PidFd(self.process.get_ref().as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                let signalled = status.terminating_signal().map(|signal| SIGNALLED + i64::from(signal));
                status.exit_status().map(i64::from).or(signalled).unwrap_or(UNKNOWN)
            }
            Ok(None) => UNKNOWN,
            Err(error) => {
                tracing::warn!(%error, pid = self.pid, "how a process ended is not known");
                UNKNOWN
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Starts a shell that leaves a process behind; answers with that one's number.
    fn leave_behind(script: &str) -> u32 {
        let script = format!("({script}) >/dev/null 2>&1 & echo $!");
        let output = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }

    #[tokio::test]
    async fn what_was_left_behind_is_waited_for_also_where_it_has_ended_already() {
        adopt_orphans().unwrap();
        for script in ["exit 7", "sleep 0.05; exit 7"] {
            assert_eq!(Adopted::of(leave_behind(script)).unwrap().ended().await, 7, "{script}");
        }
        let endless = Adopted::of(leave_behind("exec sleep 600")).unwrap();
        let foreign = Foreign::of(endless.pid).unwrap();
        assert!(foreign.lives());
        endless.kill().unwrap();
        assert_eq!(endless.ended().await, 137);
        assert!(!foreign.lives());
        endless.kill().unwrap();
    }
}
