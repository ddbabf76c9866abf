//! Drives the real core in virtual time and tells how long a run takes beside the bound. Reads one JSON object from stdin,
//! prints one JSON array.
//!
//! ```text
//! {"lanes": [4, 64], "overheads_us": [0, 50000], "suites": [
//!     {"name": "uniform", "ids": ["f.py::a", …], "us": [5000, …], "history_ms": [5, …]}]}
//! ```
//!
//! `us` is what each test really takes, `history_ms` what the core is told of it where the run has a history. Each suite runs
//! once for every number of lanes, overhead, grain, with history and without. A unit costs its lane the overhead, and
//! then its tests one after the other. Messages take no time; the core itself does not count.

mod farm;

use serde::{Deserialize, Serialize};

use andon_core::model::Grain;
use farm::{Case, Farm};

type Failure = Box<dyn std::error::Error>;

#[derive(Deserialize)]
struct Asked {
    lanes: Vec<u32>,
    overheads_us: Vec<u64>,
    suites: Vec<Suite>,
}

/// Its lists are as long as each other.
#[derive(Deserialize)]
struct Suite {
    name: String,
    ids: Vec<String>,
    us: Vec<u64>,
    history_ms: Vec<u64>,
}

#[derive(Serialize)]
struct Figures<'a> {
    suite: &'a str,
    lanes: u32,
    overhead_us: u64,
    grain: &'static str,
    history: bool,
    units: u64,
    makespan_us: u64,
    bound_us: u64,
    ratio: f64,
}

fn main() -> Result<(), Failure> {
    let asked: Asked = serde_json::from_reader(std::io::stdin().lock())?;
    let mut figures = Vec::new();
    for suite in &asked.suites {
        if suite.us.len() != suite.ids.len() || suite.history_ms.len() != suite.ids.len() {
            return Err(format!("suite {}: ids, us and history_ms differ in length", suite.name).into());
        }
        for lanes in &asked.lanes {
            for overhead_us in &asked.overheads_us {
                for history in [false, true] {
                    figures.push(measured(suite, *lanes, *overhead_us, Grain::Test, history)?);
                    figures.push(measured(suite, *lanes, *overhead_us, Grain::Batch, history)?);
                }
            }
        }
    }
    serde_json::to_writer(std::io::stdout().lock(), &figures)?;
    Ok(())
}

fn measured(
    suite: &Suite,
    lanes: u32,
    overhead_us: u64,
    grain: Grain,
    history: bool,
) -> Result<Figures<'_>, Failure> {
    let case = Case {
        ids: &suite.ids,
        us: &suite.us,
        history_ms: history.then_some(&suite.history_ms),
        lanes,
        overhead_us,
        grain,
    };
    let done = Farm::new(&case).run()?;
    let bound_us = bound_us(&case);
    Ok(Figures {
        suite: &suite.name,
        lanes,
        overhead_us,
        grain: if grain == Grain::Batch { "batch" } else { "test" },
        history,
        units: done.units,
        makespan_us: done.makespan_us,
        bound_us,
        ratio: done.makespan_us as f64 / bound_us as f64,
    })
}

/// What no order of the tests can be quicker than: all lanes busy to the end, or the longest test. Batches may be of any
/// size: theirs counts the least that there can be, one unit for each lane.
fn bound_us(case: &Case<'_>) -> u64 {
    let lanes = u64::from(case.lanes);
    let units = if case.grain == Grain::Batch { lanes } else { case.us.len() as u64 };
    let all = case.us.iter().sum::<u64>() + units * case.overhead_us;
    let longest = case.us.iter().max().map_or(0, |us| us + case.overhead_us);
    all.div_ceil(lanes).max(longest)
}
