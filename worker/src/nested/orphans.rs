//! Containers that outlive their daemon: a `kill -9` of containerd or dockerd leaves them running.
//!
//! A daemon that starts again would ask each to end and wait up to ten seconds for it; one on a data root made anew would not
//! know of them, and they would go on writing to their lanes. All of them are disposable, so they are killed.
//!
//! They are found by their shims, whose command line names the daemon's own socket: containers of another daemon on the same
//! machine are not touched. A frozen one is thawed first: under version 1 of the control groups it cannot die otherwise.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

const SHIM: &str = "containerd-shim";
/// Where the hierarchies are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// A killed process has ended within this, or is left behind.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Kills every container whose shim belongs to this containerd, and the shim; answers with how many there were.
pub(super) fn kill(containerd_socket: &Path) -> usize {
    let socket = containerd_socket.to_string_lossy().into_owned();
    let processes = processes();
    let is_ours = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        words.next().is_some_and(|program| program.contains(SHIM)) && words.any(|word| word == socket)
    };
    let shims: Vec<u32> = processes.into_iter().filter(is_ours).collect();
    // A container's first process takes all others of its process namespace along.
    let first: Vec<u32> = shims.iter().flat_map(|shim| children(*shim)).collect();
    end(&[first, shims.clone()].concat(), END_LIMIT);
    shims.len()
}

/// Kills these and waits until they have ended, at most so long.
pub(super) fn end(processes: &[u32], limit: Duration) {
    let until = Instant::now() + limit;
    let opened: Vec<(Pid, OwnedFd)> = processes
        .iter()
        .filter_map(|process| Pid::from_raw(process.cast_signed()))
        .filter_map(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?)))
        .collect();
    for (pid, process) in &opened {
        thaw(pid.as_raw_nonzero().get().cast_unsigned());
        // Ended meanwhile: that is what was wanted.
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
    for (_, process) in &opened {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        let _ = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&left));
    }
}

/// Processes that have not ended and whose control groups, as the lines of `/proc/…/cgroup`, are of this kind.
pub(super) fn processes_where(is_meant: impl Fn(&str) -> bool) -> Vec<u32> {
    let of = |pid: &u32| {
        let has_ended = stat_of(*pid).is_none_or(|stat| stat.starts_with(['Z', 'X']));
        !has_ended && fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| is_meant(&groups))
    };
    processes().into_iter().filter(of).collect()
}

/// What follows the program's name, which may hold anything, parentheses too.
fn stat_of(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.to_owned())
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// By their own word (proc_pid_stat(5)): the parent's list (`children`) leaves some out while others end.
fn children(process: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> { stat_of(pid)?.split_whitespace().nth(1)?.parse().ok() };
    processes().into_iter().filter(|pid| parent(*pid) == Some(process)).collect()
}

fn thaw(process: u32) {
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
    for (file, word) in freezers(&groups) {
        // A group without such a file, or one that is gone, is not frozen.
        let _ = fs::write(Path::new(CGROUPS).join(file), word);
    }
}

/// The files that thaw a process, from the lines of its `/proc/…/cgroup` (cgroups(7)), and what to write into each.
fn freezers(groups: &str) -> Vec<(PathBuf, &'static str)> {
    let of = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
        let group = group.trim_start_matches('/');
        if group.split('/').any(|part| part == "..") {
            return None;
        }
        match controllers {
            "freezer" => Some((Path::new("freezer").join(group).join("freezer.state"), "THAWED")),
            "" => Some((Path::new(group).join("cgroup.freeze"), "0")),
            _ => None,
        }
    };
    groups.lines().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_the_freezer_are_found() {
        let groups = "12:memory:/docker/ab\n7:freezer:/docker/ab\n0::/docker/ab\n";
        let expected = [
            (PathBuf::from("freezer/docker/ab/freezer.state"), "THAWED"),
            (PathBuf::from("docker/ab/cgroup.freeze"), "0"),
        ];
        assert_eq!(freezers(groups), expected);
    }

    #[test]
    fn a_group_outside_of_what_is_mounted_here_is_left_alone() {
        assert_eq!(freezers("7:freezer:/../elsewhere\n0::/../x\n"), []);
    }

    #[tokio::test]
    async fn a_shim_of_this_daemon_dies_with_its_child_and_another_daemons_stays() {
        let shim = |socket: &str| {
            let mut command = tokio::process::Command::new("bash");
            // Until it is another program, a child has its parent's command line: the child itself says that it is up.
            // The shim outlives its child, as a real one does, until it is killed itself: it reads what nobody writes.
            let script = "bash -c 'echo up; exec sleep 60' & read -r";
            command.args(["-c", script, "-address", socket]).arg0("/usr/bin/containerd-shim-runc-v2");
            command
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::null())
                .kill_on_drop(true);
            command.spawn().expect("bash")
        };
        // Whoever runs these tests beside us has other sockets.
        let socket = |whose: &str| format!("/run/test-{}-{whose}/containerd.sock", std::process::id());
        let (our_socket, their_socket) = (socket("ours"), socket("theirs"));
        let (mut ours, mut theirs) = (shim(&our_socket), shim(&their_socket));
        for shim in [&mut ours, &mut theirs] {
            let mut word = [0; 2];
            let output = shim.stdout.as_mut().expect("piped");
            tokio::io::AsyncReadExt::read_exact(output, &mut word).await.expect("it speaks");
        }
        // Waiting for it would close it.
        let _unread = ours.stdin.take();
        let child = children(ours.id().expect("runs"))[0];
        assert_eq!(kill(Path::new(&our_socket)), 1);
        let ended = tokio::time::timeout(std::time::Duration::from_secs(10), ours.wait()).await;
        let how =
            std::os::unix::process::ExitStatusExt::signal(&ended.expect("it ends").expect("waited for"));
        assert_eq!(how, Some(Signal::KILL.as_raw()));
        assert!(theirs.try_wait().expect("asked").is_none(), "another daemon's shim was killed");
        kill(Path::new(&their_socket));
        // Nobody may wait for the child here: what is left of it is a zombie at most.
        let is_gone = || {
            let state = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z") || state.contains(") X")
        };
        let gone = async {
            while !is_gone() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.expect("the child dies");
    }
}
