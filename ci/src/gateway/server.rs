//! The door for webhooks: `POST /hooks/PROJECT`.
//!
//! ```text
//! path ──> project ──> body (bounded) ──> signature ──> event ──> disk ──> 202 ──> whoever handles it is woken
//!   404      404          413, 408        401, 403      400, 200   503
//! ```
//!
//! Nothing is acknowledged that a crash could lose, and nothing of a body is looked at before its signature. Answers
//! say what was wrong in one line of text, and hold nothing that the sender did not send. Speaks plain HTTP: it stands
//! behind something that does TLS.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use super::Hooks;
use super::inbox::{Inbox, InboxError, Taken};
use crate::clock;
use crate::forge::hooks::{self, Delivery, Refusal};
use crate::forge::{Event, Meaning};
use crate::hook::{blocking, chain};

/// The largest body: a larger push is found by polling. (GitHub sends at most 25 MB, and mostly a few kB.)
pub const BODY_BYTES_MAX: usize = 5 << 20;
/// Connections at a time; so many bodies are in memory at most.
pub const CONNECTIONS_MAX: usize = 64;
/// How long a request may take to arrive.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);

/// Connections that wait in the kernel until there is a place; the usual 128 lose a second for each beyond.
const BACKLOG: u32 = 1024;
/// The pause after a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(200);

/// One project's webhooks, and whom to wake.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) hooks: Hooks,
    pub(super) wake: Arc<Notify>,
}

/// What the server knows.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) doors: HashMap<String, Door>,
    pub(super) inbox: Arc<Inbox>,
}

/// An answer: status and one line.
struct Answer {
    status: StatusCode,
    said: String,
}

fn answer(status: StatusCode, said: impl Into<String>) -> Answer {
    Answer { status, said: said.into() }
}

/// Listens for webhooks.
pub(super) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As `TcpListener::bind` does: a restart does not wait for old connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Server {
    /// Serves until dropped.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            // Above the limit connections wait in the kernel's queue, which is bounded, too.
            let place = Arc::clone(&places).acquire_owned().await.expect("it is never closed");
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!("a webhook's connection was not accepted: {error}");
                        // Out of descriptors, mostly: a while later some are free.
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            };
            let server = Arc::clone(&self);
            connections.spawn(async move {
                let _place = place;
                let service = service_fn(move |request| Arc::clone(&server).respond(request));
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    // One that is kept for a next request would hold its place while others wait.
                    .keep_alive(false)
                    .header_read_timeout(REQUEST_TIME_MAX)
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = served.await {
                    tracing::debug!("a webhook's connection ended: {error}");
                }
            });
        }
    }

    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let Answer { status, said } = self.answer(request).await;
        let mut response = Response::new(Full::new(Bytes::from(said + "\n")));
        *response.status_mut() = status;
        let text = header::HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, text);
        if !status.is_success() {
            // What is left of a refused body is not read.
            response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        if path == "/healthz" {
            return answer(StatusCode::OK, "ok");
        }
        let Some(name) = path.strip_prefix("/hooks/") else {
            return answer(StatusCode::NOT_FOUND, "there is nothing here: webhooks go to /hooks/PROJECT");
        };
        if request.method() != Method::POST {
            return answer(StatusCode::METHOD_NOT_ALLOWED, "webhooks are POSTed");
        }
        let Some((project, door)) = self.doors.get_key_value(name) else {
            return answer(StatusCode::NOT_FOUND, "no project of this name takes webhooks");
        };
        let (head, body) = request.into_parts();
        if !is_json(&head.headers) {
            let said = "the body is no application/json: choose that content type for the webhook";
            return answer(StatusCode::UNSUPPORTED_MEDIA_TYPE, said);
        }
        let body = match read(body).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let answered = self.delivered(project, door, &head.headers, body).await;
        let level = if answered.status.is_success() { tracing::Level::INFO } else { tracing::Level::WARN };
        match level {
            tracing::Level::INFO => tracing::info!(project, "webhook: {}", answered.said),
            _ => tracing::warn!(project, "webhook refused ({}): {}", answered.status.as_u16(), answered.said),
        }
        answered
    }

    async fn delivered(&self, project: &str, door: &Door, headers: &HeaderMap, body: Bytes) -> Answer {
        let Hooks { kind, secrets, repository } = &door.hooks;
        let now_unix_ms = clock::unix_ms();
        let read = hooks::read(*kind, secrets, repository, headers, &body, now_unix_ms / 1000);
        let Delivery { id, meaning } = match read {
            Ok(delivery) => delivery,
            Err(refusal) => return answer(status(&refusal), chain(&refusal)),
        };
        let event = match meaning {
            Meaning::Work(event) => event,
            Meaning::Nothing(why) => return answer(StatusCode::OK, format!("delivery {id}: {why}")),
        };
        self.keep(project, door, id, event, body, now_unix_ms).await
    }

    /// Onto the disk, then the acknowledgement.
    async fn keep(
        &self,
        project: &str,
        door: &Door,
        id: String,
        event: Event,
        body: Bytes,
        now_unix_ms: u64,
    ) -> Answer {
        let said = format!("delivery {id}: {event}");
        let (inbox, owner) = (Arc::clone(&self.inbox), project.to_owned());
        let taken = blocking(move || inbox.take(&owner, &id, &body, event, now_unix_ms)).await;
        match taken {
            Ok(Taken::New) => {
                door.wake.notify_one();
                answer(StatusCode::ACCEPTED, said)
            }
            Ok(Taken::Before) => answer(StatusCode::OK, format!("{said}: taken before")),
            Ok(Taken::Replayed) => {
                answer(StatusCode::OK, format!("{said}: replayed, the same body was taken under another id"))
            }
            Err(error @ InboxError::Full) => answer(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            Err(InboxError::Ledger(error)) => {
                tracing::error!(project, "a delivery is not kept: {}", chain(&error));
                answer(StatusCode::SERVICE_UNAVAILABLE, "the delivery cannot be kept: send it again")
            }
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

async fn read(body: Incoming) -> Result<Bytes, Answer> {
    let too_large =
        || answer(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {BODY_BYTES_MAX} bytes"));
    let reading = Limited::new(body, BODY_BYTES_MAX).collect();
    match tokio::time::timeout(REQUEST_TIME_MAX, reading).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => Err(too_large()),
        Ok(Err(_)) => Err(answer(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => Err(answer(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
}

fn status(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::Missing(_) => StatusCode::UNAUTHORIZED,
        Refusal::Wrong | Refusal::Stale { .. } => StatusCode::FORBIDDEN,
        Refusal::NoDelivery(_) | Refusal::NoEvent(_) => StatusCode::BAD_REQUEST,
        Refusal::Malformed { why, .. } if why.is_of_another() => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::Malformed { .. } => StatusCode::BAD_REQUEST,
    }
}

#[cfg(test)]
mod tests;
