//! The images of services and suites, as one run or one baseline needs them.
//!
//! Knows the engine and where images come from; must not know how they are got. Invariants: a service's image is the one that
//! its baseline was made with, or built from the same; a suite's is the same for a whole run.

use std::sync::Arc;

use andon_proto::{BaselineService, Image, Suite};

use super::workshop::{IMAGES_MAX, Workshop};
use crate::baseline::Source;
use crate::engine::ImageInfo;
use crate::hands::{Notices, ResolvedImage, WorkFailure};

impl Workshop {
    /// The image that a published baseline was made with, or one built from the same.
    pub(super) async fn image_of(
        &self,
        published: Option<&BaselineService>,
        image: Option<&Image>,
        service: &str,
        source: &Arc<Source>,
        notices: &Notices,
    ) -> Result<(ResolvedImage, ImageInfo), WorkFailure> {
        let Some(published) = published else {
            return Err(WorkFailure::infrastructure(format!("the baseline has no service `{service}`")));
        };
        if published.build_key.is_empty() {
            let here = self.options.engine.inspect_image(&published.image_id).await;
            if let Some(info) = here.map_err(|error| WorkFailure::infrastructure(error.to_string()))? {
                let image = ResolvedImage {
                    id: published.image_id.clone(),
                    reference: published.reference.clone(),
                    build_key: String::new(),
                };
                return Ok((image, info));
            }
        }
        let (resolved, info) = self.resolve(image, service, source, notices).await?;
        let same = match published.build_key.as_str() {
            "" => resolved.id == published.image_id,
            key => resolved.build_key == key,
        };
        if same {
            return Ok((resolved, info));
        }
        Err(WorkFailure::infrastructure(format!(
            "image {} of service `{service}` is {} here, the baseline was built with {}",
            published.reference, resolved.id, published.image_id
        )))
    }

    pub(super) async fn resolve(
        &self,
        image: Option<&Image>,
        what: &str,
        source: &Source,
        notices: &Notices,
    ) -> Result<(ResolvedImage, ImageInfo), WorkFailure> {
        let Some(image) = image else {
            return Err(WorkFailure::config(format!("`{what}` names no image")));
        };
        let resolved = self.options.images.resolve(image, &source.path()?, notices).await?;
        let info = self.options.engine.inspect_image(&resolved.id).await;
        let info = info.map_err(|error| WorkFailure::infrastructure(error.to_string()))?;
        let info = info.ok_or_else(|| {
            WorkFailure::infrastructure(format!("image {} vanished from the engine", resolved.reference))
        })?;
        Ok((resolved, info))
    }

    /// A suite's image, the same for a whole run: a tag that moves meanwhile changes nothing.
    pub(super) async fn suite_image(
        &self,
        run: u64,
        suite: &Suite,
        source: &Source,
        notices: &Notices,
    ) -> Result<ImageInfo, WorkFailure> {
        // Held over the resolution: lanes that need the same image wait for one build of it.
        let mut images = self.images.lock().await;
        let name = (run, suite.name.clone());
        if let Some(known) = images.get(&name) {
            return Ok(known.clone());
        }
        let (_, info) = self.resolve(suite.image.as_ref(), &suite.name, source, notices).await?;
        if images.len() >= IMAGES_MAX {
            images.clear();
        }
        images.insert(name, info.clone());
        Ok(info)
    }
}
