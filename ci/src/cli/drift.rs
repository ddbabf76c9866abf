//! `andon drift`: what tests changed of their stack, which the rebases after them undid.

use andon_proto::{GetDriftRequest, ListInexactRequest, TestDrift};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::error::CliError;
use super::farm::FarmArgs;
use super::{clock, out, show};
use crate::report::exit::Exit;
use crate::report::{inexact, text};

/// Most stands that were not exact that are listed.
const INEXACT_MAX: u32 = 100;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon drift 12                                   how much each test of run 12 changed\n  \
                  andon drift 12 tests/test_orders.py::test_place  which files\n  andon drift --growing --json\n  andon drift --inexact                            rebases that did not put everything back"
)]
pub(crate) struct DriftArgs {
    /// Number of the run [default: the latest], then the test as `show` prints it: `suite/id` or `id`
    #[arg(value_name = "RUN|TEST", num_args = 0..=2)]
    words: Vec<String>,
    /// Which attempt, as `show --json` numbers them [default: the last]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    attempt: Option<u64>,
    /// Only tests that changed much more than in the ten runs before
    #[arg(long)]
    growing: bool,
    /// Instead, rebases of the whole farm that did not put everything back: they were seen, and their lanes rebuilt
    #[arg(long, conflicts_with_all = ["words", "attempt", "growing"])]
    inexact: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// A test's line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    suite: &'a str,
    id: &'a str,
    dirtied_bytes: u64,
    usual_bytes: u64,
    grows: bool,
}

/// What a worker tells of a unit; see `Footprint` in farm.proto.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct Changes {
    trees: Vec<Tree>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Tree {
    tree: String,
    footprint: Sum,
    files: Vec<File>,
    left_out: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct Sum {
    files: u64,
    bytes: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct File {
    path: String,
    change: String,
    bytes: u64,
}

pub(crate) async fn drift(args: DriftArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    if args.inexact {
        return inexact(farm, args.json).await;
    }
    let (number, mut tests) = show::split_run(&args.words);
    let test = tests.pop().unwrap_or_default();
    if !tests.is_empty() {
        return Err(CliError::usage("one test at a time").hint("andon drift RUN TEST"));
    }
    let connection = farm.connect().await?;
    let run = show::run_or_latest(&connection, number, "").await?;
    let request = GetDriftRequest { run, test: test.clone(), attempt: args.attempt.unwrap_or(0) };
    let answer = connection.farm().get_drift(request).await?.into_inner();
    if test.is_empty() {
        return of_run(&answer.tests, args.growing, args.json);
    }
    if answer.changes.is_empty() {
        let told = format!("what attempt {} of {test} changed is not known", answer.attempt);
        return Err(CliError::usage(told).hint(
            "it is measured by the rebase after a test, and not told where too many files were changed",
        ));
    }
    let changes: Changes = serde_json::from_str(&answer.changes)
        .map_err(|error| CliError::infrastructure("the worker's list cannot be read").because(&error))?;
    if args.json {
        out::json(&changes)?;
        return Ok(Exit::Passed);
    }
    for line in of_test(&changes) {
        out::line(&line)?;
    }
    Ok(Exit::Passed)
}

async fn inexact(farm: &FarmArgs, json: bool) -> Result<Exit, CliError> {
    let connection = farm.connect().await?;
    let request = ListInexactRequest { limit: INEXACT_MAX, ..ListInexactRequest::default() };
    let told = connection.farm().list_inexact(request).await?.into_inner().told;
    if json {
        let told: Vec<_> = told.iter().filter_map(inexact::json).collect();
        out::json(&told)?;
        return Ok(Exit::Passed);
    }
    for line in inexact::lines(&told, clock::unix_ms()) {
        out::line(&line)?;
    }
    Ok(Exit::Passed)
}

fn of_run(tests: &[TestDrift], growing: bool, json: bool) -> Result<Exit, CliError> {
    let chosen = tests.iter().filter(|test| test.grows || !growing);
    let lines: Vec<Line<'_>> = chosen
        .map(|test| Line {
            suite: &test.suite,
            id: &test.id,
            dirtied_bytes: test.dirtied_bytes,
            usual_bytes: test.usual_bytes,
            grows: test.grows,
        })
        .collect();
    if json {
        out::json(&lines)?;
        return Ok(Exit::Passed);
    }
    for line in &lines {
        let more =
            if line.grows { format!("   GROWS, usually {}", size(line.usual_bytes)) } else { String::new() };
        let name = format!("{}/{}", line.suite, line.id);
        let name = text::one_line(&name);
        out::line(&format!("{:>10}  {name}{more}", size(line.dirtied_bytes)))?;
    }
    Ok(Exit::Passed)
}

pub(super) fn of_test(changes: &Changes) -> Vec<String> {
    let mut lines = Vec::new();
    for tree in &changes.trees {
        let Sum { files, bytes } = tree.footprint;
        lines.push(format!("{}: {files} changed, {}", text::one_line(&tree.tree), size(bytes)));
        for file in &tree.files {
            let path = if file.path.is_empty() { "." } else { &file.path };
            let (change, path) = (text::one_line(&file.change), text::one_line(path));
            lines.push(format!("{:>10}  {change:<10} {path}", size(file.bytes)));
        }
        if tree.left_out > 0 {
            lines.push(format!("            and {} more", tree.left_out));
        }
    }
    if lines.is_empty() {
        lines.push("nothing was changed".to_owned());
    }
    lines
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tests_changes_are_told_by_tree_the_largest_first_and_no_escape_reaches_the_terminal() {
        let told = r#"{"footprint":{"files":3,"bytes":5000000},"trees":[{"tree":"volume/data","footprint":{"files":3,
            "bytes":5000000},"files":[{"path":"ibdata1","change":"content","bytes":4096},
            {"path":"a\u001b[31m","change":"added","bytes":0}],"left_out":1}]}"#;
        let changes: Changes = serde_json::from_str(told).unwrap();
        let lines = of_test(&changes);
        assert_eq!(lines[0], "volume/data: 3 changed, 5.0 MB");
        assert_eq!(lines[1], "    4.1 kB  content    ibdata1");
        assert!(!lines[2].contains('\u{1b}'), "{:?}", lines[2]);
        assert_eq!(lines[3], "            and 1 more");
        assert_eq!(of_test(&Changes::default()), ["nothing was changed"]);
    }
}
