//! Calls about containers and execs: making them within the lane's bounds, showing them in the test's words.

use hyper::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::create::{self, Draft, NetworkAsked, object, says_nothing};
use super::desk::{CONTAINERS_MAX, Desk, VOLUMES_MAX, id_of};
use super::mounts::Asked;
use super::ports::{Forward, exposed};
use super::refusal::Refusal;

/// Keys of a request for an exec.
const EXEC_KEYS: [&str; 10] = [
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Cmd",
    "ConsoleSize",
    "DetachKeys",
    "Env",
    "Tty",
    "User",
    "WorkingDir",
];

impl Desk {
    /// Makes a container. Not to be dropped half-way: the caller gives it a task of its own.
    pub(super) async fn create_container(
        &self,
        name: Option<&str>,
        request: Value,
    ) -> Result<(StatusCode, Value), Refusal> {
        let _open = self.enter().await?;
        let name = name.filter(|name| !name.is_empty()).map(super::route::name).transpose()?;
        let asked_ports = request.pointer("/HostConfig/PortBindings").cloned().unwrap_or_default();
        let draft = create::draft(request, &self.caps)?;
        let image = self.image(&super::route::image_name(&draft.image)?).await?;
        self.room_for("containers", 1, CONTAINERS_MAX).await?;
        let mut ports = draft.ports.bindings.clone();
        if draft.ports.all {
            let shown = [draft.body.get("ExposedPorts"), image.pointer("/Config/ExposedPorts")];
            for port in shown.into_iter().flatten().flat_map(exposed) {
                if !ports.iter().any(|(inner, _)| *inner == port) {
                    ports.push((port, 0));
                }
            }
        }
        let body = self.whole_request(draft, &image, name.as_deref()).await?;
        let path = match &name {
            Some(name) => format!("/containers/create?name={}", self.words.inner(name)),
            None => "/containers/create".to_owned(),
        };
        let mut made = self.daemon.must(Method::POST, &path, Some(&body)).await.map_err(|mut refusal| {
            refusal.message = refusal.message.replace(&format!("{}.", self.words.token), "");
            refusal
        })?;
        let id = id_of(&made);
        let mut forwards = Vec::with_capacity(ports.len());
        for port in ports {
            match Forward::open(self.daemon.clone(), self.home, id.clone(), port).await {
                Ok(forward) => forwards.push(forward),
                Err(refusal) => {
                    self.daemon.must(Method::DELETE, &format!("/containers/{id}?force=1&v=1"), None).await?;
                    return Err(refusal);
                }
            }
        }
        self.keep_ports(&id, forwards, asked_ports);
        self.words.outer(&mut made);
        Ok((StatusCode::CREATED, made))
    }

    /// The daemon's request.
    async fn whole_request(&self, draft: Draft, image: &Value, name: Option<&str>) -> Result<Value, Refusal> {
        let Draft { mut body, mut host, network, endpoints, mounts, volumes_from, .. } = draft;
        let mut labels = body.remove("Labels").unwrap_or_default();
        self.label(&mut labels);
        body.insert("Labels".to_owned(), labels);
        body.insert("Image".to_owned(), image["Id"].clone());
        let own_name: Vec<String> = name.map(str::to_owned).into_iter().collect();
        let mut connected = Map::new();
        let mode = match network {
            NetworkAsked::None => "none".to_owned(),
            NetworkAsked::Container(other) => format!("container:{}", self.container_id(&other).await?),
            NetworkAsked::Lane => self.words.network.clone(),
            NetworkAsked::Named(network) => self.network_name(&network).await?,
        };
        let joins = !(mode == "none" || mode.starts_with("container:"));
        if joins {
            connected.insert(mode.clone(), json!({ "Aliases": own_name }));
            for (network, aliases) in endpoints {
                let known = self.network_name(&network).await?;
                let aliases: Vec<String> = aliases.into_iter().chain(own_name.clone()).collect();
                connected.insert(known, json!({ "Aliases": aliases }));
            }
        }
        host.insert("NetworkMode".to_owned(), json!(mode));
        host.insert("Mounts".to_owned(), Value::Array(self.whole_mounts(mounts).await?));
        let mut from = Vec::with_capacity(volumes_from.len());
        for other in volumes_from {
            let (other, mode) = other.split_once(':').unwrap_or((&other, "rw"));
            let id = self.container_id(&super::route::name(other)?).await?;
            let mode = if mode == "ro" { "ro" } else { "rw" };
            from.push(format!("{id}:{mode}"));
        }
        host.insert("VolumesFrom".to_owned(), json!(from));
        body.insert("HostConfig".to_owned(), Value::Object(host));
        body.insert("NetworkingConfig".to_owned(), json!({ "EndpointsConfig": connected }));
        Ok(Value::Object(body))
    }

