//! The configuration that the daemon wrote for a container, judged and rewritten. Pure.
//!
//! What is run from it later is the same container: capabilities, system call filter, masked paths, devices, limits, user,
//! environment and mounts are the daemon's own words (OCI Runtime Specification, config.md and config-linux.md). Only where
//! the root file system is mounted is another place.
//!
//! Invariant: what cannot be repeated word for word is refused by name; the daemon starts such a container itself.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use thiserror::Error;

use crate::engine::ExecSpec;

/// Namespaces that a start makes anew. One that is joined by its path is somebody else's, but for the network's.
const OWN_NAMESPACES: [&str; 5] = ["cgroup", "ipc", "mount", "pid", "uts"];

/// Why the daemon has to start a container itself.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub(super) enum Refused {
    #[error("its configuration is not understood: {0}")]
    Unreadable(String),
    #[error("it has a terminal")]
    Terminal,
    #[error("it has hooks, which set up what only the daemon knows")]
    Hooks,
    #[error("its {0} namespace is not one of its own")]
    Namespace(String),
    #[error("it has a network of its own")]
    OwnNetwork,
    #[error("its control group {0:?} is not one of its own")]
    Group(String),
    #[error("{0} is mounted by the daemon for each start")]
    Mount(String),
}

/// A container's configuration, to be used again.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bundle {
    config: Value,
    /// Where the daemon mounts the root file system.
    pub(super) root: PathBuf,
    /// The process whose network it joins.
    pub(super) sandbox: u32,
    /// Beneath each hierarchy; begins with a slash.
    pub(super) group: String,
}

impl Bundle {
    /// Of the container with this id.
    pub(super) fn read(text: &[u8], id: &str) -> Result<Self, Refused> {
        let config: Value =
            serde_json::from_slice(text).map_err(|error| Refused::Unreadable(error.to_string()))?;
        if config["process"]["terminal"] == Value::Bool(true) {
            return Err(Refused::Terminal);
        }
        if has_hooks(&config["hooks"]) {
            return Err(Refused::Hooks);
        }
        let sandbox = joined(&config["linux"]["namespaces"])?;
        let group = config["linux"]["cgroupsPath"].as_str().unwrap_or_default().to_owned();
        let is_own =
            group.starts_with('/') && group.ends_with(id) && !group.split('/').any(|part| part == "..");
        if !is_own {
            return Err(Refused::Group(group));
        }
        // Shared memory that others may join, secrets: mounted before a start, unmounted after the end.
        let of_daemon = format!("/containers/{id}/mounts/");
        for mount in config["mounts"].as_array().into_iter().flatten() {
            if mount["source"].as_str().is_some_and(|source| source.contains(&of_daemon)) {
                return Err(Refused::Mount(mount["destination"].as_str().unwrap_or_default().to_owned()));
            }
        }
        let root = PathBuf::from(config["root"]["path"].as_str().unwrap_or_default());
        if !root.is_absolute() || !config["process"]["args"].is_array() {
            return Err(Refused::Unreadable("no root, or no process".to_owned()));
        }
        Ok(Self { config, root, sandbox, group })
    }

    /// The configuration for a root file system that is mounted here.
    pub(super) fn for_root(&self, root: &Path) -> Value {
        let mut config = self.config.clone();
        config["root"]["path"] = json!(root.to_string_lossy());
        config
    }

