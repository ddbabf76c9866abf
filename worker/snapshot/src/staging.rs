//! A baseline in the making: trees are captured or imported, then all of it is published at once.
//!
//! Must not know: lanes. Invariants: what was not published leaves nothing; a tree that could not be taken whole is not
//! in the staging; publishing is one rename, after everything is on the disk.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::syncfs;

use crate::baseline::{SET, Tree};
use crate::error::Context as _;
use crate::store::{Store, remove_baseline};
use crate::tree::{Entry, Kind, Listing, remove, scan, write};
use crate::{Baseline, PoolError, archive, driver, names};

/// How much of an archive is read between two looks at the room for it.
const GROW_EACH_BYTES: u64 = 1 << 20;

/// A baseline in the making. Dropping it leaves nothing (and may take a while: drop it on a blocking thread).
#[derive(Debug)]
pub struct Staging {
    store: Arc<Store>,
    key: String,
    dir: PathBuf,
    trees: Vec<String>,
}

impl Staging {
    pub(crate) fn new(store: &Arc<Store>, key: &str) -> Result<Staging, PoolError> {
        names::folder("baseline key", key)?;
        let dir = store.new_staging();
        fs::create_dir(&dir).ctx("make", &dir)?;
        let staging = Staging { store: Arc::clone(store), key: key.to_owned(), dir, trees: Vec::new() };
        driver::new_set(store.kind(), &staging.dir.join(SET))?;
        Ok(staging)
    }

    /// The trees that are in it by now.
    pub fn trees(&self) -> &[String] {
        &self.trees
    }

    /// Takes a tree from anywhere: modes, owners, times, attributes, links, whiteouts, holes. Sockets are left out.
    /// Nothing may write to it meanwhile; a tree that changes, or that the pool's file system cannot keep, is an error.
    pub fn capture(&mut self, tree: &str, from: &Path) -> Result<(), PoolError> {
        let filling = driver::capture_filling(self.store.kind());
        let store = Arc::clone(&self.store);
        self.add(tree, |into| {
            let listing = scan::listing(from)?;
            let (_, bytes) = listing.totals();
            store.grow_for(bytes);
            write::clone_tree(&listing, from, into, &filling).map_err(|error| error.needing(bytes))?;
            compare(&listing, &scan::listing(into)?, from)
        })
    }

    /// Takes a tree from a tar.zst that nobody vouches for, within the limits that the pool was opened with.
    pub fn import(&mut self, tree: &str, reader: impl Read) -> Result<(), PoolError> {
        let limits = self.store.import;
        let reader = Growing { reader, store: Arc::clone(&self.store), since: 0 };
        self.add(tree, |into| archive::import(tree, reader, into, None, limits))
    }

    /// Makes a tree from layers: the tree of that name of `base` (or nothing), then archives that tell changes, each of what
    /// the ones before it made. The first archive is a whole tree where there is no base. Within the same limits.
    pub fn import_layers<R: Read>(
        &mut self,
        tree: &str,
        base: Option<&Baseline>,
        layers: impl IntoIterator<Item = R>,
    ) -> Result<(), PoolError> {
        let (store, dir) = (Arc::clone(&self.store), self.dir.clone());
        self.add(tree, |into| {
            // Held, so that nobody removes it meanwhile.
            let held = base.map(|base| store.hold(base)).transpose()?;
            let base = held.as_ref().map(|held| held.baseline.tree(tree)).transpose()?;
            Layers { store: &store, dir, tree }.stack(base, layers, into)
        })
    }

    /// Makes it a baseline, atomically. A key that exists keeps the existing one.
    pub fn publish(mut self, meta: serde_json::Value) -> Result<Baseline, PoolError> {
        if let Some(baseline) = self.store.baseline(&self.key) {
            return Ok(baseline);
        }
        self.trees.sort();
        Baseline::describe(&self.dir, &self.key, &self.trees, meta)?;
        driver::seal_set(self.store.kind(), &self.dir.join(SET))?;
        let dir = File::open(&self.dir).ctx("open", &self.dir)?;
        syncfs(&dir).ctx("sync", &self.dir)?;
        self.store.publish(&self.key, &self.dir)
    }

