//! Does a rebase undo everything? Tests that spoil tables, users, globals, files and processes, each preceded by a probe that must
//! find the pristine baseline; with each driver. `ci/vandal` runs the same project at any length.

use std::path::Path;
use std::process::Command;

use andon_tests::farm::Farm;
use andon_tests::{ok, run, stage};
use serde_json::Value;
use tempfile::TempDir;

/// Rebases with the driver that workers choose; half as many with each other.
const REBASES: usize = 160;

fn assemble(folder: &TempDir, tests: usize, unit: &str) -> std::path::PathBuf {
    let project = folder.path().join(unit);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/vandal/assemble");
    let image = stage("ANDON_TEST_DB_IMAGE");
    ok(Command::new(script).arg(&project).args([&tests.to_string(), unit, &image]));
    project
}

fn vandalise(farm: &Farm, project: &Path) -> Value {
    let output = run(farm.andon().current_dir(project).arg("run"));
    let code = output.status.code();
    assert!(matches!(code, Some(0 | 100)), "{code:?}: {}", String::from_utf8_lossy(&output.stderr));
    farm.show(farm.newest())
}

fn leaks(shown: &Value) -> Vec<String> {
    let tests = shown["tests"].as_array().expect("tests");
    let bad = tests.iter().filter(|test| test["verdict"] != "passed");
    bad.map(|test| format!("{} {}: {}", test["id"], test["verdict"], test["attempts"])).collect()
}

fn no_leak_with(driver: &str, rebases: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let farm = Farm::up(1, 2, &["--driver", driver]);
    let shown = vandalise(&farm, &assemble(&folder, rebases, "test"));
    let found = leaks(&shown);
    assert!(found.is_empty(), "{} of {rebases}: {found:#?}", found.len());
    let tests = shown["tests"].as_array().expect("tests");
    assert_eq!(tests.len(), rebases);
    let attempts = tests.iter().flat_map(|test| test["attempts"].as_array().expect("attempts"));
    let rebased = attempts.filter(|a| a["rebase_us"].as_u64() > Some(0));
    let by: Vec<&str> = rebased.filter_map(|attempt| attempt["driver"].as_str()).collect();
    // The first unit of a lane may follow a discovery that touched nothing.
    let meant = by.iter().filter(|name| **name == driver || **name == "clean").count();
    assert!(
        meant >= rebases && by.contains(&driver),
        "every test starts from a rebase with {driver}: {by:?}"
    );
}

#[test]
fn standby_leaves_nothing_of_what_vandals_did() {
    no_leak_with("standby", REBASES);
}

#[test]
fn restart_leaves_nothing_of_what_vandals_did() {
    no_leak_with("restart", REBASES / 2);
}

#[test]
fn recreate_leaves_nothing_of_what_vandals_did() {
    no_leak_with("recreate", REBASES / 2);
}

#[test]
fn without_rebases_the_probes_find_what_vandals_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let farm = Farm::up(1, 1, &[]);
    let shown = vandalise(&farm, &assemble(&folder, 8, "never"));
    assert!(!leaks(&shown).is_empty(), "the probes do not bite: {shown:#}");
}
