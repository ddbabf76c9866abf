//! Scores what finds change points, causes, flakes and breakages against made runs whose truth is known, beside the plain ways, and prints
//! the page `docs/benchmarks/figures.md`:
//!
//! ```text
//! cargo run --release -p andon-figures --example score > docs/benchmarks/figures.md
//! ```
//!
//! Seeds, sizes and tolerances are printed. No clock and no machine is in it: the same page everywhere. Two numbers as arguments are other seeds,
//! the first and the last.

mod changes;
mod flakes;
mod history;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use andon_figures::made::score::{Score, TOLERANCE};
use andon_figures::made::{Model, World};
use andon_figures::shift::{Cause, POINTS_MAX, SEGMENT_MIN, Settings};
use changes::{Grain, Method};
use history::History;

/// Worlds are made from these. None of them was looked at while thresholds were chosen: those were chosen on seeds from 101 on.
const SEEDS: RangeInclusive<u64> = 1..=5;

const COLUMNS: &str = "found | there | precision | recall | F1 |";

fn main() {
    let model = Model::default();
    let asked: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let seeds = if let [first, last] = asked[..] { first..=last } else { SEEDS };
    let mut changes: BTreeMap<(Grain, Method), Score> = BTreeMap::new();
    let mut causes: BTreeMap<(Grain, Cause), BTreeMap<Cause, u64>> = BTreeMap::new();
    let mut calm: BTreeMap<(Grain, Method), (u64, u64)> = BTreeMap::new();
    let mut flaky: BTreeMap<&str, Score> = BTreeMap::new();
    let mut broken: BTreeMap<&str, Score> = BTreeMap::new();
    for seed in seeds.clone() {
        let world = World::new(Model { seed, ..model });
        let history = History::new(&world);
        for grain in [Grain::Suite, Grain::Test] {
            let told = changes::score(&history, grain);
            for (method, score) in told.scores {
                changes.entry((grain, method)).or_default().add(score);
            }
            for (truth, cause) in told.causes {
                *causes.entry((grain, truth)).or_default().entry(cause).or_default() += 1;
            }
        }
        let world = World::new(Model { seed, slowdowns: 0, baselines: 0, farms: 0, ..model });
        let without = History::new(&world);
        for grain in [Grain::Suite, Grain::Test] {
            let told = changes::score(&without, grain);
            for (method, score) in told.scores {
                let (alarms, series) = calm.entry((grain, method)).or_default();
                (*alarms, *series) = (*alarms + score.wrong, *series + told.series);
            }
        }
        for (way, score) in flakes::flaky(&history) {
            flaky.entry(way).or_default().add(score);
        }
        for (way, score) in flakes::broken(&history) {
            broken.entry(way).or_default().add(score);
        }
    }
    head(&model, &seeds);
    changes_page(&changes);
    calm_page(&calm);
    causes_page(&causes);
    flakes_page(&flaky, &broken);
}

fn cells(score: &Score) -> String {
    let (found, there) = (score.right + score.wrong, score.right + score.missed);
    let shares = [score.precision(), score.recall(), score.both()].map(|share| format!("{share:.2}"));
    format!("{found} | {there} | {} | {} | **{}**", shares[0], shares[1], shares[2])
}

fn head(model: &Model, seeds: &RangeInclusive<u64>) {
    let Model { projects, commits, suites, tests, slowdowns, baselines, farms, breakages, .. } = model;
    let settings = Settings::default();
    println!("# Figures: change points, causes, flakes and breakages against a known truth\n");
    println!(
        "Regenerate with `cargo run --release -p andon-figures --example score > docs/benchmarks/figures.md`. No clock is in it: the page is the"
    );
    println!(
        "same on every machine. Worlds are made by `coordinator/figures/src/made.rs`, which documents the model, from the seeds {} to {}:",
        seeds.start(),
        seeds.end()
    );
    println!(
        "each has {projects} projects of {commits} commits, {suites} suites a project, {tests} tests a suite; {slowdowns} slow-downs or speed-ups and {baselines}"
    );
    println!(
        "changed baselines a project (half of these change durations), {farms} changes of the farm, a tenth of the tests flaky, {breakages} breakages a project."
    );
    println!("They are small on purpose; thresholds were chosen on other seeds.\n");
    println!(
        "*Found* is what a way told, *there* what it was to find. Settings are the defaults: a change counts from a factor of {} and",
        settings.ratio_min
    );
    println!(
        "{} ms on, with p ≤ {}; at least {SEGMENT_MIN} points on each side, {POINTS_MAX} points at most.\n",
        settings.difference_min_us / 1_000,
        settings.p_max
    );
}

