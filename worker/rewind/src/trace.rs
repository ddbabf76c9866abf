//! ptrace(2), waiting and reading and writing another process's memory: the only file that calls them.
//!
//! Must not know what is being rewound. Everything here belongs to the thread that seized; another thread gets `ESRCH`. `nix` is not used:
//! its wait status cannot hold a real-time signal, which the processes here may well get.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::arch::native::{self, EXTENDED, EXTENDED_BYTES_MAX, Registers, UNKEPT};

/// A process or thread as the kernel numbers it in our own pid namespace.
pub type Pid = libc::pid_t;

/// How long a thread may take to stop: one in the middle of a disk write needs its time.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How often a wait asks again at once before it begins to pause between.
const EAGER_ASKS: u32 = 100;
const PAUSE: Duration = Duration::from_micros(30);
/// `process_vm_readv` takes so many pieces at once (`UIO_MAXIOV`).
pub(crate) const PIECES_MAX: usize = 1024;

/// What a wait found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The stop that `interrupt` asks for.
    Interrupted,
    /// The process is stopped for its user (`SIGSTOP`, a terminal).
    Group,
    /// At the entry or the exit of a system call.
    Call,
    /// About to get a signal.
    Signal(libc::c_int),
    /// Any other event of ptrace.
    Event(libc::c_int),
    /// It is no more.
    Gone,
}

impl Stop {
    fn of(status: libc::c_int) -> Self {
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            return Self::Gone;
        }
        let signal = libc::WSTOPSIG(status);
        match status >> 16 {
            0 if signal == libc::SIGTRAP | 0x80 => Self::Call,
            0 => Self::Signal(signal),
            libc::PTRACE_EVENT_STOP if signal == libc::SIGTRAP => Self::Interrupted,
            libc::PTRACE_EVENT_STOP => Self::Group,
            event => Self::Event(event),
        }
    }
}

