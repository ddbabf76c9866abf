//! AArch64: the general registers as `NT_PRSTATUS` lays them out, and the sets beside them.
//!
//! Interrupted system calls. When a thread is frozen in a call, the kernel itself has put the registers back to the call's start before we see
//! them, where it means to make the call again (`do_signal` in arch/arm64/kernel/signal.c). What it shows to nobody, and we have to work around:
//! - It remembers where that start is. A thread that goes on from just there, by chance or because it was rewound to the very same instruction,
//!   is sent on with what is left of the interrupted call's time (`restart_syscall`) instead of its own registers. [`keep`] has it make the
//!   entry of a call that is not made, after which nothing is remembered.
//! - The first argument and the answer share a register. Of a call that ended with `EINTR`, because it was frozen, the argument is lost to us: it is
//!   asked for shortly before, while the thread waits in its call ([`waiting`]), and believed if all else still agrees when the thread stands still
//!   ([`stopped`]). Who cannot be asked is refused as a baseline ([`lost`]).
//! - At the entry and the exit of a traced call `x7` says which of the two it is, and is put back when the thread goes on, over whatever we
//!   set it to: [`end_calls`] leaves the exit.
//!
//! Two things cannot be told apart in such a call: a thread that wakes up by itself between the question and its stop, and makes the same call
//! with another first argument from the same place; and a handler of a signal that came just then. The call is made again in both cases.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use super::{Call, Unkept, ends_in_eintr};
use crate::trace::{self, Pid, Stop};

/// Floating point and vectors of a fixed size (`NT_PRFPREG`), those of any size (`NT_ARM_SVE`), the pointer to what is a thread's own
/// (`NT_ARM_TLS`), keys that sign pointers (`NT_ARM_PACA_KEYS`, `NT_ARM_PACG_KEYS`), how tagged pointers are taken (`NT_ARM_TAGGED_ADDR_CTRL`),
/// which keys are in use (`NT_ARM_PAC_ENABLED_KEYS`), modes of 8-bit floating point (`NT_ARM_FPMR`), what memory's keys allow (`NT_ARM_POE`).
pub(crate) const EXTENDED: &[libc::c_int] = &[2, 0x405, 0x401, 0x407, 0x408, 0x409, 0x40a, 0x40e, 0x40f];
/// The most that one set may take: 8 kB of vectors, or 64 kB of a matrix (`NT_ARM_ZA`). A multiple of the sizes of all sets' elements, or the kernel
/// takes them for absent.
pub(crate) const EXTENDED_BYTES_MAX: usize = 48 * 1708;
/// Matrices and their streaming mode (SME), and shadow stacks (GCS), which no server that we know uses yet.
pub(crate) const UNKEPT: &[Unkept] = &[
    // `struct user_sve_header`: bit 0 of the flags says that there are registers of this mode.
    Unkept {
        set: 0x40b,
        on: |set| set.get(SVE_FLAGS_AT).is_some_and(|flags| flags & 1 != 0),
        what: "streaming mode",
    },
    // `struct user_za_header`: its first number is how much there is of the header and, if there is one, the matrix.
    Unkept {
        set: 0x40c,
        on: |set| set.first_chunk().is_some_and(|size| u32::from_ne_bytes(*size) > ZA_HEADER_BYTES),
        what: "a matrix register",
    },
    // `struct user_gcs`: first what is enabled.
    Unkept { set: 0x410, on: |set| set.iter().take(8).any(|byte| *byte != 0), what: "a shadow stack" },
];
/// Code is fetched through a cache of its own.
pub(crate) const CODE_IS_FETCHED_APART: bool = true;
/// The instruction that makes a system call: `svc #0`.
pub(crate) const SYSCALL: &[u8] = &[0x01, 0x00, 0x00, 0xd4];
pub(crate) const ALIGNMENT: usize = 4;
/// Makes each call of a table (`Call::words`) at `x19`, whose length is in `x20`, until one fails, and traps.
#[rustfmt::skip]
pub(crate) const ERRAND: &[u8] = &[
    0x74, 0x01, 0x00, 0xb4, // next: cbz  x20, done
    0x68, 0x02, 0x40, 0xf9, //       ldr  x8, [x19]
    0x60, 0x86, 0x40, 0xa9, //       ldp  x0, x1, [x19, #8]
    0x62, 0x8e, 0x41, 0xa9, //       ldp  x2, x3, [x19, #24]
    0x64, 0x96, 0x42, 0xa9, //       ldp  x4, x5, [x19, #40]
    0x01, 0x00, 0x00, 0xd4, //       svc  #0
    0x1f, 0xfc, 0x3f, 0xb1, //       cmn  x0, #4095
    0x82, 0x00, 0x00, 0x54, //       b.cs done
    0x73, 0xe2, 0x00, 0x91, //       add  x19, x19, #56
    0x94, 0x06, 0x00, 0xd1, //       sub  x20, x20, #1
    0xf6, 0xff, 0xff, 0x17, //       b    next
    0x00, 0x00, 0x20, 0xd4, // done: brk  #0
];
/// Whether this file speaks of a processor that can be rewound.
pub(crate) const KNOWN: bool = true;

