//! Repositories: read with libgit2, fetched by the `git` program, and the hook that tells of pushes.
//!
//! The only folder that knows git2. Nothing here writes into a repository but [`hook::install`] (its hook) and
//! [`mirror`] (its own mirrors); a working tree's files go to a repository beside it. Repositories are hostile: every name in a tree is checked, every size is bounded
//! before it is read, and the `git` program gets no name that could be an option, a helper or a hook.

pub mod archive;
pub mod hook;
pub mod mirror;
mod remote;
mod snapshot;
mod worktree;

use std::fmt;
use std::path::{Path, PathBuf};

pub use self::archive::Archive;
pub use self::remote::{RemoteError, RemoteUrl};
pub(crate) use self::remote::{Way, host_name, without_credentials};
pub use self::snapshot::{ENTRIES_MAX, Entry, FILE_BYTES_MAX, Kind, Snapshot, TOTAL_BYTES_MAX};
pub use self::worktree::WorkingTree;

/// The most branches of a repository that are looked at.
pub const BRANCHES_MAX: usize = 10_000;
/// The longest revision that is resolved.
const REVISION_LEN_MAX: usize = 256;

/// A full object id of a commit, lowercase hex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(git2::Oid);

impl CommitId {
    /// From the full hex form.
    pub fn parse(hex: &str) -> Result<Self, GitError> {
        let fit =
            hex.len() == 40 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let oid = if fit { git2::Oid::from_str(hex).ok() } else { None };
        oid.map(Self).ok_or_else(|| GitError::NotAnId { text: crate::config::quoted(hex) })
    }

    /// The first characters, for people.
    pub fn short(&self) -> String {
        let mut hex = self.0.to_string();
        hex.truncate(7);
        hex
    }

