//! Processes that somebody else started for us: the kernel hands them to the agent when their starter has ended, and the agent
//! waits for them, as it is the only one who can (prctl(2), PR_SET_CHILD_SUBREAPER).
//!
//! With those that are asked for come others, which nobody knows (what looks after the daemon's containers, what a runtime
//! leaves behind). Without somebody who waits for them their entries would fill the table of processes.
//!
//! Invariants: one that is asked for is looked at and signalled by a descriptor (pidfd_open(2)) alone, never by a
//! number that another may have; one that somebody here is waiting for is left to them.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

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
/// Between two looks for children that nobody waits for.
const REAP_EVERY: Duration = Duration::from_secs(5);

/// From now on orphans of what the agent starts are the agent's.
pub(super) fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Waits for the ended children of the agent that nobody else waits for, for ever. Whoever waits for a child has done so long
/// before it is seen twice.
pub(super) async fn reap_strangers() {
    let mut looks = tokio::time::interval(REAP_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before = BTreeSet::new();
    loop {
        looks.tick().await;
        let Ok(now) = tokio::task::spawn_blocking(ended_children).await else { return };
        for pid in now.intersection(&before).filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            // Waited for meanwhile: that is as well.
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
        before = now;
    }
}

/// By their own word (proc_pid_stat(5)).
fn ended_children() -> BTreeSet<u32> {
    let agent = getpid().as_raw_nonzero().to_string();
    let has_ended = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // A program's name may hold anything, parentheses too.
        let mut words = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ')).into_iter().flatten();
        words.next() == Some("Z") && words.next() == Some(&agent)
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(has_ended).collect()
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
    use std::process::{ChildStdin, Command, Stdio};

    /// Starts a shell that leaves a process behind, which ends with 7 once its input does.
    fn leave_behind() -> (u32, ChildStdin) {
        let script = "exec 3<&0; (read word <&3; exit 7) >/dev/null 2>&1 & echo $!";
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        (said.trim().parse().unwrap(), input)
    }

    async fn until(what: impl Fn() -> bool) {
        let waiting = async {
            while !what() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap();
    }

    #[tokio::test]
    async fn what_was_left_behind_is_waited_for_also_where_it_has_ended_already() {
        adopt_orphans().unwrap();
        let (pid, input) = leave_behind();
        drop(input);
        until(|| ended_children().contains(&pid)).await;
        assert_eq!(Adopted::of(pid).unwrap().ended().await, 7);
        assert!(!ended_children().contains(&pid));

        let (pid, input) = leave_behind();
        let (ending, foreign) = (Adopted::of(pid).unwrap(), Foreign::of(pid).unwrap());
        assert!(foreign.lives());
        drop(input);
        assert_eq!(ending.ended().await, 7);
        assert!(!foreign.lives());

        let (pid, _input) = leave_behind();
        let killed = Adopted::of(pid).unwrap();
        killed.kill().unwrap();
        assert_eq!(killed.ended().await, 137);
        killed.kill().unwrap();
    }
}
