//! What happened, in order: hashed to compare two runs of one seed, printed to look into one, or neither.

use std::fmt::Arguments;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    Off,
    Hash(u64),
    Print,
}

impl Trace {
    pub(crate) fn note(&mut self, at_ms: u64, what: Arguments<'_>) {
        match self {
            Self::Off => {}
            Self::Hash(sum) => {
                for byte in format!("{at_ms} {what}\n").bytes() {
                    *sum = (*sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
                }
            }
            Self::Print => println!("{at_ms:>9} ms  {what}"),
        }
    }
}
