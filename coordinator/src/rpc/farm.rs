//! The clients' service: submit, rerun, look, watch, cancel.

use std::pin::Pin;

use andon_core::ids::RunId;
use andon_core::model::{Outcome, RunHeader, RunState, Start, Trigger};
use andon_figures::text;
use andon_proto as wire;
use andon_proto::farm_server::Farm as FarmApi;
use andon_proto::run_event::Event;
use futures::Stream;
use prost::Message;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{blobs, choice, convert, figures, inexact, internal, log_text, look, needs, planned};
use crate::blobs::Digest;
use crate::drift;
use crate::driver::{Command, Farm};
use crate::plan::{self, plan_of};
use crate::roles::Role;
use crate::store::{AttemptRow, Cause, ImageRow, InexactFilter, RunFilter, RunRow, StoreError, TestRow};
use crate::verifying::{self, AskError};
use crate::watch::Change;

const LIST_DEFAULT: u32 = 20;
const LIST_MAX: u32 = 1_000;
const EVENTS_AHEAD: usize = 256;
const DEDUP_KEY_MAX: usize = 512;
/// What `andon why` finds.
const FINDINGS: [&str; 5] = ["real", "flaky", "polluted", "worker_specific", UNCLEAR];
/// Says nothing that another finding would not say better.
const UNCLEAR: &str = "unclear";
/// Kept of why a test failed.
const CAUSE_CHARS_MAX: usize = 500;

pub(super) struct FarmService {
    farm: Farm,
}

impl FarmService {
    pub(super) fn new(farm: Farm) -> Self {
        Self { farm }
    }

    async fn row(&self, run: u64) -> Result<RunRow, Status> {
        let row = self.farm.store.run(RunId(run)).await.map_err(|error| internal(&error))?;
        row.ok_or_else(|| Status::not_found(format!("there is no run {run}")))
    }

    /// A run with its tests still there.
    async fn whole_row(&self, run: u64) -> Result<RunRow, Status> {
        match self.row(run).await? {
            row if row.forgotten => {
                let text = format!("the tests and logs of run {run} were deleted: it ended too long ago");
                Err(Status::failed_precondition(text))
            }
            row => Ok(row),
        }
    }

    /// An attempt of the named test; 0 for the last that counts.
    async fn attempt(&self, run: RunId, test: &str, attempt: u64) -> Result<AttemptRow, Status> {
        let tests = self.farm.store.tests(run).await.map_err(|error| internal(&error))?;
        let named = tests.into_iter().find(|row| choice::is_named(row, test));
        let named = named.ok_or_else(|| Status::not_found(format!("run {run} has no test {test:?}")))?;
        pick_attempt(named, attempt)
    }

    /// The specification, checked as far as the coordinator relies on it.
    async fn spec(&self, digest: &str) -> Result<wire::RunSpec, Status> {
        let digest = Digest::parse(digest).map_err(|error| blobs::status(&error))?;
        // From here on it stays until there is a run that refers to it.
        let _ = self.farm.blobs.has(&digest).await;
        let bytes = self.farm.blobs.read(&digest).await.map_err(|error| blobs::status(&error))?;
        let spec = wire::RunSpec::decode(bytes.as_slice()).map_err(|error| {
            Status::invalid_argument(format!("the specification cannot be read: {error}"))
        })?;
        let source = Digest::parse(&spec.source_digest).map_err(|error| blobs::status(&error))?;
        if !self.farm.blobs.has(&source).await {
            return Err(Status::failed_precondition("the source archive is not in the blob store"));
        }
        Ok(spec)
    }

    /// Whether a run that was starts from the same baseline as this specification would.
    async fn made_alike(&self, earlier: &RunRow, spec: &wire::RunSpec) -> bool {
        let known = self.spec(&earlier.header.spec_digest).await;
        known.is_ok_and(|known| plan::same_baseline(&known, spec))
    }

