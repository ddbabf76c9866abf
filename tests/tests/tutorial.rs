//! The tutorial, followed: every command of `docs/tutorial.md` in its order, in one shell, on a farm of its own; each must end and
//! answer as the page says. The forge of its last part is the one of the tests of `ci`.
//!
//! What the page says is matched loosely (`tutorial/page.rs`): times, ids and counts of bytes differ each time.

#[allow(dead_code, reason = "the forge's own tests use all of it")]
#[path = "../../ci/tests/support/forge.rs"]
mod forge;
#[path = "tutorial/page.rs"]
mod page;
#[path = "tutorial/shell.rs"]
mod shell;

use std::net::TcpListener;
use std::path::Path;

use andon_tests::farm::Farm;
use andon_tests::stage;

use forge::FakeForge;
use page::{Step, agrees, steps};
use shell::Shell;

const PAGE: &str = include_str!("../../docs/tutorial.md");
const CONTEXT: &str = "andon/integration";

/// What is another one here than on the page: images that this machine has, ports that are free.
fn elsewhere(forge: &FakeForge, hooks: u16) -> Vec<(&'static str, String)> {
    let box_image = stage("ANDON_TEST_WORKER_IMAGE");
    vec![
        ("mysql:9.7", stage("ANDON_TEST_DB_IMAGE")),
        ("python:3.13-slim", stage("ANDON_TEST_SUITE_IMAGE")),
        // The stage's image has them.
        ("\nRUN pip install --no-cache-dir pytest pymysql cryptography", String::new()),
        (
            "andon up --workers 1 --lanes 2",
            format!("andon up --workers 1 --lanes 2 --image {box_image} --listen 127.0.0.1:0"),
        ),
        ("127.0.0.1:7080", format!("127.0.0.1:{hooks}")),
        ("127.0.0.1:3000", forge.address.to_string()),
    ]
}

#[test]
fn every_command_of_the_tutorial_does_what_it_says() {
    let forge = FakeForge::start();
    let home = tempfile::tempdir().expect("a home");
    // The page has its farm where farms are by themselves.
    let farm = Farm::none_yet(&home.path().join(".local/state/andon"));
    let hooks =
        TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let elsewhere = elsewhere(&forge, hooks);
    let steps = steps(PAGE);
    for (here, _) in &elsewhere {
        assert!(steps.iter().any(|step| step.command.contains(here)), "the page has no {here:?} any more");
    }
    let mut shell = Shell::start(home.path(), Path::new(&stage("ANDON_TEST_BIN")));
    for (at, step) in steps.iter().enumerate() {
        if step.command.starts_with("andon down") {
            let (_, head) = shell.run("git rev-parse HEAD");
            seen_by_the_forge(&forge, head.trim());
        }
        let command =
            elsewhere.iter().fold(step.command.clone(), |text, (here, there)| text.replace(here, there));
        let (code, said) = shell.run(&command);
        let looked_at = steps.get(at + 1).is_some_and(|next| next.command == "echo $?");
        assert!(code == 0 || looked_at, "line {}: `{command}` ended with {code}:\n{said}", step.line);
        if let Err(missing) = agrees(&step.says, &said) {
            panic!("line {}: `{command}` does not say {missing:?}, but:\n{said}", step.line);
        }
    }
    drop(farm);
}

/// What the page says of statuses: of the fix, of the head before it, and of that one's rerun.
fn seen_by_the_forge(forge: &FakeForge, fix: &str) {
    assert_eq!(forge.wait_for_state(fix, CONTEXT, "success"), "4 passed");
    let finals = |state: &str| {
        let of = |came: &forge::Came| {
            let body = &came.body;
            let told = came.status < 300 && body["context"] == CONTEXT && body["state"] == state;
            told.then(|| body["description"].as_str().unwrap_or_default().to_owned())
        };
        forge.came().iter().filter_map(of).collect::<Vec<_>>()
    };
    let failures = finals("failure");
    assert!(failures.iter().any(|said| said == "3 passed, 1 failed"), "{failures:?}");
    assert!(failures.iter().any(|said| said == "rerun of run 6: 1 failed"), "{failures:?}");
    assert!(!finals("pending").is_empty(), "it was told that it runs");
}

#[test]
fn the_page_has_commands_and_what_they_say() {
    let steps = steps(PAGE);
    assert!(steps.len() > 40, "{}", steps.len());
    let of = |command: &str| -> &Step {
        steps.iter().find(|step| step.command.starts_with(command)).unwrap_or_else(|| panic!("no {command}"))
    };
    assert!(of("cat > compose.yaml").command.ends_with("\nEND"));
    assert_eq!(of("echo $?").says, ["100"]);
}
