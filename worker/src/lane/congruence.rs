//! Looks at what this worker holds of baselines, when it is asked to: the pool's own trees to the last byte, and the stands that
//! wait on idle lanes.
//!
//! A stand that is up has written to its trees, as servers do; so it is put back once more under a deep check, which leaves it as
//! it was found. Must not know sessions. Invariants: a lane with a unit, or that is being put back, is not touched; what is found
//! damaged is given up or made anew before anybody uses it; answers are bounded.

use std::time::{Duration, Instant};

use andon_proto::{Congruence, InexactPart, TreeDigest, Verified, VerifiedBaseline, VerifiedLane};
use andon_snapshot::{Baseline, PoolError};

use super::stand::part_of;
use super::workshop::Workshop;
use super::{Lane, StandFault};
use crate::baseline::Shelved;
use crate::hands::{blocking, chain};

/// Baselines that one answer speaks of; the others are not looked at.
const BASELINES_MAX: usize = 64;

impl Workshop {
    /// Compares this worker's baselines (the one of that key, or all) with what they were published as.
    pub(crate) async fn verify_baselines(&self, key: &str, until: Instant) -> Vec<VerifiedBaseline> {
        let mut all = self.shelf.all();
        all.retain(|shelved| key.is_empty() || shelved.baseline.key() == key);
        all.truncate(BASELINES_MAX);
        let mut verified = Vec::with_capacity(all.len());
        for shelved in all {
            verified.push(self.verify_baseline(&shelved, until).await);
        }
        verified
    }

    async fn verify_baseline(&self, shelved: &Shelved, until: Instant) -> VerifiedBaseline {
        let mut told = VerifiedBaseline {
            key: shelved.baseline.key().to_owned(),
            bytes: shelved.baseline.trees().iter().map(|tree| tree.bytes).sum(),
            ..VerifiedBaseline::default()
        };
        let began = Instant::now();
        let left = until.saturating_duration_since(began);
        let reading = shelved.baseline.clone();
        let read = tokio::time::timeout(left, blocking(move || look(&reading))).await;
        told.took_ms = millis(began.elapsed());
        match read {
            Ok(Ok(Ok(Looked { trees, parts }))) => {
                told.set_congruence(if parts.is_empty() { Congruence::Same } else { Congruence::Differs });
                (told.trees, told.parts) = (trees, parts);
            }
            Ok(Ok(Err(error))) => (told.note, told.congruence) = (chain(&error), Congruence::Unknown.into()),
            Ok(Err(failure)) => (told.note, told.congruence) = (failure.reason, Congruence::Unknown.into()),
            Err(_) => {
                (told.note, told.congruence) = ("no time was left".to_owned(), Congruence::Unknown.into());
            }
        }
        if told.congruence() == Congruence::Differs {
            self.give_up(&told.key, "it is not what was published").await;
            told.note = "given up on this worker: whoever needs it next fetches it anew".to_owned();
        }
        told
    }
}

struct Looked {
    trees: Vec<TreeDigest>,
    parts: Vec<InexactPart>,
}

/// Reads all of a baseline.
fn look(baseline: &Baseline) -> Result<Looked, PoolError> {
    let mut looked = Looked { trees: Vec::new(), parts: Vec::new() };
    for (tree, digest) in baseline.trees().iter().zip(baseline.digests()?) {
        if digest != tree.tree_digest {
            let unnamed = || InexactPart {
                r#where: tree.name.clone(),
                what: String::new(),
                difference: format!(
                    "has digest {digest}, published was {}; sizes and times tell of no file",
                    tree.tree_digest
                ),
            };
            let named = baseline.compare(&tree.name).err();
            looked.parts.push(named.as_ref().map_or_else(unnamed, part_of));
        }
        looked.trees.push(TreeDigest { name: tree.name.clone(), digest });
    }
    Ok(looked)
}

impl Lane {
    /// Looks at what stands here, where it stands on that baseline (any, for an empty key) and waits. `None` where it does not.
    pub(crate) async fn verify(&mut self, number: u32, key: &str) -> Option<VerifiedLane> {
        let ground = self.stands.ground()?.clone();
        if !key.is_empty() && ground.baseline.key() != key {
            return None;
        }
        let mut told = VerifiedLane {
            lane: number,
            baseline_key: ground.baseline.key().to_owned(),
            ..VerifiedLane::default()
        };
        if self.stands.is_used() || self.used_box.is_some() {
            told.set_congruence(Congruence::Busy);
            return Some(told);
        }
        let began = Instant::now();
        match self.let_go_of_damaged().await {
            Ok(false) => {}
            Ok(true) => {
                told.set_congruence(Congruence::Differs);
                told.note = "taken down: it stood on the damaged baseline".to_owned();
                return Some(told);
            }
            Err(failure) => return Some(unknown(told, failure.reason)),
        }
        let looked = self.stands.verify().await;
        told.took_ms = millis(began.elapsed());
        match looked {
            Ok(stands) => {
                told.stands = stands;
                told.set_congruence(Congruence::Same);
                Some(told)
            }
            Err(fault) => Some(self.made_anew(told, &fault).await),
        }
    }

    async fn made_anew(&mut self, mut told: VerifiedLane, fault: &StandFault) -> VerifiedLane {
        match fault.part() {
            Some(part) => {
                told.set_congruence(Congruence::Differs);
                told.parts.push(part);
            }
            None => told = unknown(told, chain(fault)),
        }
        let rebuilt = self.rebuild(vec![chain(fault)]).await;
        let what = match (&rebuilt, self.stands.ground()) {
            (Ok(()), Some(_)) => "rebuilt",
            (Ok(()), None) => "taken down: its baseline is damaged, too",
            // Its next unit finds that out, too, and says so.
            (Err(_), _) => "and cannot be rebuilt",
        };
        told.note = if told.note.is_empty() { what.to_owned() } else { format!("{}; {what}", told.note) };
        told
    }
}

fn unknown(mut told: VerifiedLane, why: String) -> VerifiedLane {
    told.set_congruence(Congruence::Unknown);
    told.note = why;
    told
}

/// A lane that is at work, or is waited for.
pub(crate) fn busy(number: u32) -> VerifiedLane {
    VerifiedLane { lane: number, congruence: Congruence::Busy.into(), ..VerifiedLane::default() }
}

/// A lane for which no time was left.
pub(crate) fn not_looked_at(number: u32) -> VerifiedLane {
    unknown(VerifiedLane { lane: number, ..VerifiedLane::default() }, "no time was left".to_owned())
}

/// Nothing was looked at.
pub(crate) fn refused(why: &str) -> Verified {
    Verified { refused: why.to_owned(), ..Verified::default() }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
