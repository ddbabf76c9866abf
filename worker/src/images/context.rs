//! The files of a build: found beneath the source's root, digested, written as a tar.
//!
//! The source is not trusted: a context or Dockerfile that leads outside the root is refused, links are taken as links.
//! It is not written to while it is read (sources are immutable on a worker).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use super::dockerfile;
use super::dockerignore::{self, Ignore};

/// Most files, folders and links of one context.
const ENTRIES_MAX: usize = 200_000;
/// Most bytes of one context.
const BYTES_MAX: u64 = 8 << 30;
/// Deepest folder.
const DEPTH_MAX: usize = 128;

/// A context cannot be read.
#[derive(Debug, Error)]
pub enum ContextError {
    /// A path leads out of the source, or is absolute.
    #[error("{path:?} is not beneath the source's root")]
    Outside {
        /// As given, or as found.
        path: PathBuf,
    },
    /// A file or folder is missing, or cannot be read.
    #[error("cannot read {path:?}")]
    Read {
        /// Relative to the source.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The Dockerfile is no text, or far too long.
    #[error("{path:?} is no text of at most {limit} bytes")]
    NoText {
        /// Relative to the source.
        path: PathBuf,
        /// In bytes.
        limit: u64,
    },
    /// More than a build should get.
    #[error("the context has more than {ENTRIES_MAX} entries, {} GiB or {DEPTH_MAX} levels of folders: leave some out with a .dockerignore", BYTES_MAX >> 30)]
    TooLarge,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    File { bytes: u64, executable: bool },
    Folder,
    Link(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Relative to the context.
    path: PathBuf,
    kind: Kind,
}

/// A build's files, found and digested.
#[derive(Debug)]
pub(super) struct Context {
    /// The context's folder.
    root: PathBuf,
    entries: Vec<Entry>,
    /// Of paths, kinds, modes and contents.
    pub(super) digest: blake3::Hash,
    /// The Dockerfile's own text.
    pub(super) dockerfile: String,
}

impl Context {
    /// Reads every file once. Blocks.
    pub(super) fn read(source: &Path, folder: &str, dockerfile: &str) -> Result<Self, ContextError> {
        let root = beneath(source, Path::new(folder))?;
        let dockerfile = read_text(&root, dockerfile, dockerfile::FILE_BYTES_MAX)?;
        let ignore = match read_text(&root, ".dockerignore", dockerignore::FILE_BYTES_MAX) {
            Ok(text) => Ignore::parse(&text),
            Err(ContextError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ignore::default()
            }
            Err(error) => return Err(error),
        };
        let mut walk = Walk { root: &root, ignore, entries: Vec::new(), bytes: 0 };
        walk.folder(Path::new(""), 0)?;
        let mut entries = walk.entries;
        entries.sort_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
        let digest = digest(&root, &entries)?;
        Ok(Self { root, entries, digest, dockerfile })
    }

    /// Writes the tar; the Dockerfile that the build is to use is put in under this name.
    pub(super) fn write_tar(&self, dockerfile: (&str, &str), out: &mut dyn Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(out);
        for entry in &self.entries {
            let mut header = tar::Header::new_gnu();
            header.set_mtime(0);
            match &entry.kind {
                Kind::File { bytes, executable } => {
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_mode(if *executable { 0o755 } else { 0o644 });
                    header.set_size(*bytes);
                    let file = File::open(self.root.join(&entry.path))?;
                    tar.append_data(&mut header, &entry.path, file.take(*bytes))?;
                }
                Kind::Folder => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(0o755);
                    header.set_size(0);
                    tar.append_data(&mut header, &entry.path, io::empty())?;
                }
                Kind::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    header.set_size(0);
                    tar.append_link(&mut header, &entry.path, target)?;
                }
            }
        }
        let (name, text) = dockerfile;
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, name, text.as_bytes())?;
        tar.finish()
    }
}

