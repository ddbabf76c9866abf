//! Step 6: the open files of a process. Each is held by a copy of our own, so that it outlives a close, and known by kcmp(2) and not by number.
//!
//! What a file description has of its own comes back through our copy: place, flags, an eventfd's count, what waits in a pipe. Sockets must be
//! empty in the baseline and are emptied; connections that wait at a listener are taken and closed. Descriptors that are new are closed by the
//! process; one that is missing is handed to it over a socket pair that exists for that only.
//!
//! An epoll forgets what is closed by itself, so what it watches besides goes with the new descriptors; anything else about it is a difference.
//! A file without a name (removed, or a memfd) keeps its bytes here; one that is written to and is neither that nor in a tree is refused.
//!
//! Not seen without a comparison: the close-on-exec flag. Not kept: what a peer outside the targets has been told; times of files without a
//! name. Refused: io_uring, and whatever is not known here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{FileType, OFlags, SeekFrom};
use rustix::net::RecvFlags;
use rustix::net::sockopt;

use crate::files::Files;
use crate::identity::{Difference, Obstacle};
use crate::kernel;
use crate::segments::Segments;
use crate::trace::Pid;

/// More open files of one process are refused: each is held by us, too.
const DESCRIPTORS_MAX: usize = 4096;
/// More bytes of a file without a name are refused.
const LOOSE_BYTES_MAX: u64 = 1 << 20;
const DRAIN_BYTES: usize = 64 * 1024;
/// Connections at a listener, or packets at a socket, that are taken before giving up.
const DRAIN_MAX: usize = 65_536;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// A file or folder; its place counts.
    File,
    /// A file without a name, with its bytes.
    Loose {
        bytes: Vec<u8>,
    },
    /// A file without a name that is shared memory, too: [`crate::segments`] has its bytes.
    Mapped,
    /// A device, or the writing end of a pipe: nothing of it is ours to put back.
    Plain,
    /// The reading end, with what waits in it.
    PipeEnd {
        bytes: Vec<u8>,
    },
    Listener,
    Socket,
    Event {
        count: u64,
    },
    /// What `fdinfo` shows must be the same.
    Shown {
        info: String,
    },
    /// What it watches must be the same, but for descriptors that are closed.
    Watcher {
        watched: BTreeSet<String>,
    },
}

/// One descriptor in the baseline.
#[derive(Debug)]
pub(crate) struct Descriptor {
    pub(crate) number: u32,
    pub(crate) held: OwnedFd,
    pub(crate) close_on_exec: bool,
    kind: Kind,
    flags: OFlags,
    place: Option<u64>,
}

/// All descriptors of one process in the baseline.
#[derive(Debug)]
pub(crate) struct Descriptors {
    pid: Pid,
    pub(crate) all: BTreeMap<u32, Descriptor>,
}

/// Whose bytes are put back elsewhere.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) trees: &'a [Files],
    pub(crate) segments: &'a Segments,
}

/// What a rewind does to them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Work {
    /// To be closed: new, or in the place of one that is missing.
    pub(crate) close: Vec<u32>,
    /// To be handed back.
    pub(crate) missing: Vec<u32>,
}

/// The descriptors that a process has.
pub(crate) fn numbers(pid: Pid) -> io::Result<BTreeSet<u32>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

fn info(pid: Pid, number: u32) -> io::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"))
}

/// The lines that tell of the thing itself, in an order of their own.
fn shown(info: &str) -> String {
    let common = ["pos:", "flags:", "mnt_id:", "ino:", "lock:"];
    let mut lines: Vec<_> =
        info.lines().filter(|line| !common.iter().any(|name| line.starts_with(name))).collect();
    lines.sort_unstable();
    lines.join("; ")
}

