//! The nested daemon as the lanes' Docker APIs talk to it: plain HTTP over its socket, so that what a test's client says can
//! be passed on as it came. (Andon's own calls go through `engine/`.)
//!
//! Must not know lanes or what is allowed. Invariant: a JSON answer is bounded in time and size.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::refusal::Refusal;

/// How long a JSON call may take: the daemon stops and deletes meanwhile.
const CALL_LIMIT: Duration = Duration::from_secs(120);
/// Largest JSON answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What bodies are here.
pub(super) type Body = BoxBody<Bytes, hyper::Error>;

/// A body of bytes.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// The daemon's socket.
#[derive(Debug, Clone)]
pub(super) struct Daemon {
    socket: Arc<PathBuf>,
}

impl Daemon {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket: Arc::new(socket) }
    }

    /// Sends a request; the answer's body is still to come.
    pub(super) async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Refusal> {
        let fault = |error: &dyn std::error::Error| {
            Refusal::broken(format!("the worker's Docker daemon: {}", crate::hands::chain(error)))
        };
        let stream = UnixStream::connect(self.socket.as_path()).await.map_err(|error| fault(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| fault(&error))?;
        // It ends with the answer, or when its sender and body are dropped.
        tokio::spawn(async move { connection.with_upgrades().await });
        request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("docker"));
        sender.send_request(request).await.map_err(|error| fault(&error))
    }

    /// A call with a JSON answer; `Null` where the answer holds none.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), Refusal> {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let request = request.body(body.map_or_else(|| full(Bytes::new()), |body| full(body.to_string())));
        let request = request.map_err(|error| Refusal::bad(error.to_string()))?;
        let answered = tokio::time::timeout(CALL_LIMIT, async {
            let response = self.send(request).await?;
            let status = response.status();
            Ok((status, json_of(response.into_body()).await?))
        });
        let late =
            || Refusal::broken(format!("the worker's Docker daemon has not answered within {CALL_LIMIT:?}"));
        answered.await.map_err(|_| late())?
    }

    /// As [`Daemon::call`]; every status but success is an error, with the daemon's own words.
    pub(super) async fn must(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Refusal> {
        let (status, answer) = self.call(method, path, body).await?;
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(answer);
        }
        let message = answer.get("message").and_then(Value::as_str).unwrap_or("no reason given");
        Err(Refusal { status, message: message.to_owned() })
    }

    /// Where a running container is, on the first of its networks.
    pub(super) async fn address_of(&self, container: &str) -> Result<IpAddr, Refusal> {
        let state = self.must(Method::GET, &format!("/containers/{container}/json"), None).await?;
        let networks = state["NetworkSettings"]["Networks"].as_object();
        let addresses = networks.into_iter().flat_map(|networks| networks.values());
        let mut addresses = addresses.filter_map(|network| network["IPAddress"].as_str()?.parse().ok());
        addresses.next().ok_or_else(|| Refusal::conflict(format!("container {container} has no address")))
    }
}

/// Reads a JSON body; `Null` for an empty one or one that is no JSON.
pub(super) async fn json_of(body: Incoming) -> Result<Value, Refusal> {
    let bytes = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let bytes = bytes.map_err(|error| Refusal::broken(format!("the daemon's answer: {error}")))?.to_bytes();
    Ok(serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}
