//! The life of the nested daemon as a pure state machine: inputs in, effects out. No process, file, clock or socket here.
//!
//! ```text
//!              ┌──────────── BackoffElapsed (on a new data root after two fruitless starts) ┐
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
//! are counted until the daemon has been running for a while. Where it did not come up twice in a row what it finds in its
//! data root may be why: the next start is on a new one. A preparation that fails is not repeated: what the host does not
//! allow it will not allow a second later.
//!
//! Invariants: a process is spawned only from `Preparing`, after both are known to be gone; nothing is spawned after
//! `StopAsked`; `Stopped` and `GaveUp` are final.

use std::time::Duration;

/// Starts in a row without an answer after which the daemon is given up.
pub const ATTEMPTS_MAX: u32 = 4;
/// Starts in a row, answered or not, without the daemon having run for a while, after which it is given up.
const STARTS_MAX: u32 = 12;
/// Starts in a row without an answer after which the data root is no longer relied on.
pub(super) const FRUITLESS_MAX: u32 = 2;
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

/// How often it was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tries {
    /// Which start in a row this is, from 1.
    pub(super) attempt: u32,
    /// How many starts in a row ended before an answer.
    pub(super) fruitless: u32,
}

impl Tries {
    const FIRST: Self = Self { attempt: 1, fruitless: 0 };

    fn fruitless(self) -> Self {
        Self { fruitless: self.fruitless + 1, ..self }
    }

    fn fruitful(self) -> Self {
        Self { fruitless: 0, ..self }
    }

    /// The next start, and how its surroundings are made ready.
    fn next(self) -> (Self, Effect) {
        let next = Self { attempt: self.attempt + 1, ..self };
        (next, if self.fruitless == FRUITLESS_MAX { Effect::Renew } else { Effect::Prepare })
    }

    fn are_over(self) -> bool {
        self.fruitless >= ATTEMPTS_MAX || self.attempt >= STARTS_MAX
    }
}

