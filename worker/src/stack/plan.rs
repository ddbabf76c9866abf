//! From a specification and its images to containers: which trees a service has, and where they are mounted.
//!
//! Pure, but for looking at the bind sources. Must not know lanes or the pool: paths come in by a function.
//!
//! Invariants: every volume of a service (named, anonymous, declared by its image) is a tree; a bind never leaves the source.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use andon_proto::mount::Source;
use andon_proto::{Argv, Service, Stack};
use thiserror::Error;

use super::health::Probe;
use super::order::{Order, OrderRefused};
use super::sandbox::{Sandbox, joins};
use crate::engine::{Bind, ContainerSpec, ImageInfo, Limits, NetworkMode, Privileges, Propagation, Tmpfs};
use crate::hands::ResolvedImage;

/// How long a service has to stop where the stack does not say; compose's default.
const STOP_GRACE_DEFAULT: Duration = Duration::from_secs(10);
/// Processes and threads of a service that does not say.
const PIDS_DEFAULT: u64 = 8192;
/// The longest it may ask for.
const STOP_GRACE_MAX: Duration = Duration::from_secs(600);

/// A stack that cannot be planned.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum PlanRefused {
    /// No order.
    #[error(transparent)]
    Order(#[from] OrderRefused),
    /// A bind of something outside.
    #[error("service `{service}` mounts `{path}`, which is not in the source tree: {why}")]
    Bind {
        /// Who.
        service: String,
        /// Beneath the source's root.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Options have no place.
    #[error(
        "service `{0}` is started by a line of shell, to which no options can be added: write its command as a list, \
         or take it out of `quick`"
    )]
    Options(String),
    /// Two services disagree.
    #[error("two services of the stack are called `{0}`")]
    Twice(String),
}

/// A tree mounted in a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeMount {
    /// `volume/<name>` or `anonymous/<service>/<target>`.
    pub tree: String,
    /// Absolute, in the container.
    pub target: String,
    /// Not writable from within.
    pub read_only: bool,
}

/// One service, ready to be made.
#[derive(Debug, Clone)]
pub struct ServicePlan {
    /// Its compose name.
    pub name: String,
    /// What it runs.
    pub image: ResolvedImage,
    /// Volumes.
    pub trees: Vec<TreeMount>,
    /// The tree of its container layer.
    pub layer: String,
    /// How its health is found out.
    pub probe: Option<Probe>,
    /// It is expected to end by itself.
    pub completes: bool,
    /// `SIGTERM`, or what service or image say.
    pub stop_signal: String,
    /// How long it may take to stop.
    pub stop_grace: Duration,
    /// As in the specification.
    pub service: Service,
}

/// A whole stack.
#[derive(Debug, Clone)]
pub struct StackPlan {
    /// In the specification's order.
    pub services: Vec<ServicePlan>,
    /// Who waits for whom.
    pub order: Order,
}

/// Where a stack is put up.
#[derive(Debug, Clone)]
pub struct Site<'a> {
    /// Before each container's name.
    pub prefix: &'a str,
    /// The network's name.
    pub network: &'a str,
    /// On every container.
    pub labels: &'a BTreeMap<String, String>,
    /// The source for mounts that are read-only.
    pub source: &'a Path,
    /// A copy of the source for mounts that may be written; the same as `source` where no service has such.
    pub writable_source: &'a Path,
    /// Whether services answer to their fronts, too.
    pub fronted: bool,
}

impl StackPlan {
    /// `images` in the order of the services.
    pub fn new(stack: &Stack, images: &[(ResolvedImage, ImageInfo)]) -> Result<Self, PlanRefused> {
        let order = Order::new(&stack.services)?;
        let mut services: Vec<ServicePlan> = Vec::with_capacity(stack.services.len());
        for (place, (service, (image, info))) in stack.services.iter().zip(images).enumerate() {
            if services.iter().any(|other| other.name == service.name) {
                return Err(PlanRefused::Twice(service.name.clone()));
            }
            services.push(ServicePlan::new(service, image, info, order.completes(place))?);
        }
        Ok(Self { services, order })
    }

    /// Every tree of volumes with the first service, in starting order, that mounts it: its image fills the tree.
    #[must_use]
    pub fn volume_trees(&self) -> BTreeMap<String, (usize, TreeMount)> {
        let mut trees = BTreeMap::new();
        for place in self.order.sequence() {
            for mount in &self.services[*place].trees {
                trees.entry(mount.tree.clone()).or_insert_with(|| (*place, mount.clone()));
            }
        }
        trees
    }

