//! What a container's processes wrote: the newest part of it, in memory.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::engine::{OutputSink, OutputStream};

/// Most bytes that are kept of one container; the oldest go.
const LOG_BYTES_MAX: usize = 256 * 1024;

#[derive(Debug, Default)]
struct Kept {
    chunks: VecDeque<(OutputStream, Bytes)>,
    bytes: usize,
    /// How many chunks have gone.
    gone: usize,
}

/// Shared between who reads the container's pipes and who is asked for its log.
#[derive(Debug, Default)]
pub(super) struct Log {
    kept: Mutex<Kept>,
    /// Changes with each chunk.
    grown: watch::Sender<()>,
}

impl Log {
    pub(super) fn push(&self, stream: OutputStream, chunk: Bytes) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += chunk.len();
        kept.chunks.push_back((stream, chunk));
        while kept.bytes > LOG_BYTES_MAX
            && let Some((_, oldest)) = kept.chunks.pop_front()
        {
            kept.bytes -= oldest.len();
            kept.gone += 1;
        }
        drop(kept);
        self.grown.send_replace(());
    }

    /// Told of each further chunk.
    pub(super) fn growing(&self) -> watch::Receiver<()> {
        self.grown.subscribe()
    }

    /// Feeds what came from the given place on; answers with the next place.
    pub(super) fn feed_from(&self, place: usize, output: &mut (dyn OutputSink + '_)) -> usize {
        let (chunks, next) = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let seen = place.saturating_sub(kept.gone);
            let chunks: Vec<_> = kept.chunks.iter().skip(seen).cloned().collect();
            (chunks, kept.gone + kept.chunks.len())
        };
        for (stream, chunk) in chunks {
            output.write(stream, &chunk);
        }
        next
    }

    /// The last lines, and how many they are: fewer than asked for where there are no more.
    pub(super) fn tail(&self, lines: usize) -> (Vec<(OutputStream, Bytes)>, usize) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut tail, mut found, mut is_last) = (VecDeque::new(), 0, true);
        for (stream, chunk) in kept.chunks.iter().rev() {
            // The end of the log ends a line, whether or not its last byte does.
            let end = chunk.len() - usize::from(is_last && chunk.last() == Some(&b'\n'));
            found += usize::from(is_last);
            is_last = false;
            let mut from = 0;
            for (at, _) in chunk[..end].iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                if found == lines {
                    from = at + 1;
                    break;
                }
                found += 1;
            }
            if from < chunk.len() {
                tail.push_front((*stream, chunk.slice(from..)));
            }
            if from > 0 {
                break;
            }
        }
        (tail.into(), found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log(chunks: &[&str]) -> Log {
        let log = Log::default();
        for chunk in chunks {
            log.push(OutputStream::Stdout, Bytes::copy_from_slice(chunk.as_bytes()));
        }
        log
    }

    fn tail(log: &Log, lines: usize) -> (String, usize) {
        let (chunks, found) = log.tail(lines);
        (chunks.iter().map(|(_, chunk)| String::from_utf8_lossy(chunk).into_owned()).collect(), found)
    }

    #[test]
    fn the_last_lines_are_found_across_chunks() {
        let log = log(&["one\ntw", "o\nthree\nfo", "ur\n"]);
        assert_eq!(tail(&log, 2), ("three\nfour\n".to_owned(), 2));
        assert_eq!(tail(&log, 3), ("two\nthree\nfour\n".to_owned(), 3));
        assert_eq!(tail(&log, 9), ("one\ntwo\nthree\nfour\n".to_owned(), 4));
        assert_eq!(tail(&Log::default(), 5), (String::new(), 0));
    }

    #[test]
    fn the_oldest_output_goes() {
        let log = Log::default();
        for n in 0..40 {
            log.push(OutputStream::Stderr, Bytes::from(vec![b'a' + n % 26; 10_000]));
        }
        let mut bytes = 0;
        let mut count = |_: OutputStream, chunk: &[u8]| bytes += chunk.len();
        assert_eq!(log.feed_from(3, &mut count), 40);
        assert_eq!(bytes, 260_000, "26 chunks are within the limit");
        assert_eq!(log.feed_from(40, &mut |_: OutputStream, _: &[u8]| unreachable!("nothing new")), 40);
    }

    proptest! {
        #[test]
        fn the_tail_is_what_tail_prints(text in "[ab\n]{0,40}", cuts in proptest::collection::vec(1usize..7, 1..20), lines in 1usize..6) {
            let (log, mut rest) = (Log::default(), text.as_str());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (chunk, more) = rest.split_at((*cut).min(rest.len()));
                log.push(OutputStream::Stdout, Bytes::copy_from_slice(chunk.as_bytes()));
                rest = more;
            }
            let all: Vec<&str> = text.split_inclusive('\n').collect();
            let expected: String = all[all.len().saturating_sub(lines)..].concat();
            prop_assert_eq!(tail(&log, lines), (expected, all.len().min(lines)));
        }
    }
}
