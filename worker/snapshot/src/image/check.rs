//! An image from an earlier life: was it closed, is it sound, and what becomes of one that is not.
//!
//! ```text
//!   mounted: pool.img.open beside it      unmounted: gone
//!   at the next open it is still there ──> mount (the log is replayed) ──> unmount ──> xfs_repair -n / btrfs check
//!   damaged ──> told by name, or, where that is allowed, set aside as pool.img.broken-N
//! ```
//!
//! Must not know: how images are made or grow. Invariants: nothing here repairs or writes to an image; at most
//! `BROKEN_KEPT_MAX` are kept, the newest.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Context as _;
use crate::{PoolError, tools};

/// Damaged images that are kept for whoever wants to look.
const BROKEN_KEPT_MAX: usize = 2;
/// How long a check may take; one that does not end is noted, and the image is used.
const CHECK_SECS_MAX: &str = "60";
/// What `timeout` exits with when it had to end the program.
const TIMED_OUT: &str = "exit status: 124";

fn marker(image: &Path) -> PathBuf {
    image.with_extension("img.open")
}

/// True where the image was mounted and not unmounted by `closed`.
pub(crate) fn is_unclean(image: &Path) -> bool {
    marker(image).exists()
}

/// Notes that the image is mounted.
pub(crate) fn opened(image: &Path) -> Result<(), PoolError> {
    let path = marker(image);
    fs::File::create(&path).and_then(|file| file.sync_all()).ctx("create", &path)
}

/// Notes that it was unmounted as it should be.
pub(crate) fn closed(image: &Path) -> Result<(), PoolError> {
    let path = marker(image);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).ctx("remove", &path),
        _ => Ok(()),
    }
}

/// Reads the structure of an image that is not mounted and whose log is clean; a note where that could not be done.
pub(crate) fn examine(image: &Path, fs_type: &str) -> Result<Option<String>, PoolError> {
    let program = match fs_type {
        "btrfs" => &["btrfs", "check", "--readonly"][..],
        _ => &["xfs_repair", "-n", "-f"],
    };
    let words = [CHECK_SECS_MAX].iter().chain(program).map(OsStr::new);
    let args: Vec<&OsStr> = words.chain([image.as_os_str()]).collect();
    match tools::run(tools::TIMEOUT, &args, image) {
        Ok(()) => Ok(None),
        Err(PoolError::Tool { detail, .. }) if detail.starts_with(TIMED_OUT) => {
            Ok(Some(format!("{} was not checked to the end in {CHECK_SECS_MAX} s", image.display())))
        }
        Err(PoolError::Tool { command, detail }) => {
            Err(PoolError::ImageDamaged { image: image.to_owned(), detail: format!("`{command}`: {detail}") })
        }
        Err(error) => Ok(Some(format!("{} was not checked: {error}", image.display()))),
    }
}

/// Moves a damaged image out of the way, and deletes the oldest of those that were moved before; its new name.
pub(crate) fn set_aside(image: &Path) -> Result<PathBuf, PoolError> {
    let prefix = "pool.img.broken-";
    let root = image.parent().expect("an image lies in the pool's root");
    let names = fs::read_dir(root).ctx("list", root)?.filter_map(Result::ok);
    let mut numbers: Vec<u64> =
        names.filter_map(|entry| entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()).collect();
    numbers.sort_unstable();
    let path = |number: u64| root.join(format!("{prefix}{number}"));
    let aside = path(numbers.last().map_or(1, |last| last + 1));
    fs::rename(image, &aside).ctx("rename", image)?;
    let excess = (numbers.len() + 1).saturating_sub(BROKEN_KEPT_MAX);
    for number in &numbers[..excess] {
        fs::remove_file(path(*number)).ctx("remove", &path(*number))?;
    }
    closed(image)?;
    Ok(aside)
}
