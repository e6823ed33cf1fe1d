//! Floor 3: text. A tokenizer from the model file, tokens back to whole characters, and chat templates.
//!
//! Merging is the `tokenizers` crate's; what is here is how each kind of file becomes one of its models.

mod gguf;
mod json;
mod splitter;
mod stream;
mod template;
mod tokenizer;
mod vocabulary;

pub use stream::Stream;
pub use template::{ChatRequest, ChatTemplate, Message};
pub use tokenizer::{Special, Tokenizer};
