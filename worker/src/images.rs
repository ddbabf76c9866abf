//! From what the specification names to an image id that this worker's engine has.
//!
//! A reference is looked for in this order: present under a digest or an id; shared by the farm; present under its name;
//! in the registry that it names. A build's base images are resolved the same way first and pinned to what was found; its
//! key is a digest over everything that goes into it, and an image that carries that key is used again. Nothing here knows
//! stacks, runs or lanes.
//!
//! Invariants: what one reference or one build key stands for is loaded, pulled or built once however many ask at the same
//! time; an image that the farm shares is used only where its id is the one that was promised; nothing outside the
//! source's root is read.

mod build;
mod context;
mod dockerfile;
mod dockerignore;
mod locks;
mod offline;
mod pipe;
mod shelf;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use andon_proto::image::Source;
use andon_proto::{Build, Image};
use async_trait::async_trait;
use thiserror::Error;

pub use context::ContextError;
pub use dockerfile::DockerfileError;
pub use shelf::ImageShelf;

use crate::engine::{BuildError, BuildFailure, EngineError, ImageInfo, SharedEngine};
use crate::hands::{FarmError, ImageSource, Notices, ResolvedImage, WorkFailure};
use locks::Locks;

/// Before the key in the name of an image that was built here.
const BUILD_REPOSITORY: &str = "andon-build";

/// An image cannot be had.
#[derive(Debug, Error)]
pub enum ImageError {
    /// Neither here, nor in the farm, nor in a registry.
    #[error("image {reference} cannot be had: {}", .tried.join("; "))]
    NotHad {
        /// As it was asked for.
        reference: String,
        /// Every way that was tried, and how it ended.
        tried: Vec<String>,
        /// A way failed for a reason that is not the project's: it may work elsewhere or later.
        transient: bool,
    },
    /// The farm's copy is not what it says.
    #[error("the farm's copy of image {reference} holds {found}, not {promised}")]
    WrongImage {
        /// As it was asked for.
        reference: String,
        /// What the farm said.
        promised: String,
        /// What the engine loaded.
        found: String,
    },
    /// Its Dockerfile makes no sense, or names what cannot be known.
    #[error("cannot build {folder}")]
    Dockerfile {
        /// The context's folder.
        folder: String,
        /// What is wrong with it.
        #[source]
        source: DockerfileError,
    },
    /// Its context cannot be read.
    #[error("cannot build {folder}")]
    Context {
        /// The context's folder.
        folder: String,
        /// What is wrong with it.
        #[source]
        source: ContextError,
    },
    /// The build ran and failed.
    #[error("cannot build {folder}")]
    Build {
        /// The context's folder.
        folder: String,
        /// What the builder said.
        #[source]
        source: BuildFailure,
    },
    /// The engine itself failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Something on this worker failed: a disk, a thread.
    #[error("cannot prepare image {what}")]
    Io {
        /// Reference or folder.
        what: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The specification names no image at all.
    #[error("the specification names no image")]
    Unnamed,
}

impl From<ImageError> for WorkFailure {
    fn from(error: ImageError) -> Self {
        let mut reason = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            reason = format!("{reason}: {inner}");
            cause = inner.source();
        }
        match error {
            ImageError::NotHad { transient: true, .. }
            | ImageError::WrongImage { .. }
            | ImageError::Engine(_)
            | ImageError::Io { .. } => Self::infrastructure(reason),
            ImageError::Build { source, .. } => Self::baseline(reason).with_log(source.log),
            ImageError::NotHad { .. }
            | ImageError::Dockerfile { .. }
            | ImageError::Context { .. }
            | ImageError::Unnamed => Self::baseline(reason),
        }
    }
}

/// All images of a worker.
#[derive(Debug)]
pub struct Images {
    engine: SharedEngine,
    shelf: Arc<dyn ImageShelf>,
    /// For downloads, each removed as soon as it was loaded.
    scratch: PathBuf,
    locks: Locks,
}

impl Images {
    /// `scratch` is created when it is needed.
    #[must_use]
    pub fn new(engine: SharedEngine, shelf: Arc<dyn ImageShelf>, scratch: PathBuf) -> Self {
        Self { engine, shelf, scratch, locks: Locks::default() }
    }