    /// Whether every service joins a sandbox, so that a unit may be led from one stand to another.
    #[must_use]
    pub fn is_sandboxed(&self) -> bool {
        self.services.len() < super::front::FRONTS_MAX
            && self.services.iter().all(|plan| joins(&plan.service))
    }

    /// Whether a service mounts a part of the source.
    #[must_use]
    pub fn binds_source(&self) -> bool {
        self.binds().next().is_some()
    }

    /// Whether a service may write into the source that it mounts.
    #[must_use]
    pub fn writes_source(&self) -> bool {
        self.binds().any(|mount| !mount.read_only)
    }

    fn binds(&self) -> impl Iterator<Item = &andon_proto::Mount> {
        let mounts = self.services.iter().flat_map(|plan| &plan.service.mounts);
        mounts.filter(|mount| matches!(mount.source, Some(Source::Bind(_))))
    }
}

impl ServicePlan {
    /// Where it has file systems in memory.
    pub(crate) fn in_memory(&self) -> impl Iterator<Item = &str> {
        let mounts = self.service.mounts.iter();
        mounts
            .filter(|mount| matches!(mount.source, Some(Source::TmpfsBytes(_))))
            .map(|mount| mount.target.as_str())
    }

    fn new(
        service: &Service,
        image: &ResolvedImage,
        info: &ImageInfo,
        completes: bool,
    ) -> Result<Self, PlanRefused> {
        let service = &with_options(service, info)?;
        let mut trees = Vec::new();
        for mount in &service.mounts {
            let target = tidy(&mount.target);
            let tree = match &mount.source {
                Some(Source::Volume(name)) => format!("volume/{name}"),
                Some(Source::Anonymous(_)) => anonymous(&service.name, &target),
                _ => continue,
            };
            trees.push(TreeMount { tree, target, read_only: mount.read_only });
        }
        let mounted: Vec<String> = service.mounts.iter().map(|mount| tidy(&mount.target)).collect();
        for declared in &info.volumes {
            let target = tidy(declared);
            if !mounted.contains(&target) {
                let tree = anonymous(&service.name, &target);
                trees.push(TreeMount { tree, target, read_only: false });
            }
        }
        let stop_signal = [service.stop_signal.as_str(), info.stop_signal.as_str(), "SIGTERM"]
            .into_iter()
            .find(|signal| !signal.is_empty())
            .unwrap_or_default();
        let stop_grace = match service.stop_grace_ms {
            0 => STOP_GRACE_DEFAULT,
            ms => Duration::from_millis(ms).min(STOP_GRACE_MAX),
        };
        Ok(Self {
            name: service.name.clone(),
            image: image.clone(),
            trees,
            layer: format!("layer/{}", service.name),
            probe: Probe::of(service.healthcheck.as_ref(), info.healthcheck.as_ref()),
            completes,
            stop_signal: stop_signal.to_owned(),
            stop_grace,
            service: service.clone(),
        })
    }

    /// Where others on the site's network find it, and what it calls itself.
    #[must_use]
    pub fn address(&self, site: &Site<'_>) -> (NetworkMode, String) {
        let mut aliases = vec![self.service.name.clone()];
        aliases.extend(self.service.aliases.iter().cloned());
        // Stable over lanes and rebases: databases write it into their files.
        let hostname =
            if self.service.hostname.is_empty() { &self.service.name } else { &self.service.hostname };
        (NetworkMode::Named { network: site.network.to_owned(), aliases }, hostname.clone())
    }

