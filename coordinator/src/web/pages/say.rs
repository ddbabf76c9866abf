//! The words, shapes and tones of states and verdicts, and small drawings that templates ask for. A status is always a word
//! and a shape; its tone only repeats them.

use andon_figures::words;

use crate::store::Counts;
use crate::store::ledger::Spent;
use crate::views::{LineState, ProjectRun, RateView, WorkerLine};

/// Names longer than this are cut; `macros.html` does it.
pub(crate) const NAME_CHARS_MAX: usize = 140;
/// No form and no address carries a longer name.
const CHOICE_BYTES_MAX: usize = 300;
/// Lanes of a worker that are drawn.
const LANES_MAX: u32 = 256;
/// What a share bar is wide, in its own units.
const BAR: u32 = 1_000;
/// What is there at all can be seen.
const BAR_LEAST: u32 = 8;

/// Which colour repeats the word: one of the classes of `app.css`.
pub(crate) fn tone(word: &str) -> &'static str {
    match word {
        "passed" | "steady" | "settled" => "passed",
        "failed" | "timed_out" | "broken" | "baseline_failed" | "config_error" => "failed",
        "flaky" | "quarantined" => "flaky",
        "infrastructure" | "incomplete" | "unfit" => "farm",
        "preparing" | "discovering" | "running" => "busy",
        _ => "quiet",
    }
}

/// Which symbol of `icons.html` stands before the word.
pub(crate) fn shape(word: &str) -> &'static str {
    match word {
        "passed" | "steady" | "settled" => "i-check",
        "failed" | "broken" | "baseline_failed" | "config_error" => "i-cross",
        "timed_out" => "i-clock",
        "flaky" | "quarantined" => "i-wave",
        "infrastructure" | "incomplete" | "unfit" => "i-bolt",
        "preparing" | "discovering" | "running" => "i-turn",
        "queued" | "open" | "idle" => "i-dots",
        _ => "i-dash",
    }
}

/// The word as a person reads it.
pub(crate) fn word(word: &str) -> String {
    word.replace('_', " ")
}

/// True where a name is cut, so that its title has the rest.
pub(crate) fn is_long(name: &str) -> bool {
    name.chars().nth(NAME_CHARS_MAX).is_some()
}

/// True for a name that a form or an address can carry.
pub(crate) fn is_choice(name: &str) -> bool {
    name.len() <= CHOICE_BYTES_MAX
}

/// The line in one sentence.
pub(crate) fn line(state: &LineState) -> &'static str {
    match state {
        LineState::Idle => "The line is idle",
        LineState::Flows => "The line flows",
        LineState::Slow => "The line needs a look",
        LineState::Stands => "The line stands",
    }
}

/// Where no reason is given.
pub(crate) fn line_reason(state: &LineState) -> &'static str {
    match state {
        LineState::Idle => "Nothing is asked of it.",
        LineState::Flows => "Work is done as it comes.",
        LineState::Slow | LineState::Stands => "",
    }
}

/// Its tone.
pub(crate) fn line_tone(state: &LineState) -> &'static str {
    match state {
        LineState::Idle => "quiet",
        LineState::Flows => "passed",
        LineState::Slow => "flaky",
        LineState::Stands => "failed",
    }
}

/// Whether this lamp of the three, from the top, is on.
pub(crate) fn lamp(state: &LineState, lamp: u8) -> &'static str {
    let on = match state {
        LineState::Stands => 0,
        LineState::Slow => 1,
        LineState::Flows => 2,
        LineState::Idle => 3,
    };
    if lamp == on { "on" } else { "off" }
}

/// `1,203 passed, 2 failed`.
pub(crate) fn counts(counts: &Counts) -> String {
    words::tally(&parts(counts).map(|(count, name, _)| (u64::from(count), name)), "no tests")
}

/// A part of a share bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bar {
    pub(crate) x: u32,
    pub(crate) width: u32,
    pub(crate) fill: &'static str,
}

/// Tests by verdict, as parts of a bar that is [`BAR`] wide. What is there at all is at least [`BAR_LEAST`] wide.
pub(crate) fn bars(counts: &Counts) -> Vec<Bar> {
    parts_of_bar(&parts(counts).map(|(count, _, fill)| (u64::from(count), fill)))
}

