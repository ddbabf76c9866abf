//! An engine in memory, for the unit tests of its callers. It keeps containers, networks and images as a daemon would,
//! records every call in words (`start lane0-db`), and fails or answers as a test scripts it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use tokio::sync::Notify;

use super::{
    BuildError, BuildFailure, BuildSpec, ByteStream, ContainerSpec, ContainerState, ContainerSummary, Engine,
    EngineError, EngineVersion, ExecSpec, ImageInfo, LogsSpec, NetworkMode, NetworkSpec, NetworkSummary,
    OutputSink, OutputStream, Removal, Status,
};

/// What a scripted command prints and how it ends.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// Printed first.
    pub stdout: String,
    /// Printed second.
    pub stderr: String,
    /// Then it ends.
    pub exit_code: i64,
}

impl Script {
    /// Ends with this code and prints nothing.
    pub fn code(exit_code: i64) -> Self {
        Self { exit_code, ..Self::default() }
    }

    /// Prints this and succeeds.
    pub fn prints(stdout: &str) -> Self {
        Self { stdout: stdout.to_owned(), ..Self::default() }
    }
}

type OnExec = Box<dyn FnMut(&str, &ExecSpec) -> Script + Send>;
type OnStart = Box<dyn FnMut(&ContainerSpec) -> Option<Script> + Send>;

struct Container {
    spec: ContainerSpec,
    status: Status,
    exit_code: i64,
    oom_killed: bool,
    upper_dir: Option<PathBuf>,
    log: Script,
    networks: Vec<String>,
}

#[derive(Default)]
struct State {
    calls: Vec<String>,
    failures: Vec<(String, EngineError)>,
    images: BTreeMap<String, ImageInfo>,
    loadable: BTreeMap<Vec<u8>, (String, ImageInfo)>,
    registry: BTreeMap<String, ImageInfo>,
    networks: BTreeMap<String, NetworkSpec>,
    containers: BTreeMap<String, Container>,
    failing_build: Option<BuildFailure>,
    on_exec: Option<OnExec>,
    on_start: Option<OnStart>,
}

/// The engine. Containers are known by their names; an id is the name.
#[derive(Default)]
pub struct FakeEngine {
    state: Mutex<State>,
    changed: Notify,
}

impl fmt::Debug for FakeEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeEngine")
    }
}

impl FakeEngine {
    /// Nothing in it.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the lock")
    }

    /// Every call so far, in words.
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    /// Forgets the calls so far.
    pub fn clear_calls(&self) {
        self.state().calls.clear();
    }

    /// The next call whose words begin so fails with this.
    pub fn fail_next(&self, call: &str, error: EngineError) {
        self.state().failures.push((call.to_owned(), error));
    }

    /// The next build fails by its Dockerfile, with these words and this log.
    pub fn fail_next_build(&self, message: &str, log: &str) {
        let failure = BuildFailure { message: message.to_owned(), log: log.to_owned() };
        self.state().failing_build = Some(failure);
    }

    /// An image that is present.
    pub fn add_image(&self, reference: &str, image: ImageInfo) {
        self.state().images.insert(reference.to_owned(), image);
    }

    /// An image that `load_image` of exactly these bytes brings, under this reference.
    pub fn add_loadable(&self, tar: &[u8], reference: &str, image: ImageInfo) {
        self.state().loadable.insert(tar.to_vec(), (reference.to_owned(), image));
    }

    /// An image that a pull brings.
    pub fn add_to_registry(&self, reference: &str, image: ImageInfo) {
        self.state().registry.insert(reference.to_owned(), image);
    }

    /// Answers every exec; without it they succeed and print nothing.
    pub fn on_exec(&self, script: impl FnMut(&str, &ExecSpec) -> Script + Send + 'static) {
        self.state().on_exec = Some(Box::new(script));
    }

    /// Decides at each start: `Some` is a container that ends at once in this way.
    pub fn on_start(&self, script: impl FnMut(&ContainerSpec) -> Option<Script> + Send + 'static) {
        self.state().on_start = Some(Box::new(script));
    }

    /// The container ends by itself.
    pub fn end_container(&self, name: &str, exit_code: i64, oom_killed: bool) {
        if let Some(container) = self.state().containers.get_mut(name) {
            (container.status, container.exit_code, container.oom_killed) =
                (Status::Exited, exit_code, oom_killed);
        }
        self.changed.notify_waiters();
    }

    /// Where the container's writable layer is.
    pub fn set_upper_dir(&self, name: &str, upper_dir: PathBuf) {
        if let Some(container) = self.state().containers.get_mut(name) {
            container.upper_dir = Some(upper_dir);
        }
    }

    /// As the container was created.
    pub fn spec(&self, name: &str) -> Option<ContainerSpec> {
        self.state().containers.get(name).map(|container| container.spec.clone())
    }

    /// Names of all containers.
    pub fn containers(&self) -> Vec<String> {
        self.state().containers.keys().cloned().collect()
    }

    /// Names of all networks.
    pub fn networks(&self) -> Vec<String> {
        self.state().networks.keys().cloned().collect()
    }

    fn record(&self, call: String) -> Result<MutexGuard<'_, State>, EngineError> {
        let mut state = self.state();
        let planned = state.failures.iter().position(|(prefix, _)| call.starts_with(prefix.as_str()));
        state.calls.push(call);
        match planned {
            Some(at) => Err(state.failures.remove(at).1),
            None => Ok(state),
        }
    }
}

