//! Memory that processes share and write (`MAP_SHARED`): what they inherit, segments of System V, memfds, files in memory.
//!
//! It is kept once for each object, however many map it, and reached through a descriptor of our own (`/proc/PID/map_files`), so that it
//! outlives whatever the processes do to their mappings; those are [`crate::maps`]'s matter.
//!
//! What was written is found by comparing all of it. Nothing shorter is right: what notes writes (userfaultfd, soft-dirty bits) notes them in
//! the page tables of whoever writes, and those are gone with a process that wrote and ended, as each session of a PostgreSQL does. It is compared by
//! reading and not through a mapping of ours: should somebody outside cut it short, reading says so, and a mapping would kill us.
//!
//! What was a hole becomes one again, so that the next rewind has no more to compare. A file on a disk (the log of a MariaDB's transaction coordinator) is
//! compared likewise where it is small and one of a tree: writes through a mapping move its times when they like. Larger ones are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::num::NonZero;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{FallocateFlags, SealFlags, SeekFrom, Timespec, Timestamps, UTIME_OMIT};

use crate::files::Files;
use crate::freeze::Frozen;
use crate::identity::{Difference, Obstacle};
use crate::kernel::{self, Range};
use crate::maps::{self, Map};
use crate::trace::Pid;

/// More in all segments together is refused.
const SEGMENT_BYTES_MAX: u64 = 8 << 30;
/// A larger file on a disk is refused.
const DISK_BYTES_MAX: u64 = 4 << 20;
/// So many bytes are read and compared at a time: they stay in the processor's cache.
const COMPARE_BYTES: usize = 256 * 1024;
/// From so many bytes on, several threads compare.
const PARALLEL_BYTES_MIN: u64 = 8 << 20;
const THREADS_MAX: usize = 8;
const PAGE: usize = 4096;
static ZEROS: [u8; COMPARE_BYTES] = [0; COMPARE_BYTES];
const SYSTEM_V: &str = "/SYSV";

/// One object, as `/proc/PID/maps` tells them apart. The inode of a segment of System V is its number in its namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    device: String,
    inode: u64,
    namespace: Option<String>,
}

impl Key {
    fn of(pid: Pid, map: &Map) -> io::Result<Option<Self>> {
        let Some((device, inode)) = map.file.clone().filter(|_| map.shared) else { return Ok(None) };
        let namespace = match map.name.starts_with(SYSTEM_V) {
            true => Some(fs::read_link(format!("/proc/{pid}/ns/ipc"))?.to_string_lossy().into_owned()),
            false => None,
        };
        Ok(Some(Self { device, inode, namespace }))
    }
}

/// Bytes beside one another that are kept.
#[derive(Debug)]
struct Run {
    range: Range,
    bytes: Vec<u8>,
}

/// One object in the baseline.
#[derive(Debug)]
struct Segment {
    file: File,
    /// A path or what stands for it.
    name: String,
    identity: (u64, u64),
    size: u64,
    modified: Timespec,
    seals: SealFlags,
    /// It had room that nothing was in yet: what is emptied keeps its room.
    reserved: bool,
    runs: Vec<Run>,
}

/// All shared memory of a baseline.
#[derive(Debug, Default)]
pub(crate) struct Segments(BTreeMap<Key, Segment>);

/// What a comparison does about a page that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    Restore,
    Tell,
}

impl Segments {
    /// Finds those of stopped processes, and says what forbids a baseline. Nothing is read of them yet.
    pub(crate) fn find<'a>(
        maps: impl Iterator<Item = (Pid, &'a [Map])>,
        trees: &[Files],
        obstacles: &mut Vec<Obstacle>,
    ) -> io::Result<Self> {
        let mut segments = Self::default();
        for (pid, map) in maps.flat_map(|(pid, maps)| maps.iter().map(move |map| (pid, map))) {
            let Some(key) = Key::of(pid, map)? else { continue };
            if segments.0.contains_key(&key) {
                continue;
            }
            let mapping = format!("{:#x}-{:#x} {}", map.range.start, map.range.end, map.name);
            match Segment::open(pid, map, trees)? {
                Ok(Some(segment)) => drop(segments.0.insert(key, segment)),
                // Read by all, and put back with its tree where it can be written to.
                Ok(None) => {}
                Err(_) if !map.rights.write => {}
                Err(why) => {
                    obstacles.push(Obstacle::SharedMemory { pid, mapping: format!("{mapping}: {why}") });
                }
            }
        }
        Ok(segments)
    }

