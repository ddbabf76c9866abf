//! Tests that use Docker themselves, with the real Testcontainers: what they start works, nothing of it stays, two lanes do not
//! see each other's, and what breaks out is refused.

use std::process::Command;

use andon_tests::farm::Farm;
use andon_tests::project::Project;
use andon_tests::{ok, run};

/// The fixture, with the wheel of Testcontainers beside its Dockerfile.
fn project() -> Project {
    let project = Project::from_fixture("docker");
    ok(Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary", ":all:", "testcontainers==4.*", "-d"])
        .arg(project.copy().join("suite")));
    project.commit("with its wheel");
    project
}

#[test]
fn testcontainers_work_in_a_lane_leave_nothing_and_reach_nothing_else() {
    let project = project();
    let farm = Farm::up(1, 2, &[]).with_database();
    let output = run(farm.andon().current_dir(project.copy()).arg("run"));
    let shown = farm.show(farm.newest());
    let tests = shown["tests"].as_array().expect("tests");
    let bad = tests.iter().filter(|test| test["verdict"] != "passed");
    let bad: Vec<String> =
        bad.map(|test| format!("{}: {}", test["id"], test["attempts"][0]["message"])).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert_eq!(shown["state"], "passed", "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(tests.len(), 19, "{shown:#}");
    let lanes: std::collections::BTreeSet<_> =
        tests.iter().filter_map(|test| test["attempts"][0]["lane"].as_u64()).collect();
    assert_eq!(lanes.len(), 2, "both lanes ran tests: {shown:#}");
}
