//! The coordinator's process as the cluster sees it: the real core, the real rounds, the real store, and beside them a
//! model of `driver.rs`, `rpc/work.rs` and `sessions.rs` without tasks and sockets.

use std::collections::{BTreeMap, VecDeque};

use andon_coordinator::store::memory::Memory;
use andon_coordinator::store::{Store, StoreError};
use andon_coordinator::testing::{Histories, Round, candidate, stored_run};
use andon_core::ids::{Fence, Lease, Now, RunId, WorkerId};
use andon_core::model::{Plan, Record, Report};
use andon_core::{Config, Core, Effect, Input, Stored};
use futures::executor::block_on;

use crate::ledger::{Broken, Kept};
use crate::projects::Wish;
use crate::watch::Watch;
use crate::wire::{Body, Word};

/// A session, by the link that carries it. They grow, as the real ones do.
pub(crate) type SessionId = u64;

/// What waits for the driver.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "what is large is a run that is asked for, and rare")]
pub(crate) enum Command {
    Submit { wish: usize, asked: Wish },
    Cancel { run: RunId },
    Joined { worker: WorkerId, session: SessionId, held: Vec<Lease>, reached: Option<Fence>, seq: u64 },
    Left { worker: WorkerId, session: SessionId },
    Said { worker: WorkerId, session: SessionId, seq: u64, body: Body },
    Tick,
}

/// What leaves the process once a round is durable, one by one; a crash may come between any two.
#[derive(Debug, Clone)]
pub(crate) enum Leaving {
    Word { worker: WorkerId, session: SessionId, word: Word },
    Submitted { wish: usize, run: RunId },
}

/// A round whose records wait for the store.
#[derive(Debug, Default)]
pub(crate) struct Open {
    pub(crate) round: Round<SessionId>,
    /// Wish and run of what was there before.
    existed: Vec<(usize, RunId)>,
    /// By ticket.
    submitted: Vec<usize>,
}

/// See the module.
pub(crate) struct Coordinator {
    core: Core,
    config: Config,
    /// The session that each worker is heard in and spoken to.
    pub(crate) sessions: BTreeMap<WorkerId, SessionId>,
    /// The session that the core has been told of.
    joined: BTreeMap<WorkerId, SessionId>,
    pub(crate) inbox: VecDeque<Command>,
    pub(crate) open: Option<Open>,
}

impl Coordinator {
    pub(crate) fn new(config: Config, core: Core) -> Self {
        Self {
            core,
            config,
            sessions: BTreeMap::new(),
            joined: BTreeMap::new(),
            inbox: VecDeque::new(),
            open: None,
        }
    }

    /// A process that starts again on a store.
    pub(crate) fn restored(
        config: Config,
        now: Now,
        store: &Memory,
        plans: &BTreeMap<String, Plan>,
    ) -> Result<Self, StoreError> {
        let active = block_on(store.active())?;
        let mut stored =
            Stored { last_run: active.last_run, last_fence: active.last_fence, runs: Vec::new() };
        for run in active.runs {
            let plan = plans[&run.row.header.spec_digest].clone();
            let mut histories = Histories::new();
            for suite in &plan.suites {
                let known = block_on(store.history(&run.row.header.project, &suite.name))?;
                histories.insert(suite.name.clone(), known);
            }
            stored.runs.push(stored_run(run, plan, &histories));
        }
        Ok(Self::new(config.clone(), Core::restore(config, now, stored)))
    }

    /// A stream begins with Hello.
    pub(crate) fn hello(
        &mut self,
        worker: &WorkerId,
        session: SessionId,
        (held, reached): (Vec<Lease>, Option<Fence>),
        seq: u64,
    ) -> Word {
        self.sessions.insert(worker.clone(), session);
        self.inbox.push_back(Command::Joined { worker: worker.clone(), session, held, reached, seq });
        let lease_ttl_ms = self.config.lease_ttl_ms;
        Word::Welcome { lease_ttl_ms, heartbeat_ms: lease_ttl_ms / 5 }
    }

    /// Takes at most so many commands into a round.
    pub(crate) fn begin(&mut self, most: usize, now: Now, store: &Memory, watch: &mut Watch) -> Kept {
        let mut open = Open::default();
        for _ in 0..most {
            let Some(command) = self.inbox.pop_front() else { break };
            self.take(command, now, &mut open, store, watch)?;
        }
        self.open = Some(open);
        Ok(())
    }

