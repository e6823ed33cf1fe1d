//! Floor 3: text. A tokenizer from the model file, tokens back to whole characters, chat templates, and what holds an answer
//! to a grammar.
//!
//! Normalizing, cutting into words and finding added tokens are the `tokenizers` crate's. What makes tokens of a word is here
//! (`merging`, `unigram`), over one compact vocabulary, and how each kind of file becomes both.

mod constraint;
mod decoder;
mod dialects;
mod gguf;
mod json;
mod merging;
mod outline;
mod pieces;
mod protobuf;
mod sentence_piece;
mod splitter;
mod table;
mod template;
mod tiktoken;
mod tokenizer;
mod tools;
mod unigram;
mod vocabulary;

pub use constraint::{Constraint, Guide, Lexicon};
pub use decoder::Decoder;
pub use dialects::{FolderWords, GgufWords, to_gguf, to_hugging_face};
pub use template::{ChatRequest, ChatTemplate, Message};
pub use tokenizer::{Special, Tokenizer};
pub use tools::{Manner, News, Reader, Tool, ToolCall, ToolChoice, brief, marks, shown};
