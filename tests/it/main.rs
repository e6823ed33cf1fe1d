//! tests
mod answers;
mod archs;
#[cfg(feature = "cli")]
mod bench;
mod chat;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "cli")]
mod commands;
mod conversations;
mod cpu;
mod data;
mod dialects;
mod drafts;
mod engine;
mod faults;
#[cfg(feature = "cli")]
mod fit;
mod floor;
mod formats;
mod forms;
mod gguf;
mod golden;
#[cfg(feature = "wgpu")]
mod gpu;
mod hugging_face;
mod kernels;
#[cfg(feature = "wgpu")]
mod kernels_gpu;
mod kv;
mod lora;
mod manifest;
mod merging;
#[cfg(feature = "cli")]
mod program;
mod pth;
mod qlr;
mod quantize;
mod quants;
#[cfg(feature = "wgpu")]
mod quarantine;
mod recovery;
mod same;
mod scores;
#[cfg(feature = "serve")]
mod serve;
mod sessions;
mod sessions_killed;
mod shaders;
#[cfg(feature = "wgpu")]
mod spirv;
#[cfg(feature = "cli")]
mod synth;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod terminal;
mod text;
mod tidy;
mod tokenizer_model;
mod tq;
#[cfg(feature = "wgpu")]
mod tuning;
