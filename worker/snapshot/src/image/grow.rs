//! When an image grows, to what size, and growing it while it is mounted.
//!
//! ```text
//!   file longer ──> loop device told (losetup -c) ──> file system told (xfs_growfs, btrfs filesystem resize)
//! ```
//!
//! Must not know: baselines, lanes. Invariants: an image never grows beyond its limit, nor beyond what the host could
//! hold if all of it were written; it never shrinks. A growth that was cut off between two steps is finished at the next
//! open after it (`settle`).

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::statvfs;

use crate::error::Context as _;
use crate::{PoolError, mounts, tools};

/// The share of an image that is kept free, and the most of it.
const LOW_SHARE: u64 = 4;
const LOW_BYTES_MAX: u64 = 8 << 30;
/// Smaller steps are not worth it: XFS adds at least one allocation group for each.
const STEP_BYTES_MIN: u64 = 64 << 20;
/// Sizes are multiples of this.
const GRAIN_BYTES: u64 = 16 << 20;
/// What is left to the host beside the pool: the smaller of these.
const HOST_RESERVE_SHARE: u64 = 20;
const HOST_RESERVE_BYTES_MAX: u64 = 1 << 30;

/// What is known of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// The file's length: what the image may take of the host in the end.
    pub(crate) size: u64,
    /// What it takes of the host now.
    pub(crate) allocated: u64,
    /// What is free in it.
    pub(crate) free: u64,
    /// What is free on the host.
    pub(crate) host_free: u64,
    /// What the host has to keep.
    pub(crate) host_reserve: u64,
    /// The largest size that the operator allows.
    pub(crate) limit: u64,
}

impl Room {
    /// Reads the room of the image that is mounted at `at`.
    pub(crate) fn of(image: &Path, at: &Path, limit: u64) -> Result<Room, PoolError> {
        let file = fs::metadata(image).ctx("read", image)?;
        let inside = statvfs(at).ctx("read the free space of", at)?;
        let (host_free, host_reserve) = host(image)?;
        Ok(Room {
            size: file.len(),
            allocated: file.blocks() * 512,
            free: inside.f_bavail * inside.f_frsize,
            host_free,
            host_reserve,
            limit,
        })
    }

    /// The largest size that it can have now.
    pub(crate) fn reachable(&self) -> u64 {
        let host_holds = self.allocated + self.host_free.saturating_sub(self.host_reserve);
        self.limit.min(host_holds).max(self.size)
    }

    /// What could be written to it, growth included.
    pub(crate) fn usable(&self) -> u64 {
        (self.free + self.reachable() - self.size).min(self.host_free)
    }

    /// The size to grow to before `need` bytes are written; `None` where it has enough free, or cannot grow.
    pub(crate) fn next_size(&self, need: u64) -> Option<u64> {
        let low = (self.size / LOW_SHARE).min(LOW_BYTES_MAX);
        let wanted_free = need.saturating_add(low);
        if self.free >= wanted_free {
            return None;
        }
        let for_need = self.size.saturating_add(wanted_free - self.free);
        let next = self.size.saturating_mul(2).max(for_need).min(self.reachable());
        let next = next / GRAIN_BYTES * GRAIN_BYTES;
        (next >= self.size + STEP_BYTES_MIN).then_some(next)
    }
}

/// What is free on the file system that holds `path`, and what of it is not for images.
pub(crate) fn host(path: &Path) -> Result<(u64, u64), PoolError> {
    let root = path.parent().expect("an image lies in the pool's root");
    let host = statvfs(root).ctx("read the free space of", root)?;
    let reserve = (host.f_blocks * host.f_frsize / HOST_RESERVE_SHARE).min(HOST_RESERVE_BYTES_MAX);
    Ok((host.f_bavail * host.f_frsize, reserve))
}

/// Makes the image `size` bytes long, and lets its mounted file system know.
pub(crate) fn grow(image: &Path, at: &Path, size: u64) -> Result<(), PoolError> {
    let file = fs::File::options().write(true).open(image).ctx("open", image)?;
    file.set_len(size).ctx("lengthen", image)?;
    settle(at)
}

/// Lets the file system that is mounted at `at` have all of its file.
pub(crate) fn settle(at: &Path) -> Result<(), PoolError> {
    let Some(mount) = mounts::mounted_at(at)? else { return Ok(()) };
    tools::run(tools::LOSETUP, &[OsStr::new("-c"), mount.source.as_os_str()], at)?;
    match mount.fs_type.as_str() {
        "btrfs" => {
            let args = ["filesystem", "resize", "max"].map(OsStr::new);
            tools::run(tools::BTRFS, &[&args[..], &[at.as_os_str()]].concat(), at)
        }
        _ => tools::run(tools::XFS_GROWFS, &[OsStr::new("-d"), at.as_os_str()], at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    fn room() -> Room {
        Room {
            size: 8 * GIB,
            allocated: 6 * GIB,
            free: GIB,
            host_free: 100 * GIB,
            host_reserve: GIB,
            limit: 64 * GIB,
        }
    }

    #[test]
    fn a_low_image_doubles_and_one_with_room_stays() {
        assert_eq!(room().next_size(0), Some(16 * GIB));
        assert_eq!(Room { free: 2 * GIB, ..room() }.next_size(0), None);
        assert_eq!(Room { free: 2 * GIB, ..room() }.next_size(1), Some(16 * GIB));
        assert_eq!(room().next_size(30 * GIB), Some(39 * GIB));
    }

    #[test]
    fn the_limit_and_the_host_hold_it_back() {
        assert_eq!(Room { limit: 9 * GIB, ..room() }.next_size(0), Some(9 * GIB));
        assert_eq!(Room { limit: 8 * GIB, ..room() }.next_size(0), None);
        // 6 GiB are on the host already; 3 of its 4 free ones may be taken.
        assert_eq!(Room { host_free: 4 * GIB, ..room() }.next_size(0), Some(9 * GIB));
        assert_eq!(Room { host_free: 2 * GIB, ..room() }.next_size(0), None);
        assert_eq!(Room { host_free: 2 * GIB, ..room() }.usable(), GIB);
        assert_eq!(room().usable(), 57 * GIB);
    }

    proptest! {
        #[test]
        fn whatever_the_room_growth_is_worth_it_and_stays_within_limit_and_host(
            size in 1u64..1 << 45, allocated in 0u64..1 << 45, free in 0u64..1 << 45,
            host_free in 0u64..1 << 45, host_reserve in 0u64..1 << 30, limit in 0u64..1 << 45,
            need in prop_oneof![0u64..1 << 45, Just(u64::MAX)],
        ) {
            let room = Room {
                size, allocated: allocated.min(size), free: free.min(size), host_free, host_reserve, limit,
            };
            if let Some(next) = room.next_size(need) {
                prop_assert!(next >= size + STEP_BYTES_MIN);
                prop_assert!(next <= limit);
                prop_assert!(next - room.allocated <= host_free.saturating_sub(host_reserve));
            }
            prop_assert!(room.usable() <= host_free);
            prop_assert!(room.reachable() >= size);
        }
    }
}
