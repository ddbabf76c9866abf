//! The workers that have a session, as views for lists and as addresses for the driver. Edge state only: the core
//! decides, the store remembers.

use std::sync::atomic::{AtomicU64, Ordering};

use andon_core::ids::WorkerId;
use andon_proto::CoordinatorMessage;
use dashmap::DashMap;
use tokio::sync::mpsc;

/// How many messages may wait for a worker that reads slowly before its session is dropped.
pub(crate) const OUTBOX: usize = 1_024;

/// One session; a worker that connects again gets a new one, and the old one's messages are void.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionId(u64);

/// What is known of a worker.
#[derive(Debug, Clone)]
pub(crate) struct WorkerView {
    pub(crate) session: Option<SessionId>,
    outbox: Option<mpsc::Sender<CoordinatorMessage>>,
    pub(crate) version: String,
    pub(crate) pool: String,
    pub(crate) driver: String,
    pub(crate) lanes: u32,
    pub(crate) lanes_busy: u32,
    pub(crate) unfit: String,
    pub(crate) connected_unix_ms: u64,
    /// Of its pool, as it said last.
    pub(crate) disk: Option<Disk>,
}

/// Room on a worker's pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) free_bytes: u64,
    pub(crate) bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Sessions {
    last: AtomicU64,
    workers: DashMap<WorkerId, WorkerView>,
}

impl Sessions {
    pub(crate) fn new_id(&self) -> SessionId {
        SessionId(self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn open(
        &self,
        session: SessionId,
        hello: andon_proto::Hello,
        outbox: mpsc::Sender<CoordinatorMessage>,
        now_unix_ms: u64,
    ) {
        let view = WorkerView {
            session: Some(session),
            outbox: Some(outbox),
            version: hello.version,
            pool: hello.pool,
            driver: hello.driver,
            lanes: hello.lanes,
            lanes_busy: 0,
            unfit: String::new(),
            connected_unix_ms: now_unix_ms,
            disk: None,
        };
        self.workers.insert(WorkerId(hello.worker), view);
    }

    pub(crate) fn is_current(&self, worker: &WorkerId, session: SessionId) -> bool {
        self.workers.get(worker).is_some_and(|view| view.session == Some(session))
    }

    /// False for a session that was dropped, because its worker does not read or has a newer one.
    pub(crate) fn is_open(&self, worker: &WorkerId, session: SessionId) -> bool {
        self.workers.get(worker).is_some_and(|view| view.session == Some(session) && view.outbox.is_some())
    }

    /// Room on its pool, as the worker says it; of none it does not know.
    pub(crate) fn tell_disk(&self, worker: &WorkerId, session: SessionId, free_bytes: u64, bytes: u64) {
        if let Some(mut view) = self.workers.get_mut(worker).filter(|view| view.session == Some(session)) {
            view.disk = (bytes > 0).then_some(Disk { free_bytes, bytes });
        }
    }

    /// Closes this session; false where a newer one has taken its place.
    pub(crate) fn close(&self, worker: &WorkerId, session: SessionId) -> bool {
        match self.workers.get_mut(worker) {
            Some(mut view) if view.session == Some(session) => {
                view.session = None;
                view.outbox = None;
                view.lanes_busy = 0;
                true
            }
            _ => false,
        }
    }

    /// Sends, or drops the session of a worker that does not read: it will come back and say what it holds.
    pub(crate) fn send(&self, worker: &WorkerId, message: CoordinatorMessage) {
        if let Some(mut view) = self.workers.get_mut(worker) {
            let refused = view.outbox.as_ref().is_some_and(|outbox| outbox.try_send(message).is_err());
            if refused {
                tracing::warn!(%worker, "dropping the session of a worker that does not read");
                view.outbox = None;
            }
        }
    }

    pub(crate) fn each(&self, mut change: impl FnMut(&WorkerId, &mut WorkerView)) {
        for mut entry in self.workers.iter_mut() {
            let (worker, view) = entry.pair_mut();
            change(worker, view);
        }
    }

    pub(crate) fn list(&self) -> Vec<(WorkerId, WorkerView)> {
        let mut all: Vec<_> =
            self.workers.iter().map(|entry| (entry.key().clone(), entry.value().clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}
