//! The dashboard: what [`crate::views`] tells, as HTML that the server renders whole. A page works without JavaScript; charts and
//! live parts come on top (`assets/`).
//!
//! ```text
//!   /                                     the line in ten seconds                          line.rs
//!   /projects, /projects/P                throughput per commit, flow, days                project.rs
//!   /runs, /runs/N, …/tests, …/log        failures first, lanes over time                  run.rs, timeline.rs
//!   /runs/N/tests/T, …/attempts/A/log#why one test in one run; the line that explains it   run.rs, log.rs
//!   /runs/N/tests/T/history, /projects/P/test?suite=&id=   one test over its runs          test.rs
//!   /projects/P/owners, …/owners/O        whose tests fail, flake and take long             owner.rs
//!   /commits/SHA, /find?q=                where a run number or a commit leads             find.rs
//!   /baselines…, /workers…                                                                 farm.rs
//!   POST /runs/N/rerun                    what failed, or one test, once more              rerun.rs
//!   /live, /runs/N/live                   the parts of a page again, as they change        ../live.rs
//! ```
//!
//! Invariants: whatever a template writes went through [`Inert`]; no script or style stands in a page, which the
//! Content-Security-Policy holds to; every list is bounded where the views bound it.

mod farm;
mod filters;
mod find;
mod inert;
mod line;
pub(crate) mod log;
mod owner;
mod project;
mod rerun;
mod run;
pub(crate) mod say;
mod sign;
mod test;
#[cfg(test)]
mod tests;
mod timeline;

use askama::Template;
use axum::Router;
use axum::extract::FromRequestParts;
use axum::extract::rejection::{FormRejection, PathRejection, QueryRejection};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};

use super::session::{Csrf, Refused, Visitor, Way};
use super::{State, assets, live};
use crate::roles::Role;
use crate::views::ViewError;

pub(crate) use inert::Inert;
pub(super) use line::Overview;
pub(super) use run::RunPage;

/// Nothing but what this farm serves runs or is shown, and nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// All pages, their assets and their live parts. What is asked of it went through [`super::session::guard`].
pub(crate) fn router() -> Router<State> {
    Router::new()
        .route("/", get(line::overview))
        .route("/live", get(live::overview))
        .route("/projects", get(project::projects))
        .route("/projects/{project}", get(project::project))
        .route("/projects/{project}/test", get(test::by_name))
        .route("/projects/{project}/owners", get(owner::owners))
        .route("/projects/{project}/owners/{owner}", get(owner::owner))
        .route("/runs", get(run::runs))
        .route("/runs/{run}", get(run::run))
        .route("/runs/{run}/live", get(live::run))
        .route("/runs/{run}/rerun", post(rerun::rerun))
        .route("/runs/{run}/tests", get(run::tests))
        .route("/runs/{run}/log", get(log::of_run))
        .route("/runs/{run}/tests/{test}", get(run::test))
        .route("/runs/{run}/tests/{test}/history", get(test::by_place))
        .route("/runs/{run}/tests/{test}/attempts/{attempt}/log", get(log::of_attempt))
        .route("/commits/{commit}", get(find::commit))
        .route("/find", get(find::find))
        .route("/baselines", get(farm::baselines))
        .route("/baselines/{key}", get(farm::baseline))
        .route("/workers", get(farm::workers))
        .route("/workers/{worker}", get(farm::worker))
        .route("/sign-in", get(sign::form).post(sign::sign_in))
        .route("/sign-out", post(sign::sign_out))
        .route("/assets/{digest}/{name}", get(assets::serve))
        .layer(axum::middleware::map_response(harden))
}

/// What every page has around its content.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frame {
    /// Which part of the navigation this is.
    pub(crate) section: &'static str,
    /// Whoever asks may see more than the sign-in.
    pub(crate) may_look: bool,
    /// Of the session, where there is one to sign out of.
    pub(crate) csrf: Option<String>,
    /// What forms that ask for something carry; `None` where whoever looks may ask for nothing.
    pub(crate) asking: Option<Asking>,
}

