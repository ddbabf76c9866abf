//! Step 7: the files under a folder are those of the baseline again, on the same inodes, so that open descriptors see it.
//!
//! When the baseline is taken, while everything stands still, each file is cloned (`FICLONE`; copied where the file system cannot) to a folder of
//! ours, and each inode gets a second name there, a pin, so that it outlives a removal or a rename. A rewind reads the names and times of the live
//! folder; an inode whose size or time of change moved gets its bytes back by truncation and a clone, a name that is missing or leads elsewhere is
//! linked to its pin, and what is new is removed. The time of change cannot be set: the new one is noted for the next time.
//!
//! A change within the clock's tick of the last look would go unnoticed with coarse times; Linux 6.13 made times that were looked at exact
//! ("multigrain"), which `available` asks for. Writes through shared mappings do not move times at once: such mappings are refused elsewhere.
//!
//! Not kept: extended attributes, holes, the inodes of folders (one that was removed is made anew).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use crate::identity::Difference;

/// More names in one tree are refused.
const NAMES_MAX: usize = 1_000_000;
const COMPARE_BYTES: usize = 1 << 18;
const PINS: &str = "pins";
const BYTES: &str = "bytes";

/// A folder that is put back with the processes that write to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Where the processes work.
    pub live: PathBuf,
    /// An empty folder on the same file system, outside the live one, for the baseline's bytes. It is the caller's to remove.
    pub kept: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
    Link(PathBuf),
    /// A socket, a pipe, a device: only its name counts, and it cannot be made again.
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    kind: Kind,
    inode: u64,
    size: u64,
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Entry {
    fn read(path: &Path) -> io::Result<Self> {
        let status = fs::symlink_metadata(path)?;
        let kind = match status.file_type() {
            kind if kind.is_file() => Kind::File,
            kind if kind.is_dir() => Kind::Folder,
            kind if kind.is_symlink() => Kind::Link(fs::read_link(path)?),
            _ => Kind::Other,
        };
        Ok(Self {
            kind,
            inode: status.ino(),
            size: status.size(),
            mode: status.mode() & 0o7777,
            owner: (status.uid(), status.gid()),
            modified: (status.mtime(), status.mtime_nsec()),
            changed: (status.ctime(), status.ctime_nsec()),
        })
    }

    /// Gives a path this entry's owner, rights and time of modification.
    fn dress(&self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::lchown(path, Some(self.owner.0), Some(self.owner.1))?;
        if !matches!(self.kind, Kind::Link(_)) {
            fs::set_permissions(path, fs::Permissions::from_mode(self.mode))?;
        }
        let time = |(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec };
        let times = Timestamps { last_access: time(self.modified), last_modification: time(self.modified) };
        Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

type Listing = BTreeMap<PathBuf, Entry>;

fn list(root: &Path) -> io::Result<Listing> {
    let mut listing = Listing::from([(PathBuf::new(), Entry::read(root)?)]);
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let path = folder.join(entry?.file_name());
            let entry = Entry::read(&root.join(&path))?;
            if entry.kind == Kind::Folder {
                folders.push(path.clone());
            }
            listing.insert(path, entry);
            if listing.len() > NAMES_MAX {
                return Err(io::Error::other(format!("more than {NAMES_MAX} names in {}", root.display())));
            }
        }
    }
    Ok(listing)
}

/// `to` gets the bytes of `from`; both are open, `to` keeps its inode.
fn clone(from: &File, to: &File) -> io::Result<()> {
    to.set_len(0)?;
    match rustix::fs::ioctl_ficlone(to.as_fd(), from.as_fd()) {
        Ok(()) => Ok(()),
        Err(
            rustix::io::Errno::OPNOTSUPP
            | rustix::io::Errno::NOTTY
            | rustix::io::Errno::XDEV
            | rustix::io::Errno::INVAL,
        ) => {
            let (mut from, mut to) = (from, to);
            io::copy(&mut from, &mut to).map(drop)
        }
        Err(error) => Err(error.into()),
    }
}

/// A tree in its baseline.
#[derive(Debug)]
pub(crate) struct Files {
    tree: Tree,
    listing: Listing,
    /// Each file by its inode, as its pin shows it.
    inodes: BTreeMap<u64, Entry>,
}

