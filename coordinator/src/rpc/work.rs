//! The workers' service: sessions, and what workers look up.

use std::collections::HashSet;
use std::pin::Pin;

use andon_core::ids::{Fence, LaneIx, WorkerId};
use andon_core::model::Report;
use andon_proto as wire;
use andon_proto::work_server::Work;
use andon_proto::worker_message::Body;
use futures::{Stream, StreamExt};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{convert, inexact, look};
use crate::driver::{Command, Farm, Words};
use crate::sessions::{OUTBOX, SessionId};

const WORKER_NAME_MAX: usize = 128;
const LANES_MAX: u32 = 1_024;
/// A suite has at most so many tests …
const TESTS_MAX: usize = 200_000;
/// … with ids of at most so many bytes.
const TEST_ID_BYTES_MAX: usize = 4_096;
const LOG_BYTES_MAX: usize = 4 << 20;
const NOTICE_BYTES_MAX: usize = 4_096;
/// Of a piece of output as it is sent; a worker's pieces are at most 64 KiB before compression.
const PIECE_BYTES_MAX: usize = 256 << 10;
/// So many baselines are offered to be built upon.
const RELATED_MAX: usize = 32;

pub(super) struct WorkService {
    farm: Farm,
}

impl WorkService {
    pub(super) fn new(farm: Farm) -> Self {
        Self { farm }
    }

    /// The latest baselines of a project with this root.
    async fn related_baselines(
        &self,
        root_key: &str,
        project: &str,
    ) -> Result<Vec<wire::BaselineManifest>, Status> {
        let stored = self.farm.store.baselines().await.map_err(|error| super::internal(&error))?;
        let related = stored
            .iter()
            // One that cannot be read is none to build upon.
            .filter_map(|bytes| wire::BaselineManifest::decode(bytes.as_slice()).ok())
            .filter(|manifest| manifest.root_key == root_key && manifest.project == project);
        Ok(related.take(RELATED_MAX).collect())
    }
}

#[tonic::async_trait]
impl Work for WorkService {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<wire::CoordinatorMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<wire::WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let first =
            incoming.message().await?.ok_or_else(|| Status::invalid_argument("the session is empty"))?;
        let Some(Body::Hello(hello)) = first.body else {
            return Err(Status::invalid_argument("a session begins with Hello"));
        };
        check_hello(&hello)?;
        let worker = WorkerId(hello.worker.clone());
        let reached = hello.reached.map(Fence);
        let held = hello.held.iter().map(|lease| convert::lease(*lease)).collect();
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let session = self.farm.sessions.new_id();
        let _ = outbox.try_send(convert::welcome(self.farm.times));
        self.farm.sessions.open(session, hello, outbox, self.farm.clock.now().unix_ms);
        tracing::info!(%worker, "worker joined");
        let joined = Command::Joined { worker: worker.clone(), session, held, reached, seq: first.seq };
        if !self.farm.command(joined).await {
            return Err(Status::unavailable("the coordinator is stopping"));
        }
        tokio::spawn(listen(self.farm.clone(), worker, session, incoming));
        let stop = self.farm.stop.clone();
        let messages = ReceiverStream::new(messages).map(Ok).take_until(stop.cancelled_owned());
        Ok(Response::new(Box::pin(messages)))
    }

    type ShowStream = look::Answers<wire::LookIn>;

    async fn show(
        &self,
        request: Request<Streaming<wire::LookOut>>,
    ) -> Result<Response<Self::ShowStream>, Status> {
        look::show(&self.farm, request.into_inner()).await
    }

    async fn find_baseline(
        &self,
        request: Request<wire::FindBaselineRequest>,
    ) -> Result<Response<wire::FindBaselineResponse>, Status> {
        let wire::FindBaselineRequest { key, root_key, project } = request.into_inner();
        if !root_key.is_empty() {
            let related = self.related_baselines(&root_key, &project).await?;
            return Ok(Response::new(wire::FindBaselineResponse { manifest: None, related }));
        }
        let found = self.farm.store.baseline(&key).await.map_err(|error| super::internal(&error))?;
        let manifest = found
            .map(|bytes| wire::BaselineManifest::decode(bytes.as_slice()))
            .transpose()
            .map_err(|error| super::internal(&error))?;
        Ok(Response::new(wire::FindBaselineResponse { manifest, related: Vec::new() }))
    }

    async fn find_image(
        &self,
        request: Request<wire::FindImageRequest>,
    ) -> Result<Response<wire::FindImageResponse>, Status> {
        let reference = request.into_inner().reference;
        let found = self.farm.store.image(&reference).await.map_err(|error| super::internal(&error))?;
        Ok(Response::new(wire::FindImageResponse { image: found.map(convert::image) }))
    }
}