    /// The container, with each tree at the path that `path_of` gives, in a sandbox that has its address where one is given.
    pub fn container<E: From<PlanRefused>>(
        &self,
        site: &Site<'_>,
        sandbox: Option<&Sandbox>,
        path_of: &dyn Fn(&str) -> Result<PathBuf, E>,
    ) -> Result<ContainerSpec, E> {
        let service = &self.service;
        let mut binds = Vec::new();
        for mount in &self.trees {
            binds.push(bind(path_of(&mount.tree)?, &mount.target, mount.read_only));
        }
        let mut tmpfs = Vec::new();
        for mount in &service.mounts {
            match &mount.source {
                Some(Source::Bind(path)) => {
                    let root = if mount.read_only { site.source } else { site.writable_source };
                    let source = self.beneath(root, path)?;
                    binds.push(bind(source, &tidy(&mount.target), mount.read_only));
                }
                Some(Source::TmpfsBytes(bytes)) => {
                    tmpfs.push(Tmpfs { target: tidy(&mount.target), bytes: *bytes });
                }
                _ => {}
            }
        }
        let (network, hostname) = match sandbox {
            // The sandbox's is its own, and engines refuse a second one.
            Some(sandbox) => (sandbox.joined(), String::new()),
            None => self.address(site),
        };
        Ok(ContainerSpec {
            name: format!("{}-{}", site.prefix, service.name),
            image: self.image.id.clone(),
            entrypoint: argv(service.entrypoint.as_ref()),
            command: argv(service.command.as_ref()),
            env: service.environment.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect(),
            labels: labels(service, site.labels),
            binds,
            tmpfs,
            network,
            hostname,
            user: service.user.clone(),
            working_dir: service.working_dir.clone(),
            stop_signal: service.stop_signal.clone(),
            shm_bytes: service.shm_bytes,
            limits: Limits::of(service.limits.as_ref(), PIDS_DEFAULT),
            init: service.init,
            sysctls: service.sysctls.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect(),
            read_only: service.read_only,
            tty: service.tty,
            privileges: Privileges { cap_add: service.cap_add.clone(), ..Privileges::default() },
            engine_healthcheck: false,
            ..ContainerSpec::default()
        })
    }

    /// A path of the source as it really is. Links that lead out are refused: the daemon would follow them.
    fn beneath(&self, root: &Path, path: &str) -> Result<PathBuf, PlanRefused> {
        let refuse =
            |why: String| PlanRefused::Bind { service: self.name.clone(), path: path.to_owned(), why };
        let root = root.canonicalize().map_err(|error| refuse(error.to_string()))?;
        let found = root.join(path).canonicalize().map_err(|error| refuse(error.to_string()))?;
        if found.starts_with(&root) {
            Ok(found)
        } else {
            Err(refuse("it leads out of the source".to_owned()))
        }
    }
}

/// The service with its options in its command.
fn with_options(service: &Service, info: &ImageInfo) -> Result<Service, PlanRefused> {
    let mut service = service.clone();
    if service.options.is_empty() {
        return Ok(service);
    }
    // An entrypoint of the service's own takes the image's command away.
    let of_image = if service.entrypoint.is_some() { &[] } else { info.command.as_slice() };
    let mut words = service.command.take().map_or_else(|| of_image.to_vec(), |command| command.words);
    let entrypoint = service.entrypoint.as_ref().map_or(&info.entrypoint, |entrypoint| &entrypoint.words);
    let is_shell =
        |words: &[String]| matches!(words, [shell, flag, ..] if shell.ends_with("sh") && flag == "-c");
    if is_shell(&words) || is_shell(entrypoint) {
        return Err(PlanRefused::Options(service.name));
    }
    words.append(&mut service.options);
    service.command = Some(Argv { words });
    Ok(service)
}

fn bind(source: PathBuf, target: &str, read_only: bool) -> Bind {
    Bind { source, target: target.to_owned(), read_only, propagation: Propagation::Private }
}

fn labels(service: &Service, lane: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let own = service.labels.iter().map(|pair| (pair.key.clone(), pair.value.clone()));
    own.chain(lane.iter().map(|(key, value)| (key.clone(), value.clone()))).collect()
}

fn argv(given: Option<&Argv>) -> Option<Vec<String>> {
    given.map(|argv| argv.words.clone())
}

fn anonymous(service: &str, target: &str) -> String {
    format!("anonymous/{service}/{}", target.trim_start_matches('/'))
}

