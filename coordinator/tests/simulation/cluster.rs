//! The whole cluster and its virtual time: one queue of events, one thing at a time, nothing that is not in the seed.

use std::collections::BTreeMap;

use andon_coordinator::store::memory::Memory;
use andon_core::ids::{LaneIx, Lease, Now, RunId, WorkerId};
use andon_core::{Config, Core};

use crate::coordinator::{Command, Coordinator, SessionId};
use crate::dice::Dice;
use crate::ledger::{Broken, Kept, broken};
use crate::network::Link;
use crate::projects::{Projects, Wish};
use crate::trace::Trace;
use crate::watch::Watch;
use crate::weather::Weather;
use crate::wire::{Said, Word};
use crate::worker::Worker;

/// UTC at the beginning.
const EPOCH_UNIX_MS: u64 = 1_700_000_000_000;
pub(crate) const TICK_MS: u64 = 500;
/// In good weather every run ends within this.
const LIVENESS_MS: u64 = 3_600_000;
/// And this later nobody owes anything.
const REST_MS: u64 = 90_000;

/// Something that happens at a time.
#[derive(Debug)]
pub(crate) enum Event {
    Up {
        session: SessionId,
        said: Said,
    },
    Down {
        session: SessionId,
        word: Word,
    },
    /// The coordinator sees the end of a stream.
    StreamEnds {
        session: SessionId,
    },
    /// The worker sees it.
    Disconnected {
        worker: usize,
        session: SessionId,
    },
    Dial {
        worker: usize,
        life: u64,
    },
    Wake {
        worker: usize,
        life: u64,
    },
    /// A lane's task goes on.
    Task {
        worker: usize,
        life: u64,
        lane: LaneIx,
        turn: u64,
    },
    Revive {
        worker: usize,
        life: u64,
    },
    Mended {
        worker: usize,
        life: u64,
    },
    Lie,
    /// The driver looks into its inbox.
    Round {
        life: u64,
    },
    /// The store has answered.
    Stored {
        life: u64,
    },
    Tick {
        life: u64,
    },
    Restart,
    Ask {
        wish: usize,
    },
    Blow,
}

/// A machine with a worker on it.
pub(crate) struct Machine {
    pub(crate) agent: Worker,
    /// Grows with each process.
    pub(crate) life: u64,
    pub(crate) alive: bool,
    pub(crate) lies: bool,
    pub(crate) session: Option<SessionId>,
    pub(crate) frozen_until_ms: u64,
    /// How far its clock is behind: some clocks stand still while a machine sleeps.
    pub(crate) lag_ms: u64,
    /// What each lane's task is at; an event of an earlier turn is void.
    pub(crate) turns: Vec<u64>,
    pub(crate) wake_ms: Option<u64>,
}

/// A wish, and whether it was granted.
pub(crate) struct Asked {
    pub(crate) wish: Wish,
    pub(crate) run: Option<RunId>,
}

/// What came of a seed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) events: u64,
    pub(crate) crashes: u64,
    pub(crate) breaks: u64,
    pub(crate) superseded: u64,
    pub(crate) verdicts: u64,
    pub(crate) runs: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
}

/// See the module.
pub(crate) struct Cluster {
    pub(crate) dice: Dice,
    pub(crate) weather: Weather,
    pub(crate) projects: Projects,
    pub(crate) trace: Trace,
    pub(crate) now_ms: u64,
    queue: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    pub(crate) machines: Vec<Machine>,
    pub(crate) links: BTreeMap<SessionId, Link>,
    pub(crate) store: Memory,
    pub(crate) config: Config,
    pub(crate) coordinator: Option<Coordinator>,
    /// Grows with each process of the coordinator.
    pub(crate) process: u64,
    pub(crate) booted_ms: u64,
    pub(crate) mono_base_ms: u64,
    pub(crate) skew_ms: i64,
    pub(crate) asked: Vec<Asked>,
    pub(crate) watch: Watch,
    /// Every lease that was ever handed out: what a liar may guess.
    pub(crate) leases: Vec<Lease>,
    pub(crate) summary: Summary,
}

