//! Bodies: JSON in, within its limits; JSON out.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use tokio::sync::OwnedSemaphorePermit;

use super::Server;
use super::fields;
use super::guard::Client;
use super::refusal::Refusal;

/// What a client sent.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) server: Arc<Server>,
    pub(crate) client: Client,
    pub(crate) map: Map<String, Value>,
    /// What it takes of all that may be held.
    _held: Option<OwnedSemaphorePermit>,
}

impl FromRequest<Arc<Server>> for Asked {
    type Rejection = Refusal;

    async fn from_request(request: Request, server: &Arc<Server>) -> Result<Self, Refusal> {
        let client = request.extensions().get::<Client>().copied();
        let client = client.ok_or_else(|| Refusal::internal("A request without its client."))?;
        let whole = tokio::time::timeout(server.limits.read, read(request.into_body(), server));
        let (bytes, held) = whole.await.map_err(|_| Refusal::too_slow())??;
        Ok(Self { server: server.clone(), client, map: fields::parse(&bytes)?, _held: held })
    }
}

/// All of a body, and leave to hold it.
async fn read(mut body: Body, server: &Server) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Refusal> {
    let most = server.limits.body;
    if body.size_hint().lower() > most as u64 {
        return Err(Refusal::too_large(most));
    }
    let (mut bytes, mut held): (Vec<u8>, Option<OwnedSemaphorePermit>) = (Vec::new(), None);
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame =
            frame.map_err(|error| Refusal::invalid("", format!("The body could not be read: {error}.")))?;
        // Trailers say nothing.
        let data: Bytes = frame.into_data().unwrap_or_default();
        if bytes.len() + data.len() > most {
            return Err(Refusal::too_large(most));
        }
        bytes.extend_from_slice(&data);
        let due = bytes.len().div_ceil(1024) - held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more =
            server.bodies.clone().try_acquire_many_owned(due as u32).map_err(|_| Refusal::bodies_full())?;
        match &mut held {
            Some(held) => held.merge(more),
            None => held = Some(more),
        }
    }
    Ok((bytes, held))
}

/// A response of JSON.
pub(crate) fn json_body(value: &Value) -> Response {
    typed("application/json", value.to_string())
}

/// A response of another type.
pub(crate) fn typed(kind: &'static str, text: String) -> Response {
    let mut response = text.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
