//! A file as a stream of chunks, and its digest.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use andon_proto::BlobChunk;
use futures::Stream;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

/// Bytes of one chunk.
const CHUNK_BYTES: usize = 256 << 10;
/// An upload may take this long …
const UPLOAD_BASE: Duration = Duration::from_secs(60);
/// … and as long as its bytes take at this pace.
const UPLOAD_BYTES_A_SECOND_MIN: u64 = 1 << 20;

/// How long an upload of so many bytes may take.
pub(super) fn limit(size: u64) -> Duration {
    UPLOAD_BASE + Duration::from_secs(size / UPLOAD_BYTES_A_SECOND_MIN)
}

/// Digest and size.
pub(super) async fn digest(file: &Path) -> io::Result<(String, u64)> {
    let hasher = hashed(file).await?;
    Ok((hasher.finalize().to_hex().to_string(), hasher.count()))
}

/// A hasher that has seen the file.
pub(super) async fn hashed(file: &Path) -> io::Result<blake3::Hasher> {
    let file = file.to_owned();
    let hashing = tokio::task::spawn_blocking(move || {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(std::fs::File::open(file)?)?;
        Ok(hasher)
    });
    hashing.await.map_err(io::Error::other)?
}

/// Why a file could not be read to its end. The stream then ends early, and its digest is refused.
#[derive(Debug, Clone, Default)]
pub(super) struct ReadFailure(Arc<Mutex<Option<io::Error>>>);

impl ReadFailure {
    pub(super) fn take(&self) -> Option<io::Error> {
        self.0.lock().expect("no holder of this lock panics").take()
    }

    fn set(&self, error: io::Error) {
        *self.0.lock().expect("no holder of this lock panics") = Some(error);
    }
}

/// The digest goes with the first chunk; an empty file is one empty chunk.
pub(super) fn chunks(
    file: File,
    digest: &str,
) -> (impl Stream<Item = BlobChunk> + Send + 'static, ReadFailure) {
    let failure = ReadFailure::default();
    let state = (file, Some(digest.to_owned()), failure.clone());
    let chunks = futures::stream::unfold(state, |(mut file, mut first, failure)| async move {
        let mut data = Vec::with_capacity(CHUNK_BYTES);
        let read = (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut data).await;
        if let Err(error) = read {
            failure.set(error);
            return None;
        }
        let digest = first.take();
        if data.is_empty() && digest.is_none() {
            return None;
        }
        let chunk = BlobChunk { digest: digest.unwrap_or_default(), data };
        Some((chunk, (file, first, failure)))
    });
    (chunks, failure)
}
