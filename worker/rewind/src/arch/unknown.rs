//! A processor that this crate does not know: it builds, and nothing is ever frozen, for [`crate::available`] refuses first.

use super::Call;

pub(crate) const GENERAL: libc::c_int = 1;
pub(crate) const EXTENDED: libc::c_int = 2;
pub(crate) const EXTENDED_BYTES_MAX: usize = 0;
pub(crate) const SYSCALL: &[u8] = &[];
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

    pub(crate) fn settled(self) -> Self {
        self
    }
}
