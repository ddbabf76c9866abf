//! `andon watch` on a whole terminal: brings keys, the farm and the terminal together around `crate::screen`.
//!
//! ```text
//!   keys ─┐                                        ┌─> frame, at most each TICK
//!   farm ─┼─> Input ─> Screen ─> Effect ─> fetch,  │
//!   clock ┘                        follow, leave ──┘
//! ```
//!
//! Invariant: however the watching ends (`q`, Ctrl-C, a signal, an error, a panic), the terminal is as it was before. Nothing is
//! written to it meanwhile but frames.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use andon::connect::Connection;
use andon_proto::run_event::Event;
use andon_proto::{GetLogRequest, ListRunsRequest, ListWorkersRequest, RunEvent, WatchRunRequest};
use crossterm::event::{Event as TerminalEvent, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::DefaultTerminal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::StreamExt as _;

use super::error::CliError;
use super::{follow, out};
use crate::screen::{Effect, Input, Key, Screen, Wanted, draw};

/// The longest between an input and its frame.
const TICK: Duration = Duration::from_millis(100);
/// How often runs and workers are asked for.
const LISTS_EVERY: Duration = Duration::from_secs(2);
/// Between two tries to reach a farm that does not answer.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Other runs that are listed.
const RUNS: u32 = 30;
/// Inputs that wait for the screen.
const INPUTS_AHEAD: usize = 256;

/// Whether there is a terminal to draw on and to read keys from.
pub(crate) fn is_possible() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    out::is_terminal() && io::stdin().is_terminal() && !dumb
}

/// Shows the run until the person leaves; answers with the run that was shown last.
pub(crate) async fn show(connection: &Connection, run: u64) -> Result<u64, CliError> {
    // What is not known is said before the terminal changes.
    follow::head(connection, run).await?;
    let colour = out::wants_colour();
    let mut signals = Signals::new()?;
    let mut terminal = Whole::take()?;
    let mut farm = Farm::new(connection, run);
    let mut screen = Screen::new(run);
    let mut keys = EventStream::new();
    let started = Instant::now();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut changed = true;
    loop {
        let input = tokio::select! {
            Some(input) = farm.inputs.recv() => Some(input),
            event = keys.next() => match event {
                // A change of the size is seen by the next frame.
                Some(Ok(TerminalEvent::Resize(..))) => { changed = true; None }
                Some(Ok(TerminalEvent::Key(key))) => key_of(key).map(Input::Key),
                Some(Ok(_)) => None,
                // Without keys nobody can leave: the terminal is gone.
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(screen.number()),
            },
            _ = tick.tick() => {
                let _ = screen.step(Input::Now(started.elapsed()));
                // While it runs, paces and estimates move by themselves.
                if changed || !screen.is_over() {
                    terminal.0.draw(|frame| draw(&screen, frame, colour))?;
                    changed = false;
                }
                None
            }
            () = signals.any() => return Ok(screen.number()),
        };
        let Some(input) = input else { continue };
        changed = true;
        for effect in screen.step(input) {
            match effect {
                Effect::Leave => return Ok(screen.number()),
                Effect::Follow(run) => farm.follow(run),
                Effect::Fetch(wanted) => farm.fetch(wanted),
            }
        }
    }
}

/// The terminal while it is ours. A panic gives it back by the hook that `ratatui` sets.
struct Whole(DefaultTerminal);

