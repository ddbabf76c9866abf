//! The main job on real parts: pushes, boxes with nested Docker, a real database, and what happens when parts die.

use andon_tests::farm::{Farm, QUICKLY_BACK};
use andon_tests::project::Project;
use andon_tests::{eventually, ok, run, stage};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

fn attempts(shown: &Value) -> Vec<&Value> {
    let tests = shown["tests"].as_array().expect("tests");
    tests.iter().flat_map(|test| test["attempts"].as_array().expect("attempts")).collect()
}

fn workers(shown: &Value) -> BTreeSet<&str> {
    attempts(shown).into_iter().filter_map(|attempt| attempt["worker"].as_str()).collect()
}

/// The run that the hook told the pusher of.
fn run_of(said: &str) -> u64 {
    let number = said.split_once("run ").map(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next());
    number.flatten().and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no run in {said:?}"))
}

#[test]
fn a_push_runs_every_test_pristine_on_two_workers_and_a_failure_can_be_rerun() {
    let project = Project::from_fixture("mini");
    project.write(
        &format!("{}/{}.txt", "deep/".repeat(30), "long".repeat(40)),
        "a path longer than old archives can name",
    );
    project.commit("a long path");
    let farm = Farm::up(2, 2, &["--watch", &format!("mini={}", project.bare().display())]).with_database();
    project.install_hook(&farm, "mini");
    let number = run_of(&project.push());
    let shown = farm.ended(number);
    assert_eq!(shown["state"], "passed", "{shown:#}");
    assert_eq!(shown["counts"]["passed"], 12);
    assert_eq!(workers(&shown).len(), 2, "both workers ran tests: {shown:#}");
    for attempt in attempts(&shown) {
        assert!(attempt["rebase_us"].as_u64().expect("a rebase") > 0, "{attempt:#}");
        assert!(attempt["run_ms"].as_u64().expect("a time") >= 50, "{attempt:#}");
    }
    let measured = eventually("every footprint is known", || {
        let shown = farm.show(number);
        attempts(&shown).iter().all(|attempt| attempt["dirtied_bytes"].is_u64()).then_some(shown)
    });
    let dirt = |attempt: &&Value| attempt["dirtied_bytes"].as_u64().expect("known");
    assert!(attempts(&measured).iter().all(|attempt| dirt(attempt) > 0), "each test writes: {measured:#}");

    let drift = farm.json(&["drift", &number.to_string()]);
    let drifts = drift.as_array().expect("a line for each test");
    assert_eq!(drifts.len(), 12, "{drift:#}");
    assert!(drifts.iter().all(|test| test["dirtied_bytes"].as_u64() > Some(0)), "{drift:#}");
    let of_one = farm.json(&["drift", &number.to_string(), drifts[0]["id"].as_str().expect("an id")]);
    let data = of_one["trees"].as_array().expect("trees").iter().find(|tree| tree["tree"] == "volume/data");
    let files = data.expect("the database's volume")["files"].as_array().expect("files");
    assert!(
        files.iter().any(|file| file["path"] == "ibdata1" || file["bytes"].as_u64() > Some(0)),
        "{of_one:#}"
    );

    let baselines = farm.json(&["baseline", "list"]);
    let listed = baselines.as_array().or_else(|| baselines["baselines"].as_array()).expect("baselines");
    assert_eq!(listed.len(), 1, "one worker seeded, the other took the published artifact: {baselines:#}");
    let labels = &listed[0]["labels"];
    assert_eq!(labels["team"], "tests", "{labels:#}");
    assert_eq!(labels["org.opencontainers.image.revision"], shown["commit"], "{labels:#}");

    // The gateway polls the same repository: it sees the commit too, and it stays one run.
    eventually("the gateway has polled", || {
        farm.gateway_log().contains(&shown["commit"].as_str()?[..7]).then_some(())
    });
    let list = farm.json(&["list"]);
    let runs = list.as_array().or_else(|| list["runs"].as_array()).expect("a list of runs");
    assert_eq!(runs.len(), 1, "one commit is one run: {list:#}");

    // A person may run it again; lanes that wait for a unit of this very commit can discover, too.
    let again = farm.run(&project.copy(), &["--project", "mini"]);
    assert_eq!(again.status.code(), Some(0), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(farm.newest(), number + 1);

    project.replace("tests/test_mini.py", "== (0,)", "== ((1,) if number == 7 else (0,))");
    project.commit("break one");
    let broken = farm.ended(run_of(&project.push()));
    assert_eq!((&broken["state"], &broken["counts"]["failed"]), (&"failed".into(), &1.into()), "{broken:#}");
    assert_eq!(broken["baseline_key"], shown["baseline_key"], "the seed did not change");
    let rerun = run(farm.andon().args(["rerun", &broken["run"].to_string(), "--failed"]));
    assert_eq!(rerun.status.code(), Some(100), "{}", String::from_utf8_lossy(&rerun.stderr));
    assert_eq!(farm.show(farm.newest())["counts"]["total"], 1);
}

#[test]
fn a_killed_worker_costs_no_verdict_and_a_crashed_coordinator_costs_no_attempt() {
    let farm = Farm::up(2, 1, &QUICKLY_BACK).with_database();
    let project = Project::from_fixture("mini");
    project.replace("tests/test_mini.py", "range(12)", "range(40)");
    project.commit("more tests");
    project.install_hook(&farm, "mini");

    let number = run_of(&project.push());
    farm.progressed(number, 4);
    farm.crash_coordinator();
    let shown = farm.ended(number);
    assert_eq!((&shown["state"], &shown["counts"]["passed"]), (&"passed".into(), &40.into()), "{shown:#}");
    let twice = shown["tests"]
        .as_array()
        .expect("tests")
        .iter()
        .filter(|test| test["attempts"].as_array().expect("attempts").len() > 1);
    assert_eq!(twice.count(), 0, "the restart cost a test a second attempt: {shown:#}");

    project.write("again.txt", "another commit");
    project.commit("again");
    let number = run_of(&project.push());
    farm.progressed(number, 4);
    let victim = farm.boxes().into_iter().next().expect("a box");
    ok(Command::new("docker").args(["kill", "-s", "KILL", &victim]));
    let shown = farm.ended(number);
    assert_eq!((&shown["state"], &shown["counts"]["passed"]), (&"passed".into(), &40.into()), "{shown:#}");
}

#[test]
fn what_a_project_does_wrong_is_answered_by_name() {
    let farm = Farm::up(1, 1, &QUICKLY_BACK).with_database();
    let project = Project::from_fixture("mini");
    let exit = |more: &[&str]| {
        let output = farm.run(&project.copy(), more);
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code().expect("an exit code"), text)
    };

    project.replace("andon.toml", "timeout =", "timeuot =");
    project.replace("compose.yaml", "    volumes:", "    privileged: true\n    volumes:");
    project.commit("two mistakes");
    let runs_before = farm.json(&["list"]);
    let (code, text) = exit(&[]);
    assert_eq!(code, 16, "{text}");
    for said in ["timeuot", "timeout", "privileged", "andon.toml", "compose.yaml"] {
        assert!(text.contains(said), "{said} is not in\n{text}");
    }
    assert_eq!(farm.json(&["list"]), runs_before, "nothing was started");
    project.git(&["revert", "--no-edit", "HEAD"]);

    project.replace("db/seed.py", "CREATE DATABASE mini", "CREATE DATABASE mini FROM NOTHING");
    project.commit("a seed that fails");
    let (code, text) = exit(&[]);
    assert_eq!(code, 105, "{text}");
    assert!(text.contains("db/seed.py"), "{text}");
    let log = ok(farm.andon().args(["logs", &farm.newest().to_string()]));
    assert!(log.contains("FROM NOTHING") || log.contains("SQL syntax"), "the seed's output is kept: {log}");
    let baselines = farm.json(&["baseline", "list"]);
    assert_eq!(baselines.as_array().or_else(|| baselines["baselines"].as_array()).map(Vec::len), Some(0));
    project.git(&["revert", "--no-edit", "HEAD"]);

    project.replace("andon.toml", "\"tests\"]", "\"tests\", \"-k\", \"nothing_like_this\"]");
    project.commit("no tests");
    let (code, text) = exit(&[]);
    assert_eq!(code, 4, "{text}");
    project.git(&["revert", "--no-edit", "HEAD"]);

    project.write("tests/test_mini.py", "import nothing_like_this\n");
    project.commit("tests that cannot be collected");
    let (code, text) = exit(&[]);
    assert_eq!(code, 16, "{text}");

    project.write(
        "tests/test_mini.py",
        "import subprocess, time\n\n\
         def test_hangs():\n    subprocess.Popen(['sleep', '600'])\n    time.sleep(600)\n\n\
         def test_goes_on():\n    pass\n",
    );
    project.replace("andon.toml", "timeout = \"20s\"", "timeout = \"3s\"");
    project.commit("a test that hangs");
    let (code, text) = exit(&[]);
    assert_eq!(code, 100, "{text}");
    let shown = farm.show(farm.newest());
    let counts = &shown["counts"];
    assert_eq!((&counts["timed_out"], &counts["passed"]), (&1.into(), &1.into()), "{shown:#}");
}