impl Cluster {
    pub(crate) fn new(seed: u64, trace: Trace) -> Self {
        let mut dice = Dice::new(seed);
        let weather = Weather::new(&mut dice);
        let projects = Projects::new(seed, &mut dice);
        let mut config = Config { quarantine_ms: dice.between(20_000, 120_000), ..Config::default() };
        if dice.chance(200) {
            config.quotas = [("p0".to_owned(), 1), ("p1".to_owned(), 2)].into();
            config.weights = [("p2".to_owned(), 3)].into();
        }
        let mut machines = Vec::new();
        let lanes = weather.workers.iter().copied().chain(weather.liar.then_some(2));
        for (place, lanes) in lanes.enumerate() {
            machines.push(Machine {
                agent: Worker::new(WorkerId(format!("w{place}")), lanes),
                life: 0,
                alive: true,
                lies: place >= weather.workers.len(),
                session: None,
                frozen_until_ms: 0,
                lag_ms: 0,
                turns: vec![0; lanes as usize],
                wake_ms: None,
            });
        }
        let watch = Watch::new(&config);
        let core = Core::new(config.clone());
        let mut cluster = Self {
            dice,
            weather,
            projects,
            trace,
            now_ms: 0,
            queue: BTreeMap::new(),
            scheduled: 0,
            machines,
            links: BTreeMap::new(),
            store: Memory::default(),
            coordinator: Some(Coordinator::new(config.clone(), core)),
            config,
            process: 0,
            booted_ms: 0,
            mono_base_ms: 1_000,
            skew_ms: 0,
            asked: Vec::new(),
            watch,
            leases: Vec::new(),
            summary: Summary::default(),
        };
        cluster.begin();
        cluster
    }

    fn begin(&mut self) {
        for worker in 0..self.machines.len() {
            let after = self.dice.below(3_000);
            self.after(after, Event::Dial { worker, life: 0 });
        }
        for number in 0..self.weather.wishes {
            let wish = self.projects.wish(&mut self.dice, number);
            let at = self.dice.below(self.weather.calm_at_ms);
            if self.dice.chance(300) {
                let twin = self.projects.twin(&mut self.dice, number + 50, &wish);
                let later = self.dice.below(10_000);
                self.wish(twin, at + later);
            }
            self.wish(wish, at);
        }
        self.after(TICK_MS, Event::Tick { life: 0 });
        if !self.weather.blows.is_empty() {
            self.after(self.weather.gap_ms, Event::Blow);
        }
        if self.weather.liar {
            self.after(1_000, Event::Lie);
        }
    }

    /// Somebody will ask for a run.
    pub(crate) fn wish(&mut self, wish: Wish, after_ms: u64) {
        self.watch.plans.insert(wish.header.spec_digest.clone(), wish.plan.clone());
        self.asked.push(Asked { wish, run: None });
        self.after(after_ms, Event::Ask { wish: self.asked.len() - 1 });
    }

    pub(crate) fn after(&mut self, ms: u64, event: Event) {
        self.scheduled += 1;
        self.queue.insert((self.now_ms + ms, self.scheduled), event);
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.now_ms >= self.weather.calm_at_ms
    }

    /// The coordinator's clocks.
    pub(crate) fn clock(&self) -> Now {
        let mono_ms = self.mono_base_ms + self.now_ms - self.booted_ms;
        Now { mono_ms, unix_ms: (EPOCH_UNIX_MS + self.now_ms).saturating_add_signed(self.skew_ms) }
    }

    /// Lets everything happen, until all is over and at rest.
    pub(crate) fn play(&mut self) -> Result<Summary, Broken> {
        let mut rest_at_ms = None;
        while let Some(((at, _), event)) = self.queue.pop_first() {
            let too_late = self.weather.calm_at_ms + LIVENESS_MS;
            if at > rest_at_ms.unwrap_or(too_late) {
                break;
            }
            self.now_ms = at;
            self.summary.events += 1;
            self.happens(event)?;
            // A request may have waited for the store when all seemed to be over.
            rest_at_ms = match rest_at_ms {
                _ if !self.is_calm() || !self.everything_ended() => None,
                None => Some(self.now_ms + REST_MS),
                at => at,
            };
        }
        self.watch.at_the_end()?;
        self.at_rest()?;
        self.store_agrees()?;
        self.summary.superseded = self.watch.superseded;
        self.summary.verdicts = self.watch.durable.verdicts;
        self.summary.runs = self.watch.durable.runs.len() as u64;
        self.summary.lost = self.watch.lost() as u64;
        self.summary.doubled = self.watch.durable.doubled;
        Ok(self.summary)
    }

