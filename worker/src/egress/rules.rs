//! Who may be reached from a lane: names with ports, `*.` before a name for everything beneath it, and addresses.
//!
//! Pure. Invariant: what resolves to an address of the worker's own surroundings (loopback, private, link-local, …) is reached only
//! where the very address is named; else a name of a test's choosing would lead there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One line of the allow list.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Name { name: String, beneath: bool, port: u16 },
    Address(IpAddr, u16),
}

/// The allow list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    /// `pypi.org:443`, `*.example.com:443`, `10.0.0.5:5432`, `[fd00::5]:443`. The error names the line.
    pub(crate) fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        lines.into_iter().map(rule).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a host may be asked for by this name and port.
    pub(crate) fn allow_host(&self, host: &str, port: u16) -> bool {
        let host = plain(host);
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.allow_address(address, port) || is_public(address) && self.names(&host, port);
        }
        self.names(&host, port)
    }

    fn names(&self, host: &str, port: u16) -> bool {
        self.0.iter().any(|rule| match rule {
            Rule::Name { name, beneath: false, port: known } => name == host && *known == port,
            Rule::Name { name, beneath: true, port: known } => {
                *known == port && host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'))
            }
            Rule::Address(..) => false,
        })
    }

    /// Whether a name that may be asked for may lead to this address.
    pub(crate) fn allow_target(&self, address: IpAddr, port: u16) -> bool {
        is_public(address) || self.allow_address(address, port)
    }

    fn allow_address(&self, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|rule| matches!(rule, Rule::Address(known, p) if *known == address && *p == port))
    }
}

fn plain(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase()
}

fn rule(line: &str) -> Result<Rule, String> {
    let bad =
        || format!("{line:?}: write a name and a port, such as \"pypi.org:443\" or \"*.example.com:443\"");
    let (host, port) = line.rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or_else(bad)?;
    let (name, beneath) = match host.strip_prefix("*.") {
        Some(name) => (plain(name), true),
        None => (plain(host), false),
    };
    if let (Ok(address), false) = (name.parse::<IpAddr>(), beneath) {
        return Ok(Rule::Address(address.to_canonical(), port));
    }
    let fit = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let sound = name.len() <= 253 && name.split('.').all(|part| !part.is_empty() && part.chars().all(fit));
    if sound { Ok(Rule::Name { name, beneath, port }) } else { Err(bad()) }
}

/// Whether an address is the world's: not this machine's, its neighbours', or nobody's.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocol = a == 192 && b == 0 && c == 0;
    let benchmark = a == 198 && (18..20).contains(&b);
    !(a == 0
        || a >= 224
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || shared
        || protocol
        || benchmark)
}

/// Global unicast alone, and of it nothing that only wraps an IPv4 address.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let global = (0x2000..0x4000).contains(&first);
    let teredo_or_documentation = first == 0x2001 && (second == 0 || second == 0xdb8);
    let six_to_four = first == 0x2002;
    global && !teredo_or_documentation && !six_to_four
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(lines: &[&str]) -> Rules {
        Rules::parse(lines.iter().copied()).unwrap()
    }

    #[test]
    fn names_count_with_their_ports_and_a_star_for_what_is_beneath() {
        let rules = rules(&["pypi.org:443", "*.Example.com:443", "10.0.0.5:5432"]);
        for (host, port) in
            [("pypi.org", 443), ("PyPI.org.", 443), ("a.b.example.com", 443), ("10.0.0.5", 5432)]
        {
            assert!(rules.allow_host(host, port), "{host}:{port}");
        }
        for (host, port) in [
            ("pypi.org", 80),
            ("xpypi.org", 443),
            ("example.com", 443),
            ("evilexample.com", 443),
            ("pypi.org.evil.net", 443),
            ("10.0.0.5", 443),
            ("10.0.0.6", 5432),
            ("127.0.0.1", 443),
        ] {
            assert!(!rules.allow_host(host, port), "{host}:{port}");
        }
        assert!(!Rules::default().allow_host("pypi.org", 443));
    }

    #[test]
    fn names_that_lead_to_the_workers_surroundings_are_stopped_at_the_address() {
        let rules = rules(&["inside.example.com:443", "10.0.0.5:443"]);
        for address in [
            "127.0.0.1",
            "10.0.0.6",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.6",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ] {
            assert!(!rules.allow_target(address.parse().unwrap(), 443), "{address}");
        }
        for address in ["10.0.0.5", "::ffff:10.0.0.5", "151.101.0.223", "2a04:4e42::223"] {
            assert!(rules.allow_target(address.parse().unwrap(), 443), "{address}");
        }
        assert!(!rules.allow_target("10.0.0.5".parse().unwrap(), 80));
    }

    #[test]
    fn lines_that_mean_nothing_are_refused_by_name() {
        for line in [
            "pypi.org",
            "pypi.org:",
            "pypi.org:0",
            ":443",
            "*:443",
            "a..b:443",
            "http://pypi.org:443",
            "a b:1",
        ] {
            let error = Rules::parse([line]).unwrap_err();
            assert!(error.contains(line), "{error}");
        }
    }
}
