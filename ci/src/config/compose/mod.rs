//! The subset of a compose file that a stack can be, as documented in `docs/configuration.md`.
//!
//! What is not in the subset is refused by name, line and column: a service that quietly lacks something its author
//! wrote is worse than none. Must not know the wire; `spec` converts.

mod fields;
mod grants;
mod interpolate;
mod service;
mod volumes;
mod words;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use self::fields::Fields;
use self::grants::Grants;
use self::yaml::{Entry, Value};
use super::andon_toml::readable;
use super::problem::{Findings, Located, Problem, all_problems, quoted};
use super::{ConfigErrors, Image, Limits, NAME_FORM, Note, RepoPath, is_name};

/// The most services of a stack.
pub const SERVICES_MAX: usize = 64;

/// A checked compose file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Compose {
    /// In the file's order; at least one.
    pub services: Vec<Service>,
    /// The named volumes, sorted.
    pub volumes: Vec<String>,
}

/// One service.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its name, by which others reach it.
    pub name: String,
    /// What it runs.
    pub image: Located<Image>,
    /// `None` keeps the image's.
    pub entrypoint: Option<Vec<String>>,
    /// `None` keeps the image's.
    pub command: Option<Vec<String>>,
    /// Sorted by name.
    pub environment: Vec<(String, String)>,
    /// Volumes, binds and tmpfs.
    pub mounts: Vec<Mount>,
    /// `None` keeps the image's.
    pub healthcheck: Option<Healthcheck>,
    /// Services that start before.
    pub depends_on: Vec<Dependency>,
    /// Further names on the stack's network.
    pub aliases: Vec<String>,
    /// Empty for the engine's choice.
    pub hostname: String,
    /// Empty for the image's.
    pub user: String,
    /// Empty for the image's.
    pub working_dir: String,
    /// Empty for the image's.
    pub stop_signal: String,
    /// `None` for the default.
    pub stop_grace_period: Option<Duration>,
    /// `None` for the engine's default.
    pub shm_bytes: Option<u64>,
    /// What it may use.
    pub limits: Limits,
    /// An init process reaps zombies.
    pub init: bool,
    /// Capabilities beyond the engine's default ones.
    pub cap_add: Vec<String>,
    /// Kernel parameters of the container's namespaces.
    pub sysctls: Vec<(String, String)>,
    /// The container's own layer cannot be written.
    pub read_only: bool,
    /// With a terminal.
    pub tty: bool,
    /// Labels of the container.
    pub labels: Vec<(String, String)>,
}

/// Something mounted into a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path in the container.
    pub target: String,
    /// Not writable.
    pub read_only: bool,
    /// What is mounted.
    pub source: MountSource,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A volume declared at the top of the file.
    Volume(String),
    /// A file or folder of the repository.
    Bind(Located<RepoPath>),
    /// Memory, with its limit in bytes, 0 for the kernel's default.
    Tmpfs(u64),
    /// A volume without a name.
    Anonymous,
}

/// How a service's health is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// `CMD …`, `CMD-SHELL …` or `NONE`; empty keeps the image's test with other times.
    pub test: Vec<String>,
    /// `None` for the engine's default, as the following.
    pub interval: Option<Duration>,
    /// Limit of one test.
    pub timeout: Option<Duration>,
    /// Failures in a row until unhealthy.
    pub retries: Option<u32>,
    /// Failures do not count this long after the start.
    pub start_period: Option<Duration>,
}

/// A service that another one waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// Which.
    pub service: String,
    /// Until when.
    pub condition: Condition,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Its container runs.
    Started,
    /// Its healthcheck passes.
    Healthy,
    /// It has exited with 0.
    Completed,
}

/// Reads and checks a compose file. `file` is its path in the repository; binds and builds are relative to its
/// folder.
pub fn parse(file: &RepoPath, bytes: &[u8]) -> Result<(Compose, Vec<Note>), ConfigErrors> {
    let draft = read(file, bytes);
    match all_problems(draft.problems) {
        Some(errors) => Err(errors),
        None => Ok((draft.compose, draft.notes)),
    }
}

/// A compose file as far as it could be read; only right where there are no problems.
pub(crate) struct Draft {
    pub(crate) compose: Compose,
    pub(crate) problems: Vec<Problem>,
    pub(crate) notes: Vec<Note>,
}

pub(crate) fn read(file: &RepoPath, bytes: &[u8]) -> Draft {
    let text = match readable(file.as_str(), bytes) {
        Ok(text) => text,
        Err(problem) => {
            return Draft { compose: Compose::default(), problems: vec![problem], notes: Vec::new() };
        }
    };
    let mut findings = Findings::new(file.as_str(), text);
    let root = yaml::parse(&mut findings, text);
    let compose = match &root {
        Some(root) => top(&mut findings, file, root),
        None => {
            if findings.problems.is_empty() {
                let place = findings.at(1, 1);
                findings.problem(place, "the file is empty: write the services under \"services\"");
            }
            Compose::default()
        }
    };
    let Findings { problems, mut notes, .. } = findings;
    notes.sort();
    Draft { compose, problems, notes }
}

