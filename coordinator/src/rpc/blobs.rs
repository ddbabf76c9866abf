//! The blob service: content-addressed upload and download in chunks.

use std::pin::Pin;

use andon_proto::blobs_server::Blobs as BlobsApi;
use andon_proto::{BlobChunk, GetBlobRequest, HasBlobsRequest, HasBlobsResponse, PutBlobResponse};
use bytes::BytesMut;
use futures::Stream;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::blobs::{BlobError, Blobs, Digest};

const CHUNK_BYTES: usize = 256 << 10;
const CHUNKS_AHEAD: usize = 4;
const DIGESTS_MAX: usize = 10_000;

pub(super) struct BlobService {
    blobs: Blobs,
}

impl BlobService {
    pub(super) fn new(blobs: Blobs) -> Self {
        Self { blobs }
    }
}

pub(super) fn status(error: &BlobError) -> Status {
    match error {
        BlobError::NotADigest(_) => Status::invalid_argument(error.to_string()),
        BlobError::Missing(_) => Status::not_found(error.to_string()),
        BlobError::WrongContent { .. } => Status::data_loss(error.to_string()),
        BlobError::TooLarge(_) => Status::resource_exhausted(error.to_string()),
        BlobError::Io(_) => super::internal(error),
    }
}

#[tonic::async_trait]
impl BlobsApi for BlobService {
    async fn put(&self, request: Request<Streaming<BlobChunk>>) -> Result<Response<PutBlobResponse>, Status> {
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.ok_or_else(|| Status::invalid_argument("the upload is empty"))?;
        let digest = Digest::parse(&first.digest).map_err(|error| status(&error))?;
        let mut incoming = self.blobs.begin(digest).await.map_err(|error| status(&error))?;
        let mut next = Some(first);
        while let Some(chunk) = next {
            incoming.write(&chunk.data).await.map_err(|error| status(&error))?;
            next = chunks.message().await?;
        }
        let size = incoming.finish().await.map_err(|error| status(&error))?;
        Ok(Response::new(PutBlobResponse { size }))
    }

    type GetStream = Pin<Box<dyn Stream<Item = Result<BlobChunk, Status>> + Send>>;

    async fn get(&self, request: Request<GetBlobRequest>) -> Result<Response<Self::GetStream>, Status> {
        let GetBlobRequest { digest, offset } = request.into_inner();
        let digest = Digest::parse(&digest).map_err(|error| status(&error))?;
        let (mut file, _) = self.blobs.open_at(&digest, offset).await.map_err(|error| status(&error))?;
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        tokio::spawn(async move {
            loop {
                let mut data = BytesMut::with_capacity(CHUNK_BYTES);
                let chunk = match file.read_buf(&mut data).await {
                    Ok(0) => return,
                    Ok(_) => Ok(BlobChunk { digest: digest.as_str().to_owned(), data: data.to_vec() }),
                    Err(error) => Err(super::internal(&error)),
                };
                let failed = chunk.is_err();
                // Who no longer listens ends the read.
                if sender.send(chunk).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn has(&self, request: Request<HasBlobsRequest>) -> Result<Response<HasBlobsResponse>, Status> {
        let digests = request.into_inner().digests;
        if digests.len() > DIGESTS_MAX {
            return Err(Status::invalid_argument(format!("at most {DIGESTS_MAX} digests at a time")));
        }
        let mut present = Vec::new();
        for digest in digests {
            let digest = Digest::parse(&digest).map_err(|error| status(&error))?;
            if self.blobs.has(&digest).await {
                present.push(digest.as_str().to_owned());
            }
        }
        Ok(Response::new(HasBlobsResponse { present }))
    }
}
