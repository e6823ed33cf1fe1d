//! `/v1/models`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::Server;
use super::body::json_body;
use super::refusal::Refusal;

pub(crate) async fn list(State(server): State<Arc<Server>>) -> Response {
    let models: Vec<Value> = server.names.iter().map(|name| model(&server, name)).collect();
    json_body(&json!({"object": "list", "data": models}))
}

pub(crate) async fn one(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    server.check_model(Some(&name))?;
    Ok(json_body(&model(&server, &name)))
}

fn model(server: &Server, name: &str) -> Value {
    let info = server.model.info();
    json!({
        "id": name,
        "object": "model",
        "created": server.begun,
        "owned_by": "pocketlm",
        "meta": {
            "n_vocab": info.vocab,
            "n_ctx": info.context,
            "n_ctx_train": info.trained_context,
            "n_params": info.parameters,
            "size": info.weight_bytes
        }
    })
}
