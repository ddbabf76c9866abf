//! Starting and killing a container again and again without its daemon.
//!
//! An engine takes some two hundred milliseconds to kill a container and to start it again: requests, events, a process that
//! looks after it, and an unmount that writes out what the whole disk's file system has in memory. The programs in it need
//! none of that. So a container that the daemon made and started once is, after the first kill, started by a runtime directly,
//! from the very configuration that the daemon wrote for it, and killed by one signal to the first process of its process
//! namespace. To its callers nothing else changes: [`DirectEngine`] is an [`Engine`] over another.
//!
//! Only a container that joins another one's network is handled so ([`bundle`] says what else is asked); everything else is
//! handed through. What cannot be started directly for whatever reason is started by the daemon, with one warning, and from
//! then on always.
//!
//! Must not know stacks, lanes or how the daemon is kept up. Invariants: the daemon takes such a container for one that has
//! ended, and nobody else starts it; whatever ends it (its own end, a kill, the end of the agent's daemon: `nested/`), its root
//! file system is unmounted and its control group removed before it is started again or removed.

mod bundle;
mod exec;
mod groups;
mod log;
mod overlay;
mod process;
mod runtime;
mod slot;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;
use tokio_util::task::AbortOnDropHandle;

use self::bundle::Bundle;
use self::overlay::Overlay;
use self::process::Foreign;
use self::runtime::{Runtime, RuntimeFault};
use self::slot::{About, Made, Now, Slot, StartFault, io_fault};
use super::{
    AttachSpec, Attached, BuildError, BuildSpec, ByteStream, ContainerSpec, ContainerState, ContainerSummary,
    Engine, EngineError, EngineVersion, ExecSpec, ImageInfo, LogsSpec, NetworkSpec, NetworkSummary,
    OutputSink, Removal, SharedEngine, Status, limits,
};
pub(crate) use groups::remove as remove_group;

/// Where a container's root file system is mounted, in its folder.
const ROOT: &str = "rootfs";
/// Where the runtime keeps its own notes, beside the containers' folders.
const STATE: &str = "state";
/// Of a container's id, in hexadecimal digits.
const ID_DIGITS: usize = 64;
const KILL: &str = "SIGKILL";

/// What it has to know of the daemon.
#[derive(Debug, Clone)]
pub struct DirectOptions {
    /// A folder of its own for what it keeps; emptied when the daemon is prepared.
    pub folder: PathBuf,
    /// Where containerd keeps the configurations of the daemon's running containers.
    pub tasks: PathBuf,
    /// By what programs are started so that they have what the daemon's have; may be empty.
    pub prefix: Vec<OsString>,
    /// Whether something has to outlive a crash of the machine.
    pub fsync: bool,
}

