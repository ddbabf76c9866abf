//! One lane: a stack on a clone of a baseline, and one unit at a time on it.
//!
//! ```text
//!          place (stand on the ground, have a box)        run                 settle
//!   empty ────────────────────────────────────────> pristine ──> used ──────────────────────> pristine
//!     ^                                              ^    │ POST /rebase   2 rebases fail, or one is not exact: rebuilt;
//!     └── its baseline is damaged: let go of         └────┘                3 rebuilds fail: unfit
//! ```
//!
//! Must not know leases or the session. Invariants: a unit starts only on a stand that was verified and not used since; what
//! a cancelled or dropped call leaves is put back by the next `settle` or the next unit.

mod artifacts;
mod berth;
mod check;
mod clones;
mod congruence;
mod damage;
mod disk;
mod doomed;
mod door;
mod kept;
mod laps;
mod look;
mod outfit;
mod resolve;
mod service_logs;
mod stand;
mod stands;
mod unit_box;
mod within;
mod witness;
mod workshop;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use andon_proto::{Discovered, TestCase};
use andon_snapshot::Changes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::hands::{Settled, Unfit, WorkFailure, compress_log};
use crate::runner::UnitNews;
use crate::runner::{self, Rebases, Reporter, UnitFacts};
use crate::stack::{StackFault, sweep};
use berth::{Berth, Berths};
use disk::{Keeper, Part, Parts};
use doomed::Doomed;
use door::{Door, SOCKET_FILE};
use kept::{Expected, Label};
use service_logs::ServiceLogs;
use stand::{Ground, StandFault, User};
use stands::Stands;
use unit_box::{BoxPlan, UnitBox};
use witness::{LaneWitness, Services};

pub(crate) use congruence::{busy, not_looked_at, refused};
pub(crate) use kept::KeepRule;
pub(crate) use look::Looks;
pub use service_logs::service_of_log;
pub(crate) use workshop::{Place, Workshop};

/// Rebuilds that may fail before the lane is given up.
const REBUILDS_MAX: u32 = 3;

impl StandFault {
    /// With the class that it has while a baseline is built.
    fn into_failure(self) -> WorkFailure {
        match self {
            Self::Stack(fault) => StackFault::into_failure(fault),
            Self::Rig(fault) => crate::baseline::rig_failure(fault),
            Self::Worker(failure) => failure,
            Self::Unproven(fault) => fault.into(),
            other => WorkFailure::infrastructure(crate::hands::chain(&other)),
        }
    }
}

/// A lane.
#[derive(Debug)]
pub(crate) struct Lane {
    workshop: Arc<Workshop>,
    stands: Stands,
    /// Ready for the next unit, or being made so.
    fresh_box: Option<FreshBox>,
    used_box: Option<UnitBox>,
    /// That of an earlier unit, which the next one is made of.
    spare_box: Option<UnitBox>,
    /// What boxes join where there are no services.
    apart: Option<Arc<Berths>>,
    /// Something here is not to be relied on: all of it is made anew at the next occasion.
    distrusted: bool,
    rebuilds_failed: u32,
    /// Whose work came last.
    user: User,
    /// What stands, for whoever is asked about failures.
    services: Services,
    /// Its folders, for whoever measures them.
    parts: Parts,
    /// What its tests leave is kept where one failed.
    keeping: Option<Keeps>,
    /// Of the unit that runs.
    service_logs: ServiceLogs,
}

/// Of the unit that runs.
#[derive(Debug)]
struct Keeps {
    expected: Arc<Expected>,
    rebases: Rebases,
}

#[derive(Debug)]
enum FreshBox {
    Waits(Box<UnitBox>),
    Made(JoinHandle<Option<UnitBox>>),
}