impl Whole {
    fn take() -> Result<Self, CliError> {
        let terminal = ratatui::try_init().map_err(|error| {
            ratatui::restore();
            CliError::infrastructure("this terminal cannot be drawn on")
                .because(&error)
                .hint("`andon watch --plain` writes lines")
        })?;
        Ok(Self(terminal))
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// What asks a process to end from outside: the terminal is given back before.
struct Signals([tokio::signal::unix::Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn any(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

fn key_of(event: KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    if event.modifiers.contains(KeyModifiers::CONTROL) {
        return (event.code == KeyCode::Char('c')).then_some(Key::Leave);
    }
    Some(match event.code {
        KeyCode::Up | KeyCode::Char('k') => Key::Up,
        KeyCode::Down | KeyCode::Char('j') => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown | KeyCode::Char(' ') => Key::PageDown,
        KeyCode::Home | KeyCode::Char('g') => Key::First,
        KeyCode::End | KeyCode::Char('G') => Key::Last,
        KeyCode::Enter | KeyCode::Right | KeyCode::Char('l') => Key::Enter,
        KeyCode::Esc | KeyCode::Left | KeyCode::Backspace | KeyCode::Char('h') => Key::Back,
        KeyCode::Tab => Key::Next,
        KeyCode::Char('f') => Key::Filter,
        KeyCode::Char('?') => Key::Help,
        KeyCode::Char('q') => Key::Leave,
        _ => return None,
    })
}

/// What is asked of the farm beside the drawing. Dropped, it asks no more.
struct Farm {
    connection: Connection,
    inputs: mpsc::Receiver<Input>,
    answers: mpsc::Sender<Input>,
    tasks: JoinSet<()>,
    following: AbortHandle,
    fetching: Option<AbortHandle>,
}

impl Farm {
    fn new(connection: &Connection, run: u64) -> Self {
        let (answers, inputs) = mpsc::channel(INPUTS_AHEAD);
        let mut tasks = JoinSet::new();
        tasks.spawn(lists(connection.clone(), answers.clone()));
        let following = tasks.spawn(events(connection.clone(), run, answers.clone()));
        Self { connection: connection.clone(), inputs, answers, tasks, following, fetching: None }
    }

    fn follow(&mut self, run: u64) {
        self.following.abort();
        self.following = self.tasks.spawn(events(self.connection.clone(), run, self.answers.clone()));
        while self.tasks.try_join_next().is_some() {}
    }

    /// Only the latest is of interest.
    fn fetch(&mut self, wanted: Wanted) {
        if let Some(before) = self.fetching.take() {
            before.abort();
        }
        let (connection, answers) = (self.connection.clone(), self.answers.clone());
        self.fetching = Some(self.tasks.spawn(async move {
            let request =
                GetLogRequest { run: wanted.run, test: wanted.test.clone(), ..GetLogRequest::default() };
            let log = match connection.farm().get_log(request).await {
                Ok(answer) => Ok(answer.into_inner().text),
                Err(status) => Err(status.message().to_owned()),
            };
            let _ = answers.send(Input::Log(wanted, log)).await;
        }));
        while self.tasks.try_join_next().is_some() {}
    }
}

/// The run's events until it is over; asked again for as long as somebody watches.
async fn events(connection: Connection, run: u64, answers: mpsc::Sender<Input>) {
    loop {
        match one_stream(&connection, run, &answers).await {
            Some(true) | None => return,
            Some(false) => {}
        }
        if answers.send(Input::Lost).await.is_err() {
            return;
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Whether the run's end was told; `None` where nobody listens any more.
async fn one_stream(connection: &Connection, run: u64, answers: &mpsc::Sender<Input>) -> Option<bool> {
    let Ok(response) = connection.farm().watch_run(WatchRunRequest { run }).await else { return Some(false) };
    let mut events = response.into_inner();
    let mut state = None;
    while let Some(Ok(event)) = events.next().await {
        let told = match &event.event {
            Some(Event::Run(run)) => Some(run.state()),
            _ => None,
        };
        let over = follow::ends(&event);
        answers.send(Input::Event(run, Box::new(event))).await.ok()?;
        // Verdicts come one by one and only from now on. What was decided before, and what a watcher that fell behind was not
        // told (it gets the run in the state that it knows), is in the whole run.
        if told.is_some() && (told == state || state.is_none() || over) {
            let Ok(whole) = follow::whole_run(connection, run).await else { return Some(false) };
            let event = RunEvent { event: Some(Event::Run(whole)) };
            answers.send(Input::Event(run, Box::new(event))).await.ok()?;
        }
        if over {
            return Some(true);
        }
        state = told.or(state);
    }
    Some(false)
}

/// Runs and workers, again and again. Where the farm is silent, the following says so.
async fn lists(connection: Connection, answers: mpsc::Sender<Input>) {
    let mut every = tokio::time::interval(LISTS_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let request = ListRunsRequest { limit: RUNS, ..ListRunsRequest::default() };
        let mut told = Vec::new();
        if let Ok(answer) = connection.farm().list_runs(request).await {
            told.push(Input::Runs(answer.into_inner().runs));
        }
        if let Ok(answer) = connection.farm().list_workers(ListWorkersRequest {}).await {
            told.push(Input::Workers(answer.into_inner().workers));
        }
        for input in told {
            if answers.send(input).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_the_footer_says() {
        let pressed = |code| key_of(KeyEvent::new(code, KeyModifiers::NONE));
        for (code, key) in [
            (KeyCode::Char('q'), Key::Leave),
            (KeyCode::Char('j'), Key::Down),
            (KeyCode::Down, Key::Down),
            (KeyCode::Char('k'), Key::Up),
            (KeyCode::Char('G'), Key::Last),
            (KeyCode::Enter, Key::Enter),
            (KeyCode::Esc, Key::Back),
            (KeyCode::Tab, Key::Next),
            (KeyCode::Char('f'), Key::Filter),
            (KeyCode::Char('?'), Key::Help),
        ] {
            assert_eq!(pressed(code), Some(key), "{code:?}");
        }
        assert_eq!(pressed(KeyCode::Char('x')), None);
        let control = |letter| key_of(KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL));
        assert_eq!((control('c'), control('q')), (Some(Key::Leave), None));
        let released = KeyEvent { kind: KeyEventKind::Release, ..KeyEvent::from(KeyCode::Char('q')) };
        assert_eq!(key_of(released), None);
    }
}
