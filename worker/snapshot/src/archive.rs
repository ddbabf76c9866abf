//! signatures
use thiserror::Error;

/// What an imported archive may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportLimits {
    /// Bytes after decompression.
    pub bytes_max: u64,
    /// Entries.
    pub entries_max: u64,
}

impl Default for ImportLimits {
    fn default() -> Self {
        ImportLimits { bytes_max: 64 << 30, entries_max: 2_000_000 }
    }
}

/// Why an archive is refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportRefusal {
    /// Not tar, or not zstd.
    #[error("the archive cannot be read")]
    Unreadable(#[source] std::io::Error),
}
