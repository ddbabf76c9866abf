//! The files that a unit's tests left for people, and what the services had written where one failed: taken into one archive.
//!
//! The folder was written by the project's code, which may still be at it: nothing is followed, only plain files are taken, and
//! what is read is bounded. What is left out is counted, never silently missing.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use andon_proto::Artifacts;
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags};

use super::Workshop;
use super::service_logs::{self, ServiceLogs};
use crate::hands::{WorkFailure, blocking};

/// Of one unit.
const FILES_MAX: u32 = 1_000;
/// Of one unit, before compression.
const BYTES_MAX: u64 = 64 << 20;
const DEPTH_MAX: usize = 16;
/// Names that are looked at, whatever they are.
const NAMES_MAX: u32 = 10_000;
const LEVEL: i32 = 3;

/// What an archive holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Collected {
    pub(super) files: u32,
    pub(super) bytes: u64,
    /// Too many, too large, or not plain files.
    pub(super) left_out: u32,
}

/// Puts what is in the folder, and the logs, into the farm's blob store. `None` where there is nothing.
pub(super) async fn keep(
    workshop: &Workshop,
    folder: PathBuf,
    logs: ServiceLogs,
) -> Result<Option<Artifacts>, WorkFailure> {
    // Mostly there is nothing, and nobody should wait for that.
    if logs.files.is_empty() && std::fs::read_dir(&folder).is_ok_and(|mut names| names.next().is_none()) {
        return Ok(None);
    }
    let scratch = workshop.scratch().to_owned();
    let failed = |error: io::Error| WorkFailure::infrastructure(format!("cannot pack artifacts: {error}"));
    let packed = blocking(move || {
        let mut archive = tempfile::NamedTempFile::new_in(scratch)?;
        let collected = collect(&folder, &logs, archive.as_file_mut())?;
        let size = archive.as_file().metadata()?.len();
        Ok(collected.map(|collected| (archive, collected, size)))
    });
    let Some((archive, collected, blob_size)) = packed.await?.map_err(failed)? else { return Ok(None) };
    let digest = workshop.options.farm.put_blob(archive.path()).await;
    let blob_digest = digest.map_err(|error| WorkFailure::infrastructure(error.to_string()))?;
    let Collected { files, bytes, left_out } = collected;
    Ok(Some(Artifacts { blob_digest, blob_size, files, bytes, left_out }))
}

/// Writes the logs and what is in the folder as a `tar.zst`. `None`, and nothing that counts is written, where there is nothing.
pub(super) fn collect(folder: &Path, logs: &ServiceLogs, into: impl Write) -> io::Result<Option<Collected>> {
    let root = rustix::fs::openat(CWD, folder, READ | OFlags::DIRECTORY, Mode::empty())?;
    let mut archive = tar::Builder::new(zstd::Encoder::new(into, LEVEL)?);
    let mut collected = Collected { left_out: logs.left_out, ..Collected::default() };
    for (path, log) in &logs.files {
        add(&mut archive, log.as_slice(), path, &mut collected)?;
    }
    let mut names = 0;
    let mut folders = vec![(root, PathBuf::new(), 0)];
    while let Some((folder, path, depth)) = folders.pop() {
        for name in sorted_names(&folder, &mut names, &mut collected.left_out)? {
            let path = path.join(&name);
            if path == Path::new(service_logs::FOLDER) {
                // What Andon itself says is not to be said by others.
                collected.left_out += 1;
                continue;
            }
            // Gone by now, a link, a pipe without a writer: whatever cannot be opened like this is no plain file.
            let Ok(found) = rustix::fs::openat(&folder, &name, READ, Mode::empty()) else {
                collected.left_out += 1;
                continue;
            };
            match FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) {
                FileType::Directory if depth < DEPTH_MAX => folders.push((found, path, depth + 1)),
                FileType::RegularFile => add(&mut archive, File::from(found), &path, &mut collected)?,
                _ => collected.left_out += 1,
            }
        }
    }
    archive.into_inner()?.finish()?.flush()?;
    Ok((collected != Collected::default()).then_some(collected))
}

