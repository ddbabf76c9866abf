//! The calls of the engine in memory.

use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};

use super::{Container, FakeEngine, Script, conflict, matches, not_found};
use crate::engine::{
    AttachSpec, Attached, BuildError, BuildSpec, ByteStream, ContainerSpec, ContainerState, ContainerSummary,
    Engine, EngineError, EngineVersion, ExecSpec, ImageInfo, LogsSpec, NetworkMode, NetworkSpec,
    NetworkSummary, OutputSink, OutputStream, Removal, Status, limits,
};

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
        memory_limit_bytes: container.spec.limits.memory_bytes,
        error: String::new(),
        // It has no process.
        pid: 0,
        stop_signal: "SIGTERM".to_owned(),
        upper_dir: container.upper_dir.clone(),
        network_files: container.network_files.clone(),
        network_namespace: None,
        addresses: container.networks.iter().enumerate().map(address).collect(),
        mounts: container.mounts.clone(),
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
        let upper_dir = state.layers_in.as_ref().map(|folder| folder.join(&spec.name));
        if let Some(layer) = &upper_dir {
            // Empty, as a fresh container's is.
            let _ = std::fs::remove_dir_all(layer);
            std::fs::create_dir_all(layer).expect("a test's folder can be made");
        }
        let own_network = matches!(spec.network, NetworkMode::Named { .. });
        let network_files = match state.layers_in.as_ref().filter(|_| own_network) {
            Some(folder) => super::network_files(&folder.join(format!("{}.network", spec.name)), &spec.name),
            None => Vec::new(),
        };
        let mounts = match &state.layers_in {
            Some(folder) => super::volumes(&folder.join(format!("{}.volumes", spec.name)), &spec.volumes),
            None => Vec::new(),
        };
        let container = Container {
            spec: spec.clone(),
            status: Status::Created,
            exit_code: 0,
            oom_killed: false,
            upper_dir,
            network_files,
            mounts,
            log: Script::default(),
            networks,
        };
        state.containers.insert(spec.name.clone(), container);
        Ok(spec.name.clone())
    }

    async fn start_container(&self, id: &str) -> Result<(), EngineError> {
        let mut state = self.record(format!("start {id}"))?;
        let spec = state.container("start container", id)?.spec.clone();
        if let NetworkMode::Container(other) = &spec.network
            && state.container("join", other)?.status != Status::Running
        {
            return Err(conflict(format!("start container {id}"), "cannot join a network that is gone"));
        }
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
        let exit_code = state.stop_codes.get(id).copied().unwrap_or_default();
        let container = state.container("stop container", id)?;
        if container.status == Status::Running {
            (container.status, container.exit_code) = (Status::Exited, exit_code);
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

    async fn attach(&self, id: &str, spec: &AttachSpec) -> Result<Attached, EngineError> {
        let mut state = self.record(format!("attach {id} {}", spec.argv.join(" ")))?;
        if state.container("run in container", id)?.status != Status::Running {
            return Err(conflict(format!("run in container {id}"), "it is not running"));
        }
        let exec = ExecSpec { env: spec.env.clone(), ..ExecSpec::new(spec.argv.clone(), limits::CALL) };
        let script = state.on_exec.as_mut().map(|script| script(id, &exec)).unwrap_or_default();
        state.attached.push(script.exit_code);
        let output = [(OutputStream::Stdout, script.stdout), (OutputStream::Stderr, script.stderr)];
        let output = output.into_iter().filter(|(_, text)| !text.is_empty());
        let output = output.map(|(stream, text)| Ok((stream, text.into_bytes().into())));
        let output: Vec<Result<_, EngineError>> = output.collect();
        Ok(Attached {
            exec: (state.attached.len() - 1).to_string(),
            input: Box::pin(tokio::io::sink()),
            output: futures::stream::iter(output).boxed(),
        })
    }

    async fn resize_attached(&self, exec: &str, rows: u16, columns: u16) -> Result<(), EngineError> {
        self.record(format!("resize {exec} {rows}x{columns}")).map(drop)
    }

    async fn attached_exit(&self, exec: &str) -> Result<i64, EngineError> {
        let state = self.record(format!("attached-exit {exec}"))?;
        let code = exec.parse().ok().and_then(|at: usize| state.attached.get(at).copied());
        code.ok_or_else(|| not_found(format!("exec {exec}")))
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
