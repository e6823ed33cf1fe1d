//! NVIDIA's ModelOpt, as it writes Hugging Face folders; for N outputs and K inputs:
//!
//! - NVFP4: `weight` u8 `(N, K/2)`, `weight_scale` `(N, K/16)` in 8-bit floats, and `weight_scale_2`, a factor of all;
//! - FP8: `weight` `(N, K)` in 8-bit floats, `weight_scale` for all.
//!
//! The settings stand in `config.json`, or in a file of their own beside it.

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Config, Dtype};
use crate::model::Linear;
use crate::model::source::Stem;
use crate::quant::Format;

use super::grouped::{Floats, Integer, Scales};
use super::{Form, Kind, float4, float8};

pub(super) const KIND: Kind = Kind { method: "modelopt", read };

/// Where the settings stand if not in `config.json`, and under which key.
pub(super) const FILE: &str = "hf_quant_config.json";
pub(super) const KEY: &str = "quantization";

/// The settings in that file, or `None` where they leave the weights as they are.
pub(super) fn settings(file: &Config) -> Result<Option<Config>> {
    Ok(file.object(KEY)?.filter(|settings| settings.get("quant_algo").is_some()))
}

#[derive(Debug)]
struct ModelOpt;

fn read(_checkpoint: &Checkpoint, settings: &Config) -> Result<Box<dyn Form>> {
    match settings.text("quant_algo")?.unwrap_or("unnamed") {
        "NVFP4" | "FP8" => Ok(Box::new(ModelOpt)),
        other => Err(Error::unsupported(format!("{other:?} is not supported"))
            .at("quant_algo")
            .hint("NVFP4 and FP8 are")),
    }
}

impl Form for ModelOpt {
    fn linear(&self, stem: &Stem<'_>, rows: u32, cols: u32) -> Result<Option<Linear>> {
        let Some(weights) = stem.get(".weight") else { return Ok(None) };
        let (n, k) = (rows as usize, cols as usize);
        let linear = match weights.dtype {
            Dtype::Other(Integer::U8) => {
                let factor = Floats::flat(stem.tensor(".weight_scale_2")?, 1)?.get(0);
                let tensors = [weights, stem.tensor(".weight_scale")?];
                float4::linear(stem.name(), Format::NVFP4, tensors, factor, [n, k])?
            }
            Dtype::Other(Integer::F8_E4M3) => {
                let scales = Scales::of(stem.tensor(".weight_scale")?, n, k, None)?;
                float8::linear(stem.name(), weights, scales, n, k)?
            }
            _ => return Ok(None),
        };
        // Activations, keys and values stay floats; what is read is not refused as unknown.
        for ending in [".input_scale", ".k_scale", ".v_scale"] {
            _ = stem.get(ending);
        }
        Ok(Some(linear))
    }
}