fn check_hello(hello: &wire::Hello) -> Result<(), Status> {
    let name = &hello.worker;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > WORKER_NAME_MAX || !name.chars().all(plain) {
        return Err(Status::invalid_argument(format!(
            "a worker's name has 1 to {WORKER_NAME_MAX} letters, digits, '-', '_' or '.'"
        )));
    }
    if hello.lanes == 0 || hello.lanes > LANES_MAX {
        return Err(Status::invalid_argument(format!("a worker has 1 to {LANES_MAX} lanes")));
    }
    Ok(())
}

/// Turns what a worker says into commands until its stream ends.
async fn listen(
    farm: Farm,
    worker: WorkerId,
    session: SessionId,
    mut incoming: Streaming<wire::WorkerMessage>,
) {
    let stop = farm.stop.clone();
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => break,
            message = incoming.message() => message,
        };
        match message {
            Ok(Some(wire::WorkerMessage { seq, body: Some(body) })) => {
                // Who is not answered any more is not listened to either.
                if !farm.sessions.is_open(&worker, session) {
                    break;
                }
                if let Body::Verified(verified) = body {
                    farm.verifying.answered(&worker, session, verified);
                    continue;
                }
                if let Body::Heartbeat(beat) = &body {
                    farm.sessions.tell_disk(&worker, session, beat.disk_free_bytes, beat.disk_bytes);
                }
                let Some(words) = words(body) else { continue };
                let said = Command::Said { worker: worker.clone(), session, seq, words };
                if !farm.command(said).await {
                    break;
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(status) => {
                tracing::info!(%worker, %status, "the session broke");
                break;
            }
        }
    }
    farm.command(Command::Left { worker, session }).await;
}

/// `None` for what is not understood: it is neither acted upon nor acknowledged.
fn words(body: Body) -> Option<Words> {
    Some(match body {
        // Answers to questions do not go to the driver.
        Body::Hello(_) | Body::Verified(_) => return None,
        Body::LaneReady(ready) => Words::LaneReady { lane: LaneIx(ready.lane), baseline: ready.baseline_key },
        Body::Heartbeat(heartbeat) => {
            Words::Heartbeat { held: heartbeat.held.into_iter().map(convert::lease).collect() }
        }
        Body::Unfit(unfit) => Words::Fitness { unfit: (!unfit.reason.is_empty()).then_some(unfit.reason) },
        Body::Inexact(told) => Words::Inexact(inexact::heard(told)?),
        Body::Report(report) => {
            let lease = convert::lease(report.lease?);
            match report.body? {
                wire::report::Body::Notice(mut text) => {
                    text.truncate(text.floor_char_boundary(NOTICE_BYTES_MAX));
                    Words::Notice { lease, text }
                }
                wire::report::Body::Output(piece) => {
                    if piece.zstd.len() > PIECE_BYTES_MAX {
                        return None;
                    }
                    let wire::OutputPiece { starts, raw_bytes, zstd } = piece;
                    Words::Printed { lease, starts, raw_bytes, zstd }
                }
                wire::report::Body::Artifacts(left) => {
                    Words::Artifacts { lease, artifacts: convert::artifacts(left) }
                }
                body => Words::Report { lease, report: checked(convert::report(body)?) },
            }
        }
    })
}

/// Refuses by name what is too large.
fn checked(report: Report) -> Report {
    match report {
        Report::Discovered { tests } => {
            if let Some(reason) = refusal(&tests) {
                let class = andon_core::model::FailureClass::Config;
                return Report::WorkFailed { class, reason, log_zstd: Vec::new() };
            }
            Report::Discovered { tests }
        }
        Report::TestEnded { attempt, mut ended } => {
            if ended.log_zstd.len() > LOG_BYTES_MAX {
                ended.log_zstd = Vec::new();
                ended.message.push_str("\n(the log was larger than the coordinator takes)");
            }
            Report::TestEnded { attempt, ended }
        }
        other => other,
    }
}

fn refusal(tests: &[andon_core::model::Candidate]) -> Option<String> {
    if tests.len() > TESTS_MAX {
        return Some(format!("discovery found {} tests, a suite may have {TESTS_MAX}", tests.len()));
    }
    let mut seen = HashSet::with_capacity(tests.len());
    tests.iter().find_map(|test| {
        if test.id.is_empty() || test.id.len() > TEST_ID_BYTES_MAX {
            Some(format!("a test id has {} bytes, 1 to {TEST_ID_BYTES_MAX} are allowed", test.id.len()))
        } else if !seen.insert(test.id.as_str()) {
            Some(format!("discovery named {:?} twice", test.id))
        } else {
            None
        }
    })
}
