//! signatures
/// What was changed relative to a baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Footprint {
    /// Entries added, removed or changed.
    pub files: u64,
    /// Bytes in 4 KiB blocks that differ.
    pub bytes: u64,
}
