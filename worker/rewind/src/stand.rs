//! The order of the steps: taking a baseline and going back to it. Runs on the baseline's thread.
//!
//! Here is decided what counts as a difference and when the processes are touched; how each thing is looked at and put back is told in the file
//! of its step. See the picture in the crate's header.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::Target;
use crate::descriptors::{self, Descriptors};
use crate::error::{Broken, Refused};
use crate::files::{self, FileChange, Files};
use crate::freeze::Frozen;
use crate::identity::{self, Difference, Obstacle};
use crate::ipc;
use crate::locks;
use crate::memory::Written;
use crate::process::{self, Found, Look, Process};
use crate::trace::Pid;

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
    /// Threads that are new end.
    Threads,
    /// The mappings, and what signals do.
    Mappings,
    /// The open files.
    Descriptors,
    /// The memory.
    Memory,
    /// The registers.
    Registers,
    /// The files of the trees.
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
            Self::Threads => "ending new threads",
            Self::Mappings => "restoring mappings",
            Self::Memory => "restoring memory",
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
    /// The names of the trees that were put back.
    pub files: Vec<FileChange>,
}

impl Rewound {
    /// From the first stop until the last thread ran.
    pub fn took(&self) -> Duration {
        self.steps.iter().map(|(_, took)| *took).sum()
    }
}

/// All processes of a baseline.
pub(crate) struct Stand {
    roots: Vec<Pid>,
    parents: BTreeMap<Pid, Pid>,
    processes: BTreeMap<Pid, Process>,
    files: Vec<Files>,
    ipc: ipc::Lists,
}

/// What was found about everything.
struct FoundAll {
    processes: BTreeMap<Pid, Found>,
    files: Vec<files::Work>,
}

impl Stand {
    pub(crate) fn take(targets: &[Target]) -> Result<(Self, Taken), Refused> {
        let begun = Instant::now();
        let roots: Vec<_> = targets.iter().map(|target| target.root).collect();
        let mut frozen = Frozen::freeze(&roots)?;
        let trees = targets.iter().flat_map(|target| &target.trees);
        let mut files: Vec<_> =
            trees.map(Files::take).collect::<io::Result<_>>().map_err(Refused::Unreadable)?;
        let ipc = ipc::Lists::open(frozen.processes.keys().copied()).map_err(Refused::Unreadable)?;
        let looks = Self::look_at(&frozen, &ipc, &|inode| files.iter().any(|files| files.has(inode)))?;
        let held = |(look, _, descriptors): &(Look, OwnedFd, Descriptors)| {
            let mapped = look.maps.iter().filter_map(|map| Some(map.file.as_ref()?.1));
            Ok::<_, io::Error>(mapped.chain(descriptors.inodes()?).collect::<Vec<_>>())
        };
        let held: Vec<_> =
            looks.values().map(held).collect::<io::Result<_>>().map_err(Refused::Unreadable)?;
        let held: BTreeSet<u64> = held.into_iter().flatten().collect();
        files.iter_mut().for_each(|files| files.hold(&held));
        frozen.touch();
        let mut processes = BTreeMap::new();
        for (pid, (look, handle, descriptors)) in looks {
            let tids = &frozen.processes[&pid];
            let process = Process::take(pid, tids, look, handle, descriptors).map_err(Refused::Killed)?;
            processes.insert(pid, process);
        }
        let parents = frozen.parents.clone();
        let taken = Taken {
            took: begun.elapsed(),
            processes: processes.len(),
            threads: frozen.threads().count(),
            kept: processes.values().map(|process| process.memory.kept()).sum(),
        };
        frozen.thaw().map_err(Refused::Killed)?;
        Ok((Self { roots, parents, processes, files, ipc }, taken))
    }

    fn look_at(
        frozen: &Frozen,
        ipc: &ipc::Lists,
        known: &dyn Fn(u64) -> bool,
    ) -> Result<BTreeMap<Pid, (Look, OwnedFd, Descriptors)>, Refused> {
        let objects = ipc.objects().map_err(Refused::Unreadable)?.into_iter();
        let mut obstacles: Vec<_> = objects.map(|(pid, object)| Obstacle::SystemV { pid, object }).collect();
        let mut looks = BTreeMap::new();
        for (&pid, tids) in &frozen.processes {
            let numbers = descriptors::numbers(pid).map_err(Refused::Unreadable)?;
            let locks = locks::text(pid, numbers.into_iter());
            let look = Look::at(pid, locks).map_err(Refused::Unreadable)?;
            obstacles.extend(look.identity.obstacles(pid, &look.maps));
            let pending = identity::pending(pid, tids).map_err(Refused::Unreadable)?;
            obstacles
                .extend(pending.into_iter().map(|(tid, signal)| Obstacle::PendingSignal { tid, signal }));
            let handle = process::handle(pid).map_err(Refused::Unreadable)?;
            let descriptors = Descriptors::take(pid, &handle, known, &mut obstacles);
            let descriptors = descriptors.map_err(Refused::Unreadable)?;
            looks.insert(pid, (look, handle, descriptors));
        }
        if obstacles.is_empty() { Ok(looks) } else { Err(Refused::Obstacles(obstacles)) }
    }

    /// Descriptors that stand for the processes.
    pub(crate) fn handles(&self) -> impl Iterator<Item = &OwnedFd> {
        self.processes.values().map(|process| &process.handle)
    }

