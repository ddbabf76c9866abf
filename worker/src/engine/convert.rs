//! Between the client library's shapes and ours.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum,
    ContainerSummary as ListedContainer, ContainerSummaryStateEnum, EndpointSettings, HealthConfig,
    HostConfig, HostConfigCgroupnsModeEnum, ImageInspect, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountTmpfsOptions, MountType, Network, NetworkingConfig, SystemInfo,
    SystemVersion,
};
use bollard::query_parameters::{BuildImageOptions, BuildImageOptionsBuilder};

use super::error::EngineError;
use super::types::{
    Bind, BuildSpec, ContainerSpec, ContainerState, ContainerSummary, EngineVersion, ImageHealthcheck,
    ImageInfo, MountPoint, NetworkMode, NetworkSummary, Propagation, Status, Tmpfs, VolumeMount,
};

/// `docker run --security-opt systempaths=unconfined` is the command line's own word for two empty lists.
const SYSTEMPATHS_UNCONFINED: &str = "systempaths=unconfined";

/// Length of the period that CPU limits are counted in, in billionths of a processor per thousandth.
const NANO_CPUS_PER_MILLI: u64 = 1_000_000;
/// What asks a container to end where neither it nor its image says otherwise.
const STOP_SIGNAL_DEFAULT: &str = "SIGTERM";

pub(super) fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn positive(number: u64) -> Option<i64> {
    (number > 0).then(|| i64::try_from(number).unwrap_or(i64::MAX))
}

pub(super) fn join_env(env: &[(String, String)]) -> Vec<String> {
    env.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// `registry:5000/name:tag` into name and tag; the tag is `latest` where none is given.
pub(super) fn split_tag(reference: &str) -> (&str, &str) {
    match reference.rsplit_once(':') {
        // A colon before a slash belongs to the registry's port.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (reference, "latest"),
    }
}

/// `Loaded image: name:tag` and `Loaded image ID: sha256:…`.
pub(super) fn loaded_reference(line: &str) -> Option<String> {
    let reference = line.trim().strip_prefix("Loaded image")?;
    let reference = reference.strip_prefix(" ID").unwrap_or(reference);
    Some(reference.strip_prefix(':')?.trim().to_owned())
}

pub(super) fn version(version: SystemVersion, info: SystemInfo) -> EngineVersion {
    EngineVersion {
        version: version.version.unwrap_or_default(),
        api_version: version.api_version.unwrap_or_default(),
        storage_driver: info.driver.unwrap_or_default(),
        root_dir: info.docker_root_dir.unwrap_or_default(),
        cgroup_version: info.cgroup_version.map(|version| version.to_string()).unwrap_or_default(),
    }
}

fn nanoseconds(number: Option<i64>) -> Duration {
    Duration::from_nanos(number.and_then(|n| n.try_into().ok()).unwrap_or(0))
}

fn healthcheck(config: HealthConfig) -> Option<ImageHealthcheck> {
    Some(ImageHealthcheck {
        test: config.test.filter(|test| !test.is_empty())?,
        interval: nanoseconds(config.interval),
        timeout: nanoseconds(config.timeout),
        retries: config.retries.and_then(|n| n.try_into().ok()).unwrap_or(0),
        start_period: nanoseconds(config.start_period),
    })
}

fn split_env(lines: Vec<String>) -> Vec<(String, String)> {
    let split = |line: String| match line.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (line, String::new()),
    };
    lines.into_iter().map(split).collect()
}

fn labels(map: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    map.unwrap_or_default().into_iter().collect()
}

pub(super) fn image(what: &str, image: ImageInspect) -> Result<ImageInfo, EngineError> {
    let config = image.config.unwrap_or_default();
    let id = image.id.ok_or_else(|| missing(what, "id"))?;
    let mut volumes = config.volumes.unwrap_or_default();
    volumes.sort();
    Ok(ImageInfo {
        id,
        volumes,
        entrypoint: config.entrypoint.unwrap_or_default(),
        command: config.cmd.unwrap_or_default(),
        env: split_env(config.env.unwrap_or_default()),
        working_dir: config.working_dir.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        stop_signal: config.stop_signal.unwrap_or_default(),
        healthcheck: config.healthcheck.and_then(healthcheck),
        labels: labels(config.labels),
        repo_digests: image.repo_digests.unwrap_or_default(),
        size_bytes: image.size.and_then(|size| size.try_into().ok()).unwrap_or(0),
    })
}

