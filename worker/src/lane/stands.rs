//! A lane's stands: the one that serves its unit, and those that are put back behind it or wait, pristine, to serve next.
//!
//! ```text
//!   serving ──used──turn──> behind (put back, verified, healthy) ──> ready ──turn──> serving
//!                             │ 2 rebases fail, or one is not exact: raised anew; that fails 3 times: lost
//! ```
//!
//! With the drivers `recreate`, `restart` and `rewind` there is one stand, and `turn` puts it back where it is. A stack that cannot be
//! rewound, or no more, goes on with `standby`. With that there are
//! several, as many as memory and processors allow (`clones.rs`), and `turn` takes one that is ready. Where a turn finds that
//! nothing came near the serving stand, it stays: that is a turn, too.
//!
//! Knows stands; must not know units, boxes or runs. Invariants: only a pristine stand serves; a stand is in one place at a
//! time; what a dropped call leaves behind is found by the next.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use andon_snapshot::Changes;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::berth::{Berths, Way};
use super::clones::{CLONES_MAX, Needs, clones};
use super::doomed::Doomed;
use super::kept::Keeping;
use super::stand::{Ground, Rebased, Stand, StandFault, User, network_of};
use super::workshop::Workshop;
use crate::hands::{Driver, chain};
use crate::stack::{fronts, hosts_lines, sweep};

/// Rebases that may fail before a stand is raised anew.
const REBASES_MAX: usize = 2;
/// The used stand is put back this long after another one took its place, where nobody waits for it: killing and restarting it
/// would take the processors from the first queries on the other.
const BREATH: Duration = Duration::from_millis(50);
/// Raises that may fail before a stand is given up.
const RAISES_MAX: usize = 3;

/// A lane's stands.
#[derive(Debug)]
pub(super) struct Stands {
    workshop: Arc<Workshop>,
    /// As they are made: of the lane's first one.
    ground: Option<Ground>,
    /// How this lane is put back; known once something stands.
    driver: Driver,
    berths: Option<Arc<Berths>>,
    serving: Option<Stand>,
    /// Something ran on the serving stand since it was put back.
    used: bool,
    ready: VecDeque<Stand>,
    behind: JoinSet<Behind>,
    /// Those that there are, wherever.
    slots: BTreeSet<u32>,
    stand_bytes: u64,
    waited: bool,
    last: Turned,
}

/// How a pristine stand came to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turned {
    /// What was waited for it.
    pub(super) took: Duration,
    /// `clean` where the stand was not touched, else the driver.
    pub(super) driver: &'static str,
}

/// What comes back from behind.
#[derive(Debug)]
enum Behind {
    /// Pristine; with the bytes that its services held before.
    Ready(Box<Stand>, u64),
    Lost {
        slot: u32,
        reasons: Vec<String>,
    },
    /// Taken down on purpose.
    Lowered {
        slot: u32,
    },
}

/// How a stand that nobody touched is named among the drivers.
pub(super) const CLEAN: &str = "clean";

impl Stands {
    pub(super) fn new(workshop: Arc<Workshop>) -> Self {
        Self {
            workshop,
            ground: None,
            driver: Driver::Recreate,
            berths: None,
            serving: None,
            used: false,
            ready: VecDeque::new(),
            behind: JoinSet::new(),
            slots: BTreeSet::new(),
            stand_bytes: 0,
            waited: false,
            last: Turned { took: Duration::ZERO, driver: "" },
        }
    }

    /// What they are clones of; `None` where nothing stands.
    pub(super) fn ground(&self) -> Option<&Ground> {
        self.ground.as_ref()
    }

    /// The one that a unit meets.
    pub(super) fn serving(&self) -> Option<&Stand> {
        self.serving.as_ref()
    }

    /// Whether it may not be what the next unit meets.
    pub(super) fn is_used(&self) -> bool {
        self.ground.is_some() && (self.used || self.serving.is_none())
    }

