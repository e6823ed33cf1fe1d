//! What answers took and how likely their tokens were, as OpenAI's objects say it.

use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

use pocketlm::text::Tokenizer;
use pocketlm::{Chosen, Finish, Timings};
use serde_json::{Value, json};

/// Tokens of a request, over all of its answers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) prompt: u32,
    pub(crate) cached: u32,
    pub(crate) answer: u32,
}

impl Usage {
    /// Adds an answer. Several to the same prompt count it once, as it was for the first.
    pub(crate) fn add(&mut self, finish: &Finish, is_first: bool) {
        let Timings { prompt_tokens, cached_tokens, generated_tokens, .. } = finish.timings;
        if is_first {
            self.prompt += prompt_tokens;
            self.cached += cached_tokens;
        }
        self.answer += generated_tokens;
    }

    pub(crate) fn to_json(self) -> Value {
        let Self { prompt, cached, answer } = self;
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0}
        })
    }
}

/// How long an answer took, as llama.cpp says it.
pub(crate) fn timings(timings: &Timings) -> Value {
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    json!({
        "cache_n": timings.cached_tokens,
        "prompt_n": timings.prompt_tokens - timings.cached_tokens.min(timings.prompt_tokens),
        "prompt_ms": ms(timings.first_token),
        "prompt_per_second": timings.prefill_rate(),
        "predicted_n": timings.generated_tokens,
        "predicted_ms": ms(timings.total.saturating_sub(timings.first_token)),
        "predicted_per_second": timings.decode_rate()
    })
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A name that no other answer has.
pub(crate) fn id(kind: &str) -> String {
    let chance = || RandomState::new().hash_one(kind);
    format!("{kind}{:016x}{:08x}", chance(), chance() as u32)
}

/// How likely a token was, as chats and responses are told.
pub(crate) fn log_probability(chosen: &Chosen, tokenizer: &Tokenizer) -> Value {
    let of = |token: u32, log: f64| {
        let bytes = bytes(tokenizer, token);
        json!({"token": String::from_utf8_lossy(&bytes), "logprob": finite(log), "bytes": bytes})
    };
    let mut one = of(chosen.token, chosen.log_probability);
    one["top_logprobs"] = chosen.likeliest.iter().map(|&(token, log)| of(token, log)).collect();
    one
}

/// The bytes of a token as they stand in a text; those of its name where it is special.
pub(crate) fn bytes(tokenizer: &Tokenizer, token: u32) -> Vec<u8> {
    match tokenizer.is_special(token) {
        true => tokenizer.token_text(token).unwrap_or_default().into_bytes(),
        false => tokenizer.token_bytes(token).unwrap_or_default().to_vec(),
    }
}

/// JSON has no infinity; OpenAI says -9999 for what is not likely at all.
pub(crate) fn finite(log: f64) -> f64 {
    if log.is_finite() { log } else { -9999.0 }
}
