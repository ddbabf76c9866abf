//! What a test may ask of a new container, and what it gets. Docker's own request comes in, a [`Draft`] goes out that names
//! what has still to be looked up (image, networks, volumes, paths).
//!
//! Pure. Invariant: a key of the request that is not known here is refused by name unless its value says nothing, so that
//! what a future engine adds is closed until somebody has thought about it.

use serde_json::{Map, Value, json};

use super::mounts::{self, Asked};
use super::ports::{self, Published};
use super::refusal::Refusal;

/// The capabilities that Docker gives by default. A test may ask for these and drop any.
const CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Keys of the request that are passed on as they come.
const FREE: [&str; 22] = [
    "ArgsEscaped",
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Cmd",
    "Domainname",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Hostname",
    "NetworkDisabled",
    "OnBuild",
    "OpenStdin",
    "Shell",
    "StdinOnce",
    "StopSignal",
    "StopTimeout",
    "Tty",
    "User",
    "Volumes",
    "WorkingDir",
];

/// Keys of its `HostConfig` that are passed on as they come.
const HOST_FREE: [&str; 16] = [
    "AutoRemove",
    "CapDrop",
    "CpuShares",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "ExtraHosts",
    "GroupAdd",
    "Init",
    "MemoryReservation",
    "OomScoreAdj",
    "ReadonlyRootfs",
    "RestartPolicy",
    "ShmSize",
    "Tmpfs",
    "Ulimits",
];

/// What one container of a test may have at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caps {
    /// Also what it gets when it asks for nothing.
    pub(crate) memory_bytes: u64,
    /// As above.
    pub(crate) pids: u64,
    /// As above; 0 for no limit.
    pub(crate) cpu_millis: u64,
}

/// The network that a container asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NetworkAsked {
    /// Docker's default, which is the lane's own here.
    Lane,
    /// Nothing but a loopback.
    None,
    /// Another container's.
    Container(String),
    /// One that the test made.
    Named(String),
}

/// A request that may be carried out once its names are found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Draft {
    /// Without `Image`, `HostConfig` and `NetworkingConfig`.
    pub(super) body: Map<String, Value>,
    /// Without networks, mounts and ports.
    pub(super) host: Map<String, Value>,
    pub(super) image: String,
    pub(super) network: NetworkAsked,
    /// Networks to be connected to, with aliases.
    pub(super) endpoints: Vec<(String, Vec<String>)>,
    pub(super) mounts: Vec<Asked>,
    /// Containers, each with an optional `:ro`.
    pub(super) volumes_from: Vec<String>,
    pub(super) ports: Published,
}

/// Judges a request.
pub(super) fn draft(request: Value, caps: &Caps) -> Result<Draft, Refusal> {
    let Value::Object(request) = request else { return Err(Refusal::bad("the request is no JSON object")) };
    let mut draft = Draft {
        body: Map::new(),
        host: Map::new(),
        image: String::new(),
        network: NetworkAsked::Lane,
        endpoints: Vec::new(),
        mounts: Vec::new(),
        volumes_from: Vec::new(),
        ports: Published::default(),
    };
    let mut host_config = Map::new();
    for (key, value) in request {
        match key.as_str() {
            "Image" => draft.image = text(&key, &value)?,
            "Labels" => {
                draft.body.insert(key, labels(value)?);
            }
            "HostConfig" => host_config = object(&key, value)?,
            "NetworkingConfig" => draft.endpoints = endpoints(object(&key, value)?)?,
            known if FREE.contains(&known) => {
                draft.body.insert(key, value);
            }
            _ if says_nothing(&value) => {}
            _ => return Err(not_offered(&key, &value)),
        }
    }
    limits(&mut draft, &host_config, caps)?;
    for (key, value) in host_config {
        host_key(&mut draft, &key, value)?;
    }
    Ok(draft)
}

