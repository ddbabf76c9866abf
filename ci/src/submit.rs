//! A prepared run into the farm: its source and specification into the blob store, then the request.
//!
//! Safe to repeat at every point: blobs are content-addressed, and a push has a key that makes two submissions one.

use std::io;
use std::path::Path;

use andon_proto::{BlobChunk, HasBlobsRequest, RunSpec, SubmitRunRequest};
use bytes::Bytes;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_stream::wrappers::ReceiverStream;

use crate::connect::Connection;
use crate::spec::Prepared;

/// The size of one chunk of a blob on its way.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that are read ahead of the network.
const CHUNKS_AHEAD: usize = 8;

/// Whether two submissions may be one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dedup {
    /// A push: one run for each project and commit, whoever tells of it.
    Push,
    /// A fork's pull request of this number: one run for each commit, apart from pushes. The same commit pushed to the
    /// project itself later is trusted more, and runs on its own.
    Fork(u64),
    /// Whatever asks for it is told apart by this: one run for each.
    Once(blake3::Hash),
    /// A person asks: always a new run.
    Never,
}

impl Dedup {
    /// The key on the wire.
    pub fn key(self, spec: &RunSpec) -> String {
        match self {
            Self::Push => format!("push:{}:{}", spec.project, spec.commit),
            Self::Fork(number) => format!("fork:{}:{number}:{}", spec.project, spec.commit),
            Self::Once(asked) => format!("once:{}:{}", spec.project, asked.to_hex()),
            Self::Never => String::new(),
        }
    }
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// The run's number.
    pub run: u64,
    /// The run was there already.
    pub existed: bool,
}

/// Why nothing was submitted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The farm refused or was not reached.
    #[error("the coordinator did not take {what}: {}", .status.message())]
    Farm {
        /// What was sent.
        what: &'static str,
        /// Its answer.
        #[source]
        status: Box<tonic::Status>,
    },
    /// A file of ours cannot be read.
    #[error("cannot read {what}")]
    Read {
        /// Which.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn refused(what: &'static str) -> impl Fn(tonic::Status) -> SubmitError {
    move |status| SubmitError::Farm { what, status: Box::new(status) }
}

/// Uploads what is missing and asks for the run.
pub async fn submit(
    connection: &Connection,
    prepared: &Prepared,
    dedup: Dedup,
) -> Result<Submitted, SubmitError> {
    let spec_digest = upload(connection, prepared).await?;
    let dedup_key = dedup.key(&prepared.spec);
    let request = SubmitRunRequest { spec_digest, dedup_key, ..SubmitRunRequest::default() };
    let response = connection.farm().submit_run(request).await.map_err(refused("the run"))?.into_inner();
    Ok(Submitted { run: response.run, existed: response.existed })
}

/// Uploads source and specification where the farm has them not, and gives the specification's digest: what a rerun
/// at another commit names.
pub async fn upload(connection: &Connection, prepared: &Prepared) -> Result<String, SubmitError> {
    let archive = &prepared.archive;
    let spec = prepared.spec.encode_to_vec();
    let spec_digest = blake3::hash(&spec).to_hex().to_string();
    let missing = missing(connection, &[archive.digest.clone(), spec_digest.clone()]).await?;
    if missing.contains(&archive.digest) {
        put_file(connection, &archive.digest, &archive.path).await?;
    }
    if missing.contains(&spec_digest) {
        put_bytes(connection, &spec_digest, spec).await?;
    }
    Ok(spec_digest)
}

/// Which of these blobs the farm has not.
pub async fn missing(connection: &Connection, digests: &[String]) -> Result<Vec<String>, SubmitError> {
    let request = HasBlobsRequest { digests: digests.to_vec() };
    let present = connection.blobs().has(request).await.map_err(refused("a question about blobs"))?;
    let present = present.into_inner().present;
    Ok(digests.iter().filter(|digest| !present.contains(digest)).cloned().collect())
}

/// Puts a file into the blob store under its digest (BLAKE3, hex), whether it is there or not.
pub async fn put_file(connection: &Connection, digest: &str, path: &Path) -> Result<(), SubmitError> {
    let what = || path.display().to_string();
    let file = tokio::fs::File::open(path).await;
    let file = file.map_err(|source| SubmitError::Read { what: what(), source })?;
    put(connection, digest, file, "a file").await
}

/// Puts bytes into the blob store under their digest.
pub async fn put_bytes(connection: &Connection, digest: &str, bytes: Vec<u8>) -> Result<(), SubmitError> {
    put(connection, digest, io::Cursor::new(bytes), "the specification").await
}

/// Sends a blob chunk by chunk; the first one carries the digest, and an empty blob is one empty chunk.
async fn put(
    connection: &Connection,
    digest: &str,
    mut from: impl AsyncRead + Send + Unpin + 'static,
    what: &'static str,
) -> Result<(), SubmitError> {
    let (sender, receiver) = tokio::sync::mpsc::channel(CHUNKS_AHEAD);
    let mut digest = digest.to_owned();
    let reading = async move {
        loop {
            let mut data = Vec::with_capacity(CHUNK_BYTES);
            let read = (&mut from).take(CHUNK_BYTES as u64).read_to_end(&mut data).await?;
            if read == 0 && digest.is_empty() {
                return Ok(());
            }
            let chunk = BlobChunk { digest: std::mem::take(&mut digest), data: Bytes::from(data).into() };
            if sender.send(chunk).await.is_err() {
                // The call has ended; its own result says why.
                return Ok(());
            }
        }
    };
    let mut blobs = connection.blobs();
    let sending = blobs.put(ReceiverStream::new(receiver));
    let (read, sent): (io::Result<()>, _) = tokio::join!(reading, sending);
    read.map_err(|source| SubmitError::Read { what: what.to_owned(), source })?;
    sent.map_err(refused(what))?;
    Ok(())
}
