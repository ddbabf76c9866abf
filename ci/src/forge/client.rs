//! Telling a forge: one trait, one implementation over HTTP for all of them, and what its answers amount to.
//!
//! The token is in one header, marked as sensitive; it is in no URL, no error and no log. Redirects are not followed:
//! they could carry it elsewhere. Names are resolved by [`Guard`], so no answer of a name server leads inside.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::guard::{Guard, Guarded};
use super::{Kind, Secret, Status, gitea, github, gitlab};

/// How long a request may take.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(20);
/// The largest answer that is read: a page of pull requests is a few hundred kB.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// The most open pull requests that are asked for, those that moved last.
pub(super) const PULLS_PAGE: usize = 50;
/// What is kept of a refusal's words.
const SAID_LEN_MAX: usize = 300;
/// The longest wait that a forge can ask for.
const WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// Somebody with an account on the forge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// The login.
    pub name: String,
    /// The account's number: a name can change hands.
    pub id: u64,
}

/// A pull or merge request that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenPull {
    /// As people know it.
    pub number: u64,
    /// Full id of the head.
    pub commit: String,
    /// The head is in another repository.
    pub fork: bool,
}

impl OpenPull {
    /// Of an entry of a list: the paths of number, head, and the two repositories' numbers. `None` where one is missing.
    pub(super) fn read(
        entry: &Value,
        number: &str,
        commit: &str,
        source: &str,
        target: &str,
    ) -> Option<Self> {
        let at = |path: &str| path.split('.').try_fold(entry, |value, key| value.get(key));
        let target = at(target)?.as_u64()?;
        Some(Self {
            number: at(number)?.as_u64()?,
            commit: at(commit)?.as_str()?.to_owned(),
            // A repository that was deleted has no number: a fork's.
            fork: at(source).and_then(Value::as_u64) != Some(target),
        })
    }
}

/// Why a forge was not told.
#[derive(Debug, thiserror::Error)]
pub enum ForgeError {
    /// Not reached, or its fault: to be tried again.
    #[error("{host} is away: {why}")]
    Away {
        /// Which.
        host: String,
        /// What happened.
        why: String,
    },
    /// Too many requests: to be tried again after a while that it may say.
    #[error("{host} wants fewer requests ({status})")]
    Slower {
        /// Which.
        host: String,
        /// Its answer.
        status: u16,
        /// How long to wait.
        wait: Option<Duration>,
    },
    /// The token does not do, or there is no such repository or commit: somebody has to change something.
    #[error("{host} does not let us {what} ({status}): {said}")]
    Denied {
        /// Which.
        host: String,
        /// What was asked.
        what: String,
        /// Its answer.
        status: u16,
        /// In its words.
        said: String,
    },
    /// It will never take this.
    #[error("{host} refuses to {what} ({status}): {said}")]
    Refused {
        /// Which.
        host: String,
        /// What was asked.
        what: String,
        /// Its answer.
        status: u16,
        /// In its words.
        said: String,
    },
}

/// An API that cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address.
    #[error("{url} is no address of an API: {why}")]
    Url {
        /// As given, without credentials.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The token.
    #[error("the token has characters that no token has")]
    Token,
    /// TLS.
    #[error("cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
}

/// A forge, as the gateway sees it.
#[tonic::async_trait]
pub trait Forge: Send + Sync {
    /// Tells it of a status. `known` is what an earlier call for this commit and context gave.
    async fn report(&self, status: &Status, known: Option<&str>) -> Result<Option<String>, ForgeError>;
    /// Whether somebody may give commands: whoever may write to the repository.
    async fn may(&self, author: &Author) -> Result<bool, ForgeError>;
    /// Which pull requests are open, those that moved last: what a lost webhook would have told.
    async fn open_pulls(&self) -> Result<Vec<OpenPull>, ForgeError>;
}

