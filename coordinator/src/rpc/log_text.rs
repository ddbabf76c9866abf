//! Stored output as a person reads it: unpacked, in order, with a line where something is missing.

use std::io::Read;

use crate::store::{Content, Note, Output, Piece};

/// Most bytes of one output, unpacked: a worker may have sent anything.
const LOG_BYTES_MAX: u64 = 32 << 20;

/// `broke_off`: the farm lost the attempt, so that its output may end in the middle.
pub(crate) fn of_attempt(output: Output, broke_off: bool) -> Vec<u8> {
    match output {
        Output::Nothing => Vec::new(),
        Output::Whole(content) => unpacked(&content, LOG_BYTES_MAX),
        Output::Pieces(pieces) => joined(pieces, broke_off),
    }
}

/// A run's own log, from this moment on.
pub(crate) fn of_run(notes: Vec<Note>, since_ms: u64) -> Vec<u8> {
    let mut text = Vec::new();
    for note in notes.into_iter().filter(|note| note.at_ms >= since_ms) {
        line(&mut text, &note.text);
        if !note.zstd.is_empty() {
            text.extend(unpacked(&Ok(note.zstd), LOG_BYTES_MAX));
            end_line(&mut text);
        }
    }
    text
}

fn joined(pieces: Vec<Piece>, broke_off: bool) -> Vec<u8> {
    let (mut text, mut end) = (Vec::new(), 0);
    for piece in pieces {
        if piece.starts > end {
            end_line(&mut text);
            line(&mut text, &format!("[… {} bytes are missing …]", piece.starts - end));
        }
        let content = unpacked(&piece.content, piece.raw_bytes);
        // Whoever repeats itself is heard once.
        let known = usize::try_from(end.saturating_sub(piece.starts)).unwrap_or(usize::MAX);
        text.extend_from_slice(content.get(known..).unwrap_or_default());
        end = end.max(piece.starts.saturating_add(piece.raw_bytes));
    }
    if broke_off {
        end_line(&mut text);
        line(&mut text, "[the farm lost the attempt here: what it printed after this never came]");
    }
    text
}

fn unpacked(content: &Content, bytes_max: u64) -> Vec<u8> {
    let zstd = match content {
        Ok(zstd) if zstd.is_empty() => return Vec::new(),
        Ok(zstd) => zstd,
        Err(why) => return format!("[this part of the output {why}]\n").into_bytes(),
    };
    let mut text = Vec::new();
    let read = zstd::Decoder::new(zstd.as_slice())
        .and_then(|decoder| decoder.take(bytes_max.min(LOG_BYTES_MAX)).read_to_end(&mut text));
    if let Err(error) = read {
        end_line(&mut text);
        line(&mut text, &format!("[what follows cannot be unpacked: {error}]"));
    }
    text
}

fn line(text: &mut Vec<u8>, line: &str) {
    text.extend_from_slice(line.as_bytes());
    text.push(b'\n');
}

fn end_line(text: &mut Vec<u8>) {
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(text: &str) -> Vec<u8> {
        zstd::bulk::compress(text.as_bytes(), 1).expect("it compresses")
    }

    fn piece(starts: u64, text: &str) -> Piece {
        Piece { starts, raw_bytes: text.len() as u64, content: Ok(packed(text)) }
    }

    fn shown(pieces: Vec<Piece>, broke_off: bool) -> String {
        String::from_utf8(of_attempt(Output::Pieces(pieces), broke_off)).expect("text")
    }

    #[test]
    fn a_runs_log_begins_where_it_is_asked_to() {
        let note = |at_ms, text: &str| Note { at_ms, text: text.to_owned(), zstd: packed("more") };
        let notes = || vec![note(10, "old"), note(20, "new")];
        assert_eq!(of_run(notes(), 0), b"old\nmore\nnew\nmore\n");
        assert_eq!(of_run(notes(), 20), b"new\nmore\n");
        assert_eq!(of_run(notes(), 21), b"");
    }

    #[test]
    fn pieces_that_meet_are_one_text() {
        assert_eq!(shown(vec![piece(0, "one\ntw"), piece(6, "o\n")], false), "one\ntwo\n");
    }

    #[test]
    fn a_gap_is_shown_as_a_gap_and_so_is_the_end_that_never_came() {
        assert_eq!(
            shown(vec![piece(4, "five"), piece(20, "more\n")], true),
            "[… 4 bytes are missing …]\nfive\n[… 12 bytes are missing …]\nmore\n\
             [the farm lost the attempt here: what it printed after this never came]\n"
        );
    }

    #[test]
    fn what_comes_twice_is_shown_once() {
        assert_eq!(shown(vec![piece(0, "abcd"), piece(2, "cdef"), piece(3, "d")], false), "abcdef");
    }

    #[test]
    fn what_is_lost_is_said_where_it_was() {
        let lost = Piece { starts: 2, raw_bytes: 3, content: Err("is damaged".to_owned()) };
        assert_eq!(
            shown(vec![piece(0, "a\n"), lost, piece(5, "b\n")], false),
            "a\n[this part of the output is damaged]\nb\n"
        );
        let text = of_attempt(Output::Whole(Ok(b"no zstd".to_vec())), false);
        assert!(String::from_utf8_lossy(&text).starts_with("[what follows cannot be unpacked"));
    }

    #[test]
    fn a_piece_is_no_longer_than_it_says() {
        let bomb = Piece { starts: 0, raw_bytes: 3, content: Ok(packed(&"x".repeat(1 << 20))) };
        assert_eq!(shown(vec![bomb], false), "xxx");
    }
}
