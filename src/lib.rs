//! pocketlm runs small, heavily compressed language models on the device in someone's hand.

mod base;
pub mod error;
mod quant;

pub use error::{Error, Kind, Result};
pub use quant::Format;
