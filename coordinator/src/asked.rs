//! What a specification asks beyond the project's configuration, as the core sees it; bounded and checked.

use std::collections::BTreeSet;

use andon_core::asked::{Asked, Pattern, Preference, Repeat, Selection, Shard};
use andon_core::ids::WorkerId;
use andon_proto as wire;
use wire::name_filter::Kind;

/// A run names its tests by at most so many filters …
const FILTERS_MAX: usize = 200;
/// … each of so many bytes: as long as a test's id may be, with its suite.
const FILTER_BYTES_MAX: usize = 8_192;
/// The most shards.
const SHARDS_MAX: u32 = 10_000;
/// A test is repeated at most so often in a run.
const REPEAT_MAX: u32 = 1_000;
/// A run prefers or avoids at most so many workers by name.
const WORKERS_MAX: usize = 1_000;

/// What is asked for that cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum AskedError {
    #[error("a run names its tests by at most {FILTERS_MAX} filters")]
    TooManyFilters,
    #[error("a filter has 1 to {FILTER_BYTES_MAX} bytes")]
    FilterSize,
    #[error("there is no shard {shard} of {shards}: shards are 1/N to N/N, N at most {SHARDS_MAX}")]
    Shard { shard: u32, shards: u32 },
    #[error("tests are to be repeated {0} times, at most {REPEAT_MAX} are given")]
    Repeat(u32),
    #[error("a run names at most {WORKERS_MAX} workers")]
    TooManyWorkers,
}

/// Checks and converts.
pub(crate) fn asked_of(asked: Option<&wire::Asked>) -> Result<Asked, AskedError> {
    let Some(asked) = asked else { return Ok(Asked::default()) };
    if asked.filters.len() > FILTERS_MAX {
        return Err(AskedError::TooManyFilters);
    }
    let patterns = asked.filters.iter().map(pattern).collect::<Result<_, _>>()?;
    let shard = match (asked.shard, asked.shards) {
        (0, 0) => None,
        (shard, shards) if shard == 0 || shard > shards || shards > SHARDS_MAX => {
            return Err(AskedError::Shard { shard, shards });
        }
        (shard, total) => Some(Shard { index: shard - 1, total }),
    };
    if asked.repeat > REPEAT_MAX {
        return Err(AskedError::Repeat(asked.repeat));
    }
    Ok(Asked {
        selection: Selection { patterns, shard },
        repeat: Repeat { times: asked.repeat.max(1), until_fail: asked.until_fail },
        lanes_max: (asked.lanes_max > 0).then_some(asked.lanes_max),
        workers: Preference { on: workers(&asked.on_workers)?, off: workers(&asked.off_workers)? },
        trial: asked.trial,
    })
}

fn pattern(filter: &wire::NameFilter) -> Result<Pattern, AskedError> {
    let pattern = match filter.kind.clone().ok_or(AskedError::FilterSize)? {
        Kind::Part(text) => Pattern::Part(text),
        Kind::Glob(text) => Pattern::Glob(text),
        Kind::Exact(text) => Pattern::Exact(text),
    };
    let (Pattern::Part(text) | Pattern::Glob(text) | Pattern::Exact(text)) = &pattern;
    if text.is_empty() || text.len() > FILTER_BYTES_MAX {
        return Err(AskedError::FilterSize);
    }
    Ok(pattern)
}

fn workers(names: &[String]) -> Result<BTreeSet<WorkerId>, AskedError> {
    if names.len() > WORKERS_MAX {
        return Err(AskedError::TooManyWorkers);
    }
    Ok(names.iter().map(|name| WorkerId(name.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_is_everything_once() {
        assert_eq!(asked_of(None), Ok(Asked::default()));
        assert_eq!(asked_of(Some(&wire::Asked::default())), Ok(Asked::default()));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let ask = |asked: wire::Asked| asked_of(Some(&asked)).expect_err("is refused").to_string();
        for (shard, shards) in [(0, 2), (3, 2), (1, 0), (1, 10_001)] {
            let said = ask(wire::Asked { shard, shards, ..Default::default() });
            assert!(said.contains(&format!("shard {shard} of {shards}")), "{said}");
        }
        assert!(ask(wire::Asked { repeat: 1_001, ..Default::default() }).contains("at most 1000"));
        let filter = |text: &str| wire::NameFilter { kind: Some(Kind::Part(text.into())) };
        for filters in [
            vec![filter("")],
            vec![filter(&"x".repeat(9_000))],
            vec![wire::NameFilter::default()],
            vec![filter("x"); 201],
        ] {
            assert!(ask(wire::Asked { filters, ..Default::default() }).contains("filter"));
        }
        let on_workers = vec!["w".to_owned(); 1_001];
        assert!(ask(wire::Asked { on_workers, ..Default::default() }).contains("workers"));
    }

    #[test]
    fn what_can_be_is_taken_over() {
        let asked = asked_of(Some(&wire::Asked {
            filters: vec![wire::NameFilter { kind: Some(Kind::Glob("a*".into())) }],
            shard: 2,
            shards: 3,
            repeat: 7,
            until_fail: true,
            lanes_max: 4,
            on_workers: vec!["w1".into()],
            off_workers: vec!["w2".into()],
            in_order: true,
            trial: true,
        }))
        .expect("it can be");
        assert_eq!(asked.selection.patterns, [Pattern::Glob("a*".into())]);
        assert_eq!(asked.selection.shard, Some(Shard { index: 1, total: 3 }));
        assert_eq!(asked.repeat, Repeat { times: 7, until_fail: true });
        assert_eq!((asked.lanes_max, asked.trial), (Some(4), true));
        assert!(asked.workers.is_against(&WorkerId("w2".into())));
    }
}