/// A named pipe in a file's place must not stop us, and a link must not lead us.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Sorted, so that the same files are the same archive wherever they are taken.
fn sorted_names(folder: &OwnedFd, names: &mut u32, left_out: &mut u32) -> io::Result<Vec<OsString>> {
    let mut sorted = Vec::new();
    for entry in Dir::read_from(folder.as_fd())? {
        let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
        if name == "." || name == ".." {
            continue;
        }
        if *names >= NAMES_MAX {
            *left_out += 1;
            break;
        }
        *names += 1;
        sorted.push(name);
    }
    sorted.sort_unstable();
    Ok(sorted)
}

fn add<W: Write>(
    archive: &mut tar::Builder<W>,
    file: impl Read,
    path: &Path,
    collected: &mut Collected,
) -> io::Result<()> {
    let room = BYTES_MAX - collected.bytes;
    let mut bytes = Vec::new();
    // Read before its size is written: it may still grow.
    file.take(room + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > room || collected.files >= FILES_MAX {
        collected.left_out += 1;
        return Ok(());
    }
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, path, bytes.as_slice())?;
    collected.files += 1;
    collected.bytes += bytes.len() as u64;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn names_in(archive: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(zstd::Decoder::new(archive).unwrap());
        let entries = archive.entries().unwrap();
        entries.map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn plain_files_are_taken_with_their_folders_and_nothing_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("shots/deep")).unwrap();
        fs::write(at("shots/deep/a.png"), "a").unwrap();
        fs::write(at("report.html"), "report").unwrap();
        symlink("/etc/passwd", at("passwd")).unwrap();
        symlink("/etc", at("etc")).unwrap();
        rustix::fs::mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let mut archive = Vec::new();
        let collected = collect(dir.path(), &ServiceLogs::default(), &mut archive).unwrap();
        assert_eq!(collected, Some(Collected { files: 2, bytes: 7, left_out: 3 }));
        assert_eq!(names_in(&archive), ["report.html", "shots/deep/a.png"]);
        let mut again = Vec::new();
        collect(dir.path(), &ServiceLogs::default(), &mut again).unwrap();
        assert_eq!(archive, again, "the same files, the same bytes");
    }

    #[test]
    fn logs_of_services_come_first_and_nobody_else_speaks_for_them() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("service-logs/1-1")).unwrap();
        fs::write(dir.path().join("service-logs/1-1/db.log"), "forged").unwrap();
        fs::write(dir.path().join("a.png"), "a").unwrap();
        let path = PathBuf::from("service-logs/1-1/db.log");
        let logs =
            ServiceLogs { files: vec![(path, b"said".to_vec())], left_out: 2, ..ServiceLogs::default() };
        let mut archive = Vec::new();
        let collected = collect(dir.path(), &logs, &mut archive).unwrap();
        assert_eq!(collected, Some(Collected { files: 2, bytes: 5, left_out: 3 }));
        assert_eq!(names_in(&archive), ["service-logs/1-1/db.log", "a.png"]);
    }

    #[test]
    fn an_empty_folder_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("empty")).unwrap();
        assert_eq!(collect(dir.path(), &ServiceLogs::default(), Vec::new()).unwrap(), None);
    }

    #[test]
    fn what_is_too_much_is_left_out_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("a-huge-one")).unwrap().set_len(BYTES_MAX + 1).unwrap();
        for file in 0..=FILES_MAX {
            fs::write(dir.path().join(format!("{file:04}")), "").unwrap();
        }
        let collected = collect(dir.path(), &ServiceLogs::default(), io::sink()).unwrap().unwrap();
        assert_eq!((collected.files, collected.left_out), (FILES_MAX, 2));
    }
}
