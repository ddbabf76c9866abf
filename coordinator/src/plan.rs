//! A specification as the core sees it. The rest of it is the workers' business.

use andon_core::asked::Pattern;
use andon_core::model::{Grain, Plan, Policy, SuitePlan};
use andon_core::quarantine::Quarantine;
use andon_proto as wire;
use prost::Message;

use crate::asked::{AskedError, asked_of};

/// A run has at most so many suites.
const SUITES_MAX: usize = 1_000;
/// A suite retries a failed test at most so often.
const RETRIES_MAX: u32 = 10;

/// A run has at most so many quarantines …
const QUARANTINES_MAX: usize = 1_000;
/// … each of whose texts has at most so many bytes: as long as a test's id may be, with its suite.
const QUARANTINE_BYTES_MAX: usize = 8_192;

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
    #[error("the specification has more than {QUARANTINES_MAX} quarantines")]
    TooManyQuarantines,
    #[error("a quarantine names no tests, or by more than {QUARANTINE_BYTES_MAX} bytes")]
    QuarantineOfNothing,
    #[error("a quarantine has no owner, or none that can be one")]
    QuarantineOfNobody,
    #[error(transparent)]
    Asked(#[from] AskedError),
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
    let in_order = spec.asked.as_ref().is_some_and(|asked| asked.in_order);
    let asked = asked_of(spec.asked.as_ref())?;
    // Who repeats tests, or has them run in one place, wants to see it happen.
    let as_it_comes = asked.repeat.is_wanted() || asked.trial || in_order;
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
            grain: if in_order { Grain::Never } else { grain_of(suite.rebase()) },
        });
    }
    let wanted = spec.policy.unwrap_or_default();
    let policy = Policy {
        max_failures: (wanted.max_failures > 0).then_some(wanted.max_failures),
        fail_fast: wanted.fail_fast,
        retry_budget: wanted.retry_budget,
        supersede: wanted.supersede,
        hedge: wanted.hedge && !as_it_comes,
    };
    let group = spec.baseline.as_ref().map(|baseline| format!("{}/{}", spec.project, baseline.spec_digest));
    Ok(Plan {
        suites,
        policy,
        merge_key: (wanted.merge && !as_it_comes).then(|| merge_key(spec)),
        baseline_group: spec.stack.as_ref().map(|_| group.unwrap_or_default()),
        asked,
        quarantine: quarantine_of(spec)?,
    })
}

/// The quarantines of a specification, checked.
pub(crate) fn quarantine_of(spec: &wire::RunSpec) -> Result<Vec<Quarantine>, PlanError> {
    use wire::quarantine::Tests;
    if spec.quarantines.len() > QUARANTINES_MAX {
        return Err(PlanError::TooManyQuarantines);
    }
    let is_fit = |text: &str| !text.is_empty() && text.len() <= QUARANTINE_BYTES_MAX;
    let checked = |of: &wire::Quarantine| {
        let tests = match &of.tests {
            Some(Tests::Test(name)) if is_fit(name) => Pattern::Exact(name.clone()),
            Some(Tests::Pattern(glob)) if is_fit(glob) => Pattern::Glob(glob.clone()),
            _ => return Err(PlanError::QuarantineOfNothing),
        };
        let until_unix_ms = of.until_unix_ms.max(1);
        let held = andon_figures::quarantine::Quarantine::new(&of.owner, until_unix_ms - 1, until_unix_ms);
        let owner = held.map_err(|_| PlanError::QuarantineOfNobody)?.owner().to_owned();
        let suite = (!of.suite.is_empty()).then(|| of.suite.clone());
        let reason = of.reason.chars().take(QUARANTINE_BYTES_MAX / 4).collect();
        Ok(Quarantine { suite, tests, owner, until_unix_ms, reason })
    };
    spec.quarantines.iter().map(checked).collect()
}

