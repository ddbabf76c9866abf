//! A run's record in one file, to be carried to another farm: what `andon show --json` says of it, its specification, its source.
//!
//! ```text
//!   tar:  run.json   as `andon show --json`; names the specification by its digest
//!         spec       RunSpec; names the source by its digest
//!         source     tar.zst
//! ```
//!
//! Anybody may have written such a file. Nothing of it is believed: the parts come in this order and are plain files of bounded
//! size, digests are computed, and what the file says of baselines, approvals and workers is not taken over.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use andon_proto::RunSpec;
use prost::Message as _;
use serde::Deserialize;
use tempfile::TempPath;

/// Of `run.json`: 200,000 tests with some attempts each.
const RECORD_BYTES_MAX: u64 = 256 << 20;
/// Of `spec`.
pub const SPEC_BYTES_MAX: u64 = 16 << 20;
/// Of `source`: no larger than a commit's files may be.
pub const SOURCE_BYTES_MAX: u64 = crate::git::TOTAL_BYTES_MAX;
/// The parts, in their order.
const PARTS: [&str; 3] = ["run.json", "spec", "source"];

/// What is used of `run.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Record {
    /// Its number on the farm that it was run on.
    pub run: u64,
    /// The specification, by BLAKE3.
    pub spec_digest: String,
    /// What its tests started from there.
    pub baseline_key: Option<String>,
    /// In order.
    #[serde(default)]
    pub tests: Vec<RecordTest>,
}

/// A test of a record.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RecordTest {
    /// Its suite.
    pub suite: String,
    /// As its runner names it.
    pub id: String,
    /// As `--json` writes it.
    pub verdict: String,
}

/// A file that was read, its parts held against each other.
#[derive(Debug)]
pub struct Opened {
    /// What was run.
    pub record: Record,
    /// The specification as it was.
    pub spec: RunSpec,
    /// The source, in a temporary file.
    pub source: TempPath,
    /// Its bytes.
    pub source_bytes: u64,
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It cannot be read.
    #[error("the file cannot be read")]
    Io(#[from] io::Error),
    /// Not what `andon export` writes.
    #[error("this is no exported run: {0}")]
    Form(String),
    /// A part is not what another says of it.
    #[error("the {part} is not the one of this run: its digest is {found}, not {wanted}")]
    Digest {
        /// Which part.
        part: &'static str,
        /// What was computed.
        found: String,
        /// What the other part says.
        wanted: String,
    },
}

fn form(what: impl Into<String>) -> RecordError {
    RecordError::Form(what.into())
}

/// Writes the three parts.
pub fn write(to: impl Write, record: &[u8], spec: &[u8], source: &Path) -> io::Result<()> {
    let mut tar = tar::Builder::new(to);
    append(&mut tar, PARTS[0], record.len() as u64, record)?;
    append(&mut tar, PARTS[1], spec.len() as u64, spec)?;
    let source = File::open(source)?;
    let size = source.metadata()?.len();
    append(&mut tar, PARTS[2], size, source)?;
    tar.into_inner()?.flush()
}

fn append(tar: &mut tar::Builder<impl Write>, name: &str, size: u64, content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    tar.append_data(&mut header, name, content)
}

/// Reads and checks a file; the source goes to a new file in `scratch`.
pub fn read(from: impl Read, scratch: &Path) -> Result<Opened, RecordError> {
    let mut tar = tar::Archive::new(from);
    let mut parts = tar.entries().map_err(|error| form(error.to_string()))?;
    let record = whole(&mut parts, 0, RECORD_BYTES_MAX)?;
    let record: Record =
        serde_json::from_slice(&record).map_err(|error| form(format!("run.json: {error}")))?;
    let spec = whole(&mut parts, 1, SPEC_BYTES_MAX)?;
    agree("specification", blake3::hash(&spec), &record.spec_digest)?;
    let spec = RunSpec::decode(spec.as_slice()).map_err(|error| form(format!("spec: {error}")))?;
    let mut entry = part(&mut parts, 2, SOURCE_BYTES_MAX)?;
    let file = tempfile::Builder::new().prefix("source-").tempfile_in(scratch)?;
    let (file, source) = file.into_parts();
    let mut hashing = Hashing { inner: file, hasher: blake3::Hasher::new() };
    let source_bytes = io::copy(&mut (&mut entry).take(SOURCE_BYTES_MAX), &mut hashing)?;
    agree("source", hashing.hasher.finalize(), &spec.source_digest)?;
    Ok(Opened { record, spec, source, source_bytes })
}

fn whole<R: Read>(
    parts: &mut tar::Entries<'_, R>,
    place: usize,
    bytes_max: u64,
) -> Result<Vec<u8>, RecordError> {
    let mut bytes = Vec::new();
    part(parts, place, bytes_max)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The next part, which must be this one.
fn part<'a, R: Read>(
    parts: &mut tar::Entries<'a, R>,
    place: usize,
    bytes_max: u64,
) -> Result<tar::Entry<'a, R>, RecordError> {
    let name = PARTS[place];
    let entry = parts.next().ok_or_else(|| form(format!("it has no {name}")))?;
    let entry = entry.map_err(|error| form(error.to_string()))?;
    if !entry.header().entry_type().is_file() || *entry.path_bytes() != *name.as_bytes() {
        let found = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        return Err(form(format!("there is {} where {name} should be", crate::config::quoted(&found))));
    }
    if entry.size() > bytes_max {
        return Err(form(format!("{name} has {} bytes, at most {bytes_max}", entry.size())));
    }
    Ok(entry)
}

