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
use super::slot::{Run, Slot, last_words, new_pipe};
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
    (slot, life): (&Arc<Slot>, &Arc<Run>),
    spec: &ExecSpec,
    output: &mut (dyn OutputSink + '_),
) -> Result<i64, EngineError> {
    let what = what(slot.name(), spec);
    let limited = tokio::time::timeout(spec.limit, exec_to_end(runtime, (slot, life), spec, output, &what));
    limited.await.unwrap_or_else(|_| Err(EngineError::TimedOut { what: what.clone(), limit: spec.limit }))
}

async fn exec_to_end(
    runtime: &Arc<Runtime>,
    (slot, life): (&Arc<Slot>, &Arc<Run>),
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
    let (runtime, slot, life) = (Arc::clone(runtime), Arc::clone(slot), Arc::clone(life));
    let (started, begun) = tokio::sync::oneshot::channel();
    // Who asked may go away: the process goes on, and somebody has to wait for it.
    let ended = tokio::spawn(async move {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = slot.made.folder.join(format!("process-{number}.json"));
        let process = async {
            let _enters = slot.entering.read().await;
            if !slot.lives(&life) {
                return Err("the container has ended".to_owned());
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::direct::bundle::Bundle;
    use crate::engine::direct::overlay;
    use crate::engine::direct::process::Foreign;
    use crate::engine::direct::slot::Made;
    use std::ffi::OsString;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    #[tokio::test]
    async fn a_process_that_was_asked_for_in_one_life_is_not_started_in_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::process::id();
        let config = serde_json::json!({
            "process": { "args": ["x"] },
            "root": { "path": "/merged" },
            "linux": {
                "cgroupsPath": "/docker/c",
                "namespaces": [
                    { "type": "mount" }, { "type": "pid" },
                    { "type": "network", "path": format!("/proc/{own}/ns/net") }
                ],
            },
        });
        let mount = "73 97 0:59 / /merged rw - overlay overlay lowerdir=/l,upperdir=/u,workdir=/w\n";
        let slot = Slot::new(Made {
            id: "c".to_owned(),
            bundle: Bundle::read(config.to_string().as_bytes(), "c").unwrap(),
            overlay: overlay::find(mount, std::path::Path::new("/merged")).unwrap(),
            sandbox: Foreign::of(own).unwrap(),
            folder: folder.path().to_owned(),
            is_volatile: true,
        });
        let life = || Arc::new(Run { process: Adopted::of(own).unwrap(), is_paused: AtomicBool::new(false) });
        let (first, second) = (life(), life());
        slot.lives_on(&second);
        let entered = folder.path().join("entered");
        let prefix = ["sh", "-c", "touch \"$0\"; exit 1", &entered.to_string_lossy()].map(OsString::from);
        let runtime = Arc::new(Runtime::new(folder.path().join("state"), prefix.to_vec()));
        let spec = ExecSpec::new(["id"], Duration::from_secs(10));
        let mut nothing = |_: OutputStream, _: &[u8]| {};
        let late = exec(&runtime, (&slot, &first), &spec, &mut nothing).await.unwrap_err();
        assert!(late.to_string().contains("the container has ended"), "{late}");
        assert!(!entered.exists());
        exec(&runtime, (&slot, &second), &spec, &mut nothing).await.unwrap_err();
        assert!(entered.exists());
    }
}
