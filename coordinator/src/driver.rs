//! The one task that owns the core. It takes commands, steps the core, makes all records of a round durable in one
//! transaction, and only then acts: acknowledges, answers, sends, tells watchers. Thus many reports share one sync,
//! and nothing leaves that a crash could take back.
//!
//! What a crash may cut: commands that were not yet durable are lost unacknowledged; their senders send them again. Work that was
//! leased but not yet delivered stands in the store; its worker comes back without it, and it is leased again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use andon_core::ids::{Fence, LaneIx, Lease, RunId, WorkerId};
use andon_core::inexact::Inexact;
use andon_core::model::{Artifacts, Candidate, Plan, Record, Report, RunHeader, Start, StoredRun};
use andon_core::{Config, Core, Effect, Input, Stored};
use andon_proto as wire;
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::blobs::{Blobs, Digest};
use crate::clock::Clock;
use crate::looking::Looking;
use crate::owning::Owning;
use crate::plan::plan_of;
use crate::printed::Budgets;
use crate::quarantining::{self, Ground};
use crate::restore::{self, Histories};
use crate::round;
use crate::rpc::convert;
use crate::rpc::inexact::in_words;
use crate::sessions::{SessionId, Sessions};
use crate::store::{ActiveRun, Store, StoreError};
use crate::verifying::Verifying;
use crate::watch::{Change, Watchers};
use crate::web::metrics::Meters;

/// Commands that wait for the driver; senders beyond wait themselves.
const COMMANDS: usize = 4_096;
/// Commands that share one transaction.
const ROUND_MAX: usize = 512;
const TICK: Duration = Duration::from_millis(500);
/// Between tries to write to a store that fails. Nothing is acknowledged meanwhile.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// What the services ask of the driver.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "commands are moved once; what is large is a run that is asked for, and rare"
)]
pub(crate) enum Command {
    /// A run is submitted.
    Submit { header: RunHeader, plan: Plan, start: Start, reply: oneshot::Sender<Submitted> },
    /// A person stops a run; the answer says whether it was running.
    Cancel { run: RunId, reason: String, reply: oneshot::Sender<bool> },
    /// A worker opened a session.
    Joined { worker: WorkerId, session: SessionId, held: Vec<Lease>, reached: Option<Fence>, seq: u64 },
    /// Its session ended.
    Left { worker: WorkerId, session: SessionId },
    /// It said something; acknowledged up to `seq` once what follows is durable.
    Said { worker: WorkerId, session: SessionId, seq: u64, words: Words },
}

/// What a worker says in a session.
#[derive(Debug)]
pub(crate) enum Words {
    LaneReady { lane: LaneIx, baseline: String },
    Heartbeat { held: Vec<Lease> },
    Fitness { unfit: Option<String> },
    Report { lease: Lease, report: Report },
    Notice { lease: Lease, text: String },
    Artifacts { lease: Lease, artifacts: Artifacts },
    Printed { lease: Lease, starts: u64, raw_bytes: u32, zstd: Vec<u8> },
    Inexact(Inexact),
}

/// A run's number, and whether it was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Submitted {
    pub(crate) run: RunId,
    pub(crate) existed: bool,
}

/// The farm as the services see it.
#[derive(Clone)]
pub(crate) struct Farm {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blobs: Blobs,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) verifying: Arc<Verifying>,
    /// Counts what has become durable.
    pub(crate) meters: Arc<Meters>,
    pub(crate) looking: Arc<Looking>,
    pub(crate) owning: Owning,
    pub(crate) clock: Clock,
    pub(crate) times: wire::Welcome,
    /// Cancelled when the coordinator stops; long streams end then.
    pub(crate) stop: CancellationToken,
    commands: mpsc::Sender<Command>,
    task: Arc<std::sync::Mutex<Option<JoinHandle<()>>>>,
}

