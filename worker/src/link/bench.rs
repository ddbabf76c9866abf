//! The lanes' tasks: each lease's work and each settling is a task that calls the crew and tells the session what came
//! of it, in order. A panic below is the farm's failure, never a silent lane.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use andon_proto::{Lease, LookCall, Verified, VerifyBaseline, WorkFailed, assign};
use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::crew::{Crew, Job, Unit};
use super::farm::FarmClient;
use super::session::{Fruit, LaneEvent, PutBack};
use super::show;
use super::specs::Specs;
use crate::hands::{Notices, Unfit, WorkFailure};
use crate::runner::UnitNews;

/// Events of all lanes that may wait for the session.
const EVENTS_MAX: usize = 256;
/// Results and output of one unit that may wait to be told.
const NEWS_MAX: usize = 64;
/// Notices of one piece of work that may wait; more are lost.
const NOTICES_MAX: usize = 64;
/// How long cancelled work may take to end by itself before it is dropped.
const CANCEL_LIMIT: Duration = Duration::from_secs(30);
/// The longest that anybody may have this worker look at what it holds.
const VERIFY_LIMIT_MAX: Duration = Duration::from_secs(600);

type Events = mpsc::Sender<(u32, LaneEvent)>;

/// See the module. Dropping it drops all work.
#[derive(Debug)]
pub(super) struct Bench {
    crew: Arc<dyn Crew>,
    specs: Arc<Specs>,
    events: Events,
    cancels: Vec<CancellationToken>,
    tasks: JoinSet<()>,
    /// Numbers what is measured.
    settled: u64,
}

impl Bench {
    pub(super) fn new(
        lanes: u32,
        crew: Arc<dyn Crew>,
        specs: Arc<Specs>,
    ) -> (Self, mpsc::Receiver<(u32, LaneEvent)>) {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let cancels = (0..lanes).map(|_| CancellationToken::new()).collect();
        (Self { crew, specs, events, cancels, tasks: JoinSet::new(), settled: 0 }, receiver)
    }

    pub(super) fn start(&mut self, lane: u32, lease: Lease, spec_digest: String, work: assign::Work) {
        let cancel = CancellationToken::new();
        self.cancels[lane as usize] = cancel.clone();
        let (crew, specs, events) = (self.crew.clone(), self.specs.clone(), self.events.clone());
        self.spawn(async move {
            let piece = Piece { crew, specs, lane, run: lease.run, spec_digest, cancel };
            let end = piece.run(work, &events).await;
            let _ = events.send((lane, LaneEvent::Ended(end))).await;
        });
    }

    pub(super) fn cancel(&mut self, lane: u32) {
        self.cancels[lane as usize].cancel();
    }

    /// `anew`: the daemon was replaced.
    pub(super) fn settle(&mut self, lane: u32, anew: bool) {
        self.settled += 1;
        let id = self.settled;
        let (crew, events) = (self.crew.clone(), self.events.clone());
        self.spawn(async move {
            let settling = async {
                if anew {
                    crew.distrust(lane).await;
                }
                crew.settle(lane).await
            };
            let settled = AssertUnwindSafe(settling).catch_unwind().await;
            let end = settled.unwrap_or_else(|panic| Err(Unfit { reason: told(&*panic) }));
            let mut footprint = None;
            let end = end.map(|settled| {
                footprint = settled.footprint;
                PutBack { baseline_key: settled.baseline_key, measuring: footprint.is_some().then_some(id) }
            });
            let _ = events.send((lane, LaneEvent::Settled(end))).await;
            // The lane need not wait for it.
            if let Some(footprint) = footprint {
                let footprint = footprint.await.ok();
                let _ = events.send((lane, LaneEvent::Measured { id, footprint })).await;
            }
        });
    }

    /// Looks at what is here, beside the lanes' work.
    pub(super) fn verify(&mut self, ask: VerifyBaseline, answers: mpsc::Sender<Verified>) {
        let crew = self.crew.clone();
        self.spawn(async move {
            let limit = Duration::from_millis(ask.limit_ms).min(VERIFY_LIMIT_MAX);
            let looking = AssertUnwindSafe(crew.verify(&ask.baseline_key, limit)).catch_unwind();
            let verified = looking.await;
            let refused =
                |panic: Box<dyn Any + Send>| Verified { refused: told(&*panic), ..Verified::default() };
            let verified = Verified { request: ask.request, ..verified.unwrap_or_else(refused) };
            let _ = answers.send(verified).await;
        });
    }

