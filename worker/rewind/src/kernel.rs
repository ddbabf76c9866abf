//! userfaultfd(2), `PAGEMAP_SCAN` and kcmp(2), as the kernel's headers have them: thin and typed, without a policy.
//!
//! Sources: Documentation/admin-guide/mm/userfaultfd.rst and pagemap.rst of Linux 6.7 and later. The structures are written out here because
//! `libc` has neither, and the headers of current distributions are older than both.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use crate::trace::Pid;

/// Memory addresses, from the first byte to the one behind the last.
pub(crate) type Range = std::ops::Range<u64>;

const fn read_write(kind: u8, number: u8, bytes: usize) -> libc::c_ulong {
    0xc000_0000 | ((bytes as libc::c_ulong) << 16) | ((kind as libc::c_ulong) << 8) | number as libc::c_ulong
}

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    bytes: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct WriteProtect {
    start: u64,
    bytes: u64,
    mode: u64,
}

const UFFDIO_API: libc::c_ulong = read_write(0xaa, 0x3f, size_of::<Api>());
const UFFDIO_REGISTER: libc::c_ulong = read_write(0xaa, 0x00, size_of::<Register>());
const UFFDIO_WRITEPROTECT: libc::c_ulong = read_write(0xaa, 0x06, size_of::<WriteProtect>());
const UFFD_API: u64 = 0xaa;
const REGISTER_WP: u64 = 1 << 1;
const WRITEPROTECT_WP: u64 = 1;
/// Unpopulated pages are protected, too.
const WP_UNPOPULATED: u64 = 1 << 13;
/// A write to a protected page is noted and goes on by itself.
const WP_ASYNC: u64 = 1 << 15;

/// What `userfaultfd` is asked with: close on exec, faults of the user's mode (which an unprivileged process may have; `WP_ASYNC` notes the
/// kernel's writes as well).
pub(crate) const UFFD_FLAGS: u64 = libc::O_CLOEXEC as u64 | 1;

/// A userfaultfd that belongs to another process's memory and is held by us. Closing it ends the tracking.
#[derive(Debug)]
pub(crate) struct Tracker(OwnedFd);

impl Tracker {
    /// Asks a new userfaultfd for what the tracking needs; an older kernel answers `EINVAL`.
    pub(crate) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let mut api = Api { api: UFFD_API, features: WP_ASYNC | WP_UNPOPULATED, ioctls: 0 };
        // SAFETY: the ioctl reads and writes one `Api`, which is laid out as `struct uffdio_api`.
        zero(unsafe { libc::ioctl(descriptor.as_raw_fd(), UFFDIO_API, &raw mut api) })?;
        Ok(Self(descriptor))
    }

    /// Tracks `range`, which lies in mappings without a gap. Nothing is protected yet.
    pub(crate) fn register(&self, range: &Range) -> io::Result<()> {
        let mut register =
            Register { start: range.start, bytes: range.end - range.start, mode: REGISTER_WP, ioctls: 0 };
        // SAFETY: the ioctl reads and writes one `Register`, laid out as `struct uffdio_register`; it changes no memory of ours.
        zero(unsafe { libc::ioctl(self.0.as_raw_fd(), UFFDIO_REGISTER, &raw mut register) })
    }

    /// From now on writes to `range` are noted. It must not reach over a gap between mappings.
    pub(crate) fn protect(&self, range: &Range) -> io::Result<()> {
        let mut protect =
            WriteProtect { start: range.start, bytes: range.end - range.start, mode: WRITEPROTECT_WP };
        // SAFETY: as above, with `struct uffdio_writeprotect`.
        zero(unsafe { libc::ioctl(self.0.as_raw_fd(), UFFDIO_WRITEPROTECT, &raw mut protect) })
    }
}

fn zero(answer: libc::c_int) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What `PAGEMAP_SCAN` says of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page(u64);

impl Page {
    const TRACKED: u64 = 1;
    const WRITTEN: u64 = 1 << 1;
    const FILE: u64 = 1 << 2;
    const PRESENT: u64 = 1 << 3;
    const SWAPPED: u64 = 1 << 4;
    const ZERO: u64 = 1 << 5;
    const GUARD: u64 = 1 << 8;

    /// In a mapping that a [`Tracker`] watches: false after it was unmapped and mapped anew, or moved.
    pub(crate) fn tracked(self) -> bool {
        self.0 & Self::TRACKED != 0
    }

    /// Written since it was protected. A dropped page (`MADV_DONTNEED`) is *not* written: see [`Page::nothing`].
    pub(crate) fn written(self) -> bool {
        self.0 & Self::WRITTEN != 0
    }

