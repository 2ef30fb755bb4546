//! The page at `/`: files that are part of the program, and nothing else on the disk.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::app::App;
use crate::error::ApiError;

/// Path, type and bytes of each file, as `ui` has built them.
const FILES: &[(&str, &str, &[u8])] = &[
    ("index.html", "text/html; charset=utf-8", include_bytes!("../../../ui/dist/index.html")),
    ("app.js", "text/javascript; charset=utf-8", include_bytes!("../../../ui/dist/app.js")),
    ("app.css", "text/css; charset=utf-8", include_bytes!("../../../ui/dist/app.css")),
    ("icon.svg", "image/svg+xml", include_bytes!("../../../ui/dist/icon.svg")),
    ("licences.txt", "text/plain; charset=utf-8", include_bytes!("../../../ui/dist/licences.txt")),
];

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/", get(|| async { file("index.html") }))
        .route("/ui/{*path}", get(|Path(path): Path<String>| async move { file(&path) }))
}

/// A file of exactly this name.
fn file(name: &str) -> Response {
    let Some((_, kind, bytes)) = FILES.iter().find(|(path, ..)| *path == name) else {
        return ApiError::new(StatusCode::NOT_FOUND, "there is nothing here").into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'self'; frame-ancestors 'none'"),
        ),
    ];
    (headers, *bytes).into_response()
}
