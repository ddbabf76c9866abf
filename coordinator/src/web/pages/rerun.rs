//! The button that runs tests again. The page only asks: through [`crate::rpc::Reruns`], as `andon rerun` does.

use andon_core::ids::TestIx;
use axum::Extension;
use axum::extract::rejection::{FormRejection, PathRejection};
use axum::extract::{Form, Path, State as Shared};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect};
use serde::Deserialize;
use tonic::{Code, Status};

use super::{Failure, Page, sentence};
use crate::roles::Role;
use crate::rpc::Again;
use crate::web::State;
use crate::web::session::{Visitor, check_form};

/// Who asked, in what is shown of the run.
const BY: &str = "dashboard";
/// Of a form's `once`: 32 bytes in hex.
const ONCE_BYTES_MAX: usize = 64;

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    csrf: String,
    #[serde(default)]
    once: String,
    /// Only this one; without it, all that failed.
    test: Option<u32>,
}

pub(super) async fn rerun(
    Shared(state): Shared<State>,
    visitor: Option<Extension<Visitor>>,
    headers: HeaderMap,
    run: Result<Path<u64>, PathRejection>,
    asked: Result<Form<Asked>, FormRejection>,
) -> Page {
    let (Path(run), Form(asked)) = (run?, asked?);
    check_form(&headers, visitor.as_deref(), Some(&asked.csrf))?;
    let role = visitor.as_ref().map(|visitor| visitor.role);
    if role.is_none_or(|role| role < Role::Developer) {
        let role = role.map_or("Nobody", |_| "A viewer");
        return Err(Failure::refused(format!(
            "{role} may look, and run nothing: that takes a developer's token."
        )));
    }
    if asked.once.is_empty() || asked.once.len() > ONCE_BYTES_MAX {
        return Err(Failure::bad("The form is not whole: reload the page and try again."));
    }
    let what = asked.test.map_or(Again::Failed, |test| Again::Test(TestIx(test)));
    let new = state.reruns.ask(run, what, BY, &asked.once).await.map_err(|status| failed(&status))?;
    Ok(Redirect::to(&format!("/runs/{new}")).into_response())
}

fn failed(status: &Status) -> Failure {
    let said = sentence(status.message());
    match status.code() {
        Code::NotFound => Failure::not_found(said),
        Code::FailedPrecondition | Code::InvalidArgument => Failure::bad(said),
        _ => Failure::ours(status),
    }
}
