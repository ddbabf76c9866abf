//! One process of a baseline: all that is known of it, and each step for it alone. [`crate::stand`] has the order of the steps.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::arch::Call;
use crate::descriptors::{self, Descriptors};
use crate::errand;
use crate::freeze::{Frozen, THREADS_MAX};
use crate::handing;
use crate::identity::{self, Difference, Identity};
use crate::inject::{Caller, Gate};
use crate::kernel::{self, Range, Tracker, UFFD_FLAGS};
use crate::locks::{self, Locks};
use crate::mappings::{self, Remakable};
use crate::maps::{self, Change, Map};
use crate::memory::{Access, Memory, Work, Written};
use crate::parts::Heap;
use crate::registers::{self, Thread};
use crate::signals::{Shown, Signals};
use crate::trace::{self, Pid};

/// At most so many differing pages of a process are named.
const PAGES_NAMED_MAX: usize = 16;

/// As much of `struct rseq` as every kernel has, and what of it the kernel writes: the processor twice, and then its node and the number among
/// those that run this memory. What lies between them is the thread's.
const RSEQ_BYTES: usize = 28;
const RSEQ_PROCESSOR: std::ops::Range<usize> = 0..8;
const RSEQ_NODE: std::ops::Range<usize> = 20..28;

/// One process in the baseline.
pub(crate) struct Process {
    access: Access,
    tracker: Tracker,
    gate: Gate,
    identity: Identity,
    maps: Vec<Map>,
    remakable: Remakable,
    heap_end: u64,
    pub(crate) memory: Memory,
    pub(crate) threads: Vec<Thread>,
    signals: Signals,
    pub(crate) handle: OwnedFd,
    descriptors: Descriptors,
    locks: Locks,
}

/// What was found about one process before anything was touched.
pub(crate) struct Found {
    work: Work,
    pub(crate) changes: Vec<Change>,
    pub(crate) new_threads: Vec<Pid>,
    signals: Shown,
    descriptors: descriptors::Work,
    locked: bool,
}

/// How one process looks, beside its memory.
pub(crate) struct Seen {
    now: Look,
    new_threads: Vec<Pid>,
    descriptors: descriptors::Work,
}

/// For tests that want to be told.
impl Found {
    pub(crate) fn leave_a_page(&mut self) {
        self.work.leave_a_page();
    }

    pub(crate) fn leave_a_descriptor(&mut self) {
        self.descriptors.close.pop();
    }
}

/// What of a process is read before it is decided whether there can be a baseline.
pub(crate) struct Look {
    pub(crate) identity: Identity,
    pub(crate) maps: Vec<Map>,
    locks: String,
}

impl Look {
    /// `locks` are the lines of [`locks::text`] for it.
    pub(crate) fn at(pid: Pid, locks: String) -> io::Result<Self> {
        let mut identity = Identity::read(pid)?;
        identity.add_locks(&locks);
        let maps = maps::parse(&fs::read_to_string(format!("/proc/{pid}/maps"))?).ok_or_else(unreadable)?;
        Ok(Self { identity, maps, locks })
    }
}

/// Stands for the process, whatever becomes of its number.
pub(crate) fn handle(pid: Pid) -> io::Result<OwnedFd> {
    let raw = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty())?)
}

/// How long a process has lived, to a hundredth of a second.
pub(crate) fn age(pid: Pid) -> io::Result<Duration> {
    let unknown = || io::Error::new(io::ErrorKind::InvalidData, "an age that is not understood");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The 22nd field of proc_pid_stat(5), in ticks since the machine started.
    let began = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(19)?.parse::<u64>().ok());
    let began = began.ok_or_else(unknown)?.saturating_mul(1000) / rustix::param::clock_ticks_per_second();
    let uptime = fs::read_to_string("/proc/uptime")?;
    let uptime = uptime.split(' ').next().and_then(|seconds| seconds.parse().ok()).ok_or_else(unknown)?;
    let uptime = Duration::try_from_secs_f64(uptime).map_err(|_| unknown())?;
    Ok(uptime.saturating_sub(Duration::from_millis(began)))
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a line of /proc/PID/maps that is not understood")
}

