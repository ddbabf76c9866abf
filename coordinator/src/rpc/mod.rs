//! The three services of `farm.proto`, and who may call them: clients the farm, workers the work, both the blobs.

mod again;
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
use crate::roles::{Role, Tokens};
pub(crate) use again::{Again, Reruns};

/// The largest message that is taken: a discovery of 200,000 tests.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// All services, guarded.
pub(crate) fn services(farm: &Farm, tokens: &Tokens, join_token: &str) -> Routes {
    let join = || Some(blake3::hash(join_token.as_bytes()));
    let client = Guard { clients: Some((tokens.clone(), Role::Viewer)), join: None };
    let worker = Guard { clients: None, join: join() };
    // Sources and the data of baselines lie there.
    let both = Guard { clients: Some((tokens.clone(), Role::Developer)), join: join() };
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

/// Lets a call pass that shows a client's token, with this role at least, or the workers'. A client's role goes with its call.
#[derive(Debug, Clone)]
struct Guard {
    clients: Option<(Tokens, Role)>,
    // A digest compares in constant time, whatever was shown.
    join: Option<blake3::Hash>,
}

impl tonic::service::Interceptor for Guard {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let shown = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let Some(token) = shown.and_then(|value| value.strip_prefix("Bearer ")) else {
            return Err(Status::unauthenticated("a token is needed: authorization: Bearer …"));
        };
        if self.join == Some(blake3::hash(token.as_bytes())) {
            return Ok(request);
        }
        let of_client =
            self.clients.as_ref().and_then(|(tokens, least)| Some((tokens.role_of(token)?, *least)));
        let Some((role, least)) = of_client else {
            return Err(Status::unauthenticated("the token is not valid here"));
        };
        request.extensions_mut().insert(role);
        needs(&request, least)?;
        Ok(request)
    }
}

/// Refuses a call whose sender's role is less than this.
fn needs<T>(request: &Request<T>, least: Role) -> Result<(), Status> {
    match request.extensions().get::<Role>() {
        Some(role) if *role >= least => Ok(()),
        shown => {
            let shown = shown.map_or("nobody", |role| role.word());
            let text = format!("the token is a {shown}'s: this takes a {}'s", least.word());
            Err(Status::permission_denied(text))
        }
    }
}

/// A failure inside is logged whole and told in one line.
fn internal(error: &(dyn std::error::Error + 'static)) -> Status {
    tracing::error!(error, "a request failed");
    Status::internal(error.to_string())
}
