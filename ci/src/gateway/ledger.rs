//! A small map that survives power loss: an append-only file of changes, each with a checksum, synced before it counts.
//!
//! What is known in memory is what is on the disk. A change that cannot be written is an error and is not known; the
//! file is then written anew before the next one. Lines that are torn or damaged are left out, said, and kept beside.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// The file is written anew when it has twice the lines that it needs, and this many more.
const SPARE_LINES: usize = 1000;
/// Hex digits of a line's checksum.
const SUM_DIGITS: usize = 16;

/// A ledger that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}")]
pub(crate) struct LedgerError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The map.
#[derive(Debug)]
pub(crate) struct Ledger<V> {
    path: PathBuf,
    /// `None` after a failed write: what is behind its end is not known.
    file: Option<File>,
    entries: BTreeMap<String, V>,
    lines: usize,
}

impl<V: Serialize + DeserializeOwned> Ledger<V> {
    /// Reads the file; an absent one is an empty map.
    pub(crate) fn open(path: PathBuf) -> Result<Self, LedgerError> {
        let bytes = read(&path).map_err(|source| failed("read", &path, source))?;
        let Read { entries, lines, damaged } = parse(&bytes);
        let mut ledger = Self { path, file: None, entries, lines };
        if damaged > 0 {
            ledger.keep_damaged(damaged)?;
        }
        ledger.ready()?;
        Ok(ledger)
    }

    /// As [`Ledger::open`], without writing anything: for who is not its owner.
    pub(crate) fn look(path: &Path) -> Result<BTreeMap<String, V>, LedgerError> {
        let bytes = read(path).map_err(|source| failed("read", path, source))?;
        Ok(parse(&bytes).entries)
    }

    pub(crate) fn entries(&self) -> &BTreeMap<String, V> {
        &self.entries
    }

    /// Puts one value.
    pub(crate) fn put(&mut self, key: &str, value: V) -> Result<(), LedgerError> {
        self.change([(key.to_owned(), Some(value))])
    }

    /// Removes one.
    pub(crate) fn remove(&mut self, key: &str) -> Result<(), LedgerError> {
        self.change([(key.to_owned(), None)])
    }

    /// Puts and removes, with one sync. When it returns they are on the disk.
    pub(crate) fn change(
        &mut self,
        changes: impl IntoIterator<Item = (String, Option<V>)>,
    ) -> Result<(), LedgerError> {
        let changes: Vec<_> = changes.into_iter().collect();
        self.ready()?;
        let text: String = changes.iter().map(|(key, value)| line(key, value.as_ref())).collect();
        let file = self.file.as_mut().expect("it was made ready");
        if let Err(source) = file.write_all(text.as_bytes()).and_then(|()| file.sync_data()) {
            self.file = None;
            return Err(failed("write", &self.path, source));
        }
        self.lines += changes.len();
        for (key, value) in changes {
            match value {
                Some(value) => self.entries.insert(key, value),
                None => self.entries.remove(&key),
            };
        }
        if self.lines > 2 * self.entries.len() + SPARE_LINES {
            // The changes are on the disk already; a rewrite that fails is tried again with the next.
            self.file = None;
        }
        Ok(())
    }

    /// With an open file whose end is the end of what is known.
    fn ready(&mut self) -> Result<(), LedgerError> {
        if self.file.is_none() {
            let file = self.rewrite().map_err(|source| failed("write", &self.path, source))?;
            self.file = Some(file);
            self.lines = self.entries.len();
        }
        Ok(())
    }

    fn rewrite(&self) -> io::Result<File> {
        let mut fresh = self.path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
        let text: String = self.entries.iter().map(|(key, value)| line(key, Some(value))).collect();
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        // The rename itself must survive a power loss too.
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(file)
    }