fn changes_page(changes: &BTreeMap<(Grain, Method), Score>) {
    println!("## Change points\n");
    println!(
        "A test's duration is that of its attempt that passed; a suite's the sum of these in runs in which all of it passed. A change"
    );
    println!(
        "is found where a way names a run within {TOLERANCE} of it, in the right direction, once; smaller changes than asked for are neither to be found nor wrong to find."
    );
    println!(
        "The moving average compares the mean of the last 5 runs with that of the 20 before, tells a change when they differ by a factor, and"
    );
    println!("again when they have come together in between.\n");
    for grain in [Grain::Suite, Grain::Test] {
        println!("### {}\n", if grain == Grain::Suite { "Suites" } else { "Tests" });
        println!("| way | {COLUMNS}\n| --- | ---: | ---: | ---: | ---: | ---: |");
        for ((_, method), score) in changes.iter().filter(|((of, _), _)| *of == grain) {
            println!("| {} | {} |", method.name(), cells(score));
        }
        println!();
    }
}

fn calm_page(calm: &BTreeMap<(Grain, Method), (u64, u64)>) {
    println!("### Where nothing changes\n");
    println!(
        "The same worlds without any change: noise, outliers, the rhythm of the day, flakes and breakages alone. Each alarm is a false one.\n"
    );
    println!("| way | suites | false alarms | tests | false alarms |\n| --- | ---: | ---: | ---: | ---: |");
    for (method, (alarms, series)) in
        calm.iter().filter_map(|((grain, method), told)| (*grain == Grain::Suite).then_some((method, told)))
    {
        let (of_tests, tests) = calm.get(&(Grain::Test, *method)).copied().unwrap_or_default();
        println!("| {} | {series} | {alarms} | {tests} | {of_tests} |", method.name());
    }
    println!();
}

fn causes_page(causes: &BTreeMap<(Grain, Cause), BTreeMap<Cause, u64>>) {
    println!("## Causes\n");
    println!(
        "Of the changes that Andon found, what they were (rows) and what it said (columns). Every third change of the farm does not show in what the workers are.\n"
    );
    println!("| | told: code | baseline | farm | unclear |\n| --- | ---: | ---: | ---: | ---: |");
    for ((grain, truth), told) in causes {
        let of = |cause| told.get(&cause).copied().unwrap_or(0);
        let grain = if *grain == Grain::Suite { "suites" } else { "tests" };
        let cells =
            [Cause::Code, Cause::Baseline, Cause::Farm, Cause::Unclear].map(|cause| of(cause).to_string());
        println!("| {grain}, truly {} | {} |", word(*truth), cells.join(" | "));
    }
    println!();
}

fn word(cause: Cause) -> &'static str {
    match cause {
        Cause::Code => "code",
        Cause::Baseline => "baseline",
        Cause::Farm => "farm",
        Cause::Unclear => "several at once",
    }
}

fn flakes_page(flaky: &BTreeMap<&str, Score>, broken: &BTreeMap<&str, Score>) {
    println!("## Flaky tests\n");
    println!(
        "There is a flaky test if it ever failed by its nature; one whose nature never showed is not to be found. Breakages are not flakes. The"
    );
    println!(
        "moving average calls a test flaky if between 5 % and 60 % of its first attempts failed in any 20 runs in a row.\n"
    );
    println!("| way | {COLUMNS}\n| --- | ---: | ---: | ---: | ---: | ---: |");
    flaky.iter().for_each(|(way, score)| println!("| {way} | {} |", cells(score)));
    println!("\n## Broken tests\n");
    println!(
        "Asked after every run of every test that failed it, with what was known by then: is it broken, which blocks even in quarantine, or is it a flake?\n"
    );
    println!("| way | {COLUMNS}\n| --- | ---: | ---: | ---: | ---: | ---: |");
    broken.iter().for_each(|(way, score)| println!("| {way} | {} |", cells(score)));
}
