//! What the tests of the binary share: the command in a clean environment, projects, a real coordinator.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take until it answers.
const READY: Duration = Duration::from_secs(20);

/// The binary, with nothing of this machine's farm in its environment.
pub(crate) fn andon() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_andon"));
    for name in ["ANDON_STATE", "ANDON_COORDINATOR", "ANDON_TOKEN", "ANDON_JOIN_TOKEN", "XDG_STATE_HOME"] {
        command.env_remove(name);
    }
    for name in ["ENDPOINT", "HEADERS", "PROTOCOL"] {
        command.env_remove(format!("OTEL_EXPORTER_OTLP_{name}"));
        command.env_remove(format!("OTEL_EXPORTER_OTLP_TRACES_{name}"));
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// A folder with these files.
pub(crate) fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
    let temp = tempfile::tempdir().expect("a temporary folder");
    for (name, content) in files {
        let path = temp.path().join(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("the folder is made");
        fs::write(path, content).expect("the file is written");
    }
    temp
}

/// stdout as text.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// stderr as text.
pub(crate) fn complained(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A real coordinator in the foreground, ended with the test.
pub(crate) struct Coordinator {
    child: Child,
    temp: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Coordinator {
    /// Starts it in a state folder of its own and waits until it answers.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with these variables in its environment.
    pub(crate) fn start_with(variables: &[(&str, &str)]) -> Self {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let coordinator = Self { child: serve(&temp.path().join("state"), &variables), temp, variables };
        coordinator.wait();
        coordinator
    }

    /// Ends it and starts it again with the same state and environment; between the two nobody answers.
    pub(crate) fn restart(&mut self) {
        signal(&self.child, rustix::process::Signal::TERM);
        self.child.wait().expect("the child is waited for");
        self.child = serve(&self.state(), &self.variables);
        self.wait();
    }

    fn wait(&self) {
        let asked = Instant::now();
        while !self.run(&["list"]).status.success() {
            assert!(asked.elapsed() < READY, "the coordinator does not answer");
        }
    }

    /// Its state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.temp.path().join("state")
    }

    /// A command to this farm.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = andon();
        command.args(arguments).arg("--state").arg(self.state());
        command
    }

    /// Its result.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the command runs")
    }

    /// Asks it to end and answers with its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        signal(&self.child, rustix::process::Signal::TERM);
        self.child.wait().expect("the child is waited for").code()
    }
}

fn serve(state: &Path, variables: &[(String, String)]) -> Child {
    andon()
        .args(["coordinator", "--listen", "127.0.0.1:0", "--state"])
        .arg(state)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stderr(Stdio::null())
        .spawn()
        .expect("the coordinator starts")
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a command, interrupts it (Ctrl-C) once its output has these words, and answers with how it ended.
pub(crate) fn interrupt_when(mut command: Command, words: &str) -> Output {
    use std::io::{BufRead as _, BufReader};
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut lines = BufReader::new(stdout).lines();
    // The following begins after the first line: a second one shows that it has.
    let mut seen = 0;
    while seen < 2 {
        let line =
            lines.next().expect("the command says the words before it ends").expect("its output is UTF-8");
        seen += usize::from(line.contains(words));
    }
    signal(&child, rustix::process::Signal::INT);
    // The rest is read so that the command is never blocked by a full pipe.
    let rest = lines.map_while(Result::ok).collect::<Vec<_>>().join("\n");
    let mut output = child.wait_with_output().expect("the command is waited for");
    output.stdout = rest.into_bytes();
    output
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = i32::try_from(child.id()).expect("process ids fit an i32");
    let pid = rustix::process::Pid::from_raw(pid).expect("a child has an id");
    rustix::process::kill_process(pid, signal).expect("the child lives");
}

/// A git repository with one commit of these files.
pub(crate) fn repository(files: &[(&str, &str)]) -> tempfile::TempDir {
    let temp = project(files);
    git(temp.path(), &["init", "-q", "-b", "main"]);
    commit(temp.path());
    temp
}

/// Commits everything in the work tree.
pub(crate) fn commit(path: &Path) {
    git(path, &["add", "-A"]);
    git(
        path,
        &["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "--allow-empty", "-m", "c"],
    );
}

/// git in this folder, without anybody's configuration.
pub(crate) fn git(path: &Path, arguments: &[&str]) {
    let status = Command::new("git")
        .arg("-C")
        .arg(path)
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .status()
        .expect("git runs");
    assert!(status.success(), "git {arguments:?}");
}