    /// Shows somebody what a test left, beside the lanes' work.
    pub(super) fn look(&mut self, call: LookCall, farm: FarmClient) {
        let crew = self.crew.clone();
        self.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(show::show(crew, farm, call)).catch_unwind().await {
                tracing::error!(fault = told(&*panic), "showing somebody what a test left");
            }
        });
    }

    /// Drops what still runs and waits until it is dropped.
    pub(super) async fn clear(&mut self) {
        self.tasks.shutdown().await;
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        // What has ended is not kept.
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(task);
    }
}

/// One lease's work.
struct Piece {
    crew: Arc<dyn Crew>,
    specs: Arc<Specs>,
    lane: u32,
    run: u64,
    spec_digest: String,
    cancel: CancellationToken,
}

impl Piece {
    async fn run(&self, work: assign::Work, events: &Events) -> Result<Fruit, WorkFailed> {
        let (news_in, mut news) = mpsc::channel(NEWS_MAX);
        let (notice_in, mut notices) = mpsc::channel(NOTICES_MAX);
        let tell = async |event| {
            // Where nobody listens any more the task is about to be dropped.
            let _ = events.send((self.lane, event)).await;
        };
        let end = {
            let work = AssertUnwindSafe(self.perform(work, news_in, &notice_in)).catch_unwind();
            let mut work = std::pin::pin!(work);
            loop {
                tokio::select! {
                    biased;
                    Some(news) = news.recv() => tell(LaneEvent::News(news)).await,
                    Some(notice) = notices.recv() => tell(LaneEvent::Notice(notice)).await,
                    end = &mut work => break end,
                }
            }
        };
        // What was sent before the end is told before it.
        while let Ok(news) = news.try_recv() {
            tell(LaneEvent::News(news)).await;
        }
        while let Ok(notice) = notices.try_recv() {
            tell(LaneEvent::Notice(notice)).await;
        }
        let end = end.unwrap_or_else(|panic| Err(WorkFailure::infrastructure(told(&*panic))));
        end.map_err(WorkFailed::from)
    }

    async fn perform(
        &self,
        work: assign::Work,
        news: mpsc::Sender<UnitNews>,
        notices: &Notices,
    ) -> Result<Fruit, WorkFailure> {
        let spec = self.unless_cancelled(self.specs.get(&self.spec_digest)).await?;
        let job = Job { run: self.run, spec: &spec, notices };
        match work {
            assign::Work::PrepareBaseline(_) => self
                .unless_cancelled(self.crew.prepare_baseline(job))
                .await
                .map(|ready| Fruit::Baseline(Box::new(ready))),
            assign::Work::Discover(what) => {
                let found = self.crew.discover(self.lane, job, &what.suite, &what.baseline_key);
                self.unless_cancelled(found).await.map(Fruit::Tests)
            }
            assign::Work::Execute(what) => {
                let unit = Unit {
                    lane: self.lane,
                    suite: what.suite,
                    baseline_key: what.baseline_key,
                    tests: what.tests,
                };
                let running = self.crew.execute(job, unit, news, self.cancel.clone());
                let overdue = async {
                    self.cancel.cancelled().await;
                    tokio::time::sleep(CANCEL_LIMIT).await;
                };
                tokio::select! {
                    end = running => end.map(|()| Fruit::Unit),
                    () = overdue => Err(WorkFailure::infrastructure("cancelled work did not end")),
                }
            }
        }
    }

    async fn unless_cancelled<T>(
        &self,
        work: impl Future<Output = Result<T, WorkFailure>>,
    ) -> Result<T, WorkFailure> {
        tokio::select! {
            () = self.cancel.cancelled() => Err(WorkFailure::infrastructure("cancelled")),
            end = work => end,
        }
    }
}

fn told(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("the worker has a fault: {}", text.as_deref().unwrap_or("a panic without words"))
}
