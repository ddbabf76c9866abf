//! The real `andon` binary: arguments, exit codes, files it writes, and what it says without a farm.

mod support;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use support::{andon, project};

#[test]
fn what_is_not_a_command_is_a_usage_error() {
    for arguments in [
        &["no-such-command"][..],
        &["show", "not-a-number"],
        &["list", "--limit", "0"],
        &["list", "--no-such-flag"],
        &["cancel"],
        &["up", "--driver", "teleport"],
        &["hook"],
        &[],
    ] {
        let output = andon().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?} says nothing");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_and_version_are_no_errors_and_go_to_stdout() {
    for arguments in [&["--help"][..], &["--version"], &["run", "--help"], &["hook", "install", "--help"]] {
        let output = andon().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty(), "{arguments:?}");
    }
    let help = andon().args(["run", "--help"]).output().unwrap();
    assert!(String::from_utf8_lossy(&help.stdout).contains("Example"));
}

#[test]
fn completions_are_scripts_that_the_shell_reads() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = andon().args(["completions", shell]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("rerun"), "{shell}");
    }
    let script = andon().args(["completions", "bash"]).output().unwrap().stdout;
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("andon.bash");
    fs::write(&file, script).unwrap();
    assert!(Command::new("bash").arg("-n").arg(&file).status().unwrap().success());
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let mut child =
        andon().args(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // More than a pipe holds is written, so the command notices.
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(141));
    assert_eq!(said, "");
}

#[test]
fn init_writes_a_configuration_that_is_valid() {
    let pytest =
        project(&[("pytest.ini", "[pytest]\n"), ("compose.yaml", "services: {}\n"), ("db/seed.sql", "")]);
    let docker = project(&[("Dockerfile", "FROM scratch\n"), ("tests/test_a.py", "")]);
    let bare = project(&[]);
    for temp in [&pytest, &docker, &bare] {
        let output = andon().arg("init").current_dir(temp.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let text = fs::read(temp.path().join("andon.toml")).unwrap();
        let parsed = andon::config::parse("andon.toml", &text);
        assert!(parsed.is_ok(), "{}\n{}", parsed.unwrap_err(), String::from_utf8_lossy(&text));
    }
}

#[test]
fn init_never_overwrites_unless_it_is_told_to() {
    let temp = project(&[("andon.toml", "# mine\n")]);
    let file = temp.path().join("andon.toml");
    let refused = andon().arg("init").arg(temp.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--force"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "# mine\n");
    let forced = andon().arg("init").arg(temp.path()).arg("--force").output().unwrap();
    assert_eq!(forced.status.code(), Some(0));
    assert!(fs::read_to_string(&file).unwrap().contains("[[suite]]"));
}

#[test]
fn without_a_farm_the_command_says_how_to_get_one() {
    let temp = tempfile::tempdir().unwrap();
    for arguments in [&["list"][..], &["show", "1"], &["watch"], &["worker", "list"], &["cancel", "1"]] {
        let output = andon().args(arguments).arg("--state").arg(temp.path().join("none")).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("andon up"), "{arguments:?}");
    }
}

#[test]
fn a_coordinator_that_is_away_is_infrastructure_and_never_a_test_failure() {
    let output = andon()
        .args(["list", "--coordinator", "http://127.0.0.1:1"])
        .env("ANDON_TOKEN", "t".repeat(32))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(106));
    assert!(!String::from_utf8_lossy(&output.stderr).contains(&"t".repeat(32)), "the token is shown");
}

#[test]
fn a_coordinator_without_a_token_is_usage() {
    let output = andon().args(["list", "--coordinator", "http://127.0.0.1:1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ANDON_TOKEN"));
}

#[test]
fn tokens_that_others_can_read_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("farm.json");
    fs::write(&file, r#"{"farm":"a","listen":"127.0.0.1:1","client_token":"c","join_token":"j","watch":[]}"#)
        .unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let output = andon().arg("list").arg("--state").arg(temp.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("chmod 600"));
}

#[test]
fn mistakes_in_the_project_are_all_said_before_a_farm_is_asked() {
    let bad = "[[suite]]\nnmae = \"a\"\nimage = \"x\"\nrunner = \"pytset\"\n";
    for (files, expected) in
        [(&[("andon.toml", bad)][..], &["nmae", "pytset"][..]), (&[("README", "")], &["andon init"])]
    {
        let project = support::repository(files);
        let mut run = andon();
        run.args(["run", "--coordinator", "http://127.0.0.1:1", "--token", "t"]);
        let output = run.arg("--repo").arg(project.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(16), "{}", support::complained(&output));
        for word in expected {
            assert!(support::complained(&output).contains(word), "{word}: {}", support::complained(&output));
        }
    }
}

#[test]
fn a_commit_or_a_repository_that_is_not_there_is_usage() {
    let project = support::repository(&[("andon.toml", "")]);
    let empty = tempfile::tempdir().unwrap();
    for (path, commit) in
        [(project.path(), "no-such-branch"), (project.path(), "--help\u{1b}[2J"), (empty.path(), "HEAD")]
    {
        let output =
            andon().arg("run").arg("--repo").arg(path).arg(format!("--commit={commit}")).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{commit:?}");
        assert!(!support::complained(&output).contains('\u{1b}'), "{commit:?} reaches the terminal");
    }
}

#[test]
fn doctor_says_what_is_wrong_and_what_to_do_and_ends_with_106() {
    let project = project(&[("andon.toml", "[[suite]]\nnmae = \"a\"\n")]);
    let doctor = |json: &[&str]| {
        let mut command = andon();
        command.env("DOCKER_HOST", "unix:///nonexistent/docker.sock").arg("doctor").args(json);
        command.arg("--state").arg(project.path().join("state")).arg("--repo").arg(project.path());
        command.output().unwrap()
    };
    let text = doctor(&[]);
    assert_eq!(text.status.code(), Some(106));
    let said = support::said(&text);
    for words in
        ["problem  engine", "/nonexistent/docker.sock", "apt-get install docker.io", "\"nmae\"", "andon up"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    let json = doctor(&["--json"]);
    assert_eq!(json.status.code(), Some(106));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["healthy"], false);
    assert!(json["findings"].as_array().unwrap().iter().any(|finding| finding["health"] == "problem"));
}
