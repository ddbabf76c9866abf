//! How projects share a farm: the options that the operator gives, and what `farm.json` keeps of them.

use std::collections::BTreeMap;

use clap::Args;
use serde::{Deserialize, Serialize};

/// The largest weight or quota.
const NUMBER_MAX: u32 = 100_000;

/// What the operator says of projects' shares; what is not given stays as it is.
#[derive(Debug, Default, Clone, Args)]
pub(crate) struct ShareArgs {
    /// At most so many lanes for a project at a time; 0 takes the limit away
    #[arg(long, value_name = "PROJECT=LANES", value_parser = pair)]
    quota: Vec<(String, u32)>,
    /// A project's share of the lanes beside others'; each has 1 unless told
    #[arg(long, value_name = "PROJECT=N", value_parser = pair)]
    weight: Vec<(String, u32)>,
}

/// As `farm.json` keeps them.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Shares {
    pub(crate) quotas: BTreeMap<String, u32>,
    pub(crate) weights: BTreeMap<String, u32>,
}

impl Shares {
    pub(crate) fn take(&mut self, told: &ShareArgs) {
        for (kept, told) in [(&mut self.quotas, &told.quota), (&mut self.weights, &told.weight)] {
            kept.extend(told.iter().cloned());
            kept.retain(|_, number| *number > 0);
        }
    }
}

fn pair(text: &str) -> Result<(String, u32), String> {
    let form = format!("write PROJECT=N, N at most {NUMBER_MAX}");
    let (project, number) = text.split_once('=').ok_or_else(|| form.clone())?;
    let number = number.parse().ok().filter(|number| *number <= NUMBER_MAX).ok_or_else(|| form.clone())?;
    if !andon::config::is_name(project) {
        return Err(format!("{project:?} is no name of a project"));
    }
    Ok((project.to_owned(), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_kept_and_zero_takes_it_away() {
        let told = |quota: &[&str]| ShareArgs {
            quota: quota.iter().map(|text| pair(text).unwrap()).collect(),
            weight: vec![pair("shop=3").unwrap()],
        };
        let mut shares = Shares::default();
        shares.take(&told(&["shop=4", "blog=2"]));
        shares.take(&told(&["blog=0"]));
        assert_eq!(shares.quotas, [("shop".to_owned(), 4)].into());
        assert_eq!(shares.weights, [("shop".to_owned(), 3)].into());
        for wrong in ["shop", "shop=", "shop=x", "shop=-1", "=3", "a b=3", "shop=100001"] {
            assert!(pair(wrong).is_err(), "{wrong}");
        }
    }
}
