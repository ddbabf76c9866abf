//! The screen as a frame of whatever size there is. Must not change what it draws.
//!
//! A small terminal has the run, its progress, one list and the keys; a larger one other runs, lanes and the end of a log beside.

use andon_proto::{Run, RunState, Verdict, Worker};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, List, ListItem, ListState, Paragraph};

use super::model::{Focus, Screen, Told};
use crate::report::{text, words};

/// From this size on, runs and lanes are shown.
const ROOMY: (u16, u16) = (60, 20);
/// The rows of runs and lanes, with their frames.
const TOP_ROWS: u16 = 6;
const BAR_CELLS: u16 = 20;

/// Styles, or none where the person wants none.
#[derive(Clone, Copy)]
struct Styles {
    colour: bool,
}

impl Styles {
    fn of(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn verdict(self, verdict: Verdict) -> Style {
        match verdict {
            Verdict::Failed | Verdict::TimedOut => self.of(Color::Red),
            Verdict::Flaky | Verdict::Infrastructure | Verdict::Quarantined => self.of(Color::Yellow),
            Verdict::Passed => self.of(Color::Green),
            Verdict::Unspecified | Verdict::Skipped | Verdict::NotRun => Style::new(),
        }
    }

    fn state(self, state: RunState) -> Style {
        match state {
            RunState::Passed => self.of(Color::Green),
            RunState::Failed | RunState::BaselineFailed | RunState::ConfigError => self.of(Color::Red),
            RunState::Incomplete | RunState::NoTests => self.of(Color::Yellow),
            _ => Style::new(),
        }
    }
}

/// Draws all of it.
pub(crate) fn draw(screen: &Screen, frame: &mut Frame<'_>, colour: bool) {
    let styles = Styles { colour };
    let area = frame.area();
    let roomy = area.width >= ROOMY.0 && area.height >= ROOMY.1;
    let [title, progress, middle, footer] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(heading(screen, styles), title);
    frame.render_widget(pace(screen, styles), progress);
    match (screen.focus, roomy) {
        (Focus::Log, _) => log(screen, frame, middle),
        (Focus::Runs, false) => runs(screen, frame, middle, styles),
        (Focus::Tests, false) => tests(screen, frame, middle, styles),
        (_, true) => {
            let [top, list, end] = Layout::vertical([
                Constraint::Length(TOP_ROWS),
                Constraint::Min(4),
                Constraint::Percentage(if screen.log.is_some() { 40 } else { 0 }),
            ])
            .areas(middle);
            let [left, right] =
                Layout::horizontal([Constraint::Percentage(60), Constraint::Percentage(40)]).areas(top);
            runs(screen, frame, left, styles);
            lanes(screen, frame, right, styles);
            tests(screen, frame, list, styles);
            if screen.log.is_some() {
                log(screen, frame, end);
            }
        }
    }
    frame.render_widget(keys(screen), footer);
    if screen.help {
        help(frame, area);
    }
}

fn heading(screen: &Screen, styles: Styles) -> Line<'static> {
    let state = screen.run.as_ref().map_or(RunState::Unspecified, Run::state);
    let mut spans = vec![
        Span::styled(format!("run {} ", screen.number()), Style::new().add_modifier(Modifier::BOLD)),
        Span::styled(screen.state(), styles.state(state).add_modifier(Modifier::BOLD)),
    ];
    if let Some(run) = &screen.run {
        let branch = run.git_ref.strip_prefix("refs/heads/").unwrap_or(&run.git_ref);
        let what =
            [text::cut(&run.project, 60), text::cut(words::short(&run.commit), 60), text::cut(branch, 60)];
        spans.push(Span::raw(format!("  {}", what.join(" ").trim_end())));
        if !run.reason.is_empty() {
            spans.push(Span::raw(format!("  {}", text::cut(&run.reason, 200))));
        }
    }
    Line::from(spans)
}

fn pace(screen: &Screen, styles: Styles) -> Line<'static> {
    if screen.lost {
        let said = "the coordinator does not answer; asking again";
        return Line::from(Span::styled(said, styles.of(Color::Yellow)));
    }
    let (decided, total) = screen.progress.position();
    let mut spans = Vec::new();
    if let Some(full) = (decided.min(total) * u64::from(BAR_CELLS)).checked_div(total) {
        let full = usize::try_from(full).unwrap_or(0);
        let empty = usize::from(BAR_CELLS).saturating_sub(full);
        spans.push(Span::raw(format!("{}{} ", "█".repeat(full), "░".repeat(empty))));
    }
    spans.push(Span::raw(screen.progress.line(screen.now)));
    if total == 0 && !screen.notice.is_empty() {
        spans.push(Span::raw(format!(" · {}", screen.notice)));
    }
    Line::from(spans)
}

fn runs(screen: &Screen, frame: &mut Frame<'_>, area: Rect, styles: Styles) {
    let items = screen.runs.iter().map(|run| {
        let counts = run.counts.as_ref().map(words::counts).unwrap_or_default();
        ListItem::new(Line::from(vec![
            Span::raw(format!("{:>5} ", run.run)),
            Span::styled(format!("{:<11} ", words::state_said(run.state())), styles.state(run.state())),
            Span::raw(format!(
                "{} {}  {counts}",
                text::cut(&run.project, 20),
                text::cut(words::short(&run.commit), 12)
            )),
        ]))
    });
    let list = List::new(items).block(block("Runs", screen.focus == Focus::Runs)).highlight_symbol("> ");
    let mut state =
        ListState::default().with_selected((!screen.runs.is_empty()).then_some(screen.chosen_run));
    frame.render_stateful_widget(list, area, &mut state);
}

