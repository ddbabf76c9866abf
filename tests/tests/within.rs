//! Rebases within a unit: many tests in one process, each on a pristine stack; with the drivers that can.

use andon_tests::eventually;
use andon_tests::farm::Farm;
use andon_tests::project::Project;
use serde_json::Value;

fn attempts<'a>(shown: &'a Value, named: &str) -> Vec<&'a Value> {
    let tests = shown["tests"].as_array().expect("tests").iter();
    let named = tests.filter(|test| test["id"].as_str().is_some_and(|id| id.contains(named)));
    named.flat_map(|test| test["attempts"].as_array().expect("attempts")).collect()
}

fn tests_of_one_process_each_find_the_stack_pristine(driver: &str) {
    let project = Project::on_stack_of("mini", "within");
    let farm = Farm::up(1, 1, &["--driver", driver]).with_database();
    let output = farm.run(&project.copy(), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let number = farm.newest();
    let shown = farm.show(number);
    assert_eq!(shown["state"], "passed", "{shown:#}");
    let counting = attempts(&shown, "counts_from_zero");
    let unit_of = |attempt: &&Value| attempt["unit"].as_u64().expect("a unit");
    let units: std::collections::BTreeSet<_> = counting.iter().map(unit_of).collect();
    assert!(units.len() < counting.len(), "several tests share a unit: {shown:#}");
    for attempt in &counting {
        assert!(attempt["rebase_us"].as_u64() > Some(0), "each test has its own rebase: {attempt:#}");
    }
    // All but the first of such tests follow one that did not touch the stack either.
    let alone = attempts(&shown, "leaves_the_stack_alone");
    let clean = alone.iter().filter(|attempt| attempt["driver"] == "clean").count();
    assert!(clean + units.len() >= alone.len(), "{alone:#?}");
    assert!(clean > 0, "a stack that nobody touched is not put back: {alone:#?}");
    eventually("every footprint is known, each test's own", || {
        let shown = farm.show(number);
        let dirt = |attempt: &&Value| attempt["dirtied_bytes"].as_u64();
        let counted: Option<Vec<u64>> = attempts(&shown, "counts_from_zero").iter().map(dirt).collect();
        counted.filter(|all| all.iter().all(|bytes| *bytes > 0))
    });
}

#[test]
fn tests_of_one_process_each_find_the_stack_pristine_by_restart() {
    tests_of_one_process_each_find_the_stack_pristine("restart");
}

#[test]
fn tests_of_one_process_each_find_the_stack_pristine_by_standby() {
    tests_of_one_process_each_find_the_stack_pristine("standby");
}
