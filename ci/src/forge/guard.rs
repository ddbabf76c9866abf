//! Which addresses may be gone to: not those of internal networks, unless somebody said so.
//!
//! A name counts as what it resolves to, all of it: one address inside refuses the name. Who connects uses the
//! addresses that were looked at, and does not resolve again.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The most addresses of a name that are looked at.
const ADDRESSES_MAX: usize = 64;

/// Why an address is not gone to.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// Inside.
    #[error("{host} is {address}, {what}: refused unless `allow` of [network] names it")]
    Internal {
        /// As asked for.
        host: String,
        /// What it is.
        address: IpAddr,
        /// Which kind of network.
        what: &'static str,
    },
    /// Not known.
    #[error("{host} cannot be resolved")]
    Resolve {
        /// As asked for.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No address at all.
    #[error("{0} has no address")]
    Nowhere(String),
}

/// What may be gone to although it is inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// A host by its name.
    Host(String),
    /// A network: address and bits.
    Network(IpAddr, u8),
}

impl Allowed {
    /// `git.example.org`, `10.1.2.3` or `10.0.0.0/8`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let wrong = || format!("{text:?} is neither a host, an address nor a network (10.0.0.0/8)");
        match (address.trim_matches(['[', ']']).parse::<IpAddr>(), bits) {
            (Ok(address), bits) => {
                let most = if address.is_ipv4() { 32 } else { 128 };
                let bits = bits.map_or(Ok(most), str::parse).map_err(|_| wrong())?;
                if bits > most { Err(wrong()) } else { Ok(Self::Network(address, bits)) }
            }
            (Err(_), None) if is_host(text) => Ok(Self::Host(text.to_ascii_lowercase())),
            _ => Err(wrong()),
        }
    }
}

fn is_host(text: &str) -> bool {
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    !text.is_empty() && text.len() <= 253 && text.chars().all(fit) && !text.starts_with('-')
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => f.write_str(host),
            Self::Network(address, bits) => write!(f, "{address}/{bits}"),
        }
    }
}

/// Decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guard {
    allowed: Vec<Allowed>,
}

impl Guard {
    /// With these exceptions.
    pub fn new(allowed: Vec<Allowed>) -> Self {
        Self { allowed }
    }

    /// Every address of a host, if none of them is inside.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, GuardError> {
        let bare = host.trim_matches(['[', ']']);
        let found = tokio::net::lookup_host((bare, port)).await;
        let found = found.map_err(|source| GuardError::Resolve { host: host.to_owned(), source })?;
        let found: Vec<_> = found.take(ADDRESSES_MAX).collect();
        if found.is_empty() {
            return Err(GuardError::Nowhere(host.to_owned()));
        }
        for address in &found {
            self.check(host, address.ip())?;
        }
        Ok(found)
    }

    /// A host that is an address is looked at at once; a name is not resolved.
    pub fn literal(&self, host: &str) -> Result<(), GuardError> {
        match host.trim_matches(['[', ']']).parse() {
            Ok(address) => self.check(host, address),
            Err(_) => Ok(()),
        }
    }

    fn check(&self, host: &str, address: IpAddr) -> Result<(), GuardError> {
        let Some(what) = internal(address) else { return Ok(()) };
        let is_allowed = self.allowed.iter().any(|allowed| match allowed {
            Allowed::Host(name) => name.eq_ignore_ascii_case(host),
            Allowed::Network(network, bits) => within(plain(address), *network, *bits),
        });
        if is_allowed { Ok(()) } else { Err(GuardError::Internal { host: host.to_owned(), address, what }) }
    }
}

/// An IPv4 address in its IPv6 clothes (`::ffff:a.b.c.d`, `64:ff9b::a.b.c.d`, `2002:aabb:ccdd::`) as what it is.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let segments = v6.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        _ => address,
    }
}

fn internal(address: IpAddr) -> Option<&'static str> {
    match plain(address) {
        IpAddr::V4(v4) => internal_v4(v4),
        IpAddr::V6(v6) => internal_v6(v6),
    }
}