    fn keep_damaged(&self, damaged: usize) -> Result<(), LedgerError> {
        let mut beside = self.path.as_os_str().to_owned();
        beside.push(".damaged");
        tracing::warn!(
            "{} has {damaged} damaged lines, which are left out; it is kept as {}",
            self.path.display(),
            beside.display()
        );
        std::fs::copy(&self.path, &beside).map(drop).map_err(|source| failed("copy", &self.path, source))
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> LedgerError {
    LedgerError { what, path: path.to_owned(), source }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than any ledger"));
    }
    Ok(bytes)
}

struct Read<V> {
    entries: BTreeMap<String, V>,
    lines: usize,
    /// A torn last line is not among them: it is what a crash leaves, and was never acknowledged.
    damaged: usize,
}

fn parse<V: DeserializeOwned>(bytes: &[u8]) -> Read<V> {
    let mut read = Read { entries: BTreeMap::new(), lines: 0, damaged: 0 };
    for text in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some(text) = text.strip_suffix(b"\n") else { break };
        read.lines += 1;
        match parse_line(text) {
            Some((key, Some(value))) => drop(read.entries.insert(key, value)),
            Some((key, None)) => drop(read.entries.remove(&key)),
            None => read.damaged += 1,
        }
    }
    read
}

fn parse_line<V: DeserializeOwned>(text: &[u8]) -> Option<(String, Option<V>)> {
    let (sum, rest) = text.split_at_checked(SUM_DIGITS)?;
    let json = rest.strip_prefix(b" ")?;
    if checksum(json).as_bytes() != sum {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn line<V: Serialize>(key: &str, value: Option<&V>) -> String {
    let json = serde_json::to_string(&(key, value)).expect("our types are valid JSON");
    format!("{} {json}\n", checksum(json.as_bytes()))
}

fn checksum(json: &[u8]) -> String {
    let mut sum = blake3::hash(json).to_hex().to_string();
    sum.truncate(SUM_DIGITS);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Ledger<u32> {
        Ledger::open(path.to_owned()).unwrap()
    }

    fn known(path: &Path) -> Vec<(String, u32)> {
        open(path).entries().clone().into_iter().collect()
    }

    #[test]
    fn a_crash_at_any_byte_leaves_a_state_that_was_acknowledged_or_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let mut ledger = open(&path);
        let mut states = vec![(0, vec![])];
        for change in [("a", Some(1)), ("b", Some(2)), ("a", None), ("line\n\"x", Some(3)), ("b", Some(4))] {
            ledger.change([(change.0.to_owned(), change.1)]).unwrap();
            let now: Vec<_> = ledger.entries().clone().into_iter().collect();
            states.push((std::fs::metadata(&path).unwrap().len(), now));
        }
        let whole = std::fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            let torn = folder.path().join("torn");
            std::fs::write(&torn, &whole[..length]).unwrap();
            let (_, expected) = states.iter().rev().find(|(size, _)| *size <= length as u64).unwrap();
            assert_eq!(&known(&torn), expected, "cut at {length}");
            assert_eq!(&known(&torn), expected, "and again, after the repair");
        }
    }

    #[test]
    fn a_damaged_line_costs_itself_alone_and_is_kept_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let mut ledger = open(&path);
        for (key, value) in [("a", 1), ("b", 2), ("c", 3)] {
            ledger.put(key, value).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap().replace("[\"b\",2]", "[\"b\",9]");
        std::fs::write(&path, &text).unwrap();
        assert_eq!(known(&path), [("a".to_owned(), 1), ("c".to_owned(), 3)]);
        assert_eq!(std::fs::read_to_string(folder.path().join("ledger.damaged")).unwrap(), text);
    }

    #[test]
    fn a_file_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let mut ledger = open(&path);
        for value in 0..3 * SPARE_LINES as u32 {
            ledger.put("same", value).unwrap();
        }
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= SPARE_LINES + 3, "{lines}");
        assert_eq!(known(&path), [("same".to_owned(), 3 * SPARE_LINES as u32 - 1)]);
    }

    #[test]
    fn what_cannot_be_written_is_not_known_and_the_next_write_repairs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let mut ledger = open(&path);
        ledger.put("a", 1).unwrap();
        // A file that is only readable fails as a full disk does.
        ledger.file = Some(File::open(&path).unwrap());
        assert!(ledger.put("b", 2).is_err());
        assert_eq!(ledger.entries().len(), 1);
        ledger.put("c", 3).unwrap();
        assert_eq!(known(&path), [("a".to_owned(), 1), ("c".to_owned(), 3)]);
    }
}
