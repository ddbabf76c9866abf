//! Real kills: the coordinator again and again, a worker, and a worker that is frozen past its leases and comes back.
//! Whatever dies, each of two thousand tests has one verdict.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use andon_tests::farm::Farm;
use andon_tests::project::Project;
use andon_tests::{eventually, ok, stage};
use serde_json::Value;

const TESTS: u64 = 2_000;
/// How long a coordinator lives.
const LIFE: Duration = Duration::from_secs(5);
/// In which it has to give out work again after it was killed.
const BACK_WITHIN: Duration = Duration::from_secs(10);
/// Leases live for 15 s without a heartbeat.
const PAST_THE_LEASE: Duration = Duration::from_secs(25);

fn started(farm: &Farm) -> (Project, u64) {
    let project = Project::from_fixture("crowd");
    ok(farm.andon().current_dir(project.copy()).args(["run", "--project", "crowd", "--detach"]));
    let run = farm.newest();
    farm.progressed(run, 100);
    (project, run)
}

fn holds_tests(shown: &Value, worker: &str) -> bool {
    let tests = shown["tests"].as_array().expect("tests");
    let mut attempts = tests.iter().flat_map(|test| test["attempts"].as_array().expect("attempts"));
    attempts.any(|attempt| attempt["worker"] == worker && attempt["outcome"] == "open")
}

/// How often each test was tried, and that it passed.
fn attempts_of_passed_tests(shown: &Value) -> BTreeMap<usize, usize> {
    assert_eq!(
        (&shown["state"], &shown["counts"]["passed"]),
        (&"passed".into(), &TESTS.into()),
        "{}",
        shown["reason"]
    );
    let mut tried = BTreeMap::new();
    for test in shown["tests"].as_array().expect("tests") {
        let attempts = test["attempts"].as_array().expect("attempts");
        let passed = attempts.iter().filter(|attempt| attempt["outcome"] == "passed").count();
        assert_eq!((&test["verdict"], passed), (&"passed".into(), 1), "one attempt counts: {test:#}");
        *tried.entry(attempts.len()).or_insert(0) += 1;
    }
    tried
}

#[test]
fn a_coordinator_that_is_killed_every_few_seconds_costs_no_test_a_second_attempt() {
    let farm = Farm::up(2, 2, &[]);
    let (_project, run) = started(&farm);
    let mut kills = 0;
    let mut born = Instant::now();
    let over = || farm.glance(run)["over"] == true;
    loop {
        eventually("the coordinator has lived for a while", || {
            (over() || born.elapsed() >= LIFE).then_some(())
        });
        if over() {
            break;
        }
        let before = farm.decided(run);
        let killed = Instant::now();
        farm.crash_coordinator();
        eventually("tests are decided again", || (over() || farm.decided(run) > before).then_some(()));
        let back = killed.elapsed();
        println!("killed at {before} of {TESTS}, going on after {back:.1?}");
        assert!(back < BACK_WITHIN, "{back:?}");
        kills += 1;
        born = Instant::now();
    }
    assert!(kills >= 3, "only {kills} kills: the run was too short to show anything");
    let tried = attempts_of_passed_tests(&farm.show(run));
    assert_eq!(tried, [(1, 2_000)].into(), "{kills} kills");
}

#[test]
fn a_killed_worker_and_a_frozen_one_that_comes_back_change_no_verdict() {
    let farm = Farm::up(3, 2, &[]);
    let (_project, run) = started(&farm);
    let boxes = farm.boxes();
    let docker = |arguments: &[&str]| ok(Command::new("docker").args(arguments));
    docker(&["kill", "-s", "KILL", &boxes[0]]);
    // Between two batches a worker holds nothing, and nothing would be shown.
    eventually("a worker is frozen while it holds tests", || {
        // An engine that cannot freeze all processes at once, new ones come too fast, thaws them and says no.
        if !andon_tests::run(Command::new("docker").args(["pause", &boxes[1]])).status.success() {
            return None;
        }
        let holds = holds_tests(&farm.show(run), &boxes[1]);
        if !holds {
            docker(&["unpause", &boxes[1]]);
        }
        holds.then_some(())
    });
    let frozen = Instant::now();
    // The third goes on alone, and gets what the two others had.
    eventually("the leases of the dead are over", || {
        let waited = frozen.elapsed() > PAST_THE_LEASE;
        (waited && farm.decided(run) > 100).then_some(())
    });
    docker(&["unpause", &boxes[1]]);
    let shown = farm.ended(run);
    let tried = attempts_of_passed_tests(&shown);
    println!("tests by attempts: {tried:?}");
    assert!(tried.keys().any(|attempts| *attempts > 1), "the frozen worker held tests");
    let came_back = farm.json(&["worker", "list"]);
    println!("workers: {came_back}");
}

#[test]
fn what_a_lost_worker_had_printed_stays() {
    let farm = Farm::up(1, 1, &[]);
    let project = Project::from_fixture("talker");
    ok(farm.andon().current_dir(project.copy()).args(["run", "--project", "talker", "--detach"]));
    let run = farm.newest().to_string();
    let log = || ok(farm.andon().args(["logs", &run, "talks", "--attempt", "1"]));
    eventually("the test can be read while it runs", || {
        // Until discovery has named it there is no such test.
        let open = farm.show(farm.newest())["counts"]["running"] == 1;
        (open && log() == "before the end\n").then_some(())
    });
    ok(Command::new("docker").args(["kill", "-s", "KILL", &farm.boxes()[0]]));
    eventually("the farm gives the attempt up", || {
        log().starts_with("before the end\n[the farm lost the attempt here").then_some(())
    });
}

#[test]
fn a_database_server_that_is_killed_under_load_costs_no_verdict() {
    let server = stage("ANDON_TEST_POSTGRES");
    let name = format!("kills_{}", std::process::id());
    let psql = |sql: &str| ok(Command::new("psql").args([server.as_str(), "-c", sql]));
    psql(&format!("CREATE DATABASE {name}"));
    let (before, _) = server.rsplit_once('/').expect("a URL names a database");
    let farm = Farm::up_with_store(2, 2, &[], Some(&format!("{before}/{name}")));
    let (_project, run) = started(&farm);
    for verdicts in [400, 900] {
        farm.progressed(run, verdicts);
        ok(&mut Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../ci/lib/restart-postgres")));
    }
    let _ = farm.ended(run);
    let tried = attempts_of_passed_tests(&farm.show(run));
    println!("tests by attempts: {tried:?}");
    drop(farm);
    psql(&format!("DROP DATABASE {name} WITH (FORCE)"));
}
