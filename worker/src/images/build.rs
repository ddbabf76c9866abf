//! A build of the specification: read, its base images pinned, its key.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use andon_proto::Build;

use super::ImageError;
use super::context::{Context, put};
use super::dockerfile::Dockerfile;
use super::pipe;
use crate::engine::BuildSpec;

/// What a build without a word about it uses.
const DEFAULT_DOCKERFILE: &str = "Dockerfile";
/// The pinned Dockerfile's name in the context; nobody else's file is replaced by it.
const PINNED_DOCKERFILE: &str = ".andon-pinned.Dockerfile";
/// Part of every key: changed where the same input is to give another image.
const KEY_DOMAIN: &str = "andon image build, version 1";
/// On every image that is built here.
const LABEL_KEY: &str = "dev.andon.build-key";

/// A build whose files were read and whose base images are known by name.
#[derive(Debug)]
pub(super) struct Plan {
    folder: String,
    target: String,
    args: BTreeMap<String, String>,
    context: Arc<Context>,
    dockerfile: Dockerfile,
}

/// A build whose base images are known by id.
#[derive(Debug)]
pub(super) struct Pinned {
    plan: Plan,
    ids: BTreeMap<String, String>,
}

impl Plan {
    /// Reads the context of a build beneath the unpacked source.
    pub(super) async fn read(build: &Build, source: &Path) -> Result<Self, ImageError> {
        let folder = if build.context.is_empty() { "." } else { &build.context }.to_owned();
        let name =
            if build.dockerfile.is_empty() { DEFAULT_DOCKERFILE } else { &build.dockerfile }.to_owned();
        let args: BTreeMap<String, String> =
            build.args.iter().map(|arg| (arg.key.clone(), arg.value.clone())).collect();
        let read = {
            let (source, folder) = (source.to_owned(), folder.clone());
            tokio::task::spawn_blocking(move || Context::read(&source, &folder, &name))
        };
        let io = |source| ImageError::Io { what: folder.clone(), source };
        let context = read.await.map_err(|error| io(std::io::Error::other(error)))?;
        let context = context.map_err(|source| ImageError::Context { folder: folder.clone(), source })?;
        let dockerfile = Dockerfile::parse(&context.dockerfile, &build.target, &args)
            .map_err(|source| ImageError::Dockerfile { folder: folder.clone(), source })?;
        let context = Arc::new(context);
        Ok(Self { folder, target: build.target.clone(), args, context, dockerfile })
    }

    /// Names of the images that it builds on.
    pub(super) fn bases(&self) -> Vec<&str> {
        self.dockerfile.bases()
    }

    /// With the ids of those images.
    pub(super) fn pin(self, ids: impl IntoIterator<Item = (String, String)>) -> Pinned {
        Pinned { plan: self, ids: ids.into_iter().collect() }
    }
}

impl Pinned {
    /// As the specification names it.
    pub(super) fn folder(&self) -> &str {
        &self.plan.folder
    }

    /// Digest over everything that goes into the image.
    pub(super) fn key(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        put(&mut hasher, KEY_DOMAIN.as_bytes());
        put(&mut hasher, self.plan.context.digest.as_bytes());
        put(&mut hasher, self.plan.context.dockerfile.as_bytes());
        put(&mut hasher, self.plan.target.as_bytes());
        for pairs in [&self.plan.args, &self.ids] {
            hasher.update(&(pairs.len() as u64).to_le_bytes());
            for (name, value) in pairs {
                put(&mut hasher, name.as_bytes());
                put(&mut hasher, value.as_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    /// What the engine is told; the context is read while it is sent.
    pub(super) fn into_spec(self, tag: &str) -> BuildSpec {
        let labels = BTreeMap::from([(LABEL_KEY.to_owned(), self.key())]);
        let text = self.plan.dockerfile.pinned(&self.ids);
        let context = Arc::clone(&self.plan.context);
        let tar = pipe::write_in_background(move |out| context.write_tar((PINNED_DOCKERFILE, &text), out));
        BuildSpec {
            context: tar,
            dockerfile: PINNED_DOCKERFILE.to_owned(),
            target: self.plan.target,
            args: self.plan.args,
            labels,
            tag: tag.to_owned(),
        }
    }
}
