//! signatures
use std::io::Write;

use crate::PoolError;

/// One tree of a baseline.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TreeInfo {
    /// The name it was captured under, like `volume/data`.
    pub name: String,
    /// Its entries that are not folders.
    pub files: u64,
    /// Sum of the sizes of its regular files, hard links once.
    pub bytes: u64,
    /// BLAKE3, 64 hex digits.
    pub tree_digest: String,
}

/// A published baseline. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Baseline {}

impl Baseline {
    /// Its key.
    pub fn key(&self) -> &str {
        unimplemented!()
    }
    /// What was given to `publish`.
    pub fn meta(&self) -> &serde_json::Value {
        unimplemented!()
    }
    /// Its trees, by name.
    pub fn trees(&self) -> &[TreeInfo] {
        unimplemented!()
    }
    /// Writes a tree as deterministic tar.zst.
    pub fn export(&self, tree: &str, writer: impl Write) -> Result<(), PoolError> {
        let _ = (tree, writer);
        unimplemented!()
    }
    /// Reads every byte again and compares with what was published.
    pub fn check(&self) -> Result<(), PoolError> {
        unimplemented!()
    }
}
