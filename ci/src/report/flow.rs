//! `andon stats`: how a project's line flows, or one test over its runs. The values are those of the coordinator's JSON API; what is
//! missing of them is shown as nothing.

use serde_json::Value;

use super::listing::table;
use super::text::cut;
use super::words;

/// Longest name in a column.
pub(super) const NAME_CHARS_MAX: usize = 48;
/// Of why a test failed.
const CAUSE_CHARS_MAX: usize = 200;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Nothing was measured there.
const GAP: char = ' ';

/// One bar a value, the lowest value as the lowest bar.
pub(crate) fn sparkline(values: &[Option<f64>]) -> String {
    let known = || values.iter().flatten().copied().filter(|value| value.is_finite());
    let (low, high) = (known().fold(f64::INFINITY, f64::min), known().fold(f64::NEG_INFINITY, f64::max));
    let top = (BARS.len() - 1) as f64;
    let bar = |value: &Option<f64>| match value {
        Some(value) if value.is_finite() && high > low => {
            BARS[((value - low) / (high - low) * top).round() as usize]
        }
        Some(value) if value.is_finite() => BARS[0],
        _ => GAP,
    };
    values.iter().map(bar).collect()
}

/// A project: flow, trends, suites, changes, commits.
pub(crate) fn project(of: &Value, now_unix_ms: u64) -> String {
    let flow = &of["flow"];
    let line = flow["ref"].as_str().unwrap_or("all branches");
    let runs = words::plural(flow["runs"].as_u64().unwrap_or(0), "run");
    let mut said = format!("{} · {} · {runs}\n\n", name(&of["project"]), cut(line, NAME_CHARS_MAX));
    let mut facts = line_facts(flow, now_unix_ms);
    let all = list(&of["suites"]).iter().map(|suite| spent_us(&suite["figures"]["spent"]));
    let sum = all.fold([0_u64; 5], |sum, us| std::array::from_fn(|at| sum[at].saturating_add(us[at])));
    facts.push(("lanes' time", words::spent(sum)));
    let days = list(&of["days"]);
    facts.push(("tests a day", trend(days, "/tests", |tests| words::thousands(tests as u64))));
    facts.push(("test p50", trend(days, "/test_ms/p50", |ms| words::millis(ms as u64))));
    facts.push(("queue p90", trend(days, "/queue_ms/p90", |ms| words::millis(ms as u64))));
    facts.push(("rebase p50", trend(days, "/rebase_us/p50", |us| words::micros(us as u64))));
    said.push_str(&listed(&facts));

    said.push_str(&suites(list(&of["suites"])));
    said.push_str(&shifts(list(&of["shifts"])));
    said.push_str(&commits(list(&of["runs"]["items"])));
    said
}

/// How a line flows: a fact a line.
pub(super) fn line_facts(flow: &Value, now_unix_ms: u64) -> Vec<(&'static str, String)> {
    let lead = format!("p50 {}  p90 {}", millis(&flow["lead_p50_ms"]), millis(&flow["lead_p90_ms"]));
    let mut facts = vec![
        ("lead time", lead),
        ("time to restore", format!("p50 {}", millis(&flow["restore_p50_ms"]))),
        ("change failures", rate(&flow["change_failures"])),
        ("flaky tests", rate(&flow["flakes"])),
        ("cost", cost(&flow["cost"])),
    ];
    if let Some(since) = flow["red_since_unix_ms"].as_u64() {
        let commit = flow["red_commit"].as_str().unwrap_or_default();
        facts.push((
            "red",
            format!("since {}, by {}", words::ago(now_unix_ms, since), cut(words::short(commit), 12)),
        ));
    }
    facts
}

/// Facts, each on a line of its own.
pub(super) fn listed(facts: &[(&str, String)]) -> String {
    facts.iter().map(|(what, fact)| format!("{what:<16} {fact}\n")).collect()
}

