//! `andon why` over a real coordinator, with workers played by hand: what is known of a failure beforehand must be found.

mod support;
#[path = "support/worker.rs"]
mod worker;

use std::process::Output;
use std::time::{Duration, Instant};

use support::{Coordinator, complained, said};
use worker::HandWorker;

/// All tests of a suite are one unit: what one leaves the next finds.
const SHARING: &[(&str, &str)] = &[(
    "andon.toml",
    "[[suite]]\nname = \"unit\"\nimage = \"debian:trixie-slim\"\ndiscover = \"ls\"\nrun = \"true {tests}\"\n\
     retries = 0\nrebase = \"never\"\n",
)];

/// How long a run that has ended may take until the ledger knows it.
const ENTERED: Duration = Duration::from_secs(20);

fn why(farm: &Coordinator, arguments: &[&str]) -> (Output, serde_json::Value) {
    let output = farm.command(&["why"]).args(arguments).arg("--json").output().expect("it runs");
    let json = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", said(&output), complained(&output)));
    (output, json)
}

fn started(tests: &[&str]) -> (Coordinator, HandWorker, tempfile::TempDir) {
    let farm = Coordinator::start();
    let project = support::repository(SHARING);
    let worker = HandWorker::join_as("w1", &farm.state(), tests);
    (farm, worker, project)
}

/// What the ledger says, once the run is in it: that is a moment after the run's end.
fn figures(farm: &Coordinator, of: &[&str]) -> serde_json::Value {
    let asked = Instant::now();
    loop {
        let output = farm.command(&["stats"]).args(of).arg("--json").output().expect("it runs");
        if output.status.success() {
            return serde_json::from_slice(&output.stdout).expect("JSON");
        }
        assert!(asked.elapsed() < ENTERED, "{}", complained(&output));
    }
}

fn run(farm: &Coordinator, project: &tempfile::TempDir) {
    let run = farm.command(&["run", "--project", "p"]).current_dir(project.path()).output().expect("it runs");
    assert_eq!(run.status.code(), Some(100), "{}{}", said(&run), complained(&run));
}

#[test]
fn a_test_that_always_fails_is_a_real_failure() {
    let (farm, worker, project) = started(&["a", "b", "bad"]);
    worker.fail("bad", "no");
    run(&farm, &project);
    let (output, json) = why(&farm, &["1", "bad"]);
    assert_eq!(output.status.code(), Some(0), "{}", complained(&output));
    assert_eq!(json["finding"], "real", "{json:#}");
    assert_eq!(json["predecessors"], 2);
    assert_eq!(json["alone"][0]["failed"], 5);
    assert!(complained(&output).contains("alone, on a pristine baseline: 5 of 5 failed on w1"));
    let shown: serde_json::Value =
        serde_json::from_slice(&farm.run(&["show", "2", "--json"]).stdout).unwrap();
    assert_eq!((&shown["rerun_of"], &shown["commit"].is_string()), (&1.into(), &true));
    let latest: serde_json::Value = serde_json::from_slice(&farm.run(&["show", "--json"]).stdout).unwrap();
    assert_eq!(latest["run"], 1, "an experiment is not the latest run");
}

#[test]
fn a_test_that_fails_after_another_is_polluted_by_that_one() {
    let tests: Vec<String> = (0..20).map(|n| format!("t{n:02}")).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let (farm, worker, project) = started(&tests);
    worker.pollute("t17", "t05");
    run(&farm, &project);
    let (output, json) = why(&farm, &["1", "unit/t17", "--times", "3"]);
    assert_eq!(json["finding"], "polluted", "{json:#}");
    assert_eq!(json["culprits"]["tests"], serde_json::json!(["unit/t05"]), "{json:#}");
    assert_eq!((&json["culprits"]["minimal"], &json["culprits"]["sure"]), (&true.into(), &true.into()));
    let known = figures(&farm, &["unit", "t17"]);
    assert_eq!(
        (&known["cause"]["finding"], &known["cause"]["run"]),
        (&"polluted".into(), &1.into()),
        "{known:#}"
    );
    assert_eq!(known["cause"]["said"], json["said"], "{known:#}");
    let runs = json["runs"].as_array().unwrap().len();
    assert!(runs <= 2 + 2 * 5, "{runs} runs for 17 tests");
    assert!(complained(&output).contains("after 8 of 17 tests"), "{}", complained(&output));
    let text = farm.run(&["why", "1", "t17", "--times", "3"]);
    assert!(said(&text).contains("polluted by unit/t05"), "{}", said(&text));

    let history: serde_json::Value =
        serde_json::from_slice(&farm.run(&["show", "2", "--json"]).stdout).unwrap();
    assert_eq!(history["tests"].as_array().unwrap().len(), 1, "alone is alone");
}

