//! What differs between processors: registers, how a system call is made, and how an interrupted one is made again.
//!
//! Each processor is one file with the same items; `native` is the one this was built for. The rest of the crate knows no register by
//! name. A processor without a file builds, and [`crate::available`] says that it is not known.
//!
//! | item | what it is |
//! |---|---|
//! | `Registers` | the general registers of one thread, laid out as `NT_PRSTATUS` has them |
//! | `EXTENDED` | the register sets that are kept beside them; those that a machine lacks are left out |
//! | `UNKEPT` | what a thread may have that is not kept: a thread with any of it is refused |
//! | `SYSCALL`, `ALIGNMENT` | the instruction that makes a system call, and where instructions may begin |
//! | `ERRAND` | code that makes many calls |
//! | `CODE_IS_FETCHED_APART` | whether written code has to be announced before it is run |
//! | `waiting`, `stopped` | what has to be known about a thread's call before the thread is stopped, and how that is used right after |
//! | `lost` | whether a stopped thread's call cannot be made again for want of an argument: such a thread is refused |
//! | `settled` | a stopped thread's registers, with an interrupted call about to be made again |
//! | `end_calls` | after the exit of a traced call, a stop at which every register can be set |
//! | `keep` | the registers stay as they are set, whatever call the kernel was about to go on with |

#[cfg(target_arch = "x86_64")]
#[path = "arch/x86_64.rs"]
pub(crate) mod native;

#[cfg(target_arch = "aarch64")]
#[path = "arch/aarch64.rs"]
pub(crate) mod native;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "arch/unknown.rs"]
pub(crate) mod native;

/// How many words a call takes in a table: its number and its arguments.
pub(crate) const CALL_WORDS: usize = 7;

/// Whether a call answers `EINTR` although nothing but the freezing interrupted it (signal(7), "interrupted by a stop"); some processors have more such.
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    expect(dead_code, reason = "nothing is frozen")
)]
fn ends_in_eintr(number: i64) -> bool {
    let same_everywhere = [
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
        libc::SYS_rt_sigtimedwait,
        libc::SYS_semop,
        libc::SYS_semtimedop,
        libc::SYS_io_getevents,
        libc::SYS_rt_sigsuspend,
    ];
    same_everywhere.contains(&number)
}

/// Something of a thread that is not kept.
pub(crate) struct Unkept {
    /// The register set that tells, as ptrace numbers it.
    pub(crate) set: libc::c_int,
    /// Whether the thread has it, by the bytes of that set.
    pub(crate) on: fn(&[u8]) -> bool,
    pub(crate) what: &'static str,
}

/// A system call as it is put into another process: its number and its six arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) number: i64,
    pub(crate) arguments: [u64; 6],
}

impl Call {
    /// The call `number` with `arguments`; those that are not given are zero.
    pub(crate) fn new<const N: usize>(number: libc::c_long, arguments: [u64; N]) -> Self {
        let mut six = [0; 6];
        six[..N].copy_from_slice(&arguments);
        Self { number, arguments: six }
    }

    /// As a line of the table that [`native::ERRAND`] goes through.
    pub(crate) fn words(&self) -> [u64; CALL_WORDS] {
        let [one, two, three, four, five, six] = self.arguments;
        [self.number.cast_unsigned(), one, two, three, four, five, six]
    }
}
