//! A run's lanes over time, as the geometry of a drawing: a row a lane, a bar an attempt, its rebase before it.
//!
//! Bars that would be thinner than a pixel are drawn together, so that a drawing has at most so many bars as it is wide, whatever
//! the run. What failed is never drawn together with what passed, stays visible, and reaches below its row: it is not told by its colour alone.

use andon_figures::{text, words};

use crate::views;

/// The drawing's own units.
const WIDTH: f64 = 1_000.0;
/// Where lanes begin; their names stand before.
const LEFT: f64 = 130.0;
/// Height of a row, with the space below it.
const ROW: u32 = 24;
const BAR: u32 = 16;
/// What failed reaches lower.
const BAR_FAILED: u32 = 21;
const TOP: u32 = 22;
/// Narrower bars are drawn together.
const NARROW: f64 = 1.5;
/// What failed is at least this wide.
const FAILED_LEAST: f64 = 2.5;
const LANES_MAX: usize = 64;
const TICKS: u32 = 6;

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Timeline {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) left: f64,
    pub(super) inner: f64,
    pub(super) lanes: Vec<Lane>,
    pub(super) ticks: Vec<Tick>,
    pub(super) said: String,
    pub(super) left_out: u64,
    pub(super) lanes_left_out: u64,
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) y: u32,
    pub(super) text_y: u32,
    pub(super) bars: Vec<Bar>,
}

/// Something that a lane did.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bar {
    pub(super) x: f64,
    pub(super) width: f64,
    pub(super) height: u32,
    pub(super) fill: &'static str,
    pub(super) title: String,
    pub(super) link: Option<String>,
    /// The keyboard passes over it; the list of tests has it.
    pub(super) is_quiet: bool,
}

/// A moment at the top.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    pub(super) x: f64,
    pub(super) label: String,
    pub(super) anchor: &'static str,
}

impl Timeline {
    pub(super) fn of(view: &views::Timeline) -> Self {
        let took_ms = view.to_unix_ms.saturating_sub(view.from_unix_ms).max(1);
        let scale = Scale { from: view.from_unix_ms as f64, per_ms: (WIDTH - LEFT) / took_ms as f64 };
        let lanes: Vec<Lane> = view
            .lanes
            .iter()
            .take(LANES_MAX)
            .enumerate()
            .map(|(row, lane)| draw(view.run, row, lane, scale))
            .collect();
        let ticks = (0..=TICKS).map(|tick| {
            let ms = took_ms * u64::from(tick) / u64::from(TICKS);
            let anchor = if tick == TICKS { "end" } else { "start" };
            Tick { x: round(LEFT + ms as f64 * scale.per_ms), label: words::millis(ms), anchor }
        });
        Self {
            width: WIDTH as u32,
            height: TOP + ROW * u32::try_from(lanes.len()).unwrap_or(0),
            left: LEFT,
            inner: WIDTH - LEFT,
            ticks: ticks.collect(),
            said: words::millis(took_ms),
            left_out: view.left_out,
            lanes_left_out: view.lanes.len().saturating_sub(LANES_MAX) as u64,
            lanes,
        }
    }

    pub(super) fn has_spans(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.bars.is_empty())
    }
}

#[derive(Debug, Clone, Copy)]
struct Scale {
    from: f64,
    per_ms: f64,
}

impl Scale {
    /// Within the drawing, whatever clocks say.
    fn x(self, unix_ms: f64) -> f64 {
        (LEFT + (unix_ms - self.from) * self.per_ms).clamp(LEFT, WIDTH)
    }
}

/// Bars that are drawn as one.
struct Together {
    x: f64,
    end: f64,
    tests: u64,
}

fn draw(run: u64, row: usize, lane: &views::TimelineLane, scale: Scale) -> Lane {
    let y = TOP + ROW * u32::try_from(row).unwrap_or(0);
    let mut bars = Vec::new();
    let mut together: Option<Together> = None;
    for span in &lane.spans {
        let started = span.started_unix_ms as f64;
        let (from, to) = (scale.x(started), scale.x(started + span.run_ms as f64));
        let before = scale.x(started - span.rebase_us as f64 / 1_000.0 - span.prepare_ms as f64);
        let has_failed = matches!(span.outcome, "failed" | "timed_out");
        if !has_failed && span.outcome == "passed" && to - before < NARROW {
            match &mut together {
                Some(group) if before - group.end < NARROW => {
                    (group.end, group.tests) = (to.max(group.end), group.tests + 1);
                }
                _ => {
                    bars.extend(together.take().map(Together::bar));
                    together = Some(Together { x: before, end: to, tests: 1 });
                }
            }
            continue;
        }
        bars.extend(together.take().map(Together::bar));
        if from - before >= NARROW / 2.0 {
            bars.push(rebase_bar(span, before, from));
        }
        bars.push(test_bar(run, span, has_failed, from, to));
    }
    bars.extend(together.map(Together::bar));
    let name = text::cut(&format!("{} · {}", lane.worker, lane.lane), 18);
    Lane { name, y, text_y: y + 12, bars }
}