/// The real path of something beneath the root.
fn beneath(root: &Path, path: &Path) -> Result<PathBuf, ContextError> {
    let outside = || ContextError::Outside { path: path.to_owned() };
    if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(outside());
    }
    let failed = |source| ContextError::Read { path: path.to_owned(), source };
    let root = root.canonicalize().map_err(failed)?;
    let real = root.join(path).canonicalize().map_err(failed)?;
    if real.starts_with(&root) { Ok(real) } else { Err(outside()) }
}

fn read_text(root: &Path, name: &str, limit: u64) -> Result<String, ContextError> {
    let path = beneath(root, Path::new(name))?;
    let failed = |source| ContextError::Read { path: name.into(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).map_err(failed)?;
    match String::from_utf8(bytes) {
        Ok(text) if text.len() as u64 <= limit => Ok(text),
        _ => Err(ContextError::NoText { path: name.into(), limit }),
    }
}

struct Walk<'a> {
    root: &'a Path,
    ignore: Ignore,
    entries: Vec<Entry>,
    bytes: u64,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, depth: usize) -> Result<(), ContextError> {
        if depth > DEPTH_MAX {
            return Err(ContextError::TooLarge);
        }
        let failed = |source| ContextError::Read { path: folder.to_owned(), source };
        for found in fs::read_dir(self.root.join(folder)).map_err(failed)? {
            let found = found.map_err(failed)?;
            let path = folder.join(found.file_name());
            let meta =
                found.metadata().map_err(|source| ContextError::Read { path: path.clone(), source })?;
            let left_out = self.ignore.leaves_out(&path.to_string_lossy());
            if meta.is_dir() {
                if !left_out {
                    self.keep(Entry { path: path.clone(), kind: Kind::Folder })?;
                }
                if !left_out || self.ignore.brings_some_back() {
                    self.folder(&path, depth + 1)?;
                }
            } else if !left_out {
                self.leaf(path, &meta)?;
            }
        }
        Ok(())
    }

    fn leaf(&mut self, path: PathBuf, meta: &fs::Metadata) -> Result<(), ContextError> {
        let kind = if meta.is_symlink() {
            let target = fs::read_link(self.root.join(&path));
            Kind::Link(target.map_err(|source| ContextError::Read { path: path.clone(), source })?)
        } else if meta.is_file() {
            self.bytes += meta.len();
            Kind::File { bytes: meta.len(), executable: meta.permissions().mode() & 0o111 != 0 }
        } else {
            // Sockets and the like are never part of a commit.
            return Ok(());
        };
        self.keep(Entry { path, kind })
    }

    fn keep(&mut self, entry: Entry) -> Result<(), ContextError> {
        self.entries.push(entry);
        if self.entries.len() > ENTRIES_MAX || self.bytes > BYTES_MAX {
            return Err(ContextError::TooLarge);
        }
        Ok(())
    }
}

/// Every part goes in with its length before it, so that no two contexts share an input.
fn digest(root: &Path, entries: &[Entry]) -> Result<blake3::Hash, ContextError> {
    let mut hasher = blake3::Hasher::new();
    for entry in entries {
        put(&mut hasher, entry.path.as_os_str().as_bytes());
        match &entry.kind {
            Kind::Folder => put(&mut hasher, b"folder"),
            Kind::Link(target) => {
                put(&mut hasher, b"link");
                put(&mut hasher, target.as_os_str().as_bytes());
            }
            Kind::File { bytes, executable } => {
                put(&mut hasher, if *executable { b"program" } else { b"file" });
                hasher.update(&bytes.to_le_bytes());
                let file = File::open(root.join(&entry.path));
                let read = file.and_then(|file| hasher.update_reader(file.take(*bytes)).map(drop));
                read.map_err(|source| ContextError::Read { path: entry.path.clone(), source })?;
            }
        }
    }
    Ok(hasher.finalize())
}