fn checked(answer: libc::c_long) -> io::Result<libc::c_long> {
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// A ptrace request whose last two arguments are numbers.
fn plain(request: libc::c_uint, tid: Pid, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: callers in this file pass only requests that read their arguments as numbers, so no memory of ours is touched.
    checked(unsafe { libc::ptrace(request, tid, address, data) }).map(drop)
}

/// Options of every seizure: the tracer's death is the process's death.
const OPTIONS: usize = (libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD) as usize;

/// Becomes the tracer of a thread, which runs on. If our thread ends, the thread's process is killed.
pub(crate) fn seize(tid: Pid) -> io::Result<()> {
    plain(libc::PTRACE_SEIZE, tid, 0, OPTIONS)
}

/// Seccomp does not see what this thread calls while it is traced. Needs `CAP_SYS_ADMIN`.
pub(crate) fn suspend_seccomp(tid: Pid) -> io::Result<()> {
    plain(libc::PTRACE_SETOPTIONS, tid, 0, OPTIONS | libc::PTRACE_O_SUSPEND_SECCOMP as usize)
}

pub(crate) fn interrupt(tid: Pid) -> io::Result<()> {
    plain(libc::PTRACE_INTERRUPT, tid, 0, 0)
}

/// Lets a stopped thread go on, giving it `signal` (0: none).
pub(crate) fn go_on(tid: Pid, signal: libc::c_int) -> io::Result<()> {
    plain(libc::PTRACE_CONT, tid, 0, signal.cast_unsigned() as usize)
}

/// Lets a stopped thread go on until the next entry or exit of a system call.
pub(crate) fn go_on_to_call(tid: Pid) -> io::Result<()> {
    plain(libc::PTRACE_SYSCALL, tid, 0, 0)
}

/// Lets a stopped thread go on until the entry of a system call, which will not be made.
#[cfg_attr(not(target_arch = "aarch64"), expect(dead_code, reason = "only some processors need it"))]
pub(crate) fn go_on_to_no_call(tid: Pid) -> io::Result<()> {
    /// Not in `libc` for every processor; the same on all that have it.
    const PTRACE_SYSEMU: libc::c_uint = 31;
    plain(PTRACE_SYSEMU, tid, 0, 0)
}

/// Ends the tracing of a stopped thread, which runs on.
pub(crate) fn detach(tid: Pid) -> io::Result<()> {
    plain(libc::PTRACE_DETACH, tid, 0, 0)
}

/// Kills a whole process.
pub(crate) fn kill(pid: Pid) {
    // SAFETY: kill(2) takes numbers only. The process is traced by us or held by a pidfd, so the number is not somebody else's.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Waits until `tid` stops or ends, at most `limit`. `None`: the limit passed.
pub(crate) fn wait(tid: Pid, limit: Duration) -> io::Result<Option<Stop>> {
    let begun = Instant::now();
    for ask in 0.. {
        let mut status = 0;
        // SAFETY: `status` outlives the call. `__WNOTHREAD`: only what this very thread traces.
        let found =
            unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG) };
        match checked(found.into()) {
            Ok(0) => {}
            Ok(_) => return Ok(Some(Stop::of(status))),
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(Some(Stop::Gone)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if begun.elapsed() > limit {
            return Ok(None);
        }
        // There is no way to wait for one thread's stop with a limit (pidfds tell of ends only), so: ask, giving the thread the processor.
        if ask < EAGER_ASKS {
            rustix::thread::sched_yield();
        } else {
            let pause = rustix::thread::Timespec { tv_sec: 0, tv_nsec: PAUSE.subsec_nanos().into() };
            let _ = rustix::thread::nanosleep(&pause);
        }
    }
    Ok(None)
}

/// Waits until a thread that was let go stops as it is `wanted` to.
pub(crate) fn wait_for(tid: Pid, wanted: Stop) -> io::Result<()> {
    match wait(tid, STOP_LIMIT)? {
        Some(stop) if stop == wanted => Ok(()),
        Some(other) => Err(io::Error::other(format!("thread {tid}: {other:?} instead of {wanted:?}"))),
        None => Err(io::Error::new(io::ErrorKind::TimedOut, "what was injected does not end")),
    }
}

fn set_of(tid: Pid, request: libc::c_uint, kind: libc::c_int, bytes: &mut libc::iovec) -> io::Result<()> {
    // SAFETY: the kernel reads or writes at most `iov_len` bytes at `iov_base`, which the callers took from a live slice or array, and sets
    // `iov_len` to what it moved.
    checked(unsafe { libc::ptrace(request, tid, kind, &raw mut *bytes) }).map(drop)
}

/// The general registers of a stopped thread.
pub(crate) fn registers(tid: Pid) -> io::Result<Registers> {
    let mut registers = Registers::EMPTY;
    let mut bytes =
        libc::iovec { iov_base: registers.0.as_mut_ptr().cast(), iov_len: size_of::<Registers>() };
    set_of(tid, libc::PTRACE_GETREGSET, libc::NT_PRSTATUS, &mut bytes)?;
    Ok(registers)
}

pub(crate) fn set_registers(tid: Pid, registers: &Registers) -> io::Result<()> {
    let mut copy = *registers;
    let mut bytes = libc::iovec { iov_base: copy.0.as_mut_ptr().cast(), iov_len: size_of::<Registers>() };
    set_of(tid, libc::PTRACE_SETREGSET, libc::NT_PRSTATUS, &mut bytes)
}

/// A call that was interrupted is about to be made again, visibly in the registers, which are the answer.
pub(crate) fn settle(tid: Pid) -> io::Result<Registers> {
    let found = registers(tid)?;
    let settled = native::settled(tid, found);
    if settled != found {
        set_registers(tid, &settled)?;
    }
    Ok(settled)
}

/// Settles a stopped thread, and makes sure that these are the registers it goes on with.
pub(crate) fn keep(tid: Pid) -> io::Result<()> {
    native::keep(tid, &settle(tid)?)
}

/// One set of a stopped thread's registers, by its number; `None` where the processor does not have it.
pub(crate) fn set(tid: Pid, number: libc::c_int) -> io::Result<Option<Vec<u8>>> {
    let mut state = vec![0u8; EXTENDED_BYTES_MAX];
    let mut bytes = libc::iovec { iov_base: state.as_mut_ptr().cast(), iov_len: state.len() };
    match set_of(tid, libc::PTRACE_GETREGSET, number, &mut bytes) {
        Ok(()) => {}
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENODEV)) => return Ok(None),
        Err(error) => return Err(error),
    }
    state.truncate(bytes.iov_len);
    Ok(Some(state))
}

pub(crate) fn put_set(tid: Pid, number: libc::c_int, state: &[u8]) -> io::Result<()> {
    // SETREGSET only reads; the type of the field is the same for both directions.
    let mut bytes = libc::iovec { iov_base: state.as_ptr().cast_mut().cast(), iov_len: state.len() };
    set_of(tid, libc::PTRACE_SETREGSET, number, &mut bytes)
}

/// The extended state of a stopped thread: a set of `EXTENDED` each, where this processor has it.
pub(crate) fn extended(tid: Pid) -> io::Result<Vec<Option<Vec<u8>>>> {
    EXTENDED.iter().map(|number| set(tid, *number)).collect()
}

pub(crate) fn set_extended(tid: Pid, state: &[Option<Vec<u8>>]) -> io::Result<()> {
    let mut sets = EXTENDED.iter().zip(state).filter_map(|(number, set)| Some((*number, set.as_deref()?)));
    sets.try_for_each(|(number, set)| put_set(tid, number, set))
}

/// What of a stopped thread's extended state is not kept.
pub(crate) fn unkept(tid: Pid) -> io::Result<Option<&'static str>> {
    for unkept in UNKEPT {
        if set(tid, unkept.set)?.is_some_and(|set| (unkept.on)(&set)) {
            return Ok(Some(unkept.what));
        }
    }
    Ok(None)
}