/// What a rewind does to a tree.
#[derive(Debug, Default)]
pub(crate) struct Work {
    rewrite: Vec<u64>,
    remove: Vec<PathBuf>,
    make: Vec<PathBuf>,
    dress: BTreeSet<PathBuf>,
}

impl Work {
    /// How many files get their bytes back.
    pub(crate) fn rewritten(&self) -> usize {
        self.rewrite.len()
    }
}

impl Files {
    /// Clones and pins all files. Only while nobody writes.
    pub(crate) fn take(tree: &Tree) -> io::Result<Self> {
        for folder in [PINS, BYTES] {
            fs::create_dir(tree.kept.join(folder))?;
        }
        let mut files = Self { tree: tree.clone(), listing: list(&tree.live)?, inodes: BTreeMap::new() };
        for (path, entry) in files.listing.iter().filter(|(_, entry)| entry.kind == Kind::File) {
            if files.inodes.contains_key(&entry.inode) {
                continue;
            }
            let live = tree.live.join(path);
            clone(&File::open(&live)?, &File::create(files.bytes(entry.inode))?)?;
            fs::hard_link(&live, files.pin(entry.inode))?;
            files.inodes.insert(entry.inode, Entry::read(&live)?);
        }
        Ok(files)
    }

    fn pin(&self, inode: u64) -> PathBuf {
        self.tree.kept.join(PINS).join(inode.to_string())
    }

    fn bytes(&self, inode: u64) -> PathBuf {
        self.tree.kept.join(BYTES).join(inode.to_string())
    }

    /// Finds what changed. Touches nothing.
    pub(crate) fn compare(&self, differences: &mut Vec<Difference>) -> io::Result<Work> {
        let mut now = list(&self.tree.live)?;
        let mut work = Work::default();
        for (inode, was) in &self.inodes {
            if Entry::read(&self.pin(*inode))? != *was {
                work.rewrite.push(*inode);
            }
        }
        for (path, was) in &self.listing {
            let is = now.remove(path);
            if is
                .as_ref()
                .is_some_and(|is| is.kind == was.kind && (was.kind == Kind::Folder || is.inode == was.inode))
            {
                if was.kind == Kind::Folder
                    && is.is_some_and(|is| {
                        (is.mode, is.owner, is.modified) != (was.mode, was.owner, was.modified)
                    })
                {
                    work.dress.insert(path.clone());
                }
                continue;
            }
            if was.kind == Kind::Other {
                let path = self.tree.live.join(path).display().to_string();
                differences
                    .push(Difference::File { path, what: "is gone and cannot be made again".to_owned() });
            }
            work.remove.extend(is.is_some().then(|| path.clone()));
            work.make.push(path.clone());
            work.dress.extend(path.parent().map(Path::to_path_buf));
        }
        for path in now.into_keys() {
            work.dress.extend(path.parent().map(Path::to_path_buf));
            work.remove.push(path);
        }
        Ok(work)
    }

    /// Puts back what changed.
    pub(crate) fn restore(&mut self, work: &Work) -> io::Result<()> {
        for path in &work.remove {
            remove(&self.tree.live.join(path))?;
        }
        // In the order of the listing: a folder comes before what is in it.
        for path in &work.make {
            let (live, entry) = (self.tree.live.join(path), &self.listing[path]);
            match &entry.kind {
                Kind::File => fs::hard_link(self.pin(entry.inode), &live)?,
                Kind::Folder => fs::create_dir(&live).and_then(|()| entry.dress(&live))?,
                Kind::Link(target) => symlink(target, &live).and_then(|()| entry.dress(&live))?,
                Kind::Other => return Err(io::Error::other("a name that cannot be made again")),
            }
        }
        // Links above changed inodes' times, too, so all that is not as it was is looked for once more.
        let rewrite: BTreeSet<_> = work.rewrite.iter().copied().collect();
        let inodes: Vec<_> = self.inodes.keys().copied().collect();
        for inode in inodes {
            self.rewrite(inode, rewrite.contains(&inode))?;
        }
        for path in &work.make {
            let is = Entry::read(&self.tree.live.join(path))?;
            self.listing.get_mut(path).expect("what is made is of the listing").inode = is.inode;
        }
        for path in work.dress.iter().filter(|path| self.listing.contains_key(*path)) {
            self.listing[path].dress(&self.tree.live.join(path))?;
        }
        Ok(())
    }

