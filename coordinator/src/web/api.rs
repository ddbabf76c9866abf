//! The JSON API: the views as they are, read-only, under `/api/v1`. The document at `/api/v1/openapi.json` is made of the table that the
//! routes are made of, and of the types that are answered with, so that neither can be without the other.

use axum::Router;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Of};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{MethodRouter, get};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::State;
use crate::views::{self, ProjectAsk, TestsAsk, ViewError};

/// What went wrong, in words.
#[derive(Debug, Serialize, JsonSchema)]
struct Refusal {
    error: String,
}

/// An answer that is none.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    error: String,
}

impl From<ViewError> for ApiError {
    fn from(error: ViewError) -> Self {
        let status = match &error {
            ViewError::NotFound(_) => StatusCode::NOT_FOUND,
            ViewError::BadAsk(_) => StatusCode::BAD_REQUEST,
            ViewError::Store(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a request failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self { status, error: error.to_string() }
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error: rejection.body_text() }
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error: rejection.body_text() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(Refusal { error: self.error })).into_response()
    }
}

type Answer<T> = Result<Json<T>, ApiError>;
type Asked<T> = Result<Query<T>, QueryRejection>;
type In<T> = Result<Path<T>, PathRejection>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageAsk {
    before: Option<u64>,
    limit: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TestAsk {
    suite: String,
    id: String,
    before: Option<u64>,
    limit: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogAsk {
    attempt: Option<u64>,
}

async fn overview(Of(state): Of<State>) -> Answer<views::Overview> {
    Ok(Json(state.views.overview().await?))
}

async fn runs(Of(state): Of<State>, ask: Asked<PageAsk>) -> Answer<views::Page<views::RunLine>> {
    let Query(ask) = ask?;
    Ok(Json(state.views.runs(ask.before, ask.limit).await?))
}

async fn run(Of(state): Of<State>, run: In<u64>) -> Answer<views::Run> {
    Ok(Json(state.views.run(run?.0).await?))
}

async fn tests(
    Of(state): Of<State>,
    run: In<u64>,
    ask: Asked<TestsAsk>,
) -> Answer<views::Page<views::TestLine>> {
    let Query(ask) = ask?;
    Ok(Json(state.views.tests(run?.0, &ask).await?))
}

async fn timeline(Of(state): Of<State>, run: In<u64>) -> Answer<views::Timeline> {
    Ok(Json(state.views.timeline(run?.0).await?))
}

async fn test_of_run(Of(state): Of<State>, at: In<(u64, u32)>) -> Answer<views::TestOfRun> {
    let Path((run, test)) = at?;
    Ok(Json(state.views.test_of_run(run, test).await?))
}

async fn log_of_run(Of(state): Of<State>, run: In<u64>) -> Result<Response, ApiError> {
    Ok(text(state.views.log(run?.0, None, None).await?))
}

async fn log_of_test(
    Of(state): Of<State>,
    at: In<(u64, u32)>,
    ask: Asked<LogAsk>,
) -> Result<Response, ApiError> {
    let (Path((run, test)), Query(ask)) = (at?, ask?);
    Ok(text(state.views.log(run, Some(test), ask.attempt).await?))
}

/// As text, whatever it holds: a browser must not take it for a page.
fn text(log: views::Log) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, log.text).into_response()
}

async fn commit(Of(state): Of<State>, prefix: In<String>) -> Answer<Vec<views::RunLine>> {
    Ok(Json(state.views.commit(&prefix?.0).await?))
}

async fn project(Of(state): Of<State>, name: In<String>, ask: Asked<ProjectAsk>) -> Answer<views::Project> {
    let Query(ask) = ask?;
    Ok(Json(state.views.project(&name?.0, &ask).await?))
}

async fn owners(Of(state): Of<State>, project: In<String>) -> Answer<views::Owners> {
    Ok(Json(state.views.owners(&project?.0).await?))
}

async fn owner(
    Of(state): Of<State>,
    at: In<(String, String)>,
    ask: Asked<ProjectAsk>,
) -> Answer<views::Owner> {
    let (Path((project, owner)), Query(ask)) = (at?, ask?);
    Ok(Json(state.views.owner(&project, &owner, &ask).await?))
}

async fn test(Of(state): Of<State>, project: In<String>, ask: Asked<TestAsk>) -> Answer<views::Test> {
    let Query(ask) = ask?;
    Ok(Json(state.views.test(&project?.0, &ask.suite, &ask.id, ask.before, ask.limit).await?))
}

async fn baselines(Of(state): Of<State>) -> Answer<Vec<views::BaselineLine>> {
    Ok(Json(state.views.baselines().await?))
}

async fn baseline(Of(state): Of<State>, key: In<String>) -> Answer<views::Baseline> {
    Ok(Json(state.views.baseline(&key?.0).await?))
}

async fn workers(Of(state): Of<State>) -> Answer<Vec<views::WorkerLine>> {
    Ok(Json(state.views.workers().await?))
}

async fn worker(Of(state): Of<State>, name: In<String>) -> Answer<views::Worker> {
    Ok(Json(state.views.worker(&name?.0).await?))
}

async fn openapi() -> Json<Value> {
    Json(document())
}

