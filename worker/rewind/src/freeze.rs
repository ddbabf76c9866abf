//! Step 1: all threads of whole process trees stand still, or none of them does for long.
//!
//! [`Frozen`] holds them. As long as nothing was changed, letting go of it (also by an error or a panic) lets the processes run on. After
//! [`Frozen::touch`] letting go of it kills them: only [`Frozen::thaw`] lets them run. Should this very thread die, the kernel kills them
//! (`PTRACE_O_EXITKILL`).
//!
//! A process makes threads and children while it is being frozen, so the lists are read until one reading brings nothing new.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use crate::arch::native;
use crate::trace::{self, Pid, STOP_LIMIT, Stop};
use crate::urgent::Hurried;

/// The most threads of all processes together; more are refused.
pub(crate) const THREADS_MAX: usize = 16_384;

/// Why a process does not stand still.
#[derive(Debug, thiserror::Error)]
pub enum Unfreezable {
    /// There is no such process.
    #[error("process {0} does not exist")]
    Absent(Pid),
    /// It is stopped already, by its user or a debugger.
    #[error("thread {0} is stopped by somebody else")]
    Stopped(Pid),
    /// It sits in the kernel and does not come out.
    #[error("thread {0} did not stop within {limit:?}", limit = STOP_LIMIT)]
    Stuck(Pid),
    /// Its first thread has ended while others live, or it waits to be collected.
    #[error("process {0} has ended and was not collected")]
    Ended(Pid),
    /// More than this crate takes on.
    #[error("more than {THREADS_MAX} threads")]
    TooMany,
    /// The kernel does not let us trace it.
    #[error("thread {tid} cannot be traced")]
    Untraceable {
        /// Which thread.
        tid: Pid,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Processes that stand still.
#[derive(Debug)]
pub(crate) struct Frozen {
    /// Each process with its threads.
    pub(crate) processes: BTreeMap<Pid, BTreeSet<Pid>>,
    /// Who is whose child.
    pub(crate) parents: BTreeMap<Pid, Pid>,
    /// Processes that have ended and that their parents have not collected: nothing of them runs, and they cannot be traced.
    pub(crate) ended: BTreeSet<Pid>,
    touched: bool,
}

impl Frozen {
    /// Freezes the processes `roots` with all their descendants.
    pub(crate) fn freeze(roots: &[Pid]) -> Result<Self, Unfreezable> {
        let mut frozen = Self {
            processes: BTreeMap::new(),
            parents: BTreeMap::new(),
            ended: BTreeSet::new(),
            touched: false,
        };
        loop {
            let mut news = false;
            for &root in roots {
                news |= frozen.add(root)?;
            }
            if let Some(root) = roots.iter().find(|root| frozen.ended.contains(root)) {
                return Err(Unfreezable::Ended(*root));
            }
            // Without children nobody can be given to another parent meanwhile.
            if !news || frozen.parents.is_empty() {
                return Ok(frozen);
            }
        }
    }

    /// Freezes what is new in a process and below it; says whether anything was.
    fn add(&mut self, pid: Pid) -> Result<bool, Unfreezable> {
        let mut news = false;
        loop {
            let new: Vec<_> = match threads(pid) {
                Ok(tids) => tids.into_iter().filter(|tid| !self.has(pid, *tid)).collect(),
                Err(_) => return Err(Unfreezable::Absent(pid)),
            };
            if new.is_empty() {
                break;
            }
            news |= self.stop(pid, &new)?;
        }
        for tid in self.processes.get(&pid).cloned().unwrap_or_default() {
            for child in children(pid, tid) {
                self.parents.insert(child, pid);
                match self.add(child) {
                    Ok(more) => news |= more,
                    // It ended, and nobody has to collect it.
                    Err(Unfreezable::Absent(gone)) if gone == child => drop(self.parents.remove(&child)),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(news)
    }

    /// Whether nothing is to be done about a thread any more.
    fn has(&self, pid: Pid, tid: Pid) -> bool {
        let stopped = self.processes.get(&pid).is_some_and(|tids| tids.contains(&tid));
        stopped || (pid == tid && self.ended.contains(&pid))
    }

    fn stop(&mut self, pid: Pid, tids: &[Pid]) -> Result<bool, Unfreezable> {
        let mut asked = Vec::new();
        let mut wrong = None;
        for &tid in tids {
            let waiting = native::waiting(tid);
            match trace::seize(tid).and_then(|()| trace::interrupt(tid)) {
                // It is about to stop, and has to run for that.
                Ok(()) => asked.push((tid, waiting, Hurried::hurry(tid))),
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                // A thread that has ended and is still listed answers EPERM: only the first thread lingers so.
                Err(_) if zombie(pid, tid) && tid == pid => drop(self.ended.insert(pid)),
                Err(_) if zombie(pid, tid) => wrong = Some(Unfreezable::Ended(pid)),
                Err(source) => wrong = Some(Unfreezable::Untraceable { tid, source }),
            }
            if self.processes.values().map(BTreeSet::len).sum::<usize>() + asked.len() > THREADS_MAX {
                wrong = Some(Unfreezable::TooMany);
            }
            if wrong.is_some() {
                break;
            }
        }
        let mut news = false;
        // Those that were asked are waited for even if one went wrong: only a thread that stands still can be let go of.
        for (tid, waiting, hurried) in asked {
            let stopped = wait_interrupted(tid).and_then(|stopped| {
                let told =
                    waiting.filter(|_| stopped).map_or(Ok(()), |waiting| native::stopped(tid, &waiting));
                told.map(|()| stopped).map_err(|source| Unfreezable::Untraceable { tid, source })
            });
            let calmed = hurried.map_or(Ok(()), Hurried::calm);
            match stopped.and_then(|stopped| match calmed {
                Ok(()) => Ok(stopped),
                Err(source) => Err(Unfreezable::Untraceable { tid, source }),
            }) {
                Ok(true) => news |= self.processes.entry(pid).or_default().insert(tid),
                Ok(false) => {}
                Err(error) => wrong = wrong.or(Some(error)),
            }
        }
        wrong.map_or(Ok(news), Err)
    }

    /// All threads that stand still, with their processes.
    pub(crate) fn threads(&self) -> impl Iterator<Item = (Pid, Pid)> {
        self.processes.iter().flat_map(|(pid, tids)| tids.iter().map(|tid| (*pid, *tid)))
    }

    /// From here on the processes are being changed: letting go of them kills them.
    pub(crate) fn touch(&mut self) {
        self.touched = true;
    }

    /// A thread was ended by us.
    pub(crate) fn forget(&mut self, pid: Pid, tid: Pid) {
        if let Some(tids) = self.processes.get_mut(&pid) {
            tids.remove(&tid);
        }
    }

    /// Ends processes, and has their parents hear of it.
    pub(crate) fn end(&mut self, pids: &BTreeSet<Pid>) -> io::Result<()> {
        // All are killed before the first is waited for: they end beside each other.
        let ending: Vec<_> =
            pids.iter().filter_map(|pid| Some((*pid, self.processes.remove(pid)?))).collect();
        ending.iter().for_each(|(pid, _)| trace::kill(*pid));
        // The younger first: the first process of a namespace ends only when all others in it were collected.
        ending.iter().rev().try_for_each(|(pid, tids)| collect(*pid, tids))
    }

    /// Lets all run on. An error means that one had died: the others are killed then.
    pub(crate) fn thaw(mut self) -> io::Result<()> {
        self.touched = true;
        self.threads().try_for_each(|(_, tid)| trace::keep(tid))?;
        self.threads().try_for_each(|(_, tid)| trace::detach(tid))?;
        self.processes.clear();
        Ok(())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for (pid, tids) in &self.processes {
            if self.touched {
                trace::kill(*pid);
                let _ = collect(*pid, tids);
            } else {
                for tid in tids {
                    // What the kernel would restart with a deadline of its own shows as `restart_syscall` from then on, and hides its number.
                    let _ = trace::keep(*tid);
                    let _ = trace::detach(*tid);
                }
            }
        }
    }
}

/// Collects the ends of a killed process's threads, or its parent would never hear of them. A first thread's end shows after all others', and a child
/// of our own process is its starter's to collect.
fn collect(pid: Pid, tids: &BTreeSet<Pid>) -> io::Result<()> {
    let others = tids.iter().filter(|tid| **tid != pid);
    for tid in others.chain(tids.get(&pid).filter(|pid| !our_child(**pid))) {
        while trace::wait(*tid, STOP_LIMIT)?.ok_or(io::ErrorKind::TimedOut)? != Stop::Gone {}
    }
    Ok(())
}

/// Waits for the stop that was asked for; signals that come first are delivered. False: the thread ended instead.
fn wait_interrupted(tid: Pid) -> Result<bool, Unfreezable> {
    let untraceable = |source| Unfreezable::Untraceable { tid, source };
    loop {
        match trace::wait(tid, STOP_LIMIT).map_err(untraceable)? {
            Some(Stop::Interrupted) => return Ok(true),
            Some(Stop::Gone) => return Ok(false),
            Some(Stop::Group) => {
                let _ = trace::detach(tid);
                return Err(Unfreezable::Stopped(tid));
            }
            Some(Stop::Signal(signal)) => trace::go_on(tid, signal).map_err(untraceable)?,
            Some(Stop::Call | Stop::Event(_)) => trace::go_on(tid, 0).map_err(untraceable)?,
            None => return Err(Unfreezable::Stuck(tid)),
        }
    }
}

/// The threads of a process.
fn threads(pid: Pid) -> io::Result<Vec<Pid>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// The children of one thread. A thread that has ended has none: they went to another thread, or to init.
pub(crate) fn children(pid: Pid, tid: Pid) -> Vec<Pid> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// Whose child a process is; `None` if there is no such process.
pub(crate) fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok())
}

fn our_child(pid: Pid) -> bool {
    parent(pid) == Some(rustix::process::getpid().as_raw_nonzero().get())
}

fn zombie(pid: Pid, tid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}
