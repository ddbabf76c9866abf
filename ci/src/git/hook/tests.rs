//! Real pushes through the hook, with a stub in the place of the `andon` program.

use super::*;
use crate::testing::{TestRepo, git};

struct Setup {
    repo: TestRepo,
    bare: PathBuf,
    hook: Hook,
}

/// A bare repository and a stub that writes down how it was called, in folders with spaces and quotes.
fn setup() -> Setup {
    let repo = TestRepo::sample();
    let bare = repo.bare("it's a repo.git");
    let folder = repo.root().join("b'in dir");
    fs::create_dir(&folder).unwrap();
    let hook = Hook {
        andon: folder.join("andon"),
        project: "shop".into(),
        coordinator: "unix:///run/andon.sock".into(),
        token_file: Some(folder.join("token")),
    };
    Setup { repo, bare, hook }
}

fn program(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Setup {
    fn stub(&self, then: &str) {
        let out = self.repo.root().join("called");
        program(
            &self.hook.andon,
            &format!("{{ for a in \"$@\"; do echo \"$a\"; done; cat; }} > '{}'\n{then}", out.display()),
        );
    }

    fn called(&self) -> Option<String> {
        fs::read_to_string(self.repo.root().join("called")).ok()
    }

    fn install(&self, force: bool) -> Result<Installed, HookError> {
        install(&self.bare, &self.hook, force)
    }

    /// Pushes and gives what the pusher saw.
    fn push(&self, refs: &[&str]) -> String {
        let mut child = std::process::Command::new("git");
        child.current_dir(self.repo.work()).args(["push", "-q", "origin"]).args(refs);
        child.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        let output = child.output().expect("git runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    }
}

#[test]
fn a_push_reaches_the_program_with_its_lines_and_the_pusher_sees_the_answer() {
    let setup = setup();
    setup.stub("echo 'andon: run 12 for main'");
    assert_eq!(setup.install(false).unwrap(), Installed::New);
    let said = setup.push(&["main"]);
    assert!(said.contains("remote: andon: run 12 for main"), "{said}");
    let zero = "0".repeat(40);
    let expected = format!(
        "hook\nreceive\n--repo\n{}\n--project\nshop\n--coordinator\nunix:///run/andon.sock\n--token-file\n{}\n{zero} {} refs/heads/main\n",
        setup.bare.canonicalize().unwrap().display(),
        setup.hook.token_file.as_ref().unwrap().display(),
        setup.repo.head(),
    );
    assert_eq!(setup.called().unwrap(), expected);
}

#[test]
fn a_program_that_fails_or_is_gone_fails_no_push() {
    let setup = setup();
    setup.stub("exit 3");
    setup.install(false).unwrap();
    let said = setup.push(&["main"]);
    assert!(said.contains("andon: no run was started (status 3)"), "{said}");
    fs::remove_file(&setup.hook.andon).unwrap();
    let said = setup.push(&["main:other"]);
    assert!(said.contains("andon: no run was started"), "{said}");
    assert_eq!(git(&setup.bare, &["rev-parse", "other"]).trim(), setup.repo.head().to_string());
}

#[test]
fn installing_again_changes_nothing_and_new_values_replace_the_old() {
    let mut setup = setup();
    setup.stub("");
    let path = setup.bare.join("hooks/post-receive");
    assert_eq!(setup.install(false).unwrap(), Installed::New);
    let before = fs::read(&path).unwrap();
    assert_eq!(setup.install(false).unwrap(), Installed::Unchanged);
    assert_eq!(fs::read(&path).unwrap(), before);
    setup.hook.project = "other".into();
    assert_eq!(setup.install(false).unwrap(), Installed::Replaced);
    setup.push(&["main"]);
    assert!(setup.called().unwrap().contains("\nother\n"));
}

#[test]
fn a_foreign_hook_stays_and_is_chained_only_when_asked() {
    let setup = setup();
    setup.stub("echo 'andon: ours'");
    let path = setup.bare.join("hooks/post-receive");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let seen = setup.repo.root().join("foreign");
    program(&path, &format!("cat > '{}'; echo theirs; exit 7", seen.display()));
    let before = fs::read(&path).unwrap();
    let error = setup.install(false).expect_err("the hook is not ours");
    assert!(error.to_string().contains("--force"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);

    assert_eq!(setup.install(true).unwrap(), Installed::Chained);
    assert_eq!(setup.install(true).unwrap(), Installed::Unchanged);
    let said = setup.push(&["main"]);
    assert!(said.contains("remote: theirs") && said.contains("remote: andon: ours"), "{said}");
    assert!(said.contains("post-receive.before-andon ended with 7"), "{said}");
    let line = format!("{} {} refs/heads/main\n", "0".repeat(40), setup.repo.head());
    assert_eq!(fs::read_to_string(seen).unwrap(), line);
    assert!(setup.called().unwrap().ends_with(&line));

    program(&path, "echo another");
    assert!(matches!(setup.install(true), Err(HookError::TwoForeign(_))));
}

#[test]
fn only_bare_repositories_that_run_their_hooks_get_one() {
    let setup = setup();
    assert!(matches!(install(&setup.repo.work(), &setup.hook, false), Err(HookError::NotBare(_))));
    assert!(matches!(install(setup.repo.root(), &setup.hook, false), Err(HookError::Repository(_))));
    assert!(!setup.repo.root().join("hooks").exists());
    git(&setup.bare, &["config", "core.hooksPath", "/elsewhere"]);
    assert!(matches!(setup.install(true), Err(HookError::HooksPath(_))));
}

#[test]
fn values_that_cannot_stand_in_a_script_are_refused() {
    let setup = setup();
    let refused = |change: fn(&mut Hook)| {
        let mut hook = setup.hook.clone();
        change(&mut hook);
        matches!(install(&setup.bare, &hook, false), Err(HookError::Value { .. }))
    };
    assert!(refused(|hook| hook.project = "a b".into()));
    assert!(refused(|hook| hook.project = "$(x)".into()));
    assert!(refused(|hook| hook.andon = "andon".into()));
    assert!(refused(|hook| hook.coordinator = "http://x\nrm".into()));
    assert!(!setup.bare.join("hooks/post-receive").exists());
}
