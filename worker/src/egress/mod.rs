//! The one way out of a lane: an HTTP proxy on the agent's address in the lane's network, with an allow list.
//!
//! ```text
//!   test ──CONNECT pypi.org:443──> listed? ──resolve──> addresses may be reached? ──> tunnel, bytes counted
//!                                    │ no                    │ no
//!                                    └───────── 403, in words, and in the worker's log
//! ```
//!
//! There is no other way: the nested daemon does no NAT, and the worker routes nothing between its networks. Must not know lanes,
//! suites or Docker. Invariants: a connection from another network than the lane's is closed unheard; the address that is
//! connected to is the one that was judged.

mod rules;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub(crate) use rules::Rules;

/// Connections of one unit at a time.
const CONNECTIONS_MAX: usize = 128;
/// To find a name's addresses, and for each to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// Longest time without a byte in a tunnel's beginning; a client that says nothing holds a place.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// Headers that are between two machines only.
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "upgrade"];

type Body = BoxBody<Bytes, hyper::Error>;

/// A running proxy; its end cuts every connection.
#[derive(Debug)]
pub(crate) struct Egress {
    address: SocketAddr,
    stop: CancellationToken,
    door: Arc<Door>,
}

struct Door {
    /// In the log.
    lane: String,
    rules: Rules,
    bytes: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Egress {
    /// Listens on a free port of `gateway`, for those that `from` holds.
    pub(crate) async fn open(
        lane: &str,
        rules: Rules,
        gateway: IpAddr,
        from: impl Fn(IpAddr) -> bool + Send + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::new(gateway, 0)).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let door = Arc::new(Door { lane: lane.to_owned(), rules, bytes: Arc::default(), stop: stop.clone() });
        let (accepting, until) = (Arc::clone(&door), stop.clone());
        tokio::spawn(async move { until.run_until_cancelled(accept(accepting, listener, from)).await });
        Ok(Self { address, stop, door })
    }

    /// What clients have to be told; `beside` is what they reach without it.
    pub(crate) fn env(&self, beside: &[String]) -> Vec<(String, String)> {
        let proxy = format!("http://{}", self.address);
        let own = ["localhost".to_owned(), "127.0.0.1".to_owned(), self.address.ip().to_string()];
        let beside = own.iter().chain(beside).cloned().collect::<Vec<_>>().join(",");
        let names = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"];
        let proxies = names.map(|name| (name.to_owned(), proxy.clone()));
        proxies.into_iter().chain(["NO_PROXY", "no_proxy"].map(|n| (n.to_owned(), beside.clone()))).collect()
    }

    /// Bytes that went through, both ways.
    pub(crate) fn bytes(&self) -> u64 {
        self.door.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        self.stop.cancel();
        let bytes = self.bytes();
        if bytes > 0 {
            tracing::info!(lane = self.door.lane, bytes, "a unit's traffic with the world");
        }
    }
}

async fn accept(door: Arc<Door>, listener: TcpListener, from: impl Fn(IpAddr) -> bool) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        if !from(peer.ip()) {
            continue;
        }
        let door = Arc::clone(&door);
        tokio::spawn(async move {
            // A tunnel outlives the request that asked for it, and keeps the place.
            let place = Arc::new(place);
            let service = service_fn(|request| {
                let (door, place) = (Arc::clone(&door), Arc::clone(&place));
                async move {
                    let answer = door.answer(request, place).await;
                    Ok::<_, Infallible>(answer.unwrap_or_else(|why| door.refuse(why)))
                }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(hyper_util::rt::TokioTimer::new())
                .header_read_timeout(REQUEST_LIMIT)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            let _ = door.stop.run_until_cancelled(served).await;
        });
    }
}

/// Why there is no way out, in words.
enum Refused {
    Forbidden(String),
    Unreachable(String),
    Nonsense(String),
}

impl Door {
    fn refuse(&self, why: Refused) -> Response<Body> {
        let (status, message) = match why {
            Refused::Forbidden(message) => (StatusCode::FORBIDDEN, message),
            Refused::Unreachable(message) => (StatusCode::BAD_GATEWAY, message),
            Refused::Nonsense(message) => (StatusCode::BAD_REQUEST, message),
        };
        tracing::warn!(lane = self.lane, message, "a way out was refused");
        let mut response = Response::new(full(format!("{message}\n")));
        *response.status_mut() = status;
        response
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        place: Arc<tokio::sync::OwnedSemaphorePermit>,
    ) -> Result<Response<Body>, Refused> {
        let uri = request.uri();
        let Some(host) = uri.host().map(str::to_owned) else {
            let message = format!("{} {uri} is no request to a proxy", request.method());
            return Err(Refused::Nonsense(message));
        };
        if request.method() == Method::CONNECT {
            let Some(port) = uri.port_u16() else {
                return Err(Refused::Nonsense(format!("CONNECT {host} has no port")));
            };
            let stream = self.connect(&host, port).await?;
            self.tunnel(request, stream, place);
            return Ok(Response::new(full("")));
        }
        if uri.scheme_str() != Some("http") {
            return Err(Refused::Nonsense(format!("{uri}: https goes by CONNECT")));
        }
        let stream = self.connect(&host, uri.port_u16().unwrap_or(80)).await?;
        self.relay(request, stream).await
    }

