//! `andon baseline verify`: what each worker saw, a line for each of its baselines and lanes.

use andon_proto::{Congruence, InexactPart, TreeDigest, VerifiedBaseline, VerifiedLane, WorkerVerified};
use serde::Serialize;

use super::exit::Exit;
use super::listing::table;
use super::text::{cut, one_line};
use super::{inexact, words};

const NOTE_CHARS_MAX: usize = 200;

/// A worker, as `--json` writes it.
#[derive(Debug, Serialize)]
pub(crate) struct WorkerJson<'a> {
    worker: &'a str,
    /// Why it says nothing; null where it does.
    silent: Option<&'a str>,
    baselines: Vec<BaselineJson<'a>>,
    lanes: Vec<LaneJson<'a>>,
}

#[derive(Debug, Serialize)]
struct BaselineJson<'a> {
    key: &'a str,
    state: &'static str,
    trees: Vec<TreeJson<'a>>,
    bytes: u64,
    took_ms: u64,
    note: &'a str,
    parts: Vec<inexact::PartJson<'a>>,
}

#[derive(Debug, Serialize)]
struct TreeJson<'a> {
    name: &'a str,
    digest: &'a str,
}

#[derive(Debug, Serialize)]
struct LaneJson<'a> {
    lane: u32,
    baseline_key: &'a str,
    state: &'static str,
    stands: u32,
    took_ms: u64,
    note: &'a str,
    parts: Vec<inexact::PartJson<'a>>,
}

fn word(congruence: Congruence) -> &'static str {
    match congruence {
        Congruence::Same => "same",
        Congruence::Differs => "differs",
        Congruence::Busy => "busy",
        Congruence::Unknown | Congruence::Unspecified => "unknown",
    }
}

fn silent(worker: &WorkerVerified) -> Option<&str> {
    let refused = worker.verified.as_ref().map_or("", |verified| verified.refused.as_str());
    [worker.silent.as_str(), refused].into_iter().find(|why| !why.is_empty())
}

fn baselines(worker: &WorkerVerified) -> &[VerifiedBaseline] {
    worker.verified.as_ref().map_or(&[], |verified| &verified.baselines)
}

fn lanes(worker: &WorkerVerified) -> &[VerifiedLane] {
    worker.verified.as_ref().map_or(&[], |verified| &verified.lanes)
}

pub(crate) fn json(workers: &[WorkerVerified]) -> Vec<WorkerJson<'_>> {
    workers.iter().map(worker_json).collect()
}

fn worker_json(worker: &WorkerVerified) -> WorkerJson<'_> {
    WorkerJson {
        worker: &worker.worker,
        silent: silent(worker),
        baselines: baselines(worker).iter().map(baseline_json).collect(),
        lanes: lanes(worker).iter().map(lane_json).collect(),
    }
}

fn baseline_json(baseline: &VerifiedBaseline) -> BaselineJson<'_> {
    BaselineJson {
        key: &baseline.key,
        state: word(baseline.congruence()),
        trees: baseline.trees.iter().map(tree_json).collect(),
        bytes: baseline.bytes,
        took_ms: baseline.took_ms,
        note: &baseline.note,
        parts: baseline.parts.iter().map(inexact::part_json).collect(),
    }
}

fn tree_json(tree: &TreeDigest) -> TreeJson<'_> {
    TreeJson { name: &tree.name, digest: &tree.digest }
}

fn lane_json(lane: &VerifiedLane) -> LaneJson<'_> {
    LaneJson {
        lane: lane.lane,
        baseline_key: &lane.baseline_key,
        state: word(lane.congruence()),
        stands: lane.stands,
        took_ms: lane.took_ms,
        note: &lane.note,
        parts: lane.parts.iter().map(inexact::part_json).collect(),
    }
}

/// For a person: a table, then what differs.
pub(crate) fn text(workers: &[WorkerVerified]) -> String {
    if workers.is_empty() {
        return "no workers\n".to_owned();
    }
    let mut rows = Vec::new();
    let mut different: Vec<String> = Vec::new();
    for worker in workers {
        let name = one_line(&worker.worker).into_owned();
        let mut row = |what: String, state: &str, said: String| {
            rows.push(vec![name.clone(), what, state.to_owned(), cut(&said, NOTE_CHARS_MAX)]);
        };
        if let Some(why) = silent(worker) {
            let (state, said) = if why == "away" { ("away", "") } else { ("unknown", why) };
            row(String::new(), state, said.to_owned());
            continue;
        }
        if baselines(worker).is_empty() && lanes(worker).is_empty() {
            row(String::new(), "nothing", "it has no such baseline".to_owned());
        }
        for baseline in baselines(worker) {
            let what = format!("pool {}", one_line(words::short(&baseline.key)));
            let read =
                format!("{} read in {}", words::bytes(baseline.bytes), words::millis(baseline.took_ms));
            let said = if baseline.note.is_empty() { read } else { baseline.note.clone() };
            tell(&mut different, &name, &what, &baseline.parts);
            row(what, word(baseline.congruence()), said);
        }
        for lane in lanes(worker) {
            let what = format!("lane {}", lane.lane);
            let said = match lane.congruence() {
                Congruence::Busy => "not looked at".to_owned(),
                Congruence::Same => format!(
                    "{} put back in {}",
                    words::plural(lane.stands.into(), "stand"),
                    words::millis(lane.took_ms)
                ),
                _ => lane.note.clone(),
            };
            tell(&mut different, &name, &what, &lane.parts);
            row(what, word(lane.congruence()), said);
        }
    }
    let mut said = table(&["WORKER", "WHAT", "STATE", "MORE"], &rows);
    different.iter().for_each(|line| said.push_str(&format!("{line}\n")));
    said
}