/// The signals that a stopped thread blocks.
pub(crate) fn blocked(tid: Pid) -> io::Result<u64> {
    let mut mask = 0u64;
    // SAFETY: the kernel writes the eight bytes that the third argument announces to `mask`.
    checked(unsafe { libc::ptrace(libc::PTRACE_GETSIGMASK, tid, size_of::<u64>(), &raw mut mask) })?;
    Ok(mask)
}

pub(crate) fn set_blocked(tid: Pid, mask: u64) -> io::Result<()> {
    // SAFETY: the kernel reads the eight bytes that the third argument announces from `mask`.
    checked(unsafe { libc::ptrace(libc::PTRACE_SETSIGMASK, tid, size_of::<u64>(), &raw const mask) })
        .map(drop)
}

/// Whose queue of pending signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    Thread,
    Process,
}

/// The first signal that waits in a stopped thread's queue, or in its process's.
pub(crate) fn pending(tid: Pid, queue: Queue) -> io::Result<Option<libc::c_int>> {
    /// Not in `libc` for every processor.
    const SHARED: u32 = 1;
    let flags = if queue == Queue::Process { SHARED } else { 0 };
    let arguments = libc::ptrace_peeksiginfo_args { off: 0, flags, nr: 1 };
    // SAFETY: a siginfo of zeros is a value of its type.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `nr` is 1, so that the kernel writes at most one siginfo to `info`.
    let found =
        checked(unsafe { libc::ptrace(libc::PTRACE_PEEKSIGINFO, tid, &raw const arguments, &raw mut info) })?;
    Ok((found > 0).then_some(info.si_signo))
}

/// Where a stopped thread's rseq area lies, if it has one: the kernel writes to it when the thread runs.
pub(crate) fn rseq(tid: Pid) -> io::Result<Option<u64>> {
    const PTRACE_GET_RSEQ_CONFIGURATION: libc::c_uint = 0x420f;
    // `struct ptrace_rseq_configuration`: the address comes first.
    let mut configuration = [0u64; 3];
    let bytes = size_of::<[u64; 3]>();
    // SAFETY: the kernel writes at most the bytes that the third argument announces to the array.
    checked(unsafe { libc::ptrace(PTRACE_GET_RSEQ_CONFIGURATION, tid, bytes, configuration.as_mut_ptr()) })?;
    Ok(Some(configuration[0]).filter(|address| *address != 0))
}

/// One piece of another process's memory: where it begins and how many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) start: u64,
    pub(crate) bytes: usize,
}

impl Piece {
    fn there(self) -> libc::iovec {
        libc::iovec { iov_base: self.start as *mut libc::c_void, iov_len: self.bytes }
    }
}

/// Reads memory of a stopped process; through `mem` where the mapping forbids reading.
pub(crate) fn read(pid: Pid, mem: &File, start: u64, into: &mut [u8]) -> io::Result<()> {
    let here = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let there = Piece { start, bytes: into.len() }.there();
    // SAFETY: the kernel writes at most `into.len()` bytes to `into`; the other address is looked up in the other process.
    let moved = unsafe { libc::process_vm_readv(pid, &raw const here, 1, &raw const there, 1, 0) };
    if usize::try_from(moved) == Ok(into.len()) {
        return Ok(());
    }
    mem.read_exact_at(into, start)
}

/// Writes `bytes` to the pieces of a stopped process's memory, one after the other. Through `mem` where a mapping forbids writing, which the kernel
/// may allow the thread that traces alone (`proc_mem.force_override`, from 6.12 on).
pub(crate) fn write(pid: Pid, mem: &File, pieces: &[Piece], bytes: &[&[u8]]) -> io::Result<()> {
    for (pieces, bytes) in pieces.chunks(PIECES_MAX).zip(bytes.chunks(PIECES_MAX)) {
        let here: Vec<_> = bytes
            .iter()
            .map(|bytes| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() })
            .collect();
        let there: Vec<_> = pieces.iter().map(|piece| piece.there()).collect();
        let wanted: usize = bytes.iter().map(|bytes| bytes.len()).sum();
        // SAFETY: the kernel only reads the local slices, which live; the other addresses are looked up in the other process.
        let moved = unsafe {
            let (local, remote) = (here.len() as libc::c_ulong, there.len() as libc::c_ulong);
            libc::process_vm_writev(pid, here.as_ptr(), local, there.as_ptr(), remote, 0)
        };
        if usize::try_from(moved) == Ok(wanted) {
            continue;
        }
        write_code(mem, pieces, bytes)?;
    }
    Ok(())
}

/// As [`write`], whatever the mappings allow, and the processor is told of new code.
pub(crate) fn write_code(mem: &File, pieces: &[Piece], bytes: &[&[u8]]) -> io::Result<()> {
    pieces.iter().zip(bytes).try_for_each(|(piece, bytes)| mem.write_all_at(bytes, piece.start))
}
