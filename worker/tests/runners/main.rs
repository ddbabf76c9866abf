//! Each preset with its real tool on a small project: what it finds, what it runs, what it says, names that are hostile, and the
//! rebases between tests of one process.
//!
//! The presets are driven as a worker drives them; only the engine is a stand-in that runs commands here. Needs cargo, `go`, `node`
//! and `npm` (`ci/test` sees to them) and the npm registry for the first run: Jest and Vitest stay in the target folder.
//! cargo-nextest is tried where it is installed, and by what it printed once (`recorded/`) anywhere.

#![allow(clippy::unwrap_used)]

mod farm;

use std::path::{Path, PathBuf};
use std::process::Command;

use andon_proto::Outcome::{Failed, Passed, Skipped};
use farm::{Project, options};

const HOSTILE: &str = "it's $(touch owned) \"q\" (a|b) `x` ; rm -rf é";

fn project_files(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runners/projects").join(folder)
}

fn assert_outcomes(project: &Project, ids: &[&str], expected: &[(&str, andon_proto::Outcome)]) {
    let mut ended = project.run(ids, false);
    ended.sort_by(|a, b| a.id.cmp(&b.id));
    let found: Vec<(&str, andon_proto::Outcome)> =
        ended.iter().map(|one| (one.id.as_str(), one.outcome)).collect();
    let mut expected = expected.to_vec();
    expected.sort_by_key(|(id, _)| *id);
    assert_eq!(found, expected, "{ended:#?}");
    assert!(!project.folder().join("owned").exists(), "a name was obeyed");
}

#[test]
fn go_lists_and_runs_by_package() {
    let project = Project::new("go", &project_files("go"), options(&[]));
    let found = project.discover().unwrap();
    assert!(found.contains(&"example.com/shop/stock::TestSells".to_owned()), "{found:?}");
    assert_eq!(found.len(), 8, "{found:?}");
    let ids = [
        "example.com/shop::TestSells",
        "example.com/shop::TestFails",
        "example.com/shop::TestSkips",
        "example.com/shop::TestTable",
        "example.com/shop::TestParallelA",
        "example.com/shop::TestNoNewline",
        "example.com/shop/stock::TestSells",
        "example.com/shop::TestTable/it's",
    ];
    let outcomes = [Passed, Failed, Skipped, Failed, Passed, Passed, Passed, Failed];
    let expected: Vec<_> = ids.into_iter().zip(outcomes).collect();
    assert_outcomes(&project, &ids, &expected);
    let ended = project.run(&["example.com/shop::TestFails"], false);
    assert_eq!(ended[0].message, "shop_test.go:12: about to fail\nshop_test.go:13: stock is 1, not 2");
    // A subtest that only looks like one by its name: not there, and not a pattern.
    let ended = project.run(&["example.com/shop::TestTable/$(touch owned).*"], false);
    assert_eq!(ended[0].outcome, Failed, "{ended:?}");
}

#[test]
fn libtest_lists_each_binary_and_runs_each_test_alone() {
    let project = Project::new("libtest", &project_files("rust"), options(&[]));
    assert_eq!(
        project.discover().unwrap(),
        [
            "shop tests::deceives",
            "shop tests::dies",
            "shop tests::fails",
            "shop tests::ignored",
            "shop tests::panics",
            "shop tests::sells",
            "shop::till sells",
        ]
    );
    let expected = [
        ("shop tests::deceives", Passed),
        ("shop tests::fails", Failed),
        ("shop tests::ignored", Skipped),
        ("shop tests::panics", Passed),
        ("shop::till sells", Passed),
        ("shop tests::gone $(touch owned)", Failed),
    ];
    assert_outcomes(&project, &expected.map(|(id, _)| id), &expected);
    let ended = project.run(&["shop tests::fails"], false);
    assert!(ended[0].message.contains("stock") && ended[0].log.contains("about to fail"), "{ended:?}");
    let died = project.with_env("DIE", "1").run(&["shop tests::dies", "shop tests::sells"], false);
    assert_eq!((died[0].outcome, died[1].outcome), (Failed, Passed), "{died:?}");
    assert!(died[0].message.contains("SIGABRT"), "{died:?}");
}

