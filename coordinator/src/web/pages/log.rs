//! What attempts print, line by line, with the line that explains a failure.
//!
//! Output is bytes that somebody's test wrote. Colours are taken out, tabs are filled up, bytes that are no text are replaced; what else
//! could hide or reorder is made visible by the templates' escaper. Long logs are shown by their head, their end, and what is around the line that
//! explains them.

use andon_figures::text;
use askama::Template;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Shared};

use super::{Frame, Page, filters, page};
use crate::web::State;

/// So many lines of a log are shown …
pub(crate) const LINES_MAX: usize = 6_000;
/// … of these so many from its beginning.
const HEAD_LINES: usize = 1_500;
/// Lines around the one that explains a failure.
const AROUND: usize = 250;
/// Longer lines are cut.
const LINE_CHARS_MAX: usize = 2_000;
/// Lines of a message that stand on a page.
const MESSAGE_LINES_MAX: usize = 8;
/// Words at which a failure explains itself where its message is nowhere in the log.
const TELLTALES: [&str; 7] =
    ["Error:", "FAILED", "Exception", "panicked at", "--- FAIL", "fatal:", "AssertionError"];

#[derive(Template)]
#[template(path = "log.html")]
struct LogPage {
    frame: Frame,
    project: String,
    run: u64,
    title: String,
    test_link: Option<String>,
    lines: Vec<Line>,
    lines_total: u64,
    lines_left_out: u64,
    has_why: bool,
    command: String,
}

/// A line of a log; without a number, what stands for lines that are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    number: Option<u64>,
    text: String,
    is_why: bool,
}

/// The first lines of a failure message.
pub(crate) fn head(message: &str) -> Vec<String> {
    text::head(&text::without_colours(message), MESSAGE_LINES_MAX)
}

/// Lines of a log's end, as they are shown.
pub(crate) fn excerpt(lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| shown(line)).collect()
}

pub(super) async fn of_run(
    Shared(state): Shared<State>,
    frame: Frame,
    run: Result<Path<u64>, PathRejection>,
) -> Page {
    let Path(run) = run?;
    let view = state.views.run(run).await?;
    let log = state.views.log(run, None, None).await?;
    let shown = Shown::of(&log.text, "", false);
    let title = format!("Log of run {run}");
    page(&shown.page(frame, view.line.project, run, title, None, format!("andon logs {run}")))
}

pub(super) async fn of_attempt(
    Shared(state): Shared<State>,
    frame: Frame,
    place: Result<Path<(u64, u32, u64)>, PathRejection>,
) -> Page {
    let Path((run, test, attempt)) = place?;
    let view = state.views.test_of_run(run, test).await?;
    let log = state.views.log(run, Some(test), Some(attempt)).await?;
    let of = view.all_attempts.iter().find(|one| one.attempt == attempt);
    let message = of.map(|one| one.message.as_str()).unwrap_or_default();
    let failed = of.is_some_and(|one| !matches!(one.outcome, "passed" | "skipped" | "open"));
    let shown = Shown::of(&log.text, message, failed);
    let named = text::cut(&format!("{}/{}", view.test.suite, view.test.id), 1_000);
    let command = format!("andon logs {run} {} --attempt {attempt}", text::shell_word(&named));
    let link = Some(format!("/runs/{run}/tests/{test}"));
    page(&shown.page(frame, view.run.project, run, view.test.id, link, command))
}

struct Shown {
    lines: Vec<Line>,
    total: usize,
    has_why: bool,
}

impl Shown {
    /// `failed`: a line is looked for that says why.
    fn of(log: &[u8], message: &str, failed: bool) -> Self {
        let log = String::from_utf8_lossy(log);
        let all: Vec<&str> = log.lines().collect();
        let why = if failed { line_of(&all, message) } else { None };
        let total = all.len();
        let kept = |at: usize| {
            total <= LINES_MAX
                || at < HEAD_LINES
                || at >= total - (LINES_MAX - HEAD_LINES - 2 * AROUND - 1)
                || why.is_some_and(|why| at.abs_diff(why) <= AROUND)
        };
        let mut lines: Vec<Line> = Vec::with_capacity(total.min(LINES_MAX + 2));
        let mut left_out = 0_u64;
        for (at, line) in all.iter().enumerate() {
            if !kept(at) {
                left_out += 1;
                continue;
            }
            if left_out > 0 {
                lines.push(gap(std::mem::take(&mut left_out)));
            }
            lines.push(Line { number: Some(at as u64 + 1), text: shown(line), is_why: why == Some(at) });
        }
        Self { lines, total, has_why: why.is_some() }
    }