/// Puts bytes into a digest so that no others are mistaken for them.
pub(super) fn put(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn source(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("beneath the root")).expect("created");
            fs::write(path, text).expect("written");
        }
        root
    }

    fn paths(context: &Context) -> Vec<&str> {
        context.entries.iter().map(|entry| entry.path.to_str().expect("plain")).collect()
    }

    #[test]
    fn what_the_dockerignore_leaves_out_is_not_in_the_context() {
        let files = [
            ("c/Dockerfile", "FROM a"),
            ("c/.dockerignore", "x\n!x/keep"),
            ("c/x/drop", ""),
            ("c/x/keep", ""),
        ];
        let root = source(&files);
        let context = Context::read(root.path(), "c", "Dockerfile").expect("read");
        assert_eq!(paths(&context), [".dockerignore", "Dockerfile", "x/keep"]);
    }

    #[test]
    fn paths_that_lead_outside_are_refused_also_through_links() {
        let root = source(&[("a/Dockerfile", "FROM a")]);
        symlink("/etc", root.path().join("etc")).expect("linked");
        symlink("/etc/hostname", root.path().join("a/Outside")).expect("linked");
        for (folder, dockerfile) in [
            ("../", "Dockerfile"),
            ("/etc", "hostname"),
            ("etc", "hostname"),
            ("a", "Outside"),
            ("a", "../x"),
        ] {
            let error = Context::read(root.path(), folder, dockerfile).expect_err("outside");
            assert!(matches!(error, ContextError::Outside { .. }), "{folder} {dockerfile}: {error}");
        }
    }

    #[test]
    fn a_missing_folder_or_dockerfile_is_named() {
        let root = source(&[("a/x", "")]);
        let error = Context::read(root.path(), "a", "Dockerfile").expect_err("missing");
        assert_eq!(error.to_string(), "cannot read \"Dockerfile\"");
        let error = Context::read(root.path(), "b", "Dockerfile").expect_err("missing");
        assert_eq!(error.to_string(), "cannot read \"b\"");
    }

    #[test]
    fn the_digest_changes_with_content_path_mode_and_link_and_with_nothing_else() {
        let files = [("Dockerfile", "FROM a"), ("bin/run", "x")];
        let digest =
            |root: &tempfile::TempDir| Context::read(root.path(), ".", "Dockerfile").expect("read").digest;
        let one = source(&files);
        let base = digest(&one);
        assert_eq!(digest(&source(&files)), base, "another place, another time");
        fs::write(one.path().join("bin/run"), "y").expect("written");
        assert_ne!(digest(&one), base, "content");
        let two = source(&files);
        fs::set_permissions(two.path().join("bin/run"), fs::Permissions::from_mode(0o755)).expect("set");
        assert_ne!(digest(&two), base, "mode");
        let three = source(&files);
        fs::rename(three.path().join("bin/run"), three.path().join("bin/run2")).expect("renamed");
        assert_ne!(digest(&three), base, "path");
        let four = source(&files);
        symlink("run", four.path().join("bin/link")).expect("linked");
        assert_ne!(digest(&four), base, "link");
    }

    #[test]
    fn the_tar_holds_files_as_they_are_and_the_given_dockerfile_last() {
        let root = source(&[("Dockerfile", "FROM a"), ("d/f", "text")]);
        symlink("f", root.path().join("d/l")).expect("linked");
        let context = Context::read(root.path(), ".", "Dockerfile").expect("read");
        let mut bytes = Vec::new();
        context.write_tar((".andon-dockerfile", "FROM b"), &mut bytes).expect("written");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut seen = Vec::new();
        for entry in archive.entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            seen.push((entry.path().expect("a path").to_string_lossy().into_owned(), text));
        }
        let expected = [
            ("Dockerfile", "FROM a"),
            ("d", ""),
            ("d/f", "text"),
            ("d/l", ""),
            (".andon-dockerfile", "FROM b"),
        ];
        assert_eq!(seen, expected.map(|(path, text)| (path.to_owned(), text.to_owned())));
    }
}
