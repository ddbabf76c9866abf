//! Which calls of Docker's API a lane offers, by method and path. What is not named here is refused by name.
//!
//! Pure. Must not know what a call does. Invariant: names and ids that come out of here hold nothing that could change the
//! path of a request that they are put into.

use hyper::{Method, StatusCode};
use percent_encoding::percent_decode_str;

use super::refusal::Refusal;

/// Longest name, id or reference.
const NAME_BYTES_MAX: usize = 512;

/// A call that is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Ping,
    Version,
    Info,
    Events,
    Containers,
    CreateContainer,
    PruneContainers,
    /// Of one container, by name or id.
    Container(String, ContainerCall),
    /// Of one exec, by id: `start`, `resize`, `json`.
    Exec(String, &'static str),
    Images,
    /// A pull.
    CreateImage,
    /// Of one image: `json` or `history`.
    Image(String, &'static str),
    Networks,
    CreateNetwork,
    PruneNetworks,
    Network(String, NetworkCall),
    Volumes,
    CreateVolume,
    PruneVolumes,
    InspectVolume(String),
    RemoveVolume(String),
}

/// What is done with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContainerCall {
    Inspect,
    Remove,
    Rename,
    MakeExec,
    /// Anything that changes nothing but the container, and whose answer is passed on as it comes: the path's last word.
    Pass(&'static str),
}

/// What is done with a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NetworkCall {
    Inspect,
    Remove,
    Connect,
    Disconnect,
}

/// Container calls that are passed on, by method.
const PASSED: [(Method, &[&str]); 4] = [
    (Method::GET, &["archive", "changes", "export", "logs", "stats", "top"]),
    (Method::HEAD, &["archive"]),
    (Method::PUT, &["archive"]),
    (Method::POST, &["attach", "kill", "pause", "resize", "restart", "start", "stop", "unpause", "wait"]),
];

/// Calls that people will miss, and what to do instead.
const INSTEAD: [(&str, &str); 9] = [
    ("build", "build images as the suite's own, or share them with `andon image add`"),
    ("session", "build images as the suite's own, or share them with `andon image add`"),
    ("commit", "images of a worker are shared by its lanes and are not changed by tests"),
    ("images", "images of a worker are shared by its lanes and are not changed by tests"),
    ("auth", "the worker pulls as itself"),
    ("swarm", "a lane is no swarm"),
    ("services", "a lane is no swarm"),
    ("plugins", "the worker's engine has no plugins"),
    ("containers", "this call is not offered"),
];

/// Finds the call. `path` is without its query, with or without an API version in front.
pub(super) fn route(method: &Method, path: &str) -> Result<Route, Refusal> {
    let mut parts: Vec<String> = Vec::new();
    for part in path.trim_matches('/').split('/') {
        let decoded = percent_decode_str(part).decode_utf8();
        let decoded = decoded.map_err(|_| Refusal::bad(format!("{path:?} is not UTF-8")))?;
        parts.push(decoded.into_owned());
    }
    if parts.first().is_some_and(|first| is_version(first)) {
        parts.remove(0);
    }
    let words: Vec<&str> = parts.iter().map(String::as_str).collect();
    let found = match (method.as_str(), words.as_slice()) {
        ("GET" | "HEAD", ["_ping"]) => Route::Ping,
        ("GET", ["version"]) => Route::Version,
        ("GET", ["info"]) => Route::Info,
        ("GET", ["events"]) => Route::Events,
        ("GET", ["containers", "json"]) => Route::Containers,
        ("POST", ["containers", "create"]) => Route::CreateContainer,
        ("POST", ["containers", "prune"]) => Route::PruneContainers,
        ("GET", ["containers", id, "json"]) => Route::Container(name(id)?, ContainerCall::Inspect),
        ("DELETE", ["containers", id]) => Route::Container(name(id)?, ContainerCall::Remove),
        ("POST", ["containers", id, "rename"]) => Route::Container(name(id)?, ContainerCall::Rename),
        ("POST", ["containers", id, "exec"]) => Route::Container(name(id)?, ContainerCall::MakeExec),
        (_, ["containers", id, call]) => match passed(method, call) {
            Some(call) => Route::Container(name(id)?, ContainerCall::Pass(call)),
            None => return Err(refused(method, &words)),
        },
        ("POST", ["exec", id, "start"]) => Route::Exec(name(id)?, "start"),
        ("POST", ["exec", id, "resize"]) => Route::Exec(name(id)?, "resize"),
        ("GET", ["exec", id, "json"]) => Route::Exec(name(id)?, "json"),
        ("GET", ["images", "json"]) => Route::Images,
        ("POST", ["images", "create"]) => Route::CreateImage,
        ("GET", ["images", reference @ .., "json"]) => {
            Route::Image(image_name(&reference.join("/"))?, "json")
        }
        ("GET", ["images", reference @ .., "history"]) => {
            Route::Image(image_name(&reference.join("/"))?, "history")
        }
        ("GET", ["networks"]) => Route::Networks,
        ("POST", ["networks", "create"]) => Route::CreateNetwork,
        ("POST", ["networks", "prune"]) => Route::PruneNetworks,
        ("GET", ["networks", id]) => Route::Network(name(id)?, NetworkCall::Inspect),
        ("DELETE", ["networks", id]) => Route::Network(name(id)?, NetworkCall::Remove),
        ("POST", ["networks", id, "connect"]) => Route::Network(name(id)?, NetworkCall::Connect),
        ("POST", ["networks", id, "disconnect"]) => Route::Network(name(id)?, NetworkCall::Disconnect),
        ("GET", ["volumes"]) => Route::Volumes,
        ("POST", ["volumes", "create"]) => Route::CreateVolume,
        ("POST", ["volumes", "prune"]) => Route::PruneVolumes,
        ("GET", ["volumes", id]) => Route::InspectVolume(name(id)?),
        ("DELETE", ["volumes", id]) => Route::RemoveVolume(name(id)?),
        _ => return Err(refused(method, &words)),
    };
    Ok(found)
}

