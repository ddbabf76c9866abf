//! Addresses of repositories to mirror: a short list of ways, everything else refused by name.

use std::fmt;

/// The longest address.
const URL_LEN_MAX: usize = 2048;

/// Why an address is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// `ext::…` and its like run programs.
    #[error("{url} names the remote helper {helper:?}, which could run any program: use {ALLOWED}")]
    Helper {
        /// As given, without credentials.
        url: String,
        /// The helper.
        helper: String,
    },
    /// A scheme that is not on the list.
    #[error("{url} uses {scheme:?}: use {ALLOWED}")]
    Scheme {
        /// As given, without credentials.
        url: String,
        /// The scheme.
        scheme: String,
    },
    /// Could be read as an option by git or ssh, or has characters that no address has.
    #[error("{url} is no address of a repository: {reason}")]
    Malformed {
        /// As given, without credentials.
        url: String,
        /// What is wrong.
        reason: &'static str,
    },
}

const ALLOWED: &str = "an absolute path, file://, https://, ssh://, git:// or user@host:path";

/// An address that may be given to the `git` program.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteUrl(String);

impl RemoteUrl {
    /// Checks an address.
    pub fn parse(url: &str) -> Result<Self, RemoteError> {
        let malformed = |reason| RemoteError::Malformed { url: shown(url), reason };
        if url.is_empty() || url.len() > URL_LEN_MAX {
            return Err(malformed("it is empty or too long"));
        }
        if url.starts_with('-') {
            return Err(malformed("it begins with \"-\""));
        }
        if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(malformed("it has spaces or control characters"));
        }
        if url.starts_with('/') {
            return Ok(Self(url.to_owned()));
        }
        if let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| is_word(scheme)) {
            return match scheme {
                "file" if rest.starts_with('/') => Ok(Self(url.to_owned())),
                "file" => Err(malformed("a file:// address has an absolute path")),
                "https" | "ssh" | "git" => host(rest).map(|()| Self(url.to_owned())).map_err(malformed),
                other => Err(RemoteError::Scheme { url: shown(url), scheme: other.to_owned() }),
            };
        }
        if let Some((helper, _)) = url.split_once("::") {
            return Err(RemoteError::Helper { url: shown(url), helper: helper.escape_debug().to_string() });
        }
        match url.split_once(':') {
            Some((at, _)) if at.contains('[') => Err(malformed("write ssh://user@[address]/path")),
            Some((at, path)) if !at.contains('/') && !path.is_empty() && !path.starts_with('-') => {
                host(at).map(|()| Self(url.to_owned())).map_err(malformed)
            }
            _ => Err(malformed("a relative path depends on where one stands")),
        }
    }

    /// Which machine it leads to, and how; `None` for a path of this one.
    pub(crate) fn host(&self) -> Option<Host<'_>> {
        let (way, rest, usual) = match self.0.split_once("://") {
            Some(("https", rest)) => (Way::Https, rest, 443),
            Some(("ssh", rest)) => (Way::Ssh, rest, 22),
            Some(("git", rest)) => (Way::Git, rest, 9418),
            Some(_) => return None,
            None if self.0.starts_with('/') => return None,
            None => return Some(Host { way: Way::Ssh, name: host_name(&self.0), port: 22 }),
        };
        let (name, port) = name_and_port(rest);
        let port = port.trim_start_matches(':').parse().unwrap_or(usual);
        Some(Host { way, name, port })
    }

    /// As it is given to `git`; may hold credentials.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// How a machine is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Https,
    Ssh,
    Git,
}

/// The machine that an address leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Host<'u> {
    pub(crate) way: Way,
    /// A name or an address; IPv6 in brackets.
    pub(crate) name: &'u str,
    pub(crate) port: u16,
}

/// Without credentials.
impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The machine's name in any address, whether it may be fetched from or not; empty for a path of this one.
pub(crate) fn host_name(address: &str) -> &str {
    match address.split_once("://") {
        Some((_, rest)) => name_and_port(rest).0,
        None if address.starts_with(['/', '.']) => "",
        None => {
            let at = address.split(':').next().unwrap_or_default();
            at.rsplit_once('@').map_or(at, |(_, name)| name)
        }
    }
}

