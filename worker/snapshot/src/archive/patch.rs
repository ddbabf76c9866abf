//! A file as what differs from the file at the same path of the tree below: whole blocks, with their places.
//!
//! Must not know: tar, pools. The form: for each range its offset (8 bytes, little endian), its length (4 bytes) and its
//! bytes. Invariants: a patch is never larger than the file it stands for; applying one writes within the file's size only.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::pwrite;

use crate::tree::data::{BLOCK_BYTES, PIECE_BYTES, next_data, read_piece};

/// The pax record of an entry whose contents are a patch; its value is the file's size.
pub(super) const RECORD: &str = "ANDON.patch";
/// Offset and length.
const HEAD_BYTES: usize = 12;
/// Beyond this a file goes whole: ranges are held in memory.
const RANGES_MAX: usize = 1 << 20;

/// What differs, in order.
pub(super) struct Patch {
    ranges: Vec<(u64, u32)>,
    /// Bytes of the patch.
    pub(super) len: u64,
}

impl Patch {
    /// `None` where the file had better go whole. Beyond `old`'s end there are zeros.
    pub(super) fn between(old: (&OwnedFd, u64), new: (&OwnedFd, u64)) -> io::Result<Option<Patch>> {
        let (file, size) = new;
        let (mut ours, mut theirs) = (vec![0u8; PIECE_BYTES], vec![0u8; PIECE_BYTES]);
        let mut patch = Patch { ranges: Vec::new(), len: 0 };
        let mut at = 0;
        loop {
            let here = next_data(file, at, size)?;
            let there = next_data(old.0, at, old.1.min(size))?;
            let Some(data) = here.into_iter().chain(there).min() else { return Ok(Some(patch)) };
            let start = data - data % PIECE_BYTES as u64;
            let length = PIECE_BYTES.min(usize::try_from(size - start).unwrap_or(usize::MAX));
            read_piece(file, &mut ours[..length], start)?;
            read_piece(old.0, &mut theirs[..length], start)?;
            if ours[..length] != theirs[..length] {
                let blocks = ours[..length].chunks(BLOCK_BYTES).zip(theirs[..length].chunks(BLOCK_BYTES));
                for (index, (block, _)) in blocks.enumerate().filter(|(_, (ours, theirs))| ours != theirs) {
                    patch.add(start + (index * BLOCK_BYTES) as u64, block.len());
                }
            }
            if patch.ranges.len() > RANGES_MAX || patch.len >= size {
                return Ok(None);
            }
            at = start + length as u64;
        }
    }

    fn add(&mut self, at: u64, length: usize) {
        self.len += length as u64;
        if let Some((start, known)) = self.ranges.last_mut()
            && *start + u64::from(*known) == at
            && *known as usize + length <= PIECE_BYTES
        {
            *known += length as u32;
            return;
        }
        self.len += HEAD_BYTES as u64;
        self.ranges.push((at, length as u32));
    }

    /// The patch's bytes.
    pub(super) fn reader(self, file: OwnedFd) -> PatchReader {
        PatchReader { file, ranges: self.ranges.into_iter(), ready: Vec::new(), given: 0 }
    }
}

/// Gives a patch's bytes, a range at a time.
pub(super) struct PatchReader {
    file: OwnedFd,
    ranges: std::vec::IntoIter<(u64, u32)>,
    ready: Vec<u8>,
    given: usize,
}

