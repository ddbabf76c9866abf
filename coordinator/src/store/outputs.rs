//! What tests print, beside the database: a row says in which segment it lies, where, how long it is, and its digest.
//!
//! ```text
//!   outputs/00000001.zst   outputs/00000002.zst   …   each a run of zstd frames, appended to, never changed
//! ```
//!
//! Invariants: bytes are synced before a row speaks of them; a segment has one writer, the process that made it (each start
//! begins a new one), so what a crash cut off belongs to nobody; what is read is checked against its digest.
//! Must not know runs or attempts.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

/// A segment that is longer gets no more. Space comes back by segments.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// So many digests of the open segment are remembered, to write the same only once.
const KNOWN_MAX: usize = 65_536;

/// Where the bytes of one output are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) segment: u64,
    /// From the segment's beginning.
    pub(super) at: u64,
    pub(super) bytes: u64,
    /// BLAKE3 of them, its first 16 bytes in hex.
    pub(super) digest: String,
}

/// Why bytes cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// The segment is not here, shorter, or cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// They are not what was written.
    #[error("is damaged")]
    Damaged,
}

/// The folder of segments. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Outputs {
    folder: Arc<Path>,
    open: Arc<Mutex<Option<Segment>>>,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    file: File,
    bytes: u64,
    known: HashMap<String, Place>,
}

impl Outputs {
    pub(super) fn open(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.into(), open: Arc::default() })
    }

    /// Keeps each of these, synced; their places in the same order.
    pub(super) async fn keep(&self, all: Vec<Vec<u8>>) -> std::io::Result<Vec<Place>> {
        if all.is_empty() {
            return Ok(Vec::new());
        }
        let outputs = self.clone();
        blocking(move || outputs.append(&all)).await
    }

    pub(super) async fn read(&self, place: Place) -> Result<Vec<u8>, Lost> {
        let path = self.path(place.segment);
        let read = blocking(move || {
            let mut bytes = vec![0; usize::try_from(place.bytes).map_err(|_| ErrorKind::InvalidData)?];
            File::open(path)?.read_exact_at(&mut bytes, place.at)?;
            Ok((digest(&bytes) == place.digest).then_some(bytes))
        });
        read.await?.ok_or(Lost::Damaged)
    }

    /// The numbers of all segments that got nothing since then (UTC milliseconds), so that no transaction can be under way
    /// that speaks of them; oldest first.
    pub(super) async fn untouched_since(&self, unix_ms: u64) -> std::io::Result<Vec<u64>> {
        let outputs = self.clone();
        blocking(move || {
            let open = outputs.open.lock().unwrap_or_else(PoisonError::into_inner);
            let open = open.as_ref().map(|segment| segment.number);
            let mut untouched = outputs.numbers()?;
            untouched.retain(|number| Some(*number) != open && outputs.is_older(*number, unix_ms));
            untouched.sort_unstable();
            Ok(untouched)
        })
        .await
    }

    pub(super) async fn remove(&self, segment: u64) -> std::io::Result<()> {
        let path = self.path(segment);
        blocking(move || std::fs::remove_file(path)).await
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.folder.join(format!("{segment:08}.zst"))
    }

    fn is_older(&self, segment: u64, unix_ms: u64) -> bool {
        let changed = std::fs::metadata(self.path(segment)).and_then(|data| data.modified());
        let since = UNIX_EPOCH + Duration::from_millis(unix_ms);
        changed.is_ok_and(|changed| changed < since)
    }

    fn numbers(&self) -> std::io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.strip_suffix(".zst")?.parse::<u64>().ok()));
        }
        Ok(numbers)
    }

    fn append(&self, all: &[Vec<u8>]) -> std::io::Result<Vec<Place>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Gone while it is written to: after a failure nobody knows where the segment ends.
        let mut segment = match open.take() {
            Some(segment) if segment.bytes < SEGMENT_BYTES_MAX => segment,
            _ => self.begin()?,
        };
        let mut places = Vec::with_capacity(all.len());
        let mut fresh = Vec::new();
        for bytes in all {
            let digest = digest(bytes);
            if let Some(known) = segment.known.get(&digest) {
                places.push(known.clone());
                continue;
            }
            let at = segment.bytes + fresh.len() as u64;
            let place =
                Place { segment: segment.number, at, bytes: bytes.len() as u64, digest: digest.clone() };
            fresh.extend_from_slice(bytes);
            if segment.known.len() >= KNOWN_MAX {
                segment.known.clear();
            }
            segment.known.insert(digest, place.clone());
            places.push(place);
        }
        segment.file.write_all(&fresh)?;
        segment.file.sync_data()?;
        segment.bytes += fresh.len() as u64;
        *open = Some(segment);
        Ok(places)
    }

    fn begin(&self) -> std::io::Result<Segment> {
        let mut number = self.numbers()?.into_iter().max().unwrap_or(0) + 1;
        loop {
            match File::create_new(self.path(number)) {
                Ok(file) => {
                    // The segment's name, too, is to outlive a crash.
                    File::open(&self.folder)?.sync_all()?;
                    return Ok(Segment { number, file, bytes: 0, known: HashMap::new() });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    let mut hex = blake3::hash(bytes).to_hex().to_string();
    hex.truncate(32);
    hex
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_kept_is_read_back_and_the_same_is_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        let outputs = Outputs::open(folder.path()).unwrap();
        let places = outputs.keep(vec![b"one".to_vec(), b"two".to_vec(), b"one".to_vec()]).await.unwrap();
        assert_eq!(places[0], places[2]);
        assert_eq!(outputs.keep(vec![b"two".to_vec()]).await.unwrap(), [places[1].clone()]);
        assert_eq!(outputs.read(places[1].clone()).await.unwrap(), b"two");
        assert_eq!(std::fs::read(outputs.path(1)).unwrap(), b"onetwo");
    }

    #[tokio::test]
    async fn a_new_process_writes_to_a_segment_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let first = Outputs::open(folder.path()).unwrap();
        let before = first.keep(vec![b"before".to_vec()]).await.unwrap();
        let second = Outputs::open(folder.path()).unwrap();
        let long_ago = UNIX_EPOCH + Duration::from_millis(1_000);
        File::options().write(true).open(second.path(1)).unwrap().set_modified(long_ago).unwrap();
        assert!(second.untouched_since(1_000).await.unwrap().is_empty());
        assert_eq!(second.untouched_since(1_001).await.unwrap(), [1]);
        let after = second.keep(vec![b"before".to_vec()]).await.unwrap();
        assert_eq!((before[0].segment, after[0].segment), (1, 2));
        assert_eq!(second.untouched_since(1_001).await.unwrap(), [1]);
        second.remove(1).await.unwrap();
        assert!(matches!(second.read(before[0].clone()).await, Err(Lost::Unreadable(_))));
    }

    #[tokio::test]
    async fn damage_is_told_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let outputs = Outputs::open(folder.path()).unwrap();
        let place = outputs.keep(vec![b"right".to_vec()]).await.unwrap().remove(0);
        std::fs::write(outputs.path(1), b"wrong").unwrap();
        assert!(matches!(outputs.read(place.clone()).await, Err(Lost::Damaged)));
        std::fs::write(outputs.path(1), b"cut").unwrap();
        assert!(matches!(outputs.read(place).await, Err(Lost::Unreadable(_))));
    }
}
