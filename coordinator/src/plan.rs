//! A specification as the core sees it. The rest of it is the workers' business.

use andon_core::model::{Grain, Plan, Policy, SuitePlan};
use andon_proto as wire;
use prost::Message;

/// A run has at most so many suites.
const SUITES_MAX: usize = 1_000;
/// A suite retries a failed test at most so often.
const RETRIES_MAX: u32 = 10;

/// Why a specification is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PlanError {
    #[error("the specification names no {0}")]
    Missing(&'static str),
    #[error("suite {0:?} is there twice")]
    SuiteTwice(String),
    #[error("the specification has more than {SUITES_MAX} suites")]
    TooManySuites,
    #[error("suite {suite:?} asks for {retries} retries, at most {RETRIES_MAX} are given")]
    TooManyRetries { suite: String, retries: u32 },
}

/// Derives the plan of a run, checking what the core relies on.
pub(crate) fn plan_of(spec: &wire::RunSpec) -> Result<Plan, PlanError> {
    for (what, value) in
        [("project", &spec.project), ("commit", &spec.commit), ("source archive", &spec.source_digest)]
    {
        if value.is_empty() {
            return Err(PlanError::Missing(what));
        }
    }
    if spec.suites.is_empty() {
        return Err(PlanError::Missing("suite"));
    }
    if spec.suites.len() > SUITES_MAX {
        return Err(PlanError::TooManySuites);
    }
    let mut suites: Vec<SuitePlan> = Vec::with_capacity(spec.suites.len());
    for suite in &spec.suites {
        if suites.iter().any(|known| known.name == suite.name) {
            return Err(PlanError::SuiteTwice(suite.name.clone()));
        }
        if suite.retries > RETRIES_MAX {
            return Err(PlanError::TooManyRetries { suite: suite.name.clone(), retries: suite.retries });
        }
        suites.push(SuitePlan {
            name: suite.name.clone(),
            retries: suite.retries,
            grain: grain_of(suite.rebase()),
        });
    }
    let asked = spec.policy.unwrap_or_default();
    let policy = Policy {
        max_failures: (asked.max_failures > 0).then_some(asked.max_failures),
        fail_fast: asked.fail_fast,
        retry_budget: asked.retry_budget,
        supersede: asked.supersede,
        hedge: asked.hedge,
    };
    let group = spec.baseline.as_ref().map(|baseline| format!("{}/{}", spec.project, baseline.spec_digest));
    Ok(Plan {
        suites,
        policy,
        merge_key: asked.merge.then(|| merge_key(spec)),
        baseline_group: spec.stack.as_ref().map(|_| group.unwrap_or_default()),
    })
}

/// Equal for specifications that ask for the same of the same commit, whoever asks and from whichever branch.
fn merge_key(spec: &wire::RunSpec) -> String {
    let asked = wire::RunSpec { provenance: None, git_ref: String::new(), ..spec.clone() };
    blake3::hash(&asked.encode_to_vec()).to_hex().to_string()
}

fn grain_of(unit: wire::RebaseUnit) -> Grain {
    match unit {
        wire::RebaseUnit::Unspecified | wire::RebaseUnit::Test => Grain::Test,
        wire::RebaseUnit::Class => Grain::Class,
        wire::RebaseUnit::File => Grain::File,
        wire::RebaseUnit::Batch => Grain::Batch,
        wire::RebaseUnit::Never => Grain::Never,
    }
}