    async fn submit(
        &self,
        spec: &wire::RunSpec,
        header: RunHeader,
        start: Start,
    ) -> Result<Response<wire::SubmitRunResponse>, Status> {
        let mut plan = plan_of(spec).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if header.trigger == Trigger::Rerun {
            // Who reruns wants to see it happen again.
            plan.merge_key = None;
        }
        let (reply, answer) = oneshot::channel();
        self.farm.command(Command::Submit { header, plan, start, reply }).await;
        let submitted = answer.await.map_err(|_| Status::unavailable("the coordinator is stopping"))?;
        Ok(Response::new(wire::SubmitRunResponse { run: submitted.run.0, existed: submitted.existed }))
    }

    /// Some of an earlier run's tests once more; `requested_by` in place of who asked for that run.
    pub(super) async fn again(
        &self,
        mut request: wire::RerunRequest,
        requested_by: Option<String>,
    ) -> Result<Response<wire::SubmitRunResponse>, Status> {
        let dedup_key = dedup_key(std::mem::take(&mut request.dedup_key))?;
        let earlier = self.whole_row(request.run).await?;
        let same = request.spec_digest.is_empty() || request.spec_digest == earlier.header.spec_digest;
        let spec_digest = if same { earlier.header.spec_digest.clone() } else { request.spec_digest.clone() };
        let spec = self.spec(&spec_digest).await?;
        if spec.project != earlier.header.project {
            let text = format!("run {} is of project {}", request.run, earlier.header.project);
            return Err(Status::invalid_argument(text));
        }
        let tests = self.farm.store.tests(earlier.run).await.map_err(|error| internal(&error))?;
        let mut chosen = choice::choose(&request, tests)?;
        if spec.asked.as_ref().is_some_and(|asked| asked.in_order) {
            chosen = choice::in_order(&request, chosen);
        }
        let mut header = header_of(&spec, spec_digest);
        header.git_ref.clone_from(&earlier.header.git_ref);
        // A search that a clock started stays behind other work.
        if same || header.trigger != Trigger::Scheduled {
            header.trigger = Trigger::Rerun;
        }
        header.rerun_of = Some(earlier.run);
        if let Some(requested_by) = requested_by {
            header.requested_by = requested_by;
        }
        header.dedup_key = dedup_key;
        // Another specification of the very same baseline, which says how its tests are to be run.
        let same = same || self.made_alike(&earlier, &spec).await;
        let pinned = same && !earlier.baseline_key.is_empty();
        let baseline = pinned.then_some(earlier.baseline_key);
        self.submit(&spec, header, Start::Chosen { tests: chosen, baseline }).await
    }
}

#[tonic::async_trait]
impl FarmApi for FarmService {
    async fn submit_run(
        &self,
        request: Request<wire::SubmitRunRequest>,
    ) -> Result<Response<wire::SubmitRunResponse>, Status> {
        needs(&request, Role::Developer)?;
        let request = request.into_inner();
        let dedup_key = dedup_key(request.dedup_key)?;
        let spec = self.spec(&request.spec_digest).await?;
        let mut header = header_of(&spec, request.spec_digest);
        header.dedup_key = dedup_key;
        let start = match request.tests {
            tests if tests.is_empty() => Start::Discover,
            tests => choice::start(self.farm.store.as_ref(), &spec, tests).await?,
        };
        self.submit(&spec, header, start).await
    }

    async fn rerun(
        &self,
        request: Request<wire::RerunRequest>,
    ) -> Result<Response<wire::SubmitRunResponse>, Status> {
        needs(&request, Role::Developer)?;
        self.again(request.into_inner(), None).await
    }

    async fn plan_run(
        &self,
        request: Request<wire::PlanRunRequest>,
    ) -> Result<Response<wire::PlanRunResponse>, Status> {
        planned::run(&self.farm, request.into_inner()).await.map(Response::new)
    }

    async fn list_flaky(
        &self,
        request: Request<wire::ListFlakyRequest>,
    ) -> Result<Response<wire::ListFlakyResponse>, Status> {
        planned::flaky(&self.farm, request.into_inner()).await.map(Response::new)
    }

