//! Who may look, and who may do more. Who sits at this machine; everybody else shows a token: in a header (programs), or once in a form, for a
//! session in a cookie (browsers). Each token has its role, and so has its session; who sits at this machine is an admin.
//!
//! ```text
//!   the listener is on loopback, the request names this machine, no proxy brought it ──> in, with this process's CSRF token for forms
//!   Authorization: Bearer TOKEN ──> in
//!   cookie of a session ──> in, with the session's own CSRF token for forms
//!   else ──> /sign-in (pages), 401 (API, metrics)
//! ```
//!
//! That a request on loopback names this machine is asked because of DNS rebinding: a page on the internet can have a browser
//! of this machine connect here, but under its own name.
//!
//! Invariants: the token is never stored, sent back or logged; a session's id is kept as its digest alone; ids and tokens are compared as
//! digests, in constant time; there are at most [`SESSIONS_MAX`] sessions; each ends by itself. Sessions are edge state: a restart
//! signs everybody out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};

use crate::clock::Clock;
use crate::roles::{Role, Tokens};

/// Sessions at a time; the one that was used least lately goes for a new one.
pub(crate) const SESSIONS_MAX: usize = 1_000;
/// Unused for so long, a session ends.
pub(crate) const IDLE_MS_MAX: u64 = 12 * 3_600_000;
/// It ends at the latest after this.
pub(crate) const LIFE_MS_MAX: u64 = 7 * 24 * 3_600_000;
const COOKIE: &str = "andon_session";
/// A longer `next` leads nowhere.
const NEXT_BYTES_MAX: usize = 2_000;

/// Who may look at this farm. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tokens: Tokens,
    is_loopback: bool,
    /// What forms of who sits at this machine carry: no other site can read a page of ours.
    at_home: Csrf,
    clock: Clock,
    sessions: Mutex<HashMap<blake3::Hash, Session>>,
}

#[derive(Debug, Clone)]
struct Session {
    role: Role,
    csrf: Csrf,
    opened_mono_ms: u64,
    used_mono_ms: u64,
}

/// What forms of a session carry, so that no other site can send them.
#[derive(Debug, Clone)]
pub(crate) struct Csrf(pub(crate) Arc<str>);

/// How somebody came in; pages find it in the request.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    /// What he may do.
    pub(crate) role: Role,
    /// By which way.
    pub(crate) way: Way,
}

/// How somebody came in.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// This machine's own: there is nothing to sign out of.
    AtHome(Csrf),
    /// A program that shows a token with each request; no site can have a browser do that.
    Program,
    /// By a form.
    SignedIn(Csrf),
}

/// Why a form was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It was sent from another site.
    Foreign,
    /// Without the session's CSRF token.
    NoCsrf,
}