impl Farm {
    /// Restores the core from the store and starts its task.
    pub(crate) async fn start(
        store: Arc<dyn Store>,
        blobs: Blobs,
        config: Config,
        stop: CancellationToken,
    ) -> Result<Self, StoreError> {
        let clock = Clock::start();
        let lease_ttl_ms = config.lease_ttl_ms;
        let core = restored(&*store, &blobs, config, &clock).await?;
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let times = wire::Welcome { lease_ttl_ms, heartbeat_ms: (lease_ttl_ms / 5).max(1) };
        let farm = Self {
            store,
            owning: Owning::new(blobs.clone()),
            blobs,
            sessions: Arc::default(),
            watchers: Arc::default(),
            verifying: Arc::default(),
            meters: Arc::default(),
            looking: Arc::default(),
            clock,
            times,
            stop,
            commands,
            task: Arc::default(),
        };
        let driver =
            Driver { core, farm: farm.clone(), inbox, joined: BTreeMap::new(), printed: Budgets::default() };
        let task = tokio::spawn(driver.run());
        *farm.task.lock().expect("no holder of this lock panics") = Some(task);
        Ok(farm)
    }

    /// Hands a command over; `false` where the coordinator is stopping.
    pub(crate) async fn command(&self, command: Command) -> bool {
        self.commands.send(command).await.is_ok()
    }

    /// Waits until the driver has finished its last round.
    pub(crate) async fn finish(&self) {
        self.stop.cancel();
        let task = self.task.lock().expect("no holder of this lock panics").take();
        if let Some(task) = task {
            task.await.expect("the driver does not panic");
        }
    }
}

struct Driver {
    core: Core,
    farm: Farm,
    inbox: mpsc::Receiver<Command>,
    /// The sessions that the core has been told of; newer ones may be open already.
    joined: BTreeMap<WorkerId, SessionId>,
    printed: Budgets,
}

/// What a round brought, to be done in this order once the records are durable.
#[derive(Default)]
struct Round {
    decided: round::Round<SessionId>,
    submitted: Vec<(u64, Option<String>, oneshot::Sender<Submitted>)>,
    existed: Vec<(RunId, oneshot::Sender<Submitted>)>,
    cancelled: Vec<(bool, oneshot::Sender<bool>)>,
}

