//! The end of a run, for a person: verdict, figures, failures, and the commands that come next.
//!
//! Everything that comes from outside passes through `text`. What is left out of the lists is counted and the
//! command that shows it is named.

use std::fmt::Write as _;

use andon_proto::{Run, Test, Verdict};

use super::exit::{self, Exit};
use super::listing::branch;
use super::stats::Stats;
use super::text::{cut, head, one_line, shell_word};
use super::{attempts, ids, words};

/// Most tests listed of each kind.
pub(crate) const LISTED_MAX: usize = 20;
/// Of more attempts it is said how many failed.
const ATTEMPTS_UNCOUNTED_MAX: usize = 3;
/// First lines of a message below a listed test.
pub(crate) const MESSAGE_LINES: usize = 3;
/// Longest name of an owner that is shown whole.
const OWNER_CHARS_MAX: usize = 60;
/// A rate is said of at least so long a time.
const RATE_MS_MIN: u64 = 1_000;
/// Lines of a run's reason: a failed seed brings its output.
const REASON_LINES: usize = 30;

/// Colours, where the output is a terminal that wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    Plain,
    Colour,
}

impl Paint {
    /// Green.
    pub(crate) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// Red.
    pub(crate) fn bad(self, text: &str) -> String {
        self.wrap("31", text)
    }

