//! The caller's handle: a baseline lives on a thread of its own, because ptrace belongs to one thread.
//!
//! Dropping the handle ends the thread. Between rewinds nothing is traced, so the processes then simply run on, untracked.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::Target;
use crate::error::{Broken, Refused};
use crate::stand::{Check, Rewound, Stand, Taken, Trouble, Unlike};

struct Order {
    check: Check,
    unlike: Unlike,
    trouble: Option<Trouble>,
    answer: Sender<Result<Rewound, Broken>>,
}

/// Processes as they were at one moment, and the way back to it.
#[derive(Debug)]
pub struct Baseline {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    taken: Taken,
}

impl Baseline {
    /// Freezes the targets, records them, begins to track them and lets them run on.
    pub fn take(targets: &[Target]) -> Result<Self, Refused> {
        let (orders, received) = channel::<Order>();
        let (answer, answered) = channel();
        let targets = targets.to_vec();
        let thread = std::thread::Builder::new().name("rewind".to_owned());
        let thread = thread
            .spawn(move || match Stand::take(&targets) {
                Ok((stand, taken)) => {
                    if answer.send(Ok(taken)).is_ok() {
                        serve(stand, &received);
                    }
                }
                Err(refused) => drop(answer.send(Err(refused))),
            })
            .map_err(Refused::Unreadable)?;
        let gone = || Refused::Killed(std::io::Error::other("the baseline's thread panicked"));
        let taken = answered.recv().map_err(|_| gone())??;
        Ok(Self { orders: Some(orders), thread: Some(thread), taken })
    }

    /// What taking it cost.
    pub fn taken(&self) -> &Taken {
        &self.taken
    }

    /// Puts the targets back. Any answer but `Ok` says what became of them.
    pub fn rewind(&mut self, check: Check, unlike: Unlike) -> Result<Rewound, Broken> {
        self.order(check, unlike, None)
    }

    /// As [`Baseline::rewind`], with something that goes wrong on purpose.
    pub(crate) fn order(
        &mut self,
        check: Check,
        unlike: Unlike,
        trouble: Option<Trouble>,
    ) -> Result<Rewound, Broken> {
        let (answer, answered) = channel();
        let orders = self.orders.as_ref().ok_or(Broken::Gone)?;
        orders.send(Order { check, unlike, trouble, answer }).map_err(|_| Broken::Gone)?;
        answered.recv().map_err(|_| Broken::Gone)?
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was answered as `Gone`; what it was doing was undone or killed by its own unwinding.
            let _ = thread.join();
        }
    }
}

fn serve(mut stand: Stand, orders: &Receiver<Order>) {
    while let Ok(order) = orders.recv() {
        let rewound = stand.rewind(order.check, order.unlike, order.trouble);
        let _ = order.answer.send(rewound);
    }
}
