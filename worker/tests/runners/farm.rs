//! A project in a folder of its own, and a worker's runner over an engine that runs commands on this machine.
//!
//! The paths that a container would have are put in place of by those of the test's folders, in words, variables and scripts.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use andon_proto::suite::Runner;
use andon_proto::{Outcome, PresetRunner, Suite, TestCase};
use andon_worker::engine::fake::{FakeEngine, Script};
use andon_worker::engine::{ContainerSpec, Engine, ExecSpec, ImageInfo};
use andon_worker::hands::WorkFailure;
use andon_worker::runner::{
    self, Cell, EVENTS_FILE, JOB_FILE, OUT_FOLDER, RUNNERS_FOLDER, Rebases, Reporter, UnitFacts, UnitNews,
    Witness, catalogue,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A test that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) id: String,
    pub(crate) outcome: Outcome,
    pub(crate) message: String,
    pub(crate) log: String,
}

/// Options of a preset that takes arguments.
pub(crate) fn options(args: &[&str]) -> PresetRunner {
    PresetRunner { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..PresetRunner::default() }
}

/// See the module.
pub(crate) struct Project {
    dir: tempfile::TempDir,
    runner: PresetRunner,
    env: Vec<(String, String)>,
    rebases: Arc<AtomicUsize>,
}

struct Fine;

