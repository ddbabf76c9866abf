//! Content-addressed files: sources, specifications, baselines, images. Written once, checked when written, never
//! changed. A blob is complete or not there: it is written beside its place and renamed into it. Who was told that one is here
//! can rely on it for [`GRACE`].

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

/// The largest blob that is taken: a service's image with its data.
pub(crate) const BLOB_BYTES_MAX: u64 = 64 << 30;
/// The largest blob that is read into memory (a specification).
const SMALL_BYTES_MAX: u64 = 16 << 20;

/// How long a blob stays for whoever was told that it is here: from the first question to the submitted run, a long upload
/// between.
pub(crate) const GRACE: Duration = Duration::from_secs(1_800);

#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    root: PathBuf,
    /// Nobody knows what was told before.
    opened: Instant,
    /// When somebody was last told of a blob; held while one is deleted.
    told: Arc<Mutex<HashMap<Digest, Instant>>>,
}

/// What came of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    Gone,
    Absent,
    /// Somebody was told of it within [`GRACE`].
    Held,
}

/// A digest as the wire carries it: 64 lowercase hex digits. Anything else never becomes part of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Digest(String);

#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    #[error("{0:?} is not a digest: 64 lowercase hex digits are")]
    NotADigest(String),
    #[error("no blob {0} is here")]
    Missing(String),
    #[error("the bytes have digest {found}, not {claimed}")]
    WrongContent { claimed: String, found: String },
    #[error("the blob is larger than {0} bytes")]
    TooLarge(u64),
    #[error("the blob store failed")]
    Io(#[from] io::Error),
}

impl Digest {
    pub(crate) fn parse(text: &str) -> Result<Self, BlobError> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BlobError::NotADigest(text.chars().take(80).collect()))
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A blob on its way in.
pub(crate) struct Incoming {
    claimed: Digest,
    file: File,
    part: tempfile::TempPath,
    hasher: blake3::Hasher,
    size: u64,
    place: PathBuf,
    blobs: Blobs,
}

impl Blobs {
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        let parts = root.join("parts");
        // What was being written when the last coordinator stopped is of no use.
        match std::fs::remove_dir_all(&parts) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::create_dir_all(&parts)?,
        }
        Ok(Self { root, opened: Instant::now(), told: Arc::default() })
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        self.root.join(&digest.0[..2]).join(&digest.0)
    }

    /// Who asks can rely on the answer for [`GRACE`].
    pub(crate) async fn has(&self, digest: &Digest) -> bool {
        if !self.is_there(digest).await {
            return false;
        }
        self.tell(digest);
        // It may have gone between the look and the promise.
        self.is_there(digest).await
    }

    /// Without a promise.
    pub(crate) async fn is_there(&self, digest: &Digest) -> bool {
        fs::try_exists(self.place(digest)).await.unwrap_or(false)
    }

    fn told(&self) -> MutexGuard<'_, HashMap<Digest, Instant>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, digest: &Digest) {
        self.told().insert(digest.clone(), Instant::now());
    }

    /// As if all that happened so far had happened that much earlier.
    #[cfg(test)]
    pub(crate) fn age(&mut self, by: Duration) {
        self.opened -= by;
        self.told().values_mut().for_each(|at| *at -= by);
    }

    /// Deletes a blob unless somebody relies on it.
    pub(crate) async fn remove_unheld(&self, digest: &Digest) -> Result<Removed, BlobError> {
        if self.opened.elapsed() < GRACE {
            return Ok(Removed::Held);
        }
        let (blobs, digest) = (self.clone(), digest.clone());
        let removing = move || {
            let mut told = blobs.told();
            told.retain(|_, at| at.elapsed() < GRACE);
            if told.contains_key(&digest) {
                return Ok(Removed::Held);
            }
            match std::fs::remove_file(blobs.place(&digest)) {
                Ok(()) => Ok(Removed::Gone),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Removed::Absent),
                Err(error) => Err(error.into()),
            }
        };
        tokio::task::spawn_blocking(removing).await.map_err(io::Error::other)?
    }

    pub(crate) async fn begin(&self, claimed: Digest) -> Result<Incoming, BlobError> {
        let place = self.place(&claimed);
        fs::create_dir_all(place.parent().expect("a blob lies in a folder")).await?;
        let (file, part) = tempfile::NamedTempFile::new_in(self.root.join("parts"))?.into_parts();
        let hasher = blake3::Hasher::new();
        Ok(Incoming {
            claimed,
            file: File::from_std(file),
            part,
            hasher,
            size: 0,
            place,
            blobs: self.clone(),
        })
    }

    /// Opens a blob at an offset; also its whole size.
    pub(crate) async fn open_at(&self, digest: &Digest, offset: u64) -> Result<(File, u64), BlobError> {
        let mut file = match File::open(self.place(digest)).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::Missing(digest.0.clone()));
            }
            Err(error) => return Err(error.into()),
        };
        let size = file.metadata().await?.len();
        if offset > 0 {
            file.seek(io::SeekFrom::Start(offset.min(size))).await?;
        }
        Ok((file, size))
    }

    /// Deletes a blob; fine where it is not there.
    pub(crate) async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        match fs::remove_file(self.place(digest)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Reads a small blob whole.
    pub(crate) async fn read(&self, digest: &Digest) -> Result<Vec<u8>, BlobError> {
        let (file, size) = self.open_at(digest, 0).await?;
        if size > SMALL_BYTES_MAX {
            return Err(BlobError::TooLarge(SMALL_BYTES_MAX));
        }
        let mut bytes = Vec::new();
        file.take(SMALL_BYTES_MAX).read_to_end(&mut bytes).await?;
        Ok(bytes)
    }
}

