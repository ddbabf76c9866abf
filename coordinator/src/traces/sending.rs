//! OTLP over HTTP: one request, tried again where the specification says that it may be. Knows spans, and not what they mean.

use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode, Url};

use super::spans::text;
use super::{TracesConfig, TracesError};

/// A collector that takes longer is away.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Before the second try; twice as long before each one after it,
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// up to this, unless the collector asks for more.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// What a collector answers is read so far.
const ANSWER_MAX: usize = 4_096;
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The collector says that it will never take it.
#[derive(Debug, thiserror::Error)]
#[error("it answered {status}: {said:?}")]
pub(super) struct Refused {
    status: StatusCode,
    said: String,
}

/// Where traces go.
pub(crate) struct Collector {
    client: reqwest::Client,
    endpoint: Url,
    resource: Resource,
}

impl Collector {
    /// # Errors
    /// Where the configuration cannot be meant.
    pub(crate) fn new(config: &TracesConfig) -> Result<Self, TracesError> {
        let endpoint = Url::parse(&config.endpoint).map_err(|_| TracesError::Endpoint)?;
        if !matches!(endpoint.scheme(), "http" | "https") || !endpoint.has_host() {
            return Err(TracesError::Endpoint);
        }
        let mut client = reqwest::Client::builder()
            .default_headers(headers(&config.headers)?)
            .timeout(REQUEST_TIMEOUT)
            .user_agent(concat!("andon/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none());
        if matches!(endpoint.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            // No proxy reaches this machine's own loopback.
            client = client.no_proxy();
        }
        let attributes = vec![text("service.name", &config.service_name), text("service.version", VERSION)];
        let resource = Resource { attributes, ..Resource::default() };
        Ok(Self { client: client.build()?, endpoint, resource })
    }

    /// Until the collector took it, or says that it never will.
    pub(super) async fn send(&self, spans: Vec<Span>) -> Result<(), Refused> {
        let scope = InstrumentationScope {
            name: "andon".to_owned(),
            version: VERSION.to_owned(),
            ..InstrumentationScope::default()
        };
        let spans = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
        let resource = Some(self.resource.clone());
        let spans = ResourceSpans { resource, scope_spans: vec![spans], ..ResourceSpans::default() };
        let body = Bytes::from(ExportTraceServiceRequest { resource_spans: vec![spans] }.encode_to_vec());
        let mut pause = PAUSE_MIN;
        loop {
            let asked = match self.post(body.clone()).await {
                Ok(()) => return Ok(()),
                Err(Failed::ForGood(refused)) => return Err(refused),
                Err(Failed::ForNow { wait }) => wait.unwrap_or_default(),
            };
            // Not in step with others that the same collector sent away.
            let jittered = pause.mul_f64(rand::random_range(0.5..1.0));
            tokio::time::sleep(asked.max(jittered)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn post(&self, body: Bytes) -> Result<(), Failed> {
        let request = self.client.post(self.endpoint.clone()).header(CONTENT_TYPE, "application/x-protobuf");
        let answer = request.body(body).send().await.map_err(|error| {
            tracing::debug!(error = &error as &dyn std::error::Error, "the collector of traces is away");
            Failed::ForNow { wait: None }
        })?;
        let status = answer.status();
        if status.is_success() {
            warn_of_left_out(&beginning(answer).await);
            return Ok(());
        }
        // https://opentelemetry.io/docs/specs/otlp/#failures-1 names these, and no others.
        if matches!(status.as_u16(), 429 | 502 | 503 | 504) {
            let seconds =
                answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            return Err(Failed::ForNow { wait: seconds.map(Duration::from_secs) });
        }
        let said = String::from_utf8_lossy(&beginning(answer).await).into_owned();
        Err(Failed::ForGood(Refused { status, said }))
    }
}

enum Failed {
    /// The collector may have asked for a pause.
    ForNow {
        wait: Option<Duration>,
    },
    ForGood(Refused),
}

/// Secrets, mostly: what is wrong is named by its place.
fn headers(pairs: &[(String, String)]) -> Result<HeaderMap, TracesError> {
    let mut headers = HeaderMap::new();
    for ((name, value), place) in pairs.iter().zip(1..) {
        let bad = || TracesError::Header(place);
        let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?, value);
    }
    Ok(headers)
}

/// An answer that breaks off is as long as what came of it.
async fn beginning(mut answer: Response) -> Vec<u8> {
    let mut said = Vec::new();
    while said.len() < ANSWER_MAX
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        said.extend_from_slice(&chunk[..chunk.len().min(ANSWER_MAX - said.len())]);
    }
    said
}

/// A collector may take a request and leave out spans of it; it must not be sent them again.
fn warn_of_left_out(said: &[u8]) {
    if let Ok(ExportTraceServiceResponse { partial_success: Some(part) }) =
        ExportTraceServiceResponse::decode(said)
        && part.rejected_spans > 0
    {
        tracing::warn!(spans = part.rejected_spans, said = ?part.error_message, "the collector left out spans");
    }
}
