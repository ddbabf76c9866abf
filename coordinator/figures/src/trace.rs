//! A run as trace events, which Perfetto and Chrome's tracing open: where each moment of each lane went.
//!
//! The format is Chrome's "Trace Event Format" in its object form: complete events (`ph` `X`) for attempts and their phases, metadata
//! events (`M`) that name workers (processes) and lanes (threads), times in microseconds. The run's own phases (queue, baseline,
//! discovery) are a process of their own, the first.
//!
//! Names are not trusted: JSON escapes what JSON must; control characters and those that turn the direction of text are replaced,
//! long names are cut. The number of events is bounded, and the trace says what it left out.

pub mod times;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Outcome;
use crate::text::is_unsafe;

/// So many events at most, those that name things included.
pub const EVENTS_MAX: usize = 200_000;

/// No name is longer, in bytes.
pub const NAME_MAX: usize = 512;

/// A piece of time with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase<'a> {
    /// Such as `rebase`, `run`, `report`.
    pub name: &'a str,
    /// From here, UTC in microseconds since 1970.
    pub from_unix_us: u64,
    /// To here. Where it is before the beginning, the phase is a moment.
    pub to_unix_us: u64,
}

/// One attempt of a test on a lane. Its phases lie within it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt<'a> {
    /// The test.
    pub test: &'a str,
    /// Of this suite.
    pub suite: &'a str,
    /// 1 for the first.
    pub number: u32,
    /// On this worker,
    pub worker: &'a str,
    /// on this lane of it.
    pub lane: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// In order.
    pub phases: Vec<Phase<'a>>,
}

/// A run to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run<'a> {
    /// Its name, as people know it.
    pub name: &'a str,
    /// Of this commit.
    pub commit: &'a str,
    /// What happened to it as a whole, from the push to the status.
    pub phases: Vec<Phase<'a>>,
    /// What its lanes did.
    pub attempts: Vec<Attempt<'a>>,
}

/// The document. Serializes as JSON, to wherever the caller writes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trace {
    #[serde(rename = "displayTimeUnit")]
    display_time_unit: &'static str,
    #[serde(rename = "otherData")]
    other: BTreeMap<&'static str, String>,
    #[serde(rename = "traceEvents")]
    events: Vec<Event>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Event {
    ph: &'static str,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cat: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<u64>,
    pid: u64,
    tid: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cname: Option<&'static str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    args: BTreeMap<&'static str, String>,
}

/// The process of the run itself. Workers follow it.
const RUN: u64 = 1;

impl Trace {
    /// Makes the events of a run.
    #[must_use]
    pub fn of(run: &Run<'_>) -> Self {
        let all_phases = run.phases.iter().chain(run.attempts.iter().flat_map(|attempt| &attempt.phases));
        let start = all_phases.map(|phase| phase.from_unix_us).min().unwrap_or(0);
        let mut trace = Building { start, events: Vec::new(), left_out: 0 };
        trace.name("process_name", RUN, 0, &format!("run {}", run.name));
        for phase in &run.phases {
            trace.span("run", RUN, 1, phase.name, *phase, BTreeMap::new());
        }
        let lanes = lanes(run);
        for ((worker, lane), place) in &lanes {
            if *lane == first_lane(&lanes, worker) {
                trace.name("process_name", place.0, 0, &format!("worker {worker}"));
            }
            trace.name("thread_name", place.0, place.1, &format!("lane {lane}"));
        }
        for attempt in &run.attempts {
            if let Some((pid, tid)) = lanes.get(&(attempt.worker, attempt.lane)) {
                trace.attempt(attempt, *pid, *tid);
            }
        }
        let other = BTreeMap::from([
            ("run", clean(run.name)),
            ("commit", clean(run.commit)),
            ("started_unix_us", start.to_string()),
            ("events_left_out", trace.left_out.to_string()),
        ]);
        Self { display_time_unit: "ms", other, events: trace.events }
    }

    /// So many events did not find room.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.other["events_left_out"].parse().unwrap_or(0)
    }

    /// The document as text.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers are JSON, and a String takes them all")
    }
}

/// Lanes in their order, and where each is shown.
type Lanes<'a> = BTreeMap<(&'a str, u32), (u64, u64)>;

fn lanes<'a>(run: &Run<'a>) -> Lanes<'a> {
    let mut lanes: Lanes<'a> =
        run.attempts.iter().map(|attempt| ((attempt.worker, attempt.lane), (0, 0))).collect();
    let (mut pid, mut known) = (RUN, None);
    for ((worker, lane), place) in &mut lanes {
        if known != Some(*worker) {
            (pid, known) = (pid + 1, Some(*worker));
        }
        *place = (pid, u64::from(*lane) + 1);
    }
    lanes
}

