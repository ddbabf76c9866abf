//! One lane: a stack on a clone of a baseline, and one unit at a time on it.
//!
//! ```text
//!          place (stand on the ground, have a box)        run                 settle
//!   empty ────────────────────────────────────────> pristine ──> used ──────────────────────> pristine
//!                                                                  │ 2 rebases fail: rebuilt; 3 rebuilds fail: unfit
//! ```
//!
//! Must not know leases or the session. Invariants: a unit starts only on a stand that was verified and not used since; what
//! a cancelled or dropped call leaves is put back by the next `settle` or the next unit.

mod artifacts;
mod berth;
mod outfit;
mod resolve;
mod stand;
mod unit_box;
mod witness;
mod workshop;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use andon_proto::{Discovered, TestCase};
use andon_snapshot::Footprint;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::hands::{Driver, Settled, Unfit, WorkFailure, compress_log};
use crate::runner::UnitNews;
use crate::runner::{self, Reporter, UnitFacts};
use crate::stack::StackFault;
use berth::{Berth, Berths};
use stand::{Ground, Rebased, Stand, StandFault};
use unit_box::{BoxPlan, UnitBox};
use witness::LaneWitness;

pub(crate) use workshop::{Place, Workshop};

/// Rebases that may fail before the lane is rebuilt.
const REBASES_MAX: usize = 2;
/// Rebuilds that may fail before the lane is given up.
const REBUILDS_MAX: u32 = 3;

impl StandFault {
    /// With the class that it has while a baseline is built.
    fn into_failure(self) -> WorkFailure {
        match self {
            Self::Stack(fault) => StackFault::into_failure(fault),
            Self::Rig(fault) => crate::baseline::rig_failure(fault),
            Self::Worker(failure) => failure,
            other => WorkFailure::infrastructure(crate::hands::chain(&other)),
        }
    }
}

/// A lane.
#[derive(Debug)]
pub(crate) struct Lane {
    workshop: Arc<Workshop>,
    stand: Option<Stand>,
    /// Something ran on the stand since it was put back.
    used: bool,
    /// How long the last rebase or rise took.
    rebase: Duration,
    /// Ready for the next unit.
    fresh_box: Option<UnitBox>,
    used_box: Option<UnitBox>,
    rebuilds_failed: u32,
}

/// A unit's work, as it came.
#[derive(Debug)]
pub(crate) struct UnitWork {
    pub(crate) run: u64,
    pub(crate) place: Place,
    pub(crate) arrived: Instant,
    pub(crate) tests: Vec<TestCase>,
}

impl Lane {
    pub(crate) fn new(workshop: Arc<Workshop>) -> Self {
        Self {
            workshop,
            stand: None,
            used: false,
            rebase: Duration::ZERO,
            fresh_box: None,
            used_box: None,
            rebuilds_failed: 0,
        }
    }

    /// Lists a suite's tests.
    pub(crate) async fn discover(&mut self, run: u64, place: Place) -> Result<Discovered, WorkFailure> {
        let suite = place.box_plan.suite.clone();
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
        let UnitWork { run, place, arrived, tests } = work;
        let suite = place.box_plan.suite.clone();
        let rebased_within = self.stand_on(place.ground).await?;
        let attempt = tests.first().map_or(0, |test| test.attempt);
        let env = BTreeMap::from([
            ("ANDON_RUN_ID".to_owned(), run.to_string()),
            ("ANDON_ATTEMPT".to_owned(), attempt.to_string()),
        ]);
        let (cell, warm) = self.enter_box(place.box_plan, env).await?;
        let driver = match &self.stand {
            Some(_) => self.workshop.driver().map_or("", Driver::as_str),
            None => "",
        };
        let facts = UnitFacts {
            arrived,
            rebased_within,
            rebase_us: u64::try_from(self.rebase.as_micros()).unwrap_or(u64::MAX),
            driver: driver.to_owned(),
        };
        let mut reporter = Reporter::new(news.clone(), facts);
        let witness = self.witness();
        runner::run(&cell, &suite, warm, tests, &mut reporter, &witness, cancel).await?;
        if !cancel.is_cancelled() {
            self.send_artifacts(&cell, &news).await;
        }
        Ok(())
    }