#[test]
fn nextest_lists_and_runs_by_binary() {
    let there = Command::new("cargo").args(["nextest", "--version"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        eprintln!("cargo-nextest is not installed: only its recorded output is tested");
        return;
    }
    let project = Project::new("nextest", &project_files("rust"), options(&[]));
    let found = project.discover().unwrap();
    assert_eq!(found.len(), 6, "{found:?}");
    let expected = [
        ("shop tests::deceives", Passed),
        ("shop tests::fails", Failed),
        ("shop tests::panics", Passed),
        ("shop::till sells", Passed),
    ];
    assert_outcomes(&project, &expected.map(|(id, _)| id), &expected);
    let gone = project.run(&["shop tests::gone) | all(\\"], false);
    assert_eq!(gone[0].outcome, Failed, "{gone:?}");
}

/// A folder with Jest and Vitest in it, made once.
fn node_modules() -> PathBuf {
    // Vite 6: the last that takes the Node of Debian 12.
    let versions = "jest@29.7.0 vitest@3.2.4 vite@6";
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("node-29.7-3.2");
    // Whoever comes second, in another process perhaps, waits for the first.
    let turn = std::fs::File::create(folder.with_extension("lock")).unwrap();
    turn.lock().unwrap();
    if !folder.join("ready").exists() {
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("package.json"), "{\"private\":true}").unwrap();
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--no-save", "--loglevel=error"]);
        let status = npm.args(versions.split(' ')).current_dir(&folder).status().unwrap();
        assert!(status.success(), "npm cannot install {versions}");
        std::fs::write(folder.join("ready"), "").unwrap();
    }
    folder.join("node_modules")
}

/// What the three of JavaScript have in common; `file` holds the project's tests.
fn script_runner(project: &Project, file: &str, shares: bool) {
    let id = |titles: &str| format!("{file}::{titles}");
    let hostile = id(&format!("shop::{HOSTILE}"));
    let found = project.discover().unwrap();
    for titles in ["shop::sells", "shop::nested::deep::twice", "shop::nested::deep::twice #2", "loose"] {
        assert!(found.contains(&id(titles)), "{titles} is not in {found:?}");
    }
    assert!(found.contains(&hostile), "{found:?}");
    let expected = [
        (id("shop::sells"), Passed),
        (id("shop::fails"), Failed),
        (id("shop::skips"), Skipped),
        (id("shop::later"), Skipped),
        (hostile, Passed),
        (id("shop::nested::deep::twice"), Passed),
        (id("shop::nested::deep::twice #2"), Failed),
        (id("gone"), Failed),
    ];
    let expected: Vec<_> = expected.iter().map(|(id, outcome)| (id.as_str(), *outcome)).collect();
    let ids: Vec<&str> = expected.iter().map(|(id, _)| *id).collect();
    assert_outcomes(project, &ids, &expected);
    let second = project.run(&[&id("shop::nested::deep::twice #2")], false);
    assert!(second[0].message.contains("the second"), "{second:?}");
    if shares {
        let ids = [id("shop::sells"), id("shop::nested::deep::twice"), id("loose")];
        let before = project.rebases();
        let ended = project.run(&ids.each_ref().map(String::as_str), true);
        assert!(ended.iter().all(|one| one.outcome == Passed), "{ended:?}");
        assert!(project.rebases() - before >= 2, "{} rebases", project.rebases() - before);
    }
    project.write(&format!("broken.{}", file.split_once('.').unwrap().1), "throw new Error('at load');\n");
    let reason = project.discover().unwrap_err();
    assert!(reason.contains("at load"), "{reason}");
}

#[test]
fn node_test_lists_without_running_and_runs_what_is_asked() {
    let project = Project::new("node", &project_files("node"), options(&[]));
    let found = project.discover().unwrap();
    assert!(found.contains(&"test/common.cjs::cjs".to_owned()), "{found:?}");
    assert_eq!(project.run(&["test/common.cjs::cjs"], false)[0].outcome, Passed);
    let mixed = ["shop.test.mjs::with callback", "shop.test.mjs::loose"];
    assert!(project.run(&mixed, false).iter().all(|one| one.outcome == Passed));
    script_runner(&project, "shop.test.mjs", true);
}

#[test]
fn jest_lists_by_skipping_and_runs_by_name() {
    let project = Project::new("jest", &project_files("jest"), options(&[]));
    project.link("node_modules", &node_modules());
    script_runner(&project, "shop.test.js", true);
}

#[test]
fn vitest_lists_by_skipping_and_runs_by_name() {
    let project = Project::new("vitest", &project_files("vitest"), options(&[]));
    project.link("node_modules", &node_modules());
    script_runner(&project, "shop.test.mjs", false);
    // With a setup file of the project's own, as docs/runners.md has it, each test but the first asks for a rebase.
    project.remove("broken.test.mjs");
    let between = project.runner_file("node_modules/andon_rebase.mjs");
    let setup = format!(
        "import {{ beforeEach }} from 'vitest';\nconst {{ between }} = await import({between:?});\nbeforeEach(between());\n"
    );
    project.write("setup.mjs", &setup);
    project.write("vitest.config.mjs", "export default { test: { setupFiles: ['setup.mjs'] } };\n");
    let before = project.rebases();
    let ended = project.run(&["shop.test.mjs::shop::sells", "shop.test.mjs::loose"], false);
    assert!(ended.iter().all(|one| one.outcome == Passed), "{ended:?}");
    assert_eq!(project.rebases() - before, 1);
}
