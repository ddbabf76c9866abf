//! A coordinator's face on a unix socket: takes blobs and runs, and remembers them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use andon_proto as wire;
use prost::Message as _;
use tokio::net::UnixListener;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};
use wire::blobs_server::{Blobs, BlobsServer};
use wire::farm_server::{Farm, FarmServer};

use crate::connect::Connection;

/// A run that was submitted.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) dedup_key: String,
    pub(crate) spec: wire::RunSpec,
}

#[derive(Debug, Default)]
struct Store {
    blobs: BTreeMap<String, Vec<u8>>,
    puts: usize,
    runs: Vec<Taken>,
    by_key: HashMap<String, u64>,
    submissions: usize,
}

/// The token that the fake wants.
const TOKEN: &str = "client-token";

/// The fake; stops with its value.
pub(crate) struct FakeFarm {
    store: Arc<Mutex<Store>>,
    pub(crate) url: String,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for FakeFarm {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl FakeFarm {
    /// Listens on `farm.sock` in a folder.
    pub(crate) fn start(folder: &Path) -> Self {
        let path = folder.join("farm.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let store = Arc::new(Mutex::new(Store::default()));
        let face = Face(Arc::clone(&store));
        let authorized = |request: Request<()>| match request.metadata().get("authorization") {
            Some(value) if *value == format!("Bearer {TOKEN}").as_str() => Ok(request),
            _ => Err(Status::unauthenticated("no token")),
        };
        let server = tonic::transport::Server::builder()
            .add_service(FarmServer::with_interceptor(face.clone(), authorized))
            .add_service(BlobsServer::with_interceptor(face, authorized))
            .serve_with_incoming(UnixListenerStream::new(listener));
        let server = tokio::spawn(async move { server.await.expect("the fake serves") });
        Self { store, url: format!("unix://{}", path.display()), server }
    }

    pub(crate) fn token(&self) -> &'static str {
        TOKEN
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(&self.url, TOKEN).await.expect("the fake listens")
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().expect("nobody panics with it")
    }

    /// The runs, in order.
    pub(crate) fn runs(&self) -> Vec<Taken> {
        self.store().runs.clone()
    }

    /// How often a run was asked for.
    pub(crate) fn submissions(&self) -> usize {
        self.store().submissions
    }

    /// How many blobs were sent.
    pub(crate) fn puts(&self) -> usize {
        self.store().puts
    }

    pub(crate) fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        self.store().blobs.get(digest).cloned()
    }
}

#[derive(Clone)]
struct Face(Arc<Mutex<Store>>);

impl Face {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.lock().expect("nobody panics with it")
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn unused<T>() -> Answer<T> {
    Err(Status::unimplemented("not part of the fake"))
}

#[tonic::async_trait]
impl Blobs for Face {
    type GetStream = ReceiverStream<Result<wire::BlobChunk, Status>>;

    async fn put(&self, request: Request<Streaming<wire::BlobChunk>>) -> Answer<wire::PutBlobResponse> {
        let mut chunks = request.into_inner();
        let (mut digest, mut bytes) = (String::new(), Vec::new());
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            if digest.is_empty() {
                digest.clone_from(&chunk.digest);
            }
            assert!(chunk.data.len() <= crate::submit::CHUNK_BYTES);
            bytes.extend_from_slice(&chunk.data);
        }
        if blake3::hash(&bytes).to_hex().as_str() != digest {
            return Err(Status::data_loss("another digest"));
        }
        let size = bytes.len() as u64;
        let mut store = self.store();
        store.puts += 1;
        store.blobs.insert(digest, bytes);
        Ok(Response::new(wire::PutBlobResponse { size }))
    }

    async fn get(&self, _: Request<wire::GetBlobRequest>) -> Answer<Self::GetStream> {
        unused()
    }

    async fn has(&self, request: Request<wire::HasBlobsRequest>) -> Answer<wire::HasBlobsResponse> {
        let store = self.store();
        let digests = request.into_inner().digests;
        let present = digests.into_iter().filter(|digest| store.blobs.contains_key(digest)).collect();
        Ok(Response::new(wire::HasBlobsResponse { present }))
    }
}

#[tonic::async_trait]
impl Farm for Face {
    type WatchRunStream = ReceiverStream<Result<wire::RunEvent, Status>>;
    type LookStream = ReceiverStream<Result<wire::LookOut, Status>>;