/// Where the daemon is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing was done yet.
    New,
    /// Cgroups are prepared, stale files removed.
    Preparing {
        /// Of which start.
        tries: Tries,
    },
    /// Both processes were spawned; no answer yet.
    Starting {
        /// Of which start.
        tries: Tries,
    },
    /// Serves requests.
    Running {
        /// Of which start.
        tries: Tries,
    },
    /// What still runs is being killed, to start anew.
    Clearing {
        /// Of the start that failed.
        tries: Tries,
        /// Why.
        reason: String,
    },
    /// Waits before the next start.
    BackingOff {
        /// Of the start that failed.
        tries: Tries,
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
    /// The same with another data root, which has the images that are kept beside it; the one before goes.
    Renew,
    /// Spawn containerd and dockerd; answer with `Answered` once dockerd does, with `Died` when one ends.
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
            (Self::New, Input::Begin) => (Self::Preparing { tries: Tries::FIRST }, vec![Effect::Prepare]),

            (Self::Preparing { tries }, Input::Prepared) => {
                (Self::Starting { tries }, vec![Effect::Spawn, Effect::ArmStartLimit])
            }
            (Self::Preparing { .. }, Input::PrepareFailed(reason)) => (Self::GaveUp { reason }, Vec::new()),

            (Self::Starting { tries }, Input::Answered) => {
                (Self::Running { tries: tries.fruitful() }, vec![Effect::ArmStableLimit])
            }
            (Self::Starting { tries }, Input::StartLimitPassed) => {
                fail(tries.fruitless(), format!("dockerd gave no answer within {START_LIMIT:?}"))
            }
            (Self::Running { .. }, Input::StableLimitPassed) => {
                (Self::Running { tries: Tries::FIRST }, vec![Effect::Disarm])
            }
            (Self::Running { tries }, Input::Unresponsive) => {
                fail(tries, "dockerd runs but does not answer any more".to_owned())
            }
            (Self::Starting { tries }, Input::Died(process, how)) => {
                fail(tries.fruitless(), format!("{} ended: {how}", process.name()))
            }
            (Self::Running { tries }, Input::Died(process, how)) => {
                fail(tries, format!("{} ended: {how}", process.name()))
            }

            (Self::Clearing { tries, reason }, Input::Cleared) if tries.are_over() => {
                let reason = format!("{reason} (start {} in a row)", tries.attempt);
                (Self::GaveUp { reason }, Vec::new())
            }
            (Self::Clearing { tries, reason }, Input::Cleared) => {
                let pause = Effect::ArmBackoff(backoff(tries.attempt));
                (Self::BackingOff { tries, reason }, vec![pause])
            }
            (Self::BackingOff { tries, .. }, Input::BackoffElapsed) => {
                let (tries, effect) = tries.next();
                (Self::Preparing { tries }, vec![effect])
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

fn fail(tries: Tries, reason: String) -> (State, Vec<Effect>) {
    (State::Clearing { tries, reason }, vec![Effect::Disarm, Effect::Kill])
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

    fn second() -> Tries {
        Tries { attempt: 2, fruitless: 1 }
    }

    fn clearing(tries: Tries) -> State {
        State::Clearing { tries, reason: "r".to_owned() }
    }

    fn states() -> Vec<State> {
        vec![
            State::New,
            State::Preparing { tries: second() },
            State::Starting { tries: second() },
            State::Running { tries: second() },
            clearing(second()),
            State::BackingOff { tries: second(), reason: "r".to_owned() },
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
        let (state, effects) = clearing(Tries { attempt: 7, fruitless: ATTEMPTS_MAX }).step(Input::Cleared);
        assert_eq!(state, State::GaveUp { reason: "r (start 7 in a row)".to_owned() });
        assert!(effects.is_empty());
    }

    #[test]
    fn a_daemon_that_ran_for_a_while_has_all_its_attempts_again() {
        let (state, _) = State::Running { tries: Tries { attempt: STARTS_MAX, fruitless: 1 } }
            .step(Input::StableLimitPassed);
        let (state, _) = state.step(died());
        let (state, _) = state.step(Input::Cleared);
        assert!(matches!(state, State::BackingOff { tries: Tries::FIRST, .. }), "{state:?}");
    }

    /// Starts that end in the given way, until the next preparation; which one that is.
    fn after(mut state: State, ends: &[&[Input]]) -> (State, Vec<Effect>) {
        let mut effects = Vec::new();
        for end in ends {
            for input in [&[Input::Prepared], *end, &[Input::Cleared, Input::BackoffElapsed]].concat() {
                (state, effects) = state.step(input);
            }
        }
        (state, effects)
    }

    #[test]
    fn a_daemon_that_does_not_come_up_twice_gets_a_new_data_root_once_in_its_attempts() {
        let (first, _) = State::New.step(Input::Begin);
        let (_, effects) = after(first.clone(), &[&[died()]]);
        assert_eq!(effects, [Effect::Prepare]);
        let (state, effects) = after(first.clone(), &[&[died()], &[Input::StartLimitPassed]]);
        assert_eq!(effects, [Effect::Renew]);
        let (_, effects) = after(state, &[&[died()]]);
        assert_eq!(effects, [Effect::Prepare], "the new one has its two starts, too");
    }

    #[test]
    fn a_daemon_that_is_killed_while_it_runs_keeps_its_data_root() {
        let (first, _) = State::New.step(Input::Begin);
        let killed: &[Input] = &[Input::Answered, died()];
        let (state, effects) = after(first.clone(), &[killed, killed, killed]);
        assert_eq!(
            (effects, state),
            (vec![Effect::Prepare], State::Preparing { tries: Tries { attempt: 4, fruitless: 0 } })
        );
        let (state, _) = after(first, &vec![killed; STARTS_MAX as usize]);
        assert!(matches!(state, State::GaveUp { .. }), "not for ever: {state:?}");
    }

    #[test]
    fn the_reason_names_the_process_that_ended() {
        let (state, _) = State::Starting { tries: Tries::FIRST }.step(died());
        let expected = "dockerd ended: exit status 1".to_owned();
        assert_eq!(state, State::Clearing { tries: Tries::FIRST.fruitless(), reason: expected });
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
