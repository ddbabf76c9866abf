//! Where the coordinator is and how it is spoken to. Every call carries the token.

use std::fmt;
use std::time::Duration;

use thiserror::Error;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// How long dialling may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A connection that does not answer this often …
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// … within this is dead.
const KEEP_ALIVE_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of one stream that may be on their way unread.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes of all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// The largest message that is taken.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Why an address or token cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// Neither of the forms.
    #[error("{0:?} is no coordinator's address; there are: unix:///path/to.sock, http://host:port")]
    Form(String),
    /// HTTP headers hold visible ASCII.
    #[error("the token has characters that a header cannot carry")]
    Token,
}

/// A coordinator that can be dialled.
#[derive(Clone)]
pub struct Coordinator {
    address: String,
    endpoint: Endpoint,
    bearer: Bearer,
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Coordinator").field(&self.address).finish()
    }
}

/// A channel whose calls show the token.
pub(crate) type Line = InterceptedService<Channel, Bearer>;

impl Coordinator {
    /// `unix:///path/to.sock` or `http://host:port`.
    ///
    /// # Errors
    /// Where the address has another form or the token cannot be sent.
    pub fn new(address: &str, token: &str) -> Result<Self, AddressError> {
        let form = || AddressError::Form(address.to_owned());
        let known = address.strip_prefix("unix://").is_some_and(|path| path.starts_with('/'))
            || address.strip_prefix("http://").is_some_and(|host| !host.is_empty());
        if !known {
            return Err(form());
        }
        let endpoint = Endpoint::from_shared(address.to_owned())
            .map_err(|_| form())?
            .connect_timeout(CONNECT_LIMIT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_LIMIT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let mut bearer: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().map_err(|_| AddressError::Token)?;
        // Keeps it out of every log.
        bearer.set_sensitive(true);
        Ok(Self { address: address.to_owned(), endpoint, bearer: Bearer(bearer) })
    }

    /// As it was given.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A connection of its own, made now.
    pub(crate) async fn connect(&self) -> Result<Line, DialError> {
        let dialled = tokio::time::timeout(CONNECT_LIMIT, self.endpoint.connect()).await;
        let channel = dialled.map_err(|_| DialError::TimedOut)?.map_err(DialError::Refused)?;
        Ok(InterceptedService::new(channel, self.bearer.clone()))
    }

    /// A connection that is made with the first call, and again when it breaks.
    pub(crate) fn lazy(&self) -> Line {
        InterceptedService::new(self.endpoint.connect_lazy(), self.bearer.clone())
    }
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    #[error("no connection within {CONNECT_LIMIT:?}")]
    TimedOut,
    #[error("no connection")]
    Refused(#[source] tonic::transport::Error),
}

/// Shows the token.
#[derive(Debug, Clone)]
pub(crate) struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_forms_of_address_are_taken_and_others_refused_by_name() {
        for good in ["unix:///run/andon.sock", "http://127.0.0.1:7420", "http://farm.example:7420"] {
            assert_eq!(Coordinator::new(good, "secret").unwrap().address(), good);
        }
        for bad in
            ["", "unix://relative.sock", "https://farm.example", "farm.example:7420", "http://", "http://a b"]
        {
            let refusal = Coordinator::new(bad, "secret").unwrap_err();
            assert_eq!(refusal, AddressError::Form(bad.to_owned()));
        }
        assert_eq!(Coordinator::new("unix:///a", "two\nlines").unwrap_err(), AddressError::Token);
    }

    #[tokio::test]
    async fn a_token_is_not_printed() {
        let coordinator = Coordinator::new("unix:///a", "hunter2").unwrap();
        assert!(
            !format!("{coordinator:?} {:?} {:?}", coordinator.bearer, coordinator.lazy()).contains("hunter2")
        );
    }
}
