//! `/v1/embeddings`.

use axum::response::Response;
use pocketlm::{GenerateOptions, Pooling};
use serde_json::{Value, json};

use super::answering::Answering;
use super::base64::base64;
use super::body::{Asked, json_body};
use super::completions::read_prompts;
use super::fields::Fields;
use super::refusal::Refusal;
use super::slots::{News, Work};

/// Texts of a request, at most, as OpenAI has it.
const MOST: usize = 2048;

pub(crate) async fn answer(asked: Asked) -> Result<Response, Refusal> {
    let Asked { server, client, map, .. } = &asked;
    let fields = Fields::new(map);
    server.check_model(fields.text("model")?)?;
    let wrong = || fields.wrong("input", &format!("a string, an array of tokens, or at most {MOST} of them"));
    let prompts = read_prompts(fields.get("input").ok_or_else(wrong)?, MOST).ok_or_else(wrong)?;
    let in_base64 = match fields.text("encoding_format")? {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(fields.wrong("encoding_format", "float or base64")),
    };
    let pooling = match fields.text("pooling")? {
        None => server.pooling,
        Some("mean") => Pooling::Mean,
        Some("last") => Pooling::Last,
        Some("first" | "cls") => Pooling::First,
        Some(_) => return Err(fields.wrong("pooling", "mean, last or first")),
    };
    let width = fields.count("dimensions", 1)?;
    let mut texts = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let tokens = server.tokens(prompt, &GenerateOptions::default()).await;
        texts.push(tokens.map_err(|refusal| refusal.instead_of("messages", "input"))?);
    }
    let read: usize = texts.iter().map(Vec::len).sum();
    let mut answering = Answering::queue(server, *client, Work::Embeddings(texts, pooling));
    let mut data: Vec<Value> = Vec::new();
    while let Some(news) = answering.next().await {
        match news {
            News::Embedding(embedding) => {
                if let Some(width) = width.filter(|&width| width as usize != embedding.len()) {
                    let message = format!(
                        "The embeddings of this model have {} dimensions, not {width}.",
                        embedding.len()
                    );
                    return Err(Refusal::unsupported("dimensions", message));
                }
                let shown = if in_base64 { base64(&le(&embedding)).into() } else { json!(embedding) };
                data.push(json!({"object": "embedding", "index": data.len(), "embedding": shown}));
            }
            News::Failed(refusal) => return Err(refusal),
            News::Begun | News::Event(..) | News::Done => {}
        }
    }
    Ok(json_body(&json!({
        "object": "list",
        "data": data,
        "model": server.name(),
        "usage": {"prompt_tokens": read, "total_tokens": read}
    })))
}

/// Numbers whose bytes are little-endian on every machine.
fn le(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}
