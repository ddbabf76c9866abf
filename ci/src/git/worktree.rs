//! A working tree as it is, uncommitted and untracked files too, made into a commit that only this command knows.
//!
//! What `.gitignore` (and `.git/info/exclude`, and the person's own excludes) names is not in it; submodules and repositories within
//! are left out with a note, as of any commit. Nothing is written into the repository: objects of changed files go to one beside
//! it, in the caller's scratch folder, that sees the repository's own as an alternate. The same files on top of the same commit
//! make the same commit id, on any machine: author and time are the base commit's time and nobody.
//!
//! Files are taken as they lie on the disk, without filters or line endings being changed. Links are read, never followed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::snapshot::summary;
use super::{CommitId, ENTRIES_MAX, FILE_BYTES_MAX, GitError, Repository, TOTAL_BYTES_MAX};
use crate::config::{Note, quoted};

/// A commit of uncommitted work.
#[derive(Debug)]
pub struct WorkingTree {
    /// Holds the commit, and sees all that the person's own holds.
    pub repository: Repository,
    /// The files as they are.
    pub commit: CommitId,
    /// What they are on top of.
    pub base: CommitId,
    /// Files that are not as in the base.
    pub changes: u64,
    /// Of those, files that git does not know yet.
    pub untracked: u64,
    /// What was left out.
    pub notes: Vec<Note>,
}

/// What became of one changed path.
enum Now {
    /// It is there.
    There(git2::IndexEntry),
    /// It is gone.
    Gone,
    /// It is nothing that a commit can hold.
    Neither,
}

impl Repository {
    /// The working tree, where it differs from `HEAD`; `None` for one that does not, and for a bare repository. `scratch`
    /// is a folder that lives as long as what is returned.
    pub fn working_tree(&self, scratch: &Path) -> Result<Option<WorkingTree>, GitError> {
        let Some(root) = self.inner.workdir() else { return Ok(None) };
        let base = self.resolve("HEAD")?;
        let unreadable = |source| self.unreadable("the working tree", source);
        let mut options = git2::StatusOptions::new();
        options.include_untracked(true).recurse_untracked_dirs(true).include_ignored(false);
        options.exclude_submodules(true).renames_head_to_index(false).renames_index_to_workdir(false);
        let statuses = self.inner.statuses(Some(&mut options)).map_err(unreadable)?;
        if statuses.is_empty() {
            return Ok(None);
        }
        if statuses.len() > ENTRIES_MAX {
            return Err(too_large("changed files", ENTRIES_MAX as u64));
        }
        let beside = self.beside(scratch)?;
        let mut made = Making { of: self, root, beside: &beside, bytes: 0 };
        let tree = beside.find_commit(base.0).and_then(|commit| commit.tree()).map_err(unreadable)?;
        let mut index = git2::Index::new().map_err(unreadable)?;
        index.read_tree(&tree).map_err(unreadable)?;
        let (mut changes, mut untracked) = (0, 0);
        let (mut entries, mut repositories, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for status in statuses.iter() {
            let path = status.path_bytes();
            if path.ends_with(b"/") {
                repositories.push(quoted(&String::from_utf8_lossy(path)));
                continue;
            }
            let is_known = !status.status().contains(git2::Status::IGNORED);
            let now = if is_known { made.now(path)? } else { Now::Gone };
            match now {
                Now::There(entry) => entries.push(entry),
                Now::Gone => {
                    let path = Path::new(std::ffi::OsStr::from_bytes(path));
                    index.remove_path(path).map_err(unreadable)?;
                }
                Now::Neither => {
                    others.push(quoted(&String::from_utf8_lossy(path)));
                    continue;
                }
            }
            changes += 1;
            untracked += u64::from(status.status() == git2::Status::WT_NEW);
        }
        // After all that is gone, so that a file may take the place of a folder.
        for entry in &entries {
            index.add(entry).map_err(unreadable)?;
        }
        let mut notes = summary("folders that are repositories of their own are left out", &repositories);
        notes.extend(summary("what is neither a file nor a link is left out", &others));
        if changes == 0 {
            return Ok(None);
        }
        let commit = commit(&beside, &base, &mut index).map_err(unreadable)?;
        drop(tree);
        let repository = Repository { inner: beside, path: self.path.clone() };
        Ok(Some(WorkingTree { repository, commit, base, changes, untracked, notes }))
    }

    /// A bare repository in `scratch` that sees the objects of this one.
    fn beside(&self, scratch: &Path) -> Result<git2::Repository, GitError> {
        let unreadable = |source| self.unreadable("the working tree", source);
        let beside = git2::Repository::init_bare(scratch.join("working-tree.git")).map_err(unreadable)?;
        let objects = self.inner.commondir().join("objects");
        let Some(objects) = objects.to_str() else {
            return Err(unreadable(git2::Error::from_str("its path is not UTF-8")));
        };
        beside.odb().and_then(|odb| odb.add_disk_alternate(objects)).map_err(unreadable)?;
        Ok(beside)
    }
}

fn too_large(what: impl Into<String>, max: u64) -> GitError {
    GitError::TooLarge { commit: "of the working tree".to_owned(), what: what.into(), max }
}

/// Always the same for the same files on the same base.
fn commit(
    beside: &git2::Repository,
    base: &CommitId,
    index: &mut git2::Index,
) -> Result<CommitId, git2::Error> {
    let tree = beside.find_tree(index.write_tree_to(beside)?)?;
    let parent = beside.find_commit(base.0)?;
    let time = git2::Time::new(parent.time().seconds(), 0);
    let nobody = git2::Signature::new("andon", "andon@invalid", &time)?;
    beside.commit(None, &nobody, &nobody, "working tree\n", &tree, &[&parent]).map(CommitId)
}

struct Making<'a> {
    of: &'a Repository,
    root: &'a Path,
    beside: &'a git2::Repository,
    /// Of all changed files so far.
    bytes: u64,
}