/// A unit's work, as it came.
#[derive(Debug)]
pub(crate) struct UnitWork {
    pub(crate) run: u64,
    pub(crate) place: Place,
    pub(crate) arrived: Instant,
    pub(crate) tests: Vec<TestCase>,
    pub(crate) project: String,
    /// `None` where nothing is kept.
    pub(crate) keep: Option<KeepRule>,
}

impl Lane {
    pub(crate) fn new(workshop: Arc<Workshop>) -> Self {
        Self {
            stands: Stands::new(Arc::clone(&workshop)),
            workshop,
            fresh_box: None,
            used_box: None,
            spare_box: None,
            apart: None,
            distrusted: false,
            rebuilds_failed: 0,
            user: User::default(),
            services: Services::default(),
            parts: Parts::default(),
            keeping: None,
            service_logs: ServiceLogs::default(),
        }
    }

    /// Lists a suite's tests.
    pub(crate) async fn discover(&mut self, run: u64, place: Place) -> Result<Discovered, WorkFailure> {
        let suite = place.box_plan.suite.clone();
        self.user = User { run, suite: suite.name.clone() };
        self.stand_on(place.ground).await?;
        let env = BTreeMap::from([("ANDON_RUN_ID".to_owned(), run.to_string())]);
        let (cell, warm) = self.enter_box(place.box_plan, env).await?;
        let found = runner::discover(&cell, &suite, warm, &self.witness()).await?;
        Ok(Discovered { tests: found.tests, log_zstd: compress_log(&found.log) })
    }

    /// Runs a unit.
    pub(crate) async fn execute(
        &mut self,
        work: UnitWork,
        news: mpsc::Sender<UnitNews>,
        cancel: &CancellationToken,
    ) -> Result<(), WorkFailure> {
        let UnitWork { run, place, arrived, tests, project, keep } = work;
        let suite = place.box_plan.suite.clone();
        self.keeping = None;
        self.service_logs = ServiceLogs::default();
        let attempts: Vec<u64> = tests.iter().map(|test| test.attempt).collect();
        let expected = keep.filter(|_| place.ground.is_some()).map(|rule| {
            let label = Label { project, run, place: place.clone(), rule };
            self.workshop.kept.expect(label, &attempts)
        });
        self.user = User { run, suite: suite.name.clone() };
        let rebased_within = self.stand_on(place.ground).await?;
        let attempt = tests.first().map_or(0, |test| test.attempt);
        let env = BTreeMap::from([
            ("ANDON_RUN_ID".to_owned(), run.to_string()),
            ("ANDON_ATTEMPT".to_owned(), attempt.to_string()),
        ]);
        let (cell, warm) = self.enter_box(place.box_plan, env).await?;
        let rebases = match self.stands.serving() {
            Some(_) => Rebases::after(self.stands.last().took, self.stands.last().driver),
            None => Rebases::after(Duration::ZERO, ""),
        };
        self.keeping = expected.map(|expected| Keeps { expected, rebases: rebases.clone() });
        let facts = UnitFacts { arrived, rebased_within, rebases: rebases.clone() };
        let mut reporter = Reporter::new(news.clone(), facts);
        let witness = LaneWitness { overrun: Arc::clone(&cell.overrun), ..self.witness() };
        let keeper = self.keeper(suite.limits.map_or(0, |limits| limits.disk_bytes));
        let door = Door::open(&cell.out_dir.join(SOCKET_FILE), self.about());
        let door = door.map_err(|error| {
            WorkFailure::infrastructure(format!("cannot open the unit's socket: {error}"))
        })?;
        {
            let running = runner::run(&cell, &suite, warm, tests, &mut reporter, &witness, cancel);
            let running = async {
                match keeper {
                    None => running.await,
                    Some(keeper) => tokio::select! {
                        ended = running => ended,
                        never = keeper.keep(&cell) => match never {},
                    },
                }
            };
            self.attend(Box::pin(running), &cell, door, &rebases, &news).await?;
        }
        if !cancel.is_cancelled() {
            self.keep_service_logs(&rebases).await;
            self.send_artifacts(&cell, &news).await;
        }
        Ok(())
    }