    fn add(
        &mut self,
        tree: &str,
        fill: impl FnOnce(&Path) -> Result<(), PoolError>,
    ) -> Result<(), PoolError> {
        let folder = names::folder("tree name", tree)?;
        if self.trees.iter().any(|name| name == tree) {
            return Err(PoolError::TreeExists { key: self.key.clone(), tree: tree.to_owned() });
        }
        let into = driver::tree_in(&self.dir.join(SET), &folder);
        fs::create_dir(&into).ctx("make", &into)?;
        let filled = fill(&into);
        match &filled {
            Ok(()) => self.trees.push(tree.to_owned()),
            Err(PoolError::Full { .. }) => {
                // The full disk is what to tell, and its room shall be back at once.
                let _ = remove::tree(&into).and_then(|()| self.store.sync());
            }
            Err(_) => remove::tree(&into)?,
        }
        filled
    }
}

/// Layers of one tree on their way into a staging.
struct Layers<'a> {
    store: &'a Store,
    /// The staging's folder.
    dir: PathBuf,
    tree: &'a str,
}

impl Layers<'_> {
    fn stack<R: Read>(
        &self,
        base: Option<Tree<'_>>,
        layers: impl IntoIterator<Item = R>,
        into: &Path,
    ) -> Result<(), PoolError> {
        let filling = driver::capture_filling(self.store.kind());
        let mut layers = layers.into_iter().peekable();
        let mut below = base.map(|base| (base.path, base.listing.clone(), None));
        if let (Some((path, listing, _)), None) = (&below, layers.peek()) {
            return write::clone_tree(listing, path, into, &filling);
        }
        let mut number = 0;
        while let Some(layer) = layers.next() {
            let between = match layers.peek() {
                Some(_) => Some(Between::make(self.dir.join(format!("layer-{number}")))?),
                None => None,
            };
            let place = between.as_ref().map_or(into, |between| between.0.as_path());
            let under =
                below.as_ref().map(|(root, listing, _)| archive::Below { root, listing, filling: &filling });
            archive::import(self.tree, layer, place, under, self.store.import)?;
            if let Some(between) = between {
                below = Some((between.0.clone(), scan::listing(&between.0)?, Some(between)));
            }
            number += 1;
        }
        Ok(())
    }
}

/// A tree that is only there for the next layer.
struct Between(PathBuf);

impl Between {
    fn make(path: PathBuf) -> Result<Between, PoolError> {
        fs::create_dir(&path).ctx("make", &path)?;
        Ok(Between(path))
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        // What cannot be removed goes with the staging.
        let _ = remove::tree(&self.0);
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After publishing there is nothing left; what cannot be removed now is cleared at the next open.
        let _ = remove_baseline(self.store.kind(), &self.dir);
    }
}

/// Lets the pool grow while an archive is read: how much it will unpack to is not known before.
struct Growing<R> {
    reader: R,
    store: Arc<Store>,
    since: u64,
}

impl<R: Read> Read for Growing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.since >= GROW_EACH_BYTES {
            self.since = 0;
            self.store.grow_for(0);
        }
        let got = self.reader.read(buffer)?;
        self.since += got as u64;
        Ok(got)
    }
}

/// What was taken must be what is there now.
fn compare(was: &Listing, is: &Listing, from: &Path) -> Result<(), PoolError> {
    // A folder's time of the last read or a file's blocks may differ, what an entry says of itself may not.
    let same = |(was, is): &(&Entry, &Entry)| was == is;
    let differing = was.entries.iter().zip(&is.entries).find(|pair| !same(pair));
    let path = match differing {
        Some((was, _)) => &was.path,
        None if was.entries.len() == is.entries.len() => return Ok(()),
        None => &was.root().path,
    };
    let kind = was.get(path).map_or("entry", |entry| match entry.kind {
        Kind::HardLink { .. } => "file",
        _ => entry.kind.word(),
    });
    let why = format!("the {kind} was changed meanwhile, or the pool's file system cannot keep it as it is");
    Err(PoolError::Unsupported { path: scan::at(from, path), why })
}