fn lanes(screen: &Screen, frame: &mut Frame<'_>, area: Rect, styles: Styles) {
    let lines: Vec<Line<'_>> = if screen.workers.is_empty() {
        vec![Line::from(Span::styled("no workers", styles.of(Color::Yellow)))]
    } else {
        screen.workers.iter().map(|worker| worker_line(worker, styles)).collect()
    };
    frame.render_widget(Paragraph::new(lines).block(block("Lanes", false)), area);
}

fn worker_line(worker: &Worker, styles: Styles) -> Line<'static> {
    /// Beyond it the number alone tells.
    const SQUARES_MAX: u32 = 16;
    let name = text::cut(&worker.name, 20);
    if !worker.connected {
        return Line::from(vec![
            Span::raw(format!("{name} ")),
            Span::styled("away", styles.of(Color::Yellow)),
        ]);
    }
    let squares: String = (0..worker.lanes.min(SQUARES_MAX))
        .map(|lane| if lane < worker.lanes_busy { '■' } else { '□' })
        .collect();
    let mut spans = vec![Span::raw(format!("{name} {squares} {}/{}", worker.lanes_busy, worker.lanes))];
    if worker.unfit.is_empty() {
        spans.push(Span::raw(format!(" {}", text::cut(&worker.driver, 12))));
    } else {
        spans.push(Span::styled(format!(" {}", text::cut(&worker.unfit, 60)), styles.of(Color::Yellow)));
    }
    Line::from(spans)
}

fn tests(screen: &Screen, frame: &mut Frame<'_>, area: Rect, styles: Styles) {
    let listed: Vec<usize> = screen.listed().collect();
    let what = if screen.all_tests { "Tests" } else { "Failures" };
    let title = format!("{what} ({})", words::thousands(listed.len() as u64));
    if listed.is_empty() {
        let nothing = if screen.all_tests { "no verdict yet" } else { "no failures" };
        frame.render_widget(Paragraph::new(nothing).block(block(&title, screen.focus == Focus::Tests)), area);
        return;
    }
    let items = listed.iter().map(|at| ListItem::new(test_line(&screen.tests[*at], styles)));
    let list = List::new(items).block(block(&title, screen.focus == Focus::Tests)).highlight_symbol("> ");
    let selected = screen.chosen.and_then(|chosen| listed.iter().position(|at| *at == chosen));
    frame.render_stateful_widget(list, area, &mut ListState::default().with_selected(selected));
}

fn test_line(told: &Told, styles: Styles) -> Line<'static> {
    let verdict = match told.verdict {
        Verdict::Infrastructure => "INFRA".to_owned(),
        verdict => words::verdict(verdict).replace('_', " ").to_uppercase(),
    };
    Line::from(vec![
        Span::styled(format!("{verdict:<9} "), styles.verdict(told.verdict)),
        Span::raw(told.name.clone()),
        Span::styled(format!("  {}", told.why), Style::new().add_modifier(Modifier::DIM)),
    ])
}

fn log(screen: &Screen, frame: &mut Frame<'_>, area: Rect) {
    let Some(log) = &screen.log else { return };
    let title = format!("Log of {}", log.name);
    let rows = usize::from(area.height.saturating_sub(2));
    let lines: Vec<Line<'_>> = match &log.lines {
        None => vec![Line::raw("…")],
        Some(lines) if lines.is_empty() => vec![Line::raw("nothing was written")],
        Some(lines) => {
            let end = lines.len().saturating_sub(log.up).max(rows.min(lines.len()));
            lines[end.saturating_sub(rows)..end].iter().map(|line| Line::raw(line.as_str())).collect()
        }
    };
    frame.render_widget(Paragraph::new(lines).block(block(&title, screen.focus == Focus::Log)), area);
}

fn block(title: &str, focused: bool) -> Block<'static> {
    let style = if focused { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
    Block::bordered().title(Span::styled(format!(" {title} "), style))
}

fn keys(screen: &Screen) -> Line<'static> {
    let filter = if screen.all_tests { "f failures" } else { "f all tests" };
    let said = match screen.focus {
        Focus::Log => "q quit  ↑↓/jk scroll  esc back  ? help".to_owned(),
        Focus::Runs => "q quit  ↑↓/jk move  ⏎ follow  esc back  ? help".to_owned(),
        Focus::Tests => format!("q quit  ↑↓/jk move  ⏎ log  {filter}  tab runs  ? help"),
    };
    Line::from(Span::styled(said, Style::new().add_modifier(Modifier::REVERSED)))
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    const LINES: [&str; 8] = [
        "q, Ctrl-C   leave; the run goes on",
        "↑ ↓ j k     move; PgUp PgDn g G",
        "⏎           log of the test, whole",
        "esc         back",
        "f           failures, or all tests",
        "tab         runs; ⏎ follows one",
        "?           this",
        "any key closes this",
    ];
    let width = area.width.min(40);
    let height = area.height.min(LINES.len() as u16 + 2);
    let within = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
    frame.render_widget(Clear, within);
    let lines: Vec<Line<'_>> = LINES.iter().map(|line| Line::raw(*line)).collect();
    frame.render_widget(Paragraph::new(lines).block(block("Keys", true)), within);
}
