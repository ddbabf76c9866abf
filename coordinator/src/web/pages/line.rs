//! The first page: does the line flow?

use askama::Template;
use axum::extract::State as Shared;

use super::{Frame, Page, filters, page};
use crate::views;
use crate::web::State;

/// Its template; the live parts are its block `parts`.
#[derive(Template)]
#[template(path = "overview.html", blocks = ["parts"])]
pub(in crate::web) struct Overview {
    pub(in crate::web) frame: Frame,
    pub(in crate::web) view: views::Overview,
}

pub(super) async fn overview(Shared(state): Shared<State>, frame: Frame) -> Page {
    page(&Overview { frame: frame.within("line"), view: state.views.overview().await? })
}