fn not_found(what: String) -> EngineError {
    EngineError::NotFound { what, message: "no such object".to_owned() }
}

fn conflict(what: String, message: &str) -> EngineError {
    EngineError::Conflict { what, message: message.to_owned() }
}

fn matches(labels: &BTreeMap<String, String>, filter: &str) -> bool {
    if filter.is_empty() {
        return true;
    }
    match filter.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(filter),
    }
}

impl State {
    fn image(&self, reference: &str) -> Option<&ImageInfo> {
        self.images.get(reference).or_else(|| self.images.values().find(|image| image.id == reference))
    }

    fn container(&mut self, what: &str, id: &str) -> Result<&mut Container, EngineError> {
        self.containers.get_mut(id).ok_or_else(|| not_found(format!("{what} {id}")))
    }
}

fn state_of(id: &str, container: &Container, image_id: String) -> ContainerState {
    let address = |(at, network): (usize, &String)| {
        (network.clone(), std::net::IpAddr::from([10, 213, 0, u8::try_from(at + 2).unwrap_or(255)]))
    };
    ContainerState {
        id: id.to_owned(),
        name: id.to_owned(),
        image_id,
        status: container.status,
        exit_code: container.exit_code,
        oom_killed: container.oom_killed,
        error: String::new(),
        pid: u32::from(container.status == Status::Running) * 1000,
        started_at: String::new(),
        upper_dir: container.upper_dir.clone(),
        addresses: container.networks.iter().enumerate().map(address).collect(),
        mounts: Vec::new(),
        labels: container.spec.labels.clone(),
    }
}

#[async_trait]
impl Engine for FakeEngine {
    fn address(&self) -> &str {
        "fake://"
    }

    async fn ping(&self) -> Result<(), EngineError> {
        self.record("ping".to_owned()).map(drop)
    }

    async fn version(&self) -> Result<EngineVersion, EngineError> {
        drop(self.record("version".to_owned())?);
        Ok(EngineVersion { storage_driver: "overlay2".to_owned(), ..EngineVersion::default() })
    }

    async fn inspect_image(&self, reference: &str) -> Result<Option<ImageInfo>, EngineError> {
        Ok(self.record(format!("inspect-image {reference}"))?.image(reference).cloned())
    }

    async fn load_image(&self, tar: ByteStream) -> Result<Vec<String>, EngineError> {
        drop(self.record("load-image".to_owned())?);
        let what = "load an image".to_owned();
        let bytes = tar.try_fold(Vec::new(), |mut all, piece| async move {
            all.extend_from_slice(&piece);
            Ok(all)
        });
        let bytes = bytes
            .await
            .map_err(|error| EngineError::Input { what: what.clone(), message: error.to_string() })?;
        let mut state = self.state();
        let Some((reference, image)) = state.loadable.get(&bytes).cloned() else {
            return Err(EngineError::Refused { what, status: 200, message: "unexpected EOF".to_owned() });
        };
        state.images.insert(reference.clone(), image);
        Ok(vec![reference])
    }

    async fn save_image(&self, reference: &str) -> Result<ByteStream, EngineError> {
        let state = self.record(format!("save-image {reference}"))?;
        let image = state.image(reference).ok_or_else(|| not_found(format!("save image {reference}")))?;
        let bytes = bytes::Bytes::from(image.id.clone());
        Ok(Box::pin(futures::stream::iter([Ok(bytes)])))
    }

