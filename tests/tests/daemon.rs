//! The nested daemon of a worker box broken under a run, in every way that can be had: its processes killed, its files
//! damaged. No test is blamed for it, and the box goes on by itself.

use std::process::Command;

use andon_tests::farm::Farm;
use andon_tests::project::Project;
use andon_tests::{eventually, ok, run, stage};

/// The tests of the crowd wait, most of their time.
const LANES: u32 = 4;
/// Where a box keeps the daemon's data root.
const DATA: &str = "/var/lib/andon/pool/pool/docker";
/// Tests that have to be decided between two faults: the box works again.
const BETWEEN: u64 = 150;

fn in_box(farm: &Farm, script: &str) -> String {
    ok(Command::new("docker").args(["exec", &farm.boxes()[0], "sh", "-ec", script]))
}

fn box_log(farm: &Farm) -> String {
    let output = run(Command::new("docker").args(["logs", &farm.boxes()[0]]));
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Has the kernel kill a process of the box for want of memory: the box gets a limit, the process is made the first to go, and
/// another one of the box takes more than there is. Then the limit goes again.
fn starve(farm: &Farm, victim: &str) {
    let name = &farm.boxes()[0];
    let limit = |bytes: &str| {
        ok(Command::new("docker").args(["update", "--memory", bytes, "--memory-swap", bytes, name]));
    };
    limit("1g");
    let eat = format!("echo 1000 >/proc/$({victim})/oom_score_adj; perl -e 'my $x = \"x\" x (1200 << 20)'");
    // It is killed itself, after the victim.
    run(Command::new("docker").args(["exec", name, "sh", "-ec", &eat]));
    if run(Command::new("docker").args(["inspect", name])).status.success() {
        run(Command::new("docker").args(["update", "--memory", "64g", "--memory-swap", "64g", name]));
    }
}

/// A run of so many tests of the crowd, and what it is of.
fn started(farm: &Farm, tests: u64) -> (Project, u64) {
    let project = Project::from_fixture("crowd");
    project.replace("andon.toml", "1 2000", &format!("1 {tests}"));
    ok(farm.andon().current_dir(project.copy()).args(["run", "--project", "crowd", "--detach"]));
    (project, farm.newest())
}

#[test]
fn a_daemon_or_an_agent_that_runs_out_of_memory_is_named_and_no_test_is_blamed() {
    const TESTS: u64 = 800;
    let farm = Farm::up(1, LANES, &[]);
    let (_project, run) = started(&farm, TESTS);
    farm.progressed(run, 20);
    starve(&farm, "pgrep -x dockerd");
    let said = "dockerd ended: signal: 9 (SIGKILL), out of memory: the worker's own limit is 1024 MiB";
    eventually("the worker says why its daemon ended", || box_log(&farm).contains(said).then_some(()));
    let before = farm.decided(run);
    eventually("tests are decided again", || (farm.decided(run) >= before + 50).then_some(()));

    starve(&farm, "pgrep -o -x andon");
    eventually("the box is gone with its agent", || farm.boxes().is_empty().then_some(()));
    let lanes = LANES.to_string();
    let up = ["up", "--workers", "1", "--lanes", &lanes, "--image", &stage("ANDON_TEST_WORKER_IMAGE")];
    let said = ok(farm.andon().args(up));
    println!("{said}");
    assert!(said.contains("had ended: exit code 137: the agent ran out of memory"), "{said}");
    let shown = farm.ended(run);
    let counts = &shown["counts"];
    assert_eq!((&shown["state"], &counts["passed"]), (&"passed".into(), &TESTS.into()), "{counts}");
    let tests = shown["tests"].as_array().expect("tests");
    let attempts = tests.iter().flat_map(|test| test["attempts"].as_array().expect("attempts"));
    let lost: std::collections::BTreeSet<&str> = attempts
        .filter(|attempt| attempt["outcome"] != "passed")
        .map(|attempt| {
            assert_eq!(attempt["outcome"], "infrastructure", "{attempt:#}");
            attempt["message"].as_str().unwrap_or_default()
        })
        .collect();
    println!("infrastructure: {lost:#?}");
}

#[test]
fn a_worker_without_addresses_for_networks_says_what_to_do_and_works_again_once_it_has_some() {
    let farm = Farm::up(1, 1, &[]);
    let docker = "docker -H unix:///var/lib/andon/run/docker.sock network";
    let names = "seq -f andon-left-%g 300";
    let taken = in_box(
        &farm,
        &format!("for name in $({names}); do {docker} create $name 2>&1 || break; done | tail -n 1"),
    );
    println!("{taken}");
    let project = Project::from_fixture("pair");
    let said = farm.run(&project.copy(), &[]);
    assert_eq!(said.status.code(), Some(106), "incomplete, not failed: {said:?}");
    let shown = farm.show(farm.newest()).to_string();
    assert!(shown.contains("has no addresses left for another network"), "{shown}");
    assert!(shown.contains("a worker has 256 ranges"), "{shown}");

    in_box(&farm, &format!("{docker} ls -q --filter name=andon-left | xargs {docker} rm"));
    let said = farm.run(&project.copy(), &[]);
    assert!(said.status.success(), "{said:?}");
}

#[test]
fn a_daemon_that_is_killed_or_whose_files_are_damaged_comes_back_and_costs_no_verdict() {
    const TESTS: u64 = 1_000;
    let farm = Farm::up(1, LANES, &[]);
    let (_project, run) = started(&farm, TESTS);
    farm.progressed(run, 50);
    let bolts = format!(
        "for file in {DATA}/network/files/local-kv.db {DATA}/volumes/metadata.db; do truncate -s 5000 $file; done"
    );
    let faults = [
        ("dockerd killed", "kill -9 $(pgrep -x dockerd)".to_owned()),
        ("containerd killed", "kill -9 $(pgrep -x containerd)".to_owned()),
        // A pid file that names a process that lives: the box's first.
        (
            "both killed, stale pid file",
            "kill -9 $(pgrep -x dockerd) $(pgrep -x containerd); echo 1 >/var/lib/andon/run/docker.pid"
                .to_owned(),
        ),
        ("files truncated", format!("{bolts}; kill -9 $(pgrep -x dockerd)")),
    ];
    for (fault, script) in faults {
        let before = farm.decided(run);
        assert!(before + BETWEEN < TESTS, "the run is too short for {fault}");
        in_box(&farm, &script);
        eventually(&format!("tests are decided again after: {fault}"), || {
            (farm.decided(run) >= before + BETWEEN).then_some(())
        });
    }
    let log = box_log(&farm);
    assert!(log.contains("did not come up on its data root"), "the damage was noticed:\n{log}");
    let shown = farm.ended(run);
    let counts = &shown["counts"];
    assert_eq!((&shown["state"], &counts["passed"]), (&"passed".into(), &TESTS.into()), "{counts}");
    let tests = shown["tests"].as_array().expect("tests");
    let attempts = tests.iter().flat_map(|test| test["attempts"].as_array().expect("attempts"));
    let outcomes: std::collections::BTreeSet<&str> =
        attempts.map(|attempt| attempt["outcome"].as_str().expect("an outcome")).collect();
    println!("outcomes: {outcomes:?}");
    assert!(!outcomes.contains("failed") && !outcomes.contains("timed_out"), "{outcomes:?}");
    // One daemon, one containerd, and no data root that was given up.
    let left = format!("pgrep -xc dockerd; pgrep -xc containerd; ls -d {DATA}-aside-* 2>/dev/null | wc -l");
    assert_eq!(in_box(&farm, &left).split_whitespace().collect::<Vec<_>>(), ["1", "1", "0"]);
}
