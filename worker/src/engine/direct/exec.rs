//! A further process in a container that runs without its daemon.
//!
//! The runtime starts it and ends; the agent reads its output, and waits for it as for every process that it was handed.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;

use super::process::Adopted;
use super::runtime::{Runtime, Streams};
use super::slot::{Slot, last_words, new_pipe};
use crate::engine::{EngineError, ExecSpec, OutputSink, OutputStream};

/// Read of a pipe at once, in bytes.
const CHUNK_BYTES: usize = 16 * 1024;

/// For the names of files: two processes of one container may be started at once.
static NUMBER: AtomicU64 = AtomicU64::new(0);

pub(super) fn what(id: &str, spec: &ExecSpec) -> String {
    format!("run {} in container {id}", spec.argv.first().map_or("nothing", String::as_str))
}

/// As [`crate::engine::Engine::exec`].
pub(super) async fn exec(
    runtime: &Arc<Runtime>,
    slot: &Arc<Slot>,
    spec: &ExecSpec,
    output: &mut (dyn OutputSink + '_),
) -> Result<i64, EngineError> {
    let what = what(slot.name(), spec);
    let limited = tokio::time::timeout(spec.limit, exec_to_end(runtime, slot, spec, output, &what));
    limited.await.unwrap_or_else(|_| Err(EngineError::TimedOut { what: what.clone(), limit: spec.limit }))
}

async fn exec_to_end(
    runtime: &Arc<Runtime>,
    slot: &Arc<Slot>,
    spec: &ExecSpec,
    output: &mut (dyn OutputSink + '_),
    what: &str,
) -> Result<i64, EngineError> {
    let refused = |message: String| EngineError::Refused { what: what.to_owned(), status: 400, message };
    let process = slot.made.bundle.process(spec).map_err(refused)?;
    let piped = || new_pipe().map_err(|error| refused(error.to_string()));
    let ((stdout, to_stdout), (mut stderr, to_stderr)) = (piped()?, piped()?);
    let (stdin, input) = input(spec).map_err(|error| refused(error.to_string()))?;
    let streams = Streams { stdin, stdout: to_stdout.into(), stderr: to_stderr.into() };
    let (runtime, slot) = (Arc::clone(runtime), Arc::clone(slot));
    let (started, begun) = tokio::sync::oneshot::channel();
    // Who asked may go away: the process goes on, and somebody has to wait for it.
    let ended = tokio::spawn(async move {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = slot.made.folder.join(format!("process-{number}.json"));
        let process = async {
            tokio::fs::write(&file, process.to_string()).await.map_err(|error| error.to_string())?;
            let pid = runtime.exec(&slot.made.id, &file, streams).await;
            let pid = pid.map_err(|fault| crate::hands::chain(&fault))?;
            Adopted::of(pid).map_err(|error| error.to_string())
        };
        let process = process.await;
        // It may be gone with the container's folder.
        let _ = tokio::fs::remove_file(&file).await;
        match process {
            Ok(process) => {
                let _ = started.send(Ok(()));
                process.ended().await
            }
            Err(message) => {
                let _ = started.send(Err(message));
                0
            }
        }
    });
    let begun = begun.await.unwrap_or_else(|_| Err("a worker task failed".to_owned()));
    if let Err(message) = begun {
        let said = last_words(&mut stderr).await;
        return Err(refused(if said.is_empty() { message } else { said }));
    }
    let write_all = async {
        if let (Some(mut input), Some(bytes)) = (input, &spec.stdin) {
            // A command may end without reading all of its input: that is its right, not an error.
            let _ = input.write_all(bytes).await;
        }
    };
    tokio::join!(write_all, read_all(stdout, stderr, output));
    ended.await.map_err(|error| refused(error.to_string()))
}

fn input(spec: &ExecSpec) -> std::io::Result<(Stdio, Option<pipe::Sender>)> {
    if spec.stdin.is_none() {
        return Ok((Stdio::null(), None));
    }
    let (receiver, sender) = std::io::pipe()?;
    Ok((receiver.into(), Some(pipe::Sender::from_owned_fd(sender.into())?)))
}

/// Until nobody can write any more.
async fn read_all(
    mut stdout: pipe::Receiver,
    mut stderr: pipe::Receiver,
    output: &mut (dyn OutputSink + '_),
) {
    let (mut from_stdout, mut from_stderr) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let (mut has_stdout, mut has_stderr) = (true, true);
    while has_stdout || has_stderr {
        tokio::select! {
            read = stdout.read(&mut from_stdout), if has_stdout => match read {
                Ok(bytes @ 1..) => output.write(OutputStream::Stdout, &from_stdout[..bytes]),
                _ => has_stdout = false,
            },
            read = stderr.read(&mut from_stderr), if has_stderr => match read {
                Ok(bytes @ 1..) => output.write(OutputStream::Stderr, &from_stderr[..bytes]),
                _ => has_stderr = false,
            },
        }
    }
}
