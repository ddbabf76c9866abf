//! A coordinator and a crew that do what a test says: the coordinator over a real socket, the crew by hand.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use andon_proto::blobs_server::{Blobs, BlobsServer};
use andon_proto::work_server::{Work, WorkServer};
use andon_proto::*;
use async_trait::async_trait;
use futures::Stream;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::crew::{Crew, Job, Unit};
use super::dial::Coordinator;
use crate::hands::{LookLine, Settled, Unfit, WorkFailure};
use crate::runner::UnitNews;

pub(super) const TOKEN: &str = "a-token-of-some-length";
/// No step of a test takes longer, on whatever machine.
const LIMIT: Duration = Duration::from_secs(20);

pub(super) async fn soon<T>(what: &str, waited: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, waited).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// The coordinator's side of one session.
pub(super) struct Talk {
    incoming: mpsc::Receiver<WorkerMessage>,
    pub(super) out: mpsc::Sender<Result<CoordinatorMessage, Status>>,
    pub(super) hello: Hello,
    /// Numbers as they came.
    pub(super) seqs: Vec<u64>,
    /// Answers heartbeats by itself.
    pub(super) keeps_alive: bool,
}

impl Talk {
    pub(super) async fn say(&self, body: coordinator_message::Body) {
        let _ = self.out.send(Ok(CoordinatorMessage { body: Some(body) })).await;
    }

    pub(super) async fn welcome(&self, ttl: Duration) {
        let lease_ttl_ms = ttl.as_millis() as u64;
        let heartbeat_ms = lease_ttl_ms / 5;
        self.say(coordinator_message::Body::Welcome(Welcome { lease_ttl_ms, heartbeat_ms })).await;
    }

    pub(super) async fn ack(&self) {
        let seq = *self.seqs.last().unwrap();
        self.say(coordinator_message::Body::Ack(Ack { seq })).await;
    }

    /// The next message that is no heartbeat; `None` where the worker is gone.
    pub(super) async fn next(&mut self) -> Option<worker_message::Body> {
        loop {
            let message = soon("a message of the worker", self.incoming.recv()).await?;
            self.seqs.push(message.seq);
            match message.body.unwrap() {
                worker_message::Body::Heartbeat(beat) => {
                    assert_eq!(
                        (beat.disk_free_bytes, beat.disk_bytes),
                        DISK,
                        "each heartbeat tells of the pool"
                    );
                    if self.keeps_alive {
                        self.ack().await;
                    }
                }
                body => return Some(body),
            }
        }
    }

    pub(super) async fn lane_ready(&mut self) -> LaneReady {
        match self.next().await {
            Some(worker_message::Body::LaneReady(ready)) => ready,
            other => panic!("expected LaneReady, got {other:?}"),
        }
    }

    pub(super) async fn unfit(&mut self) -> String {
        match self.next().await {
            Some(worker_message::Body::Unfit(unfit)) => unfit.reason,
            other => panic!("expected Unfit, got {other:?}"),
        }
    }

    pub(super) async fn report(&mut self) -> (u64, report::Body) {
        match self.next().await {
            Some(worker_message::Body::Report(report)) => (report.lease.unwrap().fence, report.body.unwrap()),
            other => panic!("expected a report, got {other:?}"),
        }
    }

    pub(super) async fn assign(&self, fence: u64, lane: u32, spec_digest: &str, work: assign::Work) {
        let lease = Some(Lease { run: 7, lease: fence, fence });
        let assign = Assign { lease, lane, spec_digest: spec_digest.to_owned(), work: Some(work) };
        self.say(coordinator_message::Body::Assign(assign)).await;
    }
}

/// The coordinator's side of a worker's `Show`.
pub(super) struct Shown {
    pub(super) hear: Streaming<LookOut>,
    pub(super) say: mpsc::Sender<Result<LookIn, Status>>,
}

/// What the farm's services keep, and how they fail.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) blobs: HashMap<String, Vec<u8>>,
    pub(super) baselines: HashMap<String, BaselineManifest>,
    pub(super) images: HashMap<String, SharedImage>,
    /// The next downloads break after so many bytes each.
    pub(super) breaks: Vec<usize>,
    /// Offsets that were asked for.
    pub(super) offsets: Vec<u64>,
    /// Bytes that downloads were answered with.
    pub(super) served: usize,
    pub(super) uploads: usize,
    /// The next uploads are broken off.
    pub(super) broken_uploads: usize,
}

#[derive(Clone)]
struct Services {
    talks: mpsc::Sender<Talk>,
    shown: mpsc::Sender<Shown>,
    shelf: Arc<Mutex<Shelf>>,
    cut: CancellationToken,
}