    /// A unit starts on it.
    pub(super) fn use_up(&mut self, user: &User) {
        self.used = true;
        if let Some(stand) = self.serving.as_mut() {
            stand.used_by(user);
        }
    }

    /// What the unit leaves on it is kept when it is put back.
    pub(super) fn keep(&mut self, keeping: Keeping) {
        if let Some(stand) = self.serving.as_mut() {
            stand.keep(keeping);
        }
    }

    /// How the serving one came to serve.
    pub(super) fn last(&self) -> &Turned {
        &self.last
    }

    /// What the boxes of the lane's units join; nothing where all of a lane is made anew each time.
    pub(super) fn berths(&self) -> Option<&Arc<Berths>> {
        self.berths.as_ref()
    }

    /// Where boxes are to be led; `None` where they find services by the network's own names.
    pub(super) fn way(&self) -> Option<Way> {
        self.berths.as_ref().filter(|berths| berths.lead())?;
        self.serving.as_ref().map(Stand::way)
    }

    /// Whether boxes of the next units are best made while one runs.
    pub(super) fn stand_by(&self) -> bool {
        self.ground.is_none() || matches!(self.driver, Driver::Standby | Driver::Rewind)
    }

    /// Puts the first stand up, where nothing stands.
    pub(super) async fn raise(&mut self, ground: Ground) -> Result<(), StandFault> {
        sweep(ground.engine.as_ref(), Some(&ground.lane)).await?;
        let known = self.workshop.driver();
        let fronted = ground.fronted
            && ground.plan.is_sandboxed()
            && known.is_none_or(|driver| matches!(driver, Driver::Standby | Driver::Rewind));
        let ground = Ground { slot: 0, fronted, ..ground };
        let (mut stand, took) = Stand::raise(ground.clone()).await?;
        let beside = not_rewound(fronted);
        let driver = match self.workshop.choose_driver(&mut stand).await? {
            Driver::Standby => beside,
            Driver::Rewind if !stand.arm_at_first().await? => {
                tracing::warn!(lane = ground.lane, instead = %beside, "this stack cannot be rewound");
                beside
            }
            driver => driver,
        };
        let hosts = fronted.then(|| hosts_lines(&fronts(&ground.plan)));
        let berths = || Berths::new(ground.engine.clone(), &ground.lane, &network_of(&ground.lane), hosts);
        self.berths = (driver != Driver::Recreate).then(berths);
        self.driver = driver;
        self.last = Turned { took, driver: driver.as_str() };
        self.stand_bytes = stand.held_bytes().await;
        stand.prepare_next();
        self.slots = BTreeSet::from([0]);
        self.serve(stand);
        self.ground = Some(Ground { doubted: false, ..ground });
        self.tend();
        Ok(())
    }

    /// Takes all of them down, and the networks of the lane with them.
    pub(super) async fn lower(&mut self) -> Result<(), StandFault> {
        let Some(ground) = self.ground.take() else { return Ok(()) };
        self.behind.shutdown().await;
        let standing: Vec<Stand> = self.serving.take().into_iter().chain(self.ready.drain(..)).collect();
        (self.used, self.waited, self.berths) = (false, false, None);
        self.slots.clear();
        for stand in standing {
            stand.lower().await?;
        }
        Ok(sweep(ground.engine.as_ref(), Some(&ground.lane)).await?)
    }

    /// Has a pristine stand serve in place of the used one, once `doomed` cannot touch it. Answers
    /// with what the unit had dirtied, to come, or with why no stand could be put back.
    pub(super) async fn turn(
        &mut self,
        doomed: &Doomed,
    ) -> Result<Option<oneshot::Receiver<Changes>>, Vec<String>> {
        let began = Instant::now();
        if self.is_clean(doomed).await {
            if let Some(stand) = self.serving.as_mut() {
                stand.keep_untouched();
            }
            self.used = false;
            self.last = Turned { took: began.elapsed(), driver: CLEAN };
            let (nothing, footprint) = oneshot::channel();
            let _ = nothing.send(Changes::default());
            return Ok(Some(footprint));
        }
        match self.driver {
            Driver::Standby => self.change_over(began, doomed).await,
            Driver::Recreate | Driver::Restart | Driver::Rewind => self.put_back(doomed).await,
        }
    }

