//! What was found out about a failure, for a person and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use andon::why::finding::{Finding, Unclear};
use andon::why::past::Name;
use andon::why::tally::Tally;
use andon_proto::Attempt;
use serde::Serialize;

use super::text::cut;
use super::words;

/// Longest name that is shown.
const NAME_CHARS_MAX: usize = 200;
/// Tests that are named of those that pollute.
const NAMED_MAX: usize = 10;

/// What came of one experiment.
#[derive(Debug, Clone)]
pub(crate) struct Tried {
    pub(crate) run: u64,
    /// By worker.
    pub(crate) tallies: BTreeMap<String, Tally>,
    /// Why there are fewer tries than were asked for, where the run says it.
    pub(crate) reason: String,
}

impl Tried {
    pub(crate) fn sum(&self) -> Tally {
        let mut sum = Tally::default();
        self.tallies.values().for_each(|tally| sum += *tally);
        sum
    }
}

/// Who makes it fail.
#[derive(Debug, Clone)]
pub(crate) struct Culprits {
    /// In their order.
    pub(crate) tests: Vec<Name>,
    /// Without any one of them it passes; else the search was not finished.
    pub(crate) is_minimal: bool,
    /// What was seen after exactly these is no chance.
    pub(crate) is_sure: bool,
    /// After exactly these.
    pub(crate) seen: Tally,
}

/// One step of the search for them.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    pub(crate) run: u64,
    pub(crate) before: Vec<Name>,
    pub(crate) tally: Tally,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) run: u64,
    attempt: u64,
    worker: String,
    pub(crate) test: Name,
    predecessors: usize,
    /// Those that were too many.
    left_out: usize,
    pub(crate) finding: Finding,
    pub(crate) alone_by_worker: BTreeMap<String, Tally>,
    pub(crate) alone: Option<Tried>,
    pub(crate) elsewhere: Option<Tried>,
    pub(crate) after: Option<Tried>,
    pub(crate) culprits: Option<Culprits>,
    pub(crate) probes: Vec<Probe>,
}

impl Report {
    /// Of a failure of which nothing is known yet.
    pub(crate) fn new(run: u64, failed: &Attempt, test: Name, predecessors: usize, left_out: usize) -> Self {
        Self {
            run,
            attempt: failed.attempt,
            worker: failed.worker.clone(),
            test,
            predecessors,
            left_out,
            finding: Finding::Unclear(Unclear::TooFewAlone(Tally::default())),
            alone_by_worker: BTreeMap::new(),
            alone: None,
            elsewhere: None,
            after: None,
            culprits: None,
            probes: Vec::new(),
        }
    }
}

/// `4 of 5 failed`.
pub(crate) fn of_tries(tally: Tally) -> String {
    match (tally.failed, tally.tries()) {
        (_, 0) => "no try came to an end".to_owned(),
        (0, tries) => format!("{tries} of {tries} passed"),
        (failed, tries) => format!("{failed} of {tries} failed"),
    }
}

/// `between 5% and 85% of the time`.
fn of_rate(tally: Tally) -> String {
    let (low, high) = tally.interval();
    let percent = |rate: f64| (rate * 100.0).round();
    match (tally.failed, tally.passed) {
        (0, _) => format!("at most {}% of the time", percent(high)),
        (_, 0) => format!("at least {}% of the time", percent(low)),
        _ => format!("between {}% and {}% of the time", percent(low), percent(high)),
    }
}

pub(crate) const fn word(finding: &Finding) -> &'static str {
    match finding {
        Finding::Real { .. } => "real",
        Finding::Flaky { .. } => "flaky",
        Finding::Polluted { .. } => "polluted",
        Finding::WorkerSpecific { .. } => "worker_specific",
        Finding::Unclear(_) => "unclear",
    }
}

