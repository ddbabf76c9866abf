//! Calls about networks, volumes and images.

use hyper::{Method, StatusCode};
use rand::Rng as _;
use serde_json::{Map, Value, json};

use super::create::{self, labels, not_offered, object, says_nothing, text};
use super::desk::{Desk, NETWORKS_MAX, id_of};
use super::refusal::Refusal;
use super::route::name as checked;
use crate::engine::is_out_of_addresses;

impl Desk {
    pub(super) async fn create_network(&self, request: Value) -> Result<(StatusCode, Value), Refusal> {
        let _open = self.enter().await?;
        let mut own_labels = json!({});
        let mut name = String::new();
        for (key, value) in object("the request", request)? {
            match key.as_str() {
                "Name" => name = checked(&text(&key, &value)?)?,
                "Labels" => own_labels = labels(value)?,
                "Driver" if value == "bridge" => {}
                "CheckDuplicate" | "Internal" | "Attachable" | "Scope" => {}
                "IPAM" if value.get("Config").is_none_or(says_nothing) => {}
                _ if says_nothing(&value) => {}
                _ => return Err(not_offered(&key, &value)),
            }
        }
        if self.is_lanes(&name) || self.network(&name).await.is_ok() {
            return Err(Refusal::conflict(format!("network with name {name} already exists")));
        }
        self.room_for("networks", 1, NETWORKS_MAX).await?;
        self.label(&mut own_labels);
        let body = json!({
            "Name": self.words.inner(&checked(&name)?), "Driver": "bridge", "CheckDuplicate": true, "Internal": true,
            "Labels": own_labels
        });
        let made = self.daemon.must(Method::POST, "/networks/create", Some(&body)).await;
        let made = made.map_err(|refusal| match is_out_of_addresses(&refusal.message) {
            true => Refusal::broken(format!(
                "the worker has no addresses left for another network ({}): it has 256 ranges for its lanes and all that their tests make",
                refusal.message
            )),
            false => refusal,
        })?;
        Ok((StatusCode::CREATED, made))
    }

    /// A network in the test's words, without what others have in it.
    pub(super) fn show_network(&self, network: &mut Value) {
        if let Some(containers) = network.get_mut("Containers").and_then(Value::as_object_mut) {
            let own = format!("{}.", self.words.token);
            containers
                .retain(|_, container| container["Name"].as_str().is_some_and(|name| name.starts_with(&own)));
        }
        self.words.outer(network);
    }

    /// Connects or disconnects a container of the test's own.
    pub(super) async fn wire(&self, network: &str, connect: bool, request: Value) -> Result<(), Refusal> {
        let _open = self.enter().await?;
        let mut body = Map::new();
        for (key, value) in object("the request", request)? {
            match key.as_str() {
                "Container" => {
                    let container = self.container(&checked(&text(&key, &value)?)?).await?;
                    let name = container["Name"].as_str().unwrap_or_default().trim_start_matches('/');
                    let name = name.strip_prefix(&format!("{}.", self.words.token)).unwrap_or_default();
                    body.insert(key, json!(id_of(&container)));
                    if connect {
                        let names: Vec<&str> =
                            Some(name).filter(|name| !name.is_empty()).into_iter().collect();
                        body.entry("EndpointConfig").or_insert_with(|| json!({ "Aliases": names }));
                    }
                }
                "EndpointConfig" if connect && !says_nothing(&value) => {
                    let aliases = create::aliases(value)?;
                    body.insert(key, json!({ "Aliases": aliases }));
                }
                "Force" => drop(body.insert(key, value)),
                _ if says_nothing(&value) => {}
                _ => return Err(not_offered(&key, &value)),
            }
        }
        let id = self.network_id(network).await?;
        let call = if connect { "connect" } else { "disconnect" };
        let path = format!("/networks/{id}/{call}");
        self.daemon.must(Method::POST, &path, Some(&Value::Object(body))).await.map(drop)
    }

    pub(super) async fn create_volume(&self, request: Value) -> Result<(StatusCode, Value), Refusal> {
        let _open = self.enter().await?;
        let mut own_labels = json!({});
        let mut name = String::new();
        for (key, value) in object("the request", request)? {
            match key.as_str() {
                "Name" => name = text(&key, &value)?,
                "Labels" => own_labels = labels(value)?,
                "Driver" if value == "local" => {}
                _ if says_nothing(&value) => {}
                // Options of the local driver mount whatever they name.
                _ => return Err(not_offered(&key, &value)),
            }
        }
        if name.is_empty() {
            name = hex::encode(rand::rng().random::<[u8; 16]>());
        }
        self.have_volume(&checked(&name)?, own_labels).await?;
        let mut made = self.volume(&name).await?;
        self.words.outer(&mut made);
        Ok((StatusCode::CREATED, made))
    }

    /// A pull: what is there is there; the farm's images come from the farm. The lines that a client of Docker expects.
    pub(super) async fn pull(&self, reference: &str) -> Result<String, Refusal> {
        let reference = super::route::image_name(reference)?;
        if self.image(&reference).await.is_err() {
            (self.have_image)(reference.clone()).await.map_err(|why| {
                Refusal::absent(format!(
                    "No such image: {reference} cannot be pulled for a test: {why}; a project's images are shared with \
                     `andon image add {reference}`, or named by a suite or service"
                ))
            })?;
            self.image(&reference).await?;
        }
        let line = json!({ "status": format!("Status: Image is up to date for {reference}") });
        Ok(format!("{line}\r\n"))
    }
}