impl Making<'_> {
    fn now(&mut self, path: &[u8]) -> Result<Now, GitError> {
        let full = self.root.join(std::ffi::OsStr::from_bytes(path));
        let failed = |source: io::Error| {
            let shown = quoted(&String::from_utf8_lossy(path));
            GitError::Read {
                what: shown,
                path: self.of.path.clone(),
                source: git2::Error::from_str(&source.to_string()),
            }
        };
        let about = match full.symlink_metadata() {
            Ok(about) => about,
            // Not a folder: a file has taken the place of the one that it was in.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Now::Gone);
            }
            Err(error) => return Err(failed(error)),
        };
        if about.is_dir() {
            return Ok(Now::Gone);
        }
        if about.is_symlink() {
            let target = std::fs::read_link(&full).map_err(failed)?;
            let id = self.beside.blob(target.as_os_str().as_bytes());
            return self.there(path, 0o120_000, id);
        }
        if !about.is_file() {
            return Ok(Now::Neither);
        }
        let file = open(&full).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        if !about.is_file() {
            return Ok(Now::Neither);
        }
        self.bytes = self.bytes.saturating_add(about.len());
        if about.len() > FILE_BYTES_MAX {
            let shown = quoted(&String::from_utf8_lossy(path));
            return Err(too_large(format!("{shown} with {} bytes", about.len()), FILE_BYTES_MAX));
        }
        if self.bytes > TOTAL_BYTES_MAX {
            return Err(too_large("all changed files together, in bytes", TOTAL_BYTES_MAX));
        }
        let mode = if about.mode() & 0o100 != 0 { 0o100_755 } else { 0o100_644 };
        let id = copy(self.beside, file).map_err(failed)?;
        self.there(path, mode, Ok(id))
    }

    fn there(&self, path: &[u8], mode: u32, id: Result<git2::Oid, git2::Error>) -> Result<Now, GitError> {
        let id = id.map_err(|source| self.of.unreadable("the working tree", source))?;
        let never = git2::IndexTime::new(0, 0);
        Ok(Now::There(git2::IndexEntry {
            ctime: never,
            mtime: never,
            dev: 0,
            ino: 0,
            mode,
            uid: 0,
            gid: 0,
            file_size: 0,
            id,
            flags: 0,
            flags_extended: 0,
            path: path.to_owned(),
        }))
    }
}

/// Neither follows a link nor waits for whoever is at the other end of a pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

