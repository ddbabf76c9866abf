//! The crates know whom `docs/architecture.md` lets them know, and nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use andon_tests::ok;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Which of our crates a crate may depend on.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("andon-proto", &[]),
    ("andon-core", &[]),
    ("andon-coordinator", &["andon-core", "andon-figures", "andon-proto"]),
    ("andon-figures", &[]),
    ("andon-rewind", &[]),
    ("andon-snapshot", &[]),
    ("andon-worker", &["andon-proto", "andon-rewind", "andon-snapshot"]),
    ("andon", &["andon-coordinator", "andon-figures", "andon-proto", "andon-worker"]),
    ("andon-tests", &["andon", "andon-coordinator", "andon-proto", "andon-worker"]),
];

/// Libraries that belong to one place: whoever else wants them has the wrong idea.
const BELONGS_TO: &[(&str, &[&str])] = &[
    ("bollard", &["andon-worker"]),
    ("git2", &["andon"]),
    ("sqlx", &["andon-coordinator"]),
    ("askama", &["andon-coordinator"]),
    ("tokio", &["andon-coordinator", "andon-worker", "andon", "andon-tests"]),
    ("tonic", &["andon-proto", "andon-coordinator", "andon-worker", "andon", "andon-tests"]),
    ("clap", &["andon"]),
];

/// What may never be in the house, however deep.
const BANNED: &[&str] = &["ring", "openssl-sys", "serde_yaml", "rusqlite"];

fn metadata() -> Metadata {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).exec().expect("cargo metadata of this workspace")
}

fn dependencies(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let members = metadata.workspace_packages();
    let of = |package: &cargo_metadata::Package| {
        let shipped = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        shipped.map(|dependency| dependency.name.clone()).collect()
    };
    members.into_iter().map(|package| (package.name.to_string(), of(package))).collect()
}

#[test]
fn no_crate_knows_whom_it_must_not_know() {
    let dependencies = dependencies(&metadata());
    let ours: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    let listed: BTreeSet<&str> = MAY_KNOW.iter().map(|(name, _)| *name).collect();
    assert_eq!(ours, listed, "every crate of the workspace has its row");
    for (name, may_know) in MAY_KNOW {
        for known in dependencies[*name].iter().filter(|known| ours.contains(known.as_str())) {
            assert!(may_know.contains(&known.as_str()), "{name} must not depend on {known}");
        }
    }
}

#[test]
fn libraries_stay_where_they_belong() {
    let dependencies = dependencies(&metadata());
    for (library, places) in BELONGS_TO {
        for (name, known) in &dependencies {
            let allowed = !known.contains(*library) || places.contains(&name.as_str());
            assert!(allowed, "{library} belongs to {places:?}, not to {name}");
        }
    }
}

/// Everything that is built, on any target and with any feature. Not from the metadata: they also name what another crate
/// could switch on, and nobody does.
fn built() -> BTreeSet<String> {
    let tree = ["tree", "--workspace", "--all-features", "--target", "all", "--prefix", "none"];
    let mut cargo = Command::new(env!("CARGO"));
    let listed = ok(cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).args(tree));
    listed.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn nothing_banned_is_in_the_house() {
    let built = built();
    assert!(built.contains("tokio"), "a list without tokio is not ours");
    for banned in BANNED {
        assert!(!built.contains(*banned), "{banned} is in the dependency tree");
    }
}
