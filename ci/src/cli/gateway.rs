//! `andon gateway`: polls repositories, hears webhooks, submits runs, tells forges; and `andon approve` beside it.
//!
//! Secrets come from files and the environment that `gateway.toml` names, never from arguments.

use std::net::SocketAddr;
use std::path::PathBuf;

use andon::connect::Connection;
use andon::forge::guard::Guard;
use andon::gateway::settings::{self, Settings};
use andon::gateway::{ApproveError, DEFAULT_EVERY, GatewayConfig, WatchedProject, leave_approval};
use andon::git::RemoteUrl;
use andon::git::mirror::Credentials;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::error::CliError;
use super::farm::FarmArgs;
use super::out;
use super::servers::{log_to_stderr, stop_on_signal};
use crate::report::exit::Exit;
use crate::state::StateDir;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon gateway --watch shop=/srv/git/shop.git#main\n  andon gateway --watch \
                        shop=https://git.example.org/shop.git --every 30s --credentials user\n  andon gateway --config \
                        /etc/andon/gateway.toml --webhooks 127.0.0.1:7080\n\nWithout --watch: what `andon up --watch` was \
                        told and what gateway.toml of the state folder says. Fetching is done by the git program."
)]
pub(crate) struct GatewayArgs {
    /// Poll this repository and run each new commit of the branch [default branches: as its andon.toml says]
    #[arg(long, value_name = "NAME=URL[#BRANCH]")]
    watch: Vec<String>,
    /// How often, give or take a tenth [default: as gateway.toml says, else 10s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    every: Option<std::time::Duration>,
    /// Whose credentials git uses to fetch what --watch names [default: as `andon up` was told]
    #[arg(long, value_enum)]
    credentials: Option<Whose>,
    /// Projects with their forges, secrets and policies [default: gateway.toml of the state folder, where there is one]
    #[arg(long, value_name = "FILE", env = "ANDON_GATEWAY_CONFIG")]
    config: Option<PathBuf>,
    /// Listen for webhooks: POST /hooks/PROJECT [default: as gateway.toml says]
    #[arg(long, value_name = "HOST:PORT")]
    webhooks: Option<SocketAddr>,
}

/// Whose credentials fetches use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Whose {
    /// Nobody's
    #[default]
    None,
    /// Those of whoever starts the gateway: git's credential helpers, ssh's keys
    User,
}

/// Where a farm's gateway is configured beyond `--watch`.
pub(crate) fn config_file(state: &StateDir) -> PathBuf {
    state.path().join("gateway.toml")
}

fn read_settings(args: &GatewayArgs, state: &StateDir) -> Result<Option<Settings>, CliError> {
    let usual = config_file(state);
    let path = match &args.config {
        Some(path) => path.clone(),
        None if usual.is_file() => usual,
        None => return Ok(None),
    };
    let read = settings::read(&path, &|name| std::env::var(name).ok());
    read.map(Some).map_err(|error| {
        CliError::config("the gateway's configuration cannot be used")
            .because(&error)
            .hint("docs/forges.md shows one")
    })
}

pub(crate) async fn gateway(args: GatewayArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    log_to_stderr();
    let address = farm.address()?;
    let state = farm.state_dir()?;
    let told = state.farm().ok();
    let settings = read_settings(&args, &state)?;
    let watch = match (&told, args.watch.is_empty()) {
        (Some(file), true) => file.watch.clone(),
        _ => args.watch,
    };
    let whose = args.credentials.or(told.map(|file| file.credentials)).unwrap_or_default();
    let mut projects =
        watch.iter().map(|watched| parse_watch(watched, whose)).collect::<Result<Vec<_>, _>>()?;
    let (mut every, mut listen, mut run_url, mut guard) = (DEFAULT_EVERY, None, None, Guard::default());
    if let Some(settings) = settings {
        // What the file says of a project is more than a watch can say.
        projects.retain(|watched| !settings.projects.iter().any(|project| project.name == watched.name));
        every = settings.every();
        (listen, run_url, guard) = (settings.listen, settings.run_url, settings.guard);
        projects.extend(settings.projects);
    }
    if projects.is_empty() {
        let hint = "--watch NAME=URL[#BRANCH], or [[project]] in gateway.toml";
        return Err(CliError::usage("there is nothing to watch").hint(hint));
    }
    let listen = args.webhooks.or(listen);
    if listen.is_some() && projects.iter().all(|project| project.hooks.is_none()) {
        return Err(CliError::usage("webhooks are to be heard, and no project has a webhook_secret")
            .hint("docs/forges.md shows a gateway.toml"));
    }
    state.create()?;
    let connection = Connection::open_lazily(&address.url, &address.token)
        .map_err(|error| CliError::usage("the coordinator's address is not one").because(&error))?;
    let every = args.every.unwrap_or(every);
    let config =
        GatewayConfig { projects, every, mirrors: state.gateway(), connection, listen, run_url, guard };
    let stop = stop_on_signal()?;
    tokio::select! {
        ended = Box::pin(andon::gateway::run(config, |_| ())) => match ended {
            Ok(()) => Err(CliError::infrastructure("the gateway has nothing left to watch")),
            Err(error) => Err(CliError::infrastructure("the gateway cannot start").because(&error)),
        },
        () = stop.cancelled() => Ok(Exit::Passed),
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon approve shop 42\n  andon approve shop 42 1a2b3c4\n\nIt is one commit that \
                        may run: a later push to the pull request needs another approval."
)]
pub(crate) struct ApproveArgs {
    /// Name of the project
    #[arg(value_name = "PROJECT")]
    project: String,
    /// Number of the pull or merge request
    #[arg(value_name = "PR")]
    number: u64,
    /// The commit that was looked at, seven digits or more [default: the head that the gateway knows]
    #[arg(value_name = "SHA")]
    commit: Option<String>,
}

