//! tests
mod cpu;
mod data;
mod formats;
mod hugging_face;
mod quants;
