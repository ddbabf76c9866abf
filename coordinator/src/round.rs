//! A round: what some inputs bring, in the order that keeps the promises. Records are made durable first, together; then
//! the effects are done; then what was heard is acknowledged. Pure: the driver does the IO, the simulation does without.

use std::collections::BTreeMap;

use andon_core::ids::{Now, WorkerId};
use andon_core::model::Record;
use andon_core::{Core, Effect, Input};

/// See the module. `S` names a session.
#[derive(Debug)]
pub struct Round<S> {
    /// To be made durable in one transaction, before anything else.
    pub records: Vec<Record>,
    /// To be done after that, in order; no records are among them. Beside each assignment the session that its worker had
    /// when it was decided: with a later one the worker has come back without it, and it is lost already.
    pub effects: Vec<(Effect, Option<S>)>,
    /// What was heard: from whom, in which session, under which number.
    pub heard: Vec<(WorkerId, S, u64)>,
}

impl<S> Default for Round<S> {
    fn default() -> Self {
        Self { records: Vec::new(), effects: Vec::new(), heard: Vec::new() }
    }
}

impl<S: Copy + Ord> Round<S> {
    /// Steps the core and keeps what follows. `joined` are the sessions that the core has been told of.
    pub fn step(&mut self, core: &mut Core, now: Now, input: Input, joined: &BTreeMap<WorkerId, S>) {
        for effect in core.step(now, input) {
            let session = match &effect {
                Effect::Assign { worker, .. } => joined.get(worker).copied(),
                _ => None,
            };
            match effect {
                Effect::Persist(record) => self.records.push(record),
                effect => self.effects.push((effect, session)),
            }
        }
    }

    /// One acknowledgement a worker: the highest number says it for all before.
    pub fn acknowledgements(&self) -> BTreeMap<WorkerId, (S, u64)> {
        let mut highest: BTreeMap<WorkerId, (S, u64)> = BTreeMap::new();
        for (worker, session, seq) in &self.heard {
            let entry = highest.entry(worker.clone()).or_insert((*session, *seq));
            *entry = (*entry).max((*session, *seq));
        }
        highest
    }
}
