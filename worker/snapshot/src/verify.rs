//! signatures
use std::fmt;

/// The first thing that is not as the baseline says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The tree.
    pub tree: String,
    /// The path in it, escaped; empty for its root.
    pub path: String,
    /// What is different.
    pub change: Change,
}

/// How an entry differs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// In the baseline, not in the clone.
    Missing,
    /// In the clone, not in the baseline.
    Unexpected,
    /// `kind`, `mode`, `owner`, `size`, `mtime`, `target`: what was expected and found.
    Attribute {
        /// Which.
        name: &'static str,
        /// The baseline's.
        expected: String,
        /// The clone's.
        found: String,
    },
    /// The clone cannot be read.
    Unreadable(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tree `{}`, `{}`: ", self.tree, self.path)?;
        match &self.change {
            Change::Missing => f.write_str("is missing"),
            Change::Unexpected => f.write_str("is not in the baseline"),
            Change::Attribute { name, expected, found } => {
                write!(f, "{name} is {found}, the baseline has {expected}")
            }
            Change::Unreadable(why) => write!(f, "cannot be read: {why}"),
        }
    }
}

impl std::error::Error for Difference {}