fn host_key(draft: &mut Draft, key: &str, value: Value) -> Result<(), Refusal> {
    match key {
        "NetworkMode" => draft.network = network(&text(key, &value)?)?,
        "Binds" => {
            for bind in texts(key, &value)? {
                draft.mounts.push(mounts::bind(&bind)?);
            }
        }
        "Mounts" => {
            for mount in list(key, value)? {
                draft.mounts.push(mounts::mount(mount)?);
            }
        }
        "VolumesFrom" => draft.volumes_from = texts(key, &value)?,
        "PortBindings" => draft.ports.bindings = ports::bindings(object(key, value)?)?,
        "PublishAllPorts" => draft.ports.all = value == Value::Bool(true),
        "CapAdd" => {
            for capability in texts(key, &value)? {
                let plain = capability.to_ascii_uppercase();
                if !CAPABILITIES.contains(&plain.trim_start_matches("CAP_")) {
                    return Err(Refusal::forbidden(format!(
                        "CapAdd {capability:?} is refused: a test's container has Docker's default capabilities at most"
                    )));
                }
            }
            draft.host.insert(key.to_owned(), value);
        }
        "SecurityOpt" => {
            for option in texts(key, &value)? {
                if !matches!(option.as_str(), "no-new-privileges" | "no-new-privileges:true") {
                    return Err(not_offered(key, &Value::String(option)));
                }
            }
            draft.host.insert(key.to_owned(), value);
        }
        "IpcMode" | "CgroupnsMode" => {
            if !says_nothing(&value) && !matches!(value.as_str(), Some("private" | "none")) {
                return Err(Refusal::forbidden(format!(
                    "{key} {value} is refused: a test's container has namespaces of its own"
                )));
            }
        }
        // An empty list would open what the engine masks.
        "MaskedPaths" | "ReadonlyPaths" => {
            if !value.is_null() {
                return Err(not_offered(key, &value));
            }
        }
        "LogConfig" => {
            let kind = value.get("Type").and_then(Value::as_str).unwrap_or_default();
            if !matches!(kind, "" | "json-file" | "local") {
                return Err(not_offered(key, &value));
            }
        }
        "VolumeDriver" if value == "local" => {}
        "Isolation" if value == "default" => {}
        "ConsoleSize" | "Memory" | "MemorySwap" | "NanoCpus" | "PidsLimit" => {}
        "Privileged" if value == Value::Bool(true) => {
            return Err(Refusal::forbidden("Privileged is refused: a test's container has no privileges"));
        }
        known if HOST_FREE.contains(&known) => {
            draft.host.insert(key.to_owned(), value);
        }
        _ if says_nothing(&value) => {}
        _ => return Err(not_offered(key, &value)),
    }
    Ok(())
}

/// What it asks for, up to the cap; the cap, where it asks for nothing.
fn limits(draft: &mut Draft, host: &Map<String, Value>, caps: &Caps) -> Result<(), Refusal> {
    let mut put = |key: &str, cap: u64, unit: &str, scale: u64| {
        let asked = host.get(key).and_then(Value::as_i64).and_then(|n| u64::try_from(n).ok());
        let asked = asked.filter(|asked| *asked > 0);
        if let Some(asked) = asked.filter(|asked| cap > 0 && *asked > cap) {
            let (asked, cap) = (asked / scale, cap / scale);
            return Err(Refusal::forbidden(format!(
                "{key} {asked}{unit} is refused: a test's container may have {cap}{unit}"
            )));
        }
        let given = asked.unwrap_or(cap);
        if given > 0 {
            draft.host.insert(key.to_owned(), json!(given));
        }
        Ok(given)
    };
    let memory = put("Memory", caps.memory_bytes, " MiB", 1 << 20)?;
    put("PidsLimit", caps.pids, "", 1)?;
    put("NanoCpus", caps.cpu_millis * 1_000_000, " billionths", 1)?;
    if memory > 0 {
        // No swap beside it.
        draft.host.insert("MemorySwap".to_owned(), json!(memory));
    }
    Ok(())
}

fn network(mode: &str) -> Result<NetworkAsked, Refusal> {
    match mode {
        "" | "default" | "bridge" => Ok(NetworkAsked::Lane),
        "none" => Ok(NetworkAsked::None),
        "host" => Err(Refusal::forbidden(
            "NetworkMode \"host\" is refused: a test's container has a network of its own or joins the lane's",
        )),
        other => match other.strip_prefix("container:") {
            Some(container) => Ok(NetworkAsked::Container(super::route::name(container)?)),
            None => Ok(NetworkAsked::Named(super::route::name(other)?)),
        },
    }
}

fn endpoints(config: Map<String, Value>) -> Result<Vec<(String, Vec<String>)>, Refusal> {
    let mut all = Vec::new();
    for (key, value) in config {
        if key != "EndpointsConfig" {
            if says_nothing(&value) {
                continue;
            }
            return Err(not_offered(&key, &value));
        }
        for (network, endpoint) in object(&key, value)? {
            all.push((network, aliases(endpoint)?));
        }
    }
    Ok(all)
}

