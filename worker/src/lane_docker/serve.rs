//! The server of one unit's Docker API: connections on its socket, each call judged, then answered or passed on.
//!
//! Invariant: a call reaches the daemon only by an arm of [`answer`]; what an arm passes on names things by the daemon's
//! own ids, which were looked up first.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::daemon::{Body, full};
use super::desk::{Desk, encode, id_of};
use super::refusal::Refusal;
use super::route::{ContainerCall, NetworkCall, Route, route};

/// Connections to one unit's API at a time.
const CONNECTIONS_MAX: usize = 128;
/// Largest request with a JSON body.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// What a client may know of the machine.
const INFO: [&str; 18] = [
    "Architecture",
    "CgroupDriver",
    "CgroupVersion",
    "CpuCfsPeriod",
    "CpuCfsQuota",
    "Driver",
    "KernelVersion",
    "MemTotal",
    "MemoryLimit",
    "NCPU",
    "OSType",
    "OSVersion",
    "OperatingSystem",
    "PidsLimit",
    "SecurityOptions",
    "ServerVersion",
    "SwapLimit",
    "SystemTime",
];

type Answer = Result<Response<Body>, Refusal>;

/// Serves until it is stopped; then every connection is cut.
pub(super) async fn serve(desk: Arc<Desk>, listener: UnixListener, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accepted => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let (desk, stop) = (Arc::clone(&desk), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = stop.cancelled() => {}
                () = connection(desk, stream, stop.clone()) => {}
            }
        });
    }
}

