//! Step 2: what a process is besides its memory, and whether that can be given back.
//!
//! Read from `/proc` while the process stands still. Some of it forbids a baseline ([`Obstacle`]); the rest must be the same when a rewind begins,
//! for nothing here is restored ([`Difference`]). Nothing is touched.
//!
//! Not seen: the values of armed timers, names of threads, prctl(2)'s smaller settings.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use crate::maps::Map;
use crate::signals::Shown;
use crate::trace::{self, Pid, Queue};

/// Why a process cannot be rewound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// Shared memory that cannot be put back.
    #[error("process {pid} shares memory: {mapping}")]
    SharedMemory {
        /// Which process.
        pid: Pid,
        /// The mapping, by address and name, and what about it.
        mapping: String,
    },
    /// Native asynchronous input and output: completions outlive what is put back.
    #[error("process {pid} has a context for native AIO")]
    Aio {
        /// Which process.
        pid: Pid,
    },
    /// A descriptor whose state cannot be put back.
    #[error("process {pid} has descriptor {number}: {what}")]
    Descriptor {
        /// Which process.
        pid: Pid,
        /// Its number.
        number: u32,
        /// What it is, and why that is an obstacle.
        what: String,
    },
    /// Bytes wait in a descriptor, whose reader is about to take them.
    #[error("process {pid} has descriptor {number}: {what}")]
    Unread {
        /// Which process.
        pid: Pid,
        /// Its number.
        number: u32,
        /// What it is.
        what: &'static str,
    },
    /// An object of System V: shared memory, semaphores, a queue.
    #[error("process {pid} can see an object of System V: {object}")]
    SystemV {
        /// Which process.
        pid: Pid,
        /// Its line in `/proc/sysvipc`.
        object: String,
    },
    /// A signal waits to be delivered.
    #[error("signal {signal} is pending for thread {tid}")]
    PendingSignal {
        /// Which thread.
        tid: Pid,
        /// Which signal.
        signal: i32,
    },
    /// A call that was interrupted before anybody could see what was asked of it.
    #[error("thread {tid} was stopped at the beginning of a call whose first argument is lost")]
    Interrupted {
        /// Which thread.
        tid: Pid,
    },
    /// Registers of a kind that is not kept.
    #[error("thread {tid} uses {what}, which is not put back")]
    Registers {
        /// Which thread.
        tid: Pid,
        /// What it uses.
        what: &'static str,
    },
    /// A timer that may fire: what is left of it is not kept.
    #[error("process {pid} has timers of its own (timer_create)")]
    Timers {
        /// Which process.
        pid: Pid,
    },
}

impl Obstacle {
    /// Whether it may be gone in a moment.
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Self::PendingSignal { .. } | Self::Unread { .. } | Self::Interrupted { .. })
    }
}

/// What is not as in the baseline and is not put back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// A process of the baseline is gone.
    #[error("process {0} is gone")]
    ProcessGone(Pid),
    /// A process that the baseline does not have (only after a comparison).
    #[error("process {0} is new")]
    ProcessNew(Pid),
    /// A thread of the baseline is gone.
    #[error("thread {tid} of process {pid} is gone")]
    ThreadGone {
        /// Its process.
        pid: Pid,
        /// The thread.
        tid: Pid,
    },
    /// A thread's state that is not put back, or is not as it should be.
    #[error("thread {tid}: {what} differs")]
    Thread {
        /// Which thread.
        tid: Pid,
        /// What of it.
        what: &'static str,
    },
    /// A signal waits to be delivered (only after a comparison).
    #[error("signal {signal} is pending for thread {tid}")]
    PendingSignal {
        /// Which thread.
        tid: Pid,
        /// Which signal.
        signal: i32,
    },
    /// A property of a process: credentials, dispositions, folder, timers, locks.
    #[error("process {pid}: {what} was {was}, is {is}")]
    Property {
        /// Which process.
        pid: Pid,
        /// Which property.
        what: &'static str,
        /// In the baseline.
        was: String,
        /// Now.
        is: String,
    },
    /// A mapping that cannot be made again.
    #[error("process {pid}: mapping {mapping}")]
    Mapping {
        /// Which process.
        pid: Pid,
        /// Which one, and what about it.
        mapping: String,
    },
    /// Bytes of memory (only after a comparison).
    #[error("process {pid}: memory at {address:#x}")]
    Memory {
        /// Which process.
        pid: Pid,
        /// The page.
        address: u64,
    },
    /// Memory that processes share.
    #[error("shared memory {name}: {what}")]
    Segment {
        /// As mappings call it.
        name: String,
        /// What about it.
        what: String,
    },
    /// A descriptor that cannot be put back, or is not as it should be.
    #[error("process {pid}: descriptor {number}: {what}")]
    Descriptor {
        /// Which process.
        pid: Pid,
        /// Its number.
        number: u32,
        /// What about it.
        what: String,
    },
    /// A file (only after a comparison).
    #[error("file {path}: {what}")]
    File {
        /// Its path in the live tree.
        path: String,
        /// What about it.
        what: String,
    },
}

