//! tests
mod cpu;
mod data;
mod formats;
mod gguf;
mod hugging_face;
mod quants;
mod text;
