//! x86-64: the general registers as `NT_PRSTATUS` lays them out, and the extended state as `NT_X86_XSTATE` does.
//!
//! Interrupted system calls. A frozen thread that sat in a call shows `orig_rax` ≥ 0 and in `rax` why the call ended. The kernel makes the
//! call again by itself only if the thread is let go from a signal stop, and for `ERESTART_RESTARTBLOCK` only with the deadline that is still
//! kept in the kernel: neither is true after a rewind. So [`Registers::settled`] makes the restart visible in the registers: back by the
//! two bytes of `syscall`, the number in `rax` again, no call under way. A relative timeout then starts anew.
//!
//! `epoll_wait`, `rt_sigtimedwait`, `semtimedop` and the like end with `EINTR` when a thread is frozen, which a program could see; no signal
//! came, so they are made again as well.

use std::io;

use super::{Call, Unkept, ends_in_eintr};
use crate::trace::Pid;

/// `NT_X86_XSTATE`: floating point, vectors, protection keys and whatever else `xsave` keeps.
pub(crate) const EXTENDED: &[libc::c_int] = &[0x202];
/// The most that one set may take: 11 kB with AMX; room to spare.
pub(crate) const EXTENDED_BYTES_MAX: usize = 32 * 1024;
pub(crate) const UNKEPT: &[Unkept] = &[];
pub(crate) const CODE_IS_FETCHED_APART: bool = false;
/// The instruction that makes a system call.
pub(crate) const SYSCALL: &[u8] = &[0x0f, 0x05];
pub(crate) const ALIGNMENT: usize = 1;
/// Makes each call of a table (`Call::words`) at `rbx`, whose length is in `r12`, until one fails, and traps.
#[rustfmt::skip]
pub(crate) const ERRAND: &[u8] = &[
    0x4d, 0x85, 0xe4,                   // next: test r12, r12
    0x74, 0x2e,                         //       jz   done
    0x48, 0x8b, 0x03,                   //       mov  rax, [rbx]
    0x48, 0x8b, 0x7b, 0x08,             //       mov  rdi, [rbx + 8]
    0x48, 0x8b, 0x73, 0x10,             //       mov  rsi, [rbx + 16]
    0x48, 0x8b, 0x53, 0x18,             //       mov  rdx, [rbx + 24]
    0x4c, 0x8b, 0x53, 0x20,             //       mov  r10, [rbx + 32]
    0x4c, 0x8b, 0x43, 0x28,             //       mov  r8, [rbx + 40]
    0x4c, 0x8b, 0x4b, 0x30,             //       mov  r9, [rbx + 48]
    0x0f, 0x05,                         //       syscall
    0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff, //       cmp  rax, -4095
    0x73, 0x09,                         //       jae  done
    0x48, 0x83, 0xc3, 0x38,             //       add  rbx, 56
    0x49, 0xff, 0xcc,                   //       dec  r12
    0xeb, 0xcd,                         //       jmp  next
    0xcc,                               // done: int3
];
/// Whether this file speaks of a processor that can be rewound.
pub(crate) const KNOWN: bool = true;

const WORDS: usize = 27;
// Positions in `struct user_regs_struct`.
const R12: usize = 3;
const RBX: usize = 5;
const R10: usize = 7;
const R9: usize = 8;
const R8: usize = 9;
const RAX: usize = 10;
const RDX: usize = 12;
const RSI: usize = 13;
const RDI: usize = 14;
const ORIG_RAX: usize = 15;
const RIP: usize = 16;

const NO_CALL: u64 = u64::MAX;
const ERESTARTSYS: i64 = 512;
const ERESTARTNOINTR: i64 = 513;
const ERESTARTNOHAND: i64 = 514;
const ERESTART_RESTARTBLOCK: i64 = 516;
const EINTR: i64 = libc::EINTR as i64;

/// The general registers of one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Registers(pub(crate) [u64; WORDS]);

impl Registers {
    pub(crate) const EMPTY: Self = Self([0; WORDS]);

    /// These registers, about to make `call` by the instruction at `gate`.
    pub(crate) fn calling(mut self, gate: u64, call: &Call) -> Self {
        self.0[RIP] = gate;
        self.0[RAX] = call.number.cast_unsigned();
        self.0[ORIG_RAX] = NO_CALL;
        for (register, argument) in [RDI, RSI, RDX, R10, R8, R9].into_iter().zip(call.arguments) {
            self.0[register] = argument;
        }
        self
    }

