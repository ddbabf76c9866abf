//! How the line flows: lead time, time to restore, change failure rate, cost.
//!
//! A *line* is what these are told of: a branch, a suite on it, or an owner's tests on it. The caller makes one [`Ran`] a run of the line, with the end that
//! the run had for this line (red for an owner if one of the owner's tests failed). Commits of a line follow each other as they were
//! pushed; a rerun has the push of its commit.
//!
//! ```text
//!   pushed   c1 ──────── c2 ────── c3 ─────────── c4
//!   ended       c1 green      c2 red    c3 (superseded)   c4 green
//!                                └──── time to restore ──────┘
//!   lead     c1: its push to its first verdict; c3 has none
//! ```
//!
//! Only green and red are verdicts. A run that was superseded, cancelled, or lost to the farm changes no colour and ends no lead time:
//! where it is run again, the time goes on until there is a verdict. A verdict on an older commit than the last that was judged is late
//! and changes no colour.
//!
//! It does not know quarantine or flakes: what blocks is decided before (`quarantine.rs`).

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::Rate;

/// How a run ended for a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// Nothing blocks.
    Green,
    /// Something blocks: tests failed, or the project's own configuration or baseline did.
    Red,
    /// A newer commit made it pointless.
    Superseded,
    /// A person stopped it.
    Cancelled,
    /// The farm could not decide it.
    Infrastructure,
}

impl End {
    fn is_verdict(self) -> bool {
        matches!(self, Self::Green | Self::Red)
    }
}

/// A run of a line that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran<'a> {
    /// Of this commit.
    pub commit: &'a str,
    /// When that commit was pushed, or the run was asked for where nobody knows. The same for each run of a commit.
    pub pushed_unix_ms: u64,
    /// When it ended.
    pub ended_unix_ms: u64,
    /// How.
    pub end: End,
    /// How long lanes worked for it, together: with four lanes for a second 4,000.
    pub lane_ms: u64,
}

/// A commit's way from the push to its first verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lead {
    /// Which commit.
    pub commit: String,
    /// When it was pushed.
    pub pushed_unix_ms: u64,
    /// How long it took.
    pub lead_ms: u64,
    /// The verdict was green.
    pub green: bool,
}

/// Lead times of a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leads {
    /// One for each commit that got a verdict, as they were pushed.
    pub leads: Vec<Lead>,
    /// So many commits got none, by how their last run ended.
    pub without: BTreeMap<End, u64>,
}

/// The line was red for this long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// The commit that turned it red.
    pub commit: String,
    /// When it was known.
    pub red_unix_ms: u64,
    /// How it was restored; `None` while it is red.
    pub restored: Option<Restored>,
}

impl Outage {
    /// How long it was red, or is by now.
    #[must_use]
    pub fn lasted_ms(&self, now_unix_ms: u64) -> u64 {
        let until = self.restored.as_ref().map_or(now_unix_ms, |restored| restored.green_unix_ms);
        until.saturating_sub(self.red_unix_ms)
    }
}

/// How a line became green again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// On this commit. The one that had turned it red means a rerun: nothing was mended.
    pub commit: String,
    /// When it was known.
    pub green_unix_ms: u64,
}

/// Lane time, by what came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Of runs that gave a verdict.
    pub judged_ms: u64,
    /// Of runs that were superseded or cancelled.
    pub stopped_ms: u64,
    /// Of runs that the farm lost.
    pub lost_ms: u64,
}

impl Cost {
    /// All of it, in lane-seconds.
    #[must_use]
    pub fn lane_seconds(self) -> f64 {
        self.judged_ms.saturating_add(self.stopped_ms).saturating_add(self.lost_ms) as f64 / 1_000.0
    }

    fn add(&mut self, ran: &Ran<'_>) {
        let of = match ran.end {
            End::Green | End::Red => &mut self.judged_ms,
            End::Superseded | End::Cancelled => &mut self.stopped_ms,
            End::Infrastructure => &mut self.lost_ms,
        };
        *of = of.saturating_add(ran.lane_ms);
    }
}

/// Runs as they ended.
fn as_ended<'a>(line: &'a [Ran<'a>]) -> Vec<&'a Ran<'a>> {
    let mut runs: Vec<_> = line.iter().collect();
    runs.sort_by_key(|ran| (ran.ended_unix_ms, ran.pushed_unix_ms));
    runs
}