    /// Before the stack is put back: what a test left that failed is kept.
    fn keep_what_failed(&mut self) {
        if let Some(keeps) = &self.keeping
            && let Some(keeping) = keeps.expected.keeping(keeps.rebases.outcomes())
        {
            self.stands.keep(keeping);
        }
    }

    /// Before the stack is put back: what its services wrote is kept where a test failed.
    async fn keep_service_logs(&mut self, rebases: &Rebases) {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let engine = self.workshop.options.engine.as_ref();
        self.service_logs.keep(engine, &services, &rebases.failed()).await;
    }

    /// What whoever knocks may know.
    fn about(&self) -> serde_json::Value {
        let baseline = self.stands.ground().map_or("", |ground| ground.baseline.key());
        let lane = self.used_box.as_ref().map_or("", |used| used.plan().lane.as_str());
        serde_json::json!({ "lane": lane, "baseline": baseline })
    }

    /// Keeps what the unit's tests left for people. Where that fails the tests' verdicts are none the worse.
    async fn send_artifacts(&mut self, cell: &runner::Cell, news: &mpsc::Sender<UnitNews>) {
        let folder = cell.out_dir.join(runner::ARTIFACTS_FOLDER);
        match artifacts::keep(&self.workshop, folder, std::mem::take(&mut self.service_logs)).await {
            Ok(Some(artifacts)) => {
                // Nobody takes news any more: the link has let go of the lease.
                let _ = news.send(UnitNews::Artifacts(artifacts)).await;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "keeping what a unit left"),
        }
    }

    /// Has a pristine stand on this ground; answers with the time that a rise or rebase took just now.
    async fn stand_on(&mut self, ground: Option<Ground>) -> Result<Duration, WorkFailure> {
        let fits = match (self.stands.ground(), &ground) {
            (Some(standing), Some(ground)) => {
                let is_led = self.stands.way().is_some();
                standing.is_same(ground) && (ground.fronted || !is_led)
            }
            (None, None) => true,
            _ => false,
        };
        let fits = fits && !self.distrusted;
        if fits && !self.stands.is_used() {
            return Ok(Duration::ZERO);
        }
        let began = Instant::now();
        if fits {
            self.put_back().await.map_err(|unfit| WorkFailure::infrastructure(unfit.reason))?;
            if self.stands.ground().is_none() {
                return Err(WorkFailure::infrastructure(
                    "the baseline was damaged on this worker: it is fetched anew",
                ));
            }
            return Ok(began.elapsed());
        }
        self.lower().await?;
        let Some(ground) = ground else {
            self.distrusted = false;
            return Ok(Duration::ZERO);
        };
        if let Err(error) = self.raise(ground.clone()).await {
            let error = match self.is_given_up(&error, &ground).await {
                Some(damage) => damage,
                None => {
                    self.rebuilds_failed += 1;
                    error.to_string()
                }
            };
            return Err(WorkFailure::infrastructure(format!("the lane cannot be put up: {error}")));
        }
        Ok(began.elapsed())
    }

    /// Where a stand cannot be made exact because the baseline itself is not what was published, the worker gives that up: the
    /// next who needs it fetches it anew. Answers with the damage.
    async fn is_given_up(&self, error: &StandFault, ground: &Ground) -> Option<String> {
        if !error.is_inexact() {
            return None;
        }
        self.workshop.give_up_if_damaged(&ground.baseline).await
    }

    /// Takes down what stands on a baseline that the worker gave up: it cannot be fetched anew before.
    pub(crate) async fn let_go_of_damaged(&mut self) -> Result<bool, WorkFailure> {
        let is_damaged =
            self.stands.ground().is_some_and(|ground| self.workshop.is_given_up(ground.baseline.key()));
        if is_damaged {
            self.lower().await?;
        }
        Ok(is_damaged)
    }

