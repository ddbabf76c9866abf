//! The harness that the end-to-end tests share: a farm made by `andon up`, projects pushed by `git push`, runs read by
//! `andon show --json`. Only what a user has: the binary, Docker, git.
//!
//! `ci/test` sets the stage (Docker Engine, images, the binary) and says so in the environment; without it these tests fail
//! and say what to run. They need much of a machine, so file locks let two farms live at a time.

pub mod farm;
pub mod project;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// How long anything may take that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(420);
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// A variable that `ci/test` sets.
#[must_use]
pub fn stage(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run the end-to-end tests through ci/test, which sets the stage")
    })
}

/// Asks again and again until there is an answer; panics with `what` when patience ends.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where a test waits for another process")]
fn pause() {
    std::thread::sleep(LOOK_EVERY);
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a command that must succeed; its standard output.
pub fn ok(command: &mut Command) -> String {
    let output = run(command);
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
