//! Paths beneath the root of a repository, as its files write them.

use std::fmt;

/// The longest path, in bytes.
const PATH_LEN_MAX: usize = 1024;

/// A normal path beneath the repository's root: no `.`, no `..`, no leading `/`; the root itself is `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoPath(String);

/// Why a written path is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing written.
    #[error("is empty")]
    Empty,
    /// A path of some machine.
    #[error("is absolute: only what the repository holds can be used, by a path beneath its root")]
    Absolute,
    /// `..` beyond the root.
    #[error("leads out of the repository")]
    Outside,
    /// Too long, or with characters that no path of ours has.
    #[error("has control characters or backslashes, or is longer than {PATH_LEN_MAX} bytes")]
    Unfit,
}

impl RepoPath {
    /// The root.
    pub fn root() -> Self {
        Self(".".to_owned())
    }

    /// A path as written in a file of the folder `self`.
    pub fn join(&self, written: &str) -> Result<Self, PathError> {
        if written.is_empty() {
            return Err(PathError::Empty);
        }
        if written.starts_with('/') || written.starts_with('~') {
            return Err(PathError::Absolute);
        }
        if written.len() > PATH_LEN_MAX || written.chars().any(|c| c.is_control() || c == '\\') {
            return Err(PathError::Unfit);
        }
        let mut parts: Vec<&str> = if self.0 == "." { Vec::new() } else { self.0.split('/').collect() };
        for part in written.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop().ok_or(PathError::Outside)?;
                }
                part => parts.push(part),
            }
        }
        Ok(if parts.is_empty() { Self::root() } else { Self(parts.join("/")) })
    }

    /// The folder that holds this path.
    pub fn folder(&self) -> Self {
        match self.0.rsplit_once('/') {
            Some((folder, _)) => Self(folder.to_owned()),
            None => Self::root(),
        }
    }

    /// The path; `.` for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `path` is this path or lies beneath it.
    pub fn holds(&self, path: &str) -> bool {
        self.0 == "."
            || path.strip_prefix(self.0.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normal_and_stay_beneath_the_root() {
        let folder = RepoPath::root().join("deploy/dev").unwrap();
        assert_eq!(folder.join("./a//b/").unwrap().as_str(), "deploy/dev/a/b");
        assert_eq!(folder.join("../../db").unwrap().as_str(), "db");
        assert_eq!(folder.join("../..").unwrap(), RepoPath::root());
        assert_eq!(folder.join("../../.."), Err(PathError::Outside));
        assert_eq!(folder.join("/etc"), Err(PathError::Absolute));
        assert_eq!(folder.join("~/x"), Err(PathError::Absolute));
        assert_eq!(folder.join(""), Err(PathError::Empty));
        assert_eq!(folder.join("a\nb"), Err(PathError::Unfit));
    }

    #[test]
    fn a_folder_holds_its_files_and_not_its_namesakes() {
        let db = RepoPath::root().join("db").unwrap();
        assert!(db.holds("db") && db.holds("db/x"));
        assert!(!db.holds("db2/x") && !db.holds("other"));
        assert!(RepoPath::root().holds("anything"));
    }
}
