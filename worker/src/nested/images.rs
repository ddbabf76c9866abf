//! The images of the daemon, kept beside its data root, so that a data root made anew has them at once.
//!
//! ```text
//!   docker/                     the data root; overlay2/LAYER is a link into layers/ once it was sealed
//!   docker-images/layers/LAYER  what an image's layer holds; never written again
//!   docker-images/templates/KEY what the daemon knows of its images, as it was when sealed; digests of each file
//!   docker-aside-N              a data root that was given up; deleted in the background, like docker-images/trash
//! ```
//!
//! *Sealing* moves the layers of all images out of the data root and leaves links: a rename and a link a layer, on every
//! kind of file system. *Renewing* moves the data root aside and makes another out of the newest template: again a link a
//! layer, and some small files. The daemon follows such links, and removes only the link where it removes an image.
//!
//! Blocking code, only for when the daemon is stopped. Must not know: processes, the daemon's API. Invariants: a template
//! that is not whole is never used; a data root whose images cannot be understood is not sealed, and the template before
//! stays; a crash at any point loses no layer ([`ImageStore::relink`]).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// How many templates are kept.
const TEMPLATES_MAX: usize = 2;
/// Data roots that were given up and wait for their removal.
const ASIDE_MAX: u32 = 1_000;
/// Longest file that the daemon keeps about an image, in bytes (`tar-split` of a layer with very many files).
const METADATA_BYTES_MAX: u64 = 256 << 20;
/// What the daemon knows of its images, within a data root and within a template.
const METADATA: &str = "image/overlay2";
const LAYERS: &str = "overlay2";
const MANIFEST: &str = "manifest.json";

/// Which images a data root or a template holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Catalog {
    /// Of the images' ids, their names, their layers, and the daemon's program.
    pub(super) key: String,
    /// How many images.
    pub(super) images: usize,
    /// Names of the layers' folders, each with the short name that the daemon gives it.
    layers: Vec<(String, String)>,
    /// Every file beneath [`METADATA`] with its digest.
    files: Vec<(String, String)>,
}

/// A data root made anew.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Renewed {
    /// The images that it has from the start.
    pub(super) images: usize,
    /// Where the one before is now.
    pub(super) aside: PathBuf,
}

/// The data root and what is kept beside it.
#[derive(Debug, Clone)]
pub(super) struct ImageStore {
    data_root: PathBuf,
    store: PathBuf,
    /// What tells one version of the daemon from another.
    daemon: String,
}

impl ImageStore {
    /// `program` is the daemon's: its size and time stand for its version, which it takes 30 ms to tell.
    pub(super) fn new(data_root: &Path, program: Option<&Path>) -> Self {
        let daemon = program.and_then(|program| fs::metadata(program).ok());
        let daemon = daemon.map(|found| format!("{} {}", found.len(), found.mtime())).unwrap_or_default();
        Self { data_root: data_root.to_owned(), store: beside(data_root, "images"), daemon }
    }

    /// Takes the images of the data root into the store. `None` where there are none.
    pub(super) fn seal(&self) -> io::Result<Option<Catalog>> {
        if !self.data_root.join(METADATA).is_dir() {
            return Ok(None);
        }
        self.relink()?;
        let catalog = self.read(&self.data_root)?;
        if catalog.images == 0 {
            return Ok(None);
        }
        fs::create_dir_all(self.layers())?;
        for (layer, _) in &catalog.layers {
            let (own, kept) = (self.data_root.join(LAYERS).join(layer), self.layers().join(layer));
            if !fs::symlink_metadata(&own)?.is_symlink() {
                // Left by a data root that was given up, or by an image that was removed and came again.
                remove(&kept)?;
                fs::rename(&own, &kept)?;
                symlink(&kept, &own)?;
            }
        }
        let template = self.templates().join(&catalog.key);
        if !template.join(MANIFEST).exists() {
            let unfinished = self.templates().join(".new");
            remove(&unfinished)?;
            fs::create_dir_all(&unfinished)?;
            copy_files(&self.data_root, &unfinished, &catalog.files)?;
            fs::write(unfinished.join(MANIFEST), serde_json::to_vec(&catalog)?)?;
            remove(&template)?;
            fs::rename(&unfinished, &template)?;
        }
        Ok(Some(catalog))
    }

