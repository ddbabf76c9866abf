//! What a developer asks of a farm: this working tree, these tests, this shard, this failure elsewhere, and why it failed. On
//! real parts: boxes, a database, rebases.

use andon_tests::farm::{Farm, QUICKLY_BACK};
use andon_tests::project::Project;
use andon_tests::run;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Output;

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn ids(shown: &Value) -> Vec<&str> {
    let tests = shown["tests"].as_array().expect("tests");
    tests.iter().map(|test| test["id"].as_str().expect("an id")).collect()
}

fn why(farm: &Farm, number: u64, arguments: &[&str]) -> Value {
    let output = run(farm.andon().arg("why").arg(number.to_string()).args(arguments).arg("--json"));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{}", said(&output)))
}

#[test]
fn a_failure_is_real_flaky_or_polluted_and_the_polluter_is_named() {
    let project = Project::on_stack_of("mini", "culprit");
    let farm = Farm::up(2, 1, &QUICKLY_BACK).with_database();
    let ended = farm.run(&project.copy(), &["--project", "culprit", "classes/", "=broken"]);
    assert_eq!(ended.status.code(), Some(100), "{}", said(&ended));
    let number = farm.newest();
    let shown = farm.show(number);
    assert_eq!(shown["counts"]["failed"], 2, "{shown:#}");

    let real = why(&farm, number, &["shell/broken"]);
    assert_eq!(real["finding"], "real", "{real:#}");
    assert_eq!(real["alone"].as_array().map(Vec::len), Some(2), "on both workers: {real:#}");

    let victim = "tests/test_sharing.py::TestSharing::test_expects_the_first_value";
    let polluted = why(&farm, number, &[victim]);
    assert_eq!(polluted["finding"], "polluted", "{polluted:#}");
    let culprit = "classes/tests/test_sharing.py::TestSharing::test_forgets_to_put_back";
    assert_eq!(polluted["culprits"]["tests"], serde_json::json!([culprit]), "{polluted:#}");
    assert_eq!(
        (&polluted["culprits"]["minimal"], &polluted["culprits"]["sure"]),
        (&true.into(), &true.into())
    );
    assert_eq!(polluted["predecessors"], 4);
    for experiment in polluted["runs"].as_array().expect("runs") {
        let experiment = farm.show(experiment.as_u64().expect("a number"));
        assert_eq!(experiment["baseline_key"], shown["baseline_key"], "pinned to the same baseline");
        assert_eq!(experiment["commit"], shown["commit"], "and commit");
    }

    let shaky =
        farm.run(&project.copy(), &["--project", "culprit", "=shaky", "--repeat", "60", "--until-fail"]);
    assert_eq!(shaky.status.code(), Some(100), "{}", said(&shaky));
    // That twenty tosses are all the same happens twice in a million times; that both workers' twenty are so far apart as to accuse one, hardly
    // once in a thousand.
    let flaky = why(&farm, farm.newest(), &["shaky", "--times", "20"]);
    assert_eq!(flaky["finding"], "flaky", "{flaky:#}");
}

#[test]
fn a_working_tree_runs_as_it_is_in_shards_and_its_failure_goes_to_another_farm() {
    let project = Project::from_fixture("mini");
    let (file, number) = {
        let farm = Farm::up(1, 2, &QUICKLY_BACK).with_database();
        let plan = run(farm.andon().current_dir(project.copy()).args(["plan", "--json"]));
        let plan: Value = serde_json::from_slice(&plan.stdout).unwrap_or_else(|_| panic!("{}", said(&plan)));
        assert_eq!((&plan["baseline"]["fate"], &plan["lanes"]), (&"built".into(), &2.into()), "{plan:#}");

        let mut all = Vec::new();
        for shard in ["1/2", "2/2"] {
            let ended = farm.run(&project.copy(), &["--shard", shard]);
            assert_eq!(ended.status.code(), Some(0), "{}", said(&ended));
            all.extend(ids(&farm.show(farm.newest())).into_iter().map(str::to_owned));
        }
        let as_set: BTreeSet<_> = all.iter().collect();
        assert_eq!((all.len(), as_set.len()), (12, 12), "disjoint and complete: {all:?}");

        let plan = run(farm.andon().current_dir(project.copy()).args(["plan", "--json", "zero?1"]));
        let plan: Value = serde_json::from_slice(&plan.stdout).unwrap_or_else(|_| panic!("{}", said(&plan)));
        assert_eq!(plan["baseline"]["fate"], "present", "{plan:#}");
        assert_eq!(plan["suites"][0]["left_out"], 12, "a glob names the whole: {plan:#}");

        // Uncommitted, and a file that git does not know.
        project.replace("tests/test_mini.py", "== (0,)", "== ((1,) if number == 7 else (0,))");
        project.write("tests/test_new.py", "def test_untracked():\n    pass\n");
        let ended = farm.run(&project.copy(), &["zero[7]", "untracked"]);
        assert_eq!(ended.status.code(), Some(100), "{}", said(&ended));
        assert!(said(&ended).contains("the working tree is sent: 2 changes on top of"), "{}", said(&ended));
        let number = farm.newest();
        let shown = farm.show(number);
        assert_eq!(ids(&shown).len(), 2, "{shown:#}");
        assert_eq!(
            (&shown["counts"]["failed"], &shown["counts"]["passed"]),
            (&1.into(), &1.into()),
            "{shown:#}"
        );
        assert_eq!(
            project.git(&["status", "--porcelain"]).lines().count(),
            2,
            "nothing was committed or added"
        );

        let file = project.copy().with_file_name("broken.andon");
        let exported = run(farm.andon().args(["export", &number.to_string(), "-o"]).arg(&file));
        assert!(exported.status.success(), "{}", said(&exported));
        (file, number)
    };
    let elsewhere = Farm::up(1, 1, &QUICKLY_BACK).with_database();
    let rerun = run(elsewhere.andon().args(["rerun", "--failed", "--from"]).arg(&file));
    assert_eq!(rerun.status.code(), Some(100), "{}", said(&rerun));
    assert!(said(&rerun).contains(&format!("of run {number}")), "{}", said(&rerun));
    assert!(said(&rerun).contains("on the same baseline as there"), "{}", said(&rerun));
    let shown = elsewhere.show(elsewhere.newest());
    assert_eq!(ids(&shown), ["tests/test_mini.py::test_counts_from_zero[7]"], "{shown:#}");
}
