//! The whole cluster and its virtual time: one queue of events, one thing at a time, nothing that is not in the seed.

use std::collections::BTreeMap;

use andon_coordinator::store::memory::Memory;
use andon_core::ids::{LaneIx, Lease, Now, RunId, WorkerId};
use andon_core::{Config, Core};

use crate::coordinator::{Command, Coordinator, Leaving, SessionId};
use crate::dice::Dice;
use crate::ledger::{Broken, Kept, broken};
use crate::network::Link;
use crate::projects::{Projects, Wish};
use crate::trace::Trace;
use crate::watch::Watch;
use crate::weather::Weather;
use crate::wire::{Body, Said, Word};
use crate::worker::{Act, Worker};

/// UTC at the beginning.
const EPOCH_UNIX_MS: u64 = 1_700_000_000_000;
const TICK_MS: u64 = 500;
/// A person or a hook asks again where no answer came.
const ASK_AGAIN_MS: u64 = 5_000;
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
    wake_ms: Option<u64>,
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
    store: Memory,
    config: Config,
    pub(crate) coordinator: Option<Coordinator>,
    /// Grows with each process of the coordinator.
    process: u64,
    booted_ms: u64,
    mono_base_ms: u64,
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
            if rest_at_ms.is_some_and(|rest| at > rest) {
                if self.everything_ended() {
                    break;
                }
                // Somebody's request had waited for the store.
                rest_at_ms = None;
            }
            self.now_ms = at;
            self.summary.events += 1;
            self.happens(event)?;
            if self.is_calm() && rest_at_ms.is_none() {
                if self.everything_ended() {
                    rest_at_ms = Some(self.now_ms + REST_MS);
                } else if self.now_ms > self.weather.calm_at_ms + LIVENESS_MS {
                    break;
                }
            }
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

    // The network.

    pub(crate) fn latency(&mut self) -> u64 {
        let Weather { latency_ms, latency_max_ms, spike, .. } = self.weather;
        if !self.is_calm() && self.dice.chance(spike) {
            self.dice.below(latency_max_ms)
        } else {
            self.dice.below(latency_ms + 1)
        }
    }

    fn arrives(&mut self, session: SessionId, said: Said) {
        let Some(link) = self.links.get(&session).filter(|link| link.carries_up(self.now_ms)) else { return };
        let worker = link.worker.clone();
        self.trace.note(self.now_ms, format_args!("{worker} -> coordinator, session {session}: {said:?}"));
        let Some(coordinator) = &mut self.coordinator else { return };
        match said.body {
            Body::Hello { held } => {
                let welcome = coordinator.hello(&worker, session, held, said.seq);
                self.look();
                self.send_down(session, welcome);
            }
            body => self.command(Command::Said { worker, session, seq: said.seq, body }),
        }
    }

    fn delivered(&mut self, session: SessionId, word: Word) -> Kept {
        let Some(link) = self.links.get(&session).filter(|link| link.carries_down(self.now_ms)) else {
            return Ok(());
        };
        let (worker, life) = (self.place(&link.worker), link.life);
        if self.machines[worker].life != life || self.machines[worker].session != Some(session) {
            return Ok(());
        }
        let name = &self.machines[worker].agent.name;
        self.trace.note(self.now_ms, format_args!("coordinator -> {name}, session {session}: {word:?}"));
        let clock = self.worker_clock(worker);
        let acts = self.machines[worker].agent.hears(clock, word);
        self.act(worker, acts)
    }

    fn send_down(&mut self, session: SessionId, word: Word) {
        let at = self.now_ms + self.latency();
        if let Some(at) = self.links.get_mut(&session).and_then(|link| link.down(at)) {
            self.after(at - self.now_ms, Event::Down { session, word });
        }
    }

    /// Breaks a link; each side sees it when it sees it.
    pub(crate) fn break_link(&mut self, session: SessionId, slow: bool) {
        let most = if slow { 20_000 } else { 50 };
        let (up, down) = (self.dice.below(most), self.dice.below(most));
        let (seen_here, seen_there) = (up + self.dice.below(most), down + self.dice.below(most));
        let Some(link) = self.links.get_mut(&session).filter(|link| link.is_whole()) else { return };
        link.break_at(self.now_ms + up, self.now_ms + down);
        let worker = link.worker.clone();
        let worker = self.place(&worker);
        self.summary.breaks += 1;
        self.trace.note(self.now_ms, format_args!("link {session} breaks: up in {up} ms, down in {down} ms"));
        self.after(seen_here, Event::StreamEnds { session });
        self.after(seen_there, Event::Disconnected { worker, session });
    }

    fn stream_ends(&mut self, session: SessionId) {
        let Some(worker) = self.links.get(&session).map(|link| link.worker.clone()) else { return };
        self.command(Command::Left { worker, session });
    }

    fn disconnected(&mut self, worker: usize, session: SessionId) -> Kept {
        if !self.machines[worker].alive || self.machines[worker].session != Some(session) {
            return Ok(());
        }
        self.machines[worker].session = None;
        let clock = self.worker_clock(worker);
        let acts = self.machines[worker].agent.disconnected(clock);
        self.act(worker, acts)?;
        self.dial_soon(worker);
        Ok(())
    }

    pub(crate) fn dial_soon(&mut self, worker: usize) {
        let (wait, life) = (self.dice.below(2_000), self.machines[worker].life);
        self.after(wait, Event::Dial { worker, life });
    }

    fn dial(&mut self, worker: usize, life: u64) -> Kept {
        let machine = &self.machines[worker];
        if !machine.alive || machine.life != life || machine.agent.is_up() {
            return Ok(());
        }
        if self.coordinator.is_none() {
            self.dial_soon(worker);
            return Ok(());
        }
        let session = self.links.keys().next_back().map_or(1, |last| last + 1);
        let name = machine.agent.name.clone();
        self.links.insert(session, Link::new(name, life));
        self.machines[worker].session = Some(session);
        let clock = self.worker_clock(worker);
        let acts = self.machines[worker].agent.connected(clock);
        self.act(worker, acts)
    }

    /// Does what a worker's machine asks for.
    pub(crate) fn act(&mut self, worker: usize, acts: Vec<Act>) -> Kept {
        for act in acts {
            match act {
                Act::Send(said) => {
                    let Some(session) = self.machines[worker].session else { continue };
                    let at = self.now_ms + self.latency();
                    if let Some(at) = self.links.get_mut(&session).and_then(|link| link.up(at)) {
                        self.after(at - self.now_ms, Event::Up { session, said });
                    }
                }
                Act::Turn(lane) => self.turn(worker, lane),
                Act::HangUp => {
                    if let Some(session) = self.machines[worker].session.take() {
                        self.break_link(session, false);
                    }
                    self.dial_soon(worker);
                }
                Act::Refused(lease) => {
                    if !self.machines[worker].lies {
                        let how = format!("{} {lease:?}", self.machines[worker].agent.name);
                        return broken("no lane has two leases at a time", how);
                    }
                }
                Act::Known(lease, report) => {
                    let name = self.machines[worker].agent.name.clone();
                    self.watch.known(&name, lease, &report)?;
                }
            }
        }
        self.wake(worker);
        Ok(())
    }

    fn wake(&mut self, worker: usize) {
        let machine = &mut self.machines[worker];
        let Some(at) = machine.agent.wake_at().map(|at| at + machine.lag_ms) else { return };
        let at = at.max(self.now_ms);
        if machine.wake_ms.is_none_or(|known| known > at) {
            machine.wake_ms = Some(at);
            let life = machine.life;
            self.after(at - self.now_ms, Event::Wake { worker, life });
        }
    }

    // The coordinator's process.

    pub(crate) fn command(&mut self, command: Command) {
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.inbox.push_back(command);
            self.look();
        }
    }

    /// The driver looks into its inbox, once it has done what it does.
    fn look(&mut self) {
        let waits = |coordinator: &Coordinator| coordinator.open.is_none() && coordinator.inbox.len() == 1;
        if self.coordinator.as_ref().is_some_and(waits) {
            let pause = self.dice.below(3);
            self.after(pause, Event::Round { life: self.process });
        }
    }

    fn round(&mut self, life: u64) -> Kept {
        let now = self.clock();
        let most = if self.dice.chance(500) { 512 } else { 1 + self.dice.place(4) };
        let Some(coordinator) = self.coordinator.as_mut().filter(|_| life == self.process) else {
            return Ok(());
        };
        if coordinator.open.is_some() || coordinator.inbox.is_empty() {
            return Ok(());
        }
        coordinator.begin(most, now, &self.store, &mut self.watch)?;
        if let Some(open) = &coordinator.open {
            for record in &open.round.records {
                self.trace.note(self.now_ms, format_args!("decided: {record:?}"));
            }
        }
        let away = !self.is_calm() && self.dice.chance(self.weather.store_away);
        let writes = if away { 40_000 } else { self.dice.below(self.weather.store_ms + 1) };
        self.after(writes, Event::Stored { life });
        Ok(())
    }

    /// The write of a round, and a crash before, after, or in the middle of what follows it.
    fn stored(&mut self, life: u64) -> Kept {
        let crashes = !self.is_calm() && self.dice.chance(self.weather.crash);
        let moment = if crashes { self.dice.below(3) } else { u64::MAX };
        let Some(coordinator) = self.coordinator.as_mut().filter(|_| life == self.process) else {
            return Ok(());
        };
        if moment == 0 {
            self.crash("before a write");
            return Ok(());
        }
        coordinator.persist(&self.store, &mut self.watch)?;
        let mut leaving = coordinator.close();
        let all = leaving.len();
        if moment == 1 {
            leaving.clear();
        } else if moment == 2 {
            leaving.truncate(self.dice.place(all + 1));
        }
        for leaving in leaving {
            self.leaves(leaving)?;
        }
        if moment < 3 {
            self.crash(if moment == 1 { "after a write" } else { "with a part of its effects done" });
            return Ok(());
        }
        if self.coordinator.as_ref().is_some_and(|coordinator| !coordinator.inbox.is_empty()) {
            self.after(0, Event::Round { life });
        }
        Ok(())
    }

    fn leaves(&mut self, leaving: Leaving) -> Kept {
        match leaving {
            Leaving::Word { worker, session, word } => {
                if let Word::Assign { lease, .. } = &word {
                    self.watch.assigned(*lease)?;
                    self.leases.push(*lease);
                }
                self.trace.note(self.now_ms, format_args!("leaves for {worker}: {word:?}"));
                self.send_down(session, word);
            }
            Leaving::Submitted { wish, run } => {
                let asked = &mut self.asked[wish];
                if asked.run.is_some_and(|before| before != run) {
                    return broken("one wish, one run", format!("wish {wish}: {:?} and {run}", asked.run));
                }
                asked.run = Some(run);
            }
        }
        Ok(())
    }

    pub(crate) fn crash(&mut self, when: &str) {
        if self.coordinator.take().is_none() {
            return;
        }
        self.trace.note(self.now_ms, format_args!("the coordinator crashes {when}"));
        self.watch.saw(format!("crash {when}"));
        self.summary.crashes += 1;
        self.process += 1;
        for session in self.links.keys().copied().collect::<Vec<_>>() {
            self.break_link(session, false);
            // What it had not read is gone with it.
            if let Some(link) = self.links.get_mut(&session) {
                link.break_at(self.now_ms, u64::MAX);
            }
        }
        let away = self.dice.below(self.weather.downtime_ms);
        self.after(away, Event::Restart);
    }

    fn restart(&mut self) -> Kept {
        self.booted_ms = self.now_ms;
        self.mono_base_ms = self.dice.below(10_000);
        let now = self.clock();
        self.watch.restarted(now);
        let restored = Coordinator::restored(self.config.clone(), now, &self.store, &self.watch.plans);
        let restored = restored.map_err(|error| Broken {
            promise: "the store gives back what it was given",
            how: format!("{error:?}"),
        })?;
        self.trace.note(self.now_ms, format_args!("the coordinator is back"));
        self.coordinator = Some(restored);
        self.after(TICK_MS, Event::Tick { life: self.process });
        Ok(())
    }

    fn ask(&mut self, wish: usize) {
        let asked = &self.asked[wish];
        if asked.run.is_some() {
            return;
        }
        let (again, asked) = (asked.wish.header.dedup_key.is_some(), asked.wish.clone());
        self.command(Command::Submit { wish, asked });
        if again {
            self.after(ASK_AGAIN_MS, Event::Ask { wish });
        }
    }
}