    fn page(
        self,
        frame: Frame,
        project: String,
        run: u64,
        title: String,
        test_link: Option<String>,
        command: String,
    ) -> LogPage {
        let there = self.lines.iter().filter(|line| line.number.is_some()).count();
        LogPage {
            frame: frame.within("runs"),
            project,
            run,
            title,
            test_link,
            lines_total: self.total as u64,
            lines_left_out: (self.total - there) as u64,
            lines: self.lines,
            has_why: self.has_why,
            command,
        }
    }
}

fn gap(lines: u64) -> Line {
    let text = format!("… {} are left out here …", andon_figures::words::plural(lines, "line"));
    Line { number: None, text, is_why: false }
}

/// The line that explains a failure: the last that holds the message's first line, else the last that has a telltale word, else
/// the last that says anything.
fn line_of(lines: &[&str], message: &str) -> Option<usize> {
    let message = text::without_colours(message);
    let wanted = message.lines().map(str::trim).find(|line| !line.is_empty());
    let has_message = |line: &&str| wanted.is_some_and(|wanted| text::without_colours(line).contains(wanted));
    let has_telltale = |line: &&str| TELLTALES.iter().any(|telltale| line.contains(telltale));
    let says_anything = |line: &&str| !line.trim().is_empty();
    lines
        .iter()
        .rposition(has_message)
        .or_else(|| lines.iter().rposition(has_telltale))
        .or_else(|| lines.iter().rposition(says_anything))
}

/// One line: no colours, tabs as spaces, cut.
fn shown(line: &str) -> String {
    const TAB: usize = 8;
    let plain = text::without_colours(line);
    let mut shown = String::with_capacity(plain.len());
    for (at, letter) in plain.chars().enumerate() {
        match letter {
            _ if at >= LINE_CHARS_MAX => {
                shown.push('…');
                break;
            }
            '\t' => shown.extend(std::iter::repeat_n(' ', TAB - shown.chars().count() % TAB)),
            letter => shown.push(letter),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_holds_the_message_explains() {
        let log = "start\nassert 1 == 2\nE   assert 1 == 2\nmore\nAssertionError\n";
        let shown = Shown::of(log.as_bytes(), "\n  assert 1 == 2\nand more", true);
        let why = shown.lines.iter().find(|line| line.is_why).expect("it is there");
        assert_eq!((why.number, why.text.as_str()), (Some(3), "E   assert 1 == 2"));
    }

    #[test]
    fn without_the_message_a_telltale_word_explains_and_else_the_last_line() {
        let of =
            |log: &str| Shown::of(log.as_bytes(), "nowhere", true).lines.iter().position(|line| line.is_why);
        assert_eq!(of("a\nValueError: x\nb\n"), Some(1));
        assert_eq!(of("a\nb\n\n"), Some(1));
        assert_eq!(of(""), None);
        assert!(!Shown::of(b"Error: x", "", false).lines[0].is_why);
    }

    #[test]
    fn a_long_log_keeps_its_head_its_end_and_what_explains_it() {
        let mut log: Vec<String> = (1..=100_000).map(|n| format!("line {n}")).collect();
        log[50_000] = "boom".to_owned();
        let shown = Shown::of(log.join("\n").as_bytes(), "boom", true);
        assert!(shown.lines.len() <= LINES_MAX + 2, "{}", shown.lines.len());
        assert!(shown.lines.iter().any(|line| line.is_why && line.number == Some(50_001)));
        assert_eq!(shown.lines.last().and_then(|line| line.number), Some(100_000));
        assert_eq!(shown.lines.iter().filter(|line| line.number.is_none()).count(), 2);
    }

    #[test]
    fn a_line_is_plain_and_bounded() {
        assert_eq!(super::shown("\x1b[31mred\x1b[0m\ta"), "red     a");
        assert_eq!(super::shown(&"x".repeat(1 << 20)).chars().count(), LINE_CHARS_MAX + 1);
        assert_eq!(Shown::of(b"\xff\xfe", "", false).lines[0].text, "\u{fffd}\u{fffd}");
    }
}