/// A question that may be asked, in its address.
type Parameter = (&'static str, &'static str, &'static str, bool);

const BEFORE: Parameter =
    ("before", "integer", "only runs before this one: what `next` of the page before says", false);
const LIMIT: Parameter = ("limit", "integer", "items a page, at most 200", false);

/// What is answered at one address.
struct Endpoint {
    path: &'static str,
    summary: &'static str,
    query: &'static [Parameter],
    /// `None` for plain text.
    schema: Option<fn(&mut SchemaGenerator) -> Schema>,
    route: MethodRouter<State>,
}

fn of<T: JsonSchema>(
    path: &'static str,
    summary: &'static str,
    query: &'static [Parameter],
    route: MethodRouter<State>,
) -> Endpoint {
    Endpoint { path, summary, query, schema: Some(SchemaGenerator::subschema_for::<T>), route }
}

fn endpoints() -> Vec<Endpoint> {
    use views::{
        Baseline, BaselineLine, Overview, Owner, Owners, Page, Project, Run, RunLine, Test, TestLine,
        TestOfRun, Timeline, Worker, WorkerLine,
    };
    const TESTS: &[Parameter] = &[
        ("after", "integer", "only tests after this place: what `next` of the page before says", false),
        LIMIT,
        ("verdict", "string", "only tests with this verdict", false),
        ("suite", "string", "only tests of this suite", false),
    ];
    const PROJECT: &[Parameter] = &[
        BEFORE,
        LIMIT,
        ("ref", "string", "only this branch: `main` or `refs/heads/main`", false),
        ("days", "integer", "days of figures, today the last; at most 366", false),
    ];
    const TEST: &[Parameter] = &[
        ("suite", "string", "the test's suite", true),
        ("id", "string", "the test, as its runner names it", true),
        BEFORE,
        LIMIT,
    ];
    const LOG: &[Parameter] =
        &[("attempt", "integer", "of this attempt; the last where none is named", false)];
    let text = |path, summary, query, route| Endpoint { path, summary, query, schema: None, route };
    vec![
        of::<Overview>("/overview", "The farm on one page: does the line flow?", &[], get(overview)),
        of::<Page<RunLine>>("/runs", "Runs of all projects, newest first", &[BEFORE, LIMIT], get(runs)),
        of::<Run>("/runs/{run}", "One run: counts, phases, lanes, failures first", &[], get(run)),
        text("/runs/{run}/log", "The run's own log", &[], get(log_of_run)),
        of::<Timeline>("/runs/{run}/timeline", "What each of its lanes did when", &[], get(timeline)),
        of::<Page<TestLine>>("/runs/{run}/tests", "Its tests, in their order", TESTS, get(tests)),
        of::<TestOfRun>(
            "/runs/{run}/tests/{test}",
            "One of its tests, with all attempts",
            &[],
            get(test_of_run),
        ),
        text("/runs/{run}/tests/{test}/log", "What an attempt of it printed", LOG, get(log_of_test)),
        of::<Vec<RunLine>>(
            "/commits/{commit}",
            "Runs of commits that begin so, newest first",
            &[],
            get(commit),
        ),
        of::<Project>("/projects/{project}", "Its runs and how its line flows", PROJECT, get(project)),
        of::<Test>("/projects/{project}/test", "One test over its runs", TEST, get(test)),
        of::<Owners>("/projects/{project}/owners", "Who owns its tests", &[], get(owners)),
        of::<Owner>(
            "/projects/{project}/owners/{owner}",
            "One owner's failures, flakes and slow tests, and how their line flows",
            PROJECT,
            get(owner),
        ),
        of::<Vec<BaselineLine>>("/baselines", "Published baselines, the latest first", &[], get(baselines)),
        of::<Baseline>(
            "/baselines/{key}",
            "One baseline: where, when and why it was built",
            &[],
            get(baseline),
        ),
        of::<Vec<WorkerLine>>("/workers", "Workers since the coordinator's start", &[], get(workers)),
        of::<Worker>("/workers/{worker}", "One worker: lanes, disk, rebases", &[], get(worker)),
    ]
}

const ROOT: &str = "/api/v1";

/// All routes of the API.
pub(super) fn router() -> Router<State> {
    let api = Router::new().route(&format!("{ROOT}/openapi.json"), get(openapi));
    endpoints()
        .into_iter()
        .fold(api, |api, endpoint| api.route(&format!("{ROOT}{}", endpoint.path), endpoint.route))
}

/// OpenAPI 3.1.
fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let refusal = generator.subschema_for::<Refusal>();
    let mut paths = serde_json::Map::new();
    for endpoint in endpoints() {
        let in_path = endpoint.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let in_path = in_path.map(|name| {
            let kind = if matches!(name, "run" | "test") { "integer" } else { "string" };
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": kind } })
        });
        let in_query = endpoint.query.iter().map(|(name, kind, says, required)| {
            json!({
                "name": name, "in": "query", "required": required, "description": says,
                "schema": { "type": kind },
            })
        });
        let parameters: Vec<Value> = in_path.chain(in_query).collect();
        let content = match endpoint.schema {
            Some(schema) => json!({ "application/json": { "schema": schema(&mut generator) } }),
            None => json!({ "text/plain": { "schema": { "type": "string" } } }),
        };
        let refused = json!({
            "description": "Why not",
            "content": { "application/json": { "schema": refusal.clone() } },
        });
        let operation = json!({
            "summary": endpoint.summary,
            "parameters": parameters,
            "responses": {
                "200": { "description": endpoint.summary, "content": content },
                "default": refused,
            },
        });
        paths.insert(format!("{ROOT}{}", endpoint.path), json!({ "get": operation }));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Andon",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What there is to see of the farm, read-only. Moments are UTC milliseconds since 1970. Fields are added, \
                            never renamed or removed.",
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{}, { "token": [] }],
    })
}

#[cfg(test)]
mod tests;
