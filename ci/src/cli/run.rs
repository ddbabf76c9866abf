//! run (placeholder)
use super::error::CliError;
use super::farm::FarmArgs;
use crate::report::exit::Exit;
use clap::Args;
/// x
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  andon run")]
pub(crate) struct RunArgs {}
/// x
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  andon run")]
pub(crate) struct RerunArgs {}
pub(crate) async fn run(_: RunArgs, _farm: &FarmArgs) -> Result<Exit, CliError> {
    Ok(Exit::Passed)
}
pub(crate) async fn rerun(_: RerunArgs, _farm: &FarmArgs) -> Result<Exit, CliError> {
    Ok(Exit::Passed)
}