fn internal_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0, ..) => Some("this host"),
        (127, ..) => Some("a loopback address"),
        (169, 254, _) => Some("a link-local address, where clouds keep their metadata"),
        (10, ..) | (192, 168, _) => Some("a private network (RFC 1918)"),
        (172, 16..=31, _) => Some("a private network (RFC 1918)"),
        (100, 64..=127, _) => Some("a provider's own network (RFC 6598)"),
        (192, 0, 0) | (198, 18..=19, _) => Some("a network for special use"),
        (224.., ..) => Some("a multicast, reserved or broadcast address"),
        _ => None,
    }
}

fn internal_v6(address: Ipv6Addr) -> Option<&'static str> {
    let first = address.segments()[0];
    match first {
        _ if address.is_loopback() => Some("a loopback address"),
        _ if address.is_unspecified() => Some("this host"),
        0xfc00..=0xfdff => Some("a private network (IPv6 ULA)"),
        0xfe80..=0xfebf => Some("a link-local address"),
        0xfec0..=0xfeff => Some("a site-local address"),
        0xff00.. => Some("a multicast address"),
        _ => None,
    }
}

fn within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let cut = |value: u128, width: u32| {
        let shift = width - u32::from(bits).min(width);
        value.checked_shr(shift).unwrap_or(0)
    };
    match (address, plain(network)) {
        (IpAddr::V4(a), IpAddr::V4(n)) => cut(u32::from(a).into(), 32) == cut(u32::from(n).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(n)) => cut(a.into(), 128) == cut(n.into(), 128),
        _ => false,
    }
}

/// The guard as the HTTP client's resolver.
pub(super) struct Guarded(pub(super) Arc<Guard>);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = Arc::clone(&self.0);
        Box::pin(async move {
            let found = guard.resolve(name.as_str(), 0).await?;
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_internal_networks_are_refused_in_every_spelling() {
        let guard = Guard::default();
        for inside in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "[::1]",
            "fd00:ec2::254",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "::127.0.0.1",
        ] {
            let error = guard.literal(inside).expect_err(inside);
            assert!(matches!(error, GuardError::Internal { .. }), "{inside}: {error}");
        }
        for outside in
            ["1.1.1.1", "172.32.0.1", "172.15.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:1.1.1.1"]
        {
            assert!(guard.literal(outside).is_ok(), "{outside}");
        }
    }

    #[tokio::test]
    async fn a_name_counts_as_what_it_resolves_to() {
        let error = Guard::default().resolve("localhost", 443).await.expect_err("it is this machine");
        assert!(error.to_string().contains("localhost is"), "{error}");
        let allowed = Guard::new(vec![Allowed::parse("localhost").unwrap()]);
        assert!(allowed.resolve("localhost", 443).await.is_ok());
        // Other spellings of 127.0.0.1 that resolvers take.
        for spelling in ["127.1", "0x7f000001", "2130706433", "0177.0.0.1"] {
            assert!(Guard::default().resolve(spelling, 443).await.is_err(), "{spelling}");
        }
    }

    #[test]
    fn what_is_allowed_is_a_host_an_address_or_a_network() {
        let guard = |text: &str| Guard::new(vec![Allowed::parse(text).unwrap()]);
        assert!(guard("10.0.0.0/8").literal("10.200.3.4").is_ok());
        assert!(guard("10.0.0.0/8").literal("11.0.0.1").is_ok(), "outside anyway");
        assert!(guard("10.1.0.0/16").literal("10.2.0.1").is_err());
        assert!(guard("127.0.0.1").literal("127.0.0.2").is_err());
        assert!(guard("fd00::/8").literal("fd12::1").is_ok());
        assert!(guard("0.0.0.0/0").literal("127.0.0.1").is_ok());
        for wrong in ["", "10.0.0.0/33", "a b", "-x", "10.0.0.0/x", "host/8"] {
            assert!(Allowed::parse(wrong).is_err(), "{wrong}");
        }
    }
}
