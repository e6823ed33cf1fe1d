//! What is refused, and how a client hears of it: OpenAI's error object, by which their clients know what to do.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pocketlm::{Error, Kind};
use serde_json::{Value, json};

use super::body::json_body;

/// Why a request is not answered.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    pub(crate) message: String,
    /// Seconds after which another try makes sense.
    retry_after: Option<u32>,
}

/// OpenAI's clients try again what was refused with 408, 409, 429 or 500 and above, unless this says otherwise.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

impl Refusal {
    /// A request that makes no sense, for what a field says.
    pub(crate) fn invalid(param: &str, message: impl Into<String>) -> Self {
        let param = (!param.is_empty()).then(|| param.to_owned());
        Self { param, ..Self::of(StatusCode::BAD_REQUEST, "invalid_request_error", None, message) }
    }

    /// A request for what is not there.
    pub(crate) fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self { code: Some("unsupported_parameter"), ..Self::invalid(param, message) }
    }

    pub(crate) fn unknown_model(asked: &str, known: &str) -> Self {
        let message = format!("The model `{asked}` does not exist here; `{known}` does.");
        let status = StatusCode::NOT_FOUND;
        Self {
            param: Some("model".into()),
            ..Self::of(status, "invalid_request_error", Some("model_not_found"), message)
        }
    }

    pub(crate) fn too_long(tokens: usize, context: u32) -> Self {
        let message = format!(
            "This model's maximum context length is {context} tokens, and the prompt has {tokens}, which leaves no room for an answer; give a shorter one, or start the server with a larger --ctx-size."
        );
        Self { code: Some("context_length_exceeded"), ..Self::invalid("messages", message) }
    }

    pub(crate) fn not_found(path: &str) -> Self {
        let message = format!("There is nothing at {path}.");
        Self::of(StatusCode::NOT_FOUND, "invalid_request_error", Some("unknown_url"), message)
    }

    pub(crate) fn wrong_method(method: &str, path: &str) -> Self {
        let message = format!("{method} is not allowed at {path}.");
        Self::of(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", Some("method_not_allowed"), message)
    }

    pub(crate) fn wrong_key(is_missing: bool) -> Self {
        let message = match is_missing {
            true => "No API key was given; send it as `Authorization: Bearer KEY`.",
            false => "The API key is not one of this server's.",
        };
        Self::of(StatusCode::UNAUTHORIZED, "invalid_request_error", Some("invalid_api_key"), message)
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::of(StatusCode::FORBIDDEN, "invalid_request_error", Some("forbidden"), message)
    }

    pub(crate) fn too_large(most: usize) -> Self {
        let message = format!("The body of a request may have {most} bytes.");
        Self::of(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", Some("request_too_large"), message)
    }

    pub(crate) fn too_slow() -> Self {
        let message = "The body of the request did not come in time.";
        Self::of(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", Some("request_timeout"), message)
    }

    pub(crate) fn queue_full() -> Self {
        let message = "Too many requests are waiting; try again later.";
        let refusal =
            Self::of(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some("queue_full"), message);
        Self { retry_after: Some(2), ..refusal }
    }

    pub(crate) fn connections_full() -> Self {
        let message = "Too many connections are open; try again later.";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { retry_after: Some(2), ..Self::of(status, "server_error", Some("connections_full"), message) }
    }

    pub(crate) fn bodies_full() -> Self {
        let message = "Too many requests are being read; try again later.";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { retry_after: Some(1), ..Self::of(status, "server_error", Some("busy"), message) }
    }

    pub(crate) fn shutting_down() -> Self {
        let message = "The server is shutting down.";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { retry_after: Some(10), ..Self::of(status, "server_error", Some("shutting_down"), message) }
    }

    pub(crate) fn overdue(seconds: u64) -> Self {
        let message =
            format!("The answer was not whole after {seconds} seconds, the longest that it may take here.");
        Self::of(StatusCode::GATEWAY_TIMEOUT, "server_error", Some("timeout"), message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::of(StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some("internal_error"), message)
    }

    /// About a field, unless it is about one already.
    pub(crate) fn about(self, param: &str) -> Self {
        Self { param: self.param.or_else(|| Some(param.to_owned())), ..self }
    }

    /// Names a field as this request has it.
    pub(crate) fn instead_of(self, param: &str, own: &str) -> Self {
        let param = self.param.map(|known| if known == param { own.to_owned() } else { known });
        Self { param, ..self }
    }

    fn of(
        status: StatusCode,
        kind: &'static str,
        code: Option<&'static str>,
        message: impl Into<String>,
    ) -> Self {
        Self { status, kind, code, param: None, message: message.into(), retry_after: None }
    }

    /// `{"error": …}`.
    pub(crate) fn to_json(&self) -> Value {
        let Self { kind, code, param, message, .. } = self;
        json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error.kind() {
            Kind::InvalidArgument | Kind::Template => Self::invalid("", message),
            Kind::Unsupported => Self { code: Some("unsupported_value"), ..Self::invalid("", message) },
            Kind::ContextOverflow => {
                Self { code: Some("context_length_exceeded"), ..Self::invalid("", message) }
            }
            Kind::SessionBusy | Kind::Suspended => {
                Self { status: StatusCode::SERVICE_UNAVAILABLE, ..Self::internal(message) }
            }
            _ => Self::internal(message),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, json_body(&self.to_json())).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        let is_tried_again = self.status.is_server_error() || self.status == StatusCode::REQUEST_TIMEOUT;
        if is_tried_again && self.retry_after.is_none() {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
