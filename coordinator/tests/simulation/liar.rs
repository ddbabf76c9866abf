//! A worker that was taken over: it says what no worker would. It has a session of its own and knows every lease that
//! was ever handed out.

use andon_core::ids::{AttemptId, Fence, LaneIx, Lease, RunId, WorkId};
use andon_core::model::{Candidate, Ended, FailureClass, Outcome, Report};

use crate::cluster::{Cluster, Event};
use crate::ledger::Kept;
use crate::wire::Body;

impl Cluster {
    pub(crate) fn lie(&mut self) -> Kept {
        let Some(worker) = self.machines.iter().position(|machine| machine.lies) else { return Ok(()) };
        if self.is_calm() {
            // Somebody has found out and pulled its plug.
            self.machines[worker].alive = false;
            self.machines[worker].life += 1;
            if let Some(session) = self.machines[worker].session.take() {
                self.break_link(session, false);
            }
            return Ok(());
        }
        let gap = self.dice.between(50, 3_000);
        self.after(gap, Event::Lie);
        if !self.machines[worker].alive {
            return Ok(());
        }
        let times = self.dice.between(1, 3);
        let body = self.a_lie(worker);
        for _ in 0..times {
            let acts = self.machines[worker].agent.lies(body.clone());
            self.act(worker, acts)?;
        }
        Ok(())
    }

    fn a_lie(&mut self, worker: usize) -> Body {
        let lease = self.a_lease(worker);
        match self.dice.below(10) {
            0 => Body::LaneReady { lane: LaneIx(small(self.dice.below(4))), baseline: "forged".to_owned() },
            1 => Body::Heartbeat { held: vec![lease, self.a_lease(worker), self.a_lease(worker)] },
            2 => Body::Unfit { reason: self.dice.chance(300).then(|| "tired".to_owned()) },
            _ => Body::Report { lease, report: self.a_report() },
        }
    }

    /// Somebody's, its own, or one that never was.
    fn a_lease(&mut self, worker: usize) -> Lease {
        let late = self.leases.len().saturating_sub(12);
        let recent = self.dice.pick(&self.leases[late..]).copied();
        let own: Vec<Lease> = self.machines[worker].agent.working().map(|working| working.lease).collect();
        let invented = Lease {
            run: RunId(self.dice.below(8)),
            work: WorkId(self.dice.below(20)),
            fence: Fence(self.dice.below(60)),
        };
        let mut lease = match self.dice.below(4) {
            0 => invented,
            1 => self.dice.pick(&own).copied().unwrap_or(invented),
            _ => recent.unwrap_or(invented),
        };
        match self.dice.below(6) {
            0 => lease.run = RunId(lease.run.0 ^ 1),
            1 => lease.work = WorkId(lease.work.0 + 1),
            2 => lease.fence = Fence(lease.fence.0 + 1),
            _ => {}
        }
        lease
    }

    fn a_report(&mut self) -> Report {
        let attempt = AttemptId(self.dice.below(60));
        let classes = [FailureClass::Infrastructure, FailureClass::Baseline, FailureClass::Config];
        let outcomes =
            [Outcome::Passed, Outcome::Failed, Outcome::Skipped, Outcome::TimedOut, Outcome::Cancelled];
        match self.dice.below(12) {
            0 => Report::BaselineReady { key: "forged".to_owned(), manifest: vec![6], replaces: false },
            1 => {
                let forged = Candidate {
                    id: "forged".to_owned(),
                    expected_ms: None,
                    failed_last: true,
                    excused: false,
                };
                Report::Discovered { tests: vec![forged] }
            }
            2 | 3 => Report::UnitEnded,
            4 => Report::Footprint {
                attempts: vec![attempt, AttemptId(1)],
                dirtied_bytes: u64::MAX,
                changes: String::new(),
            },
            5 | 6 => {
                let class = *self.dice.pick(&classes).expect("there are classes");
                Report::WorkFailed { class, reason: "forged".to_owned(), log_zstd: vec![6] }
            }
            _ => {
                let outcome = *self.dice.pick(&outcomes).expect("there are outcomes");
                Report::TestEnded { attempt, ended: Ended::without_report(outcome, "forged") }
            }
        }
    }
}

fn small(number: u64) -> u32 {
    u32::try_from(number).expect("small numbers are rolled")
}
