//! Was one of the daemon's processes killed for want of memory? The kernel's killer sends the same signal as anybody; but it
//! counts whom it killed, by control group (`oom_kill` of `memory.oom_control` in version 1 and of `memory.events.local` in
//! version 2), and the daemon's processes are in the agent's own.
//!
//! Decides, and kills nobody. A container's group has a count of its own: what runs out of memory there is not met here.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use crate::host::{Pressure, own_memory_limit, own_oom_kills};

/// SIGKILL, from signal(7).
const KILLED: i32 = 9;

/// The count at the last look.
#[derive(Debug, Clone, Copy)]
pub(super) struct KillCount(Option<u64>);

impl KillCount {
    pub(super) fn now() -> Self {
        Self(own_oom_kills())
    }

    /// What is to be said beside the status of a process that has just ended; mostly nothing.
    pub(super) fn words(&mut self, status: ExitStatus) -> String {
        let before = std::mem::replace(self, Self::now());
        match is_for_want_of_memory(status, before.0, self.0) {
            true => format!(", {}", in_words(own_memory_limit(), Pressure::look().available_bytes)),
            false => String::new(),
        }
    }
}

fn is_for_want_of_memory(status: ExitStatus, before: Option<u64>, after: Option<u64>) -> bool {
    status.signal() == Some(KILLED)
        && matches!((before, after), (Some(before), Some(after)) if after > before)
}

fn in_words(limit: Option<u64>, available: u64) -> String {
    match limit {
        Some(bytes) => format!("out of memory: the worker's own limit is {} MiB", bytes >> 20),
        None => format!("out of memory: the machine has {} MiB left", available >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kill_that_the_kernel_has_counted_is_for_want_of_memory() {
        let (killed, crashed) = (ExitStatus::from_raw(9), ExitStatus::from_raw(11));
        let ended = ExitStatus::from_raw(137 << 8);
        assert!(is_for_want_of_memory(killed, Some(3), Some(4)));
        for (status, before, after) in [
            (killed, Some(4), Some(4)),
            (killed, None, Some(4)),
            (killed, Some(4), None),
            (crashed, Some(3), Some(4)),
            (ended, Some(3), Some(4)),
        ] {
            assert!(!is_for_want_of_memory(status, before, after), "{status} {before:?} {after:?}");
        }
    }

    #[test]
    fn the_limit_that_was_met_is_named() {
        assert_eq!(in_words(Some(512 << 20), 0), "out of memory: the worker's own limit is 512 MiB");
        assert_eq!(in_words(None, 3 << 20), "out of memory: the machine has 3 MiB left");
    }
}
