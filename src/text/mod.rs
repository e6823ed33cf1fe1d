//! Floor 3: text. A tokenizer from the model file, tokens back to whole characters, and chat templates.
//!
//! Merging is the `tokenizers` crate's; what is here is how each kind of file becomes one of its models.

mod decoder;
mod gguf;
mod json;
mod splitter;
mod template;
mod tokenizer;
mod vocabulary;

pub use decoder::Decoder;
pub use template::{ChatRequest, ChatTemplate, Message};
pub use tokenizer::{Special, Tokenizer};
