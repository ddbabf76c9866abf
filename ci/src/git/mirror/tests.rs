//! Mirrors of real repositories, honest and hostile.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::forge::guard::Allowed;
use crate::git::{CommitId, Repository};
use crate::testing::{TestRepo, git};

fn mirror(repo: &TestRepo, url: &str) -> Mirror {
    let url = RemoteUrl::parse(url).expect("an address");
    let mirror = Mirror::new(&repo.root().join("mirrors"), "shop", url, Credentials::None).expect("a name");
    let here = Allowed::parse("127.0.0.1").expect("an address");
    mirror.with_guard(Arc::new(Guard::new(vec![here])))
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

#[tokio::test]
async fn a_source_that_sends_without_end_is_stopped_and_leaves_nothing() {
    // A server that answers with a pack whose end never comes.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        endless(&mut stream).await;
    });
    let repo = TestRepo::new();
    let mirror = mirror(&repo, &format!("git://127.0.0.1:{port}/x.git")).with_size_limit(3 << 20);
    let error = tokio::time::timeout(Duration::from_secs(60), mirror.fetch()).await.expect("it is stopped");
    let error = error.expect_err("it is too large");
    assert!(matches!(error, MirrorError::Size { .. }), "{error}");
    assert!(!mirror.path().exists());
    serving.abort();
}

/// Plays `git daemon`: advertises one branch, then sends a pack of blobs that goes on for as long as anybody reads.
async fn endless(stream: &mut tokio::net::TcpStream) {
    use tokio::io::AsyncWriteExt as _;
    let line = |text: &str| format!("{:04x}{text}", text.len() + 4);
    let id = "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c";
    let refs = line(&format!("{id} refs/heads/main\0side-band-64k\n")) + "0000";
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    // The request, then the wants up to `done`.
    while !seen.ends_with(b"\0") {
        let read = stream.read(&mut piece).await.unwrap();
        seen.extend_from_slice(&piece[..read]);
    }
    stream.write_all(refs.as_bytes()).await.unwrap();
    while !seen.ends_with(b"done\n") {
        let read = stream.read(&mut piece).await.unwrap();
        if read == 0 {
            return;
        }
        seen.extend_from_slice(&piece[..read]);
    }
    stream.write_all(line("NAK\n").as_bytes()).await.unwrap();
    // One blob of 1 GiB by its header, as stored deflate blocks that never end.
    let mut pack = b"PACK\0\0\0\x02\0\0\0\x01".to_vec();
    pack.extend([0xb0, 0x80, 0x80, 0x80, 0x20, 0x78, 0x01]);
    let mut block = vec![0x00, 0xff, 0x7f, 0x00, 0x80];
    block.resize(5 + 0x7fff, b'x');
    let mut first = true;
    loop {
        let data = if std::mem::take(&mut first) { pack.clone() } else { block.clone() };
        let mut framed = format!("{:04x}\x01", data.len() + 5).into_bytes();
        framed.extend_from_slice(&data);
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn an_address_of_an_internal_network_is_not_gone_to() {
    let repo = TestRepo::new();
    for url in [
        "https://127.0.0.1/x.git",
        "https://localhost/x.git",
        "https://[::1]/x.git",
        "https://169.254.169.254/latest/meta-data",
        "https://0x7f000001/x.git",
        "git://10.0.0.1/x.git",
        "ssh://git@192.168.0.1/x.git",
        "ssh://git@[fd00::1]/x.git",
        "git@localhost:x.git",
    ] {
        let url = RemoteUrl::parse(url).unwrap_or_else(|error| panic!("{error}"));
        let mirror = Mirror::new(&repo.root().join("mirrors"), "shop", url, Credentials::User).unwrap();
        let error = mirror.fetch().await.expect_err("it is inside");
        assert!(matches!(error, MirrorError::Address { .. }), "{error}");
        assert!(!mirror.path().exists(), "not even a folder");
    }
}

#[tokio::test]
async fn a_pull_requests_head_is_fetched_beside_the_branches_and_refs_are_checked() {
    let repo = TestRepo::sample();
    let mirror = path_mirror(&repo);
    mirror.fetch().await.unwrap();
    let main = repo.head();
    repo.git(&["checkout", "-q", "--detach"]);
    repo.write("x", "x");
    let head = repo.commit("of a fork");
    repo.git(&["update-ref", "refs/pull/7/head", &head.to_string()]);
    mirror.fetch_ref("refs/pull/7/head", "refs/andon/pull/7").await.unwrap();
    assert!(Repository::open(mirror.path()).unwrap().has(&head));
    assert_eq!(branches(&mirror), [("main".to_owned(), main)], "it is no branch");
    mirror.fetch().await.unwrap();
    assert!(Repository::open(mirror.path()).unwrap().has(&head), "and stays");
    for wrong in [
        "--upload-pack=x",
        "refs/heads/*",
        "HEAD",
        "refs/heads/a:refs/heads/b",
        "refs/pull/-x",
        "+refs/heads/a",
    ] {
        let error = mirror.fetch_ref(wrong, "refs/andon/x").await.expect_err(wrong);
        assert!(matches!(error, MirrorError::Ref(_)), "{wrong}: {error}");
        let error = mirror.fetch_ref("refs/heads/main", wrong).await.expect_err(wrong);
        assert!(matches!(error, MirrorError::Ref(_)), "{wrong}: {error}");
    }
}

#[tokio::test]
async fn attributes_filters_and_includes_of_a_repository_run_nothing() {
    let repo = TestRepo::sample();
    let witness = repo.root().join("witness");
    let trap = format!("sh -c 'touch {}'", witness.display());
    repo.write(".gitattributes", "* filter=trap diff=trap merge=trap\n");
    repo.write(".gitconfig", format!("[filter \"trap\"]\n\tsmudge = {trap}\n\tprocess = {trap}\n"));
    repo.write(
        ".gitmodules",
        format!("[submodule \"../x\"]\n\tpath = ../x\n\turl = ext::{trap}\n\tupdate = !{trap}\n"),
    );
    repo.git(&["add", "-A"]);
    repo.git(&["commit", "-qm", "traps"]);
    // Of the source itself: what a hostile server's own configuration would do.
    for key in ["uploadpack.packObjectsHook", "core.fsmonitor", "core.sshCommand"] {
        repo.git(&["config", key, &trap]);
    }
    let mirror = path_mirror(&repo);
    // A `.gitmodules` with such names is not even stored (fsck); what is left of it is harmless.
    let fetched = mirror.fetch().await;
    let refused = fetched.err().map(|error| error.to_string());
    assert!(refused.is_none_or(|said| said.contains("gitmodules")));
    assert!(!witness.exists(), "something of the repository's ran");
}
