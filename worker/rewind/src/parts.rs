//! Part of step 3: what is to be written to memories, cut into parts that several threads put back, each when it has nothing else to do.
//!
//! A part is written first and protected then, so parts have no page in common: a page that is written after it was protected would count as changed.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, PoisonError};

use crate::arch::native::CODE_IS_FETCHED_APART;
use crate::kernel::{Range, Tracker};
use crate::memory::{Access, joined};
use crate::trace::{self, Piece};

/// About as much as a thread writes in the time that starting one takes.
const PART_BYTES: usize = 256 * 1024;
/// Gaps between changed pages that are protected again with them, in bytes.
const REPROTECT_GAP: u64 = 64 * 1024;

/// One of them, of one process.
#[derive(Debug, Default)]
struct Part<'a> {
    pieces: Vec<Piece>,
    contents: Vec<&'a [u8]>,
    /// Ranges by area.
    protect: Vec<(usize, Range)>,
    how: How,
}

/// How bytes are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct How {
    /// The process may run them: some processors have to be told.
    pub(crate) code: bool,
    /// The process itself may not write there: only the thread that traces it surely can.
    pub(crate) forced: bool,
}

impl Part<'_> {
    fn put_back(&self, access: &Access, tracker: &Tracker) -> io::Result<()> {
        if self.how.code && CODE_IS_FETCHED_APART {
            trace::write_code(&access.mem, &self.pieces, &self.contents)?;
        } else {
            trace::write(access.pid, &access.mem, &self.pieces, &self.contents)?;
        }
        let protect = joined(self.protect.iter().cloned(), REPROTECT_GAP);
        protect.iter().try_for_each(|range| tracker.protect(range))
    }
}

/// All of one process, in the order of their addresses.
#[derive(Debug, Default)]
pub(crate) struct Parts<'a> {
    all: Vec<Part<'a>>,
    /// What the last of them may still take.
    room: usize,
}

impl<'a> Parts<'a> {
    fn last(&mut self) -> &mut Part<'a> {
        if self.room == 0 {
            self.all.push(Part::default());
            self.room = PART_BYTES;
        }
        self.all.last_mut().expect("one was just made where there was none")
    }

    /// Some whole pages; writes to them are noted again where they are of a tracked `area`.
    pub(crate) fn write(&mut self, mut start: u64, mut content: &'a [u8], area: Option<usize>, how: How) {
        while !content.is_empty() {
            let part = self.last();
            let (now, later) = content.split_at(content.len().min(PART_BYTES));
            let end = start + now.len() as u64;
            part.pieces.push(Piece { start, bytes: now.len() });
            part.contents.push(now);
            part.how = How { code: part.how.code || how.code, forced: part.how.forced || how.forced };
            part.protect.extend(area.map(|area| (area, start..end)));
            self.room = self.room.saturating_sub(now.len());
            (start, content) = (end, later);
        }
    }

    /// Pages to which nothing is written.
    pub(crate) fn protect(&mut self, range: Range, area: Option<usize>) {
        let part = self.last();
        part.protect.extend(area.map(|area| (area, range)));
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.all.iter().flat_map(|part| &part.contents).map(|content| content.len() as u64).sum()
    }
}

/// A part with whose it is.
type Of<'a> = (Part<'a>, &'a Access, &'a Tracker);

/// Parts of any processes, each of which is put back once, whoever takes it.
#[derive(Debug, Default)]
pub(crate) struct Heap<'a> {
    parts: Mutex<VecDeque<Of<'a>>>,
    /// Those for the thread that traces.
    forced: Vec<Of<'a>>,
}

/// Where a thread begins: two in neighbouring parts would wait for each other's page tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Front,
    Back,
}

impl<'a> Heap<'a> {
    /// Those of one process.
    pub(crate) fn add(&mut self, parts: Parts<'a>, access: &'a Access, tracker: &'a Tracker) {
        let all = self.parts.get_mut().unwrap_or_else(PoisonError::into_inner);
        for part in parts.all {
            let (forced, of) = (part.how.forced, (part, access, tracker));
            if forced { self.forced.push(of) } else { all.push_back(of) }
        }
    }

    /// Only by the thread that traces: what others may not write.
    pub(crate) fn put_back_forced(&self) -> io::Result<()> {
        self.forced.iter().try_for_each(|(part, access, tracker)| part.put_back(access, tracker))
    }

    fn take(&self, end: End) -> Option<Of<'a>> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if end == End::Front { parts.pop_front() } else { parts.pop_back() }
    }

    /// Takes one after the other until none is left: what others took may not be back yet.
    pub(crate) fn put_back(&self, from: End) -> io::Result<()> {
        while let Some((part, access, tracker)) = self.take(from) {
            part.put_back(access, tracker)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pieces_are_cut_and_no_page_is_in_two_parts() {
        let content = vec![1; 5 * PART_BYTES / 2];
        let mut parts = Parts::default();
        let code = How { code: true, forced: false };
        parts.write(0, &content[..PART_BYTES / 4], Some(0), How::default());
        parts.write(1 << 30, &content, None, code);
        parts.protect(2 << 30..3 << 30, Some(1));
        assert_eq!(parts.bytes(), (content.len() + PART_BYTES / 4) as u64);
        let all = parts.all;
        let sizes = |part: &Part<'_>| part.pieces.iter().map(|piece| piece.bytes).collect::<Vec<_>>();
        assert_eq!(
            all.iter().map(sizes).collect::<Vec<_>>(),
            [vec![PART_BYTES / 4, PART_BYTES], vec![PART_BYTES], vec![PART_BYTES / 2]]
        );
        // Its second half is of the large piece.
        assert_eq!(all.iter().map(|part| part.how).collect::<Vec<_>>(), [code; 3]);
        assert_eq!(all[0].protect, [(0, 0..PART_BYTES as u64 / 4)]);
        assert_eq!(all[2].protect, [(1, 2 << 30..3 << 30)]);
    }
}
