//! `andon stats`: what runs amounted to, over time.

use andon_proto::{GetFiguresRequest, GetRunRequest};
use clap::Args;
use serde_json::Value;

use super::error::CliError;
use super::farm::FarmArgs;
use super::{clock, out, show};
use crate::report::exit::Exit;
use crate::report::{flow, owners};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon stats                      the latest run's project, all branches\n  andon stats --project \
                  shop --ref main --days 90\n  andon stats integration tests/test_cart.py::test_add\n  andon stats --owners\n  andon stats --owner \
                  @shop/checkout --ref main\n  andon stats --json | jq \
                  '.suites[] | {suite, p50: .figures.test_ms.p50}'"
)]
pub(crate) struct StatsArgs {
    /// One test instead of the project: its suite, then its id
    #[arg(value_names = ["SUITE", "TEST"], num_args = 2)]
    test: Vec<String>,
    /// What an owner's tests amount to: `@user`, `@org/team` or an address, as CODEOWNERS has it
    #[arg(long, value_name = "OWNER", conflicts_with_all = ["test", "owners"])]
    owner: Option<String>,
    /// All owners of the project's tests
    #[arg(long, conflicts_with = "test")]
    owners: bool,
    /// Of this project [default: the latest run's]
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Only this branch: `main` or `refs/heads/main`
    #[arg(long = "ref", value_name = "REF")]
    git_ref: Option<String>,
    /// Days, today the last
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=366))]
    days: u32,
    /// Runs that are listed, the latest first
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
    limit: u32,
    /// As JSON: what the coordinator's JSON API answers
    #[arg(long)]
    json: bool,
}

pub(crate) async fn stats(args: StatsArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let connection = farm.connect().await?;
    let project = match args.project {
        Some(project) => project,
        None => {
            let run = show::run_or_latest(&connection, None, "").await?;
            let request = GetRunRequest { run, with_tests: false };
            connection.farm().get_run(request).await?.into_inner().project
        }
    };
    let mut words = args.test.into_iter();
    let request = GetFiguresRequest {
        project,
        git_ref: args.git_ref.unwrap_or_default(),
        days: args.days,
        limit: args.limit,
        suite: words.next().unwrap_or_default(),
        test: words.next().unwrap_or_default(),
        owner: args.owner.unwrap_or_default(),
        owners: args.owners,
    };
    let now_unix_ms = clock::unix_ms();
    let said: fn(&Value, u64) -> String = match &request {
        request if !request.test.is_empty() => flow::test,
        request if !request.owner.is_empty() => owners::owner,
        request if request.owners => |figures, _| owners::owners(figures),
        _ => flow::project,
    };
    let answer = connection.farm().get_figures(request).await?.into_inner();
    let figures: Value = serde_json::from_str(&answer.json).map_err(|error| {
        CliError::infrastructure("the coordinator's figures cannot be read").because(&error)
    })?;
    if args.json {
        out::json(&figures)?;
    } else {
        out::print(&said(&figures, now_unix_ms))?;
    }
    Ok(Exit::Passed)
}