    async fn tell_cause(
        &self,
        request: Request<wire::TellCauseRequest>,
    ) -> Result<Response<wire::TellCauseResponse>, Status> {
        needs(&request, Role::Developer)?;
        let wire::TellCauseRequest { run, suite, id, finding, said } = request.into_inner();
        if !FINDINGS.contains(&finding.as_str()) {
            let known = FINDINGS.join(", ");
            return Err(Status::invalid_argument(format!(
                "there is no finding {finding:?}; there are: {known}"
            )));
        }
        let row = self.whole_row(run).await?;
        let tests = self.farm.store.tests(row.run).await.map_err(|error| internal(&error))?;
        if !tests.iter().any(|test| test.suite == suite && test.id == id) {
            return Err(Status::not_found(format!("run {run} has no test {suite}/{id}")));
        }
        let told_unix_ms = self.farm.clock.now().unix_ms;
        let cause = Cause { run: row.run, told_unix_ms, finding, said: text::cut(&said, CAUSE_CHARS_MAX) };
        let project = &row.header.project;
        let store = &self.farm.store;
        let is_known_better = cause.finding == UNCLEAR
            && store.cause(project, &suite, &id).await.map_err(|error| internal(&error))?.is_some();
        if !is_known_better {
            store.put_cause(project, &suite, &id, &cause).await.map_err(|error| internal(&error))?;
        }
        Ok(Response::new(wire::TellCauseResponse {}))
    }

    async fn get_run(&self, request: Request<wire::GetRunRequest>) -> Result<Response<wire::Run>, Status> {
        let request = request.into_inner();
        let row = self.row(request.run).await?;
        let id = row.run;
        let mut run = convert::run(row);
        if request.with_tests {
            let tests = self.farm.store.tests(id).await.map_err(|error| internal(&error))?;
            let told = self.farm.owning.of(&run.spec_digest).await;
            let owners = told.of_tests(tests.iter().map(|test| test.id.as_str()));
            let test = |(row, owners): (TestRow, Vec<String>)| {
                let quarantine = told.quarantine_of(&row.suite, &row.id);
                convert::test(row, owners, quarantine)
            };
            run.tests = tests.into_iter().zip(owners).map(test).collect();
        }
        Ok(Response::new(run))
    }

    async fn list_runs(
        &self,
        request: Request<wire::ListRunsRequest>,
    ) -> Result<Response<wire::ListRunsResponse>, Status> {
        let request = request.into_inner();
        let some = |text: String| (!text.is_empty()).then_some(text);
        let limit = if request.limit == 0 { LIST_DEFAULT } else { request.limit.min(LIST_MAX) };
        let filter = RunFilter { project: some(request.project), commit: some(request.commit), limit };
        let rows = self.farm.store.runs(&filter).await.map_err(|error| internal(&error))?;
        Ok(Response::new(wire::ListRunsResponse { runs: rows.into_iter().map(convert::run).collect() }))
    }

    type WatchRunStream = Pin<Box<dyn Stream<Item = Result<wire::RunEvent, Status>> + Send>>;

