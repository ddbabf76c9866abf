//! signatures
use std::io::Read;
use std::path::Path;

use crate::{Baseline, PoolError};

/// A baseline in the making. Dropping it leaves nothing.
#[derive(Debug)]
pub struct Staging {}

impl Staging {
    /// Takes a tree from anywhere. Nothing may write to it meanwhile.
    pub fn capture(&mut self, tree: &str, from: &Path) -> Result<(), PoolError> {
        let _ = (tree, from);
        unimplemented!()
    }
    /// Takes a tree from a tar.zst that is not trusted.
    pub fn import(&mut self, tree: &str, reader: impl Read) -> Result<(), PoolError> {
        let _ = (tree, reader);
        unimplemented!()
    }
    /// Makes it a baseline, atomically; a key that exists keeps the existing one.
    pub fn publish(self, meta: serde_json::Value) -> Result<Baseline, PoolError> {
        let _ = meta;
        unimplemented!()
    }
}
