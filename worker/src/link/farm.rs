//! What the farm keeps, as this worker asks for it: published baselines, shared images, blobs. Calls outlive a restart
//! of the coordinator: what broke is tried again for a while, and a download goes on where it was.
//!
//! It has a connection of its own, so that large blobs never delay a heartbeat.

use std::path::Path;
use std::time::Duration;

use andon_proto::blobs_client::BlobsClient;
use andon_proto::work_client::WorkClient;
use andon_proto::{
    BaselineManifest, FindBaselineRequest, FindImageRequest, GetBlobRequest, HasBlobsRequest, LookIn,
    LookOut, SharedImage,
};
use async_trait::async_trait;
use tokio::fs::File;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::backoff::Backoff;
use super::dial::{Coordinator, Line, MESSAGE_BYTES_MAX};
use super::upload;
use crate::hands::{Farm, FarmError};

/// How long a call that breaks is tried again without any progress.
const RETRY_FOR: Duration = Duration::from_secs(60);
/// How long one question may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// Longest silence during a download.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FarmClient {
    work: WorkClient<Line>,
    blobs: BlobsClient<Line>,
}

impl FarmClient {
    /// Dials with the first call.
    #[must_use]
    pub fn new(coordinator: &Coordinator) -> Self {
        let line = coordinator.lazy();
        Self {
            work: WorkClient::new(line.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
            blobs: BlobsClient::new(line),
        }
    }

    /// An image that the farm shares without a registry, by reference or image id.
    ///
    /// # Errors
    /// Where the farm cannot be asked.
    pub async fn find_image(&self, reference: &str) -> Result<Option<SharedImage>, FarmError> {
        let mut patience = Patience::new("find an image");
        loop {
            let request = FindImageRequest { reference: reference.to_owned() };
            match asked(self.work.clone().find_image(request)).await {
                Ok(answer) => return Ok(answer.image),
                Err(status) => patience.after(status).await?,
            }
        }
    }

    /// Opens the worker's end of a look. Not tried again: whoever looks waits for it now.
    pub(super) async fn show(&self, out: mpsc::Receiver<LookOut>) -> Result<Streaming<LookIn>, Status> {
        asked(self.work.clone().show(ReceiverStream::new(out))).await
    }

    /// A small blob's bytes, checked against the digest.
    ///
    /// # Errors
    /// Where there is no such blob, it is larger than `bytes_max`, or the farm cannot be asked.
    pub async fn read_blob(&self, digest: &str, bytes_max: usize) -> Result<Vec<u8>, FarmError> {
        let mut bytes = Vec::new();
        self.download(digest, blake3::Hasher::new(), &mut bytes, bytes_max as u64).await?;
        Ok(bytes)
    }

    /// `hasher` has seen what `into` holds already.
    async fn download<W>(
        &self,
        digest: &str,
        mut hasher: blake3::Hasher,
        into: &mut W,
        bytes_max: u64,
    ) -> Result<(), FarmError>
    where
        W: AsyncWrite + Unpin + Send,
    {
        let mut patience = Patience::new("fetch a blob");
        loop {
            let before = hasher.count();
            match self.download_rest(digest, &mut hasher, into, bytes_max).await {
                Ok(()) => break,
                Err(Stopped::Here(error)) => return Err(error),
                Err(Stopped::There(status)) if status.code() == Code::NotFound => {
                    return Err(FarmError::NoBlob(digest.to_owned()));
                }
                Err(Stopped::There(status)) => {
                    if hasher.count() > before {
                        patience.renew();
                    }
                    patience.after(status).await?;
                }
            }
        }
        let found = hasher.finalize().to_hex();
        if found.as_str() != digest {
            return Err(FarmError::Failed(format!("blob {digest} came with the content of {found}")));
        }
        Ok(())
    }

    async fn download_rest<W>(
        &self,
        digest: &str,
        hasher: &mut blake3::Hasher,
        into: &mut W,
        bytes_max: u64,
    ) -> Result<(), Stopped>
    where
        W: AsyncWrite + Unpin + Send,
    {
        let request = GetBlobRequest { digest: digest.to_owned(), offset: hasher.count() };
        let mut chunks = asked(self.blobs.clone().get(request)).await?;
        loop {
            let next = timeout(STALL_LIMIT, chunks.message()).await;
            let next = next.map_err(|_| Status::deadline_exceeded("the download stalled"))??;
            let Some(chunk) = next else { return Ok(()) };
            if hasher.count() + chunk.data.len() as u64 > bytes_max {
                let error = format!("blob {digest} is larger than {bytes_max} bytes");
                return Err(Stopped::Here(FarmError::Failed(error)));
            }
            let written = into.write_all(&chunk.data).await;
            written.map_err(|error| Stopped::Here(FarmError::Failed(format!("cannot write: {error}"))))?;
            hasher.update(&chunk.data);
        }
    }

    async fn has(&self, digest: &str) -> Result<bool, FarmError> {
        let mut patience = Patience::new("ask for a blob");
        loop {
            let request = HasBlobsRequest { digests: vec![digest.to_owned()] };
            match asked(self.blobs.clone().has(request)).await {
                Ok(answer) => return Ok(answer.present.iter().any(|present| present == digest)),
                Err(status) => patience.after(status).await?,
            }
        }
    }

    async fn upload(&self, file: &Path, digest: &str, size: u64) -> Result<(), FarmError> {
        let mut patience = Patience::new("store a blob");
        loop {
            let opened = File::open(file).await.map_err(|error| unreadable(file, &error))?;
            let (chunks, failure) = upload::chunks(opened, digest);
            let put = timeout(upload::limit(size), self.blobs.clone().put(chunks)).await;
            let put = put.unwrap_or_else(|_| Err(Status::deadline_exceeded("the upload took too long")));
            if let Some(error) = failure.take() {
                return Err(unreadable(file, &error));
            }
            match put {
                Ok(_) => return Ok(()),
                Err(status) => patience.after(status).await?,
            }
        }
    }
}

#[async_trait]
impl Farm for FarmClient {
    async fn find_baseline(&self, key: &str) -> Result<Option<BaselineManifest>, FarmError> {
        let mut patience = Patience::new("find a baseline");
        loop {
            let request = FindBaselineRequest { key: key.to_owned(), ..FindBaselineRequest::default() };
            match asked(self.work.clone().find_baseline(request)).await {
                Ok(answer) => return Ok(answer.manifest),
                Err(status) => patience.after(status).await?,
            }
        }
    }

