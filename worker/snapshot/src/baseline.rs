//! A published baseline: its manifest, its trees, how to send it elsewhere.
//!
//! Must not know: lanes, stagings. Invariant: read only; nothing here writes below the baseline's folder once its
//! manifest is written.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Context as _;
use crate::tree::data::Filling;
use crate::tree::{Listing, digest, scan, text};
use crate::verify::no_such_tree;
use crate::{Difference, PoolError, archive, driver, names, verify};

/// The set of a baseline's trees, in its folder.
pub(crate) const SET: &str = "set";
/// A tree's listing, in a baseline's folder.
const LISTINGS: &str = "listings";
const MANIFEST: &str = "manifest.json";
/// What this code reads and writes; another number is another layout.
const FORMAT: u32 = 1;

/// One tree of a baseline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeInfo {
    /// The name it was captured under, like `volume/data`.
    pub name: String,
    /// Its entries that are not folders.
    pub files: u64,
    /// Sum of the sizes of its regular files, hard links once.
    pub bytes: u64,
    /// BLAKE3 over paths, kinds, modes, owners, sizes, link targets, attributes and contents; 64 hex digits.
    pub tree_digest: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    key: String,
    trees: Vec<TreeInfo>,
    meta: serde_json::Value,
}

/// A published baseline. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Baseline {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    manifest: Manifest,
    /// In the order of the manifest's trees.
    listings: Vec<Listing>,
    folders: Vec<String>,
}

/// Makes the baseline in `dir` none, before it is deleted in its place.
pub(crate) fn forget(dir: &Path) -> Result<(), PoolError> {
    let path = dir.join(MANIFEST);
    std::fs::remove_file(&path).ctx("remove", &path)
}

/// True for what a removal in place leaves when it is cut off. A baseline is never there without its manifest, which is
/// written before it is moved there.
pub(crate) fn is_forgotten(dir: &Path) -> bool {
    dir.is_dir() && matches!(dir.join(MANIFEST).try_exists(), Ok(false))
}

/// One tree, as the rest of the crate wants it.
pub(crate) struct Tree<'a> {
    pub(crate) name: &'a str,
    pub(crate) folder: &'a str,
    pub(crate) listing: &'a Listing,
    pub(crate) path: PathBuf,
}

impl Baseline {
    /// Its key.
    pub fn key(&self) -> &str {
        &self.inner.manifest.key
    }

    /// What was given to `publish`.
    pub fn meta(&self) -> &serde_json::Value {
        &self.inner.manifest.meta
    }

    /// Its trees, by name.
    pub fn trees(&self) -> &[TreeInfo] {
        &self.inner.manifest.trees
    }

    /// Writes a tree as tar.zst, the same bytes for the same tree and times everywhere. Character devices 0/0
    /// (whiteouts) can be imported again, other device nodes are refused there.
    pub fn export(&self, tree: &str, writer: impl Write) -> Result<(), PoolError> {
        let tree = self.tree(tree)?;
        archive::export(tree.listing, &tree.path, BufWriter::new(writer))
    }

    /// Writes a tree as tar.zst, as changes of the tree of the same name of another baseline: files of which only blocks
    /// differ go as these blocks. For [`crate::Staging::import_layers`].
    pub fn export_on(&self, tree: &str, below: &Baseline, writer: impl Write) -> Result<(), PoolError> {
        let (tree, below) = (self.tree(tree)?, below.tree(tree)?);
        let below = archive::Below { root: &below.path, listing: below.listing, filling: &Filling::Copy };
        archive::export_on(tree.listing, &tree.path, below, BufWriter::new(writer))
    }

    /// Reads every byte again: the digests that its trees have now, in their order.
    pub fn digests(&self) -> Result<Vec<String>, PoolError> {
        self.all().map(|tree| digest::of(&tree.path, &scan::listing(&tree.path)?)).collect()
    }

    /// Compares its own tree with the listing that was made when it was published, by stat alone.
    pub fn compare(&self, tree: &str) -> Result<(), Difference> {
        let found = self.tree(tree).map_err(|_| no_such_tree(tree))?;
        verify::compare(found.name, found.listing, &found.path)
    }

