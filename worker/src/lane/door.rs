//! The door between a unit's tests and their lane: a Unix socket in the unit's container, `$ANDON_SOCKET`, that speaks HTTP.
//!
//! ```text
//!   POST /rebase   the stack is put back now, and the answer comes when it is pristine and healthy
//!                  200 {"driver": "standby", "us": 4180}     `clean` where nothing had been touched
//!                  409 {"error": …}  there is no stack       429 {"error": …}  too many wait already
//!                  503 {"error": …}  it could not be put back: the unit is ended and runs again elsewhere
//!   GET /          200 {"lane": "0", "baseline": "…"}
//! ```
//!
//! Must not know stands. Whoever knocks is the project's code, so everything is bounded: connections, requests that wait, the
//! size of a request's head. Bodies are not read. Invariant: requests are answered one after the other, in their order.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

/// The socket, in the out folder.
pub(super) const SOCKET_FILE: &str = "andon.sock";
/// Connections at a time.
const CONNECTIONS_MAX: usize = 16;
/// Requests that wait.
const WAITING_MAX: usize = 8;
/// Of a request's head, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// From a connection's start, or its last answer, to the end of a request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(600);

/// An open door. It closes when this is dropped.
#[derive(Debug)]
pub(super) struct Door {
    knocks: mpsc::Receiver<Knock>,
    _serving: JoinSet<()>,
}

/// Somebody asks for a rebase.
#[derive(Debug)]
pub(super) struct Knock {
    answer: oneshot::Sender<Answer>,
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Pristine again.
    Rebased { driver: &'static str, took: Duration },
    /// Nothing is there to be put back.
    NoStack,
    /// Why not.
    Failed(String),
}

impl Knock {
    /// Tells whoever waits, if anybody still does.
    pub(super) fn answer(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }
}

impl Door {
    /// Opens it at this path, for every user of the container.
    pub(super) fn open(path: &Path, facts: Value) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        let (sender, knocks) = mpsc::channel(WAITING_MAX);
        let house = Arc::new(House { knocks: sender, facts });
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, house));
        Ok(Self { knocks, _serving: serving })
    }

    /// The next request.
    pub(super) async fn next(&mut self) -> Option<Knock> {
        self.knocks.recv().await
    }
}

#[derive(Debug)]
struct House {
    knocks: mpsc::Sender<Knock>,
    facts: Value,
}

async fn serve(listener: UnixListener, house: Arc<House>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let connection = match listener.accept().await {
            Ok((connection, _)) => connection,
            Err(error) => {
                tracing::warn!(%error, "a unit's socket accepts nothing any more");
                return;
            }
        };
        let house = Arc::clone(&house);
        connections.spawn(async move {
            converse(connection, house).await;
            drop(permit);
        });
    }
}

async fn converse(connection: UnixStream, house: Arc<House>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let house = Arc::clone(&house);
        async move { Ok::<_, Infallible>(house.respond(request.method(), request.uri().path()).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).max_buf_size(HEAD_BYTES_MAX);
    if let Err(error) = http.serve_connection(TokioIo::new(connection), service).await {
        tracing::debug!(%error, "a connection to a unit's socket");
    }
}

impl House {
    async fn respond(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        match (method, path) {
            (&Method::GET, "/") => reply(StatusCode::OK, &self.facts),
            (&Method::POST, "/rebase") => self.rebase().await,
            _ => {
                let error = format!("there is no {method} {path} here; there are: GET /, POST /rebase");
                reply(StatusCode::NOT_FOUND, &json!({ "error": error }))
            }
        }
    }

    async fn rebase(&self) -> Response<Full<Bytes>> {
        let (answer, answered) = oneshot::channel();
        if self.knocks.try_send(Knock { answer }).is_err() {
            let error = format!("{WAITING_MAX} requests wait already, or the unit is over");
            return reply(StatusCode::TOO_MANY_REQUESTS, &json!({ "error": error }));
        }
        match answered.await {
            Ok(Answer::Rebased { driver, took }) => {
                reply(StatusCode::OK, &json!({ "driver": driver, "us": took.as_micros() }))
            }
            Ok(Answer::NoStack) => {
                let error = "this unit has no stack to be put back";
                reply(StatusCode::CONFLICT, &json!({ "error": error }))
            }
            Ok(Answer::Failed(error)) => reply(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": error })),
            Err(_) => reply(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": "the unit is over" })),
        }
    }
}

fn reply(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut bytes = body.to_string().into_bytes();
    bytes.push(b'\n');
    let mut response = Response::new(Full::new(Bytes::from(bytes)));
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn say(path: &Path, request: &str) -> String {
        let mut socket = UnixStream::connect(path).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nhost: andon\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut said = String::new();
        socket.read_to_string(&mut said).await.unwrap();
        said
    }

    fn door() -> (tempfile::TempDir, std::path::PathBuf, Door) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SOCKET_FILE);
        let door = Door::open(&path, json!({ "lane": "0" })).unwrap();
        (dir, path, door)
    }

    #[tokio::test]
    async fn a_rebase_is_answered_when_it_is_done() {
        let (_dir, path, mut door) = door();
        let asked = say(&path, "POST /rebase");
        let done = async {
            let took = Duration::from_micros(7);
            door.next().await.unwrap().answer(Answer::Rebased { driver: "standby", took });
        };
        let (said, ()) = tokio::join!(asked, done);
        assert!(
            said.starts_with("HTTP/1.1 200") && said.ends_with("{\"driver\":\"standby\",\"us\":7}\n"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn what_cannot_be_is_answered_by_name() {
        let (_dir, path, mut door) = door();
        let said = say(&path, "GET /rebase").await;
        assert!(
            said.starts_with("HTTP/1.1 404") && said.contains("there are: GET /, POST /rebase"),
            "{said}"
        );
        assert!(say(&path, "GET /").await.ends_with("{\"lane\":\"0\"}\n"));
        for (answer, code) in [(Answer::NoStack, "409"), (Answer::Failed("no disk".into()), "503")] {
            let asked = say(&path, "POST /rebase");
            let (said, ()) = tokio::join!(asked, async { door.next().await.unwrap().answer(answer) });
            assert!(said.starts_with(&format!("HTTP/1.1 {code}")), "{said}");
        }
    }

    #[tokio::test]
    async fn only_so_many_may_wait() {
        let (_dir, path, door) = door();
        let mut waiting = JoinSet::new();
        for _ in 0..=WAITING_MAX {
            let path = path.clone();
            waiting.spawn(async move { say(&path, "POST /rebase").await });
        }
        let refused = waiting.join_next().await.unwrap().unwrap();
        assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
        // When the unit is over nobody is left waiting.
        drop(door);
        while let Some(said) = waiting.join_next().await {
            assert!(!said.unwrap().starts_with("HTTP/1.1 200"));
        }
    }
}
