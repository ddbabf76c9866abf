//! What moved between two looks at a repository, and when to look again. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::git::CommitId;

/// A branch as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) branch: String,
    pub(super) commit: CommitId,
    /// Of the commit, seconds since 1970.
    pub(super) time: i64,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// New branches and those at another commit, forced or not; the youngest commit first.
    pub(super) moved: Vec<Head>,
    /// Branches that are no more.
    pub(super) gone: Vec<String>,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.moved.is_empty() && self.gone.is_empty()
    }
}

/// Compares what was seen with what is.
pub(super) fn changes(seen: &BTreeMap<String, String>, now: &[Head]) -> Changes {
    let moved = now.iter().filter(|head| seen.get(&head.branch) != Some(&head.commit.to_string()));
    let mut moved: Vec<Head> = moved.cloned().collect();
    moved.sort_by(|left, right| right.time.cmp(&left.time).then_with(|| left.branch.cmp(&right.branch)));
    let gone = seen.keys().filter(|branch| !now.iter().any(|head| head.branch == **branch));
    Changes { moved, gone: gone.cloned().collect() }
}

/// The wait before the next poll: `every` give or take a tenth, other for each project and poll, so that many
/// projects do not ask one server at the same moment for ever.
pub(super) fn spread(every: Duration, project: &str, poll: u64) -> Duration {
    let mut hasher = blake3::Hasher::new();
    hasher.update(project.as_bytes()).update(&poll.to_le_bytes());
    let fraction = f64::from(hasher.finalize().as_bytes()[0]) / 255.0;
    every.mul_f64(0.9 + 0.2 * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(branch: &str, digit: char, time: i64) -> Head {
        let commit = CommitId::parse(&digit.to_string().repeat(40)).expect("an id");
        Head { branch: branch.into(), commit, time }
    }

    fn seen(heads: &[Head]) -> BTreeMap<String, String> {
        heads.iter().map(|head| (head.branch.clone(), head.commit.to_string())).collect()
    }

    #[test]
    fn new_and_moved_branches_are_found_youngest_first() {
        let before = [head("main", 'a', 1), head("same", 'b', 1)];
        let now = [head("main", 'c', 5), head("new", 'd', 9), head("same", 'b', 1)];
        let found = changes(&seen(&before), &now);
        assert_eq!(found, Changes { moved: vec![now[1].clone(), now[0].clone()], gone: vec![] });
    }

    #[test]
    fn a_forced_step_back_is_a_move_and_a_removal_is_none() {
        let before = [head("main", 'c', 5), head("old", 'a', 1)];
        let now = [head("main", 'a', 1)];
        let found = changes(&seen(&before), &now);
        assert_eq!(found, Changes { moved: vec![now[0].clone()], gone: vec!["old".into()] });
    }

    #[test]
    fn nothing_new_is_nothing_to_do() {
        let heads = [head("main", 'c', 5)];
        assert!(changes(&seen(&heads), &heads).is_empty());
    }

    #[test]
    fn polls_are_spread_but_stay_near_their_interval() {
        let every = Duration::from_secs(10);
        let waits: Vec<Duration> = (0..50).map(|poll| spread(every, "shop", poll)).collect();
        assert!(waits.iter().all(|wait| (9.0..=11.0).contains(&wait.as_secs_f64())), "{waits:?}");
        assert!(waits.iter().any(|wait| wait != &waits[0]));
    }
}