impl Incoming {
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.size += bytes.len() as u64;
        if self.size > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge(BLOB_BYTES_MAX));
        }
        self.hasher.update(bytes);
        Ok(self.file.write_all(bytes).await?)
    }

    /// Keeps the blob if its content is what was claimed; returns its size.
    pub(crate) async fn finish(mut self) -> Result<u64, BlobError> {
        let found = self.hasher.finalize().to_hex().to_string();
        if found != self.claimed.0 {
            return Err(BlobError::WrongContent { claimed: self.claimed.0, found });
        }
        self.file.flush().await?;
        self.file.sync_all().await?;
        self.blobs.tell(&self.claimed);
        self.part.persist(&self.place).map_err(|error| error.error)?;
        Ok(self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(blobs: &Blobs, claimed: &str, bytes: &[u8]) -> Result<u64, BlobError> {
        let mut incoming = blobs.begin(Digest::parse(claimed)?).await?;
        incoming.write(bytes).await?;
        incoming.finish().await
    }

    #[tokio::test]
    async fn a_blob_is_kept_only_under_its_own_digest() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path().join("blobs")).unwrap();
        let digest = blake3::hash(b"hello").to_hex().to_string();
        assert_eq!(put(&blobs, &digest, b"hello").await.unwrap(), 5);
        let digest = Digest::parse(&digest).unwrap();
        assert_eq!(blobs.read(&digest).await.unwrap(), b"hello");

        let other = blake3::hash(b"other").to_hex().to_string();
        let wrong = put(&blobs, &other, b"hello").await.unwrap_err();
        assert!(matches!(wrong, BlobError::WrongContent { .. }), "{wrong}");
        assert!(!blobs.has(&Digest::parse(&other).unwrap()).await);
        let parts = std::fs::read_dir(folder.path().join("blobs/parts")).unwrap();
        assert_eq!(parts.count(), 0, "nothing half-written stays");
    }

    #[test]
    fn only_digests_become_paths() {
        for bad in ["", "../../etc/passwd", &"A".repeat(64), &"a".repeat(63), &format!("{}/", "a".repeat(63))]
        {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
    }
}