    fn take(
        &mut self,
        command: Command,
        now: Now,
        open: &mut Open,
        store: &Memory,
        watch: &mut Watch,
    ) -> Kept {
        let is_current = |sessions: &BTreeMap<_, _>, worker: &WorkerId, session: SessionId| {
            sessions.get(worker) == Some(&session)
        };
        let input = match command {
            Command::Submit { wish, asked } => {
                let Some(input) = self.submit(wish, asked, open, store) else { return Ok(()) };
                input
            }
            Command::Cancel { run } => Input::Cancel { run, reason: "asked".to_owned() },
            Command::Joined { worker, session, held, reached, seq } => {
                if !is_current(&self.sessions, &worker, session) {
                    return Ok(());
                }
                open.round.heard.push((worker.clone(), session, seq));
                self.joined.insert(worker.clone(), session);
                Input::WorkerJoined { worker, held, reached }
            }
            Command::Left { worker, session } => {
                if !is_current(&self.sessions, &worker, session) {
                    return Ok(());
                }
                self.sessions.remove(&worker);
                Input::WorkerLeft { worker }
            }
            Command::Said { worker, session, seq, body } => {
                if !is_current(&self.sessions, &worker, session) {
                    return Ok(());
                }
                open.round.heard.push((worker.clone(), session, seq));
                match self.input(worker, body, store) {
                    Some(input) => input,
                    None => return Ok(()),
                }
            }
            Command::Tick => Input::Tick,
        };
        self.step(now, &input, open, watch)
    }

    fn step(&mut self, now: Now, input: &Input, open: &mut Open, watch: &mut Watch) -> Kept {
        let round = &mut open.round;
        let (records, effects) = (round.records.len(), round.effects.len());
        round.step(&mut self.core, now, input.clone(), &self.joined);
        let (records, effects) = (&round.records[records..], &round.effects[effects..]);
        watch.step(now, input, records, effects).map_err(|broken| {
            let how = format!("{}\n    on {input:?}\n    came {records:?}\n    and {effects:?}", broken.how);
            Broken { how, ..broken }
        })
    }

    fn submit(&mut self, wish: usize, asked: Wish, open: &mut Open, store: &Memory) -> Option<Input> {
        if let Some(key) = &asked.header.dedup_key {
            let known = block_on(store.find_dedup(key)).ok().flatten();
            let in_round = open.round.records.iter().find_map(|record| match record {
                Record::RunCreated { run, header, .. } if header.dedup_key.as_ref() == Some(key) => {
                    Some(*run)
                }
                _ => None,
            });
            if let Some(run) = known.or(in_round) {
                open.existed.push((wish, run));
                return None;
            }
        }
        let ticket = open.submitted.len() as u64;
        open.submitted.push(wish);
        Some(Input::Submit { ticket, header: asked.header, plan: asked.plan, start: asked.start })
    }

    fn input(&self, worker: WorkerId, body: Body, store: &Memory) -> Option<Input> {
        Some(match body {
            Body::Hello { .. } => return None,
            Body::LaneReady { lane, baseline } => Input::LaneReady { worker, lane, baseline },
            Body::Heartbeat { held } => Input::Heartbeat { worker, held },
            Body::Unfit { reason } => Input::WorkerFitness { worker, unfit: reason },
            Body::Report { lease, report: Report::Discovered { tests } } => {
                let history = self
                    .core
                    .discovery(lease)
                    .map(|(project, suite)| block_on(store.history(project, suite)).unwrap_or_default());
                let tests = tests.into_iter().map(|test| candidate(test.id, history.as_ref())).collect();
                Input::Reported { worker, lease, report: Report::Discovered { tests } }
            }
            Body::Report { lease, report } => Input::Reported { worker, lease, report },
        })
    }

    /// The records of the open round become durable.
    pub(crate) fn persist(&mut self, store: &Memory, watch: &mut Watch) -> Kept {
        let Some(open) = self.open.as_ref().filter(|open| !open.round.records.is_empty()) else {
            return Ok(());
        };
        block_on(store.apply(&open.round.records)).map_err(|error| Broken {
            promise: "the store takes what the core decides",
            how: format!("{error:?}"),
        })?;
        watch.stored(&open.round.records)
    }

    /// The round is done: what leaves now, in order.
    pub(crate) fn close(&mut self) -> VecDeque<Leaving> {
        let Some(open) = self.open.take() else { return VecDeque::new() };
        let acknowledgements = open.round.acknowledgements();
        let mut leaving = VecDeque::new();
        for (effect, decided_for) in open.round.effects {
            let (worker, word) = match effect {
                Effect::Accepted { ticket, run } => {
                    let place = usize::try_from(ticket).expect("tickets are places");
                    leaving.push_back(Leaving::Submitted { wish: open.submitted[place], run });
                    continue;
                }
                Effect::Assign { worker, lane, lease, work, .. } => {
                    if self.sessions.get(&worker).copied() != decided_for {
                        continue;
                    }
                    (worker, Word::Assign { lease, lane, work })
                }
                Effect::Revoke { worker, lease, .. } => (worker, Word::Revoke { lease }),
                Effect::Superseded { worker, lease, .. } => (worker, Word::Superseded { lease }),
                _ => continue,
            };
            if let Some(session) = self.sessions.get(&worker) {
                leaving.push_back(Leaving::Word { worker, session: *session, word });
            }
        }
        leaving.extend(open.existed.into_iter().map(|(wish, run)| Leaving::Submitted { wish, run }));
        for (worker, (session, seq)) in acknowledgements {
            if self.sessions.get(&worker) == Some(&session) {
                leaving.push_back(Leaving::Word { worker, session, word: Word::Ack { seq } });
            }
        }
        leaving
    }
}
