//! A worker that is played: it says what a worker says, and runs nothing.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use andon_proto as wire;
use andon_proto::coordinator_message::Body as Told;
use andon_proto::report::Body as Fact;
use andon_proto::worker_message::Body as Said;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::server::JOIN;
use crate::{Failure, with};

const HEARTBEAT: Duration = Duration::from_secs(3);
/// Messages of one worker that may wait to be sent.
const OUT: usize = 256;

/// What all workers saw.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    begun: AtomicBool,
    acknowledged: AtomicU64,
    dispatch_us: Mutex<Vec<u32>>,
}

pub(crate) struct Figures {
    pub(crate) attempts: u64,
    pub(crate) dispatches: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Measured {
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    pub(crate) fn forget(&self) {
        self.acknowledged.store(0, Ordering::Relaxed);
        self.dispatch_us.lock().expect("nobody panics here").clear();
    }

    pub(crate) fn figures(&self) -> Figures {
        let mut all = self.dispatch_us.lock().expect("nobody panics here").clone();
        all.sort_unstable();
        let at = |part: f64| {
            let place = ((all.len() as f64 * part) as usize).min(all.len().saturating_sub(1));
            all.get(place).map_or(0.0, |us| f64::from(us / 10) / 100.0)
        };
        Figures {
            attempts: self.acknowledged.load(Ordering::Relaxed),
            dispatches: all.len(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
        }
    }
}

/// A worker with a session.
pub(crate) struct Worker {
    seq: u64,
    say: mpsc::Sender<wire::WorkerMessage>,
    hear: Streaming<wire::CoordinatorMessage>,
}

pub(crate) async fn join(channel: Channel, number: u32) -> Result<Worker, Failure> {
    let (say, said) = mpsc::channel(OUT);
    let hello = wire::Hello { worker: format!("w{number}"), lanes: 1, ..wire::Hello::default() };
    say.send(wire::WorkerMessage { seq: 1, body: Some(Said::Hello(hello)) }).await?;
    let mut work = wire::work_client::WorkClient::new(channel);
    let hear = work.session(with(JOIN, ReceiverStream::new(said))).await?.into_inner();
    Ok(Worker { seq: 1, say, hear })
}

/// What each test "prints", no two the same; the coordinator never looks into it.
const LOG_BYTES: usize = 256;

/// Names the tests of all suites, as one worker that then goes away.
pub(crate) async fn discover(channel: Channel, suites: u32, tests: u32) -> Result<(), Failure> {
    let mut worker = join(channel, u32::MAX).await?;
    for suite in 0..suites {
        worker.ready().await?;
        let (lease, _) = worker.assigned().await?;
        let first = u64::from(suite) * u64::from(tests) / u64::from(suites);
        let end = u64::from(suite + 1) * u64::from(tests) / u64::from(suites);
        // Ten tests share a file, for units of more than one.
        let name = |n| format!("tests/test_{:06}.py::test_{n:07}", n / 10);
        let found = wire::Discovered { tests: (first..end).map(name).collect(), log_zstd: Vec::new() };
        let seq = worker.report(lease, Fact::Discovered(found)).await?;
        worker.acknowledged(seq).await?;
    }
    Ok(())
}

impl Worker {
    async fn say(&mut self, body: Said) -> Result<u64, Failure> {
        self.seq += 1;
        self.say.send(wire::WorkerMessage { seq: self.seq, body: Some(body) }).await?;
        Ok(self.seq)
    }

    async fn report(&mut self, lease: wire::Lease, fact: Fact) -> Result<u64, Failure> {
        self.say(Said::Report(wire::Report { lease: Some(lease), body: Some(fact) })).await
    }

    async fn ready(&mut self) -> Result<(), Failure> {
        self.say(Said::LaneReady(wire::LaneReady { lane: 0, baseline_key: String::new() })).await?;
        Ok(())
    }

    async fn told(&mut self) -> Result<Told, Failure> {
        loop {
            let message = self.hear.message().await?.ok_or("the session was closed")?;
            if let Some(body) = message.body {
                return Ok(body);
            }
        }
    }

    async fn assigned(&mut self) -> Result<(wire::Lease, wire::assign::Work), Failure> {
        loop {
            if let Told::Assign(assign) = self.told().await? {
                return Ok((assign.lease.ok_or("no lease")?, assign.work.ok_or("no work")?));
            }
        }
    }

    async fn acknowledged(&mut self, seq: u64) -> Result<(), Failure> {
        loop {
            if matches!(self.told().await?, Told::Ack(ack) if ack.seq >= seq) {
                return Ok(());
            }
        }
    }

    /// Takes units until it is stopped.
    pub(crate) async fn work(mut self, think: Duration, measured: &Measured) -> Result<(), Failure> {
        while !measured.begun.load(Ordering::Acquire) {
            self.idle(Duration::from_millis(100)).await?;
        }
        // Workers do not begin in step.
        let offset: f64 = rand::random();
        self.idle(think.mul_f64(offset)).await?;
        let mut unacknowledged = std::collections::VecDeque::new();
        let mut beat = tokio::time::interval(HEARTBEAT);
        self.ready().await?;
        let mut offered = Instant::now();
        let mut held = Vec::new();
        loop {
            let told = tokio::select! {
                told = self.told() => told?,
                _ = beat.tick() => {
                    self.say(Said::Heartbeat(wire::Heartbeat { held: held.clone(), ..wire::Heartbeat::default() })).await?;
                    continue;
                }
            };
            match told {
                Told::Assign(assign) => {
                    let waited = u32::try_from(offered.elapsed().as_micros()).unwrap_or(u32::MAX);
                    measured.dispatch_us.lock().expect("nobody panics here").push(waited);
                    let lease = assign.lease.ok_or("no lease")?;
                    let Some(wire::assign::Work::Execute(unit)) = assign.work else { continue };
                    held = vec![lease];
                    self.idle(think).await?;
                    for test in &unit.tests {
                        let mut result = wire::TestResult {
                            attempt: test.attempt,
                            run_ms: 7,
                            log_zstd: rand::random::<[u8; LOG_BYTES]>().to_vec(),
                            ..wire::TestResult::default()
                        };
                        result.set_outcome(wire::Outcome::Passed);
                        let seq = self.report(lease, Fact::TestResult(result)).await?;
                        unacknowledged.push_back(seq);
                    }
                    self.report(lease, Fact::UnitEnded(wire::UnitEnded {})).await?;
                    held.clear();
                    offered = Instant::now();
                    self.ready().await?;
                }
                Told::Ack(ack) => {
                    let before = unacknowledged.len();
                    unacknowledged.retain(|seq| *seq > ack.seq);
                    let now = (before - unacknowledged.len()) as u64;
                    measured.acknowledged.fetch_add(now, Ordering::Relaxed);
                }
                _ => {}
            }
        }
    }

    /// Time in which what comes waits.
    async fn idle(&mut self, time: Duration) -> Result<(), Failure> {
        tokio::time::sleep(time).await;
        Ok(())
    }
}
