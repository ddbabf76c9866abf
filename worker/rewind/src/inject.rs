//! A system call made by another process on our behalf.
//!
//! A stopped thread lends its registers: they are saved, set to a `syscall` instruction that the process has anyway (in its vdso), and put
//! back. The thread stops at the call's entry and exit (`PTRACE_SYSCALL`), so no signal is needed, and all signals are blocked meanwhile:
//! single steps, which some do this with, would reset a disposition of `SIGTRAP`. Where many calls are to be made, see [`crate::errand`].
//!
//! What is put back is the *settled* state: an interrupted call is made again from its start, for the kernel would not restart it from the stop where
//! an injected call leaves the thread.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::arch::Call;
use crate::arch::native::{self, ALIGNMENT, Registers, SYSCALL};
use crate::maps::Map;
use crate::trace::{self, Pid, Stop};
use crate::urgent::Hurried;

/// All signals.
const EVERY_SIGNAL: u64 = u64::MAX;
/// The vdso is two pages; a longer one is not searched.
const VDSO_BYTES_MAX: u64 = 64 * 1024;
/// Error numbers are answered as their negatives, down to this.
const ERRNO_MAX: i64 = 4095;

/// The signal that a trap sends.
pub(crate) const TRAP: u64 = 1 << (libc::SIGTRAP - 1);
/// More signals are not taken: a thread that gets them faster than we take them is not to be put back.
pub(crate) const SIGNALS_MAX: usize = 100_000;
const PAGE: u64 = 4096;

fn failed(answer: i64) -> io::Error {
    io::Error::from_raw_os_error(i32::try_from(-answer).unwrap_or(libc::EINVAL))
}

pub(crate) fn too_many_signals() -> io::Error {
    io::Error::other("signals come faster than they are taken")
}

/// A page in the process for the time of a few calls.
pub(crate) fn with_page<T>(
    caller: &mut Caller,
    work: impl FnOnce(&mut Caller, u64) -> io::Result<T>,
) -> io::Result<T> {
    let page = caller.lend(PAGE, libc::PROT_READ | libc::PROT_WRITE)?;
    let done = work(caller, page)?;
    caller.take_back(page, PAGE)?;
    Ok(done)
}

/// Where in a process a system call instruction lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gate(u64);

impl Gate {
    /// Looks it up in the vdso.
    pub(crate) fn find(maps: &[Map], mem: &File) -> io::Result<Self> {
        let none = || io::Error::new(io::ErrorKind::NotFound, "no system call instruction in the vdso");
        let vdso = maps.iter().find(|map| map.name == "[vdso]").ok_or_else(none)?;
        let bytes = (vdso.range.end - vdso.range.start).min(VDSO_BYTES_MAX);
        let mut code = vec![0; usize::try_from(bytes).map_err(|_| none())?];
        mem.read_exact_at(&mut code, vdso.range.start)?;
        let mut places = code.windows(SYSCALL.len()).enumerate().step_by(ALIGNMENT);
        let (at, _) = places.find(|(_, window)| *window == SYSCALL).ok_or_else(none)?;
        Ok(Self(vdso.range.start + at as u64))
    }
}

/// A stopped thread that makes calls for us. Its process must be marked as touched: between two calls its registers are ours.
#[derive(Debug)]
pub(crate) struct Caller {
    tid: Pid,
    gate: Gate,
    own: Registers,
    own_blocked: u64,
    hurried: Option<Hurried>,
}

impl Caller {
    pub(crate) fn new(tid: Pid, gate: Gate) -> io::Result<Self> {
        let (own, own_blocked) = (native::settled(tid, trace::registers(tid)?), trace::blocked(tid)?);
        trace::set_blocked(tid, EVERY_SIGNAL)?;
        Ok(Self { tid, gate, own, own_blocked, hurried: Hurried::hurry(tid) })
    }

    /// Makes one call and says what it answered.
    pub(crate) fn call(&mut self, call: &Call) -> io::Result<u64> {
        trace::set_registers(self.tid, &self.own.calling(self.gate.0, call))?;
        for _ in ["entry", "exit"] {
            trace::go_on_to_call(self.tid)?;
            trace::wait_for(self.tid, Stop::Call)?;
        }
        let answer = trace::registers(self.tid)?.answer();
        if (-ERRNO_MAX..0).contains(&answer) { Err(failed(answer)) } else { Ok(answer.cast_unsigned()) }
    }

    /// Sends the thread through [`ERRAND`] at `code`, which makes the `count` calls of the table at `table`, until it traps behind the last one. The
    /// process does not ignore `SIGTRAP`.
    pub(crate) fn run(&mut self, code: u64, table: u64, count: usize) -> io::Result<()> {
        trace::set_blocked(self.tid, EVERY_SIGNAL & !TRAP)?;
        trace::set_registers(self.tid, &self.own.running(code, table, count as u64))?;
        // Whoever sends SIGTRAP meanwhile stops the thread as well; what is sent is of no baseline, and is lost.
        for _ in 0..SIGNALS_MAX {
            trace::go_on(self.tid, 0)?;
            trace::wait_for(self.tid, Stop::Signal(libc::SIGTRAP))?;
            let now = trace::registers(self.tid)?;
            if let Some(left) = now.ran(code) {
                trace::set_blocked(self.tid, EVERY_SIGNAL)?;
                return if left == 0 { Ok(()) } else { Err(failed(now.answer())) };
            }
        }
        Err(too_many_signals())
    }

    /// New pages of the process, so many bytes, at an address of its kernel's choice.
    pub(crate) fn lend(&mut self, bytes: u64, rights: libc::c_int) -> io::Result<u64> {
        let flags = u64::from((libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).unsigned_abs());
        let rights = rights.unsigned_abs().into();
        self.call(&Call::new(libc::SYS_mmap, [0, bytes, rights, flags, u64::MAX, 0]))
    }

    pub(crate) fn take_back(&mut self, page: u64, bytes: u64) -> io::Result<()> {
        self.call(&Call::new(libc::SYS_munmap, [page, bytes])).map(drop)
    }

    /// The thread has its own registers and signals again.
    pub(crate) fn end(self) -> io::Result<()> {
        native::end_calls(self.tid)?;
        trace::set_registers(self.tid, &self.own)?;
        trace::set_blocked(self.tid, self.own_blocked)?;
        self.hurried.map_or(Ok(()), Hurried::calm)
    }

    /// The thread ends itself, and with it this.
    pub(crate) fn exit(self) -> io::Result<()> {
        trace::set_registers(self.tid, &self.own.calling(self.gate.0, &Call::new(libc::SYS_exit, [0])))?;
        trace::go_on(self.tid, 0)?;
        trace::wait_for(self.tid, Stop::Gone)
    }
}
