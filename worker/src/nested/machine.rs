//! The life of the nested daemon as a pure state machine: inputs in, effects out. No process, file, clock or socket here.
//!
//! ```text
//!              ┌───────────────────────────── BackoffElapsed ────────────────────────────┐
//!              v                                                                          │
//!  Begin ─> Preparing ─ Prepared ─> Starting ─ Answered ─> Running                        │
//!              │                       │                      │                           │
//!        PrepareFailed     Died, StartLimitPassed      Died, Unresponsive                 │
//!              │                       └──────────┬───────────┘                           │
//!              │                                  v                                       │
//!              │                              Clearing ─ Cleared, attempts left ─> BackingOff
//!              │                                  │
//!              └──────────> GaveUp <── Cleared, no attempts left
//!
//!  StopAsked: Running ─> Stopping ─ Cleared ─> Stopped; everywhere else what runs is killed first
//! ```
//!
//! Happy path: prepare the cgroups and remove what a killed daemon left, start containerd and dockerd, wait until the
//! daemon answers, watch. When one of the two processes dies both are killed and started anew after a pause; attempts
//! are counted until the daemon has been running for a while. A preparation that fails is not repeated: what the host
//! does not allow it will not allow a second later.
//!
//! Invariants: a process is spawned only from `Preparing`, after both are known to be gone; nothing is spawned after
//! `StopAsked`; `Stopped` and `GaveUp` are final.

use std::time::Duration;

/// Starts in a row that may fail before the daemon is given up.
pub const ATTEMPTS_MAX: u32 = 4;
/// From spawning the processes to the first answer.
pub const START_LIMIT: Duration = Duration::from_secs(30);
/// Pause after the first failed start; doubled after each further one.
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// Longest pause.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// After this long without a failure earlier ones are forgotten.
pub(super) const STABLE_AFTER: Duration = Duration::from_secs(60);

/// One of the two processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Process {
    /// `containerd`.
    Containerd,
    /// `dockerd`.
    Dockerd,
}

impl Process {
    /// Its program's name.
    #[must_use]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Dockerd => "dockerd",
        }
    }
}

/// Where the daemon is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing was done yet.
    New,
    /// Cgroups are prepared, stale files removed. `attempt` counts from 1.
    Preparing {
        /// Which start in a row this is.
        attempt: u32,
    },
    /// Both processes were spawned; no answer yet.
    Starting {
        /// Which start in a row this is.
        attempt: u32,
    },
    /// Serves requests.
    Running {
        /// Which start in a row brought it up.
        attempt: u32,
    },
    /// What still runs is being killed, to start anew.
    Clearing {
        /// The start that failed.
        attempt: u32,
        /// Why.
        reason: String,
    },
    /// Waits before the next start.
    BackingOff {
        /// The start that failed.
        attempt: u32,
        /// Why.
        reason: String,
    },
    /// Being shut down as asked.
    Stopping,
    /// Shut down as asked.
    Stopped,
    /// Will not be started again.
    GaveUp {
        /// Why.
        reason: String,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    /// The first.
    Begin,
    /// The surroundings are ready.
    Prepared,
    /// The surroundings cannot be made ready.
    PrepareFailed(String),
    /// The daemon answered for the first time since its start.
    Answered,
    /// [`START_LIMIT`] passed since the start.
    StartLimitPassed,
    /// [`STABLE_AFTER`] passed since the daemon answered.
    StableLimitPassed,
    /// The pause is over.
    BackoffElapsed,
    /// A process ended; how it ended in words.
    Died(Process, String),
    /// The daemon runs and does not answer any more.
    Unresponsive,
    /// No process is left.
    Cleared,
    /// Somebody wants it shut down.
    StopAsked,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Make the surroundings ready; answer with `Prepared` or `PrepareFailed`.
    Prepare,
    /// Spawn containerd, then dockerd; answer with `Answered` once dockerd does, with `Died` when one ends.
    Spawn,
    /// Kill what runs at once; answer with `Cleared`, also where nothing runs.
    Kill,
    /// End containers, then dockerd, then containerd in good order; answer with `Cleared`.
    ShutDown,
    /// Send `StartLimitPassed` after [`START_LIMIT`]. A new timer replaces the one before.
    ArmStartLimit,
    /// Send `StableLimitPassed` after [`STABLE_AFTER`].
    ArmStableLimit,
    /// Send `BackoffElapsed` after this.
    ArmBackoff(Duration),
    /// No timer from now on.
    Disarm,
}

