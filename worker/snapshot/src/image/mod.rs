//! The pool's own file system in a file, `pool.img`, where the host's file system cannot clone.
//!
//! It starts at a moderate size and grows (grow.rs); one that was not closed is checked (check.rs).
//!
//! Must not know: baselines, lanes. Invariants: an image is made under another name and renamed when it is whole, so a
//! crash never leaves half a file system; it is mounted by `mount -o loop`, whose loop device goes away with the mount
//! (one that was set up by `losetup` stays when its container is killed).

mod check;
mod grow;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

pub(crate) use grow::Room;

use crate::error::Context as _;
use crate::pool::{LoopFs, PoolOptions};
use crate::{PoolError, mounts, tools};

/// The size that an image is made with unasked; no more than 80% of what is free.
const IMAGE_BYTES_START: u64 = 8 << 30;
/// The largest size that it grows to unasked.
const IMAGE_BYTES_DEFAULT_MAX: u64 = 256 << 30;
/// mkfs.xfs refuses less than 300 MB.
const IMAGE_BYTES_MIN: u64 = 320 << 20;
/// How often a busy image is unmounted again, and the pause between.
const UNMOUNT_TRIES_MAX: u32 = 50;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(10);
/// Loop devices that get a node where `/dev` is a container's own, beyond those that the kernel has already.
const LOOP_NODES_SPARE: u32 = 16;
/// The driver's numbers, from the kernel's devices.txt: loop devices are block 7, loop-control is character 10/237.
const LOOP_MAJOR: u32 = 7;
const LOOP_CONTROL: (u32, u32) = (10, 237);

/// The image of an open pool.
#[derive(Debug)]
pub(crate) struct Image {
    file: PathBuf,
    at: PathBuf,
    limit: u64,
    growing: Mutex<()>,
    grown: AtomicU64,
    /// Why the last attempt to grow failed.
    failure: Mutex<Option<String>>,
}

impl Image {
    pub(crate) fn new(file: &Path, at: &Path, options: &PoolOptions) -> Image {
        Image {
            file: file.to_owned(),
            at: at.to_owned(),
            limit: options.image_bytes_max.unwrap_or(IMAGE_BYTES_DEFAULT_MAX),
            growing: Mutex::new(()),
            grown: AtomicU64::new(0),
            failure: Mutex::new(None),
        }
    }

    pub(crate) fn room(&self) -> Result<Room, PoolError> {
        Room::of(&self.file, &self.at, self.limit)
    }

    /// Grows it if little is left beside the `need` bytes that are about to be written: the sizes before and after. Who
    /// finds it growing goes on; a failure is kept for whoever asks, because what is there can still be used.
    pub(crate) fn grow_for(&self, need: u64) -> Option<(u64, u64)> {
        let _growing = match self.growing.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let grown = self.room().and_then(|room| {
            let Some(next) = room.next_size(need) else { return Ok(None) };
            grow::grow(&self.file, &self.at, next).map(|()| Some((room.size, next)))
        });
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match grown {
            Ok(grown) => {
                if grown.is_some() {
                    self.grown.fetch_add(1, Ordering::Relaxed);
                    *failure = None;
                }
                grown
            }
            Err(error) => {
                *failure = Some(crate::error::line(&error));
                None
            }
        }
    }

