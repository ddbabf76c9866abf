//! hook (placeholder)
use super::error::CliError;
use super::farm::FarmArgs;
use crate::report::exit::Exit;
use clap::Subcommand;
#[derive(Debug, Subcommand)]
pub(crate) enum HookCommand {}
pub(crate) async fn hook(command: HookCommand, _farm: &FarmArgs) -> Result<Exit, CliError> {
    match command {}
}
