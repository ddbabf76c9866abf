//! A sandbox: a container that does nothing but own a network namespace, as in a pod of Kubernetes.
//!
//! ```text
//!   sandbox  (/pause)  ── address, aliases, hostname, /etc/hosts, /etc/resolv.conf, /etc/hostname
//!      └── joined by ── the service's container (network mode `container:<sandbox>`), killed and started by each rebase
//! ```
//!
//! To set up a network, and to take it down, is most of what an engine does when it starts and kills a container; a
//! service that joins a sandbox's is started and killed without. What a test may have changed of a sandbox is put back by
//! [`Sandbox::put_back`], after everything that joined it is dead:
//!
//! - its three files, which the engine mounts into every container that joins: made anew, compared after. Not mounted
//!   read-only instead: images rewrite them in their entrypoints;
//! - what the kernel remembers of other machines, which raw sockets can fill with lies: neighbours, metrics, routes;
//! - sockets die with their processes, and none is kept in TIME_WAIT: a service that does not ask for SO_REUSEADDR finds
//!   its port free, as it would in a network of its own.
//!
//! There is nothing else that can be changed without capabilities over the network; a service that has such, or sets the
//! kernel's own settings, has a network of its own ([`joins`]), which the engine makes anew at each start.
//!
//! Must not know rebases or pools. Invariant: a sandbox that is not the very one that was made is reported, never replaced.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use andon_proto::Service;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::kept::KeptFile;
use super::pause;
use super::rig::RigFault;
use super::wire::{Lead, Wire};
use crate::engine::{ContainerSpec, Engine, EngineError, NetworkMode, Privileges, Removal};

/// Capabilities that reach nothing of a network. Every other that is not Docker's default may.
const HARMLESS: [&str; 5] = ["IPC_LOCK", "SYS_NICE", "SYS_PTRACE", "SYS_RESOURCE", "WAKE_ALARM"];
/// See the module's header. Per network namespace since Linux 4.16.
const NO_TIME_WAIT: (&str, &str) = ("net.ipv4.tcp_max_tw_buckets", "0");

/// What a sandbox is made from.
#[derive(Debug, Clone, Default)]
pub struct SandboxSpec {
    /// Unique on the engine.
    pub name: String,
    /// To find it again.
    pub labels: BTreeMap<String, String>,
    /// What it is connected to.
    pub network: NetworkMode,
    /// Empty for the engine's choice.
    pub hostname: String,
    /// An address of its own besides those of its networks.
    pub front: Option<Ipv4Addr>,
    /// The first lines of its /etc/hosts: resolvers take the first that fits.
    pub hosts: String,
}

/// A running sandbox.
#[derive(Debug, Clone)]
pub struct Sandbox {
    name: String,
    container: String,
    /// Its one process, as the daemon sees it: the namespace's life.
    pid: u32,
    /// Stands for that process, whatever becomes of its number; `None` where the engine's processes are none of this machine's.
    process: Option<Arc<OwnedFd>>,
    /// Into the namespace; `None` where the engine does not say where that is (the one in memory).
    wire: Option<Arc<Wire>>,
    files: Vec<KeptFile>,
    /// On its first network.
    address: Option<Ipv4Addr>,
}

/// Whether a service can join a sandbox, and leaves of it nothing that [`Sandbox::put_back`] does not know.
#[must_use]
pub fn joins(service: &Service) -> bool {
    let harmless = |capability: &String| HARMLESS.contains(&capability.trim_start_matches("CAP_"));
    service.sysctls.is_empty() && service.cap_add.iter().all(harmless)
}

impl Sandbox {
    /// Makes and starts one. What is left of a failed one goes by its labels.
    pub async fn make(engine: &dyn Engine, spec: SandboxSpec) -> Result<Self, RigFault> {
        let (key, value) = NO_TIME_WAIT;
        let container = ContainerSpec {
            name: spec.name.clone(),
            image: pause::image(engine).await?.to_owned(),
            entrypoint: Some(vec![pause::PROGRAM.to_owned()]),
            labels: spec.labels,
            network: spec.network,
            hostname: spec.hostname,
            sysctls: BTreeMap::from([(key.to_owned(), value.to_owned())]),
            read_only: true,
            privileges: Privileges { cap_drop: vec!["ALL".to_owned()], ..Privileges::default() },
            ..ContainerSpec::default()
        };
        let container = engine.create_container(&container).await?;
        engine.start_container(&container).await?;
        let state = engine.inspect_container(&container).await?;
        if !state.is_running() {
            return Err(gone(&spec.name, format!("it ended with exit code {}", state.exit_code)));
        }
        let (paths, hosts) = (state.network_files, spec.hosts);
        let files = blocking("read the files of a sandbox", move || {
            let mut files =
                paths.into_iter().map(|path| KeptFile::read(&path)).collect::<Result<Vec<_>, _>>()?;
            if let Some(file) = files.iter_mut().find(|file| file.is_named("hosts") && !hosts.is_empty()) {
                file.prepend(&hosts)?;
            }
            Ok(files)
        });
        let (pid, namespace, files) = (state.pid, state.network_namespace, files.await?);
        let process = namespace.as_ref().and_then(|_| process(pid)).map(Arc::new);
        let wire = match &namespace {
            Some(namespace) => {
                Some(Arc::new(Self::wire_into(&spec.name, namespace.clone(), spec.front).await?))
            }
            None => None,
        };
        let address = state.addresses.values().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        Ok(Self { name: spec.name, container, pid, process, wire, files, address })
    }