fn parts_of_bar(parts: &[(u64, &'static str)]) -> Vec<Bar> {
    let total: u64 = parts.iter().map(|(count, _)| count).sum();
    let there = parts.iter().copied().filter(|(count, _)| *count > 0);
    let wide = |count: u64| {
        let share = u128::from(count) * u128::from(BAR) / u128::from(total.max(1));
        u32::try_from(share).unwrap_or(BAR).max(BAR_LEAST)
    };
    let sum: u32 = there.clone().map(|(count, _)| wide(count)).sum();
    let mut x = 0;
    let mut bars = Vec::new();
    for (count, fill) in there {
        let width = wide(count) * BAR / sum.max(1);
        bars.push(Bar { x, width, fill });
        x += width;
    }
    if let Some(last) = bars.last_mut() {
        last.width = BAR - last.x;
    }
    bars
}

/// Lanes' time by what it went to, as parts of a bar; none where lanes were not busy.
pub(crate) fn spent_bars(spent: &Spent) -> Vec<Bar> {
    let took = spent_us(spent);
    parts_of_bar(&std::array::from_fn::<_, 5, _>(|at| (took[at], SPENT_FILLS[at])))
}

/// `tests 61 %, runners' starts 24 %, rebases 15 %`.
pub(crate) fn spent(spent: &Spent) -> String {
    words::spent(spent_us(spent))
}

/// For how long lanes were busy.
pub(crate) fn lane_time(spent: &Spent) -> String {
    words::millis(spent.lane_ms())
}

/// The colours of [`words::SPENT`].
const SPENT_FILLS: [&str; 5] = ["f-rebase", "f-quiet", "f-start", "f-busy", "f-report"];

/// What lanes are busy with, each with its colour.
pub(crate) fn spent_key() -> [(&'static str, &'static str); 5] {
    std::array::from_fn(|at| (words::SPENT[at], SPENT_FILLS[at]))
}

/// Microseconds of lanes, by [`words::SPENT`].
fn spent_us(spent: &Spent) -> [u64; 5] {
    let Spent { rebase_us, set_up_ms, start_ms, test_ms, report_us, queue_ms: _ } = *spent;
    let micros = |ms: u64| ms.saturating_mul(1_000);
    [rebase_us, micros(set_up_ms), micros(start_ms), micros(test_ms), report_us]
}

/// Each count with its word and its colour, what needs a look first.
fn parts(counts: &Counts) -> [(u32, &'static str, &'static str); 9] {
    [
        (counts.failed, "failed", "f-failed"),
        (counts.timed_out, "timed out", "f-failed"),
        (counts.infrastructure, "infrastructure", "f-farm"),
        (counts.quarantined, "quarantined", "f-flaky"),
        (counts.flaky, "flaky", "f-flaky"),
        (counts.passed, "passed", "f-passed"),
        (counts.skipped, "skipped", "f-quiet"),
        (counts.not_run, "not run", "f-quiet"),
        (counts.open, "open", "f-open"),
    ]
}

/// What a chart marks of a run: words that `charts.js` knows.
pub(crate) fn marks(is_red: bool, has_other_baseline: bool) -> String {
    let marks = [(is_red, "failed"), (has_other_baseline, "baseline")];
    marks.into_iter().filter_map(|(is, mark)| is.then_some(mark)).collect::<Vec<_>>().join(" ")
}

/// The same of a project's run.
pub(crate) fn mark(run: &ProjectRun) -> String {
    marks(tone(run.line.state) == "failed", run.baseline_changed)
}

/// Whether this choice of a form is the one that was asked for.
pub(crate) fn is(asked: &str, choice: &str) -> bool {
    asked == choice
}

/// How a worker is.
pub(crate) fn worker(worker: &WorkerLine) -> &'static str {
    match worker {
        WorkerLine { connected: false, .. } => "away",
        WorkerLine { unfit, .. } if !unfit.is_empty() => "unfit",
        WorkerLine { lanes_busy: 0, .. } => "idle",
        _ => "running",
    }
}

/// A class for each of its lanes.
pub(crate) fn lanes(worker: &WorkerLine) -> Vec<&'static str> {
    let lane = |lane| match (worker.connected, lane < worker.lanes_busy) {
        (false, _) => "away",
        (true, true) => "taken",
        (true, false) => "free",
    };
    (0..worker.lanes.min(LANES_MAX)).map(lane).collect()
}

/// The interval of a rate, and what it was told from.
pub(crate) fn interval(rate: &RateView) -> String {
    if rate.of == 0 {
        return "nothing to tell it from".to_owned();
    }
    let (hits, of) = (words::thousands(rate.hits), words::thousands(rate.of));
    format!("{hits} of {of}; 95 %: {} to {} %", percent(rate.low), percent(rate.high))
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let decimals = usize::from(percent < 9.95 && percent > 0.0);
    format!("{percent:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_filled_and_shows_what_is_rare() {
        let counts = Counts { passed: 100_000, failed: 1, flaky: 1, ..Counts::default() };
        let bars = bars(&counts);
        assert_eq!(bars.iter().map(|bar| bar.width).sum::<u32>(), BAR);
        assert!(bars.iter().all(|bar| bar.width >= BAR_LEAST - 1), "{bars:?}");
        assert_eq!(bars.iter().map(|bar| bar.fill).collect::<Vec<_>>(), ["f-failed", "f-flaky", "f-passed"]);
        assert!(super::bars(&Counts::default()).is_empty());
    }

    #[test]
    fn counts_name_what_needs_a_look_first() {
        let some = Counts { passed: 1_203, failed: 1, timed_out: 2, ..Counts::default() };
        assert_eq!(counts(&some), "1 failed, 2 timed out, 1,203 passed");
        assert_eq!(counts(&Counts::default()), "no tests");
    }

    #[test]
    fn a_rate_is_told_with_its_interval() {
        let few = RateView { hits: 1, of: 40, share: Some(0.025), low: 0.004, high: 0.129 };
        assert_eq!(interval(&few), "1 of 40; 95 %: 0.4 to 13 %");
        let none = RateView { hits: 0, of: 0, share: None, low: 0.0, high: 1.0 };
        assert_eq!(interval(&none), "nothing to tell it from");
    }
}
