//! tests
mod bench;
mod chat;
mod cli;
mod commands;
mod cpu;
mod data;
mod engine;
mod faults;
mod formats;
mod gguf;
mod golden;
#[cfg(feature = "wgpu")]
mod gpu;
mod hugging_face;
mod kernels;
#[cfg(feature = "wgpu")]
mod kernels_gpu;
mod program;
mod quants;
mod shaders;
#[cfg(feature = "wgpu")]
mod spirv;
mod synth;
mod text;
mod tidy;
#[cfg(feature = "wgpu")]
mod tuning;
