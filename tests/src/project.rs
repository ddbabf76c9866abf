//! A project for one test: files in a git repository, a bare repository to push to.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::farm::Farm;
use crate::{ok, stage};

/// A working copy with a bare repository beside it.
pub struct Project {
    folder: TempDir,
}

impl Project {
    /// A copy of `tests/fixtures/NAME`, committed. `@DB@` and `@SUITE@` in its compose file and Dockerfiles become the images
    /// that the stage has prepared.
    #[must_use]
    pub fn from_fixture(name: &str) -> Self {
        Self::from_parts(&[fixture(name)])
    }

    /// The same on the stack of another fixture: with that one's compose file, seed and image for tests.
    #[must_use]
    pub fn on_stack_of(other: &str, name: &str) -> Self {
        let other = fixture(other);
        let stack = ["compose.yaml", "db", "suite"].map(|part| other.join(part));
        Self::from_parts(&[&[fixture(name)], &stack[..]].concat())
    }

    /// A folder, and what is put into its copy.
    fn from_parts(parts: &[PathBuf]) -> Self {
        let project = Self { folder: tempfile::tempdir().expect("a folder for the project") };
        for part in parts {
            ok(Command::new("cp").arg("-r").arg(part).arg(project.copy()));
        }
        for file in ["compose.yaml", "suite/Dockerfile", "app/Dockerfile"] {
            let Ok(text) = std::fs::read_to_string(project.copy().join(file)) else { continue };
            let text = text.replace("@DB@", &stage("ANDON_TEST_DB_IMAGE"));
            project.write(file, &text.replace("@SUITE@", &stage("ANDON_TEST_SUITE_IMAGE")));
        }
        ok(Command::new("git").args(["init", "-q", "--bare", "-b", "main"]).arg(project.bare()));
        project.git(&["init", "-q", "-b", "main"]);
        project.git(&["config", "user.name", "Tests"]);
        project.git(&["config", "user.email", "tests@andon.invalid"]);
        project.git(&["remote", "add", "origin", project.bare().to_str().expect("a plain path")]);
        project.commit("first");
        project
    }

    /// The working copy.
    #[must_use]
    pub fn copy(&self) -> PathBuf {
        self.folder.path().join("copy")
    }

    /// The bare repository.
    #[must_use]
    pub fn bare(&self) -> PathBuf {
        self.folder.path().join("project.git")
    }

    /// Runs git in the working copy.
    pub fn git(&self, arguments: &[&str]) -> String {
        ok(Command::new("git").current_dir(self.copy()).args(arguments))
    }

    /// Writes a file of the working copy.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.copy().join(path);
        std::fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file of the project");
    }

    /// Replaces text in a file that must hold it.
    pub fn replace(&self, path: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.copy().join(path)).expect("a file of the project");
        assert!(text.contains(from), "{path} holds no {from:?}");
        self.write(path, &text.replace(from, to));
    }

    /// Commits everything and returns the commit's id.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Installs the farm's hook into the bare repository.
    pub fn install_hook(&self, farm: &Farm, name: &str) {
        ok(farm.andon().args(["hook", "install"]).arg(self.bare()).args(["--project", name]));
    }

    /// Pushes main; what the hook said to the pusher.
    pub fn push(&self) -> String {
        let output =
            crate::run(Command::new("git").current_dir(self.copy()).args(["push", "-q", "origin", "main"]));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}