impl Access {
    /// For whoever shows one of these tokens; on a loopback listener (`is_loopback`) also for whoever sits at this machine.
    pub(crate) fn new(tokens: Tokens, is_loopback: bool, clock: Clock) -> Self {
        let at_home = Csrf(crate::new_token().into());
        Self { shared: Arc::new(Shared { tokens, is_loopback, at_home, clock, sessions: Mutex::default() }) }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<blake3::Hash, Session>> {
        self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_mono_ms(&self) -> u64 {
        self.shared.clock.now().mono_ms
    }

    /// Opens a session for whoever shows a token: its id, for the cookie.
    pub(crate) fn sign_in(&self, token: &str) -> Option<String> {
        let role = self.shared.tokens.role_of(token)?;
        let now = self.now_mono_ms();
        let id = crate::new_token();
        let session =
            Session { role, csrf: Csrf(crate::new_token().into()), opened_mono_ms: now, used_mono_ms: now };
        let mut sessions = self.sessions();
        sessions.retain(|_, session| session.lasts(now));
        if sessions.len() >= SESSIONS_MAX {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.used_mono_ms).map(|(id, _)| *id);
            oldest.and_then(|oldest| sessions.remove(&oldest));
        }
        sessions.insert(blake3::hash(id.as_bytes()), session);
        Some(id)
    }

    /// Ends the session of this request.
    pub(crate) fn sign_out(&self, headers: &HeaderMap) {
        if let Some(id) = cookie(headers) {
            self.sessions().remove(&blake3::hash(id.as_bytes()));
        }
    }

    /// Who sends this request; `None` where nobody may look like that.
    pub(crate) fn visitor(&self, uri: &Uri, headers: &HeaderMap) -> Option<Visitor> {
        if self.shared.is_loopback && is_at_home(uri, headers) {
            let way = Way::AtHome(self.shared.at_home.clone());
            return Some(Visitor { role: Role::Admin, way });
        }
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Some(token) = authorization.and_then(|value| value.strip_prefix("Bearer ")) {
            return self.shared.tokens.role_of(token).map(|role| Visitor { role, way: Way::Program });
        }
        let id = blake3::hash(cookie(headers)?.as_bytes());
        let now = self.now_mono_ms();
        let mut sessions = self.sessions();
        let session = sessions.get_mut(&id)?;
        if !session.lasts(now) {
            sessions.remove(&id);
            return None;
        }
        session.used_mono_ms = now;
        Some(Visitor { role: session.role, way: Way::SignedIn(session.csrf.clone()) })
    }
}

impl Session {
    fn lasts(&self, now_mono_ms: u64) -> bool {
        now_mono_ms.saturating_sub(self.used_mono_ms) < IDLE_MS_MAX
            && now_mono_ms.saturating_sub(self.opened_mono_ms) < LIFE_MS_MAX
    }
}

impl Csrf {
    fn is(&self, shown: &str) -> bool {
        blake3::hash(self.0.as_bytes()) == blake3::hash(shown.as_bytes())
    }
}

/// Lets a request pass whose sender may look, and tells pages who that is. Assets and the sign-in itself are for everybody.
pub(crate) async fn guard(State(access): State<Access>, mut request: Request, next: Next) -> Response {
    let visitor = access.visitor(request.uri(), request.headers());
    let path = request.uri().path();
    let is_public = path == "/sign-in" || path.starts_with("/assets/");
    if let Some(visitor) = visitor {
        request.extensions_mut().insert(visitor);
    } else if !is_public {
        return turned_away(&request);
    }
    next.run(request).await
}

fn turned_away(request: &Request) -> Response {
    let path = request.uri().path();
    let is_page = !path.starts_with("/api/") && path != "/metrics";
    if is_page && *request.method() == Method::GET {
        let asked = request.uri().path_and_query().map_or("/", |asked| asked.as_str());
        let next: String = form_urlencoded::byte_serialize(safe_next(asked).as_bytes()).collect();
        return Redirect::to(&format!("/sign-in?next={next}")).into_response();
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"andon\"")];
    (StatusCode::UNAUTHORIZED, challenge, "a token is needed: authorization: Bearer …\n").into_response()
}

/// Whether a form may be acted upon. One that changes something carries the CSRF token of its session, or of this process, as well.
///
/// # Errors
/// Why not.
pub(crate) fn check_form(
    headers: &HeaderMap,
    visitor: Option<&Visitor>,
    csrf: Option<&str>,
) -> Result<(), Refused> {
    let get = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_foreign = match (get("sec-fetch-site"), get("origin")) {
        (Some(site), _) => !matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => origin.split_once("://").map(|(_, host)| host) != host(headers),
        // No browser of these years sends neither.
        (None, None) => false,
    };
    if is_foreign {
        return Err(Refused::Foreign);
    }
    match visitor.map(|visitor| &visitor.way) {
        Some(Way::SignedIn(wanted) | Way::AtHome(wanted)) if !csrf.is_some_and(|shown| wanted.is(shown)) => {
            Err(Refused::NoCsrf)
        }
        _ => Ok(()),
    }
}

