//! The daemon's two processes: spawned so that they cannot outlive the agent, their last words kept.
//!
//! The kernel kills a process with a *parent-death signal* when the **thread** that spawned it ends (prctl(2)), so one
//! thread of our own spawns them and lives exactly as long as they may. `setpriv` (util-linux) sets that signal between
//! fork and exec, which needs no unsafe code here.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::unsynced;

/// How many of a process's last lines are kept for the message that says why it failed.
const LINES_KEPT: usize = 30;
/// Longest line that is kept whole, in bytes.
const LINE_BYTES_MAX: u64 = 4096;

/// A program of the search path, and how it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) arguments: Vec<OsString>,
    /// A filter of system calls that it and all its children have.
    pub(super) filter: Option<PathBuf>,
}

type Request = (Program, oneshot::Sender<io::Result<Child>>);

/// Spawns processes that die with it.
#[derive(Debug)]
pub(super) struct Spawner {
    requests: mpsc::UnboundedSender<Request>,
}

impl Spawner {
    /// Starts the thread. It ends, and the kernel kills what it spawned, when this is dropped.
    pub(super) fn new() -> io::Result<Self> {
        let (requests, mut inbox) = mpsc::unbounded_channel::<Request>();
        let runtime = Handle::current();
        let work = move || {
            let _guard = runtime.enter();
            while let Some((program, answer)) = inbox.blocking_recv() {
                let _ = answer.send(command(&program).spawn());
            }
        };
        std::thread::Builder::new().name("andon-spawner".to_owned()).spawn(work)?;
        Ok(Self { requests })
    }

    /// Spawns it; what it says on stderr is piped to us.
    pub(super) async fn spawn(&self, program: Program) -> io::Result<Child> {
        let (answer, spawned) = oneshot::channel();
        let gone = || io::Error::other("the thread that spawns processes is gone");
        self.requests.send((program, answer)).map_err(|_| gone())?;
        spawned.await.map_err(|_| gone())?
    }
}

fn command(program: &Program) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .args(program.filter.iter().flat_map(|path| unsynced::loading(path)))
        .args(["--", program.name])
        .args(&program.arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A signal to the agent's group (Ctrl-C) must not end them before the agent has ended the containers.
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// The last lines of a process.
#[derive(Debug, Clone, Default)]
pub(super) struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().expect("no panic while it is held");
        if lines.len() == LINES_KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// All that are kept, oldest first.
    pub(super) fn text(&self) -> String {
        let lines = self.0.lock().expect("no panic while it is held");
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Reads a process's output to its end.
    pub(super) async fn follow(self, name: &'static str, output: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(output);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                    tracing::debug!(target: "andon_worker::nested", process = name, "{text}");
                    self.push(text);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_last_lines_of_a_process_are_kept() {
        let lines = LastLines::default();
        let text: String = (0..100).map(|n| format!("line {n}\n")).collect();
        lines.clone().follow("test", text.as_bytes()).await;
        let kept = lines.text();
        assert!(kept.starts_with("line 70\n") && kept.ends_with("line 99"), "{kept}");
    }

    #[tokio::test]
    async fn an_endless_line_does_not_grow_without_limit() {
        let lines = LastLines::default();
        let text = vec![b'x'; 1_000_000];
        lines.clone().follow("test", text.as_slice()).await;
        assert!(lines.text().len() <= LINES_KEPT * (usize::try_from(LINE_BYTES_MAX).expect("small") + 1));
    }

    #[tokio::test]
    async fn a_process_dies_with_its_spawner() {
        let spawner = Spawner::new().expect("a thread");
        // Its word on stderr tells that `setpriv` is behind it: before, the signal is not yet asked for.
        let script = "echo up >&2; exec sleep 600".into();
        let program = Program { name: "sh", arguments: vec!["-c".into(), script], filter: None };
        let mut child = spawner.spawn(program).await.expect("spawned");
        let mut up = [0; 2];
        child.stderr.as_mut().expect("piped").read_exact(&mut up).await.expect("it speaks");
        drop(spawner);
        let ended = tokio::time::timeout(std::time::Duration::from_secs(10), child.wait()).await;
        let status = ended.expect("ends when its spawner is gone").expect("waited for");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }

    #[tokio::test]
    async fn a_program_that_is_missing_ends_at_once_and_names_itself() {
        let spawner = Spawner::new().expect("a thread");
        let program = Program { name: "andon-no-such-program", arguments: Vec::new(), filter: None };
        let mut child = spawner.spawn(program).await.expect("setpriv is there");
        let lines = LastLines::default();
        let stderr = child.stderr.take().expect("piped");
        let (_, status) = tokio::join!(lines.clone().follow("test", stderr), child.wait());
        assert!(!status.expect("waited for").success());
        assert!(lines.text().contains("andon-no-such-program"), "{}", lines.text());
    }
}
