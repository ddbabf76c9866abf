//! `andon doctor`: looks at everything a farm and a project need, and says of each what is and what to do.
//!
//! Each check is a function that answers with lines; none of them changes anything, and none stops the others.

use std::path::{Path, PathBuf};

use andon_proto::ListWorkersRequest;
use andon_worker::engine::{DockerEngine, Engine as _};
use andon_worker::host::{HostReport, Role, Severity};
use clap::Args;
use serde::Serialize;

use super::error::CliError;
use super::farm::{self, FarmArgs};
use super::up::Processes;
use super::{engine, out};
use crate::report::exit::Exit;
use crate::report::summary::Paint;
use crate::report::text::{cut, one_line};
use crate::report::words;

mod project;

/// Below this a farm is likely to fill the disk during a run.
const DISK_WARN_BYTES: u64 = 10 * 1_000_000_000;
/// Below this it certainly will.
const DISK_PROBLEM_BYTES: u64 = 2 * 1_000_000_000;
/// Longest line of a finding.
const SAID_CHARS_MAX: usize = 400;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon doctor\n  andon doctor --repo path/to/project --json\n\nExits 0 where nothing \
                        is a problem, else 106. Warnings are not problems."
)]
pub(crate) struct DoctorArgs {
    /// The project whose andon.toml is checked
    #[arg(long, value_name = "DIR", default_value = ".")]
    repo: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Health {
    Ok,
    Warn,
    Problem,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    name: &'static str,
    health: Health,
    said: String,
    /// What to do; only with warnings and problems.
    todo: Option<String>,
}

impl Finding {
    /// Nothing to do.
    pub(crate) fn ok(name: &'static str, said: impl Into<String>) -> Self {
        Self { name, health: Health::Ok, said: said.into(), todo: None }
    }

    /// Works, but.
    pub(crate) fn warn(name: &'static str, said: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { name, health: Health::Warn, said: said.into(), todo: Some(todo.into()) }
    }

    /// Does not work.
    pub(crate) fn problem(name: &'static str, said: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { name, health: Health::Problem, said: said.into(), todo: Some(todo.into()) }
    }

    /// What the worker's own look at the host found.
    fn of_host(found: andon_worker::host::Finding) -> Self {
        let health = match found.severity {
            Severity::Fine => Health::Ok,
            Severity::Warning => Health::Warn,
            Severity::Problem => Health::Problem,
        };
        let todo = (!found.remedy.is_empty()).then_some(found.remedy);
        Self { name: found.subject, health, said: found.found, todo }
    }
}

#[derive(Debug, Serialize)]
struct DoctorJson<'a> {
    healthy: bool,
    findings: &'a [Finding],
}

pub(crate) async fn doctor(args: &DoctorArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let mut findings = docker().await;
    findings.push(git().await);
    findings.extend(farm_of(farm).await);
    findings.extend(project::check(&args.repo).await);
    let healthy = findings.iter().all(|finding| finding.health != Health::Problem);
    if args.json {
        out::json(&DoctorJson { healthy, findings: &findings })?;
    } else {
        out::print(&render(&findings, out::paint()))?;
    }
    Ok(if healthy { Exit::Passed } else { Exit::Incomplete })
}

fn render(findings: &[Finding], paint: Paint) -> String {
    let mut text = String::new();
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    for finding in findings {
        let word = match finding.health {
            Health::Ok => paint.good("ok     "),
            Health::Warn => paint.warn("warn   "),
            Health::Problem => paint.bad("problem"),
        };
        text.push_str(&format!("{word}  {:<width$}  {}\n", finding.name, cut(&finding.said, SAID_CHARS_MAX)));
        for line in finding.todo.iter().flat_map(|todo| todo.lines()) {
            text.push_str(&format!("         {:<width$}  -> {}\n", "", cut(line, SAID_CHARS_MAX)));
        }
    }
    let count = |health| findings.iter().filter(|finding| finding.health == health).count() as u64;
    let problems = words::plural(count(Health::Problem), "problem");
    let warnings = words::plural(count(Health::Warn), "warning");
    text.push_str(&format!("\n{problems}, {warnings}\n"));
    text
}

async fn docker() -> Vec<Finding> {
    let address = engine::address();
    let engine = match DockerEngine::connect(&address).await {
        Ok(engine) => engine,
        Err(error) => return vec![no_engine(&address, &error)],
    };
    let version = match engine.version().await {
        Ok(version) => version,
        Err(error) => return vec![no_engine(&address, &error)],
    };
    let said = format!(
        "Docker Engine {} (API {}) at {address}, {}, cgroup v{}",
        version.version, version.api_version, version.storage_driver, version.cgroup_version
    );
    let mut findings = vec![Finding::ok("engine", said)];
    findings.extend(host(&version.root_dir).await);
    findings
}

/// What this machine allows a worker box to do. Meaningful where the engine runs on this machine.
async fn host(data: &str) -> Vec<Finding> {
    let data = PathBuf::from(data);
    let looking = tokio::task::spawn_blocking(move || HostReport::examine(Role::Outer, &data));
    match looking.await.expect("looking at the host does not panic") {
        Ok(report) => report.findings.into_iter().map(Finding::of_host).collect(),
        Err(error) => {
            vec![Finding::warn(
                "host",
                chain(&error),
                "what worker boxes may do is found out when they start",
            )]
        }
    }
}

fn no_engine(address: &str, error: &andon_worker::engine::EngineError) -> Finding {
    let todo = format!(
        "worker boxes of this machine need it; Debian: apt-get install docker.io, then start dockerd\n\
         another engine is named by DOCKER_HOST (now: {address})"
    );
    Finding::problem("engine", chain(error), todo)
}

