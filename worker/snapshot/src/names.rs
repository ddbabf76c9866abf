//! Names from outside as names of folders.
//!
//! Must not know: what the names mean. Invariants: the folder is one path component, never hidden, never `.` or
//! `..`; two names never share a folder; letters, digits, `.`, `_` and `-` stay readable, so that a person who looks
//! into the pool finds the way, and no character of a mount option or a bind string is ever in it.

use std::fmt::Write as _;

use crate::PoolError;

/// The longest name that is taken.
const NAME_BYTES_MAX: usize = 512;
/// A longer folder name is cut and gets a digest. A file name may have 255 bytes.
const FOLDER_BYTES_MAX: usize = 120;
/// What is kept readable of a cut name.
const FOLDER_HEAD_BYTES: usize = 80;

/// The folder for a name; `what` names the name in the error.
pub(crate) fn folder(what: &'static str, name: &str) -> Result<String, PoolError> {
    let refuse = |why| Err(PoolError::BadName { what, name: name.chars().take(80).collect(), why });
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name.len() > NAME_BYTES_MAX {
        return refuse("it is longer than 512 bytes");
    }
    let mut folder = String::with_capacity(name.len() + 8);
    for (index, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || (index > 0 && matches!(byte, b'-' | b'_' | b'.')) {
            folder.push(char::from(byte));
        } else {
            write!(folder, "%{byte:02X}").expect("writing to a string does not fail");
        }
    }
    if folder.len() > FOLDER_BYTES_MAX {
        let digest = blake3::hash(name.as_bytes()).to_hex();
        // `%%` is in no escaped name, so a cut name cannot meet a short one.
        folder = format!("{}%%{}", &folder[..FOLDER_HEAD_BYTES], &digest[..32]);
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::folder;
    use proptest::prelude::*;

    #[test]
    fn usual_names_stay_readable() {
        assert_eq!(folder("tree name", "volume/data").unwrap(), "volume%2Fdata");
        assert_eq!(
            folder("tree name", "anonymous/db//var/lib/mysql").unwrap(),
            "anonymous%2Fdb%2F%2Fvar%2Flib%2Fmysql"
        );
        assert_eq!(folder("lane name", "0").unwrap(), "0");
    }

    #[test]
    fn empty_and_endless_names_are_refused() {
        assert!(folder("tree name", "").is_err());
        assert!(folder("tree name", &"x".repeat(513)).is_err());
    }

    proptest! {
        #[test]
        fn a_folder_is_one_safe_component_and_no_two_names_share_one(a in "\\PC{1,90}|[./%-]{1,90}", b in "\\PC{1,90}|[./%-]{1,90}") {
            let (Ok(one), Ok(two)) = (folder("x", &a), folder("x", &b)) else { return Ok(()) };
            prop_assert!(one.len() <= 120 && !one.starts_with(['.', '-']));
            prop_assert!(one.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.%".contains(&c)));
            prop_assert_eq!(one == two, a == b);
        }
    }
}
