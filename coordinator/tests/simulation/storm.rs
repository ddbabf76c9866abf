//! What the weather does to the cluster: machines that die, freeze and break, clocks that jump, people who change their
//! minds; and what a lane's task does meanwhile.

use andon_core::ids::LaneIx;
use andon_core::model::{Candidate, Ended, FailureClass, Outcome, Report, Work};

use crate::cluster::{Cluster, Event};
use crate::coordinator::Command;
use crate::ledger::Kept;
use crate::projects::Nature;
use crate::weather::Blow;
use crate::worker::{Lane, Worker, Working, failure};

const HOUR_MS: i64 = 3_600_000;

impl Cluster {
    // A lane's task.

    /// The task of a lane turns to what the lane is at now.
    pub(crate) fn turn(&mut self, worker: usize, lane: LaneIx) {
        let place = lane.0 as usize;
        self.machines[worker].turns[place] += 1;
        let takes = match self.machines[worker].agent.lanes[place].clone() {
            Lane::Idle { .. } => return,
            Lane::Working(working) => self.dice.between(5, 400) + self.next_takes(&working),
            Lane::Stopping { .. } => self.dice.below(200),
            Lane::Settling { .. } => self.dice.between(5, 300),
        };
        self.go_on(worker, lane, takes);
    }

    fn go_on(&mut self, worker: usize, lane: LaneIx, after_ms: u64) {
        let (life, turn) = (self.machines[worker].life, self.machines[worker].turns[lane.0 as usize]);
        self.after(after_ms, Event::Task { worker, life, lane, turn });
    }

    fn next_takes(&mut self, working: &Working) -> u64 {
        match &working.work {
            Work::PrepareBaseline => self.dice.between(200, 8_000),
            Work::Discover { .. } => self.dice.between(50, 2_000),
            Work::Execute { tests, .. } => tests.get(working.next).map_or(5, |(_, _, id)| {
                let project = self.project_of(working);
                self.projects.duration_ms(&project, id)
            }),
        }
    }

    fn header_of(&self, working: &Working) -> (String, String) {
        let of = |asked: &&crate::cluster::Asked| asked.run == Some(working.lease.run);
        let run = self.watch.durable.runs.get(&working.lease.run);
        let commit = self.asked.iter().find(of).map(|asked| asked.wish.header.commit.clone());
        let project = run.map(|run| run.project.clone()).unwrap_or_default();
        // Whose asker was never told its number: any commit will do.
        (project, commit.unwrap_or_else(|| "c0".to_owned()))
    }

    fn project_of(&self, working: &Working) -> String {
        self.header_of(working).0
    }

    pub(crate) fn task(&mut self, worker: usize, life: u64, lane: LaneIx, turn: u64) -> Kept {
        let machine = &self.machines[worker];
        if !machine.alive || machine.life != life || machine.turns[lane.0 as usize] != turn {
            return Ok(());
        }
        let clock = self.worker_clock(worker);
        let Lane::Working(working) = machine.agent.lanes[lane.0 as usize].clone() else {
            let acts = self.machines[worker].agent.lane_done(clock, lane);
            return self.act(worker, acts);
        };
        if !self.is_calm() && self.dice.chance(self.weather.faulty) {
            let acts = self.machines[worker].agent.reports(clock, lane, failure("broke"), true);
            return self.act(worker, acts);
        }
        let faulty = !self.is_calm() && self.dice.chance(self.weather.project_fault);
        let fails = |class| Report::WorkFailed { class, reason: "its own fault".into(), log_zstd: vec![1] };
        let (project, commit) = self.header_of(&working);
        let (report, ends) = match &working.work {
            Work::PrepareBaseline if faulty => (fails(FailureClass::Baseline), true),
            Work::PrepareBaseline => {
                let key = format!("{project}-{commit}");
                (Report::BaselineReady { key, manifest: vec![1], replaces: false }, true)
            }
            Work::Discover { .. } if faulty => (fails(FailureClass::Config), true),
            Work::Discover { suite, .. } => {
                let found = self.projects.tests(&project, suite, &commit).into_iter();
                let tests =
                    found.map(|id| Candidate { id, expected_ms: None, failed_last: false, excused: false });
                (Report::Discovered { tests: tests.collect() }, true)
            }
            Work::Execute { tests, .. } => match tests.get(working.next) {
                None => (Report::UnitEnded, true),
                Some((attempt, _, id)) => match self.outcome(&project, id) {
                    None => {
                        self.kill(worker);
                        return Ok(());
                    }
                    Some(outcome) => {
                        let ended = Ended { run_ms: 5, ..Ended::without_report(outcome, "") };
                        // A runner that breaks ends its unit early.
                        let early = !self.is_calm() && self.dice.chance(self.weather.faulty / 4);
                        let ended = Report::TestEnded { attempt: *attempt, ended };
                        if early { (Report::UnitEnded, true) } else { (ended, false) }
                    }
                },
            },
        };
        let acts = self.machines[worker].agent.reports(clock, lane, report, ends);
        self.act(worker, acts)?;
        if let Lane::Working(working) = self.machines[worker].agent.lanes[lane.0 as usize].clone() {
            let takes = self.next_takes(&working);
            self.go_on(worker, lane, takes);
        }
        Ok(())
    }

