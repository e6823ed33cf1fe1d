//! Floor 5: what a model is. The blueprint is the architecture as data; the weights fill its slots.

mod adapter;
mod apply;
mod arch;
mod blueprint;
pub mod dialects;
mod forms;
mod linear;
mod lower;
mod names;
mod place;
pub mod quantize;
mod source;
pub mod synth;
mod turned;
mod weights;

pub use adapter::{Adapted, open as open_adapter};
pub use blueprint::{Attention, Block, Blueprint, Ffn, HeadNorm, Layout, Norm, Pairing, Rope, Temperature};
pub use forms::name as form_name;
pub use linear::{Factors, Hadamard, Linear, Side, Transform};
pub use lower::{Cache, CacheOptions, Dial, LowerOptions, Lowered, Phase, Ports, lower, outline};
pub use names::{Naming, Part, Slot, Stems};
pub use weights::{BlockWeights, NormWeights, Weights};