fn missing(what: &str, field: &str) -> EngineError {
    EngineError::Protocol { what: what.to_owned(), message: format!("the answer holds no {field}") }
}

pub(super) fn build_options(spec: &BuildSpec) -> BuildImageOptions {
    let args = spec.args.clone().into_iter().collect();
    let labels = spec.labels.clone().into_iter().collect();
    BuildImageOptionsBuilder::default()
        .dockerfile(&spec.dockerfile)
        .t(&spec.tag)
        .target(&spec.target)
        .buildargs(&args)
        .labels(&labels)
        .networkmode("host")
        .rm(true)
        .forcerm(true)
        .build()
}

pub(super) fn network(network: Network) -> NetworkSummary {
    NetworkSummary {
        id: network.id.unwrap_or_default(),
        name: network.name.unwrap_or_default(),
        labels: labels(network.labels),
    }
}

fn bind(bind: &Bind) -> Mount {
    let propagation = match bind.propagation {
        Propagation::Private => MountBindOptionsPropagationEnum::RPRIVATE,
        Propagation::Slave => MountBindOptionsPropagationEnum::RSLAVE,
    };
    Mount {
        typ: Some(MountType::BIND),
        source: Some(bind.source.to_string_lossy().into_owned()),
        target: Some(bind.target.clone()),
        read_only: Some(bind.read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(propagation),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

fn tmpfs(tmpfs: &Tmpfs) -> Mount {
    Mount {
        typ: Some(MountType::TMPFS),
        target: Some(tmpfs.target.clone()),
        tmpfs_options: Some(MountTmpfsOptions {
            size_bytes: positive(tmpfs.bytes),
            ..MountTmpfsOptions::default()
        }),
        ..Mount::default()
    }
}

fn volume(volume: &VolumeMount) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: volume.name.clone(),
        target: Some(volume.target.clone()),
        read_only: Some(volume.read_only),
        ..Mount::default()
    }
}

fn network_mode(mode: &NetworkMode) -> (String, Option<NetworkingConfig>) {
    match mode {
        NetworkMode::None => ("none".to_owned(), None),
        NetworkMode::Bridge => ("bridge".to_owned(), None),
        NetworkMode::Host => ("host".to_owned(), None),
        NetworkMode::Container(id) => (format!("container:{id}"), None),
        NetworkMode::Named { network, aliases } => {
            let endpoint = EndpointSettings { aliases: Some(aliases.clone()), ..EndpointSettings::default() };
            let endpoints = HashMap::from([(network.clone(), endpoint)]);
            (network.clone(), Some(NetworkingConfig { endpoints_config: Some(endpoints) }))
        }
    }
}

fn host_config(spec: &ContainerSpec, network_mode: String) -> HostConfig {
    let privileges = &spec.privileges;
    let (paths, security): (Vec<_>, Vec<_>) =
        privileges.security_opt.iter().cloned().partition(|option| option == SYSTEMPATHS_UNCONFINED);
    let open_paths = (!paths.is_empty()).then(Vec::new);
    let mounts = spec.binds.iter().map(bind);
    let mounts = mounts.chain(spec.tmpfs.iter().map(tmpfs)).chain(spec.volumes.iter().map(volume));
    let hosts = spec.extra_hosts.iter().map(|(name, address)| format!("{name}:{address}"));
    let cgroupns = privileges.private_cgroupns.then_some(HostConfigCgroupnsModeEnum::PRIVATE);
    HostConfig {
        network_mode: Some(network_mode),
        mounts: Some(mounts.collect()),
        extra_hosts: Some(hosts.collect()),
        memory: positive(spec.limits.memory_bytes),
        // Equal to the memory: no swap beside it.
        memory_swap: positive(spec.limits.memory_bytes),
        pids_limit: positive(spec.limits.pids),
        nano_cpus: positive(spec.limits.cpu_millis * NANO_CPUS_PER_MILLI),
        shm_size: positive(spec.shm_bytes),
        sysctls: Some(spec.sysctls.clone().into_iter().collect()),
        readonly_rootfs: Some(spec.read_only),
        init: Some(spec.init),
        privileged: Some(privileges.privileged),
        cap_add: Some(privileges.cap_add.clone()),
        cap_drop: Some(privileges.cap_drop.clone()),
        security_opt: Some(security),
        cgroupns_mode: cgroupns,
        device_cgroup_rules: Some(privileges.device_cgroup_rules.clone()),
        masked_paths: open_paths.clone(),
        readonly_paths: open_paths,
        ..HostConfig::default()
    }
}

/// A single empty word is the API's way to clear the image's entrypoint.
fn entrypoint(words: &[String]) -> Vec<String> {
    if words.is_empty() { vec![String::new()] } else { words.to_vec() }
}

pub(super) fn container_body(spec: &ContainerSpec) -> ContainerCreateBody {
    let (mode, networking_config) = network_mode(&spec.network);
    let no_healthcheck = || HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() };
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: spec.entrypoint.as_deref().map(entrypoint),
        cmd: spec.command.clone(),
        env: Some(join_env(&spec.env)),
        labels: Some(spec.labels.clone().into_iter().collect()),
        hostname: given(&spec.hostname),
        user: given(&spec.user),
        working_dir: given(&spec.working_dir),
        stop_signal: given(&spec.stop_signal),
        tty: Some(spec.tty),
        open_stdin: Some(spec.open_stdin),
        healthcheck: (!spec.engine_healthcheck).then(no_healthcheck),
        host_config: Some(host_config(spec, mode)),
        networking_config,
        ..ContainerCreateBody::default()
    }
}

