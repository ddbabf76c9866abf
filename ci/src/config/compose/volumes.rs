//! What is mounted into services: named and anonymous volumes, binds of the repository, tmpfs.

use std::collections::BTreeSet;

use super::super::check::is_container_path;
use super::super::measure;
use super::super::problem::{Findings, Located, Place, nearest, quoted};
use super::super::{NAME_FORM, RepoPath, is_name};
use super::fields::{self, Fields};
use super::yaml::{Entry, Node, Value};
use super::{Mount, MountSource};

const VOLUME_INSTEAD: [(&str, &str); 4] = [
    ("external", "a baseline holds its volumes: declare the volume here and fill it by a seed command"),
    ("driver", "volumes live in the worker's own pool"),
    ("driver_opts", "volumes live in the worker's own pool; a file of the repository can be a bind"),
    ("name", "a volume is known by its key here"),
];

/// The volumes that the top of the file declares.
pub(crate) fn declared(findings: &mut Findings<'_>, entry: Option<&Entry>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let Some(entry) = entry else { return names };
    let entries: &[Entry] = match &entry.value.value {
        Value::Map(entries) => entries,
        Value::Null => &[],
        _ => {
            let message = format!("\"volumes\" must be a map, not {}", entry.value.kind());
            findings.problem(entry.value.place.clone(), message);
            &[]
        }
    };
    for volume in entries {
        if !is_name(&volume.key) {
            let message = format!("{} is no name for a volume: {NAME_FORM}", quoted(&volume.key));
            findings.problem(volume.place.clone(), message);
        }
        let mut fields = Fields::of(findings, format!("volume {}", quoted(&volume.key)), &volume.value);
        fields.ignored(findings, "labels", "volumes have none in a baseline");
        fields.finish(findings, &VOLUME_INSTEAD);
        names.insert(volume.key.clone());
    }
    names
}

/// A service's `volumes` and `tmpfs`, with what it is granted besides; each target once.
pub(crate) fn mounts(
    findings: &mut Findings<'_>,
    fields: &mut Fields<'_>,
    folder: &RepoPath,
    declared: &BTreeSet<String>,
    granted: Vec<Located<Mount>>,
) -> Vec<Mount> {
    let mut mounts = granted;
    if let Some(entry) = fields.entry("volumes") {
        for item in fields::items(findings, "volumes", &entry.value).unwrap_or_default() {
            let mount = match &item.value {
                Value::Map(_) => long(findings, folder, declared, item),
                _ => short(findings, folder, declared, item),
            };
            mounts.extend(mount.map(|value| Located { value, place: item.place.clone() }));
        }
    }
    for text in fields.text_or_texts(findings, "tmpfs").unwrap_or_default() {
        let mount = tmpfs(findings, &text);
        mounts.extend(mount.map(|value| Located { value, place: text.place.clone() }));
    }
    let mut targets: BTreeSet<&str> = BTreeSet::new();
    for mount in &mounts {
        if !targets.insert(&mount.value.target) {
            let message = format!("two mounts at {}", quoted(&mount.value.target));
            findings.problem(mount.place.clone(), message);
        }
    }
    mounts.into_iter().map(|mount| mount.value).collect()
}

/// `source:target[:options]`, or a target alone.
fn short(
    findings: &mut Findings<'_>,
    folder: &RepoPath,
    declared: &BTreeSet<String>,
    node: &Node,
) -> Option<Mount> {
    let text = fields::text(findings, "volumes", node)?;
    let parts: Vec<&str> = text.value.split(':').collect();
    let (from, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [from, target] => (Some(*from), *target, ""),
        [from, target, options] => (Some(*from), *target, *options),
        _ => {
            let message =
                format!("volume {}: write \"source:/target\" or \"source:/target:ro\"", quoted(&text.value));
            findings.problem(text.place, message);
            return None;
        }
    };
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            // SELinux relabelling is for hosts' folders; there are none here.
            "z" | "Z" => {}
            other => {
                let message =
                    format!("volume option {} is not supported: known are \"ro\" and \"rw\"", quoted(other));
                findings.problem(text.place.clone(), message);
            }
        }
    }
    let target = target_path(findings, &text.place, target)?;
    let source = match from {
        None => MountSource::Anonymous,
        Some(from) if from.starts_with(['.', '/', '~']) => bind(findings, folder, &text.place, from)?,
        Some(from) => volume(findings, declared, &text.place, from)?,
    };
    Some(Mount { target, read_only, source })
}

