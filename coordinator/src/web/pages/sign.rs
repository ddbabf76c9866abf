//! Signing in and out.

use askama::Template;
use axum::Extension;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Query, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect};
use serde::Deserialize;

use super::{Frame, Page, page};
use crate::web::State;
use crate::web::session::{Visitor, check_form, safe_next, set_cookie};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn {
    frame: Frame,
    next: String,
    wrong: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Next {
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
pub(super) struct Shown {
    token: String,
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
pub(super) struct Word {
    #[serde(default)]
    csrf: String,
}

pub(super) async fn form(frame: Frame, next: Result<Query<Next>, QueryRejection>) -> Page {
    let Query(Next { next }) = next?;
    let next = safe_next(&next).to_owned();
    if frame.may_look {
        return Ok(Redirect::to(&next).into_response());
    }
    page(&SignIn { frame, next, wrong: false })
}

pub(super) async fn sign_in(
    Shared(state): Shared<State>,
    frame: Frame,
    headers: HeaderMap,
    shown: Result<Form<Shown>, FormRejection>,
) -> Page {
    check_form(&headers, None, None)?;
    let Form(Shown { token, next }) = shown?;
    let next = safe_next(&next).to_owned();
    let Some(id) = state.access.sign_in(token.trim()) else {
        let html = SignIn { frame, next, wrong: true }.render()?;
        return Ok((StatusCode::FORBIDDEN, Html(html)).into_response());
    };
    Ok(([(header::SET_COOKIE, set_cookie(&id, &headers))], Redirect::to(&next)).into_response())
}

pub(super) async fn sign_out(
    Shared(state): Shared<State>,
    visitor: Option<Extension<Visitor>>,
    headers: HeaderMap,
    word: Result<Form<Word>, FormRejection>,
) -> Page {
    let Form(Word { csrf }) = word?;
    check_form(&headers, visitor.as_deref(), Some(&csrf))?;
    state.access.sign_out(&headers);
    Ok(([(header::SET_COOKIE, set_cookie("", &headers))], Redirect::to("/sign-in")).into_response())
}
