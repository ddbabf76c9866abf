//! Step 3: the bytes of a process's private memory, which of them changed, and how they come back.
//!
//! The baseline keeps the pages that the process had of its own and that are not all zeros; a page of an anonymous mapping that is not kept is
//! zeros, a page of a private file mapping that is not kept is the file's (there, pages of zeros are kept).
//!
//! What changed is what the page map says: written since it was protected, or nothing there any more (`MADV_DONTNEED` leaves neither a page nor
//! a mark, and such a page does not count as written). Both are read in one pass over the whole address space. A range that was unmapped and
//! mapped anew, or moved, is no longer tracked: also said in that pass.
//!
//! Only populated stretches are protected, with small gaps between them: a mark on every page of a reserved terabyte would need its page tables.
//! An unprotected page that is merely read later counts as written; it is then zeroed or dropped in vain, which costs time only.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;

use crate::kernel::{self, Ask, Range, Region, Tracker};
use crate::maps::Map;
use crate::parts::{How, Parts};
use crate::trace::{self, Pid};

/// So many bytes are read at a time.
const READ_BYTES: usize = 1 << 20;
/// Mappings that the kernel does not track (the page of `getrandom`'s vdso) are always written back; larger ones are refused.
const ALWAYS_BYTES_MAX: u64 = 256 * 1024;
/// Gaps between populated pages that are protected with them, in bytes.
const PROTECT_GAP: u64 = 2 << 20;
/// What one page table maps, in bytes.
const TABLE_BYTES: u64 = 2 << 20;
/// Gaps between pages that are looked at closely, which are looked at with them, in bytes.
const LOOK_GAP: u64 = 64 * 1024;
/// From so many bytes on, pages that must be zero are dropped by the process instead of being written: an injected call costs about 20 µs.
const DROP_BYTES_MIN: u64 = 128 * 1024;
static ZEROS: [u8; DROP_BYTES_MIN as usize] = [0; DROP_BYTES_MIN as usize];

/// How to reach a process's memory.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) pid: Pid,
    pub(crate) mem: File,
    pub(crate) pagemap: File,
}

impl Access {
    /// Opened while the process stands still: after an exec these still lead to the old memory.
    pub(crate) fn open(pid: Pid) -> io::Result<Self> {
        let mem = File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
        Ok(Self { pid, mem, pagemap: File::open(format!("/proc/{pid}/pagemap"))? })
    }
}

/// Pages beside one another that are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    range: Range,
    /// Where in the bytes.
    at: usize,
}

/// A mapping whose bytes are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Area {
    range: Range,
    /// What is not kept is zeros; otherwise it is a file's.
    zeros: bool,
    tracked: bool,
    how: How,
}

/// The memory of one process in its baseline.
#[derive(Debug)]
pub(crate) struct Memory {
    areas: Vec<Area>,
    runs: Vec<Run>,
    bytes: Vec<u8>,
    populated: Vec<Range>,
    guards: Vec<Range>,
    page: u64,
}

/// What a rewind does to the memory, found before anything is touched.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Ranges whose content is no longer the baseline's.
    changed: Vec<Changed>,
    /// Ranges of tracked mappings that are not tracked any more: mapped anew, or gone.
    pub(crate) renewed: Vec<Range>,
    guards: Vec<Range>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Changed {
    range: Range,
    area: usize,
    /// There is nothing: only what is kept must be written.
    empty: bool,
}

/// What the baseline has in a piece of a changed range.
#[derive(Debug)]
enum Content<'a> {
    /// These bytes, from this address on.
    Kept(u64, &'a [u8]),
    /// Nothing that is kept: zeros, or a file's pages.
    Bare(Range),
}

/// What writing back did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes written into the processes.
    pub bytes: u64,
    /// Bytes that the processes dropped because the baseline has nothing there.
    pub dropped: u64,
}

fn length(range: &Range) -> usize {
    usize::try_from(range.end - range.start).expect("an address range of this machine fits its usize")
}

fn overlap(one: &Range, other: &Range) -> Option<Range> {
    let both = one.start.max(other.start)..one.end.min(other.end);
    (both.start < both.end).then_some(both)
}

