//! What the nested daemon is started with: the caller's part, and the files and command lines that follow from it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::json;

/// Largest log of one container, in the engine's notation; a second file of that size is kept beside it.
const CONTAINER_LOG_SIZE: &str = "64m";

/// The networks of the lanes: 256 of them. Away from the ranges that Docker takes by default, so that a box's inner and
/// outer networks never overlap.
const ADDRESS_POOL: &str = "base=10.213.0.0/16,size=24";

/// Parts of containerd that a Docker engine with its own storage driver does not use; loading them costs a third of
/// containerd's start.
const UNUSED_PLUGINS: [&str; 8] = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.tracing",
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
];

/// What the caller decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NestedConfig {
    /// Images and containers; on a file system that overlay works on (the pool's). Kept over restarts.
    pub data_root: PathBuf,
    /// Sockets, pid files, state of running containers; emptied at each start. Short: a socket's path holds 107 bytes.
    pub run_dir: PathBuf,
    /// Turn routing between networks off in this network namespace, so that lanes cannot reach each other. Only where the
    /// namespace is the box's own.
    pub own_network: bool,
    /// Let containers, and the daemon, sync to the disk when they ask for it. Otherwise it does nothing, where the machine
    /// allows that: nothing in a lane has to outlive a crash of the machine.
    pub fsync: bool,
    /// Start containers again without the daemon, where that can be (`engine/direct/`).
    pub direct: bool,
}

impl NestedConfig {
    /// The daemon's socket, as [`crate::engine::DockerEngine::connect`] takes it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", self.docker_socket().display())
    }

    /// The daemon's socket, to be mounted into containers that ask for Docker.
    #[must_use]
    pub fn docker_socket(&self) -> PathBuf {
        self.run_dir.join("docker.sock")
    }

    pub(super) fn containerd_socket(&self) -> PathBuf {
        self.run_dir.join("containerd.sock")
    }

    pub(super) fn containerd_config(&self) -> PathBuf {
        self.run_dir.join("containerd.toml")
    }

    pub(super) fn docker_config(&self) -> PathBuf {
        self.run_dir.join("daemon.json")
    }

    /// The filter that has syncs do nothing; a file where it is in use.
    pub(super) fn filter(&self) -> PathBuf {
        self.run_dir.join("unsynced.bpf")
    }

    fn containerd_state(&self) -> PathBuf {
        self.run_dir.join("containerd")
    }

    /// Where containerd keeps the configurations of dockerd's running containers.
    pub(super) fn tasks(&self) -> PathBuf {
        self.containerd_state().join("io.containerd.runtime.v2.task/moby")
    }

    /// What is kept of containers that are started without the daemon.
    pub(super) fn direct_folder(&self) -> PathBuf {
        self.run_dir.join("direct")
    }

    fn containerd_root(&self) -> PathBuf {
        self.data_root.join("andon-containerd")
    }

    /// containerd's configuration file.
    pub(super) fn containerd_file(&self) -> String {
        let path = |path: &Path| json!(path.to_string_lossy()).to_string();
        format!(
            "version = 2\nroot = {root}\nstate = {state}\ndisabled_plugins = {unused}\n[grpc]\naddress = {socket}\n",
            root = path(&self.containerd_root()),
            state = path(&self.containerd_state()),
            unused = json!(UNUSED_PLUGINS),
            socket = path(&self.containerd_socket()),
        )
    }

    /// dockerd's configuration file. It also keeps dockerd from reading one that belongs to another daemon.
    pub(super) fn docker_file() -> String {
        json!({
            "features": { "containerd-snapshotter": false },
            "log-driver": "json-file",
            "log-opts": { "max-size": CONTAINER_LOG_SIZE, "max-file": "2" },
        })
        .to_string()
    }

    pub(super) fn containerd_arguments(&self) -> Vec<OsString> {
        vec!["--config".into(), self.containerd_config().into(), "--log-level".into(), "warn".into()]
    }

    pub(super) fn docker_arguments(&self) -> Vec<OsString> {
        let valued = |name: &str, value: &Path| {
            let mut argument = OsString::from(name);
            argument.push("=");
            argument.push(value);
            argument
        };
        vec![
            valued("--config-file", &self.docker_config()),
            valued("--host", Path::new(&self.address())),
            valued("--data-root", &self.data_root),
            valued("--exec-root", &self.run_dir.join("exec")),
            valued("--pidfile", &self.run_dir.join("docker.pid")),
            valued("--containerd", &self.containerd_socket()),
            "--storage-driver=overlay2".into(),
            // Lanes are reached over their own bridges, and there is no way out but what the agent allows: no NAT, no
            // filter rules (also 270 ms of the start).
            "--iptables=false".into(),
            "--ip6tables=false".into(),
            "--ip-forward=false".into(),
            "--bridge=none".into(),
            format!("--default-address-pool={ADDRESS_POOL}").into(),
            "--log-level=warn".into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_the_daemon_lies_beneath_the_two_given_folders() {
        let config = NestedConfig {
            data_root: "/pool/docker".into(),
            run_dir: "/run/andon".into(),
            own_network: true,
            fsync: false,
            direct: true,
        };
        let mut text = config.containerd_file();
        for argument in config.containerd_arguments().into_iter().chain(config.docker_arguments()) {
            text.push(' ');
            text.push_str(&argument.into_string().expect("plain text"));
        }
        let is_path = |word: &&str| word.starts_with('/');
        let words = text.split(|c: char| c.is_whitespace() || "\"=".contains(c));
        let paths: Vec<&str> = words.map(|word| word.trim_start_matches("unix://")).filter(is_path).collect();
        assert!(paths.len() >= 8, "{paths:?}");
        for path in paths {
            let inside =
                path.starts_with("/pool/docker") || path.starts_with("/run/andon/") || path == "/16,size";
            assert!(inside, "{path}");
        }
    }
}