const SVE_FLAGS_AT: usize = 12;
const ZA_HEADER_BYTES: u32 = 16;
/// `NT_ARM_SYSTEM_CALL`: the number of the call that the thread is in, 32 bits.
const CALL_SET: libc::c_int = 0x404;
const NO_CALL: i32 = -1;

const WORDS: usize = 34;
// Positions in `struct user_pt_regs`; before them the numbered registers.
const SP: usize = 31;
const PC: usize = 32;
const PSTATE: usize = 33;
/// How the processor came to this instruction (BTI): by none of the ways that would have to be allowed.
const BRANCH_TYPE: u64 = 0b11 << 10;

const INSTRUCTION: u64 = 4;
const EINTR: i64 = libc::EINTR as i64;

/// The general registers of one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Registers(pub(crate) [u64; WORDS]);

impl Registers {
    pub(crate) const EMPTY: Self = Self([0; WORDS]);

    /// These registers, about to make `call` by the instruction at `gate`.
    pub(crate) fn calling(mut self, gate: u64, call: &Call) -> Self {
        self.go_to(gate);
        self.0[..6].copy_from_slice(&call.arguments);
        self.0[8] = call.number.cast_unsigned();
        self
    }

    /// These registers, about to go through [`ERRAND`] at `code`.
    pub(crate) fn running(mut self, code: u64, table: u64, count: u64) -> Self {
        self.go_to(code);
        (self.0[19], self.0[20]) = (table, count);
        self
    }

    /// How many calls were left when the one that [`ERRAND`] at `code` stopped at had failed; `None` if it does not stand at its end.
    pub(crate) fn ran(&self, code: u64) -> Option<u64> {
        (self.0[PC] == code + ERRAND.len() as u64 - INSTRUCTION).then_some(self.0[20])
    }

    /// What the call that just ended answered: negative is an error number.
    pub(crate) fn answer(&self) -> i64 {
        self.0[0].cast_signed()
    }

    fn go_to(&mut self, instruction: u64) {
        self.0[PC] = instruction;
        self.0[PSTATE] &= !BRANCH_TYPE;
    }

    fn number(&self) -> i64 {
        self.0[8].cast_signed()
    }

    fn was_interrupted(&self) -> bool {
        self.answer() == -EINTR && ends_in_eintr(self.number())
    }

    /// With a call that will not be made again: which it was is known to the kernel alone, for somebody stopped this thread before us.
    fn given_up(mut self) -> Self {
        self.0[PC] += INSTRUCTION;
        self.0[0] = (-EINTR).cast_unsigned();
        self
    }

    /// With the call that just ended about to be made again, its first argument being `first`.
    fn again(mut self, first: u64) -> Self {
        self.0[PC] -= INSTRUCTION;
        self.0[0] = first;
        self
    }
}

/// Whether a thread would make a call at `address`.
fn calls_at(tid: Pid, address: u64) -> bool {
    let mut instruction = [0; INSTRUCTION as usize];
    let mem = File::open(format!("/proc/{tid}/mem"));
    let read = mem.and_then(|mem| mem.read_exact_at(&mut instruction, address));
    // What cannot be read cannot be run either.
    read.is_ok() && instruction == SYSCALL
}

fn set_number(tid: Pid, number: i32) -> io::Result<()> {
    trace::put_set(tid, CALL_SET, &number.to_ne_bytes())
}

/// A call that a thread waits in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    number: i64,
    arguments: [u64; ARGUMENTS],
    stack: u64,
    /// Behind the instruction that made it.
    pc: u64,
}

const ARGUMENTS: usize = 6;

/// What a thread waits in that ends in `EINTR` when the thread is stopped.
pub(crate) fn waiting(tid: Pid) -> Option<Waiting> {
    // Which asks the kernel twice, so that what it tells is of a thread that did not run meanwhile.
    let line = fs::read_to_string(format!("/proc/{tid}/syscall")).ok()?;
    Waiting::read(&line).filter(|waiting| ends_in_eintr(waiting.number))
}

