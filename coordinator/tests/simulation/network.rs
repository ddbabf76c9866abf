//! Links between workers and the coordinator, with what a gRPC stream can do: order is kept, messages may take long, and
//! a link that breaks loses a suffix of each direction, not necessarily at the same moment.

use andon_core::ids::WorkerId;

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) worker: WorkerId,
    /// The worker's process that dialled.
    pub(crate) life: u64,
    up: Direction,
    down: Direction,
}

#[derive(Debug, Default)]
struct Direction {
    /// Nothing overtakes what was sent before.
    last_ms: u64,
    /// What would arrive from then on is lost.
    cut_ms: Option<u64>,
}

impl Direction {
    fn arrival(&mut self, at_ms: u64) -> Option<u64> {
        self.last_ms = self.last_ms.max(at_ms);
        let lost = self.cut_ms.is_some_and(|cut| self.last_ms >= cut);
        (!lost).then_some(self.last_ms)
    }

    fn cut(&mut self, at_ms: u64) {
        self.cut_ms = Some(self.cut_ms.map_or(at_ms, |cut| cut.min(at_ms)));
    }

    fn carries(&self, now_ms: u64) -> bool {
        self.cut_ms.is_none_or(|cut| now_ms < cut)
    }
}

impl Link {
    pub(crate) fn new(worker: WorkerId, life: u64) -> Self {
        Self { worker, life, up: Direction::default(), down: Direction::default() }
    }

    /// When a message to the coordinator arrives that would take until then on an empty line; `None` where it is lost.
    pub(crate) fn up(&mut self, at_ms: u64) -> Option<u64> {
        self.up.arrival(at_ms)
    }

    /// The same to the worker.
    pub(crate) fn down(&mut self, at_ms: u64) -> Option<u64> {
        self.down.arrival(at_ms)
    }

    pub(crate) fn break_at(&mut self, up_ms: u64, down_ms: u64) {
        self.up.cut(up_ms);
        self.down.cut(down_ms);
    }

    pub(crate) fn carries_up(&self, now_ms: u64) -> bool {
        self.up.carries(now_ms)
    }

    pub(crate) fn carries_down(&self, now_ms: u64) -> bool {
        self.down.carries(now_ms)
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.up.cut_ms.is_none() && self.down.cut_ms.is_none()
    }
}
