//! The pool's own file system in a file, `pool.img`, where the host's file system cannot clone.
//!
//! Must not know: baselines, lanes. Invariants: an image is made under another name and renamed when it is whole, so a
//! crash never leaves half a file system; it is mounted by `mount -o loop`, whose loop device goes away with the mount
//! (one that was set up by `losetup` stays when its container is killed).

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat, statvfs};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::error::Context as _;
use crate::pool::LoopFs;
use crate::{PoolError, mounts, tools};

/// The largest image that is made unasked.
const IMAGE_BYTES_DEFAULT_MAX: u64 = 64 << 30;
/// mkfs.xfs refuses less than 300 MB.
const IMAGE_BYTES_MIN: u64 = 320 << 20;
/// Loop devices that get a node where `/dev` is a container's own, beyond those that the kernel has already.
const LOOP_NODES_SPARE: u32 = 16;
/// The driver's numbers, from the kernel's devices.txt: loop devices are block 7, loop-control is character 10/237.
const LOOP_MAJOR: u32 = 7;
const LOOP_CONTROL: (u32, u32) = (10, 237);

/// Mounts the image at `at`, making it if it is not there; fine if it is mounted already.
pub(crate) fn mount(image: &Path, at: &Path, bytes: Option<u64>, fs_kind: LoopFs) -> Result<(), PoolError> {
    if let Some(fs_type) = mounts::mounted_at(at)? {
        // The process was killed, its mount namespace lives on.
        return match fs_type.as_str() {
            "xfs" | "btrfs" => Ok(()),
            other => Err(PoolError::ImageUnusable {
                image: image.to_owned(),
                detail: format!("{} is a mount of {other}", at.display()),
            }),
        };
    }
    fs::create_dir_all(at).ctx("make", at)?;
    make_loop_nodes()?;
    let is_new = !image.exists();
    if is_new {
        make(image, bytes, fs_kind)?;
    }
    // No `-t`: the image says what it is. Deleted clones give their space back to the host (`discard`).
    let args = ["-o", "loop,noatime,discard"].map(OsStr::new);
    let args = [&args[..], &[image.as_os_str(), at.as_os_str()]].concat();
    let Err(error) = tools::run(tools::MOUNT, &args, image) else { return Ok(()) };
    if is_new {
        // A host that cannot mount it needs none: it must not look like a pool at the next open.
        fs::remove_file(image).ctx("remove", image)?;
        return Err(error);
    }
    match error {
        PoolError::Tool { detail, .. } => Err(PoolError::ImageUnusable { image: image.to_owned(), detail }),
        other => Err(other),
    }
}

/// Unmounts the image's file system.
pub(crate) fn unmount_image(at: &Path) -> Result<(), PoolError> {
    match unmount(at, UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(error).ctx("unmount", at),
    }
}

fn make(image: &Path, bytes: Option<u64>, fs_kind: LoopFs) -> Result<(), PoolError> {
    let root = image.parent().expect("an image lies in the pool's root");
    let free = statvfs(root).ctx("read the free space of", root)?;
    let free = free.f_bavail * free.f_frsize;
    let bytes = bytes.unwrap_or_else(|| IMAGE_BYTES_DEFAULT_MAX.min(free / 5 * 4));
    if bytes < IMAGE_BYTES_MIN {
        let source = Errno::NOSPC.into();
        return Err(PoolError::Full {
            action: "make an image of at least 320 MiB at",
            path: image.to_owned(),
            source,
        });
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
