//! Workers that are played: they say what workers say, run nothing, and take their time.

use std::time::Duration;

use andon_proto as wire;
use andon_proto::coordinator_message::Body as Told;
use andon_proto::report::Body as Fact;
use andon_proto::worker_message::Body as Said;
use rand::Rng;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::{Failure, JOIN, made, with};

/// Messages that may wait to be sent.
const OUT: usize = 64;
const HEARTBEAT: Duration = Duration::from_secs(3);

struct Worker {
    seq: u64,
    say: mpsc::Sender<wire::WorkerMessage>,
    hear: Streaming<wire::CoordinatorMessage>,
}

/// Plays a worker with one lane for as long as the coordinator is there.
pub(crate) async fn work(channel: Channel, name: &str) -> Result<(), Failure> {
    let (say, said) = mpsc::channel(OUT);
    let hello = wire::Hello {
        worker: name.into(),
        lanes: 1,
        pool: "reflink".into(),
        driver: "standby".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..wire::Hello::default()
    };
    say.send(wire::WorkerMessage { seq: 1, body: Some(Said::Hello(hello)) }).await?;
    let mut service = wire::work_client::WorkClient::new(channel);
    let hear = service.session(with(JOIN, ReceiverStream::new(said))).await?.into_inner();
    let mut worker = Worker { seq: 1, say, hear };
    worker.ready().await?;
    let mut beat = tokio::time::interval(HEARTBEAT);
    loop {
        let told = tokio::select! {
            told = worker.hear.message() => told?.ok_or("the session was closed")?,
            _ = beat.tick() => {
                worker.say(Said::Heartbeat(wire::Heartbeat::default())).await?;
                continue;
            }
        };
        if let Some(Told::Assign(assign)) = told.body {
            let lease = assign.lease.ok_or("a lease")?;
            worker.carry_out(lease, assign.work.ok_or("work")?).await?;
            worker.ready().await?;
        }
    }
}

impl Worker {
    async fn say(&mut self, body: Said) -> Result<(), Failure> {
        self.seq += 1;
        self.say.send(wire::WorkerMessage { seq: self.seq, body: Some(body) }).await?;
        Ok(())
    }

    async fn report(&mut self, lease: wire::Lease, fact: Fact) -> Result<(), Failure> {
        self.say(Said::Report(wire::Report { lease: Some(lease), body: Some(fact) })).await
    }

    async fn ready(&mut self) -> Result<(), Failure> {
        self.say(Said::LaneReady(wire::LaneReady { lane: 0, baseline_key: String::new() })).await
    }

    async fn carry_out(&mut self, lease: wire::Lease, work: wire::assign::Work) -> Result<(), Failure> {
        match work {
            wire::assign::Work::PrepareBaseline(_) => Ok(()),
            wire::assign::Work::Discover(_) => {
                let found = wire::Discovered { tests: made::names(), log_zstd: Vec::new() };
                self.report(lease, Fact::Discovered(found)).await
            }
            wire::assign::Work::Execute(unit) => {
                for test in &unit.tests {
                    let run_ms = rand::rng().random_range(150..900);
                    tokio::time::sleep(Duration::from_millis(run_ms)).await;
                    let mut result = wire::TestResult { attempt: test.attempt, run_ms, ..Default::default() };
                    result.set_outcome(wire::Outcome::Passed);
                    self.report(lease, Fact::TestResult(result)).await?;
                }
                self.report(lease, Fact::UnitEnded(wire::UnitEnded {})).await
            }
        }
    }
}