    async fn raise(&mut self, ground: Ground) -> Result<(), StandFault> {
        self.stands.raise(ground).await?;
        self.rebuilds_failed = 0;
        self.distrusted = false;
        Ok(())
    }

    /// A box for a unit: the one that waits, where it fits, else a new one. It counts as used from here on.
    async fn enter_box(
        &mut self,
        plan: BoxPlan,
        env: BTreeMap<String, String>,
    ) -> Result<(runner::Cell, Option<runner::Warm>), WorkFailure> {
        self.leave_box().await?;
        let mut unit_box = match self.waiting_box().await {
            Some(waiting) if waiting.plan().is_same(&plan) && waiting.is_fresh() => waiting,
            other => {
                if let Some(other) = other {
                    other.remove().await?;
                }
                let berth = berth(self.berths(&plan)).await;
                Box::pin(UnitBox::make(plan, self.workshop.next_serial(), false, berth)).await?
            }
        };
        if let Some(way) = self.stands.way()
            && let Err(failure) = unit_box.lead_to(&way).await
        {
            self.distrusted = true;
            self.workshop.dispose(unit_box);
            return Err(failure);
        }
        let entered = (unit_box.cell(env), unit_box.take_warm());
        self.stands.use_up(&self.user);
        if self.stands.stand_by() {
            // The next unit is not to wait for it.
            let next = unit_box.plan().clone();
            let (spare, berths) = (self.spare_box.take(), self.berths(&next));
            let making = make_box(Arc::clone(&self.workshop), Some(next), spare, berths);
            self.fresh_box = Some(FreshBox::Made(tokio::spawn(making)));
        }
        self.used_box = Some(unit_box);
        self.remember_services();
        Ok(entered)
    }

    async fn waiting_box(&mut self) -> Option<UnitBox> {
        match self.fresh_box.take()? {
            FreshBox::Waits(unit_box) => Some(*unit_box),
            FreshBox::Made(made) => made.await.ok().flatten(),
        }
    }

    async fn leave_box(&mut self) -> Result<(), WorkFailure> {
        match self.used_box.take() {
            Some(used) => used.remove().await,
            None => Ok(()),
        }
    }

    fn witness(&self) -> LaneWitness {
        LaneWitness {
            engine: self.workshop.options.engine.clone(),
            pool: self.workshop.options.pool.clone(),
            services: Arc::clone(&self.services),
            overrun: Arc::default(),
        }
    }

    /// Who keeps the unit in the used box to what it may write; nobody where its suite names no limit.
    fn keeper(&self, limit_bytes: u64) -> Option<Keeper> {
        let used = self.used_box.as_ref().filter(|_| limit_bytes > 0)?;
        Some(Keeper {
            engine: self.workshop.options.engine.clone(),
            limit_bytes,
            services: Arc::clone(&self.services),
            parts: Arc::clone(&self.parts),
            own: used.parts(),
            guests: used.guest_label(),
        })
    }

    /// Name and container of each service that serves now, and what they write to.
    fn remember_services(&self) {
        let services = self.stands.serving().map(|stand| {
            let plans = stand.ground().plan.services.iter().zip(stand.containers());
            plans
                .filter(|(service, _)| !service.completes)
                .map(|(service, container)| (service.name.clone(), container.clone()))
                .collect()
        });
        *self.services.lock().unwrap_or_else(PoisonError::into_inner) = services.unwrap_or_default();
        let parts: Vec<Part> = self.stands.serving().map(stand::Stand::parts).unwrap_or_default();
        *self.parts.lock().unwrap_or_else(PoisonError::into_inner) = parts;
    }

    /// What waits here cannot be relied on: its daemon was replaced. Earlier failures were the old daemon's.
    pub(crate) fn distrust(&mut self) {
        self.distrusted = true;
        self.rebuilds_failed = 0;
    }