/// Nothing can be started directly here.
#[derive(Debug, Error)]
#[error("the kernel does not let the agent look after processes that others started")]
pub struct DirectUnfit(#[source] std::io::Error);

#[derive(Debug, Clone)]
enum Entry {
    Ours(Arc<Slot>),
    /// For good.
    Daemons,
}

/// An engine that starts containers of another one directly.
#[derive(Debug)]
pub struct DirectEngine {
    inner: SharedEngine,
    options: DirectOptions,
    runtime: Arc<Runtime>,
    /// By id.
    entries: Mutex<BTreeMap<String, Entry>>,
    _reaping: AbortOnDropHandle<()>,
}

impl DirectEngine {
    /// Over this engine.
    ///
    /// # Errors
    /// Where the kernel does not allow to look after what the runtime starts.
    pub fn over(inner: SharedEngine, options: DirectOptions) -> Result<Self, DirectUnfit> {
        process::adopt_orphans().map_err(DirectUnfit)?;
        let reaping = AbortOnDropHandle::new(tokio::spawn(process::reap_strangers()));
        let runtime = Arc::new(Runtime::new(options.folder.join(STATE), options.prefix.clone()));
        tracing::info!("services are restarted without their daemon");
        Ok(Self { inner, options, runtime, entries: Mutex::default(), _reaping: reaping })
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By id or name.
    fn entry(&self, id: &str) -> Option<Entry> {
        let entries = self.entries();
        let is_called = |entry: &&Entry| matches!(entry, Entry::Ours(slot) if slot.name() == id);
        entries.get(id).or_else(|| entries.values().find(is_called)).cloned()
    }

    fn ours(&self, id: &str) -> Option<Arc<Slot>> {
        match self.entry(id)? {
            Entry::Ours(slot) => Some(slot),
            Entry::Daemons => None,
        }
    }

    fn running(&self, id: &str) -> Option<(Arc<Slot>, Arc<slot::Run>)> {
        let slot = self.ours(id)?;
        match slot.now() {
            Now::Running(run) => Some((slot, run)),
            _ => None,
        }
    }

    /// Before the daemon kills a container: keeps what is needed to start it again.
    async fn keep(&self, id: &str) {
        let is_id = id.len() == ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_id {
            return;
        }
        match self.look_at(id).await {
            Ok(Some(made)) => {
                self.entries().insert(id.to_owned(), Entry::Ours(Slot::new(made)));
            }
            // It does not run.
            Ok(None) => {}
            Err(fault @ StartFault::Refused(_)) => {
                tracing::debug!(container = id, reason = %fault, "it is always started by the daemon");
                self.entries().insert(id.to_owned(), Entry::Daemons);
            }
            Err(fault) => self.give_back(id, &fault),
        }
    }

    /// Has the daemon start it, from now on.
    fn give_back(&self, id: &str, fault: &StartFault) {
        let reason = crate::hands::chain(fault);
        tracing::warn!(container = id, reason, "a container is started by the daemon, which takes longer");
        self.entries().insert(id.to_owned(), Entry::Daemons);
    }

    async fn look_at(&self, id: &str) -> Result<Option<Made>, StartFault> {
        let (task, own) = (self.options.tasks.join(id), id.to_owned());
        let looking = tokio::task::spawn_blocking(move || look(&task, &own));
        let Some((bundle, overlay, sandbox)) = looking.await?? else { return Ok(None) };
        let (folder, is_volatile) = (self.options.folder.join(id), !self.options.fsync);
        Ok(Some(Made { id: id.to_owned(), bundle, overlay, sandbox, folder, is_volatile }))
    }

    /// Most that are killed are never started again: what costs time is left to the first start.
    async fn start(&self, slot: &Arc<Slot>) -> Result<(), StartFault> {
        if slot.about.get().is_none() {
            let state = self.inner.inspect_container(&slot.made.id).await.map_err(StartFault::Engine)?;
            slot.write_folder().map_err(io_fault("write its configuration"))?;
            // Two that start it at once say the same.
            let _ = slot.about.set(About { name: state.name, stop_signal: state.stop_signal });
        }
        slot.start(&self.runtime).await
    }

    fn refused(what: String, fault: &RuntimeFault) -> EngineError {
        EngineError::Refused { what, status: 500, message: crate::hands::chain(fault) }
    }

    /// Kills one of ours, paused or not.
    async fn kill(&self, slot: &Slot, run: &slot::Run) -> Result<(), EngineError> {
        slot.thaw(&self.runtime, run).await;
        run.process.kill().map_err(|error| EngineError::Refused {
            what: format!("kill container {}", slot.name()),
            status: 500,
            message: error.to_string(),
        })
    }

    async fn follow_log(&self, slot: &Slot, output: &mut (dyn OutputSink + '_)) {
        let mut growing = slot.log.growing();
        let mut place = slot.log.feed_from(0, output);
        let mut ended = std::pin::pin!(slot.ended());
        loop {
            tokio::select! {
                _ = growing.changed() => place = slot.log.feed_from(place, output),
                _ = &mut ended => break,
            }
        }
        slot.log.feed_from(place, output);
    }
}

/// What a running container of the daemon is made of; `None` where it does not run (any more). Blocking.
fn look(task: &std::path::Path, id: &str) -> Result<Option<(Bundle, Overlay, Foreign)>, StartFault> {
    let read = |name: &str| match std::fs::read(task.join(name)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        answer => answer.map(Some),
    };
    let failed = "read the configuration that the daemon wrote for it";
    let Some(config) = read("config.json").map_err(io_fault(failed))? else { return Ok(None) };
    let Some(first) = read("init.pid").map_err(io_fault(failed))? else { return Ok(None) };
    let bundle = Bundle::read(&config, id)?;
    let sandbox = match Foreign::of(bundle.sandbox) {
        Ok(sandbox) => sandbox,
        Err(_) => return Err(StartFault::SandboxEnded),
    };
    // The number in the configuration may be another process's by now: they share their network, or it is.
    let network = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net"));
    let first = String::from_utf8_lossy(&first);
    let Ok(own) = network(first.trim()) else { return Ok(None) };
    if network(&bundle.sandbox.to_string()).ok() != Some(own) || !sandbox.lives() {
        return Err(StartFault::SandboxEnded);
    }
    let overlay = Overlay::at(&bundle.root).map_err(io_fault("read the mounts"))?;
    Ok(Some((bundle, overlay.ok_or(StartFault::NoOverlay)?, sandbox)))
}

#[async_trait]
impl Engine for DirectEngine {
    fn address(&self) -> &str {
        self.inner.address()
    }

    async fn ping(&self) -> Result<(), EngineError> {
        self.inner.ping().await
    }

    async fn version(&self) -> Result<EngineVersion, EngineError> {
        self.inner.version().await
    }

    async fn inspect_image(&self, reference: &str) -> Result<Option<ImageInfo>, EngineError> {
        self.inner.inspect_image(reference).await
    }

    async fn load_image(&self, tar: ByteStream) -> Result<Vec<String>, EngineError> {
        self.inner.load_image(tar).await
    }

    async fn save_image(&self, reference: &str) -> Result<ByteStream, EngineError> {
        self.inner.save_image(reference).await
    }

    async fn tag_image(&self, reference: &str, new_reference: &str) -> Result<(), EngineError> {
        self.inner.tag_image(reference, new_reference).await
    }

    async fn pull_image(&self, reference: &str) -> Result<(), EngineError> {
        self.inner.pull_image(reference).await
    }

    async fn build_image(&self, spec: BuildSpec) -> Result<String, BuildError> {
        self.inner.build_image(spec).await
    }

    async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        self.inner.remove_image(reference).await
    }

    async fn create_network(&self, spec: &NetworkSpec) -> Result<String, EngineError> {
        self.inner.create_network(spec).await
    }

    async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        self.inner.remove_network(name).await
    }

    async fn connect_network(&self, network: &str, id: &str, aliases: &[String]) -> Result<(), EngineError> {
        self.inner.connect_network(network, id, aliases).await
    }

    async fn disconnect_network(&self, network: &str, id: &str) -> Result<(), EngineError> {
        self.inner.disconnect_network(network, id).await
    }

    async fn list_networks(&self, label: &str) -> Result<Vec<NetworkSummary>, EngineError> {
        self.inner.list_networks(label).await
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        self.inner.create_container(spec).await
    }

    async fn start_container(&self, id: &str) -> Result<(), EngineError> {
        if let Some(slot) = self.ours(id) {
            if !matches!(slot.now(), Now::Leaving) {
                match self.start(&slot).await {
                    Ok(()) => return Ok(()),
                    Err(fault) => self.give_back(&slot.made.id, &fault),
                }
            } else {
                // Nobody waited for its end: it may be the daemon's still. What was kept is kept anew at the next kill.
                self.entries().remove(&slot.made.id);
            }
            if let Err(error) = slot.remove(&self.runtime).await {
                tracing::warn!(%error, container = slot.name(), "the folder of a container stays");
            }
        }
        self.inner.start_container(id).await
    }

    async fn kill_container(&self, id: &str, signal: &str) -> Result<(), EngineError> {
        let what = || format!("send {signal} to container {id}");
        match self.entry(id) {
            None if signal == KILL => self.keep(id).await,
            None | Some(Entry::Daemons) => {}
            Some(Entry::Ours(slot)) => match slot.now() {
                Now::Leaving | Now::Left => {}
                Now::Running(run) if signal == KILL => return self.kill(&slot, &run).await,
                Now::Running(_) => {
                    let told = self.runtime.tell(&slot.made.id, "kill", Some(signal)).await;
                    return told.map_err(|fault| Self::refused(what(), &fault));
                }
                Now::Ended { .. } => {
                    return Err(EngineError::Conflict {
                        what: what(),
                        message: "it is not running".to_owned(),
                    });
                }
            },
        }
        self.inner.kill_container(id, signal).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        let Some(slot) = self.ours(id) else { return self.inner.stop_container(id, grace).await };
        let run = match slot.now() {
            Now::Leaving | Now::Left => return self.inner.stop_container(id, grace).await,
            Now::Ended { .. } => return Ok(()),
            Now::Running(run) => run,
        };
        slot.thaw(&self.runtime, &run).await;
        // It may have ended meanwhile: then waiting answers at once.
        if let Err(error) = self.runtime.tell(&slot.made.id, "kill", Some(slot.stop_signal())).await {
            tracing::debug!(%error, container = id, "asking a container to stop");
        }
        if tokio::time::timeout(grace, slot.ended()).await.is_ok() {
            return Ok(());
        }
        self.kill(&slot, &run).await?;
        self.wait_container(id, limits::STOP_MARGIN).await.map(drop)
    }

    async fn pause_container(&self, id: &str) -> Result<(), EngineError> {
        let Some((slot, run)) = self.running(id) else { return self.inner.pause_container(id).await };
        let told = self.runtime.tell(&slot.made.id, "pause", None).await;
        told.map_err(|fault| Self::refused(format!("pause container {id}"), &fault))?;
        run.is_paused.store(true, Ordering::SeqCst);
        Ok(())
    }

    async fn unpause_container(&self, id: &str) -> Result<(), EngineError> {
        let Some((slot, run)) = self.running(id) else { return self.inner.unpause_container(id).await };
        let told = self.runtime.tell(&slot.made.id, "resume", None).await;
        told.map_err(|fault| Self::refused(format!("unpause container {id}"), &fault))?;
        run.is_paused.store(false, Ordering::SeqCst);
        Ok(())
    }

    async fn wait_container(&self, id: &str, limit: Duration) -> Result<i64, EngineError> {
        let Some(slot) = self.ours(id) else { return self.inner.wait_container(id, limit).await };
        if let Now::Leaving | Now::Left = slot.now() {
            let code = self.inner.wait_container(id, limit).await?;
            slot.has_left();
            return Ok(code);
        }
        let ended = tokio::time::timeout(limit, slot.ended()).await;
        ended.map_err(|_| EngineError::TimedOut { what: format!("wait for container {id}"), limit })
    }

    async fn remove_container(&self, id: &str, how: Removal) -> Result<(), EngineError> {
        if let Some(slot) = self.ours(id) {
            let what = format!("remove container {id}");
            if let Now::Running(_) = slot.now()
                && !how.force
            {
                return Err(EngineError::Conflict { what, message: "it is running".to_owned() });
            }
            let removed = tokio::time::timeout(limits::REMOVE, slot.remove(&self.runtime)).await;
            match removed {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    return Err(EngineError::Refused { what, status: 500, message: error.to_string() });
                }
                Err(_) => return Err(EngineError::TimedOut { what, limit: limits::REMOVE }),
            }
            self.entries().remove(&slot.made.id);
        }
        self.entries().remove(id);
        self.inner.remove_container(id, how).await
    }

    async fn inspect_container(&self, id: &str) -> Result<ContainerState, EngineError> {
        let state = self.inner.inspect_container(id).await?;
        Ok(match self.ours(&state.id) {
            Some(slot) => slot.correct(state),
            None => state,
        })
    }

    async fn exec(
        &self,
        id: &str,
        spec: &ExecSpec,
        output: &mut (dyn OutputSink + '_),
    ) -> Result<i64, EngineError> {
        let Some(slot) = self.ours(id) else { return self.inner.exec(id, spec, output).await };
        match slot.now() {
            Now::Leaving | Now::Left => self.inner.exec(id, spec, output).await,
            Now::Running(life) => Box::pin(exec::exec(&self.runtime, (&slot, &life), spec, output)).await,
            Now::Ended { .. } => {
                let what = exec::what(id, spec);
                Err(EngineError::Conflict { what, message: "the container is not running".to_owned() })
            }
        }
    }

    async fn attach(&self, id: &str, spec: &AttachSpec) -> Result<Attached, EngineError> {
        let started_here = self.ours(id).is_some_and(|slot| matches!(slot.now(), Now::Running(_)));
        if started_here {
            let (what, message) = (format!("run a command in container {id}"), "it runs without its daemon");
            return Err(EngineError::Conflict { what, message: message.to_owned() });
        }
        self.inner.attach(id, spec).await
    }

    async fn resize_attached(&self, exec: &str, rows: u16, columns: u16) -> Result<(), EngineError> {
        self.inner.resize_attached(exec, rows, columns).await
    }

    async fn attached_exit(&self, exec: &str) -> Result<i64, EngineError> {
        self.inner.attached_exit(exec).await
    }

    async fn logs(
        &self,
        id: &str,
        spec: LogsSpec,
        output: &mut (dyn OutputSink + '_),
    ) -> Result<(), EngineError> {
        let ours = self.ours(id).filter(|slot| matches!(slot.now(), Now::Running(_) | Now::Ended { .. }));
        let Some(slot) = ours else { return self.inner.logs(id, spec, output).await };
        // What it wrote in its first life is the daemon's to tell.
        match spec {
            LogsSpec::Tail(lines) => {
                let (tail, found) = slot.log.tail(lines.try_into().unwrap_or(usize::MAX));
                let missing = lines.saturating_sub(found.try_into().unwrap_or(u32::MAX));
                if missing > 0 {
                    self.inner.logs(id, LogsSpec::Tail(missing), output).await?;
                }
                for (stream, chunk) in tail {
                    output.write(stream, &chunk);
                }
            }
            LogsSpec::All => {
                self.inner.logs(id, spec, output).await?;
                slot.log.feed_from(0, output);
            }
            LogsSpec::Follow(limit) => {
                self.inner.logs(id, LogsSpec::All, output).await?;
                let followed = tokio::time::timeout(limit, self.follow_log(&slot, output)).await;
                let what = format!("read the log of container {id}");
                followed.map_err(|_| EngineError::TimedOut { what, limit })?;
            }
        }
        Ok(())
    }

    async fn list_containers(&self, label: &str) -> Result<Vec<ContainerSummary>, EngineError> {
        let mut containers = self.inner.list_containers(label).await?;
        for container in &mut containers {
            if let Some(slot) = self.ours(&container.id) {
                match slot.now() {
                    Now::Leaving | Now::Left => {}
                    Now::Running(run) => container.status = run.status(),
                    Now::Ended { .. } => container.status = Status::Exited,
                }
            }
        }
        Ok(containers)
    }
}

#[cfg(test)]
mod tests;