fn first_lane(lanes: &Lanes<'_>, worker: &str) -> u32 {
    lanes.range((worker, 0)..).next().map_or(0, |((_, lane), _)| *lane)
}

struct Building {
    start: u64,
    events: Vec<Event>,
    left_out: u64,
}

impl Building {
    fn push(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push(event);
        } else {
            self.left_out += 1;
        }
    }

    /// Gives a process or a thread its name.
    fn name(&mut self, what: &'static str, pid: u64, tid: u64, name: &str) {
        let args = BTreeMap::from([("name", clean(name))]);
        let name = what.to_owned();
        self.push(Event { ph: "M", name, cat: None, ts: None, dur: None, pid, tid, cname: None, args });
    }

    fn span(
        &mut self,
        cat: &'static str,
        pid: u64,
        tid: u64,
        name: &str,
        phase: Phase<'_>,
        args: BTreeMap<&'static str, String>,
    ) {
        let ts = Some(phase.from_unix_us.saturating_sub(self.start));
        let dur = Some(phase.to_unix_us.saturating_sub(phase.from_unix_us));
        self.push(Event { ph: "X", name: clean(name), cat: Some(cat), ts, dur, pid, tid, cname: None, args });
    }

    /// The attempt, and its phases within. One without phases took no time that is known, and is not shown.
    fn attempt(&mut self, attempt: &Attempt<'_>, pid: u64, tid: u64) {
        let from = attempt.phases.iter().map(|phase| phase.from_unix_us).min();
        let to = attempt.phases.iter().map(|phase| phase.to_unix_us).max();
        let (Some(from_unix_us), Some(to_unix_us)) = (from, to) else { return };
        let args = BTreeMap::from([
            ("attempt", attempt.number.to_string()),
            ("outcome", word_of(attempt.outcome).to_owned()),
            ("suite", clean(attempt.suite)),
        ]);
        let whole = Phase { name: attempt.test, from_unix_us, to_unix_us };
        let shown = self.events.len();
        self.span("attempt", pid, tid, attempt.test, whole, args);
        if let Some(event) = self.events.get_mut(shown) {
            event.cname = Some(colour_of(attempt.outcome));
        }
        for phase in &attempt.phases {
            self.span("phase", pid, tid, phase.name, *phase, BTreeMap::new());
        }
    }
}

fn word_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::TimedOut => "timed out",
        Outcome::Skipped => "skipped",
        Outcome::Infrastructure => "infrastructure",
        Outcome::Cancelled => "cancelled",
    }
}

/// The names are those of Chrome's tracing; Perfetto chooses its own.
fn colour_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "good",
        Outcome::Failed | Outcome::TimedOut => "terrible",
        Outcome::Infrastructure => "bad",
        Outcome::Skipped | Outcome::Cancelled => "grey",
    }
}