/// The engine's folder may be on another machine or not readable: then nothing is said.
fn disk(name: &'static str, path: &Path, todo: &str) -> Option<Finding> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let said = format!("{} free in {}", words::bytes(free), path.display());
    Some(match free {
        0..DISK_PROBLEM_BYTES => Finding::problem(name, said, todo),
        DISK_PROBLEM_BYTES..DISK_WARN_BYTES => Finding::warn(name, said, todo),
        _ => Finding::ok(name, said),
    })
}

async fn git() -> Finding {
    match tokio::process::Command::new("git").arg("--version").output().await {
        Ok(output) if output.status.success() => {
            let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Finding::ok("git", said)
        }
        Ok(output) => Finding::warn("git", format!("git ends with {}", output.status), GIT_TODO),
        Err(error) => Finding::warn("git", format!("there is no git program: {error}"), GIT_TODO),
    }
}

/// Reading a repository is built in; only fetching asks the program.
const GIT_TODO: &str = "install git: watching repositories needs it (`andon run` does not)";

async fn farm_of(args: &FarmArgs) -> Vec<Finding> {
    let mut findings = Vec::new();
    if args.coordinator.is_none() {
        match local_farm(args) {
            Ok(some) => findings.extend(some),
            Err(finding) => return vec![finding],
        }
    }
    let address = match args.address() {
        Ok(address) => address,
        Err(error) => {
            findings.push(Finding::problem("farm", chain(&error), "andon up"));
            return findings;
        }
    };
    let workers = match farm::open(&address).await {
        Ok(connection) => connection.farm().list_workers(ListWorkersRequest {}).await,
        Err(error) => {
            findings.push(Finding::problem("coordinator", chain(&error), "andon up starts what is missing"));
            return findings;
        }
    };
    match workers {
        Ok(workers) => {
            findings.push(Finding::ok("coordinator", format!("answers at {}", address.url)));
            findings.extend(judge_workers(&workers.into_inner().workers));
        }
        Err(status) => {
            let error = CliError::from(status);
            findings.push(Finding::problem("coordinator", chain(&error), "check --token or ANDON_TOKEN"));
        }
    }
    findings
}

/// What the state folder tells before anything is asked; `Err` where there is no farm to ask.
fn local_farm(args: &FarmArgs) -> Result<Vec<Finding>, Finding> {
    let state =
        args.state_dir().map_err(|error| Finding::problem("farm", chain(&error), "name it by --state"))?;
    let nearest = state.path().ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let mut findings: Vec<Finding> =
        disk("state disk", nearest, "another --state, or a larger disk").into_iter().collect();
    if !state.path().exists() {
        let said = format!("there is none in {} yet", state.path().display());
        findings.push(Finding::warn("farm", said, "andon up"));
        return Err(findings.pop().expect("one was pushed on the line above"));
    }
    if Processes::of(&state).coordinator.alive().is_none() {
        findings.push(Finding::warn("coordinator", "is not running in the background", "andon up"));
    }
    Ok(findings)
}

fn judge_workers(workers: &[andon_proto::Worker]) -> Vec<Finding> {
    let connected = workers.iter().filter(|worker| worker.connected).count();
    let mut findings = Vec::new();
    let lanes: u32 = workers.iter().filter(|worker| worker.connected).map(|worker| worker.lanes).sum();
    let said = format!(
        "{} connected, {}",
        words::plural(connected as u64, "worker"),
        words::plural(u64::from(lanes), "lane")
    );
    findings.push(if connected == 0 {
        Finding::problem("workers", "none is connected: runs wait", "andon up --workers 2")
    } else {
        Finding::ok("workers", said)
    });
    for worker in workers.iter().filter(|worker| worker.connected && !worker.unfit.is_empty()) {
        let said = format!("{} takes no work: {}", one_line(&worker.name), one_line(&worker.unfit));
        findings.push(Finding::problem("worker", said, "docker logs of its box; `andon down && andon up`"));
    }
    findings
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_said = cause.to_string();
        if !said.ends_with(&cause_said) {
            said.push_str(": ");
            said.push_str(&cause_said);
        }
        next = cause.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_a_line_and_what_to_do_another() {
        let findings = [
            Finding::ok("engine", "Docker Engine 20.10.24"),
            Finding::warn("git", "there is none", "install git"),
            Finding::problem("workers", "none \u{1b}[2J", "one\ntwo"),
        ];
        insta::assert_snapshot!(render(&findings, Paint::Plain), @r#"
        ok       engine   Docker Engine 20.10.24
        warn     git      there is none
                          -> install git
        problem  workers  none \x1b[2J
                          -> one
                          -> two

        1 problem, 1 warning
        "#);
    }

    #[test]
    fn no_worker_and_an_unfit_worker_are_problems() {
        let worker = |connected, unfit: &str| andon_proto::Worker {
            name: "w".into(),
            connected,
            lanes: 2,
            unfit: unfit.into(),
            ..Default::default()
        };
        let problems = |workers: &[andon_proto::Worker]| {
            judge_workers(workers).iter().filter(|finding| finding.health == Health::Problem).count()
        };
        assert_eq!(problems(&[]), 1);
        assert_eq!(problems(&[worker(false, "")]), 1);
        assert_eq!(problems(&[worker(true, "disk full")]), 1);
        assert_eq!(problems(&[worker(true, ""), worker(false, "")]), 0);
    }
}
