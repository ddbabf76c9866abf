//! Victims for the tests: real processes, written in C, compiled once per test process.
//!
//! A victim dies with the thread that started it (`PR_SET_PDEATHSIG`), so that a failing test leaves none behind.

use std::io::{BufRead, BufReader, Write};
use std::num::ParseIntError;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::sync::OnceLock;

use crate::{Pid, Target};

/// A running victim that answers one line for each line.
pub(crate) struct Victim {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

fn compiled(name: &str) -> PathBuf {
    static COMPILED: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = COMPILED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        for name in [BUSY, FAMILY] {
            let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/victims")).join(name);
            let mut cc = Command::new("cc");
            cc.args(["-O1", "-pthread", "-w", "-o"]).arg(folder.path().join(name));
            let done = cc.arg(source.with_extension("c")).arg("-lm").status();
            assert!(done.expect("a C compiler named cc").success());
        }
        folder
    });
    folder.path().join(name)
}

const BUSY: &str = "busy";
const FAMILY: &str = "family";

impl Victim {
    /// With threads that do all sorts of things.
    pub(crate) fn busy() -> Self {
        Self::start(&[])
    }

    /// With its first thread alone.
    pub(crate) fn quiet() -> Self {
        Self::start(&["quiet"])
    }

    /// In a namespace of its own for System V's objects.
    pub(crate) fn apart() -> Self {
        let mut command = Command::new("unshare");
        command.arg("--ipc").arg(compiled(BUSY));
        Self::run(command)
    }

    /// With a child, and memory that both share; in a namespace of its own for System V's objects, where its segment is listed.
    pub(crate) fn family() -> Self {
        let mut command = Command::new("unshare");
        command.arg("--ipc").arg(compiled(FAMILY)).arg("listed");
        Self::run(command)
    }

    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(compiled(BUSY));
        command.args(arguments);
        Self::run(command)
    }

    fn run(mut command: Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let requests = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        answers.read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        Self { child, requests, answers }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.child.id().try_into().unwrap()
    }

    pub(crate) fn target(&self) -> Target {
        Target { root: self.pid(), trees: Vec::new() }
    }

    /// Says something and gets the checksum of the state after it.
    pub(crate) fn say(&mut self, line: &str) -> String {
        self.try_say(line).unwrap_or_else(|| panic!("the victim is dead: {:?}", self.child.wait()))
    }

    /// As [`Victim::say`]; `None` if the victim is dead.
    pub(crate) fn try_say(&mut self, line: &str) -> Option<String> {
        writeln!(self.requests, "{line}").ok()?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).ok()?;
        Some(answer.split_whitespace().next()?.to_owned())
    }

    /// Asks for a number.
    pub(crate) fn number<N: FromStr<Err = ParseIntError>>(&mut self, request: &str) -> N {
        writeln!(self.requests, "{request}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim().parse().unwrap()
    }

    /// What its counting thread counted.
    pub(crate) fn counted(&mut self) -> u64 {
        writeln!(self.requests, "state").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Waits for its end and says whether it was killed.
    pub(crate) fn killed(mut self) -> bool {
        use std::os::unix::process::ExitStatusExt;
        self.child.wait().unwrap().signal() == Some(libc::SIGKILL)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
