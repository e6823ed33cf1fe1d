//! The page at `/`. It is one file, asks nobody but this server, and its policy lets it do nothing else.

use std::sync::LazyLock;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::base64::base64;
use super::refusal::Refusal;

const PAGE: &str = include_str!("page.html");

/// The script and the style of the page, by their hashes, and nothing else; no frame around it.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |name: &str| {
        let inner =
            PAGE.split(&format!("<{name}>")).nth(1).and_then(|rest| rest.split(&format!("</{name}>")).next());
        format!("'sha256-{}'", base64(&Sha256::digest(inner.unwrap_or_default())))
    };
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style")
    )
});

pub(crate) async fn show() -> Result<Response, Refusal> {
    let policy = HeaderValue::from_str(&POLICY).map_err(|_| Refusal::internal("The page has no policy."))?;
    let mut response = Html(PAGE).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    Ok(response)
}