    /// Copies all bytes. Only while nobody writes.
    pub(crate) fn keep(&mut self) -> io::Result<()> {
        let mut total = 0;
        for segment in self.0.values_mut() {
            for range in extents(&segment.file, segment.size)? {
                total += range.end - range.start;
                if total > SEGMENT_BYTES_MAX {
                    return Err(io::Error::other(format!("more than {SEGMENT_BYTES_MAX} bytes are shared")));
                }
                let mut bytes = vec![0; length(&range)];
                segment.file.read_exact_at(&mut bytes, range.start)?;
                segment.runs.push(Run { range, bytes });
            }
            let held: u64 = segment.runs.iter().map(|run| run.bytes.len() as u64).sum();
            segment.reserved = segment.file.metadata()?.blocks() * 512 > held.next_multiple_of(PAGE as u64);
        }
        Ok(())
    }

    /// How many bytes are kept.
    pub(crate) fn kept(&self) -> u64 {
        let runs = self.0.values().flat_map(|segment| &segment.runs);
        runs.map(|run| run.bytes.len() as u64).sum()
    }

    /// Whether an open file, by device and inode, is one of them. Segments of System V may have the inodes of others.
    pub(crate) fn has(&self, device: u64, inode: u64) -> bool {
        self.0.iter().any(|(key, segment)| key.namespace.is_none() && segment.identity == (device, inode))
    }

    /// The inodes of those on a device.
    pub(crate) fn on(&self, device: u64) -> BTreeSet<u64> {
        let all = self.0.values().map(|segment| segment.identity);
        all.filter(|identity| identity.0 == device).map(|identity| identity.1).collect()
    }

    /// Whether one is the segment of System V of this number.
    pub(crate) fn has_system_v(&self, number: u64) -> bool {
        self.0.iter().any(|(key, _)| key.namespace.is_some() && key.inode == number)
    }

    /// Others than the frozen processes that map one: what they write cannot be held still. Reads all processes' mappings, so: now and then.
    pub(crate) fn outsiders(&self, frozen: &Frozen) -> io::Result<Vec<(Pid, String)>> {
        let mut outsiders = Vec::new();
        if self.0.is_empty() {
            return Ok(outsiders);
        }
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<Pid>().ok()) else {
                continue;
            };
            if frozen.processes.contains_key(&pid) {
                continue;
            }
            // One that has ended meanwhile maps nothing.
            let text = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
            for map in maps::parse(&text).unwrap_or_default() {
                let known = Key::of(pid, &map).ok().flatten().filter(|key| self.0.contains_key(key));
                outsiders.extend(known.map(|_| (pid, map.name)));
            }
        }
        Ok(outsiders)
    }

    /// What cannot be put back. Touches nothing.
    pub(crate) fn compare(&self, differences: &mut Vec<Difference>) -> io::Result<()> {
        for segment in self.0.values() {
            let is = seals(&segment.file);
            if is != segment.seals {
                let what = format!("was sealed {:?}, is sealed {is:?}", segment.seals);
                differences.push(Difference::Segment { name: segment.name.clone(), what });
            }
        }
        Ok(())
    }

    /// Puts all bytes back; answers how many were written, and the inodes they were written to.
    pub(crate) fn restore(&self) -> io::Result<(u64, BTreeSet<u64>)> {
        let (mut written, mut inodes) = (0, BTreeSet::new());
        for segment in self.0.values() {
            let restored = segment.restore().map_err(|error| {
                io::Error::new(error.kind(), format!("shared memory {}: {error}", segment.name))
            })?;
            if let Some(bytes) = restored {
                written += bytes;
                inodes.insert(segment.identity.1);
            }
        }
        Ok((written, inodes))
    }

    /// Everything that is not as in the baseline.
    pub(crate) fn differing(&self, differences: &mut Vec<Difference>) -> io::Result<()> {
        for segment in self.0.values() {
            let whats = segment.differing()?.into_iter();
            differences.extend(whats.map(|what| Difference::Segment { name: segment.name.clone(), what }));
        }
        Ok(())
    }
}

