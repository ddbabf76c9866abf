//! What a configuration names must be in the commit: compose file, build folders, Dockerfiles, binds, inputs.

use globset::{GlobSet, GlobSetBuilder};

use crate::config::compose::{Compose, MountSource};
use crate::config::{Config, Image, Located, Note, Problem, RepoPath, input_glob, quoted};
use crate::git::{GitError, Kind, Snapshot};

/// Checks everything that is named.
pub(super) fn commit(
    snapshot: &Snapshot<'_>,
    config: &Config,
    compose: Option<&Compose>,
    problems: &mut Vec<Problem>,
    notes: &mut Vec<Note>,
) -> Result<(), GitError> {
    for suite in &config.suites {
        image(snapshot, &suite.image, problems);
    }
    let services = compose.map(|compose| compose.services.as_slice()).unwrap_or_default();
    if compose.is_some() {
        let quick = config.quick.iter().map(|(name, _)| ("quick", name));
        let proofs = config.baseline.proofs.iter().map(|proof| ("proof", &proof.service));
        for (key, name) in quick.chain(proofs) {
            if !services.iter().any(|service| service.name == name.value) {
                let message = format!("{key}: the compose file has no service {}", quoted(&name.value));
                problems.push(Problem { place: name.place.clone(), message });
            }
        }
    }
    for service in services {
        image(snapshot, &service.image, problems);
        for mount in &service.mounts {
            if let MountSource::Bind(bind) = &mount.source {
                exists(snapshot, bind, problems);
            }
        }
    }
    for input in config.baseline.inputs() {
        let Ok(glob) = input_glob(&input.value) else { continue };
        let matcher = glob.compile_matcher();
        if !snapshot.entries().any(|(path, entry)| entry.kind != Kind::Folder && matcher.is_match(path)) {
            let message = format!("input {} names no file of this commit", quoted(&input.value));
            notes.push(Note { place: Some(input.place.clone()), message });
        }
    }
    Ok(())
}

/// Matches the paths that the globs name.
pub(super) fn named_paths<'a>(inputs: impl Iterator<Item = &'a Located<String>>) -> GlobSet {
    let mut globs = GlobSetBuilder::new();
    for input in inputs {
        if let Ok(glob) = input_glob(&input.value) {
            globs.add(glob);
        }
    }
    globs.build().unwrap_or_default()
}

/// Which paths are bound into a service.
pub(super) fn bound_paths(compose: Option<&Compose>) -> impl Fn(&str) -> bool + use<> {
    let binds: Vec<RepoPath> = compose
        .iter()
        .flat_map(|compose| &compose.services)
        .flat_map(|service| &service.mounts)
        .filter_map(|mount| match &mount.source {
            MountSource::Bind(bind) => Some(bind.value.clone()),
            _ => None,
        })
        .collect();
    move |path| binds.iter().any(|bind| bind.holds(path))
}

/// A file that should be there.
pub(super) fn no_file(snapshot: &Snapshot<'_>, key: &str, path: &Located<RepoPath>) -> Problem {
    let shown = quoted(path.value.as_str());
    let message = match snapshot.kind(path.value.as_str()) {
        None => format!("{key:?}: there is no {shown} in this commit"),
        Some(Kind::Folder) => format!("{key:?}: {shown} is a folder, not a file"),
        Some(_) => format!("{key:?}: {shown} is a symlink, which is not followed"),
    };
    Problem { place: path.place.clone(), message }
}

fn exists(snapshot: &Snapshot<'_>, path: &Located<RepoPath>, problems: &mut Vec<Problem>) {
    let shown = quoted(path.value.as_str());
    let message = match snapshot.kind(path.value.as_str()) {
        None => format!("bind: there is no {shown} in this commit"),
        Some(Kind::Symlink) => format!("bind: {shown} is a symlink, which is not followed"),
        Some(_) => return,
    };
    problems.push(Problem { place: path.place.clone(), message });
}

fn image(snapshot: &Snapshot<'_>, image: &Located<Image>, problems: &mut Vec<Problem>) {
    let Image::Build(build) = &image.value else { return };
    let context = build.context.as_str();
    if snapshot.kind(context) != Some(Kind::Folder) {
        let message = format!("build: there is no folder {} in this commit", quoted(context));
        problems.push(Problem { place: image.place.clone(), message });
        return;
    }
    let Ok(dockerfile) = build.context.join(build.dockerfile.as_str()) else { return };
    if !matches!(snapshot.kind(dockerfile.as_str()), Some(Kind::File { .. })) {
        let message = format!("build: there is no file {} in this commit", quoted(dockerfile.as_str()));
        problems.push(Problem { place: image.place.clone(), message });
    }
}
