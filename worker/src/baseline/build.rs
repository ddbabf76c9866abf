//! Building a baseline: on the best state that there is, in legs, each of which ends with a state that is kept.
//!
//! ```text
//!   there already? ──────────────────────────────────────────────────────────────> taken as it is
//!   a parent, or nothing ──> leg ──> state kept ──> leg ──> … ──> state of all steps ──> (the lane's side: clone, start once,
//!                             │                      │             healthy) ──> published, with the states kept on the way
//!                             └──────────────────────┴── any fault: swept, nothing published, the reason and its output told
//! ```
//!
//! Knows the pool, and Docker's engine trait; must not know lanes or the session. Invariants: nothing of a failed build is left
//! but states of whole steps on which the stack came up healthy again: in this worker's pool, not published; the next build
//! goes on there. No container is left by any build.

use std::time::{Duration, Instant};

use andon_proto::{BaselineManifest, BaselineService, BaselineStep, BaselineStepDone, RunSpec};
use andon_snapshot::Baseline;

use super::carry::unpublished;
use super::key::Chain;
use super::labels::{BuildFacts, labels_of};
use super::leg::{BUILD_LANE, Ground, Leg, SeedKit};
use super::parent::{Choice, choose};
use super::shelf::{Shelf, Shelved, farm_fault};
use super::source::Source;
use crate::clock;
use crate::engine::SharedEngine;
use crate::hands::{Notices, WorkFailure, blocking, notice};
use crate::stack::{StackPlan, sweep};

/// What seeds may take in all where the specification does not say.
const SEED_LIMIT_DEFAULT: Duration = Duration::from_secs(1800);

/// What a build works with.
pub(crate) struct Build<'a> {
    pub(crate) engine: SharedEngine,
    pub(crate) shelf: &'a Shelf,
    pub(crate) chain: &'a Chain,
    pub(crate) steps: &'a [BaselineStep],
    pub(crate) spec: &'a RunSpec,
    pub(crate) plan: &'a StackPlan,
    pub(crate) services: &'a [BaselineService],
    pub(crate) source: &'a Source,
    pub(crate) notices: &'a Notices,
    /// Who builds, for which run.
    pub(crate) worker: &'a str,
    pub(crate) run: u64,
}

/// How there came to be a baseline.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Somebody had it: a state that was kept on the way to another baseline.
    Found(Box<Shelved>),
    /// Captured, and not yet published.
    Built(Box<Built>),
}

/// A baseline in the pool that nobody else knows of.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) baseline: Baseline,
    /// Without the places of its trees.
    pub(crate) manifest: BaselineManifest,
    /// What it was built on, if it was there before.
    pub(super) parent: Option<Shelved>,
    /// States that were kept on the way, in order.
    pub(super) kept: Vec<Shelved>,
}

/// A build on its way.
struct Way {
    began: Instant,
    /// Of what seeds may take.
    left: Duration,
    /// What the state so far is made of.
    done: Vec<BaselineStepDone>,
    parent_key: String,
    kept: Vec<Shelved>,
}