/// How a forge is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which.
    pub kind: Kind,
    /// The API's root: `https://api.github.com`, `https://gitlab.com/api/v4`, `https://codeberg.org/api/v1`.
    pub api: String,
    /// `owner/name`; deeper on GitLab.
    pub repository: String,
    /// What it wants to be shown.
    pub token: Secret,
    /// GitHub only: check runs, which only a GitHub App may write, instead of commit statuses.
    pub checks: bool,
}

/// A forge over HTTP.
pub struct HttpForge {
    kind: Kind,
    repository: String,
    checks: bool,
    api: Api,
}

impl HttpForge {
    /// Checks the settings; connects to nobody yet.
    pub fn new(settings: &Settings, guard: &Arc<Guard>) -> Result<Self, ClientError> {
        let api = Api::new(settings, guard)?;
        let Settings { kind, repository, checks, .. } = settings;
        Ok(Self { kind: *kind, repository: repository.clone(), checks: *checks, api })
    }
}

#[tonic::async_trait]
impl Forge for HttpForge {
    async fn report(&self, status: &Status, known: Option<&str>) -> Result<Option<String>, ForgeError> {
        let (api, repository) = (&self.api, self.repository.as_str());
        match self.kind {
            Kind::GitHub if self.checks => return github::check(api, repository, status, known).await,
            Kind::GitHub => github::status(api, repository, status).await?,
            Kind::GitLab => gitlab::status(api, repository, status).await?,
            Kind::Gitea | Kind::Forgejo => gitea::status(api, repository, status).await?,
        }
        Ok(None)
    }

    async fn may(&self, author: &Author) -> Result<bool, ForgeError> {
        match self.kind {
            // Its deliveries say it themselves.
            Kind::GitHub => Ok(false),
            Kind::GitLab => gitlab::may(&self.api, &self.repository, author).await,
            Kind::Gitea | Kind::Forgejo => gitea::may(&self.api, &self.repository, author).await,
        }
    }

    async fn open_pulls(&self) -> Result<Vec<OpenPull>, ForgeError> {
        match self.kind {
            Kind::GitHub => github::open_pulls(&self.api, &self.repository).await,
            Kind::GitLab => gitlab::open_pulls(&self.api, &self.repository).await,
            Kind::Gitea | Kind::Forgejo => gitea::open_pulls(&self.api, &self.repository).await,
        }
    }
}

/// An answer that was a yes.
pub(super) struct Sent {
    pub(super) body: Value,
}

/// Requests with the token, and what comes back.
pub(super) struct Api {
    client: reqwest::Client,
    guard: Arc<Guard>,
    base: Url,
    host: String,
}

impl Sent {
    /// The entries of a list.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Value> {
        self.body.as_array().into_iter().flatten()
    }
}

