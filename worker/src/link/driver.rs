//! The one task that owns the session: it feeds the machine with what happens and carries out what it answers.

use std::sync::Arc;
use std::time::Duration;

use andon_proto::{Inexact, Verified, WorkerMessage, worker_message};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::bench::Bench;
use super::connection::{Closed, Connection, News};
use super::crew::Crew;
use super::dial::{Coordinator, chain};
use super::farm::FarmClient;
use super::session::{Effect, Identity, Input, LaneEvent, Session};
use super::specs::Specs;

/// How long a worker that is told to stop may take to end its work and to give its leases back.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// Failed dials between two lines about them: about one a minute.
const DIALS_A_WARNING: u32 = 20;
/// Answers to questions that may wait.
const VERIFIED_MAX: usize = 4;
/// What the coordinator is told of the leases that a stopping worker gives back.
const DRAIN_REASON: &str = "worker is shutting down";

/// What a link needs.
#[derive(Debug)]
pub struct LinkOptions {
    /// Whom to dial.
    pub coordinator: Coordinator,
    /// Unique in the farm: letters, digits, `-`, `_`, `.`.
    pub worker: String,
    /// How many lanes.
    pub lanes: u32,
    /// What the pool is, for the coordinator's list.
    pub pool: String,
    /// Blobs, for specifications.
    pub farm: FarmClient,
    /// Those who work.
    pub crew: Arc<dyn Crew>,
    /// How the daemon under the lanes fares. Absent news are good news.
    pub health: mpsc::Receiver<Health>,
    /// Stands that were not exact, for the coordinator.
    pub inexact: mpsc::Receiver<Inexact>,
}

/// News of the daemon under the lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It is away; what ran on it is lost.
    Down {
        /// One line.
        reason: String,
    },
    /// It is back, and empty of what ran.
    Up,
}

/// Why a link ended by itself.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The coordinator does not want this worker: its token, its name.
    #[error("the coordinator at {address} refuses this worker: {reason}")]
    Refused {
        /// Which.
        address: String,
        /// Its words.
        reason: String,
    },
}

/// Works until `stop` is cancelled; then gives back what it holds, within [`DRAIN_LIMIT`].
///
/// A coordinator that cannot be reached is dialled for ever. One that refuses this worker before it ever took it ends
/// the link: nothing would change by itself.
///
/// # Errors
/// Where the coordinator refuses this worker.
pub async fn run(options: LinkOptions, stop: CancellationToken) -> Result<(), LinkError> {
    let mut driver = Driver::new(options);
    let end = driver.run(stop).await;
    driver.bench.clear().await;
    end
}

/// The connection's state.
#[derive(Debug)]
enum Line {
    /// Dial then.
    Waiting(Instant),
    /// Dialling, or open where there is a way out.
    Live { connection: Connection, out: Option<mpsc::Sender<WorkerMessage>> },
}

#[derive(Debug)]
struct Driver {
    session: Session,
    bench: Bench,
    events: mpsc::Receiver<(u32, LaneEvent)>,
    health: mpsc::Receiver<Health>,
    inexact: mpsc::Receiver<Inexact>,
    verified: mpsc::Receiver<Verified>,
    verified_in: mpsc::Sender<Verified>,
    coordinator: Coordinator,
    crew: Arc<dyn Crew>,
    farm: FarmClient,
    line: Line,
    backoff: Backoff,
    /// True once a coordinator took this worker.
    accepted: bool,
    /// Since the last session.
    dials: u32,
    began: Instant,
}

/// What woke the driver.
enum Wake {
    Stop,
    News(News),
    Lane(u32, LaneEvent),
    Health(Health),
    Inexact(Inexact),
    Verified(Verified),
    Time,
}

