//! Step 5: each thread's registers, extended state and blocked signals; and which threads there are.
//!
//! What is kept is the settled state (see the arch file): a thread that waited in a system call makes it again from its start. Threads are known by
//! pidfds, not by number: a number may be another thread's by now.
//!
//! Not kept, for the kernel shows it to nobody or it changes nothing: the alternate signal stack, the thread's name. The robust list and where it
//! lies, and how the thread is scheduled, are compared.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};

use crate::arch::native::Registers;
use crate::kernel;
use crate::trace::{self, Pid};
use crate::urgent;

/// One thread in the baseline.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) tid: Pid,
    handle: OwnedFd,
    general: Registers,
    extended: Vec<Option<Vec<u8>>>,
    blocked: u64,
    robust_list: u64,
    scheduling: Scheduling,
}

/// Policy, priority and processors of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scheduling {
    attributes: urgent::Attributes,
    processors: [u8; PROCESSORS_MAX / 8],
}

const PROCESSORS_MAX: usize = 8192;

impl Scheduling {
    fn read(tid: Pid) -> io::Result<Self> {
        let mut read = Self { attributes: urgent::attributes(tid)?, processors: [0; PROCESSORS_MAX / 8] };
        // SAFETY: sched_getaffinity(2), the call itself, writes at most as many bytes as it is told that the buffer has.
        let answer = unsafe {
            let at = read.processors.as_mut_ptr();
            libc::syscall(libc::SYS_sched_getaffinity, tid, read.processors.len(), at)
        };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(read) }
    }
}

/// Where the kernel will look for the futexes that a thread holds when it ends.
fn robust_list(tid: Pid) -> io::Result<u64> {
    let (mut head, mut bytes) = (0u64, 0usize);
    // SAFETY: get_robust_list(2) writes one pointer and one size to where the two point; both live.
    let answer = unsafe { libc::syscall(libc::SYS_get_robust_list, tid, &raw mut head, &raw mut bytes) };
    if answer == 0 { Ok(head) } else { Err(io::Error::last_os_error()) }
}

impl Thread {
    /// Notes a stopped thread, and settles it.
    pub(crate) fn take(tid: Pid) -> io::Result<Self> {
        let general = trace::settle(tid)?;
        Ok(Self {
            tid,
            handle: kernel::thread_handle(tid)?,
            general,
            extended: trace::extended(tid)?,
            blocked: trace::blocked(tid)?,
            robust_list: robust_list(tid)?,
            scheduling: Scheduling::read(tid)?,
        })
    }

    /// What of it is not put back, and is not as it was.
    pub(crate) fn lost(&self) -> io::Result<Option<&'static str>> {
        if robust_list(self.tid)? != self.robust_list {
            return Ok(Some("its list of held futexes"));
        }
        if let Some(what) = trace::unkept(self.tid)? {
            return Ok(Some(what));
        }
        Ok((Scheduling::read(self.tid)? != self.scheduling).then_some("its scheduling"))
    }

    /// Puts the stopped thread back.
    pub(crate) fn restore(&self) -> io::Result<()> {
        trace::set_registers(self.tid, &self.general)?;
        trace::set_extended(self.tid, &self.extended)?;
        trace::set_blocked(self.tid, self.blocked)
    }

    /// What of the stopped thread is not as in the baseline.
    pub(crate) fn differing(&self) -> io::Result<Vec<&'static str>> {
        let mut differing = Vec::new();
        if trace::registers(self.tid)? != self.general {
            differing.push("registers");
        }
        if trace::extended(self.tid)? != self.extended {
            differing.push("extended state");
        }
        if trace::blocked(self.tid)? != self.blocked {
            differing.push("blocked signals");
        }
        differing.extend(self.lost()?);
        Ok(differing)
    }
}

/// Those of `threads` that have ended.
pub(crate) fn ended<'a>(threads: impl Iterator<Item = &'a Thread>) -> io::Result<Vec<Pid>> {
    let threads: Vec<_> = threads.collect();
    let mut polled: Vec<_> =
        threads.iter().map(|thread| PollFd::new(&thread.handle, PollFlags::IN)).collect();
    poll(&mut polled, Some(&rustix::event::Timespec::default()))?;
    let ended = threads.iter().zip(&polled).filter(|(_, polled)| !polled.revents().is_empty());
    Ok(ended.map(|(thread, _)| thread.tid).collect())
}
