//! Andon's pytest plugin inside the real pytest, oldest and newest that it promises: what it finds, what it runs, what it says.
//!
//! Needs `python3` with `venv`, and PyPI for the first run; the environments stay in the target folder.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

const PROJECT: &str = r#"
import os, sys, time
import pytest

def test_ok():
    print("hello")

def test_bad():
    print("some output")
    print("some error", file=sys.stderr)
    assert [1, 2] == [1, 3], "why"

@pytest.mark.skip(reason="not now")
def test_skipped(): pass

@pytest.mark.xfail(reason="known")
def test_expected(): assert 0

@pytest.mark.xfail(strict=True)
def test_unexpected(): pass

@pytest.fixture
def broken(): raise RuntimeError("no setup")

@pytest.fixture
def breaks():
    yield
    raise RuntimeError("no teardown")

def test_setup(broken): pass
def test_teardown(breaks): pass

@pytest.mark.parametrize("x", ["a b", "q'u\"o", "new\nline", "-lead", "[::]", "../up", "{}", "$(x)"])
def test_name(x): pass

def test_surroundings():
    assert os.environ["ANDON_ATTEMPT"] == "7" and os.environ["FROM_JOB"] == "1"
    assert "ANDON_PYTEST_JOB" not in os.environ and "PYTHONPATH" not in os.environ
    assert not any("runners" in path for path in sys.path)

def test_hangs():
    print("before it hangs")
    time.sleep(float(os.environ.get("HANG_S", "0")))

def test_dies():
    if os.environ.get("DIE"):
        os._exit(3)
"#;

/// Two test classes with one name each, made by a plugin after collection, as some projects do.
const RENAMING: &str = r#"
def pytest_collection_modifyitems(items):
    for item in items:
        item._nodeid = item._nodeid.replace("test_ok", "test_ok_on_db9")
"#;

struct Project {
    dir: tempfile::TempDir,
    python: PathBuf,
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A Python with this pytest, made once.
fn python_with(pytest: &str) -> PathBuf {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pytest-{pytest}"));
    let python = venv.join("bin/python3");
    if !venv.join("ready").exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
        run(Command::new(&python).args(["-m", "pip", "install", "-q"]).arg(format!("pytest=={pytest}.*")));
        std::fs::write(venv.join("ready"), "").unwrap();
    }
    python
}

impl Project {
    fn new(python: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("test_shop.py"), PROJECT).unwrap();
        // Options that would cut a unit short, were they left.
        std::fs::write(dir.path().join("pytest.ini"), "[pytest]\naddopts = -x --lf\n").unwrap();
        Self { dir, python: python.to_owned() }
    }

    /// Runs pytest with a job; its events and its exit code.
    fn call(&self, job: &Value, env: &[(&str, &str)]) -> (Vec<Value>, i32) {
        let file = |name: &str| self.dir.path().join(name);
        let mut job = job.clone();
        job["events"] = json!(file("events"));
        std::fs::write(file("events"), "").unwrap();
        std::fs::write(file("job"), format!("{job}\n")).unwrap();
        let runners = concat!(env!("CARGO_MANIFEST_DIR"), "/../ci/runners");
        let output = Command::new(&self.python)
            .args(["-m", "pytest", "-p", "andon_pytest"])
            .current_dir(self.dir.path())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONPATH", runners)
            .env("ANDON_PYTEST_JOB", file("job"))
            .envs(env.iter().copied())
            .output()
            .unwrap();
        let text = std::fs::read_to_string(file("events")).unwrap();
        let events = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (events, output.status.code().unwrap_or(-1))
    }

    fn discover(&self) -> Vec<String> {
        let (events, code) = self.call(&json!({"mode": "discover"}), &[]);
        assert_eq!(code, 0);
        assert_eq!(events.last().unwrap()["e"], "end");
        let tests = events.iter().filter(|event| event["e"] == "test");
        tests.map(|event| event["id"].as_str().unwrap().to_owned()).collect()
    }

    fn run(&self, tests: &[String], timeout_ms: u64, env: &[(&str, &str)]) -> Vec<Value> {
        let attempts = vec![7; tests.len()];
        let job = json!({
            "mode": "run", "tests": tests, "attempts": attempts, "timeout_ms": timeout_ms, "env": {"FROM_JOB": "1"},
        });
        self.call(&job, env).0
    }
}

fn results(events: &[Value]) -> BTreeMap<String, Value> {
    let results = events.iter().filter(|event| event["e"] == "result");
    results.map(|event| (event["id"].as_str().unwrap().to_owned(), event.clone())).collect()
}