impl Driver {
    async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut commands = Vec::with_capacity(ROUND_MAX);
        let stop = self.farm.stop.clone();
        loop {
            let mut round = Round::default();
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {
                    self.step(Input::Tick, &mut round);
                    self.farm.watchers.sweep();
                }
                _ = self.inbox.recv_many(&mut commands, ROUND_MAX) => {
                    for command in commands.drain(..) {
                        self.take(command, &mut round).await;
                    }
                }
            }
            if !self.persist(&round.decided.records).await {
                return;
            }
            self.farm.meters.count(&round.decided.records);
            self.act(round);
        }
    }

    fn step(&mut self, input: Input, round: &mut Round) {
        round.decided.step(&mut self.core, self.farm.clock.now(), input, &self.joined);
    }

    async fn take(&mut self, command: Command, round: &mut Round) {
        match command {
            Command::Submit { header, plan, start, reply } => {
                self.submit(header, plan, start, reply, round).await;
            }
            Command::Cancel { run, reason, reply } => {
                round.cancelled.push((self.core.is_active(run), reply));
                self.step(Input::Cancel { run, reason }, round);
            }
            Command::Joined { worker, session, held, reached, seq } => {
                if self.farm.sessions.is_current(&worker, session) {
                    round.decided.heard.push((worker.clone(), session, seq));
                    self.joined.insert(worker.clone(), session);
                    self.step(Input::WorkerJoined { worker, held, reached }, round);
                }
            }
            Command::Left { worker, session } => {
                if self.farm.sessions.close(&worker, session) {
                    self.step(Input::WorkerLeft { worker }, round);
                }
            }
            Command::Said { worker, session, seq, words } => {
                if self.farm.sessions.is_current(&worker, session) {
                    round.decided.heard.push((worker.clone(), session, seq));
                    self.hear(worker, words, round).await;
                }
            }
        }
    }

    async fn hear(&mut self, worker: WorkerId, words: Words, round: &mut Round) {
        let input = match words {
            Words::LaneReady { lane, baseline } => Input::LaneReady { worker, lane, baseline },
            Words::Heartbeat { held } => Input::Heartbeat { worker, held },
            Words::Fitness { unfit } => Input::WorkerFitness { worker, unfit },
            Words::Report { lease, report: Report::Discovered { tests } } => {
                let (tests, notes) = self.with_history(lease, tests).await;
                self.note(lease.run, notes, round);
                Input::Reported { worker, lease, report: Report::Discovered { tests } }
            }
            Words::Report { lease, report } => Input::Reported { worker, lease, report },
            Words::Artifacts { lease, artifacts } => {
                let is_here = match Digest::parse(&artifacts.blob_digest) {
                    Ok(digest) => self.farm.blobs.has(&digest).await,
                    Err(_) => false,
                };
                if is_here && self.core.holds(&worker, lease) {
                    round.decided.records.push(Record::ArtifactsKept { lease, artifacts });
                }
                return;
            }
            Words::Printed { lease, starts, raw_bytes, zstd } => {
                // Of no grant that is out it says nothing; then it is acknowledged, and no more comes.
                if self.core.holds(&worker, lease) && self.printed.spend(lease.fence, zstd.len()) {
                    round.decided.records.push(Record::Printed { lease, starts, raw_bytes, zstd });
                }
                return;
            }
            Words::Inexact(inexact) => {
                self.inexact(worker, inexact, round);
                return;
            }
            Words::Notice { lease, text } => {
                if self.core.is_active(lease.run) {
                    let at_unix_ms = self.farm.clock.now().unix_ms;
                    let text = format!("{worker}: {text}");
                    round.decided.records.push(Record::Noted {
                        run: lease.run,
                        text,
                        log_zstd: Vec::new(),
                        at_unix_ms,
                    });
                }
                return;
            }
        };
        self.step(input, round);
    }

    fn inexact(&self, worker: WorkerId, inexact: Inexact, round: &mut Round) {
        let at_unix_ms = self.farm.clock.now().unix_ms;
        tracing::warn!(%worker, "{}", in_words(&inexact));
        if let Some(run) = inexact.run.filter(|run| self.core.is_active(*run)) {
            let text = format!("{worker}: {}", in_words(&inexact));
            round.decided.records.push(Record::Noted { run, text, log_zstd: Vec::new(), at_unix_ms });
        }
        round.decided.records.push(Record::Inexact { worker, inexact, at_unix_ms });
    }

    /// What earlier runs say of these tests. It is only advice: where it cannot be had, they count as new.
    /// What a person should know of those in quarantine comes with it.
    async fn with_history(&self, lease: Lease, tests: Vec<Candidate>) -> (Vec<Candidate>, Vec<String>) {
        let Some((project, suite)) = self.core.discovery(lease) else { return (tests, Vec::new()) };
        let history = self.farm.store.history(project, suite).await.unwrap_or_default();
        let known = tests.into_iter().map(|test| restore::candidate(test.id, Some(&history)));
        let mut tests: Vec<Candidate> = known.collect();
        let Some((header, plan, baseline)) = self.core.run_of(lease.run) else { return (tests, Vec::new()) };
        let of_suite = tests.iter_mut().map(|test| (suite, test)).collect();
        let notes = self.excuse(header, plan, baseline, of_suite).await;
        (tests, notes)
    }

    /// A test of which that cannot be had is not excused.
    async fn excuse(
        &self,
        header: &RunHeader,
        plan: &Plan,
        baseline: &str,
        tests: Vec<(&str, &mut Candidate)>,
    ) -> Vec<String> {
        let now_unix_ms = self.farm.clock.now().unix_ms;
        let ground = Ground { project: &header.project, commit: &header.commit, baseline, now_unix_ms };
        let excused = quarantining::excuse(&*self.farm.store, plan, ground, tests).await;
        excused.unwrap_or_else(|error| vec![format!("quarantine: nothing is excused, {error}")])
    }

    fn note(&self, run: RunId, notes: Vec<String>, round: &mut Round) {
        let at_unix_ms = self.farm.clock.now().unix_ms;
        let noted =
            notes.into_iter().map(|text| Record::Noted { run, text, log_zstd: Vec::new(), at_unix_ms });
        round.decided.records.extend(noted);
    }

    async fn submit(
        &mut self,
        header: RunHeader,
        plan: Plan,
        mut start: Start,
        reply: oneshot::Sender<Submitted>,
        round: &mut Round,
    ) {
        if let Some(key) = &header.dedup_key {
            // In the store, or in this very round.
            let known = self.farm.store.find_dedup(key).await.ok().flatten();
            let in_round = round.decided.records.iter().find_map(|record| match record {
                Record::RunCreated { run, header, .. } if header.dedup_key.as_ref() == Some(key) => {
                    Some(*run)
                }
                _ => None,
            });
            if let Some(run) = known.or(in_round) {
                round.existed.push((run, reply));
                return;
            }
        }
        let ticket = round.submitted.len() as u64;
        round.submitted.push((ticket, header.dedup_key.clone(), reply));
        let notes = match &mut start {
            Start::Discover => Vec::new(),
            Start::Chosen { tests, baseline } => {
                let tests = tests.iter_mut().map(|(suite, test)| (suite.as_str(), test)).collect();
                self.excuse(&header, &plan, baseline.as_deref().unwrap_or_default(), tests).await
            }
        };
        let before = round.decided.effects.len();
        self.step(Input::Submit { ticket, header, plan, start }, round);
        let made = round.decided.effects[before..].iter().find_map(|(effect, _)| match effect {
            Effect::Accepted { ticket: known, run } if *known == ticket => Some(*run),
            _ => None,
        });
        if let Some(run) = made {
            self.note(run, notes, round);
        }
    }

    /// False where the coordinator was stopped while the store failed: the round is lost, unacknowledged.
    async fn persist(&self, records: &[Record]) -> bool {
        while !records.is_empty() {
            match self.farm.store.apply(records).await {
                Ok(()) => break,
                Err(error @ StoreError::Superseded) => {
                    tracing::error!(%error, "stopping: nothing that is heard here counts any more");
                    self.farm.stop.cancel();
                    return false;
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "cannot write to the store, trying again"
                    );
                    tokio::select! {
                        () = self.farm.stop.cancelled() => return false,
                        () = tokio::time::sleep(STORE_RETRY) => {}
                    }
                }
            }
        }
        true
    }

    fn act(&mut self, round: Round) {
        let Round { mut decided, mut submitted, existed, cancelled } = round;
        for (effect, session) in std::mem::take(&mut decided.effects) {
            match effect {
                Effect::Persist(_) => unreachable!("records were taken out by the round"),
                Effect::Accepted { ticket, run } => {
                    if let Some(place) = submitted.iter().position(|(known, ..)| *known == ticket) {
                        let (.., reply) = submitted.swap_remove(place);
                        let _ = reply.send(Submitted { run, existed: false });
                    }
                }
                Effect::Assign { worker, lane, lease, spec_digest, work } => {
                    let assign = convert::assign(lane, lease, spec_digest, work);
                    if session.is_some_and(|session| self.farm.sessions.is_current(&worker, session)) {
                        self.farm.sessions.send(&worker, assign);
                    }
                }
                Effect::Revoke { worker, lease, reason } => {
                    self.farm.sessions.send(&worker, convert::revoke(lease, reason));
                }
                Effect::Superseded { worker, lease, reason } => {
                    tracing::debug!(%worker, ?lease, ?reason, "void report");
                    self.farm.sessions.send(&worker, convert::superseded(lease, reason));
                }
            }
        }
        for (run, reply) in existed {
            let _ = reply.send(Submitted { run, existed: true });
        }
        for (was_running, reply) in cancelled {
            let _ = reply.send(was_running);
        }
        self.acknowledge(&decided);
        self.tell(&decided.records);
        self.farm.sessions.each(|worker, view| {
            view.lanes_busy = u32::try_from(self.core.busy_lanes(worker)).unwrap_or(u32::MAX);
            view.unfit = self.core.unfit(worker).unwrap_or_default().to_owned();
        });
    }

    fn acknowledge(&self, decided: &round::Round<SessionId>) {
        for (worker, (session, seq)) in decided.acknowledgements() {
            if self.farm.sessions.is_current(&worker, session) {
                self.farm.sessions.send(&worker, convert::ack(seq));
            }
        }
    }

    fn tell(&mut self, records: &[Record]) {
        for record in records {
            match record {
                Record::LeaseClosed { fence } => self.printed.close(*fence),
                Record::RunMoved { run, state, .. } => self.farm.watchers.tell(*run, Change::Moved(*state)),
                Record::VerdictGiven { run, test, .. } => {
                    self.farm.watchers.tell(*run, Change::Verdict(*test));
                }
                Record::Noted { run, text, .. } => self.farm.watchers.tell(*run, Change::Note(text.clone())),
                _ => {}
            }
        }
    }
}