pub(crate) fn approve(args: &ApproveArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let folder = farm.state_dir()?.gateway();
    let wanted = args.commit.as_deref().map(str::to_ascii_lowercase);
    let left = leave_approval(&folder, &args.project, args.number, wanted.as_deref());
    let commit = left.map_err(|error| {
        let failed = match &error {
            ApproveError::Spool { .. } | ApproveError::Ledger(_) => {
                CliError::infrastructure("nothing was approved")
            }
            _ => CliError::usage("nothing was approved"),
        };
        failed.because(&error)
    })?;
    out::line(&format!("approved: pull request {} of {} at {commit}", args.number, args.project))?;
    out::line("the gateway runs it when it next looks, within its polling interval")?;
    Ok(Exit::Passed)
}

/// Reads `NAME=URL[#BRANCH]`.
pub(crate) fn parse_watch(watched: &str, whose: Whose) -> Result<WatchedProject, CliError> {
    let form =
        "write NAME=URL or NAME=URL#BRANCH; several branches are separated by commas, globs are allowed";
    let wrong = |what: &str| CliError::usage(format!("{watched:?} cannot be watched: {what}")).hint(form);
    let (name, rest) = watched.split_once('=').ok_or_else(|| wrong("it has no `=`"))?;
    if !andon::config::is_name(name) {
        return Err(wrong("its name is none for a project"));
    }
    let (url, branches) = match rest.rsplit_once('#') {
        Some((url, branches)) => (url, Some(branches)),
        None => (rest, None),
    };
    let branches = branches.map(|branches| branches.split(',').map(str::to_owned).collect::<Vec<_>>());
    if branches.as_ref().is_some_and(|branches| branches.iter().any(String::is_empty)) {
        return Err(wrong("a branch has no name"));
    }
    let url = RemoteUrl::parse(url)
        .map_err(|error| CliError::usage("the repository cannot be watched").because(&error).hint(form))?;
    let credentials = match whose {
        Whose::None => Credentials::None,
        Whose::User => Credentials::User,
    };
    Ok(WatchedProject::polled(name.to_owned(), url, branches, credentials))
}

/// A folder that exists is meant as such: the gateway stands elsewhere, so its path becomes absolute.
pub(crate) fn absolute_watch(watched: &str) -> String {
    let Some((name, rest)) = watched.split_once('=') else { return watched.to_owned() };
    let (path, branch) = rest.split_at(rest.rfind('#').unwrap_or(rest.len()));
    match std::fs::canonicalize(path) {
        Ok(absolute) if absolute.is_dir() => format!("{name}={}{branch}", absolute.display()),
        _ => watched.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_a_name_an_address_and_branches() {
        let watched = parse_watch("shop=/srv/git/shop.git#main,release/*", Whose::User).unwrap();
        assert_eq!(watched.name, "shop");
        assert_eq!(watched.branches, Some(vec!["main".to_owned(), "release/*".to_owned()]));
        assert_eq!(parse_watch("shop=/srv/git/shop.git", Whose::None).unwrap().branches, None);
        for wrong in
            ["shop", "=/srv", "../x=/srv", "a=ext::sh -c id", "a=--upload-pack=x", "a=/srv#", "a=/srv#x,"]
        {
            assert_eq!(parse_watch(wrong, Whose::None).unwrap_err().exit(), Exit::Usage, "{wrong}");
        }
    }

    #[test]
    fn a_relative_folder_becomes_absolute_and_an_address_stays() {
        assert!(absolute_watch("a=.#main").starts_with("a=/"));
        assert!(absolute_watch("a=.#main").ends_with("#main"));
        for stays in ["a=https://h/x.git#main", "a=/srv/none.git", "no-equals"] {
            assert_eq!(absolute_watch(stays), stays);
        }
    }
}