    /// Reads every byte again and compares with what was published.
    pub fn check(&self) -> Result<(), PoolError> {
        for (info, found) in self.trees().iter().zip(self.digests()?) {
            if found != info.tree_digest {
                let detail = format!("tree `{}` has digest {found}, not {}", info.name, info.tree_digest);
                return Err(PoolError::BaselineDamaged { key: self.key().to_owned(), detail });
            }
        }
        Ok(())
    }

    pub(crate) fn is(&self, other: &Baseline) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.inner.dir
    }

    pub(crate) fn set(&self) -> PathBuf {
        self.inner.dir.join(SET)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Tree<'_>> {
        (0..self.trees().len()).map(|index| self.at(index))
    }

    pub(crate) fn tree(&self, name: &str) -> Result<Tree<'_>, PoolError> {
        Ok(self.at(self.index(name)?))
    }

    pub(crate) fn at(&self, index: usize) -> Tree<'_> {
        let folder = &self.inner.folders[index];
        let path = driver::tree_in(&self.set(), folder);
        Tree { name: &self.trees()[index].name, folder, listing: &self.inner.listings[index], path }
    }

    pub(crate) fn index(&self, name: &str) -> Result<usize, PoolError> {
        let index = self.trees().iter().position(|tree| tree.name == name);
        index.ok_or_else(|| PoolError::NoSuchTree {
            key: self.key().to_owned(),
            tree: name.to_owned(),
            trees: self.trees().iter().map(|tree| tree.name.clone()).collect(),
        })
    }

    /// Reads a baseline's folder.
    pub(crate) fn load(dir: &Path) -> Result<Baseline, PoolError> {
        let shown = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let damaged = |detail: String| PoolError::BaselineDamaged { key: shown.clone(), detail };
        let path = dir.join(MANIFEST);
        let file =
            File::open(&path).map_err(|error| damaged(format!("cannot open its manifest: {error}")))?;
        let manifest: Manifest = serde_json::from_reader(BufReader::new(file))
            .map_err(|error| damaged(format!("cannot read its manifest: {error}")))?;
        if manifest.format != FORMAT {
            return Err(damaged(format!("its format is {}, not {FORMAT}", manifest.format)));
        }
        let (mut listings, mut folders) = (Vec::new(), Vec::new());
        for tree in &manifest.trees {
            let folder = names::folder("tree name", &tree.name)?;
            let path = dir.join(LISTINGS).join(&folder);
            let listing = File::open(&path).and_then(|file| text::read_listing(BufReader::new(file)));
            listings
                .push(listing.map_err(|error| damaged(format!("cannot read {}: {error}", path.display())))?);
            folders.push(folder);
        }
        Ok(Baseline { inner: Arc::new(Inner { dir: dir.to_owned(), manifest, listings, folders }) })
    }

    /// Writes the manifest and the listings of the trees in `dir`, which are then what they are for ever.
    pub(crate) fn describe(
        dir: &Path,
        key: &str,
        names: &[String],
        meta: serde_json::Value,
    ) -> Result<(), PoolError> {
        let listings = dir.join(LISTINGS);
        std::fs::create_dir(&listings).ctx("make", &listings)?;
        let mut trees = Vec::new();
        for name in names {
            let folder = names::folder("tree name", name)?;
            let root = driver::tree_in(&dir.join(SET), &folder);
            let listing = scan::listing(&root)?;
            let tree_digest = digest::of(&root, &listing)?;
            let (files, bytes) = listing.totals();
            trees.push(TreeInfo { name: name.clone(), files, bytes, tree_digest });
            let path = listings.join(&folder);
            let file = File::create(&path).ctx("create", &path)?;
            text::write_listing(&listing, BufWriter::new(file)).ctx("write", &path)?;
        }
        let manifest = Manifest { format: FORMAT, key: key.to_owned(), trees, meta };
        let path = dir.join(MANIFEST);
        let text = serde_json::to_vec_pretty(&manifest).expect("a manifest is JSON");
        std::fs::write(&path, text).ctx("write", &path)
    }
}