impl Process {
    pub(crate) fn take(
        pid: Pid,
        tids: &BTreeSet<Pid>,
        look: Look,
        handle: OwnedFd,
        descriptors: Descriptors,
    ) -> io::Result<Self> {
        let access = Access::open(pid)?;
        let gate = Gate::find(&look.maps, &access.mem)?;
        if look.identity.filtered() {
            trace::suspend_seccomp(pid)?;
        }
        let mut caller = Caller::new(pid, gate)?;
        let heap_end = mappings::heap_end(&mut caller)?;
        let tracker = Self::tracker(&handle, &mut caller)?;
        let signals = Signals::read(&mut caller, &access, look.identity.signals)?;
        caller.end()?;
        let mut memory = Memory::take(&access, &look.maps)?;
        let remakable = Remakable::of(pid)?;
        let threads = tids.iter().map(|tid| Thread::take(*tid)).collect::<io::Result<_>>()?;
        memory.arm(&access, &tracker)?;
        let Look { identity, maps, locks } = look;
        Ok(Self {
            access,
            tracker,
            gate,
            identity,
            maps,
            remakable,
            heap_end,
            memory,
            threads,
            signals,
            handle,
            locks: Locks::take(pid, &locks, &descriptors)?,
            descriptors,
        })
    }

    /// The process makes a userfaultfd, which is then ours alone.
    fn tracker(handle: &OwnedFd, caller: &mut Caller) -> io::Result<Tracker> {
        let number = caller.call(&Call::new(libc::SYS_userfaultfd, [UFFD_FLAGS]))?;
        let descriptor = u32::try_from(number).map_err(|_| io::ErrorKind::InvalidData)?;
        let ours = kernel::copy_descriptor(handle.as_fd(), descriptor);
        caller.call(&Call::new(libc::SYS_close, [number]))?;
        Tracker::new(ours?)
    }

    /// What changed of its memory.
    pub(crate) fn written(&self) -> io::Result<Work> {
        self.memory.changes(&self.access)
    }

    /// With what was [written](Process::written) and how the process [looks](Process::compare_identity), all that there is to do.
    pub(crate) fn found(&self, work: Work, seen: Seen, differences: &mut Vec<Difference>) -> Found {
        let Seen { now, new_threads, descriptors } = seen;
        let changes = maps::changes(&self.maps, &now.maps, &work.renewed);
        let impossible = mappings::impossible(&changes, &self.maps, &now.maps, &self.remakable);
        let pid = self.access.pid;
        differences.extend(impossible.into_iter().map(|mapping| Difference::Mapping { pid, mapping }));
        Found {
            work,
            changes,
            new_threads,
            signals: now.identity.signals,
            descriptors,
            locked: self.locks.held(pid, &now.locks),
        }
    }

    /// What has to be the same of the process, its threads and its descriptors.
    pub(crate) fn compare_identity(
        &self,
        tids: &BTreeSet<Pid>,
        differences: &mut Vec<Difference>,
    ) -> io::Result<Seen> {
        let pid = self.access.pid;
        let ended = registers::ended(self.threads.iter())?;
        differences.extend(ended.iter().map(|&tid| Difference::ThreadGone { pid, tid }));
        let mut new_threads = tids.clone();
        for thread in self.threads.iter().filter(|thread| !ended.contains(&thread.tid)) {
            if !new_threads.remove(&thread.tid) {
                differences.push(Difference::ThreadGone { pid, tid: thread.tid });
            } else if let Some(what) = thread.lost()? {
                differences.push(Difference::Thread { tid: thread.tid, what });
            }
        }
        let now = Look::at(pid, self.locks_now())?;
        differences.extend(self.identity.differences(pid, &now.identity));
        self.locks.compare(pid, &now.locks, differences);
        let descriptors = self.descriptors.compare(differences)?;
        Ok(Seen { now, new_threads: new_threads.into_iter().collect(), descriptors })
    }

