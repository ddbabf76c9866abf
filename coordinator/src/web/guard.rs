//! Who may look. On a loopback address whoever can connect may, if the request names this machine: a page of another site whose name
//! was made to lead here (DNS rebinding) does not. On other addresses the clients' token is asked for.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// See the module.
#[derive(Debug, Clone)]
pub(crate) enum Guard {
    /// Whoever can connect.
    Loopback,
    /// Whoever shows this token; digests compare in constant time.
    Token(Arc<blake3::Hash>),
}

impl Guard {
    /// For a listener.
    pub(crate) fn of(address: std::net::SocketAddr, client_token: &str) -> Self {
        if address.ip().is_loopback() {
            Self::Loopback
        } else {
            Self::Token(Arc::new(blake3::hash(client_token.as_bytes())))
        }
    }

    fn refuses(&self, headers: &HeaderMap, authority: Option<&str>) -> Option<(StatusCode, &'static str)> {
        let header = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        match self {
            Self::Loopback => {
                let host = header(header::HOST).or(authority).unwrap_or_default();
                (!is_here(host))
                    .then_some((StatusCode::FORBIDDEN, "this address is for this machine's own names\n"))
            }
            Self::Token(token) => {
                let shown = header(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
                let is_known = shown.is_some_and(|shown| blake3::hash(shown.as_bytes()) == **token);
                (!is_known)
                    .then_some((StatusCode::UNAUTHORIZED, "a token is needed: Authorization: Bearer …\n"))
            }
        }
    }
}

/// `localhost` or a loopback address, with or without a port.
fn is_here(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(name, _)| name),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Before every page and every answer.
pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    match guard.refuses(request.headers(), authority.as_deref()) {
        None => next.run(request).await,
        Some((status @ StatusCode::UNAUTHORIZED, said)) => {
            (status, [(header::WWW_AUTHENTICATE, "Bearer")], said).into_response()
        }
        Some(refusal) => refusal.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().expect("a header's value"))])
    }

    #[test]
    fn on_loopback_only_names_of_this_machine_are_answered() {
        let status =
            |host: &str| Guard::Loopback.refuses(&with(header::HOST, host), None).map(|refused| refused.0);
        for here in ["localhost", "LOCALHOST:7654", "127.0.0.1", "127.0.0.2:80", "[::1]", "[::1]:7654"] {
            assert_eq!(status(here), None, "{here}");
        }
        for other in
            ["", "evil.example", "localhost.evil.example:7654", "127.0.0.1.evil.example", "10.0.0.1", "["]
        {
            assert_eq!(status(other), Some(StatusCode::FORBIDDEN), "{other}");
        }
    }

    #[test]
    fn elsewhere_the_token_is_asked_for() {
        let guard = Guard::of("0.0.0.0:7654".parse().expect("an address"), "the-clients-token");
        let status =
            |value: &str| guard.refuses(&with(header::AUTHORIZATION, value), None).map(|refused| refused.0);
        assert_eq!(status("Bearer the-clients-token"), None);
        for wrong in
            ["", "Bearer ", "Bearer the-clients-toke", "Basic the-clients-token", "the-clients-token"]
        {
            assert_eq!(status(wrong), Some(StatusCode::UNAUTHORIZED), "{wrong:?}");
        }
    }
}