fn passed(method: &Method, call: &str) -> Option<&'static str> {
    let (_, calls) = PASSED.iter().find(|(known, _)| known == method)?;
    calls.iter().find(|known| **known == call).copied()
}

fn refused(method: &Method, words: &[&str]) -> Refusal {
    let call: String = words.join("/").chars().take(NAME_BYTES_MAX).collect();
    let hint = INSTEAD.iter().find(|(first, _)| words.first() == Some(first));
    let hint = hint.map(|(_, hint)| format!(": {hint}")).unwrap_or_default();
    Refusal {
        status: StatusCode::NOT_IMPLEMENTED,
        message: format!("a lane's Docker API does not offer {method} /{call}{hint}"),
    }
}

/// `v1.41`.
fn is_version(word: &str) -> bool {
    let Some((major, minor)) = word.strip_prefix('v').and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let number = |text: &str| (1..=3).contains(&text.len()) && text.chars().all(|c| c.is_ascii_digit());
    number(major) && number(minor)
}

/// A container's, network's or volume's name, or an id.
pub(super) fn name(text: &str) -> Result<String, Refusal> {
    let fit = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let sound = text.len() <= NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(fit);
    match sound {
        true => Ok(text.to_owned()),
        false => Err(Refusal::bad(format!(
            "{text:?} is no name: letters, digits, '_', '.' and '-' are valid, a letter or digit first"
        ))),
    }
}

/// An image's reference or id.
pub(super) fn image_name(text: &str) -> Result<String, Refusal> {
    let fit = |c: char| c.is_ascii_alphanumeric() || "_.-/:@".contains(c);
    let sound = text.len() <= NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(fit)
        && text.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    match sound {
        true => Ok(text.to_owned()),
        false => Err(Refusal::bad(format!("invalid reference format: {text:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(method: &Method, path: &str) -> Result<Route, Refusal> {
        route(method, path)
    }

    #[test]
    fn a_call_is_found_with_and_without_a_version_and_images_may_have_slashes() {
        assert_eq!(at(&Method::GET, "/v1.41/containers/json").unwrap(), Route::Containers);
        assert_eq!(at(&Method::GET, "/containers/json").unwrap(), Route::Containers);
        let image = Route::Image("andon-sample/mysql:9.7".into(), "json");
        assert_eq!(at(&Method::GET, "/v1.45/images/andon-sample/mysql:9.7/json").unwrap(), image);
        assert_eq!(at(&Method::GET, "/v1.45/images/andon-sample%2Fmysql%3A9.7/json").unwrap(), image);
        let start = Route::Container("x".into(), ContainerCall::Pass("start"));
        assert_eq!(at(&Method::POST, "/v1.45/containers/x/start").unwrap(), start);
    }

    #[test]
    fn calls_that_are_not_offered_are_refused_by_name() {
        for (method, path, word) in [
            (Method::POST, "/v1.41/build", "POST /build"),
            (Method::POST, "/session", "POST /session"),
            (Method::POST, "/v1.41/swarm/init", "swarm"),
            (Method::POST, "/v1.41/images/load", "POST /images/load"),
            (Method::DELETE, "/v1.41/images/debian", "DELETE /images/debian"),
            (Method::POST, "/v1.41/commit", "commit"),
            (Method::POST, "/v1.41/containers/x/update", "update"),
            (Method::GET, "/v1.41/containers/x/attach/ws", "attach/ws"),
            (Method::GET, "/v1.41/containers/x/start", "start"),
            (Method::GET, "/", "GET /"),
        ] {
            let refusal = at(&method, path).unwrap_err();
            assert_eq!(refusal.status, StatusCode::NOT_IMPLEMENTED, "{path}");
            assert!(refusal.message.contains(word), "{}", refusal.message);
        }
    }

    #[test]
    fn what_could_change_the_path_of_a_request_is_refused() {
        for id in ["..", "%2e%2e", "a%2Fb", "a%3Fforce=1", "-a", "", "a%00"] {
            assert!(at(&Method::GET, &format!("/containers/{id}/json")).is_err(), "{id}");
        }
        for reference in ["..", "a/../b", "a//b", "a%3Fx", "%2fa"] {
            assert!(at(&Method::GET, &format!("/images/{reference}/json")).is_err(), "{reference}");
        }
    }
}
