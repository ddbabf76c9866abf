//! What each signal does in a process, its timers (`setitimer`), and the signals that wait for it.
//!
//! Signals that wait when a rewind begins, or that the rewind itself causes (the end of a child), are taken by the threads for which they wait
//! (`rt_sigtimedwait`, which takes blocked ones as well). It comes after whatever can cause one. Timers say what is left of them to nobody but the
//! process, so they are set each time; what was left in the baseline is left then.
//!
//! `/proc` shows only which signals are ignored or have a handler, so the process is asked itself (`rt_sigaction`), through a page that is mapped
//! for that and unmapped again. A rewind sets anew, at one go ([`crate::errand`]), those that have a handler in the baseline (its address could have
//! changed unseen) and those of which `/proc` shows a change; the C library, for one, installs a handler with a process's first thread.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::FileExt;

use crate::arch::Call;
use crate::errand;
use crate::identity;
use crate::inject::{Caller, Gate, SIGNALS_MAX, too_many_signals, with_page};
use crate::memory::Access;
use crate::trace::Pid;

const SIGNALS: u32 = 64;
/// `struct kernel_sigaction`: handler, flags, restorer, mask.
const ACTION_BYTES: usize = 32;
/// `ITIMER_REAL`, `ITIMER_VIRTUAL`, `ITIMER_PROF`.
const TIMERS: u64 = 3;
/// `struct itimerval`.
const TIMER_BYTES: usize = 32;
/// Where timers lie behind the actions.
const TIMERS_AT: u64 = SIGNALS as u64 * ACTION_BYTES as u64;
/// Where a time of zero lies behind the set of all signals.
const NO_TIME_AT: u64 = 8;

/// What `/proc/PID/status` shows: which signals are ignored, and which have a handler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) ignored: u64,
    pub(crate) caught: u64,
}

impl Shown {
    /// Parses the two lines of the file; zero where there is none.
    pub(crate) fn parse(status: &str) -> Self {
        let of = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            u64::from_str_radix(value.trim(), 16).unwrap_or_default()
        };
        Self { ignored: of("SigIgn:"), caught: of("SigCgt:") }
    }

    fn may_differ(self, now: Self) -> u64 {
        self.caught | (self.ignored ^ now.ignored) | (self.caught ^ now.caught)
    }
}

/// The dispositions of all signals, and the timers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signals {
    shown: Shown,
    actions: Vec<[u8; ACTION_BYTES]>,
    timers: Vec<[u8; TIMER_BYTES]>,
}

impl Signals {
    pub(crate) fn read(caller: &mut Caller, access: &Access, shown: Shown) -> io::Result<Self> {
        with_page(caller, |caller, page| {
            let mut actions = Vec::new();
            for signal in 1..=SIGNALS {
                caller.call(&Call::new(libc::SYS_rt_sigaction, [signal.into(), 0, page, 8]))?;
                let mut action = [0; ACTION_BYTES];
                access.mem.read_exact_at(&mut action, page)?;
                actions.push(action);
            }
            let mut timers = Vec::new();
            for which in 0..TIMERS {
                caller.call(&Call::new(libc::SYS_getitimer, [which, page]))?;
                let mut timer = [0; TIMER_BYTES];
                access.mem.read_exact_at(&mut timer, page)?;
                timers.push(timer);
            }
            Ok(Self { shown, actions, timers })
        })
    }

    /// Sets what may have changed, and takes what waits for the process or one of its threads `tids`, of which `caller` is one. Answers which others made
    /// calls.
    pub(crate) fn restore(
        &self,
        caller: &mut Caller,
        access: &Access,
        gate: Gate,
        tids: &BTreeSet<Pid>,
        now: Shown,
    ) -> io::Result<BTreeSet<Pid>> {
        let changed = self.shown.may_differ(now);
        let data = [self.actions.concat(), self.timers.concat()].concat();
        let can_trap = errand::can_trap(self.shown.ignored | now.ignored);
        errand::run(caller, access, can_trap, &data, |at| {
            let signals = (1..=SIGNALS).filter(|signal| changed & 1 << (signal - 1) != 0);
            let set = signals.map(|signal| {
                let action = at + u64::from(signal - 1) * ACTION_BYTES as u64;
                Call::new(libc::SYS_rt_sigaction, [signal.into(), action, 0, 8])
            });
            let wind = (0..TIMERS).map(|which| {
                let timer = at + TIMERS_AT + which * TIMER_BYTES as u64;
                Call::new(libc::SYS_setitimer, [which, timer, 0])
            });
            set.chain(wind).collect()
        })?;
        let waiting = || {
            let pending = identity::pending(access.pid, tids)?;
            Ok::<BTreeSet<_>, io::Error>(pending.into_iter().map(|(tid, _)| tid).collect())
        };
        let mut helpers = waiting()?;
        if helpers.is_empty() {
            return Ok(helpers);
        }
        with_page(caller, |caller, page| {
            access.mem.write_all_at(&[vec![0xff; 8], vec![0; 16]].concat(), page)?;
            if helpers.remove(&access.pid) {
                take_all(caller, page)?;
            }
            for tid in &helpers {
                let mut caller = Caller::new(*tid, gate)?;
                take_all(&mut caller, page)?;
                caller.end()?;
            }
            match waiting()?.first() {
                None => Ok(helpers),
                Some(tid) => Err(io::Error::other(format!("signals keep waiting for thread {tid}"))),
            }
        })
    }

    /// What `/proc` shows must be as in the baseline.
    pub(crate) fn shown_as(&self, now: Shown) -> bool {
        self.shown == now
    }
}

/// Takes whatever signal waits for the thread of `caller` or for its process.
fn take_all(caller: &mut Caller, page: u64) -> io::Result<()> {
    let take = Call::new(libc::SYS_rt_sigtimedwait, [page, 0, page + NO_TIME_AT, 8]);
    for _ in 0..SIGNALS_MAX {
        match caller.call(&take) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Err(too_many_signals())
}