impl Together {
    fn bar(self) -> Bar {
        Bar {
            x: round(self.x),
            width: round((self.end - self.x).max(1.0)),
            height: BAR,
            fill: "f-passed",
            title: format!("{} passed", words::plural(self.tests, "test")),
            link: None,
            is_quiet: true,
        }
    }
}

fn rebase_bar(span: &views::Span, before: f64, from: f64) -> Bar {
    Bar {
        x: round(before),
        width: round(from - before),
        height: BAR,
        fill: "f-rebase",
        title: format!(
            "rebase {}, preparation {}",
            words::micros(span.rebase_us),
            words::millis(span.prepare_ms)
        ),
        link: None,
        is_quiet: true,
    }
}

fn test_bar(run: u64, span: &views::Span, has_failed: bool, from: f64, to: f64) -> Bar {
    let least = if has_failed { FAILED_LEAST } else { 1.0 };
    let width = (to - from).max(least);
    Bar {
        x: round(from.min(WIDTH - width)),
        width: round(width),
        height: if has_failed { BAR_FAILED } else { BAR },
        fill: match span.outcome {
            "passed" => "f-passed",
            "failed" | "timed_out" => "f-failed",
            "infrastructure" => "f-farm",
            "open" => "f-busy",
            _ => "f-quiet",
        },
        title: text::cut(
            &format!(
                "{}/{}: {}, {}",
                span.suite,
                span.id,
                span.outcome.replace('_', " "),
                words::millis(span.run_ms)
            ),
            300,
        ),
        link: Some(format!("/runs/{run}/tests/{}#attempt-{}", span.test, span.attempt)),
        is_quiet: !has_failed,
    }
}

/// Tenths are fine enough, and short.
fn round(at: f64) -> f64 {
    (at * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(test: u32, started_unix_ms: u64, run_ms: u64, outcome: &'static str) -> views::Span {
        let id = format!("t::{test}");
        views::Span {
            test,
            suite: "s".into(),
            id,
            attempt: 1,
            outcome,
            started_unix_ms,
            prepare_ms: 0,
            start_ms: 0,
            rebase_us: 500,
            run_ms,
            report_us: 0,
        }
    }

    fn view(spans: Vec<views::Span>, to_unix_ms: u64) -> views::Timeline {
        let lanes = vec![views::TimelineLane { worker: "w".into(), lane: 0, spans }];
        views::Timeline { run: 7, from_unix_ms: 0, to_unix_ms, lanes, left_out: 0 }
    }

    #[test]
    fn many_short_tests_are_few_bars_and_no_failure_is_lost_among_them() {
        let mut spans: Vec<_> = (0..5_000).map(|n| span(n, u64::from(n) * 10, 9, "passed")).collect();
        spans[2_500].outcome = "failed";
        let drawn = Timeline::of(&view(spans, 50_000));
        let bars = &drawn.lanes[0].bars;
        assert!(bars.len() <= 4, "{bars:?}");
        let failed: Vec<_> = bars.iter().filter(|bar| bar.fill == "f-failed").collect();
        assert_eq!(failed.len(), 1);
        assert!(failed[0].width >= FAILED_LEAST && failed[0].height > BAR && !failed[0].is_quiet);
        assert_eq!(failed[0].link.as_deref(), Some("/runs/7/tests/2500#attempt-1"));
    }

    #[test]
    fn clocks_that_disagree_stay_within_the_drawing() {
        let spans =
            vec![span(0, 0, u64::MAX, "passed"), span(1, u64::MAX, 5, "failed"), span(2, 10, 0, "open")];
        for bar in &Timeline::of(&view(spans, 100)).lanes[0].bars {
            assert!(bar.x >= LEFT && bar.x + bar.width <= WIDTH + 0.2, "{bar:?}");
        }
        assert!(!Timeline::of(&view(Vec::new(), 0)).has_spans());
    }
}
