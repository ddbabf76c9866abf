//! Blobs out of the farm: bounded, and checked against the digest that named them, whoever stored them.

use std::path::Path;

use andon_proto::GetBlobRequest;
use tokio::io::AsyncWriteExt as _;

use crate::connect::Connection;

/// Why there is nothing.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The farm refused or was not reached.
    #[error("the coordinator did not give the blob {digest}: {}", .status.message())]
    Farm {
        /// Which blob.
        digest: String,
        /// Its answer.
        #[source]
        status: Box<tonic::Status>,
    },
    /// More than was to be expected.
    #[error("the blob {digest} is larger than {max} bytes")]
    TooLarge {
        /// Which blob.
        digest: String,
        /// The limit.
        max: u64,
    },
    /// Not what was stored.
    #[error("the blob {digest} came with another content")]
    Damaged {
        /// Which blob.
        digest: String,
    },
    /// It cannot be written here.
    #[error("cannot write {path}")]
    Write {
        /// Where to.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A small blob, whole.
pub async fn bytes(connection: &Connection, digest: &str, max: u64) -> Result<Vec<u8>, DownloadError> {
    let mut bytes = Vec::new();
    each_chunk(connection, digest, max, async |chunk| {
        bytes.extend_from_slice(&chunk);
        Ok(())
    })
    .await?;
    Ok(bytes)
}

/// A blob into a file.
pub async fn file(connection: &Connection, digest: &str, max: u64, path: &Path) -> Result<(), DownloadError> {
    let failed = |source| DownloadError::Write { path: path.display().to_string(), source };
    let mut to = tokio::fs::File::create(path).await.map_err(failed)?;
    each_chunk(connection, digest, max, async |chunk| to.write_all(&chunk).await.map_err(failed)).await?;
    to.flush().await.map_err(failed)
}

async fn each_chunk(
    connection: &Connection,
    digest: &str,
    max: u64,
    mut each: impl AsyncFnMut(Vec<u8>) -> Result<(), DownloadError>,
) -> Result<(), DownloadError> {
    let refused = |status| DownloadError::Farm { digest: digest.to_owned(), status: Box::new(status) };
    let request = GetBlobRequest { digest: digest.to_owned(), offset: 0 };
    let mut chunks = connection.blobs().get(request).await.map_err(refused)?.into_inner();
    let (mut hasher, mut size) = (blake3::Hasher::new(), 0_u64);
    while let Some(chunk) = chunks.message().await.map_err(refused)? {
        size += chunk.data.len() as u64;
        if size > max {
            return Err(DownloadError::TooLarge { digest: digest.to_owned(), max });
        }
        hasher.update(&chunk.data);
        each(chunk.data).await?;
    }
    if hasher.finalize().to_hex().as_str() != digest {
        return Err(DownloadError::Damaged { digest: digest.to_owned() });
    }
    Ok(())
}