    /// These registers, about to go through [`ERRAND`] at `code`.
    pub(crate) fn running(mut self, code: u64, table: u64, count: u64) -> Self {
        (self.0[RIP], self.0[ORIG_RAX]) = (code, NO_CALL);
        (self.0[RBX], self.0[R12]) = (table, count);
        self
    }

    /// How many calls were left when the one that [`ERRAND`] at `code` stopped at had failed; `None` if it does not stand at its end.
    pub(crate) fn ran(&self, code: u64) -> Option<u64> {
        (self.0[RIP] == code + ERRAND.len() as u64).then_some(self.0[R12])
    }

    /// What the call that just ended answered: negative is an error number.
    pub(crate) fn answer(&self) -> i64 {
        self.0[RAX].cast_signed()
    }

    /// These registers without a call under way: an interrupted one is about to be made again from its start.
    fn settled(mut self) -> Self {
        let number = self.0[ORIG_RAX].cast_signed();
        if number < 0 {
            return self;
        }
        if number == libc::SYS_restart_syscall && -self.answer() == ERESTART_RESTARTBLOCK {
            // Somebody stopped this thread before us, and which call it was is known to the kernel alone.
            self.0[RAX] = (-EINTR).cast_unsigned();
            self.0[ORIG_RAX] = NO_CALL;
            return self;
        }
        let again = match -self.answer() {
            ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND | ERESTART_RESTARTBLOCK => true,
            EINTR => ends_in_eintr(number) || [libc::SYS_epoll_wait, libc::SYS_pause].contains(&number),
            _ => false,
        };
        if again {
            self.0[RIP] -= SYSCALL.len() as u64;
            self.0[RAX] = self.0[ORIG_RAX];
        }
        self.0[ORIG_RAX] = NO_CALL;
        self
    }
}

/// All that it takes to know about an interrupted call is in the registers: nothing has to be asked before.
pub(crate) enum Waiting {}

pub(crate) fn waiting(_tid: Pid) -> Option<Waiting> {
    None
}

pub(crate) fn stopped(_tid: Pid, waiting: &Waiting) -> io::Result<()> {
    match *waiting {}
}

#[expect(clippy::unnecessary_wraps, reason = "other processors have to ask")]
pub(crate) fn lost(_tid: Pid) -> io::Result<bool> {
    Ok(false)
}

pub(crate) fn settled(_tid: Pid, found: Registers) -> Registers {
    found.settled()
}

/// The exit of a call is a stop like any other.
#[expect(clippy::unnecessary_wraps, reason = "other processors have to leave it")]
pub(crate) fn end_calls(_tid: Pid) -> io::Result<()> {
    Ok(())
}

/// The kernel goes by the registers: without a number in `orig_rax` there is no call to go on with.
#[expect(clippy::unnecessary_wraps, reason = "other processors have to do something")]
pub(crate) fn keep(_tid: Pid, _settled: &Registers) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_call(number: i64, answer: i64) -> Registers {
        let mut registers = Registers::EMPTY;
        registers.0[RIP] = 0x1002;
        registers.0[RAX] = answer.cast_unsigned();
        registers.0[ORIG_RAX] = number.cast_unsigned();
        registers
    }

    #[test]
    fn an_interrupted_call_is_made_again_from_its_start() {
        for error in [ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK] {
            let settled = in_call(libc::SYS_poll, -error).settled();
            assert_eq!((settled.0[RIP], settled.0[RAX]), (0x1000, libc::SYS_poll.cast_unsigned()));
            assert_eq!(settled.0[ORIG_RAX], NO_CALL);
        }
        assert_eq!(in_call(libc::SYS_epoll_wait, -EINTR).settled().0[RIP], 0x1000);
    }

    #[test]
    fn a_call_that_ended_keeps_its_answer() {
        for (number, answer) in [(libc::SYS_read, 17), (libc::SYS_read, -EINTR), (libc::SYS_openat, -2)] {
            let settled = in_call(number, answer).settled();
            assert_eq!((settled.0[RIP], settled.answer()), (0x1002, answer));
            assert_eq!(settled.settled(), settled, "settling twice changes nothing");
        }
    }
}