impl Build<'_> {
    /// The baseline: found, or built from the best state that there is.
    pub(crate) async fn run(&self, kit: &dyn SeedKit) -> Result<Outcome, WorkFailure> {
        let began = Instant::now();
        let parent = match self.parent().await {
            Some((shelved, choice)) if choice.done == self.steps.len() && choice.grows_by.is_none() => {
                return Ok(Outcome::Found(Box::new(shelved)));
            }
            parent => parent,
        };
        self.sweep().await?;
        let built = self.build(kit, parent, began).await;
        // Also after a success: nothing of the build is needed any more.
        let swept = self.sweep().await;
        let built = built?;
        swept?;
        Ok(Outcome::Built(Box::new(built)))
    }

    pub(super) async fn sweep(&self) -> Result<(), WorkFailure> {
        let swept = sweep(self.engine.as_ref(), Some(BUILD_LANE)).await;
        swept.map_err(|error| WorkFailure::infrastructure(error.to_string()))
    }

    /// What to build on, in the pool.
    async fn parent(&self) -> Option<(Shelved, Choice)> {
        let candidates = self.shelf.candidates(self.chain.root(), &self.spec.project).await;
        let choice = choose(self.chain, self.steps, &candidates)?;
        let key = choice.candidate.manifest.key.clone();
        if choice.candidate.here {
            self.shelf.touch(&key);
            return Some((self.shelf.local(&key)?, choice));
        }
        match self.shelf.fetch(&key, choice.candidate.manifest.clone(), self.notices).await {
            Ok(shelved) => Some((shelved, choice)),
            Err(error) => {
                // It would have been quicker, no more.
                notice(self.notices, format!("building from nothing: cannot have baseline {key}: {error}"));
                None
            }
        }
    }

    fn say_where_it_begins(&self, parent: Option<&(Shelved, Choice)>) {
        let short = |key: &str| key.get(..12).unwrap_or(key).to_owned();
        let (key, count) = (short(self.chain.key()), self.steps.len());
        let line = match parent {
            None => format!("building baseline {key} from nothing"),
            Some((parent, Choice { done, grows_by, .. })) => {
                let grows = match grows_by {
                    Some(by) => format!(", step {} grows by {by} file(s)", done + 1),
                    None => String::new(),
                };
                let parent = short(&parent.manifest.key);
                format!(
                    "building baseline {key} on {parent}: {done} of {count} step(s) are done there{grows}"
                )
            }
        };
        notice(self.notices, line);
    }

    async fn build(
        &self,
        kit: &dyn SeedKit,
        parent: Option<(Shelved, Choice)>,
        began: Instant,
    ) -> Result<Built, WorkFailure> {
        self.say_where_it_begins(parent.as_ref());
        let mut way = Way {
            began,
            left: self.seed_limit(),
            done: Vec::new(),
            parent_key: String::new(),
            kept: Vec::new(),
        };
        let Some((parent, choice)) = parent else {
            let initial_key = format!("initial/{}", self.chain.key());
            let ground = Ground::Images(self.fill(&initial_key).await?);
            let built = self.legs(kit, ground, way).await;
            let pool = self.shelf.pool.clone();
            if let Err(error) = blocking(move || pool.remove(&initial_key)).await? {
                tracing::warn!(%error, "removing the volumes that a build started from");
            }
            return built;
        };
        way.done = parent.manifest.steps[..choice.done].to_vec();
        way.parent_key = parent.manifest.key.clone();
        let built = self.legs(kit, Ground::State(parent.baseline.clone()), way).await;
        let mut built = built.map_err(|mut failure| {
            if choice.grows_by.is_some() {
                let key = &parent.manifest.key;
                failure.reason =
                    format!("{}\n(built on baseline {key}, from which a step `grows`)", failure.reason);
            }
            failure
        })?;
        built.parent = Some(parent);
        Ok(built)
    }

    async fn legs(&self, kit: &dyn SeedKit, from: Ground, mut way: Way) -> Result<Built, WorkFailure> {
        let mut ground = from;
        let mut unproven: Option<Shelved> = None;
        loop {
            let first = way.done.len();
            let proven = || unproven.as_ref().map_or(Ok(()), |state| self.shelf.keep(&state.manifest));
            let leg = self.leg(kit, &ground, first, &mut way.left, proven).await;
            let leg = match leg {
                Ok(leg) => leg,
                Err(failure) => {
                    self.forget_unproven(unproven).await;
                    return Err(failure);
                }
            };
            way.kept.extend(unproven.take());
            let state = self.state_of(&mut way, leg);
            if way.done.len() == self.steps.len() {
                return Ok(self.whole(state, way));
            }
            ground = Ground::State(state.baseline.clone());
            unproven = Some(state);
        }
    }

    /// A state on which the stack did not come up is none.
    async fn forget_unproven(&self, state: Option<Shelved>) {
        let Some(state) = state else { return };
        let key = state.baseline.key().to_owned();
        if self.shelf.local(&key).is_none()
            && let Err(error) = self.shelf.clear(&key).await
        {
            tracing::warn!(%error, key, "removing a state that nothing was built on");
        }
    }

    fn state_of(&self, way: &mut Way, leg: Leg) -> Shelved {
        let first = way.done.len();
        for (place, took) in (first..leg.done).zip(&leg.took) {
            let step = &self.steps[place];
            way.done.push(BaselineStepDone {
                key: self.chain.after(place + 1).to_owned(),
                name: step.name.clone(),
                run: step.run.clone(),
                grows: step.grows,
                files: step.files.clone(),
                took_ms: millis(*took),
            });
        }
        let key = leg.baseline.key().to_owned();
        let parent_key = std::mem::replace(&mut way.parent_key, key.clone());
        let (build_ms, built_unix_ms) = (millis(way.began.elapsed()), clock::unix_ms());
        let facts = BuildFacts {
            key: &key,
            parent_key: &parent_key,
            steps: &way.done,
            worker: self.worker,
            run: self.run,
            built_unix_ms,
            build_ms,
        };
        let labels = labels_of(self.spec, self.plan, self.services, &facts);
        let manifest = BaselineManifest {
            services: self.services.to_vec(),
            trees: leg.baseline.trees().iter().map(unpublished).collect(),
            labels,
            built_unix_ms,
            build_ms,
            project: self.spec.project.clone(),
            root_key: self.chain.root().to_owned(),
            steps: way.done.clone(),
            parent_key,
            artifact: String::new(),
            prefixes: Vec::new(),
            proofs: Vec::new(),
            key,
        };
        Shelved { baseline: leg.baseline, manifest }
    }

    fn whole(&self, state: Shelved, way: Way) -> Built {
        let Shelved { baseline, manifest } = state;
        Built { baseline, manifest, parent: None, kept: way.kept }
    }

    pub(super) fn seed_limit(&self) -> Duration {
        match self.spec.baseline.as_ref().map_or(0, |baseline| baseline.seed_timeout_ms) {
            0 => SEED_LIMIT_DEFAULT,
            ms => Duration::from_millis(ms),
        }
    }

    /// Captures folders as a baseline of the pool, without a manifest yet.
    pub(super) async fn capture(
        &self,
        key: &str,
        folders: Vec<(String, std::path::PathBuf)>,
    ) -> Result<Baseline, WorkFailure> {
        let (pool, key) = (self.shelf.pool.clone(), key.to_owned());
        let captured = blocking(move || {
            // What an interrupted build left under this key.
            pool.remove(&key)?;
            let mut staging = pool.stage(&key)?;
            for (tree, folder) in folders {
                staging.capture(&tree, &folder)?;
            }
            staging.publish(serde_json::Value::Null)
        });
        captured.await?.map_err(|error| match &error {
            andon_snapshot::PoolError::Unsupported { .. } => {
                WorkFailure::baseline(crate::hands::chain(&error))
            }
            _ => farm_fault(&error),
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
