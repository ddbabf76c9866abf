//! `andon diff`: which files a failed test changed of its stack, from the state that its worker kept.

use clap::Args;

use super::drift::{self, Changes};
use super::error::CliError;
use super::farm::FarmArgs;
use super::look::{Look, Target};
use super::out;
use crate::report::exit::Exit;
use andon_proto::LookChanges;
use andon_proto::look_open::What;
use andon_proto::look_out::Body;

/// Workers name at most so many paths of one tree.
const FILES_MAX: u32 = 10_000;
/// The longest list that is taken.
const BYTES_MAX: usize = 256 << 20;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon diff 12 tests/test_orders.py::test_place\n  andon diff tests/test_orders.py::test_place --json | jq \
                  '.trees[].files[].path'\n\nFailed tests' stacks are kept where andon.toml says `[policy] keep = \"failed\"`. `andon drift` \
                  tells the largest changes of any test."
)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    target: Target,
    /// Most files to name of each volume and of each service's own layer, those with the most changed bytes
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=i64::from(FILES_MAX)))]
    files: u32,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn diff(args: DiffArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let connection = farm.connect().await?;
    let open = args.target.open(&connection, "andon diff RUN TEST").await?;
    let what = What::Changes(LookChanges { files_max: args.files });
    let mut look = Look::open(&connection, &open, what).await?;
    let mut text = Vec::new();
    while let Some(said) = look.next().await? {
        if let Body::Changes(piece) = said {
            text.extend_from_slice(&piece);
            if text.len() > BYTES_MAX {
                return Err(CliError::infrastructure("the worker's list is too long"));
            }
        }
    }
    let changes: Changes = serde_json::from_slice(&text)
        .map_err(|error| CliError::infrastructure("the worker's list cannot be read").because(&error))?;
    if args.json {
        out::json(&changes)?;
        return Ok(Exit::Passed);
    }
    for line in drift::of_test(&changes) {
        out::line(&line)?;
    }
    Ok(Exit::Passed)
}