    /// Puts the lane back and prepares a box like the last one.
    pub(crate) async fn settle(&mut self) -> Result<Settled, Unfit> {
        if self.rebuilds_failed >= REBUILDS_MAX {
            return Err(self.unfit("the stack cannot be put up"));
        }
        let let_go = self.let_go_of_damaged().await;
        if let_go.map_err(|failure| self.unfit(&failure.reason))? {
            return Ok(Settled::default());
        }
        let mut footprint = None;
        let next = self.used_box.as_ref().map(|used| used.plan().clone());
        if self.distrusted {
            self.rebuild(vec!["its daemon was replaced, or its network cannot be relied on".to_owned()])
                .await?;
            self.prepare_box(next.filter(|_| self.stands.ground().is_some())).await;
        } else if self.stands.is_used() || self.used_box.is_some() {
            let wanted = next.clone().filter(|_| self.fresh_box.is_none());
            let berths = wanted.as_ref().and_then(|plan| self.berths(plan));
            let spare = self.spare_box.take_if(|_| wanted.is_some());
            let preparing = make_box(Arc::clone(&self.workshop), wanted, spare, berths);
            let (rebased, prepared) = tokio::join!(self.turn(), preparing);
            if let Some(prepared) = prepared {
                self.fresh_box = Some(FreshBox::Waits(Box::new(prepared)));
            }
            match rebased {
                Ok(measured) => footprint = measured,
                Err(reasons) => {
                    self.rebuild(reasons).await?;
                    self.prepare_box(next.filter(|_| self.stands.ground().is_some())).await;
                }
            }
        }
        let baseline_key = self.stands.ground().map(|ground| ground.baseline.key().to_owned());
        Ok(Settled { baseline_key: baseline_key.unwrap_or_default(), footprint })
    }

    async fn prepare_box(&mut self, plan: Option<BoxPlan>) {
        let berths = plan.as_ref().and_then(|plan| self.berths(plan));
        let spare = self.spare_box.take();
        let made = make_box(Arc::clone(&self.workshop), plan, spare, berths).await;
        self.fresh_box = made.map(|made| FreshBox::Waits(Box::new(made)));
    }

    /// Puts the lane back, whatever that takes.
    async fn put_back(&mut self) -> Result<(), Unfit> {
        match self.turn().await {
            Ok(_) => Ok(()),
            Err(reasons) => self.rebuild(reasons).await,
        }
    }

    /// Ends the unit and has a pristine stand serve; answers with what the unit had dirtied, or with why that failed.
    async fn turn(&mut self) -> Result<Option<oneshot::Receiver<Changes>>, Vec<String>> {
        let used_box = self.used_box.take();
        let doomed = used_box.as_ref().map_or_else(Doomed::nobody, UnitBox::doomed);
        // What tests made beside the stack may still write to it.
        let cleared = match &used_box {
            Some(used) => used.close_outfit().await,
            None => Ok(()),
        };
        self.keep_what_failed();
        self.keeping = None;
        let turned = match (cleared, self.stands.ground()) {
            (Err(reason), _) => Err(vec![reason]),
            (Ok(()), Some(_)) => self.stands.turn(&doomed).await,
            // A lane without services shares nothing with its next unit but the machine.
            (Ok(()), None) => self.end(&doomed).await.map(|()| None),
        };
        if let Some(used_box) = used_box {
            self.put_aside(used_box);
        }
        turned
    }

    async fn end(&self, doomed: &Doomed) -> Result<(), Vec<String>> {
        let killed = doomed.kill(self.workshop.options.engine.as_ref()).await;
        killed.map_err(|error| vec![crate::hands::chain(&error)])
    }

    /// Keeps a used box for a later unit, where it can serve again.
    fn put_aside(&mut self, used: UnitBox) {
        let needless = if used.can_serve_again() { self.spare_box.replace(used) } else { Some(used) };
        if let Some(needless) = needless {
            self.workshop.dispose(needless);
        }
    }

