//! An OCI registry as the place where baselines lie: one repository, an artifact for each baseline, tagged with its key.
//!
//! ```text
//!   push: HEAD each blob ──> only what is missing ──> configuration ──> manifest, under the key as its tag
//!   pull: GET with Range, from the byte that is here ──> both digests and the size ──> whole, or refused and removed
//! ```
//!
//! Knows the wire's manifests and HTTP; must not know the pool, the coordinator or Docker. Invariants: a file that is answered
//! as whole has the size and the digests that the manifest says; a tag is written after everything that it names; what may
//! pass is tried again for a bounded time, everything else is told at once.

mod artifact;
mod config;
mod failure;
mod pull;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use andon_proto::{BaselineLayer, BaselineManifest};
use futures::StreamExt;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::OCI_IMAGE_MEDIA_TYPE;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use tokio::time::{Instant, timeout};
use tokio_util::io::ReaderStream;

pub use artifact::ARTIFACT_TYPE;
pub(crate) use artifact::layers_of;
pub use config::{Login, RegistryConfig, RegistryConfigError, docker_login, login_of};
pub use failure::RegistryError;
use failure::{Kind, kind_of, said};

use crate::link::Backoff;
use pull::Seen;

/// How long what may pass is tried again without any progress.
const RETRY_FOR: Duration = Duration::from_secs(20);
/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a question may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How long a question may take whose answer is not needed.
const GLANCE_LIMIT: Duration = Duration::from_secs(2);
/// An upload may take this long …
const UPLOAD_BASE: Duration = Duration::from_secs(60);
/// … and as long as its bytes take at this pace.
const UPLOAD_BYTES_A_SECOND_MIN: u64 = 1 << 20;
/// Bytes of a file that are read at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Asks for something that is in every registry that can be used: SHA-256 of nothing. Not having it is an answer, too.
const NOTHING: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    client: Client,
    config: Arc<RegistryConfig>,
    retry_for: Duration,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Registry {
    /// Connects with the first call.
    ///
    /// # Errors
    /// Where this machine has no certificates to check others by.
    pub async fn new(config: RegistryConfig) -> Result<Self, RegistryError> {
        let told = ClientConfig {
            protocol: if config.insecure { ClientProtocol::Http } else { ClientProtocol::Https },
            use_monolithic_push: true,
            connect_timeout: Some(CONNECT_LIMIT),
            user_agent: concat!("andon/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(told).map_err(|error| {
            let said = said(&error);
            RegistryError::Failed(format!("cannot speak to the registry {}: {said}", config.address()))
        })?;
        let auth = match &config.login {
            Some(login) => RegistryAuth::Basic(login.user.clone(), login.password.clone()),
            None => RegistryAuth::Anonymous,
        };
        client.store_auth_if_needed(&config.host, &auth).await;
        Ok(Self { client, config: Arc::new(config), retry_for: RETRY_FOR })
    }

    /// The same, but what may pass is waited for no longer than this.
    #[cfg(test)]
    pub(crate) fn patient_for(mut self, retry_for: Duration) -> Self {
        self.retry_for = retry_for;
        self
    }

    /// `HOST[:PORT]/PREFIX`.
    #[must_use]
    pub fn address(&self) -> String {
        self.config.address()
    }

    /// Whether the registry is there, and takes the credentials.
    ///
    /// # Errors
    /// Where it is away or refuses them.
    pub async fn greet(&self) -> Result<(), RegistryError> {
        let reference = self.reference("none");
        let auth = match &self.config.login {
            Some(login) => RegistryAuth::Basic(login.user.clone(), login.password.clone()),
            None => RegistryAuth::Anonymous,
        };
        let greeting = async {
            // Where tokens are given out, one that may also write.
            self.client.auth(&reference, &auth, RegistryOperation::Push).await?;
            self.client.blob_exists(&reference, NOTHING).await
        };
        self.within(CALL_LIMIT, "anything", greeting).await.map(drop)
    }

    /// Whether the blob is there.
    ///
    /// # Errors
    /// Where the registry cannot be asked.
    pub(crate) async fn has_blob(&self, sha256: &str) -> Result<bool, RegistryError> {
        let (reference, digest) = (self.reference("none"), artifact::oci_digest(sha256));
        self.again(&format!("blob {digest}"), CALL_LIMIT, || self.client.blob_exists(&reference, &digest))
            .await
    }

    /// Stores a file's bytes where the registry has not got them, and answers with their digests. True where they were sent.
    ///
    /// # Errors
    /// Where the file cannot be read, or the registry does not take it.
    pub(crate) async fn put_blob(&self, file: &Path) -> Result<(BaselineLayer, bool), RegistryError> {
        let unreadable =
            |error: std::io::Error| RegistryError::Failed(format!("cannot read {}: {error}", file.display()));
        let seen = Seen::of(file).await.map_err(unreadable)?;
        let layer = seen.layer();
        if self.has_blob(&layer.sha256).await? {
            return Ok((layer, false));
        }
        let (reference, digest) = (self.reference("none"), artifact::oci_digest(&layer.sha256));
        let limit = UPLOAD_BASE + Duration::from_secs(layer.blob_size / UPLOAD_BYTES_A_SECOND_MIN);
        let send = || async {
            let opened = tokio::fs::File::open(file).await?;
            let chunks = ReaderStream::with_capacity(opened, CHUNK_BYTES);
            let chunks = chunks.map(|chunk| chunk.map_err(OciDistributionError::from));
            self.client.push_blob_stream(&reference, chunks, &digest, Some(layer.blob_size)).await
        };
        self.again(&format!("place for blob {digest}"), limit, send).await?;
        Ok((layer, true))
    }

    /// Writes the artifact of a baseline all of whose blobs are in the registry. Answers with where it is:
    /// `HOST[:PORT]/PREFIX:KEY@DIGEST`.
    ///
    /// # Errors
    /// Where the registry does not take it.
    pub(crate) async fn put_artifact(&self, baseline: &BaselineManifest) -> Result<String, RegistryError> {
        let config = artifact::config_of(baseline);
        let config_sha256 = Seen::bytes(&config).layer().sha256;
        let manifest = artifact::manifest_of(baseline, &config_sha256, config.len());
        let body = serde_json::to_vec(&manifest).expect("a manifest is JSON");
        let digest = artifact::oci_digest(&Seen::bytes(&body).layer().sha256);
        let reference = self.reference(&baseline.key);
        let config_digest = artifact::oci_digest(&config_sha256);
        let put_config = || self.client.push_blob(&reference, config.clone(), &config_digest);
        self.again("place for a configuration", CALL_LIMIT, put_config).await?;
        let put_manifest = || {
            let kind = OCI_IMAGE_MEDIA_TYPE.parse().expect("a media type can be a header");
            self.client.push_manifest_raw(&reference, body.clone(), kind)
        };
        self.again("place for a manifest, or not all of what it names,", CALL_LIMIT, put_manifest).await?;
        Ok(format!("{}:{}@{digest}", self.address(), baseline.key))
    }

    /// Whether the baseline's tag is gone for certain; asked once, and not for long.
    pub(crate) async fn has_lost(&self, key: &str) -> bool {
        let reference = self.reference(key);
        let digest = self.client.fetch_manifest_digest(&reference, &RegistryAuth::Anonymous);
        let asked = self.within(GLANCE_LIMIT, "such tag", digest).await;
        matches!(asked, Err(RegistryError::Missing { .. }))
    }

    fn reference(&self, tag: &str) -> Reference {
        Reference::with_tag(self.config.host.clone(), self.config.prefix.clone(), tag.to_owned())
    }

    /// Asks until there is an answer that does not pass, or for long enough.
    async fn again<T, Asked>(
        &self,
        what: &str,
        limit: Duration,
        mut ask: impl FnMut() -> Asked,
    ) -> Result<T, RegistryError>
    where
        Asked: Future<Output = Result<T, OciDistributionError>>,
    {
        let mut patience = Patience::new(self.retry_for);
        loop {
            match self.within(limit, what, ask()).await {
                Err(error) => patience.after(error).await?,
                answer => return answer,
            }
        }
    }

    async fn within<T>(
        &self,
        limit: Duration,
        what: &str,
        asked: impl Future<Output = Result<T, OciDistributionError>>,
    ) -> Result<T, RegistryError> {
        // Boxed: what the client does is large.
        match timeout(limit, Box::pin(asked)).await {
            Ok(answer) => answer.map_err(|error| self.failure(&error, what)),
            Err(_) => Err(self.away(format!("no answer within {limit:?}"))),
        }
    }

    fn failure(&self, error: &OciDistributionError, what: &str) -> RegistryError {
        let (registry, why) = (self.address(), said(error));
        match kind_of(error) {
            Kind::Denied => {
                let who = match &self.config.login {
                    Some(login) => format!("user {:?}", login.user),
                    None => "access without credentials".to_owned(),
                };
                RegistryError::Denied { registry, who, why }
            }
            Kind::Missing => RegistryError::Missing { registry, what: what.to_owned() },
            Kind::Away => RegistryError::Away { registry, why },
            Kind::Refused => RegistryError::Failed(format!("the registry {registry} cannot be used: {why}")),
        }
    }

    fn away(&self, why: String) -> RegistryError {
        RegistryError::Away { registry: self.address(), why }
    }
}

/// How often and how long to try again.
struct Patience {
    since: Instant,
    limit: Duration,
    backoff: Backoff,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { since: Instant::now(), limit, backoff: Backoff::default() }
    }

    fn renew(&mut self) {
        self.since = Instant::now();
        self.backoff.reset();
    }

    /// Waits before the next try, or says that there is none.
    async fn after(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        if !matches!(error, RegistryError::Away { .. }) || self.since.elapsed() >= self.limit {
            return Err(error);
        }
        tracing::debug!(%error, "trying again");
        tokio::time::sleep(self.backoff.next(rand::random())).await;
        Ok(())
    }
}
