//! `andon baseline verify`: are the lanes of all workers the same?

use andon_proto::{ListBaselinesRequest, VerifyBaselineRequest};
use clap::Args;

use super::error::CliError;
use super::farm::FarmArgs;
use super::{lists, out};
use crate::report::congruence;
use crate::report::exit::Exit;

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The key, or its first digits [default: every baseline that a worker has]
    key: Option<String>,
    /// Only this worker
    #[arg(long, value_name = "NAME")]
    worker: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn verify(args: VerifyArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let connection = farm.connect().await?;
    let baseline_key = match &args.key {
        None => String::new(),
        Some(key) => {
            let all = connection.farm().list_baselines(ListBaselinesRequest {}).await?.into_inner().baselines;
            lists::chosen(&all, key)?.key.clone()
        }
    };
    let request = VerifyBaselineRequest { baseline_key, worker: args.worker.unwrap_or_default() };
    let workers = connection.farm().verify_baseline(request).await?.into_inner().workers;
    if args.json {
        out::json(&congruence::json(&workers))?;
    } else {
        out::print(&congruence::text(&workers))?;
    }
    Ok(congruence::exit(&workers))
}