    async fn submit_run(&self, request: Request<wire::SubmitRunRequest>) -> Answer<wire::SubmitRunResponse> {
        let request = request.into_inner();
        let mut store = self.store();
        store.submissions += 1;
        let bytes = store.blobs.get(&request.spec_digest);
        let bytes = bytes.ok_or_else(|| Status::failed_precondition("the specification is not there"))?;
        let spec = wire::RunSpec::decode(bytes.as_slice()).map_err(|e| Status::data_loss(e.to_string()))?;
        if !store.blobs.contains_key(&spec.source_digest) {
            return Err(Status::failed_precondition("the source is not there"));
        }
        let known = store.by_key.get(&request.dedup_key).copied();
        if let Some(run) = known.filter(|_| !request.dedup_key.is_empty()) {
            return Ok(Response::new(wire::SubmitRunResponse { run, existed: true }));
        }
        store.runs.push(Taken { dedup_key: request.dedup_key.clone(), spec });
        let run = store.runs.len() as u64;
        store.by_key.insert(request.dedup_key, run);
        Ok(Response::new(wire::SubmitRunResponse { run, existed: false }))
    }

    async fn rerun(&self, _: Request<wire::RerunRequest>) -> Answer<wire::SubmitRunResponse> {
        unused()
    }
    async fn plan_run(&self, _: Request<wire::PlanRunRequest>) -> Answer<wire::PlanRunResponse> {
        unused()
    }
    async fn list_flaky(&self, _: Request<wire::ListFlakyRequest>) -> Answer<wire::ListFlakyResponse> {
        unused()
    }
    async fn tell_cause(&self, _: Request<wire::TellCauseRequest>) -> Answer<wire::TellCauseResponse> {
        unused()
    }
    async fn get_run(&self, _: Request<wire::GetRunRequest>) -> Answer<wire::Run> {
        unused()
    }
    async fn list_runs(&self, _: Request<wire::ListRunsRequest>) -> Answer<wire::ListRunsResponse> {
        unused()
    }
    async fn watch_run(&self, _: Request<wire::WatchRunRequest>) -> Answer<Self::WatchRunStream> {
        unused()
    }
    async fn get_log(&self, _: Request<wire::GetLogRequest>) -> Answer<wire::GetLogResponse> {
        unused()
    }
    async fn get_artifacts(
        &self,
        _: Request<wire::GetArtifactsRequest>,
    ) -> Answer<wire::GetArtifactsResponse> {
        unused()
    }
    async fn get_drift(&self, _: Request<wire::GetDriftRequest>) -> Answer<wire::GetDriftResponse> {
        unused()
    }
    async fn cancel_run(&self, _: Request<wire::CancelRunRequest>) -> Answer<wire::CancelRunResponse> {
        unused()
    }
    async fn list_workers(&self, _: Request<wire::ListWorkersRequest>) -> Answer<wire::ListWorkersResponse> {
        unused()
    }
    async fn list_baselines(
        &self,
        _: Request<wire::ListBaselinesRequest>,
    ) -> Answer<wire::ListBaselinesResponse> {
        unused()
    }
    async fn list_inexact(&self, _: Request<wire::ListInexactRequest>) -> Answer<wire::ListInexactResponse> {
        unused()
    }
    async fn verify_baseline(
        &self,
        _: Request<wire::VerifyBaselineRequest>,
    ) -> Answer<wire::VerifyBaselineResponse> {
        unused()
    }
    async fn get_figures(&self, _: Request<wire::GetFiguresRequest>) -> Answer<wire::GetFiguresResponse> {
        unused()
    }
    async fn look(&self, _: Request<Streaming<wire::LookIn>>) -> Answer<Self::LookStream> {
        unused()
    }
    async fn add_image(&self, _: Request<wire::SharedImage>) -> Answer<wire::AddImageResponse> {
        unused()
    }
    async fn find_image(&self, _: Request<wire::FindImageRequest>) -> Answer<wire::FindImageResponse> {
        unused()
    }
}
