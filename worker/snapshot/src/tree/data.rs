//! The contents of regular files: cloned, copied with their holes, compared block by block.
//!
//! Must not know: trees, pools. Invariants: a hole reads as zeros everywhere, so no answer depends on how a file
//! system lays a file out; buffers are bounded by `PIECE_BYTES`.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{SeekFrom, copy_file_range, ftruncate, ioctl_ficlone, seek};
use rustix::io::{Errno, pread, pwrite};

/// The grain in which dirtied bytes are counted: a page of memory, a block of most file systems.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// The grain in which files are read; a multiple of the block.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// How contents get into another file.
#[derive(Debug)]
pub(crate) enum Filling {
    /// By FICLONE or not at all.
    Clone,
    /// By FICLONE until it is refused, then by copying.
    CloneOrCopy { refused: AtomicBool },
    /// By copying.
    Copy,
}

impl Filling {
    pub(crate) fn clone_or_copy() -> Filling {
        Filling::CloneOrCopy { refused: AtomicBool::new(false) }
    }

    /// Fills the empty file `to` with `size` bytes of `from`.
    pub(crate) fn fill(&self, from: impl AsFd, to: impl AsFd, size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        match self {
            Filling::Clone => Ok(ioctl_ficlone(&to, &from)?),
            Filling::Copy => copy(from, to, size),
            Filling::CloneOrCopy { refused } if refused.load(Ordering::Relaxed) => copy(from, to, size),
            Filling::CloneOrCopy { refused } => match ioctl_ficlone(&to, &from) {
                Ok(()) => Ok(()),
                Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => {
                    refused.store(true, Ordering::Relaxed);
                    copy(from, to, size)
                }
                Err(error) => Err(error.into()),
            },
        }
    }
}

/// Copies `size` bytes, leaving holes where there are holes.
fn copy(from: impl AsFd, to: impl AsFd, size: u64) -> io::Result<()> {
    let mut at = 0;
    while let Some(start) = next_data(&from, at, size)? {
        let end = match seek(&from, SeekFrom::Hole(start)) {
            Ok(end) => end.min(size),
            Err(_) => size,
        };
        copy_range(&from, &to, start, end)?;
        at = end;
    }
    Ok(ftruncate(&to, size)?)
}

fn copy_range(from: impl AsFd, to: impl AsFd, start: u64, end: u64) -> io::Result<()> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let wanted = usize::try_from(end - read_at).unwrap_or(usize::MAX);
        match copy_file_range(&from, Some(&mut read_at), &to, Some(&mut write_at), wanted) {
            Ok(0) => return copy_by_hand(from, to, read_at, end),
            Ok(_) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return copy_by_hand(from, to, read_at, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(from: impl AsFd, to: impl AsFd, mut at: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0u8; PIECE_BYTES];
    while at < end {
        let wanted = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        let got = pread(&from, &mut buffer[..wanted], at)?;
        if got == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was read",
            ));
        }
        write_all_at(&to, &buffer[..got], at)?;
        at += got as u64;
    }
    Ok(())
}

fn write_all_at(to: impl AsFd, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let wrote = pwrite(&to, bytes, at)?;
        bytes = &bytes[wrote..];
        at += wrote as u64;
    }
    Ok(())
}

/// Writes what `from` gives into the empty file `to`, with holes for blocks of zeros; how many bytes there were.
pub(crate) fn write_sparse(mut from: impl Read, to: impl AsFd) -> io::Result<u64> {
    let mut buffer = vec![0u8; PIECE_BYTES];
    let mut at = 0u64;
    loop {
        let got = read_full(&mut from, &mut buffer)?;
        let mut offset = at;
        for run in buffer[..got].chunks(BLOCK_BYTES) {
            if !is_zero(run) {
                write_all_at(&to, run, offset)?;
            }
            offset += run.len() as u64;
        }
        at = offset;
        if got < buffer.len() {
            ftruncate(&to, at)?;
            return Ok(at);
        }
    }
}

fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match from.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// Where data begins at or after `at`, below `size`. A file system without holes has data everywhere.
pub(crate) fn next_data(file: impl AsFd, at: u64, size: u64) -> io::Result<Option<u64>> {
    if at >= size {
        return Ok(None);
    }
    match seek(file, SeekFrom::Data(at)) {
        Ok(start) => Ok((start < size).then_some(start)),
        Err(Errno::NXIO) => Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(at)),
        Err(error) => Err(error.into()),
    }
}

/// True for zeros alone.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
    bytes.chunks(BLOCK_BYTES).all(|chunk| *chunk == ZEROS[..chunk.len()])
}

