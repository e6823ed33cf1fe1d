//! Texts, messages and prompts, as C says them.

use std::ffi::{CStr, c_char};

use pocketlm::{Error, Message, Prompt, Result};
use serde_json::{Map, Value};

use crate::input::{self, list, text};
use crate::status::{Outcome, Refusal};

/// A text in UTF-8: where it begins and how many bytes it has. It need not end with a null byte. Empty is size 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plm_text {
    /// The first byte.
    pub data: *const c_char,
    /// Bytes.
    pub size: usize,
}

/// What somebody says in a conversation.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plm_message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: plm_text,
    /// What is said.
    pub content: plm_text,
}

/// What a prompt is.
#[repr(u32)]
pub enum plm_prompt_kind {
    /// `text` as it is, special tokens in it recognised.
    PLM_PROMPT_RAW = 0,
    /// `messages`, rendered by the model's chat template, to be answered.
    PLM_PROMPT_CHAT = 1,
    /// `tokens` as they are.
    PLM_PROMPT_TOKENS = 2,
    /// `text` holds the messages as a JSON array of objects with at least `role` and `content`: whatever else a
    /// template knows, such as calls of tools, can be said so.
    PLM_PROMPT_JSON = 3,
}

/// What to continue. Made by `plm_prompt_user` and its sisters; what it points to stays the caller's.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plm_prompt {
    /// `sizeof(plm_prompt)`.
    pub struct_size: usize,
    /// A `plm_prompt_kind`.
    pub kind: u32,
    /// How many `messages` or `tokens`.
    pub count: usize,
    /// See `plm_prompt_kind`.
    pub text: plm_text,
    /// See `plm_prompt_kind`.
    pub messages: *const plm_message,
    /// See `plm_prompt_kind`.
    pub tokens: *const u32,
}

/// The text of a string that ends with a null byte; empty for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_text_of(string: *const c_char) -> plm_text {
    match string.is_null() {
        true => plm_text::of(""),
        // SAFETY: the caller's string ends with a null byte.
        false => plm_text { data: string, size: unsafe { CStr::from_ptr(string) }.count_bytes() },
    }
}

/// Text as it is.
#[unsafe(no_mangle)]
pub extern "C" fn plm_prompt_raw(text: plm_text) -> plm_prompt {
    plm_prompt { text, ..<plm_prompt as input::Versioned>::usual() }
}

/// A conversation.
#[unsafe(no_mangle)]
pub extern "C" fn plm_prompt_chat(messages: *const plm_message, count: usize) -> plm_prompt {
    let kind = plm_prompt_kind::PLM_PROMPT_CHAT as u32;
    plm_prompt { kind, messages, count, ..<plm_prompt as input::Versioned>::usual() }
}

/// A conversation in JSON.
#[unsafe(no_mangle)]
pub extern "C" fn plm_prompt_json(text: plm_text) -> plm_prompt {
    let kind = plm_prompt_kind::PLM_PROMPT_JSON as u32;
    plm_prompt { kind, text, ..<plm_prompt as input::Versioned>::usual() }
}

/// Tokens as they are.
#[unsafe(no_mangle)]
pub extern "C" fn plm_prompt_tokens(tokens: *const u32, count: usize) -> plm_prompt {
    let kind = plm_prompt_kind::PLM_PROMPT_TOKENS as u32;
    plm_prompt { kind, tokens, count, ..<plm_prompt as input::Versioned>::usual() }
}

impl plm_text {
    pub(crate) fn of(text: &str) -> Self {
        Self { data: text.as_ptr().cast(), size: text.len() }
    }
}

// SAFETY: numbers and pointers, the size first.
unsafe impl input::Versioned for plm_prompt {
    fn usual() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            kind: plm_prompt_kind::PLM_PROMPT_RAW as u32,
            count: 0,
            text: plm_text::of(""),
            messages: std::ptr::null(),
            tokens: std::ptr::null(),
        }
    }
}

/// The prompt that the caller means.
///
/// # Safety
/// What it points to is there.
pub(crate) unsafe fn prompt(given: *const plm_prompt) -> Outcome<Prompt> {
    if given.is_null() {
        return Err(Refusal::invalid("the prompt is null"));
    }
    // SAFETY: as the caller promised, for all of it.
    unsafe {
        let given = input::options(given)?;
        Ok(match given.kind {
            0 => Prompt::Raw(text(given.text, "prompt")?.to_owned()),
            1 => {
                let messages = list(given.messages, given.count, "messages")?;
                let message = |message: &plm_message| {
                    Ok(Message::new(text(message.role, "role")?, text(message.content, "message")?))
                };
                Prompt::Chat(messages.iter().map(message).collect::<Outcome<_>>()?)
            }
            2 => Prompt::Tokens(list(given.tokens, given.count, "tokens")?.to_vec()),
            3 => Prompt::Chat(messages(text(given.text, "prompt")?)?),
            kind => return Err(Refusal::invalid(&format!("{kind} is no kind of prompt"))),
        })
    }
}

/// The messages in `json`.
pub(crate) fn messages(json: &str) -> Result<Vec<Message>> {
    let messages = serde_json::from_str::<Vec<Map<_, _>>>(json).map_err(|error| {
        Error::invalid(format!("the messages are no JSON: {error}"))
            .hint("an array of objects, each with `role` and `content`")
    })?;
    Ok(messages.into_iter().map(Message).collect())
}

/// Messages as [`messages`] reads them.
pub(crate) fn json(messages: &[Message]) -> String {
    messages.iter().map(|message| Value::Object(message.0.clone())).collect::<Value>().to_string()
}
