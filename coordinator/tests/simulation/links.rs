//! The cluster's network: what arrives where and when, links that break, workers that dial; and what a worker's machine does.

use crate::cluster::{Cluster, Event};
use crate::coordinator::{Command, SessionId};
use crate::ledger::{Kept, broken};
use crate::network::Link;
use crate::weather::Weather;
use crate::wire::{Body, Said, Word};
use crate::worker::Act;

impl Cluster {
    pub(crate) fn latency(&mut self) -> u64 {
        let Weather { latency_ms, latency_max_ms, spike, .. } = self.weather;
        if !self.is_calm() && self.dice.chance(spike) {
            self.dice.below(latency_max_ms)
        } else {
            self.dice.below(latency_ms + 1)
        }
    }

    pub(crate) fn arrives(&mut self, session: SessionId, said: Said) {
        let Some(link) = self.links.get(&session).filter(|link| link.carries_up(self.now_ms)) else { return };
        let worker = link.worker.clone();
        self.trace.note(self.now_ms, format_args!("{worker} -> coordinator, session {session}: {said:?}"));
        let Some(coordinator) = &mut self.coordinator else { return };
        match said.body {
            Body::Hello { held, reached } => {
                let welcome = coordinator.hello(&worker, session, (held, reached), said.seq);
                self.look();
                self.send_down(session, welcome);
            }
            body => self.command(Command::Said { worker, session, seq: said.seq, body }),
        }
    }

    pub(crate) fn delivered(&mut self, session: SessionId, word: Word) -> Kept {
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

    pub(crate) fn send_down(&mut self, session: SessionId, word: Word) {
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

    pub(crate) fn stream_ends(&mut self, session: SessionId) {
        let Some(worker) = self.links.get(&session).map(|link| link.worker.clone()) else { return };
        self.command(Command::Left { worker, session });
    }

    pub(crate) fn disconnected(&mut self, worker: usize, session: SessionId) -> Kept {
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

    pub(crate) fn dial(&mut self, worker: usize, life: u64) -> Kept {
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

    pub(crate) fn wake(&mut self, worker: usize) {
        let machine = &mut self.machines[worker];
        let Some(at) = machine.agent.wake_at().map(|at| at + machine.lag_ms) else { return };
        let at = at.max(self.now_ms);
        if machine.wake_ms.is_none_or(|known| known > at) {
            machine.wake_ms = Some(at);
            let life = machine.life;
            self.after(at - self.now_ms, Event::Wake { worker, life });
        }
    }
}