/// What an epoll watches, a line each: `tfd: NUMBER events: MASK data: VALUE pos: … ino: … sdev: …`.
fn watched(info: &str) -> BTreeSet<String> {
    let lines = info.lines().filter(|line| line.starts_with("tfd:"));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn target(line: &str) -> Option<u32> {
    line.split_whitespace().nth(1)?.parse().ok()
}

fn field(info: &str, name: &str) -> Option<u64> {
    let value = info.lines().find_map(|line| line.strip_prefix(name))?.trim();
    u64::from_str_radix(value, 16).ok()
}

impl Descriptors {
    /// Holds all of a stopped process, and says what forbids it.
    pub(crate) fn take(
        pid: Pid,
        handle: &OwnedFd,
        known: &Known<'_>,
        obstacles: &mut Vec<Obstacle>,
    ) -> io::Result<Self> {
        let mut all = BTreeMap::new();
        let numbers = numbers(pid)?;
        if numbers.len() > DESCRIPTORS_MAX {
            let what = format!("one of {}: at most {DESCRIPTORS_MAX} are held", numbers.len());
            obstacles.push(Obstacle::Descriptor { pid, number: 0, what });
            return Ok(Self { pid, all });
        }
        for number in numbers {
            match Descriptor::take(pid, handle, number, known)? {
                Ok(descriptor) => drop(all.insert(number, descriptor)),
                Err(Why::Never(what)) => obstacles.push(Obstacle::Descriptor { pid, number, what }),
                Err(Why::Now(what)) => obstacles.push(Obstacle::Unread { pid, number, what }),
            }
        }
        Ok(Self { pid, all })
    }

    /// What is to be done, and what cannot be. Touches nothing.
    pub(crate) fn compare(&self, differences: &mut Vec<Difference>) -> io::Result<Work> {
        let pid = self.pid;
        let mut now = numbers(pid)?;
        let mut work = Work::default();
        for (&number, descriptor) in &self.all {
            let there = now.remove(&number);
            let same = there && kernel::same_file(pid, number, descriptor.held.as_fd())?;
            if !same {
                work.missing.push(number);
                work.close.extend(there.then_some(number));
            }
            if let Some(what) = descriptor.lost(pid, same)? {
                differences.push(Difference::Descriptor { pid, number, what });
            }
        }
        work.close.extend(now);
        let closed: BTreeSet<_> = work.close.iter().copied().collect();
        for descriptor in self.all.values().filter(|descriptor| !closed.contains(&descriptor.number)) {
            if let Some(what) = descriptor.watches_another(pid, &closed)? {
                differences.push(Difference::Descriptor { pid, number: descriptor.number, what });
            }
        }
        Ok(work)
    }

    /// The numbers of those that can have locks.
    pub(crate) fn files(&self) -> impl Iterator<Item = u32> {
        let is_file = |kind: &Kind| matches!(kind, Kind::File | Kind::Mapped | Kind::Loose { .. });
        let files = self.all.iter().filter(move |(_, descriptor)| is_file(&descriptor.kind));
        files.map(|(number, _)| *number)
    }

    /// Inodes of all files that are open.
    pub(crate) fn inodes(&self) -> io::Result<Vec<u64>> {
        self.all.values().map(|descriptor| Ok(rustix::fs::fstat(&descriptor.held)?.st_ino)).collect()
    }

    /// What the open files have of their own, through our copies.
    pub(crate) fn restore(&self) -> io::Result<()> {
        self.all.values().try_for_each(|descriptor| descriptor.restore(self.pid))
    }

    pub(crate) fn differing(&self, differences: &mut Vec<Difference>) -> io::Result<()> {
        let pid = self.pid;
        let work = self.compare(differences)?;
        for number in work.close.into_iter().chain(work.missing) {
            differences.push(Difference::Descriptor {
                pid,
                number,
                what: "is new, missing or another".to_owned(),
            });
        }
        for (&number, descriptor) in &self.all {
            let what = descriptor.differing(pid)?;
            differences.extend(what.map(|what| Difference::Descriptor { pid, number, what }));
        }
        Ok(())
    }
}

impl Descriptor {
    fn take(pid: Pid, handle: &OwnedFd, number: u32, known: &Known<'_>) -> io::Result<Result<Self, Why>> {
        let name = fs::read_link(format!("/proc/{pid}/fd/{number}"))?;
        let name = name.to_string_lossy().into_owned();
        let held = kernel::copy_descriptor(handle.as_fd(), number)?;
        let info = info(pid, number)?;
        let kind = match kind(&held, &name, &info, known)? {
            Ok(kind) => kind,
            Err(why) => return Ok(Err(why)),
        };
        let place = match kind {
            Kind::File | Kind::Mapped | Kind::Loose { .. } => Some(rustix::fs::tell(&held)?),
            _ => None,
        };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).unwrap_or_default();
        let close_on_exec = OFlags::from_bits_retain(flags).contains(OFlags::CLOEXEC);
        let flags = rustix::fs::fcntl_getfl(&held)?;
        Ok(Ok(Self { number, held, close_on_exec, kind, flags, place }))
    }

    /// Device and inode as `/proc/locks` writes them.
    pub(crate) fn inode(&self) -> io::Result<String> {
        let status = rustix::fs::fstat(&self.held)?;
        let (major, minor) = (rustix::fs::major(status.st_dev), rustix::fs::minor(status.st_dev));
        Ok(format!("{major:02x}:{minor:02x}:{}", status.st_ino))
    }

    /// Why it cannot be put back.
    fn lost(&self, pid: Pid, same: bool) -> io::Result<Option<String>> {
        match &self.kind {
            Kind::Shown { .. } | Kind::Watcher { .. } if !same => Ok(Some("is gone or another".to_owned())),
            Kind::File if rustix::fs::fstat(&self.held)?.st_nlink == 0 => {
                Ok(Some("its file was removed".to_owned()))
            }
            Kind::Shown { info: was } => {
                let now = shown(&info(pid, self.number)?);
                Ok((now != *was).then(|| format!("was {was}, is {now}")))
            }
            Kind::Socket => {
                let mut byte = [0];
                let peeked = rustix::net::recv(&self.held, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
                let open = match peeked {
                    Ok((bytes, _)) => bytes > 0 || !streams(&self.held)?,
                    // Nothing to read, or a socket that is not connected, as it was.
                    Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOTCONN | rustix::io::Errno::INVAL) => {
                        true
                    }
                    Err(_) => false,
                };
                Ok((!open).then(|| "its peer is gone".to_owned()))
            }
            _ => Ok(None),
        }
    }

    /// Whether it watches something else once these are closed.
    fn watches_another(&self, pid: Pid, closed: &BTreeSet<u32>) -> io::Result<Option<String>> {
        let Kind::Watcher { watched: was } = &self.kind else { return Ok(None) };
        let mut is = watched(&info(pid, self.number)?);
        is.retain(|line| target(line).is_none_or(|number| !closed.contains(&number)));
        Ok((is != *was).then(|| format!("watched {was:?}, watches {is:?}")))
    }

    fn restore(&self, pid: Pid) -> io::Result<()> {
        if rustix::fs::fcntl_getfl(&self.held)? != self.flags {
            rustix::fs::fcntl_setfl(&self.held, self.flags)?;
        }
        match &self.kind {
            Kind::File | Kind::Mapped => self.restore_place(),
            Kind::Loose { bytes } => {
                if !holds(&self.held, bytes)? {
                    rewrite(&self.held, bytes)?;
                }
                self.restore_place()
            }
            Kind::PipeEnd { bytes } => set_pipe(&self.held, bytes),
            Kind::Listener => drain_listener(&self.held),
            Kind::Socket => drain_socket(&self.held),
            Kind::Event { count } => set_event(pid, self.number, &self.held, *count),
            Kind::Watcher { .. } => match self.watches_another(pid, &BTreeSet::new())? {
                Some(what) => Err(io::Error::other(what)),
                None => Ok(()),
            },
            Kind::Plain | Kind::Shown { .. } => Ok(()),
        }
    }

    fn restore_place(&self) -> io::Result<()> {
        if let Some(place) = self.place.filter(|place| rustix::fs::tell(&self.held).ok() != Some(*place)) {
            rustix::fs::seek(&self.held, SeekFrom::Start(place))?;
        }
        Ok(())
    }

    fn differing(&self, pid: Pid) -> io::Result<Option<String>> {
        if let Some(place) = self.place.filter(|place| rustix::fs::tell(&self.held).ok() != Some(*place)) {
            return Ok(Some(format!("is not at {place}")));
        }
        let info = info(pid, self.number)?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).unwrap_or_default();
        if OFlags::from_bits_retain(flags).contains(OFlags::CLOEXEC) != self.close_on_exec {
            return Ok(Some("closes on exec, or no longer does".to_owned()));
        }
        if rustix::fs::fcntl_getfl(&self.held)? != self.flags {
            return Ok(Some("has other flags".to_owned()));
        }
        match &self.kind {
            Kind::Event { count } if field(&info, "eventfd-count:") != Some(*count) => {
                Ok(Some(format!("does not count {count}")))
            }
            Kind::PipeEnd { bytes } if peek_pipe(&self.held)?.as_ref() != Some(bytes) => {
                Ok(Some("holds other bytes".to_owned()))
            }
            Kind::Loose { bytes } if !holds(&self.held, bytes)? => Ok(Some("has other bytes".to_owned())),
            Kind::Socket if rustix::io::ioctl_fionread(&self.held).unwrap_or(0) > 0 => {
                Ok(Some("holds bytes".to_owned()))
            }
            _ => Ok(None),
        }
    }
}