/// Of `user@host:port/path`: the host, and `:port` or nothing.
fn name_and_port(rest: &str) -> (&str, &str) {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, authority)| authority);
    let end = authority.rfind(']').map_or(0, |end| end + 1);
    match authority[end..].find(':') {
        Some(colon) => authority.split_at(end + colon),
        None => (authority, ""),
    }
}

fn is_word(scheme: &str) -> bool {
    !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// `user:password@host:port/path`: a host, and neither it nor the user begins with `-`, which ssh would take for an
/// option.
fn host(rest: &str) -> Result<(), &'static str> {
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() {
        return Err("it has no host");
    }
    if host.starts_with('-') || user.starts_with('-') {
        return Err("its host or user begins with \"-\"");
    }
    Ok(())
}

fn shown(url: &str) -> String {
    let url: String = without_credentials(url).escape_debug().collect();
    url.chars().take(200).collect()
}

/// The address without `user:password@`; an ssh user stays, since it is part of the address.
pub(crate) fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((user, host)) = authority.rsplit_once('@') else { return url.to_owned() };
    match (scheme, user.contains(':')) {
        ("ssh", false) => url.to_owned(),
        _ => format!("{scheme}://{host}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_addresses_are_taken() {
        for url in [
            "/srv/git/shop.git",
            "file:///srv/git/shop.git",
            "https://example.org/a/b.git",
            "https://user:pass@example.org:8443/a.git",
            "ssh://git@example.org:22/a.git",
            "git://example.org/a.git",
            "git@example.org:a/b.git",
        ] {
            assert!(RemoteUrl::parse(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn what_could_run_a_program_is_refused_by_name() {
        let error = RemoteUrl::parse("ext::sh -c touch% /tmp/owned").expect_err("has spaces");
        assert!(matches!(error, RemoteError::Malformed { .. }));
        let error = RemoteUrl::parse("ext::sh%20-c").expect_err("a helper");
        assert!(error.to_string().contains("remote helper \"ext\""), "{error}");
        assert!(matches!(RemoteUrl::parse("fd::17"), Err(RemoteError::Helper { .. })));
        for url in
            ["--upload-pack=x", "-oProxyCommand=x:y", "ssh://-oProxyCommand=x/y", "ssh://-u@h/y", "h:-x"]
        {
            assert!(matches!(RemoteUrl::parse(url), Err(RemoteError::Malformed { .. })), "{url}");
        }
        for url in ["http://h/x", "ftp://h/x", "ext+x://h", "rsync://h/x"] {
            assert!(matches!(RemoteUrl::parse(url), Err(RemoteError::Scheme { .. })), "{url}");
        }
        for url in [
            "git@[fd00::1]:x.git",
            "git@[fd00:1:2]:x.git",
            "",
            "shop.git",
            "../x",
            "https:///x",
            "file://rel",
            "a\nb:c",
            "./ext::x",
        ] {
            assert!(RemoteUrl::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_machine_of_an_address_is_known() {
        let host = |url: &str| {
            let url = RemoteUrl::parse(url).unwrap();
            url.host().map(|host| (host.way, host.name.to_owned(), host.port))
        };
        for (url, way, name, port) in [
            ("https://me:p@ss@h.example/a:b.git", Way::Https, "h.example", 443),
            ("https://h:8443/x", Way::Https, "h", 8443),
            ("https://[::1]:99/x", Way::Https, "[::1]", 99),
            ("https://[fd00::1]/x", Way::Https, "[fd00::1]", 443),
            ("ssh://git@h:2222/x", Way::Ssh, "h", 2222),
            ("git@h:a/b.git", Way::Ssh, "h", 22),
            ("git://h/x", Way::Git, "h", 9418),
        ] {
            assert_eq!(host(url), Some((way, name.to_owned(), port)), "{url}");
        }
        assert_eq!(host("/srv/x.git"), None);
        assert_eq!(host("file:///srv/x.git"), None);
    }

    #[test]
    fn credentials_are_never_shown() {
        let url = RemoteUrl::parse("https://me:s3cret@h/x.git").unwrap();
        assert_eq!(url.to_string(), "https://h/x.git");
        assert_eq!(format!("{url:?}"), "https://h/x.git");
        assert_eq!(without_credentials("https://token@h/x"), "https://h/x");
        assert_eq!(without_credentials("ssh://git@h/x"), "ssh://git@h/x");
        let error = RemoteUrl::parse("http://me:s3cret@h/x.git").expect_err("http");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}