fn status(status: ContainerStateStatusEnum) -> Option<Status> {
    Some(match status {
        ContainerStateStatusEnum::EMPTY => return None,
        ContainerStateStatusEnum::CREATED => Status::Created,
        ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::STOPPING => Status::Running,
        ContainerStateStatusEnum::PAUSED => Status::Paused,
        ContainerStateStatusEnum::RESTARTING => Status::Restarting,
        ContainerStateStatusEnum::REMOVING => Status::Removing,
        ContainerStateStatusEnum::EXITED => Status::Exited,
        ContainerStateStatusEnum::DEAD => Status::Dead,
    })
}

pub(super) fn container_state(
    what: &str,
    answer: ContainerInspectResponse,
) -> Result<ContainerState, EngineError> {
    let state = answer.state.ok_or_else(|| missing(what, "state"))?;
    let status = state.status.and_then(status).ok_or_else(|| missing(what, "status"))?;
    let upper_dir = answer.graph_driver.and_then(|mut driver| driver.data.remove("UpperDir"));
    let mut settings = answer.network_settings.unwrap_or_default();
    let networks = settings.networks.take().unwrap_or_default();
    let path = |text: Option<String>| text.filter(|text| !text.is_empty()).map(PathBuf::from);
    let network_files = [answer.hosts_path, answer.resolv_conf_path, answer.hostname_path];
    let address =
        |(name, endpoint): (String, EndpointSettings)| Some((name, endpoint.ip_address?.parse().ok()?));
    let mounts = answer.mounts.unwrap_or_default().into_iter().filter_map(|mount| {
        Some(MountPoint {
            volume: mount.name.filter(|name| !name.is_empty()),
            source: PathBuf::from(mount.source?),
            target: mount.destination?,
        })
    });
    let memory_limit = answer.host_config.and_then(|config| config.memory);
    let config = answer.config.unwrap_or_default();
    let stop_signal = config.stop_signal.filter(|signal| !signal.is_empty());
    let stop_signal = stop_signal.unwrap_or_else(|| STOP_SIGNAL_DEFAULT.to_owned());
    Ok(ContainerState {
        id: answer.id.ok_or_else(|| missing(what, "id"))?,
        name: answer.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        image_id: answer.image.unwrap_or_default(),
        status,
        exit_code: state.exit_code.unwrap_or(0),
        oom_killed: state.oom_killed.unwrap_or(false),
        memory_limit_bytes: memory_limit.and_then(|bytes| bytes.try_into().ok()).unwrap_or(0),
        error: state.error.unwrap_or_default(),
        pid: state.pid.and_then(|pid| pid.try_into().ok()).unwrap_or(0),
        stop_signal,
        upper_dir: upper_dir.map(PathBuf::from),
        network_files: network_files.into_iter().filter_map(path).collect(),
        network_namespace: path(settings.sandbox_key),
        addresses: networks.into_iter().filter_map(address).collect(),
        mounts: mounts.collect(),
        labels: labels(config.labels),
    })
}

