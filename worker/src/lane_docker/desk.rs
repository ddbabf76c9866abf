//! What one unit's Docker API knows and keeps: whose it is, what it may, what it has open; and how names are found.
//!
//! Must not know HTTP connections. Invariants: what is found carries this unit's label (or is the lane's network, or an image
//! that every lane may use), everything else is "not found" in the daemon's own words; nothing is made once [`Desk::close`]
//! has begun.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard};

use super::create::Caps;
use super::daemon::Daemon;
use super::mounts::{Mounted, Reach};
use super::ports::{Forward, Home};
use super::refusal::Refusal;
use super::words::{GUEST_LABEL, Words};
use crate::stack::LANE_LABEL;

/// Containers of one unit at a time, ended ones included.
pub(super) const CONTAINERS_MAX: usize = 16;
/// Networks of one unit at a time.
pub(super) const NETWORKS_MAX: usize = 8;
/// Volumes with names, of one unit at a time.
pub(super) const VOLUMES_MAX: usize = 32;
/// Execs over a unit's life.
const EXECS_MAX: usize = 65_536;
/// Rounds of removing before it is given up: what removes itself meanwhile needs a second one.
const SWEEPS_MAX: usize = 50;
/// Between two rounds.
const SWEEP_PAUSE: Duration = Duration::from_millis(100);
/// Names of images that the worker has built for projects begin so; only the unit's own is shown.
const BUILT_HERE: &str = "andon-build:";

/// Has images that are not in the daemon yet, from the farm. `Err` says why not.
pub(crate) type HaveImage =
    Arc<dyn Fn(String) -> futures::future::BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The desk of one unit.
pub(super) struct Desk {
    pub(super) daemon: Daemon,
    pub(super) words: Words,
    pub(super) lane: String,
    pub(super) network_id: String,
    pub(super) home: Home,
    pub(super) reach: Reach,
    pub(super) caps: Caps,
    /// The suite's own image.
    pub(super) suite_image: String,
    pub(super) have_image: HaveImage,
    pub(super) life: Life,
}

/// How far a desk's unit has come.
#[derive(Default)]
pub(super) struct Life {
    /// Write-locked while everything is removed; `true` once the unit is over.
    over: RwLock<bool>,
    /// Something was made since the last sweep.
    touched: AtomicBool,
    kept: Mutex<Kept>,
}

/// What goes with the unit.
#[derive(Default)]
struct Kept {
    execs: HashSet<String>,
    ports: BTreeMap<String, (Vec<Forward>, Value)>,
    /// Path in the worker, path in the box.
    paths: Vec<(String, String)>,
    mounts: Vec<Mounted>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("words", &self.words).finish_non_exhaustive()
    }
}