fn tell(different: &mut Vec<String>, worker: &str, what: &str, parts: &[InexactPart]) {
    if !parts.is_empty() {
        different.push(format!("{worker} {what} differs:"));
        different.extend(inexact::parts(parts, 0));
    }
}

/// A difference counts for more than that somebody said nothing. Who is away has nothing that a test could meet.
pub(crate) fn exit(workers: &[WorkerVerified]) -> Exit {
    let baselines = workers.iter().flat_map(baselines).map(VerifiedBaseline::congruence);
    let lanes = workers.iter().flat_map(lanes).map(VerifiedLane::congruence);
    let all: Vec<Congruence> = baselines.chain(lanes).collect();
    let is_mute = |worker: &WorkerVerified| silent(worker).is_some_and(|why| why != "away");
    if all.contains(&Congruence::Differs) {
        Exit::Differs
    } else if all.contains(&Congruence::Unknown) || workers.iter().any(is_mute) {
        Exit::Incomplete
    } else {
        Exit::Passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use andon_proto::Verified;

    fn baseline(congruence: Congruence) -> VerifiedBaseline {
        VerifiedBaseline {
            key: "b1946ac92492d2347c6235b4d2611184".into(),
            congruence: congruence.into(),
            bytes: 290_000_000,
            took_ms: 300,
            ..VerifiedBaseline::default()
        }
    }

    fn lane(lane: u32, congruence: Congruence) -> VerifiedLane {
        VerifiedLane {
            lane,
            congruence: congruence.into(),
            stands: 2,
            took_ms: 900,
            ..VerifiedLane::default()
        }
    }

    fn said(worker: &str, baseline: VerifiedBaseline, lanes: Vec<VerifiedLane>) -> WorkerVerified {
        let verified = Verified { baselines: vec![baseline], lanes, ..Verified::default() };
        WorkerVerified { worker: worker.into(), verified: Some(verified), ..WorkerVerified::default() }
    }

    fn mute(worker: &str, why: &str) -> WorkerVerified {
        WorkerVerified { worker: worker.into(), silent: why.into(), ..WorkerVerified::default() }
    }

    #[test]
    fn each_worker_and_lane_has_a_line_and_what_differs_is_named() {
        let part = InexactPart {
            r#where: "volume/data".into(),
            what: "ibdata1\u{1b}[31m".into(),
            difference: "has another mtime".into(),
        };
        let broken =
            VerifiedBaseline { note: "given up".into(), parts: vec![part], ..baseline(Congruence::Differs) };
        let workers = [
            said(
                "w0",
                baseline(Congruence::Same),
                vec![lane(0, Congruence::Same), lane(1, Congruence::Busy)],
            ),
            said("w1", broken, vec![]),
            mute("w2", "away"),
        ];
        insta::assert_snapshot!(text(&workers), @r"
        WORKER  WHAT               STATE    MORE
        w0      pool b1946ac92492  same     290.0 MB read in 300 ms
        w0      lane 0             same     2 stands put back in 900 ms
        w0      lane 1             busy     not looked at
        w1      pool b1946ac92492  differs  given up
        w2                         away
        w1 pool b1946ac92492 differs:
            volume/data: ibdata1\x1b[31m has another mtime
        ");
        assert_eq!(exit(&workers).code(), 1);
        let json = serde_json::to_value(json(&workers)).unwrap();
        assert_eq!((&json[0]["lanes"][1]["state"], &json[2]["silent"]), (&"busy".into(), &"away".into()));
        assert_eq!(json[1]["baselines"][0]["parts"][0]["place"], "volume/data");
    }

    #[test]
    fn who_is_away_or_busy_is_no_fault_and_who_does_not_answer_is_one() {
        let same = || said("w0", baseline(Congruence::Same), vec![lane(0, Congruence::Busy)]);
        assert_eq!(exit(&[same(), mute("w1", "away")]).code(), 0);
        assert_eq!(exit(&[same(), mute("w1", "no answer in time")]).code(), 106);
        assert_eq!(exit(&[said("w0", baseline(Congruence::Unknown), vec![])]).code(), 106);
        let mut refused = same();
        refused.verified.as_mut().unwrap().refused = "another".into();
        assert_eq!(exit(&[refused]).code(), 106);
    }
}
