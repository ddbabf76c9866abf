//! Bytes as text that people can read, and listings as lines of it.
//!
//! Paths and attributes on Linux are bytes; JSON is Unicode. Everything but printable ASCII, and `%` itself, is
//! written as `%XX`. Must not know: where listings are stored.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::{Entry, Listing};

/// Bytes as printable ASCII.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if (b' '..=b'~').contains(byte) && *byte != b'%' {
            text.push(char::from(*byte));
        } else {
            write!(text, "%{byte:02X}").expect("writing to a string does not fail");
        }
    }
    text
}

/// A path as printable ASCII.
pub(crate) fn escape_path(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

/// The bytes that `escape` was given; `None` where the text is not its work.
pub(crate) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    Some(bytes)
}

/// Writes a listing, an entry a line.
pub(crate) fn write_listing(listing: &Listing, mut to: impl Write) -> io::Result<()> {
    for entry in &listing.entries {
        serde_json::to_writer(&mut to, entry)?;
        to.write_all(b"\n")?;
    }
    to.flush()
}

/// Reads what `write_listing` wrote.
pub(crate) fn read_listing(from: impl BufRead) -> io::Result<Listing> {
    let entries: Vec<Entry> =
        from.lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect::<io::Result<_>>()?;
    if entries.first().is_none_or(|entry| !entry.path.as_os_str().is_empty()) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the listing has no root"));
    }
    Ok(Listing { entries })
}

/// serde: a path as escaped text.
pub(crate) mod path {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&escape_path(path))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = unescape(&text).ok_or_else(|| D::Error::custom("a path is not escaped text"))?;
        Ok(OsString::from_vec(bytes).into())
    }
}

/// serde: attribute names and values as escaped text.
pub(crate) mod pairs {
    use super::*;
    use crate::tree::xattr::Pairs;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(pairs: &Pairs, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(pairs.iter().map(|(name, value)| (escape(name), escape(value))))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Pairs, D::Error> {
        let texts = Vec::<(String, String)>::deserialize(from)?;
        let pairs = texts.iter().map(|(name, value)| Some((unescape(name)?, unescape(value)?)));
        pairs.collect::<Option<_>>().ok_or_else(|| D::Error::custom("an attribute is not escaped text"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_survive_as_text(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = escape(&bytes);
            prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(unescape(&text), Some(bytes));
        }
    }

    #[test]
    fn text_that_was_not_escaped_here_is_refused() {
        assert_eq!(unescape("50%"), None);
        assert_eq!(unescape("%zz"), None);
    }

    #[test]
    fn a_listing_without_a_root_is_refused() {
        assert!(read_listing(&b""[..]).is_err());
    }
}