/// Appends a range to a sorted list, joining it with the last.
fn append(ranges: &mut Vec<Range>, range: Range) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

/// What of `these` is not in `those`; both are sorted.
fn without(these: &[Range], those: &[Range]) -> Vec<Range> {
    let mut left = Vec::new();
    for range in these {
        let mut at = range.start;
        for other in those.iter().filter_map(|other| overlap(other, range)) {
            if at < other.start {
                left.push(at..other.start);
            }
            at = other.end;
        }
        if at < range.end {
            left.push(at..range.end);
        }
    }
    left
}

/// Joins sorted ranges with less than `gap` between them, within one area each.
pub(crate) fn joined(ranges: impl Iterator<Item = (usize, Range)>, gap: u64) -> Vec<Range> {
    let mut joined: Vec<(usize, Range)> = Vec::new();
    for (area, range) in ranges {
        match joined.last_mut() {
            Some((last_area, last)) if *last_area == area && range.start <= last.end + gap => {
                last.end = last.end.max(range.end);
            }
            _ => joined.push((area, range)),
        }
    }
    joined.into_iter().map(|(_, range)| range).collect()
}

impl Memory {
    /// Copies what the process has of its own. Shared mappings and the kernel's pages are not memory's matter.
    pub(crate) fn take(access: &Access, maps: &[Map]) -> io::Result<Self> {
        let page = rustix::param::page_size() as u64;
        let mut memory = Self {
            areas: Vec::new(),
            runs: Vec::new(),
            bytes: Vec::new(),
            populated: Vec::new(),
            guards: Vec::new(),
            page,
        };
        for map in maps.iter().filter(|map| !map.shared && !map.kernels()) {
            let how = How { code: map.rights.execute, forced: !map.rights.write };
            memory.areas.push(Area { range: map.range.clone(), zeros: map.anonymous(), tracked: true, how });
        }
        let mut populated = Vec::new();
        for index in 0..memory.areas.len() {
            let area = memory.areas[index].clone();
            let mut regions = Vec::new();
            kernel::scan(&access.pagemap, &area.range, Ask::Contents, &mut regions)?;
            for region in regions.iter().filter(|region| region.page().guard()) {
                append(&mut memory.guards, region.start..region.end);
            }
            for region in regions.iter().filter(|region| !region.page().nothing()) {
                populated.push((index, region.start..region.end));
            }
            for region in regions.iter().filter(|region| region.page().own()) {
                memory.copy(access, &(region.start..region.end), area.zeros)?;
            }
        }
        memory.populated = joined(populated.into_iter(), PROTECT_GAP);
        memory.bytes.shrink_to_fit();
        Ok(memory)
    }

    fn copy(&mut self, access: &Access, range: &Range, skip_zeros: bool) -> io::Result<()> {
        let page = usize::try_from(self.page).expect("a page is small");
        let mut buffer = vec![0; length(range).min(READ_BYTES)];
        let mut start = range.start;
        while start < range.end {
            let bytes = length(&(start..range.end)).min(READ_BYTES);
            trace::read(access.pid, &access.mem, start, &mut buffer[..bytes])
                .map_err(|error| io::Error::new(error.kind(), format!("memory at {start:#x}: {error}")))?;
            for content in buffer[..bytes].chunks(page) {
                if !skip_zeros || content != &ZEROS[..page] {
                    self.keep(start, content);
                }
                start += self.page;
            }
        }
        Ok(())
    }

    fn keep(&mut self, start: u64, content: &[u8]) {
        let end = start + self.page;
        match self.runs.last_mut() {
            Some(run) if run.range.end == start => run.range.end = end,
            _ => self.runs.push(Run { range: start..end, at: self.bytes.len() }),
        }
        self.bytes.extend_from_slice(content);
    }

