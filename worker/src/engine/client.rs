//! The connection to a daemon: which one, limits on calls, and what an error of the client library means.

use std::future::Future;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as ClientError;

use super::error::{EngineError, is_out_of_addresses};
use super::limits;

/// The daemon that a machine's own tools use where `DOCKER_HOST` says nothing.
pub const DEFAULT_ADDRESS: &str = "unix:///var/run/docker.sock";

/// The client library's own limit on answers: longer than every limit of ours, so that only ours ever pass.
const CLIENT_LIMIT_SECONDS: u64 = 24 * 60 * 60;

/// What is done, for messages.
const CONNECT: &str = "connect to the Docker engine";

/// Longest name, id or reference that is sent to a daemon.
const NAME_BYTES_MAX: usize = 512;

/// A real daemon.
#[derive(Debug, Clone)]
pub struct DockerEngine {
    client: Docker,
    address: String,
}

impl DockerEngine {
    /// Connects to `unix:///path` or `tcp://host:port` and agrees on an API version with the daemon there.
    pub async fn connect(address: &str) -> Result<Self, EngineError> {
        let engine = Self::open(address)?;
        let client = engine.client.clone();
        let client = engine.call(CONNECT, limits::PING, Box::pin(client.negotiate_version())).await?;
        Ok(Self { client, ..engine })
    }

    /// The same without a word to the daemon, which may not even run yet. For a daemon that this agent starts itself: its
    /// version is known, and to be asked for it makes a daemon run two programs (10 ms each).
    pub fn open(address: &str) -> Result<Self, EngineError> {
        let what = CONNECT;
        let version = bollard::API_DEFAULT_VERSION;
        let client = if address.starts_with("unix://") {
            Docker::connect_with_unix(address, CLIENT_LIMIT_SECONDS, version)
        } else if address.starts_with("tcp://") || address.starts_with("http://") {
            Docker::connect_with_http(address, CLIENT_LIMIT_SECONDS, version)
        } else {
            let message = format!(
                "the address {address:?} is not understood; valid are unix:///path and tcp://host:port"
            );
            return Err(EngineError::Input { what: what.to_owned(), message });
        };
        let client = client.map_err(|error| classify(what, address, error))?;
        Ok(Self { client, address: address.to_owned() })
    }

    pub(super) fn client(&self) -> &Docker {
        &self.client
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.address
    }

    /// Runs one call within its limit.
    pub(super) async fn call<T>(
        &self,
        what: &str,
        limit: Duration,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, EngineError> {
        match tokio::time::timeout(limit, call).await {
            Ok(answer) => answer.map_err(|error| classify(what, &self.address, error)),
            Err(_) => Err(EngineError::TimedOut { what: what.to_owned(), limit }),
        }
    }
}

/// Names become part of a request's path: what could change the path is refused.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), EngineError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-:/@".contains(c);
    let sound = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(allowed)
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if sound {
        return Ok(());
    }
    let message =
        format!("{name:?} is no name: letters, digits and any of ._-:/@ are valid, a letter or digit first");
    Err(EngineError::Input { what: what.to_owned(), message })
}

/// What an error of the client library means to a caller.
pub(super) fn classify(what: &str, address: &str, error: ClientError) -> EngineError {
    let what = what.to_owned();
    match error {
        ClientError::DockerResponseServerError { message, .. } if is_out_of_addresses(&message) => {
            EngineError::NoAddresses { what, address: address.to_owned(), message }
        }
        ClientError::DockerResponseServerError { status_code: 404, message } => {
            EngineError::NotFound { what, message }
        }
        ClientError::DockerResponseServerError { status_code: 409, message } => {
            EngineError::Conflict { what, message }
        }
        ClientError::DockerResponseServerError { status_code, message } => {
            EngineError::Refused { what, status: status_code, message }
        }
        ClientError::DockerStreamError { error } => {
            EngineError::Refused { what, status: 200, message: error }
        }
        ClientError::DockerContainerWaitError { error, .. } => {
            EngineError::Refused { what, status: 200, message: error }
        }
        ClientError::RequestTimeoutError => {
            EngineError::TimedOut { what, limit: Duration::from_secs(CLIENT_LIMIT_SECONDS) }
        }
        error @ (ClientError::IOError { .. }
        | ClientError::HyperResponseError { .. }
        | ClientError::HyperLegacyError { .. }
        | ClientError::SocketNotFoundError(_)) => {
            EngineError::Unreachable { what, address: address.to_owned(), message: chain(&error) }
        }
        error => EngineError::Protocol { what, message: chain(&error) },
    }
}

/// An error and its causes in one line, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_ids_and_names_are_accepted() {
        for name in ["mysql:9", "registry:5000/a/b@sha256:00ff", "sha256:00ff", "lane-0_db.1"] {
            assert_eq!(check_name("test", name), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_that_could_change_the_path_of_a_request_are_refused() {
        for name in ["", "..", "a/../b", "/a", "a//b", "a?force=1", "a b", "a%2e", "-a", "a#b", "a\n"] {
            assert!(check_name("test", name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_status_says_what_a_caller_can_do() {
        let answer = |status_code| {
            let error = ClientError::DockerResponseServerError { status_code, message: "m".to_owned() };
            classify("test", "unix:///x", error)
        };
        assert!(answer(404).is_not_found());
        assert!(answer(409).is_conflict());
        assert!(matches!(answer(500), EngineError::Refused { status: 500, .. }));
    }

    #[test]
    fn a_want_of_addresses_is_told_from_other_refusals_whatever_its_status() {
        for (status_code, message) in [
            (
                404,
                "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
            ),
            (400, "all predefined address pools have been fully subnetted"),
        ] {
            let error = ClientError::DockerResponseServerError { status_code, message: message.to_owned() };
            let error = classify("create network n", "unix:///x", error);
            assert!(matches!(error, EngineError::NoAddresses { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(message) && text.contains("docker network ls"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_makes_the_engine_unreachable() {
        let error =
            DockerEngine::connect("unix:///nonexistent/docker.sock").await.expect_err("no daemon there");
        assert!(error.is_unreachable(), "{error}");
        assert!(error.to_string().contains("unix:///nonexistent/docker.sock"), "{error}");
    }

    #[tokio::test]
    async fn an_address_of_another_kind_is_refused_with_the_valid_ones() {
        let error = DockerEngine::connect("ssh://host").await.expect_err("not supported");
        assert!(error.to_string().contains("unix:///path"), "{error}");
    }
}