fn streams(held: &OwnedFd) -> io::Result<bool> {
    Ok(sockopt::socket_type(held)? != rustix::net::SocketType::DGRAM)
}

/// Why a descriptor cannot be put back.
#[derive(Debug, PartialEq, Eq)]
enum Why {
    /// Because of what it is.
    Never(String),
    /// Because of what waits in it.
    Now(&'static str),
}

/// What it is; or why it cannot be put back.
fn kind(held: &OwnedFd, name: &str, info: &str, known: &Known<'_>) -> io::Result<Result<Kind, Why>> {
    let kind = lasting_kind(held, name, info, known)?.map_err(Why::Never);
    Ok(match kind {
        Ok(Kind::Socket) if rustix::io::ioctl_fionread(held).unwrap_or(0) > 0 => {
            Err(Why::Now("a socket with bytes in it"))
        }
        kind => kind,
    })
}

fn lasting_kind(
    held: &OwnedFd,
    name: &str,
    info: &str,
    known: &Known<'_>,
) -> io::Result<Result<Kind, String>> {
    if let Some(anonymous) = name.strip_prefix("anon_inode:") {
        return Ok(match anonymous.trim_matches(['[', ']']) {
            "eventfd" => {
                field(info, "eventfd-count:").map(|count| Kind::Event { count }).ok_or("eventfd".to_owned())
            }
            "eventpoll" => Ok(Kind::Watcher { watched: watched(info) }),
            "signalfd" | "inotify" => Ok(Kind::Shown { info: shown(info) }),
            "timerfd" if !info.contains("it_value: (0, 0)") => Err("an armed timerfd".to_owned()),
            "timerfd" => Ok(Kind::Shown { info: shown(info) }),
            other => Err(other.to_owned()),
        });
    }
    let status = rustix::fs::fstat(held)?;
    Ok(match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile if status.st_nlink == 0 && known.segments.has(status.st_dev, status.st_ino) => {
            Ok(Kind::Mapped)
        }
        FileType::RegularFile if status.st_nlink == 0 => loose(held, status.st_size),
        FileType::RegularFile
            if writable(held)? && !known.trees.iter().any(|tree| tree.has(status.st_ino)) =>
        {
            Err(format!("a file that is written to and not put back: {name}"))
        }
        FileType::RegularFile | FileType::Directory => Ok(Kind::File),
        FileType::CharacterDevice => Ok(Kind::Plain),
        FileType::Fifo if rustix::fs::fcntl_getfl(held)?.contains(OFlags::WRONLY) => Ok(Kind::Plain),
        FileType::Fifo => {
            let bytes = peek_pipe(held)?;
            bytes
                .map(|bytes| Kind::PipeEnd { bytes })
                .ok_or("a pipe whose bytes cannot be looked at".to_owned())
        }
        FileType::Socket if sockopt::socket_acceptconn(held)? => Ok(Kind::Listener),
        FileType::Socket => Ok(Kind::Socket),
        _ => Err(format!("of a kind that is not known: {name}")),
    })
}

