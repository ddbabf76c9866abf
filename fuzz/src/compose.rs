//! Compose files: what is taken is in bounds, whatever aliases it is made of, and its services can be started in some order; what is
//! refused is refused with places.

use std::collections::BTreeSet;

use andon::config::compose::{Compose, MountSource, SERVICES_MAX, parse};
use andon::config::{Image, RepoPath, is_name};

use crate::andon_toml::beneath;
use crate::said;

/// See the module.
pub fn check(input: &[u8]) {
    let file = RepoPath::root().join("deploy/compose.yaml").expect("a plain path");
    match parse(&file, input) {
        Ok((compose, notes)) => {
            said::notes(&notes, input);
            in_bounds(&compose);
            startable(&compose);
            said::bounded(format!("{compose:?}").len(), input, 64, 16 << 20);
        }
        Err(errors) => said::problems(&errors, input),
    }
}

fn in_bounds(compose: &Compose) {
    assert!((1..=SERVICES_MAX).contains(&compose.services.len()));
    let names: BTreeSet<&str> = compose.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names.len(), compose.services.len(), "two services of one name");
    for service in &compose.services {
        assert!(is_name(&service.name), "{:?}", service.name);
        if let Image::Build(build) = &service.image.value {
            [&build.context, &build.dockerfile].into_iter().for_each(beneath);
        }
        for mount in &service.mounts {
            assert!(mount.target.starts_with('/'), "{:?}", mount.target);
            match &mount.source {
                MountSource::Bind(path) => beneath(&path.value),
                MountSource::Volume(name) => {
                    assert!(compose.volumes.contains(name), "{name:?} is not declared")
                }
                MountSource::Tmpfs(_) | MountSource::Anonymous => {}
            }
        }
    }
}

/// Each service waits for others alone, and there is always one that waits for none of those that are left.
fn startable(compose: &Compose) {
    let mut started = BTreeSet::new();
    while started.len() < compose.services.len() {
        let before = started.len();
        for service in &compose.services {
            if service.depends_on.iter().all(|on| started.contains(on.service.as_str())) {
                started.insert(service.name.as_str());
            }
        }
        assert!(started.len() > before, "nothing of what is left can start: {:?}", compose.services);
    }
}
