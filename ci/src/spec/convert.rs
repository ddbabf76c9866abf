//! Configuration into wire messages: the submitter's one file of conversions.

use std::time::Duration;

use andon_proto as wire;

use crate::config::compose::{Compose, Condition, Healthcheck, Mount, MountSource, Service};
use crate::config::quarantine::{Quarantine, Tests};
use crate::config::quick::Engine;
use crate::config::{Build, Config, Image, Keep, Limits, Policy, Preset, Process, Rebase, Runner, Suite};

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn pairs(pairs: &[(String, String)]) -> Vec<wire::KeyValue> {
    pairs.iter().map(|(key, value)| wire::KeyValue { key: key.clone(), value: value.clone() }).collect()
}

fn build(build: &Build) -> wire::Build {
    wire::Build {
        context: build.context.as_str().to_owned(),
        dockerfile: build.dockerfile.as_str().to_owned(),
        target: build.target.clone(),
        args: pairs(&build.args),
    }
}

fn image(image: &Image) -> wire::Image {
    let source = match image {
        Image::Reference(reference) => wire::image::Source::Reference(reference.clone()),
        Image::Build(folder) => wire::image::Source::Build(build(folder)),
    };
    wire::Image { source: Some(source) }
}

/// The compose file, with the digest of its bytes.
pub(super) fn stack(compose: &Compose, bytes: &[u8], config: &Config) -> wire::Stack {
    let options = |name: &str| {
        let engine =
            config.quick.iter().find(|(service, _)| service.value == name).map(|(_, engine)| *engine);
        engine.map(Engine::options).unwrap_or_default().iter().map(|option| (*option).to_owned()).collect()
    };
    let quick = |one: &Service| wire::Service { options: options(&one.name), ..service(one) };
    wire::Stack {
        services: compose.services.iter().map(quick).collect(),
        compose_digest: blake3::hash(bytes).to_hex().to_string(),
    }
}

/// Absent where nothing is limited, so that a stack without limits is the very one that it was.
fn limits(limits: Limits) -> Option<wire::Limits> {
    let Limits { memory_bytes, cpu_millis, pids, disk_bytes } = limits;
    (limits != Limits::default()).then_some(wire::Limits { memory_bytes, cpu_millis, pids, disk_bytes })
}

fn argv(words: Option<&Vec<String>>) -> Option<wire::Argv> {
    words.map(|words| wire::Argv { words: words.clone() })
}

fn service(service: &Service) -> wire::Service {
    wire::Service {
        name: service.name.clone(),
        image: Some(image(&service.image.value)),
        entrypoint: argv(service.entrypoint.as_ref()),
        command: argv(service.command.as_ref()),
        environment: pairs(&service.environment),
        mounts: service.mounts.iter().map(mount).collect(),
        healthcheck: service.healthcheck.as_ref().map(healthcheck),
        depends_on: service
            .depends_on
            .iter()
            .map(|dependency| wire::Dependency {
                service: dependency.service.clone(),
                condition: match dependency.condition {
                    Condition::Started => wire::dependency::Condition::Started,
                    Condition::Healthy => wire::dependency::Condition::Healthy,
                    Condition::Completed => wire::dependency::Condition::Completed,
                }
                .into(),
            })
            .collect(),
        aliases: service.aliases.clone(),
        hostname: service.hostname.clone(),
        user: service.user.clone(),
        working_dir: service.working_dir.clone(),
        stop_signal: service.stop_signal.clone(),
        stop_grace_ms: service.stop_grace_period.map_or(0, ms),
        shm_bytes: service.shm_bytes.unwrap_or(0),
        limits: limits(service.limits),
        init: service.init,
        cap_add: service.cap_add.clone(),
        sysctls: pairs(&service.sysctls),
        read_only: service.read_only,
        tty: service.tty,
        labels: pairs(&service.labels),
        options: Vec::new(),
    }
}

fn mount(mount: &Mount) -> wire::Mount {
    let source = match &mount.source {
        MountSource::Volume(name) => wire::mount::Source::Volume(name.clone()),
        MountSource::Bind(path) => wire::mount::Source::Bind(path.value.as_str().to_owned()),
        MountSource::Tmpfs(bytes) => wire::mount::Source::TmpfsBytes(*bytes),
        MountSource::Anonymous => wire::mount::Source::Anonymous(true),
    };
    wire::Mount { target: mount.target.clone(), read_only: mount.read_only, source: Some(source) }
}

fn healthcheck(check: &Healthcheck) -> wire::Healthcheck {
    wire::Healthcheck {
        test: check.test.clone(),
        interval_ms: check.interval.map_or(0, ms),
        timeout_ms: check.timeout.map_or(0, ms),
        retries: check.retries.unwrap_or(0),
        start_period_ms: check.start_period.map_or(0, ms),
    }
}

pub(super) fn suite(suite: &Suite) -> wire::Suite {
    let runner = match &suite.runner {
        Runner::Pytest { command, args } => {
            wire::suite::Runner::Pytest(wire::PytestRunner { command: command.clone(), args: args.clone() })
        }
        Runner::Command { discover, run } => {
            wire::suite::Runner::Command(wire::CommandRunner { discover: discover.clone(), run: run.clone() })
        }
        Runner::Preset(Preset { name, command, args, discover, run, reports }) => {
            wire::suite::Runner::Preset(wire::PresetRunner {
                name: name.clone(),
                command: command.clone(),
                args: args.clone(),
                discover: discover.clone(),
                run: run.clone(),
                reports: reports.clone(),
            })
        }
    };
    let shared = suite.process == Process::Shared;
    let rebase = match suite.rebase {
        // What one process runs is leased as a batch.
        Rebase::Test if shared => wire::RebaseUnit::Batch,
        Rebase::Test => wire::RebaseUnit::Test,
        Rebase::Class => wire::RebaseUnit::Class,
        Rebase::File => wire::RebaseUnit::File,
        Rebase::Batch => wire::RebaseUnit::Batch,
        Rebase::Never => wire::RebaseUnit::Never,
    };
    wire::Suite {
        name: suite.name.clone(),
        image: Some(image(&suite.image.value)),
        runner: Some(runner),
        timeout_ms: ms(suite.timeout),
        retries: suite.retries,
        rebase: rebase.into(),
        environment: pairs(&suite.env),
        workdir: suite.workdir.clone(),
        rebase_within: shared,
        docker: suite.docker,
        limits: limits(suite.limits),
        egress: suite.egress.clone(),
    }
}

pub(super) fn quarantine(of: &Quarantine) -> wire::Quarantine {
    use wire::quarantine::Tests as Named;
    wire::Quarantine {
        suite: of.suite.clone().unwrap_or_default(),
        tests: Some(match &of.tests {
            Tests::Test(id) => Named::Test(id.clone()),
            Tests::Pattern(glob) => Named::Pattern(glob.clone()),
        }),
        owner: of.owner.clone(),
        until_unix_ms: of.until_unix_ms.value,
        reason: of.reason.clone(),
    }
}

pub(super) fn policy(policy: &Policy) -> wire::Policy {
    wire::Policy {
        max_failures: policy.max_failures.unwrap_or(0),
        fail_fast: policy.fail_fast,
        retry_budget: policy.retry_budget,
        supersede: policy.supersede,
        hedge: policy.hedge,
        merge: policy.merge,
        keep_failed: policy.keep == Keep::Failed,
        keep_max: policy.keep_max,
        keep_for_ms: ms(policy.keep_for),
    }
}