    async fn tag_image(&self, reference: &str, new_reference: &str) -> Result<(), EngineError> {
        let mut state = self.record(format!("tag-image {reference} {new_reference}"))?;
        let image = state.image(reference).cloned();
        let image = image.ok_or_else(|| not_found(format!("tag image {reference}")))?;
        state.images.insert(new_reference.to_owned(), image);
        Ok(())
    }

    async fn pull_image(&self, reference: &str) -> Result<(), EngineError> {
        let mut state = self.record(format!("pull-image {reference}"))?;
        let image = state.registry.get(reference).cloned();
        let image = image.ok_or_else(|| not_found(format!("pull image {reference}")))?;
        state.images.insert(reference.to_owned(), image);
        Ok(())
    }

    async fn build_image(&self, spec: BuildSpec) -> Result<String, BuildError> {
        drop(self.record(format!("build-image {}", spec.tag))?);
        let read = spec.context.try_for_each(|_| async { Ok(()) }).await;
        read.map_err(|error| EngineError::Input { what: "build".to_owned(), message: error.to_string() })?;
        if let Some(failure) = self.state().failing_build.take() {
            return Err(BuildError::Failed(failure));
        }
        let id = format!("sha256:{}", blake3::hash(spec.tag.as_bytes()).to_hex());
        let labels = spec.labels;
        let image = ImageInfo { id: id.clone(), labels, ..ImageInfo::default() };
        self.state().images.insert(spec.tag, image);
        Ok(id)
    }

