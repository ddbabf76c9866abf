//! The steps of a rewind by name, how it is asked for, what it came to, and how long each step took. Nothing is done here.

use std::fmt;
use std::time::{Duration, Instant};

use crate::files::FileChange;
use crate::memory::Written;

/// How thoroughly a rewind makes sure of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The identities before, as always.
    Identity,
    /// Also every byte, register and mapping afterwards, while all stand still.
    Bytes,
}

/// What becomes of processes that cannot be rewound and have not been touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlike {
    /// They run on as they are.
    RunOn,
    /// They are killed.
    Kill,
}

/// The steps of a rewind, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// All threads stop.
    Freeze,
    /// Everything is compared that must be the same.
    Identity,
    /// Processes that are new end, and are collected.
    Processes,
    /// Threads that are new end.
    Threads,
    /// The mappings.
    Mappings,
    /// The open files.
    Descriptors,
    /// What signals do, timers, and signals that wait.
    Signals,
    /// The memory that processes share.
    SharedMemory,
    /// The memory that each process has of its own.
    Memory,
    /// The registers.
    Registers,
    /// The files of the trees: what they take longer than the two steps before, beside which they are put back.
    Files,
    /// Every byte is compared.
    Compare,
    /// All threads run.
    RunOn,
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Freeze => "freezing",
            Self::Identity => "comparing identities",
            Self::Processes => "ending new processes",
            Self::Threads => "ending new threads",
            Self::Mappings => "restoring mappings",
            Self::Signals => "restoring signals",
            Self::Memory => "restoring memory",
            Self::SharedMemory => "restoring shared memory",
            Self::Descriptors => "restoring descriptors",
            Self::Registers => "restoring registers",
            Self::Files => "restoring files",
            Self::Compare => "comparing bytes",
            Self::RunOn => "running on",
        })
    }
}

/// What goes wrong on purpose, in tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "only tests make trouble")]
pub(crate) enum Trouble {
    /// The thread panics when this step is done.
    DieAfter(Step),
    /// The step is left out.
    Skip(Step),
    /// One piece of the step is: a page, a thread's registers, a descriptor, a file.
    SkipOne(Step),
}

/// What taking a baseline came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// How long the processes stood still.
    pub took: Duration,
    /// How many processes.
    pub processes: usize,
    /// How many threads.
    pub threads: usize,
    /// How long the youngest of the processes had lived: one that has just begun may be about to end, and then there is no way back.
    pub youngest: Duration,
    /// Bytes of memory that are kept for it.
    pub kept: u64,
}

/// What a rewind came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewound {
    /// How long each step took, in their order.
    pub steps: Vec<(Step, Duration)>,
    /// What was written to memory.
    pub written: Written,
    /// How many changes to mappings.
    pub mappings: usize,
    /// How many threads were ended.
    pub threads: usize,
    /// How many processes were ended.
    pub processes: usize,
    /// The names of the trees that were put back.
    pub files: Vec<FileChange>,
}

impl Rewound {
    /// From the first stop until the last thread ran.
    pub fn took(&self) -> Duration {
        self.steps.iter().map(|(_, took)| *took).sum()
    }
}

/// Times the steps, and makes trouble where a test asks for it.
pub(crate) struct Watch {
    last: Instant,
    pub(crate) steps: Vec<(Step, Duration)>,
    trouble: Option<Trouble>,
}

impl Watch {
    pub(crate) fn new(trouble: Option<Trouble>) -> Self {
        Self { last: Instant::now(), steps: Vec::new(), trouble }
    }

    pub(crate) fn doing(&self, step: Step) -> bool {
        self.trouble != Some(Trouble::Skip(step))
    }

    pub(crate) fn leaving_one(&self, step: Step) -> bool {
        self.trouble == Some(Trouble::SkipOne(step))
    }

    pub(crate) fn done(&mut self, step: Step) {
        let now = Instant::now();
        self.steps.push((step, now - self.last));
        self.last = now;
        assert!(self.trouble != Some(Trouble::DieAfter(step)), "dies on purpose after {step}");
    }
}