    async fn watch_run(
        &self,
        request: Request<wire::WatchRunRequest>,
    ) -> Result<Response<Self::WatchRunStream>, Status> {
        let run = self.row(request.into_inner().run).await?.run;
        let (sender, receiver) = mpsc::channel(EVENTS_AHEAD);
        // Subscribed, then read, then answered: whoever has the answer misses nothing of what happens next, and what
        // happens meanwhile is told twice rather than not at all.
        let changes = self.farm.watchers.subscribe(run);
        let now = self.row(run.0).await?;
        tokio::spawn(watch(self.farm.clone(), now, changes, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn get_log(
        &self,
        request: Request<wire::GetLogRequest>,
    ) -> Result<Response<wire::GetLogResponse>, Status> {
        let request = request.into_inner();
        let row = self.whole_row(request.run).await?;
        if request.test.is_empty() {
            let notes = self.farm.store.notes(row.run).await.map_err(|error| internal(&error))?;
            return Ok(Response::new(wire::GetLogResponse {
                text: log_text::of_run(notes, request.since_unix_ms),
                attempt: 0,
            }));
        }
        let attempt = self.attempt(row.run, &request.test, request.attempt).await?;
        let output =
            self.farm.store.output(row.run, attempt.attempt).await.map_err(|error| internal(&error))?;
        let broke_off = attempt.outcome == Some(Outcome::Infrastructure);
        let text = log_text::of_attempt(output, broke_off);
        Ok(Response::new(wire::GetLogResponse { text, attempt: attempt.attempt.0 }))
    }

    async fn get_artifacts(
        &self,
        request: Request<wire::GetArtifactsRequest>,
    ) -> Result<Response<wire::GetArtifactsResponse>, Status> {
        let request = request.into_inner();
        let run = self.whole_row(request.run).await?.run;
        let attempt = self.attempt(run, &request.test, request.attempt).await?.attempt;
        let kept = self.farm.store.artifacts(run, attempt).await.map_err(|error| internal(&error))?;
        let nothing = || {
            let text = format!(
                "nothing was kept of attempt {} of {}: it left no file in $ANDON_ARTIFACTS, and failed on no services",
                attempt.0, request.test
            );
            Status::not_found(text)
        };
        let artifacts = Some(convert::artifacts_told(kept.ok_or_else(nothing)?));
        Ok(Response::new(wire::GetArtifactsResponse { artifacts, attempt: attempt.0 }))
    }

    async fn get_drift(
        &self,
        request: Request<wire::GetDriftRequest>,
    ) -> Result<Response<wire::GetDriftResponse>, Status> {
        let request = request.into_inner();
        let run = self.whole_row(request.run).await?.run;
        if request.test.is_empty() {
            let all = drift::of_run(self.farm.store.as_ref(), run).await.map_err(|error| internal(&error))?;
            let tests = all.into_iter().map(convert::drift_told).collect();
            return Ok(Response::new(wire::GetDriftResponse { tests, ..Default::default() }));
        }
        let attempt = self.attempt(run, &request.test, request.attempt).await?.attempt;
        let changes = self.farm.store.changes(run, attempt).await.map_err(|error| internal(&error))?;
        let changes = changes.unwrap_or_default();
        Ok(Response::new(wire::GetDriftResponse { changes, attempt: attempt.0, ..Default::default() }))
    }

    async fn cancel_run(
        &self,
        request: Request<wire::CancelRunRequest>,
    ) -> Result<Response<wire::CancelRunResponse>, Status> {
        needs(&request, Role::Developer)?;
        let request = request.into_inner();
        let row = self.row(request.run).await?;
        let (reply, answer) = oneshot::channel();
        self.farm.command(Command::Cancel { run: row.run, reason: request.reason, reply }).await;
        let was_running = answer.await.map_err(|_| Status::unavailable("the coordinator is stopping"))?;
        Ok(Response::new(wire::CancelRunResponse { was_running }))
    }

    async fn list_workers(
        &self,
        _: Request<wire::ListWorkersRequest>,
    ) -> Result<Response<wire::ListWorkersResponse>, Status> {
        let counts = self.farm.store.inexact_counts().await.map_err(|error| internal(&error))?;
        let workers = self.farm.sessions.list().into_iter();
        let workers = workers
            .map(|(name, view)| wire::Worker {
                inexact: counts.get(&name).copied().unwrap_or(0),
                name: name.0,
                connected: view.session.is_some(),
                lanes: view.lanes,
                lanes_busy: view.lanes_busy,
                version: view.version,
                pool: view.pool,
                driver: view.driver,
                unfit: view.unfit,
                connected_unix_ms: view.connected_unix_ms,
            })
            .collect();
        Ok(Response::new(wire::ListWorkersResponse { workers }))
    }

    async fn list_baselines(
        &self,
        _: Request<wire::ListBaselinesRequest>,
    ) -> Result<Response<wire::ListBaselinesResponse>, Status> {
        let stored = self.farm.store.baselines().await.map_err(|error| internal(&error))?;
        let baselines = stored.iter().map(|bytes| wire::BaselineManifest::decode(bytes.as_slice()));
        let baselines = baselines.collect::<Result<_, _>>().map_err(|error| internal(&error))?;
        Ok(Response::new(wire::ListBaselinesResponse { baselines }))
    }

    async fn list_inexact(
        &self,
        request: Request<wire::ListInexactRequest>,
    ) -> Result<Response<wire::ListInexactResponse>, Status> {
        let wire::ListInexactRequest { worker, baseline_key, limit } = request.into_inner();
        let some = |text: String| (!text.is_empty()).then_some(text);
        let limit = if limit == 0 { LIST_DEFAULT } else { limit.min(LIST_MAX) };
        let filter = InexactFilter { worker: some(worker), baseline_key: some(baseline_key), limit };
        let rows = self.farm.store.inexact(&filter).await.map_err(|error| internal(&error))?;
        Ok(Response::new(wire::ListInexactResponse { told: rows.into_iter().map(inexact::told).collect() }))
    }

    async fn verify_baseline(
        &self,
        request: Request<wire::VerifyBaselineRequest>,
    ) -> Result<Response<wire::VerifyBaselineResponse>, Status> {
        needs(&request, Role::Developer)?;
        let wire::VerifyBaselineRequest { baseline_key, worker } = request.into_inner();
        let asked = verifying::ask(&self.farm, &baseline_key, &worker).await;
        let workers = asked.map_err(|error| match &error {
            AskError::Busy => Status::resource_exhausted(error.to_string()),
            AskError::NoWorker { .. } | AskError::NoBaseline(_) => Status::not_found(error.to_string()),
            AskError::Store(_) => internal(&error),
        })?;
        Ok(Response::new(wire::VerifyBaselineResponse { workers }))
    }

    async fn get_figures(
        &self,
        request: Request<wire::GetFiguresRequest>,
    ) -> Result<Response<wire::GetFiguresResponse>, Status> {
        figures::answer(&self.farm, request.into_inner()).await.map(Response::new)
    }

    type LookStream = look::Answers<wire::LookOut>;

    async fn look(
        &self,
        request: Request<Streaming<wire::LookIn>>,
    ) -> Result<Response<Self::LookStream>, Status> {
        needs(&request, Role::Developer)?;
        let mut incoming = request.into_inner();
        let open = look::opened(&mut incoming).await?;
        let run = self.whole_row(open.run).await?.run;
        let tests = self.farm.store.tests(run).await.map_err(|error| internal(&error))?;
        let attempt = look::failed_attempt(tests, &open)?;
        Ok(look::look(&self.farm, incoming, open, attempt))
    }

    async fn add_image(
        &self,
        request: Request<wire::SharedImage>,
    ) -> Result<Response<wire::AddImageResponse>, Status> {
        needs(&request, Role::Admin)?;
        let image = request.into_inner();
        let digest = Digest::parse(&image.blob_digest).map_err(|error| blobs::status(&error))?;
        if image.reference.is_empty() || !image.image_id.starts_with("sha256:") {
            return Err(Status::invalid_argument("an image needs a reference and an id (sha256:…)"));
        }
        if !self.farm.blobs.has(&digest).await {
            return Err(Status::failed_precondition("the image's bytes are not in the blob store"));
        }
        let row = ImageRow {
            reference: image.reference,
            image_id: image.image_id,
            blob_digest: image.blob_digest,
            blob_size: image.blob_size,
        };
        self.farm.store.put_image(&row).await.map_err(|error| internal(&error))?;
        Ok(Response::new(wire::AddImageResponse {}))
    }

    async fn find_image(
        &self,
        request: Request<wire::FindImageRequest>,
    ) -> Result<Response<wire::FindImageResponse>, Status> {
        needs(&request, Role::Admin)?;
        let known = self.farm.store.image(&request.into_inner().reference).await;
        let Some(row) = known.map_err(|error| internal(&error))? else {
            return Ok(Response::new(wire::FindImageResponse::default()));
        };
        let digest = Digest::parse(&row.blob_digest).map_err(|error| blobs::status(&error))?;
        let is_here = self.farm.blobs.has(&digest).await;
        Ok(Response::new(wire::FindImageResponse { image: is_here.then(|| convert::image(row)) }))
    }
}

fn dedup_key(key: String) -> Result<Option<String>, Status> {
    if key.len() > DEDUP_KEY_MAX {
        return Err(Status::invalid_argument(format!("a dedup key has at most {DEDUP_KEY_MAX} bytes")));
    }
    Ok((!key.is_empty()).then_some(key))
}

fn header_of(spec: &wire::RunSpec, spec_digest: String) -> RunHeader {
    RunHeader {
        project: spec.project.clone(),
        repository: spec.repository.clone(),
        commit: spec.commit.clone(),
        git_ref: spec.git_ref.clone(),
        trigger: convert::trigger_of(spec.provenance.as_ref()),
        requested_by: spec.provenance.as_ref().map(|p| p.requested_by.clone()).unwrap_or_default(),
        spec_digest,
        dedup_key: None,
        rerun_of: None,
    }
}

fn pick_attempt(mut test: TestRow, wanted: u64) -> Result<AttemptRow, Status> {
    let numbers: Vec<_> = test.attempts.iter().map(|a| a.attempt.0).collect();
    let found = match wanted {
        0 => choice::counted(&test).cloned().or_else(|| test.attempts.pop()),
        wanted => test.attempts.into_iter().find(|a| a.attempt.0 == wanted),
    };
    found.ok_or_else(|| Status::not_found(format!("its attempts are {numbers:?}")))
}

type Events = mpsc::Sender<Result<wire::RunEvent, Status>>;

/// The run as it is, then each change, until it ends or nobody listens. A watcher that fell behind is given the run as
/// it is now: states and counts are never wrong, only single verdicts must then be read from the run.
async fn watch(farm: Farm, now: RunRow, mut changes: broadcast::Receiver<Change>, events: Events) {
    let run = now.run;
    let mut ended = is_end(now.state);
    if !tell(&events, Event::Run(convert::run(now))).await {
        return;
    }
    while !ended {
        let change = tokio::select! {
            () = farm.stop.cancelled() => {
                let _ = events.send(Err(Status::unavailable("the coordinator is stopping"))).await;
                return;
            }
            () = events.closed() => return,
            change = changes.recv() => change,
        };
        let told = match change {
            Ok(Change::Verdict(test)) => tell_verdict(&farm, run, test, &events).await,
            Ok(Change::Note(text)) => tell(&events, Event::Notice(text)).await.then_some(false),
            Ok(Change::Moved(state)) => tell_run(&farm, run, Some(state), &events).await,
            Err(broadcast::error::RecvError::Lagged(_)) => tell_run(&farm, run, None, &events).await,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        match told {
            Some(now_ended) => ended = now_ended,
            None => return,
        }
    }
}

async fn tell(events: &Events, event: Event) -> bool {
    events.send(Ok(wire::RunEvent { event: Some(event) })).await.is_ok()
}

async fn tell_error(events: &Events, error: &StoreError) {
    let _ = events.send(Err(internal(error))).await;
}

fn is_end(state: RunState) -> bool {
    matches!(state, RunState::Ended(_))
}

/// The run as the store has it. `since` is the state whose change is told; `None` tells whatever there is. The store may
/// already say that a run has ended while verdicts of its last moments are still to be told: then the end waits for its
/// own change, which comes after them.
///
/// `Some(true)` where the end was told, `None` where nobody listens any more.
async fn tell_run(farm: &Farm, run: RunId, since: Option<RunState>, events: &Events) -> Option<bool> {
    match farm.store.run(run).await {
        Ok(Some(row)) if is_end(row.state) && since.is_some_and(|state| !is_end(state)) => Some(false),
        Ok(Some(row)) => {
            let ended = is_end(row.state);
            tell(events, Event::Run(convert::run(row))).await.then_some(ended)
        }
        Ok(None) => None,
        Err(error) => {
            tell_error(events, &error).await;
            None
        }
    }
}

async fn tell_verdict(
    farm: &Farm,
    run: RunId,
    test: andon_core::ids::TestIx,
    events: &Events,
) -> Option<bool> {
    let told = async {
        let row = farm.store.run(run).await?;
        let owners = match &row {
            Some(row) => Some(farm.owning.of(&row.header.spec_digest).await),
            None => None,
        };
        let verdict = farm.store.test(run, test).await?.map(|row| {
            let of_test = owners.as_ref().map(|told| told.of_test(&row.id)).unwrap_or_default();
            let quarantine = owners.as_ref().and_then(|told| told.quarantine_of(&row.suite, &row.id));
            Event::Verdict(convert::test(row, of_test, quarantine))
        });
        let counts = row.map(|row| Event::Counts(convert::counts(row.counts)));
        for event in verdict.into_iter().chain(counts) {
            if !tell(events, event).await {
                return Ok(None);
            }
        }
        Ok(Some(false))
    };
    match told.await {
        Ok(told) => told,
        Err(error) => {
            tell_error(events, &error).await;
            None
        }
    }
}