impl Read for PatchReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.ready.len() {
            let Some((at, length)) = self.ranges.next() else { return Ok(0) };
            self.given = 0;
            self.ready.clear();
            self.ready.extend_from_slice(&at.to_le_bytes());
            self.ready.extend_from_slice(&length.to_le_bytes());
            self.ready.resize(HEAD_BYTES + length as usize, 0);
            read_piece(&self.file, &mut self.ready[HEAD_BYTES..], at)?;
        }
        let count = buffer.len().min(self.ready.len() - self.given);
        buffer[..count].copy_from_slice(&self.ready[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}

/// Fills the buffer; `false` where there is less.
fn whole(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Applies a patch to a file that is `size` bytes long already. `false` where it is none for such a file; how many bytes of
/// the patch there were does not matter then.
pub(super) fn apply(mut from: impl Read, to: impl AsFd, size: u64) -> io::Result<bool> {
    let mut bytes = Vec::new();
    loop {
        let mut head = [0u8; HEAD_BYTES];
        if from.read(&mut head[..1])? == 0 {
            return Ok(true);
        }
        if !whole(&mut from, &mut head[1..])? {
            return Ok(false);
        }
        let (at, length) = head.split_at(8);
        let at = u64::from_le_bytes(at.try_into().expect("the first eight of twelve bytes"));
        let length = u32::from_le_bytes(length.try_into().expect("the last four of twelve bytes"));
        let end = at.checked_add(u64::from(length));
        if length as usize > PIECE_BYTES || end.is_none_or(|end| end > size) {
            return Ok(false);
        }
        bytes.resize(length as usize, 0);
        if !whole(&mut from, &mut bytes)? {
            return Ok(false);
        }
        let mut wrote = 0;
        while wrote < bytes.len() {
            wrote += pwrite(&to, &bytes[wrote..], at + wrote as u64)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    fn file(bytes: &[u8]) -> OwnedFd {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.into()
    }

    fn patched(old: &[u8], new: &[u8]) -> (Option<u64>, Vec<u8>) {
        let (a, b) = (file(old), file(new));
        let Some(patch) = Patch::between((&a, old.len() as u64), (&b, new.len() as u64)).unwrap() else {
            return (None, new.to_vec());
        };
        let len = patch.len;
        let mut bytes = Vec::new();
        patch.reader(b).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, len);
        let to = File::from(a);
        to.set_len(new.len() as u64).unwrap();
        assert!(apply(&bytes[..], &to, new.len() as u64).unwrap());
        let mut back = vec![0; new.len()];
        to.read_exact_at(&mut back, 0).unwrap();
        (Some(len), back)
    }

    #[test]
    fn one_changed_byte_costs_one_block_and_no_change_nothing() {
        let old = vec![1u8; 3 * PIECE_BYTES];
        let mut new = old.clone();
        assert_eq!(patched(&old, &new).0, Some(0));
        new[PIECE_BYTES + 5000] = 2;
        assert_eq!(patched(&old, &new), (Some(4096 + 12), new.clone()));
        assert_eq!(patched(&old, &vec![2u8; old.len()]).0, None, "a file that is new throughout goes whole");
    }

    #[test]
    fn a_patch_that_leads_out_of_the_file_is_refused() {
        let range =
            |at: u64, length: u32| [&at.to_le_bytes()[..], &length.to_le_bytes()[..], &[7; 64]].concat();
        for (at, length) in [(64, 64), (u64::MAX, 64), (0, u32::MAX)] {
            let to = file(&[0; 100]);
            assert!(!apply(&range(at, length)[..], &to, 100).unwrap(), "{at} {length}");
        }
        assert!(!apply(&range(0, 100)[..], file(&[0; 100]), 100).unwrap(), "it ends within a range");
    }

    proptest! {
        #[test]
        fn a_patched_file_is_the_new_file(
            sizes in (0usize..40_000, 1usize..40_000),
            writes in proptest::collection::vec((0usize..40_000, any::<u8>()), 0..20),
        ) {
            let old: Vec<u8> = (0..sizes.0).map(|at| (at / 4096) as u8).collect();
            let mut new: Vec<u8> = (0..sizes.1).map(|at| old.get(at).copied().unwrap_or(0)).collect();
            for (at, byte) in writes {
                let at = at % new.len();
                new[at] = byte;
            }
            prop_assert_eq!(patched(&old, &new).1, new);
        }
    }
}
