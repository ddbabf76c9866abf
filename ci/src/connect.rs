//! A connection to a coordinator: over a unix socket or TCP, with the client's token on every call.
//!
//! Knows addresses and the wire's clients, nothing of runs. The token never appears in an error or in `Debug`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use andon_proto::blobs_client::BlobsClient;
use andon_proto::farm_client::FarmClient;
use hyper_util::rt::TokioIo;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

/// The largest message taken from or sent to a coordinator: a run with all its tests is one message.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long connecting may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// A silent connection is asked for a sign of life this often, so that a lost coordinator is noticed.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);

/// The valid forms of an address, for messages.
const FORMS: &str = "unix:///path/to/socket or http://host:port";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is not one.
    #[error("{url:?} is not a coordinator's address: write {FORMS}")]
    Address {
        /// As given.
        url: String,
    },
    /// No TLS here.
    #[error(
        "{url:?}: encrypted connections are not supported; use http:// inside a private network or a tunnel"
    )]
    Encrypted {
        /// As given.
        url: String,
    },
    /// The token cannot stand in a header.
    #[error("the token has characters that no token has")]
    Token,
    /// Nobody answers there.
    #[error("cannot connect to the coordinator at {url}")]
    Unreachable {
        /// As given.
        url: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Where a coordinator listens.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    Unix(PathBuf),
    Tcp(String),
}

fn address(url: &str) -> Result<Address, ConnectError> {
    let wrong = || ConnectError::Address { url: url.to_owned() };
    if url.starts_with("https://") {
        return Err(ConnectError::Encrypted { url: url.to_owned() });
    }
    if let Some(path) = url.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.starts_with('/') { Ok(Address::Unix(path.into())) } else { Err(wrong()) };
    }
    let host = url.strip_prefix("http://").ok_or_else(wrong)?.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '@', '?', '#']) {
        return Err(wrong());
    }
    Ok(Address::Tcp(format!("http://{host}")))
}

/// Puts the token on every call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Bearer(…)" } else { "Bearer(none)" })
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// The channel under the clients.
pub type AuthorizedChannel = InterceptedService<Channel, Bearer>;

/// A connection to a coordinator. Cheap to clone; reconnects by itself.
#[derive(Debug, Clone)]
pub struct Connection {
    channel: Channel,
    bearer: Bearer,
    url: String,
}

impl Connection {
    /// Connects now, so that an unreachable coordinator is an error here and not at the first call.
    ///
    /// `url` is `unix:///path/to/socket` or `http://host:port`; an empty token sends none.
    pub async fn open(url: &str, token: &str) -> Result<Self, ConnectError> {
        let address = address(url)?;
        let bearer = bearer(token)?;
        let unreachable = |source| ConnectError::Unreachable { url: url.to_owned(), source };
        let channel = match &address {
            Address::Unix(path) => {
                // The URI of a unix connection is never resolved; it only fills the `:authority` header.
                let connector = unix_connector(path.clone());
                endpoint("http://localhost").map_err(unreachable)?.connect_with_connector(connector).await
            }
            Address::Tcp(uri) => endpoint(uri).map_err(unreachable)?.connect().await,
        };
        Ok(Self { channel: channel.map_err(unreachable)?, bearer, url: url.to_owned() })
    }

    /// Like [`Connection::open`], but connects at the first call and again whenever it is lost: for a gateway that
    /// starts before its coordinator.
    pub fn open_lazily(url: &str, token: &str) -> Result<Self, ConnectError> {
        let address = address(url)?;
        let bearer = bearer(token)?;
        let unreachable = |source| ConnectError::Unreachable { url: url.to_owned(), source };
        let channel = match &address {
            Address::Unix(path) => {
                let connector = unix_connector(path.clone());
                endpoint("http://localhost").map_err(unreachable)?.connect_with_connector_lazy(connector)
            }
            Address::Tcp(uri) => endpoint(uri).map_err(unreachable)?.connect_lazy(),
        };
        Ok(Self { channel, bearer, url: url.to_owned() })
    }

    /// Runs: submit, watch, show, cancel.
    pub fn farm(&self) -> FarmClient<AuthorizedChannel> {
        FarmClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Content-addressed files.
    pub fn blobs(&self) -> BlobsClient<AuthorizedChannel> {
        BlobsClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The address, as it was given.
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn bearer(token: &str) -> Result<Bearer, ConnectError> {
    if token.is_empty() {
        return Ok(Bearer(None));
    }
    let mut value: MetadataValue<Ascii> =
        format!("Bearer {token}").parse().map_err(|_| ConnectError::Token)?;
    value.set_sensitive(true);
    Ok(Bearer(Some(value)))
}

fn endpoint(uri: &str) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(uri.to_owned())?
        .connect_timeout(CONNECT_TIME_MAX)
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}

type UnixConnect = std::pin::Pin<
    Box<dyn Future<Output = std::io::Result<TokioIo<tokio::net::UnixStream>>> + Send + 'static>,
>;

fn unix_connector(
    path: PathBuf,
) -> impl tower::Service<
    Uri,
    Response = TokioIo<tokio::net::UnixStream>,
    Error = std::io::Error,
    Future = UnixConnect,
> + Send
+ 'static {
    tower::service_fn(move |_: Uri| {
        let path = path.clone();
        Box::pin(async move { Ok(TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }) as UnixConnect
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_socket_are_one_address() {
        let expected = Address::Unix("/run/andon/s".into());
        assert_eq!(address("unix:///run/andon/s").unwrap(), expected);
        assert_eq!(address("unix:/run/andon/s").unwrap(), expected);
        assert_eq!(address("http://h:7077/").unwrap(), Address::Tcp("http://h:7077".into()));
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_forms_that_are() {
        for url in ["", "h:7077", "unix:relative", "http://", "http://user@h", "http://h/path", "ftp://h"] {
            let message = address(url).expect_err(url).to_string();
            assert!(message.contains("http://host:port"), "{message}");
        }
        assert!(matches!(address("https://h"), Err(ConnectError::Encrypted { .. })));
    }

    #[test]
    fn a_token_is_neither_shown_nor_able_to_add_headers() {
        assert!(!format!("{:?}", bearer("s3cret").unwrap()).contains("s3cret"));
        assert!(matches!(bearer("a\r\nx: y"), Err(ConnectError::Token)));
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_an_error_at_once() {
        let error =
            Connection::open("unix:///nonexistent/andon.sock", "t").await.expect_err("nobody listens");
        assert!(error.to_string().contains("/nonexistent/andon.sock"), "{error}");
    }
}
