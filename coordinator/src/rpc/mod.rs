//! The three services of `farm.proto`, and who may call them: clients the farm, workers the work, both the blobs.

mod blobs;
mod choice;
pub(crate) mod convert;
mod farm;
mod figures;
pub(crate) mod inexact;
pub(crate) mod log_text;
mod look;
mod planned;
mod work;

use andon_proto::blobs_server::BlobsServer;
use andon_proto::farm_server::FarmServer;
use andon_proto::work_server::WorkServer;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::Router;
use tonic::{Request, Status};

use crate::driver::Farm;

/// The largest message that is taken: a discovery of 200,000 tests.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// All services, guarded.
pub(crate) fn services(farm: &Farm, client_token: &str, join_token: &str) -> Routes {
    let client = Guard::new(&[client_token]);
    let worker = Guard::new(&[join_token]);
    let both = Guard::new(&[client_token, join_token]);
    let farm_service = FarmServer::new(farm::FarmService::new(farm.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let work_service = WorkServer::new(work::WorkService::new(farm.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let blob_service = BlobsServer::new(blobs::BlobService::new(farm.blobs.clone()));
    Routes::new(InterceptedService::new(farm_service, client))
        .add_service(InterceptedService::new(work_service, worker))
        .add_service(InterceptedService::new(blob_service, both))
}

/// A server of these services, and of pages over plain HTTP on the same connections where there are any.
pub(crate) fn server(services: Routes, pages: Option<axum::Router>) -> Router {
    let mut server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(10)))
        .accept_http1(pages.is_some());
    let routes = match pages {
        Some(pages) => Routes::from(services.into_axum_router().fallback(crate::web::unknown).merge(pages)),
        None => services,
    };
    server.add_routes(routes)
}

/// Lets a call pass that shows one of these tokens.
#[derive(Debug, Clone)]
struct Guard {
    // Digests compare in constant time, whatever was shown.
    accepted: Vec<blake3::Hash>,
}

impl Guard {
    fn new(tokens: &[&str]) -> Self {
        Self { accepted: tokens.iter().map(|token| blake3::hash(token.as_bytes())).collect() }
    }
}

impl tonic::service::Interceptor for Guard {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let shown = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let Some(token) = shown.and_then(|value| value.strip_prefix("Bearer ")) else {
            return Err(Status::unauthenticated("a token is needed: authorization: Bearer …"));
        };
        let shown = blake3::hash(token.as_bytes());
        if self.accepted.contains(&shown) {
            Ok(request)
        } else {
            Err(Status::unauthenticated("the token is not valid here"))
        }
    }
}

/// A failure inside is logged whole and told in one line.
fn internal(error: &(dyn std::error::Error + 'static)) -> Status {
    tracing::error!(error, "a request failed");
    Status::internal(error.to_string())
}