#[async_trait::async_trait]
impl Witness for Fine {
    async fn check(&self) -> Result<(), WorkFailure> {
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Project {
    pub(crate) fn new(preset: &str, files: &Path, runner: PresetRunner) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy(files, &dir.path().join("src"));
        for folder in ["out", "runners"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        for (name, content) in catalogue().flat_map(|facts| facts.files) {
            let file = dir.path().join("runners").join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
        }
        for pipe in [EVENTS_FILE, JOB_FILE] {
            let status = Command::new("mkfifo").arg(dir.path().join("out").join(pipe)).status().unwrap();
            assert!(status.success());
        }
        let rebases = Arc::new(AtomicUsize::new(0));
        serve(UnixListener::bind(dir.path().join("socket")).unwrap(), Arc::clone(&rebases));
        Self { dir, runner: PresetRunner { name: preset.to_owned(), ..runner }, env: Vec::new(), rebases }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.path().join("src")
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        std::fs::write(self.folder().join(name), content).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.folder().join(name)).unwrap();
    }

    pub(crate) fn link(&self, name: &str, to: &Path) {
        symlink(to, self.folder().join(name)).unwrap();
    }

    pub(crate) fn runner_file(&self, name: &str) -> PathBuf {
        self.dir.path().join("runners").join(name)
    }

    /// How often tests have asked for one.
    pub(crate) fn rebases(&self) -> usize {
        self.rebases.load(Ordering::SeqCst)
    }

    pub(crate) fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A command as it would run in the container.
    fn command(&self) -> impl FnMut(&str, &ExecSpec) -> Script + Send + 'static {
        let (root, env) = (self.dir.path().to_owned(), self.env.clone());
        move |_, spec| {
            let here = |text: &str| {
                let place = |name: &str| root.join(name).display().to_string();
                text.replace(OUT_FOLDER, &place("out")).replace(RUNNERS_FOLDER, &place("runners"))
            };
            let words: Vec<String> = spec.argv.iter().map(|word| here(word)).collect();
            if let [shell, script] = words.as_slice()
                && shell == "sh"
            {
                let text = std::fs::read_to_string(script).unwrap();
                std::fs::write(script, here(&text)).unwrap();
            }
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).current_dir(root.join("src")).stdin(Stdio::null());
            // Of the cargo that runs this very test.
            for (name, _) in std::env::vars() {
                if (name.starts_with("CARGO") && name != "CARGO_HOME") || name.starts_with("NEXTEST") {
                    command.env_remove(name);
                }
            }
            command.env("CARGO_TARGET_DIR", root.join("target")).env("ANDON_SOCKET", root.join("socket"));
            command.envs(env.iter().cloned());
            command.envs(spec.env.iter().map(|(name, value)| (name, here(value))));
            let output = command.output().unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let code = output.status.code().map_or(137, i64::from);
            Script { stdout: text(&output.stdout), stderr: text(&output.stderr), exit_code: code }
        }
    }

    async fn cell(&self) -> Cell {
        let engine = Arc::new(FakeEngine::default());
        engine.add_image("image", ImageInfo { id: "image".to_owned(), ..ImageInfo::default() });
        let spec =
            ContainerSpec { name: "c".to_owned(), image: "image".to_owned(), ..ContainerSpec::default() };
        let id = engine.create_container(&spec).await.unwrap();
        engine.start_container(&id).await.unwrap();
        engine.on_exec(self.command());
        Cell::new(engine, id, self.dir.path().join("out"))
    }

    fn suite(&self, rebase: bool) -> Suite {
        Suite {
            name: "s".to_owned(),
            runner: Some(Runner::Preset(self.runner.clone())),
            timeout_ms: 120_000,
            rebase_within: rebase,
            ..Suite::default()
        }
    }

    fn block<T>(future: impl Future<Output = T>) -> T {
        // Commands run on a thread of the runtime, and their events have to be read meanwhile.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build();
        runtime.unwrap().block_on(future)
    }

    pub(crate) fn discover(&self) -> Result<Vec<String>, String> {
        Self::block(async {
            let cell = self.cell().await;
            let found = runner::discover(&cell, &self.suite(false), None, &Fine).await;
            found.map(|found| found.tests).map_err(|failure| failure.to_string())
        })
    }

    /// Runs a unit as often as there are tests left, as a farm would.
    pub(crate) fn run(&self, ids: &[&str], rebase: bool) -> Vec<Ended> {
        let case = |(n, id): (usize, &&str)| TestCase { attempt: n as u64, id: (*id).to_owned() };
        let mut left: Vec<TestCase> = ids.iter().enumerate().map(case).collect();
        let mut ended: Vec<Ended> = Vec::new();
        while !left.is_empty() {
            let results = Self::block(self.unit(left.clone(), rebase));
            assert!(!results.is_empty(), "a unit has a result");
            for result in results {
                let place = left.iter().position(|test| test.attempt == result.attempt);
                let test = left.remove(place.expect("no test ends twice"));
                let log = match result.log_zstd.as_slice() {
                    [] => Vec::new(),
                    packed => zstd::decode_all(packed).unwrap(),
                };
                ended.push(Ended {
                    id: test.id,
                    outcome: result.outcome(),
                    message: result.message.clone(),
                    log: String::from_utf8_lossy(&log).into_owned(),
                });
            }
        }
        ended
    }

    async fn unit(&self, tests: Vec<TestCase>, rebase: bool) -> Vec<andon_proto::TestResult> {
        let (sender, mut news) = mpsc::channel(1024);
        let facts = UnitFacts {
            arrived: Instant::now(),
            rebased_within: Duration::ZERO,
            rebases: Rebases::after(Duration::ZERO, ""),
        };
        let (cell, cancel) = (self.cell().await, CancellationToken::new());
        let mut reporter = Reporter::new(sender, facts);
        let suite = self.suite(rebase);
        runner::run(&cell, &suite, None, tests, &mut reporter, &Fine, &cancel).await.unwrap();
        drop(reporter);
        let mut results = Vec::new();
        while let Some(told) = news.recv().await {
            if let UnitNews::Result(result) = told {
                results.push(result);
            }
        }
        results
    }
}

/// Answers every request with a rebase that was done, and counts them. Ends with the process.
fn serve(listener: UnixListener, count: Arc<AtomicUsize>) {
    use std::io::{BufRead as _, BufReader, Write as _};
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            assert!(lines.next().unwrap().unwrap().starts_with("POST /rebase "));
            let _ = lines.find(|line| line.as_ref().is_ok_and(String::is_empty));
            count.fetch_add(1, Ordering::SeqCst);
            let body = "{\"driver\":\"clean\",\"us\":1}";
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
}
