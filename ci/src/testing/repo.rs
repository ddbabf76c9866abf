//! Repositories in temporary folders.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::git::{CommitId, Repository};

/// Runs git in a folder, with nobody's configuration, and gives its output.
pub(crate) fn git(folder: &Path, args: &[&str]) -> String {
    String::from_utf8(git_with_input(folder, args, b"")).expect("git speaks UTF-8 here")
}

/// As [`git`], with input.
fn git_with_input(folder: &Path, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("git")
        .current_dir(folder)
        .args(["-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main"])
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").expect("there is a PATH"))
        .env("HOME", folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs([("GIT_AUTHOR_NAME", "A"), ("GIT_AUTHOR_EMAIL", "a@example.org")])
        .envs([("GIT_COMMITTER_NAME", "A"), ("GIT_COMMITTER_EMAIL", "a@example.org")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("git runs");
    child.stdin.take().expect("piped").write_all(input).expect("git reads");
    let output = child.wait_with_output().expect("git ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {args:?}: {said}");
    output.stdout
}

/// An entry of a tree: mode, name, object.
pub(crate) type RawEntry<'e> = (&'e str, &'e [u8], &'e str);

/// A work tree with a repository, and the folder that holds it.
pub(crate) struct TestRepo {
    root: tempfile::TempDir,
}

impl TestRepo {
    /// An empty one, on the branch `main`.
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        let repo = Self { root };
        std::fs::create_dir(repo.work()).expect("a new folder");
        git(&repo.work(), &["init", "-q"]);
        repo
    }

    /// One with the sample project in its first commit.
    pub(crate) fn sample() -> Self {
        let repo = Self::new();
        repo.write("andon.toml", super::SAMPLE);
        repo.write("compose.yaml", super::SAMPLE_COMPOSE);
        repo.write("Dockerfile", "FROM debian:trixie-slim\n");
        repo.write("db/seed.sql", "create table t (id int);\n");
        repo.commit("sample");
        repo
    }

    /// The work tree.
    pub(crate) fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    /// Room for other things.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.work().join(path);
        std::fs::create_dir_all(path.parent().expect("beneath the work tree")).expect("folders");
        std::fs::write(path, text).expect("a file");
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        git(&self.work(), args).trim_end().to_owned()
    }

    /// Commits all that is there.
    pub(crate) fn commit(&self, message: &str) -> CommitId {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.head()
    }

    pub(crate) fn head(&self) -> CommitId {
        CommitId::parse(&self.git(&["rev-parse", "HEAD"])).expect("an id")
    }

    /// A commit of a tree that is given entry by entry, written as no porcelain would.
    pub(crate) fn commit_raw_tree(&self, entries: &[RawEntry<'_>]) -> CommitId {
        let mut tree = Vec::new();
        for (mode, name, id) in entries {
            tree.extend_from_slice(mode.as_bytes());
            tree.push(b' ');
            tree.extend_from_slice(name);
            tree.push(0);
            tree.extend_from_slice(&hex::decode(id).expect("an id"));
        }
        let hash = ["hash-object", "-t", "tree", "-w", "--literally", "--stdin"];
        let tree = git_with_input(&self.work(), &hash, &tree);
        let tree = String::from_utf8(tree).expect("an id");
        CommitId::parse(&self.git(&["commit-tree", "-m", "raw", tree.trim()])).expect("an id")
    }

    /// The id of a blob with this content.
    pub(crate) fn blob(&self, content: &[u8]) -> String {
        let id = git_with_input(&self.work(), &["hash-object", "-w", "--stdin"], content);
        String::from_utf8(id).expect("an id").trim().to_owned()
    }

    /// A bare clone beside the work tree, set as its remote `origin`.
    pub(crate) fn bare(&self, name: &str) -> PathBuf {
        let path = self.root().join(name);
        let shown = path.to_str().expect("UTF-8").to_owned();
        git(self.root(), &["init", "-q", "--bare", "--", &shown]);
        self.git(&["remote", "add", "origin", &shown]);
        path
    }

    pub(crate) fn open(&self) -> Repository {
        Repository::open(&self.work()).expect("a repository")
    }
}
