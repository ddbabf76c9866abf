//! The files of one commit: listed whole, checked, and read one by one.
//!
//! Invariants of a listing: paths are relative, normal, UTF-8 and unique, no path lies beneath a symlink, parents come
//! before their children, and the order is that of the paths' bytes. What git itself would not check out (`..`,
//! `.git`, a name twice) refuses the commit; what cannot be carried (submodules, names that are not UTF-8) is left
//! out with a note. Counts and sizes are checked against the object headers, before contents are read.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::{CommitId, GitError, Repository};
use crate::config::{Note, quoted};

/// The most files and folders of a commit.
pub const ENTRIES_MAX: usize = 300_000;
/// The most bytes of one file.
pub const FILE_BYTES_MAX: u64 = 1 << 30;
/// The most bytes of all files.
pub const TOTAL_BYTES_MAX: u64 = 4 << 30;
/// The longest path, in bytes.
const PATH_LEN_MAX: usize = 3800;
/// The deepest folder.
const DEPTH_MAX: usize = 128;
/// The longest target of a symlink: the kernel's limit.
const LINK_LEN_MAX: u64 = 4095;
/// The most notes of one kind that are written out.
const NOTES_MAX: usize = 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file.
    File {
        /// Mode 755 instead of 644.
        executable: bool,
    },
    /// A symlink.
    Symlink,
}

/// A file, a folder or a symlink.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Bytes of the content or the link's target; 0 for folders.
    pub size: u64,
    pub(super) id: git2::Oid,
}

/// The files of one commit.
pub struct Snapshot<'r> {
    pub(super) repository: &'r Repository,
    pub(super) commit: CommitId,
    pub(super) entries: BTreeMap<String, Entry>,
    /// What was left out.
    notes: Vec<Note>,
}

impl std::fmt::Debug for Snapshot<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("commit", &self.commit)
            .field("entries", &self.entries.len())
            .finish()
    }
}

struct Walk<'r> {
    repository: &'r Repository,
    odb: git2::Odb<'r>,
    commit: &'r CommitId,
    entries: BTreeMap<String, Entry>,
    seen: usize,
    total: u64,
    submodules: Vec<String>,
    unreadable_names: Vec<String>,
}

impl<'r> Snapshot<'r> {
    pub(super) fn of(repository: &'r Repository, commit: &CommitId) -> Result<Self, GitError> {
        let read = |what: &str, source| repository.unreadable(&format!("{what} {commit}"), source);
        let found = repository.inner.find_commit(commit.0).map_err(|source| read("commit", source))?;
        let tree = found.tree().map_err(|source| read("the tree of commit", source))?;
        let odb = repository.inner.odb().map_err(|source| read("the objects of", source))?;
        let mut walk = Walk {
            repository,
            odb,
            commit,
            entries: BTreeMap::new(),
            seen: 0,
            total: 0,
            submodules: Vec::new(),
            unreadable_names: Vec::new(),
        };
        walk.folder("", &tree, 0)?;
        let mut notes = summary("submodules are left out", &walk.submodules);
        notes.extend(summary("paths that are not UTF-8 are left out", &walk.unreadable_names));
        Ok(Self { repository, commit: commit.clone(), entries: walk.entries, notes })
    }

    /// Which commit.
    pub fn commit(&self) -> &CommitId {
        &self.commit
    }

    /// What was left out of the listing.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// All paths, parents before children.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// What is at a path; `.` is the root.
    pub fn kind(&self, path: &str) -> Option<Kind> {
        if path == "." { Some(Kind::Folder) } else { self.entries.get(path).map(|entry| entry.kind) }
    }

    /// The bytes of a file or of a symlink's target; 0 where there is none.
    pub fn size(&self, path: &str) -> u64 {
        self.entries.get(path).map_or(0, |entry| entry.size)
    }

    /// The content of a file; `None` where there is none of this name.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, GitError> {
        match self.entries.get(path) {
            Some(entry) if matches!(entry.kind, Kind::File { .. }) => self.content(path, entry).map(Some),
            _ => Ok(None),
        }
    }

    /// The bytes of a file, or a symlink's target.
    pub(super) fn content(&self, path: &str, entry: &Entry) -> Result<Vec<u8>, GitError> {
        let blob = self.repository.inner.find_blob(entry.id);
        let blob = blob.map_err(|source| self.repository.unreadable(&quoted(path), source))?;
        Ok(blob.content().to_owned())
    }

    /// Digest over path, mode and content of every file and symlink that is chosen, and their number.
    ///
    /// Independent of git's own hashes and of the order in which anything was added.
    pub fn digest(&self, chosen: impl Fn(&str) -> bool) -> Result<(String, u64), GitError> {
        let mut hasher = blake3::Hasher::new_derive_key("andon 2026 files of a commit");
        let mut count = 0;
        self.each_chosen(chosen, |path, mode, content| {
            count += 1;
            hasher.update(&(path.len() as u64).to_le_bytes());
            hasher.update(path.as_bytes());
            hasher.update(&mode.to_le_bytes());
            hasher.update(content.as_bytes());
        })?;
        Ok((hasher.finalize().to_hex().to_string(), count))
    }

    /// Path, and digest over mode and content, of every file and symlink that is chosen; by path.
    pub fn file_digests(&self, chosen: impl Fn(&str) -> bool) -> Result<Vec<(String, String)>, GitError> {
        let mut files = Vec::new();
        self.each_chosen(chosen, |path, mode, content| {
            let mut hasher = blake3::Hasher::new_derive_key("andon 2026 file of a commit");
            hasher.update(&mode.to_le_bytes());
            hasher.update(content.as_bytes());
            files.push((path.to_owned(), hasher.finalize().to_hex().to_string()));
        })?;
        Ok(files)
    }

    /// Path, mode and the content's digest of what is chosen; by path.
    fn each_chosen(
        &self,
        chosen: impl Fn(&str) -> bool,
        mut each: impl FnMut(&str, u32, blake3::Hash),
    ) -> Result<(), GitError> {
        for (path, entry) in &self.entries {
            let mode: u32 = match entry.kind {
                Kind::Folder => continue,
                Kind::File { executable: false } => 0o644,
                Kind::File { executable: true } => 0o755,
                Kind::Symlink => 0o777,
            };
            if chosen(path) {
                each(path, mode, blake3::hash(&self.content(path, entry)?));
            }
        }
        Ok(())
    }
}

