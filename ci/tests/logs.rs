//! `andon logs` over a real coordinator, with a worker played by hand: what comes is shown once, and the following ends.

mod support;
#[path = "support/worker.rs"]
mod worker;

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use support::{Coordinator, complained, said};
use worker::HandWorker;

const PROJECT: &[(&str, &str)] = &[(
    "andon.toml",
    "[[suite]]\nname = \"unit\"\nimage = \"debian:trixie-slim\"\ndiscover = \"ls\"\nrun = \"true {tests}\"\nretries = 0\n",
)];
/// How long something that must happen may take.
const SOON: Duration = Duration::from_secs(30);

/// A command that goes on, read line by line.
struct Following {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn start(farm: &Coordinator, arguments: &[&str]) -> Self {
        let mut command = farm.command(arguments);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the command starts");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("there is another line").expect("it is UTF-8")
    }

    /// What else it says until it ends, and how it ends.
    fn end(mut self) -> (Vec<String>, Option<i32>) {
        let rest = self.lines.map(|line| line.expect("it is UTF-8")).collect();
        (rest, self.child.wait().expect("the child is waited for").code())
    }
}

/// A farm on which the test `slow` is running.
fn held() -> (Coordinator, HandWorker) {
    let farm = Coordinator::start();
    let project = support::repository(PROJECT);
    let worker = HandWorker::join(&farm.state(), &["slow"]);
    worker.hold(true);
    let run = farm
        .command(&["run", "--detach", "--project", "p"])
        .arg("--repo")
        .arg(project.path())
        .output()
        .expect("andon can be run");
    assert_eq!(run.status.code(), Some(0), "{}", complained(&run));
    let asked = Instant::now();
    while worker.first_start().is_none() {
        assert!(asked.elapsed() < SOON, "the test is not started");
        std::thread::yield_now();
    }
    (farm, worker)
}

#[test]
fn a_log_is_followed_line_by_line_until_the_test_has_its_verdict() {
    let (farm, worker) = held();
    let mut test = Following::start(&farm, &["logs", "1", "slow", "--follow"]);
    let run = Following::start(&farm, &["logs", "-f"]);
    worker.print("one\ntw");
    assert_eq!(test.line(), "one");
    worker.print("o\nthree\n");
    assert_eq!((test.line(), test.line()), ("two".to_owned(), "three".to_owned()));
    worker.print("four\nand no end of line");
    worker.hold(false);
    assert_eq!(test.end(), (vec!["four".to_owned(), "and no end of line".to_owned()], Some(0)));
    let (notes, code) = run.end();
    assert_eq!(code, Some(0));
    let whole = said(&farm.run(&["logs", "1"]));
    assert_eq!(notes, whole.lines().collect::<Vec<_>>(), "the run's own log, each line once");
    let after = farm.run(&["logs", "1", "slow", "-f"]);
    assert_eq!(said(&after), "one\ntwo\nthree\nfour\nand no end of line", "what is over is shown and left");
    assert_eq!(after.status.code(), Some(0));
}

#[test]
fn a_coordinator_that_is_started_again_repeats_nothing_and_the_following_goes_on() {
    let (mut farm, worker) = held();
    let mut test = Following::start(&farm, &["logs", "1", "unit/slow", "-f"]);
    worker.print("before\n");
    assert_eq!(test.line(), "before");
    farm.restart();
    let cancelled = farm.run(&["cancel", "1"]);
    assert_eq!(cancelled.status.code(), Some(0), "{}", complained(&cancelled));
    let (rest, code) = test.end();
    assert_eq!(code, Some(0), "{rest:?}");
    assert!(!rest.iter().any(|line| line == "before"), "{rest:?}");
}

#[test]
fn what_is_not_there_and_what_has_no_times_is_usage() {
    let (farm, worker) = held();
    let since = farm.run(&["logs", "1", "--since", "1h"]);
    assert_eq!((since.status.code(), said(&since)), (Some(0), said(&farm.run(&["logs", "1"]))));
    for arguments in [
        &["logs", "1", "slow", "--since", "5m"][..],
        &["logs", "1", "--since", "soon"],
        &["logs", "7", "-f"],
        &["logs", "1", "slow", "--attempt", "0", "-f"],
    ] {
        let output = farm.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", complained(&output));
    }
    let absent = Following::start(&farm, &["logs", "1", "absent", "-f"]);
    worker.hold(false);
    assert_eq!(absent.end(), (Vec::new(), Some(2)), "waited for until the run's end");
}