fn guard<T>(request: &Request<T>) -> Result<(), Status> {
    let shown = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    (shown == Some(&format!("Bearer {TOKEN}"))).then_some(()).ok_or_else(|| Status::unauthenticated("who?"))
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Work for Services {
    type SessionStream = Answers<CoordinatorMessage>;

    async fn session(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        guard(&request)?;
        let mut stream = request.into_inner();
        let first = stream.message().await?.unwrap();
        let Some(worker_message::Body::Hello(hello)) = first.body else {
            return Err(Status::invalid_argument("a session begins with Hello"));
        };
        let (sender, incoming) = mpsc::channel(1_024);
        let (out, answers) = mpsc::channel(1_024);
        let talk = Talk { incoming, out, hello, seqs: vec![first.seq], keeps_alive: true };
        self.talks.send(talk).await.map_err(|_| Status::unavailable("nobody expects a session"))?;
        tokio::spawn(async move {
            while let Ok(Some(message)) = stream.message().await {
                if sender.send(message).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    type ShowStream = Answers<LookIn>;

    async fn show(&self, request: Request<Streaming<LookOut>>) -> Result<Response<Self::ShowStream>, Status> {
        guard(&request)?;
        let (say, said) = mpsc::channel(16);
        let shown = Shown { hear: request.into_inner(), say };
        self.shown.send(shown).await.map_err(|_| Status::unavailable("nobody expects it"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(said))))
    }

    async fn find_baseline(
        &self,
        request: Request<FindBaselineRequest>,
    ) -> Result<Response<FindBaselineResponse>, Status> {
        guard(&request)?;
        let manifest = self.shelf.lock().unwrap().baselines.get(&request.get_ref().key).cloned();
        Ok(Response::new(FindBaselineResponse { manifest, related: Vec::new() }))
    }

    async fn find_image(
        &self,
        request: Request<FindImageRequest>,
    ) -> Result<Response<FindImageResponse>, Status> {
        guard(&request)?;
        let image = self.shelf.lock().unwrap().images.get(&request.get_ref().reference).cloned();
        Ok(Response::new(FindImageResponse { image }))
    }
}

#[tonic::async_trait]
impl Blobs for Services {
    async fn put(&self, request: Request<Streaming<BlobChunk>>) -> Result<Response<PutBlobResponse>, Status> {
        guard(&request)?;
        let mut stream = request.into_inner();
        let first = stream.message().await?.unwrap();
        {
            let mut shelf = self.shelf.lock().unwrap();
            shelf.uploads += 1;
            if shelf.broken_uploads > 0 {
                shelf.broken_uploads -= 1;
                return Err(Status::unavailable("broken off"));
            }
        }
        let mut bytes = first.data;
        while let Some(chunk) = stream.message().await? {
            assert!(chunk.data.len() <= 256 << 10);
            bytes.extend(chunk.data);
        }
        if blake3::hash(&bytes).to_hex().as_str() != first.digest {
            return Err(Status::data_loss("wrong content"));
        }
        let size = bytes.len() as u64;
        self.shelf.lock().unwrap().blobs.insert(first.digest, bytes);
        Ok(Response::new(PutBlobResponse { size }))
    }

    type GetStream = Answers<BlobChunk>;

    async fn get(&self, request: Request<GetBlobRequest>) -> Result<Response<Self::GetStream>, Status> {
        guard(&request)?;
        let GetBlobRequest { digest, offset } = request.into_inner();
        let mut shelf = self.shelf.lock().unwrap();
        shelf.offsets.push(offset);
        let bytes = shelf.blobs.get(&digest).ok_or_else(|| Status::not_found("no such blob"))?;
        let mut rest = bytes[offset as usize..].to_vec();
        let breaks = shelf.breaks.pop();
        if let Some(after) = breaks {
            rest.truncate(after);
        }
        shelf.served += rest.len();
        let chunks =
            rest.chunks(1 << 10).map(|data| Ok(BlobChunk { digest: digest.clone(), data: data.to_vec() }));
        let mut chunks: Vec<_> = chunks.collect();
        if breaks.is_some() {
            chunks.push(Err(Status::unavailable("broken off")));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn has(&self, request: Request<HasBlobsRequest>) -> Result<Response<HasBlobsResponse>, Status> {
        guard(&request)?;
        let shelf = self.shelf.lock().unwrap();
        let asked = request.into_inner().digests;
        let present = asked.into_iter().filter(|digest| shelf.blobs.contains_key(digest)).collect();
        Ok(Response::new(HasBlobsResponse { present }))
    }
}

/// A coordinator on a socket of its own.
pub(super) struct FakeCoordinator {
    folder: tempfile::TempDir,
    talks: mpsc::Receiver<Talk>,
    shown: mpsc::Receiver<Shown>,
    services: Services,
    server: Option<tokio::task::JoinHandle<()>>,
}

impl FakeCoordinator {
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (sender, talks) = mpsc::channel(16);
        let (shown_in, shown) = mpsc::channel(4);
        let cut = CancellationToken::new();
        let services = Services { talks: sender, shown: shown_in, shelf: Arc::default(), cut };
        let mut fake = Self { folder, talks, shown, services, server: None };
        fake.up();
        fake
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("farm.sock")
    }

    pub(super) fn address(&self, token: &str) -> Coordinator {
        Coordinator::new(&format!("unix://{}", self.socket().display()), token).unwrap()
    }

    pub(super) fn shelf(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.services.shelf.lock().unwrap()
    }

    pub(super) fn put(&self, bytes: &[u8]) -> String {
        let digest = blake3::hash(bytes).to_hex().to_string();
        self.shelf().blobs.insert(digest.clone(), bytes.to_vec());
        digest
    }

    /// Listens, again after [`Self::down`].
    pub(super) fn up(&mut self) {
        let listener = UnixListener::bind(self.socket()).unwrap();
        let cut = CancellationToken::new();
        self.services.cut = cut.clone();
        let server = tonic::transport::Server::builder()
            .add_service(WorkServer::new(self.services.clone()).max_decoding_message_size(64 << 20))
            .add_service(BlobsServer::new(self.services.clone()))
            .serve_with_incoming(UnixListenerStream::new(listener));
        self.server = Some(tokio::spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                end = server => end.unwrap(),
            }
        }));
    }

    /// Stops listening. Sessions that are open end when their [`Talk`] is dropped.
    pub(super) async fn down(&mut self) {
        self.services.cut.cancel();
        if let Some(server) = self.server.take() {
            server.await.unwrap();
        }
        std::fs::remove_file(self.socket()).unwrap();
    }

    pub(super) async fn talk(&mut self) -> Talk {
        soon("a session", self.talks.recv()).await.unwrap()
    }

    /// The next `Show`.
    pub(super) async fn shown(&mut self) -> Shown {
        soon("somebody who shows", self.shown.recv()).await.expect("the services are there")
    }

    /// The next session, welcomed with leases that outlive every test.
    pub(super) async fn welcomed(&mut self) -> Talk {
        let talk = self.talk().await;
        talk.welcome(Duration::from_secs(60)).await;
        talk
    }
}

/// A call that the crew got and that the test answers.
#[derive(Debug)]
pub(super) enum Call {
    Prepare(oneshot::Sender<Result<BaselineReady, WorkFailure>>),
    Discover(String, oneshot::Sender<Result<Discovered, WorkFailure>>),
    Execute {
        unit: Unit,
        project: String,
        news: mpsc::Sender<UnitNews>,
        cancel: CancellationToken,
        done: oneshot::Sender<Result<(), WorkFailure>>,
    },
    Distrust(u32, oneshot::Sender<()>),
    Settle(u32, oneshot::Sender<Result<Settled, Unfit>>),
    Verify(String, oneshot::Sender<Verified>),
    Look(LookOpen, LookLine, oneshot::Sender<LookEnded>),
}

/// Free and all bytes that the crew tells.
pub(super) const DISK: (u64, u64) = (5, 7);

#[derive(Debug)]
pub(super) struct FakeCrew(mpsc::UnboundedSender<Call>);

pub(super) type Calls = mpsc::UnboundedReceiver<Call>;

impl FakeCrew {
    pub(super) fn new() -> (Arc<Self>, Calls) {
        let (sender, calls) = mpsc::unbounded_channel();
        (Arc::new(Self(sender)), calls)
    }

    /// A call whose answer is dropped is a fault of the crew.
    async fn ask<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> T {
        let (reply, answer) = oneshot::channel();
        let _ = self.0.send(call(reply));
        answer.await.expect("the test answers")
    }
}

#[async_trait]
impl Crew for FakeCrew {
    fn driver(&self) -> String {
        "restart".into()
    }

    fn disk(&self) -> Option<(u64, u64)> {
        Some(DISK)
    }

    async fn prepare_baseline(&self, job: Job<'_>) -> Result<BaselineReady, WorkFailure> {
        let _ = job.notices.try_send("preparing".into());
        self.ask(Call::Prepare).await
    }

    async fn discover(
        &self,
        _lane: u32,
        _job: Job<'_>,
        suite: &str,
        _baseline_key: &str,
    ) -> Result<Discovered, WorkFailure> {
        self.ask(|reply| Call::Discover(suite.to_owned(), reply)).await
    }

    async fn execute(
        &self,
        job: Job<'_>,
        unit: Unit,
        news: mpsc::Sender<UnitNews>,
        cancel: CancellationToken,
    ) -> Result<(), WorkFailure> {
        let project = job.spec.project.clone();
        let asked = {
            let cancel = cancel.clone();
            self.ask(|done| Call::Execute { unit, project, news, cancel, done })
        };
        tokio::select! {
            () = cancel.cancelled() => Ok(()),
            end = asked => end,
        }
    }

    async fn distrust(&self, lane: u32) {
        self.ask(|reply| Call::Distrust(lane, reply)).await;
    }

    async fn settle(&self, lane: u32) -> Result<Settled, Unfit> {
        self.ask(|reply| Call::Settle(lane, reply)).await
    }

    async fn look(&self, open: LookOpen, line: LookLine) -> LookEnded {
        self.ask(|reply| Call::Look(open, line, reply)).await
    }

    async fn verify(&self, key: &str, _: Duration) -> Verified {
        self.ask(|reply| Call::Verify(key.to_owned(), reply)).await
    }
}