/// The cookie that opens a session, and the one that closes it (`id` empty).
pub(crate) fn set_cookie(id: &str, headers: &HeaderMap) -> String {
    // Behind a proxy that ends TLS, the proxy says so; a cookie that is marked for nothing but TLS is kept from everything else.
    let is_tls = headers.get("x-forwarded-proto").is_some_and(|value| value.as_bytes() == b"https");
    let secure = if is_tls { "; Secure" } else { "" };
    let life_s = if id.is_empty() { 0 } else { LIFE_MS_MAX / 1_000 };
    format!("{COOKIE}={id}; Path=/; Max-Age={life_s}; HttpOnly; SameSite=Strict{secure}")
}

/// Where to go after signing in: a place of this farm, nowhere else.
pub(crate) fn safe_next(next: &str) -> &str {
    let is_ours = next.starts_with('/') && !next.starts_with("//") && next.len() <= NEXT_BYTES_MAX;
    let is_plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_ours && is_plain && !next.starts_with("/sign-") { next } else { "/" }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST).and_then(|value| value.to_str().ok())
}

/// Asked from this machine, by its own name.
fn is_at_home(uri: &Uri, headers: &HeaderMap) -> bool {
    let is_proxied = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];
    let named = uri.authority().map(Authority::as_str).or_else(|| host(headers));
    named.is_some_and(names_loopback) && !is_proxied.iter().any(|name| headers.contains_key(*name))
}

