//! `andon artifacts`: the files that a test left for people, and what was kept beside them.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use andon::connect::Connection;
use andon_proto::{Artifacts, GetArtifactsRequest, GetBlobRequest};
use clap::Args;

use super::error::CliError;
use super::farm::FarmArgs;
use super::{out, show};
use crate::report::exit::Exit;
use crate::report::text;

/// Workers keep at most 64 MiB of a unit; whoever sends more is not one of ours.
const ARCHIVE_BYTES_MAX: u64 = 128 << 20;
const UNPACKED_BYTES_MAX: u64 = 128 << 20;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  andon artifacts 12 tests/test_page.py::test_checkout -o shots\n  andon artifacts 12 \
                  tests/test_page.py::test_checkout --list\n\nTests leave files in the folder that $ANDON_ARTIFACTS names."
)]
pub(crate) struct ArtifactsArgs {
    /// Number of the run [default: the latest], then the test as `show` prints it: `suite/id` or `id`
    #[arg(value_name = "RUN|TEST", num_args = 1..=2, required = true)]
    words: Vec<String>,
    /// Which attempt, as `show --json` numbers them [default: the last]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    attempt: Option<u64>,
    /// Folder to write them to, made where it is missing; files that are there are not replaced
    #[arg(short, long, value_name = "DIR", default_value = "artifacts")]
    output: PathBuf,
    /// Only name them
    #[arg(long)]
    list: bool,
}

pub(crate) async fn artifacts(args: ArtifactsArgs, farm: &FarmArgs) -> Result<Exit, CliError> {
    let (number, mut tests) = show::split_run(&args.words);
    let Some(test) = tests.pop().filter(|_| tests.is_empty()) else {
        return Err(CliError::usage("which test's files?").hint("andon artifacts RUN TEST"));
    };
    let connection = farm.connect().await?;
    let run = show::run_or_latest(&connection, number, "").await?;
    let request = GetArtifactsRequest { run, test, attempt: args.attempt.unwrap_or(0) };
    let answer = connection.farm().get_artifacts(request).await?.into_inner();
    let kept = answer.artifacts.unwrap_or_default();
    let archive = download(&connection, &kept).await?;
    let into = (!args.list).then_some(args.output.as_path());
    let names = unpack(&archive, into).map_err(|error| broken(&error))?;
    for name in &names {
        out::line(&text::one_line(name))?;
    }
    if kept.left_out > 0 {
        out::note(&format!("{} more were too many, too large or no plain files", kept.left_out));
    }
    Ok(Exit::Passed)
}

pub(super) async fn download(connection: &Connection, kept: &Artifacts) -> Result<Vec<u8>, CliError> {
    let damaged = |what: &str| CliError::infrastructure(format!("the artifacts {what}"));
    let request = GetBlobRequest { digest: kept.blob_digest.clone(), offset: 0 };
    let mut chunks = connection.blobs().get(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.message().await? {
        bytes.extend_from_slice(&chunk.data);
        if bytes.len() as u64 > ARCHIVE_BYTES_MAX {
            return Err(damaged("are larger than a worker sends"));
        }
    }
    if blake3::hash(&bytes).to_hex().as_str() != kept.blob_digest {
        return Err(damaged("are not what the worker sent"));
    }
    Ok(bytes)
}

/// The contents of those files of an archive that are given a name.
pub(super) fn files(
    archive: &[u8],
    named: impl Fn(&Path) -> Option<String>,
) -> Result<BTreeMap<String, Vec<u8>>, CliError> {
    let mut found = BTreeMap::new();
    let read = each(archive, |path, entry| {
        if let Some(name) = named(path) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            found.insert(name, bytes);
        }
        Ok(())
    });
    read.map_err(|error| broken(&error))?;
    Ok(found)
}

fn broken(error: &io::Error) -> CliError {
    CliError::infrastructure("the artifacts cannot be unpacked").because(error)
}