    /// A layer that was moved and not linked yet when the agent was killed.
    fn relink(&self) -> io::Result<()> {
        for layer in names(&self.layers())? {
            let own = self.data_root.join(LAYERS).join(&layer);
            let short = fs::read_to_string(self.layers().join(&layer).join("link")).unwrap_or_default();
            // The daemon removes its short name with the layer: without one the layer was removed on purpose.
            let is_known = !short.is_empty()
                && fs::symlink_metadata(self.data_root.join(LAYERS).join("l").join(&short)).is_ok();
            if is_known && fs::symlink_metadata(&own).is_err() {
                symlink(self.layers().join(&layer), &own)?;
            }
        }
        Ok(())
    }

    /// Moves the data root aside, and makes another with the images of the newest template that is whole.
    pub(super) fn renew(&self) -> io::Result<Renewed> {
        let aside = self.aside()?;
        fs::rename(&self.data_root, &aside)?;
        for template in self.newest_first()? {
            let Ok(catalog) = self.check(&template) else {
                tracing::warn!(template = %template.display(), "not whole: it is not used");
                continue;
            };
            match self.fill(&template, &catalog) {
                Ok(()) => return Ok(Renewed { images: catalog.images, aside }),
                Err(error) => {
                    tracing::warn!(template = %template.display(), %error, "cannot be cloned");
                    remove(&self.data_root)?;
                }
            }
        }
        fs::create_dir_all(&self.data_root)?;
        Ok(Renewed { images: 0, aside })
    }

    fn fill(&self, template: &Path, catalog: &Catalog) -> io::Result<()> {
        let layers = self.data_root.join(LAYERS);
        // As the daemon makes them: for root alone, but to be passed through.
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&self.data_root)?;
        fs::DirBuilder::new().mode(0o711).create(&layers)?;
        fs::DirBuilder::new().mode(0o700).create(layers.join("l"))?;
        for (layer, short) in &catalog.layers {
            symlink(self.layers().join(layer), layers.join(layer))?;
            symlink(format!("../{layer}/diff"), layers.join("l").join(short))?;
        }
        copy_files(template, &self.data_root, &catalog.files)
    }

    /// Sets apart what nothing refers to any more; answers with what can be deleted at leisure, by [`delete`].
    pub(super) fn discard(&self) -> io::Result<Vec<PathBuf>> {
        let mut doomed = Vec::new();
        let parent = self.data_root.parent().unwrap_or(Path::new("/"));
        let prefix = file_name(&beside(&self.data_root, "aside-"));
        doomed.extend(
            names(parent)?.into_iter().filter(|name| name.starts_with(&prefix)).map(|name| parent.join(name)),
        );
        let templates = self.newest_first()?;
        let (kept, old) = templates.split_at(templates.len().min(TEMPLATES_MAX));
        let mut used: BTreeSet<String> = names(&self.data_root.join(LAYERS))?.into_iter().collect();
        for template in kept {
            // One that cannot be read keeps nothing alive.
            used.extend(
                manifest_of(template).into_iter().flat_map(|catalog| catalog.layers).map(|layer| layer.0),
            );
        }
        let unused = names(&self.layers())?.into_iter().filter(|layer| !used.contains(layer));
        let trash = self.store.join("trash");
        for path in old.iter().cloned().chain(unused.map(|layer| self.layers().join(layer))) {
            fs::create_dir_all(&trash)?;
            let thrown = trash.join(file_name(&path));
            remove(&thrown)?;
            fs::rename(&path, &thrown)?;
        }
        // Also what an earlier life had no time for.
        doomed.extend(names(&trash)?.into_iter().map(|name| trash.join(name)));
        Ok(doomed)
    }

    /// What a data root says of its images, every file read and understood.
    fn read(&self, root: &Path) -> io::Result<Catalog> {
        let metadata = root.join(METADATA);
        let mut key = blake3::Hasher::new();
        key.update(self.daemon.as_bytes());
        let mut files = Vec::new();
        list_files(root, Path::new(METADATA), &mut files)?;
        let mut images = 0;
        let mut digests = Vec::new();
        for file in files {
            let bytes = read_bounded(&root.join(&file))?;
            let is_image = file.starts_with("image/overlay2/imagedb/content/");
            if is_image || file.ends_with("/repositories.json") {
                serde_json::from_slice::<serde_json::Value>(&bytes)
                    .map_err(|error| damaged(&file, &error.to_string()))?;
            }
            images += usize::from(is_image);
            let digest = blake3::hash(&bytes).to_hex().to_string();
            key.update(file.as_bytes()).update(digest.as_bytes());
            digests.push((file, digest));
        }
        let mut layers = Vec::new();
        for chain in names(&metadata.join("layerdb/sha256"))? {
            let file = metadata.join("layerdb/sha256").join(&chain).join("cache-id");
            let layer = fs::read_to_string(&file)?;
            if !is_plain(&layer) {
                return Err(damaged(&file.display().to_string(), "no layer's name"));
            }
            let folder = root.join(LAYERS).join(&layer);
            let short = fs::read_to_string(folder.join("link"))?;
            if !is_plain(&short) || !folder.join("diff").is_dir() {
                return Err(damaged(&folder.display().to_string(), "the layer is not whole"));
            }
            layers.push((layer, short));
        }
        Ok(Catalog { key: key.finalize().to_hex()[..32].to_owned(), images, layers, files: digests })
    }

    /// The template's catalog, where every file of it is as it was sealed and every layer is there.
    fn check(&self, template: &Path) -> io::Result<Catalog> {
        let catalog = manifest_of(template)?;
        for (file, digest) in &catalog.files {
            if blake3::hash(&read_bounded(&template.join(file))?).to_hex().as_str() != digest {
                return Err(damaged(file, "not as it was sealed"));
            }
        }
        let is_whole = |layer: &String| is_plain(layer) && self.layers().join(layer).join("diff").is_dir();
        match catalog.layers.iter().find(|(layer, _)| !is_whole(layer)) {
            Some((layer, _)) => Err(damaged(layer, "the layer is not there")),
            None => Ok(catalog),
        }
    }

    fn layers(&self) -> PathBuf {
        self.store.join("layers")
    }

    fn templates(&self) -> PathBuf {
        self.store.join("templates")
    }

    fn newest_first(&self) -> io::Result<Vec<PathBuf>> {
        let of = |name: String| {
            let path = self.templates().join(name);
            let sealed = fs::metadata(path.join(MANIFEST)).and_then(|found| found.modified());
            (sealed.unwrap_or(SystemTime::UNIX_EPOCH), path)
        };
        let mut found: Vec<_> = names(&self.templates())?.into_iter().map(of).collect();
        found.sort();
        Ok(found.into_iter().rev().map(|(_, path)| path).collect())
    }

    fn aside(&self) -> io::Result<PathBuf> {
        let candidates = (0..ASIDE_MAX).map(|number| beside(&self.data_root, &format!("aside-{number}")));
        let mut free = candidates.filter(|path| fs::symlink_metadata(path).is_err());
        free.next().ok_or_else(|| io::Error::other(format!("{ASIDE_MAX} data roots wait for their removal")))
    }
}