async fn connection(desk: Arc<Desk>, stream: UnixStream, stop: CancellationToken) {
    let service = service_fn(|request: Request<Incoming>| {
        let (desk, stop) = (Arc::clone(&desk), stop.clone());
        async move {
            let call = format!("{} {}", request.method(), request.uri().path());
            let answer = answer(&desk, request, &stop).await.unwrap_or_else(|refusal| {
                tracing::debug!(lane = desk.lane, call, %refusal, "a lane's Docker API refused a call");
                json_answer(refusal.status, &refusal.to_json())
            });
            Ok::<_, Infallible>(answer)
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection to a lane's Docker API");
    }
}

fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The values of a query, the last one of each name.
fn query_of(request: &Request<Incoming>) -> BTreeMap<String, String> {
    form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect()
}

async fn body_of(request: Request<Incoming>) -> Result<Value, Refusal> {
    let bytes = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await;
    let bytes = bytes.map_err(|error| Refusal::bad(format!("the request's body: {error}")))?.to_bytes();
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes).map_err(|error| Refusal::bad(format!("the request is no JSON: {error}")))
}

/// Carries a change out in a task of its own: a client that hangs up must not leave it half-made and unknown.
async fn whole<F>(change: F) -> Answer
where
    F: Future<Output = Result<(StatusCode, Value), Refusal>> + Send + 'static,
{
    let (status, answer) = tokio::spawn(change)
        .await
        .map_err(|error| Refusal::broken(format!("the call failed: {error}")))??;
    Ok(json_answer(status, &answer))
}

async fn answer(desk: &Arc<Desk>, request: Request<Incoming>, stop: &CancellationToken) -> Answer {
    let found = route(request.method(), request.uri().path())?;
    let query = query_of(&request);
    let asked = |key: &str| query.get(key).map(String::as_str);
    let own = Arc::clone(desk);
    match found {
        Route::Ping => forward(desk, request, "/_ping").await,
        Route::Version => forward(desk, request, "/version").await,
        Route::Info => info(desk).await,
        Route::Events => {
            let filters = encode(&desk.words.filters(asked("filters"))?);
            let mut path = format!("/events?filters={filters}");
            for key in ["since", "until"] {
                if let Some(value) = asked(key) {
                    path.push_str(&format!("&{key}={}", encode_text(value)));
                }
            }
            forward(desk, request, &path).await
        }
        Route::Containers => {
            let filters = encode(&desk.words.filters(asked("filters"))?);
            let mut path = format!("/containers/json?filters={filters}");
            for key in ["all", "limit", "size"] {
                if let Some(value) = asked(key) {
                    path.push_str(&format!("&{key}={}", encode_text(value)));
                }
            }
            let mut listed = desk.daemon.must(Method::GET, &path, None).await?;
            listed.as_array_mut().into_iter().flatten().for_each(|one| desk.show_container(one));
            Ok(json_answer(StatusCode::OK, &listed))
        }
        Route::CreateContainer => {
            let (name, body) = (query.get("name").cloned(), body_of(request).await?);
            whole(async move { own.create_container(name.as_deref(), body).await }).await
        }
        Route::CreateNetwork => {
            let body = body_of(request).await?;
            whole(async move { own.create_network(body).await }).await
        }
        Route::CreateVolume => {
            let body = body_of(request).await?;
            whole(async move { own.create_volume(body).await }).await
        }
        Route::PruneContainers => prune(desk, "containers", asked("filters")).await,
        Route::PruneNetworks => prune(desk, "networks", asked("filters")).await,
        Route::PruneVolumes => prune(desk, "volumes", asked("filters")).await,
        Route::Container(name, call) => container(desk, request, &name, call, &query, stop).await,
        Route::Exec(id, call) => {
            desk.has_exec(&id)?;
            let path = with_query(&format!("/exec/{id}/{call}"), &request);
            match call {
                "start" => hijack(desk, request, &path, stop).await,
                _ => forward(desk, request, &path).await,
            }
        }
        Route::Images => {
            let path = with_query("/images/json", &request);
            let mut listed = desk.daemon.must(Method::GET, &path, None).await?;
            if let Some(images) = listed.as_array_mut() {
                images.retain(|image| desk.shows(image));
            }
            Ok(json_answer(StatusCode::OK, &listed))
        }
        Route::CreateImage => {
            let Some(image) = asked("fromImage").filter(|_| !query.contains_key("fromSrc")) else {
                return Err(Refusal::forbidden(
                    "importing an image is refused: a worker's images are shared by its lanes",
                ));
            };
            let reference = match asked("tag") {
                None | Some("")
                    if image.contains('@') || image.rsplit('/').next().is_some_and(|n| n.contains(':')) =>
                {
                    image.to_owned()
                }
                None | Some("") => format!("{image}:latest"),
                Some(digest) if digest.contains(':') => format!("{image}@{digest}"),
                Some(tag) => format!("{image}:{tag}"),
            };
            let mut response = Response::new(full(desk.pull(&reference).await?));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Ok(response)
        }
        Route::Image(reference, call) => {
            let image = desk.image(&reference).await?;
            match call {
                "json" => Ok(json_answer(StatusCode::OK, &image)),
                _ => forward(desk, request, &format!("/images/{}/{call}", id_of(&image))).await,
            }
        }
        Route::Networks => {
            // The lane's own is there for whoever looks for Docker's default.
            let filters = desk.words.filters(asked("filters"))?;
            let path = format!("/networks?filters={}", encode(&filters));
            let mut listed = desk.daemon.must(Method::GET, &path, None).await?;
            if let (Some(networks), true) = (listed.as_array_mut(), wants_bridge(asked("filters"))) {
                networks.insert(0, desk.network("bridge").await?);
            }
            listed.as_array_mut().into_iter().flatten().for_each(|one| desk.show_network(one));
            Ok(json_answer(StatusCode::OK, &listed))
        }
        Route::Network(name, call) => network(desk, request, &name, call).await,
        Route::Volumes => {
            let filters = encode(&desk.words.filters(asked("filters"))?);
            let mut listed =
                desk.daemon.must(Method::GET, &format!("/volumes?filters={filters}"), None).await?;
            desk.words.outer(&mut listed);
            Ok(json_answer(StatusCode::OK, &listed))
        }
        Route::InspectVolume(name) => {
            let mut volume = desk.volume(&name).await?;
            desk.words.outer(&mut volume);
            Ok(json_answer(StatusCode::OK, &volume))
        }
        Route::RemoveVolume(name) => {
            let _open = desk.enter().await?;
            let volume = desk.volume(&name).await?;
            let force = query.get("force").map_or("0", |_| "1");
            let path = format!("/volumes/{}?force={force}", volume["Name"].as_str().unwrap_or_default());
            desk.daemon.must(Method::DELETE, &path, None).await?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
    }
}

async fn container(
    desk: &Arc<Desk>,
    request: Request<Incoming>,
    name: &str,
    call: ContainerCall,
    query: &BTreeMap<String, String>,
    stop: &CancellationToken,
) -> Answer {
    match call {
        ContainerCall::Inspect => {
            let mut container = desk.container(name).await?;
            desk.show_container(&mut container);
            Ok(json_answer(StatusCode::OK, &container))
        }
        ContainerCall::Remove => {
            let _open = desk.enter().await?;
            let id = desk.container_id(name).await?;
            let force = query
                .get("force")
                .map_or("0", |force| if force == "0" || force == "false" { "0" } else { "1" });
            // Volumes without names have no label and would stay.
            desk.daemon.must(Method::DELETE, &format!("/containers/{id}?v=1&force={force}"), None).await?;
            desk.drop_ports(&id);
            Ok(empty(StatusCode::NO_CONTENT))
        }
        ContainerCall::Rename => {
            let _open = desk.enter().await?;
            let id = desk.container_id(name).await?;
            let new = super::route::name(query.get("name").map_or("", String::as_str))?;
            let path = format!("/containers/{id}/rename?name={}", desk.words.inner(&new));
            desk.daemon.must(Method::POST, &path, None).await?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        ContainerCall::MakeExec => {
            let _open = desk.enter().await?;
            let id = desk.container_id(name).await?;
            let body = desk.exec_request(body_of(request).await?)?;
            let made = desk.daemon.must(Method::POST, &format!("/containers/{id}/exec"), Some(&body)).await?;
            desk.keep_exec(&id_of(&made))?;
            Ok(json_answer(StatusCode::CREATED, &made))
        }
        ContainerCall::Pass(call) => {
            let id = desk.container_id(name).await?;
            let path = with_query(&format!("/containers/{id}/{call}"), &request);
            match call {
                "attach" => hijack(desk, request, &path, stop).await,
                "start" | "restart" | "unpause" => {
                    let _open = desk.enter().await?;
                    forward(desk, request, &path).await
                }
                _ => forward(desk, request, &path).await,
            }
        }
    }
}

async fn network(desk: &Arc<Desk>, request: Request<Incoming>, name: &str, call: NetworkCall) -> Answer {
    match call {
        NetworkCall::Inspect => {
            let mut network = desk.network(name).await?;
            desk.show_network(&mut network);
            Ok(json_answer(StatusCode::OK, &network))
        }
        NetworkCall::Remove => {
            let _open = desk.enter().await?;
            let id = desk.network_id(name).await?;
            if desk.is_lanes(&id) {
                return Err(Refusal::forbidden(format!(
                    "{name} is a pre-defined network and cannot be removed"
                )));
            }
            desk.daemon.must(Method::DELETE, &format!("/networks/{id}"), None).await?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        NetworkCall::Connect | NetworkCall::Disconnect => {
            let body = body_of(request).await?;
            desk.wire(name, call == NetworkCall::Connect, body).await?;
            Ok(empty(StatusCode::OK))
        }
    }
}

/// Whether a list of networks with these filters has Docker's default network in it.
fn wants_bridge(filters: Option<&str>) -> bool {
    let filters: Value = filters.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let names = match &filters["name"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::Object(names) => names.keys().cloned().collect(),
        _ => Vec::new(),
    };
    let nothing = filters.as_object().is_none_or(serde_json::Map::is_empty);
    nothing || names.iter().any(|name| "bridge".contains(name.trim_matches(['^', '$'])))
}

async fn prune(desk: &Desk, kind: &str, filters: Option<&str>) -> Answer {
    let _open = desk.enter().await?;
    let filters = encode(&desk.words.filters(filters)?);
    let mut pruned =
        desk.daemon.must(Method::POST, &format!("/{kind}/prune?filters={filters}"), None).await?;
    desk.words.outer(&mut pruned);
    Ok(json_answer(StatusCode::OK, &pruned))
}

async fn info(desk: &Desk) -> Answer {
    let whole = desk.daemon.must(Method::GET, "/info", None).await?;
    let mut shown = json!({ "ID": desk.words.token, "Name": desk.words.token });
    for key in INFO {
        if let Some(value) = whole.get(key) {
            shown[key] = value.clone();
        }
    }
    let containers = desk.own("containers").await?;
    let running = containers.iter().filter(|container| container["State"] == "running").count();
    shown["Containers"] = json!(containers.len());
    shown["ContainersRunning"] = json!(running);
    shown["ContainersStopped"] = json!(containers.len() - running);
    Ok(json_answer(StatusCode::OK, &shown))
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

fn encode_text(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn with_query(path: &str, request: &Request<Incoming>) -> String {
    match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// The same request with another path.
fn readdressed<B>(parts: &hyper::http::request::Parts, path: &str, body: B) -> Result<Request<B>, Refusal> {
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = path.parse().map_err(|_| Refusal::bad(format!("{path:?} is no path")))?;
    for (name, value) in &parts.headers {
        if ![CONNECTION, UPGRADE, header::HOST, header::TRANSFER_ENCODING].contains(name) {
            request.headers_mut().append(name, value.clone());
        }
    }
    Ok(request)
}

/// Passes a call on as it is, streaming both ways.
async fn forward(desk: &Desk, request: Request<Incoming>, path: &str) -> Answer {
    let (parts, body) = request.into_parts();
    let response = desk.daemon.send(readdressed(&parts, path, body.boxed())?).await?;
    Ok(response.map(BodyExt::boxed))
}

/// Passes a call on whose connection becomes a plain stream of bytes, where the client asks for that.
async fn hijack(desk: &Desk, mut request: Request<Incoming>, path: &str, stop: &CancellationToken) -> Answer {
    let Some(protocol) = request.headers().get(UPGRADE).cloned() else {
        return forward(desk, request, path).await;
    };
    let client = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let mut onward = readdressed(&parts, path, body.boxed())?;
    onward.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    onward.headers_mut().insert(UPGRADE, protocol.clone());
    let mut response = desk.daemon.send(onward).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response.map(BodyExt::boxed));
    }
    let daemon = hyper::upgrade::on(&mut response);
    let stop = stop.clone();
    tokio::spawn(async move {
        let joined = async {
            let (Ok(client), Ok(daemon)) = tokio::join!(client, daemon) else { return };
            let (mut client, mut daemon) = (TokioIo::new(client), TokioIo::new(daemon));
            // Either side hanging up is the usual end.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut daemon).await;
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = joined => {}
        }
    });
    let mut switched = empty(StatusCode::SWITCHING_PROTOCOLS);
    for name in [CONNECTION, UPGRADE, CONTENT_TYPE] {
        if let Some(value) = response.headers().get(&name) {
            switched.headers_mut().insert(name, value.clone());
        }
    }
    Ok(switched)
}