#[test]
fn names_that_shells_and_paths_trip_over_run_right_or_are_refused_by_name() {
    let farm = Farm::up(1, 1, &QUICKLY_BACK).with_database();
    let project = Project::from_fixture("names");
    let output = farm.run(&project.copy(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = farm.show(farm.newest());
    assert!(shown["counts"]["passed"].as_u64().expect("a count") >= 12, "{shown:#}");

    for (name, bad) in
        [("a leading dash", "-rf"), ("a control character", "bell\\007"), ("not UTF-8", "\\377")]
    {
        project.write("discover.sh", &format!("printf '{bad}\\n'\n"));
        project.commit(name);
        let output = farm.run(&project.copy(), &["--suite", "shell"]);
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(16), "{name}: {text}");
    }
}

#[test]
fn files_that_a_test_leaves_can_be_fetched() {
    let farm = Farm::up(1, 1, &[]);
    let again = run(farm.andon().args(["image", "add", &stage("ANDON_TEST_BASE_IMAGE")]));
    assert!(String::from_utf8_lossy(&again.stdout).contains("the farm has it already"), "{again:?}");
    let project = Project::from_fixture("leaver");
    let ended = farm.run(&project.copy(), &["--project", "leaver"]);
    assert_eq!(ended.status.code(), Some(100), "{}", String::from_utf8_lossy(&ended.stderr));
    let folder = tempfile::tempdir().expect("a folder");
    let into = folder.path().join("left");
    let fetch = |test: &str, more: &[&str]| {
        let mut fetch = farm.andon();
        run(fetch.args(["artifacts", test, "-o"]).arg(&into).args(more))
    };
    let listed = fetch("leaves", &["--list"]);
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "shots/page.txt\n");
    assert!(String::from_utf8_lossy(&listed.stderr).contains("1 more"), "the link is not silently missing");
    assert!(!into.exists());
    assert!(fetch("leaves", &[]).status.success());
    assert_eq!(std::fs::read_to_string(into.join("shots/page.txt")).expect("it was written"), "seen\n");
    let again = fetch("leaves", &[]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("is there already"));
    let nothing = fetch("keeps", &[]);
    assert!(!nothing.status.success());
    assert!(
        String::from_utf8_lossy(&nothing.stderr).contains("it left no file in $ANDON_ARTIFACTS"),
        "{nothing:?}"
    );
}
