//! The command against a real coordinator, without workers: wiring of the client side, tokens, background processes.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use support::{Coordinator, andon, complained, said};

#[test]
fn a_new_farm_is_empty_and_says_so() {
    let farm = Coordinator::start();
    for (arguments, expected) in [
        (&["list"][..], "no runs yet\n"),
        (&["list", "--json"], "[]\n"),
        (&["worker", "list"], "no workers\n"),
        (&["worker", "list", "--json"], "[]\n"),
        (&["baseline", "list"], "no baselines yet\n"),
        (&["baseline", "list", "--json"], "[]\n"),
    ] {
        let output = farm.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", complained(&output));
        assert_eq!(said(&output), expected, "{arguments:?}");
    }
    assert_eq!(farm.stop(), Some(0), "SIGTERM ends the coordinator cleanly");
}

#[test]
fn what_the_farm_does_not_know_is_usage() {
    let farm = Coordinator::start();
    for arguments in [
        &["show"][..],
        &["show", "7"],
        &["watch", "7"],
        &["logs", "7"],
        &["cancel", "7"],
        &["rerun", "7", "--failed"],
        &["baseline", "inspect", "abc"],
    ] {
        let output = farm.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", complained(&output));
        assert!(!complained(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_wrong_token_is_refused_and_not_repeated() {
    let farm = Coordinator::start();
    let wrong = "w".repeat(64);
    let output = farm.command(&["list"]).env("ANDON_TOKEN", &wrong).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", complained(&output));
    assert!(complained(&output).contains("token"));
    assert!(!complained(&output).contains(&wrong));
}

#[test]
fn the_state_folder_is_for_its_owner_alone() {
    let farm = Coordinator::start();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&farm.state()), 0o700);
    assert_eq!(mode(&farm.state().join("farm.json")), 0o600);
    assert_eq!(mode(&farm.state().join("run/coordinator.sock")), 0o600);
}

#[test]
fn up_without_workers_is_repeatable_and_down_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let state = temp.path().join("state");
    let run = |arguments: &[&str]| andon().args(arguments).arg("--state").arg(&state).output().unwrap();
    let pid = || fs::read_to_string(state.join("pids/coordinator.json")).unwrap();

    let up = run(&["up", "--workers", "0", "--listen", "127.0.0.1:0"]);
    assert_eq!(up.status.code(), Some(0), "{}", complained(&up));
    let first = pid();
    let again = run(&["up", "--workers", "0"]);
    assert_eq!(again.status.code(), Some(0), "{}", complained(&again));
    assert_eq!(pid(), first, "what runs is left alone");
    assert_eq!(said(&run(&["list"])), "no runs yet\n");

    let down = run(&["down"]);
    assert_eq!(down.status.code(), Some(0), "{}", complained(&down));
    assert!(said(&down).contains("coordinator stopped"), "{}", said(&down));
    assert_eq!(run(&["list"]).status.code(), Some(106), "the farm is known and away");
    assert_eq!(run(&["down", "--purge"]).status.code(), Some(0));
    assert!(!state.exists());
    assert_eq!(run(&["down"]).status.code(), Some(0), "nothing to stop is no error");
}

#[test]
fn an_address_that_is_taken_is_said_with_the_servers_own_words() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let temp = tempfile::tempdir().unwrap();
    let state = temp.path().join("state");
    let up =
        andon().args(["up", "--workers", "0", "--listen", &address, "--state"]).arg(&state).output().unwrap();
    assert_eq!(up.status.code(), Some(106), "{}", said(&up));
    assert!(complained(&up).contains(&address), "{}", complained(&up));
    assert!(complained(&up).contains("coordinator.log"), "{}", complained(&up));
}
