//! Which tests are run, how often and from what, over a real coordinator with a worker played by hand.

mod support;
#[path = "support/worker.rs"]
mod worker;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;

use support::{Coordinator, andon, complained, said};
use worker::HandWorker;

const PROJECT: &[(&str, &str)] = &[(
    "andon.toml",
    "[[suite]]\nname = \"unit\"\nimage = \"debian:trixie-slim\"\ndiscover = \"ls\"\nrun = \"true {tests}\"\nretries = 0\n",
)];
const TESTS: [&str; 8] = ["a.x", "a.y", "b.x", "b.y", "c.x[1*]", "c.y", "d.x", "d.y"];

fn run(farm: &Coordinator, project: &Path, arguments: &[&str]) -> Output {
    farm.command(&["run", "--project", "p"]).args(arguments).current_dir(project).output().expect("it runs")
}

fn newest(farm: &Coordinator) -> serde_json::Value {
    serde_json::from_slice(&farm.run(&["show", "--json"]).stdout).expect("JSON")
}

fn ids(run: &serde_json::Value) -> Vec<String> {
    let tests = run["tests"].as_array().expect("tests");
    tests.iter().map(|test| test["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn tests_are_chosen_by_name_and_nothing_chosen_is_an_exit_of_its_own() {
    let farm = Coordinator::start();
    let project = support::repository(PROJECT);
    let worker = HandWorker::join(&farm.state(), &TESTS);
    for (arguments, expected) in [
        (&["a."][..], &["a.x", "a.y"][..]),
        (&["*.y", "--filter", "=a.x"], &["a.x", "a.y", "b.y", "c.y", "d.y"]),
        (&["=c.x[1*]"], &["c.x[1*]"]),
        (&["unit/b"], &["b.x", "b.y"]),
    ] {
        let output = run(&farm, project.path(), arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}{}", said(&output), complained(&output));
        assert_eq!(ids(&newest(&farm)), expected, "{arguments:?}");
    }
    let nothing = run(&farm, project.path(), &["nothing-like-this"]);
    assert_eq!(nothing.status.code(), Some(4), "{}", said(&nothing));
    assert!(!worker.started().iter().any(|test| test.contains("nothing")));
    for wrong in [&["--shard", "3/2"][..], &["--repeat", "0"], &["--lanes", "none"], &[""], &["--suite", "x"]]
    {
        let output = run(&farm, project.path(), wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", said(&output));
    }
}

#[test]
fn shards_are_disjoint_and_complete_and_the_same_for_every_machine() {
    let farm = Coordinator::start();
    let project = support::repository(PROJECT);
    let _worker = HandWorker::join(&farm.state(), &TESTS);
    let mut all = Vec::new();
    for shard in ["1/3", "2/3", "3/3"] {
        let output = run(&farm, project.path(), &["--shard", shard]);
        let some = ids(&newest(&farm));
        assert_eq!(output.status.code(), Some(if some.is_empty() { 4 } else { 0 }), "{}", said(&output));
        all.extend(some);
    }
    assert_eq!(all.len(), TESTS.len(), "no test twice");
    let as_set = |ids: &[String]| ids.iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(as_set(&all), TESTS.iter().map(|test| (*test).to_owned()).collect());
    let by_variables = farm
        .command(&["run", "--project", "p", "--shard", "auto"])
        .current_dir(project.path())
        .envs([("CI_NODE_INDEX", "3"), ("CI_NODE_TOTAL", "3")])
        .output()
        .unwrap();
    assert_ne!(by_variables.status.code(), Some(2), "{}", complained(&by_variables));
    assert!(all.ends_with(&ids(&newest(&farm))), "the same as 3/3");
}

#[test]
fn repeats_find_what_fails_now_and_then() {
    let farm = Coordinator::start();
    let project = support::repository(PROJECT);
    let worker = HandWorker::join(&farm.state(), &["steady", "shaky"]);
    worker.fail_each("shaky", 4);
    let output = run(&farm, project.path(), &["--repeat", "6"]);
    assert_eq!(output.status.code(), Some(100), "a failure is a failure: {}", said(&output));
    assert!(said(&output).contains("6 attempts, 2 failed"), "{}", said(&output));
    let shown = newest(&farm);
    let attempts = |id: &str| {
        let test = shown["tests"].as_array().unwrap().iter().find(|test| test["id"] == id).unwrap();
        (test["verdict"].as_str().unwrap().to_owned(), test["attempts"].as_array().unwrap().len())
    };
    assert_eq!(attempts("steady"), ("passed".into(), 6));
    assert_eq!(attempts("shaky"), ("flaky".into(), 6));

    worker.fail_each("steady", 3);
    let output = run(&farm, project.path(), &["steady", "--repeat", "50", "--until-fail"]);
    assert_eq!(output.status.code(), Some(100), "{}", said(&output));
    let count = newest(&farm)["tests"][0]["attempts"].as_array().unwrap().len();
    assert!(count <= 4, "{count} attempts, of which one in three fails");
}

#[test]
fn the_working_tree_is_sent_as_it_is_and_a_commit_where_one_is_named() {
    let farm = Coordinator::start();
    let project = support::repository(PROJECT);
    let _worker = HandWorker::join(&farm.state(), &["t"]);
    let committed = run(&farm, project.path(), &[]);
    assert!(!complained(&committed).contains("working tree"), "{}", complained(&committed));
    let clean = newest(&farm);
    std::fs::write(project.path().join("new"), "x").unwrap();
    let changed = run(&farm, project.path(), &[]);
    assert_eq!(changed.status.code(), Some(0), "{}", complained(&changed));
    assert!(complained(&changed).contains("the working tree is sent: 1 change on top of"));
    let dirty = newest(&farm);
    assert_ne!(dirty["commit"], clean["commit"]);
    assert_eq!(dirty["ref"], "refs/worktree/main");
    let named = run(&farm, project.path(), &["--commit", "HEAD"]);
    assert!(!complained(&named).contains("working tree"), "{}", complained(&named));
    assert_eq!(newest(&farm)["commit"], clean["commit"]);
    assert_eq!(newest(&farm)["spec_digest"].as_str().map(str::len), Some(64));
}

#[test]
fn a_plan_says_what_would_run_and_runs_nothing() {
    let farm = Coordinator::start();
    let project = support::repository(PROJECT);
    let worker = HandWorker::join(&farm.state(), &TESTS);
    let plan = |arguments: &[&str]| {
        let mut command = farm.command(&["plan", "--project", "p"]);
        command.args(arguments).current_dir(project.path()).output().unwrap()
    };
    let before = plan(&[]);
    assert_eq!(before.status.code(), Some(0), "{}", complained(&before));
    assert!(said(&before).contains("to be discovered"), "{}", said(&before));
    assert!(worker.started().is_empty());
    assert_eq!(said(&farm.run(&["list", "--json"])), "[]\n", "nothing was stored");

    assert_eq!(run(&farm, project.path(), &[]).status.code(), Some(0));
    let json: serde_json::Value = serde_json::from_slice(&plan(&["a.", "--json"]).stdout).unwrap();
    let suite = &json["suites"][0];
    assert_eq!((&suite["name"], &suite["left_out"], &suite["units"]), (&"unit".into(), &6.into(), &2.into()));
    assert_eq!(ids(suite), ["a.x", "a.y"]);
    assert_eq!((&json["lanes"], &json["baseline"]["fate"]), (&1.into(), &"none".into()));
    let text = said(&plan(&["--tests"]));
    assert!(text.contains("unit/a.x") && text.contains("by-hand (1)"), "{text}");
}

#[test]
fn a_run_is_exported_and_its_failures_are_rerun_on_another_farm() {
    let farm = Coordinator::start();
    let project = support::repository(PROJECT);
    let worker = HandWorker::join(&farm.state(), &TESTS);
    worker.fail("b.x", "no");
    assert_eq!(run(&farm, project.path(), &[]).status.code(), Some(100));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.andon");
    let exported = farm.command(&["export", "1"]).arg("-o").arg(&file).output().unwrap();
    assert_eq!(exported.status.code(), Some(0), "{}", complained(&exported));
    let again = farm.command(&["export", "1"]).arg("-o").arg(&file).output().unwrap();
    assert_eq!(again.status.code(), Some(2), "what is there is not replaced");

    let other = Coordinator::start();
    let elsewhere = HandWorker::join(&other.state(), &["never asked"]);
    let rerun = |arguments: &[&str]| {
        let mut command = other.command(&["rerun"]);
        command.arg("--from").arg(&file).args(arguments).current_dir(folder.path()).output().unwrap()
    };
    let output = rerun(&["--failed"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", said(&output), complained(&output));
    assert_eq!(elsewhere.started(), BTreeSet::from(["b.x".to_owned()]));
    let shown = newest(&other);
    assert_eq!((&shown["project"], &shown["trigger"]), (&"p".into(), &"rerun".into()));
    assert_eq!(rerun(&["nobody"]).status.code(), Some(2));

    let mut bytes = std::fs::read(&file).unwrap();
    let place = bytes.len() - 1_600;
    bytes[place] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let damaged = rerun(&["--failed"]);
    assert_eq!(damaged.status.code(), Some(2), "{}", said(&damaged));
    assert!(complained(&damaged).contains("cannot take"), "{}", complained(&damaged));
    let none = andon().args(["rerun", "--from", "/nonexistent", "--failed"]).output().unwrap();
    assert_eq!(none.status.code(), Some(2));
}
