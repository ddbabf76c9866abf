//! What is mounted where, as a process sees it: lines of proc_pid_mountinfo(5).
//!
//! Looks, does not judge, unmounts nothing.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// What this process sees.
pub(crate) const OWN: &str = "/proc/self/mountinfo";

/// One line: `id parent device ROOT POINT OPTIONS [more…] - KIND source ABOUT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Which part of the file system.
    pub(crate) root: PathBuf,
    pub(crate) point: PathBuf,
    /// Of this mount.
    options: String,
    pub(crate) kind: String,
    /// Options of the file system, escaped as the kernel writes them; empty where they are no text.
    pub(crate) about: String,
}

impl Mount {
    fn read(line: &[u8]) -> Option<Self> {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = fields.iter().position(|field| *field == b"-")?;
        let text = |field: Option<&&[u8]>| String::from_utf8(field?.to_vec()).ok();
        Some(Self {
            root: unescape(fields.get(3)?),
            point: unescape(fields.get(4)?),
            options: text(fields.get(5))?,
            kind: text(fields.get(dash + 1))?,
            about: text(fields.get(dash + 3)).unwrap_or_default(),
        })
    }

    /// Not writable as it is mounted.
    pub(crate) fn is_read_only(&self) -> bool {
        self.options.split(',').any(|option| option == "ro")
    }
}

/// All mounts among these lines, oldest first. What is no such line is left out.
pub(crate) fn parse(mountinfo: &[u8]) -> impl DoubleEndedIterator<Item = Mount> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(Mount::read)
}

/// Whether something is mounted exactly there.
pub(crate) fn is_mount_point(folder: &Path) -> io::Result<bool> {
    Ok(parse(&fs::read(OWN)?).any(|mount| mount.point == folder))
}

/// The kernel writes space, tab, newline and backslash as three octal digits (proc(5)).
fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let octal = (first == b'\\').then(|| after.get(..3)).flatten();
        let code = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_and_without_further_fields() {
        let text = b"36 35 98:0 /part /my\\040place ro,noatime master:1 shared:2 - ext4 /dev/root rw,errors=continue\n\
                     37 35 0:7 / /run rw - tmpfs x rw\nno such line\n";
        let mounts: Vec<Mount> = parse(text).collect();
        let shown = |mount: &Mount| (mount.point.clone(), mount.kind.clone(), mount.is_read_only());
        let expected = [("/my place", "ext4", true), ("/run", "tmpfs", false)];
        let expected =
            expected.map(|(point, kind, read_only)| (PathBuf::from(point), kind.to_owned(), read_only));
        assert_eq!(mounts.iter().map(shown).collect::<Vec<_>>(), expected);
        assert_eq!(
            (mounts[0].root.as_path(), mounts[0].about.as_str()),
            (Path::new("/part"), "rw,errors=continue")
        );
    }

    #[test]
    fn a_backslash_that_is_no_escape_stays() {
        assert_eq!(unescape(b"/a\\x"), PathBuf::from("/a\\x"));
        assert_eq!(unescape(b"/a\\134b"), PathBuf::from("/a\\b"));
    }
}