    /// How a test ends this time; `None` where it takes its worker with it.
    fn outcome(&mut self, project: &str, id: &str) -> Option<Outcome> {
        Some(match self.projects.nature(project, id) {
            Nature::Passes => Outcome::Passed,
            Nature::Fails => Outcome::Failed,
            Nature::Flaky(permille) if self.dice.chance(permille) => Outcome::Failed,
            Nature::Flaky(_) => Outcome::Passed,
            Nature::Skips => Outcome::Skipped,
            Nature::TimesOut => Outcome::TimedOut,
            Nature::Cursed => Outcome::Infrastructure,
            Nature::Poison => return None,
        })
    }

    // The weather.

    pub(crate) fn blow(&mut self) -> Kept {
        if self.is_calm() {
            return Ok(());
        }
        let gap = self.dice.between(1, 2 * self.weather.gap_ms);
        self.after(gap, Event::Blow);
        let blow = self.dice.pick(&self.weather.blows).copied();
        let worker = self.dice.place(self.machines.len());
        self.trace.note(self.now_ms, format_args!("{blow:?} ({worker})"));
        if let Some(blow) = blow {
            self.watch.saw(format!("blow {blow:?}"));
        }
        match blow {
            Some(Blow::BreakSession) => {
                if let Some(session) = self.machines[worker].session {
                    let slow = self.dice.chance(500);
                    self.break_link(session, slow);
                }
            }
            Some(Blow::Freeze) => self.freeze(worker),
            Some(Blow::Kill) => self.kill(worker),
            Some(Blow::CrashCoordinator) => self.crash("in between"),
            Some(Blow::JumpClock) => {
                let hours = i64::try_from(self.dice.below(3)).expect("0 to 2") - 1;
                self.skew_ms = hours * HOUR_MS;
            }
            Some(Blow::Daemon) => {
                let life = self.machines[worker].life;
                if self.machines[worker].alive && self.machines[worker].frozen_until_ms <= self.now_ms {
                    let clock = self.worker_clock(worker);
                    let reason = Some("the daemon is away".to_owned());
                    let acts = self.machines[worker].agent.fitness(clock, reason);
                    self.act(worker, acts)?;
                    let wait = self.dice.between(500, 20_000);
                    self.after(wait, Event::Mended { worker, life });
                }
            }
            Some(Blow::Cancel) => {
                let runs: Vec<_> = self.asked.iter().filter_map(|asked| asked.run).collect();
                if let Some(run) = self.dice.pick(&runs).copied() {
                    self.command(Command::Cancel { run });
                }
            }
            Some(Blow::Rerun) => self.rerun(),
            None => {}
        }
        Ok(())
    }

    /// SIGSTOP and SIGCONT, or a machine that sleeps: then its clock may stand still, too.
    fn freeze(&mut self, worker: usize) {
        let sleeps = self.dice.between(100, 45_000);
        let stands_still = self.dice.chance(300);
        let machine = &mut self.machines[worker];
        if machine.frozen_until_ms > self.now_ms {
            return;
        }
        machine.frozen_until_ms = self.now_ms + sleeps;
        if stands_still {
            // Looked at only when it has thawed.
            machine.lag_ms += sleeps;
        }
    }

    pub(crate) fn kill(&mut self, worker: usize) {
        let machine = &mut self.machines[worker];
        if !machine.alive {
            return;
        }
        machine.alive = false;
        machine.life += 1;
        let life = machine.life;
        if let Some(session) = machine.session.take() {
            self.break_link(session, false);
        }
        let wait = self.dice.between(500, 40_000);
        self.after(wait, Event::Revive { worker, life });
    }

    /// A new process under the old name: it remembers nothing.
    pub(crate) fn revive(&mut self, worker: usize, life: u64) {
        let machine = &mut self.machines[worker];
        if machine.alive || machine.life != life {
            return;
        }
        let (name, lanes) = (machine.agent.name.clone(), machine.turns.len());
        machine.agent = Worker::new(name, u32::try_from(lanes).expect("few lanes"));
        machine.alive = true;
        machine.frozen_until_ms = 0;
        machine.lag_ms = 0;
        self.dial_soon(worker);
    }

    pub(crate) fn mended(&mut self, worker: usize, life: u64) -> Kept {
        if self.machines[worker].life != life || !self.machines[worker].alive {
            return Ok(());
        }
        let clock = self.worker_clock(worker);
        let acts = self.machines[worker].agent.fitness(clock, None);
        self.act(worker, acts)
    }

    /// A person asks for a part of an earlier run again, perhaps while it still runs.
    fn rerun(&mut self) {
        if self.asked.len() > 12 {
            return;
        }
        let known: Vec<_> = self.asked.iter().filter_map(|asked| Some((asked.run?, &asked.wish))).collect();
        let Some((run, earlier)) = self.dice.pick(&known).map(|(run, wish)| (*run, (*wish).clone())) else {
            return;
        };
        let book = self.watch.durable.runs.get(&run);
        let baseline = book.and_then(|book| book.baseline.clone()).filter(|_| self.dice.chance(700));
        let number = self.asked.len() as u64 + 100;
        let wish = self.projects.rerun(&mut self.dice, number, &earlier, baseline);
        self.wish(wish, 0);
    }
}
