//! The worker's end of a look: a stream of its own to the coordinator, which joins it to whoever looks.
//!
//! Must not know what is looked at. Invariants: little is on its way at a time, so that who does not read makes the worker wait and
//! nobody else; how the look ended is said last; when the stream breaks, the look ends.

use std::sync::Arc;
use std::time::Duration;

use andon_proto::{LookCall, LookEnded, LookIn, LookOut, look_out};
use tokio::sync::mpsc;
use tonic::Streaming;

use super::crew::Crew;
use super::farm::FarmClient;
use crate::hands::LookLine;

/// Messages of one look that wait, each way.
const AHEAD_MAX: usize = 8;
/// The longest look.
const LOOK_LIMIT: Duration = Duration::from_secs(8 * 3600);

/// How long the last word of a look may be on its way.
const FAREWELL_LIMIT: Duration = Duration::from_secs(30);

/// Until it is over.
pub(super) async fn show(crew: Arc<dyn Crew>, farm: FarmClient, call: LookCall) {
    let LookCall { ticket, open: Some(open) } = call else { return };
    let (out, outgoing) = mpsc::channel(AHEAD_MAX);
    let message = |body| LookOut { body: Some(body) };
    // There is room for the first.
    let _ = out.try_send(message(look_out::Body::Ticket(ticket)));
    let incoming = match farm.show(outgoing).await {
        Ok(incoming) => incoming,
        Err(status) => {
            tracing::info!(%status, "whoever wanted to look is gone");
            return;
        }
    };
    let (heard, hear) = mpsc::channel(AHEAD_MAX);
    let (say, mut said) = mpsc::channel(AHEAD_MAX);
    let looking = crew.look(open, LookLine { hear, say });
    let passing = async {
        while let Some(body) = said.recv().await {
            if out.send(message(body)).await.is_err() {
                // Nobody reads any more: whoever shows finds that out by what it hears.
                said.close();
            }
        }
    };
    let looking = async {
        let ended = tokio::time::timeout(LOOK_LIMIT, looking).await;
        let refused = format!("a look lasts at most {LOOK_LIMIT:?}");
        ended.unwrap_or_else(|_| LookEnded { refused, ..LookEnded::default() })
    };
    let mut hearing = std::pin::pin!(hear_on(incoming, heard));
    let (ended, are_gone) = {
        let mut both = std::pin::pin!(async { tokio::join!(looking, passing).0 });
        tokio::select! {
            ended = &mut both => (ended, false),
            // What it says from now on nobody hears, but it has to end by itself.
            () = &mut hearing => (both.await, true),
        }
    };
    let _ = out.send(message(look_out::Body::Ended(ended))).await;
    drop(out);
    // Not to listen any more resets the stream, and what was said last would be lost with it: the coordinator ends it, once it has that.
    if !are_gone && tokio::time::timeout(FAREWELL_LIMIT, hearing).await.is_err() {
        tracing::info!("nobody takes note of how a look ended");
    }
}

/// Until whoever looks is gone.
async fn hear_on(mut incoming: Streaming<LookIn>, heard: mpsc::Sender<andon_proto::look_in::Body>) {
    while let Ok(Some(LookIn { body })) = incoming.message().await {
        if let Some(body) = body
            && heard.send(body).await.is_err()
        {
            // Nothing is heard any more, but that they are gone still counts.
            while let Ok(Some(_)) = incoming.message().await {}
            return;
        }
    }
}
