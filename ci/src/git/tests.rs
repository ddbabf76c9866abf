//! Real repositories, honest and hostile, read and archived.

use std::collections::BTreeMap;
use std::io::Read as _;

use super::*;
use crate::testing::{RawEntry, TestRepo, git};

/// An archive's entries by path: kind and mode, then content or link target.
fn unpack(archive: &Archive) -> BTreeMap<String, (String, Vec<u8>)> {
    let bytes = std::fs::read(&archive.path).expect("the archive is there");
    assert_eq!(archive.digest, blake3::hash(&bytes).to_hex().to_string());
    assert_eq!(archive.size, bytes.len() as u64);
    let mut tar = tar::Archive::new(zstd::Decoder::new(bytes.as_slice()).expect("zstd"));
    let mut found = BTreeMap::new();
    let mut order = Vec::new();
    for entry in tar.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let header = entry.header().clone();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
        let path = String::from_utf8(entry.path_bytes().into_owned()).expect("UTF-8");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("content");
        if let Some(target) = entry.link_name_bytes() {
            content = target.into_owned();
        }
        order.push(path.clone());
        let what = format!("{:?} {:o}", header.entry_type(), header.mode().unwrap());
        found.insert(path, (what, content));
    }
    assert_eq!(order.remove(0), "./", "the root comes first");
    assert!(order.is_sorted(), "entries are sorted: {order:?}");
    found
}

fn archive_of(repo: &TestRepo, commit: &CommitId) -> Archive {
    repo.open().snapshot(commit).unwrap().archive(repo.root()).unwrap()
}

fn refusal(repo: &TestRepo, commit: &CommitId) -> String {
    repo.open().snapshot(commit).expect_err("is refused").to_string()
}

#[test]
fn an_archive_holds_the_commits_files_and_nothing_of_the_machine() {
    let repo = TestRepo::new();
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    repo.write("a.txt", "a\r\nb\n");
    repo.write("run.sh", "#!/bin/sh\n");
    repo.write(&long, "long");
    repo.write("with space/new\nline", "n");
    repo.write("-leading", "-");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(repo.work().join("run.sh"), executable).unwrap();
    std::os::unix::fs::symlink("../outside//./x", repo.work().join("link")).unwrap();
    let far = format!("/far/{}", "x".repeat(300));
    std::os::unix::fs::symlink(&far, repo.work().join("longlink")).unwrap();
    let commit = repo.commit("first");
    repo.write("a.txt", "dirty, and not committed");
    repo.write("untracked", "x");

    let found = unpack(&archive_of(&repo, &commit));
    let get =
        |path: &str| found.get(path).cloned().unwrap_or_else(|| panic!("{path:?} in {:?}", found.keys()));
    assert_eq!(get("a.txt"), ("Regular 644".into(), b"a\r\nb\n".to_vec()));
    assert_eq!(get("run.sh").0, "Regular 755");
    assert_eq!(get(&long), ("Regular 644".into(), b"long".to_vec()));
    assert_eq!(get("with space"), ("Directory 755".into(), Vec::new()));
    assert_eq!(get("with space/new\nline").1, b"n");
    assert_eq!(get("-leading").1, b"-");
    assert_eq!(get("link"), ("Symlink 777".into(), b"../outside//./x".to_vec()));
    assert_eq!(get("longlink"), ("Symlink 777".into(), far.into_bytes()));
    assert!(!found.contains_key("untracked") && !found.keys().any(|path| path.contains(".git")));
}

#[test]
fn the_same_tree_is_the_same_archive_whatever_the_commit() {
    let (one, two) = (TestRepo::sample(), TestRepo::sample());
    two.write("x", "x");
    two.commit("more");
    std::fs::remove_file(two.work().join("x")).unwrap();
    let again = two.commit("and back");
    let (first, second) = (archive_of(&one, &one.head()), archive_of(&two, &again));
    assert_ne!(one.head(), again);
    assert_eq!(first.digest, second.digest);
    two.write("x", "x");
    assert_ne!(archive_of(&two, &two.commit("other")).digest, first.digest);
}

#[test]
fn an_archive_goes_away_with_its_value() {
    let repo = TestRepo::sample();
    let archive = archive_of(&repo, &repo.head());
    let path = archive.path.to_path_buf();
    assert!(path.exists());
    drop(archive);
    assert!(!path.exists());
}

#[test]
fn paths_that_are_not_utf8_are_left_out_with_a_note() {
    let repo = TestRepo::new();
    let blob = repo.blob(b"x");
    let commit = repo.commit_raw_tree(&[("100644", b"b\xff\x1b[2Jad", &blob), ("100644", b"good", &blob)]);
    let opened = repo.open();
    let snapshot = opened.snapshot(&commit).unwrap();
    let paths: Vec<&str> = snapshot.entries().map(|(path, _)| path).collect();
    assert_eq!(paths, ["good"]);
    let note = snapshot.notes()[0].to_string();
    assert!(note.contains("not UTF-8") && !note.chars().any(char::is_control), "{note:?}");
}

#[test]
fn submodules_are_left_out_with_a_note() {
    let repo = TestRepo::sample();
    let id = repo.head().to_string();
    repo.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{id},vendor/x")]);
    repo.git(&["commit", "-qm", "submodule"]);
    let opened = repo.open();
    let snapshot = opened.snapshot(&repo.head()).unwrap();
    assert_eq!(snapshot.kind("vendor/x"), None);
    assert!(snapshot.notes()[0].to_string().contains("submodules are left out: \"vendor/x\""));
}

