//! `andon hook install` and `andon hook receive`: pushes to a bare repository start runs.

use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use andon::git::hook::{self as git_hook, Hook, HookError, Installed};
use andon::hook::{Receive, receive};
use clap::{Args, Subcommand};

use super::error::CliError;
use super::farm::FarmArgs;
use super::{out, what};
use crate::report::exit::Exit;
use crate::report::text::{cut, one_line};
use crate::state::write_private;

/// Longest token file.
const TOKEN_BYTES_MAX: u64 = 4 * 1024;

#[derive(Debug, Subcommand)]
pub(crate) enum HookCommand {
    /// Write a post-receive hook into a bare repository, so that every push starts a run
    #[command(
        after_help = "Examples:\n  andon hook install /srv/git/shop.git\n  andon hook install /srv/git/shop.git \
                            --project shop --force"
    )]
    Install(InstallArgs),
    /// What that hook calls: reads `old new ref` lines and submits runs
    #[command(
        hide = true,
        after_help = "Example:\n  andon hook receive --repo /srv/git/shop.git --project shop < lines"
    )]
    Receive(ReceiveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// The bare repository
    #[arg(value_name = "REPO")]
    repo: PathBuf,
    /// Name of the project [default: the repository's name]
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Keep a hook that is there as post-receive.before-andon and run it first
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReceiveArgs {
    /// The repository that was pushed to
    #[arg(long, value_name = "DIR", default_value = ".")]
    repo: PathBuf,
    /// Name of the project
    #[arg(long, value_name = "NAME")]
    project: String,
    /// File that holds the client token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

pub(crate) async fn hook(command: HookCommand, farm: &FarmArgs) -> Result<Exit, CliError> {
    match command {
        HookCommand::Install(args) => install(&args, farm),
        HookCommand::Receive(args) => Ok(received(&args, farm).await),
    }
}

fn install(args: &InstallArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let address = farm.address()?;
    let repo = std::fs::canonicalize(&args.repo).map_err(|error| {
        CliError::usage(format!("there is no repository {}", args.repo.display())).because(&error)
    })?;
    let token_file = match &farm.coordinator {
        // Kept up to date by the farm itself, whatever becomes of its tokens.
        None => farm.state_dir()?.client_token_file(),
        Some(_) => {
            let file = repo.join("andon.token");
            write_private(&file, address.token.as_bytes())?;
            file
        }
    };
    let program = std::env::current_exe()
        .map_err(|error| CliError::infrastructure("cannot find this program's own file").because(&error))?;
    let project = args.project.clone().unwrap_or_else(|| what::project_name(&repo.to_string_lossy()));
    let hook = Hook { andon: program, project, coordinator: address.url, token_file: Some(token_file) };
    let installed = git_hook::install(&repo, &hook, args.force)?;
    let done = match installed {
        Installed::New => "installed",
        Installed::Replaced => "replaced",
        Installed::Unchanged => "there already",
        Installed::Chained => "installed; the hook that was there runs first",
    };
    out::line(&format!("{}: post-receive hook {done}", cut(&repo.to_string_lossy(), 300)))?;
    out::line(&format!("each push of a branch that andon.toml wants runs as project {}", hook.project))?;
    Ok(Exit::Passed)
}

/// Never fails: the push is done, and whoever pushed is told.
async fn received(args: &ReceiveArgs, farm: &FarmArgs) -> Exit {
    let address = match (&args.token_file, &farm.coordinator) {
        (Some(file), Some(url)) => read_token(file).map(|token| (url.clone(), token)),
        _ => farm.address().map(|address| (address.url, address.token)),
    };
    match address {
        Ok((coordinator, token)) => {
            let receive_config =
                Receive { repository: args.repo.clone(), project: args.project.clone(), coordinator, token };
            receive(&receive_config, BufReader::new(io::stdin()), &mut io::stdout()).await;
        }
        Err(error) => {
            // A push's reader may be gone; there is nobody else to tell.
            let _ = out::line(&format!("andon: {}", one_line(&super::doctor::chain(&error))));
        }
    }
    Exit::Passed
}

fn read_token(file: &Path) -> Result<String, CliError> {
    use std::io::Read as _;
    let mut token = String::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(TOKEN_BYTES_MAX).read_to_string(&mut token))
        .map_err(|error| {
            CliError::usage(format!("cannot read the token file {}", file.display())).because(&error)
        })?;
    Ok(token.trim().to_owned())
}

impl From<HookError> for CliError {
    fn from(error: HookError) -> Self {
        let said = error.to_string();
        let new = match &error {
            HookError::Foreign(_) => Self::usage(said).hint("--force keeps it and runs it first"),
            HookError::Io { .. } => Self::infrastructure(said),
            _ => Self::usage(said),
        };
        match std::error::Error::source(&error) {
            Some(cause) => new.because(cause),
            None => new,
        }
    }
}
