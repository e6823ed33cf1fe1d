//! pocketlm runs small, heavily compressed language models on the device in someone's hand.

// The rooms are public for this repository's own tests, benches and command line, without a promise of
// stability; the front door is what is re-exported below.
#[doc(hidden)]
pub mod backend;
#[doc(hidden)]
pub mod base;
#[doc(hidden)]
pub mod engine;
mod error;
#[doc(hidden)]
pub mod format;
#[doc(hidden)]
pub mod kernel;
#[doc(hidden)]
pub mod model;
#[cfg(feature = "models")]
pub mod models;
#[doc(hidden)]
pub mod plan;
#[doc(hidden)]
pub mod quant;
#[doc(hidden)]
pub mod sample;
#[doc(hidden)]
pub mod text;

#[cfg(feature = "wgpu")]
pub use backend::wgpu::{DeviceInfo, SharedDevice, devices};
pub use base::Bytes;
pub use engine::{
    Adapter, Budget, Cancel, Chosen, Constraint, Device, Draft, Engine, EngineOptions, Estimate, Event,
    Finish, FinishReason, GenerateOptions, Handler, Health, Largest, Limits, LoadOptions, LoadProgress,
    LoadStage, Message, Model, ModelInfo, Overflow, Pace, Pooling, Progress, Prompt, Remedy, Sampling,
    SaveOptions, Score, Session, Slices, Stream, Suspend, Timings, Tool, ToolCall, ToolChoice, Trim, Trimmed,
    Verdict, Worker, forget_oldest,
};
pub use error::{Error, Kind, Result};
pub use format::Manifest;
pub use kernel::KvType;
pub use quant::Format;
pub use sample::{Dry, Mirostat, Xtc};
/// The version that a [`SharedDevice`] is of.
#[cfg(feature = "wgpu")]
pub use wgpu;
