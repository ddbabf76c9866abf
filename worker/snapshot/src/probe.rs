//! Which kind of pool can be had in a folder: found out by trying, not by the file system's name alone.
//!
//! Must not know: baselines, lanes. Invariants: what a trial makes is gone after it; a forced kind is either had or
//! refused with what is missing; without force the fastest kind is had, with a note on each that was not.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{ioctl_ficlone, statfs};

use crate::error::{Context as _, line};
use crate::image::Image;
use crate::pool::{LoopFs, PoolKind, PoolOptions};
use crate::tree::{data, remove};
use crate::{PoolError, driver, image, mounts};

/// The folder that trials happen in.
const TRIAL: &str = ".trial";
/// btrfs's magic number, from the kernel's magic.h.
const BTRFS_MAGIC: u64 = 0x9123_683E;

/// What was chosen.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) kind: PoolKind,
    /// The pool's folder, on the file system that can do it.
    pub(crate) dir: PathBuf,
    /// What is mounted at `dir`, where the host's own file system would not do.
    pub(crate) image: Option<Image>,
    /// Why faster kinds were not chosen.
    pub(crate) notes: Vec<String>,
}

/// Chooses for the folder `root`, and mounts an image where one is needed.
pub(crate) fn choose(root: &Path, options: &PoolOptions) -> Result<Choice, PoolError> {
    let mut chooser = Chooser { root, options, notes: Vec::new() };
    let chosen = match options.kind {
        Some(kind) => chooser.forced(kind)?,
        None => chooser.best()?,
    };
    let (kind, in_image) = chosen;
    let image = in_image.then(|| Image::new(&chooser.image(), &chooser.dir(), options));
    Ok(Choice { kind, dir: chooser.dir(), image, notes: chooser.notes })
}

struct Chooser<'a> {
    root: &'a Path,
    options: &'a PoolOptions,
    notes: Vec<String>,
}

impl Chooser<'_> {
    fn dir(&self) -> PathBuf {
        self.root.join("pool")
    }

    fn image(&self) -> PathBuf {
        self.root.join("pool.img")
    }

    fn has_image(&self) -> bool {
        self.image().exists()
    }

    fn best(&mut self) -> Result<(PoolKind, bool), PoolError> {
        if !self.has_image() {
            for kind in [PoolKind::Btrfs, PoolKind::Reflink] {
                if self.tried(kind, self.root) {
                    return Ok((kind, false));
                }
            }
        }
        match self.image_kind(self.options.loop_fs) {
            Ok(kind) => return Ok((kind, true)),
            // An image that is there holds baselines: do not go on beside it.
            Err(error) if self.has_image() => return Err(error),
            Err(error) => self.notes.push(format!("no file system in a file: {}", line(&error))),
        }
        let kind = if self.tried(PoolKind::Overlay, self.root) { PoolKind::Overlay } else { PoolKind::Copy };
        Ok((kind, false))
    }

    /// Tries a kind in place, and notes why not.
    fn tried(&mut self, kind: PoolKind, place: &Path) -> bool {
        match try_kind(kind, place) {
            Ok(()) => true,
            Err(why) => {
                self.notes.push(format!("no {kind} at {}: {why}", place.display()));
                false
            }
        }
    }

    fn forced(&mut self, kind: PoolKind) -> Result<(PoolKind, bool), PoolError> {
        let root = self.root;
        let impossible = |missing| PoolError::KindImpossible { kind, root: root.to_owned(), missing };
        match kind {
            PoolKind::Btrfs | PoolKind::Reflink => {
                if !self.has_image() && self.tried(kind, self.root) {
                    return Ok((kind, false));
                }
                let fs_kind = if kind == PoolKind::Btrfs { LoopFs::Btrfs } else { self.options.loop_fs };
                self.mount_image(fs_kind).map_err(|error| impossible(line(&error)))?;
                match try_kind(kind, &self.dir()) {
                    Ok(()) => Ok((kind, true)),
                    Err(why) => {
                        image::unmount_image(&self.image(), &self.dir())?;
                        Err(impossible(format!(
                            "the file system in {} cannot: {why}",
                            self.image().display()
                        )))
                    }
                }
            }
            PoolKind::Overlay | PoolKind::Copy if self.has_image() => Err(impossible(format!(
                "{} holds a pool of another kind; remove it first",
                self.image().display()
            ))),
            PoolKind::Overlay | PoolKind::Copy => {
                try_kind(kind, self.root).map_err(impossible)?;
                Ok((kind, false))
            }
        }
    }

    fn mount_image(&mut self, fs_kind: LoopFs) -> Result<(), PoolError> {
        let (image, dir) = (self.image(), self.dir());
        image::mount(&image, &dir, self.options, fs_kind, &mut self.notes)
    }

    /// Mounts the image, and finds what its file system can do.
    fn image_kind(&mut self, fs_kind: LoopFs) -> Result<PoolKind, PoolError> {
        self.mount_image(fs_kind)?;
        let dir = self.dir();
        for kind in [PoolKind::Btrfs, PoolKind::Reflink] {
            if self.tried(kind, &dir) {
                return Ok(kind);
            }
        }
        image::unmount_image(&self.image(), &dir)?;
        let detail = "its file system can neither snapshot nor reflink".to_owned();
        Err(PoolError::ImageUnusable { image: self.image(), detail })
    }
}

