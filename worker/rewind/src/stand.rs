//! The order of the steps: taking a baseline and going back to it. Runs on the baseline's thread.
//!
//! Here is decided what counts as a difference and when the processes are touched; how each thing is looked at and put back is told in the file
//! of its step. See the picture in the crate's header.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::Target;
use crate::arch::native;
use crate::descriptors::{self, Descriptors, Known};
use crate::error::{Broken, Refused};
use crate::files::{self, Files};
use crate::freeze::{self, Frozen, Unfreezable};
use crate::identity::{self, Difference, Obstacle};
use crate::ipc;
use crate::locks;
use crate::memory::Written;
use crate::parts::{End, Heap};
use crate::process::{self, Found, Look, Process};
use crate::segments::Segments;
use crate::steps::{Check, Rewound, Step, Taken, Trouble, Unlike, Watch};
use crate::trace::{self, Pid};
use crate::urgent::Urgent;

/// All processes of a baseline.
pub(crate) struct Stand {
    roots: Vec<Pid>,
    parents: BTreeMap<Pid, Pid>,
    processes: BTreeMap<Pid, Process>,
    segments: Segments,
    files: Vec<Files>,
    /// Inodes of files that processes have mapped.
    mapped: BTreeSet<u64>,
    ipc: ipc::Lists,
    objects: Vec<ipc::Object>,
}

/// One process that may become part of a baseline.
type Looked = (Look, OwnedFd, Descriptors);

/// What was found about everything.
struct FoundAll {
    processes: BTreeMap<Pid, Found>,
    new: BTreeSet<Pid>,
    files: Vec<files::Work>,
}

