//! Many system calls of another process at the price of few: instead of two stops for each call there is one stop for all of them.
//!
//! The process gets some pages with a loop of a few instructions and a table of calls; a thread of it is sent through the loop and stops behind the
//! last call, by the processor's trap. The pages can be read and run, never written by the process: we write them through `/proc/PID/mem`.
//!
//! A trap resets the disposition of `SIGTRAP` where the signal is blocked or ignored. So it is not blocked meanwhile; where a process
//! ignores it, and where there can be no such pages, each call is made by itself. (The number of the last trap stays in the kernel, which tells it to a
//! handler of a later signal, in a field that nobody reads but debuggers.)

use std::io;
use std::os::unix::fs::FileExt;

use crate::arch::Call;
use crate::arch::native::ERRAND;
use crate::inject::{Caller, TRAP, with_page};
use crate::memory::Access;

/// The pages: code, what the calls refer to, and the table.
const BYTES: u64 = 4 * 4096;
/// What the calls refer to begins here; the code takes less.
const DATA_AT: u64 = 128;

/// Whether a trap leaves the dispositions of a process alone that ignores the signals `ignored`.
pub(crate) fn can_trap(ignored: u64) -> bool {
    !ERRAND.is_empty() && ignored & TRAP == 0
}

/// Has the process make `calls`, which are told where its copy of `data` lies: at one go if it `can_trap`. The first that fails ends it.
pub(crate) fn run(
    caller: &mut Caller,
    access: &Access,
    can_trap: bool,
    data: &[u8],
    calls: impl Fn(u64) -> Vec<Call>,
) -> io::Result<()> {
    if can_trap && let Some(page) = lend(caller)? {
        let (calls, table) = (calls(page + DATA_AT), DATA_AT + (data.len() as u64).next_multiple_of(8));
        let written = access.mem.write_all_at(&laid_out(data, table, &calls)?, page).is_ok();
        if written {
            caller.run(page, page + table, calls.len())?;
        }
        caller.take_back(page, BYTES)?;
        if written {
            return Ok(());
        }
    }
    with_page(caller, |caller, page| {
        access.mem.write_all_at(data, page)?;
        calls(page).iter().try_for_each(|call| caller.call(call).map(drop))
    })
}

/// The pages, where the process may have any that are run.
fn lend(caller: &mut Caller) -> io::Result<Option<u64>> {
    match caller.lend(BYTES, libc::PROT_READ | libc::PROT_EXEC) {
        Ok(page) => Ok(Some(page)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The bytes of the pages.
fn laid_out(data: &[u8], table: u64, calls: &[Call]) -> io::Result<Vec<u8>> {
    let mut bytes = ERRAND.to_vec();
    let at = |offset: u64| usize::try_from(offset).expect("an offset within some pages");
    bytes.resize(at(DATA_AT), 0);
    bytes.extend_from_slice(data);
    bytes.resize(at(table), 0);
    for call in calls {
        bytes.extend(call.words().into_iter().flat_map(u64::to_ne_bytes));
    }
    if bytes.len() > at(BYTES) {
        return Err(io::Error::other("more calls than there is room for"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::freeze::Frozen;
    use crate::inject::Gate;
    use crate::maps;
    use crate::signals::Shown;
    use crate::victim::Victim;

    const IGNORED: u64 = 1;

    fn shown(victim: &Victim) -> Shown {
        Shown::parse(&fs::read_to_string(format!("/proc/{}/status", victim.pid())).unwrap())
    }

    fn maps_of(victim: &Victim) -> String {
        fs::read_to_string(format!("/proc/{}/maps", victim.pid())).unwrap()
    }

    /// `rt_sigaction` with the action that lies at `at`.
    fn set(signal: libc::c_int, at: u64) -> Call {
        Call::new(libc::SYS_rt_sigaction, [signal.unsigned_abs().into(), at, 0, 8])
    }

    /// Has a stopped victim make calls for which there is a `struct kernel_sigaction` of this handler.
    fn sent(
        victim: &Victim,
        can_trap: bool,
        handler: u64,
        calls: impl Fn(u64) -> Vec<Call>,
    ) -> io::Result<()> {
        let mut frozen = Frozen::freeze(&[victim.pid()]).unwrap();
        frozen.touch();
        let access = Access::open(victim.pid()).unwrap();
        let gate = Gate::find(&maps::parse(&maps_of(victim)).unwrap(), &access.mem).unwrap();
        let mut caller = Caller::new(victim.pid(), gate).unwrap();
        let data = [handler, 0, 0, 0].map(u64::to_ne_bytes).concat();
        let done = run(&mut caller, &access, can_trap, &data, calls);
        caller.end().unwrap();
        frozen.thaw().unwrap();
        done
    }

    #[test]
    fn all_calls_of_an_errand_are_made_and_nothing_else_is_another() {
        for can_trap in [true, false] {
            let mut victim = Victim::busy();
            let (before, maps) = (victim.say("state"), maps_of(&victim));
            let signals = [libc::SIGUSR1, libc::SIGHUP, libc::SIGALRM];
            let all = || move |at| (0..60).flat_map(|_| signals.map(|signal| set(signal, at))).collect();
            let error = sent(&victim, can_trap, IGNORED, all()).map_err(|error| error.to_string());
            assert_eq!(error, Ok(()));
            let bits = signals.iter().map(|signal| 1u64 << (signal - 1)).sum::<u64>();
            assert_eq!(shown(&victim).ignored & bits, bits);
            sent(&victim, can_trap, 0, all()).unwrap();
            assert_eq!(shown(&victim).ignored & bits, 0);
            assert_eq!((victim.say("state"), maps_of(&victim)), (before, maps));
        }
    }

    #[test]
    fn the_first_call_that_fails_is_the_last() {
        for can_trap in [true, false] {
            let victim = Victim::quiet();
            let failing = |at| {
                let close = Call::new(libc::SYS_close, [9_999]);
                vec![set(libc::SIGUSR1, at), close, set(libc::SIGHUP, at)]
            };
            let error = sent(&victim, can_trap, IGNORED, failing).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EBADF));
            let bit = |signal: libc::c_int| 1u64 << (signal - 1);
            let ignored = shown(&victim).ignored & (bit(libc::SIGUSR1) | bit(libc::SIGHUP));
            assert_eq!(ignored, bit(libc::SIGUSR1));
        }
    }

    #[test]
    fn what_the_trap_would_do_otherwise_stays() {
        let victim = Victim::quiet();
        let caught = |at| vec![set(libc::SIGTRAP, at)];
        sent(&victim, true, 0x1000, caught).unwrap();
        sent(&victim, true, IGNORED, |at| vec![set(libc::SIGUSR1, at)]).unwrap();
        assert_eq!(shown(&victim).caught & TRAP, TRAP, "the trap is no signal to the process");
        sent(&victim, false, IGNORED, caught).unwrap();
        assert!(!can_trap(shown(&victim).ignored), "a trap would end that it is ignored");
        sent(&victim, false, IGNORED, |at| vec![set(libc::SIGUSR2, at)]).unwrap();
        assert_eq!(shown(&victim).ignored & TRAP, TRAP);
    }
}