fn writable(held: &OwnedFd) -> io::Result<bool> {
    Ok(rustix::fs::fcntl_getfl(held)?.intersects(OFlags::WRONLY | OFlags::RDWR))
}

/// The same file, opened once more: what we hold may be open the other way, and has a place of its own to keep.
fn reopened(held: &OwnedFd, options: &fs::OpenOptions) -> io::Result<fs::File> {
    options.open(format!("/proc/self/fd/{}", held.as_raw_fd()))
}

fn loose(held: &OwnedFd, size: i64) -> Result<Kind, String> {
    if u64::try_from(size).unwrap_or(u64::MAX) > LOOSE_BYTES_MAX {
        return Err(format!("a file without a name of {size} bytes: at most {LOOSE_BYTES_MAX} are kept"));
    }
    let mut bytes = Vec::new();
    let read =
        reopened(held, fs::OpenOptions::new().read(true)).and_then(|mut file| file.read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(Kind::Loose { bytes }),
        Err(error) => Err(format!("a file without a name that cannot be read: {error}")),
    }
}

fn holds(held: &OwnedFd, bytes: &[u8]) -> io::Result<bool> {
    if rustix::fs::fstat(held)?.st_size != i64::try_from(bytes.len()).unwrap_or(i64::MAX) {
        return Ok(false);
    }
    if bytes.is_empty() {
        return Ok(true);
    }
    let mut now = Vec::with_capacity(bytes.len());
    reopened(held, fs::OpenOptions::new().read(true))?.read_to_end(&mut now)?;
    Ok(now == bytes)
}