/// A container path without doubled or trailing slashes.
fn tidy(target: &str) -> String {
    let parts: Vec<&str> = target.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_proto::Mount;

    fn image() -> ResolvedImage {
        ResolvedImage { id: "sha256:1".into(), reference: "db:1".into(), build_key: String::new() }
    }

    fn mount(target: &str, source: Source, read_only: bool) -> Mount {
        Mount { target: target.into(), read_only, source: Some(source) }
    }

    fn plan(mounts: Vec<Mount>, volumes: &[&str]) -> StackPlan {
        let service = Service { name: "db".into(), mounts, ..Service::default() };
        let info =
            ImageInfo { volumes: volumes.iter().map(|v| (*v).to_owned()).collect(), ..ImageInfo::default() };
        StackPlan::new(&Stack { services: vec![service], ..Stack::default() }, &[(image(), info)]).unwrap()
    }

    fn made(plan: &StackPlan, source: &Path) -> Result<ContainerSpec, PlanRefused> {
        let labels = BTreeMap::from([("dev.andon.lane".to_owned(), "0".to_owned())]);
        let site = Site {
            prefix: "andon-lane0",
            network: "net",
            labels: &labels,
            source,
            writable_source: source,
            fronted: false,
        };
        plan.services[0].container(&site, None, &|tree| Ok(PathBuf::from("/pool").join(tree)))
    }

    #[test]
    fn volumes_of_every_kind_are_trees_and_none_is_taken_twice() {
        let plan = plan(
            vec![
                mount("/var/lib/mysql/", Source::Volume("data".into()), false),
                mount("/cache", Source::Anonymous(true), true),
                mount("/tmp", Source::TmpfsBytes(9), false),
            ],
            &["/var/lib/mysql", "/logs", "/tmp"],
        );
        let trees: Vec<&str> = plan.services[0].trees.iter().map(|mount| mount.tree.as_str()).collect();
        assert_eq!(trees, ["volume/data", "anonymous/db/cache", "anonymous/db/logs"]);
        let spec = made(&plan, Path::new("/")).unwrap();
        assert_eq!(spec.binds[0].source, Path::new("/pool/volume/data"));
        assert_eq!((spec.binds[0].target.as_str(), spec.binds[1].read_only), ("/var/lib/mysql", true));
        assert_eq!(spec.tmpfs, [Tmpfs { target: "/tmp".into(), bytes: 9 }]);
        assert!(spec.volumes.is_empty());
    }

    #[test]
    fn a_container_is_found_by_its_compose_name_and_its_label() {
        let spec = made(&plan(Vec::new(), &[]), Path::new("/")).unwrap();
        assert_eq!((spec.name.as_str(), spec.hostname.as_str()), ("andon-lane0-db", "db"));
        assert_eq!(spec.network, NetworkMode::Named { network: "net".into(), aliases: vec!["db".into()] });
        assert_eq!(spec.labels["dev.andon.lane"], "0");
        assert!(!spec.engine_healthcheck);
    }

    #[test]
    fn options_go_to_the_end_of_the_command_whoever_gives_it() {
        let info = ImageInfo {
            entrypoint: vec!["docker-entrypoint.sh".into()],
            command: vec!["mysqld".into()],
            ..ImageInfo::default()
        };
        let words = |service: Service, info: &ImageInfo| {
            let service = Service { options: vec!["--skip-log-bin".into()], ..service };
            with_options(&service, info).map(|service| service.command.unwrap().words)
        };
        let argv =
            |words: &[&str]| Some(Argv { words: words.iter().map(|word| (*word).to_owned()).collect() });
        assert_eq!(words(Service::default(), &info).unwrap(), ["mysqld", "--skip-log-bin"]);
        let own = Service { command: argv(&["--character-set-server=utf8mb4"]), ..Service::default() };
        assert_eq!(words(own, &info).unwrap(), ["--character-set-server=utf8mb4", "--skip-log-bin"]);
        let entered = Service { entrypoint: argv(&["mysqld"]), ..Service::default() };
        assert_eq!(words(entered, &info).unwrap(), ["--skip-log-bin"]);
        let shell = Service {
            command: argv(&["/bin/sh", "-c", "exec mysqld"]),
            name: "db".into(),
            ..Service::default()
        };
        assert_eq!(words(shell, &info), Err(PlanRefused::Options("db".into())));
        assert_eq!(
            with_options(&Service::default(), &info),
            Ok(Service::default()),
            "without options nothing changes"
        );
    }

    #[test]
    fn a_bind_that_leaves_the_source_is_refused_also_by_a_link() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("my.cnf"), "").unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("conf")).unwrap();
        let bound =
            |path: &str| made(&plan(vec![mount("/x", Source::Bind(path.into()), true)], &[]), dir.path());
        assert!(bound("my.cnf").unwrap().binds[0].source.ends_with("my.cnf"));
        for outside in ["conf", "../..", "/etc", "absent"] {
            assert!(matches!(bound(outside), Err(PlanRefused::Bind { .. })), "{outside}");
        }
    }

    #[test]
    fn only_a_writable_bind_asks_for_a_copy_of_the_source() {
        assert!(!plan(vec![mount("/x", Source::Bind(".".into()), true)], &[]).writes_source());
        assert!(plan(vec![mount("/x", Source::Bind(".".into()), false)], &[]).writes_source());
    }
}
