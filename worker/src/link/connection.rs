//! One connection and one session on it, in a task of its own: dials, opens the stream, hands over what comes. Dropping
//! the [`Connection`] ends it; nothing of it is heard afterwards.

use std::time::Duration;

use andon_proto::work_client::WorkClient;
use andon_proto::{WorkerMessage, coordinator_message};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::dial::{Coordinator, DialError, MESSAGE_BYTES_MAX};
use super::outbox::UNACKED_MAX;

/// How long the coordinator may take to answer the stream's opening.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// Messages that may wait for the wire: every unacknowledged report, and heartbeats and offers beside them.
const OUTGOING_MAX: usize = UNACKED_MAX + 2_048;
/// Messages from the coordinator that may wait for the session.
const INCOMING_MAX: usize = 256;

/// What happens on a connection, in this order: `Open`, `Heard`…, `Closed`.
#[derive(Debug)]
pub(super) enum News {
    /// There is a connection; the first message in must be `Hello`.
    Open(mpsc::Sender<WorkerMessage>),
    Heard(coordinator_message::Body),
    Closed(Closed),
}

/// Why a connection ended.
#[derive(Debug, Error)]
pub(super) enum Closed {
    #[error("cannot reach the coordinator")]
    Dial(#[from] DialError),
    #[error("the coordinator does not answer")]
    Silent,
    #[error("{}", .0.message())]
    Refused(Status),
    #[error("the session broke: {}", .0.message())]
    Broke(Status),
    #[error("the coordinator ended the session")]
    Ended,
}

impl Closed {
    /// True where dialling again cannot help unless somebody changes something.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    fn by(status: Status) -> Self {
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument | Code::Unimplemented => {
                Self::Refused(status)
            }
            _ => Self::Broke(status),
        }
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    news: mpsc::Receiver<News>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    pub(super) fn dial(coordinator: Coordinator) -> Self {
        let (sender, news) = mpsc::channel(INCOMING_MAX);
        let task = tokio::spawn(async move {
            let Err(closed) = converse(&coordinator, &sender).await;
            let _ = sender.send(News::Closed(closed)).await;
        });
        Self { news, task }
    }

    /// Safe to cancel.
    pub(super) async fn next(&mut self) -> News {
        self.news.recv().await.unwrap_or(News::Closed(Closed::Ended))
    }
}

async fn converse(
    coordinator: &Coordinator,
    news: &mpsc::Sender<News>,
) -> Result<std::convert::Infallible, Closed> {
    let line = coordinator.connect().await?;
    let mut client = WorkClient::new(line)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (outgoing, messages) = mpsc::channel(OUTGOING_MAX);
    let gone = |_| Closed::Ended;
    news.send(News::Open(outgoing)).await.map_err(gone)?;
    let opening = tokio::time::timeout(OPEN_LIMIT, client.session(ReceiverStream::new(messages)));
    let mut stream = opening.await.map_err(|_| Closed::Silent)?.map_err(Closed::by)?.into_inner();
    loop {
        let message = stream.message().await.map_err(Closed::by)?.ok_or(Closed::Ended)?;
        // A word that this version does not know is no word.
        if let Some(body) = message.body {
            news.send(News::Heard(body)).await.map_err(gone)?;
        }
    }
}
