//! What a unit prints, sent while it runs: so that somebody can look, and so that it is not lost with the worker.
//!
//! Must not hold the unit up: pieces that nobody takes in time wait for the next look. What is pushed out of the middle of the
//! output meanwhile is a gap between two pieces.

use std::time::Duration;

use andon_proto::OutputPiece;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::UnitNews;
use super::cell::SharedOutput;
use crate::hands::compress_log;

/// How often somebody looks what is new. A unit that is over sooner sends nothing: its results have it all.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Of one piece, before compression.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// Of one unit. What a unit prints beyond it is in its results, head and tail.
const BYTES_MAX: u64 = 1 << 20;

/// Looks until it is dropped.
#[derive(Debug)]
pub(crate) struct Live(JoinHandle<()>);

impl Live {
    /// `before`: how much the unit printed before this output.
    pub(crate) fn of(output: SharedOutput, before: u64, news: mpsc::Sender<UnitNews>) -> Self {
        Self(tokio::spawn(send(output, before, news, LOOK_EVERY)))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn send(output: SharedOutput, before: u64, news: mpsc::Sender<UnitNews>, every: Duration) {
    let mut looks = tokio::time::interval(every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks.tick().await;
    let (mut end, mut sent) = (0, before);
    while sent < BYTES_MAX {
        looks.tick().await;
        while let Some((starts, bytes)) = output.after(end, PIECE_BYTES_MAX) {
            end = starts + bytes.len() as u64;
            sent += bytes.len() as u64;
            let raw_bytes = u32::try_from(bytes.len()).expect("a piece is small");
            let piece = OutputPiece { starts: before + starts, raw_bytes, zstd: compress_log(&bytes) };
            if news.send(UnitNews::Output(piece)).await.is_err() || sent >= BYTES_MAX {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{OutputSink, OutputStream};
    use crate::runner::OUTPUT_BYTES_MAX;

    const SOON: Duration = Duration::from_millis(1);

    async fn piece(news: &mut mpsc::Receiver<UnitNews>) -> Option<(u64, Vec<u8>)> {
        let UnitNews::Output(piece) = news.recv().await? else { panic!("only output is sent") };
        let bytes = zstd::bulk::decompress(&piece.zstd, PIECE_BYTES_MAX).expect("it was compressed");
        assert_eq!(piece.raw_bytes as usize, bytes.len());
        Some((piece.starts, bytes))
    }

    #[tokio::test]
    async fn what_is_printed_arrives_in_pieces_that_meet() {
        let mut output = SharedOutput::new();
        let (sender, mut news) = mpsc::channel(8);
        let sending = tokio::spawn(send(output.clone(), 100, sender, SOON));
        output.write(OutputStream::Stdout, b"one ");
        assert_eq!(piece(&mut news).await, Some((100, b"one ".to_vec())));
        output.write(OutputStream::Stderr, b"two");
        assert_eq!(piece(&mut news).await, Some((104, b"two".to_vec())));
        sending.abort();
    }

    #[tokio::test]
    async fn a_flood_costs_a_gap_and_ends_at_the_limit_and_nothing_is_held_up() {
        let mut output = SharedOutput::new();
        let (sender, mut news) = mpsc::channel(1);
        let sending = tokio::spawn(send(output.clone(), 0, sender, SOON));
        let (mut end, mut gaps, mut sum) = (0, 0, 0);
        let chunk = vec![b'x'; 2 * OUTPUT_BYTES_MAX];
        output.write(OutputStream::Stdout, &chunk);
        while let Some((starts, bytes)) = piece(&mut news).await {
            gaps += u32::from(starts > end);
            end = starts + bytes.len() as u64;
            sum += bytes.len() as u64;
            output.write(OutputStream::Stdout, &chunk);
        }
        sending.await.expect("it ends by itself");
        assert!(gaps > 0 && sum < BYTES_MAX + PIECE_BYTES_MAX as u64, "{gaps} gaps, {sum} bytes");
    }
}