    fn everything_ended(&self) -> bool {
        let answered = |asked: &Asked| asked.run.is_some() || asked.wish.header.dedup_key.is_none();
        self.coordinator.is_some()
            && self.asked.iter().all(answered)
            && self.watch.durable.runs.values().all(crate::ledger::RunBook::is_over)
    }

    fn at_rest(&self) -> Kept {
        for machine in self.machines.iter().filter(|machine| !machine.lies) {
            if !machine.agent.is_at_rest() {
                let how = format!("{:?}", machine.agent);
                return broken("in the end nobody owes anything", how);
            }
        }
        Ok(())
    }

    /// The store's rows against the books kept from its records.
    fn store_agrees(&self) -> Kept {
        use andon_coordinator::store::Store;
        use futures::executor::block_on;
        for (id, book) in &self.watch.durable.runs {
            let row = block_on(self.store.run(*id)).ok().flatten();
            if row.as_ref().map(|row| row.state) != Some(book.state) {
                return broken("the store keeps what it was given", format!("run {id}: {row:?}"));
            }
            let tests = block_on(self.store.tests(*id)).unwrap_or_default();
            let attempts: usize = tests.iter().map(|test| test.attempts.len()).sum();
            let fits = tests.len() == book.tests.len()
                && attempts == book.attempts.len()
                && tests
                    .iter()
                    .all(|test| book.tests.get(&test.test).is_some_and(|t| t.verdict == test.verdict))
                && tests.iter().flat_map(|test| &test.attempts).all(|attempt| {
                    book.attempts.get(&attempt.attempt).is_some_and(|a| a.outcome == attempt.outcome)
                });
            if !fits {
                return broken("the store keeps what it was given", format!("run {id}"));
            }
        }
        Ok(())
    }

    fn happens(&mut self, event: Event) -> Kept {
        if let Some(until) = self.frozen(&event) {
            let wait = until - self.now_ms;
            self.after(wait, event);
            return Ok(());
        }
        match event {
            Event::Up { session, said } => self.arrives(session, said),
            Event::Down { session, word } => self.delivered(session, word)?,
            Event::StreamEnds { session } => self.stream_ends(session),
            Event::Disconnected { worker, session } => self.disconnected(worker, session)?,
            Event::Dial { worker, life } => self.dial(worker, life)?,
            Event::Wake { worker, life } => {
                if self.machines[worker].life == life && self.machines[worker].alive {
                    self.machines[worker].wake_ms = None;
                    let clock = self.worker_clock(worker);
                    let acts = self.machines[worker].agent.tick(clock);
                    self.act(worker, acts)?;
                }
            }
            Event::Task { worker, life, lane, turn } => self.task(worker, life, lane, turn)?,
            Event::Revive { worker, life } => self.revive(worker, life),
            Event::Mended { worker, life } => self.mended(worker, life)?,
            Event::Lie => self.lie()?,
            Event::Round { life } => self.round(life)?,
            Event::Stored { life } => self.stored(life)?,
            Event::Tick { life } => {
                if life == self.process {
                    self.command(Command::Tick);
                    self.after(TICK_MS, Event::Tick { life });
                }
            }
            Event::Restart => self.restart()?,
            Event::Ask { wish } => self.ask(wish),
            Event::Blow => self.blow()?,
        }
        Ok(())
    }

    /// Until when a frozen machine keeps this waiting.
    fn frozen(&self, event: &Event) -> Option<u64> {
        let worker = match event {
            Event::Down { session, .. } => self.place(&self.links.get(session)?.worker),
            Event::Disconnected { worker, .. }
            | Event::Dial { worker, .. }
            | Event::Wake { worker, .. }
            | Event::Mended { worker, .. }
            | Event::Task { worker, .. } => *worker,
            _ => return None,
        };
        let until = self.machines[worker].frozen_until_ms;
        (until > self.now_ms).then_some(until)
    }

    pub(crate) fn place(&self, name: &WorkerId) -> usize {
        let place = self.machines.iter().position(|machine| machine.agent.name == *name);
        place.expect("links are of machines")
    }

    pub(crate) fn worker_clock(&self, worker: usize) -> u64 {
        self.now_ms - self.machines[worker].lag_ms
    }
}