pub(super) fn summary(what: &str, names: &[String]) -> Vec<Note> {
    if names.is_empty() {
        return Vec::new();
    }
    let shown: Vec<&str> = names.iter().take(NOTES_MAX).map(String::as_str).collect();
    let more = names.len().saturating_sub(NOTES_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    vec![Note::about_source(format!("{what}: {}{more}", shown.join(", ")))]
}

impl Walk<'_> {
    fn hostile(&self, reason: String) -> GitError {
        GitError::Hostile { commit: self.commit.to_string(), reason }
    }

    fn too_large(&self, what: impl Into<String>, max: u64) -> GitError {
        GitError::TooLarge { commit: self.commit.to_string(), what: what.into(), max }
    }

    fn folder(&mut self, prefix: &str, tree: &git2::Tree<'_>, depth: usize) -> Result<(), GitError> {
        if depth > DEPTH_MAX {
            return Err(self.too_large(format!("folders in folders at {}", quoted(prefix)), DEPTH_MAX as u64));
        }
        let mut names: HashSet<Vec<u8>> = HashSet::new();
        for entry in tree {
            // Counted before anything is kept, since a small tree can name itself many times over.
            self.seen += 1;
            if self.seen > ENTRIES_MAX {
                return Err(self.too_large("files and folders", ENTRIES_MAX as u64));
            }
            let name = entry.name_bytes();
            let shown = quoted(&format!("{prefix}{}", String::from_utf8_lossy(name)));
            if let Some(reason) = refusal(name) {
                return Err(self.hostile(format!("{shown} {reason}")));
            }
            if !names.insert(name.to_owned()) {
                return Err(self.hostile(format!("{shown} is in its folder twice")));
            }
            let Ok(name) = entry.name() else {
                self.unreadable_names.push(shown);
                continue;
            };
            let path = format!("{prefix}{name}");
            if path.len() > PATH_LEN_MAX {
                return Err(self.too_large(format!("the path {shown}"), PATH_LEN_MAX as u64));
            }
            self.entry(path, &entry, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: String, entry: &git2::TreeEntry<'_>, depth: usize) -> Result<(), GitError> {
        let id = entry.id();
        let kind = match entry.filemode_raw() & 0o170_000 {
            0o040_000 => {
                let tree = self.repository.inner.find_tree(id);
                let tree = tree.map_err(|source| self.repository.unreadable(&quoted(&path), source))?;
                let prefix = format!("{path}/");
                self.entries.insert(path, Entry { kind: Kind::Folder, size: 0, id });
                return self.folder(&prefix, &tree, depth + 1);
            }
            0o160_000 => {
                self.submodules.push(quoted(&path));
                return Ok(());
            }
            0o120_000 => Kind::Symlink,
            0o100_000 => Kind::File { executable: entry.filemode_raw() & 0o100 != 0 },
            mode => return Err(self.hostile(format!("{} has the mode {mode:o}", quoted(&path)))),
        };
        let header = self.odb.read_header(id);
        let (size, _) = header.map_err(|source| self.repository.unreadable(&quoted(&path), source))?;
        let size = size as u64;
        let max = if kind == Kind::Symlink { LINK_LEN_MAX } else { FILE_BYTES_MAX };
        if size > max {
            return Err(self.too_large(format!("{} with {size} bytes", quoted(&path)), max));
        }
        self.total = self.total.saturating_add(size);
        if self.total > TOTAL_BYTES_MAX {
            return Err(self.too_large("all files together, in bytes", TOTAL_BYTES_MAX));
        }
        self.entries.insert(path, Entry { kind, size, id });
        Ok(())
    }
}

/// Why a name in a tree is one that git would not check out.
fn refusal(name: &[u8]) -> Option<&'static str> {
    match name {
        b"" => Some("is an entry without a name"),
        b"." | b".." => Some("leads out of its folder"),
        name if name.contains(&b'/') => Some("has a slash in its name"),
        name if name.eq_ignore_ascii_case(b".git") => Some("is a git folder of its own"),
        name if name.len() > 255 => Some("has a name longer than file systems take"),
        _ => None,
    }
}

/// Whether a path is a normal one beneath the root; what a listing promises.
pub(super) fn is_normal(path: &str) -> bool {
    !path.is_empty()
        && Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)))
        && !path.split('/').any(|part| part.is_empty() || part == ".")
}
