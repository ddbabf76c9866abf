//! A whole cluster in one thread and in virtual time, around the real core, the real rounds and the real memory store;
//! with everything going wrong that can, as a seed says. What must hold is checked by books of its own (`ledger.rs`,
//! `watch.rs`, `rule.rs`). `docs/simulation.md` says what is simulated and what is not; `ci/simulate` runs it.

mod cluster;
mod coordinator;
mod dice;
mod ledger;
mod liar;
mod links;
mod network;
mod process;
mod projects;
mod rule;
mod storm;
mod trace;
mod watch;
mod weather;
mod wire;
mod worker;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cluster::{Cluster, Summary};
use trace::Trace;

/// Seeds that show what was wrong once, so that they are played however few are asked for.
const ONCE_FAILED: [u64; 5] = [
    3,   // a footprint of a run that never was
    5,   // an assignment that reached a later session
    61,  // a granted retry that the farm's failure took back
    380, // the cord, while suites were still to be found
    730, // a failure that another run's verdict hid
];
/// How many of the seeds that fail are named before the rest is left alone.
const FAILURES_NAMED: usize = 5;

/// Plays one seed to its end.
fn play(seed: u64, trace: Trace) -> Result<(Summary, Trace), String> {
    let mut cluster = Cluster::new(seed, trace);
    match catch_unwind(AssertUnwindSafe(|| cluster.play())) {
        Ok(Ok(summary)) => Ok((summary, cluster.trace)),
        Ok(Err(broken)) => Err(format!("seed {seed}, at {} ms: {broken}", cluster.now_ms)),
        Err(_) => Err(format!("seed {seed}, at {} ms: the core panicked", cluster.now_ms)),
    }
}

/// A number from the environment, which is how `ci/simulate` says what it wants.
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

#[test]
fn no_verdict_is_lost_or_doubled_whatever_the_weather() {
    let one = asked("ANDON_SIMULATE_SEED");
    let trace = if one.is_some() { Trace::Print } else { Trace::Off };
    let seeds = one.map_or(0..asked("ANDON_SIMULATE_SEEDS").unwrap_or(1_000), |seed| seed..seed + 1);
    let (count, mut all, mut failures) = (seeds.end - seeds.start, Summary::default(), Vec::new());
    let once_failed = ONCE_FAILED.into_iter().filter(|seed| one.is_none() && *seed >= seeds.end);
    for seed in seeds.clone().chain(once_failed) {
        match play(seed, trace) {
            Ok((summary, _)) => all.add(summary),
            Err(failure) => failures.push((seed, failure)),
        }
        if failures.len() == FAILURES_NAMED {
            break;
        }
    }
    for (seed, failure) in &failures {
        println!("{failure}\n    to see it again: ci/simulate --seed {seed}");
    }
    println!(
        "seeds={count} runs={} verdicts={} superseded={} broken_sessions={} events={} crashes={} lost={} doubled={}",
        all.runs, all.verdicts, all.superseded, all.breaks, all.events, all.crashes, all.lost, all.doubled
    );
    assert!(failures.is_empty(), "{} seeds or more broke a promise", failures.len());
}

#[test]
fn a_seed_is_one_storm_and_no_other() {
    let hash = |seed| play(seed, Trace::Hash(0)).map(|(_, trace)| trace);
    for seed in 0..20 {
        assert_eq!(hash(seed), hash(seed), "seed {seed}");
    }
    assert_ne!(hash(1), hash(2));
}

/// A storm that never comes proves nothing.
#[test]
fn everything_that_can_happen_does() {
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let mut cluster = Cluster::new(seed, Trace::Off);
        // Whether it ends well is another test's business.
        let _ = cluster.play();
        seen.append(&mut cluster.watch.seen);
    }
    let missing: Vec<_> = EXPECTED.iter().filter(|what| !seen.contains(**what)).collect();
    assert!(missing.is_empty(), "never happened: {missing:?}\nhappened: {seen:#?}");
}

const EXPECTED: [&str; 40] = [
    "verdict Passed",
    "verdict Failed",
    "verdict Flaky",
    "verdict TimedOut",
    "verdict Skipped",
    "verdict Infrastructure",
    "verdict NotRun",
    "run Preparing",
    "run Discovering",
    "run Running",
    "run Ended(Passed)",
    "run Ended(Failed)",
    "run Ended(NoTests)",
    "run Ended(ConfigError)",
    "run Ended(BaselineFailed)",
    "run Ended(Incomplete)",
    "attempt Passed",
    "attempt Failed",
    "attempt TimedOut",
    "attempt Skipped",
    "attempt Infrastructure",
    "attempt Cancelled",
    "attempt shared",
    "attempt hedged",
    "lease told again",
    "attempt repeated",
    "void NotCurrent",
    "void NotYours",
    "void NotCovered",
    "crash before a write",
    "crash after a write",
    "crash with a part of its effects done",
    "crash in between",
    "blow BreakSession",
    "blow Freeze",
    "blow Kill",
    "blow JumpClock",
    "blow Daemon",
    "blow Cancel",
    "blow Rerun",
];

impl Summary {
    fn add(&mut self, other: Self) {
        self.events += other.events;
        self.crashes += other.crashes;
        self.breaks += other.breaks;
        self.superseded += other.superseded;
        self.verdicts += other.verdicts;
        self.runs += other.runs;
        self.lost += other.lost;
        self.doubled += other.doubled;
    }
}
