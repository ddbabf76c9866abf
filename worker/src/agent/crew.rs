//! The worker's hands as the link's crew.

use std::time::Duration;

use andon_proto::{BaselineReady, Discovered, LookEnded, LookOpen, Verified};
use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::hands::{Hands, LookLine, Settled, Unfit, WorkFailure};
use crate::link::{Crew, Job, Unit};
use crate::runner::UnitNews;

#[async_trait]
impl Crew for Hands {
    fn driver(&self) -> String {
        Hands::driver(self).to_string()
    }

    fn disk(&self) -> Option<(u64, u64)> {
        Hands::disk(self)
    }

    async fn prepare_baseline(&self, job: Job<'_>) -> Result<BaselineReady, WorkFailure> {
        Hands::prepare_baseline(self, job.run, job.spec, job.notices).await
    }

    async fn discover(
        &self,
        lane: u32,
        job: Job<'_>,
        suite: &str,
        baseline_key: &str,
    ) -> Result<Discovered, WorkFailure> {
        Hands::discover(self, lane, job.run, job.spec, suite, baseline_key, job.notices).await
    }

    async fn execute(
        &self,
        job: Job<'_>,
        unit: Unit,
        news: mpsc::Sender<UnitNews>,
        cancel: CancellationToken,
    ) -> Result<(), WorkFailure> {
        let Unit { lane, suite, baseline_key, tests } = unit;
        Hands::execute(self, lane, job.run, job.spec, &suite, &baseline_key, tests, news, cancel).await
    }

    async fn distrust(&self, lane: u32) {
        Hands::distrust(self, lane).await;
    }

    async fn settle(&self, lane: u32) -> Result<Settled, Unfit> {
        Hands::settle(self, lane).await
    }

    async fn look(&self, open: LookOpen, line: LookLine) -> LookEnded {
        Hands::look(self, open, line).await
    }

    async fn verify(&self, key: &str, limit: Duration) -> Verified {
        Hands::verify(self, key, limit).await
    }
}
