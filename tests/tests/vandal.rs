//! Does a rebase undo everything? Tests that spoil whatever a server holds, files, processes and memory, each preceded by a probe that
//! must find the pristine baseline; with each driver, and with services of several kinds. `ci/vandal` runs the same project at any
//! length, with every kind on every pool; `docs/benchmarks/vandal.md` is what came of the long run.

use std::path::Path;
use std::process::Command;

use andon_tests::farm::Farm;
use andon_tests::{ok, run, stage};
use serde_json::Value;
use tempfile::TempDir;

/// Which of a kind's some 45 vandals, by number: one rebase after each.
type Share = std::ops::Range<usize>;
/// All of a kind's, and some again in another order.
const ALL: Share = 0..45;

/// A project of one kind; the kind of the sample's database where it is `database`.
fn assemble(folder: &TempDir, kind: &str, share: &Share, unit: &str) -> std::path::PathBuf {
    let image = stage("ANDON_TEST_DB_IMAGE");
    let kind = match kind {
        "database" if image.contains("mariadb") => "mariadb",
        "database" => "mysql",
        other => other,
    };
    let project = folder.path().join(format!("{kind}-{unit}"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/vandal/assemble");
    let mut script = Command::new(script);
    script.env("VANDAL_IMAGE", stage("ANDON_TEST_VANDAL_IMAGE"));
    let tests = format!("{}+{}", share.start, share.len());
    ok(script.arg(&project).args([kind, &tests, unit, &image]));
    project
}

fn farm(lanes: u32, more: &[&str]) -> Farm {
    let farm = Farm::up(1, lanes, more);
    farm.add_images(&["ANDON_TEST_DB_IMAGE", "ANDON_TEST_VANDAL_IMAGE"].map(stage));
    farm
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

/// A rebase after each of these vandals of each kind, one kind after the other on the same lanes.
fn no_leak_with(driver: &str, kinds: &[(&str, Share)]) {
    for ((kind, by), (_, share)) in no_leak(driver, kinds).iter().zip(kinds) {
        // The first unit of a lane may follow a discovery that touched nothing.
        let meant = by.iter().filter(|name| *name == driver || *name == "clean").count();
        assert!(
            meant >= share.len() && by.iter().any(|name| name == driver),
            "every test of {kind} starts from a rebase with {driver}: {by:?}"
        );
    }
}

/// Which drivers really did it, by kind.
fn no_leak(driver: &str, kinds: &[(&str, Share)]) -> Vec<(String, Vec<String>)> {
    let folder = tempfile::tempdir().expect("a folder");
    let farm = farm(2, &["--driver", driver]);
    let mut all = Vec::new();
    for (kind, share) in kinds {
        let shown = vandalise(&farm, &assemble(&folder, kind, share, "test"));
        let found = leaks(&shown);
        assert!(found.is_empty(), "{kind}: {} of {share:?}: {found:#?}", found.len());
        let tests = shown["tests"].as_array().expect("tests");
        assert_eq!(tests.len(), share.len());
        let attempts = tests.iter().flat_map(|test| test["attempts"].as_array().expect("attempts"));
        let rebased = attempts.filter(|a| a["rebase_us"].as_u64() > Some(0));
        let by = rebased.filter_map(|attempt| Some(attempt["driver"].as_str()?.to_owned())).collect();
        all.push(((*kind).to_owned(), by));
    }
    all
}

// Three hundred rebases in all. Where a kind's rebases take long the drivers share its vandals out; `ci/vandal` has each driver meet
// every one.

#[test]
fn standby_leaves_nothing_of_what_vandals_did() {
    no_leak_with("standby", &[("database", 0..15), ("redis", ALL), ("app", 0..30)]);
}

#[test]
fn restart_leaves_nothing_of_what_vandals_did() {
    no_leak_with("restart", &[("database", 15..30), ("postgres", ALL), ("redis", 0..20)]);
}

#[test]
fn recreate_leaves_nothing_of_what_vandals_did() {
    no_leak_with("recreate", &[("database", 30..45), ("redis", ALL)]);
}

/// Much of what vandals do cannot be taken back without a restart: that has to be found out each time, and done.
#[test]
fn rewind_leaves_nothing_of_what_vandals_did_and_leaves_to_others_what_it_cannot_take_back() {
    let kinds = [("database", 0..25), ("redis", ALL)];
    for ((kind, by), (_, share)) in no_leak("rewind", &kinds).iter().zip(&kinds) {
        let rewound = by.iter().filter(|name| *name == "rewind").count();
        assert!(rewound * 4 >= share.len(), "{kind}: {rewound} of {}: {by:?}", share.len());
        // A lane whose stack cannot be rewound time and again goes over to a stack that stands by.
        let ways = ["rewind", "restart", "standby", "clean"];
        assert!(by.iter().all(|name| ways.contains(&name.as_str())), "{by:?}");
    }
}

/// What a rewind leaves is what the server itself can go on from, on disk, too: it works on, is killed, starts again, has what it had
/// committed, and its engine's own check (`CHECK TABLE … EXTENDED`, `pg_amcheck`, `redis-check-rdb`) finds nothing.
#[test]
fn a_server_that_was_rewound_recovers_when_it_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let farm = farm(1, &["--driver", "rewind"]);
    for kind in ["database", "postgres", "redis"] {
        let shown = vandalise(&farm, &assemble(&folder, kind, &(0..12), "recovery"));
        let found = leaks(&shown);
        assert!(found.is_empty(), "{kind}: {found:#?}");
        let killed = shown["tests"].as_array().expect("tests").last().expect("a test");
        assert!(killed["id"].as_str().is_some_and(|id| id.ends_with("[11]")), "{killed}");
        assert_eq!(killed["attempts"][0]["driver"], "rewind", "{kind}: {shown:#}");
    }
}

#[test]
fn without_rebases_the_probes_find_what_vandals_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let farm = farm(1, &[]);
    let shown = vandalise(&farm, &assemble(&folder, "database", &(0..8), "never"));
    assert!(!leaks(&shown).is_empty(), "the probes do not bite: {shown:#}");
}