/// The map form.
fn long(
    findings: &mut Findings<'_>,
    folder: &RepoPath,
    declared: &BTreeSet<String>,
    node: &Node,
) -> Option<Mount> {
    let mut fields = Fields::of(findings, "a volume".to_owned(), node);
    let kind = fields.text(findings, "type");
    let from = fields.text(findings, "source");
    let target = fields.text(findings, "target");
    let read_only = fields.bool(findings, "read_only").unwrap_or(false);
    let mut tmpfs_bytes = 0;
    if let Some(entry) = fields.entry("tmpfs") {
        let mut tmpfs = Fields::of(findings, "tmpfs".to_owned(), &entry.value);
        tmpfs_bytes = tmpfs.bytes(findings, "size").unwrap_or(0);
        tmpfs.finish(findings, &[]);
    }
    let place = fields.place.clone();
    fields.finish(findings, &[]);
    let (Some(kind), Some(target)) = (kind, target) else {
        findings.problem(place, "a volume needs \"type\" and \"target\"");
        return None;
    };
    let target = target_path(findings, &target.place, &target.value)?;
    let source = match (kind.value.as_str(), from) {
        ("volume", Some(from)) => volume(findings, declared, &from.place, &from.value)?,
        ("volume", None) => MountSource::Anonymous,
        ("bind", Some(from)) => bind(findings, folder, &from.place, &from.value)?,
        ("bind", None) => {
            findings.problem(place, "a bind needs a \"source\"");
            return None;
        }
        ("tmpfs", None) => MountSource::Tmpfs(tmpfs_bytes),
        ("tmpfs", Some(from)) => {
            findings.problem(from.place, "a tmpfs has no \"source\"");
            return None;
        }
        (other, _) => {
            let message = format!("volume type {}: write \"volume\", \"bind\" or \"tmpfs\"", quoted(other));
            findings.problem(kind.place, message);
            return None;
        }
    };
    Some(Mount { target, read_only, source })
}

/// `/target[:size=64m]`.
fn tmpfs(findings: &mut Findings<'_>, text: &Located<String>) -> Option<Mount> {
    let (target, options) = text.value.split_once(':').unwrap_or((text.value.as_str(), ""));
    let mut bytes = 0;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=').map(|(key, value)| (key, measure::bytes(value))) {
            Some(("size", Some(size))) => bytes = size,
            Some(("size", None)) => {
                let message = format!("tmpfs {}: write {}", quoted(option), measure::BYTES_FORM);
                findings.problem(text.place.clone(), message);
            }
            _ => {
                let message = format!("tmpfs option {} is not supported: only \"size=\" is", quoted(option));
                findings.problem(text.place.clone(), message);
            }
        }
    }
    let target = target_path(findings, &text.place, target)?;
    Some(Mount { target, read_only: false, source: MountSource::Tmpfs(bytes) })
}

pub(super) fn target_path(findings: &mut Findings<'_>, place: &Place, target: &str) -> Option<String> {
    let normal = if target.len() > 1 { target.trim_end_matches('/') } else { target };
    if is_container_path(normal) && normal != "/" {
        return Some(normal.to_owned());
    }
    let message = format!("target {}: write an absolute path beneath \"/\", without \"..\"", quoted(target));
    findings.problem(place.clone(), message);
    None
}

fn volume(
    findings: &mut Findings<'_>,
    declared: &BTreeSet<String>,
    place: &Place,
    name: &str,
) -> Option<MountSource> {
    if declared.contains(name) {
        return Some(MountSource::Volume(name.to_owned()));
    }
    let mut message = format!("volume {} is not declared under the top's \"volumes\"", quoted(name));
    let known: Vec<&str> = declared.iter().map(String::as_str).collect();
    if name.contains('/') {
        message
            .push_str(&format!("; a folder of the repository is written {}", quoted(&format!("./{name}"))));
    } else if let Some(near) = nearest(name, &known) {
        message.push_str(&format!(", did you mean {near:?}?"));
    }
    findings.problem(place.clone(), message);
    None
}

pub(super) fn bind(
    findings: &mut Findings<'_>,
    folder: &RepoPath,
    place: &Place,
    written: &str,
) -> Option<MountSource> {
    match folder.join(written) {
        Ok(value) => Some(MountSource::Bind(Located { value, place: place.clone() })),
        Err(error) => {
            findings.problem(place.clone(), format!("bind {} {error}", quoted(written)));
            None
        }
    }
}
