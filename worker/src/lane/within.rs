//! Rebases that a unit's own tests ask for while they run.
//!
//! Must not know how a unit runs or how a stand is put back. Invariants: the unit runs on while its stack is put back, so that its
//! limits and its cancellation hold; where the stack cannot be put back the unit is ended, as the farm's failure.

use std::pin::Pin;
use std::time::Duration;

use andon_proto::Footprint as Measured;
use andon_snapshot::Changes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::Lane;
use super::doomed::Doomed;
use super::door::{Answer, Door};
use super::laps::Laps;
use crate::hands::{WorkFailure, told_changes};
use crate::runner::{Cell, Rebases, UnitNews};

/// How long a unit that is over waits for what its rebases measure.
const MEASURE_LIMIT: Duration = Duration::from_secs(10);

type Running<'a> = Pin<Box<dyn Future<Output = Result<(), WorkFailure>> + Send + 'a>>;

/// Footprints that are being measured, with whom they belong to.
type Measuring = JoinSet<Option<Measured>>;

impl Lane {
    /// Answers the door until the unit is over.
    pub(super) async fn attend(
        &mut self,
        mut running: Running<'_>,
        cell: &Cell,
        mut door: Door,
        rebases: &Rebases,
        news: &mpsc::Sender<UnitNews>,
    ) -> Result<(), WorkFailure> {
        let mut measuring = Measuring::new();
        loop {
            let knock = tokio::select! {
                biased;
                ended = &mut running => {
                    drop(door);
                    told(measuring, news).await;
                    return ended;
                }
                Some(knock) = door.next() => knock,
                Some(Ok(Some(measured))) = measuring.join_next() => {
                    let _ = news.send(UnitNews::Footprint(measured)).await;
                    continue;
                }
            };
            let mut ended = None;
            let answer = {
                let rebase = self.rebase_within(rebases, &mut measuring);
                let mut rebase = std::pin::pin!(rebase);
                loop {
                    tokio::select! {
                        biased;
                        answer = &mut rebase => break answer,
                        over = &mut running, if ended.is_none() => ended = Some(over),
                    }
                }
            };
            let failed = match &answer {
                Answer::Failed(reason) => Some(reason.clone()),
                _ => None,
            };
            knock.answer(answer);
            if let Some(ended) = ended {
                told(measuring, news).await;
                return ended;
            }
            if let Some(reason) = failed {
                cell.kill().await;
                return Err(WorkFailure::infrastructure(format!(
                    "the stack could not be put back between two tests: {reason}"
                )));
            }
        }
    }

    async fn rebase_within(&mut self, rebases: &Rebases, measuring: &mut Measuring) -> Answer {
        if self.stands.ground().is_none() {
            return Answer::NoStack;
        }
        let mut laps = Laps::start();
        self.keep_service_logs(rebases).await;
        laps.lap("logs kept");
        let attempts = rebases.begin();
        let turned = self.turn_within(&mut laps).await;
        let last = self.stands.last().clone();
        rebases.end(last.took, last.driver);
        match turned {
            Ok(footprint) => {
                // What nothing had ended before is part of what comes next.
                if let Some(footprint) = footprint.filter(|_| !attempts.is_empty()) {
                    measuring.spawn(measured(attempts, footprint));
                }
                Answer::Rebased { driver: last.driver, took: last.took }
            }
            Err(reason) => {
                self.distrusted = true;
                Answer::Failed(reason)
            }
        }
    }

    /// As between two units, but that the box stays.
    async fn turn_within(&mut self, laps: &mut Laps) -> Result<Option<oneshot::Receiver<Changes>>, String> {
        if let Some(used_box) = &self.used_box {
            used_box.clear_outfit().await?;
        }
        laps.lap("outfit cleared");
        self.keep_what_failed();
        let turned = self.stands.turn(&Doomed::nobody()).await.map_err(|reasons| reasons.join("; "))?;
        laps.lap("put back");
        if let (Some(way), Some(used_box)) = (self.stands.way(), self.used_box.as_mut()) {
            used_box.lead_to(&way).await.map_err(|failure| failure.reason)?;
        }
        laps.lap("box led");
        self.stands.use_up(&self.user);
        self.remember_services();
        laps.lap("told");
        tracing::debug!(?laps, "put back within a unit");
        Ok(turned)
    }
}

async fn measured(attempts: Vec<u64>, changes: oneshot::Receiver<Changes>) -> Option<Measured> {
    Some(told_changes(attempts, changes.await.ok()?))
}

/// Tells what is still being measured.
async fn told(mut measuring: Measuring, news: &mpsc::Sender<UnitNews>) {
    let telling = async {
        while let Some(measured) = measuring.join_next().await {
            if let Ok(Some(measured)) = measured {
                let _ = news.send(UnitNews::Footprint(measured)).await;
            }
        }
    };
    // What is not told then is not known: the tests' verdicts are none the worse.
    let _ = tokio::time::timeout(MEASURE_LIMIT, telling).await;
}
