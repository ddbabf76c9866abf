//! What can go wrong in the pool, by name. Messages read as a chain: each names its thing, the cause is the source.
//!
//! Must not know: who shows them. Invariant: a full disk is always `Full`, whatever system call met it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use thiserror::Error;

use crate::PoolKind;
use crate::archive::ImportRefusal;
use crate::full::FullFs;

/// A failure of the pool.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PoolError {
    /// A system call failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `rename`.
        action: &'static str,
        /// The file or folder it was tried on.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No space, no inodes or no quota left where the pool lives.
    #[error("the pool is full: cannot {action} {}: {full}", path.display())]
    Full {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder it was tried on.
        path: PathBuf,
        /// The file system, what it has left, and what to do.
        full: Box<FullFs>,
        /// The system's answer.
        source: io::Error,
    },
    /// The kind that was asked for cannot be had here.
    #[error("a pool of kind `{kind}` is not possible at {}: {missing}", root.display())]
    KindImpossible {
        /// The kind that was asked for.
        kind: PoolKind,
        /// Where the pool was to be.
        root: PathBuf,
        /// What is missing.
        missing: String,
    },
    /// The pool was made as another kind, and its baselines cannot be read as this one.
    #[error("the pool at {} was made as `{was}` and cannot be opened as `{now}`; remove the folder to start anew", root.display())]
    KindChanged {
        /// Where the pool is.
        root: PathBuf,
        /// The kind it was made as.
        was: PoolKind,
        /// The kind that was chosen now.
        now: PoolKind,
    },
    /// Another process has the pool open.
    #[error("the pool at {} is open in another process", root.display())]
    AlreadyOpen {
        /// Where the pool is.
        root: PathBuf,
    },
    /// The file that holds the pool's file system cannot be mounted.
    #[error("the pool's image {} cannot be mounted ({detail})", image.display())]
    ImageUnusable {
        /// The image file.
        image: PathBuf,
        /// What `mount` said.
        detail: String,
    },
    /// The file that holds the pool's file system is not a sound one.
    #[error(
        "the pool's image {} is damaged ({detail}); repair it with `xfs_repair` or `btrfs check --repair`, or move it away \
         and start with an empty pool: what it holds is fetched or seeded again", image.display()
    )]
    ImageDamaged {
        /// The image file.
        image: PathBuf,
        /// What `mount` or the checker said.
        detail: String,
    },
    /// The image cannot be mounted for want of a loop device.
    #[error(
        "no loop device can be had for the pool's image {} ({detail}); {in_use} are in use on this host (`losetup -a`): \
         detach some, or give this container /dev/loop-control and block devices of major 7", image.display()
    )]
    NoLoopDevice {
        /// The image file.
        image: PathBuf,
        /// How many have a file.
        in_use: usize,
        /// What `mount` said.
        detail: String,
    },
    /// A program that the pool needs is not installed.
    #[error("the program `{tool}` is missing: install the package {package}")]
    ToolMissing {
        /// The program.
        tool: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program that the pool needs failed.
    #[error("`{command}` failed: {detail}")]
    Tool {
        /// The command line.
        command: String,
        /// Its exit and what it said.
        detail: String,
    },
    /// A name that cannot be taken.
    #[error("the {what} {name:?} is not valid: {why}")]
    BadName {
        /// `lane name`, `baseline key` or `tree name`.
        what: &'static str,
        /// The name.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// A staging already holds a tree of that name.
    #[error("the baseline being staged as `{key}` already has a tree `{tree}`")]
    TreeExists {
        /// The key being staged.
        key: String,
        /// The tree.
        tree: String,
    },
    /// A baseline has no such tree.
    #[error("baseline `{key}` has no tree `{tree}`; it has: {}", list(trees))]
    NoSuchTree {
        /// The baseline's key.
        key: String,
        /// The tree that was asked for.
        tree: String,
        /// What there is.
        trees: Vec<String>,
    },
    /// The lane is open already.
    #[error("lane `{lane}` already has a clone")]
    LaneInUse {
        /// The lane.
        lane: String,
    },
    /// Lanes, or clones that were not discarded yet, stand on the baseline.
    #[error("baseline `{key}` is in use by {users} clone(s)")]
    BaselineInUse {
        /// The baseline's key.
        key: String,
        /// How many clones.
        users: usize,
    },
    /// The baseline was removed from the pool.
    #[error("baseline `{key}` is no longer in the pool")]
    BaselineGone {
        /// The baseline's key.
        key: String,
    },
    /// A stored baseline is not what was published.
    #[error("baseline `{key}` is damaged: {detail}")]
    BaselineDamaged {
        /// The baseline's key.
        key: String,
        /// What was found.
        detail: String,
    },
    /// A file of a kind that a tree cannot hold, or a tree beyond the limits.
    #[error("cannot take {} into a tree: {why}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// An archive that is refused.
    #[error("refused to import tree `{tree}`")]
    Import {
        /// The tree.
        tree: String,
        /// Why.
        #[source]
        source: ImportRefusal,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl PoolError {
    /// A failed system call.
    pub(crate) fn of(action: &'static str, path: &Path, source: io::Error) -> PoolError {
        if means_full(&source) {
            PoolError::full(action, path, source)
        } else {
            PoolError::Io { action, path: path.to_owned(), source }
        }
    }

    /// Looks which file system is full.
    pub(crate) fn full(action: &'static str, path: &Path, source: io::Error) -> PoolError {
        PoolError::Full { action, path: path.to_owned(), full: Box::new(FullFs::of(path)), source }
    }

    /// Where it means a full file system: says how many bytes were to be written.
    pub(crate) fn needing(mut self, bytes: u64) -> PoolError {
        if let PoolError::Full { full, .. } = &mut self {
            full.needed = Some(bytes);
        }
        self
    }
}

/// An error and what caused it, in one line.
pub(crate) fn line(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", line(source)),
        None => error.to_string(),
    }
}

/// True where the system says that space, inodes or quota ran out.
pub(crate) fn means_full(error: &io::Error) -> bool {
    [Errno::NOSPC, Errno::DQUOT].iter().any(|full| error.raw_os_error() == Some(full.raw_os_error()))
}

/// Gives a system call's error its verb and its path.
pub(crate) trait Context<T> {
    /// Names what was tried, on what.
    fn ctx(self, action: &'static str, path: &Path) -> Result<T, PoolError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn ctx(self, action: &'static str, path: &Path) -> Result<T, PoolError> {
        self.map_err(|error| PoolError::of(action, path, error.into()))
    }
}
