//! Step 7: the files under a folder are those of the baseline again, on the same inodes, so that open descriptors see it.
//!
//! When the baseline is taken, while everything stands still, each file is cloned (`FICLONE`; copied where the file system cannot) to a folder of
//! ours, and each inode gets a second name there, a pin, so that it outlives a removal or a rename. A rewind reads the names and times of the live
//! folder; an inode whose size or time of change moved gets its bytes back by truncation and a clone, a name that is missing or leads elsewhere is
//! linked to its pin, and what is new is removed. The time of change cannot be set: the new one is noted for the next time.
//!
//! A change within the clock's tick of the last look would go unnoticed with coarse times; Linux 6.13 made times that were looked at exact
//! ("multigrain"), which `available` asks for. Writes through shared mappings do not move times at once: on disks such mappings are refused, and in
//! memory, where such writes never move times, bytes are compared, here or as shared memory ([`crate::segments`]).
//!
//! Where no second names can be given (the upper layer of a mounted overlay, a file system in memory) names are [`Names::Fixed`]: a file that is gone
//! is made anew, unless a process has it, and what would hide a lower layer's file is a difference.
//!
//! Compared and not put back: attributes. Not kept: holes, the inodes of folders (one that was removed is made anew). Other file systems mounted below are left alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use crate::attributes::Attributes;
use crate::identity::Difference;
use crate::kernel;
use crate::listing::{Entry, Kind, Listing, list};

const COMPARE_BYTES: usize = 1 << 18;
const PINS: &str = "pins";
const BYTES: &str = "bytes";

/// A folder that is put back with the processes that write to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Where the processes work.
    pub live: PathBuf,
    /// An empty folder outside the live one, for the baseline's bytes. It is the caller's to remove.
    pub kept: PathBuf,
    /// How names are put back.
    pub names: Names,
}

/// How the names of a tree are put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// `kept` is on the same file system: each inode has a second name there, so that whatever was done to a name is undone.
    Pinned,
    /// New names are removed, and what is missing is made anew; a file that is open or mapped cannot be.
    Fixed {
        /// The folder by which names are removed and made: where the processes see the tree, if `live` is a layer of an overlay.
        through: PathBuf,
        /// The layers beneath. A new name that hides one of theirs cannot be taken back.
        beneath: Vec<PathBuf>,
    },
}

/// How a file was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// It is not in the baseline.
    Added,
    /// Its name is gone, or leads elsewhere.
    Removed,
    /// It was written to, or its owner, rights or times are others.
    Written,
}

/// One name that a rewind put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Which of the trees, counted over all targets.
    pub tree: usize,
    /// Within the tree.
    pub path: PathBuf,
    /// How it was changed.
    pub how: How,
    /// About how many bytes were written: the file's pages that wait to be written back and, where it was cloned, its extents that are no other
    /// file's; for one that is new its size.
    pub bytes: u64,
}

/// `to` gets the bytes of `from`; both are open, `to` keeps its inode. Answers whether they share them.
fn clone(from: &File, to: &File) -> io::Result<bool> {
    to.set_len(0)?;
    match rustix::fs::ioctl_ficlone(to.as_fd(), from.as_fd()) {
        Ok(()) => Ok(true),
        Err(
            rustix::io::Errno::OPNOTSUPP
            | rustix::io::Errno::NOTTY
            | rustix::io::Errno::XDEV
            | rustix::io::Errno::INVAL,
        ) => {
            let (mut from, mut to) = (from, to);
            io::copy(&mut from, &mut to).map(|_| false)
        }
        Err(error) => Err(error.into()),
    }
}

/// A tree in its baseline.
#[derive(Debug)]
pub(crate) struct Files {
    tree: Tree,
    listing: Listing,
    /// Each file by its inode, as its home shows it.
    inodes: BTreeMap<u64, Entry>,
    /// A path by which each inode is reached, whatever becomes of its names.
    homes: BTreeMap<u64, PathBuf>,
    /// Inodes that processes have open or mapped.
    held: BTreeSet<u64>,
    /// Inodes whose bytes are put back as shared memory.
    mapped: BTreeSet<u64>,
    /// Writes through a mapping leave no trace in a file's times: bytes are compared.
    in_memory: bool,
    /// Files share their bytes with what is kept of them.
    shared: bool,
    /// Of files and folders, by inode.
    attributes: BTreeMap<u64, Attributes>,
}