fn names_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_local =
        name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost");
    is_local || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (header::HeaderName::from_static(name), value.parse().expect("a header's value"))
        };
        all.iter().map(pair).collect()
    }

    fn with_cookie(id: &str) -> HeaderMap {
        headers(&[("cookie", &format!("other=1; {COOKIE}={id}"))])
    }

    fn access(is_loopback: bool) -> Access {
        Access::new(Tokens::new([(Role::Developer, TOKEN)]), is_loopback, Clock::start())
    }

    fn visitor(access: &Access, headers: &HeaderMap) -> Option<Visitor> {
        access.visitor(&Uri::from_static("/"), headers)
    }

    #[test]
    fn a_session_is_opened_by_the_token_alone_and_ends_when_it_is_closed() {
        let access = access(false);
        assert_eq!(access.sign_in("0123456789abcdef0123456789abcdeX"), None);
        let id = access.sign_in(TOKEN).expect("the token is right");
        let signed_in = visitor(&access, &with_cookie(&id)).expect("a session");
        assert!(matches!(signed_in, Visitor { role: Role::Developer, way: Way::SignedIn(_) }));
        assert!(visitor(&access, &with_cookie(&format!("{id}0"))).is_none());
        assert!(visitor(&access, &HeaderMap::new()).is_none());
        access.sign_out(&with_cookie(&id));
        assert!(visitor(&access, &with_cookie(&id)).is_none());
    }

    #[test]
    fn programs_show_the_token_itself() {
        let access = access(false);
        let bearer = |token: &str| headers(&[("authorization", &format!("Bearer {token}"))]);
        let known = visitor(&access, &bearer(TOKEN)).expect("the token is right");
        assert!(matches!(known, Visitor { role: Role::Developer, way: Way::Program }));
        assert!(visitor(&access, &bearer("x")).is_none());
    }

    #[test]
    fn sessions_are_bounded_and_do_not_last() {
        let access = access(false);
        let first = access.sign_in(TOKEN).expect("the token is right");
        for _ in 1..SESSIONS_MAX {
            access.sign_in(TOKEN).expect("the token is right");
        }
        let of_first = blake3::hash(first.as_bytes());
        for (id, session) in &mut *access.sessions() {
            session.used_mono_ms = u64::from(*id != of_first);
        }
        access.sign_in(TOKEN).expect("the token is right");
        assert_eq!(access.sessions().len(), SESSIONS_MAX);
        assert!(visitor(&access, &with_cookie(&first)).is_none(), "the one that was used least lately went");
        let session = Session {
            role: Role::Viewer,
            csrf: Csrf("x".into()),
            opened_mono_ms: 0,
            used_mono_ms: LIFE_MS_MAX - 1,
        };
        assert!(session.lasts(LIFE_MS_MAX - 1) && !session.lasts(LIFE_MS_MAX));
        assert!(!Session { used_mono_ms: 0, ..session }.lasts(IDLE_MS_MAX));
    }

    #[test]
    fn forms_of_other_sites_and_forms_without_the_sessions_word_are_refused() {
        for way in [Way::SignedIn(Csrf("right".into())), Way::AtHome(Csrf("right".into()))] {
            forms_of(&Visitor { role: Role::Developer, way });
        }
    }

    fn forms_of(visitor: &Visitor) {
        let check = |all: &[(&'static str, &str)], csrf| check_form(&headers(all), Some(visitor), csrf);
        assert_eq!(check(&[("sec-fetch-site", "same-origin")], Some("right")), Ok(()));
        assert_eq!(check(&[("sec-fetch-site", "cross-site")], Some("right")), Err(Refused::Foreign));
        assert_eq!(check(&[("sec-fetch-site", "same-site")], Some("right")), Err(Refused::Foreign));
        let (origin, host) = (("origin", "https://farm.example"), ("host", "farm.example"));
        assert_eq!(check(&[origin, host], Some("right")), Ok(()));
        assert_eq!(check(&[origin, ("host", "evil.example")], Some("right")), Err(Refused::Foreign));
        assert_eq!(check(&[("origin", "null"), host], Some("right")), Err(Refused::Foreign));
        assert_eq!(check(&[], Some("wrong")), Err(Refused::NoCsrf));
        assert_eq!(check(&[], None), Err(Refused::NoCsrf));
    }

    #[test]
    fn on_loopback_only_who_names_this_machine_needs_no_token() {
        let open = access(true);
        for ours in
            ["localhost:7077", "127.0.0.1:7077", "[::1]:7077", "127.8.8.8", "LOCALHOST", "a.localhost:1"]
        {
            assert!(visitor(&open, &headers(&[("host", ours)])).is_some(), "{ours}");
            assert!(visitor(&open, &headers(&[("host", ours), ("x-forwarded-for", "192.0.2.1")])).is_none());
            let elsewhere = access(false);
            assert!(visitor(&elsewhere, &headers(&[("host", ours)])).is_none(), "{ours}");
        }
        for foreign in
            ["evil.example", "localhost.evil.example:7077", "10.0.0.1:7077", "127.0.0.1.evil.example", ""]
        {
            assert!(visitor(&open, &headers(&[("host", foreign)])).is_none(), "{foreign:?}");
        }
        let by_address = |address: &'static str| open.visitor(&Uri::from_static(address), &HeaderMap::new());
        assert!(
            by_address("http://localhost:7077/").is_some() && by_address("http://evil.example/").is_none()
        );
        assert!(by_address("/").is_none(), "nobody named anything");
    }

    #[test]
    fn after_signing_in_nobody_is_led_elsewhere() {
        assert_eq!(safe_next("/runs/12?x=1#failures"), "/runs/12?x=1#failures");
        for bad in [
            "",
            "runs",
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "/a\nb",
            "/sign-out",
            "/é",
        ] {
            assert_eq!(safe_next(bad), "/", "{bad:?}");
        }
    }

    #[test]
    fn the_cookie_is_out_of_reach_for_scripts_and_other_sites() {
        let plain = set_cookie("id", &HeaderMap::new());
        assert_eq!(plain, "andon_session=id; Path=/; Max-Age=604800; HttpOnly; SameSite=Strict");
        assert!(set_cookie("id", &headers(&[("x-forwarded-proto", "https")])).ends_with("; Secure"));
        assert!(set_cookie("", &HeaderMap::new()).contains("Max-Age=0"));
    }
}
