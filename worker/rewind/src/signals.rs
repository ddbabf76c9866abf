//! Part of step 5: what each signal does in a process.
//!
//! `/proc` shows only which signals are ignored or have a handler, so the process is asked itself (`rt_sigaction`), through a page that is mapped
//! for that and unmapped again. A rewind sets those anew that have a handler in the baseline (its address could have changed unseen) and
//! those of which `/proc` shows a change; the C library, for one, installs a handler with a process's first thread.

use std::io;
use std::os::unix::fs::FileExt;

use crate::arch::Call;
use crate::inject::Caller;
use crate::memory::Access;

const SIGNALS: u32 = 64;
/// `struct kernel_sigaction`: handler, flags, restorer, mask.
const ACTION_BYTES: usize = 32;
const PAGE: u64 = 4096;

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

/// The dispositions of all signals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dispositions {
    shown: Shown,
    actions: Vec<[u8; ACTION_BYTES]>,
}

/// A page in the process for the time of a few calls.
pub(crate) fn with_page<T>(
    caller: &mut Caller,
    work: impl FnOnce(&mut Caller, u64) -> io::Result<T>,
) -> io::Result<T> {
    let rights = u64::from((libc::PROT_READ | libc::PROT_WRITE).unsigned_abs());
    let flags = u64::from((libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).unsigned_abs());
    let page = caller.call(&Call::new(libc::SYS_mmap, [0, PAGE, rights, flags, u64::MAX, 0]))?;
    let done = work(caller, page)?;
    caller.call(&Call::new(libc::SYS_munmap, [page, PAGE]))?;
    Ok(done)
}

impl Dispositions {
    pub(crate) fn read(caller: &mut Caller, access: &Access, shown: Shown) -> io::Result<Self> {
        with_page(caller, |caller, page| {
            let mut actions = Vec::new();
            for signal in 1..=SIGNALS {
                caller.call(&Call::new(libc::SYS_rt_sigaction, [signal.into(), 0, page, 8]))?;
                let mut action = [0; ACTION_BYTES];
                access.mem.read_exact_at(&mut action, page)?;
                actions.push(action);
            }
            Ok(Self { shown, actions })
        })
    }

    /// Sets what may have changed.
    pub(crate) fn restore(&self, caller: &mut Caller, access: &Access, now: Shown) -> io::Result<()> {
        let changed = self.shown.may_differ(now);
        if changed == 0 {
            return Ok(());
        }
        with_page(caller, |caller, page| {
            access.mem.write_all_at(&self.actions.concat(), page)?;
            for signal in (1..=SIGNALS).filter(|signal| changed & 1 << (signal - 1) != 0) {
                let action = page + u64::from(signal - 1) * ACTION_BYTES as u64;
                caller.call(&Call::new(libc::SYS_rt_sigaction, [signal.into(), action, 0, 8]))?;
            }
            Ok(())
        })
    }

    /// What `/proc` shows must be as in the baseline.
    pub(crate) fn shown_as(&self, now: Shown) -> bool {
        self.shown == now
    }
}