#[test]
fn trees_that_git_would_not_check_out_are_refused_by_name() {
    let repo = TestRepo::new();
    let blob = repo.blob(b"x");
    let link = repo.blob(b"/etc");
    let inner = repo.commit_raw_tree(&[("100644", b"passwd", &blob)]);
    let inner = repo.git(&["rev-parse", &format!("{inner}^{{tree}}")]);
    let cases: [(&[RawEntry<'_>], &str); 7] = [
        (&[("100644", b"..", &blob)], "\"..\" leads out of its folder"),
        (&[("40000", b"..", &inner)], "\"..\" leads out of its folder"),
        (&[("100644", b".", &blob)], "\".\" leads out of its folder"),
        (&[("40000", b".GIT", &inner)], "\".GIT\" is a git folder of its own"),
        (&[("100644", b"a/b", &blob)], "\"a/b\" has a slash in its name"),
        (&[("120000", b"a", &link), ("40000", b"a", &inner)], "\"a\" is in its folder twice"),
        (&[("20666", b"tty", &blob)], "\"tty\" has the mode 20000"),
    ];
    for (entries, reason) in cases {
        let commit = repo.commit_raw_tree(entries);
        let said = refusal(&repo, &commit);
        assert!(said.contains(reason), "{said}");
    }
}

#[test]
fn a_tree_that_names_itself_many_times_is_refused_early() {
    let repo = TestRepo::new();
    let blob = repo.blob(b"x");
    let names: Vec<String> = (0..10).map(|n| format!("n{n}")).collect();
    let mut below = ("100644", blob);
    for _ in 0..10 {
        let entries: Vec<RawEntry<'_>> =
            names.iter().map(|name| (below.0, name.as_bytes(), below.1.as_str())).collect();
        let commit = repo.commit_raw_tree(&entries);
        below = ("40000", repo.git(&["rev-parse", &format!("{commit}^{{tree}}")]));
    }
    let commit = CommitId::parse(&repo.git(&["commit-tree", "-m", "bomb", &below.1])).unwrap();
    let said = refusal(&repo, &commit);
    assert!(said.contains("too large: files and folders, at most 300000"), "{said}");
}

#[test]
fn revisions_are_resolved_to_full_ids_and_branches_to_full_names() {
    let repo = TestRepo::sample();
    let head = repo.head();
    repo.git(&["tag", "-a", "v1", "-m", "tag"]);
    repo.git(&["branch", "other"]);
    let opened = repo.open();
    for revision in ["HEAD", "main", "v1", "refs/heads/main", &head.to_string(), &head.short()] {
        assert_eq!(opened.resolve(revision).unwrap(), head, "{revision}");
    }
    assert_eq!(opened.branch_of("HEAD").as_deref(), Some("refs/heads/main"));
    assert_eq!(opened.branch_of("other").as_deref(), Some("refs/heads/other"));
    assert_eq!(opened.branch_of("v1"), None);
    assert_eq!(opened.branch_of(&head.to_string()), None);
    for revision in ["", "nothing", "HEAD~99", "v1^{tree}", "--all", &"x".repeat(300), "a\nb"] {
        let error = opened.resolve(revision).expect_err(revision);
        assert!(matches!(error, GitError::Revision { .. }), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}

#[test]
fn only_repositories_are_opened_and_only_where_they_are() {
    let repo = TestRepo::sample();
    repo.write("sub/x", "x");
    assert!(Repository::open(&repo.work().join("sub")).is_err());
    assert!(Repository::discover(&repo.work().join("sub")).is_ok());
    assert!(Repository::open(repo.root()).is_err());
    assert!(!repo.open().is_bare());
    assert!(Repository::open(&repo.bare("b.git")).unwrap().is_bare());
}

#[test]
fn branch_names_that_could_be_options_are_no_branches() {
    assert_eq!(branch_name("refs/heads/feature/x-1"), Some("feature/x-1"));
    for name in
        ["refs/heads/-h", "refs/heads/--upload-pack=x", "refs/tags/v1", "refs/heads/", "refs/heads/a..b"]
    {
        assert_eq!(branch_name(name), None, "{name}");
    }
    let repo = TestRepo::sample();
    let id = repo.head().to_string();
    git(&repo.work(), &["update-ref", "refs/heads/fine", &id]);
    std::fs::write(repo.work().join(".git/refs/heads/-h"), format!("{id}\n")).unwrap();
    let Branches { heads, refused } = repo.open().branches().unwrap();
    let names: Vec<&str> = heads.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["fine", "main"]);
    assert!(refused.iter().any(|reason| reason.contains("\"refs/heads/-h\"")), "{refused:?}");
}

#[test]
fn origins_are_named_without_credentials() {
    let repo = TestRepo::sample();
    assert!(repo.open().origin().ends_with("/work"));
    repo.git(&["remote", "add", "origin", "https://me:s3cret@example.org/shop.git"]);
    assert_eq!(repo.open().origin(), "https://example.org/shop.git");
}

#[test]
fn a_digest_covers_path_mode_and_content_and_nothing_else() {
    let repo = TestRepo::sample();
    let digest = |commit: &CommitId| {
        repo.open().snapshot(commit).unwrap().digest(|path| path.starts_with("db/")).unwrap()
    };
    let first = digest(&repo.head());
    assert_eq!(first.1, 1);
    repo.write("other", "x");
    assert_eq!(digest(&repo.commit("elsewhere")), first);
    repo.git(&["update-index", "--chmod=+x", "db/seed.sql"]);
    repo.git(&["commit", "-qm", "mode"]);
    let mode = digest(&repo.head());
    assert_ne!(mode, first);
    repo.git(&["mv", "db/seed.sql", "db/seed2.sql"]);
    repo.git(&["commit", "-qm", "path"]);
    let path = digest(&repo.head());
    assert!(path != mode && path != first);
    repo.write("db/seed2.sql", "other");
    assert_ne!(digest(&repo.commit("content")), path);
}