    /// Puts every stand that waits back once more, under a deep check. Answers with how many; on an error nothing here is to be
    /// relied on.
    pub(super) async fn verify(&mut self) -> Result<u32, StandFault> {
        self.take_back();
        // What is compared is the baseline as it was published, not a moment of a server that runs.
        let driver = match self.driver {
            Driver::Standby | Driver::Rewind => Driver::Restart,
            driver => driver,
        };
        let mut looked = 0;
        for stand in self.serving.iter_mut().chain(&mut self.ready) {
            stand.rebase_deeply(driver, &Doomed::nobody()).await?;
            stand.prepare_next();
            looked += 1;
        }
        Ok(looked)
    }

    /// Whether the serving stand is as it was made, and will stay so: whoever could touch it is dead.
    async fn is_clean(&self, doomed: &Doomed) -> bool {
        let (Some(stand), Some(ground)) = (&self.serving, &self.ground) else { return false };
        if !stand.is_untouched().await {
            return false;
        }
        doomed.is_nobody() || doomed.kill(ground.engine.as_ref()).await.is_ok() && stand.is_untouched().await
    }

    async fn put_back(&mut self, doomed: &Doomed) -> Result<Option<oneshot::Receiver<Changes>>, Vec<String>> {
        let Some(stand) = self.serving.as_mut() else { return Err(vec!["nothing stands".to_owned()]) };
        let Rebased { took, footprint, driver } = rebase(stand, self.driver, doomed).await?;
        self.used = false;
        self.last = Turned { took, driver: driver.as_str() };
        if self.driver == Driver::Rewind && !stand.goes_on_rewinding() {
            self.driver = not_rewound(stand.ground().fronted);
            tracing::warn!(instead = %self.driver, "this lane is not rewound any more");
            self.tend();
        }
        Ok(Some(footprint))
    }

    async fn change_over(
        &mut self,
        began: Instant,
        doomed: &Doomed,
    ) -> Result<Option<oneshot::Receiver<Changes>>, Vec<String>> {
        self.take_back();
        let breath = if self.ready.is_empty() { Duration::ZERO } else { BREATH };
        let footprint = self.serving.take().map(|stand| {
            let (sender, receiver) = oneshot::channel();
            let putting_back = put_back_behind(stand, doomed.clone(), sender);
            self.behind.spawn(async move {
                tokio::time::sleep(breath).await;
                putting_back.await
            });
            receiver
        });
        // One alone is put back while it is waited for.
        let alone = self.slots.len() == 1;
        self.waited = self.ready.is_empty();
        let mut reasons = Vec::new();
        let stand = loop {
            if let Some(stand) = self.ready.pop_front() {
                break stand;
            }
            match self.behind.join_next().await {
                Some(Ok(back)) => reasons.extend(self.welcome(back)),
                Some(Err(error)) => reasons.push(format!("a worker task failed: {error}")),
                None => return Err(reasons),
            }
        };
        self.serve(stand);
        let driver = if alone { Driver::Restart } else { Driver::Standby };
        self.last = Turned { took: began.elapsed(), driver: driver.as_str() };
        self.tend();
        Ok(footprint)
    }

    fn serve(&mut self, stand: Stand) {
        self.serving = Some(stand);
        self.used = false;
    }

    /// Those that are back by now.
    fn take_back(&mut self) {
        while let Some(back) = self.behind.try_join_next() {
            match back {
                Ok(back) => drop(self.welcome(back)),
                Err(error) => tracing::warn!(%error, "a stand was lost with its task"),
            }
        }
    }

