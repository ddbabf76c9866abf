//! Both ends of a look: which worker has what is asked for, and the streams to it.

use std::pin::Pin;
use std::time::Duration;

use andon_core::model::Outcome;
use andon_proto as wire;
use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use super::choice;
use crate::driver::Farm;
use crate::looking::{self, AHEAD_MAX, Looker, Shown};
use crate::store::{AttemptRow, TestRow};

/// Until the first message.
const FIRST_LIMIT: Duration = Duration::from_secs(10);
/// Of a command's words together.
const COMMAND_BYTES_MAX: usize = 64 << 10;

pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a client wants to look at.
pub(super) async fn opened(incoming: &mut Streaming<wire::LookIn>) -> Result<wire::LookOpen, Status> {
    let first = tokio::time::timeout(FIRST_LIMIT, incoming.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("a look begins with what is looked at"))??;
    let Some(wire::look_in::Body::Open(open)) = first.and_then(|message| message.body) else {
        return Err(Status::invalid_argument("a look begins with what is looked at"));
    };
    if let Some(wire::look_open::What::Shell(shell)) = &open.what
        && shell.command.iter().map(String::len).sum::<usize>() > COMMAND_BYTES_MAX
    {
        let text = format!("a command has at most {COMMAND_BYTES_MAX} bytes");
        return Err(Status::invalid_argument(text));
    }
    Ok(open)
}

/// The attempt whose stack is meant: the named one, or the last that failed.
pub(super) fn failed_attempt(tests: Vec<TestRow>, open: &wire::LookOpen) -> Result<AttemptRow, Status> {
    let (run, name) = (open.run, &open.test);
    let test = tests.into_iter().find(|row| choice::is_named(row, name));
    let test = test.ok_or_else(|| Status::not_found(format!("run {run} has no test {name:?}")))?;
    let failed = |attempt: &AttemptRow| {
        matches!(attempt.outcome, Some(Outcome::Failed | Outcome::TimedOut))
            && (open.attempt == 0 || attempt.attempt.0 == open.attempt)
    };
    let found = test.attempts.into_iter().rfind(failed);
    found.ok_or_else(|| {
        let none = match open.attempt {
            0 => format!("no attempt of {name} failed"),
            number => format!("attempt {number} of {name} did not fail"),
        };
        Status::failed_precondition(format!("{none}: only failed tests' stacks are kept"))
    })
}

/// Joins the client to the worker of the attempt.
pub(super) fn look(
    farm: &Farm,
    incoming: Streaming<wire::LookIn>,
    mut open: wire::LookOpen,
    attempt: AttemptRow,
) -> Response<Answers<wire::LookOut>> {
    open.attempt = attempt.attempt.0;
    let (say, said) = mpsc::channel(AHEAD_MAX);
    let client = Looker { hear: incoming, say };
    tokio::spawn(looking::look(farm.clone(), attempt.worker, open, client));
    Response::new(Box::pin(ReceiverStream::new(said)))
}

/// A worker answers a call.
pub(super) async fn show(
    farm: &Farm,
    mut incoming: Streaming<wire::LookOut>,
) -> Result<Response<Answers<wire::LookIn>>, Status> {
    let first = tokio::time::timeout(FIRST_LIMIT, incoming.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("the ticket comes first"))??;
    let Some(wire::look_out::Body::Ticket(ticket)) = first.and_then(|message| message.body) else {
        return Err(Status::invalid_argument("the ticket comes first"));
    };
    let (say, said) = mpsc::channel(AHEAD_MAX);
    farm.looking.answered(&ticket, Shown { hear: incoming, say })?;
    Ok(Response::new(Box::pin(ReceiverStream::new(said))))
}