/// What to do instead of some top-level keys.
const TOP_INSTEAD: [(&str, &str); 1] = [("include", "write all services into one file")];

fn top(findings: &mut Findings<'_>, file: &RepoPath, root: &yaml::Node) -> Compose {
    let mut fields = Fields::of(findings, "the compose file".to_owned(), root);
    fields.text(findings, "name");
    fields.ignored(findings, "version", "the compose specification is always the current one");
    let volumes = volumes::declared(findings, fields.entry("volumes"));
    networks(findings, fields.entry("networks"));
    let folder = file.folder();
    let grants = Grants::declared(findings, &folder, &mut fields);
    let services = match fields.entry("services") {
        Some(entry) => services(findings, &folder, &volumes, &grants, entry),
        None => {
            findings.problem(fields.place.clone(), "the file has no \"services\"");
            Vec::new()
        }
    };
    fields.finish(findings, &TOP_INSTEAD);
    Compose { services, volumes: volumes.into_iter().collect() }
}

/// The one network there is, `default`, without options.
fn networks(findings: &mut Findings<'_>, entry: Option<&Entry>) {
    let Some(entry) = entry else { return };
    let Value::Map(networks) = &entry.value.value else { return };
    for network in networks {
        if network.key != "default" {
            let message = format!(
                "network {} is not supported: all services of a stack share one private network",
                quoted(&network.key)
            );
            findings.problem(network.place.clone(), message);
        } else {
            Fields::of(findings, "network \"default\"".to_owned(), &network.value).finish(findings, &[]);
        }
    }
}

fn services(
    findings: &mut Findings<'_>,
    folder: &RepoPath,
    volumes: &BTreeSet<String>,
    grants: &Grants,
    entry: &Entry,
) -> Vec<Service> {
    let entries: &[Entry] = match &entry.value.value {
        Value::Map(entries) if !entries.is_empty() => entries,
        Value::Map(_) | Value::Null => {
            findings.problem(entry.place.clone(), "\"services\" is empty");
            &[]
        }
        _ => {
            let message = format!("\"services\" must be a map, not {}", entry.value.kind());
            findings.problem(entry.value.place.clone(), message);
            &[]
        }
    };
    if let Some(beyond) = entries.get(SERVICES_MAX) {
        findings.problem(beyond.place.clone(), format!("more than {SERVICES_MAX} services"));
    }
    let mut services = Vec::new();
    let mut places = BTreeMap::new();
    for entry in entries.iter().take(SERVICES_MAX) {
        if !is_name(&entry.key) {
            let message = format!("{} is no name for a service: {NAME_FORM}", quoted(&entry.key));
            findings.problem(entry.place.clone(), message);
        }
        let service = service::read(findings, folder, volumes, grants, entry);
        for dependency in &service.depends_on {
            places.insert((service.name.clone(), dependency.value.service.clone()), dependency.place.clone());
        }
        services.push(service.finish());
    }
    dependencies(findings, &services, &places);
    services
}

/// Every dependency exists, and none leads back.
fn dependencies(
    findings: &mut Findings<'_>,
    services: &[Service],
    places: &BTreeMap<(String, String), super::Place>,
) {
    let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
    for service in services {
        for dependency in &service.depends_on {
            if !names.contains(&dependency.service.as_str()) {
                let mut message = format!(
                    "service {} depends on {}, which is no service",
                    quoted(&service.name),
                    quoted(&dependency.service)
                );
                if let Some(near) = super::problem::nearest(&dependency.service, &names) {
                    message.push_str(&format!(", did you mean {near:?}?"));
                }
                if let Some(place) = places.get(&(service.name.clone(), dependency.service.clone())) {
                    findings.problem(place.clone(), message);
                }
            }
        }
    }
    let mut open: Vec<&Service> = services.iter().collect();
    loop {
        let before = open.len();
        let waiting: Vec<&str> = open.iter().map(|service| service.name.as_str()).collect();
        open.retain(|service| service.depends_on.iter().any(|on| waiting.contains(&on.service.as_str())));
        if open.is_empty() {
            return;
        }
        if open.len() == before {
            break;
        }
    }
    // What is left leads into a cycle; those that only wait for one are left out by going backwards.
    let in_cycle = |service: &&Service| {
        let name = service.name.as_str();
        open.iter().any(|other| other.depends_on.iter().any(|on| on.service == name))
    };
    let members: Vec<&Service> = open.iter().copied().filter(in_cycle).collect();
    let names = members.iter().map(|service| quoted(&service.name)).collect::<Vec<_>>().join(", ");
    let first = members.iter().find_map(|service| {
        service.depends_on.iter().find_map(|on| places.get(&(service.name.clone(), on.service.clone())))
    });
    if let Some(place) = first {
        findings.problem(place.clone(), format!("services that wait for each other: {names}"));
    }
}

#[cfg(test)]
mod tests;
