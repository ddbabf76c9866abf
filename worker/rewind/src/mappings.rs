//! Step 4: a process has the mappings of its baseline again, by `brk`, `munmap`, `mmap` and `mprotect` that it makes itself.
//!
//! Which of them is [`crate::maps::changes`]'s to say; here it is judged, before anything is touched, whether a mapping that is gone can be
//! made again exactly, and the calls are made. Exactly means: private memory without a file, lock or growth of its own, and without any advice but that on
//! huge pages, as its `VmFlags` in `/proc/PID/smaps` said when the baseline was taken.
//!
//! The end of the heap is set each time: where it lies within a page, the mappings do not show.

use std::fs;
use std::io;

use crate::arch::Call;
use crate::inject::Caller;
use crate::kernel::Range;
use crate::maps::{Change, Map};
use crate::trace::Pid;

/// What a fresh anonymous mapping has: rights and what may become rights, accounted, (not) soft-dirty, tracked.
const PLAIN: &[&str] = &["rd", "wr", "ex", "mr", "mw", "me", "ac", "sd", "um", "uw"];

/// `MADV_GUARD_INSTALL` and `MADV_GUARD_REMOVE`, which `libc` does not have yet.
pub(crate) const GUARD_INSTALL: u64 = 102;
pub(crate) const GUARD_REMOVE: u64 = 103;

/// What a plain mapping may have besides rights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Kind {
    unreserved: bool,
    /// `MADV_HUGEPAGE` or `MADV_NOHUGEPAGE`: some allocators ask for it.
    advice: Option<libc::c_int>,
}

impl Kind {
    /// By its `VmFlags`; `None`: a plain `mmap` would not make it again.
    fn of(flags: &str) -> Option<Self> {
        let mut kind = Self::default();
        for flag in flags.split_whitespace() {
            match flag {
                "nr" => kind.unreserved = true,
                "hg" => kind.advice = Some(libc::MADV_HUGEPAGE),
                "nh" => kind.advice = Some(libc::MADV_NOHUGEPAGE),
                _ if PLAIN.contains(&flag) => {}
                _ => return None,
            }
        }
        Some(kind)
    }
}

/// Ranges that can be made again by a plain `mmap`, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Remakable(Vec<(Range, Kind)>);

impl Remakable {
    /// Reads it while the process stands still. Slow (the kernel counts every page), so: for a baseline, not for a rewind.
    pub(crate) fn of(pid: Pid) -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string(format!("/proc/{pid}/smaps"))?))
    }

    fn parse(text: &str) -> Self {
        let mut remakable = Vec::new();
        let mut range = None;
        for line in text.lines() {
            let first = line.split(' ').next().unwrap_or_default();
            if let Some((start, end)) = first.split_once('-') {
                let hex = |digits| u64::from_str_radix(digits, 16).ok();
                range = hex(start).zip(hex(end)).map(|(start, end)| start..end);
            } else if let Some(flags) = line.strip_prefix("VmFlags:") {
                remakable.extend(range.take().zip(Kind::of(flags)));
            }
        }
        Self(remakable)
    }

    /// What a range consists of; `None` if not all of it is remakable.
    fn pieces(&self, range: &Range) -> Option<Vec<(Range, Kind)>> {
        let mut at = range.start;
        let mut pieces = Vec::new();
        for (plain, kind) in self.0.iter().skip_while(|(plain, _)| plain.end <= range.start) {
            if at >= range.end || plain.start > at {
                break;
            }
            pieces.push((at..plain.end.min(range.end), *kind));
            at = plain.end;
        }
        (at >= range.end).then_some(pieces)
    }
}

/// What of `changes` cannot be done, in words.
pub(crate) fn impossible(
    changes: &[Change],
    baseline: &[Map],
    now: &[Map],
    remakable: &Remakable,
) -> Vec<String> {
    let words =
        |range: &Range, what: &str, name: &str| format!("{:#x}-{:#x} {name} {what}", range.start, range.end);
    let mut impossible = Vec::new();
    for change in changes {
        match change {
            Change::Unmap(range) => {
                let kernels = now.iter().find(|map| map.kernels() && map.range.contains(&range.start));
                impossible.extend(kernels.map(|map| words(range, "is new and the kernel's", &map.name)));
            }
            Change::Remake(range, which) => {
                let map = &baseline[*which];
                if !map.anonymous() || remakable.pieces(range).is_none() {
                    impossible.push(words(range, "is gone or replaced", &map.name));
                }
            }
            Change::Protect(range, _) => {
                let map = baseline.iter().find(|map| map.kernels() && map.range.contains(&range.start));
                impossible.extend(map.map(|map| words(range, "has other rights", &map.name)));
            }
        }
    }
    impossible
}

