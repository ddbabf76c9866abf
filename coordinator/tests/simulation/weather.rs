//! How bad it gets, and until when. Chances are per mille, times are milliseconds.

use crate::dice::Dice;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    /// From then on nothing more goes wrong.
    pub(crate) calm_at_ms: u64,
    /// Honest workers, and the lanes of each.
    pub(crate) workers: Vec<u32>,
    /// One more worker, which lies.
    pub(crate) liar: bool,
    /// Wishes for runs.
    pub(crate) wishes: u64,
    /// Between two blows.
    pub(crate) gap_ms: u64,
    /// Of a crash around a write.
    pub(crate) crash: u64,
    /// How long the coordinator is away after a crash, at most.
    pub(crate) downtime_ms: u64,
    /// Of a message on its way: usual, and the worst.
    pub(crate) latency_ms: u64,
    pub(crate) latency_max_ms: u64,
    /// Of a message that takes the worst.
    pub(crate) spike: u64,
    /// Of one write.
    pub(crate) store_ms: u64,
    /// That the store is away for a while.
    pub(crate) store_away: u64,
    /// That work fails by the worker's fault.
    pub(crate) faulty: u64,
    /// That a baseline or a discovery fails by the project's fault.
    pub(crate) project_fault: u64,
    /// What the weather consists of.
    pub(crate) blows: Vec<Blow>,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    BreakSession,
    Freeze,
    Kill,
    CrashCoordinator,
    JumpClock,
    Daemon,
    Cancel,
    Rerun,
}

const ALL: [Blow; 8] = [
    Blow::BreakSession,
    Blow::Freeze,
    Blow::Kill,
    Blow::CrashCoordinator,
    Blow::JumpClock,
    Blow::Daemon,
    Blow::Cancel,
    Blow::Rerun,
];

impl Weather {
    pub(crate) fn new(dice: &mut Dice) -> Self {
        let workers = (0..dice.between(1, 5)).map(|_| dice.between(1, 3) as u32).collect();
        // Each storm has its own mixture; in some one kind of blow never comes, in some hardly another.
        let blows = (0..dice.between(1, 12)).filter_map(|_| dice.pick(&ALL).copied()).collect();
        let calm = dice.chance(50);
        Self {
            calm_at_ms: dice.between(30_000, 240_000),
            workers,
            liar: dice.chance(350),
            wishes: dice.between(1, 5),
            gap_ms: *dice.pick(&[1_000, 4_000, 10_000, 30_000]).expect("there are gaps"),
            crash: if calm { 0 } else { *dice.pick(&[0, 5, 20, 80]).expect("there are chances") },
            downtime_ms: *dice.pick(&[50, 2_000, 20_000, 45_000]).expect("there are times"),
            latency_ms: dice.between(0, 40),
            latency_max_ms: *dice.pick(&[100, 5_000, 40_000]).expect("there are times"),
            spike: *dice.pick(&[0, 2, 20]).expect("there are chances"),
            store_ms: *dice.pick(&[0, 5, 60]).expect("there are times"),
            store_away: *dice.pick(&[0, 0, 3]).expect("there are chances"),
            faulty: *dice.pick(&[0, 20, 80]).expect("there are chances"),
            project_fault: *dice.pick(&[0, 20, 60]).expect("there are chances"),
            blows,
        }
    }
}
