//! `GetFigures`: the views' answers, for who speaks gRPC.

use andon_proto as wire;
use serde::Serialize;
use tonic::Status;

use super::internal;
use crate::driver::Farm;
use crate::views::{ProjectAsk, ViewError, Views};

pub(super) async fn answer(
    farm: &Farm,
    request: wire::GetFiguresRequest,
) -> Result<wire::GetFiguresResponse, Status> {
    let wire::GetFiguresRequest { project, git_ref, days, limit, suite, test, owner, owners } = request;
    let (views, limit) = (Views::of(farm), (limit > 0).then_some(limit));
    let git_ref = (!git_ref.is_empty()).then_some(git_ref);
    let ask = ProjectAsk { before: None, limit, git_ref, days: (days > 0).then_some(days) };
    let json = if !test.is_empty() {
        written(views.test(&project, &suite, &test, None, limit).await)
    } else if !owner.is_empty() {
        written(views.owner(&project, &owner, &ask).await)
    } else if owners {
        written(views.owners(&project).await)
    } else {
        written(views.project(&project, &ask).await)
    };
    Ok(wire::GetFiguresResponse { json: json? })
}

fn written<T: Serialize>(answer: Result<T, ViewError>) -> Result<String, Status> {
    let answer = answer.map_err(|error| match &error {
        ViewError::NotFound(said) => Status::not_found(said),
        ViewError::BadAsk(said) => Status::invalid_argument(said),
        ViewError::Store(error) => internal(error),
    })?;
    serde_json::to_string(&answer).map_err(|error| internal(&error))
}