fn agree(part: &'static str, found: blake3::Hash, wanted: &str) -> Result<(), RecordError> {
    let found = found.to_hex().to_string();
    if found == wanted {
        return Ok(());
    }
    Err(RecordError::Digest { part, found, wanted: crate::config::quoted(wanted) })
}

struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Parts {
        folder: tempfile::TempDir,
        spec: Vec<u8>,
        json: String,
    }

    impl Parts {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("source"), b"files").unwrap();
            let source_digest = blake3::hash(b"files").to_hex().to_string();
            let spec =
                RunSpec { project: "shop".into(), source_digest, ..RunSpec::default() }.encode_to_vec();
            let json = format!(
                r#"{{"run": 12, "spec_digest": "{}", "baseline_key": "k", "state": "failed",
                    "tests": [{{"suite": "it", "id": "a", "verdict": "failed", "attempts": []}}]}}"#,
                blake3::hash(&spec).to_hex()
            );
            Self { folder, spec, json }
        }

        fn written(&self) -> Vec<u8> {
            let mut file = Vec::new();
            write(&mut file, self.json.as_bytes(), &self.spec, &self.folder.path().join("source")).unwrap();
            file
        }

        fn read(&self, file: &[u8]) -> Result<Opened, RecordError> {
            read(file, self.folder.path())
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let parts = Parts::new();
        let opened = parts.read(&parts.written()).unwrap();
        assert_eq!(opened.record.run, 12);
        assert_eq!(opened.record.tests[0].verdict, "failed");
        assert_eq!(opened.spec.project, "shop");
        assert_eq!(std::fs::read(&opened.source).unwrap(), b"files");
        assert_eq!(opened.source_bytes, 5);
    }

    #[test]
    fn a_part_of_another_run_is_refused_by_its_digest() {
        let parts = Parts::new();
        std::fs::write(parts.folder.path().join("source"), b"other").unwrap();
        let error = parts.read(&parts.written()).unwrap_err().to_string();
        assert!(error.contains("source"), "{error}");
        let mut parts = Parts::new();
        parts.spec = RunSpec { project: "other".into(), ..RunSpec::default() }.encode_to_vec();
        let error = parts.read(&parts.written()).unwrap_err().to_string();
        assert!(error.contains("specification"), "{error}");
    }

    #[test]
    fn a_file_that_is_cut_anywhere_is_refused() {
        let parts = Parts::new();
        let file = parts.written();
        let content_ends = file.len() - 1024 - (512 - 5);
        for end in (0..content_ends).step_by(97) {
            assert!(parts.read(&file[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn what_is_no_record_is_refused_by_what_it_is() {
        let parts = Parts::new();
        let entry = |name: &str, kind: tar::EntryType, size: u64| {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_size(size);
            header.set_mode(0o644);
            header.set_cksum();
            header.as_bytes().to_vec()
        };
        for (file, said) in [
            (b"hello".to_vec(), "no exported run"),
            (entry("../run.json", tar::EntryType::Regular, 0), "where run.json should be"),
            (entry("run.json", tar::EntryType::Symlink, 0), "where run.json should be"),
            (entry("run.json", tar::EntryType::Regular, RECORD_BYTES_MAX + 1), "at most"),
            (entry("spec", tar::EntryType::Regular, 0), "where run.json should be"),
            (Vec::new(), "no run.json"),
        ] {
            let error = parts.read(&file).unwrap_err().to_string();
            assert!(error.contains(said), "{error} has no {said:?}");
        }
    }

    proptest::proptest! {
        /// One bit of the content anywhere: another digest, another size, another name; never another run taken for this one.
        #[test]
        fn a_file_that_was_changed_is_refused_or_says_the_same(place in 0_usize..1_000_000, bit in 0_u8..8) {
            let parts = Parts::new();
            let (whole, mut file) = (parts.read(&parts.written()).unwrap(), parts.written());
            let place = place % file.len();
            file[place] ^= 1 << bit;
            if let Ok(opened) = parts.read(&file) {
                proptest::prop_assert_eq!(opened.spec, whole.spec);
                proptest::prop_assert_eq!(std::fs::read(&opened.source).unwrap(), b"files");
            }
        }

        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2_000)) {
            proptest::prop_assert!(Parts::new().read(&bytes).is_err());
        }
    }
}
