//! `secrets` and `configs`: files of the repository that services find at a place of their own, read-only.
//!
//! Compose knows them as two things; to a test stack both are a file that is part of the commit.

use std::collections::BTreeMap;

use super::super::problem::{Findings, Located, nearest, quoted};
use super::super::{NAME_FORM, RepoPath, is_name};
use super::fields::{self, Fields};
use super::volumes::{bind, target_path};
use super::yaml::{Entry, Value};
use super::{Mount, MountSource};

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Secret,
    Config,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Secret, Self::Config];

    fn key(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::Config => "configs",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }

    /// Where one is mounted that names no target, or a mere name.
    fn place(self, name: &str) -> String {
        match self {
            Self::Secret => format!("/run/secrets/{name}"),
            Self::Config => format!("/{name}"),
        }
    }
}

const FILE_ONLY: &str =
    "only a \"file\" of the repository is taken: a run does not depend on where it was asked for";
const AS_COMMITTED: &str = "the file has the owner and mode that it has in the commit";

/// What the top of the file declares, by kind and name.
#[derive(Debug, Default)]
pub(crate) struct Grants(BTreeMap<(&'static str, String), Option<Located<RepoPath>>>);

impl Grants {
    /// Reads both tables of the file's top.
    pub(crate) fn declared(findings: &mut Findings<'_>, folder: &RepoPath, top: &mut Fields<'_>) -> Self {
        let mut grants = Self::default();
        for kind in Kind::ALL {
            let Some(entry) = top.entry(kind.key()) else { continue };
            let Value::Map(entries) = &entry.value.value else {
                let message = format!("{:?} must be a map, not {}", kind.key(), entry.value.kind());
                findings.problem(entry.value.place.clone(), message);
                continue;
            };
            for entry in entries {
                let file = one(findings, folder, kind, entry);
                grants.0.insert((kind.key(), entry.key.clone()), file);
            }
        }
        grants
    }

    /// What a service is granted of them.
    pub(crate) fn of(&self, findings: &mut Findings<'_>, service: &mut Fields<'_>) -> Vec<Located<Mount>> {
        let mut mounts = Vec::new();
        for kind in Kind::ALL {
            let Some(entry) = service.entry(kind.key()) else { continue };
            for item in fields::items(findings, kind.key(), &entry.value).unwrap_or_default() {
                let (source, target) = match &item.value {
                    Value::Map(_) => long(findings, kind, item),
                    _ => (fields::text(findings, kind.key(), item), None),
                };
                let Some(source) = source else { continue };
                let target = match target {
                    Some(target) if target.value.starts_with('/') => target.value,
                    Some(target) => kind.place(&target.value),
                    None => kind.place(&source.value),
                };
                let Some(file) = self.file(findings, kind, &source) else { continue };
                if let Some(target) = target_path(findings, &source.place, &target) {
                    let value = Mount { target, read_only: true, source: MountSource::Bind(file) };
                    mounts.push(Located { value, place: item.place.clone() });
                }
            }
        }
        mounts
    }

    fn file(
        &self,
        findings: &mut Findings<'_>,
        kind: Kind,
        name: &Located<String>,
    ) -> Option<Located<RepoPath>> {
        if let Some(found) = self.0.get(&(kind.key(), name.value.clone())) {
            // Where it is `None` the declaration has its own problem.
            return found.clone();
        }
        let (word, key) = (kind.word(), kind.key());
        let mut message = format!("{word} {} is not declared under the top's {key:?}", quoted(&name.value));
        let known: Vec<&str> =
            self.0.keys().filter(|(of, _)| *of == key).map(|(_, name)| name.as_str()).collect();
        if let Some(near) = nearest(&name.value, &known) {
            message.push_str(&format!(", did you mean {near:?}?"));
        }
        findings.problem(name.place.clone(), message);
        None
    }
}

fn one(
    findings: &mut Findings<'_>,
    folder: &RepoPath,
    kind: Kind,
    entry: &Entry,
) -> Option<Located<RepoPath>> {
    let word = kind.word();
    if !is_name(&entry.key) {
        let message = format!("{} is no name for a {word}: {NAME_FORM}", quoted(&entry.key));
        findings.problem(entry.place.clone(), message);
    }
    let mut fields = Fields::of(findings, format!("{word} {}", quoted(&entry.key)), &entry.value);
    let file = fields.text(findings, "file");
    let before = findings.problems.len();
    let others =
        ["environment", "content", "external", "name", "template_driver"].map(|key| (key, FILE_ONLY));
    fields.finish(findings, &others);
    let Some(file) = file else {
        if findings.problems.len() == before {
            let message = format!("{word} {} has no \"file\"", quoted(&entry.key));
            findings.problem(entry.place.clone(), message);
        }
        return None;
    };
    match bind(findings, folder, &file.place, &file.value)? {
        MountSource::Bind(path) => Some(path),
        _ => None,
    }
}

type Named = (Option<Located<String>>, Option<Located<String>>);

/// The map form: source and target.
fn long(findings: &mut Findings<'_>, kind: Kind, node: &super::yaml::Node) -> Named {
    let mut fields = Fields::of(findings, format!("a {}", kind.word()), node);
    let (source, target) = (fields.text(findings, "source"), fields.text(findings, "target"));
    fields.finish(findings, &["uid", "gid", "mode"].map(|key| (key, AS_COMMITTED)));
    if source.is_none() {
        findings.problem(node.place.clone(), format!("a {} needs a \"source\"", kind.word()));
    }
    (source, target)
}