fn names(tests: &[Name]) -> String {
    let shown: Vec<String> =
        tests.iter().take(NAMED_MAX).map(|test| cut(&test.full(), NAME_CHARS_MAX)).collect();
    let more = tests.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

fn workers(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(NAMED_MAX).map(|name| cut(name, NAME_CHARS_MAX)).collect();
    shown.join(", ")
}

/// The finding in a sentence, and what follows from it.
pub(crate) fn said(report: &Report) -> String {
    match &report.finding {
        Finding::Real { alone, workers } => {
            let on = words::plural(*workers as u64, "worker");
            format!(
                "a real failure: alone, on a pristine baseline, {} on {on}; it fails {} (95%)",
                of_tries(*alone),
                of_rate(*alone)
            )
        }
        Finding::Flaky { tally, beside_the_first } => {
            let first = if *beside_the_first { ", and failed once under them in the run" } else { "" };
            format!(
                "flaky, by timing or chance: under the same conditions {}{first}; it fails {} (95%)",
                of_tries(*tally),
                of_rate(*tally)
            )
        }
        Finding::Polluted { after, alone } => polluted(report, *after, *alone),
        Finding::WorkerSpecific { on, there, elsewhere } => format!(
            "worker-specific: on {} {}, elsewhere {}",
            workers(on),
            of_tries(*there),
            of_tries(*elsewhere)
        ),
        Finding::Unclear(unclear) => not_enough(*unclear),
    }
}

fn polluted(report: &Report, after: Tally, alone: Tally) -> String {
    let (after, alone) = (of_tries(after), of_tries(alone));
    let Some(culprits) = &report.culprits else {
        return format!("polluted by an earlier test: after them {after}, alone {alone}");
    };
    let who = names(&culprits.tests);
    let seen = of_tries(culprits.seen);
    match (culprits.tests.len(), culprits.is_minimal && culprits.is_sure) {
        (1, true) => format!("polluted by {who}: after it alone {seen}, without others {alone}"),
        (count, true) => {
            format!("polluted by {count} tests together: {who}: after them {seen}, alone {alone}")
        }
        (1, false) => format!("polluted, probably by {who}: after it {seen}, alone {alone}"),
        (count, false) => format!(
            "polluted by some of {count} earlier tests, the search did not come to its end: {who}: after \
             them {seen}, alone {alone}"
        ),
    }
}

fn not_enough(unclear: Unclear) -> String {
    match unclear {
        Unclear::TooFewAlone(tally) => format!("not enough to tell: alone {}", of_tries(tally)),
        Unclear::TooFewAfter(tally) => format!(
            "not enough to tell: alone it passes, and after the tests that ran before it {}",
            of_tries(tally)
        ),
        Unclear::FlakyOrPolluted { after, alone } => format!(
            "not enough to tell: after the tests that ran before it {}, alone {}: that may be chance; more \
             --times would tell",
            of_tries(after),
            of_tries(alone)
        ),
    }
}

/// One line, for lists.
pub(crate) fn line(report: &Report) -> String {
    format!("{} (run {}): {}", cut(&report.test.full(), NAME_CHARS_MAX), report.run, said(report))
}

/// The whole for a person.
pub(crate) fn text(report: &Report) -> String {
    let mut text = format!(
        "\n{}\nfailed in run {}, attempt {}, on {}\n\n",
        cut(&report.test.full(), NAME_CHARS_MAX),
        report.run,
        report.attempt,
        cut(&report.worker, NAME_CHARS_MAX)
    );
    let mut rows = Vec::new();
    let row = |what: &str, tried: &Tried| {
        let on: Vec<String> = tried.tallies.keys().cloned().collect();
        vec![what.to_owned(), of_tries(tried.sum()), workers(&on), tried.run.to_string()]
    };
    rows.extend(report.alone.as_ref().map(|tried| row("alone, pristine", tried)));
    rows.extend(report.elsewhere.as_ref().map(|tried| row("on another worker", tried)));
    let after = format!("after {} before it", words::plural(report.predecessors as u64, "test"));
    rows.extend(report.after.as_ref().map(|tried| row(&after, tried)));
    if !report.probes.is_empty() {
        let probes = words::plural(report.probes.len() as u64, "search step");
        let runs: Vec<String> = report.probes.iter().map(|probe| probe.run.to_string()).collect();
        let last = runs.last().cloned().unwrap_or_default();
        rows.push(vec![probes, String::new(), String::new(), format!("{} to {last}", runs[0])]);
    }
    text.push_str(&super::listing::table(&["condition", "outcome", "worker", "run"], &rows));
    if report.elsewhere.is_none() {
        text.push_str("there is no other worker to compare with\n");
    }
    if report.predecessors == 0 {
        text.push_str("no test ran before it in its unit\n");
    } else if report.after.is_none() {
        text.push_str("it was not tried after others: it fails without them\n");
    }
    if report.left_out > 0 {
        let count = words::thousands(report.left_out as u64);
        writeln!(text, "{count} tests that ran earlier still were left out")
            .expect("a string takes every write");
    }
    writeln!(text, "\n{}", said(report)).expect("a string takes every write");
    text
}

/// The whole as data.
#[derive(Debug, Serialize)]
pub(crate) struct WhyJson {
    run: u64,
    attempt: u64,
    worker: String,
    suite: String,
    id: String,
    /// `real`, `flaky`, `polluted`, `worker_specific`, `unclear`.
    finding: &'static str,
    said: String,
    /// By worker, on a pristine baseline.
    alone: Vec<TallyJson>,
    after: Option<TallyJson>,
    predecessors: usize,
    /// Those that make it fail, in their order; `null` where none do.
    culprits: Option<CulpritsJson>,
    /// Of failing under the conditions that the finding speaks of.
    rate: Option<RateJson>,
    /// Steps of the search for the culprits.
    probes: Vec<ProbeJson>,
    /// Of all experiments, in their order.
    runs: Vec<u64>,
}

#[derive(Debug, Serialize)]
struct TallyJson {
    worker: Option<String>,
    passed: u32,
    failed: u32,
}

#[derive(Debug, Serialize)]
struct CulpritsJson {
    tests: Vec<String>,
    /// Without any one of them it passes.
    minimal: bool,
    /// What was seen after exactly these is no chance.
    sure: bool,
    passed: u32,
    failed: u32,
}

#[derive(Debug, Serialize)]
struct ProbeJson {
    run: u64,
    before: Vec<String>,
    passed: u32,
    failed: u32,
}

/// At 95 %.
#[derive(Debug, Serialize)]
struct RateJson {
    low: f64,
    high: f64,
}

/// Of a report.
pub(crate) fn json(report: &Report) -> WhyJson {
    let tally = |worker: Option<&String>, tally: Tally| TallyJson {
        worker: worker.cloned(),
        passed: tally.passed,
        failed: tally.failed,
    };
    let of_rate = match &report.finding {
        Finding::Real { alone, .. } => Some(*alone),
        Finding::Flaky { tally, .. } => Some(*tally),
        Finding::Polluted { after, .. } => Some(*after),
        Finding::WorkerSpecific { there, .. } => Some(*there),
        Finding::Unclear(_) => None,
    };
    let experiments = [&report.alone, &report.elsewhere, &report.after];
    let runs = experiments.into_iter().flatten().map(|tried| tried.run);
    WhyJson {
        run: report.run,
        attempt: report.attempt,
        worker: report.worker.clone(),
        suite: report.test.suite.clone(),
        id: report.test.id.clone(),
        finding: word(&report.finding),
        said: said(report),
        alone: report.alone_by_worker.iter().map(|(worker, of)| tally(Some(worker), *of)).collect(),
        after: report.after.as_ref().map(|tried| tally(None, tried.sum())),
        predecessors: report.predecessors,
        culprits: report.culprits.as_ref().map(|culprits| CulpritsJson {
            tests: culprits.tests.iter().map(Name::full).collect(),
            minimal: culprits.is_minimal,
            sure: culprits.is_sure,
            passed: culprits.seen.passed,
            failed: culprits.seen.failed,
        }),
        rate: of_rate.map(Tally::interval).map(|(low, high)| RateJson { low, high }),
        probes: report
            .probes
            .iter()
            .map(|probe| ProbeJson {
                run: probe.run,
                before: probe.before.iter().map(Name::full).collect(),
                passed: probe.tally.passed,
                failed: probe.tally.failed,
            })
            .collect(),
        runs: runs.chain(report.probes.iter().map(|probe| probe.run)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(id: &str) -> Name {
        Name { suite: "it".into(), id: id.into() }
    }

    fn tried(run: u64, worker: &str, failed: u32, tries: u32) -> Tried {
        let tally = Tally { passed: tries - failed, failed };
        Tried { run, tallies: BTreeMap::from([(worker.to_owned(), tally)]), reason: String::new() }
    }

    fn report() -> Report {
        let failed = Attempt { attempt: 4, worker: "w1".into(), ..Attempt::default() };
        let mut report = Report::new(12, &failed, name("tests/a.py::b\u{1b}[31m"), 7, 0);
        report.alone = Some(tried(13, "w1", 0, 5));
        report.elsewhere = Some(tried(14, "w2", 0, 5));
        report.after = Some(tried(15, "w1", 5, 5));
        report.finding = Finding::Polluted {
            after: Tally { passed: 0, failed: 5 },
            alone: Tally { passed: 10, failed: 0 },
        };
        let seen = Tally { passed: 0, failed: 5 };
        report.probes = vec![Probe { run: 16, before: vec![name("a")], tally: seen }];
        report.culprits = Some(Culprits { tests: vec![name("a")], is_minimal: true, is_sure: true, seen });
        report
    }

    #[test]
    fn a_person_reads_what_was_tried_and_what_it_says() {
        let text = text(&report());
        for said in [
            "it/tests/a.py::b\\x1b[31m\n",
            "failed in run 12, attempt 4, on w1",
            "after 7 tests before it",
            "5 of 5 failed",
            "5 of 5 passed",
            "16 to 16",
            "polluted by it/a: after it alone 5 of 5 failed, without others 10 of 10 passed",
        ] {
            assert!(text.contains(said), "{text}\nhas no {said:?}");
        }
    }

    #[test]
    fn each_finding_is_a_sentence_with_its_counts() {
        let tally = |failed, tries: u32| Tally { passed: tries - failed, failed };
        let sentence = |finding| said(&Report { finding, culprits: None, ..report() });
        for (finding, expected) in [
            (
                Finding::Real { alone: tally(10, 10), workers: 2 },
                "10 of 10 failed on 2 workers; it fails at least 69%",
            ),
            (Finding::Flaky { tally: tally(2, 10), beside_the_first: false }, "between 3% and 56%"),
            (
                Finding::Flaky { tally: tally(0, 10), beside_the_first: true },
                "once under them in the run; it fails at most 31%",
            ),
            (
                Finding::Polluted { after: tally(5, 5), alone: tally(0, 10) },
                "after them 5 of 5 failed, alone 10 of 10 passed",
            ),
            (
                Finding::WorkerSpecific { on: vec!["w1".into()], there: tally(5, 5), elsewhere: tally(0, 5) },
                "on w1 5 of 5 failed, elsewhere 5 of 5 passed",
            ),
            (Finding::Unclear(Unclear::TooFewAlone(tally(0, 0))), "not enough to tell: alone no try"),
            (
                Finding::Unclear(Unclear::FlakyOrPolluted { after: tally(2, 5), alone: tally(0, 5) }),
                "--times",
            ),
        ] {
            let said = sentence(finding);
            assert!(said.contains(expected), "{said:?} has no {expected:?}");
        }
    }

    #[test]
    fn a_search_that_did_not_end_says_so() {
        let mut report = report();
        let culprits = report.culprits.as_mut().expect("there are");
        culprits.tests.push(name("c"));
        culprits.is_minimal = false;
        assert!(said(&report).contains("some of 2 earlier tests"), "{}", said(&report));
    }

    #[test]
    fn json_says_it_all() {
        let json = serde_json::to_value(json(&report())).unwrap();
        assert_eq!(json["finding"], "polluted");
        assert_eq!(json["culprits"]["tests"], serde_json::json!(["it/a"]));
        assert_eq!(json["runs"], serde_json::json!([13, 14, 15, 16]));
        assert_eq!(json["after"]["failed"], 5);
    }
}
