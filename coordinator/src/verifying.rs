//! Asking workers whether what they hold of a baseline is what was published, and gathering what they answer.
//!
//! ```text
//!   client ──ask──> one question a worker, over its session ──> answers, as they come ──┐
//!                     away ─────────────────────────────────────────────────────────────┤ judged against the published
//!                     its session ended, or it is silent for too long ──────────────────┘ manifests, told together
//! ```
//!
//! Edge state only: nothing of it is stored, and the core does not know of it, because it decides nothing about work. Invariants: an
//! answer counts only in the session that the question went to; so many questions at a time; each ends by itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use andon_core::ids::WorkerId;
use andon_proto::{
    self as wire, BaselineManifest, Congruence, Verified, VerifiedBaseline, WorkerVerified,
    coordinator_message,
};
use dashmap::DashMap;
use prost::Message as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior};

use crate::driver::Farm;
use crate::sessions::SessionId;

/// Questions of clients that are under way at a time; more are refused.
const QUESTIONS_MAX: usize = 2;
/// How long a worker may look.
const LOOK_LIMIT: Duration = Duration::from_secs(120);
/// How much longer its answer may take.
const ANSWER_GRACE: Duration = Duration::from_secs(30);
/// Between two looks at whether those who were asked are still there.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Why nobody is asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("{QUESTIONS_MAX} verifications are under way already: try again when one is over")]
    Busy,
    #[error("there is no worker {name:?}; there are: {known}")]
    NoWorker { name: String, known: String },
    #[error("no baseline with the key {0:?} is published")]
    NoBaseline(String),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

/// Questions that are under way.
#[derive(Debug)]
pub(crate) struct Verifying {
    last: AtomicU64,
    turns: Semaphore,
    asked: DashMap<u64, Asked>,
}

#[derive(Debug)]
struct Asked {
    /// Who was asked, in which session.
    whom: BTreeMap<WorkerId, SessionId>,
    answers: mpsc::Sender<(WorkerId, Verified)>,
}

impl Default for Verifying {
    fn default() -> Self {
        Self { last: AtomicU64::new(0), turns: Semaphore::new(QUESTIONS_MAX), asked: DashMap::new() }
    }
}

/// Forgets a question when it is over, however it ends.
struct Forgetting<'a>(&'a Verifying, u64);

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        self.0.asked.remove(&self.1);
    }
}

impl Verifying {
    /// Takes what a worker says. Of no question, or from another session than was asked, it is nothing.
    pub(crate) fn answered(&self, worker: &WorkerId, session: SessionId, verified: Verified) {
        let Some(asked) = self.asked.get(&verified.request) else { return };
        if asked.whom.get(worker) == Some(&session) {
            // There is room for one answer of each; who answers twice is heard once.
            let _ = asked.answers.try_send((worker.clone(), verified));
        }
    }
}

/// Has workers look, and answers when all have said what they saw.
pub(crate) async fn ask(farm: &Farm, key: &str, only: &str) -> Result<Vec<WorkerVerified>, AskError> {
    let verifying = &farm.verifying;
    let _turn = verifying.turns.try_acquire().map_err(|_| AskError::Busy)?;
    let published = published(farm, key).await?;
    let mut workers = farm.sessions.list();
    let known = || workers.iter().map(|(name, _)| name.0.clone()).collect::<Vec<_>>().join(", ");
    if !only.is_empty() && !workers.iter().any(|(name, _)| name.0 == only) {
        return Err(AskError::NoWorker { name: only.to_owned(), known: known() });
    }
    workers.retain(|(name, _)| only.is_empty() || name.0 == only);
    let whom: BTreeMap<WorkerId, SessionId> =
        workers.iter().filter_map(|(name, view)| Some((name.clone(), view.session?))).collect();
    let (answers, heard) = mpsc::channel(whom.len().max(1));
    let request = verifying.last.fetch_add(1, Ordering::Relaxed) + 1;
    verifying.asked.insert(request, Asked { whom: whom.clone(), answers });
    let _forgetting = Forgetting(verifying, request);
    let limit_ms = u64::try_from(LOOK_LIMIT.as_millis()).unwrap_or(u64::MAX);
    for worker in whom.keys() {
        let ask = wire::VerifyBaseline { request, baseline_key: key.to_owned(), limit_ms };
        let body = Some(coordinator_message::Body::VerifyBaseline(ask));
        farm.sessions.send(worker, wire::CoordinatorMessage { body });
    }
    let mut said = gather(farm, whom, heard).await;
    let told = workers.into_iter().map(|(name, _)| match said.remove(&name) {
        Some(Ok(mut verified)) => {
            judge(&published, &mut verified);
            WorkerVerified { worker: name.0, silent: String::new(), verified: Some(verified) }
        }
        Some(Err(why)) => WorkerVerified { worker: name.0, silent: why.to_owned(), verified: None },
        None => WorkerVerified { worker: name.0, silent: AWAY.to_owned(), verified: None },
    });
    Ok(told.collect())
}

