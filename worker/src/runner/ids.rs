//! Which test ids are taken from a discover command's output.
//!
//! Pure. Invariant: what is accepted can be shown on a line, quoted for a shell and stored as text; what is refused is
//! named, with its line and the reason, and refuses the whole list, so that no test is lost silently.

use std::collections::HashSet;

use thiserror::Error;

/// Longest id, in bytes.
pub(crate) const ID_BYTES_MAX: usize = 4096;
/// Most tests of a suite.
pub(crate) const IDS_MAX: usize = 200_000;
/// How many refused ids a message names.
const NAMED_MAX: usize = 10;
/// Longest part of an id that a message shows, in bytes.
const SHOWN_BYTES_MAX: usize = 120;

/// The list cannot be taken.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub(crate) enum IdsRefused {
    /// Some ids.
    #[error("{count} test id(s) are refused:\n{}", named.join("\n"))]
    Ids {
        /// How many.
        count: usize,
        /// The first of them, each with its line and the reason.
        named: Vec<String>,
    },
    /// Too many.
    #[error("the suite has more than {IDS_MAX} tests")]
    TooMany,
}

/// The ids that a command printed, one a line.
pub(crate) fn ids_of_lines(output: &[u8]) -> Result<Vec<String>, IdsRefused> {
    let body = output.strip_suffix(b"\n").unwrap_or(output);
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let lines = body.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    check(lines)
}

/// Checks ids that came one by one.
pub(crate) fn check<'a>(ids: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<String>, IdsRefused> {
    let mut taken = Vec::new();
    let mut seen = HashSet::new();
    let (mut count, mut named) = (0, Vec::new());
    for (index, id) in ids.into_iter().enumerate() {
        if index >= IDS_MAX {
            return Err(IdsRefused::TooMany);
        }
        let verdict =
            fault_of(id).and_then(|text| if seen.insert(text) { Ok(text) } else { Err("is there twice") });
        match verdict {
            Ok(text) => taken.push(text.to_owned()),
            Err(why) => {
                count += 1;
                if named.len() < NAMED_MAX {
                    named.push(format!("  line {}: \"{}\" {why}", index + 1, shown(id)));
                }
            }
        }
    }
    if count > 0 { Err(IdsRefused::Ids { count, named }) } else { Ok(taken) }
}

fn fault_of(id: &[u8]) -> Result<&str, &'static str> {
    if id.is_empty() {
        return Err("is empty");
    }
    if id.len() > ID_BYTES_MAX {
        return Err("is longer than 4096 bytes");
    }
    if id.contains(&0) {
        return Err("holds a NUL");
    }
    let text = std::str::from_utf8(id).map_err(|_| "is not UTF-8")?;
    if text.chars().any(char::is_control) {
        return Err("holds a control character");
    }
    if text.starts_with('-') {
        return Err("starts with `-`, which a command would take for an option");
    }
    Ok(text)
}

/// An id for a message: escaped and cut.
fn shown(id: &[u8]) -> String {
    let cut = &id[..id.len().min(SHOWN_BYTES_MAX)];
    let mut text = cut.escape_ascii().to_string();
    if cut.len() < id.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn usual_and_awkward_names_are_taken_as_they_are() {
        let names = [
            "a.py::test_x[a b]",
            "it's \"quoted\"",
            "../up",
            "{tests}",
            "$(rm -rf /)",
            "é",
            " lead",
            "a\\nb",
        ];
        let listed = format!("{}\n", names.join("\n"));
        assert_eq!(ids_of_lines(listed.as_bytes()).unwrap(), names);
    }

    #[test]
    fn no_output_is_an_empty_list() {
        assert_eq!(ids_of_lines(b"").unwrap(), Vec::<String>::new());
        assert_eq!(ids_of_lines(b"\n").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn every_bad_name_is_refused_with_its_line_and_reason() {
        let long = "x".repeat(4097);
        let mut output = b"good\n-rf\nbad\xff\nnul\0\ntab\tx\n\ngood\n".to_vec();
        output.extend_from_slice(long.as_bytes());
        let text = ids_of_lines(&output).unwrap_err().to_string();
        for part in [
            "7 test id(s)",
            "line 2: \"-rf\" starts with `-`",
            "line 3: \"bad\\xff\" is not UTF-8",
            "line 4: \"nul\\x00\" holds a NUL",
            "line 5: \"tab\\tx\" holds a control character",
            "line 6: \"\" is empty",
            "line 7: \"good\" is there twice",
            "line 8: \"xxx",
            "longer than 4096",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert!(text.len() < 1000);
    }

    #[test]
    fn a_list_of_more_than_the_limit_is_refused() {
        let listed: String = (0..=IDS_MAX).map(|n| format!("t{n}\n")).collect();
        assert_eq!(ids_of_lines(listed.as_bytes()), Err(IdsRefused::TooMany));
    }

    proptest! {
        #[test]
        fn nothing_accepted_could_break_a_line_or_pass_for_an_option(output in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(ids) = ids_of_lines(&output) {
                for id in ids {
                    prop_assert!(!id.is_empty() && !id.starts_with('-') && !id.chars().any(char::is_control));
                }
            }
        }
    }
}
