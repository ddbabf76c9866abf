//! Images that the farm shares without a registry: found by name, fetched as `docker save | zstd`, loaded, checked.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use andon_proto::SharedImage;
use async_trait::async_trait;

use super::pipe;
use super::{ImageError, Images, note};
use crate::engine::ImageInfo;
use crate::hands::{Farm, FarmError, Notices};
use crate::link::FarmClient;

/// Largest image that is taken, uncompressed: against a blob that expands without end.
const IMAGE_BYTES_MAX: u64 = 64 << 30;

/// Where the farm keeps images.
#[async_trait]
pub trait ImageShelf: Send + Sync + fmt::Debug {
    /// By reference or by image id.
    async fn find(&self, reference: &str) -> Result<Option<SharedImage>, FarmError>;
    /// Writes the blob, checked against its digest, to a file that this call creates.
    async fn fetch(&self, digest: &str, into: &Path) -> Result<(), FarmError>;
}

#[async_trait]
impl ImageShelf for FarmClient {
    async fn find(&self, reference: &str) -> Result<Option<SharedImage>, FarmError> {
        self.find_image(reference).await
    }

    async fn fetch(&self, digest: &str, into: &Path) -> Result<(), FarmError> {
        self.get_blob(digest, into).await
    }
}

impl Images {
    /// The image that the farm shares under the reference: present already, or fetched and loaded.
    pub(super) async fn fetched_from_farm(
        &self,
        reference: &str,
        shared: &SharedImage,
        notices: &Notices,
    ) -> Result<ImageInfo, ImageError> {
        // One image may be shared under several references.
        let _turn = self.locks.turn(&format!("image {}", shared.image_id)).await;
        if let Some(image) = self.engine.inspect_image(&shared.image_id).await? {
            return Ok(image);
        }
        note(notices, format!("fetching image {reference} from the farm ({} MB)", shared.blob_size >> 20));
        let loaded = self.fetch_and_load(reference, shared).await?;
        match self.engine.inspect_image(&shared.image_id).await? {
            Some(image) => Ok(image),
            None => Err(ImageError::WrongImage {
                reference: reference.to_owned(),
                promised: shared.image_id.clone(),
                found: self.ids_of(&loaded).await,
            }),
        }
    }

    async fn fetch_and_load(&self, reference: &str, shared: &SharedImage) -> Result<Vec<String>, ImageError> {
        let failed = |source| ImageError::Io { what: reference.to_owned(), source };
        tokio::fs::create_dir_all(&self.scratch).await.map_err(failed)?;
        // Removed when it goes out of scope, on every way out.
        let folder = tempfile::Builder::new().prefix("image-").tempdir_in(&self.scratch).map_err(failed)?;
        let file = folder.path().join("image.tar.zst");
        self.shelf.fetch(&shared.blob_digest, &file).await.map_err(|error| (reference, error))?;
        let tar = pipe::read_in_background(move || {
            let decoder = zstd::Decoder::new(File::open(file)?)?;
            Ok(Limited { inner: decoder, left: IMAGE_BYTES_MAX })
        });
        Ok(self.engine.load_image(tar).await?)
    }

    async fn ids_of(&self, loaded: &[String]) -> String {
        let mut ids = Vec::new();
        for reference in loaded {
            if let Ok(Some(image)) = self.engine.inspect_image(reference).await {
                ids.push(image.id);
            }
        }
        if ids.is_empty() { "no image".to_owned() } else { ids.join(", ") }
    }
}

/// An error, not an end, where there is more than allowed.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(io::Error::other(format!("the image is larger than {IMAGE_BYTES_MAX} bytes")));
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_bytes_are_an_error_and_not_a_short_image() {
        let read = |left| {
            let mut text = Vec::new();
            Limited { inner: &b"12345"[..], left }.read_to_end(&mut text).map(|_| text)
        };
        assert_eq!(read(5).expect("within the limit"), b"12345");
        assert!(read(4).is_err());
    }
}