impl Waiting {
    /// From a line of `/proc/TID/syscall` (proc_pid_syscall(5)): the number, six arguments, the stack, the place.
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let number = words.next()?.parse().ok()?;
        let mut word = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
        let mut arguments = [0; ARGUMENTS];
        for argument in &mut arguments {
            *argument = word()?;
        }
        Some(Self { number, arguments, stack: word()?, pc: word()? })
    }

    /// Whether these are its registers after it was interrupted.
    fn ended_as(&self, registers: &Registers) -> bool {
        registers.was_interrupted()
            && self.number == registers.number()
            && self.arguments[1..] == registers.0[1..ARGUMENTS]
            && self.stack == registers.0[SP]
            && self.pc == registers.0[PC]
    }
}

/// A thread that was `waiting` has just been stopped: its call is about to be made again.
pub(crate) fn stopped(tid: Pid, waiting: &Waiting) -> io::Result<()> {
    let found = trace::registers(tid)?;
    if waiting.ended_as(&found) {
        trace::set_registers(tid, &found.again(waiting.arguments[0]))?;
    }
    Ok(())
}

/// Whether the first argument of a stopped thread's interrupted call is known to nobody.
pub(crate) fn lost(tid: Pid) -> io::Result<bool> {
    let found = trace::registers(tid)?;
    Ok(found.was_interrupted() && calls_at(tid, found.0[PC].wrapping_sub(INSTRUCTION)))
}

/// The registers of a stopped thread without a call under way: an interrupted one is about to be made again from its start.
pub(crate) fn settled(tid: Pid, found: Registers) -> Registers {
    let restarts = found.number() == libc::SYS_restart_syscall && calls_at(tid, found.0[PC]);
    if restarts { found.given_up() } else { found }
}

/// Leaves the exit of a traced call for a stop at which `x7` can be set, without an instruction being run. No signal comes meanwhile.
pub(crate) fn end_calls(tid: Pid) -> io::Result<()> {
    set_number(tid, NO_CALL)?;
    trace::interrupt(tid)?;
    trace::go_on(tid, 0)?;
    trace::wait_for(tid, Stop::Interrupted)
}

/// Makes the kernel forget about a call that it was going to go on with. The thread has the registers `settled`, and keeps them.
pub(crate) fn keep(tid: Pid, settled: &Registers) -> io::Result<()> {
    if !calls_at(tid, settled.0[PC]) {
        return Ok(());
    }
    let blocked = trace::blocked(tid)?;
    trace::set_blocked(tid, u64::MAX)?;
    trace::go_on_to_no_call(tid)?;
    trace::wait_for(tid, Stop::Call)?;
    set_number(tid, NO_CALL)?;
    trace::set_registers(tid, settled)?;
    trace::set_blocked(tid, blocked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pc: u64, number: i64, first: i64) -> Registers {
        let mut registers = Registers::EMPTY;
        (registers.0[PC], registers.0[8], registers.0[0]) =
            (pc, number.cast_unsigned(), first.cast_unsigned());
        registers
    }

    #[test]
    fn a_call_that_ended_with_eintr_is_made_again_from_its_start() {
        assert_eq!(at(0x1004, libc::SYS_epoll_pwait, -EINTR).again(7), at(0x1000, libc::SYS_epoll_pwait, 7));
        assert_eq!(at(0x1000, 128, 3).given_up(), at(0x1004, 128, -EINTR));
    }

    #[test]
    fn only_the_very_call_that_a_thread_waited_in_gets_its_first_argument_back() {
        let line = "22 0x4d 0xffda8e 0x1 0xffffffffffffffff 0x0 0x8 0xffda80 0x1004\n";
        let waiting = Waiting::read(line).expect("a call");
        let mut ended = at(0x1004, libc::SYS_epoll_pwait, -EINTR);
        ended.0[1..6].copy_from_slice(&[0xff_da8e, 1, u64::MAX, 0, 8]);
        ended.0[SP] = 0xff_da80;
        assert!(waiting.ended_as(&ended));
        assert_eq!(ended.again(waiting.arguments[0]).0[0], 0x4d);
        for register in [0, 1, 5, 8, SP, PC] {
            let mut other = ended;
            other.0[register] ^= 1;
            assert!(!waiting.ended_as(&other), "x{register}");
        }
        for other in ["running", "-1 0xffda80 0x1004", "22 0x4d 0xffda8e", ""] {
            assert_eq!(Waiting::read(other), None, "{other}");
        }
    }

    #[test]
    fn an_errand_stands_at_its_trap_when_it_has_ended() {
        let mut registers = Registers::EMPTY.running(0x1000, 0x2000, 3);
        assert_eq!(registers.ran(0x1000), None);
        registers.0[PC] = 0x1000 + ERRAND.len() as u64 - 4;
        assert_eq!(registers.ran(0x1000), Some(3));
    }
}
