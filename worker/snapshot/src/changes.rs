//! Which paths of a used tree are not as its baseline has them: the list behind a `Footprint`.
//!
//! Must not know: pools, lanes, how a change is found (footprint.rs). Invariants: a list never holds more than its limit,
//! however much was changed; which entries it holds and their order depend on the trees alone: the most bytes first,
//! then by the bytes of the path.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Footprint;
use crate::tree::text;

/// How an entry differs from the baseline's. One that differs in several ways is called by the first that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChangeKind {
    /// Not in the baseline.
    Added,
    /// In the baseline alone.
    Removed,
    /// Of another kind: a file that became a folder, a link that points elsewhere.
    Kind,
    /// A file with other bytes or another size.
    Content,
    /// The permissions.
    Mode,
    /// The user or the group.
    Owner,
    /// Extended attributes.
    Attributes,
}

/// One entry that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Where it is in the tree; empty for the tree's root. Serialised with what is not plain text escaped.
    #[serde(with = "text::path")]
    pub path: PathBuf,
    /// How it differs.
    pub change: ChangeKind,
    /// Bytes of differing blocks, as [`Footprint::bytes`] counts them. A file of several names has them at one of them.
    pub bytes: u64,
}

/// What was changed in one tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TreeChanges {
    /// The tree.
    pub tree: String,
    /// All of it, also of what the list leaves out.
    pub footprint: Footprint,
    /// The entries that differ, the most bytes first; no more than was asked for.
    pub files: Vec<FileChange>,
    /// Entries that differ and are not in `files`.
    pub left_out: u64,
}

/// What was changed relative to a baseline, tree by tree.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Changes {
    /// Over all trees.
    pub footprint: Footprint,
    /// Every tree that was compared, in the baseline's order, changed or not.
    pub trees: Vec<TreeChanges>,
}

impl Changes {
    pub(crate) fn of(trees: Vec<TreeChanges>) -> Changes {
        let mut footprint = Footprint::default();
        for tree in &trees {
            footprint += tree.footprint;
        }
        Changes { footprint, trees }
    }
}

/// Sums changes up, and keeps the largest few of them.
#[derive(Debug)]
pub(crate) struct Collector {
    limit: usize,
    sum: Footprint,
    kept: BTreeSet<(Reverse<u64>, PathBuf, ChangeKind)>,
}

impl Collector {
    /// One that keeps at most `limit` entries.
    pub(crate) fn new(limit: usize) -> Collector {
        Collector { limit, sum: Footprint::default(), kept: BTreeSet::new() }
    }

    pub(crate) fn add(&mut self, path: &Path, change: ChangeKind, bytes: u64) {
        self.sum += Footprint { files: 1, bytes };
        if self.limit == 0 {
            return;
        }
        if self.kept.len() == self.limit {
            let least = self.kept.last().map(|(Reverse(bytes), path, _)| (Reverse(*bytes), path.as_path()));
            if least < Some((Reverse(bytes), path)) {
                return;
            }
            self.kept.pop_last();
        }
        self.kept.insert((Reverse(bytes), path.to_owned(), change));
    }

    pub(crate) fn footprint(&self) -> Footprint {
        self.sum
    }

    pub(crate) fn finish(self, tree: &str) -> TreeChanges {
        let files: Vec<FileChange> = self
            .kept
            .into_iter()
            .map(|(Reverse(bytes), path, change)| FileChange { path, change, bytes })
            .collect();
        let left_out = self.sum.files - files.len() as u64;
        TreeChanges { tree: tree.to_owned(), footprint: self.sum, files, left_out }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_list_is_the_head_of_all_changes_sorted(
            sizes in proptest::collection::vec(0u64..5, 0..40),
            limit in 0usize..12,
        ) {
            let mut collector = Collector::new(limit);
            let mut all = Vec::new();
            for (index, bytes) in sizes.iter().enumerate() {
                let path = PathBuf::from(format!("{}", index * 7 % 41));
                collector.add(&path, ChangeKind::Content, *bytes);
                all.push(FileChange { path, change: ChangeKind::Content, bytes: *bytes });
            }
            all.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
            let changes = collector.finish("t");
            prop_assert_eq!(changes.footprint.files, all.len() as u64);
            prop_assert_eq!(changes.footprint.bytes, sizes.iter().sum::<u64>());
            prop_assert_eq!(changes.left_out, all.len().saturating_sub(limit) as u64);
            all.truncate(limit);
            prop_assert_eq!(changes.files, all);
        }
    }
}
