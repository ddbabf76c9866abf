//! The files that pages ask for, in the binary, each under a name that holds the digest of its content: what was fetched once is
//! never asked for again, and a new version is never mixed with an old one.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Names never change their content.
const FOREVER: &str = "public, max-age=31536000, immutable";
/// Hex digits of the digest in a name.
const DIGITS: usize = 16;

struct Asset {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
    /// `/assets/DIGEST/NAME`.
    path: String,
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let css = "text/css; charset=utf-8";
    let js = "text/javascript; charset=utf-8";
    let all: [(&str, &str, &[u8]); 6] = [
        ("app.css", css, include_bytes!("../../assets/app.css")),
        ("app.js", js, include_bytes!("../../assets/app.js")),
        ("charts.js", js, include_bytes!("../../assets/charts.js")),
        ("icon.svg", "image/svg+xml", include_bytes!("../../assets/icon.svg")),
        ("uPlot.min.css", css, include_bytes!("../../assets/uplot/uPlot.min.css")),
        ("uPlot.iife.min.js", js, include_bytes!("../../assets/uplot/uPlot.iife.min.js")),
    ];
    let asset = |(name, kind, bytes)| {
        let digest = blake3::hash(bytes).to_hex();
        Asset { name, kind, bytes, path: format!("/assets/{}/{name}", &digest[..DIGITS]) }
    };
    all.map(asset).into()
});

/// Where an asset lies.
///
/// # Panics
/// Where there is no such asset: templates name them, and each template is rendered by a test.
pub(crate) fn path(name: &str) -> &'static str {
    let asset = ASSETS.iter().find(|asset| asset.name == name);
    &asset.expect("templates name assets that are there").path
}

/// Serves one.
pub(crate) async fn serve(Path((digest, name)): Path<(String, String)>) -> Response {
    let wanted = format!("/assets/{digest}/{name}");
    match ASSETS.iter().find(|asset| asset.path == wanted) {
        Some(asset) => ([(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, FOREVER)], asset.bytes)
            .into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
