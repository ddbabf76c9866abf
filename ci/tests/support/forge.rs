//! A forge that is not one: just the endpoints that Andon uses, with the checks that the real ones make, over real HTTP.
//!
//! Shapes and refusals are those of the forges' public documentation. It keeps every request, can be told to fail, and
//! delivers webhooks signed by `openssl`, which shares no code with Andon.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The token that each of them wants.
pub(crate) const TOKEN: &str = "t0ken-of-the-forge";
/// What webhooks are signed with.
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// How long something that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Came {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Value,
    pub(crate) status: u16,
}

/// An answer that is given instead of the right one.
#[derive(Debug, Clone)]
pub(crate) struct Instead {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
}

#[derive(Debug, Default)]
struct State {
    came: Vec<Came>,
    instead: VecDeque<Instead>,
    /// GitLab: the state of each commit and name.
    gitlab: BTreeMap<(String, String), String>,
    checks: u64,
    /// Open pull requests: number, head, from a fork.
    pulls: Vec<(u64, String, bool)>,
    /// Who may write, by the account's number.
    writers: Vec<u64>,
}

/// The fake; ends with its value.
pub(crate) struct FakeForge {
    state: Arc<(Mutex<State>, Condvar)>,
    pub(crate) address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl FakeForge {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        // Not through the runtime: a test may be inside one of its own.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("it can be asynchronous");
        let address = listener.local_addr().expect("it has an address");
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let shared = Arc::clone(&state);
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { state, address, runtime: Some(runtime) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.0.lock().expect("nobody panics with it")
    }

    /// The next answers are these, whatever is asked.
    pub(crate) fn instead(&self, answers: impl IntoIterator<Item = Instead>) {
        self.lock().instead.extend(answers);
    }

    /// This account may write.
    pub(crate) fn let_write(&self, id: u64) {
        self.lock().writers.push(id);
    }

    /// A pull request is open there, at this head.
    pub(crate) fn open_pull(&self, number: u64, commit: &str, fork: bool) {
        let mut state = self.lock();
        state.pulls.retain(|(known, _, _)| *known != number);
        state.pulls.push((number, commit.to_owned(), fork));
    }

    pub(crate) fn came(&self) -> Vec<Came> {
        self.lock().came.clone()
    }

    /// Waits for a request that is taken and for which `wanted` gives something.
    pub(crate) fn wait_for<T>(&self, what: &str, wanted: impl Fn(&Came) -> Option<T>) -> T {
        let (state, changed) = &*self.state;
        let deadline = Instant::now() + PATIENCE;
        let mut state = state.lock().expect("nobody panics with it");
        loop {
            let found = state.came.iter().filter(|came| came.status < 300).find_map(&wanted);
            if let Some(found) = found {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let said: Vec<_> = state.came.iter().map(|came| (&came.path, &came.body, came.status)).collect();
            assert!(!left.is_zero(), "{what} did not come: {said:#?}");
            state = changed.wait_timeout(state, left).expect("nobody panics with it").0;
        }
    }

    /// Waits until a commit has this state in a context; gives the description.
    pub(crate) fn wait_for_state(&self, commit: &str, context: &str, state: &str) -> String {
        self.wait_for(&format!("{context} {state} for {commit}"), |came| {
            let body = &came.body;
            let of = came.path.ends_with(&format!("/statuses/{commit}")) && body["context"] == context;
            (of && body["state"] == state)
                .then(|| body["description"].as_str().unwrap_or_default().to_owned())
        })
    }
}

impl Drop for FakeForge {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

type Shared = Arc<(Mutex<State>, Condvar)>;

async fn answer(shared: Shared, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let path = head.uri.path().to_owned();
    let mut state = shared.0.lock().expect("nobody panics with it");
    let (status, more, answer) = match state.instead.pop_front() {
        Some(Instead { status, headers }) => (status, headers, json!({ "message": "told to" })),
        None => {
            let (status, answer) = right(&mut state, &head.method, &path, &head.headers, &body);
            (status, Vec::new(), answer)
        }
    };
    let method = head.method.to_string();
    state.came.push(Came { method, path, body, status });
    shared.1.notify_all();
    let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    for (name, value) in more {
        response.headers_mut().insert(name, value.parse().expect("a value"));
    }
    Ok(response)
}

fn right(state: &mut State, method: &Method, path: &str, headers: &HeaderMap, body: &Value) -> (u16, Value) {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let authorized = match parts.first() {
        Some(&"github") => header("authorization") == format!("Bearer {TOKEN}"),
        Some(&"gitlab") => header("private-token") == TOKEN,
        Some(&"gitea") => header("authorization") == format!("token {TOKEN}"),
        _ => return (404, json!({ "message": "Not Found" })),
    };
    if !authorized {
        return (401, json!({ "message": "Bad credentials" }));
    }
    if header("user-agent").is_empty() {
        return (403, json!({ "message": "Request forbidden by administrative rules: no User-Agent" }));
    }
    match (method.as_str(), parts.as_slice()) {
        ("POST", ["github", "repos", "acme", "shop", "statuses", commit]) => commit_status(commit, body, 140),
        ("POST", ["gitea", "repos", "acme", "shop", "statuses", commit]) => {
            commit_status(commit, body, 10_000)
        }
        ("POST", ["github", "repos", "acme", "shop", "check-runs"]) => {
            state.checks += 1;
            check_run(body, state.checks)
        }
        ("PATCH", ["github", "repos", "acme", "shop", "check-runs", id]) => match id.parse::<u64>() {
            Ok(id) if id > 0 && id <= state.checks => check_run(body, id),
            _ => (404, json!({ "message": "Not Found" })),
        },
        ("POST", ["gitlab", "projects", "acme%2Fshop", "statuses", commit]) => {
            gitlab_status(state, commit, body)
        }
        ("GET", ["gitlab", "projects", "acme%2Fshop", "members", "all", id]) => {
            let id: u64 = id.parse().unwrap_or(0);
            let level = if state.writers.contains(&id) { 40 } else { 20 };
            (200, json!({ "id": id, "username": "ann", "state": "active", "access_level": level }))
        }
        ("GET", [forge, "repos", "acme", "shop", "pulls"]) => {
            let pull = |(number, commit, fork): &(u64, String, bool)| {
                let head = if *fork { 666 } else { 15 };
                match *forge {
                    "github" => json!({ "number": number, "state": "open",
                        "head": { "sha": commit, "repo": { "id": head } }, "base": { "repo": { "id": 15 } } }),
                    _ => json!({ "number": number, "state": "open",
                        "head": { "sha": commit, "repo_id": head }, "base": { "repo_id": 15 } }),
                }
            };
            (200, state.pulls.iter().map(pull).collect())
        }
        ("GET", ["gitlab", "projects", "acme%2Fshop", "merge_requests"]) => {
            let merge = |(number, commit, fork): &(u64, String, bool)| {
                let source = if *fork { 666 } else { 15 };
                json!({ "iid": number, "sha": commit, "state": "opened", "source_project_id": source,
                    "target_project_id": 15 })
            };
            (200, state.pulls.iter().map(merge).collect())
        }
        ("GET", ["gitea", "repos", "acme", "shop", "collaborators", user, "permission"]) => {
            let permission = if state.writers.contains(&11) { "write" } else { "read" };
            (
                200,
                json!({ "permission": permission, "role_name": permission, "user": { "id": 11, "login": user } }),
            )
        }
        _ => (404, json!({ "message": "Not Found" })),
    }
}

fn commit_status(commit: &str, body: &Value, longest: usize) -> (u16, Value) {
    let invalid = |what: &str| (422, json!({ "message": format!("Validation Failed: {what}") }));
    if commit.len() != 40 {
        return invalid("No commit found for SHA");
    }
    if !["pending", "success", "failure", "error"].contains(&body["state"].as_str().unwrap_or_default()) {
        return invalid("state is not included in the list");
    }
    if body["description"].as_str().unwrap_or_default().chars().count() > longest {
        return invalid("description is too long (maximum is 140 characters)");
    }
    if body["context"].as_str().unwrap_or_default().is_empty() {
        return invalid("context is missing");
    }
    (201, json!({ "id": 1, "state": body["state"], "context": body["context"] }))
}

fn check_run(body: &Value, id: u64) -> (u16, Value) {
    let invalid = |what: &str| (422, json!({ "message": format!("Invalid request: {what}") }));
    let completed = body["status"] == "completed";
    if completed != body["conclusion"].is_string() {
        return invalid("a conclusion comes with status completed");
    }
    let output = &body["output"];
    if output["title"].is_null() != output["summary"].is_null() {
        return invalid("output needs title and summary");
    }
    if output["annotations"].as_array().is_some_and(|all| all.len() > 50) {
        return invalid("Only 50 annotations per API request");
    }
    (
        if id == 0 { 200 } else { 201 },
        json!({ "id": id, "head_sha": body["head_sha"], "status": body["status"] }),
    )
}

/// GitLab's states are those of a pipeline's job: the same one again is a transition that there is not.
fn gitlab_status(state: &mut State, commit: &str, body: &Value) -> (u16, Value) {
    let wanted = body["state"].as_str().unwrap_or_default().to_owned();
    if !["pending", "running", "success", "failed", "canceled", "skipped"].contains(&wanted.as_str()) {
        return (400, json!({ "error": "state does not have a valid value" }));
    }
    let key = (commit.to_owned(), body["name"].as_str().unwrap_or_default().to_owned());
    if state.gitlab.get(&key) == Some(&wanted) {
        let event = match wanted.as_str() {
            "pending" => "enqueue",
            "running" => "run",
            "success" => "success",
            _ => "drop",
        };
        let said = format!(
            "Cannot transition status via :{event} from :{wanted} (Reason(s): Status cannot transition via \"{event}\")"
        );
        return (400, json!({ "message": said }));
    }
    state.gitlab.insert(key, wanted.clone());
    (201, json!({ "id": 93, "sha": commit, "status": wanted }))
}

/// The HMAC-SHA256 that `openssl` makes, in hex.
pub(crate) fn openssl(secret: &str, body: &[u8]) -> String {
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", secret, "-r"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    child.stdin.take().expect("piped").write_all(body).expect("openssl reads");
    let output = child.wait_with_output().expect("openssl ends");
    let text = String::from_utf8(output.stdout).expect("hex");
    text.split(' ').next().expect("a digest").to_owned()
}

/// A documented payload with its places filled.
pub(crate) fn payload(name: &str, pairs: &[(&str, &str)]) -> String {
    let path = format!("{}/tests/payloads/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    pairs.iter().fold(text, |text, (place, value)| text.replace(place, value))
}

/// Delivers to a gateway as GitHub does; gives status and words.
pub(crate) fn deliver(address: &str, project: &str, id: &str, event: &str, body: &str) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let response = client
            .post(format!("http://{address}/hooks/{project}"))
            .header("content-type", "application/json")
            .header("x-github-delivery", id)
            .header("x-github-event", event)
            .header("x-hub-signature-256", format!("sha256={}", openssl(SECRET, body.as_bytes())))
            .body(body.to_owned())
            .send()
            .await
            .expect("the gateway answers");
        (response.status().as_u16(), response.text().await.expect("text"))
    })
}
