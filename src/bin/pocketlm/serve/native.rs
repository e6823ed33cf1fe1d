//! What llama.cpp's server has beside OpenAI's interface: how it fares, what it is, and its tokenizer.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use pocketlm::text::Special;
use serde_json::{Value, json};

use super::Server;
use super::body::{Asked, json_body, typed};
use super::fields::Fields;
use super::refusal::Refusal;

pub(crate) async fn health() -> Response {
    json_body(&json!({"status": "ok"}))
}

pub(crate) async fn props(State(server): State<Arc<Server>>) -> Result<Response, Refusal> {
    blocking(move || Ok(described(&server))).await
}

fn described(server: &Server) -> Value {
    let (info, health) = (server.model.info(), server.model.health());
    let sampling = &server.defaults.sampling;
    let token = |token: Option<u32>| {
        let tokenizer = server.model.tokenizer().ok()?;
        tokenizer.token_text(token?)
    };
    let (bos, eos) =
        server.model.tokenizer().map_or((None, None), |tokenizer| (tokenizer.bos(), tokenizer.eos()));
    let now = server.now();
    json!({
        "default_generation_settings": {
            "n_ctx": info.context,
            "params": {
                "n_predict": server.defaults.max_tokens.map_or(-1, i64::from),
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
                "min_p": sampling.min_p,
                "repeat_penalty": sampling.repeat_penalty,
                "seed": sampling.seed
            }
        },
        "total_slots": now.slots,
        "model_alias": server.name(),
        "model_path": info.path.file_name().map(|name| name.to_string_lossy()),
        "modalities": {"vision": false, "audio": false},
        "can_chat": server.model.can_chat(),
        "bos_token": token(bos).unwrap_or_default(),
        "eos_token": token(eos).unwrap_or_default(),
        "build_info": concat!("pocketlm ", env!("CARGO_PKG_VERSION")),
        "device": {"name": health.device.name, "backend": health.device.backend, "reason": health.reason, "recoveries": health.recoveries}
    })
}

pub(crate) async fn tokenize(asked: Asked) -> Result<Response, Refusal> {
    let Asked { server, map, .. } = asked;
    blocking(move || {
        let fields = Fields::new(&map);
        let text = fields.text("content")?.ok_or_else(|| fields.wrong("content", "a string"))?;
        let begins = fields.flag("add_special")?.unwrap_or(false);
        let special =
            if fields.flag("parse_special")?.unwrap_or(true) { Special::Parse } else { Special::Plain };
        let tokenizer = server.model.tokenizer()?;
        let first = tokenizer.bos().filter(|_| begins && tokenizer.add_bos());
        let mut tokens: Vec<u32> = first.into_iter().collect();
        tokens.extend(tokenizer.encode(text, special)?);
        if !fields.flag("with_pieces")?.unwrap_or(false) {
            return Ok(json!({"tokens": tokens}));
        }
        let piece = |&token: &u32| {
            let bytes = super::usage::bytes(tokenizer, token);
            // A piece of a character is told by its bytes.
            let piece = String::from_utf8(bytes).map_or_else(|error| json!(error.into_bytes()), Value::from);
            json!({"id": token, "piece": piece})
        };
        Ok(json!({"tokens": tokens.iter().map(piece).collect::<Vec<_>>()}))
    })
    .await
}

pub(crate) async fn detokenize(asked: Asked) -> Result<Response, Refusal> {
    let Asked { server, map, .. } = asked;
    blocking(move || {
        let fields = Fields::new(&map);
        let tokenizer = server.model.tokenizer()?;
        let wrong =
            || fields.wrong("tokens", &format!("an array of tokens below {}", tokenizer.vocab_size()));
        let token = |token: &Value| {
            u32::try_from(token.as_u64()?).ok().filter(|&token| (token as usize) < tokenizer.vocab_size())
        };
        let tokens = fields
            .list("tokens")?
            .ok_or_else(wrong)?
            .iter()
            .map(token)
            .collect::<Option<Vec<_>>>()
            .ok_or_else(wrong)?;
        Ok(json!({"content": tokenizer.decode(&tokens, true)}))
    })
    .await
}

pub(crate) async fn metrics(State(server): State<Arc<Server>>) -> Result<Response, Refusal> {
    // The model may compute for a moment before it says how it fares.
    let text = tokio::task::spawn_blocking(move || server.metrics.text(server.now(), &server.model)).await;
    let text = text.map_err(|_| Refusal::internal("The server met a bug; its log has more."))?;
    Ok(typed("text/plain; version=0.0.4; charset=utf-8", text))
}

/// What `work` comes to, which may take a while.
async fn blocking(
    work: impl FnOnce() -> Result<Value, Refusal> + Send + 'static,
) -> Result<Response, Refusal> {
    let made = tokio::task::spawn_blocking(work).await;
    Ok(json_body(&made.map_err(|_| Refusal::internal("The server met a bug; its log has more."))??))
}
