//! A flaky test in quarantine: its failure is shown and blocks nothing, until the quarantine ends. What fails always blocks in spite of it.

use std::process::{Command, Output};

use andon_tests::farm::Farm;
use andon_tests::project::Project;
use andon_tests::{eventually, ok, run};
use serde_json::Value;

/// The day so many days from now, in UTC.
fn day(from_now: i32) -> String {
    ok(Command::new("date").args(["-u", "-d", &format!("{from_now} days"), "+%F"])).trim().to_owned()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn test<'a>(shown: &'a Value, id: &str) -> &'a Value {
    let tests = shown["tests"].as_array().expect("tests");
    tests.iter().find(|test| test["id"] == id).unwrap_or_else(|| panic!("{shown:#}"))
}

/// Runs these tests of the working tree; answers with the exit code, what `show` tells, and the run's own log.
fn tried(farm: &Farm, project: &Project, tests: &[&str]) -> (Option<i32>, Value, String) {
    let ended = farm.run(&project.copy(), &[&["--project", "shaky"], tests].concat());
    let number = farm.newest();
    let log = ok(farm.andon().args(["logs", &number.to_string()]));
    println!("{}{log}", said(&ended));
    (ended.status.code(), farm.show(number), log)
}

#[test]
fn a_flaky_tests_failure_blocks_nothing_until_its_quarantine_ends_and_a_broken_ones_always_does() {
    let project = Project::from_fixture("shaky");
    let farm = Farm::up(1, 1, &[]);
    // It fails and passes on one commit: so it is known to be flaky.
    let (code, shown, _) = tried(&farm, &project, &["=shaky", "=fine"]);
    assert_eq!((code, &test(&shown, "shaky")["verdict"]), (Some(0), &"flaky".into()), "{shown:#}");
    eventually("the run is in the ledger", || {
        let stats = run(farm.andon().args(["stats", "--project", "shaky", "--json"]));
        let stats: Value =
            serde_json::from_slice(&stats.stdout).unwrap_or_else(|_| panic!("{}", said(&stats)));
        (stats["runs"]["items"].as_array().is_some_and(|runs| !runs.is_empty())).then_some(())
    });

    // Now it has no second try.
    project.replace("andon.toml", "retries = 1", "retries = 0");
    let (code, shown, _) = tried(&farm, &project, &["=shaky"]);
    assert_eq!((code, &test(&shown, "shaky")["verdict"]), (Some(100), &"failed".into()), "{shown:#}");

    let plain = std::fs::read_to_string(project.copy().join("andon.toml")).expect("the project's file");
    let held_until = |until: &str| {
        let one = |test: &str| {
            format!(
                "\n[[quarantine]]\ntest = \"{test}\"\nowner = \"@shell\"\nuntil = {until}\nreason = \"#7\"\n"
            )
        };
        project.write("andon.toml", &format!("{plain}{}{}", one("shaky"), one("shell/broken")));
    };
    held_until(&day(30));
    let (code, shown, log) = tried(&farm, &project, &["=shaky", "=fine"]);
    assert_eq!((code, &shown["state"]), (Some(0), &"passed".into()), "{shown:#}");
    assert_eq!(
        (&shown["counts"]["quarantined"], &shown["counts"]["failed"]),
        (&1.into(), &0.into()),
        "{shown:#}"
    );
    let shaky = test(&shown, "shaky");
    assert_eq!(
        (&shaky["verdict"], &shaky["quarantine"]["owner"], &shaky["quarantine"]["reason"]),
        (&"quarantined".into(), &"@shell".into(), &"#7".into()),
        "{shaky:#}"
    );
    assert!(log.contains("quarantine: a failure of 1 test blocks nothing"), "{log}");
    let junit = ok(farm.andon().args(["show", "--junit", "-"]));
    let held = format!("<skipped message=\"quarantined until {} by @shell", day(30));
    assert!(junit.contains(&held) && junit.contains(r#"failures="0""#), "{junit}");

    let (code, shown, log) = tried(&farm, &project, &["=shaky", "=broken"]);
    assert_eq!(code, Some(100), "{shown:#}");
    assert_eq!(test(&shown, "broken")["verdict"], "failed", "{shown:#}");
    assert_eq!(test(&shown, "shaky")["verdict"], "quarantined", "{shown:#}");
    assert!(log.contains("not known to be flaky: a failure blocks: shell/broken (@shell)"), "{log}");

    held_until(&day(-1));
    let (code, shown, log) = tried(&farm, &project, &["=shaky"]);
    assert_eq!((code, &test(&shown, "shaky")["verdict"]), (Some(100), &"failed".into()), "{shown:#}");
    let ended = log.lines().find(|line| line.contains("the quarantine has ended, a failure blocks again"));
    assert!(ended.is_some_and(|line| line.contains("shell/shaky (@shell)")), "{log}");

    held_until(&day(91));
    let ended = farm.run(&project.copy(), &["--project", "shaky"]);
    assert_eq!(ended.status.code(), Some(16), "{}", said(&ended));
}