    pub(crate) fn grown(&self) -> u64 {
        self.grown.load(Ordering::Relaxed)
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Unmounts it.
    pub(crate) fn unmount(&self) -> Result<(), PoolError> {
        unmount_image(&self.file, &self.at)
    }
}

/// Mounts the image at `at`, making it if it is not there; fine if it is mounted already. What the operator should know
/// goes into `notes`.
pub(crate) fn mount(
    image: &Path,
    at: &Path,
    options: &PoolOptions,
    fs_kind: LoopFs,
    notes: &mut Vec<String>,
) -> Result<(), PoolError> {
    if let Some(mount) = mounts::mounted_at(at)? {
        // The process was killed, its mount namespace lives on.
        return match mount.fs_type.as_str() {
            "xfs" | "btrfs" => Ok(()),
            other => Err(PoolError::ImageUnusable {
                image: image.to_owned(),
                detail: format!("{} is a mount of {other}", at.display()),
            }),
        };
    }
    fs::create_dir_all(at).ctx("make", at)?;
    make_loop_nodes()?;
    if image.exists() {
        match mount_again(image, at, notes) {
            Err(error @ PoolError::ImageDamaged { .. }) if options.set_aside_damaged => {
                let aside = check::set_aside(image)?;
                notes.push(format!("{error}; it was set aside as {}, and made anew", aside.display()));
            }
            other => return other,
        }
    }
    make(image, options, fs_kind)?;
    let Err(error) = mount_file(image, at) else { return check::opened(image) };
    // A host that cannot mount it needs none: it must not look like a pool at the next open.
    fs::remove_file(image).ctx("remove", image)?;
    Err(error)
}

/// Mounts an image of an earlier life.
fn mount_again(image: &Path, at: &Path, notes: &mut Vec<String>) -> Result<(), PoolError> {
    let unclean = check::is_unclean(image);
    // Mounting replays the log of one that was not unmounted.
    mount_file(image, at)?;
    if unclean && let Some(mount) = mounts::mounted_at(at)? {
        unmount_free(at)?;
        let note = check::examine(image, &mount.fs_type)?;
        notes.push(format!("{} was not closed; it was mounted and checked again", image.display()));
        notes.extend(note);
        mount_file(image, at)?;
        if let Err(error) = grow::settle(at) {
            notes.push(format!("{} cannot use all of its length: {error}", image.display()));
        }
    }
    check::opened(image)
}

fn mount_file(image: &Path, at: &Path) -> Result<(), PoolError> {
    // No `-t`: the image says what it is. Deleted clones give their space back to the host (`discard`).
    let args = ["-o", "loop,noatime,discard"].map(OsStr::new);
    let args = [&args[..], &[image.as_os_str(), at.as_os_str()]].concat();
    match tools::run(tools::MOUNT, &args, image) {
        Err(PoolError::Tool { detail, .. }) => Err(not_mounted(image, detail)),
        other => other,
    }
}

/// What `mount` meant, by its words (util-linux `libmount/src/context_mount.c`, LC_ALL=C).
fn not_mounted(image: &Path, detail: String) -> PoolError {
    let image = image.to_owned();
    let says = |words: &[&str]| words.iter().any(|word| detail.contains(word));
    // Without one `mount` says "failed to setup loop device", or only "Operation not permitted".
    let no_loop = tools::run(tools::LOSETUP, &[OsStr::new("-f")], &image).err();
    if no_loop.is_some() || says(&["loop device"]) {
        let detail = no_loop.map_or(detail, |error| error.to_string());
        return PoolError::NoLoopDevice { image, in_use: loops_in_use(), detail };
    }
    if says(&["bad superblock", "can't read superblock", "Structure needs cleaning", "Input/output error"]) {
        return PoolError::ImageDamaged { image, detail };
    }
    PoolError::ImageUnusable { image, detail }
}

/// Unmounts the image's file system.
pub(crate) fn unmount_image(image: &Path, at: &Path) -> Result<(), PoolError> {
    unmount_free(at)?;
    check::closed(image)
}

/// Unmounts what nobody uses. A program that is just being started holds copies of all files that are open until it is
/// exec'd: that makes a mount busy for a moment, and nothing tells when it is over.
fn unmount_free(at: &Path) -> Result<(), PoolError> {
    for _ in 1..UNMOUNT_TRIES_MAX {
        match unmount(at, UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL) => return Ok(()),
            Err(Errno::BUSY) => pause(),
            Err(error) => return Err(error).ctx("unmount", at),
        }
    }
    unmount(at, UnmountFlags::NOFOLLOW).ctx("unmount", at)
}

#[expect(clippy::disallowed_methods, reason = "nobody tells when a started program has let go of the mount")]
fn pause() {
    std::thread::sleep(UNMOUNT_PAUSE);
}

fn make(image: &Path, options: &PoolOptions, fs_kind: LoopFs) -> Result<(), PoolError> {
    let (free, _) = grow::host(image)?;
    let bytes = options.image_bytes.unwrap_or_else(|| IMAGE_BYTES_START.min(free / 5 * 4));
    let bytes = bytes.min(options.image_bytes_max.unwrap_or(u64::MAX));
    if bytes < IMAGE_BYTES_MIN {
        let action = "make an image of at least 320 MiB at";
        return Err(PoolError::full(action, image, Errno::NOSPC.into()));
    }
    let unfinished = image.with_extension("img.new");
    let file = fs::File::create(&unfinished).ctx("create", &unfinished)?;
    file.set_len(bytes).ctx("size", &unfinished)?;
    // `-K` resp. `--nodiscard`: there is nothing to discard in a file of holes.
    let (tool, args) = match fs_kind {
        LoopFs::Xfs => (tools::MKFS_XFS, &["-q", "-f", "-K", "-m", "reflink=1,bigtime=1"][..]),
        LoopFs::Btrfs => (tools::MKFS_BTRFS, &["-q", "-f", "--nodiscard", "-m", "single"][..]),
    };
    let args: Vec<&OsStr> = args.iter().map(OsStr::new).chain([unfinished.as_os_str()]).collect();
    if let Err(error) = tools::run(tool, &args, &unfinished) {
        fs::remove_file(&unfinished).ctx("remove", &unfinished)?;
        return Err(error);
    }
    file.sync_all().ctx("sync", &unfinished)?;
    fs::rename(&unfinished, image).ctx("rename", &unfinished)
}

/// How many loop devices of the host have a file.
fn loops_in_use() -> usize {
    let known = fs::read_dir("/sys/block").into_iter().flatten().filter_map(Result::ok);
    known.filter(|entry| entry.path().join("loop/backing_file").exists()).count()
}

/// A container has its own `/dev`, without nodes for loop devices: make them. Nothing happens where they exist.
fn make_loop_nodes() -> Result<(), PoolError> {
    let node = |name: &str, kind, device| {
        let path = Path::new("/dev").join(name);
        match mknodat(CWD, &path, kind, Mode::RUSR | Mode::WUSR, device) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error).ctx("make the device", &path),
        }
    };
    let (major, minor) = LOOP_CONTROL;
    node("loop-control", FileType::CharacterDevice, makedev(major, minor))?;
    let known = fs::read_dir("/sys/block").into_iter().flatten().filter_map(Result::ok);
    let numbers =
        known.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("loop")?.parse::<u32>().ok());
    let beyond = numbers.max().map_or(0, |number| number + 1) + LOOP_NODES_SPARE;
    (0..beyond).try_for_each(|number| {
        node(&format!("loop{number}"), FileType::BlockDevice, makedev(LOOP_MAJOR, number))
    })
}
