//! Which heads were handled: one small JSON file for each mirror, replaced whole.
//!
//! A file that is lost or damaged costs only repeated submissions, which the coordinator answers with the run that
//! exists; so it is set aside and begun anew.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::git::CommitId;

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What was seen cannot be stored.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
pub(super) struct SeenError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl SeenError {
    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        Self { path: path.to_owned(), source }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    /// Branch to commit.
    heads: BTreeMap<String, String>,
}

/// The heads that were handled.
#[derive(Debug)]
pub(super) struct Seen {
    path: PathBuf,
    document: Document,
}

impl Seen {
    /// Reads the file; an absent or damaged one is an empty one.
    pub(super) fn open(path: PathBuf) -> Self {
        let document = match read(&path) {
            Ok(document) => document,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Document::default(),
            Err(error) => {
                tracing::warn!("{} is begun anew: {error}", path.display());
                Document::default()
            }
        };
        Self { path, document }
    }

    pub(super) fn heads(&self) -> &BTreeMap<String, String> {
        &self.document.heads
    }

    pub(super) fn remember(&mut self, branch: &str, commit: &CommitId) -> Result<(), SeenError> {
        self.document.heads.insert(branch.to_owned(), commit.to_string());
        self.save()
    }

    pub(super) fn forget(&mut self, branch: &str) -> Result<(), SeenError> {
        self.document.heads.remove(branch);
        self.save()
    }

    fn save(&mut self) -> Result<(), SeenError> {
        self.document.version = 1;
        write(&self.path, &self.document).map_err(|source| SeenError::write(&self.path, source))
    }
}

fn read(path: &Path) -> io::Result<Document> {
    let file = std::fs::File::open(path)?;
    let document: Document = serde_json::from_reader(io::Read::take(file, FILE_BYTES_MAX))?;
    if document.version == 1 {
        return Ok(document);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("version {} is not known", document.version)))
}

fn write(path: &Path, document: &Document) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".seen-").tempfile_in(folder)?;
    serde_json::to_writer_pretty(&mut file, document)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    // The rename itself must survive a power loss too.
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.seen.json");
        let commit = CommitId::parse(&"a".repeat(40)).unwrap();
        let mut seen = Seen::open(path.clone());
        seen.remember("main", &commit).unwrap();
        seen.remember("old", &commit).unwrap();
        seen.forget("old").unwrap();
        let again = Seen::open(path);
        assert_eq!(again.heads().clone(), BTreeMap::from([("main".to_owned(), commit.to_string())]));
    }

    #[test]
    fn a_damaged_file_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.seen.json");
        for damaged in ["{", "{\"version\":9,\"heads\":{}}", "[]", ""] {
            std::fs::write(&path, damaged).unwrap();
            assert!(Seen::open(path.clone()).heads().is_empty(), "{damaged}");
        }
    }
}
