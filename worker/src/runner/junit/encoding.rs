//! The text of an XML file, whatever its tool wrote it in.
//!
//! Pure. UTF-8 first, whatever the file says of itself; then UTF-16 by its mark; then, where the file names a one-byte encoding, Latin-1.
//! Bytes that are no text become U+FFFD. Invariant: the text has at most three times as many bytes as the file.

use std::borrow::Cow;

/// How far a declaration reaches.
const HEAD_BYTES: usize = 200;

/// See the module.
pub(super) fn decode(bytes: &[u8]) -> Cow<'_, str> {
    let wide = |of: fn([u8; 2]) -> u16| {
        let units = bytes[2..].chunks_exact(2).map(|pair| of([pair[0], pair[1]]));
        char::decode_utf16(units).map(|found| found.unwrap_or('\u{fffd}')).collect::<String>()
    };
    match bytes {
        [0xff, 0xfe, ..] => return wide(u16::from_le_bytes).into(),
        [0xfe, 0xff, ..] => return wide(u16::from_be_bytes).into(),
        _ => {}
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) if is_latin(bytes) => bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into(),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

fn is_latin(bytes: &[u8]) -> bool {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(HEAD_BYTES)]).to_ascii_lowercase();
    let declared = head.split_once("encoding=").map(|(_, rest)| rest.trim_start_matches(['"', '\'']));
    let names = ["iso-8859-1", "latin1", "windows-1252", "us-ascii"];
    declared.is_some_and(|declared| names.iter().any(|name| declared.starts_with(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_usual_encoding_is_read() {
        let text = "<?xml version='1.0' encoding='ISO-8859-1'?><a>é</a>";
        let latin: Vec<u8> = text.chars().map(|c| c as u8).collect();
        assert_eq!(decode(&latin), text);
        assert_eq!(decode(text.as_bytes()), text);
        let little: Vec<u8> =
            [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        let big: Vec<u8> =
            [0xfe, 0xff].into_iter().chain(text.encode_utf16().flat_map(u16::to_be_bytes)).collect();
        assert_eq!((decode(&little), decode(&big)), (text.into(), text.into()));
        assert_eq!(decode(b"<a>\xff</a>"), "<a>\u{fffd}</a>");
        assert_eq!(decode(&[0xff, 0xfe, 0x00]), "");
    }
}