    async fn wire_into(name: &str, namespace: PathBuf, front: Option<Ipv4Addr>) -> Result<Wire, RigFault> {
        let failed = |source| RigFault::Wire { name: name.to_owned(), source };
        let entered = tokio::task::spawn_blocking(move || {
            let wire = Wire::enter(&namespace)?;
            front.map_or(Ok(()), |front| wire.own(front))?;
            Ok(wire)
        });
        entered.await.map_err(|error| failed(std::io::Error::other(error)))?.map_err(failed)
    }

    /// The container's id.
    #[must_use]
    pub fn container(&self) -> &str {
        &self.container
    }

    /// Unique on the engine.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where others on its first network reach it.
    #[must_use]
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.address
    }

    /// For its routes and connections; `None` on an engine in memory.
    #[must_use]
    pub fn wire(&self) -> Option<Arc<Wire>> {
        self.wire.clone()
    }

    /// Has each front lead to an address of its first network.
    pub async fn lead(&self, leads: &[(Ipv4Addr, Ipv4Addr)]) -> Result<(), RigFault> {
        let (Some(wire), Some(own)) = (self.wire(), self.address) else { return Ok(()) };
        let leads: Vec<_> = leads.iter().filter(|(_, via)| *via != own).copied().collect();
        let failed = |source| RigFault::Wire { name: self.name.clone(), source };
        let led = tokio::task::spawn_blocking(move || {
            let (device, _) = wire.device_of(own)?;
            leads.into_iter().try_for_each(|(to, via)| wire.lead(Lead { to, via, device }))
        });
        led.await.map_err(|error| failed(std::io::Error::other(error)))?.map_err(failed)
    }

    /// How many frames have come in from its networks; `None` where that cannot be read. Blocking, some microseconds.
    #[must_use]
    pub fn frames_in(&self) -> Option<u64> {
        frames_in(&std::fs::read_to_string(format!("/proc/{}/net/dev", self.pid)).ok()?)
    }

    /// What joins it.
    #[must_use]
    pub fn joined(&self) -> NetworkMode {
        NetworkMode::Container(self.container.clone())
    }

    /// Fails where it is not the one that was made any more.
    pub async fn check(&self, engine: &dyn Engine) -> Result<(), RigFault> {
        let state = match engine.inspect_container(&self.container).await {
            Ok(state) => state,
            Err(error) if error.is_not_found() => return Err(gone(&self.name, "it is not there".to_owned())),
            Err(error) => return Err(error.into()),
        };
        if !state.is_running() {
            let memory = if state.oom_killed { " (out of memory)" } else { "" };
            return Err(gone(&self.name, format!("it ended with exit code {}{memory}", state.exit_code)));
        }
        if state.pid != self.pid {
            return Err(gone(&self.name, "it was started again".to_owned()));
        }
        Ok(())
    }

    /// As [`Sandbox::put_back`], while what joined it lives on and has the files mounted: one of them that was changed is a fault.
    pub async fn put_live_back(&self, engine: &dyn Engine) -> Result<(), RigFault> {
        let files = self.files.clone();
        let compared =
            blocking("compare the files of a sandbox", move || files.iter().try_for_each(KeptFile::check));
        let alive = async {
            match &self.process {
                // A restart would have ended it: the engine need not be asked.
                Some(process) if lives(process) => Ok(()),
                _ => self.check(engine).await,
            }
        };
        tokio::try_join!(alive, compared, self.forget()).map(drop)
    }

    /// As it was made. Whatever joined it has to be dead.
    pub async fn put_back(&self, engine: &dyn Engine) -> Result<(), RigFault> {
        self.check(engine).await?;
        let files = self.files.clone();
        let put = blocking("put the files of a sandbox back", move || {
            files.iter().try_for_each(KeptFile::put_back)
        });
        tokio::try_join!(put, self.forget()).map(drop)
    }

    /// Makes the kernel forget what it has learned in its network.
    async fn forget(&self) -> Result<(), RigFault> {
        let Some(wire) = self.wire() else { return Ok(()) };
        let failed = |source| RigFault::Forget { name: self.name.clone(), source };
        let forgotten = tokio::task::spawn_blocking(move || wire.forget()).await;
        forgotten.map_err(|error| failed(std::io::Error::other(error)))?.map_err(failed)
    }

    /// Removes it; its network goes when the last container that joined it does.
    pub async fn remove(&self, engine: &dyn Engine) -> Result<(), EngineError> {
        engine.remove_container(&self.container, Removal::EVERYTHING).await
    }
}

