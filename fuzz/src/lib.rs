//! What must hold of anything that a parser is given: one file a parser, each with `check(input)`, which panics where it does not.
//!
//! Must not know libFuzzer, files or the clock: bytes in, a panic or nothing. `targets/` hands these functions to libFuzzer, which begins
//! with seeds that `ci/fuzz` makes of the repository's own files.

pub mod andon_toml;
pub mod compose;
pub mod junit;
mod said;
pub mod webhook;

/// The parts of the command's reports that write JUnit: the same files, which its binary keeps to itself.
#[allow(dead_code, unused_imports, reason = "each of these files serves other reports, too")]
#[path = "../../ci/src/report"]
mod report {
    pub(crate) mod attempts;
    pub(crate) mod ids;
    pub(crate) mod junit;
    pub(crate) mod words;
}