    /// A further process of the container, as restrained as its first one. A user has to be told by number.
    pub(super) fn process(&self, spec: &ExecSpec) -> Result<Value, String> {
        let mut process = self.config["process"].clone();
        process["args"] = json!(spec.argv);
        process["terminal"] = Value::Bool(false);
        if !spec.working_dir.is_empty() {
            process["cwd"] = json!(spec.working_dir);
        }
        if !spec.user.is_empty() {
            process["user"] = user(&spec.user)?;
        }
        let mut env: Vec<String> = process["env"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect();
        for (name, value) in &spec.env {
            env.retain(|word| word.split('=').next() != Some(name));
            env.push(format!("{name}={value}"));
        }
        process["env"] = json!(env);
        Ok(process)
    }
}

fn has_hooks(hooks: &Value) -> bool {
    let is_empty = |hook: &Value| hook.is_null() || hook.as_array().is_some_and(Vec::is_empty);
    hooks.as_object().is_some_and(|hooks| !hooks.values().all(is_empty))
}

/// The process whose network namespace is joined, where all else is new.
fn joined(namespaces: &Value) -> Result<u32, Refused> {
    let mut sandbox = None;
    let mut own = Vec::new();
    for namespace in namespaces.as_array().into_iter().flatten() {
        let kind = namespace["type"].as_str().unwrap_or_default();
        let path = namespace["path"].as_str().filter(|path| !path.is_empty());
        match (kind, path) {
            ("network", Some(path)) => {
                let pid = path.strip_prefix("/proc/").and_then(|rest| rest.strip_suffix("/ns/net"));
                sandbox = Some(pid.and_then(|pid| pid.parse().ok()).ok_or(Refused::OwnNetwork)?);
            }
            ("network", None) => return Err(Refused::OwnNetwork),
            (kind, None) if OWN_NAMESPACES.contains(&kind) => own.push(kind),
            (kind, _) => return Err(Refused::Namespace(kind.to_owned())),
        }
    }
    // Without its own processes it could not be ended by the end of its first one.
    match ["mount", "pid"].into_iter().find(|kind| !own.contains(kind)) {
        Some(kind) => Err(Refused::Namespace(kind.to_owned())),
        None => sandbox.ok_or(Refused::OwnNetwork),
    }
}

fn user(text: &str) -> Result<Value, String> {
    let (user, group) = text.split_once(':').unwrap_or((text, "0"));
    match (user.parse::<u32>(), group.parse::<u32>()) {
        (Ok(uid), Ok(gid)) => Ok(json!({ "uid": uid, "gid": gid })),
        _ => Err(format!("the user {text:?} is not a number, or two with a colon between")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const ID: &str = "88e6cfe2be890220a603f1fe52bb05a96ff6f2fda164e99d207ed3c3690c1b48";

    /// As dockerd 26.1 writes it, shortened.
    fn config() -> Value {
        json!({
            "ociVersion": "1.2.0",
            "process": {
                "user": { "uid": 999, "gid": 999, "additionalGids": [999] },
                "args": ["database"],
                "env": ["PATH=/usr/bin:/bin", "HOSTNAME=db"],
                "cwd": "/",
                "capabilities": { "bounding": ["CAP_CHOWN"] },
                "oomScoreAdj": 0
            },
            "root": { "path": "/data/overlay2/28b9/merged" },
            "hostname": "db",
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/etc/hosts", "type": "bind", "source": "/data/containers/1485/hosts" }
            ],
            "linux": {
                "cgroupsPath": format!("/docker/{ID}"),
                "namespaces": [
                    { "type": "mount" }, { "type": "network", "path": "/proc/186/ns/net" },
                    { "type": "uts" }, { "type": "pid" }, { "type": "ipc" }
                ],
                "seccomp": { "defaultAction": "SCMP_ACT_ERRNO" },
                "maskedPaths": ["/proc/kcore"]
            }
        })
    }

    fn read(config: &Value) -> Result<Bundle, Refused> {
        Bundle::read(config.to_string().as_bytes(), ID)
    }

    #[test]
    fn nothing_is_changed_but_where_the_root_is() {
        let bundle = read(&config()).unwrap();
        assert_eq!((bundle.sandbox, bundle.root.as_path()), (186, Path::new("/data/overlay2/28b9/merged")));
        let mut expected = config();
        expected["root"]["path"] = json!("/run/direct/rootfs");
        assert_eq!(bundle.for_root(Path::new("/run/direct/rootfs")), expected);
    }

    #[test]
    fn what_a_start_cannot_repeat_is_refused_by_name() {
        let with = |change: &dyn Fn(&mut Value)| {
            let mut config = config();
            change(&mut config);
            read(&config).unwrap_err()
        };
        let networks = |network: Value| with(&|config| config["linux"]["namespaces"][1] = network.clone());
        assert_eq!(networks(json!({ "type": "network" })), Refused::OwnNetwork);
        assert_eq!(networks(json!({ "type": "network", "path": "/var/run/netns/x" })), Refused::OwnNetwork);
        assert_eq!(networks(json!({ "type": "cgroup" })), Refused::OwnNetwork);
        assert_eq!(networks(json!({ "type": "user" })), Refused::Namespace("user".into()));
        let ipc = with(&|config| config["linux"]["namespaces"][4]["path"] = json!("/proc/7/ns/ipc"));
        assert_eq!(ipc, Refused::Namespace("ipc".into()));
        let pid = with(&|config| config["linux"]["namespaces"][3] = json!({ "type": "cgroup" }));
        assert_eq!(pid, Refused::Namespace("pid".into()));
        assert_eq!(with(&|config| config["process"]["terminal"] = json!(true)), Refused::Terminal);
        let hook = with(&|config| config["hooks"] = json!({ "prestart": [{ "path": "/proc/9/exe" }] }));
        assert_eq!(hook, Refused::Hooks);
        for group in ["system.slice:docker:x", "/docker/other", ""] {
            let refused = with(&|config| config["linux"]["cgroupsPath"] = json!(group));
            assert_eq!(refused, Refused::Group(group.to_owned()));
        }
        let shm = format!("/data/containers/{ID}/mounts/shm");
        let shm = with(&|config| config["mounts"][0] = json!({ "destination": "/dev/shm", "source": shm }));
        assert_eq!(shm, Refused::Mount("/dev/shm".into()));
        assert!(matches!(Bundle::read(b"{", ID), Err(Refused::Unreadable(_))));
    }

    #[test]
    fn empty_hooks_are_none() {
        let mut config = config();
        config["hooks"] = json!({ "prestart": [], "poststop": null });
        assert!(read(&config).is_ok());
    }

    #[test]
    fn a_further_process_is_restrained_as_the_first_one() {
        let bundle = read(&config()).unwrap();
        let spec = ExecSpec {
            env: vec![("HOSTNAME".into(), "x".into()), ("NEW".into(), "a=b".into())],
            ..ExecSpec::new(["sh", "-c", "true"], Duration::from_secs(1))
        };
        let process = bundle.process(&spec).unwrap();
        let mut expected = config()["process"].clone();
        expected["args"] = json!(["sh", "-c", "true"]);
        expected["terminal"] = json!(false);
        expected["env"] = json!(["PATH=/usr/bin:/bin", "HOSTNAME=x", "NEW=a=b"]);
        assert_eq!(process, expected);
    }

    #[test]
    fn another_user_is_taken_by_number_alone() {
        let bundle = read(&config()).unwrap();
        let process = |user: &str| {
            let spec = ExecSpec { user: user.into(), ..ExecSpec::new(["id"], Duration::from_secs(1)) };
            bundle.process(&spec).map(|process| process["user"].clone())
        };
        assert_eq!(process("7").unwrap(), json!({ "uid": 7, "gid": 0 }));
        assert_eq!(process("7:8").unwrap(), json!({ "uid": 7, "gid": 8 }));
        assert!(process("mysql").unwrap_err().contains("\"mysql\""));
    }
}
