//! HTTP beside gRPC on the coordinator's TCP address: JSON API and metrics. It looks by [`crate::views`] and cannot reach the driver.
//!
//! ```text
//!   TCP ──> gRPC (/andon.…)              tokens of its own, rpc/mod.rs
//!      └──> guard (Host, token) ──> /api/v1    api.rs: views as JSON, OpenAPI
//!                               ──> /metrics   metrics.rs
//! ```

mod api;
mod guard;
pub(crate) mod metrics;

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::views::Views;
pub(crate) use guard::Guard;
use metrics::Meters;

/// What every handler is given. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// What there is to see.
    pub(crate) views: Views,
    /// What was counted since the start.
    pub(crate) meters: Arc<Meters>,
}

/// Everything that is answered over plain HTTP, behind the guard.
pub(crate) fn router(state: State, guard: Guard) -> Router {
    let all = Router::new().merge(api::router()).route("/metrics", get(metrics::answer));
    all.with_state(state).layer(from_fn_with_state(guard, guard::check))
}

/// For addresses that nobody knows: gRPC says so in its own way.
pub(crate) async fn unknown(request: axum::extract::Request) -> Response {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("application/grpc")) {
        let (parts, ()) = tonic::Status::unimplemented("").into_http::<()>().into_parts();
        return Response::from_parts(parts, axum::body::Body::empty());
    }
    (StatusCode::NOT_FOUND, "there is nothing here\n").into_response()
}
