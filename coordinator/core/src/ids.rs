//! Names of things. Newtypes, so that a test's number cannot be taken for an attempt's.

use std::fmt;

/// A run, numbered from 1 over the life of the store: what people type (`andon show 12`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// A test's place in its run, from 0, in the order of discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TestIx(pub u32);

/// An attempt within its run, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// A piece of work within its run, from 1: a baseline to prepare, a suite to discover, a unit to execute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkId(pub u64);

/// One grant of one piece of work. Grows over the life of the store and is never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(pub u64);

/// A worker's name, unique in the farm.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub String);

/// A lane of one worker, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneIx(pub u32);

/// What a worker shows with everything that it reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    /// The run that the work belongs to.
    pub run: RunId,
    /// The piece of work.
    pub work: WorkId,
    /// The grant; a report with another one is void.
    pub fence: Fence,
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The two clocks that the core is told: deadlines follow the one that never jumps, records carry the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Milliseconds on a clock that only goes forward; its zero means nothing.
    pub mono_ms: u64,
    /// Milliseconds of UTC since 1970.
    pub unix_ms: u64,
}
