//! An engine in memory, for the unit tests of its callers. It keeps containers, networks and images as a daemon would,
//! records every call in words (`start lane0-db`), and fails or answers as a test scripts it.

mod api;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use super::{
    BuildFailure, ContainerSpec, EngineError, ExecSpec, ImageInfo, MountPoint, NetworkSpec, Status,
    VolumeMount,
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
    network_files: Vec<PathBuf>,
    mounts: Vec<MountPoint>,
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
    layers_in: Option<PathBuf>,
    stop_codes: BTreeMap<String, i64>,
    /// Exit codes of attached commands.
    attached: Vec<i64>,
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

    /// The container of this name ends with this code when it is stopped; without it, with 0.
    pub fn on_stop(&self, name: &str, exit_code: i64) {
        self.state().stop_codes.insert(name.to_owned(), exit_code);
    }

    /// The container ends by itself.
    pub fn end_container(&self, name: &str, exit_code: i64, oom_killed: bool) {
        if let Some(container) = self.state().containers.get_mut(name) {
            (container.status, container.exit_code, container.oom_killed) =
                (Status::Exited, exit_code, oom_killed);
        }
        self.changed.notify_waiters();
    }

    /// From now on every container gets a writable layer: a folder of its name in this one. Its volumes are beside it.
    pub fn keep_layers_in(&self, folder: PathBuf) {
        self.state().layers_in = Some(folder);
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

/// As an engine writes them, with the container's name for their content.
fn network_files(folder: &Path, name: &str) -> Vec<PathBuf> {
    std::fs::create_dir_all(folder).expect("a test's folder can be made");
    let files = ["hosts", "resolv.conf", "hostname"].map(|file| folder.join(file));
    for file in &files {
        std::fs::write(file, format!("{name}\n")).expect("a test's file can be written");
    }
    files.to_vec()
}

/// Each an empty folder, as those of an image that has nothing at their paths.
fn volumes(folder: &Path, mounts: &[VolumeMount]) -> Vec<MountPoint> {
    let volume = |(at, mount): (usize, &VolumeMount)| {
        let source = folder.join(at.to_string());
        std::fs::create_dir_all(&source).expect("a test's folder can be made");
        MountPoint { volume: mount.name.clone(), source, target: mount.target.clone() }
    };
    mounts.iter().enumerate().map(volume).collect()
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