    async fn whole_mounts(&self, asked: Vec<Asked>) -> Result<Vec<Value>, Refusal> {
        let mut mounts = Vec::with_capacity(asked.len());
        for mount in asked {
            mounts.push(match mount {
                Asked::Path { source, target, read_only } => {
                    let reached = self.reach.open(&source)?;
                    self.keep_path(&reached.source, &source, reached.mount);
                    json!({ "Type": "bind", "Source": reached.source, "Target": target, "ReadOnly": read_only })
                }
                Asked::Volume { name, target, read_only, no_copy } => {
                    let mut volume = json!({
                        "Type": "volume", "Target": target, "ReadOnly": read_only,
                        "VolumeOptions": { "NoCopy": no_copy }
                    });
                    if !name.is_empty() {
                        volume["Source"] = json!(self.have_volume(&name, json!({})).await?);
                    }
                    volume
                }
                Asked::Tmpfs(mount) => mount,
            });
        }
        Ok(mounts)
    }

    /// The daemon's name of a volume, which is made where it is not there.
    pub(super) async fn have_volume(&self, name: &str, mut labels: Value) -> Result<String, Refusal> {
        let inner = self.words.inner(name);
        if self.volume(name).await.is_err() {
            self.room_for("volumes", 1, VOLUMES_MAX).await?;
            self.label(&mut labels);
            let body = json!({ "Name": inner, "Driver": "local", "Labels": labels });
            self.daemon.must(Method::POST, "/volumes/create", Some(&body)).await?;
        }
        Ok(inner)
    }

    /// A container in the test's words.
    pub(super) fn show_container(&self, container: &mut Value) {
        let (ports, asked) = self.ports_of(&id_of(container));
        if let Some(mounts) = container.get_mut("Mounts").and_then(Value::as_array_mut) {
            for mount in mounts {
                let inner = mount["Source"].as_str().and_then(|inner| self.box_path(inner));
                if let Some(path) = inner {
                    mount["Source"] = json!(path);
                }
            }
        }
        if container.get("NetworkSettings").is_some_and(|settings| settings.get("SandboxID").is_some()) {
            for (inner, outer) in &ports {
                let place = format!("{inner}/tcp");
                let shown = &mut container["NetworkSettings"]["Ports"][place];
                let host = json!({ "HostIp": self.home.gateway.to_string(), "HostPort": outer.to_string() });
                match shown.as_array_mut() {
                    Some(hosts) => hosts.push(host),
                    None => *shown = json!([host]),
                }
            }
            container["HostConfig"]["PortBindings"] = asked;
        } else if let Some(listed) = container.get_mut("Ports") {
            let ports = ports.iter().map(|(inner, outer)| {
                let ip = self.home.gateway.to_string();
                json!({ "IP": ip, "PrivatePort": inner, "PublicPort": outer, "Type": "tcp" })
            });
            *listed = ports.collect();
        }
        self.words.outer(container);
    }

    /// What is left of a request for an exec.
    pub(super) fn exec_request(&self, request: Value) -> Result<Value, Refusal> {
        let mut kept = Map::new();
        for (key, value) in object("the request", request)? {
            // Some clients repeat the path's own word.
            if key == "Container" {
                continue;
            }
            if EXEC_KEYS.contains(&key.as_str()) {
                kept.insert(key, value);
            } else if !says_nothing(&value) {
                return Err(create::not_offered(&key, &value));
            }
        }
        Ok(Value::Object(kept))
    }
}