/// A name that shows as what it is: no control characters, none that turn the direction of text, not too long.
#[must_use]
pub fn clean(name: &str) -> String {
    let mut cleaned = String::with_capacity(name.len().min(NAME_MAX));
    for c in name.chars() {
        let shown = if is_unsafe(c) { char::REPLACEMENT_CHARACTER } else { c };
        if cleaned.len() + shown.len_utf8() > NAME_MAX - '…'.len_utf8() {
            cleaned.push('…');
            break;
        }
        cleaned.push(shown);
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn phase(name: &str, from_unix_us: u64, to_unix_us: u64) -> Phase<'_> {
        Phase { name, from_unix_us, to_unix_us }
    }

    fn attempt<'a>(test: &'a str, worker: &'a str, lane: u32, from: u64, outcome: Outcome) -> Attempt<'a> {
        let phases = vec![phase("rebase", from, from + 5), phase("run", from + 5, from + 25)];
        Attempt { test, suite: "integration", number: 1, worker, lane, outcome, phases }
    }

    fn run<'a>(attempts: Vec<Attempt<'a>>) -> Run<'a> {
        Run { name: "17", commit: "abc", phases: vec![phase("queue", 1_000, 1_010)], attempts }
    }

    fn parsed(trace: &Trace) -> (Value, Vec<Value>) {
        let document: Value = serde_json::from_str(&trace.to_json()).expect("it is JSON");
        let events = document["traceEvents"].as_array().expect("it has events").clone();
        (document, events)
    }

    /// What a reader of the format asks of each event.
    fn check(events: &[Value]) {
        for event in events {
            assert!(event["name"].is_string() && event["pid"].is_u64() && event["tid"].is_u64(), "{event}");
            match event["ph"].as_str() {
                Some("X") => assert!(event["ts"].is_u64() && event["dur"].is_u64(), "{event}"),
                Some("M") => assert!(event["args"]["name"].is_string(), "{event}"),
                other => panic!("an event of kind {other:?}"),
            }
        }
    }

    #[test]
    fn a_run_is_read_back_with_its_workers_lanes_attempts_and_phases() {
        let attempts = vec![
            attempt("t::a", "w1", 0, 1_010, Outcome::Passed),
            attempt("t::b", "w2", 3, 1_012, Outcome::Failed),
            attempt("t::c", "w2", 3, 1_040, Outcome::Passed),
        ];
        let (document, events) = parsed(&Trace::of(&run(attempts)));
        check(&events);
        assert_eq!(document["otherData"]["started_unix_us"], "1000");
        let names = |ph: &str| {
            let of_kind = events.iter().filter(|event| event["ph"] == ph);
            let name = |event: &Value| match ph {
                "M" => event["args"]["name"].as_str().unwrap_or_default().to_owned(),
                _ => event["name"].as_str().unwrap_or_default().to_owned(),
            };
            of_kind.map(name).collect::<Vec<_>>()
        };
        assert_eq!(names("M"), ["run 17", "worker w1", "lane 0", "worker w2", "lane 3"]);
        assert_eq!(
            names("X"),
            ["queue", "t::a", "rebase", "run", "t::b", "rebase", "run", "t::c", "rebase", "run"]
        );
        let failed = events.iter().find(|event| event["name"] == "t::b").expect("it is there");
        assert_eq!((&failed["ts"], &failed["dur"]), (&Value::from(12), &Value::from(25)));
        assert_eq!((&failed["args"]["outcome"], &failed["tid"]), (&Value::from("failed"), &Value::from(4)));
        let passed = events.iter().find(|event| event["name"] == "t::a").expect("it is there");
        assert_ne!(failed["pid"], passed["pid"], "workers are processes of their own");
    }

    #[test]
    fn hostile_names_are_inert_and_short() {
        let name = format!("</script>\"\\\u{1b}]0;x\u{7}\u{202E}\n{}", "x".repeat(1_000_000));
        let (_, events) = parsed(&Trace::of(&run(vec![attempt(&name, "w\0", 0, 5, Outcome::Passed)])));
        check(&events);
        let shown =
            events.iter().find(|event| event["cat"] == "attempt").and_then(|event| event["name"].as_str());
        let shown = shown.expect("it is there");
        assert!(shown.len() <= NAME_MAX && shown.ends_with('…'), "{} bytes", shown.len());
        assert!(shown.starts_with("</script>\"\\"), "JSON's own escapes bring it back as it was");
        assert!(!shown.contains(|c: char| c.is_control() || c == '\u{202E}'));
    }

    #[test]
    fn what_does_not_find_room_is_counted() {
        let attempts = vec![attempt("t", "w", 0, 1, Outcome::Passed); EVENTS_MAX / 3 + 10];
        let trace = Trace::of(&run(attempts));
        let made = 4 + 3 * (EVENTS_MAX / 3 + 10);
        assert_eq!(trace.events.len(), EVENTS_MAX);
        assert_eq!(trace.left_out(), (made - EVENTS_MAX) as u64);
    }

    #[test]
    fn times_that_go_backwards_make_moments_and_an_attempt_without_phases_is_not_shown() {
        let mut odd = attempt("odd", "w", u32::MAX, 50, Outcome::Cancelled);
        odd.phases = vec![phase("run", 50, 40)];
        let mut empty = attempt("empty", "w", 0, 50, Outcome::Cancelled);
        empty.phases.clear();
        let (_, events) = parsed(&Trace::of(&run(vec![odd, empty])));
        check(&events);
        let odd = events.iter().find(|event| event["name"] == "odd").expect("it is shown");
        assert_eq!(odd["dur"], 0);
        assert!(events.iter().all(|event| event["name"] != "empty"));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_back(
            tests in prop::collection::vec((any::<String>(), any::<String>(), any::<u32>(), any::<u64>(), any::<u64>()), 0..20),
        ) {
            let attempts = tests.iter().map(|(test, worker, lane, from, to)| Attempt {
                phases: vec![phase(test, *from, *to)],
                ..attempt(test, worker, *lane, 0, Outcome::Passed)
            });
            let (_, events) = parsed(&Trace::of(&run(attempts.collect())));
            check(&events);
            let shown = events.iter().filter(|event| event["cat"] == "attempt").count();
            prop_assert_eq!(shown, tests.len());
        }
    }
}