/// The hidden part of a form that asks for something.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    pub(crate) csrf: String,
    /// New with each page: a form that is sent twice asks once.
    pub(crate) once: String,
}

impl Frame {
    pub(crate) fn within(self, section: &'static str) -> Self {
        Self { section, ..self }
    }

    pub(crate) fn asset(&self, name: &str) -> &'static str {
        assets::path(name)
    }

    pub(crate) fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Frame {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let visitor = parts.extensions.get::<Visitor>();
        let csrf = match visitor.map(|visitor| &visitor.way) {
            Some(Way::SignedIn(Csrf(csrf))) => Some(csrf.to_string()),
            Some(Way::AtHome(_) | Way::Program) | None => None,
        };
        let asking = match visitor {
            Some(Visitor { role, way: Way::SignedIn(Csrf(csrf)) | Way::AtHome(Csrf(csrf)) })
                if *role >= Role::Developer =>
            {
                Some(Asking { csrf: csrf.to_string(), once: crate::new_token() })
            }
            _ => None,
        };
        Ok(Self { section: "", may_look: visitor.is_some(), csrf, asking })
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    frame: Frame,
    title: &'static str,
    said: String,
}

/// A page instead of the one that was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    said: String,
}

pub(crate) type Page = Result<Response, Failure>;

impl Failure {
    pub(crate) fn not_found(said: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, said: said.into() }
    }

    fn refused(said: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, said: said.into() }
    }

    fn bad(said: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, said: said.into() }
    }

    fn ours(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "a page could not be made");
        let said = "The farm could not answer; its log says why.".to_owned();
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, said }
    }
}

impl From<ViewError> for Failure {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::NotFound(said) => Self::not_found(sentence(&said)),
            ViewError::BadAsk(said) => Self::bad(sentence(&said)),
            ViewError::Store(_) => Self::ours(&error),
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::refused(match refused {
            Refused::Foreign => "The form was sent from another site.",
            Refused::NoCsrf => "The form is not of this session: reload the page and try again.",
        })
    }
}

impl From<askama::Error> for Failure {
    fn from(error: askama::Error) -> Self {
        Self::ours(&error)
    }
}

impl From<PathRejection> for Failure {
    fn from(_: PathRejection) -> Self {
        Self::not_found("Nothing has this address.")
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad(sentence(&rejection.body_text()))
    }
}

impl From<FormRejection> for Failure {
    fn from(rejection: FormRejection) -> Self {
        Self::bad(sentence(&rejection.body_text()))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let title = match self.status {
            StatusCode::NOT_FOUND => "There is no such page",
            StatusCode::BAD_REQUEST => "That cannot be answered",
            StatusCode::FORBIDDEN => "That was refused",
            _ => "Something broke",
        };
        // Errors come from handlers, which know the frame only where all is well: navigation is harmless to show, and leads to the
        // sign-in whoever may not look.
        let frame = Frame { may_look: true, ..Frame::default() };
        match (ErrorPage { frame, title, said: self.said }).render() {
            Ok(html) => (self.status, Html(html)).into_response(),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the page could not be made\n").into_response(),
        }
    }
}

/// Renders a whole page.
pub(crate) fn page(template: &impl Template) -> Page {
    Ok(Html(template.render()?).into_response())
}

/// The page for addresses that nobody knows.
pub(super) async fn nothing() -> Response {
    harden(Failure::not_found("Nothing has this address.").into_response()).await
}

/// What every answer says to browsers.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Addresses name projects and tests: no other site is told them.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
    response
}

/// A message as a sentence.
fn sentence(said: &str) -> String {
    let mut letters = said.chars();
    let first = letters.next().map(|first| first.to_uppercase().collect::<String>()).unwrap_or_default();
    let stop = if said.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{stop}", letters.as_str())
}