impl Driver {
    fn new(options: LinkOptions) -> Self {
        let LinkOptions { coordinator, worker, lanes, pool, farm, crew, health, inexact } = options;
        let (bench, events) = Bench::new(lanes, crew.clone(), Arc::new(Specs::new(farm.clone())));
        let (verified_in, verified) = mpsc::channel(VERIFIED_MAX);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self {
            session: Session::new(Identity { worker, version, lanes, pool }),
            bench,
            events,
            health,
            inexact,
            verified,
            verified_in,
            coordinator,
            crew,
            farm,
            line: Line::Waiting(Instant::now()),
            backoff: Backoff::default(),
            accepted: false,
            dials: 0,
            began: Instant::now(),
        }
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), LinkError> {
        let mut give_up: Option<Instant> = None;
        let mut health_ended = false;
        loop {
            if give_up.is_some_and(|at| self.session.is_drained() || Instant::now() >= at) {
                return Ok(());
            }
            let wake_at = self.wake_at(give_up);
            let wake = tokio::select! {
                () = stop.cancelled(), if give_up.is_none() => Wake::Stop,
                news = next_news(&mut self.line) => Wake::News(news),
                Some((lane, event)) = self.events.recv(), if !self.session.is_full() => Wake::Lane(lane, event),
                health = self.health.recv(), if !health_ended => match health {
                    Some(health) => Wake::Health(health),
                    None => { health_ended = true; continue }
                },
                Some(inexact) = self.inexact.recv() => Wake::Inexact(inexact),
                Some(verified) = self.verified.recv() => Wake::Verified(verified),
                () = sleep_until(wake_at) => Wake::Time,
            };
            match wake {
                Wake::Stop => {
                    give_up = Some(Instant::now() + DRAIN_LIMIT);
                    self.step(Input::Drain { reason: DRAIN_REASON.to_owned() });
                }
                Wake::News(News::Open(out)) => {
                    if let Line::Live { out: way, .. } = &mut self.line {
                        *way = Some(out);
                    }
                    let driver = self.crew.driver();
                    self.step(Input::Connected { driver });
                }
                Wake::News(News::Heard(word)) => {
                    self.took();
                    self.step(Input::Heard(word));
                }
                Wake::News(News::Closed(closed)) => self.closed(&closed)?,
                Wake::Lane(lane, event) => self.step(Input::Lane(lane, event)),
                Wake::Health(Health::Down { reason }) => self.step(Input::DaemonDown { reason }),
                Wake::Inexact(inexact) => self.step(Input::Inexact(inexact)),
                Wake::Verified(verified) => self.step(Input::Verified(verified)),
                Wake::Health(Health::Up) => self.step(Input::DaemonUp),
                Wake::Time => {
                    self.dial_if_due();
                    self.step(Input::Tick);
                }
            }
        }
    }

    fn wake_at(&self, give_up: Option<Instant>) -> Instant {
        let dial = match self.line {
            Line::Waiting(at) => Some(at),
            Line::Live { .. } => None,
        };
        let session = self.session.wake_at().map(|at| self.began + at);
        // With nothing to wait for, waking now and then does no harm.
        let idle = Instant::now() + Duration::from_secs(60);
        [dial, session, give_up].into_iter().flatten().min().unwrap_or(idle)
    }

    fn dial_if_due(&mut self) {
        if matches!(self.line, Line::Waiting(at) if Instant::now() >= at) {
            self.dials += 1;
            self.line = Line::Live { connection: Connection::dial(self.coordinator.clone()), out: None };
        }
    }

    fn took(&mut self) {
        if self.dials > 0 {
            tracing::info!(coordinator = self.coordinator.address(), "joined the farm");
        }
        self.accepted = true;
        self.dials = 0;
        self.backoff.reset();
    }

    fn closed(&mut self, closed: &Closed) -> Result<(), LinkError> {
        let reason = chain(closed);
        if closed.is_refusal() && !self.accepted {
            return Err(LinkError::Refused { address: self.coordinator.address().to_owned(), reason });
        }
        self.hang_up(&reason);
        self.step(Input::Disconnected);
        Ok(())
    }

    fn hang_up(&mut self, reason: &str) {
        let wait = self.backoff.next(rand::random());
        // The first time, then now and then: a coordinator may be away for long.
        if self.dials <= 1 || self.dials.is_multiple_of(DIALS_A_WARNING) {
            let (coordinator, dials) = (self.coordinator.address(), self.dials);
            tracing::warn!(coordinator, reason, dials, "no session with the coordinator; dialling again");
        }
        self.line = Line::Waiting(Instant::now() + wait);
    }

    fn step(&mut self, input: Input) {
        let now = self.began.elapsed();
        let mut stuck = false;
        for effect in self.session.step(now, input) {
            match effect {
                Effect::Send(message) => stuck |= !self.send(*message),
                Effect::Start { lane, lease, spec_digest, work } => {
                    self.bench.start(lane, lease, spec_digest, work);
                }
                Effect::Cancel { lane } => self.bench.cancel(lane),
                Effect::Settle { lane } => self.bench.settle(lane, false),
                Effect::Rebuild { lane } => self.bench.settle(lane, true),
                Effect::Look(call) => self.bench.look(call, self.farm.clone()),
                Effect::Verify(ask) => self.bench.verify(ask, self.verified_in.clone()),
                Effect::HangUp { reason } => self.hang_up(reason),
                Effect::Warn(line) => tracing::warn!("{line}"),
            }
        }
        if stuck {
            self.hang_up("the coordinator does not read");
            // Takes the session down; there is nobody to send to.
            self.session.step(now, Input::Disconnected);
        }
    }

    /// False where the way out is full or closed: the connection is of no more use. What must arrive is in the outbox.
    fn send(&mut self, mut message: WorkerMessage) -> bool {
        if let Some(worker_message::Body::Heartbeat(beat)) = &mut message.body {
            (beat.disk_free_bytes, beat.disk_bytes) = self.crew.disk().unwrap_or_default();
        }
        match &self.line {
            Line::Live { out: Some(out), .. } => out.try_send(message).is_ok(),
            _ => true,
        }
    }
}

async fn next_news(line: &mut Line) -> News {
    match line {
        Line::Live { connection, .. } => connection.next().await,
        Line::Waiting(_) => std::future::pending().await,
    }
}