fn beside(data_root: &Path, what: &str) -> PathBuf {
    data_root.with_file_name(format!("{}-{what}", file_name(data_root)))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn manifest_of(template: &Path) -> io::Result<Catalog> {
    Ok(serde_json::from_slice(&read_bounded(&template.join(MANIFEST))?)?)
}

fn damaged(what: &str, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} is damaged: {why}"))
}

fn is_plain(name: &str) -> bool {
    // A layer that is being made has the suffix `-init`.
    !name.is_empty() && name.len() <= 128 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > METADATA_BYTES_MAX {
        return Err(damaged(&path.display().to_string(), "too long"));
    }
    fs::read(path)
}

/// Names in a folder, in order; none where it is not there.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        found.push(entry?.file_name().to_string_lossy().into_owned());
    }
    found.sort();
    Ok(found)
}

/// Files beneath `root/folder`, as paths from `root`. What belongs to containers, or is being made, is left out.
fn list_files(root: &Path, folder: &Path, found: &mut Vec<String>) -> io::Result<()> {
    for name in names(&root.join(folder))? {
        let path = folder.join(&name);
        if folder.ends_with("layerdb") && name != "sha256" {
            continue;
        }
        let kind = fs::symlink_metadata(root.join(&path))?.file_type();
        if kind.is_dir() {
            list_files(root, &path, found)?;
        } else if kind.is_file() && !name.starts_with(".tmp-") {
            found.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

fn copy_files(from: &Path, into: &Path, files: &[(String, String)]) -> io::Result<()> {
    for (file, _) in files {
        let target = into.join(file);
        let folder = target.parent().unwrap_or(into);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::copy(from.join(file), target)?;
    }
    Ok(())
}

/// Deletes what was set apart. May take long, and may be cut short.
pub(super) fn delete(doomed: &[PathBuf]) {
    for path in doomed {
        if let Err(error) = remove(path) {
            tracing::warn!(path = %path.display(), %error, "stays until the next start");
        }
    }
}

/// Removes whatever is there. Links are removed, not followed.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