/// What a rewind does to a tree.
#[derive(Debug, Default)]
pub(crate) struct Work {
    rewrite: Vec<u64>,
    remove: Vec<OsString>,
    make: Vec<OsString>,
    dress: BTreeSet<OsString>,
    /// Whose time of change is another after it.
    touched: BTreeSet<u64>,
}

impl Work {
    /// These were written to meanwhile, and have their bytes and times again.
    pub(crate) fn touch(&mut self, inodes: &BTreeSet<u64>) {
        self.touched.extend(inodes);
    }

    /// Whether the bytes of any of these inodes are put back.
    pub(crate) fn rewrites_any(&self, inodes: &BTreeSet<u64>) -> bool {
        self.rewrite.iter().any(|inode| inodes.contains(inode))
    }

    /// For tests that want to be told: one file keeps what was written to it.
    pub(crate) fn leave_a_file(&mut self) {
        let left = self.rewrite.pop();
        self.touched.retain(|inode| Some(*inode) != left);
    }
}

impl Files {
    /// Clones all files, and pins them. Only while nobody writes.
    pub(crate) fn take(tree: &Tree) -> io::Result<Self> {
        for folder in [PINS, BYTES] {
            fs::create_dir(tree.kept.join(folder))?;
        }
        let (listing, tree) = (list(&tree.live)?, tree.clone());
        let in_memory = kernel::is_in_memory(&tree.live)?;
        let mut files = Self {
            tree,
            listing,
            inodes: BTreeMap::new(),
            homes: BTreeMap::new(),
            held: BTreeSet::new(),
            mapped: BTreeSet::new(),
            in_memory,
            shared: true,
            attributes: BTreeMap::new(),
        };
        for (path, entry) in files.listing.iter().filter(|(_, entry)| entry.kind == Kind::File) {
            if files.inodes.contains_key(&entry.inode) {
                continue;
            }
            let live = files.tree.live.join(path);
            files.shared &= clone(&File::open(&live)?, &File::create(files.bytes(entry.inode))?)?;
            let home = if files.tree.names == Names::Pinned {
                let pin = files.tree.kept.join(PINS).join(entry.inode.to_string());
                fs::hard_link(&live, &pin)?;
                pin
            } else {
                live
            };
            files.inodes.insert(entry.inode, Entry::read(&home)?);
            files.homes.insert(entry.inode, home);
        }
        for (path, entry) in &files.listing {
            if matches!(entry.kind, Kind::File | Kind::Folder) {
                files.attributes.insert(entry.inode, Attributes::read(&files.tree.live.join(path))?);
            }
        }
        Ok(files)
    }

    /// Whether an inode is one of its files'.
    pub(crate) fn has(&self, inode: u64) -> bool {
        self.inodes.contains_key(&inode)
    }

    fn bytes(&self, inode: u64) -> PathBuf {
        self.tree.kept.join(BYTES).join(inode.to_string())
    }

    /// Has these stay what they are: processes have them.
    pub(crate) fn hold(&mut self, inodes: &BTreeSet<u64>) {
        let own = self.listing.values().map(|entry| entry.inode);
        self.held = own.filter(|inode| inodes.contains(inode)).collect();
    }

    /// On which its folder is.
    pub(crate) fn device(&self) -> u64 {
        self.listing[OsStr::new("")].device
    }

    /// Leaves the bytes of these, which are its own, to [`crate::segments`].
    pub(crate) fn leave(&mut self, inodes: BTreeSet<u64>) {
        self.mapped = inodes;
    }

    /// Whether a file's bytes could be others although its entry is as it was, and are.
    fn differs_unseen(&self, inode: u64) -> io::Result<bool> {
        let told = !self.in_memory || self.mapped.contains(&inode) || self.inodes[&inode].is_empty();
        Ok(!told && !same_bytes(&self.bytes(inode), &self.homes[&inode])?)
    }

    /// Where the tree's names can be removed and made.
    fn through(&self) -> &Path {
        match &self.tree.names {
            Names::Pinned => &self.tree.live,
            Names::Fixed { through, .. } => through,
        }
    }

    /// Whether a name of the baseline can be made again.
    fn can_make(&self, was: &Entry) -> bool {
        let is_plain = self.attributes.get(&was.inode).is_none_or(Attributes::are_plain);
        match (&was.kind, &self.tree.names) {
            (Kind::Other, _) => false,
            (Kind::File, Names::Pinned) => true,
            (_, Names::Pinned) => is_plain,
            (_, Names::Fixed { .. }) => is_plain && !self.held.contains(&was.inode),
        }
    }