    pub(crate) fn rewind(
        &mut self,
        check: Check,
        unlike: Unlike,
        trouble: Option<Trouble>,
    ) -> Result<Rewound, Broken> {
        let mut watch = Watch::new(trouble);
        let mut frozen = Frozen::freeze(&self.roots)?;
        watch.done(Step::Freeze);
        let found = match self.compare(&frozen) {
            Ok(found) => found,
            Err(broken) => {
                if unlike == Unlike::Kill {
                    frozen.touch();
                }
                return Err(broken);
            }
        };
        watch.done(Step::Identity);
        frozen.touch();
        let mut rewound = Rewound {
            steps: Vec::new(),
            written: Written::default(),
            mappings: 0,
            threads: 0,
            files: Vec::new(),
        };
        self.restore(&mut frozen, found, &mut watch, &mut rewound)?;
        if check == Check::Bytes {
            let differences =
                self.differing(&frozen).map_err(|source| Broken::Killed { step: Step::Compare, source })?;
            if !differences.is_empty() {
                return Err(Broken::Inexact(differences));
            }
            watch.done(Step::Compare);
        }
        frozen.thaw().map_err(|source| Broken::Killed { step: Step::RunOn, source })?;
        watch.done(Step::RunOn);
        rewound.steps = watch.steps;
        Ok(rewound)
    }

    /// Everything that must be the same, of all processes. Touches nothing.
    fn compare(&self, frozen: &Frozen) -> Result<FoundAll, Broken> {
        let mut differences = Vec::new();
        let is: BTreeSet<_> = frozen.processes.keys().copied().collect();
        let was: BTreeSet<_> = self.processes.keys().copied().collect();
        differences.extend(was.difference(&is).map(|pid| Difference::ProcessGone(*pid)));
        differences.extend(is.difference(&was).map(|pid| Difference::ProcessNew(*pid)));
        if differences.is_empty() && self.parents != frozen.parents {
            let (was, is) = (format!("{:?}", self.parents), format!("{:?}", frozen.parents));
            differences.push(Difference::Property { pid: self.roots[0], what: "parents", was, is });
        }
        if !differences.is_empty() {
            return Err(Broken::Differs(differences));
        }
        let objects = self.ipc.objects().map_err(Broken::Unreadable)?.into_iter();
        differences.extend(objects.map(|(pid, is)| {
            let (what, was) = ("objects of System V", "none".to_owned());
            Difference::Property { pid, what, was, is }
        }));
        let mut found = BTreeMap::new();
        for (&pid, process) in &self.processes {
            let one =
                process.compare(&frozen.processes[&pid], &mut differences).map_err(Broken::Unreadable)?;
            found.insert(pid, one);
        }
        let files = self.files.iter().map(|files| files.compare(&mut differences));
        let files = files.collect::<io::Result<_>>().map_err(Broken::Unreadable)?;
        if !differences.is_empty() {
            return Err(Broken::Differs(differences));
        }
        Ok(FoundAll { processes: found, files })
    }

    fn restore(
        &mut self,
        frozen: &mut Frozen,
        FoundAll { processes: mut found, files }: FoundAll,
        watch: &mut Watch,
        rewound: &mut Rewound,
    ) -> Result<(), Broken> {
        let at = |step| move |source| Broken::Killed { step, source };
        for (pid, process) in &self.processes {
            let Some(one) = found.get_mut(pid) else { continue };
            rewound.threads += one.new_threads.len();
            rewound.mappings += one.changes.len();
            if watch.doing(Step::Threads) {
                process.end_threads(one, frozen).map_err(at(Step::Threads))?;
            }
        }
        watch.done(Step::Threads);
        for (pid, process) in &self.processes {
            let Some(one) = found.get_mut(pid) else { continue };
            if watch.doing(Step::Mappings) {
                process.restore_mappings(one).map_err(at(Step::Mappings))?;
            }
        }
        watch.done(Step::Mappings);
        for (pid, process) in &self.processes {
            if watch.doing(Step::Descriptors) {
                process.restore_descriptors(&found[pid]).map_err(at(Step::Descriptors))?;
            }
        }
        watch.done(Step::Descriptors);
        // After the last injected call: each writes to its thread's rseq area when the thread changed its processor.
        for (pid, process) in &self.processes {
            if watch.doing(Step::Memory) {
                let written = process.restore_memory(&found[pid]).map_err(at(Step::Memory))?;
                rewound.written.bytes += written.bytes;
                rewound.written.dropped += written.dropped;
            }
        }
        watch.done(Step::Memory);
        for thread in self.processes.values().flat_map(|process| &process.threads) {
            if watch.doing(Step::Registers) {
                thread.restore().map_err(at(Step::Registers))?;
            }
        }
        watch.done(Step::Registers);
        for (number, (tree, work)) in self.files.iter_mut().zip(&files).enumerate() {
            rewound.files.extend(tree.changes(work, number));
            if watch.doing(Step::Files) {
                tree.restore(work).map_err(at(Step::Files))?;
            }
        }
        watch.done(Step::Files);
        Ok(())
    }

    /// Everything that is not as in the baseline, byte by byte.
    fn differing(&self, frozen: &Frozen) -> io::Result<Vec<Difference>> {
        let mut differences = Vec::new();
        for (&pid, process) in &self.processes {
            process.differing(&frozen.processes[&pid], &mut differences)?;
        }
        self.files.iter().try_for_each(|files| files.differing(&mut differences))?;
        Ok(differences)
    }
}

/// Times the steps, and makes trouble where a test asks for it.
struct Watch {
    last: Instant,
    steps: Vec<(Step, Duration)>,
    trouble: Option<Trouble>,
}

impl Watch {
    fn new(trouble: Option<Trouble>) -> Self {
        Self { last: Instant::now(), steps: Vec::new(), trouble }
    }

    fn doing(&self, step: Step) -> bool {
        self.trouble != Some(Trouble::Skip(step))
    }

    fn done(&mut self, step: Step) {
        let now = Instant::now();
        self.steps.push((step, now - self.last));
        self.last = now;
        assert!(self.trouble != Some(Trouble::DieAfter(step)), "dies on purpose after {step}");
    }
}