/// Of one endpoint. Addresses are the worker's to give.
pub(super) fn aliases(endpoint: Value) -> Result<Vec<String>, Refusal> {
    let mut aliases = Vec::new();
    for (key, value) in object("EndpointsConfig", endpoint)? {
        match key.as_str() {
            "Aliases" => aliases = texts(&key, &value)?,
            _ if says_nothing(&value) => {}
            _ => return Err(not_offered(&key, &value)),
        }
    }
    Ok(aliases)
}

/// The test's own labels; Andon's cannot be forged.
pub(super) fn labels(value: Value) -> Result<Value, Refusal> {
    let labels = object("Labels", value)?;
    if let Some(key) = labels.keys().find(|key| key.starts_with("dev.andon.")) {
        return Err(Refusal::forbidden(format!("label {key:?} is refused: it is Andon's own")));
    }
    Ok(Value::Object(labels))
}

/// Null, false, 0, -1, an empty text, or a list or object of nothing else.
pub(super) fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => matches!(number.as_i64(), Some(0 | -1)),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(says_nothing),
        Value::Object(items) => items.values().all(says_nothing),
    }
}

pub(super) fn not_offered(key: &str, value: &Value) -> Refusal {
    let mut shown = value.to_string();
    if shown.len() > 120 {
        shown = shown.chars().take(120).chain("…".chars()).collect();
    }
    Refusal::forbidden(format!("{key} {shown} is refused: a lane's Docker API does not offer it"))
}

pub(super) fn object(key: &str, value: Value) -> Result<Map<String, Value>, Refusal> {
    match value {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        other => Err(Refusal::bad(format!("{key} is no object: {other}"))),
    }
}

pub(super) fn list(key: &str, value: Value) -> Result<Vec<Value>, Refusal> {
    match value {
        Value::Array(items) => Ok(items),
        Value::Null => Ok(Vec::new()),
        other => Err(Refusal::bad(format!("{key} is no list: {other}"))),
    }
}

pub(super) fn text(key: &str, value: &Value) -> Result<String, Refusal> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Ok(String::new()),
        other => Err(Refusal::bad(format!("{key} is no text: {other}"))),
    }
}

