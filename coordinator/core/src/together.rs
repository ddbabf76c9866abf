//! Runs that ask for the same: a test that is out for one of them is not executed for the other as well. The other's test
//! follows: it takes the verdict and the attempts when they come, or goes back to its own queue when none come.

use crate::ids::{AttemptId, Now, RunId, TestIx};
use crate::model::{Record, Verdict};
use crate::run::Run;
use crate::verdict::{Decision, decide, weighed};
use crate::{Core, Effect, note, persist};

impl Core {
    /// Of these tests of a run, those that nobody executes for it right now. The others follow from here on.
    pub(crate) fn follow(
        &mut self,
        now: Now,
        id: RunId,
        tests: &[TestIx],
        out: &mut Vec<Effect>,
    ) -> Vec<TestIx> {
        let leaders = self.leaders_of(id);
        if leaders.is_empty() {
            return tests.to_vec();
        }
        let mut own = Vec::new();
        for test in tests {
            let run = &self.runs[&id];
            match leaders.iter().find(|leader| executes_the_same(&self.runs[*leader], run, *test)) {
                Some(leader) => {
                    let leader_run = self.runs.get_mut(leader).expect("leaders are active");
                    leader_run.followers.entry(*test).or_default().push((id, *test));
                    let run = self.runs.get_mut(&id).expect("the run is active");
                    if !std::mem::replace(&mut run.told_shared, true) {
                        let text =
                            format!("tests that run {leader} executes right now are executed once for both");
                        note(id, now, text, out);
                    }
                }
                None => own.push(*test),
            }
        }
        own
    }

    fn leaders_of(&self, id: RunId) -> Vec<RunId> {
        let run = &self.runs[&id];
        // Who repeats tests wants each of them executed.
        if run.plan.merge_key.is_none() || run.plan.asked.repeat.is_wanted() {
            return Vec::new();
        }
        let asks_for_the_same = |other: &&Run| {
            other.id != id
                && other.plan.merge_key == run.plan.merge_key
                && other.header.project == run.header.project
                && other.baseline_key() == run.baseline_key()
        };
        self.runs.values().filter(asks_for_the_same).map(|other| other.id).collect()
    }

    /// A test of a run has its verdict, by these attempts: so have the tests that follow it, or they go their own way.
    pub(crate) fn lead(
        &mut self,
        now: Now,
        leader: RunId,
        test: TestIx,
        verdict: Verdict,
        followers: Vec<(RunId, TestIx)>,
        out: &mut Vec<Effect>,
    ) {
        let attempts: Vec<_> = match self.runs.get(&leader) {
            Some(run) => run.test(test).ended.clone(),
            None => Vec::new(),
        };
        for (id, follower) in followers {
            if matches!(verdict, Verdict::Infrastructure | Verdict::NotRun) {
                self.release(now, id, follower);
                continue;
            }
            let Some(run) = self.runs.get_mut(&id) else { continue };
            for (of_attempt, outcome) in &attempts {
                run.last_attempt += 1;
                let attempt = AttemptId(run.last_attempt);
                run.test_mut(follower).ended.push((attempt, *outcome));
                let (of, of_attempt) = (leader, *of_attempt);
                persist(out, Record::AttemptShared { run: id, attempt, test: follower, of, of_attempt });
            }
            // What it saw itself before counts as well; else the other's verdict stands, whose budget may be another.
            let retries = run.suite(run.test(follower).suite).retries;
            let own = match decide(&run.test(follower).outcomes(), retries) {
                Decision::RunAgain => verdict,
                Decision::Final(own) => own,
            };
            let verdict = weighed(own, run.test(follower).excused);
            run.give_verdict(follower, verdict);
            // The leader's verdict has fed the history already.
            persist(out, Record::VerdictGiven { run: id, test: follower, verdict, run_ms: None });
            self.pull_the_cord(now, id, out);
            self.end_if_done(now, id, out);
        }
    }

    /// A test that followed has to be executed after all.
    pub(crate) fn release(&mut self, now: Now, id: RunId, test: TestIx) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.test_mut(test).queued_mono_ms = now.mono_ms;
        let suite = run.test(test).suite;
        run.queue_again(now.mono_ms, suite, vec![test]);
    }
}

/// True where `leader` has an attempt out of the test that has the same place and name in `run`.
fn executes_the_same(leader: &Run, run: &Run, test: TestIx) -> bool {
    let Some(known) = leader.tests.get(test.0 as usize) else { return false };
    let wanted = run.test(test);
    let same_suite = leader.suite(known.suite).name == run.suite(wanted.suite).name;
    same_suite && known.id == wanted.id && known.verdict.is_none() && leader.out.contains_key(&test)
}