    async fn rebuild(&mut self, mut reasons: Vec<String>) -> Result<(), Unfit> {
        // Whatever it was that failed: nothing here is taken for exact by its stat alone.
        let ground = self.stands.ground().map(|ground| Ground { doubted: true, ..ground.clone() });
        while self.rebuilds_failed < REBUILDS_MAX {
            let raised = match (self.lower().await, &ground) {
                (Ok(()), Some(ground)) => match self.raise(ground.clone()).await {
                    Err(error) if self.is_given_up(&error, ground).await.is_some() => return Ok(()),
                    raised => raised.map_err(|error| error.to_string()),
                },
                (Ok(()), None) => {
                    self.distrusted = false;
                    Ok(())
                }
                (Err(failure), _) => Err(failure.reason),
            };
            match raised {
                Ok(()) => return Ok(()),
                Err(reason) => {
                    tracing::warn!(reason, "rebuilding a lane failed");
                    self.rebuilds_failed += 1;
                    reasons.push(reason);
                }
            }
        }
        let last = reasons.pop().unwrap_or_default();
        Err(self.unfit(&last))
    }

    fn unfit(&self, last: &str) -> Unfit {
        let reason =
            format!("a lane could not be put back: {REBUILDS_MAX} rebuilds failed, the last with: {last}");
        Unfit { reason }
    }

    /// Takes the stack down.
    async fn lower(&mut self) -> Result<(), WorkFailure> {
        self.keeping = None;
        if let Some(fresh) = self.waiting_box().await {
            fresh.remove().await?;
        }
        self.leave_box().await?;
        if let Some(spare) = self.spare_box.take() {
            spare.remove().await?;
        }
        if let Some(apart) = self.apart.take() {
            let swept = sweep(self.workshop.options.engine.as_ref(), Some(apart.lane())).await;
            swept.map_err(|error| StandFault::from(error).into_failure())?;
        }
        self.stands.lower().await.map_err(StandFault::into_failure)
    }

    /// What boxes of this plan join; nothing where each is to have a network of its own.
    fn berths(&mut self, plan: &BoxPlan) -> Option<Arc<Berths>> {
        if self.stands.ground().is_some() {
            return self.stands.berths().cloned();
        }
        let made = || Berths::apart(plan.engine.clone(), &plan.lane);
        plan.is_plain().then(|| Arc::clone(self.apart.get_or_insert_with(made)))
    }

    /// Leaves nothing in the engine.
    pub(crate) async fn close(&mut self) {
        if let Err(error) = self.lower().await {
            tracing::warn!(%error, "taking a lane down");
        }
    }
}

/// A box that is ready before its unit comes, made of the spare one where that will do. The unit that needs one makes it, and
/// says so where it cannot.
async fn make_box(
    workshop: Arc<Workshop>,
    plan: Option<BoxPlan>,
    spare: Option<UnitBox>,
    berths: Option<Arc<Berths>>,
) -> Option<UnitBox> {
    let (spare, other) = match (spare, &plan) {
        (Some(spare), Some(plan)) if spare.plan().is_same(plan) => (Some(spare), None),
        (other, _) => (None, other),
    };
    if let Some(other) = other {
        workshop.dispose(other);
    }
    let plan = plan?;
    if let Some(spare) = spare {
        match Box::pin(spare.refit()).await {
            Ok(again) => return Some(again),
            Err(error) => tracing::warn!(%error, "a container cannot serve a second unit: one is made"),
        }
    }
    let made = Box::pin(UnitBox::make(plan, workshop.next_serial(), true, berth(berths).await)).await;
    made.inspect_err(|error| tracing::warn!(%error, "preparing a container for the next unit")).ok()
}

async fn berth(berths: Option<Arc<Berths>>) -> Option<Berth> {
    berths?.take().await
}

#[cfg(test)]
mod tests;