/// The names of the plain files in the archive, each written below `into` where that is given.
fn unpack(archive: &[u8], into: Option<&Path>) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    each(archive, |name, entry| {
        if let Some(into) = into {
            std::fs::create_dir_all(into)?;
            if into.join(name).symlink_metadata().is_ok() {
                let text = format!("{} is there already", into.join(name).display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            // Also sees to it that no link on the way leads out.
            if !entry.unpack_in(into)? {
                return Err(wrong(name));
            }
        }
        names.push(name.to_string_lossy().into_owned());
        Ok(())
    })?;
    Ok(names)
}

type Unpacked<'a> = io::Take<zstd::Decoder<'static, io::BufReader<&'a [u8]>>>;

/// Each plain file of an archive, in its order. A name that leads elsewhere and anything but a plain file is an error: no worker of
/// ours packs such.
fn each<'a>(
    archive: &'a [u8],
    mut take: impl FnMut(&Path, &mut tar::Entry<'_, Unpacked<'a>>) -> io::Result<()>,
) -> io::Result<()> {
    let unpacked = zstd::Decoder::new(archive)?.take(UNPACKED_BYTES_MAX);
    for entry in tar::Archive::new(unpacked).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let is_inside = name.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !entry.header().entry_type().is_file() || !is_inside {
            return Err(wrong(&name));
        }
        take(&name, &mut entry)?;
    }
    Ok(())
}

fn wrong(name: &Path) -> io::Error {
    io::Error::other(format!("{name:?} is not a plain file in the archive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(add: impl FnOnce(&mut tar::Builder<&mut Vec<u8>>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut archive = tar::Builder::new(&mut bytes);
        add(&mut archive);
        archive.finish().unwrap();
        drop(archive);
        zstd::bulk::compress(&bytes, 1).unwrap()
    }

    fn header(kind: tar::EntryType, name: &[u8]) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        // Not by `set_path`, which refuses what an attacker would not.
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(0);
        header.set_cksum();
        header
    }

    #[test]
    fn plain_files_are_written_and_never_replaced() {
        let archive = packed(|archive| {
            let mut header = tar::Header::new_gnu();
            header.set_size(3);
            header.set_mode(0o644);
            archive.append_data(&mut header, "shots/a.png", &b"abc"[..]).unwrap();
        });
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("out");
        assert_eq!(unpack(&archive, None).unwrap(), ["shots/a.png"]);
        assert!(!into.exists());
        assert_eq!(unpack(&archive, Some(&into)).unwrap(), ["shots/a.png"]);
        assert_eq!(std::fs::read(into.join("shots/a.png")).unwrap(), b"abc");
        assert_eq!(unpack(&archive, Some(&into)).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn files_that_are_asked_for_are_read() {
        let archive = packed(|archive| {
            for (name, bytes) in [("service-logs/3-5/db.log", &b"said"[..]), ("shots/a.png", b"abc")] {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                archive.append_data(&mut header, name, bytes).unwrap();
            }
        });
        let read = |attempt| {
            files(&archive, |path| andon_worker::service_of_log(path, attempt).map(str::to_owned)).unwrap()
        };
        assert_eq!(read(4), [("db".to_owned(), b"said".to_vec())].into());
        assert_eq!(read(6), BTreeMap::new());
    }

    #[test]
    fn names_that_lead_elsewhere_and_links_are_refused() {
        let hostile = [
            header(tar::EntryType::Regular, b"../out"),
            header(tar::EntryType::Regular, b"/etc/out"),
            header(tar::EntryType::Symlink, b"link"),
            header(tar::EntryType::Char, b"device"),
        ];
        for header in hostile {
            let archive = packed(|archive| archive.append(&header, std::io::empty()).unwrap());
            let folder = tempfile::tempdir().unwrap();
            assert!(unpack(&archive, Some(folder.path())).is_err(), "{header:?}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let archive = packed(|archive| {
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            archive.append_data(&mut header, "link/out", &b"x"[..]).unwrap();
        });
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("link")).unwrap();
        assert!(unpack(&archive, Some(folder.path())).is_err());
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}