    /// Keeps what the unit's tests left for people. Where that fails the tests' verdicts are none the worse.
    async fn send_artifacts(&self, cell: &runner::Cell, news: &mpsc::Sender<UnitNews>) {
        match artifacts::keep(&self.workshop, cell.out_dir.join(runner::ARTIFACTS_FOLDER)).await {
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
        let fits = match (&self.stand, &ground) {
            (Some(stand), Some(ground)) => stand.ground().is_same(ground),
            (None, None) => true,
            _ => false,
        };
        if fits && !self.used {
            return Ok(Duration::ZERO);
        }
        let began = Instant::now();
        self.leave_box().await?;
        if fits && self.stand.is_some() {
            self.put_back().await.map_err(|unfit| WorkFailure::infrastructure(unfit.reason))?;
            return Ok(began.elapsed());
        }
        self.lower().await?;
        let Some(ground) = ground else {
            self.rebase = Duration::ZERO;
            return Ok(Duration::ZERO);
        };
        if let Err(error) = self.raise(ground).await {
            self.rebuilds_failed += 1;
            return Err(WorkFailure::infrastructure(format!("the lane cannot be put up: {error}")));
        }
        Ok(began.elapsed())
    }

    async fn raise(&mut self, ground: Ground) -> Result<(), StandFault> {
        let (mut stand, took) = Stand::raise(ground).await?;
        self.workshop.choose_driver(&mut stand).await?;
        self.rebase = took;
        self.rebuilds_failed = 0;
        self.used = false;
        stand.prepare_next().await;
        self.stand = Some(stand);
        Ok(())
    }

    /// A box for a unit: the one that waits, where it fits, else a new one. It counts as used from here on.
    async fn enter_box(
        &mut self,
        plan: BoxPlan,
        env: BTreeMap<String, String>,
    ) -> Result<(runner::Cell, Option<runner::Warm>), WorkFailure> {
        let waiting = self.fresh_box.take();
        let mut unit_box = match waiting {
            Some(waiting) if waiting.plan().is_same(&plan) && waiting.is_fresh() => waiting,
            other => {
                if let Some(other) = other {
                    other.remove().await?;
                }
                let berth = berth(self.berths()).await;
                Box::pin(UnitBox::make(plan, self.workshop.next_serial(), false, berth)).await?
            }
        };
        let entered = (unit_box.cell(env), unit_box.take_warm());
        self.used = true;
        self.used_box = Some(unit_box);
        Ok(entered)
    }

    async fn leave_box(&mut self) -> Result<(), WorkFailure> {
        match self.used_box.take() {
            Some(used) => used.remove().await,
            None => Ok(()),
        }
    }

    fn witness(&self) -> LaneWitness {
        let services = self.stand.as_ref().map(|stand| {
            let plans = stand.ground().plan.services.iter().zip(stand.containers());
            plans
                .filter(|(service, _)| !service.completes)
                .map(|(service, container)| (service.name.clone(), container.clone()))
                .collect()
        });
        LaneWitness {
            engine: self.workshop.options.engine.clone(),
            pool: self.workshop.options.pool.clone(),
            services: services.unwrap_or_default(),
        }
    }

    /// What waits here cannot be relied on: its daemon was replaced. Earlier failures were the old daemon's.
    pub(crate) fn distrust(&mut self) {
        if self.used_box.is_none() {
            self.used_box = self.fresh_box.take();
        }
        self.used = self.stand.is_some() || self.used_box.is_some();
        self.rebuilds_failed = 0;
    }

    /// Puts the lane back and prepares a box like the last one.
    pub(crate) async fn settle(&mut self) -> Result<Settled, Unfit> {
        if self.rebuilds_failed >= REBUILDS_MAX {
            return Err(self.unfit("the stack cannot be put up"));
        }
        let mut footprint = None;
        if self.used {
            let next = self.used_box.as_ref().map(|used| used.plan().clone());
            let preparing = Self::prepare_box(Arc::clone(&self.workshop), next.clone(), self.berths());
            let (rebased, prepared) = tokio::join!(self.rebase(), preparing);
            match rebased {
                Ok(measured) => {
                    footprint = measured;
                    self.fresh_box = prepared;
                }
                Err(reasons) => {
                    // It stands on a network that goes with the rest.
                    self.fresh_box = prepared;
                    self.rebuild(reasons).await?;
                    let berths = self.berths();
                    self.fresh_box = Self::prepare_box(Arc::clone(&self.workshop), next, berths).await;
                }
            }
        }
        let baseline_key = self.stand.as_ref().map(|stand| stand.ground().baseline.key().to_owned());
        Ok(Settled { baseline_key: baseline_key.unwrap_or_default(), footprint })
    }

    /// What the boxes of this lane's units join; nothing where all of a lane is made anew each time.
    fn berths(&self) -> Option<Arc<Berths>> {
        let stand = self.stand.as_ref()?;
        (self.workshop.driver() == Some(Driver::Restart)).then(|| Arc::clone(stand.berths()))
    }

    async fn prepare_box(
        workshop: Arc<Workshop>,
        plan: Option<BoxPlan>,
        berths: Option<Arc<Berths>>,
    ) -> Option<UnitBox> {
        let plan = plan?;
        let made = UnitBox::make(plan, workshop.next_serial(), true, berth(berths).await).await;
        // The unit that needs one makes it, and says so where it cannot.
        made.inspect_err(|error| tracing::warn!(%error, "preparing a container for the next unit")).ok()
    }

    /// Puts the lane back, whatever that takes.
    async fn put_back(&mut self) -> Result<(), Unfit> {
        match self.rebase().await {
            Ok(_) => Ok(()),
            Err(reasons) => self.rebuild(reasons).await,
        }
    }

    /// Kills the unit and puts the stack back; answers with what the unit had dirtied, or with why it failed each time.
    async fn rebase(&mut self) -> Result<Option<Footprint>, Vec<String>> {
        let driver = self.workshop.driver().unwrap_or(Driver::Recreate);
        let used_box = self.used_box.take();
        let doomed: Vec<String> = used_box.iter().map(|used| used.cell(BTreeMap::new()).container).collect();
        let mut reasons = Vec::new();
        let mut rebased = None;
        // What tests made beside the stack may still write to it.
        let cleared = match &used_box {
            Some(used) => used.close_outfit().await,
            None => Ok(()),
        };
        if let Err(reason) = &cleared {
            reasons.push(reason.clone());
        }
        if let (Some(stand), Ok(())) = (self.stand.as_mut(), &cleared) {
            while rebased.is_none() && reasons.len() < REBASES_MAX {
                match stand.rebase(driver, &doomed).await {
                    Ok(done) => rebased = Some(done),
                    Err(error) => {
                        tracing::warn!(%error, "a rebase failed");
                        reasons.push(error.to_string());
                    }
                }
            }
        }
        if let Some(used_box) = used_box {
            self.workshop.dispose(used_box);
        }
        let Some(stand) = &self.stand else {
            cleared.map_err(|reason| vec![reason])?;
            // Nothing but the box, and nothing is shared with the next one.
            self.used = false;
            return Ok(None);
        };
        let Some(Rebased { took, footprint }) = rebased else { return Err(reasons) };
        self.rebase = took;
        self.used = false;
        stand.prepare_next().await;
        let measured = footprint.await.map_err(|error| error.to_string());
        let measured = measured.and_then(|measured| measured.map_err(|error| crate::hands::chain(&error)));
        Ok(measured.inspect_err(|error| tracing::warn!(error, "measuring what a unit dirtied")).ok())
    }

    async fn rebuild(&mut self, mut reasons: Vec<String>) -> Result<(), Unfit> {
        let Some(ground) = self.stand.as_ref().map(|stand| stand.ground().clone()) else {
            return reasons.pop().map_or(Ok(()), |reason| Err(self.unfit(&reason)));
        };
        while self.rebuilds_failed < REBUILDS_MAX {
            let lowered = self.lower().await;
            let raised = match lowered {
                Ok(()) => self.raise(ground.clone()).await.map_err(|error| error.to_string()),
                Err(failure) => Err(failure.reason),
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
        if let Some(fresh) = self.fresh_box.take() {
            fresh.remove().await?;
        }
        self.leave_box().await?;
        if let Some(stand) = self.stand.take() {
            stand.lower().await.map_err(StandFault::into_failure)?;
        }
        self.used = false;
        Ok(())
    }

    /// Leaves nothing in the engine.
    pub(crate) async fn close(&mut self) {
        if let Err(error) = self.lower().await {
            tracing::warn!(%error, "taking a lane down");
        }
    }
}

async fn berth(berths: Option<Arc<Berths>>) -> Option<Berth> {
    berths?.take().await
}

#[cfg(test)]
mod tests;