    /// How many bytes are kept for this baseline.
    pub(crate) fn kept(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Begins to note writes. Fails where a mapping of size cannot be tracked.
    pub(crate) fn arm(&mut self, access: &Access, tracker: &Tracker) -> io::Result<()> {
        for index in 0..self.areas.len() {
            let range = self.areas[index].range.clone();
            if let Err(error) = tracker.register(&range) {
                if range.end - range.start > ALWAYS_BYTES_MAX {
                    return Err(error);
                }
                self.areas[index].tracked = false;
                // Zeros count here: nothing will say whether the pages are still zeros.
                self.forget(&range);
                self.copy(access, &range, false)?;
            }
        }
        self.runs.sort_by_key(|run| run.range.start);
        for range in &self.populated {
            let area = self.areas.iter().find(|area| overlap(&area.range, range).is_some());
            if area.is_some_and(|area| area.tracked) {
                tracker.protect(range)?;
            }
        }
        Ok(())
    }

    fn forget(&mut self, range: &Range) {
        self.runs.retain(|run| overlap(&run.range, range).is_none());
    }

    /// Finds what changed. Nothing is touched.
    pub(crate) fn changes(&self, access: &Access) -> io::Result<Work> {
        let mut work = Work::default();
        let mut regions = Vec::new();
        for (index, area) in self.areas.iter().enumerate() {
            if !area.tracked {
                work.changed.push(Changed { range: area.range.clone(), area: index, empty: false });
                continue;
            }
            for range in self.suspects(access, area)? {
                regions.clear();
                kernel::scan(&access.pagemap, &range, Ask::Changes, &mut regions)?;
                // All pages answer, so that one that did not is not mapped; should the kernel have left one out, it is made anew.
                let mut at = range.start;
                for region in &regions {
                    let Some(range) = overlap(&(region.start.max(at)..region.end), &range) else { continue };
                    if at < range.start {
                        append(&mut work.renewed, at..range.start);
                    }
                    at = range.end;
                    work.add(index, range, region);
                }
                if at < range.end {
                    append(&mut work.renewed, at..range.end);
                }
            }
        }
        Ok(work)
    }

    /// Where in an area to look closely: looking at each page of all of them takes milliseconds. A page that was dropped counts as written as long as
    /// there is a page table for it; the kernel may have freed an empty table, and then the first page that the baseline has there has no entry.
    fn suspects(&self, access: &Access, area: &Area) -> io::Result<Vec<Range>> {
        let mut written = Vec::new();
        match kernel::scan(&access.pagemap, &area.range, Ask::Written, &mut written) {
            Ok(()) => {}
            // Not tracked, or not all of it.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Ok(vec![area.range.clone()]),
            Err(error) => return Err(error),
        }
        let mut suspects: Vec<Range> = written.iter().map(|region| region.start..region.end).collect();
        let first = self.populated.partition_point(|range| range.end <= area.range.start);
        for range in self.populated[first..].iter().take_while(|range| range.start < area.range.end) {
            let mut at = range.start;
            while at < range.end {
                let end = (at / TABLE_BYTES + 1) * TABLE_BYTES;
                if !kernel::has_entry(&access.pagemap, at, self.page)? {
                    suspects.push(at..end.min(range.end));
                }
                at = end;
            }
        }
        suspects.sort_unstable_by_key(|range| range.start);
        Ok(joined(suspects.into_iter().map(|range| (0, range)), LOOK_GAP))
    }

    /// Lets what was mapped anew be filled: it is tracked again, and there is nothing in it yet.
    pub(crate) fn refill(&self, tracker: &Tracker, range: &Range, work: &mut Work) -> io::Result<()> {
        for (index, area) in self.areas.iter().enumerate() {
            let Some(range) = overlap(&area.range, range) else { continue };
            if area.tracked {
                tracker.register(&range)?;
            }
            work.changed.retain(|changed| overlap(&changed.range, &range).is_none());
            work.changed.push(Changed { range, area: index, empty: true });
        }
        Ok(())
    }

    /// The page at `address` will be written before the bytes are put back.
    pub(crate) fn add_page(&self, work: &mut Work, address: u64) {
        let page = address & !(self.page - 1);
        let area = self.areas.iter().position(|area| area.range.contains(&page));
        work.changed.extend(area.map(|area| Changed { range: page..page + self.page, area, empty: false }));
    }

    /// Which guards must be taken away, and which set, before the bytes are put back.
    pub(crate) fn guards(&self, work: &Work) -> (Vec<Range>, Vec<Range>) {
        (without(&work.guards, &self.guards), without(&self.guards, &work.guards))
    }

    /// Looks once more, because the processes were made to do something; what was mapped anew meanwhile is known already.
    pub(crate) fn add_changes(&self, access: &Access, work: &mut Work) -> io::Result<()> {
        let refilled: Vec<_> = work.renewed.clone();
        let mut again = self.changes(access)?;
        again
            .changed
            .retain(|changed| !refilled.iter().any(|range| overlap(range, &changed.range).is_some()));
        work.changed.append(&mut again.changed);
        Ok(())
    }

    /// What of the changed ranges is kept and what is not, by their addresses.
    fn pieces<'a, 'w>(&'a self, work: &'w Work) -> Vec<(&'w Changed, Content<'a>)> {
        let mut pieces = Vec::new();
        let mut all: Vec<_> = work.changed.iter().collect();
        all.sort_by_key(|changed| changed.range.start);
        for changed in all {
            let mut at = changed.range.start;
            let first = self.runs.partition_point(|run| run.range.end <= at);
            let runs = self.runs[first..].iter().take_while(|run| run.range.start < changed.range.end);
            for run in runs {
                let both = overlap(&run.range, &changed.range).expect("runs that reach into the range");
                pieces.push((changed, Content::Bare(at..both.start)));
                let from = run.at + length(&(run.range.start..both.start));
                pieces.push((changed, Content::Kept(both.start, &self.bytes[from..from + length(&both)])));
                at = both.end;
            }
            pieces.push((changed, Content::Bare(at..changed.range.end)));
        }
        pieces.retain(|(_, content)| !matches!(content, Content::Bare(range) if range.is_empty()));
        pieces
    }

    /// What the process had better drop (`MADV_DONTNEED`) than have written: pages of files, and many pages of zeros. Sorted.
    pub(crate) fn droppable(&self, work: &Work) -> Vec<Range> {
        let droppable = |(changed, content): (&Changed, Content<'_>)| match content {
            Content::Bare(range) if !changed.empty => {
                let is_large = range.end - range.start >= DROP_BYTES_MIN;
                (is_large || !self.areas[changed.area].zeros).then_some(range)
            }
            _ => None,
        };
        self.pieces(work).into_iter().filter_map(droppable).collect()
    }

    /// What there is to write so that the bytes are back, now that the process has `dropped` these of what is droppable.
    pub(crate) fn parts(&self, work: &Work, dropped: &[Range]) -> io::Result<(Written, Parts<'_>)> {
        let mut parts = Parts::default();
        let is_dropped =
            |range: &Range| dropped.binary_search_by_key(&range.start, |dropped| dropped.start).is_ok();
        for (changed, content) in self.pieces(work) {
            let area = &self.areas[changed.area];
            let tracked = area.tracked.then_some(changed.area);
            match content {
                Content::Kept(start, bytes) => parts.write(start, bytes, tracked, area.how),
                Content::Bare(range) if changed.empty || is_dropped(&range) => {
                    parts.protect(range, tracked);
                }
                Content::Bare(range) if !area.zeros => {
                    let what = format!("pages of a file at {:#x} cannot be dropped", range.start);
                    return Err(io::Error::other(what));
                }
                Content::Bare(range) => {
                    let mut start = range.start;
                    while start < range.end {
                        let bytes = length(&(start..range.end)).min(ZEROS.len());
                        parts.write(start, &ZEROS[..bytes], tracked, area.how);
                        start += bytes as u64;
                    }
                }
            }
        }
        let dropped = dropped.iter().map(|range| range.end - range.start).sum();
        Ok((Written { bytes: parts.bytes(), dropped }, parts))
    }

    /// Which of these sorted addresses will be written to.
    pub(crate) fn writes(work: &Work, addresses: &[u64]) -> BTreeSet<u64> {
        let of = |changed: &Changed| {
            let first = addresses.partition_point(|address| *address < changed.range.start);
            let end = changed.range.end;
            addresses[first..].iter().copied().take_while(move |address| *address < end)
        };
        work.changed.iter().filter(|changed| !changed.empty).flat_map(of).collect()
    }

    /// From now on the baseline has `bytes` at `address`, on a page that is kept.
    pub(crate) fn amend(&mut self, address: u64, bytes: &[u8]) -> io::Result<()> {
        let end = address + bytes.len() as u64;
        let run = self.runs.get(self.runs.partition_point(|run| run.range.end <= address));
        let run = run.filter(|run| run.range.start <= address && end <= run.range.end);
        let run =
            run.ok_or_else(|| io::Error::other(format!("nothing is kept of the page at {address:#x}")))?;
        let from = run.at + length(&(run.range.start..address));
        self.bytes[from..from + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// Compares every byte, however it is tracked: the first addresses of pages that differ, at most `most`.
    pub(crate) fn differing(&self, access: &Access, most: usize) -> io::Result<Vec<u64>> {
        let mut differing = Vec::new();
        for area in &self.areas {
            let mut regions = Vec::new();
            kernel::scan(&access.pagemap, &area.range, Ask::Contents, &mut regions)?;
            for region in regions {
                self.compare(access, area, &region, &mut differing)?;
                if differing.len() >= most {
                    return Ok(differing);
                }
            }
        }
        Ok(differing)
    }

    fn compare(
        &self,
        access: &Access,
        area: &Area,
        region: &Region,
        differing: &mut Vec<u64>,
    ) -> io::Result<()> {
        let page = usize::try_from(self.page).expect("a page is small");
        let mut buffer = Vec::new();
        let mut at = region.start;
        while at < region.end {
            let guard = region.page().guard();
            let nothing = region.page().nothing() || guard;
            let (kept, until) = self.kept_until(at);
            // What is not kept of a file is not looked into: it may lie behind the file's end, where there is nothing to read.
            let end = if area.zeros { region.end } else { region.end.min(until) };
            let bytes = length(&(at..end)).min(READ_BYTES);
            if !nothing && (kept || area.zeros) {
                buffer.resize(bytes, 0);
                trace::read(access.pid, &access.mem, at, &mut buffer)?;
            }
            for index in 0..bytes / page {
                let kept = self.kept_page(at);
                let same = match kept {
                    Some(kept) => !nothing && kept == &buffer[index * page..][..page],
                    None if area.zeros => nothing || buffer[index * page..][..page] == ZEROS[..page],
                    // Not kept, of a file: it must not have become the process's own.
                    None => guard || !region.page().copied(),
                };
                let guarded = self.guards.iter().any(|range| range.contains(&at));
                if !same || guard != guarded {
                    differing.push(at);
                }
                at += self.page;
            }
        }
        Ok(())
    }

    /// Whether the page at `at` is kept, and up to where the same is true.
    fn kept_until(&self, at: u64) -> (bool, u64) {
        match self.runs.get(self.runs.partition_point(|run| run.range.end <= at)) {
            Some(run) if run.range.start <= at => (true, run.range.end),
            Some(run) => (false, run.range.start),
            None => (false, u64::MAX),
        }
    }

    fn kept_page(&self, at: u64) -> Option<&[u8]> {
        let run = self.runs.get(self.runs.partition_point(|run| run.range.end <= at))?;
        let from = run.at + length(&(run.range.start..at.max(run.range.start)));
        (run.range.start <= at).then(|| &self.bytes[from..][..usize::try_from(self.page).unwrap_or_default()])
    }
}

impl Work {
    /// For tests that want to be told: the last page of the largest range keeps what was written to it.
    pub(crate) fn leave_a_page(&mut self) {
        let largest = self.changed.iter_mut().max_by_key(|changed| changed.range.end - changed.range.start);
        if let Some(changed) = largest {
            changed.range.end -= rustix::param::page_size() as u64;
        }
    }

    fn add(&mut self, area: usize, range: Range, region: &Region) {
        let page = region.page();
        if !page.tracked() {
            append(&mut self.renewed, range);
            return;
        }
        if page.guard() {
            append(&mut self.guards, range);
            return;
        }
        if !page.written() && !page.nothing() {
            return;
        }
        let empty = page.nothing();
        match self.changed.last_mut() {
            Some(last) if last.area == area && last.range.end == range.start && last.empty == empty => {
                last.range.end = range.end;
            }
            _ => self.changed.push(Changed { range, area, empty }),
        }
    }
}
