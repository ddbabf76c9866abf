//! A blob on its way from the registry: goes on at the byte where an earlier try broke off, and is whole or refused.
//!
//! Invariants: never more bytes than the manifest says are written; a file whose bytes are not the blob's is removed, one that
//! is only incomplete is kept.

use std::path::Path;

use andon_proto::BaselineLayer;
use futures::TryStreamExt;
use oci_client::client::BlobResponse;
use oci_client::manifest::OciDescriptor;
use sha2::Digest as _;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::artifact::oci_digest;
use super::{CALL_LIMIT, Patience, Registry, RegistryError};

/// Longest silence.
const STALL_LIMIT: std::time::Duration = std::time::Duration::from_secs(30);
/// Bytes of a file that are hashed at a time.
const HASH_BYTES: usize = 1 << 20;

/// Both digests of the bytes so far.
#[derive(Clone, Default)]
pub(super) struct Seen {
    blake3: blake3::Hasher,
    sha256: sha2::Sha256,
    count: u64,
}

impl Seen {
    pub(super) fn bytes(bytes: &[u8]) -> Self {
        let mut seen = Self::default();
        seen.update(bytes);
        seen
    }

    /// Those of a whole file.
    pub(super) async fn of(file: &Path) -> std::io::Result<Self> {
        let file = file.to_owned();
        let hashing = tokio::task::spawn_blocking(move || {
            use std::io::Read;
            let (mut file, mut seen) = (std::fs::File::open(file)?, Self::default());
            let mut chunk = vec![0; HASH_BYTES];
            loop {
                match file.read(&mut chunk)? {
                    0 => return Ok(seen),
                    read => seen.update(&chunk[..read]),
                }
            }
        });
        hashing.await.map_err(std::io::Error::other)?
    }

    fn update(&mut self, bytes: &[u8]) {
        self.blake3.update(bytes);
        self.sha256.update(bytes);
        self.count += bytes.len() as u64;
    }

    /// As a manifest names these bytes.
    pub(super) fn layer(&self) -> BaselineLayer {
        BaselineLayer {
            blob_digest: self.blake3.finalize().to_hex().to_string(),
            blob_size: self.count,
            sha256: hex::encode(self.sha256.clone().finalize()),
        }
    }
}

/// What is here of the blob.
struct Part {
    file: File,
    seen: Seen,
}

impl Part {
    async fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::options().append(true).create(true).open(path).await?;
        Ok(Self { seen: Seen::of(path).await?, file })
    }

    async fn take(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes).await?;
        self.seen.update(bytes);
        Ok(())
    }

    async fn begin_anew(&mut self) -> std::io::Result<()> {
        self.file.set_len(0).await?;
        self.seen = Seen::default();
        Ok(())
    }
}

impl Registry {
    /// Writes the blob to a file that an earlier call may have left: goes on where that one broke off, and where this one breaks
    /// off leaves what it has got.
    ///
    /// # Errors
    /// Where the registry has it not, or something else under its name.
    pub(crate) async fn resume_blob(&self, layer: &BaselineLayer, path: &Path) -> Result<(), RegistryError> {
        let got = self.pull(layer, path).await;
        if got.as_ref().is_err_and(|error| matches!(error, RegistryError::Failed(_))) {
            // What is wrong does not become right by going on.
            let _ = tokio::fs::remove_file(path).await;
        }
        got
    }

    async fn pull(&self, layer: &BaselineLayer, path: &Path) -> Result<(), RegistryError> {
        let mut part = Part::open(path).await.map_err(|error| unwritable(path, &error))?;
        let mut patience = Patience::new(self.retry_for);
        while part.seen.count < layer.blob_size {
            let before = part.seen.count;
            if let Err(error) = self.pull_rest(layer, &mut part, path).await {
                if part.seen.count > before {
                    patience.renew();
                }
                patience.after(error).await?;
            }
        }
        part.file.flush().await.map_err(|error| unwritable(path, &error))?;
        let found = part.seen.layer();
        if found == *layer {
            return Ok(());
        }
        let registry = self.address();
        Err(RegistryError::Failed(match found.blob_size == layer.blob_size {
            true => format!(
                "the registry {registry} has under the name of blob {} the content of {}: it is damaged there",
                oci_digest(&layer.sha256),
                oci_digest(&found.sha256)
            ),
            false => self.too_large(layer),
        }))
    }

    async fn pull_rest(
        &self,
        layer: &BaselineLayer,
        part: &mut Part,
        path: &Path,
    ) -> Result<(), RegistryError> {
        let (reference, digest) = (self.reference("none"), oci_digest(&layer.sha256));
        let what = format!("blob {digest}");
        let wanted = OciDescriptor { digest, ..OciDescriptor::default() };
        let asked = self.client.pull_blob_stream_partial(&reference, &wanted, part.seen.count, None);
        let mut stream = match self.within(CALL_LIMIT, &what, asked).await? {
            BlobResponse::Partial(stream) => stream,
            BlobResponse::Full(stream) => {
                // It does not know how to begin in the middle.
                part.begin_anew().await.map_err(|error| unwritable(path, &error))?;
                stream
            }
        };
        loop {
            let next = timeout(STALL_LIMIT, stream.try_next()).await;
            let next = next.map_err(|_| self.away("the download stalled".to_owned()))?;
            match next {
                Ok(Some(chunk)) => {
                    if part.seen.count + chunk.len() as u64 > layer.blob_size {
                        return Err(RegistryError::Failed(self.too_large(layer)));
                    }
                    part.take(&chunk).await.map_err(|error| unwritable(path, &error))?;
                }
                // Whether all of it is right is seen by who has all of it.
                _ if part.seen.count == layer.blob_size => return Ok(()),
                Ok(None) => return Err(self.away(format!("it ended after {} bytes", part.seen.count))),
                Err(error) => return Err(self.away(format!("the download broke off: {error}"))),
            }
        }
    }

    fn too_large(&self, layer: &BaselineLayer) -> String {
        let (registry, digest) = (self.address(), oci_digest(&layer.sha256));
        format!("the registry {registry} has more than the {} bytes of blob {digest}", layer.blob_size)
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> RegistryError {
    RegistryError::Failed(format!("cannot write {}: {error}", path.display()))
}
