//! Byte streams out of blocking readers and writers, with a bounded number of pieces in flight.

use std::io::{self, Read, Write};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::engine::ByteStream;

/// Size of one piece.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces that wait to be taken.
const PIECES_MAX: usize = 8;

type Sender = mpsc::Sender<io::Result<Bytes>>;

/// What the reader gives, read on a thread of its own.
pub(super) fn read_in_background<R: Read>(
    open: impl FnOnce() -> io::Result<R> + Send + 'static,
) -> ByteStream {
    write_in_background(move |writer| {
        let mut reader = open()?;
        io::copy(&mut io::BufReader::with_capacity(PIECE_BYTES, &mut reader), writer).map(drop)
    })
}

/// What the closure writes, on a thread of its own. An error of the closure ends the stream with that error.
pub(super) fn write_in_background(
    work: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
) -> ByteStream {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        let mut writer = io::BufWriter::with_capacity(PIECE_BYTES, PipeWriter { sender: sender.clone() });
        let done = work(&mut writer).and_then(|()| writer.flush());
        if let Err(error) = done {
            // What is still in the buffer must not follow the error; nobody may be listening any more.
            let _ = writer.into_parts();
            let _ = sender.blocking_send(Err(error));
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

struct PipeWriter {
    sender: Sender,
}

impl Write for PipeWriter {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let sent = self.sender.blocking_send(Ok(Bytes::copy_from_slice(piece)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, TryStreamExt};

    use super::*;

    #[tokio::test]
    async fn everything_that_is_written_arrives_in_order() {
        let text: Vec<u8> = (0..3 * PIECE_BYTES + 5).map(|n| u8::try_from(n % 251).expect("small")).collect();
        let expected = text.clone();
        let pieces: Vec<Bytes> =
            write_in_background(move |writer| writer.write_all(&text)).try_collect().await.expect("no error");
        assert_eq!(pieces.concat(), expected);
    }

    #[tokio::test]
    async fn an_error_is_the_last_piece() {
        let mut stream = write_in_background(|writer| {
            writer.write_all(b"begin")?;
            Err(io::Error::other("broken"))
        });
        let error = stream.next().await.expect("a piece").expect_err("the error");
        assert_eq!(error.to_string(), "broken");
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_writer_stops_when_nobody_listens() {
        let (ended, end) = tokio::sync::oneshot::channel();
        let stream = write_in_background(move |writer| {
            let piece = vec![0; PIECE_BYTES];
            let result = loop {
                if let Err(error) = writer.write_all(&piece) {
                    break error;
                }
            };
            let _ = ended.send(result.kind());
            Ok(())
        });
        drop(stream);
        assert_eq!(end.await, Ok(io::ErrorKind::BrokenPipe));
    }
}
