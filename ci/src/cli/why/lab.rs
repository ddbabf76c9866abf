//! The experiments of `andon why`, carried out by the farm: each is a rerun of one test (and of those before it) at the same commit
//! and on the same baseline, several times, in a way that the specification's `asked` says.
//!
//! Invariant: whatever was started is known, so that it can be cancelled.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use andon::connect::Connection;
use andon::download;
use andon::record::SPEC_BYTES_MAX;
use andon::submit;
use andon::why::past::{self, Name};
use andon_proto::{
    Asked, CancelRunRequest, Policy, Provenance, RerunRequest, Run, RunSpec, Trigger, WatchRunRequest,
    run_event::Event,
};
use prost::Message as _;
use tokio_stream::StreamExt as _;
use tokio_util::task::TaskTracker;

use crate::cli::error::CliError;
use crate::cli::show::BY_WHY;
use crate::cli::{clock, follow};
use crate::report::exit;
use crate::report::why::Tried;

/// Between two questions to a coordinator that is away.
const RECONNECT_EVERY: Duration = Duration::from_millis(500);
/// How often it is asked before the search ends.
const RECONNECTS_MAX: u32 = 240;
/// How long runs are cancelled for, when the command ends early.
const CANCEL_TIME_MAX: Duration = Duration::from_secs(10);

/// Runs that were started and not yet seen to end.
#[derive(Debug, Default)]
pub(super) struct Started {
    runs: Arc<Mutex<Vec<u64>>>,
    /// Those of which the farm has not told the number yet.
    asked: TaskTracker,
}

impl Started {
    fn with<T>(&self, change: impl FnOnce(&mut Vec<u64>) -> T) -> T {
        change(&mut self.runs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts one. Whoever asked may be gone when the farm answers: it is known all the same.
    async fn start(&self, connection: &Connection, request: RerunRequest) -> Result<u64, CliError> {
        let (mut farm, runs) = (connection.farm(), Arc::clone(&self.runs));
        let asking = self.asked.spawn(async move {
            let run = farm.rerun(request).await?.into_inner().run;
            runs.lock().unwrap_or_else(PoisonError::into_inner).push(run);
            Ok::<_, tonic::Status>(run)
        });
        Ok(asking.await.expect("asking does not panic")?)
    }

    /// Cancels them; how many there were.
    pub(super) async fn cancel(&self, connection: &Connection, reason: &str) -> usize {
        self.asked.close();
        let mut count = 0;
        let cancelling = async {
            self.asked.wait().await;
            let runs = self.with(std::mem::take);
            count = runs.len();
            for run in runs {
                let request = CancelRunRequest { run, reason: reason.to_owned() };
                // A farm that is away has nothing that could be cancelled from here.
                let _ = connection.farm().cancel_run(request).await;
            }
        };
        let _ = tokio::time::timeout(CANCEL_TIME_MAX, cancelling).await;
        count
    }
}

/// Where an experiment's units should go.
#[derive(Debug, Clone, Default)]
pub(super) struct Where {
    pub(super) on: Vec<String>,
    pub(super) off: Vec<String>,
}

/// One test's laboratory.
pub(super) struct Lab<'a> {
    connection: &'a Connection,
    started: &'a Started,
    run: u64,
    spec: RunSpec,
    test: Name,
    times: u32,
}

impl<'a> Lab<'a> {
    /// For a test of this run.
    pub(super) async fn open(
        connection: &'a Connection,
        started: &'a Started,
        run: &Run,
        test: Name,
        times: u32,
        trigger: Trigger,
    ) -> Result<Self, CliError> {
        let bytes = download::bytes(connection, &run.spec_digest, SPEC_BYTES_MAX).await?;
        let spec = RunSpec::decode(bytes.as_slice())
            .map_err(|error| CliError::infrastructure("the specification cannot be read").because(&error))?;
        Ok(Self { connection, started, run: run.run, spec: for_experiments(spec, trigger), test, times })
    }

    /// Runs the test after these, without a rebase between, so often as was asked, each time on a pristine lane.
    pub(super) async fn try_after(&self, before: &[Name], at: Where) -> Result<Tried, CliError> {
        let run = self.start(before, at).await?;
        let over = self.over(run).await?;
        self.started.with(|runs| runs.retain(|known| *known != run));
        let tallies = past::tries(&over, &self.test, before);
        Ok(Tried { run, tallies, reason: over.reason })
    }

    async fn start(&self, before: &[Name], at: Where) -> Result<u64, CliError> {
        let asked = Asked {
            repeat: self.times,
            in_order: true,
            trial: true,
            on_workers: at.on,
            off_workers: at.off,
            ..Asked::default()
        };
        let spec = RunSpec { asked: Some(asked), ..self.spec.clone() }.encode_to_vec();
        let spec_digest = blake3::hash(&spec).to_hex().to_string();
        submit::put_bytes(self.connection, &spec_digest, spec).await?;
        let tests = before.iter().chain([&self.test]).map(Name::full).collect();
        let request = RerunRequest { run: self.run, tests, spec_digest, ..RerunRequest::default() };
        self.started.start(self.connection, request).await
    }

    /// Waits for a run's end, over restarts of the coordinator.
    async fn over(&self, run: u64) -> Result<Run, CliError> {
        for _ in 0..RECONNECTS_MAX {
            if let Ok(events) = self.connection.farm().watch_run(WatchRunRequest { run }).await {
                let mut events = events.into_inner();
                while let Some(Ok(event)) = events.next().await {
                    if let Some(Event::Run(now)) = event.event
                        && exit::is_over(now.state())
                    {
                        return follow::whole_run(self.connection, run).await;
                    }
                }
            }
            tokio::time::sleep(RECONNECT_EVERY).await;
        }
        Err(CliError::infrastructure("the coordinator has not answered for two minutes"))
    }
}

/// The same commit, stack and suites; each attempt counts as it comes, and nothing stops a run early.
fn for_experiments(mut spec: RunSpec, trigger: Trigger) -> RunSpec {
    for suite in &mut spec.suites {
        suite.retries = 0;
    }
    spec.policy = Some(Policy::default());
    let was = spec.provenance.take().unwrap_or_default();
    spec.provenance = Some(Provenance {
        trigger: trigger.into(),
        requested_by: format!("{}{BY_WHY}", std::env::var("USER").unwrap_or_default()),
        submitted_unix_ms: clock::unix_ms(),
        ..was
    });
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_proto::Suite;

    #[test]
    fn an_experiment_counts_each_attempt_and_is_not_stopped() {
        let policy =
            Policy { fail_fast: true, max_failures: 1, hedge: true, merge: true, ..Policy::default() };
        let suite = Suite { name: "it".into(), retries: 3, rebase_within: true, ..Suite::default() };
        let provenance = Provenance { fork: true, ..Provenance::default() };
        let spec = RunSpec {
            suites: vec![suite],
            policy: Some(policy),
            provenance: Some(provenance),
            ..RunSpec::default()
        };
        let ours = for_experiments(spec, Trigger::Scheduled);
        assert_eq!((ours.suites[0].retries, ours.suites[0].rebase_within), (0, true));
        assert_eq!(ours.policy, Some(Policy::default()));
        let provenance = ours.provenance.unwrap();
        assert!(provenance.fork, "what a fork may not have it still may not");
        assert_eq!(provenance.trigger(), Trigger::Scheduled);
    }
}