/// How a worker is told that has no session.
const AWAY: &str = "away";

type Said = BTreeMap<WorkerId, Result<Verified, &'static str>>;

async fn gather(
    farm: &Farm,
    mut open: BTreeMap<WorkerId, SessionId>,
    mut heard: mpsc::Receiver<(WorkerId, Verified)>,
) -> Said {
    let mut said = Said::new();
    let until = Instant::now() + LOOK_LIMIT + ANSWER_GRACE;
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !open.is_empty() {
        tokio::select! {
            biased;
            Some((worker, verified)) = heard.recv() => {
                open.remove(&worker);
                said.entry(worker).or_insert(Ok(verified));
            }
            _ = looks.tick() => {
                let late = Instant::now() >= until || farm.stop.is_cancelled();
                open.retain(|worker, session| {
                    let why = match (farm.sessions.is_open(worker, *session), late) {
                        (true, false) => return true,
                        (true, true) => "no answer in time",
                        (false, _) => "its session ended before it answered",
                    };
                    said.insert(worker.clone(), Err(why));
                    false
                });
            }
        }
    }
    said
}

/// The manifests that answers are held against: of one baseline, or of all.
async fn published(farm: &Farm, key: &str) -> Result<BTreeMap<String, BaselineManifest>, AskError> {
    let stored = if key.is_empty() {
        farm.store.baselines().await?
    } else {
        vec![farm.store.baseline(key).await?.ok_or_else(|| AskError::NoBaseline(key.to_owned()))?]
    };
    let manifests = stored.iter().filter_map(|bytes| BaselineManifest::decode(bytes.as_slice()).ok());
    Ok(manifests.map(|manifest| (manifest.key.clone(), manifest)).collect())
}

/// A worker compares with what it was told when it got the baseline; here its digests are held against what is published.
fn judge(published: &BTreeMap<String, BaselineManifest>, verified: &mut Verified) {
    for baseline in &mut verified.baselines {
        if baseline.congruence() == Congruence::Same
            && let Some(manifest) = published.get(&baseline.key)
        {
            compare(manifest, baseline);
        }
    }
}

fn compare(manifest: &BaselineManifest, baseline: &mut VerifiedBaseline) {
    let mut parts = Vec::new();
    for tree in &manifest.trees {
        let found = baseline.trees.iter().find(|found| found.name == tree.name);
        let difference = match found {
            Some(found) if found.digest == tree.tree_digest => continue,
            Some(found) => format!("has digest {}, published was {}", found.digest, tree.tree_digest),
            None => "is not there".to_owned(),
        };
        parts.push(wire::InexactPart { r#where: tree.name.clone(), what: String::new(), difference });
    }
    if !parts.is_empty() || baseline.trees.len() != manifest.trees.len() {
        baseline.set_congruence(Congruence::Differs);
        baseline.parts.extend(parts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_calls_the_same_is_held_against_what_is_published() {
        let tree = |name: &str, digest: &str| wire::TreeDigest { name: name.into(), digest: digest.into() };
        let trees = [("a", "1"), ("b", "2")].map(|(name, digest)| wire::BaselineTree {
            name: name.into(),
            tree_digest: digest.into(),
            ..wire::BaselineTree::default()
        });
        let manifest =
            BaselineManifest { key: "k".into(), trees: trees.to_vec(), ..BaselineManifest::default() };
        let published = BTreeMap::from([("k".to_owned(), manifest)]);
        let judged = |trees: Vec<wire::TreeDigest>| {
            let mut baseline = VerifiedBaseline { key: "k".into(), trees, ..VerifiedBaseline::default() };
            baseline.set_congruence(Congruence::Same);
            let mut verified = Verified { baselines: vec![baseline], ..Verified::default() };
            judge(&published, &mut verified);
            let baseline = verified.baselines.remove(0);
            (baseline.congruence(), baseline.parts.len())
        };
        assert_eq!(judged(vec![tree("a", "1"), tree("b", "2")]), (Congruence::Same, 0));
        assert_eq!(judged(vec![tree("a", "1"), tree("b", "3")]), (Congruence::Differs, 1));
        assert_eq!(judged(vec![tree("a", "1")]), (Congruence::Differs, 1));
        assert_eq!(judged(vec![tree("a", "1"), tree("b", "2"), tree("c", "3")]).0, Congruence::Differs);
    }
}
