//! Mirrors of real repositories, honest and hostile.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::git::{CommitId, Repository};
use crate::testing::{TestRepo, git};

fn mirror(repo: &TestRepo, url: &str) -> Mirror {
    let url = RemoteUrl::parse(url).expect("an address");
    Mirror::new(&repo.root().join("mirrors"), "shop", url, Credentials::None).expect("a name")
}

fn path_mirror(repo: &TestRepo) -> Mirror {
    mirror(repo, repo.work().to_str().expect("UTF-8"))
}

fn branches(mirror: &Mirror) -> Vec<(String, CommitId)> {
    Repository::open(mirror.path()).unwrap().branches().unwrap().heads
}

#[tokio::test]
async fn a_mirror_follows_new_moved_forced_and_removed_branches() {
    let repo = TestRepo::sample();
    let mirror = path_mirror(&repo);
    mirror.fetch().await.unwrap();
    let first = repo.head();
    assert_eq!(branches(&mirror), [("main".to_owned(), first.clone())]);

    repo.git(&["branch", "release/1"]);
    repo.write("x", "x");
    let second = repo.commit("second");
    mirror.fetch().await.unwrap();
    let expected = [("main".to_owned(), second), ("release/1".to_owned(), first.clone())];
    assert_eq!(branches(&mirror), expected);

    repo.git(&["reset", "-q", "--hard", &first.to_string()]);
    repo.git(&["branch", "-D", "release/1"]);
    repo.git(&["branch", "release"]);
    mirror.fetch().await.unwrap();
    assert_eq!(branches(&mirror), [("main".to_owned(), first.clone()), ("release".to_owned(), first)]);
}

#[tokio::test]
async fn file_addresses_and_names_with_spaces_work() {
    let repo = TestRepo::sample();
    let mirror = mirror(&repo, &format!("file://{}", repo.work().display()));
    mirror.fetch().await.unwrap();
    assert_eq!(branches(&mirror)[0].1, repo.head());
}

#[tokio::test]
async fn no_hook_and_no_configured_program_runs() {
    let repo = TestRepo::sample();
    let mirror = path_mirror(&repo);
    mirror.fetch().await.unwrap();
    let witness = repo.root().join("witness");
    let script = format!("#!/bin/sh\ntouch '{}'\n", witness.display());
    let hooks = mirror.path().join("hooks");
    std::fs::create_dir_all(&hooks).unwrap();
    for hook in ["reference-transaction", "post-update", "pre-auto-gc"] {
        std::fs::write(hooks.join(hook), &script).unwrap();
        std::fs::set_permissions(hooks.join(hook), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let trap = hooks.join("reference-transaction");
    for key in ["core.fsmonitor", "credential.helper", "core.sshCommand"] {
        git(mirror.path(), &["config", key, trap.to_str().unwrap()]);
    }
    repo.write("x", "x");
    repo.commit("second");
    mirror.fetch().await.unwrap();
    assert_eq!(branches(&mirror)[0].1, repo.head());
    assert!(!witness.exists(), "something of the repository's ran");

    // The same hook does run for a plain git, so the test can fail.
    repo.write("y", "y");
    repo.commit("third");
    git(mirror.path(), &["fetch", "-q", repo.work().to_str().unwrap(), "+refs/heads/*:refs/heads/*"]);
    assert!(witness.exists());
}

#[tokio::test]
async fn objects_that_are_hostile_are_not_fetched() {
    let repo = TestRepo::sample();
    let blob = repo.blob(b"x");
    let commit = repo.commit_raw_tree(&[("100644", b"..", &blob)]);
    repo.git(&["update-ref", "refs/heads/evil", &commit.to_string()]);
    let error = path_mirror(&repo).fetch().await.expect_err("the tree is refused");
    assert!(error.to_string().contains("hasDotdot"), "{error}");
}

#[tokio::test]
async fn locks_of_a_killed_fetch_do_not_stop_a_mirror_for_ever() {
    let repo = TestRepo::sample();
    let mirror = path_mirror(&repo);
    mirror.fetch().await.unwrap();
    repo.write("x", "x");
    repo.commit("second");
    for lock in ["refs/heads/main.lock", "packed-refs.lock"] {
        std::fs::write(mirror.path().join(lock), "").unwrap();
    }
    mirror.fetch().await.unwrap();
    assert_eq!(branches(&mirror)[0].1, repo.head());
}

#[test]
fn what_the_other_side_says_damages_no_mirror() {
    assert!(is_damaged("fatal: Unable to create '/m/packed-refs.lock': File exists.\n"));
    assert!(!is_damaged("remote: fatal: Unable to create '/m/packed-refs.lock': File exists.\n"));
    assert!(!is_damaged("fatal: unable to connect to example.org\n"));
}

#[tokio::test]
async fn submodules_are_not_visited() {
    let repo = TestRepo::sample();
    let id = repo.head().to_string();
    repo.write(".gitmodules", "[submodule \"s\"]\n\tpath = s\n\turl = /nonexistent\n");
    repo.git(&["add", "-A"]);
    repo.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{id},s")]);
    repo.git(&["commit", "-qm", "submodule"]);
    let mirror = path_mirror(&repo);
    mirror.fetch().await.unwrap();
    assert!(!mirror.path().join("modules").exists());
}

#[tokio::test]
async fn a_source_that_is_not_there_is_named_in_one_line() {
    let repo = TestRepo::new();
    let error = mirror(&repo, "/nonexistent/shop.git").fetch().await.expect_err("nothing is there");
    let said = error.to_string();
    assert!(said.contains("git fetch of /nonexistent/shop.git failed") && !said.contains('\n'), "{said}");
}

#[tokio::test]
async fn a_source_that_never_answers_ends_in_time_and_leaves_no_process() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let repo = TestRepo::new();
    let mirror = mirror(&repo, &format!("git://127.0.0.1:{port}/x.git"));
    let short = mirror.clone().with_limit(Duration::from_secs(20));
    short.init().await.unwrap();
    let limit = Duration::from_millis(700);
    let error = mirror.with_limit(limit).fetch().await.expect_err("nobody answers");
    assert!(matches!(error, MirrorError::Time { .. }), "{error}");
    // The other side sees the connection end, so the process that held it is gone.
    let (mut connection, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    let end = connection.read_to_end(&mut request);
    tokio::time::timeout(Duration::from_secs(10), end).await.expect("the process ends").ok();
    assert!(!request.is_empty());
}

#[test]
fn a_project_that_is_no_name_gets_no_folder() {
    let url = RemoteUrl::parse("/srv/x.git").unwrap();
    for name in ["../x", "-x", "", "a/b", "."] {
        let made = Mirror::new(Path::new("/tmp"), name, url.clone(), Credentials::None);
        assert!(matches!(made, Err(MirrorError::Name(_))), "{name}");
    }
}

#[test]
fn two_addresses_never_share_a_mirror() {
    let at = |url: &str| {
        let url = RemoteUrl::parse(url).unwrap();
        Mirror::new(Path::new("/m"), "shop", url, Credentials::None).unwrap().path().to_owned()
    };
    assert_ne!(at("/srv/a.git"), at("/srv/b.git"));
    assert_eq!(at("/srv/a.git"), at("/srv/a.git"));
}