impl Api {
    fn new(settings: &Settings, guard: &Arc<Guard>) -> Result<Self, ClientError> {
        let shown = || crate::git::without_credentials(&settings.api);
        let wrong = |why: &str| ClientError::Url { url: shown(), why: why.to_owned() };
        let base =
            Url::parse(settings.api.trim_end_matches('/')).map_err(|error| wrong(&error.to_string()))?;
        if !base.username().is_empty() || base.password().is_some() {
            return Err(wrong("it has credentials: the token is given apart"));
        }
        let host = base.host_str().ok_or_else(|| wrong("it has no host"))?.to_owned();
        match base.scheme() {
            "https" => {}
            // The token would be readable on the way; on this machine there is none.
            "http" if matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]") => {}
            _ => return Err(wrong("write https://… (http:// only for this machine)")),
        }
        let client = reqwest::Client::builder()
            .default_headers(headers(settings)?)
            .user_agent(concat!("andon/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(REQUEST_TIME_MAX)
            .dns_resolver(Arc::new(Guarded(Arc::clone(guard))))
            .build()
            .map_err(ClientError::Client)?;
        Ok(Self { client, guard: Arc::clone(guard), base, host })
    }

    pub(super) async fn get(&self, path: &str) -> Result<Sent, ForgeError> {
        self.send(Method::GET, path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Sent, ForgeError> {
        self.send(Method::POST, path, Some(body)).await
    }

    pub(super) async fn patch(&self, path: &str, body: &Value) -> Result<Sent, ForgeError> {
        self.send(Method::PATCH, path, Some(body)).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Sent, ForgeError> {
        let away = |why: String| ForgeError::Away { host: self.host.clone(), why };
        // Names are looked at when they are resolved; an address stands in the URL itself.
        self.guard.literal(&self.host).map_err(|error| away(error.to_string()))?;
        let what = format!("{method} {path}");
        let url = format!("{}{path}", self.base.as_str().trim_end_matches('/'));
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request.json(body);
        }
        // The URL holds no secret, but it is said already.
        let failed = |error: reqwest::Error| away(crate::hook::chain(&error.without_url()));
        let mut response = request.send().await.map_err(failed)?;
        let (status, wait) = (response.status(), wait(response.headers()));
        let limited = status == StatusCode::FORBIDDEN && wait.is_some();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                break;
            }
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(Sent { body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) });
        }
        let (host, said) = (self.host.clone(), said(&bytes));
        let number = status.as_u16();
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS => ForgeError::Slower { host, status: number, wait },
            _ if limited => ForgeError::Slower { host, status: number, wait },
            StatusCode::SERVICE_UNAVAILABLE if wait.is_some() => {
                ForgeError::Slower { host, status: number, wait }
            }
            StatusCode::REQUEST_TIMEOUT => away(format!("it answers {status}")),
            _ if status.is_server_error() => away(format!("it answers {status}")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                ForgeError::Denied { host, what, status: number, said }
            }
            _ => ForgeError::Refused { host, what, status: number, said },
        })
    }
}

fn headers(settings: &Settings) -> Result<HeaderMap, ClientError> {
    let token = settings.token.reveal();
    let (name, value) = match settings.kind {
        Kind::GitHub => (AUTHORIZATION, format!("Bearer {token}")),
        Kind::GitLab => (HeaderName::from_static("private-token"), token.to_owned()),
        Kind::Gitea | Kind::Forgejo => (AUTHORIZATION, format!("token {token}")),
    };
    let mut value = HeaderValue::from_str(&value).map_err(|_| ClientError::Token)?;
    value.set_sensitive(true);
    let mut headers = HeaderMap::new();
    headers.insert(name, value);
    let accept = match settings.kind {
        Kind::GitHub => {
            let version = HeaderName::from_static("x-github-api-version");
            headers.insert(version, HeaderValue::from_static("2022-11-28"));
            "application/vnd.github+json"
        }
        Kind::GitLab | Kind::Gitea | Kind::Forgejo => "application/json",
    };
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    Ok(headers)
}

/// How long an answer asks to wait: `Retry-After` in seconds, else the time at which the limit is lifted.
fn wait(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    if let Some(seconds) = number("retry-after") {
        return Some(Duration::from_secs(seconds).min(WAIT_MAX));
    }
    let exhausted =
        ["x-ratelimit-remaining", "ratelimit-remaining"].iter().any(|name| number(name) == Some(0));
    let reset = ["x-ratelimit-reset", "ratelimit-reset"].iter().find_map(|name| number(name));
    let now = crate::clock::unix_ms() / 1000;
    reset.filter(|_| exhausted).map(|at| Duration::from_secs(at.saturating_sub(now).max(1)).min(WAIT_MAX))
}

/// A refusal's own words, in one short line.
fn said(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let value: Value = serde_json::from_slice(bytes).unwrap_or(Value::Null);
    let message = value.get("message").or_else(|| value.get("error"));
    let said = match message {
        Some(Value::String(message)) => message.clone(),
        Some(other) => other.to_string(),
        None => text.into_owned(),
    };
    super::status::cut(said.trim(), SAID_LEN_MAX)
}