    /// Answers with why a stand does not come back.
    fn welcome(&mut self, back: Behind) -> Vec<String> {
        match back {
            Behind::Ready(stand, held_bytes) => {
                self.stand_bytes = self.stand_bytes.max(held_bytes);
                self.ready.push_back(*stand);
                Vec::new()
            }
            Behind::Lost { slot, reasons } => {
                tracing::warn!(slot, ?reasons, "a stand cannot be put up");
                self.slots.remove(&slot);
                reasons
            }
            Behind::Lowered { slot } => {
                self.slots.remove(&slot);
                Vec::new()
            }
        }
    }

    /// Has as many as the machine can carry now.
    fn tend(&mut self) {
        let Some(ground) = self.ground.as_ref().filter(|_| self.driver == Driver::Standby) else { return };
        let have = self.slots.len();
        let needs = Needs { stand_bytes: self.stand_bytes, have, waited: self.waited };
        let want = clones(&(self.workshop.options.pressure)(), needs);
        if want > have {
            let free = (0..).take(CLONES_MAX).find(|slot| !self.slots.contains(slot));
            if let Some(slot) = free {
                self.slots.insert(slot);
                self.behind.spawn(raise_behind(Ground { slot, ..ground.clone() }));
            }
        } else if want < have
            && let Some(stand) = self.ready.pop_back()
        {
            tracing::info!(lane = ground.lane, have, want, "one stand fewer stands by");
            self.behind.spawn(lower_behind(stand));
        }
    }
}

/// How a stack is put back that is not, or no more, rewound.
fn not_rewound(fronted: bool) -> Driver {
    if fronted { Driver::Standby } else { Driver::Restart }
}

/// Tries it as often as a stand may fail; answers with why it failed each time. One that is not exact is not tried again: what
/// finds that out is sampled, and would be satisfied the next time.
async fn rebase(stand: &mut Stand, driver: Driver, doomed: &Doomed) -> Result<Rebased, Vec<String>> {
    let mut reasons = Vec::new();
    while reasons.len() < REBASES_MAX {
        match stand.rebase(driver, doomed).await {
            Ok(rebased) => {
                stand.prepare_next();
                return Ok(rebased);
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "a rebase failed");
                reasons.push(chain(&error));
                if error.is_inexact() {
                    break;
                }
            }
        }
    }
    Err(reasons)
}

async fn put_back_behind(mut stand: Stand, doomed: Doomed, dirt: oneshot::Sender<Changes>) -> Behind {
    let held = stand.held_bytes_at_times().await;
    let mut reasons = match rebase(&mut stand, Driver::Restart, &doomed).await {
        Ok(Rebased { footprint, .. }) => {
            tokio::spawn(async move {
                if let Ok(footprint) = footprint.await {
                    // Nobody waits for it any more: its lease is over.
                    let _ = dirt.send(footprint);
                }
            });
            return Behind::Ready(Box::new(stand), held);
        }
        Err(reasons) => reasons,
    };
    let ground = Ground { doubted: true, ..stand.ground().clone() };
    if let Err(error) = stand.lower().await {
        reasons.push(chain(&error));
    }
    raise_again(ground, reasons).await
}

async fn raise_behind(ground: Ground) -> Behind {
    raise_again(ground, Vec::new()).await
}

async fn raise_again(ground: Ground, mut reasons: Vec<String>) -> Behind {
    for _ in 0..RAISES_MAX {
        match Stand::raise(ground.clone()).await {
            Ok((stand, _)) => {
                let held = stand.held_bytes().await;
                stand.prepare_next();
                return Behind::Ready(Box::new(stand), held);
            }
            Err(error) => reasons.push(chain(&error)),
        }
    }
    Behind::Lost { slot: ground.slot, reasons }
}

async fn lower_behind(stand: Stand) -> Behind {
    let slot = stand.ground().slot;
    if let Err(error) = stand.lower().await {
        tracing::warn!(error = %chain(&error), slot, "taking a stand down");
    }
    Behind::Lowered { slot }
}