    async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        let mut state = self.record(format!("remove-image {reference}"))?;
        state.images.retain(|name, image| name != reference && image.id != reference);
        Ok(())
    }

    async fn create_network(&self, spec: &NetworkSpec) -> Result<String, EngineError> {
        let mut state = self.record(format!("create-network {}", spec.name))?;
        if state.networks.contains_key(&spec.name) {
            return Err(conflict(format!("create network {}", spec.name), "the name is taken"));
        }
        state.networks.insert(spec.name.clone(), spec.clone());
        Ok(spec.name.clone())
    }

    async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        let mut state = self.record(format!("remove-network {name}"))?;
        let is_on = |container: &Container| container.networks.iter().any(|network| network == name);
        if state.containers.values().any(is_on) {
            return Err(conflict(format!("remove network {name}"), "it has active endpoints"));
        }
        state.networks.remove(name);
        Ok(())
    }

    async fn connect_network(&self, network: &str, id: &str, aliases: &[String]) -> Result<(), EngineError> {
        let mut state = self.record(format!("connect-network {network} {id} {}", aliases.join(",")))?;
        state.container("connect", id)?.networks.push(network.to_owned());
        Ok(())
    }

    async fn disconnect_network(&self, network: &str, id: &str) -> Result<(), EngineError> {
        let mut state = self.record(format!("disconnect-network {network} {id}"))?;
        state.container("disconnect", id)?.networks.retain(|name| name != network);
        Ok(())
    }

    async fn list_networks(&self, label: &str) -> Result<Vec<NetworkSummary>, EngineError> {
        let state = self.record(format!("list-networks {label}"))?;
        let summary = |spec: &NetworkSpec| NetworkSummary {
            id: spec.name.clone(),
            name: spec.name.clone(),
            labels: spec.labels.clone(),
        };
        Ok(state.networks.values().filter(|spec| matches(&spec.labels, label)).map(summary).collect())
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        let mut state = self.record(format!("create {}", spec.name))?;
        let what = format!("create container {}", spec.name);
        if state.image(&spec.image).is_none() {
            return Err(not_found(what));
        }
        if state.containers.contains_key(&spec.name) {
            return Err(conflict(what, "the name is taken"));
        }
        let networks = match &spec.network {
            NetworkMode::Named { network, .. } if state.networks.contains_key(network) => {
                vec![network.clone()]
            }
            NetworkMode::Named { .. } => return Err(not_found(what)),
            _ => Vec::new(),
        };
        let container = Container {
            spec: spec.clone(),
            status: Status::Created,
            exit_code: 0,
            oom_killed: false,
            upper_dir: None,
            log: Script::default(),
            networks,
        };
        state.containers.insert(spec.name.clone(), container);
        Ok(spec.name.clone())
    }

    async fn start_container(&self, id: &str) -> Result<(), EngineError> {
        let mut state = self.record(format!("start {id}"))?;
        let spec = state.container("start container", id)?.spec.clone();
        let script = state.on_start.as_mut().and_then(|script| script(&spec));
        let container = state.container("start container", id)?;
        container.status = Status::Running;
        if let Some(script) = script {
            container.status = Status::Exited;
            container.exit_code = script.exit_code;
            container.log = script;
        }
        self.changed.notify_waiters();
        Ok(())
    }

    async fn kill_container(&self, id: &str, signal: &str) -> Result<(), EngineError> {
        let mut state = self.record(format!("kill {id} {signal}"))?;
        let container = state.container("kill container", id)?;
        if container.status != Status::Running {
            return Err(conflict(format!("kill container {id}"), "it is not running"));
        }
        if matches!(signal, "KILL" | "SIGKILL" | "TERM" | "SIGTERM") {
            container.status = Status::Exited;
            container.exit_code = if signal.ends_with("KILL") { 137 } else { 143 };
        }
        self.changed.notify_waiters();
        Ok(())
    }

    async fn stop_container(&self, id: &str, _: Duration) -> Result<(), EngineError> {
        let mut state = self.record(format!("stop {id}"))?;
        let container = state.container("stop container", id)?;
        if container.status == Status::Running {
            container.status = Status::Exited;
        }
        self.changed.notify_waiters();
        Ok(())
    }

    async fn pause_container(&self, id: &str) -> Result<(), EngineError> {
        let mut state = self.record(format!("pause {id}"))?;
        state.container("pause container", id)?.status = Status::Paused;
        Ok(())
    }

    async fn unpause_container(&self, id: &str) -> Result<(), EngineError> {
        let mut state = self.record(format!("unpause {id}"))?;
        state.container("unpause container", id)?.status = Status::Running;
        Ok(())
    }

    async fn wait_container(&self, id: &str, limit: Duration) -> Result<i64, EngineError> {
        drop(self.record(format!("wait {id}"))?);
        let what = "wait for container";
        let ended = async {
            loop {
                let changed = self.changed.notified();
                {
                    let mut state = self.state();
                    let container = state.container(what, id)?;
                    if !matches!(container.status, Status::Running | Status::Paused) {
                        return Ok(container.exit_code);
                    }
                }
                changed.await;
            }
        };
        match tokio::time::timeout(limit, ended).await {
            Ok(answer) => answer,
            Err(_) => Err(EngineError::TimedOut { what: format!("{what} {id}"), limit }),
        }
    }

    async fn remove_container(&self, id: &str, how: Removal) -> Result<(), EngineError> {
        let mut state = self.record(format!("remove {id}"))?;
        if state.containers.get(id).is_some_and(|found| found.status == Status::Running) && !how.force {
            return Err(conflict(format!("remove container {id}"), "it is running"));
        }
        state.containers.remove(id);
        self.changed.notify_waiters();
        Ok(())
    }

    async fn inspect_container(&self, id: &str) -> Result<ContainerState, EngineError> {
        let mut state = self.record(format!("inspect {id}"))?;
        let reference = state.container("inspect container", id)?.spec.image.clone();
        let image = state.image(&reference).map(|image| image.id.clone()).unwrap_or_default();
        Ok(state_of(id, state.container("inspect container", id)?, image))
    }

    async fn exec(
        &self,
        id: &str,
        spec: &ExecSpec,
        output: &mut (dyn OutputSink + '_),
    ) -> Result<i64, EngineError> {
        let mut state = self.record(format!("exec {id} {}", spec.argv.join(" ")))?;
        if state.container("run in container", id)?.status != Status::Running {
            return Err(conflict(format!("run in container {id}"), "it is not running"));
        }
        let script = state.on_exec.as_mut().map(|script| script(id, spec)).unwrap_or_default();
        output.write(OutputStream::Stdout, script.stdout.as_bytes());
        output.write(OutputStream::Stderr, script.stderr.as_bytes());
        Ok(script.exit_code)
    }

    async fn logs(
        &self,
        id: &str,
        _: LogsSpec,
        output: &mut (dyn OutputSink + '_),
    ) -> Result<(), EngineError> {
        let mut state = self.record(format!("logs {id}"))?;
        let log = &state.container("read the log of container", id)?.log;
        output.write(OutputStream::Stdout, log.stdout.as_bytes());
        output.write(OutputStream::Stderr, log.stderr.as_bytes());
        Ok(())
    }

    async fn list_containers(&self, label: &str) -> Result<Vec<ContainerSummary>, EngineError> {
        let state = self.record(format!("list-containers {label}"))?;
        let found = state.containers.iter().filter(|(_, found)| matches(&found.spec.labels, label));
        let summary = |(name, found): (&String, &Container)| ContainerSummary {
            id: name.clone(),
            name: name.clone(),
            status: found.status,
            labels: found.spec.labels.clone(),
        };
        Ok(found.map(summary).collect())
    }
}