    /// Nothing is there, not even the mark that protects an unpopulated page.
    pub(crate) fn nothing(self) -> bool {
        self.0 & (Self::PRESENT | Self::SWAPPED) == 0
    }

    /// A guard (`MADV_GUARD_INSTALL`, Linux 6.13), as the C library puts below a stack: whoever touches it dies, and it cannot be read. It counts as
    /// swapped and as written, however often it is protected.
    pub(crate) fn guard(self) -> bool {
        self.0 & Self::GUARD != 0
    }

    /// Is in memory and the process's own copy of a file's page.
    pub(crate) fn copied(self) -> bool {
        self.0 & Self::PRESENT != 0 && self.own()
    }

    /// Has memory of its own: neither a file's page nor the kernel's page of zeros. (A protected page without memory counts as `SWAPPED`.)
    pub(crate) fn own(self) -> bool {
        !self.nothing() && self.0 & (Self::FILE | Self::ZERO | Self::GUARD) == 0
    }
}

/// Pages beside one another of which the same is true.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) page: PageBits,
}

/// See [`Page`]; transparent, so that the kernel can write regions.
pub(crate) type PageBits = u64;

impl Region {
    pub(crate) fn page(&self) -> Page {
        Page(self.page)
    }
}

#[repr(C)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_max: u64,
    pages_max: u64,
    inverted: u64,
    all_of: u64,
    any_of: u64,
    returned: u64,
}

const PAGEMAP_SCAN: libc::c_ulong = read_write(b'f', 16, size_of::<Scan>());
const CHECK_TRACKED: u64 = 1 << 1;
/// Room for so many regions is made for each call: 12 kB of answers.
const REGIONS_AT_ONCE: usize = 512;

/// Which pages a scan answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// All, and what concerns the tracking.
    Changes,
    /// All, and where their bytes come from.
    Contents,
    /// Those that were written or dropped, as long as there is a page table for them: for this question alone the kernel has a short way. All of
    /// the range has to be tracked, else the answer is `EPERM`.
    Written,
}

/// Every page of `range` with what the kernel knows of it, appended to `found`. `pagemap` is `/proc/PID/pagemap`.
pub(crate) fn scan(pagemap: &File, range: &Range, ask: Ask, found: &mut Vec<Region>) -> io::Result<()> {
    let returned = match ask {
        Ask::Changes => Page::TRACKED | Page::WRITTEN | Page::PRESENT | Page::SWAPPED | Page::GUARD,
        Ask::Contents => Page::FILE | Page::PRESENT | Page::SWAPPED | Page::ZERO | Page::GUARD,
        Ask::Written => Page::WRITTEN,
    };
    let (flags, all_of) = if ask == Ask::Written { (CHECK_TRACKED, Page::WRITTEN) } else { (0, 0) };
    let mut start = range.start;
    while start < range.end {
        found.reserve(REGIONS_AT_ONCE);
        let room = found.spare_capacity_mut();
        let mut scan = Scan {
            size: size_of::<Scan>() as u64,
            flags,
            start,
            end: range.end,
            walk_end: 0,
            regions: room.as_mut_ptr() as u64,
            regions_max: room.len() as u64,
            pages_max: 0,
            inverted: 0,
            all_of,
            any_of: 0,
            returned,
        };
        // SAFETY: `Scan` is laid out as `struct pm_scan_arg`; the kernel writes at most `regions_max` regions to the vector's spare room, which lives,
        // and `Region` is laid out as `struct page_region`.
        let count = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut scan) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        assert!(count <= room.len(), "the kernel keeps to the room it was given");
        // SAFETY: the kernel has written so many regions behind the last one, within the capacity.
        unsafe { found.set_len(found.len() + count) };
        if let Some(last) = found.last().filter(|last| last.end > scan.walk_end) {
            tracing::debug!(
                count,
                end = last.end,
                walk_end = scan.walk_end,
                "the page map answered beyond where it says that it stopped"
            );
        }
        if scan.walk_end <= start {
            return Err(io::Error::other("the scan of the page map does not advance"));
        }
        start = scan.walk_end;
    }
    // Seen on Linux 6.18: where the answers do not fit one call, the next may begin before the end of what was answered.
    found.sort_by_key(|region| region.start);
    Ok(())
}

/// Whether anything is known of the page at `address`: it is in memory, or swapped, or protected though nothing is there.
pub(crate) fn has_entry(pagemap: &File, address: u64, page: u64) -> io::Result<bool> {
    let mut entry = [0; 8];
    pagemap.read_exact_at(&mut entry, address / page * 8)?;
    /// Bits 63, 62 and 57 of an entry (Documentation/admin-guide/mm/pagemap.rst).
    const KNOWN: u64 = 1 << 63 | 1 << 62 | 1 << 57;
    Ok(u64::from_ne_bytes(entry) & KNOWN != 0)
}