fn rewrite(held: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let mut file = reopened(held, fs::OpenOptions::new().write(true))?;
    file.set_len(0)?;
    file.write_all(bytes)
}

fn ready(held: &OwnedFd) -> io::Result<bool> {
    let mut polled = [rustix::event::PollFd::new(held, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(rustix::event::poll(&mut polled, Some(&now))? > 0
        && polled[0].revents().contains(rustix::event::PollFlags::IN))
}

/// What waits in a pipe, left there (tee(2)). `None` if not all could be seen.
fn peek_pipe(held: &OwnedFd) -> io::Result<Option<Vec<u8>>> {
    let waiting = usize::try_from(rustix::io::ioctl_fionread(held)?).unwrap_or(usize::MAX);
    if waiting == 0 {
        return Ok(Some(Vec::new()));
    }
    let (out, into) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::pipe::fcntl_setpipe_size(&into, rustix::pipe::fcntl_getpipe_size(held)?)?;
    let seen = rustix::pipe::tee(held, &into, waiting, rustix::pipe::SpliceFlags::NONBLOCK)?;
    let mut bytes = vec![0; seen];
    let mut at = 0;
    while at < seen {
        at += rustix::io::read(&out, &mut bytes[at..])?;
    }
    Ok((seen == waiting).then_some(bytes))
}

/// Nobody else reads while the processes stand still, so what is said to be there can be read without blocking.
fn set_pipe(held: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    if peek_pipe(held)?.is_some_and(|now| now == bytes) {
        return Ok(());
    }
    let mut buffer = Vec::new();
    loop {
        let waiting = usize::try_from(rustix::io::ioctl_fionread(held)?).unwrap_or(usize::MAX);
        if waiting == 0 {
            break;
        }
        buffer.resize(waiting.min(DRAIN_BYTES), 0);
        rustix::io::read(held, &mut buffer)?;
    }
    if bytes.is_empty() {
        return Ok(());
    }
    // Another writing end of the same pipe, for a moment.
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    let mut writer = fs::File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    writer.write_all(bytes)
}

fn drain_listener(held: &OwnedFd) -> io::Result<()> {
    for _ in 0..DRAIN_MAX {
        if !ready(held)? {
            return Ok(());
        }
        drop(rustix::net::accept(held));
    }
    Err(io::Error::other("connections come faster than they are closed"))
}

fn drain_socket(held: &OwnedFd) -> io::Result<()> {
    let mut buffer = vec![0; DRAIN_BYTES];
    for _ in 0..DRAIN_MAX {
        match rustix::net::recv(held, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) if streams(held)? => return Err(io::Error::other("the peer of a socket is gone")),
            Ok(_) => {}
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOTCONN | rustix::io::Errno::INVAL) => {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other("a socket fills faster than it is emptied"))
}

fn set_event(pid: Pid, number: u32, held: &OwnedFd, count: u64) -> io::Result<()> {
    let now = field(&info(pid, number)?, "eventfd-count:");
    if now == Some(count) {
        return Ok(());
    }
    // A semaphore gives one at a time, so: until nothing is left.
    for _ in 0..DRAIN_MAX {
        if !ready(held)? {
            rustix::io::write(held, &count.to_ne_bytes())?;
            return Ok(());
        }
        rustix::io::read(held, &mut [0; 8])?;
    }
    Err(io::Error::other("an eventfd that does not empty"))
}
