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

const PROJECT: &[(&str, &str)] = &[(
    "andon.toml",
    "[[suite]]\nname = \"unit\"\nimage = \"debian:trixie-slim\"\ndiscover = \"ls\"\nrun = \"true {tests}\"\n",
)];

#[test]
fn a_followed_run_is_left_by_ctrl_c_and_ended_by_cancel() {
    let farm = Coordinator::start();
    let project = support::repository(PROJECT);
    let mut run = farm.command(&["run", "--project", "p"]);
    run.current_dir(project.path());
    let followed = support::interrupt_when(run, "run 1:");
    assert_eq!(followed.status.code(), Some(130), "{}", complained(&followed));
    assert!(complained(&followed).contains("andon watch 1"), "{}", complained(&followed));

    let cancelled = farm.run(&["cancel", "1", "--reason", "no time"]);
    assert_eq!(said(&cancelled), "run 1 cancelled\n");
    let watched = farm.run(&["watch", "1"]);
    assert_eq!(watched.status.code(), Some(106), "{}", said(&watched));
    assert!(said(&watched).contains("no time"), "{}", said(&watched));
    assert_eq!(farm.run(&["show", "1"]).status.code(), Some(0), "showing is no judging");

    let json: serde_json::Value = serde_json::from_slice(&farm.run(&["show", "1", "--json"]).stdout).unwrap();
    assert_eq!(json["exit_code"], 106);
    assert_eq!(json["state"], "incomplete");
    assert_eq!(json["project"], "p");
    assert_eq!(json["ref"], "refs/heads/main");
    assert_eq!(json["trigger"], "person");
    let listed: serde_json::Value =
        serde_json::from_slice(&farm.run(&["list", "--project", "p", "--json"]).stdout).unwrap();
    assert_eq!(listed[0]["run"], 1);
}

#[test]
fn a_detached_run_says_its_number_and_what_to_do() {
    let farm = Coordinator::start();
    let project = support::repository(PROJECT);
    std::fs::write(project.path().join("new"), "").unwrap();
    let run = farm.command(&["run", "--detach"]).arg("--repo").arg(project.path()).output().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", complained(&run));
    assert!(said(&run).starts_with("run 1: "), "{}", said(&run));
    assert!(said(&run).contains("andon watch 1"));
    assert!(
        complained(&run).contains("the working tree is sent: 1 change on top of"),
        "{}",
        complained(&run)
    );
}

#[test]
fn a_push_starts_a_run_through_the_hook_and_the_same_commit_never_twice() {
    let farm = Coordinator::start();
    let project = support::repository(PROJECT);
    let temp = tempfile::tempdir().unwrap();
    let bare = temp.path().join("shop.git");
    support::git(temp.path(), &["init", "-q", "--bare", bare.to_str().unwrap()]);
    let install = farm.command(&["hook", "install"]).arg(&bare).output().unwrap();
    assert_eq!(install.status.code(), Some(0), "{}", complained(&install));
    let push = |branch: &str| {
        support::git(
            project.path(),
            &["push", "-q", bare.to_str().unwrap(), &format!("HEAD:refs/heads/{branch}")],
        );
        let list = farm.run(&["list", "--json"]);
        serde_json::from_slice::<serde_json::Value>(&list.stdout).unwrap()
    };
    let first = push("main");
    assert_eq!(first.as_array().unwrap().len(), 1, "{first}");
    assert_eq!(first[0]["project"], "shop");
    assert_eq!(first[0]["trigger"], "push");
    assert_eq!(push("master").as_array().unwrap().len(), 1, "the same commit on another branch");
    support::commit(project.path());
    assert_eq!(push("main").as_array().unwrap().len(), 2);
}