    async fn related_baselines(
        &self,
        root_key: &str,
        project: &str,
    ) -> Result<Vec<BaselineManifest>, FarmError> {
        let mut patience = Patience::new("find baselines to build upon");
        loop {
            let request = FindBaselineRequest {
                key: String::new(),
                root_key: root_key.to_owned(),
                project: project.to_owned(),
            };
            match asked(self.work.clone().find_baseline(request)).await {
                Ok(answer) => return Ok(answer.related),
                Err(status) => patience.after(status).await?,
            }
        }
    }

    async fn has_blob(&self, digest: &str) -> Result<bool, FarmError> {
        self.has(digest).await
    }

    async fn put_blob(&self, file: &Path) -> Result<String, FarmError> {
        let (digest, size) = upload::digest(file).await.map_err(|error| unreadable(file, &error))?;
        if !self.has(&digest).await? {
            self.upload(file, &digest, size).await?;
        }
        Ok(digest)
    }

    async fn get_blob(&self, digest: &str, into: &Path) -> Result<(), FarmError> {
        let failed =
            |error: std::io::Error| FarmError::Failed(format!("cannot write {}: {error}", into.display()));
        let mut file = File::create_new(into).await.map_err(failed)?;
        // From here on the file is ours; dropped half-way, it must not look like the blob.
        let unfinished = RemoveUnlessDone::new(into);
        self.download(digest, blake3::Hasher::new(), &mut file, u64::MAX).await?;
        file.flush().await.map_err(failed)?;
        unfinished.done();
        Ok(())
    }

    async fn resume_blob(&self, digest: &str, part: &Path) -> Result<(), FarmError> {
        let failed =
            |error: std::io::Error| FarmError::Failed(format!("cannot write {}: {error}", part.display()));
        let options = File::options().append(true).create(true).open(part).await;
        let mut file = options.map_err(failed)?;
        let seen = upload::hashed(part).await.map_err(|error| unreadable(part, &error))?;
        let got = self.download(digest, seen, &mut file, u64::MAX).await;
        let flushed = file.flush().await;
        match got {
            Ok(()) => flushed.map_err(failed),
            Err(error @ FarmError::Broken(_)) => Err(error),
            Err(error) => {
                // What is wrong does not become right by going on.
                let _ = tokio::fs::remove_file(part).await;
                Err(error)
            }
        }
    }
}

struct RemoveUnlessDone<'a>(Option<&'a Path>);

impl<'a> RemoveUnlessDone<'a> {
    fn new(path: &'a Path) -> Self {
        Self(Some(path))
    }

    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for RemoveUnlessDone<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Where a download stopped.
enum Stopped {
    Here(FarmError),
    There(Status),
}

impl From<Status> for Stopped {
    fn from(status: Status) -> Self {
        Self::There(status)
    }
}

async fn asked<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    let answer = timeout(CALL_LIMIT, call).await;
    answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer"))).map(tonic::Response::into_inner)
}

fn unreadable(file: &Path, error: &std::io::Error) -> FarmError {
    FarmError::Failed(format!("cannot read {}: {error}", file.display()))
}

/// How often and how long to try again.
struct Patience {
    what: &'static str,
    since: Instant,
    backoff: Backoff,
}

impl Patience {
    fn new(what: &'static str) -> Self {
        Self { what, since: Instant::now(), backoff: Backoff::default() }
    }

    fn renew(&mut self) {
        self.since = Instant::now();
        self.backoff.reset();
    }

    /// Waits before the next try, or says that there is none.
    async fn after(&mut self, status: Status) -> Result<(), FarmError> {
        let said = || format!("cannot {}: {}", self.what, status.message());
        if is_final(status.code()) {
            return Err(FarmError::Failed(said()));
        }
        if self.since.elapsed() >= RETRY_FOR {
            return Err(FarmError::Broken(said()));
        }
        tracing::debug!(what = self.what, %status, "trying again");
        tokio::time::sleep(self.backoff.next(rand::random())).await;
        Ok(())
    }
}

/// Answers that the same question gets again.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::ResourceExhausted
            | Code::Unimplemented
            | Code::DataLoss
    )
}