fn summary_status(status: ContainerSummaryStateEnum) -> Status {
    match status {
        ContainerSummaryStateEnum::CREATED => Status::Created,
        ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::STOPPING => Status::Running,
        ContainerSummaryStateEnum::PAUSED => Status::Paused,
        ContainerSummaryStateEnum::RESTARTING => Status::Restarting,
        ContainerSummaryStateEnum::REMOVING => Status::Removing,
        ContainerSummaryStateEnum::EXITED => Status::Exited,
        ContainerSummaryStateEnum::EMPTY | ContainerSummaryStateEnum::DEAD => Status::Dead,
    }
}

pub(super) fn container_summary(container: ListedContainer) -> ContainerSummary {
    let name = container.names.unwrap_or_default().into_iter().next().unwrap_or_default();
    ContainerSummary {
        id: container.id.unwrap_or_default(),
        name: name.trim_start_matches('/').to_owned(),
        status: container.state.map_or(Status::Dead, summary_status),
        labels: labels(container.labels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_not_taken_for_a_tag() {
        assert_eq!(split_tag("registry:5000/name"), ("registry:5000/name", "latest"));
        assert_eq!(split_tag("registry:5000/name:9"), ("registry:5000/name", "9"));
        assert_eq!(split_tag("mysql"), ("mysql", "latest"));
    }

    #[test]
    fn what_the_engine_says_it_loaded_is_understood() {
        assert_eq!(loaded_reference("Loaded image: mysql:9\n"), Some("mysql:9".to_owned()));
        assert_eq!(loaded_reference("Loaded image ID: sha256:00ff\n"), Some("sha256:00ff".to_owned()));
        assert_eq!(loaded_reference("Loading layer"), None);
    }

    #[test]
    fn unconfined_system_paths_become_two_empty_lists() {
        let mut spec = ContainerSpec::default();
        assert_eq!(container_body(&spec).host_config.and_then(|host| host.masked_paths), None);
        spec.privileges.security_opt =
            vec!["seccomp=unconfined".to_owned(), SYSTEMPATHS_UNCONFINED.to_owned()];
        let host = container_body(&spec).host_config.expect("always set");
        assert_eq!(host.masked_paths, Some(Vec::new()));
        assert_eq!(host.readonly_paths, Some(Vec::new()));
        assert_eq!(host.security_opt, Some(vec!["seccomp=unconfined".to_owned()]));
    }

    #[test]
    fn an_empty_entrypoint_clears_the_images_own_and_an_absent_one_keeps_it() {
        let mut spec = ContainerSpec::default();
        assert_eq!(container_body(&spec).entrypoint, None);
        spec.entrypoint = Some(Vec::new());
        assert_eq!(container_body(&spec).entrypoint, Some(vec![String::new()]));
    }

    #[test]
    fn a_limit_of_zero_is_no_limit() {
        let host = container_body(&ContainerSpec::default()).host_config.expect("always set");
        assert_eq!((host.memory, host.pids_limit, host.nano_cpus, host.shm_size), (None, None, None, None));
    }
}