/// Lead time of each commit of a line: from its push to its first verdict.
#[must_use]
pub fn leads(line: &[Ran<'_>]) -> Leads {
    let mut first: HashMap<&str, &Ran<'_>> = HashMap::new();
    let mut last: HashMap<&str, End> = HashMap::new();
    for ran in as_ended(line) {
        last.insert(ran.commit, ran.end);
        if ran.end.is_verdict() {
            first.entry(ran.commit).or_insert(ran);
        }
    }
    let lead = |ran: &&Ran<'_>| Lead {
        commit: ran.commit.to_owned(),
        pushed_unix_ms: ran.pushed_unix_ms,
        lead_ms: ran.ended_unix_ms.saturating_sub(ran.pushed_unix_ms),
        green: ran.end == End::Green,
    };
    let mut leads = Leads { leads: first.values().map(lead).collect(), without: BTreeMap::new() };
    leads.leads.sort_by(|a, b| (a.pushed_unix_ms, &a.commit).cmp(&(b.pushed_unix_ms, &b.commit)));
    for (commit, end) in last {
        if !first.contains_key(commit) {
            *leads.without.entry(end).or_default() += 1;
        }
    }
    leads
}

/// Each time that a line was red, as they began; the last may still last.
///
/// It begins with the first red verdict after green (or at first), when that is known, and ends with the next green one on that commit
/// or a later one. Further red verdicts are part of it.
#[must_use]
pub fn outages(line: &[Ran<'_>]) -> Vec<Outage> {
    let mut outages: Vec<Outage> = Vec::new();
    let mut judged_until = 0;
    for ran in as_ended(line) {
        if !ran.end.is_verdict() || ran.pushed_unix_ms < judged_until {
            continue;
        }
        judged_until = ran.pushed_unix_ms;
        let open = outages.last_mut().filter(|outage| outage.restored.is_none());
        match (ran.end, open) {
            (End::Green, Some(outage)) => {
                let (commit, green_unix_ms) = (ran.commit.to_owned(), ran.ended_unix_ms);
                outage.restored = Some(Restored { commit, green_unix_ms });
            }
            (End::Red, None) => {
                let (commit, red_unix_ms) = (ran.commit.to_owned(), ran.ended_unix_ms);
                outages.push(Outage { commit, red_unix_ms, restored: None });
            }
            _ => {}
        }
    }
    outages
}

/// Of the commits that came on green ground, the share that turned the line red.
///
/// A commit's colour is green if any of its runs was: what a rerun clears was not the change. A commit after a red one says nothing:
/// it may have broken something, too, or nothing. The first commit counts as if it came on green ground.
#[must_use]
pub fn change_failures(line: &[Ran<'_>]) -> Rate {
    let green: HashSet<&str> =
        line.iter().filter(|ran| ran.end == End::Green).map(|ran| ran.commit).collect();
    let mut judged: Vec<_> = line.iter().filter(|ran| ran.end.is_verdict()).collect();
    judged.sort_by_key(|ran| (ran.pushed_unix_ms, ran.ended_unix_ms));
    let (mut rate, mut ground_is_green, mut counted) = (Rate::default(), true, HashSet::new());
    for ran in judged {
        if !counted.insert(ran.commit) {
            continue;
        }
        let is_green = green.contains(ran.commit);
        if ground_is_green {
            rate.count(!is_green);
        }
        ground_is_green = is_green;
    }
    rate
}

/// What a line cost: every run counts, whatever came of it.
#[must_use]
pub fn cost(line: &[Ran<'_>]) -> Cost {
    let mut cost = Cost::default();
    line.iter().for_each(|ran| cost.add(ran));
    cost
}

/// What each commit of a line cost, reruns included.
#[must_use]
pub fn costs<'a>(line: &[Ran<'a>]) -> BTreeMap<&'a str, Cost> {
    let mut costs: BTreeMap<&str, Cost> = BTreeMap::new();
    line.iter().for_each(|ran| costs.entry(ran.commit).or_default().add(ran));
    costs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use End::{Cancelled, Green, Infrastructure, Red, Superseded};

    fn ran(commit: &str, pushed_unix_ms: u64, ended_unix_ms: u64, end: End) -> Ran<'_> {
        Ran { commit, pushed_unix_ms, ended_unix_ms, end, lane_ms: 1_000 }
    }

    fn restored(outage: &Outage) -> Option<(&str, u64)> {
        outage.restored.as_ref().map(|restored| (restored.commit.as_str(), restored.green_unix_ms))
    }

    #[test]
    fn lead_time_is_from_the_push_to_the_first_verdict() {
        let line = [ran("b", 20, 50, Red), ran("a", 10, 30, Green), ran("b", 20, 90, Green)];
        let told: Vec<_> =
            leads(&line).leads.into_iter().map(|lead| (lead.commit, lead.lead_ms, lead.green)).collect();
        assert_eq!(told, [("a".to_owned(), 20, true), ("b".to_owned(), 30, false)]);
    }

    #[test]
    fn what_gave_no_verdict_ends_no_lead_time() {
        let line = [
            ran("a", 10, 30, Infrastructure),
            ran("a", 10, 70, Green),
            ran("b", 20, 40, Superseded),
            ran("c", 30, 45, Infrastructure),
            ran("c", 30, 55, Cancelled),
        ];
        let leads = leads(&line);
        assert_eq!(leads.leads.iter().map(|lead| lead.lead_ms).collect::<Vec<_>>(), [60]);
        assert_eq!(leads.without, BTreeMap::from([(Superseded, 1), (Cancelled, 1)]));
    }

    #[test]
    fn a_line_is_restored_by_the_next_green_commit() {
        let line = [
            ran("a", 10, 20, Green),
            ran("b", 30, 40, Red),
            ran("c", 50, 60, Red),
            ran("d", 70, 75, Superseded),
            ran("e", 80, 90, Green),
        ];
        let outages = outages(&line);
        assert_eq!(outages.len(), 1);
        assert_eq!((outages[0].commit.as_str(), restored(&outages[0])), ("b", Some(("e", 90))));
        assert_eq!(outages[0].lasted_ms(1_000), 50);
    }

    #[test]
    fn a_line_that_is_still_red_is_so_until_now() {
        let outages = outages(&[ran("a", 10, 20, Red), ran("b", 30, 40, Infrastructure)]);
        assert_eq!(outages.iter().map(|outage| outage.lasted_ms(100)).collect::<Vec<_>>(), [80]);
    }

    #[test]
    fn a_late_verdict_on_an_older_commit_changes_no_colour() {
        let green_late = [ran("b", 30, 40, Red), ran("a", 10, 50, Green)];
        assert_eq!(outages(&green_late)[0].restored, None);
        let red_late = [ran("b", 30, 40, Green), ran("a", 10, 50, Red)];
        assert_eq!(outages(&red_late), []);
    }

    #[test]
    fn a_rerun_restores_and_says_that_nothing_was_mended() {
        let outages = outages(&[ran("a", 10, 20, Red), ran("a", 10, 25, Green)]);
        assert_eq!(restored(&outages[0]), Some(("a", 25)));
        assert_eq!(outages[0].commit, "a");
    }

    #[test]
    fn only_commits_on_green_ground_can_turn_a_line_red() {
        let line = [
            ran("a", 10, 20, Green),
            ran("b", 30, 40, Red),
            ran("c", 50, 60, Red),
            ran("d", 70, 80, Green),
            ran("e", 90, 95, Infrastructure),
            ran("f", 100, 110, Green),
        ];
        assert_eq!(
            change_failures(&line),
            Rate::new(1, 3),
            "of a, b and f one: c and d came on red ground, e has no verdict"
        );
    }

    #[test]
    fn what_a_rerun_clears_was_not_the_change() {
        let line = [ran("a", 10, 20, Red), ran("a", 10, 30, Green), ran("b", 40, 50, Green)];
        assert_eq!(change_failures(&line), Rate::new(0, 2));
    }

    #[test]
    fn every_run_costs() {
        let line = [
            ran("a", 10, 20, Green),
            ran("a", 10, 20, Infrastructure),
            ran("b", 10, 20, Superseded),
            ran("b", 10, 20, Red),
        ];
        assert_eq!(cost(&line), Cost { judged_ms: 2_000, stopped_ms: 1_000, lost_ms: 1_000 });
        assert_eq!(cost(&line).lane_seconds(), 4.0);
        assert_eq!(costs(&line)["b"], Cost { judged_ms: 1_000, stopped_ms: 1_000, lost_ms: 0 });
    }

    proptest! {
        #[test]
        fn outages_follow_each_other_and_each_commit_has_a_lead_or_a_reason(
            runs in prop::collection::vec((0..12_u64, 0..50_u64, 0..5_usize), 0..40),
        ) {
            let names: Vec<String> = (0..12).map(|commit| format!("c{commit}")).collect();
            let line: Vec<Ran<'_>> = runs.iter().map(|(commit, took, end)| {
                let pushed = commit * 10;
                let end = [Green, Red, Superseded, Cancelled, Infrastructure][*end];
                ran(&names[*commit as usize], pushed, pushed + took, end)
            }).collect();
            let outages = outages(&line);
            for pair in outages.windows(2) {
                let before = pair[0].restored.as_ref().expect("only the last may last");
                prop_assert!(pair[0].red_unix_ms <= before.green_unix_ms && before.green_unix_ms <= pair[1].red_unix_ms);
            }
            let leads = leads(&line);
            let commits: HashSet<&str> = line.iter().map(|ran| ran.commit).collect();
            let without: u64 = leads.without.values().sum();
            prop_assert_eq!(leads.leads.len() as u64 + without, commits.len() as u64);
            prop_assert_eq!(costs(&line).values().map(|cost| cost.lane_seconds()).sum::<f64>(), cost(&line).lane_seconds());
        }
    }
}
