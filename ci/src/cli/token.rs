//! `andon token`: the tokens of this machine's farm, to be handed to whoever gets a role.

use clap::{Args, ValueEnum};

use super::error::CliError;
use super::farm::FarmArgs;
use super::out;
use crate::report::exit::Exit;
use crate::state::FarmFile;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon token viewer       for who looks at the dashboard\n  andon token developer    for who reruns, too\n\nThe \
                  machine's own commands use the admin's token by themselves. Elsewhere: ANDON_TOKEN."
)]
pub(crate) struct TokenArgs {
    /// Whose
    #[arg(value_enum)]
    role: RoleName,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    /// Looks
    Viewer,
    /// Looks, submits, reruns, cancels, attaches
    Developer,
    /// Shares images, too
    Admin,
}

pub(crate) fn token(args: &TokenArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let file = farm.state_dir()?.farm()?;
    let token = of(&file, args.role).ok_or_else(|| {
        CliError::usage("the farm was last started before there were roles")
            .hint("`andon up` makes their tokens")
    })?;
    out::print(&format!("{token}\n"))?;
    Ok(Exit::Passed)
}

fn of(file: &FarmFile, role: RoleName) -> Option<&str> {
    match role {
        RoleName::Viewer => file.viewer_token.as_deref(),
        RoleName::Developer => file.developer_token.as_deref(),
        RoleName::Admin => Some(&file.client_token),
    }
}