fn suites(suites: &[Value]) -> String {
    if suites.is_empty() {
        return String::new();
    }
    let row = |suite: &Value| {
        let of = &suite["figures"];
        vec![
            name(&suite["suite"]),
            count(&of["runs"]),
            count(&of["tests"]),
            count(&of["failed"]),
            count(&of["flaky"]),
            restore(&suite["flow"]),
            seconds(&of["lane_seconds"]),
            millis(&of["test_ms"]["p50"]),
            millis(&of["test_ms"]["p99"]),
            micros(&of["rebase_us"]["p50"]),
            sparkline(&series(list(&suite["days"]), "/test_ms/p50")),
        ]
    };
    let header = [
        "suite",
        "runs",
        "tests",
        "failed",
        "flaky",
        "restore",
        "lane time",
        "test p50",
        "p99",
        "rebase p50",
        "p50 a day",
    ];
    format!("\n{}", table(&header, &suites.iter().map(row).collect::<Vec<_>>()))
}

/// How long a red line takes to become green; that it is red where it is.
fn restore(flow: &Value) -> String {
    if flow["red_since_unix_ms"].is_u64() { "red".to_owned() } else { millis(&flow["restore_p50_ms"]) }
}

fn shifts(shifts: &[Value]) -> String {
    let mut said = String::new();
    for shift in shifts {
        let ratio = shift["ratio"].as_f64().unwrap_or(1.0);
        let way = if ratio >= 1.0 {
            format!("{ratio:.2}× as long")
        } else {
            format!("{:.2}× as fast", 1.0 / ratio)
        };
        let commit = shift["commit"].as_str().unwrap_or_default();
        let cause = shift["cause"].as_str().filter(|cause| matches!(*cause, "code" | "baseline" | "farm"));
        said.push_str(&format!(
            "  {}: {way} from {} (run {}) on, {} to {} ms, {:.1} % sure, by the {}\n",
            name(&shift["name"]),
            cut(words::short(commit), 12),
            count(&shift["run"]),
            tenth(&shift["before_ms"]),
            tenth(&shift["after_ms"]),
            shift["confidence"].as_f64().unwrap_or(0.0) * 100.0,
            cause.unwrap_or("code, the baseline or the farm: unclear"),
        ));
    }
    if said.is_empty() { said } else { format!("\nchanges\n{said}") }
}

fn commits(runs: &[Value]) -> String {
    if runs.is_empty() {
        return String::new();
    }
    let row = |run: &Value| {
        let commit = run["commit"].as_str().unwrap_or_default();
        vec![
            count(&run["run"]),
            cut(words::short(commit), 12),
            cut(&run["state"].as_str().unwrap_or_default().replace('_', " "), NAME_CHARS_MAX),
            millis(&run["lead_ms"]),
            run["tests_per_minute"].as_f64().map(|pace| format!("{pace:.0}")).unwrap_or_default(),
            count(&run["counts"]["failed"]),
            count(&run["counts"]["flaky"]),
            millis(&run["lane_ms"]),
            millis(&run["test_p50_ms"]),
            if run["baseline_changed"] == true { "new baseline".to_owned() } else { String::new() },
        ]
    };
    let header =
        ["run", "commit", "state", "lead", "tests/min", "failed", "flaky", "lane time", "test p50", ""];
    format!("\n{}", table(&header, &runs.iter().map(row).collect::<Vec<_>>()))
}

/// One test over its runs.
pub(crate) fn test(of: &Value, now_unix_ms: u64) -> String {
    let mut said = format!("{} · {}/{}\n\n", name(&of["project"]), name(&of["suite"]), name(&of["id"]));
    let history = list(&of["history"]["items"]);
    let oldest_first: Vec<Value> = history.iter().rev().cloned().collect();
    let spread = &of["run_ms"];
    let times = ["p50", "p90", "max"].map(|part| format!("{part} {}", millis(&spread[part]))).join("  ");
    let mut facts = vec![
        ("standing", cut(of["standing"].as_str().unwrap_or("unknown"), NAME_CHARS_MAX)),
        ("flakes", rate(&of["flakes"])),
        ("takes", format!("{times}  {}", sparkline(&series(&oldest_first, "/run_ms")))),
    ];
    let lanes = millis(&of["lane_ms"]["p50"]);
    facts.push(("costs", format!("p50 {lanes} of lanes a run: {}", words::spent(spent_us(&of["spent"])))));
    if let Some(said) = of["cause"]["said"].as_str() {
        let at = of["cause"]["told_unix_ms"].as_u64().unwrap_or_default();
        let run = count(&of["cause"]["run"]);
        facts.push((
            "why",
            format!("{} (run {run}, {})", cut(said, CAUSE_CHARS_MAX), words::ago(now_unix_ms, at)),
        ));
    }
    for (what, at) in [("first flake", &of["first_flake"]), ("last flake", &of["last_flake"])] {
        if let Some(at_unix_ms) = at["at_unix_ms"].as_u64() {
            let commit = at["commit"].as_str().unwrap_or_default();
            facts.push((
                what,
                format!("{}, {}", cut(words::short(commit), 12), words::ago(now_unix_ms, at_unix_ms)),
            ));
        }
    }
    said.push_str(&listed(&facts));
    said.push_str(&shifts(list(&of["shifts"])));
    let row = |run: &Value| {
        let commit = run["commit"].as_str().unwrap_or_default();
        vec![
            count(&run["run"]),
            cut(words::short(commit), 12),
            cut(&run["verdict"].as_str().unwrap_or_default().replace('_', " "), NAME_CHARS_MAX),
            format!("{} of {}", count(&run["passed"]), tried(run)),
            millis(&run["run_ms"]),
        ]
    };
    let rows: Vec<Vec<String>> = history.iter().map(row).collect();
    said.push_str(&format!("\n{}", table(&["run", "commit", "verdict", "passed", "took"], &rows)));
    said
}