/// Calls `each` with every piece of a file that is not zeros alone. Pieces stand at multiples of `PIECE_BYTES`,
/// whatever holes the file has.
pub(crate) fn each_piece(file: &OwnedFd, size: u64, mut each: impl FnMut(u64, &[u8])) -> io::Result<()> {
    let mut buffer = vec![0u8; PIECE_BYTES.min(usize::try_from(size).unwrap_or(PIECE_BYTES))];
    let mut at = 0;
    while let Some(data) = next_data(file, at, size)? {
        let start = data - data % PIECE_BYTES as u64;
        let length = buffer.len().min(usize::try_from(size - start).unwrap_or(usize::MAX));
        read_piece(file, &mut buffer[..length], start)?;
        if !is_zero(&buffer[..length]) {
            each(start, &buffer[..length]);
        }
        at = start + length as u64;
    }
    Ok(())
}

/// Reads a piece; what is beyond the file's end is zeros.
pub(crate) fn read_piece(file: &OwnedFd, buffer: &mut [u8], at: u64) -> io::Result<()> {
    let mut got = 0;
    while got < buffer.len() {
        match pread(file, &mut buffer[got..], at + got as u64)? {
            0 => break,
            more => got += more,
        }
    }
    buffer[got..].fill(0);
    Ok(())
}

/// A file and its size; `None` stands for no file.
pub(crate) type Sized<'a> = Option<(&'a OwnedFd, u64)>;

/// The bytes in those blocks of `new` that differ from the same blocks of `old`. Beyond `old`'s end there are zeros.
pub(crate) fn differing_bytes(old: Sized<'_>, new: (&OwnedFd, u64)) -> io::Result<u64> {
    let (file, size) = new;
    let (mut ours, mut theirs) = (vec![0u8; PIECE_BYTES], vec![0u8; PIECE_BYTES]);
    let mut at = 0;
    let mut differing = 0;
    loop {
        let here = next_data(file, at, size)?;
        let there = old.map(|(old, old_size)| next_data(old, at, old_size.min(size))).transpose()?.flatten();
        let Some(data) = here.into_iter().chain(there).min() else { return Ok(differing) };
        let start = data - data % PIECE_BYTES as u64;
        let length = PIECE_BYTES.min(usize::try_from(size - start).unwrap_or(usize::MAX));
        read_piece(file, &mut ours[..length], start)?;
        match old {
            Some((old, _)) => read_piece(old, &mut theirs[..length], start)?,
            None => theirs[..length].fill(0),
        }
        if ours[..length] != theirs[..length] {
            let blocks = ours[..length].chunks(BLOCK_BYTES).zip(theirs[..length].chunks(BLOCK_BYTES));
            differing += blocks.filter(|(a, b)| a != b).map(|(a, _)| a.len() as u64).sum::<u64>();
        }
        at = start + length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    fn file(size: u64, writes: &[(u64, &[u8])]) -> OwnedFd {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        for (at, bytes) in writes {
            file.write_all_at(bytes, *at).unwrap();
        }
        file.into()
    }

    fn differing(old: (u64, &[(u64, &[u8])]), new: (u64, &[(u64, &[u8])])) -> u64 {
        let (a, b) = (file(old.0, old.1), file(new.0, new.1));
        differing_bytes(Some((&a, old.0)), (&b, new.0)).unwrap()
    }

    #[test]
    fn one_changed_byte_dirties_one_block() {
        assert_eq!(differing((16384, &[]), (16384, &[(5000, b"x")])), 4096);
        assert_eq!(differing((16384, &[(5000, b"x")]), (16384, &[])), 4096);
    }

    #[test]
    fn the_last_block_counts_what_it_holds() {
        assert_eq!(differing((5000, &[]), (5000, &[(4999, b"x")])), 904);
    }

    #[test]
    fn growth_by_zeros_is_no_dirt_and_growth_by_data_is() {
        assert_eq!(differing((4096, &[]), (1 << 30, &[])), 0);
        assert_eq!(differing((4096, &[]), (1 << 30, &[((1 << 29) + 7, b"x")])), 4096);
    }

    #[test]
    fn a_cut_file_with_the_same_head_has_no_dirty_bytes() {
        assert_eq!(differing((8192, &[(0, b"a"), (5000, b"b")]), (4096, &[(0, b"a")])), 0);
    }

    #[test]
    fn writing_sparse_keeps_bytes_and_makes_holes() {
        let mut bytes = vec![0u8; 3 * PIECE_BYTES + 17];
        bytes[PIECE_BYTES + 9] = 7;
        let to = file(0, &[]);
        assert_eq!(write_sparse(&bytes[..], &to).unwrap(), bytes.len() as u64);
        let mut back = Vec::new();
        let mut reader = File::from(to.try_clone().unwrap());
        io::Seek::rewind(&mut reader).unwrap();
        reader.read_to_end(&mut back).unwrap();
        assert_eq!(back, bytes);
        assert!(std::os::unix::fs::MetadataExt::blocks(&reader.metadata().unwrap()) <= 16);
    }
}