    /// Connects to a host that is listed, at an address that may be.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Refused> {
        if !self.rules.allow_host(host, port) {
            return Err(Refused::Forbidden(format!(
                "{host}:{port} is not in the suite's \"egress\": a lane has no other way out"
            )));
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::time::timeout(CONNECT_LIMIT, lookup_host((bare, port))).await;
        let unreachable = |why: &dyn std::fmt::Display| Refused::Unreachable(format!("{host}:{port}: {why}"));
        let found = found.map_err(|late| unreachable(&late))?.map_err(|error| unreachable(&error))?;
        let mut last = Refused::Unreachable(format!("{host}:{port} has no address"));
        for address in found {
            if !self.rules.allow_target(address.ip(), port) {
                last = Refused::Forbidden(format!(
                    "{host}:{port} leads to {}, which is not the world's: name that address in \"egress\" if it is meant",
                    address.ip()
                ));
                continue;
            }
            match tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = unreachable(&error),
                Err(late) => last = unreachable(&late),
            }
        }
        Err(last)
    }

    fn tunnel(
        &self,
        request: Request<Incoming>,
        mut outer: TcpStream,
        place: Arc<tokio::sync::OwnedSemaphorePermit>,
    ) {
        let (stop, bytes) = (self.stop.clone(), Arc::clone(&self.bytes));
        tokio::spawn(async move {
            let _place = place;
            let copying = async {
                let Ok(inner) = hyper::upgrade::on(request).await else { return };
                let copied = tokio::io::copy_bidirectional(&mut TokioIo::new(inner), &mut outer).await;
                if let Ok((up, down)) = copied {
                    bytes.fetch_add(up + down, Ordering::Relaxed);
                }
            };
            let _ = stop.run_until_cancelled(copying).await;
        });
    }

    /// One plain request, on a connection of its own.
    async fn relay(&self, request: Request<Incoming>, stream: TcpStream) -> Result<Response<Body>, Refused> {
        let unreachable = |error: hyper::Error| Refused::Unreachable(error.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
        let stop = self.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(connection).await });
        let (mut parts, body) = request.into_parts();
        let authority = parts.uri.authority().map(|authority| authority.as_str().to_owned());
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri = path.parse().map_err(|_| Refused::Nonsense(format!("{path:?} is no path")))?;
        for name in HOP_BY_HOP {
            parts.headers.remove(HeaderName::from_static(name));
        }
        // What was judged is what is asked for, whatever the client wrote here.
        let host = authority.and_then(|host| HeaderValue::from_str(&host).ok());
        parts
            .headers
            .insert(HOST, host.ok_or_else(|| Refused::Nonsense("a request without a host".to_owned()))?);
        let response = sender.send_request(Request::from_parts(parts, body)).await.map_err(unreachable)?;
        let bytes = Arc::clone(&self.bytes);
        Ok(response.map(|body| {
            let counted = body.map_frame(move |frame| {
                let length = frame.data_ref().map_or(0, Bytes::len);
                bytes.fetch_add(length as u64, Ordering::Relaxed);
                frame
            });
            counted.boxed()
        }))
    }
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// A server on this machine that says `hello` to whoever speaks.
    async fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut heard = [0; 1024];
                    let _ = stream.read(&mut heard).await;
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
                    let _ = stream.write_all(answer).await;
                });
            }
        });
        address
    }

    async fn open(lines: &[String], from: impl Fn(IpAddr) -> bool + Send + 'static) -> Egress {
        let rules = Rules::parse(lines.iter().map(String::as_str)).unwrap();
        Egress::open("0", rules, "127.0.0.1".parse().unwrap(), from).await.unwrap()
    }

    async fn say(egress: &Egress, request: &str) -> String {
        let mut stream = TcpStream::connect(egress.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let reading = stream.read_to_string(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(20), reading).await.expect("an end");
        answer
    }

    fn get(target: &str) -> String {
        format!("GET http://{target}/x HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\n\r\n")
    }

    #[tokio::test]
    async fn what_is_listed_is_reached_by_tunnel_and_by_plain_request_and_counted() {
        let server = server().await;
        let egress = open(&[server.to_string()], |_| true).await;
        let answer = say(&egress, &get(&server.to_string())).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
        let tunnel = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        let answer = say(&egress, &tunnel).await;
        assert!(answer.contains("200 OK") && answer.ends_with("hello"), "{answer}");
        // A tunnel is counted when it ends.
        let counted = async {
            while egress.bytes() < 10 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), counted).await.expect("both are counted");
    }

    #[tokio::test]
    async fn what_is_not_listed_is_refused_by_name_also_a_listed_name_that_leads_home() {
        let server = server().await;
        let egress = open(&[format!("localhost:{}", server.port())], |_| true).await;
        let answer = say(&egress, &get(&server.to_string())).await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains(&server.to_string()), "{answer}");
        let answer = say(&egress, &get(&format!("localhost:{}", server.port()))).await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("leads to"), "{answer}");
        let tunnel = "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\nConnection: close\r\n\r\n";
        let answer = say(&egress, tunnel).await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("example.com:443"), "{answer}");
        assert!(
            say(&egress, "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.contains("400")
        );
        assert_eq!(egress.bytes(), 0);
    }

    #[tokio::test]
    async fn others_than_the_lane_are_not_heard_and_nobody_after_its_end() {
        let server = server().await;
        let egress = open(&[server.to_string()], |_| false).await;
        assert_eq!(say(&egress, &get(&server.to_string())).await, "");
        let egress = open(&[server.to_string()], |_| true).await;
        let address = egress.address;
        let mut open_one = TcpStream::connect(address).await.unwrap();
        drop(egress);
        assert_eq!(open_one.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }
}
