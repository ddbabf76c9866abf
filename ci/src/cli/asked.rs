//! Which tests, how often, on how many lanes: options of a run, and what they are on the wire.
//!
//! Which tests there are is known after a discovery, so what is chosen here is carried out by the coordinator.

use andon_proto::name_filter::Kind;
use andon_proto::{Asked, NameFilter};
use clap::Args;

use super::error::CliError;

/// Repeats of `--until-fail` without `--repeat`.
const UNTIL_FAIL_TIMES: u32 = 100;
/// The coordinator's limit, too.
const REPEAT_MAX: i64 = 1_000;
const SHARDS_MAX: u32 = 10_000;
const LANES_MAX: i64 = 100_000;

/// Variables in which CI systems tell a job which part it is: index, total, and where the index begins.
const SHARD_VARIABLES: [(&str, &str, u32); 4] = [
    // GitLab
    ("CI_NODE_INDEX", "CI_NODE_TOTAL", 1),
    // Bazel
    ("TEST_SHARD_INDEX", "TEST_TOTAL_SHARDS", 0),
    ("BUILDKITE_PARALLEL_JOB", "BUILDKITE_PARALLEL_JOB_COUNT", 0),
    ("CIRCLE_NODE_INDEX", "CIRCLE_NODE_TOTAL", 0),
];

#[derive(Debug, Args)]
pub(crate) struct AskedArgs {
    /// Only tests whose `suite/id` holds this; with `*` or `?`: is like this; after `=`: is this, or whose id is
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// As FILTER; may be given several times
    #[arg(long = "filter", value_name = "FILTER")]
    more: Vec<String>,
    /// Only this part of the units, by a hash of their names: `2/4`; `auto`: as the CI system's variables say
    #[arg(long, value_name = "M/N")]
    shard: Option<String>,
    /// Run each test so often, each time on a pristine lane; one failure fails the run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=REPEAT_MAX))]
    repeat: Option<u32>,
    /// Do not repeat a test after its first failure; up to --repeat times, or 100
    #[arg(long)]
    until_fail: bool,
    /// Hold at most so many lanes at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=LANES_MAX))]
    lanes: Option<u32>,
}

impl AskedArgs {
    /// Nothing where nothing is asked for: the specification is then the same as a push's.
    pub(super) fn wire(&self) -> Result<Option<Asked>, CliError> {
        let words = self.filters.iter().chain(&self.more);
        let filters = words.map(|word| filter(word)).collect::<Result<_, _>>()?;
        let (shard, shards) = match self.shard.as_deref() {
            None => (0, 0),
            Some("auto") => shard_of(|name| std::env::var(name).ok())?,
            Some(text) => shard(text)?,
        };
        let once = if self.until_fail { UNTIL_FAIL_TIMES } else { 0 };
        let asked = Asked {
            filters,
            shard,
            shards,
            repeat: self.repeat.unwrap_or(once),
            until_fail: self.until_fail,
            lanes_max: self.lanes.unwrap_or(0),
            ..Asked::default()
        };
        Ok((asked != Asked::default()).then_some(asked))
    }
}

fn filter(word: &str) -> Result<NameFilter, CliError> {
    let kind = match word.strip_prefix('=') {
        Some(name) => Kind::Exact(name.to_owned()),
        None if word.contains(['*', '?']) => Kind::Glob(word.to_owned()),
        None => Kind::Part(word.to_owned()),
    };
    if matches!(word, "" | "=") {
        return Err(CliError::usage("a filter is empty")
            .hint("part of a name, a name with * and ?, or =NAME for exactly that"));
    }
    Ok(NameFilter { kind: Some(kind) })
}

fn shard(text: &str) -> Result<(u32, u32), CliError> {
    let numbers = text.split_once('/').and_then(|(m, n)| Some((m.parse().ok()?, n.parse().ok()?)));
    match numbers {
        Some((m, n)) if (1..=n).contains(&m) && n <= SHARDS_MAX => Ok((m, n)),
        _ => Err(CliError::usage(format!("{text:?} is no shard"))
            .hint(format!("M/N, from 1/N to N/N, N at most {SHARDS_MAX}; or auto"))),
    }
}