impl Stand {
    pub(crate) fn take(targets: &[Target]) -> Result<(Self, Taken), Refused> {
        let begun = Instant::now();
        let roots: Vec<_> = targets.iter().map(|target| target.root).collect();
        let mut frozen = Frozen::freeze(&roots)?;
        if let Some(ended) = frozen.ended.first() {
            return Err(Unfreezable::Ended(*ended).into());
        }
        let trees = targets.iter().flat_map(|target| &target.trees);
        let mut files: Vec<_> =
            trees.map(Files::take).collect::<io::Result<_>>().map_err(Refused::Unreadable)?;
        let ipc = ipc::Lists::open(frozen.processes.keys().copied()).map_err(Refused::Unreadable)?;
        let objects = ipc.objects().map_err(Refused::Unreadable)?;
        let (looks, mut segments) = Self::look_at(&frozen, &objects, &files)?;
        let maps = looks.values().flat_map(|(look, ..)| &look.maps);
        let mapped: BTreeSet<u64> = maps.filter_map(|map| Some(map.file.as_ref()?.1)).collect();
        let open = looks.values().map(|(_, _, descriptors)| descriptors.inodes());
        let open = open.collect::<io::Result<Vec<_>>>().map_err(Refused::Unreadable)?;
        let held = open.into_iter().flatten().chain(mapped.iter().copied()).collect();
        for files in &mut files {
            files.hold(&held);
            files.leave(segments.on(files.device()));
        }
        segments.keep().map_err(Refused::Unreadable)?;
        let ages: Vec<_> = looks
            .keys()
            .map(|pid| process::age(*pid))
            .collect::<io::Result<_>>()
            .map_err(Refused::Unreadable)?;
        let youngest = ages.into_iter().min().unwrap_or_default();
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
            youngest,
            kept: processes.values().map(|process| process.memory.kept()).sum::<u64>() + segments.kept(),
        };
        frozen.thaw().map_err(Refused::Killed)?;
        Ok((Self { roots, parents, processes, segments, files, mapped, ipc, objects }, taken))
    }

    fn look_at(
        frozen: &Frozen,
        objects: &[ipc::Object],
        trees: &[Files],
    ) -> Result<(BTreeMap<Pid, Looked>, Segments), Refused> {
        let mut obstacles = Vec::new();
        let mut looks = BTreeMap::new();
        for &pid in frozen.processes.keys() {
            let numbers = descriptors::numbers(pid).map_err(Refused::Unreadable)?;
            let locks = locks::text(pid, numbers.into_iter());
            looks.insert(pid, Look::at(pid, locks).map_err(Refused::Unreadable)?);
        }
        let maps = looks.iter().map(|(pid, look)| (*pid, &look.maps[..]));
        let segments = Segments::find(maps, trees, &mut obstacles).map_err(Refused::Unreadable)?;
        let outsiders = segments.outsiders(frozen).map_err(Refused::Unreadable)?.into_iter();
        obstacles.extend(outsiders.map(|(pid, name)| {
            let mapping = format!("{name}: the process is none of those that are rewound");
            Obstacle::SharedMemory { pid, mapping }
        }));
        let unkept =
            objects.iter().filter(|object| object.memory.is_none_or(|number| !segments.has_system_v(number)));
        obstacles
            .extend(unkept.map(|object| Obstacle::SystemV { pid: object.pid, object: object.shown.clone() }));
        let mut looked = BTreeMap::new();
        for (pid, look) in looks {
            obstacles.extend(look.identity.obstacles(pid, &look.maps));
            let pending = identity::pending(pid, &frozen.processes[&pid]).map_err(Refused::Unreadable)?;
            obstacles
                .extend(pending.into_iter().map(|(tid, signal)| Obstacle::PendingSignal { tid, signal }));
            for &tid in &frozen.processes[&pid] {
                let unkept = trace::unkept(tid).map_err(Refused::Unreadable)?;
                obstacles.extend(unkept.map(|what| Obstacle::Registers { tid, what }));
                let lost = native::lost(tid).map_err(Refused::Unreadable)?;
                obstacles.extend(lost.then_some(Obstacle::Interrupted { tid }));
            }
            let handle = process::handle(pid).map_err(Refused::Unreadable)?;
            let known = Known { trees, segments: &segments };
            let descriptors = Descriptors::take(pid, &handle, &known, &mut obstacles);
            let descriptors = descriptors.map_err(Refused::Unreadable)?;
            looked.insert(pid, (look, handle, descriptors));
        }
        if obstacles.is_empty() { Ok((looked, segments)) } else { Err(Refused::Obstacles(obstacles)) }
    }

    /// Descriptors that stand for the processes.
    pub(crate) fn handles(&self) -> impl Iterator<Item = (Pid, &OwnedFd)> {
        self.processes.iter().map(|(pid, process)| (*pid, &process.handle))
    }

    /// Lets go of all else.
    pub(crate) fn into_handles(self) -> impl Iterator<Item = OwnedFd> {
        self.processes.into_values().map(|process| process.handle)
    }

    pub(crate) fn rewind(
        &mut self,
        check: Check,
        unlike: Unlike,
        trouble: Option<Trouble>,
    ) -> Result<Rewound, Broken> {
        let urgent = Urgent::begin();
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
            processes: 0,
            files: Vec::new(),
        };
        self.restore(&mut frozen, found, &mut watch, &mut rewound)?;
        if check == Check::Bytes {
            drop(urgent);
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
        let is: BTreeSet<_> = frozen.processes.keys().chain(&frozen.ended).copied().collect();
        let was: BTreeSet<_> = self.processes.keys().copied().collect();
        let lives = |pid: &Pid| frozen.processes.contains_key(pid) && !frozen.ended.contains(pid);
        differences.extend(was.iter().filter(|pid| !lives(pid)).map(|pid| Difference::ProcessGone(*pid)));
        for pid in &was {
            let (was, is) = (self.parents.get(pid), frozen.parents.get(pid));
            if differences.is_empty() && was != is {
                let (was, is) = (format!("{was:?}"), format!("{is:?}"));
                differences.push(Difference::Property { pid: *pid, what: "parent", was, is });
            }
        }
        if !differences.is_empty() {
            return Err(Broken::Differs(differences));
        }
        let objects = self.ipc.objects().map_err(Broken::Unreadable)?;
        let shown = |objects: &[ipc::Object]| -> BTreeMap<String, Pid> {
            objects.iter().map(|object| (object.shown.clone(), object.pid)).collect()
        };
        let (objects_were, objects_are) = (shown(&self.objects), shown(&objects));
        for (one, others, is_new) in
            [(&objects_are, &objects_were, true), (&objects_were, &objects_are, false)]
        {
            for (object, pid) in one.iter().filter(|(object, _)| !others.contains_key(*object)) {
                let (there, none) = (object.clone(), "none".to_owned());
                let (was, is) = if is_new { (none, there) } else { (there, none) };
                differences.push(Difference::Property { pid: *pid, what: "objects of System V", was, is });
            }
        }
        self.segments.compare(&mut differences).map_err(Broken::Unreadable)?;
        let (found, files) = self.compare_beside(frozen, &mut differences).map_err(Broken::Unreadable)?;
        if !differences.is_empty() {
            return Err(Broken::Differs(differences));
        }
        let new = is.difference(&was).copied().collect();
        Ok(FoundAll { processes: found, new, files })
    }

    /// None of this needs ptrace, so it is done by two threads beside each other, one for memory and one for all else; who is through
    /// first looks at the files. A third had to wait for a processor where there are two.
    fn compare_beside(
        &self,
        frozen: &Frozen,
        differences: &mut Vec<Difference>,
    ) -> io::Result<(BTreeMap<Pid, Found>, Vec<files::Work>)> {
        let claimed = AtomicBool::new(false);
        let files_if_free = || (!claimed.swap(true, Ordering::Relaxed)).then(|| self.compare_files());
        std::thread::scope(|scope| {
            let memory = scope.spawn(|| {
                let written: Vec<_> = self.processes.values().map(Process::written).collect();
                (written, files_if_free())
            });
            let look = |(pid, process): (&Pid, &Process)| {
                process.compare_identity(&frozen.processes[pid], differences)
            };
            let seen = self.processes.iter().map(look).collect::<io::Result<Vec<_>>>();
            let ours = files_if_free();
            let panicked = |_| io::Error::other("a thread that compares panicked");
            let (written, theirs) = memory.join().map_err(panicked)?;
            let mut found = BTreeMap::new();
            for (((&pid, process), seen), written) in self.processes.iter().zip(seen?).zip(written) {
                found.insert(pid, process.found(written?, seen, differences));
            }
            let (files, of_files) = ours.or(theirs).expect("one of the two looked at the files")?;
            differences.extend(of_files);
            Ok((found, files))
        })
    }

    fn compare_files(&self) -> io::Result<(Vec<files::Work>, Vec<Difference>)> {
        let mut differences = Vec::new();
        let files = self.files.iter().map(|files| files.compare(&mut differences));
        Ok((files.collect::<io::Result<_>>()?, differences))
    }

    fn restore(
        &mut self,
        frozen: &mut Frozen,
        FoundAll { processes: mut found, new, mut files }: FoundAll,
        watch: &mut Watch,
        rewound: &mut Rewound,
    ) -> Result<(), Broken> {
        let at = |step| move |source| Broken::Killed { step, source };
        rewound.processes = new.len();
        if watch.doing(Step::Processes) && !new.is_empty() {
            self.end_processes(frozen, &new).map_err(at(Step::Processes))?;
        }
        watch.done(Step::Processes);
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
            if watch.leaving_one(Step::Descriptors) {
                found.get_mut(pid).into_iter().for_each(Found::leave_a_descriptor);
            }
            if watch.doing(Step::Descriptors) {
                process.restore_descriptors(&found[pid]).map_err(at(Step::Descriptors))?;
            }
        }
        watch.done(Step::Descriptors);
        for (pid, process) in &self.processes {
            let Some(one) = found.get_mut(pid) else { continue };
            if watch.doing(Step::Signals) {
                process.restore_signals(&frozen.processes[pid], one).map_err(at(Step::Signals))?;
            }
        }
        watch.done(Step::Signals);
        if watch.doing(Step::SharedMemory) {
            let (bytes, inodes) = self.segments.restore().map_err(at(Step::SharedMemory))?;
            rewound.written.bytes += bytes;
            files.iter_mut().for_each(|work| work.touch(&inodes));
        }
        watch.done(Step::SharedMemory);
        let Self { processes, files: trees, mapped, .. } = self;
        let mut dropped = BTreeMap::new();
        for (pid, process) in &mut *processes {
            if watch.leaving_one(Step::Memory) {
                found.get_mut(pid).into_iter().for_each(Found::leave_a_page);
            }
            if watch.doing(Step::Memory) {
                dropped.insert(*pid, process.drop_memory(&found[pid]).map_err(at(Step::Memory))?);
                process.follow_processors(&found[pid]).map_err(at(Step::Memory))?;
            }
        }
        let mut heap = Heap::default();
        for (pid, process) in &*processes {
            if let Some(dropped) = dropped.get(pid) {
                let written =
                    process.restore_memory(&found[pid], dropped, &mut heap).map_err(at(Step::Memory))?;
                rewound.written.bytes += written.bytes;
                rewound.written.dropped += written.dropped;
            }
        }
        // After the last injected call: each writes to its thread's rseq area when the thread changed its processor.
        // Nothing of what is left to do touches both files and processes, unless a page that is written back is a file's beneath.
        let is_apart = files.iter().all(|work| !work.rewrites_any(mapped));
        let (doing, leaving_one) = (watch.doing(Step::Files), watch.leaving_one(Step::Files));
        let mut restore_files = || Self::restore_files(trees, &mut files, doing, leaving_one);
        let changes = std::thread::scope(|scope| {
            let beside = is_apart.then_some(&mut restore_files);
            let helper =
                scope.spawn(|| (beside.map(|restore_files| restore_files()), heap.put_back(End::Back)));
            let ours = heap.put_back_forced().and_then(|()| heap.put_back(End::Front));
            watch.done(Step::Memory);
            let registers = Self::restore_registers(processes, watch);
            let (changes, theirs) = helper
                .join()
                .unwrap_or_else(|_| (None, Err(io::Error::other("a thread that writes memory panicked"))));
            ours.and(theirs).map_err(at(Step::Memory))?;
            registers.map_err(at(Step::Registers))?;
            Ok::<_, Broken>(changes)
        })?;
        rewound.files = changes.unwrap_or_else(restore_files).map_err(at(Step::Files))?;
        watch.done(Step::Files);
        Ok(())
    }

    fn restore_registers(processes: &BTreeMap<Pid, Process>, watch: &mut Watch) -> io::Result<()> {
        let mut leaves_one = watch.leaving_one(Step::Registers);
        for thread in processes.values().flat_map(|process| &process.threads) {
            // One that stands where it stood in the baseline misses nothing.
            if leaves_one && !thread.differing()?.is_empty() {
                leaves_one = false;
            } else if watch.doing(Step::Registers) {
                thread.restore()?;
            }
        }
        watch.done(Step::Registers);
        Ok(())
    }

    /// Answers with what had changed.
    fn restore_files(
        trees: &mut [Files],
        works: &mut [files::Work],
        doing: bool,
        leaving_one: bool,
    ) -> io::Result<Vec<files::FileChange>> {
        let mut changes = Vec::new();
        for (number, (tree, work)) in trees.iter_mut().zip(works).enumerate() {
            changes.extend(tree.changes(work, number));
            if leaving_one {
                work.leave_a_file();
            }
            if doing {
                tree.restore(work)?;
            }
        }
        Ok(changes)
    }

    /// Ends processes, has their parents collect them, and makes sure that nothing is left.
    fn end_processes(&self, frozen: &mut Frozen, new: &BTreeSet<Pid>) -> io::Result<()> {
        frozen.end(new)?;
        // Those whose parents were ended as well have been given to another.
        let parents: BTreeSet<_> = new.iter().filter_map(|pid| freeze::parent(*pid)).collect();
        for process in parents.iter().filter_map(|parent| self.processes.get(parent)) {
            process.collect_children()?;
        }
        if let Some((pid, child)) = self.strangers(frozen).next() {
            return Err(io::Error::other(format!("process {pid} has child {child} still")));
        }
        let attached = |objects: &[ipc::Object]| objects.iter().map(|it| it.attached).collect::<Vec<_>>();
        if attached(&self.ipc.objects()?) != attached(&self.objects) {
            return Err(io::Error::other("shared memory is attached by others"));
        }
        Ok(())
    }

    /// Children that the baseline does not have.
    fn strangers(&self, frozen: &Frozen) -> impl Iterator<Item = (Pid, Pid)> {
        let own = frozen.threads().filter(|(pid, _)| self.processes.contains_key(pid));
        let children =
            own.flat_map(|(pid, tid)| freeze::children(pid, tid).into_iter().map(move |child| (pid, child)));
        children.filter(|(pid, child)| self.parents.get(child) != Some(pid))
    }

    /// Everything that is not as in the baseline, byte by byte.
    fn differing(&self, frozen: &Frozen) -> io::Result<Vec<Difference>> {
        let mut differences = Vec::new();
        for (&pid, process) in &self.processes {
            process.differing(&frozen.processes[&pid], &mut differences)?;
        }
        differences.extend(self.strangers(frozen).map(|(_, child)| Difference::ProcessNew(child)));
        self.segments.differing(&mut differences)?;
        for (pid, name) in self.segments.outsiders(frozen)? {
            let what = format!("process {pid}, none of those that are rewound, maps it");
            differences.push(Difference::Segment { name, what });
        }
        self.files.iter().try_for_each(|files| files.differing(&mut differences))?;
        Ok(differences)
    }
}