impl Desk {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.life.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be held while something changes. Fails once the unit is over.
    pub(super) async fn enter(&self) -> Result<RwLockReadGuard<'_, bool>, Refusal> {
        let over = self.life.over.read().await;
        match *over {
            false => Ok(over),
            true => Err(Refusal {
                status: StatusCode::SERVICE_UNAVAILABLE,
                message: "the unit that this Docker API was for is over".to_owned(),
            }),
        }
    }

    /// Labels of what is made, beside the test's own.
    pub(super) fn label(&self, labels: &mut Value) {
        if !labels.is_object() {
            *labels = json!({});
        }
        labels[LANE_LABEL] = json!(self.lane);
        labels[GUEST_LABEL] = json!(self.words.token);
        self.life.touched.store(true, Ordering::SeqCst);
    }

    fn is_own(&self, labels: &Value) -> bool {
        labels.get(GUEST_LABEL).and_then(Value::as_str) == Some(self.words.token.as_str())
    }

    /// Looks a thing up under its own name, then as an id; `labels` is where its labels are.
    async fn find(&self, kind: &str, name: &str, labels: &str) -> Result<Value, Refusal> {
        let prefix = if kind == "containers" { "/json" } else { "" };
        let is_id = name.len() == 64;
        let candidates =
            if is_id { vec![name.to_owned()] } else { vec![self.words.inner(name), name.to_owned()] };
        for candidate in candidates {
            let (status, found) =
                self.daemon.call(Method::GET, &format!("/{kind}/{candidate}{prefix}"), None).await?;
            let own = found.pointer(labels).is_some_and(|labels| self.is_own(labels));
            if status.is_success() && own {
                return Ok(found);
            }
            if status.is_server_error() {
                return Err(Refusal::broken(found["message"].as_str().unwrap_or("no reason given")));
            }
        }
        let what = kind.trim_end_matches('s');
        Err(Refusal::absent(match kind {
            "networks" => format!("network {name} not found"),
            "volumes" => format!("get {name}: no such volume"),
            _ => format!("No such {what}: {name}"),
        }))
    }

    /// As the daemon shows it.
    pub(super) async fn container(&self, name: &str) -> Result<Value, Refusal> {
        self.find("containers", name, "/Config/Labels").await
    }

    /// Its id.
    pub(super) async fn container_id(&self, name: &str) -> Result<String, Refusal> {
        Ok(id_of(&self.container(name).await?))
    }

    /// As the daemon shows it; `bridge` is the lane's own.
    pub(super) async fn network(&self, name: &str) -> Result<Value, Refusal> {
        if self.is_lanes(name) {
            return self.daemon.must(Method::GET, &format!("/networks/{}", self.network_id), None).await;
        }
        self.find("networks", name, "/Labels").await
    }

    /// Whether a test means the lane's own network.
    pub(super) fn is_lanes(&self, name: &str) -> bool {
        name == "bridge" || name == "default" || name == self.network_id
    }

    /// Its id.
    pub(super) async fn network_id(&self, name: &str) -> Result<String, Refusal> {
        if self.is_lanes(name) {
            return Ok(self.network_id.clone());
        }
        Ok(id_of(&self.network(name).await?))
    }

    /// Its name, as the daemon has it.
    pub(super) async fn network_name(&self, name: &str) -> Result<String, Refusal> {
        if self.is_lanes(name) {
            return Ok(self.words.network.clone());
        }
        Ok(self.network(name).await?["Name"].as_str().unwrap_or_default().to_owned())
    }

    pub(super) async fn volume(&self, name: &str) -> Result<Value, Refusal> {
        self.find("volumes", name, "/Labels").await
    }

    /// An image that the unit may use, as the daemon shows it. What the worker built for others is not there.
    pub(super) async fn image(&self, reference: &str) -> Result<Value, Refusal> {
        let absent = || Refusal::absent(format!("No such image: {reference}"));
        let (status, found) =
            self.daemon.call(Method::GET, &format!("/images/{reference}/json"), None).await?;
        if !status.is_success() {
            return Err(absent());
        }
        match self.shows(&found) {
            true => Ok(found),
            false => Err(absent()),
        }
    }

    /// Whether an image (of a list, or looked at) may be seen.
    pub(super) fn shows(&self, image: &Value) -> bool {
        let names = |key: &str| {
            let list = image.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
            list.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect::<Vec<_>>()
        };
        let known = names("RepoTags").into_iter().chain(names("RepoDigests"));
        let mut public = known.filter(|name| !name.starts_with(BUILT_HERE) && !name.starts_with("<none>"));
        image["Id"].as_str() == Some(&self.suite_image) || public.next().is_some()
    }

    /// How many of a kind there are; the list is the daemon's.
    pub(super) async fn own(&self, kind: &str) -> Result<Vec<Value>, Refusal> {
        let filters = encode(&self.words.own());
        let (path, field) = match kind {
            "containers" => (format!("/containers/json?all=1&filters={filters}"), None),
            "volumes" => (format!("/volumes?filters={filters}"), Some("Volumes")),
            _ => (format!("/networks?filters={filters}"), None),
        };
        let listed = self.daemon.must(Method::GET, &path, None).await?;
        let listed = field.map_or(&listed, |field| &listed[field]);
        Ok(listed.as_array().cloned().unwrap_or_default())
    }

    /// Refuses one more than `max`.
    pub(super) async fn room_for(&self, kind: &str, more: usize, max: usize) -> Result<(), Refusal> {
        if self.own(kind).await?.len() + more > max {
            return Err(Refusal::forbidden(format!("a unit's tests may have {max} {kind} at a time")));
        }
        Ok(())
    }

    pub(super) fn keep_exec(&self, id: &str) -> Result<(), Refusal> {
        let mut kept = self.kept();
        if kept.execs.len() >= EXECS_MAX {
            return Err(Refusal::forbidden(format!("a unit's tests may make {EXECS_MAX} execs")));
        }
        kept.execs.insert(id.to_owned());
        Ok(())
    }

    pub(super) fn has_exec(&self, id: &str) -> Result<(), Refusal> {
        match self.kept().execs.contains(id) {
            true => Ok(()),
            false => Err(Refusal::absent(format!("No such exec instance: {id}"))),
        }
    }

    /// `asked` is the request's own `PortBindings`, to be shown again.
    pub(super) fn keep_ports(&self, container: &str, ports: Vec<Forward>, asked: Value) {
        self.kept().ports.insert(container.to_owned(), (ports, asked));
    }

    pub(super) fn drop_ports(&self, container: &str) {
        self.kept().ports.remove(container);
    }

    /// Inner and outer port of each that a container publishes, and what was asked for.
    pub(super) fn ports_of(&self, container: &str) -> (Vec<(u16, u16)>, Value) {
        match self.kept().ports.get(container) {
            Some((ports, asked)) => {
                (ports.iter().map(|port| (port.inner, port.outer)).collect(), asked.clone())
            }
            None => (Vec::new(), json!({})),
        }
    }

    pub(super) fn keep_path(&self, inner: &str, outer: &str, mount: Option<Mounted>) {
        let mut kept = self.kept();
        kept.paths.push((inner.to_owned(), outer.to_owned()));
        kept.mounts.extend(mount);
    }

    /// Where the box has what is mounted from there.
    pub(super) fn box_path(&self, inner: &str) -> Option<String> {
        let kept = self.kept();
        kept.paths.iter().find(|(path, _)| path == inner).map(|(_, outer)| outer.clone())
    }

    /// Removes everything that was made. Free where nothing was.
    pub(super) async fn clear(&self) -> Result<(), Refusal> {
        let held = self.life.over.write().await;
        self.sweep().await?;
        drop(held);
        Ok(())
    }

    /// As [`Desk::clear`], and nothing is made any more.
    pub(super) async fn close(&self) -> Result<(), Refusal> {
        let mut over = self.life.over.write().await;
        *over = true;
        self.sweep().await
    }

    async fn sweep(&self) -> Result<(), Refusal> {
        if !self.life.touched.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut last = Refusal::broken("nothing was tried");
        for round in 0..SWEEPS_MAX {
            if round > 0 {
                tokio::time::sleep(SWEEP_PAUSE).await;
            }
            match self.remove_all().await {
                Ok(true) => {
                    *self.kept() = Kept::default();
                    self.life.touched.store(false, Ordering::SeqCst);
                    return Ok(());
                }
                Ok(false) => last = Refusal::broken("something is still being removed"),
                Err(error) => last = error,
            }
        }
        Err(Refusal::broken(format!("what a unit's tests made cannot be removed: {last}")))
    }

    /// One round; whether nothing was there any more.
    async fn remove_all(&self) -> Result<bool, Refusal> {
        let containers = self.own("containers").await?;
        let removing = containers.iter().map(|container| async {
            self.remove(&format!("/containers/{}?force=1&v=1", id_of(container))).await
        });
        futures::future::try_join_all(removing).await?;
        // A container that removes itself may hold them still.
        if !self.own("containers").await?.is_empty() {
            return Ok(false);
        }
        for network in self.own("networks").await? {
            self.remove(&format!("/networks/{}", id_of(&network))).await?;
        }
        for volume in self.own("volumes").await? {
            self.remove(&format!("/volumes/{}?force=1", volume["Name"].as_str().unwrap_or_default())).await?;
        }
        Ok(true)
    }

    async fn remove(&self, path: &str) -> Result<(), Refusal> {
        match self.daemon.must(Method::DELETE, path, None).await {
            // Gone, or going.
            Err(gone) if matches!(gone.status, StatusCode::NOT_FOUND | StatusCode::CONFLICT) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// `Id` of an answer.
pub(super) fn id_of(value: &Value) -> String {
    value["Id"].as_str().unwrap_or_default().to_owned()
}

/// A JSON value for a query.
pub(super) fn encode(value: &Value) -> String {
    form_urlencoded::byte_serialize(value.to_string().as_bytes()).collect()
}

/// Removes volumes of an earlier life: containers and networks go by the lanes' label.
pub(super) async fn sweep_volumes(socket: &std::path::Path) -> Result<(), String> {
    let daemon = Daemon::new(socket.to_owned());
    let path = format!("/volumes?filters={}", encode(&json!({ "label": [GUEST_LABEL] })));
    let listed = daemon.must(Method::GET, &path, None).await.map_err(|error| error.to_string())?;
    for volume in listed["Volumes"].as_array().into_iter().flatten() {
        let name = volume["Name"].as_str().unwrap_or_default();
        let removed = daemon.must(Method::DELETE, &format!("/volumes/{name}?force=1"), None).await;
        removed.map_err(|error| error.to_string())?;
    }
    Ok(())
}
