//! HTTP beside gRPC on the coordinator's TCP address: dashboard, JSON API and metrics. It looks by [`crate::views`] and cannot reach the
//! driver, but through one door: [`crate::rpc::Reruns`], by which a page asks for what `andon rerun` asks for.
//!
//! ```text
//!   TCP ──> gRPC (/andon.…)                              tokens of its own, rpc/mod.rs
//!      └──> session::guard (this machine, token, cookie) ──> /api/v1    api.rs: views as JSON, OpenAPI
//!                                                        ──> /metrics   metrics.rs
//!                                                        ──> /…         pages/, their files (assets.rs), live parts (live.rs)
//! ```

mod api;
mod assets;
mod live;
pub(crate) mod metrics;
mod pages;
mod session;

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::rpc::Reruns;
use crate::views::Views;
use metrics::Meters;
pub(crate) use session::Access;

/// What every handler is given. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// What there is to see.
    pub(crate) views: Views,
    /// What was counted since the start.
    pub(crate) meters: Arc<Meters>,
    /// Who may look.
    pub(crate) access: Access,
    /// The one thing that pages ask for.
    pub(crate) reruns: Reruns,
    /// Cancelled when the coordinator stops: whoever follows a page is let go.
    pub(crate) stop: CancellationToken,
}

/// Everything that is answered over plain HTTP, behind the guard.
pub(crate) fn router(state: State) -> Router {
    let access = state.access.clone();
    let all =
        Router::new().merge(api::router()).route("/metrics", get(metrics::answer)).merge(pages::router());
    all.with_state(state).layer(from_fn_with_state(access, session::guard))
}

/// For addresses that nobody knows: gRPC says so in its own way.
pub(crate) async fn unknown(request: axum::extract::Request) -> Response {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("application/grpc")) {
        let (parts, ()) = tonic::Status::unimplemented("").into_http::<()>().into_parts();
        return Response::from_parts(parts, axum::body::Body::empty());
    }
    if request.uri().path().starts_with("/api/") {
        return (StatusCode::NOT_FOUND, "there is nothing here\n").into_response();
    }
    pages::nothing().await
}
