//! Where the output of commands goes: sinks, and the one that keeps head and tail within a limit.

use std::collections::VecDeque;

/// Which of a command's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// File descriptor 1; also everything of a container with a terminal.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// Takes output as it comes, in the order in which the engine delivers it.
pub trait OutputSink: Send {
    /// Must not block.
    fn write(&mut self, stream: OutputStream, chunk: &[u8]);
}

impl<F: FnMut(OutputStream, &[u8]) + Send> OutputSink for F {
    fn write(&mut self, stream: OutputStream, chunk: &[u8]) {
        self(stream, chunk);
    }
}

/// Throws output away.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

impl OutputSink for Discard {
    fn write(&mut self, _: OutputStream, _: &[u8]) {}
}

/// Both streams, each kept within a limit.
#[derive(Debug, Clone)]
pub struct Captured {
    /// Standard output.
    pub stdout: HeadTail,
    /// Standard error.
    pub stderr: HeadTail,
}

impl Captured {
    /// Keeps at most `limit` bytes of each stream.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self { stdout: HeadTail::with_limit(limit), stderr: HeadTail::with_limit(limit) }
    }

    /// Both streams as text for a message: standard error after standard output.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = self.stdout.to_text();
        let errors = self.stderr.to_text();
        if !text.is_empty() && !errors.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&errors);
        text
    }
}

impl OutputSink for Captured {
    fn write(&mut self, stream: OutputStream, chunk: &[u8]) {
        match stream {
            OutputStream::Stdout => self.stdout.push(chunk),
            OutputStream::Stderr => self.stderr.push(chunk),
        }
    }
}

/// The first and the last bytes of a stream, with a count of those between that were dropped. As a sink it merges both
/// streams in the order of arrival. Memory is bounded by the limit.
#[derive(Debug, Clone)]
pub struct HeadTail {
    head_limit: usize,
    tail_limit: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl HeadTail {
    /// Keeps at most `limit` bytes: the first half and the last half.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        let head_limit = limit / 2;
        Self {
            head_limit,
            tail_limit: limit - head_limit,
            head: Vec::new(),
            tail: VecDeque::new(),
            dropped: 0,
        }
    }

    /// Keeps the last bytes alone.
    #[must_use]
    pub fn tail_alone(limit: usize) -> Self {
        Self { head_limit: 0, tail_limit: limit, ..Self::with_limit(0) }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, chunk: &[u8]) {
        let to_head = chunk.len().min(self.head_limit - self.head.len());
        let (first, rest) = chunk.split_at(to_head);
        self.head.extend_from_slice(first);
        // Of a chunk longer than the tail only its end can stay.
        let skipped = rest.len().saturating_sub(self.tail_limit);
        let rest = &rest[skipped..];
        let pushed_out = (self.tail.len() + rest.len()).saturating_sub(self.tail_limit);
        self.tail.drain(..pushed_out);
        self.tail.extend(rest);
        self.dropped += (skipped + pushed_out) as u64;
    }

    /// How many bytes are missing between head and tail.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many bytes came so far.
    #[must_use]
    pub fn pushed(&self) -> u64 {
        self.head.len() as u64 + self.dropped + self.tail.len() as u64
    }

    /// At most `bytes_max` of the bytes from `from` on, and where they begin: later than `from` where what was there is gone.
    /// `None` where nothing came after `from`.
    #[must_use]
    pub fn after(&self, from: u64, bytes_max: usize) -> Option<(u64, Vec<u8>)> {
        let head = self.head.len() as u64;
        if from < head {
            let bytes = &self.head[usize::try_from(from).ok()?..];
            return Some((from, bytes[..bytes.len().min(bytes_max)].to_vec()));
        }
        let tail_starts = head + self.dropped;
        let starts = from.max(tail_starts);
        let skipped = usize::try_from(starts - tail_starts).ok()?;
        let bytes: Vec<u8> = self.tail.iter().skip(skipped).take(bytes_max).copied().collect();
        (!bytes.is_empty()).then_some((starts, bytes))
    }

    /// What was kept, with one line that says how much is missing where something is.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone();
        if self.dropped > 0 {
            bytes.extend_from_slice(format!("\n[… {} bytes left out …]\n", self.dropped).as_bytes());
        }
        bytes.extend(self.tail.iter());
        bytes
    }

    /// As [`HeadTail::to_bytes`], invalid UTF-8 replaced.
    #[must_use]
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.to_bytes()).into_owned()
    }
}

impl OutputSink for HeadTail {
    fn write(&mut self, _: OutputStream, chunk: &[u8]) {
        self.push(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn output_within_the_limit_is_kept_whole() {
        let mut kept = HeadTail::with_limit(10);
        kept.push(b"01234");
        kept.push(b"56789");
        assert_eq!(kept.to_bytes(), b"0123456789");
        assert_eq!(kept.dropped(), 0);
    }

    #[test]
    fn too_much_output_keeps_head_and_tail_and_says_what_is_missing() {
        let mut kept = HeadTail::with_limit(4);
        kept.push(b"abcdefgh");
        assert_eq!(kept.to_text(), "ab\n[… 4 bytes left out …]\ngh");
    }

    #[test]
    fn what_came_after_a_place_is_had_or_begins_where_it_is_still_there() {
        let mut kept = HeadTail::with_limit(6);
        kept.push(b"abcd");
        assert_eq!(kept.after(0, 2), Some((0, b"ab".to_vec())));
        assert_eq!(kept.after(2, 9), Some((2, b"c".to_vec())), "the head first");
        assert_eq!(kept.after(3, 9), Some((3, b"d".to_vec())));
        assert_eq!(kept.after(4, 9), None);
        kept.push(b"efghij");
        assert_eq!(kept.after(4, 9), Some((7, b"hij".to_vec())), "`efg` is gone");
        assert_eq!(kept.after(9, 1), Some((9, b"j".to_vec())));
        assert_eq!(kept.after(11, 9), None);
    }

    proptest! {
        #[test]
        fn chunking_does_not_matter(limit in 0usize..40, text in proptest::collection::vec(any::<u8>(), 0..100), cut in 1usize..9) {
            let mut whole = HeadTail::with_limit(limit);
            whole.push(&text);
            let mut pieces = HeadTail::with_limit(limit);
            for piece in text.chunks(cut) {
                pieces.push(piece);
            }
            prop_assert_eq!(whole.to_bytes(), pieces.to_bytes());
            prop_assert_eq!(whole.dropped() as usize, text.len().saturating_sub(limit));
        }
    }
}