/// The first pair that is set says it.
fn shard_of(variable: impl Fn(&str) -> Option<String>) -> Result<(u32, u32), CliError> {
    for (index, total, first) in SHARD_VARIABLES {
        let (Some(at), Some(of)) = (variable(index), variable(total)) else { continue };
        let numbers = at.trim().parse::<u32>().ok().zip(of.trim().parse::<u32>().ok());
        return match numbers.and_then(|(at, of)| Some((at.checked_sub(first)?.checked_add(1)?, of))) {
            Some((m, n)) if m <= n && n <= SHARDS_MAX => Ok((m, n)),
            _ => Err(CliError::usage(format!("{index} is {at:?} and {total} is {of:?}: no shard"))),
        };
    }
    let known = SHARD_VARIABLES.map(|(index, total, _)| format!("{index} and {total}")).join("; ");
    Err(CliError::usage("--shard auto: no variable says which shard this is").hint(format!("known: {known}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::exit::Exit;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        asked: AskedArgs,
    }

    fn asked(line: &[&str]) -> Option<Asked> {
        let line = Line::parse_from(std::iter::once(&"run").chain(line));
        line.asked.wire().expect("it can be asked")
    }

    fn kinds(line: &[&str]) -> Vec<Kind> {
        asked(line).expect("something").filters.into_iter().filter_map(|filter| filter.kind).collect()
    }

    #[test]
    fn a_filter_is_a_part_a_glob_or_after_an_equals_sign_the_name() {
        assert_eq!(
            kinds(&["orders", "a*b", "x?", "=t[*]", "--filter", "more"]),
            [
                Kind::Part("orders".into()),
                Kind::Glob("a*b".into()),
                Kind::Glob("x?".into()),
                Kind::Exact("t[*]".into()),
                Kind::Part("more".into()),
            ]
        );
        for wrong in ["", "="] {
            assert_eq!(filter(wrong).unwrap_err().exit(), Exit::Usage, "{wrong:?}");
        }
    }

    #[test]
    fn nothing_asked_is_nothing_on_the_wire() {
        assert_eq!(asked(&[]), None);
    }

    #[test]
    fn shards_are_counted_from_one() {
        assert_eq!(shard("1/1").unwrap(), (1, 1));
        assert_eq!(shard("4/4").unwrap(), (4, 4));
        for wrong in ["0/4", "5/4", "1", "/", "a/b", "-1/4", "1/0", "1/99999", "1/2/3"] {
            let error = shard(wrong).unwrap_err();
            assert_eq!(error.exit(), Exit::Usage, "{wrong}");
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }

    #[test]
    fn the_variables_of_ci_systems_are_understood() {
        let of = |known: &[(&str, &str)]| {
            let known: Vec<_> = known.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            shard_of(move |name| {
                known.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
            })
        };
        assert_eq!(of(&[("CI_NODE_INDEX", "2"), ("CI_NODE_TOTAL", "4")]).unwrap(), (2, 4));
        assert_eq!(of(&[("TEST_SHARD_INDEX", "0"), ("TEST_TOTAL_SHARDS", "4")]).unwrap(), (1, 4));
        assert_eq!(of(&[("CIRCLE_NODE_INDEX", "3"), ("CIRCLE_NODE_TOTAL", "4")]).unwrap(), (4, 4));
        for wrong in [
            &[][..],
            &[("CI_NODE_INDEX", "2")],
            &[("CI_NODE_INDEX", "0"), ("CI_NODE_TOTAL", "4")],
            &[("CI_NODE_INDEX", "5"), ("CI_NODE_TOTAL", "4")],
            &[("TEST_SHARD_INDEX", "4"), ("TEST_TOTAL_SHARDS", "4")],
            &[("TEST_SHARD_INDEX", "x"), ("TEST_TOTAL_SHARDS", "4")],
        ] {
            assert_eq!(of(wrong).unwrap_err().exit(), Exit::Usage, "{wrong:?}");
        }
    }

    #[test]
    fn repeats_until_a_failure_have_a_bound() {
        let until = asked(&["--until-fail"]).unwrap();
        assert_eq!((until.repeat, until.until_fail), (100, true));
        let until = asked(&["--until-fail", "--repeat", "7"]).unwrap();
        assert_eq!((until.repeat, until.until_fail), (7, true));
        assert_eq!(asked(&["--repeat", "3", "--lanes", "2"]).unwrap().lanes_max, 2);
        for wrong in [["--repeat", "0"], ["--repeat", "1001"], ["--lanes", "0"]] {
            assert!(Line::try_parse_from(std::iter::once(&"run").chain(&wrong)).is_err(), "{wrong:?}");
        }
    }
}
