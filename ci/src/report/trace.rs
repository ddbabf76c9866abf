//! A run as a file that Perfetto opens: `andon show RUN --trace FILE`.

use andon_figures::Outcome as Judged;
use andon_figures::trace::times::{AttemptTimes, RunTimes};
use andon_figures::trace::{Attempt, Trace};
use andon_proto::{Outcome, Run};

/// What each lane did when. Attempts that never started are not in it.
pub(crate) fn of(run: &Run) -> Trace {
    let times = RunTimes {
        created_unix_ms: run.created_unix_ms,
        started_unix_ms: run.started_unix_ms,
        ended_unix_ms: run.ended_unix_ms,
    };
    let attempts: Vec<Attempt<'_>> = run
        .tests
        .iter()
        .flat_map(|test| test.attempts.iter().zip(1..).map(move |(attempt, number)| (test, attempt, number)))
        .filter(|(_, attempt, _)| attempt.started_unix_ms > 0)
        .filter_map(|(test, attempt, number)| {
            Some(Attempt {
                test: &test.id,
                suite: &test.suite,
                number,
                worker: &attempt.worker,
                lane: attempt.lane,
                outcome: judged(attempt.outcome())?,
                phases: times.attempt(AttemptTimes {
                    started_unix_ms: attempt.started_unix_ms,
                    prepare_ms: attempt.prepare_ms,
                    start_ms: attempt.start_ms,
                    rebase_us: attempt.rebase_us,
                    run_ms: attempt.run_ms,
                    report_us: attempt.report_us,
                }),
            })
        })
        .collect();
    let first_us =
        attempts.iter().filter_map(|attempt| attempt.phases.first()).map(|phase| phase.from_unix_us).min();
    let phases = times.phases(first_us);
    let name = run.run.to_string();
    Trace::of(&andon_figures::trace::Run { name: &name, commit: &run.commit, phases, attempts })
}

fn judged(outcome: Outcome) -> Option<Judged> {
    Some(match outcome {
        Outcome::Unspecified => return None,
        Outcome::Passed => Judged::Passed,
        Outcome::Failed => Judged::Failed,
        Outcome::TimedOut => Judged::TimedOut,
        Outcome::Skipped => Judged::Skipped,
        Outcome::Infrastructure => Judged::Infrastructure,
        Outcome::Cancelled => Judged::Cancelled,
    })
}

#[cfg(test)]
mod tests {
    use andon_proto::{self as wire, Test};

    use super::*;

    #[test]
    fn an_attempt_is_a_span_with_its_phases_on_its_lane() {
        let attempt = wire::Attempt {
            worker: "w1".into(),
            lane: 1,
            outcome: Outcome::Failed.into(),
            started_unix_ms: 5_000,
            prepare_ms: 20,
            rebase_us: 1_500,
            run_ms: 300,
            ..wire::Attempt::default()
        };
        let never = wire::Attempt { started_unix_ms: 0, ..attempt.clone() };
        let test = Test {
            id: "a\u{202e}<b>".into(),
            suite: "it".into(),
            attempts: vec![attempt, never],
            ..Test::default()
        };
        let run = Run {
            run: 7,
            created_unix_ms: 1_000,
            started_unix_ms: 2_000,
            ended_unix_ms: 6_000,
            tests: vec![test],
            ..Run::default()
        };
        let json: serde_json::Value = serde_json::from_str(&of(&run).to_json()).expect("a trace is JSON");
        let events = json["traceEvents"].as_array().expect("events");
        let span = |name: &str| {
            let found = events.iter().find(|event| event["ph"] == "X" && event["name"] == name);
            found.map(|event| {
                (event["ts"].as_u64().expect("a time"), event["dur"].as_u64().expect("a duration"))
            })
        };
        assert_eq!(span("queue"), Some((0, 1_000_000)));
        assert_eq!(span("rebase"), Some((3_978_500, 1_500)));
        assert_eq!(span("prepare"), Some((3_980_000, 20_000)));
        assert_eq!(span("test"), Some((4_000_000, 300_000)));
        let tests = events.iter().filter(|event| event["ph"] == "X" && event["name"] == "test").count();
        assert_eq!(tests, 1, "what never started is not there");
        assert!(!json.to_string().contains('\u{202e}'));
    }
}