pub(super) fn texts(key: &str, value: &Value) -> Result<Vec<String>, Refusal> {
    match value {
        Value::Array(items) => items.iter().map(|item| text(key, item)).collect(),
        Value::Null => Ok(Vec::new()),
        other => Err(Refusal::bad(format!("{key} is no list of texts: {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps { memory_bytes: 512 << 20, pids: 100, cpu_millis: 1500 };

    fn host(host: &Value) -> Result<Draft, Refusal> {
        draft(json!({ "Image": "i", "HostConfig": host }), &CAPS)
    }

    #[test]
    fn what_breaks_out_is_refused_by_name() {
        for (config, word) in [
            (json!({ "Privileged": true }), "Privileged"),
            (json!({ "NetworkMode": "host" }), "NetworkMode \"host\""),
            (json!({ "PidMode": "host" }), "PidMode \"host\""),
            (json!({ "PidMode": "container:x" }), "PidMode"),
            (json!({ "IpcMode": "host" }), "IpcMode \"host\""),
            (json!({ "UTSMode": "host" }), "UTSMode"),
            (json!({ "UsernsMode": "host" }), "UsernsMode"),
            (json!({ "CgroupnsMode": "host" }), "CgroupnsMode"),
            (json!({ "CapAdd": ["NET_ADMIN"] }), "NET_ADMIN"),
            (json!({ "CapAdd": ["ALL"] }), "ALL"),
            (json!({ "SecurityOpt": ["seccomp=unconfined"] }), "seccomp=unconfined"),
            (json!({ "MaskedPaths": [] }), "MaskedPaths"),
            (json!({ "ReadonlyPaths": [] }), "ReadonlyPaths"),
            (json!({ "Devices": [{ "PathOnHost": "/dev/sda" }] }), "Devices"),
            (json!({ "DeviceRequests": [{ "Count": 1 }] }), "DeviceRequests"),
            (json!({ "DeviceCgroupRules": ["a *:* rwm"] }), "DeviceCgroupRules"),
            (json!({ "CgroupParent": "/" }), "CgroupParent"),
            (json!({ "Runtime": "other" }), "Runtime"),
            (json!({ "Sysctls": { "kernel.shmmax": "1" } }), "Sysctls"),
            (json!({ "LogConfig": { "Type": "syslog" } }), "LogConfig"),
            (json!({ "VolumeDriver": "nfs" }), "VolumeDriver"),
            (json!({ "OomKillDisable": true }), "OomKillDisable"),
            (json!({ "Links": ["a:b"] }), "Links"),
            (json!({ "SomethingNew": 7 }), "SomethingNew"),
            (json!({ "CpuQuota": 100_000 }), "CpuQuota"),
        ] {
            let refusal = host(&config).unwrap_err();
            assert_eq!(refusal.status.as_u16(), 403, "{config}");
            assert!(refusal.message.contains(word) && refusal.message.contains("refused"), "{refusal}");
        }
        let forged = json!({ "Image": "i", "Labels": { "dev.andon.lane": "1" } });
        assert!(draft(forged, &CAPS).unwrap_err().message.contains("dev.andon.lane"));
    }

    #[test]
    fn what_the_command_line_sends_for_a_plain_run_is_taken() {
        let request = json!({
            "Hostname": "", "User": "", "AttachStdout": true, "ExposedPorts": { "80/tcp": {} }, "Tty": false,
            "Env": null, "Cmd": ["true"], "Image": "debian", "Volumes": {}, "Labels": {}, "OnBuild": null,
            "HostConfig": {
                "Binds": null, "ContainerIDFile": "", "LogConfig": { "Type": "", "Config": {} },
                "NetworkMode": "default", "PortBindings": {}, "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
                "AutoRemove": true, "ConsoleSize": [24, 80], "CapAdd": null, "CgroupnsMode": "", "IpcMode": "",
                "Privileged": false, "SecurityOpt": null, "MemorySwappiness": -1, "OomKillDisable": false,
                "PidsLimit": 0, "Devices": [], "MaskedPaths": null, "ReadonlyPaths": null
            },
            "NetworkingConfig": { "EndpointsConfig": {} }
        });
        let draft = draft(request, &CAPS).unwrap();
        assert_eq!((draft.image.as_str(), &draft.network), ("debian", &NetworkAsked::Lane));
        assert_eq!(draft.host["AutoRemove"], true);
        assert!(!draft.host.contains_key("Privileged") && !draft.host.contains_key("LogConfig"));
    }

    #[test]
    fn limits_are_the_lanes_where_none_are_asked_for_and_never_more() {
        let given = |config: Value| host(&config).map(|draft| draft.host);
        let usual = given(json!({})).unwrap();
        assert_eq!((&usual["Memory"], &usual["MemorySwap"]), (&json!(512 << 20), &json!(512 << 20)));
        assert_eq!((&usual["PidsLimit"], &usual["NanoCpus"]), (&json!(100), &json!(1_500_000_000)));
        let less = given(json!({ "Memory": 1 << 20, "PidsLimit": -1, "MemorySwap": -1 })).unwrap();
        assert_eq!((&less["MemorySwap"], &less["PidsLimit"]), (&json!(1 << 20), &json!(100)));
        for more in [
            json!({ "Memory": 1_u64 << 30 }),
            json!({ "PidsLimit": 101 }),
            json!({ "NanoCpus": 2_000_000_000_u64 }),
        ] {
            assert!(given(more).unwrap_err().message.contains("may have"));
        }
    }

    #[test]
    fn networks_are_the_lanes_nobodys_the_tests_or_another_containers() {
        let asked = |mode: &str| host(&json!({ "NetworkMode": mode })).unwrap().network;
        assert_eq!(asked("bridge"), NetworkAsked::Lane);
        assert_eq!(asked("none"), NetworkAsked::None);
        assert_eq!(asked("container:x"), NetworkAsked::Container("x".into()));
        assert_eq!(asked("mine"), NetworkAsked::Named("mine".into()));
        let request = json!({
            "Image": "i",
            "NetworkingConfig": { "EndpointsConfig": { "mine": { "Aliases": ["a"], "NetworkID": "" } } }
        });
        assert_eq!(draft(request, &CAPS).unwrap().endpoints, [("mine".into(), vec!["a".into()])]);
        let fixed = json!({
            "Image": "i",
            "NetworkingConfig": { "EndpointsConfig": { "mine": { "IPAMConfig": { "IPv4Address": "1.2.3.4" } } } }
        });
        assert!(draft(fixed, &CAPS).unwrap_err().message.contains("IPAMConfig"));
    }
}