/// The current end of the heap.
pub(crate) fn heap_end(caller: &mut Caller) -> io::Result<u64> {
    caller.call(&Call::new(libc::SYS_brk, [0]))
}

fn set_heap_end(caller: &mut Caller, end: u64) -> io::Result<bool> {
    Ok(caller.call(&Call::new(libc::SYS_brk, [end]))? == end)
}

/// Makes the process do `changes`. What is made again is empty and not tracked.
pub(crate) fn restore(
    caller: &mut Caller,
    changes: &[Change],
    baseline: &[Map],
    remakable: &Remakable,
    heap_end: u64,
) -> io::Result<()> {
    // A heap that grew must shrink before its end is unmapped, one that shrank may have something in its way.
    let set = set_heap_end(caller, heap_end)?;
    for change in changes {
        if let Change::Unmap(range) = change {
            caller.call(&Call::new(libc::SYS_munmap, [range.start, range.end - range.start]))?;
        }
    }
    if !set && !set_heap_end(caller, heap_end)? {
        return Err(io::Error::other(format!("the heap cannot end at {heap_end:#x} again")));
    }
    for change in changes {
        match change {
            Change::Unmap(_) => {}
            Change::Remake(range, which) => remake(caller, range, &baseline[*which], remakable)?,
            Change::Protect(range, rights) => {
                let bytes = range.end - range.start;
                caller.call(&Call::new(libc::SYS_mprotect, [range.start, bytes, rights.bits()]))?;
            }
        }
    }
    Ok(())
}

fn remake(caller: &mut Caller, range: &Range, map: &Map, remakable: &Remakable) -> io::Result<()> {
    let pieces =
        remakable.pieces(range).ok_or_else(|| io::Error::other("a mapping that cannot be made again"))?;
    for (range, kind) in pieces {
        let mut flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        if kind.unreserved {
            flags |= libc::MAP_NORESERVE;
        }
        let (bytes, flags) = (range.end - range.start, u64::from(flags.unsigned_abs()));
        let mmap = Call::new(libc::SYS_mmap, [range.start, bytes, map.rights.bits(), flags, u64::MAX, 0]);
        if caller.call(&mmap)? != range.start {
            return Err(io::Error::other("mmap chose another place"));
        }
        if let Some(advice) = kind.advice {
            let advice = advice.unsigned_abs().into();
            caller.call(&Call::new(libc::SYS_madvise, [range.start, bytes, advice]))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_memory_counts_as_remakable() {
        let smaps = "1000-2000 rw-p 0 00:00 0\nRss: 4 kB\nVmFlags: rd wr mr mw me ac \n\
                     2000-3000 rw-p 0 00:00 0\nVmFlags: rd wr mr mw me ac \n\
                     3000-4000 rw-p 0 00:00 0\nVmFlags: rd wr mr mw me nr \n\
                     4000-5000 rw-p 0 00:00 0\nVmFlags: rd wr mr mw me gd ac \n\
                     5000-6000 rw-p 0 00:00 0\nVmFlags: rd wr mr mw me ac hg \n";
        let remakable = Remakable::parse(smaps);
        let kind = |unreserved, advice| Kind { unreserved, advice };
        let (plain, bare) = (kind(false, None), kind(true, None));
        assert_eq!(
            remakable.pieces(&(0x1800..0x4000)).unwrap(),
            [(0x1800..0x2000, plain), (0x2000..0x3000, plain), (0x3000..0x4000, bare)]
        );
        assert_eq!(remakable.pieces(&(0x2000..0x2800)).unwrap(), [(0x2000..0x2800, plain)]);
        assert_eq!(remakable.pieces(&(0x4000..0x5000)), None, "a stack grows");
        assert_eq!(remakable.pieces(&(0x3000..0x6000)), None, "in the middle of it, too");
        let huge = kind(false, Some(libc::MADV_HUGEPAGE));
        assert_eq!(remakable.pieces(&(0x5000..0x6000)).unwrap(), [(0x5000..0x6000, huge)]);
        assert_eq!(remakable.pieces(&(0x5000..0x7000)), None, "there is nothing behind it");
        assert_eq!(remakable.pieces(&(0x6000..0x7000)), None);
    }
}