/// proc_pid_net(5): `NAME: BYTES PACKETS …` for each interface. What stays on the loopback came from inside.
fn frames_in(devices: &str) -> Option<u64> {
    let lines = devices.lines().skip(2).filter(|line| !line.trim_start().starts_with("lo:"));
    lines.map(|line| line.split_once(':')?.1.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

fn process(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Whether a process has not ended: what stands for it is readable from then on.
fn lives(process: &OwnedFd) -> bool {
    let mut asked = [PollFd::new(process, PollFlags::IN)];
    matches!(poll(&mut asked, Some(&Timespec::default())), Ok(0))
}

fn gone(name: &str, how: String) -> RigFault {
    RigFault::SandboxGone { name: name.to_owned(), how }
}

async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, RigFault> + Send + 'static,
) -> Result<T, RigFault> {
    let failed = |error| RigFault::File { what, path: PathBuf::new(), source: std::io::Error::other(error) };
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::NetworkSpec;
    use crate::engine::fake::FakeEngine;
    use andon_proto::KeyValue;

    async fn made(engine: &FakeEngine) -> Sandbox {
        engine.create_network(&NetworkSpec { name: "net".into(), ..NetworkSpec::default() }).await.unwrap();
        let network = NetworkMode::Named { network: "net".into(), aliases: vec!["db".into()] };
        let spec =
            SandboxSpec { name: "s".into(), network, hostname: "db".to_owned(), ..SandboxSpec::default() };
        Sandbox::make(engine, spec).await.unwrap()
    }

    #[test]
    fn what_can_change_its_network_keeps_one_of_its_own() {
        let with = |capability: &str| Service { cap_add: vec![capability.to_owned()], ..Service::default() };
        assert!(joins(&Service::default()) && joins(&with("SYS_NICE")) && joins(&with("CAP_IPC_LOCK")));
        for capability in ["NET_ADMIN", "SYS_ADMIN", "ALL", "CAP_NET_ADMIN", "BPF", "SYS_MODULE"] {
            assert!(!joins(&with(capability)), "{capability}");
        }
        let sysctls = vec![KeyValue { key: "net.core.somaxconn".into(), value: "1024".into() }];
        assert!(!joins(&Service { sysctls, ..Service::default() }));
    }

    #[test]
    fn only_what_came_in_from_outside_is_counted() {
        let devices = "Inter-|   Receive                            |  Transmit\n face |bytes packets errs\n    \
                       lo:  10400     104    0\n  eth0: 1770      19    0\neth1:80 1 0\n";
        assert_eq!(frames_in(devices), Some(20));
        assert_eq!(frames_in("a\nb\n eth0: nothing\n"), None);
    }

    #[tokio::test]
    async fn its_files_are_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let engine = FakeEngine::new();
        engine.keep_layers_in(folder.path().to_owned());
        let sandbox = made(&engine).await;
        let files = engine.inspect_container("s").await.unwrap().network_files;
        assert_eq!(files.len(), 3);
        for file in &files {
            std::fs::write(file, "a test was here").unwrap();
        }
        sandbox.put_back(engine.as_ref()).await.unwrap();
        for file in &files {
            assert_eq!(std::fs::read_to_string(file).unwrap(), "s\n");
        }
    }

    #[tokio::test]
    async fn one_that_has_ended_is_not_put_back() {
        let engine = FakeEngine::new();
        let sandbox = made(&engine).await;
        engine.end_container("s", 137, true);
        let error = sandbox.put_back(engine.as_ref()).await.unwrap_err().to_string();
        assert_eq!(error, "sandbox s is gone: it ended with exit code 137 (out of memory)");
        sandbox.remove(engine.as_ref()).await.unwrap();
        let error = sandbox.put_back(engine.as_ref()).await.unwrap_err().to_string();
        assert_eq!(error, "sandbox s is gone: it is not there");
    }
}
