//! While processes stand still nobody is served: our thread goes before whatever else the machine has to do.
//!
//! Without it each thread that is let go of, and each wait for one, gives the processor to somebody who keeps it for milliseconds. Threads that are started
//! meanwhile are urgent, too. Not for what takes long: comparing all bytes is not urgent.
//!
//! A thread that we wait for, so that it stops or has made a call, is urgent for that long ([`Hurried`]), and scheduled as before when the wait is over:
//! how it is scheduled is compared by each rewind (see `registers`). It is traced meanwhile, so that our end is its end.
#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;

use crate::trace::Pid;

/// For as long as it lives the thread that made it is urgent, where the machine allows that (`CAP_SYS_NICE`); elsewhere it is only slower.
#[derive(Debug)]
pub(crate) struct Urgent {
    was: Option<libc::c_int>,
    /// It is about the thread that made it.
    _not_send: PhantomData<*const ()>,
}

/// The lowest of those that go before all that are not in real time.
const PRIORITY: libc::c_int = 1;

fn set(policy: libc::c_int, priority: libc::c_int) -> bool {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: sched_setscheduler(2) reads one `sched_param`, which lives; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) == 0 }
}

impl Urgent {
    pub(crate) fn begin() -> Self {
        // SAFETY: sched_getscheduler(2) takes a number only; 0 is the calling thread.
        let policy = unsafe { libc::sched_getscheduler(0) };
        // One that has a priority already keeps it.
        let was = (policy == libc::SCHED_OTHER && set(libc::SCHED_RR, PRIORITY)).then_some(policy);
        Self { was, _not_send: PhantomData }
    }
}

/// `struct sched_attr`, of which kernels fill what they know: its size, policy and flags come first, and then what each policy needs.
pub(crate) type Attributes = [u8; ATTRIBUTES_BYTES];
const ATTRIBUTES_BYTES: usize = 56;
const POLICY_AT: usize = 4;

/// How a thread is scheduled, without its processors.
pub(crate) fn attributes(tid: Pid) -> io::Result<Attributes> {
    let mut attributes = [0; ATTRIBUTES_BYTES];
    // SAFETY: sched_getattr(2) writes at most as many bytes as it is told that the buffer has.
    let answer =
        unsafe { libc::syscall(libc::SYS_sched_getattr, tid, attributes.as_mut_ptr(), ATTRIBUTES_BYTES, 0) };
    if answer == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

/// A thread that we trace and wait for.
#[derive(Debug)]
#[must_use = "it stays urgent"]
pub(crate) struct Hurried {
    tid: Pid,
    was: Attributes,
}

impl Hurried {
    /// `None` where it stays as it is: we are not urgent ourselves, or it has a policy of its own.
    pub(crate) fn hurry(tid: Pid) -> Option<Self> {
        // SAFETY: sched_getscheduler(2) takes a number only; 0 is the calling thread.
        let ours = unsafe { libc::sched_getscheduler(0) };
        if ours != libc::SCHED_RR {
            return None;
        }
        let was = attributes(tid).ok()?;
        if was[POLICY_AT..POLICY_AT + 4] != libc::SCHED_OTHER.to_ne_bytes() {
            return None;
        }
        let parameters = libc::sched_param { sched_priority: PRIORITY };
        // What it forks meanwhile is not urgent.
        let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
        // SAFETY: sched_setscheduler(2) reads one `sched_param`, which lives.
        let set = unsafe { libc::sched_setscheduler(tid, policy, &raw const parameters) };
        (set == 0).then_some(Self { tid, was })
    }

    /// It is scheduled as before. One that has ended meanwhile needs no scheduling.
    pub(crate) fn calm(self) -> io::Result<()> {
        // SAFETY: sched_setattr(2) reads as many bytes as the first field says, which the kernel itself has set to at most the array's length.
        let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, self.tid, self.was.as_ptr(), 0) };
        match answer {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
                error => Err(error),
            },
        }
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        if let Some(policy) = self.was {
            // Lowering is always allowed.
            set(policy, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> libc::c_int {
        // SAFETY: as above.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn a_thread_is_urgent_for_a_while_and_those_that_it_starts_with_it() {
        let before = policy();
        let urgent = Urgent::begin();
        // Where the machine has no real time to give, all stays as it is.
        let meanwhile = if urgent.was.is_some() { libc::SCHED_RR } else { before };
        assert_eq!(policy(), meanwhile);
        std::thread::scope(|scope| scope.spawn(|| assert_eq!(policy(), meanwhile)).join().unwrap());
        drop(urgent);
        assert_eq!(policy(), before);
    }

    #[test]
    fn who_is_waited_for_is_urgent_and_then_as_before() {
        let victim = crate::victim::Victim::quiet();
        let before = attributes(victim.pid()).unwrap();
        assert!(Hurried::hurry(victim.pid()).is_none(), "nobody is in a hurry");
        let urgent = Urgent::begin();
        let hurried = Hurried::hurry(victim.pid());
        assert_eq!(hurried.is_some(), urgent.was.is_some(), "who is not urgent hurries nobody");
        if let Some(hurried) = hurried {
            let meanwhile = attributes(victim.pid()).unwrap();
            assert_eq!(meanwhile[POLICY_AT..POLICY_AT + 4], libc::SCHED_RR.to_ne_bytes());
            assert!(Hurried::hurry(victim.pid()).is_none(), "once is enough");
            hurried.calm().unwrap();
        }
        drop(urgent);
        assert_eq!(attributes(victim.pid()).unwrap(), before);
    }
}
