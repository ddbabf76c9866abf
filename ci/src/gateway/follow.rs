//! Follows runs at the coordinator and puts what they amount to on the [`Desk`].
//!
//! What is put is always made of the whole run as it is now; events only say that it is time to look. So a connection
//! that was away, or a gateway that was, misses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use andon_proto::{GetRunRequest, Run, RunEvent, WatchRunRequest, run_event};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status as RpcStatus};

use super::changes::spread;
use super::desk::{Desk, Tracked};
use super::ledger::LedgerError;
use crate::clock;
use crate::connect::Connection;
use crate::forge::status::of_run;
use crate::hook::{blocking, chain};

/// How often the progress of a running suite is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// The wait before a coordinator that is away is asked again.
const AGAIN_AFTER: Duration = Duration::from_secs(3);
/// The most runs that are followed at a time.
const FOLLOWED_MAX: usize = 256;

#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("run {run} cannot be followed: {}", .status.message())]
    Farm { run: u64, status: Box<RpcStatus> },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// All projects' runs.
pub(super) struct Follower {
    pub(super) desk: Arc<Desk>,
    pub(super) connection: Connection,
    /// Where a run is to be seen.
    pub(super) run_url: Option<String>,
}

impl Follower {
    /// Follows until dropped.
    pub(super) async fn run(self) {
        let follower = Arc::new(self);
        let mut following = JoinSet::new();
        let mut followed = BTreeSet::new();
        loop {
            for tracked in follower.desk.tracked() {
                if followed.len() < FOLLOWED_MAX && followed.insert(tracked.run) {
                    let follower = Arc::clone(&follower);
                    following.spawn(async move {
                        follower.to_its_end(&tracked).await;
                        tracked.run
                    });
                }
            }
            tokio::select! {
                () = follower.desk.follower.notified() => {}
                Some(Ok(run)) = following.join_next(), if !following.is_empty() => {
                    followed.remove(&run);
                }
            }
        }
    }

    async fn to_its_end(&self, tracked: &Tracked) {
        let mut said = None;
        for attempt in 0_u64.. {
            match self.once(tracked).await {
                Ok(()) => break,
                Err(error) => {
                    let text = chain(&error);
                    if said.as_ref() != Some(&text) {
                        tracing::warn!(project = tracked.project, "{text}; trying again");
                        said = Some(text);
                    }
                    tokio::time::sleep(spread(AGAIN_AFTER, &tracked.project, attempt)).await;
                }
            }
        }
    }

    async fn once(&self, tracked: &Tracked) -> Result<(), FollowError> {
        let run = tracked.run;
        let failed = |status: RpcStatus| FollowError::Farm { run, status: Box::new(status) };
        let watched = self.connection.farm().watch_run(WatchRunRequest { run }).await;
        let mut events = match watched {
            Ok(events) => events.into_inner(),
            // Of another farm, or forgotten.
            Err(status) if status.code() == Code::NotFound => return Ok(self.untrack(run).await?),
            Err(status) => return Err(failed(status)),
        };
        let mut told = BTreeMap::new();
        let mut due = Instant::now();
        let mut changed = true;
        loop {
            if changed && due <= Instant::now() {
                if self.tell(tracked, &mut told).await.map_err(failed)?? {
                    return Ok(self.untrack(run).await?);
                }
                (changed, due) = (false, Instant::now() + PROGRESS_EVERY);
            }
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        changed = true;
                        if is_of_state(&event) {
                            due = Instant::now();
                        }
                    }
                    Some(Err(status)) => return Err(failed(status)),
                    None => {
                        let over = self.tell(tracked, &mut told).await.map_err(failed)??;
                        let gone = RpcStatus::unavailable("the coordinator went away");
                        return if over { Ok(self.untrack(run).await?) } else { Err(failed(gone)) };
                    }
                },
                () = tokio::time::sleep_until(due), if changed => {}
            }
        }
    }

    /// Puts what has changed; true where the run is over.
    async fn tell(
        &self,
        tracked: &Tracked,
        told: &mut BTreeMap<String, crate::forge::Status>,
    ) -> Result<Result<bool, LedgerError>, RpcStatus> {
        let request = GetRunRequest { run: tracked.run, with_tests: true };
        let run: Run = self.connection.farm().get_run(request).await?.into_inner();
        let over = run.ended_unix_ms != 0;
        let statuses: Vec<_> = of_run(&run, &tracked.suites, self.run_url.as_deref())
            .into_iter()
            .filter(|status| told.get(&status.context) != Some(status))
            .collect();
        told.extend(statuses.iter().map(|status| (status.context.clone(), status.clone())));
        let (desk, project, now) = (Arc::clone(&self.desk), tracked.project.clone(), clock::unix_ms());
        let number = tracked.run;
        let put = blocking(move || desk.put_of_run(&project, number, statuses, now)).await;
        Ok(put.map(|()| over))
    }

    async fn untrack(&self, run: u64) -> Result<(), LedgerError> {
        let desk = Arc::clone(&self.desk);
        blocking(move || desk.untrack(run)).await
    }
}

fn is_of_state(event: &RunEvent) -> bool {
    matches!(event.event, Some(run_event::Event::Run(_)))
}
