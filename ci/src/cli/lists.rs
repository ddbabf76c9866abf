//! `andon worker list`, `andon baseline list` and `inspect`: what the farm has.

use andon_proto::{BaselineManifest, ListBaselinesRequest, ListWorkersRequest};
use clap::{Args, Subcommand};

use super::error::CliError;
use super::farm::FarmArgs;
use super::{clock, out, verify};
use crate::report::exit::Exit;
use crate::report::{inspection, json, listing, words};

/// Most matches that an ambiguous key is answered with.
const CHOICES_MAX: usize = 10;

#[derive(Debug, Subcommand)]
pub(crate) enum BaselineCommand {
    /// Published baselines, the latest first
    #[command(after_help = "Examples:\n  andon baseline list\n  andon baseline list --json")]
    List(JsonArgs),
    /// One baseline: what it is built on and from, its steps, its trees, where, when and why it was built
    #[command(
        after_help = "Examples:\n  andon baseline inspect b1946ac92492\n  andon baseline inspect --json b1946ac92492"
    )]
    Inspect {
        /// The key, or its first digits
        key: String,
        #[command(flatten)]
        form: JsonArgs,
    },
    /// Have workers compare what they hold with what was published: every byte in their pools, and what waits on idle lanes
    #[command(
        after_help = "Examples:\n  andon baseline verify\n  andon baseline verify b1946ac92492 --worker w0\n\nExit codes: 0 all \
                      that was looked at is the same, 1 something differs, 2 no such key or worker,\n106 a worker did not \
                      answer or could not look."
    )]
    Verify(verify::VerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct JsonArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn workers(args: &JsonArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let connection = farm.connect().await?;
    let mut workers = connection.farm().list_workers(ListWorkersRequest {}).await?.into_inner().workers;
    workers.sort_by(|a, b| a.name.cmp(&b.name));
    if args.json {
        let workers: Vec<_> = workers.iter().map(json::worker).collect();
        out::json(&workers)?;
    } else {
        out::print(&listing::workers(&workers))?;
    }
    Ok(Exit::Passed)
}

pub(crate) async fn baselines(command: BaselineCommand, farm: &FarmArgs) -> Result<Exit, CliError> {
    if let BaselineCommand::Verify(args) = command {
        return verify::verify(args, farm).await;
    }
    let connection = farm.connect().await?;
    let mut all = connection.farm().list_baselines(ListBaselinesRequest {}).await?.into_inner().baselines;
    all.sort_by_key(|baseline| std::cmp::Reverse(baseline.built_unix_ms));
    match command {
        BaselineCommand::List(JsonArgs { json: true }) => {
            let all: Vec<_> = all.iter().map(json::baseline).collect();
            out::json(&all)?;
        }
        BaselineCommand::List(JsonArgs { json: false }) => {
            out::print(&listing::baselines(&all, clock::unix_ms()))?;
        }
        BaselineCommand::Inspect { key, form: JsonArgs { json: true } } => {
            out::json(&json::baseline(chosen(&all, &key)?))?;
        }
        BaselineCommand::Inspect { key, form: JsonArgs { json: false } } => {
            out::print(&inspection::baseline(chosen(&all, &key)?, clock::unix_ms()))?;
        }
        BaselineCommand::Verify(_) => unreachable!("it has a file of its own"),
    }
    Ok(Exit::Passed)
}

pub(crate) fn chosen<'a>(all: &'a [BaselineManifest], key: &str) -> Result<&'a BaselineManifest, CliError> {
    let matching: Vec<&BaselineManifest> =
        all.iter().filter(|baseline| !key.is_empty() && baseline.key.starts_with(key)).collect();
    match matching.as_slice() {
        [one] => Ok(one),
        [] => Err(CliError::usage(format!("no baseline has the key {key:?}"))
            .hint("`andon baseline list` shows the keys")),
        several => {
            let keys: Vec<&str> =
                several.iter().take(CHOICES_MAX).map(|baseline| words::short(&baseline.key)).collect();
            Err(CliError::usage(format!("{} baselines have keys that start with {key:?}", several.len()))
                .hint(format!("among them: {}", keys.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_first_digits_and_an_ambiguous_one_is_refused() {
        let all: Vec<BaselineManifest> = ["aa11", "aa22", "bb33"]
            .iter()
            .map(|key| BaselineManifest { key: (*key).to_owned(), ..BaselineManifest::default() })
            .collect();
        assert_eq!(chosen(&all, "b").unwrap().key, "bb33");
        assert_eq!(chosen(&all, "aa22").unwrap().key, "aa22");
        for wrong in ["aa", "", "cc"] {
            assert_eq!(chosen(&all, wrong).unwrap_err().exit(), Exit::Usage, "{wrong:?}");
        }
    }
}