fn tried(run: &Value) -> u64 {
    ["passed", "failed", "infrastructure"].iter().filter_map(|part| run[*part].as_u64()).sum()
}

pub(super) fn list(of: &Value) -> &[Value] {
    of.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn series(of: &[Value], at: &str) -> Vec<Option<f64>> {
    of.iter().map(|item| item.pointer(at).and_then(Value::as_f64)).collect()
}

fn trend(of: &[Value], at: &str, words: fn(f64) -> String) -> String {
    let values = series(of, at);
    let last = values.iter().rev().flatten().next().copied();
    format!("{}  {}", sparkline(&values), last.map(words).unwrap_or_default())
}

pub(super) fn name(of: &Value) -> String {
    cut(of.as_str().unwrap_or_default(), NAME_CHARS_MAX)
}

pub(super) fn count(of: &Value) -> String {
    of.as_u64().map(words::thousands).unwrap_or_default()
}

pub(super) fn millis(of: &Value) -> String {
    of.as_u64().map_or_else(|| "–".to_owned(), words::millis)
}

fn micros(of: &Value) -> String {
    of.as_u64().map_or_else(|| "–".to_owned(), words::micros)
}

fn seconds(of: &Value) -> String {
    of.as_f64().map_or_else(|| "–".to_owned(), |seconds| words::millis((seconds * 1_000.0) as u64))
}

fn tenth(of: &Value) -> String {
    of.as_f64().map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"))
}

fn rate(of: &Value) -> String {
    let percent = |of: &Value| format!("{:.1} %", of.as_f64().unwrap_or(0.0) * 100.0);
    match of["share"].as_f64() {
        None => "–".to_owned(),
        Some(_) => format!(
            "{} of {}: {} ({} to {})",
            count(&of["hits"]),
            count(&of["of"]),
            percent(&of["share"]),
            percent(&of["low"]),
            percent(&of["high"]),
        ),
    }
}

fn cost(of: &Value) -> String {
    let part = |name: &str| seconds(&of[name]);
    let (all, judged, stopped, lost) = (part("lane_seconds"), part("judged"), part("stopped"), part("lost"));
    format!("{all} of lanes: {judged} for verdicts, {stopped} stopped, {lost} lost to the farm")
}

/// Microseconds of lanes, by [`words::SPENT`].
fn spent_us(of: &Value) -> [u64; 5] {
    let micros = |name: &str| of[name].as_u64().unwrap_or(0).saturating_mul(1_000);
    let as_it_is = |name: &str| of[name].as_u64().unwrap_or(0);
    [as_it_is("rebase_us"), micros("set_up_ms"), micros("start_ms"), micros("test_ms"), as_it_is("report_us")]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sparkline_goes_from_the_lowest_to_the_highest_and_has_gaps() {
        assert_eq!(sparkline(&[]), "");
        assert_eq!(sparkline(&[Some(5.0), Some(5.0)]), "▁▁");
        assert_eq!(sparkline(&[Some(0.0), None, Some(50.0), Some(100.0)]), "▁ ▅█");
        assert_eq!(sparkline(&[Some(f64::NAN), Some(1.0)]), " ▁");
    }

    fn shop() -> Value {
        json!({
            "project": "shop",
            "flow": {
                "ref": "refs/heads/main", "runs": 2, "lead_p50_ms": 41_000, "lead_p90_ms": 61_400,
                "restore_p50_ms": null, "red_since_unix_ms": 1_000, "red_commit": "c0ffee",
                "change_failures": { "hits": 1, "of": 2, "share": 0.5, "low": 0.1, "high": 0.9 },
                "flakes": { "hits": 0, "of": 0, "share": null, "low": 0.0, "high": 1.0 },
                "cost": { "lane_seconds": 90.0, "judged": 60.0, "stopped": 30.0, "lost": 0.0 },
            },
            "days": [
                { "tests": 10, "test_ms": { "p50": 40 }, "queue_ms": { "p90": 5 }, "rebase_us": { "p50": 1_200 } },
                { "tests": 20, "test_ms": { "p50": 80 }, "queue_ms": { "p90": 5 }, "rebase_us": { "p50": 1_300 } },
            ],
            "suites": [{
                "suite": "it\u{1b}[2J",
                "figures": { "runs": 2, "tests": 30, "failed": 1, "flaky": 0, "lane_seconds": 90.0,
                             "test_ms": { "p50": 60, "p99": 90 }, "rebase_us": { "p50": 1_250 },
                             "spent": { "rebase_us": 10_000, "start_ms": 30, "test_ms": 60 } },
                "days": [{ "test_ms": { "p50": 40 } }, { "test_ms": { "p50": 80 } }],
            }],
            "shifts": [{ "name": "it", "ratio": 2.0, "commit": "c0ffee", "run": 2, "before_ms": 40.0, "after_ms": 80.04,
                         "confidence": 0.999, "cause": "code" }],
            "runs": { "items": [{ "run": 2, "commit": "c0ffee", "state": "failed", "lead_ms": 41_000,
                                  "tests_per_minute": 120.4, "counts": { "failed": 1, "flaky": 0 }, "lane_ms": 60_000,
                                  "test_p50_ms": 80, "baseline_changed": true }] },
        })
    }

    #[test]
    fn a_project_is_told_in_words_and_what_is_not_known_is_a_dash() {
        let said = project(&shop(), 61_000);
        for line in [
            "shop · refs/heads/main · 2 runs",
            "lead time        p50 41.0 s  p90 1m 01s",
            "time to restore  p50 –",
            "change failures  1 of 2: 50.0 % (10.0 % to 90.0 %)",
            "flaky tests      –",
            "cost             1m 30s of lanes: 1m 00s for verdicts, 30.0 s stopped, 0 ms lost to the farm",
            "red              since 1 min ago, by c0ffee",
            "lanes' time      tests 60 %, runners' starts 30 %, rebases 10 %",
            "tests a day      ▁█  20",
            "rebase p50       ▁█  1.3 ms",
            "  it: 2.00× as long from c0ffee (run 2) on, 40.0 to 80.0 ms, 99.9 % sure, by the code",
        ] {
            assert!(said.lines().any(|known| known == line), "{line}\nis not in\n{said}");
        }
        assert!(said.contains("it\\x1b[2J") && !said.contains('\u{1b}'), "{said}");
        assert!(said.contains("new baseline") && said.contains("▁█\n"), "{said}");
    }

    #[test]
    fn why_a_test_failed_stands_with_its_standing() {
        let of = json!({ "project": "shop", "suite": "it", "id": "t", "standing": "flaky",
                         "cause": { "run": 7, "told_unix_ms": 1_000, "finding": "polluted", "said": "polluted by \u{1b}[2J`a`" } });
        let said = test(&of, 61_000);
        let line = "why              polluted by \\x1b[2J`a` (run 7, 1 min ago)";
        assert!(said.lines().any(|known| known == line), "{said}");
        assert!(!test(&json!({ "cause": null }), 0).contains("why"));
    }

    #[test]
    fn what_a_coordinator_leaves_out_or_makes_up_is_no_reason_to_stop() {
        for strange in
            [json!(null), json!({ "flow": 7, "days": "x", "suites": [1], "runs": { "items": [null] } })]
        {
            assert!(project(&strange, 0).contains("lead time"));
            assert!(test(&strange, 0).contains("standing"));
        }
    }
}
