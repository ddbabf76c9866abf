//! Following a run until it ends: a bar on a terminal, plain lines otherwise.
//!
//! The farm is asked with `WatchRun`; where the stream breaks (the coordinator is restarted), it is asked again for
//! a bounded time, and the run goes on meanwhile. Ctrl-C stops the following, not the run. What is said is decided
//! by `report::progress`.

use std::io::IsTerminal as _;
use std::time::Duration;

use andon::connect::Connection;
use andon_proto::run_event::Event;
use andon_proto::{GetRunRequest, Run, RunEvent, WatchRunRequest};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use super::error::CliError;
use super::out;
use crate::report::exit::{self, Exit};
use crate::report::progress::Progress;
use crate::report::summary::{self, Paint};
use crate::report::words;

/// How long a farm that does not answer is asked again.
pub(super) const RECONNECT_FOR: Duration = Duration::from_secs(120);
/// Between two tries.
pub(super) const RECONNECT_EVERY: Duration = Duration::from_millis(500);
/// How often the display is brought up to date between events.
const TICK: Duration = Duration::from_millis(250);

/// How the following ended.
#[derive(Debug)]
pub(crate) enum Followed {
    /// The run is over; with its tests.
    Over(Box<Run>),
    /// The person pressed Ctrl-C; the run goes on.
    Detached,
}

/// Follows the run, prints the summary, and answers with the exit code.
pub(crate) async fn to_the_end(connection: &Connection, run: u64) -> Result<(Exit, Option<Run>), CliError> {
    conclude(run, follow(connection, run).await?)
}

/// What there is to say of a run that somebody has stopped looking at, with the exit code.
pub(crate) async fn as_it_stands(connection: &Connection, run: u64) -> Result<(Exit, Option<Run>), CliError> {
    let followed = if exit::is_over(head(connection, run).await?.state()) {
        Followed::Over(Box::new(whole_run(connection, run).await?))
    } else {
        Followed::Detached
    };
    conclude(run, followed)
}

fn conclude(run: u64, followed: Followed) -> Result<(Exit, Option<Run>), CliError> {
    match followed {
        Followed::Over(run) => {
            out::print(&format!("\n{}", summary::summary(&run, out::paint())))?;
            Ok((exit::of_run(&run).unwrap_or(Exit::Incomplete), Some(*run)))
        }
        Followed::Detached => {
            out::note(&format!(
                "\nrun {run} goes on: `andon watch {run}` follows it, `andon cancel {run}` stops it"
            ));
            Ok((Exit::Interrupted, None))
        }
    }
}

/// A run with all its tests.
pub(crate) async fn whole_run(connection: &Connection, run: u64) -> Result<Run, CliError> {
    Ok(connection.farm().get_run(GetRunRequest { run, with_tests: true }).await?.into_inner())
}

/// A run without its tests.
pub(crate) async fn head(connection: &Connection, run: u64) -> Result<Run, CliError> {
    Ok(connection.farm().get_run(GetRunRequest { run, with_tests: false }).await?.into_inner())
}

/// Whether this is the last event of a run.
pub(crate) fn ends(event: &RunEvent) -> bool {
    matches!(&event.event, Some(Event::Run(run)) if exit::is_over(run.state()))
}

async fn follow(connection: &Connection, run: u64) -> Result<Followed, CliError> {
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let mut view = View::new();
    let mut broken_since: Option<Instant> = None;
    loop {
        let ended = tokio::select! {
            ended = one_stream(connection, run, &mut view) => ended,
            _ = &mut interrupt => {
                view.close();
                return Ok(Followed::Detached);
            }
        };
        match ended {
            Ok(Ended::Over) => {
                view.close();
                return Ok(Followed::Over(Box::new(whole_run(connection, run).await?)));
            }
            Ok(Ended::Cut { heard: true }) => broken_since = None,
            Ok(Ended::Cut { heard: false }) => {}
            Err(error) => {
                view.close();
                return Err(error);
            }
        }
        let since = *broken_since.get_or_insert_with(|| {
            view.note("the coordinator does not answer; asking again");
            Instant::now()
        });
        if since.elapsed() > RECONNECT_FOR {
            view.close();
            return Err(CliError::infrastructure(format!(
                "the coordinator has not answered for {}",
                words::millis(RECONNECT_FOR.as_millis() as u64)
            ))
            .hint(format!("the run may go on: `andon watch {run}` once the coordinator is back")));
        }
        tokio::select! {
            () = tokio::time::sleep(RECONNECT_EVERY) => {}
            _ = &mut interrupt => {
                view.close();
                return Ok(Followed::Detached);
            }
        }
    }
}

enum Ended {
    /// The run is over.
    Over,
    /// The stream broke; whether it had said anything.
    Cut { heard: bool },
}

async fn one_stream(connection: &Connection, run: u64, view: &mut View) -> Result<Ended, CliError> {
    let mut events = match connection.farm().watch_run(WatchRunRequest { run }).await {
        Ok(response) => response.into_inner(),
        Err(status) => return cut_or_refused(status, false),
    };
    let mut heard = false;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => {
                    heard = true;
                    view.event(event)?;
                }
                Some(Err(status)) => return cut_or_refused(status, heard),
                None if view.progress.is_over() => return Ok(Ended::Over),
                None => return Ok(Ended::Cut { heard }),
            },
            _ = tick.tick() => view.tick()?,
        }
    }
}

fn cut_or_refused(status: tonic::Status, heard: bool) -> Result<Ended, CliError> {
    if is_cut(&status) { Ok(Ended::Cut { heard }) } else { Err(status.into()) }
}

/// A connection that breaks is worth another try; a refusal is not.
pub(super) fn is_cut(status: &tonic::Status) -> bool {
    use tonic::Code;
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal | Code::Aborted | Code::DataLoss
    )
}

/// The display: what `Progress` says, put where it belongs.
struct View {
    progress: Progress,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl View {
    fn new() -> Self {
        let live = out::is_terminal() && std::io::stderr().is_terminal();
        let paint = if live { out::paint() } else { Paint::Plain };
        Self { progress: Progress::new(paint), started: Instant::now(), bar: live.then(bar) }
    }

    fn event(&mut self, event: RunEvent) -> Result<(), CliError> {
        let elapsed = self.started.elapsed();
        for line in self.progress.event(elapsed, event) {
            self.say(elapsed, &line)?;
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), CliError> {
        let elapsed = self.started.elapsed();
        if let Some(bar) = &self.bar {
            let (decided, total) = self.progress.position();
            bar.set_length(total.max(1));
            bar.set_position(decided);
            bar.set_message(self.progress.line(elapsed));
        } else if let Some(line) = self.progress.plain_line(elapsed) {
            self.say(elapsed, &line)?;
        }
        Ok(())
    }

    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => out::note(text),
        }
    }

    fn say(&self, elapsed: Duration, line: &str) -> Result<(), CliError> {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => out::line(&format!("{:>7.1}s  {line}", elapsed.as_secs_f64()))?,
        }
        Ok(())
    }

    fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} [{elapsed}] {bar:24} {msg}")
        .expect("the template is written in this file")
        .progress_chars("=> ");
    let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr()).with_style(style);
    bar.enable_steady_tick(TICK);
    bar
}
