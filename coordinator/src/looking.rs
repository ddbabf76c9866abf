//! Joining who looks into a kept stack to the worker that has it. Workers dial out only, so both ends come here.
//!
//! ```text
//!   client ──Look: open──> the worker of the attempt is called over its session, with a ticket
//!                                │ it opens `Show` with the ticket
//!   client <═══════════ messages, as they come, each way ═══════════> worker
//!                                │ either end is gone, nothing moved for too long, the coordinator stops
//!                                └──> both ends are ended
//! ```
//!
//! Edge state only: nothing of it is stored, and the core does not know of it. Must not know what is looked at. Invariants: a
//! ticket is used once, by whoever was called; little waits on its way, so that a reader that is slow holds up its own writer
//! and nobody else; every look ends by itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use andon_core::ids::WorkerId;
use andon_proto::{
    self as wire, LookCall, LookIn, LookOpen, LookOut, coordinator_message, look_in, look_out,
};
use dashmap::DashMap;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use crate::driver::Farm;

/// Looks at a time, connections to services among them; more are refused.
const LOOKS_MAX: usize = 256;
/// Messages of one look that wait here, each way.
pub(crate) const AHEAD_MAX: usize = 8;
/// How long a worker may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Of nothing moving, either way.
const IDLE_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Looks that are under way.
#[derive(Debug)]
pub(crate) struct Looking {
    turns: Semaphore,
    called: DashMap<String, oneshot::Sender<Shown>>,
}

impl Default for Looking {
    fn default() -> Self {
        Self { turns: Semaphore::new(LOOKS_MAX), called: DashMap::new() }
    }
}

/// The worker's end.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) hear: Streaming<LookOut>,
    pub(crate) say: mpsc::Sender<Result<LookIn, Status>>,
}

/// The client's end.
#[derive(Debug)]
pub(crate) struct Looker {
    pub(crate) hear: Streaming<LookIn>,
    pub(crate) say: mpsc::Sender<Result<LookOut, Status>>,
}

/// Forgets a call when nobody waits for its answer.
struct Calling<'a>(&'a Looking, String);

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        self.0.called.remove(&self.1);
    }
}

impl Looking {
    /// A worker answers a call. Without one under this ticket nobody waits for it.
    pub(crate) fn answered(&self, ticket: &str, shown: Shown) -> Result<(), Status> {
        let nobody = || Status::not_found("nobody waits for that");
        let (_, waiting) = self.called.remove(ticket).ok_or_else(nobody)?;
        waiting.send(shown).map_err(|_| nobody())
    }
}

/// Joins the client to the worker until one of them is gone.
pub(crate) async fn look(farm: Farm, worker: WorkerId, open: LookOpen, client: Looker) {
    let say = client.say.clone();
    if let Err(status) = joined(&farm, &worker, open, client).await {
        // A client that is gone needs no reason.
        let _ = say.send(Err(status)).await;
    }
}

async fn joined(farm: &Farm, worker: &WorkerId, open: LookOpen, client: Looker) -> Result<(), Status> {
    let looking = &farm.looking;
    let _turn = looking
        .turns
        .try_acquire()
        .map_err(|_| Status::resource_exhausted(format!("{LOOKS_MAX} looks are under way already")))?;
    let is_here = farm.sessions.list().iter().any(|(name, view)| name == worker && view.session.is_some());
    if !is_here {
        let text = format!("worker {worker} has what the test left, and is away");
        return Err(Status::failed_precondition(text));
    }
    let ticket = crate::new_token();
    let (sender, answer) = oneshot::channel();
    looking.called.insert(ticket.clone(), sender);
    let calling = Calling(looking, ticket.clone());
    let call = coordinator_message::Body::LookCall(LookCall { ticket, open: Some(open) });
    farm.sessions.send(worker, wire::CoordinatorMessage { body: Some(call) });
    let shown = tokio::select! {
        answer = timeout(ANSWER_LIMIT, answer) => answer,
        () = client.say.closed() => return Ok(()),
    };
    drop(calling);
    let shown = shown.ok().and_then(Result::ok);
    let shown = shown.ok_or_else(|| Status::deadline_exceeded(format!("worker {worker} does not answer")))?;
    tokio::select! {
        ended = relay(client, shown, IDLE_LIMIT) => ended,
        () = farm.stop.cancelled() => Err(Status::unavailable("the coordinator is stopping")),
    }
}

/// Until the worker has said its last, the client is gone, or nothing moves for so long.
async fn relay(client: Looker, shown: Shown, idle: Duration) -> Result<(), Status> {
    let Looker { hear: mut from_client, say: to_client } = client;
    let Shown { hear: mut from_worker, say: to_worker } = shown;
    let moved = AtomicU64::new(0);
    let inward = async {
        loop {
            let Ok(Some(message)) = from_client.message().await else { return };
            moved.fetch_add(1, Ordering::Relaxed);
            // Who looks is asked once what at.
            if matches!(message.body, Some(look_in::Body::Open(_)) | None) {
                continue;
            }
            if to_worker.send(Ok(message)).await.is_err() {
                return;
            }
        }
    };
    let outward = async {
        loop {
            let Some(message) = from_worker.message().await.map_err(|_| broke_off())? else {
                return Err(broke_off());
            };
            moved.fetch_add(1, Ordering::Relaxed);
            if matches!(message.body, Some(look_out::Body::Ticket(_)) | None) {
                continue;
            }
            let is_last = matches!(message.body, Some(look_out::Body::Ended(_)));
            if to_client.send(Ok(message)).await.is_err() || is_last {
                return Ok(());
            }
        }
    };
    let idling = async {
        loop {
            let before = moved.load(Ordering::Relaxed);
            tokio::time::sleep(idle).await;
            if moved.load(Ordering::Relaxed) == before {
                return;
            }
        }
    };
    tokio::select! {
        ended = outward => ended,
        // Dropping the way to the worker tells it.
        () = inward => Ok(()),
        () = idling => Err(Status::aborted(format!("nothing moved for {idle:?}"))),
    }
}

fn broke_off() -> Status {
    Status::aborted("the worker broke off")
}