/// Piece by piece, and no more than a file may have, should it grow meanwhile.
fn copy(beside: &git2::Repository, file: File) -> io::Result<git2::Oid> {
    let mut writer = beside.blob_writer(None).map_err(io::Error::other)?;
    io::copy(&mut file.take(FILE_BYTES_MAX), &mut writer)?;
    writer.commit().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::Kind;
    use crate::testing::TestRepo;

    fn of(repo: &TestRepo) -> (tempfile::TempDir, Option<WorkingTree>) {
        let scratch = tempfile::tempdir().expect("a folder");
        let tree = repo.open().working_tree(scratch.path()).expect("a working tree");
        (scratch, tree)
    }

    fn read(tree: &WorkingTree, path: &str) -> Option<String> {
        let snapshot = tree.repository.snapshot(&tree.commit).expect("a commit");
        let bytes = snapshot.read(path).expect("readable");
        bytes.map(|bytes| String::from_utf8(bytes).expect("text"))
    }

    fn paths(tree: &WorkingTree) -> Vec<String> {
        let snapshot = tree.repository.snapshot(&tree.commit).expect("a commit");
        let files = snapshot.entries().filter(|(_, entry)| entry.kind != Kind::Folder);
        files.map(|(path, _)| path.to_owned()).collect()
    }

    #[test]
    fn what_is_on_the_disk_is_sent_and_what_is_ignored_is_not() {
        let repo = TestRepo::new();
        repo.write(".gitignore", "*.log\n/secret\n");
        repo.write("changed", "before");
        repo.write("deleted", "x");
        repo.write("same", "same");
        repo.write("was-folder/inside", "x");
        repo.commit("first");
        repo.write("changed", "after");
        std::fs::remove_file(repo.work().join("deleted")).unwrap();
        std::fs::remove_dir_all(repo.work().join("was-folder")).unwrap();
        repo.write("was-folder", "a file now");
        repo.write("new/deep/file", "untracked");
        repo.write("staged", "staged");
        repo.git(&["add", "staged"]);
        repo.write("staged", "and changed again");
        repo.write("out.log", "no");
        repo.write("secret", "no");
        std::os::unix::fs::symlink("/etc/passwd", repo.work().join("link")).unwrap();
        let (_scratch, tree) = of(&repo);
        let tree = tree.expect("there are changes");
        assert_eq!(
            paths(&tree),
            [".gitignore", "changed", "link", "new/deep/file", "same", "staged", "was-folder"]
        );
        assert_eq!(read(&tree, "changed").as_deref(), Some("after"));
        assert_eq!(read(&tree, "staged").as_deref(), Some("and changed again"));
        assert_eq!(read(&tree, "link"), None, "a link is a link");
        assert_eq!(tree.base, repo.head());
        assert_ne!(tree.commit, tree.base);
        assert_eq!(
            (tree.changes, tree.untracked),
            (7, 3),
            "changed, deleted, replaced twice, new, staged, link"
        );
    }

    #[test]
    fn a_clean_tree_and_a_bare_repository_have_nothing_of_their_own() {
        let repo = TestRepo::sample();
        assert!(of(&repo).1.is_none());
        repo.write("x", "x");
        assert!(of(&repo).1.is_some());
        let bare = Repository::open(&repo.bare("b.git")).unwrap();
        assert!(bare.working_tree(repo.root()).unwrap().is_none());
    }

    #[test]
    fn nothing_is_written_into_the_repository_and_the_same_files_are_the_same_commit() {
        let repo = TestRepo::sample();
        repo.write("new", "x");
        let objects = || repo.git(&["count-objects", "-v"]);
        let status = repo.git(&["status", "--porcelain"]);
        let (index, before) = (std::fs::read(repo.work().join(".git/index")).unwrap(), objects());
        let (_one, first) = of(&repo);
        let (_other, second) = of(&repo);
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(first.commit, second.commit);
        assert_eq!(objects(), before);
        assert_eq!(std::fs::read(repo.work().join(".git/index")).unwrap(), index);
        assert_eq!(repo.git(&["status", "--porcelain"]), status);
        repo.write("new", "y");
        assert_ne!(of(&repo).1.unwrap().commit, first.commit);
    }

    #[test]
    fn modes_are_kept_and_repositories_within_are_left_out_with_a_note() {
        let repo = TestRepo::sample();
        repo.write("run.sh", "#!/bin/sh\n");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(repo.work().join("run.sh"), executable).unwrap();
        std::fs::create_dir(repo.work().join("within")).unwrap();
        crate::testing::git(&repo.work().join("within"), &["init", "-q"]);
        repo.write("within/file", "x");
        crate::testing::git(&repo.work().join("within"), &["add", "-A"]);
        crate::testing::git(&repo.work().join("within"), &["commit", "-q", "-m", "x"]);
        let (_scratch, tree) = of(&repo);
        let tree = tree.unwrap();
        let snapshot = tree.repository.snapshot(&tree.commit).unwrap();
        assert_eq!(snapshot.kind("run.sh"), Some(Kind::File { executable: true }));
        assert_eq!(snapshot.kind("within/file"), None);
        assert!(tree.notes.iter().any(|note| note.to_string().contains("within")), "{:?}", tree.notes);
    }
}