impl Segment {
    /// `None`: not memory, and nobody writes to it; or why it cannot be put back.
    fn open(pid: Pid, map: &Map, trees: &[Files]) -> io::Result<Result<Option<Self>, String>> {
        let link = format!("/proc/{pid}/map_files/{:x}-{:x}", map.range.start, map.range.end);
        // Neighbours of one kind were joined: the first of them leads to the object as well as any.
        let link = if fs::symlink_metadata(&link).is_ok() { link } else { first_link(pid, map.range.start)? };
        let is_kept = |device, inode| trees.iter().any(|tree| tree.device() == device && tree.has(inode));
        let about = fs::metadata(&link)?;
        let is_small = about.size() <= DISK_BYTES_MAX && is_kept(about.dev(), about.ino());
        let is_ours = kernel::is_in_memory(&link)? || (is_small && map.rights.write);
        if !about.is_file() || !is_ours {
            let why = "no file in memory, nor a small one that is put back".to_owned();
            return Ok(if map.rights.write { Err(why) } else { Ok(None) });
        }
        let file = match File::options().read(true).write(true).open(&link) {
            Ok(file) => file,
            Err(error) => return Ok(Err(format!("it cannot be opened: {error}"))),
        };
        let status = file.metadata()?;
        let (device, inode) = (status.dev(), status.ino());
        if status.nlink() > 0 && !is_kept(device, inode) {
            return Ok(Err("a file that is not put back".to_owned()));
        }
        let seals = seals(&file);
        if seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
            return Ok(Err("it is sealed against writing".to_owned()));
        }
        Ok(Ok(Some(Self {
            name: map.name.clone(),
            identity: (device, inode),
            size: status.size(),
            modified: Timespec { tv_sec: status.mtime(), tv_nsec: status.mtime_nsec() },
            seals,
            reserved: false,
            runs: Vec::new(),
            file,
        })))
    }

    /// What is there now and was not in the baseline.
    fn added(&self) -> io::Result<Vec<Range>> {
        let mut added = Vec::new();
        for range in extents(&self.file, self.size)? {
            let mut at = range.start;
            let first = self.runs.partition_point(|run| run.range.end <= at);
            for run in self.runs[first..].iter().take_while(|run| run.range.start < range.end) {
                if at < run.range.start {
                    added.push(at..run.range.start);
                }
                at = run.range.end;
            }
            if at < range.end {
                added.push(at..range.end);
            }
        }
        Ok(added)
    }

    /// `None` if nothing had to be written.
    fn restore(&self) -> io::Result<Option<u64>> {
        let mut changed = false;
        if self.file.metadata()?.len() != self.size {
            self.file.set_len(self.size)?;
            changed = true;
        }
        for range in self.added()? {
            self.empty(&range)?;
            changed = true;
        }
        let written: u64 = self.compared(About::Restore)?.iter().map(|range| range.end - range.start).sum();
        if !changed && written == 0 {
            return Ok(None);
        }
        // By its times its tree would think that a test had written to it.
        let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: omitted, last_modification: self.modified };
        rustix::fs::futimens(&self.file, &times)?;
        Ok(Some(written))
    }

    fn empty(&self, range: &Range) -> io::Result<()> {
        if !self.reserved {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            return Ok(rustix::fs::fallocate(&self.file, flags, range.start, range.end - range.start)?);
        }
        let mut at = range.start;
        while at < range.end {
            let bytes = length(&(at..range.end)).min(ZEROS.len());
            self.file.write_all_at(&ZEROS[..bytes], at)?;
            at += bytes as u64;
        }
        Ok(())
    }

    /// Compares all that is kept; answers the ranges that differed.
    fn compared(&self, about: About) -> io::Result<Vec<Range>> {
        let mut pieces = Vec::new();
        for run in &self.runs {
            let starts = (run.range.start..run.range.end).step_by(COMPARE_BYTES);
            pieces.extend(starts.zip(run.bytes.chunks(COMPARE_BYTES)));
        }
        let bytes: u64 = self.runs.iter().map(|run| run.bytes.len() as u64).sum();
        let threads = match bytes {
            0..PARALLEL_BYTES_MIN => 1,
            _ => std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX),
        };
        let share = pieces.len().div_ceil(threads).max(1);
        let found: Vec<_> = std::thread::scope(|scope| {
            let mut parts = pieces.chunks(share);
            let first = parts.next().unwrap_or_default();
            let others: Vec<_> =
                parts.map(|part| scope.spawn(move || self.compare_pieces(part, about))).collect();
            let first = self.compare_pieces(first, about);
            let panicked = |_| Err(io::Error::other("a thread that compares panicked"));
            let others = others.into_iter().map(|thread| thread.join().unwrap_or_else(panicked));
            std::iter::once(first).chain(others).collect()
        });
        Ok(found.into_iter().collect::<io::Result<Vec<_>>>()?.concat())
    }

    fn compare_pieces(&self, pieces: &[(u64, &[u8])], about: About) -> io::Result<Vec<Range>> {
        let mut differing: Vec<Range> = Vec::new();
        let mut buffer = vec![0; COMPARE_BYTES];
        for (start, kept) in pieces {
            let now = &mut buffer[..kept.len()];
            self.file.read_exact_at(now, *start)?;
            if now == *kept {
                continue;
            }
            let pages = now.chunks(PAGE).zip(kept.chunks(PAGE)).enumerate();
            for (number, (_, page)) in pages.filter(|(_, (now, kept))| now != kept) {
                let at = start + (number * PAGE) as u64;
                if about == About::Restore {
                    self.file.write_all_at(page, at)?;
                }
                match differing.last_mut() {
                    Some(last) if last.end == at => last.end += page.len() as u64,
                    _ => differing.push(at..at + page.len() as u64),
                }
            }
        }
        Ok(differing)
    }

    fn differing(&self) -> io::Result<Vec<String>> {
        let size = self.file.metadata()?.len();
        if size != self.size {
            return Ok(vec![format!("has {size} bytes instead of {}", self.size)]);
        }
        let mut differing = Vec::new();
        let tell = |range: &Range, what: &str| format!("{what} at {:#x}-{:#x}", range.start, range.end);
        differing.extend(self.compared(About::Tell)?.iter().map(|range| tell(range, "other bytes")));
        let mut buffer = vec![0; COMPARE_BYTES];
        for range in self.added()? {
            for start in (range.start..range.end).step_by(COMPARE_BYTES) {
                let now = &mut buffer[..length(&(start..range.end)).min(COMPARE_BYTES)];
                self.file.read_exact_at(now, start)?;
                if *now != ZEROS[..now.len()] {
                    differing.push(tell(&range, "no zeros"));
                }
            }
        }
        Ok(differing)
    }
}

fn length(range: &Range) -> usize {
    usize::try_from(range.end - range.start)
        .expect("a range within a file of this machine's memory fits its usize")
}

/// A file that cannot be sealed has no seals.
fn seals(file: &File) -> SealFlags {
    rustix::fs::fcntl_get_seals(file).unwrap_or(SealFlags::empty())
}

/// The link for the mapping that begins at `start`.
fn first_link(pid: Pid, start: u64) -> io::Result<String> {
    let prefix = format!("{start:x}-");
    for entry in fs::read_dir(format!("/proc/{pid}/map_files"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            return Ok(entry.path().to_string_lossy().into_owned());
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("no link to the mapping at {start:#x}")))
}

/// Where a file has something: what is between reads as zeros.
fn extents(file: &File, size: u64) -> io::Result<Vec<Range>> {
    let mut extents = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        at = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(size);
        if start < at {
            extents.push(start..at);
        }
    }
    Ok(extents)
}
