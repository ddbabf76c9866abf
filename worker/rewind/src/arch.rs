//! What differs between processors: registers, how a system call is made, and how an interrupted one is made again.
//!
//! Each processor is one file with the same items; `native` is the one this was built for. The rest of the crate knows no register by
//! name. A processor without a file builds, and [`crate::available`] says that it is not known.

#[cfg(target_arch = "x86_64")]
#[path = "arch/x86_64.rs"]
pub(crate) mod native;

#[cfg(not(target_arch = "x86_64"))]
#[path = "arch/unknown.rs"]
pub(crate) mod native;

/// How many words a call takes in a table: its number and its arguments.
pub(crate) const CALL_WORDS: usize = 7;

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