#[repr(C)]
#[derive(Default)]
struct CacheRange {
    start: u64,
    /// 0: to the end.
    bytes: u64,
}

#[repr(C)]
#[derive(Default)]
struct CacheStat {
    cached: u64,
    dirty: u64,
    written_back: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Bytes of a file's pages in memory that are not on its disk yet (cachestat(2), Linux 6.5).
pub(crate) fn dirty_bytes(file: &File) -> io::Result<u64> {
    /// The same on all processors: newer than their common table. `libc` does not have it for each.
    const CACHESTAT: libc::c_long = 451;
    let (range, mut stat) = (CacheRange::default(), CacheStat::default());
    // SAFETY: the kernel reads one `CacheRange` and writes one `CacheStat`, laid out as `struct cachestat_range` and `struct cachestat`.
    let answer = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut stat, 0) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((stat.dirty + stat.written_back) * rustix::param::page_size() as u64)
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    bytes: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}

const EXTENTS: usize = 128;

#[repr(C)]
struct ExtentMap {
    start: u64,
    bytes: u64,
    flags: u32,
    mapped: u32,
    room: u32,
    reserved: u32,
    extents: [Extent; EXTENTS],
}

/// Bytes of a file's extents on its disk that it shares with no other file (`FIEMAP`, Documentation/filesystems/fiemap.rst): those that were
/// written since it was cloned.
pub(crate) fn unshared_bytes(file: &File) -> io::Result<u64> {
    const FIEMAP: libc::c_ulong = read_write(b'f', 11, 32);
    const LAST: u32 = 0x1;
    const DELAYED: u32 = 0x4;
    const SHARED: u32 = 0x2000;
    let (mut start, mut unshared) = (0, 0);
    loop {
        let room = u32::try_from(EXTENTS).expect("a constant that is small");
        let extents = [Extent::default(); EXTENTS];
        let mut map =
            ExtentMap { start, bytes: u64::MAX - start, flags: 0, mapped: 0, room, reserved: 0, extents };
        // SAFETY: the kernel reads one `ExtentMap`, laid out as `struct fiemap`, and writes to it, at most `room` extents of those that follow it.
        zero(unsafe { libc::ioctl(file.as_raw_fd(), FIEMAP, &raw mut map) })?;
        let found = &map.extents[..(map.mapped as usize).min(EXTENTS)];
        let own = found.iter().filter(|extent| extent.flags & (SHARED | DELAYED) == 0);
        unshared += own.map(|extent| extent.bytes).sum::<u64>();
        match found.last() {
            Some(last) if last.flags & LAST == 0 && last.logical + last.bytes > start => {
                start = last.logical + last.bytes;
            }
            _ => return Ok(unshared),
        }
    }
}

/// Whether a path leads to a file system in memory (tmpfs).
pub(crate) fn is_in_memory(path: impl rustix::path::Arg) -> io::Result<bool> {
    const TMPFS_MAGIC: libc::c_long = 0x0102_1994;
    Ok(rustix::fs::statfs(path)?.f_type == TMPFS_MAGIC)
}

/// Whether descriptor `theirs` of `pid` and our `ours` are the same open file.
pub(crate) fn same_file(pid: Pid, theirs: u32, ours: BorrowedFd<'_>) -> io::Result<bool> {
    const KCMP_FILE: libc::c_int = 0;
    let us = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: kcmp(2) takes numbers only.
    match unsafe { libc::syscall(libc::SYS_kcmp, pid, us, KCMP_FILE, theirs, ours.as_raw_fd()) } {
        0 => Ok(true),
        1.. => Ok(false),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A pidfd of one thread, which tells when it ended (`PIDFD_THREAD`, Linux 6.9).
pub(crate) fn thread_handle(tid: Pid) -> io::Result<OwnedFd> {
    const PIDFD_THREAD: libc::c_int = libc::O_EXCL;
    // SAFETY: pidfd_open(2) takes numbers only.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, tid, PIDFD_THREAD) };
    let opened = libc::c_int::try_from(opened).map_err(|_| io::Error::other("a descriptor out of range"))?;
    if opened < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

/// Our own copy of descriptor `number` of the process that `pidfd` names.
pub(crate) fn copy_descriptor(pidfd: BorrowedFd<'_>, number: u32) -> io::Result<OwnedFd> {
    let raw = i32::try_from(number).map_err(|_| io::Error::other("a descriptor out of range"))?;
    // SAFETY: the number is looked up in the other process; rustix marks this unsafe for descriptors of our own that others rely on.
    let copied = rustix::process::pidfd_getfd(pidfd, raw, rustix::process::PidfdGetfdFlags::empty())?;
    Ok(copied)
}
