//! `andon plan`: what a run would do, without running anything.
//!
//! The project's files are read and checked as for a run; the farm is asked what it knows. Neither source nor specification is
//! sent to be kept.

use andon_proto::PlanRunRequest;
use clap::Args;

use super::error::CliError;
use super::farm::FarmArgs;
use super::out;
use super::what::{self, WhatArgs};
use crate::report::exit::Exit;
use crate::report::plan as report;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon plan\n  andon plan --commit main --suite reports --tests\n  andon plan --shard 1/4 \
                  --json | jq '.suites[].tests[].id'\n\nTests and durations are those of earlier runs: which there are now, the \
                  discovery says."
)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    what: WhatArgs,
    /// Name each test with how long it is expected to take
    #[arg(long)]
    tests: bool,
    /// As JSON, with all tests
    #[arg(long)]
    json: bool,
}

pub(crate) async fn plan(args: PlanArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let scratch = what::scratch()?;
    let spec = args.what.prepare(scratch.path()).await?.spec;
    let connection = farm.connect().await?;
    let request = PlanRunRequest { spec: Some(spec.clone()) };
    let planned = connection.farm().plan_run(request).await?.into_inner();
    if args.json {
        out::json(&report::json(&spec, &planned))?;
    } else {
        out::print(&report::text(&spec, &planned, args.tests))?;
    }
    Ok(Exit::Passed)
}