fn id(name: &str) -> String {
    format!("test_shop.py::{name}")
}

fn everything_holds_with(pytest: &str) {
    let project = Project::new(&python_with(pytest));
    let tests = project.discover();
    assert_eq!(tests.len(), 18, "{tests:?}");

    // Exactly those asked for, in the order asked for, each once.
    let mut asked: Vec<String> = tests.iter().rev().cloned().collect();
    asked.push(id("gone"));
    let events = project.run(&asked, 0, &[]);
    let started: Vec<&str> =
        events.iter().filter(|e| e["e"] == "start").map(|e| e["id"].as_str().unwrap()).collect();
    assert_eq!(started, asked[..18].iter().map(String::as_str).collect::<Vec<_>>());
    let collected = events.iter().find(|event| event["e"] == "collected").unwrap();
    assert_eq!(collected["missing"], json!([id("gone")]));
    let results = results(&events);
    assert_eq!(results.len(), 18);
    for (name, outcome, message) in [
        ("test_ok", "passed", ""),
        ("test_bad", "failed", "AssertionError: why"),
        ("test_skipped", "skipped", "not now"),
        ("test_expected", "skipped", "expected failure: known"),
        ("test_unexpected", "failed", "XPASS(strict)"),
        ("test_setup", "failed", "error at setup: RuntimeError: no setup"),
        ("test_teardown", "failed", "error at teardown: RuntimeError: no teardown"),
        ("test_name[[::]]", "passed", ""),
        ("test_name[q'u\"o]", "passed", ""),
        ("test_surroundings", "passed", ""),
    ] {
        let result = &results[&id(name)];
        assert_eq!(result["outcome"], outcome, "{name}: {result}");
        assert!(result["message"].as_str().unwrap().contains(message), "{name}: {result}");
    }
    let log = results[&id("test_bad")]["log"].as_str().unwrap();
    for part in ["assert [1, 2] == [1, 3]", "some output", "some error"] {
        assert!(log.contains(part), "{part} is not in {log}");
    }

    // One of many: nothing else runs.
    let events = project.run(&[id("test_name[a b]")], 0, &[]);
    assert_eq!(events.iter().filter(|event| event["e"] == "start").count(), 1);

    // A hanging test is told of, with its stack and output, while it hangs.
    let events = project.run(&[id("test_hangs")], 300, &[("HANG_S", "1.5")]);
    let late = events.iter().position(|event| event["e"] == "timeout").expect("a timeout is told");
    let log = events[late]["log"].as_str().unwrap();
    assert!(log.contains("time.sleep") && log.contains("before it hangs"), "{log}");
    assert!(events[late + 1..].iter().any(|event| event["e"] == "result"));

    // A process that dies has told what started, and what ended before.
    let events = project.run(&[id("test_ok"), id("test_dies"), id("test_bad")], 0, &[("DIE", "1")]);
    let told: Vec<&str> = events.iter().map(|event| event["e"].as_str().unwrap()).collect();
    assert_eq!(told, ["collected", "start", "result", "start"]);

    // Ids that a plugin gives after collection can be run.
    std::fs::write(project.dir.path().join("conftest.py"), RENAMING).unwrap();
    assert!(project.discover().contains(&id("test_ok_on_db9")));
    let events = project.run(&[id("test_ok_on_db9")], 0, &[]);
    assert_eq!(self::results(&events)[&id("test_ok_on_db9")]["outcome"], "passed");

    // A file that cannot be collected is told with its reason; its tests are missing, others run.
    std::fs::write(project.dir.path().join("test_broken.py"), "import nowhere_at_all\n").unwrap();
    let (events, code) = project.call(&json!({"mode": "discover"}), &[]);
    assert_eq!(code, 2);
    let error = events.iter().find(|event| event["e"] == "collect-error").unwrap();
    assert!(error["message"].as_str().unwrap().contains("nowhere_at_all"), "{error}");
    let events = project.run(&["test_broken.py::test_x".to_owned(), id("test_bad")], 0, &[]);
    assert_eq!(self::results(&events)[&id("test_bad")]["outcome"], "failed");
}

#[test]
fn everything_holds_with_the_oldest_pytest() {
    everything_holds_with("6");
}

#[test]
fn everything_holds_with_the_pytest_of_debian_12() {
    everything_holds_with("7.2");
}

#[test]
fn everything_holds_with_the_newest_pytest() {
    everything_holds_with("8");
}