/// Really does what the kind needs, in a folder of its own; why not.
fn try_kind(kind: PoolKind, place: &Path) -> Result<(), String> {
    let trial = place.join(TRIAL);
    let clear = || {
        mounts::unmount_below(&trial)?;
        driver::remove_set(kind, &trial.join("set"))?;
        remove::tree(&trial)
    };
    clear().map_err(|error| line(&error))?;
    fs::create_dir(&trial).map_err(|error| format!("cannot make {}: {error}", trial.display()))?;
    let result = match kind {
        PoolKind::Btrfs => try_btrfs(place, &trial),
        PoolKind::Reflink => try_reflink(&trial),
        PoolKind::Overlay => try_overlay(&trial),
        PoolKind::Copy => Ok(()),
    };
    let cleared = clear();
    result.and(cleared).map_err(|error| line(&error))
}

fn try_btrfs(place: &Path, trial: &Path) -> Result<(), PoolError> {
    let found = statfs(place).ctx("read the file system of", place)?.f_type;
    if found as u64 & 0xFFFF_FFFF != BTRFS_MAGIC {
        let why = "its file system is not btrfs".to_owned();
        return Err(PoolError::Unsupported { path: place.to_owned(), why });
    }
    driver::new_set(PoolKind::Btrfs, &trial.join("set"))
}

fn try_reflink(trial: &Path) -> Result<(), PoolError> {
    let (one, two) = (trial.join("one"), trial.join("two"));
    fs::write(&one, vec![1u8; data::BLOCK_BYTES]).ctx("write", &one)?;
    let from = File::open(&one).ctx("open", &one)?;
    let to = File::create(&two).ctx("create", &two)?;
    ioctl_ficlone(&to, &from).ctx("reflink", &one)
}

fn try_overlay(trial: &Path) -> Result<(), PoolError> {
    let dirs = ["lower", "upper", "work", "at"].map(|name| trial.join(name));
    for dir in &dirs {
        fs::create_dir(dir).ctx("make", dir)?;
    }
    let [lower, upper, work, at] = &dirs;
    fs::write(lower.join("file"), "lower").ctx("write", lower)?;
    driver::overlay(lower, upper, work, at)?;
    // On a file system without d_type or trusted attributes the mount succeeds and the first change does not.
    fs::write(at.join("file"), "upper").ctx("write", at)?;
    fs::remove_file(at.join("file")).ctx("remove from", at)
}