impl State {
    /// What follows from an input. An input that makes no sense in a state changes nothing: timers and exits may cross.
    #[must_use]
    pub(super) fn step(self, input: Input) -> (Self, Vec<Effect>) {
        match (self, input) {
            (Self::New, Input::Begin) => (Self::Preparing { attempt: 1 }, vec![Effect::Prepare]),

            (Self::Preparing { attempt }, Input::Prepared) => {
                (Self::Starting { attempt }, vec![Effect::Spawn, Effect::ArmStartLimit])
            }
            (Self::Preparing { .. }, Input::PrepareFailed(reason)) => (Self::GaveUp { reason }, Vec::new()),

            (Self::Starting { attempt }, Input::Answered) => {
                (Self::Running { attempt }, vec![Effect::ArmStableLimit])
            }
            (Self::Starting { attempt }, Input::StartLimitPassed) => {
                fail(attempt, format!("dockerd gave no answer within {START_LIMIT:?}"))
            }
            (Self::Running { .. }, Input::StableLimitPassed) => {
                (Self::Running { attempt: 1 }, vec![Effect::Disarm])
            }
            (Self::Running { attempt }, Input::Unresponsive) => {
                fail(attempt, "dockerd runs but does not answer any more".to_owned())
            }
            (Self::Starting { attempt } | Self::Running { attempt }, Input::Died(process, how)) => {
                fail(attempt, format!("{} ended: {how}", process.name()))
            }

            (Self::Clearing { attempt, reason }, Input::Cleared) if attempt >= ATTEMPTS_MAX => {
                let reason = format!("{reason} (start {attempt} of {ATTEMPTS_MAX})");
                (Self::GaveUp { reason }, Vec::new())
            }
            (Self::Clearing { attempt, reason }, Input::Cleared) => {
                (Self::BackingOff { attempt, reason }, vec![Effect::ArmBackoff(backoff(attempt))])
            }
            (Self::BackingOff { attempt, .. }, Input::BackoffElapsed) => {
                (Self::Preparing { attempt: attempt + 1 }, vec![Effect::Prepare])
            }

            (Self::Running { .. }, Input::StopAsked) => {
                (Self::Stopping, vec![Effect::Disarm, Effect::ShutDown])
            }
            (Self::Starting { .. }, Input::StopAsked) => (Self::Stopping, vec![Effect::Disarm, Effect::Kill]),
            // A kill is under way already: its `Cleared` ends this too.
            (Self::Clearing { .. }, Input::StopAsked) => (Self::Stopping, Vec::new()),
            (Self::New | Self::Preparing { .. } | Self::BackingOff { .. }, Input::StopAsked) => {
                (Self::Stopped, vec![Effect::Disarm])
            }
            (Self::Stopping, Input::Cleared) => (Self::Stopped, Vec::new()),

            (state, _) => (state, Vec::new()),
        }
    }

    /// Whether nothing will change any more.
    #[must_use]
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Stopped | Self::GaveUp { .. })
    }
}

fn fail(attempt: u32, reason: String) -> (State, Vec<Effect>) {
    (State::Clearing { attempt, reason }, vec![Effect::Disarm, Effect::Kill])
}