    /// Whether it is the id of nothing, as pushes name what is not there.
    pub fn is_zero(&self) -> bool {
        self.0.is_zero()
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a repository cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// Not a repository, or not ours to read.
    #[error("{path} cannot be opened as a git repository")]
    Open {
        /// As given.
        path: PathBuf,
        /// libgit2's reason.
        #[source]
        source: git2::Error,
    },
    /// Nothing of this name, or not a commit.
    #[error("{revision} names no commit in {path}")]
    Revision {
        /// As given, quoted.
        revision: String,
        /// The repository.
        path: PathBuf,
        /// libgit2's reason.
        #[source]
        source: git2::Error,
    },
    /// Not an object id.
    #[error("{text} is no object id: 40 characters, 0-9 and a-f")]
    NotAnId {
        /// As given, quoted.
        text: String,
    },
    /// An object that cannot be read.
    #[error("cannot read {what} of {path}")]
    Read {
        /// What was read.
        what: String,
        /// The repository.
        path: PathBuf,
        /// libgit2's reason.
        #[source]
        source: git2::Error,
    },
    /// A tree that no git would check out.
    #[error("commit {commit} is refused: {reason}")]
    Hostile {
        /// Which commit.
        commit: String,
        /// What is in it.
        reason: String,
    },
    /// More than the farm takes.
    #[error("commit {commit} is too large: {what}, at most {max}")]
    TooLarge {
        /// Which commit.
        commit: String,
        /// What there is too much of.
        what: String,
        /// The limit.
        max: u64,
    },
    /// The archive cannot be written.
    #[error("cannot write the source archive of commit {commit}")]
    Archive {
        /// Which commit.
        commit: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The branches of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branches {
    /// Name (without `refs/heads/`) and commit, sorted by name.
    pub heads: Vec<(String, CommitId)>,
    /// What was left out, and why.
    pub refused: Vec<String>,
}

/// A repository that is only read.
pub struct Repository {
    inner: git2::Repository,
    path: PathBuf,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Repository {
    /// Opens exactly this path: a bare repository, a work tree's root or its `.git`.
    pub fn open(path: &Path) -> Result<Self, GitError> {
        let flags = git2::RepositoryOpenFlags::NO_SEARCH;
        let none: [&Path; 0] = [];
        let inner = git2::Repository::open_ext(path, flags, none)
            .map_err(|source| GitError::Open { path: path.to_owned(), source })?;
        Ok(Self { inner, path: path.to_owned() })
    }

    /// Opens the repository that holds this folder, as `git` itself would find it.
    pub fn discover(path: &Path) -> Result<Self, GitError> {
        let inner = git2::Repository::discover(path)
            .map_err(|source| GitError::Open { path: path.to_owned(), source })?;
        let path = inner.workdir().unwrap_or_else(|| inner.path()).to_owned();
        Ok(Self { inner, path })
    }

    /// Where it is: the work tree's root, or the bare repository.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it has no work tree.
    pub fn is_bare(&self) -> bool {
        self.inner.is_bare()
    }

    /// A revision (`HEAD`, a branch, a tag, an id or the beginning of one) as a commit's full id.
    pub fn resolve(&self, revision: &str) -> Result<CommitId, GitError> {
        let wrong = |source| GitError::Revision {
            revision: crate::config::quoted(revision),
            path: self.path.clone(),
            source,
        };
        if revision.is_empty() || revision.len() > REVISION_LEN_MAX {
            return Err(wrong(git2::Error::from_str("a revision has 1 to 256 characters")));
        }
        let object = self.inner.revparse_single(revision).map_err(wrong)?;
        Ok(CommitId(object.peel_to_commit().map_err(wrong)?.id()))
    }

    /// The full name of the branch that a revision names: `refs/heads/main`; `None` for tags, ids and a detached
    /// `HEAD`.
    pub fn branch_of(&self, revision: &str) -> Option<String> {
        let reference = match revision {
            "HEAD" => self.inner.head().ok()?,
            name => self.inner.resolve_reference_from_short_name(name).ok()?,
        };
        let name = reference.name().ok()?;
        name.starts_with("refs/heads/").then(|| name.to_owned())
    }

    /// All branches with their commits, sorted by name. Names that are not UTF-8, begin with `-` or hold control
    /// characters are refused.
    pub fn branches(&self) -> Result<Branches, GitError> {
        let failed = |source| GitError::Read { what: "branches".into(), path: self.path.clone(), source };
        let mut heads = Vec::new();
        let mut refused = Vec::new();
        for reference in self.inner.references_glob("refs/heads/*").map_err(failed)? {
            let reference = reference.map_err(failed)?;
            let name = String::from_utf8_lossy(reference.name_bytes()).into_owned();
            let Some(branch) = branch_name(&name).filter(|_| reference.name().is_ok()) else {
                refused.push(format!(
                    "branch {} is left out: no name for a branch",
                    crate::config::quoted(&name)
                ));
                continue;
            };
            if heads.len() >= BRANCHES_MAX {
                refused.push(format!("more than {BRANCHES_MAX} branches: the rest is left out"));
                break;
            }
            if let Ok(commit) = reference.peel_to_commit() {
                heads.push((branch.to_owned(), CommitId(commit.id())));
            }
        }
        heads.sort();
        Ok(Branches { heads, refused })
    }

    /// Whether the commit is there.
    pub fn has(&self, commit: &CommitId) -> bool {
        self.inner.find_commit(commit.0).is_ok()
    }

    /// When the commit was made, in seconds since 1970, as its author's machine said.
    pub fn commit_time(&self, commit: &CommitId) -> Result<i64, GitError> {
        let found = self.inner.find_commit(commit.0);
        let found = found.map_err(|source| self.unreadable(&format!("commit {commit}"), source))?;
        Ok(found.time().seconds())
    }

    /// A file at the root of a commit's tree, without a look at the rest; empty for what is there and no file, or
    /// larger than any configuration.
    pub fn root_file(&self, commit: &CommitId, name: &str) -> Result<Option<Vec<u8>>, GitError> {
        let unreadable = |source| self.unreadable(&format!("{name} at {commit}"), source);
        let tree = self.inner.find_commit(commit.0).and_then(|found| found.tree()).map_err(unreadable)?;
        let Some(entry) = tree.get_name(name) else { return Ok(None) };
        if entry.filemode_raw() & 0o170_000 != 0o100_000 {
            return Ok(Some(Vec::new()));
        }
        let odb = self.inner.odb().map_err(unreadable)?;
        let (size, _) = odb.read_header(entry.id()).map_err(unreadable)?;
        if size > crate::config::FILE_BYTES_MAX {
            return Ok(Some(Vec::new()));
        }
        let blob = self.inner.find_blob(entry.id()).map_err(unreadable)?;
        Ok(Some(blob.content().to_owned()))
    }

    /// The files of a commit.
    pub fn snapshot(&self, commit: &CommitId) -> Result<Snapshot<'_>, GitError> {
        Snapshot::of(self, commit)
    }

    /// Where the repository came from, without credentials: the remote `origin`, else its own path.
    pub fn origin(&self) -> String {
        let origin = self.inner.find_remote("origin").ok();
        let url = origin.and_then(|remote| remote.url().ok().map(str::to_owned));
        url.map_or_else(|| self.path.display().to_string(), |url| remote::without_credentials(&url))
    }

    fn unreadable(&self, what: &str, source: git2::Error) -> GitError {
        GitError::Read { what: what.to_owned(), path: self.path.clone(), source }
    }
}

/// The branch of a full ref name, if it is one that can be worked with: valid for git, UTF-8, no leading `-`.
pub fn branch_name(reference: &str) -> Option<&str> {
    checked_name(reference, "refs/heads/")
}

/// The tag of a full ref name, as [`branch_name`].
pub fn tag_name(reference: &str) -> Option<&str> {
    checked_name(reference, "refs/tags/")
}

/// Whether this is one ref by its full name, and no pattern.
fn is_full_name(reference: &str) -> bool {
    let fit = |prefix: &&str| checked_name(reference, prefix).is_some_and(|rest| !rest.contains('*'));
    ["refs/heads/", "refs/tags/", "refs/pull/", "refs/merge-requests/", "refs/andon/"].iter().any(fit)
}

fn checked_name<'r>(reference: &'r str, prefix: &str) -> Option<&'r str> {
    let name = reference.strip_prefix(prefix)?;
    let fit = !name.starts_with('-')
        && !name.chars().any(char::is_control)
        && git2::Reference::is_valid_name(reference);
    fit.then_some(name)
}

#[cfg(test)]
mod tests;
