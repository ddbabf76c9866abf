//! The coordinator's process in the cluster: rounds and writes, the moments at which it crashes, and its return.

use crate::cluster::{Cluster, Event, TICK_MS};
use crate::coordinator::{Command, Coordinator, Leaving};
use crate::ledger::{Broken, Kept, broken};
use crate::wire::Word;

/// A person or a hook asks again where no answer came.
const ASK_AGAIN_MS: u64 = 5_000;

impl Cluster {
    pub(crate) fn command(&mut self, command: Command) {
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.inbox.push_back(command);
            self.look();
        }
    }

    /// The driver looks into its inbox, once it has done what it does.
    pub(crate) fn look(&mut self) {
        let waits = |coordinator: &Coordinator| coordinator.open.is_none() && coordinator.inbox.len() == 1;
        if self.coordinator.as_ref().is_some_and(waits) {
            let pause = self.dice.below(3);
            self.after(pause, Event::Round { life: self.process });
        }
    }

    pub(crate) fn round(&mut self, life: u64) -> Kept {
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
    pub(crate) fn stored(&mut self, life: u64) -> Kept {
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

    pub(crate) fn leaves(&mut self, leaving: Leaving) -> Kept {
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

    pub(crate) fn restart(&mut self) -> Kept {
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

    pub(crate) fn ask(&mut self, wish: usize) {
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