async fn restored(
    store: &dyn Store,
    blobs: &Blobs,
    config: Config,
    clock: &Clock,
) -> Result<Core, StoreError> {
    let active = store.active().await?;
    let mut stored = Stored { last_run: active.last_run, last_fence: active.last_fence, runs: Vec::new() };
    let mut unreadable = Vec::new();
    for run in active.runs {
        match plan_again(blobs, &run).await {
            Some(plan) => stored.runs.push(stored_run(store, run, plan, clock.now().unix_ms).await?),
            None => unreadable.push(run.row.run),
        }
    }
    // A run whose specification is gone can never go on: it ends, and says why.
    let records: Vec<_> = unreadable
        .into_iter()
        .map(|run| Record::RunMoved {
            run,
            state: andon_core::model::RunState::Ended(andon_core::model::RunEnd::Incomplete),
            reason: "its specification could not be read after a restart".to_owned(),
            at_unix_ms: clock.now().unix_ms,
        })
        .collect();
    store.apply(&records).await?;
    Ok(Core::restore(config, clock.now(), stored))
}

async fn plan_again(blobs: &Blobs, run: &ActiveRun) -> Option<Plan> {
    let digest = Digest::parse(&run.row.header.spec_digest).ok()?;
    let bytes = blobs.read(&digest).await.ok()?;
    plan_of(&wire::RunSpec::decode(bytes.as_slice()).ok()?).ok()
}

async fn stored_run(
    store: &dyn Store,
    run: ActiveRun,
    plan: Plan,
    now_unix_ms: u64,
) -> Result<StoredRun, StoreError> {
    let mut histories = Histories::new();
    for suite in &plan.suites {
        let known = store.history(&run.row.header.project, &suite.name).await?;
        histories.insert(suite.name.clone(), known);
    }
    let mut stored = restore::stored_run(run, plan, &histories);
    let ground = Ground {
        project: &stored.header.project,
        commit: &stored.header.commit,
        baseline: stored.baseline.as_deref().unwrap_or_default(),
        now_unix_ms,
    };
    let open = stored.tests.iter_mut().filter(|test| test.verdict.is_none());
    let open = open.map(|test| (test.suite.as_str(), &mut test.candidate)).collect();
    quarantining::excuse(store, &stored.plan, ground, open).await?;
    Ok(stored)
}
