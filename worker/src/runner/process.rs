//! One process of a runner in the container: what it prints and says, as it comes, and its job.
//!
//! Must not know courses or tests. Invariants: what waits to be read is bounded; a process that is dropped is not waited for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::cell::{Cell, EVENTS_FILE, JOB_FILE, SharedOutput};
use super::preset::{Call, Source, Words};
use crate::engine::{EngineError, ExecSpec, OutputSink, OutputStream};
use crate::hands::WorkFailure;

/// Longest life of one process, waiting included; limits of tests are kept by whoever runs it.
pub(super) const PROCESS_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// A process that waited longer than this is not used any more.
const WARM_AGE_MAX: Duration = Duration::from_secs(12 * 3600);
/// Read from the event pipe at once.
const READ_BYTES: usize = 64 * 1024;
/// Printed and not yet read by the course; what comes beyond it is lost to the course, not to the log.
const HEARD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A process that waits for its job.
#[derive(Debug)]
pub struct Warm {
    pub(super) process: Result<Box<Process>, WorkFailure>,
    pub(super) since: Instant,
}

impl Warm {
    /// Whether it can still be used.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.since.elapsed() < WARM_AGE_MAX
            && self.process.as_ref().is_ok_and(|process| !process.exec.is_finished())
    }
}

/// What was printed, in order.
type Printed = Vec<(Source, Vec<u8>)>;

/// Printed, and not read yet.
#[derive(Debug, Clone, Default)]
struct Heard(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    printed: Mutex<Printed>,
    news: Notify,
}

impl Heard {
    fn push(&self, stream: OutputStream, chunk: &[u8]) {
        let mut queue = self.0.printed.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting: usize = queue.iter().map(|(_, bytes)| bytes.len()).sum();
        if waiting + chunk.len() <= HEARD_BYTES_MAX {
            let source = match stream {
                OutputStream::Stdout => Source::Stdout,
                OutputStream::Stderr => Source::Stderr,
            };
            match queue.last_mut() {
                Some((last, bytes)) if *last == source => bytes.extend_from_slice(chunk),
                _ => queue.push((source, chunk.to_owned())),
            }
        }
        self.0.news.notify_one();
    }

    fn take(&self) -> Printed {
        std::mem::take(&mut self.0.printed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The log's copy, and the course's.
struct Tee {
    log: SharedOutput,
    heard: Heard,
}

impl OutputSink for Tee {
    fn write(&mut self, stream: OutputStream, chunk: &[u8]) {
        self.log.write(stream, chunk);
        self.heard.push(stream, chunk);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Process {
    exec: JoinHandle<Result<i64, EngineError>>,
    pub(super) output: SharedOutput,
    heard: Heard,
    events: pipe::Receiver,
    job: Option<pipe::Sender>,
    pub(super) began: Instant,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.exec.abort();
    }
}

/// What came from the process.
pub(super) enum News {
    Bytes(Printed),
    Ended(Result<i64, EngineError>),
}

impl Process {
    /// Starts it.
    pub(super) fn launch(cell: &Cell, call: &Call) -> Result<Box<Self>, WorkFailure> {
        let pipe_failed = |error: std::io::Error| {
            WorkFailure::infrastructure(format!(
                "cannot open the pipes in {}: {error}",
                cell.out_dir.display()
            ))
        };
        // Read and write, so that neither side sees an end when the other comes and goes.
        let mut options = pipe::OpenOptions::new();
        options.read_write(true);
        let events = options.open_receiver(cell.out_dir.join(EVENTS_FILE)).map_err(pipe_failed)?;
        let job = options.open_sender(cell.out_dir.join(JOB_FILE)).map_err(pipe_failed)?;
        let words = match &call.words {
            Words::Plain(words) => words.clone(),
            Words::Script(name, script) => cell.shell(name, script)?,
        };
        let mut spec = ExecSpec::new(words, PROCESS_LIMIT);
        // Who gets a job finds the unit's environment in it: it may have been started before there was a unit.
        if call.job.is_none() {
            spec.env.extend(cell.unit_env.clone());
        }
        spec.env.extend(call.env.iter().cloned());
        let (output, heard) = (SharedOutput::new(), Heard::default());
        let mut sink = Tee { log: output.clone(), heard: heard.clone() };
        let (engine, container) = (cell.engine.clone(), cell.container.clone());
        let exec = tokio::spawn(async move { engine.exec(&container, &spec, &mut sink).await });
        // It lies in what waits with it, and that is moved about.
        Ok(Box::new(Self { exec, output, heard, events, job: Some(job), began: Instant::now() }))
    }

    /// Hands the job over in the background: a long one fills the pipe before the runner reads it.
    pub(super) fn give(&mut self, mut line: Vec<u8>) -> JoinHandle<Option<pipe::Sender>> {
        line.push(b'\n');
        let mut pipe = self.job.take();
        tokio::spawn(async move {
            if let Some(pipe) = &mut pipe
                && let Err(error) = pipe.write_all(&line).await
            {
                tracing::warn!(%error, "writing a job to a runner");
            }
            // Kept open by who holds the handle.
            pipe
        })
    }

    /// Waits for what comes next.
    pub(super) async fn next(&mut self) -> News {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let printed = self.heard.take();
            if !printed.is_empty() {
                return News::Bytes(printed);
            }
            tokio::select! {
                biased;
                read = self.events.read(&mut buffer) => {
                    let count = read.unwrap_or(0);
                    if count > 0 {
                        return News::Bytes(vec![(Source::Events, buffer[..count].to_vec())]);
                    }
                }
                () = self.heard.0.news.notified() => {}
                ended = &mut self.exec => {
                    return News::Ended(ended.unwrap_or_else(|error| Err(EngineError::Protocol {
                        what: "run a test runner".to_owned(),
                        message: error.to_string(),
                    })));
                }
            }
        }
    }

    /// What the process said before it ended and was not read yet.
    pub(super) fn rest(&mut self) -> Printed {
        let mut all = self.heard.take();
        let mut buffer = vec![0; READ_BYTES];
        while let Ok(count) = self.events.try_read(&mut buffer) {
            if count == 0 {
                break;
            }
            all.push((Source::Events, buffer[..count].to_vec()));
        }
        all
    }
}