    /// The image behind a reference.
    pub async fn by_reference(&self, reference: &str, notices: &Notices) -> Result<ImageInfo, ImageError> {
        let _turn = self.locks.turn(&format!("reference {reference}")).await;
        let pinned = reference.starts_with("sha256:") || reference.contains("@sha256:");
        if pinned && let Some(image) = self.engine.inspect_image(reference).await? {
            return Ok(image);
        }
        let mut tried = Vec::new();
        let mut transient = false;
        match self.shelf.find(reference).await {
            Ok(Some(shared)) => return self.fetched_from_farm(reference, &shared, notices).await,
            Ok(None) => tried.push("the farm does not share it (`andon image add` does)".to_owned()),
            Err(error) => {
                transient = true;
                tried.push(format!("the farm cannot be asked: {error}"));
            }
        }
        if !pinned {
            if let Some(image) = self.engine.inspect_image(reference).await? {
                return Ok(image);
            }
            tried.push("this worker's engine does not have it".to_owned());
        }
        note(notices, format!("pulling image {reference}"));
        match self.engine.pull_image(reference).await {
            Ok(()) => {
                let image = self.engine.inspect_image(reference).await?;
                if let Some(image) = image {
                    return Ok(image);
                }
                tried.push("pulled, and not there".to_owned());
            }
            Err(error @ EngineError::Unreachable { .. }) => return Err(error.into()),
            Err(error) => {
                transient |= matches!(error, EngineError::TimedOut { .. });
                tried.push(error.to_string());
            }
        }
        Err(ImageError::NotHad { reference: reference.to_owned(), tried, transient })
    }

    async fn resolve_source(
        &self,
        image: &Image,
        source: &Path,
        notices: &Notices,
    ) -> Result<ResolvedImage, ImageError> {
        match &image.source {
            None => Err(ImageError::Unnamed),
            Some(Source::Reference(reference)) => {
                let image = self.by_reference(reference, notices).await?;
                Ok(ResolvedImage { id: image.id, reference: reference.clone(), build_key: String::new() })
            }
            Some(Source::Build(build)) => self.by_build(build, source, notices).await,
        }
    }

    async fn by_build(
        &self,
        build: &Build,
        source: &Path,
        notices: &Notices,
    ) -> Result<ResolvedImage, ImageError> {
        let plan = build::Plan::read(build, source).await?;
        let mut bases = Vec::new();
        for base in plan.bases() {
            bases.push((base.to_owned(), self.by_reference(base, notices).await?.id));
        }
        let plan = plan.pin(bases);
        let key = plan.key();
        let folder = plan.folder().to_owned();
        let tag = format!("{BUILD_REPOSITORY}:{key}");
        let _turn = self.locks.turn(&tag).await;
        let id = match self.engine.inspect_image(&tag).await? {
            Some(image) => image.id,
            None => {
                note(notices, format!("building the image of {folder}"));
                let built = self.engine.build_image(plan.into_spec(&tag)).await;
                built.map_err(|error| match error {
                    BuildError::Failed(source) => ImageError::Build { folder: folder.clone(), source },
                    BuildError::Engine(error) => ImageError::Engine(error),
                })?
            }
        };
        Ok(ResolvedImage { id, reference: folder, build_key: key })
    }
}

#[async_trait]
impl ImageSource for Images {
    async fn resolve(
        &self,
        image: &Image,
        source: &Path,
        notices: &Notices,
    ) -> Result<ResolvedImage, WorkFailure> {
        Ok(self.resolve_source(image, source, notices).await?)
    }

    async fn have_without_registry(&self, reference: &str) -> Result<(), String> {
        self.present_or_shared(reference).await.map_err(|error| error.to_string())
    }
}

/// Nobody waits for a notice, and nothing depends on one.
fn note(notices: &Notices, line: String) {
    tracing::info!("{line}");
    let _ = notices.try_send(line);
}

impl From<(&str, FarmError)> for ImageError {
    fn from((reference, error): (&str, FarmError)) -> Self {
        let tried = vec![format!("the farm shares it, but {error}")];
        Self::NotHad { reference: reference.to_owned(), tried, transient: true }
    }
}

#[cfg(test)]
mod tests;