    /// Whether removing a new name would leave a mark in its place.
    fn hides(&self, path: &OsStr) -> bool {
        match &self.tree.names {
            Names::Pinned => false,
            Names::Fixed { beneath, .. } => {
                beneath.iter().any(|layer| fs::symlink_metadata(layer.join(path)).is_ok())
            }
        }
    }

    /// Finds what changed. Touches nothing.
    pub(crate) fn compare(&self, differences: &mut Vec<Difference>) -> io::Result<Work> {
        let mut now = list(&self.tree.live)?;
        let mut work = Work::default();
        let files = now.values().filter(|entry| entry.kind == Kind::File);
        let seen: HashMap<u64, &Entry> = files.map(|entry| (entry.inode, entry)).collect();
        for (inode, was) in &self.inodes {
            let is = match seen.get(inode) {
                Some(is) => (*is).clone(),
                None => match Entry::read(&self.homes[inode]) {
                    Ok(is) => is,
                    // Its name is looked at below.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                },
            };
            if is.inode == *inode && (is != *was || self.differs_unseen(*inode)?) {
                self.compare_attributes(*inode, &self.homes[inode], differences)?;
                work.rewrite.push(*inode);
            }
        }
        work.touched.extend(&work.rewrite);
        for (path, was) in &self.listing {
            let is = now.remove(path);
            if is.as_ref().is_some_and(|is| self.is_in_place(was, is)) {
                let dress = |entry: &Entry| (entry.mode, entry.owner, entry.modified);
                if let Some(is) = is.filter(|is| is.kind == Kind::Folder && is.changed != was.changed) {
                    self.compare_attributes(was.inode, &self.tree.live.join(path), differences)?;
                    if dress(&is) != dress(was) {
                        work.dress.insert(path.clone());
                    }
                }
                continue;
            }
            if !self.can_make(was) {
                let path = self.tree.live.join(path).display().to_string();
                let what = "is gone or another, and cannot be made again".to_owned();
                differences.push(Difference::File { path, what });
            }
            work.touched.insert(was.inode);
            work.touched.extend(is.iter().map(|is| is.inode));
            work.remove.extend(is.is_some().then(|| path.clone()));
            work.make.push(path.clone());
            work.dress.extend(folder_of(path));
        }
        for (path, is) in now {
            work.touched.insert(is.inode);
            if self.hides(&path) {
                let path = self.tree.live.join(&path).display().to_string();
                let what = "hides what lies beneath it, and cannot be taken back".to_owned();
                differences.push(Difference::File { path, what });
            }
            work.dress.extend(folder_of(&path));
            work.remove.push(path);
        }
        Ok(work)
    }

    fn compare_attributes(
        &self,
        inode: u64,
        path: &Path,
        differences: &mut Vec<Difference>,
    ) -> io::Result<()> {
        let is = Attributes::read(path)?;
        if self.attributes.get(&inode).is_none_or(|was| is == *was) {
            return Ok(());
        }
        let mut names = self.listing.iter().filter(|(_, entry)| entry.inode == inode);
        let path = names.next().map(|(path, _)| self.tree.live.join(path).display().to_string());
        let what = "has other attributes".to_owned();
        differences.push(Difference::File { path: path.unwrap_or_default(), what });
        Ok(())
    }

    fn is_in_place(&self, was: &Entry, is: &Entry) -> bool {
        // The inode of a folder that was made again is another than the baseline's, and is as good.
        let same = was.inode == is.inode || (was.kind == Kind::Folder && self.tree.names == Names::Pinned);
        is.kind == was.kind && same
    }

    /// What was done to the tree, by name. Before it is put back.
    pub(crate) fn changes(&self, work: &Work, tree: usize) -> Vec<FileChange> {
        let change = |path: &OsStr, how, bytes| FileChange { tree, path: path.into(), how, bytes };
        let written: BTreeSet<_> = work.rewrite.iter().collect();
        let named = self.listing.iter().filter(|(_, entry)| written.contains(&entry.inode));
        let mut counted = BTreeSet::new();
        let mut changes: Vec<_> = named
            .map(|(path, entry)| {
                let bytes = if counted.insert(entry.inode) { self.dirty(entry.inode) } else { 0 };
                change(path, How::Written, bytes)
            })
            .collect();
        changes.extend(work.make.iter().map(|path| change(path, How::Removed, 0)));
        let added = work.remove.iter().filter(|path| !self.listing.contains_key(*path));
        changes.extend(added.map(|path| {
            let size = fs::symlink_metadata(self.tree.live.join(path)).map(|status| status.size());
            change(path, How::Added, size.unwrap_or_default())
        }));
        changes
    }

    /// About how many bytes of a file were written.
    fn dirty(&self, inode: u64) -> u64 {
        let count = |file: &File| {
            let written = if self.shared { kernel::unshared_bytes(file)? } else { 0 };
            Ok(kernel::dirty_bytes(file)? + written)
        };
        File::open(&self.homes[&inode]).and_then(|file| count(&file)).unwrap_or_default()
    }

    /// Puts back what changed.
    pub(crate) fn restore(&mut self, work: &Work) -> io::Result<()> {
        // What is in a folder goes with it.
        for path in &work.remove {
            remove(&self.through().join(path))?;
            if self.through() != self.tree.live && fs::symlink_metadata(self.tree.live.join(path)).is_ok() {
                return Err(io::Error::other(format!("{} hides what lies beneath it", path.display())));
            }
        }
        self.set_aside(work)?;
        // In the order of the listing: a folder comes before what is in it.
        for (number, path) in work.make.iter().enumerate() {
            let (live, entry) = (self.tree.live.join(path), self.listing[path].clone());
            let through = self.through().join(path);
            match &entry.kind {
                Kind::File if self.tree.names == Names::Pinned => {
                    fs::hard_link(&self.homes[&entry.inode], &live)?;
                }
                Kind::File => self.make_anew(path, number)?,
                Kind::Folder => fs::create_dir(&through).and_then(|()| entry.dress(&live))?,
                Kind::Link(target) => symlink(target, &through).and_then(|()| entry.dress(&live))?,
                Kind::Other => return Err(io::Error::other("a name that cannot be made again")),
            }
        }
        // Links above changed inodes' times, too, so all that is not as it was is looked for once more.
        let rewrite: BTreeSet<_> = work.rewrite.iter().copied().collect();
        for inode in &work.touched {
            if self.inodes.contains_key(inode) {
                self.rewrite(*inode, rewrite.contains(inode))?;
            }
        }
        let mut made = Vec::new();
        for path in &work.make {
            made.push((path, Entry::read(&self.tree.live.join(path))?.inode));
        }
        // All are taken before the first is given: one may have the number of another.
        let attributes = |(path, is): &(&OsString, u64)| {
            let was = self.listing[*path].inode;
            if was == *is { None } else { self.attributes.remove(&was) }
        };
        let attributes: Vec<_> = made.iter().map(attributes).collect();
        for ((path, is), attributes) in made.into_iter().zip(attributes) {
            self.attributes.extend(attributes.map(|attributes| (is, attributes)));
            self.listing.get_mut(path).expect("what is made is of the listing").inode = is;
        }
        for path in work.dress.iter().filter(|path| self.listing.contains_key(*path)) {
            self.listing[path].dress(&self.tree.live.join(path))?;
        }
        Ok(())
    }

    /// Where the bytes of a file are that is made anew, until it has an inode.
    fn aside(&self, number: usize) -> PathBuf {
        self.tree.kept.join(BYTES).join(format!("aside-{number}"))
    }

    /// Forgets the inodes of files that are to be made anew: their numbers are free, and each may be given to any of them.
    fn set_aside(&mut self, work: &Work) -> io::Result<()> {
        if self.tree.names == Names::Pinned {
            return Ok(());
        }
        for (number, path) in work.make.iter().enumerate() {
            let was = &self.listing[path];
            if was.kind != Kind::File {
                continue;
            }
            let was = was.inode;
            if self.listing.values().filter(|entry| entry.inode == was).count() > 1 {
                return Err(io::Error::other(format!("{} had several names", path.display())));
            }
            fs::rename(self.bytes(was), self.aside(number))?;
            self.inodes.remove(&was);
            self.homes.remove(&was);
        }
        Ok(())
    }

    /// A file that nobody has, as another inode with the same bytes.
    fn make_anew(&mut self, path: &OsStr, number: usize) -> io::Result<()> {
        let (live, kept) = (self.tree.live.join(path), self.aside(number));
        drop(File::create_new(self.through().join(path))?);
        clone(&File::open(&kept)?, &File::options().write(true).open(&live)?)?;
        self.listing[path].dress(&live)?;
        let is = Entry::read(&live)?;
        fs::rename(kept, self.bytes(is.inode))?;
        self.homes.insert(is.inode, live);
        self.inodes.insert(is.inode, is);
        Ok(())
    }

    fn rewrite(&mut self, inode: u64, bytes: bool) -> io::Result<()> {
        let home = &self.homes[&inode];
        if bytes {
            clone(&File::open(self.bytes(inode))?, &File::options().write(true).open(home)?)?;
            self.inodes[&inode].dress(home)?;
        }
        // Another time of change, and nothing else.
        let is = Entry::read(home)?;
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
        for (path, entry) in &self.listing {
            if self.attributes.contains_key(&entry.inode) {
                self.compare_attributes(entry.inode, &self.tree.live.join(path), differences)?;
            }
        }
        for inode in self.inodes.keys() {
            if !same_bytes(&self.bytes(*inode), &self.homes[inode])? {
                let path = self.listing.iter().find(|(_, entry)| entry.inode == *inode);
                let path = path.map(|(path, _)| path.display().to_string()).unwrap_or_default();
                differences.push(Difference::File { path, what: "other bytes".to_owned() });
            }
        }
        Ok(())
    }
}

/// The folder that a path of a listing is in; the root is in none.
fn folder_of(path: &OsStr) -> Option<OsString> {
    Some(Path::new(path).parent()?.as_os_str().to_owned())
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
        let tree = Tree { live: folder.join("live"), kept: folder.join("kept"), names: Names::Pinned };
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
        work.rewrite.len()
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
    fn where_names_cannot_be_made_new_ones_go_and_bytes_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut tree = tree(folder.path());
        let beneath = folder.path().join("beneath");
        fs::create_dir(&beneath).unwrap();
        fs::write(beneath.join("lower"), "").unwrap();
        tree.names = Names::Fixed { through: tree.live.clone(), beneath: vec![beneath] };
        let live = |name: &str| tree.live.join(name);
        let mut files = Files::take(&tree).unwrap();
        for _ in 0..3 {
            fs::write(live("redo"), "another").unwrap();
            fs::create_dir(live("new")).unwrap();
            fs::write(live("new/file"), "new").unwrap();
            let work = files.compare(&mut Vec::new()).unwrap();
            let changed: Vec<_> =
                files.changes(&work, 7).into_iter().map(|change| (change.path, change.how)).collect();
            let named = |path: &str, how| (PathBuf::from(path), how);
            assert_eq!(
                changed,
                [named("redo", How::Written), named("new", How::Added), named("new/file", How::Added)]
            );
            assert_eq!(back(&mut files), 1);
        }
        // Often enough for a file to get the number of another one that is made anew.
        for _ in 0..100 {
            fs::remove_dir_all(live("shop")).unwrap();
            fs::remove_file(live("current")).unwrap();
            back(&mut files);
            assert_eq!(fs::read(live("shop/items")).unwrap(), b"items");
            assert_eq!(fs::read(live("shop/orders")).unwrap(), b"orders");
        }
        let told = |files: &Files| {
            let mut differences = Vec::new();
            files.compare(&mut differences).unwrap();
            match &differences[..] {
                [Difference::File { path, .. }] => path.rsplit('/').next().unwrap().to_owned(),
                others => panic!("{others:?}"),
            }
        };
        fs::write(live("lower"), "in the way").unwrap();
        assert_eq!(told(&files), "lower");
        fs::remove_file(live("lower")).unwrap();
        back(&mut files);
        files.hold(&BTreeSet::from([fs::metadata(live("redo")).unwrap().ino()]));
        fs::remove_file(live("redo")).unwrap();
        assert_eq!(told(&files), "redo");
    }

    #[test]
    fn attributes_that_are_new_are_a_difference() {
        // Not all file systems in memory have them.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let tree = tree(folder.path());
        let files = Files::take(&tree).unwrap();
        for path in ["redo", "shop"] {
            let marked = tree.live.join(path);
            rustix::fs::setxattr(&marked, "user.vandal", b"x", rustix::fs::XattrFlags::empty()).unwrap();
            let mut differences = Vec::new();
            files.compare(&mut differences).unwrap();
            let [Difference::File { path: found, what }] = &differences[..] else {
                panic!("{differences:?}")
            };
            assert_eq!((found, what.as_str()), (&marked.display().to_string(), "has other attributes"));
            rustix::fs::removexattr(&marked, "user.vandal").unwrap();
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