    pub(crate) fn end_threads(&self, found: &Found, frozen: &mut Frozen) -> io::Result<()> {
        for &tid in &found.new_threads {
            if self.identity.filtered() {
                trace::suspend_seccomp(tid)?;
            }
            Caller::new(tid, self.gate)?.exit()?;
            frozen.forget(self.access.pid, tid);
        }
        Ok(())
    }

    fn caller(&self) -> io::Result<Caller> {
        if self.identity.filtered() {
            trace::suspend_seccomp(self.access.pid)?;
        }
        Caller::new(self.access.pid, self.gate)
    }

    pub(crate) fn restore_mappings(&self, found: &mut Found) -> io::Result<()> {
        let mut caller = self.caller()?;
        mappings::restore(&mut caller, &found.changes, &self.maps, &self.remakable, self.heap_end)?;
        let (remove, install) = self.memory.guards(&found.work);
        for (advice, ranges) in [(mappings::GUARD_REMOVE, remove), (mappings::GUARD_INSTALL, install)] {
            for range in ranges {
                caller.call(&Call::new(libc::SYS_madvise, [range.start, range.end - range.start, advice]))?;
            }
        }
        caller.end()?;
        for change in &found.changes {
            if let Change::Remake(range, _) = change {
                self.memory.refill(&self.tracker, range, &mut found.work)?;
            }
        }
        // Injected calls may move their thread to another processor, which the kernel writes down there after we looked.
        if let Some(address) = trace::rseq(self.access.pid)? {
            self.memory.add_page(&mut found.work, address);
        }
        if !found.new_threads.is_empty() {
            // Ending, a thread writes to its process's memory: once more, for the pages that it wrote then.
            self.memory.add_changes(&self.access, &mut found.work)?;
        }
        Ok(())
    }

    /// Collects children that have ended and that the baseline does not have.
    pub(crate) fn collect_children(&self) -> io::Result<()> {
        let mut caller = self.caller()?;
        let options = u64::from((libc::WNOHANG | libc::__WALL).unsigned_abs());
        for _ in 0..THREADS_MAX {
            match caller.call(&Call::new(libc::SYS_wait4, [u64::MAX, 0, options])) {
                Ok(0) => return caller.end(),
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return caller.end(),
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("children end faster than they are collected"))
    }

    /// What signals do, and what waits. After all that can cause a signal.
    pub(crate) fn restore_signals(&self, tids: &BTreeSet<Pid>, found: &mut Found) -> io::Result<()> {
        let mut caller = self.caller()?;
        let helpers = self.signals.restore(&mut caller, &self.access, self.gate, tids, found.signals)?;
        caller.end()?;
        for tid in helpers {
            if let Some(address) = trace::rseq(tid)? {
                self.memory.add_page(&mut found.work, address);
            }
        }
        Ok(())
    }

    /// Has the process drop what it has too much, and says what it dropped. Nothing is injected after this.
    pub(crate) fn drop_memory(&self, found: &Found) -> io::Result<Vec<Range>> {
        let mut dropped = Vec::new();
        let droppable = self.memory.droppable(&found.work);
        if droppable.is_empty() {
            return Ok(dropped);
        }
        let mut caller = self.caller()?;
        for range in droppable {
            let advice = libc::MADV_DONTNEED.unsigned_abs().into();
            let call = Call::new(libc::SYS_madvise, [range.start, range.end - range.start, advice]);
            match caller.call(&call) {
                Ok(_) => dropped.push(range),
                // Locked memory keeps its pages.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                Err(error) => return Err(error),
            }
        }
        caller.end()?;
        Ok(dropped)
    }

    /// Where a thread ran last, as the kernel tells it (rseq(2)), is the kernel's own: from 6.19 on it kills a thread in which it does not find what
    /// it wrote last. So the baseline has of that what is there now.
    pub(crate) fn follow_processors(&mut self, found: &Found) -> io::Result<()> {
        let mut areas = Vec::new();
        for thread in &self.threads {
            areas.extend(trace::rseq(thread.tid)?);
        }
        areas.sort_unstable();
        for address in Memory::writes(&found.work, &areas) {
            let mut area = [0; RSEQ_BYTES];
            trace::read(self.access.pid, &self.access.mem, address, &mut area)?;
            for field in [RSEQ_PROCESSOR, RSEQ_NODE] {
                self.memory.amend(address + field.start as u64, &area[field])?;
            }
        }
        Ok(())
    }

    /// Adds all that is to be written back.
    pub(crate) fn restore_memory<'a>(
        &'a self,
        found: &Found,
        dropped: &[Range],
        heap: &mut Heap<'a>,
    ) -> io::Result<Written> {
        let (written, parts) = self.memory.parts(&found.work, dropped)?;
        heap.add(parts, &self.access, &self.tracker);
        Ok(written)
    }

