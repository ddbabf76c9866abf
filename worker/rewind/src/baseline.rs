//! The caller's handle: a baseline lives on a thread of its own, because ptrace belongs to one thread.
//!
//! Dropping the handle ends the thread. Between rewinds nothing is traced, so the processes then simply run on, untracked.
//!
//! We hold copies of their descriptors, so a port at which a server listened would stay open beyond its end. So another thread waits for the end of any
//! process, and then the whole baseline is let go; what is left to say is which process it was.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, pidfd_send_signal};

use crate::Target;
use crate::error::{Broken, Refused};
use crate::identity::Difference;
use crate::stand::Stand;
use crate::steps::{Check, Rewound, Taken, Trouble, Unlike};
use crate::trace::Pid;

enum Order {
    Rewind {
        check: Check,
        unlike: Unlike,
        trouble: Option<Trouble>,
        answer: Sender<Result<Rewound, Broken>>,
    },
    /// A process has ended; or nobody wants the baseline any more.
    LetGo(Option<Pid>),
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
        let ended = orders.clone();
        let targets = targets.to_vec();
        let thread = std::thread::Builder::new().name("rewind".to_owned());
        let thread = thread
            .spawn(move || {
                let taken = Stand::take(&targets);
                let watched = taken.and_then(|(stand, taken)| {
                    let vigil = Vigil::start(&stand, ended).map_err(Refused::Unreadable)?;
                    Ok((stand, taken, vigil))
                });
                match watched {
                    Ok((stand, taken, vigil)) => {
                        if answer.send(Ok(taken)).is_ok() {
                            serve(stand, &received, vigil);
                        }
                    }
                    Err(refused) => drop(answer.send(Err(refused))),
                }
            })
            .map_err(Refused::Unreadable)?;
        let gone = || Refused::Killed(io::Error::other("the baseline's thread panicked"));
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
        orders.send(Order::Rewind { check, unlike, trouble, answer }).map_err(|_| Broken::Gone)?;
        answered.recv().map_err(|_| Broken::Gone)?
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        if let Some(orders) = self.orders.take() {
            // The vigil has a way to the thread, too, so it does not end by the loss of ours. Nobody there: it has ended.
            let _ = orders.send(Order::LetGo(None));
        }
        if let Some(thread) = self.thread.take() {
            // A panic there was answered as `Gone`; what it was doing was undone or killed by its own unwinding.
            let _ = thread.join();
        }
    }
}

fn serve(mut stand: Stand, orders: &Receiver<Order>, vigil: Vigil) {
    let ended = loop {
        match orders.recv() {
            Ok(Order::Rewind { check, unlike, trouble, answer }) => {
                let rewound = stand.rewind(check, unlike, trouble);
                let _ = answer.send(rewound);
            }
            Ok(Order::LetGo(Some(pid))) => break pid,
            Ok(Order::LetGo(None)) | Err(_) => return,
        }
    };
    let handles: Vec<_> = stand.into_handles().collect();
    drop(vigil);
    while let Ok(Order::Rewind { unlike, answer, .. }) = orders.recv() {
        if unlike == Unlike::Kill {
            // One that has ended already is no loss.
            for handle in &handles {
                let _ = pidfd_send_signal(handle, Signal::KILL);
            }
        }
        let _ = answer.send(Err(Broken::Differs(vec![Difference::ProcessGone(ended)])));
    }
}

/// Waits for the end of any process. Dropping it ends the waiting.
struct Vigil {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Vigil {
    fn start(stand: &Stand, ended: Sender<Order>) -> io::Result<Self> {
        let handles = stand.handles().map(|(pid, handle)| Ok((pid, handle.try_clone()?)));
        let handles: Vec<_> = handles.collect::<io::Result<_>>()?;
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let thread = std::thread::Builder::new().name("rewind-vigil".to_owned()).spawn(move || {
            let polled = handles.iter().map(|(_, handle)| handle).chain([&stopped]);
            let mut polled: Vec<_> = polled.map(|one| PollFd::new(one, PollFlags::IN)).collect();
            while let Err(rustix::io::Errno::INTR) = poll(&mut polled, None) {}
            let mut polled = handles.iter().zip(&polled);
            if let Some(((pid, _), _)) = polled.find(|(_, one)| !one.revents().is_empty()) {
                // Nobody listens any more where the baseline has gone meanwhile.
                let _ = ended.send(Order::LetGo(Some(*pid)));
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Vigil {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