fn backoff(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    BACKOFF_MAX.min(BACKOFF_FIRST * 2u32.pow(doublings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn died() -> Input {
        Input::Died(Process::Dockerd, "exit status 1".to_owned())
    }

    fn clearing(attempt: u32) -> State {
        State::Clearing { attempt, reason: "r".to_owned() }
    }

    fn states() -> Vec<State> {
        vec![
            State::New,
            State::Preparing { attempt: 2 },
            State::Starting { attempt: 2 },
            State::Running { attempt: 2 },
            clearing(2),
            State::BackingOff { attempt: 2, reason: "r".to_owned() },
            State::Stopping,
            State::Stopped,
            State::GaveUp { reason: "r".to_owned() },
        ]
    }

    fn inputs() -> Vec<Input> {
        vec![
            Input::Begin,
            Input::Prepared,
            Input::PrepareFailed("no cgroups".to_owned()),
            Input::Answered,
            Input::StartLimitPassed,
            Input::StableLimitPassed,
            Input::BackoffElapsed,
            died(),
            Input::Unresponsive,
            Input::Cleared,
            Input::StopAsked,
        ]
    }

    /// One word a pair, so that every change of the table shows. Rows: states; columns: inputs, in the order above.
    #[test]
    fn every_pair_of_state_and_input_leads_where_the_drawing_says() {
        let word = |state: &State, input: &Input| {
            let (next, effects) = state.clone().step(input.clone());
            if next == *state && effects.is_empty() {
                return ".".to_owned();
            }
            let name = format!("{next:?}");
            let name = name.split([' ', '{']).next().unwrap_or_default().to_owned();
            effects.iter().fold(name, |all, effect| format!("{all}+{effect:?}"))
        };
        let table: Vec<String> = states()
            .iter()
            .map(|state| {
                let row: Vec<String> = inputs().iter().map(|input| word(state, input)).collect();
                row.join(" ")
            })
            .collect();
        assert_eq!(
            table,
            [
                "Preparing+Prepare . . . . . . . . . Stopped+Disarm",
                ". Starting+Spawn+ArmStartLimit GaveUp . . . . . . . Stopped+Disarm",
                ". . . Running+ArmStableLimit Clearing+Disarm+Kill . . Clearing+Disarm+Kill . . Stopping+Disarm+Kill",
                ". . . . . Running+Disarm . Clearing+Disarm+Kill Clearing+Disarm+Kill . Stopping+Disarm+ShutDown",
                ". . . . . . . . . BackingOff+ArmBackoff(500ms) Stopping",
                ". . . . . . Preparing+Prepare . . . Stopped+Disarm",
                ". . . . . . . . . Stopped .",
                ". . . . . . . . . . .",
                ". . . . . . . . . . .",
            ]
        );
    }

    #[test]
    fn the_last_allowed_start_that_fails_gives_up_and_keeps_the_reason() {
        let (state, effects) = clearing(ATTEMPTS_MAX).step(Input::Cleared);
        assert_eq!(state, State::GaveUp { reason: "r (start 4 of 4)".to_owned() });
        assert!(effects.is_empty());
    }

    #[test]
    fn a_daemon_that_ran_for_a_while_has_all_its_attempts_again() {
        let (state, _) = State::Running { attempt: ATTEMPTS_MAX }.step(Input::StableLimitPassed);
        let (state, _) = state.step(died());
        let (state, _) = state.step(Input::Cleared);
        assert!(matches!(state, State::BackingOff { attempt: 1, .. }), "{state:?}");
    }

    #[test]
    fn the_reason_names_the_process_that_ended() {
        let (state, _) = State::Starting { attempt: 1 }.step(died());
        let expected = "dockerd ended: exit status 1".to_owned();
        assert_eq!(state, State::Clearing { attempt: 1, reason: expected });
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        assert_eq!(backoff(1), BACKOFF_FIRST);
        assert_eq!(backoff(2), BACKOFF_FIRST * 2);
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }

    proptest! {
        #[test]
        fn whatever_happens_nothing_is_spawned_beside_running_processes(order in proptest::collection::vec(0usize..11, 0..60)) {
            let inputs = inputs();
            let mut state = State::New;
            let mut stop_asked = false;
            // What runs, as the driver would know it: spawned by Spawn, gone only with Cleared.
            let mut running = false;
            let mut killing = false;
            for at in order {
                let input = inputs[at].clone();
                // The driver answers `Cleared` only to a kill or a shutdown.
                if input == Input::Cleared {
                    if !killing { continue; }
                    running = false;
                    killing = false;
                }
                stop_asked |= input == Input::StopAsked;
                let (next, effects) = state.step(input);
                for effect in effects {
                    match effect {
                        Effect::Spawn => {
                            prop_assert!(!running && !stop_asked);
                            running = true;
                        }
                        Effect::Kill | Effect::ShutDown => killing = true,
                        _ => {}
                    }
                }
                prop_assert!(!next.is_final() || !running, "{next:?} with processes left");
                state = next;
            }
        }
    }
}