    fn rewrite(&mut self, inode: u64, bytes: bool) -> io::Result<()> {
        let pin = self.pin(inode);
        if bytes {
            clone(&File::open(self.bytes(inode))?, &File::options().write(true).open(&pin)?)?;
            self.inodes[&inode].dress(&pin)?;
        }
        // Another time of change, and nothing else.
        let is = Entry::read(&pin)?;
        let was = self.inodes.get_mut(&inode).expect("only inodes of the baseline are rewritten");
        was.changed = is.changed;
        if is == *was { Ok(()) } else { Err(io::Error::other(format!("inode {inode} is not as it was"))) }
    }

    /// Everything that is not as in the baseline, byte by byte.
    pub(crate) fn differing(&self, differences: &mut Vec<Difference>) -> io::Result<()> {
        let work = self.compare(differences)?;
        for path in work.remove.iter().chain(&work.make).chain(&work.dress) {
            let path = self.tree.live.join(path).display().to_string();
            differences.push(Difference::File { path, what: "is new, missing or another".to_owned() });
        }
        for inode in self.inodes.keys() {
            if !same_bytes(&self.bytes(*inode), &self.pin(*inode))? {
                let path = self.listing.iter().find(|(_, entry)| entry.inode == *inode);
                let path = path.map(|(path, _)| path.display().to_string()).unwrap_or_default();
                differences.push(Difference::File { path, what: "other bytes".to_owned() });
            }
        }
        Ok(())
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(status) if status.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    // Gone with the folder it was in.
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn same_bytes(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; COMPARE_BYTES], vec![0; COMPARE_BYTES]);
    loop {
        let bytes = one.read(&mut left)?;
        if bytes == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..bytes])?;
        if left[..bytes] != right[..bytes] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn tree(folder: &Path) -> Tree {
        let tree = Tree { live: folder.join("live"), kept: folder.join("kept") };
        fs::create_dir_all(tree.live.join("shop")).unwrap();
        fs::create_dir(&tree.kept).unwrap();
        for (name, bytes) in [("redo", "0123456789"), ("shop/orders", "orders"), ("shop/items", "items")] {
            fs::write(tree.live.join(name), bytes).unwrap();
        }
        symlink("redo", tree.live.join("current")).unwrap();
        tree
    }

    fn back(files: &mut Files) -> usize {
        let mut differences = Vec::new();
        let work = files.compare(&mut differences).unwrap();
        assert_eq!(differences, []);
        files.restore(&work).unwrap();
        files.differing(&mut differences).unwrap();
        assert_eq!(differences, []);
        work.rewritten()
    }

    #[test]
    fn whatever_is_done_to_a_tree_is_undone_on_the_same_inodes() {
        let folder = tempfile::tempdir().unwrap();
        let tree = tree(folder.path());
        let live = |name: &str| tree.live.join(name);
        let mut files = Files::take(&tree).unwrap();
        let mut open = File::options().append(true).open(live("redo")).unwrap();
        for _ in 0..3 {
            assert_eq!(back(&mut files), 0);
            open.write_all(b"grown").unwrap();
            fs::write(live("shop/orders"), "ORDERS").unwrap();
            assert_eq!(back(&mut files), 2);
            fs::remove_dir_all(live("shop")).unwrap();
            fs::rename(live("redo"), live("old")).unwrap();
            fs::write(live("redo"), "another").unwrap();
            fs::remove_file(live("current")).unwrap();
            fs::create_dir(live("new")).unwrap();
            fs::write(live("new/file"), "new").unwrap();
            back(&mut files);
            assert_eq!(fs::read(live("current")).unwrap(), b"0123456789");
            assert_eq!(fs::read(live("shop/orders")).unwrap(), b"orders");
            assert_eq!(open.metadata().unwrap().ino(), fs::metadata(live("redo")).unwrap().ino());
        }
    }

    #[test]
    fn a_file_left_out_is_found_by_the_comparison() {
        let folder = tempfile::tempdir().unwrap();
        let tree = tree(folder.path());
        let files = Files::take(&tree).unwrap();
        fs::write(tree.live.join("redo"), "9876543210").unwrap();
        let mut differences = Vec::new();
        files.differing(&mut differences).unwrap();
        assert_eq!(
            differences,
            [Difference::File { path: "redo".to_owned(), what: "other bytes".to_owned() }]
        );
    }
}