/// True where both runs start from the same baseline for certain: same source, stack, seed, and image that runs the seed.
pub(crate) fn same_baseline(one: &wire::RunSpec, other: &wire::RunSpec) -> bool {
    let seeds_in = |spec: &wire::RunSpec| spec.suites.first().map(|suite| suite.image.clone());
    one.project == other.project
        && one.source_digest == other.source_digest
        && one.stack == other.stack
        && one.baseline == other.baseline
        && seeds_in(one) == seeds_in(other)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> wire::RunSpec {
        let suite = |name: &str, image: &str| wire::Suite {
            name: name.into(),
            image: Some(wire::Image { source: Some(wire::image::Source::Reference(image.into())) }),
            ..Default::default()
        };
        wire::RunSpec {
            project: "shop".into(),
            commit: "c0ffee".into(),
            source_digest: "d1".into(),
            suites: vec![suite("it", "one"), suite("ui", "two")],
            policy: Some(wire::Policy { hedge: true, merge: true, ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn whoever_repeats_tests_sees_each_of_them_run() {
        let plain = plan_of(&spec()).expect("a plan");
        assert!(plain.policy.hedge && plain.merge_key.is_some());
        for asked in [
            wire::Asked { repeat: 2, ..Default::default() },
            wire::Asked { trial: true, ..Default::default() },
            wire::Asked { in_order: true, ..Default::default() },
        ] {
            let plan = plan_of(&wire::RunSpec { asked: Some(asked), ..spec() }).expect("a plan");
            assert!(!plan.policy.hedge && plan.merge_key.is_none());
        }
    }

    #[test]
    fn tests_in_order_are_one_unit_whatever_their_suite_says() {
        let asked = Some(wire::Asked { in_order: true, ..Default::default() });
        let plan = plan_of(&wire::RunSpec { asked, ..spec() }).expect("a plan");
        assert!(plan.suites.iter().all(|suite| suite.grain == Grain::Never));
    }

    #[test]
    fn a_quarantine_of_nothing_or_of_nobody_is_refused() {
        use wire::quarantine::Tests;
        let fit = wire::Quarantine {
            tests: Some(Tests::Test("a.py::x".into())),
            owner: " @shop/cart ".into(),
            until_unix_ms: 5,
            ..Default::default()
        };
        let of = |quarantine: wire::Quarantine| {
            plan_of(&wire::RunSpec { quarantines: vec![quarantine], ..spec() }).map(|plan| plan.quarantine)
        };
        let taken = of(fit.clone()).expect("a plan").remove(0);
        assert_eq!(
            (taken.owner.as_str(), taken.suite.as_deref(), taken.until_unix_ms),
            ("@shop/cart", None, 5)
        );
        assert!(taken.names("ui", "a.py::x"));
        assert_eq!(of(wire::Quarantine { tests: None, ..fit.clone() }), Err(PlanError::QuarantineOfNothing));
        let long = Some(Tests::Pattern("*".repeat(10_000)));
        assert_eq!(of(wire::Quarantine { tests: long, ..fit.clone() }), Err(PlanError::QuarantineOfNothing));
        assert_eq!(of(wire::Quarantine { owner: " ".into(), ..fit }), Err(PlanError::QuarantineOfNobody));
    }

    #[test]
    fn a_baseline_is_the_same_where_all_that_makes_it_is() {
        let with = |change: fn(&mut wire::RunSpec)| {
            let mut other = spec();
            change(&mut other);
            same_baseline(&spec(), &other)
        };
        assert!(with(|_| {}));
        assert!(with(|spec| spec.asked = Some(wire::Asked { repeat: 5, ..Default::default() })));
        assert!(with(|spec| spec.suites[1].retries = 3));
        assert!(!with(|spec| spec.source_digest = "d2".into()));
        assert!(!with(|spec| spec.project = "other".into()));
        assert!(!with(|spec| spec.suites.swap(0, 1)));
        assert!(!with(|spec| spec.stack = Some(wire::Stack::default())));
        assert!(!with(|spec| spec.baseline = Some(wire::BaselineSpec::default())));
    }
}
