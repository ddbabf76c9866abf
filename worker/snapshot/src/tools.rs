//! Programs that the pool runs: mkfs, mount, btrfs.
//!
//! Must not know: pools. Invariants: never a shell; a missing program is named with its package; what a program
//! says is bounded, and its "no space" is `Full`.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;

use crate::PoolError;

/// How much of a program's output an error carries.
const DETAIL_BYTES_MAX: usize = 2048;

/// A program and the Debian package that has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    name: &'static str,
    package: &'static str,
}

pub(crate) const MKFS_XFS: Tool = Tool { name: "mkfs.xfs", package: "xfsprogs" };
pub(crate) const MKFS_BTRFS: Tool = Tool { name: "mkfs.btrfs", package: "btrfs-progs" };
pub(crate) const BTRFS: Tool = Tool { name: "btrfs", package: "btrfs-progs" };
pub(crate) const MOUNT: Tool = Tool { name: "mount", package: "mount" };
pub(crate) const LOSETUP: Tool = Tool { name: "losetup", package: "mount" };
/// Runs a program with a limit of time.
pub(crate) const TIMEOUT: Tool = Tool { name: "timeout", package: "coreutils" };
pub(crate) const XFS_GROWFS: Tool = Tool { name: "xfs_growfs", package: "xfsprogs" };

/// Runs a program to its end; `about` is the path that a lack of space is reported on.
pub(crate) fn run(tool: Tool, args: &[&OsStr], about: &Path) -> Result<(), PoolError> {
    let mut command = Command::new(tool.name);
    command.args(args).env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => PoolError::ToolMissing { tool: tool.name, package: tool.package },
        _ => PoolError::Io { action: "run", path: tool.name.into(), source },
    })?;
    if output.status.success() {
        return Ok(());
    }
    // Checkers talk on stdout.
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    let said = String::from_utf8_lossy(said);
    let said: String = said.trim().chars().take(DETAIL_BYTES_MAX).collect();
    if said.contains("No space left on device") || said.contains("Disk quota exceeded") {
        return Err(PoolError::full("run a program on", about, Errno::NOSPC.into()));
    }
    let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    let detail = format!("{}, it said: {}", output.status, if said.is_empty() { "nothing" } else { &said });
    Err(PoolError::Tool { command: format!("{} {}", tool.name, words.join(" ")), detail })
}