    fn locks_now(&self) -> String {
        locks::text(self.access.pid, self.descriptors.files())
    }

    pub(crate) fn restore_descriptors(&self, found: &Found) -> io::Result<()> {
        let work = &found.descriptors;
        if !work.close.is_empty() || !work.missing.is_empty() || !found.locked {
            let mut caller = self.caller()?;
            handing::restore(&mut caller, &self.access, &self.handle, &self.descriptors, work)?;
            // Closing any descriptor of a file ends the process's locks on it.
            let can_trap = errand::can_trap(found.signals.ignored);
            self.locks.restore(&mut caller, &self.access, can_trap)?;
            caller.end()?;
            if self.locks.some_are_out_of_reach() && !self.locks.held(self.access.pid, &self.locks_now()) {
                return Err(io::Error::other("the locks on files are not those of the baseline"));
            }
        }
        self.descriptors.restore()
    }

    pub(crate) fn differing(
        &self,
        tids: &BTreeSet<Pid>,
        differences: &mut Vec<Difference>,
    ) -> io::Result<()> {
        let pid = self.access.pid;
        for thread in &self.threads {
            let whats = thread.differing()?.into_iter();
            differences.extend(whats.map(|what| Difference::Thread { tid: thread.tid, what }));
        }
        let known: BTreeSet<_> = self.threads.iter().map(|thread| thread.tid).collect();
        let new = tids.difference(&known);
        differences.extend(new.map(|&tid| Difference::Thread { tid, what: "that it exists" }));
        let pending = identity::pending(pid, tids)?.into_iter();
        differences.extend(pending.map(|(tid, signal)| Difference::PendingSignal { tid, signal }));
        let now = Look::at(pid, self.locks_now())?;
        differences.extend(self.identity.differences(pid, &now.identity));
        if !self.signals.shown_as(now.identity.signals) {
            differences.push(Difference::Thread { tid: pid, what: "what its signals do" });
        }
        let changes = maps::changes(&self.maps, &now.maps, &[]);
        differences.extend(
            changes.iter().map(|change| Difference::Mapping { pid, mapping: format!("{change:x?}") }),
        );
        if !self.locks.held(pid, &now.locks) {
            let (was, is) = (format!("{:?}", self.locks), format!("{:?}", locks::of(pid, &now.locks)));
            differences.push(Difference::Property { pid, what: "locks", was, is });
        }
        self.descriptors.differing(differences)?;
        let pages = self.memory.differing(&self.access, PAGES_NAMED_MAX)?;
        differences.extend(pages.into_iter().map(|address| Difference::Memory { pid, address }));
        Ok(())
    }
}
