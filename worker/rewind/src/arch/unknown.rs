//! A processor that this crate does not know: it builds, and nothing is ever frozen, for [`crate::available`] refuses first.

use std::io;

use super::{Call, Unkept};
use crate::trace::Pid;

pub(crate) const EXTENDED: &[libc::c_int] = &[];
pub(crate) const EXTENDED_BYTES_MAX: usize = 0;
pub(crate) const UNKEPT: &[Unkept] = &[];
pub(crate) const CODE_IS_FETCHED_APART: bool = false;
pub(crate) const SYSCALL: &[u8] = &[];
pub(crate) const ALIGNMENT: usize = 1;
pub(crate) const ERRAND: &[u8] = &[];
/// Whether this file speaks of a processor that can be rewound.
pub(crate) const KNOWN: bool = false;

/// No register is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Registers(pub(crate) [u64; 0]);

impl Registers {
    pub(crate) const EMPTY: Self = Self([]);

    pub(crate) fn calling(self, _gate: u64, _call: &Call) -> Self {
        self
    }

    pub(crate) fn running(self, _code: u64, _table: u64, _count: u64) -> Self {
        self
    }

    pub(crate) fn ran(&self, _code: u64) -> Option<u64> {
        None
    }

    pub(crate) fn answer(&self) -> i64 {
        -i64::from(libc::ENOSYS)
    }
}

pub(crate) enum Waiting {}

pub(crate) fn waiting(_tid: Pid) -> Option<Waiting> {
    None
}

pub(crate) fn stopped(_tid: Pid, waiting: &Waiting) -> io::Result<()> {
    match *waiting {}
}

pub(crate) fn lost(_tid: Pid) -> io::Result<bool> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn settled(_tid: Pid, found: Registers) -> Registers {
    found
}

pub(crate) fn end_calls(_tid: Pid) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn keep(_tid: Pid, _settled: &Registers) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