/// Lines of `/proc/PID/status` that must stay: who the process is and what it may.
const STATUS: &[&str] = &[
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
];
const LINKS: &[&str] =
    &["cwd", "root", "exe", "ns/cgroup", "ns/ipc", "ns/mnt", "ns/net", "ns/pid", "ns/user", "ns/uts"];
/// Files of `/proc/PID` that must stay as they are.
const TEXTS: &[&str] = &["limits", "oom_score_adj", "personality"];

/// What must be the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    properties: BTreeMap<&'static str, String>,
    /// Put back by [`crate::signals`], and so not compared.
    pub(crate) signals: Shown,
}

impl Identity {
    pub(crate) fn read(pid: Pid) -> io::Result<Self> {
        let mut properties = BTreeMap::new();
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        for line in status.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            if let Some(name) = STATUS.iter().find(|known| **known == name) {
                properties.insert(*name, value.trim().to_owned());
            }
        }
        for link in LINKS {
            let target = fs::read_link(format!("/proc/{pid}/{link}"))?;
            properties.insert(*link, target.to_string_lossy().into_owned());
        }
        for text in TEXTS {
            properties.insert(*text, fs::read_to_string(format!("/proc/{pid}/{text}"))?);
        }
        // Absent where the kernel has no checkpoint support.
        let timers = fs::read_to_string(format!("/proc/{pid}/timers")).unwrap_or_default();
        properties.insert("timers", timers);
        Ok(Self { properties, signals: Shown::parse(&status) })
    }

    /// A filter looks at the process's system calls.
    pub(crate) fn filtered(&self) -> bool {
        self.properties.get("Seccomp").is_some_and(|mode| mode != "0")
    }

    /// Locks of descriptions (`flock`), by line of `fdinfo` without its number and without who took it: a child has the same description.
    pub(crate) fn add_locks(&mut self, locks: &str) {
        let own: BTreeSet<_> = locks
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|words| words.get(1).is_some_and(|kind| *kind != "POSIX"))
            .map(|words| [words.get(1..4).unwrap_or_default(), words.get(5..).unwrap_or_default()].concat())
            .map(|words| words.join(" "))
            .collect();
        self.properties.insert("locks", own.into_iter().collect::<Vec<_>>().join("; "));
    }

    pub(crate) fn differences(&self, pid: Pid, now: &Self) -> Vec<Difference> {
        let names: BTreeSet<_> = self.properties.keys().chain(now.properties.keys()).collect();
        let of = |identity: &Self, name| identity.properties.get(name).cloned().unwrap_or_default();
        let differing =
            names.into_iter().filter(|name| self.properties.get(*name) != now.properties.get(*name));
        differing
            .map(|what| Difference::Property { pid, what, was: of(self, what), is: of(now, what) })
            .collect()
    }

    /// What forbids a baseline, as far as status and mappings tell.
    pub(crate) fn obstacles(&self, pid: Pid, maps: &[Map]) -> Vec<Obstacle> {
        let mut obstacles = Vec::new();
        for map in maps {
            if map.name.starts_with("/[aio]") {
                obstacles.push(Obstacle::Aio { pid });
            }
        }
        if self.properties.get("timers").is_some_and(|timers| !timers.is_empty()) {
            obstacles.push(Obstacle::Timers { pid });
        }
        obstacles
    }
}

/// Signals that wait for a stopped process or its threads.
pub(crate) fn pending(pid: Pid, tids: &BTreeSet<Pid>) -> io::Result<Vec<(Pid, i32)>> {
    let mut pending = Vec::new();
    pending.extend(trace::pending(pid, Queue::Process)?.map(|signal| (pid, signal)));
    for &tid in tids {
        pending.extend(trace::pending(tid, Queue::Thread)?.map(|signal| (tid, signal)));
    }
    Ok(pending)
}
