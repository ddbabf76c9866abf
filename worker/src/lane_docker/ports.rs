//! Published ports of a test's containers: parsed, and forwarded by the agent itself.
//!
//! The nested daemon changes no filter rules and does no NAT, and its own proxy would listen for every lane: any address of
//! the worker is reachable from each of its networks. So the agent listens, on the address that it has in the lane's
//! network, and takes connections that come from that network alone.
//!
//! Must not know Docker's API beyond the two forms of a port. Invariant: a listener ends with its [`Forward`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::create::{list, text};
use super::daemon::Daemon;
use super::refusal::Refusal;

/// Connections through one published port at a time.
const CONNECTIONS_MAX: usize = 256;
/// How long a container may take to accept one.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Ports that one container may publish.
const PORTS_MAX: usize = 64;

/// What a container asks to have published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Published {
    /// Container's port, and the lane's; 0 for any.
    pub(super) bindings: Vec<(u16, u16)>,
    /// Also every port that request or image expose.
    pub(super) all: bool,
}

/// `PortBindings`.
pub(super) fn bindings(asked: Map<String, Value>) -> Result<Vec<(u16, u16)>, Refusal> {
    let mut all = Vec::new();
    for (port, hosts) in asked {
        let Some(container) = tcp_port(&port) else {
            return Err(Refusal::forbidden(format!(
                "publishing {port:?} is refused: a lane publishes single TCP ports"
            )));
        };
        let hosts = list(&port, hosts)?;
        if hosts.is_empty() {
            all.push((container, 0));
        }
        // Addresses do not matter: whatever is asked for, it is the lane's own.
        for host in hosts {
            let host = host.get("HostPort").map_or(Ok(String::new()), |value| text("HostPort", value))?;
            let host = match host.as_str() {
                "" => 0,
                number => number.parse().map_err(|_| {
                    Refusal::forbidden(format!(
                        "HostPort {number:?} is refused: a lane publishes single ports"
                    ))
                })?,
            };
            all.push((container, host));
        }
    }
    match all.len() > PORTS_MAX {
        true => Err(Refusal::forbidden(format!("more than {PORTS_MAX} published ports are refused"))),
        false => Ok(all),
    }
}

/// Of `80/tcp` or `80`.
fn tcp_port(text: &str) -> Option<u16> {
    let number = match text.split_once('/') {
        Some((number, "tcp")) => number,
        Some(_) => return None,
        None => text,
    };
    number.parse().ok().filter(|port| *port > 0)
}

/// The TCP ports of an `ExposedPorts`.
pub(super) fn exposed(ports: &Value) -> Vec<u16> {
    let keys = ports.as_object().map(|ports| ports.keys().filter_map(|port| tcp_port(port)).collect());
    keys.unwrap_or_default()
}

/// The lane's network, as the agent sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Home {
    /// The agent's own address there.
    pub(crate) gateway: IpAddr,
    /// First address and length of the prefix.
    pub(crate) subnet: (IpAddr, u8),
}

impl Home {
    /// Whether an address is on the network.
    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        let (first, length) = self.subnet;
        match (first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
                u32::from(first) & mask == u32::from(address) & mask
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
                u128::from(first) & mask == u128::from(address) & mask
            }
            _ => false,
        }
    }
}

/// A port of the lane that leads into a container.
#[derive(Debug)]
pub(super) struct Forward {
    /// In the container.
    pub(super) inner: u16,
    /// On the lane's gateway.
    pub(super) outer: u16,
    accepting: AbortHandle,
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Forward {
    /// Listens from now on, whether the container runs or not: where it is, is asked at each connection.
    pub(super) async fn open(
        daemon: Daemon,
        home: Home,
        container: String,
        (inner, outer): (u16, u16),
    ) -> Result<Self, Refusal> {
        let listener = TcpListener::bind(SocketAddr::new(home.gateway, outer)).await.map_err(|error| {
            let address = format!("{}:{outer}", home.gateway);
            match error.kind() {
                std::io::ErrorKind::AddrInUse => {
                    Refusal::conflict(format!("Bind for {address} failed: port is already allocated"))
                }
                _ => Refusal::broken(format!("cannot publish on {address}: {error}")),
            }
        })?;
        let outer = listener.local_addr().map_err(|error| Refusal::broken(error.to_string()))?.port();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
            while let Ok(place) = Arc::clone(&room).acquire_owned().await {
                while connections.try_join_next().is_some() {}
                let Ok((stream, from)) = listener.accept().await else { continue };
                if !home.holds(from.ip()) {
                    continue;
                }
                let (daemon, container) = (daemon.clone(), container.clone());
                connections.spawn(async move {
                    let _place = place;
                    if let Err(error) = forward(stream, &daemon, &container, inner).await {
                        tracing::debug!(%error, container, inner, "a published port");
                    }
                });
            }
        });
        Ok(Self { inner, outer, accepting: task.abort_handle() })
    }
}

async fn forward(mut outer: TcpStream, daemon: &Daemon, container: &str, port: u16) -> std::io::Result<()> {
    let address = daemon.address_of(container).await.map_err(std::io::Error::other)?;
    let connecting = TcpStream::connect((address, port));
    let mut inner = tokio::time::timeout(CONNECT_LIMIT, connecting).await??;
    let _ = (outer.set_nodelay(true), inner.set_nodelay(true));
    tokio::io::copy_bidirectional(&mut outer, &mut inner).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(value: &Value) -> Result<Vec<(u16, u16)>, Refusal> {
        bindings(value.as_object().cloned().unwrap())
    }

    #[test]
    fn single_tcp_ports_are_published_wherever_they_were_asked_for() {
        let value = json!({
            "3306/tcp": [{ "HostIp": "0.0.0.0", "HostPort": "" }], "80": null,
            "81/tcp": [{ "HostPort": "8081" }, { "HostIp": "127.0.0.1", "HostPort": "8082" }]
        });
        let mut all = asked(&value).unwrap();
        all.sort_unstable();
        assert_eq!(all, [(80, 0), (81, 8081), (81, 8082), (3306, 0)]);
        for bad in [json!({ "53/udp": [] }), json!({ "80/tcp": [{ "HostPort": "1-9" }] }), json!({ "0": [] })]
        {
            assert!(asked(&bad).unwrap_err().message.contains("refused"));
        }
        assert_eq!(exposed(&json!({ "80/tcp": {}, "53/udp": {} })), [80]);
    }

    #[test]
    fn a_network_holds_its_own_addresses_alone() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let home = Home { gateway: ip("10.213.4.1"), subnet: (ip("10.213.4.0"), 24) };
        assert!(home.holds(ip("10.213.4.9")));
        for foreign in ["10.213.5.9", "127.0.0.1", "::1"] {
            assert!(!home.holds(ip(foreign)), "{foreign}");
        }
        assert!(Home { gateway: ip("::1"), subnet: (ip("fd00::"), 8) }.holds(ip("fd12::1")));
    }
}