#[test]
fn a_test_that_fails_now_and_then_is_flaky_and_found_by_its_history() {
    let (farm, worker, project) = started(&["shaky", "other"]);
    worker.fail_each("shaky", 3);
    run(&farm, &project);
    let (_, json) = why(&farm, &["1", "shaky", "--times", "6"]);
    assert_eq!(json["finding"], "flaky", "{json:#}");
    let rate = &json["rate"];
    assert!(rate["low"].as_f64() > Some(0.0) && rate["high"].as_f64() < Some(0.9), "{json:#}");
}

#[test]
fn a_test_that_fails_on_one_worker_is_that_workers() {
    let (farm, bad, project) = started(&["picky"]);
    bad.fail("picky", "not here");
    run(&farm, &project);
    let _good = HandWorker::join_as("w2", &farm.state(), &["picky"]);
    let there = || said(&farm.run(&["worker", "list"])).contains("w2");
    while !there() {}
    let (_, json) = why(&farm, &["1", "picky"]);
    assert_eq!(json["finding"], "worker_specific", "{json:#}");
    assert!(json["said"].as_str().unwrap().contains("on w1 5 of 5 failed"), "{json:#}");
}

#[test]
fn what_did_not_fail_and_what_is_not_there_is_usage() {
    let (farm, worker, project) = started(&["good", "bad"]);
    worker.fail("bad", "no");
    run(&farm, &project);
    for (arguments, said) in [
        (&["1", "good"][..], "did not fail"),
        (&["1", "nobody"], "no test"),
        (&["1", "bad", "--attempt", "9"], "attempts that failed: 2"),
        (&["7", "bad"], "7"),
        (&["1"], "which test"),
        (&["1", "bad", "--times", "2"], "2"),
    ] {
        let output = farm.command(&["why"]).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", complained(&output));
        assert!(complained(&output).contains(said), "{arguments:?}: {}", complained(&output));
    }
}

#[test]
fn an_interrupted_search_cancels_what_it_started() {
    let (farm, worker, project) = started(&["bad"]);
    worker.fail("bad", "no");
    run(&farm, &project);
    worker.hold(true);
    let mut command = farm.command(&["why", "1", "bad"]);
    let child =
        command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
    while worker.first_start().is_none() {}
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", complained(&ended));
    assert!(complained(&ended).contains("1 run cancelled"), "{}", complained(&ended));
    let shown: serde_json::Value =
        serde_json::from_slice(&farm.run(&["show", "2", "--json"]).stdout).unwrap();
    assert_eq!((&shown["over"], &shown["state"]), (&true.into(), &"incomplete".into()), "{shown:#}");
}

#[test]
fn tests_that_history_calls_flaky_are_looked_into_behind_other_work() {
    let farm = Coordinator::start();
    let project = support::repository(&[("andon.toml", &SHARING[0].1.replace("retries = 0", "retries = 2"))]);
    let worker = HandWorker::join(&farm.state(), &["shaky", "steady"]);
    worker.fail_each("shaky", 2);
    let run = farm.command(&["run", "--project", "p"]).current_dir(project.path()).output().unwrap();
    assert_eq!(run.status.code(), Some(0), "a retry passed: {}", said(&run));
    let output = farm.run(&["why", "--flaky", "--project", "p", "--times", "6", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", complained(&output)));
    assert_eq!((json.as_array().unwrap().len(), &json[0]["finding"]), (1, &"flaky".into()), "{json:#}");
    let shown: serde_json::Value =
        serde_json::from_slice(&farm.run(&["show", "2", "--json"]).stdout).unwrap();
    assert_eq!(shown["trigger"], "scheduled");
}