    /// Yellow.
    pub(crate) fn warn(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// Faint.
    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// The whole summary of a run with its tests.
pub(crate) fn summary(run: &Run, paint: Paint) -> String {
    let mut said = headline(run, paint);
    let counts = run.counts.unwrap_or_default();
    if counts.total > 0 {
        push(&mut said, "tests", &words::counts(&counts));
    }
    figures(&mut said, run);
    if !run.reason.is_empty() {
        reason(&mut said, &run.reason);
    }
    if run.forgotten {
        push(&mut said, "deleted", "its tests and logs: it ended too long ago (--keep-runs-days)");
    }
    let failed = |test: &&Test| matches!(test.verdict(), Verdict::Failed | Verdict::TimedOut);
    let infrastructure = |test: &&Test| matches!(test.verdict(), Verdict::Infrastructure);
    let flaky = |test: &&Test| matches!(test.verdict(), Verdict::Flaky);
    let quarantined = |test: &&Test| matches!(test.verdict(), Verdict::Quarantined);
    section(&mut said, run, &paint.bad("failed"), run.tests.iter().filter(failed), paint);
    section(&mut said, run, &paint.warn("infrastructure"), run.tests.iter().filter(infrastructure), paint);
    let titled = paint.warn("quarantined (blocks nothing)");
    section(&mut said, run, &titled, run.tests.iter().filter(quarantined), paint);
    section(&mut said, run, &paint.warn("flaky"), run.tests.iter().filter(flaky), paint);
    next_commands(&mut said, run);
    said
}

/// `run 12 failed: shop 4f2a9c1b7d3e (main)`.
pub(crate) fn headline(run: &Run, paint: Paint) -> String {
    let state = words::state_said(run.state());
    let state = match exit::of_run(run) {
        Some(Exit::Passed) => paint.good(&state),
        Some(Exit::TestsFailed | Exit::Config | Exit::Baseline) => paint.bad(&state),
        _ => paint.warn(&state),
    };
    let mut said =
        format!("run {} {state}: {} {}", run.run, cut(&run.project, 60), cut(words::short(&run.commit), 60));
    if !run.git_ref.is_empty() {
        write!(said, " ({})", cut(branch(&run.git_ref), 80)).expect("a string takes every write");
    }
    if run.rerun_of > 0 {
        write!(said, ", a rerun of {}", run.rerun_of).expect("a string takes every write");
    }
    said.push('\n');
    said
}

fn figures(said: &mut String, run: &Run) {
    let stats = Stats::of(run);
    if stats.wall_ms > 0 {
        let mut wall = words::millis(stats.wall_ms);
        if stats.testing_ms > 0 {
            write!(wall, ", tests ran for {}", words::millis(stats.testing_ms))
                .expect("a string takes every write");
        }
        push(said, "wall time", &wall);
    }
    if stats.tests_done > 0 && stats.wall_ms > 0 {
        let mut speed = format!("{} tests/min", whole(stats.per_minute));
        // Of a moment's tests the rate says nothing.
        if stats.testing_ms >= RATE_MS_MIN {
            write!(speed, ", {} while tests ran", whole(stats.per_minute_testing))
                .expect("a string takes every write");
        }
        push(said, "speed", &speed);
    }
    for of in &stats.rebases {
        let times = format!("p50 {}, p99 {}", words::micros(of.p50_us), words::micros(of.p99_us));
        let driver = cut(&of.driver, 40);
        push(said, "rebase", &format!("{driver}: {times} ({})", words::plural(of.count, "rebase")));
    }
    if let Some(balance) = stats.balance() {
        let busiest = stats.lanes.iter().map(|lane| lane.busy_ms).max().unwrap_or(0);
        let lanes = words::plural(stats.lanes.len() as u64, "lane");
        let busiest = words::millis(busiest);
        push(said, "sharding", &format!("{lanes}, busiest {busiest}, {balance:.2} × the mean"));
    }
    if !run.baseline_key.is_empty() {
        push(said, "baseline", &cut(words::short(&run.baseline_key), 60));
    }
}

fn reason(said: &mut String, reason: &str) {
    let mut lines = head(reason, REASON_LINES).into_iter();
    if let Some(first) = lines.next() {
        push(said, "reason", &first);
    }
    for line in lines {
        push(said, "", &line);
    }
}

fn section<'a>(
    said: &mut String,
    run: &Run,
    title: &str,
    tests: impl Iterator<Item = &'a Test>,
    paint: Paint,
) {
    let tests: Vec<&Test> = tests.collect();
    if tests.is_empty() {
        return;
    }
    writeln!(said, "\n{title}:").expect("a string takes every write");
    for test in tests.iter().take(LISTED_MAX) {
        said.push_str(&listed(run.run, test, paint));
    }
    if tests.len() > LISTED_MAX {
        let more = words::plural((tests.len() - LISTED_MAX) as u64, "more test");
        writeln!(said, "  and {more}: andon show {} --failed", run.run).expect("a string takes every write");
    }
}

/// One test with where it ran, its first message lines and the command for its log.
pub(crate) fn listed(run: u64, test: &Test, paint: Paint) -> String {
    let full = ids::full(&test.suite, &test.id);
    let mut said = format!("  {}", one_line(&full));
    if let Some(last) = attempts::last(test) {
        let mut tries = words::plural(test.attempts.len() as u64, "attempt");
        // Of a test that was repeated, how often it failed.
        if test.attempts.len() > ATTEMPTS_UNCOUNTED_MAX {
            write!(tries, ", {} failed", attempts::failed(test)).expect("a string takes every write");
        }
        let place = format!("{}/{}", cut(&last.worker, 40), last.lane);
        write!(said, "  ({tries}, last on {place}, {})", words::millis(last.run_ms))
            .expect("a string takes every write");
    }
    said.push('\n');
    if let Some(attempt) = attempts::speaking(test) {
        for line in head(&attempt.message, MESSAGE_LINES) {
            writeln!(said, "      {line}").expect("a string takes every write");
        }
    }
    if !test.owners.is_empty() {
        let owners: Vec<String> = test.owners.iter().map(|owner| cut(owner, OWNER_CHARS_MAX)).collect();
        writeln!(said, "      owned by {}", owners.join(", ")).expect("a string takes every write");
    }
    if let Some(of) = &test.quarantine {
        let until = words::day(of.until_unix_ms.saturating_sub(1));
        let owner = cut(&of.owner, OWNER_CHARS_MAX);
        writeln!(said, "      quarantine until {until}, looked after by {owner}")
            .expect("a string takes every write");
    }
    let command = format!("andon logs {run} {}", shell_word(&full));
    writeln!(said, "      {}", paint.dim(&command)).expect("a string takes every write");
    said
}

fn next_commands(said: &mut String, run: &Run) {
    let counts = run.counts.unwrap_or_default();
    let mut commands = Vec::new();
    if counts.failed + counts.timed_out + counts.infrastructure > 0 {
        commands.push(format!("andon rerun {} --failed", run.run));
    }
    if counts.not_run > 0 {
        commands.push(format!("andon rerun {} --not-run", run.run));
    }
    if matches!(exit::of_run(run), Some(Exit::Baseline | Exit::Config | Exit::NoTests)) {
        commands.push(format!("andon logs {}", run.run));
    }
    if commands.is_empty() {
        return;
    }
    said.push_str("\nnext:\n");
    for command in commands {
        writeln!(said, "  {command}").expect("a string takes every write");
    }
}

fn push(said: &mut String, name: &str, value: &str) {
    writeln!(said, "  {name:<10} {value}").expect("a string takes every write");
}

fn whole(rate: f64) -> String {
    words::thousands(rate.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_green_run_is_short() {
        insta::assert_snapshot!(summary(&sample::green(), Paint::Plain), @r#"
        run 13 passed: shop 4f2a9c1b7d3e (main)
          tests      4 passed
          wall time  16.0 s, tests ran for 4.0 s
          speed      15 tests/min, 60 while tests ran
          rebase     restart: p50 602 ms, p99 604 ms (4 rebases)
          sharding   4 lanes, busiest 1.6 s, 1.00 × the mean
          baseline   b1b1b1b1b1b1
        "#);
    }

    #[test]
    fn a_mixed_run_names_failures_and_the_next_commands() {
        insta::assert_snapshot!(summary(&sample::mixed(), Paint::Plain), @r#"
        run 12 failed: shop 4f2a9c1b7d3e (main)
          tests      1 passed, 1 failed, 1 timed out, 1 flaky, 1 skipped, 1 infrastructure, 1 not run
          wall time  1m 30s, tests ran for 1m 03s
          speed      3 tests/min, 5 while tests ran
          rebase     restart: p50 604 ms, p99 608 ms (8 rebases)
          sharding   4 lanes, busiest 1m 01s, 3.67 × the mean
          baseline   b1b1b1b1b1b1

        failed:
          integration/tests/test_orders.py::TestOrders::test_cancel  (2 attempts, last on w0/1, 310 ms)
              AssertionError: assert 2 == 3
                stock was 2
              andon logs 12 integration/tests/test_orders.py::TestOrders::test_cancel
          integration/tests/test_stock.py::test_hangs  (1 attempt, last on w1/1, 1m 00s)
              no end after 60 s
              andon logs 12 integration/tests/test_stock.py::test_hangs

        infrastructure:
          integration/tests/test_evil.py::test_\x1b[2J\u{202e}x  (1 attempt, last on w1/0, 0 ms)
              worker w1 was lost
              andon logs 12 $'integration/tests/test_evil.py::test_\x1b[2J\U0000202ex'

        flaky:
          integration/tests/test_stock.py::test_flaky  (2 attempts, last on w1/1, 210 ms)
              OperationalError: deadlock
              andon logs 12 integration/tests/test_stock.py::test_flaky

        next:
          andon rerun 12 --failed
          andon rerun 12 --not-run
        "#);
    }

    #[test]
    fn a_failed_seed_shows_its_output_and_where_the_log_is() {
        let run = Run {
            state: andon_proto::RunState::BaselineFailed.into(),
            reason: "seed command 1 ended with 1: mysql < db/seed.sql\nERROR 1064 \u{1b}[31m(42000)"
                .to_owned(),
            counts: None,
            tests: vec![],
            baseline_key: String::new(),
            ..sample::mixed()
        };
        insta::assert_snapshot!(summary(&run, Paint::Plain), @r#"
        run 12 baseline failed: shop 4f2a9c1b7d3e (main)
          wall time  1m 30s
          reason     seed command 1 ended with 1: mysql < db/seed.sql
                     ERROR 1064 \x1b[31m(42000)

        next:
          andon logs 12
        "#);
    }

    #[test]
    fn nothing_from_outside_reaches_the_terminal_raw() {
        let mut run = sample::mixed();
        let evil = "\u{1b}]0;x\u{7}\u{202e}\u{9b}31m";
        run.project = evil.to_owned();
        run.commit = evil.to_owned();
        run.git_ref = evil.to_owned();
        run.reason = evil.to_owned();
        run.baseline_key = evil.to_owned();
        for test in &mut run.tests {
            test.owners = vec![evil.to_owned()];
            test.suite = evil.to_owned();
            test.id = evil.to_owned();
            for attempt in &mut test.attempts {
                attempt.message = evil.to_owned();
                attempt.worker = evil.to_owned();
                attempt.driver = evil.to_owned();
            }
        }
        let said = summary(&run, Paint::Plain);
        let harmless = |c: char| c == '\n' || !c.is_control();
        assert!(said.chars().all(harmless), "{said:?}");
        assert!(!said.contains('\u{202e}'), "{said:?}");
    }

    #[test]
    fn a_failure_names_whose_it_is() {
        let mut run = sample::mixed();
        run.tests[1].owners = vec!["@shop/orders".to_owned(), "ann@shop.example".to_owned()];
        let said = summary(&run, Paint::Plain);
        assert!(said.contains("      owned by @shop/orders, ann@shop.example\n"), "{said}");
        assert_eq!(said.matches("owned by").count(), 1, "{said}");
    }

    #[test]
    fn what_is_in_quarantine_is_shown_apart_with_its_owner_and_end() {
        let mut run = sample::mixed();
        run.tests[1].set_verdict(Verdict::Quarantined);
        run.tests[1].quarantine = Some(andon_proto::Quarantine {
            owner: "@shop/orders".to_owned(),
            until_unix_ms: 1_800_057_600_000,
            ..Default::default()
        });
        let said = summary(&run, Paint::Plain);
        let apart = said.split("\nquarantined (blocks nothing):\n").nth(1).expect("a section");
        assert!(apart.starts_with("  integration/tests/test_orders.py::TestOrders::test_cancel"), "{said}");
        assert!(
            apart.contains("      quarantine until 2027-01-15, looked after by @shop/orders\n"),
            "{said}"
        );
        assert_eq!(said.matches("test_cancel  (").count(), 1, "{said}");
    }

    #[test]
    fn a_thousand_failures_are_counted_not_listed() {
        let mut run = sample::mixed();
        let failed = run.tests[1].clone();
        run.tests = (0..1_000).map(|n| Test { id: format!("t{n}"), ..failed.clone() }).collect();
        let said = summary(&run, Paint::Plain);
        assert!(said.contains("and 980 more tests: andon show 12 --failed"), "{said}");
        assert!(said.lines().count() < 120, "{}", said.lines().count());
    }
}
