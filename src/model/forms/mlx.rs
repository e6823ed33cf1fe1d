//! MLX, as `mlx.core.quantize` packs and mlx-lm writes (0.32): for N outputs and K inputs in groups of g, `weight` u32
//! `(N, K·b/32)` packs codes along K, low bits first; `scales` and `biases` `(N, K/g)`; w = q·s + m. Embeddings are stored
//! the same way. In the modes `mxfp4` and `nvfp4` codes are 4-bit floats, and `scales` u8. The settings are called `quantization`, and may name other bits and groups for single linears.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Config};
use crate::model::Linear;
use crate::model::source::Stem;
use crate::quant::Format;

use super::grouped::{Floats, Grouped, Shape, Words, around_zero, fields, group_of, matrix, whole, words};
use super::{Form, Kind, float4};

pub(super) const KIND: Kind = Kind { method: "mlx", read };

#[derive(Debug)]
struct Mlx {
    default: Packing,
    /// Linears that differ.
    of: BTreeMap<String, Packing>,
}

#[derive(Clone, Copy, Debug)]
enum Packing {
    /// Codes of so many bits in groups of so many inputs.
    Affine { bits: u32, group: u32 },
    /// 4-bit floats.
    Floats(Format),
}

fn read(_checkpoint: &Checkpoint, settings: &Config) -> Result<Box<dyn Form>> {
    let default = packing(settings)?;
    let mut of = BTreeMap::new();
    for (name, value) in settings.iter() {
        if let Value::Object(_) = value {
            let settings = settings.object(name)?.unwrap_or_default();
            of.insert(name.to_owned(), packing(&settings).map_err(|error| error.at(name))?);
        }
    }
    Ok(Box::new(Mlx { default, of }))
}

fn packing(settings: &Config) -> Result<Packing> {
    match settings.text("mode")?.unwrap_or("affine") {
        "affine" => {}
        "mxfp4" => return Ok(Packing::Floats(Format::MXFP4)),
        "nvfp4" => return Ok(Packing::Floats(Format::NVFP4)),
        other => {
            let what = format!("the mode {other:?} is not supported");
            return Err(Error::unsupported(what).at("mode").hint("affine, mxfp4 and nvfp4 are"));
        }
    }
    let (bits, group) = (settings.u32("bits")?.unwrap_or(4), settings.u32("group_size")?.unwrap_or(64));
    if !matches!(bits, 1..=6 | 8) {
        return Err(Error::unsupported(format!("{bits} bits are not supported"))
            .at("bits")
            .hint("1, 2, 3, 4, 5, 6 or 8 are"));
    }
    Ok(Packing::Affine { bits, group })
}

impl Form for Mlx {
    fn linear(&self, stem: &Stem<'_>, rows: u32, cols: u32) -> Result<Option<Linear>> {
        let Some(scales) = stem.get(".scales") else { return Ok(None) };
        let weights = stem.tensor(".weight")?;
        let (n, k) = (rows as usize, cols as usize);
        let (bits, group) = match *self.of.get(stem.name()).unwrap_or(&self.default) {
            Packing::Affine { bits, group } => (bits, group),
            Packing::Floats(format) => {
                return float4::linear(stem.name(), format, [weights, scales], 1.0, [n, k]).map(Some);
            }
        };
        let group = group_of(weights, Some(group), k)?;
        if !(k * bits as usize).is_multiple_of(32) {
            return Err(weights.refuse(format!("{k} codes of {bits} bits are no whole words")));
        }
        let groups = k / group;
        let codes = Codes {
            bits,
            weights: words(weights, [n, k * bits as usize / 32])?,
            scales: Floats::of(scales, &[n, groups])?,
            least: Floats::of(stem.tensor(".biases")?, &[n, groups])?,
            groups,
        };
        let shape = Shape { rows: n, cols: k, group, format: whole(bits, false, false) };
        Ok(Some(Linear::plain(matrix(stem.name(), shape, codes)?)))
    }
}

/// Where codes, scales and least values stand.
#[derive(Debug)]
struct Codes {
    bits: u32,
    weights: Words,
    scales: Floats,
    least: Floats,
    groups: usize,
}

impl Codes {
    fn around_zero(&self, row: usize, group: usize) -> (f32, f32) {
        let at = row * self.groups + group;
        around_zero(self.scales.get(at), self.least.get(at))
    }
}

impl Grouped for Codes {
    fn codes(&self, row: usize, codes: &mut [u8]) {
        fields(self.bits, self.weights.row(row), codes);
    }

    fn scale(&self, row: usize, group: usize) -> f32 {
        self.around_zero(row, group).0
    }

    fn zero(&self, row: usize, group: usize) -> f32 {
        self.around_zero(row, group).1
    }

    fn release(&self) {
        self.weights.release();
    }
}
