//! `andon image add`: an image of this machine's engine, made known to all workers without a registry.
//!
//! The image is saved, compressed into a temporary file (its digest has to be known before the first byte is sent)
//! and streamed from there into the farm's blob store. Memory stays flat whatever the image's size. One that the farm has
//! under any name is not saved again.

use std::io::{self, Write as _};

use andon::connect::Connection;
use andon::submit;
use andon_proto::{FindImageRequest, SharedImage};
use andon_worker::engine::{DockerEngine, Engine as _};
use clap::Subcommand;
use tokio_stream::StreamExt as _;

use super::error::CliError;
use super::farm::FarmArgs;
use super::{engine, out};
use crate::report::exit::Exit;
use crate::report::text::one_line;
use crate::report::words;

/// Images are compressed to be moved once, not to be kept small: the fastest level is fast enough for a LAN.
const ZSTD_LEVEL: i32 = 1;
/// Pieces read ahead of the compression.
const CHUNKS_AHEAD: usize = 4;

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Give images of this machine's Docker engine to all workers
    #[command(
        after_help = "Examples:\n  andon image add mysql:9\n  andon image add shop-tests:dev shop-db:dev"
    )]
    Add {
        /// References or ids, as `docker image ls` shows them
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

pub(crate) async fn image(command: ImageCommand, farm: &FarmArgs) -> Result<Exit, CliError> {
    let ImageCommand::Add { names } = command;
    let connection = farm.connect().await?;
    let engine = engine::connect().await?;
    for name in &names {
        add(&engine, &connection, name).await?;
    }
    Ok(Exit::Passed)
}

async fn add(engine: &DockerEngine, connection: &Connection, name: &str) -> Result<(), CliError> {
    let failed = |what: &str| CliError::infrastructure(format!("cannot {what} the image {name}"));
    let info = engine
        .inspect_image(name)
        .await
        .map_err(|error| failed("look at").because(&error))?
        .ok_or_else(|| {
            CliError::usage(format!("the engine at {} has no image {name}", engine.address()))
                .hint("`docker image ls` shows what it has; `docker pull` and `docker build` give it more")
        })?;
    let asked = FindImageRequest { reference: info.id.clone() };
    let known = connection.farm().find_image(asked).await?.into_inner().image;
    let (shared, how) = match known.filter(|known| known.image_id == info.id) {
        Some(known) => {
            let how = format!("the farm has it already, {} packed", words::bytes(known.blob_size));
            (SharedImage { reference: name.to_owned(), ..known }, how)
        }
        None => hand_over(engine, connection, name, info.id).await?,
    };
    connection.farm().add_image(shared).await?;
    out::line(&format!("added {} ({how})", one_line(name)))?;
    Ok(())
}

/// Sends an image's bytes; answers with what it is to be known as, and with how they went.
async fn hand_over(
    engine: &DockerEngine,
    connection: &Connection,
    name: &str,
    image_id: String,
) -> Result<(SharedImage, String), CliError> {
    let packed = save(engine, name).await?;
    let present = submit::missing(connection, std::slice::from_ref(&packed.digest)).await?.is_empty();
    if !present {
        submit::put_file(connection, &packed.digest, packed.file.path()).await?;
    }
    let how = if present { ", its bytes were there already" } else { "" };
    let how = format!("{} packed{how}", words::bytes(packed.size));
    let (reference, blob_digest, blob_size) = (name.to_owned(), packed.digest, packed.size);
    Ok((SharedImage { reference, image_id, blob_digest, blob_size }, how))
}

/// A compressed image on this machine's disk, gone when dropped.
struct Packed {
    file: tempfile::NamedTempFile,
    digest: String,
    size: u64,
}

async fn save(engine: &DockerEngine, name: &str) -> Result<Packed, CliError> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        CliError::infrastructure(format!("cannot save the image {name}")).because(error)
    };
    let mut tar = engine.save_image(name).await.map_err(|error| failed(&error))?;
    let (send, mut receive) = tokio::sync::mpsc::channel::<bytes::Bytes>(CHUNKS_AHEAD);
    let packing = tokio::task::spawn_blocking(move || -> io::Result<Packed> {
        let file = Hashing { file: tempfile::NamedTempFile::new()?, hasher: blake3::Hasher::new(), size: 0 };
        let mut encoder = zstd::Encoder::new(file, ZSTD_LEVEL)?;
        while let Some(piece) = receive.blocking_recv() {
            encoder.write_all(&piece)?;
        }
        let Hashing { file, hasher, size } = encoder.finish()?;
        Ok(Packed { file, digest: hasher.finalize().to_hex().to_string(), size })
    });
    let mut broken = None;
    while let Some(piece) = tar.next().await {
        match piece {
            Ok(piece) => {
                if send.send(piece).await.is_err() {
                    // The packing side ended with an error, which it says below.
                    break;
                }
            }
            Err(error) => {
                broken = Some(error);
                break;
            }
        }
    }
    drop(send);
    let packed = packing.await.expect("packing does not panic").map_err(|error| failed(&error))?;
    match broken {
        Some(error) => Err(failed(&error)),
        None => Ok(packed),
    }
}

/// Counts and digests what goes to the file.
struct Hashing {
    file: tempfile::NamedTempFile,
    hasher: blake3::Hasher,
    size: u64,
}

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
