//! Which farm a command talks to: `--coordinator` with `--token`, else the farm of the state folder.

use std::path::PathBuf;

use andon::connect::Connection;
use clap::Args;

use super::error::CliError;
use crate::state::{StateDir, StateError};

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct FarmArgs {
    /// State folder of the farm on this machine [default: $XDG_STATE_HOME/andon or ~/.local/state/andon]
    #[arg(long, global = true, value_name = "DIR", env = "ANDON_STATE", help_heading = "Farm")]
    pub(crate) state: Option<PathBuf>,
    /// Coordinator of a farm elsewhere: http://host:7077 or unix:/path
    #[arg(long, global = true, value_name = "URL", env = "ANDON_COORDINATOR", help_heading = "Farm")]
    pub(crate) coordinator: Option<String>,
    /// Client token for --coordinator; the environment variable keeps it out of the process list
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "ANDON_TOKEN",
        hide_env_values = true,
        help_heading = "Farm"
    )]
    pub(crate) token: Option<String>,
}

/// How a coordinator is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) url: String,
    pub(crate) token: String,
}

impl FarmArgs {
    /// The state folder.
    pub(crate) fn state_dir(&self) -> Result<StateDir, CliError> {
        let env = |name| std::env::var_os(name).map(PathBuf::from);
        Ok(StateDir::choose(self.state.as_deref(), env("XDG_STATE_HOME"), env("HOME"))?)
    }

    /// Where the coordinator is, and what it wants to be shown.
    pub(crate) fn address(&self) -> Result<Address, CliError> {
        if let Some(url) = &self.coordinator {
            let token = self.token.clone().ok_or_else(|| {
                CliError::usage("--coordinator needs a token").hint("give it as ANDON_TOKEN or --token")
            })?;
            return Ok(Address { url: url.clone(), token });
        }
        let state = self.state_dir()?;
        let farm = state.farm()?;
        let token = self.token.clone().unwrap_or(farm.client_token);
        Ok(Address { url: format!("unix:{}", state.socket()?.display()), token })
    }

    /// A connection to the farm.
    pub(crate) async fn connect(&self) -> Result<Connection, CliError> {
        let address = self.address()?;
        open(&address).await.map_err(|error| {
            error.hint("`andon doctor` says what is wrong; `andon up` starts the farm of this machine")
        })
    }
}

/// Connects to an address.
pub(crate) async fn open(address: &Address) -> Result<Connection, CliError> {
    Connection::open(&address.url, &address.token)
        .await
        .map_err(|error| CliError::infrastructure("the farm does not answer").because(&error))
}

impl From<StateError> for CliError {
    fn from(error: StateError) -> Self {
        match &error {
            StateError::NoFarm(_) => Self::usage("there is no farm to talk to").because(&error).hint(
                "`andon up` starts one on this machine; a farm elsewhere is named by --coordinator and --token",
            ),
            StateError::NoHome => Self::usage("the farm's state folder is not known")
                .because(&error)
                .hint("name it by --state"),
            StateError::Exposed { path, .. } => Self::usage("the farm's tokens are not secret")
                .because(&error)
                .hint(format!("chmod 600 {}", path.display())),
            StateError::SocketPathTooLong(_) => {
                Self::usage("the farm cannot live there").because(&error).hint("choose a shorter --state")
            }
            StateError::Busy(_) => Self::infrastructure("the farm is being started or stopped")
                .because(&error)
                .hint("wait for it to end"),
            StateError::Damaged { .. } => Self::infrastructure("the farm's state is damaged")
                .because(&error)
                .hint("`andon down --purge` removes it"),
            StateError::Io { .. } => {
                Self::infrastructure("the farm's state cannot be used").because(&error)
            }
        }
    }
}
