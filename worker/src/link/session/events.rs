//! What is told of this worker under no lease, until the coordinator has it. Pure.
//!
//! Invariants as in the outbox: numbers grow from front to back, so an acknowledgement is a prefix; without a session nothing
//! has a number. Bounded: of too many, the oldest are not told.

use std::collections::VecDeque;

use andon_proto::{Inexact, WorkerMessage, worker_message};

/// So many may wait.
const EVENTS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Events(VecDeque<(Option<u64>, Inexact)>);

impl Events {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps an event; with a number, also answers with the message to send now.
    pub(super) fn push(&mut self, event: Inexact, seq: Option<u64>) -> Option<WorkerMessage> {
        if self.0.len() == EVENTS_MAX {
            self.0.pop_front();
        }
        let message = seq.map(|seq| message(seq, &event));
        self.0.push_back((seq, event));
        message
    }

    /// Everything up to `seq` is durable.
    pub(super) fn acknowledge(&mut self, seq: u64) {
        while self.0.front().and_then(|(sent, _)| *sent).is_some_and(|sent| sent <= seq) {
            self.0.pop_front();
        }
    }

    /// The session is gone.
    pub(super) fn disconnected(&mut self) {
        self.0.iter_mut().for_each(|(seq, _)| *seq = None);
    }

    /// All of them again, under new numbers.
    pub(super) fn renumbered(&mut self, mut next: impl FnMut() -> u64) -> Vec<WorkerMessage> {
        let again = self.0.iter_mut().map(|(seq, event)| {
            let new = next();
            *seq = Some(new);
            message(new, event)
        });
        again.collect()
    }
}

fn message(seq: u64, event: &Inexact) -> WorkerMessage {
    WorkerMessage { seq, body: Some(worker_message::Body::Inexact(event.clone())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: usize) -> Inexact {
        Inexact { id: id.to_string(), ..Inexact::default() }
    }

    #[test]
    fn an_event_is_sent_again_until_it_is_acknowledged_in_its_session() {
        let mut events = Events::default();
        assert!(events.push(event(1), Some(4)).is_some());
        assert!(events.push(event(2), Some(6)).is_some());
        events.acknowledge(5);
        events.disconnected();
        events.acknowledge(9);
        let mut next = 10..;
        let again = events.renumbered(|| next.next().unwrap());
        assert_eq!(again, [message(10, &event(2))]);
        events.acknowledge(10);
        assert!(events.is_empty());
    }

    #[test]
    fn of_too_many_events_the_oldest_are_not_told() {
        let mut events = Events::default();
        for id in 0..EVENTS_MAX + 3 {
            assert!(events.push(event(id), None).is_none());
        }
        let again = events.renumbered(|| 1);
        assert_eq!((again.len(), &again[0]), (EVENTS_MAX, &message(1, &event(3))));
    }
}
