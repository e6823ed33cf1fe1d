//! Models with the exact shapes of published ones and random weights: to measure at real sizes without a download,
//! and beside other engines that read GGUF.

mod pool;
mod presets;
mod tokenizer;

use std::io::Write;

use crate::error::{Error, Result};
use crate::format::{Metadata, NewTensor, Value, write_gguf};
use crate::quant::Format;

use super::{Naming, Part, Slot};
use pool::Pools;

pub use presets::{PRESETS, Preset};

/// Writes a GGUF of `preset` with weights in `format`, the same bytes for the same arguments. `progress` hears of the
/// bytes of tensors written and in all, and stops the work with an error of its own.
///
/// Weights are Gaussian with a deviation of 1/√(inputs), so activations stay near 1; gains are 1. Tied embeddings are
/// as llama.cpp's quantizer makes them: in `format` where that is a float or Q8_0, else Q6_K, or Q8_0 where the width
/// is no whole number of Q6_K's blocks. So are matrices whose columns are no whole number of `format`'s blocks: they
/// get blocks of 32 with the next more bits.
///
/// # Errors
/// [`crate::Kind::InvalidArgument`] for no layers and for a format that GGUF has no number for, [`crate::Kind::Io`],
/// and what `progress` returns.
pub fn write(
    preset: &Preset,
    format: Format,
    seed: u64,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    if preset.layers == 0 {
        return Err(Error::invalid("a model of 0 layers was asked for").hint("ask for at least 1"));
    }
    if format.gguf_id().is_none() {
        return Err(Error::invalid(format!("GGUF has no number for the format {format}")));
    }
    let slots = slots(preset);
    let tensors: Vec<NewTensor> = slots.iter().map(|&slot| tensor(preset, slot, format)).collect();
    let total = tensors.iter().map(NewTensor::bytes).sum::<Result<u64>>()?;
    let mut pools = Pools::new(seed);
    let (mut done, mut next) = (0, slots.iter());
    write_gguf(out, &metadata(preset, format)?, &tensors, |tensor, out| {
        let values = next.next().and_then(|&slot| vector(preset, slot));
        match values {
            Some(values) => out.write_all(&tensor.format.encode(&values))?,
            None => pools.fill(tensor, out, &mut |written| progress(done + written, total))?,
        }
        done += tensor.bytes()?;
        progress(done, total)
    })
}

/// Every slot that is filled, in the order of the file.
fn slots(preset: &Preset) -> Vec<Slot> {
    let factors = preset.rope_factor.map(|_| Slot::RopeFactors);
    let blocks =
        (0..preset.layers as usize).flat_map(|block| Part::LLAMA.map(|part| Slot::Block(block, part)));
    factors.into_iter().chain([Slot::Embedding]).chain(blocks).chain([Slot::FinalNorm]).collect()
}

fn tensor(preset: &Preset, slot: Slot, format: Format) -> NewTensor {
    let dims = preset.dims(slot);
    let cols = dims.last().copied().unwrap_or(1);
    let format = match slot {
        _ if dims.len() == 1 => Format::F32,
        Slot::Embedding => format.for_vocabulary(cols),
        _ => format.for_columns(cols),
    };
    NewTensor { name: Naming::Gguf.weight(slot), dims, format }
}

/// The numbers of a slot that is not random.
fn vector(preset: &Preset, slot: Slot) -> Option<Vec<f32>> {
    match slot {
        Slot::RopeFactors => Some(rope_divisors(preset)),
        Slot::FinalNorm | Slot::Block(_, Part::AttentionNorm | Part::FfnNorm) => {
            Some(vec![1.0; preset.width as usize])
        }
        _ => None,
    }
}

/// What Llama 3's frequencies are divided by: by `rope_factor` where their wave is longer than the 8192 positions of
/// the first training, by 1 where four waves fit, and between in proportion (Meta's `models/llama3/model.py`).
fn rope_divisors(preset: &Preset) -> Vec<f32> {
    let half = preset.head_dim / 2;
    let factor = preset.rope_factor.unwrap_or(1.0);
    let divisor = |i: u32| {
        let frequency = preset.rope_base.powf(-f64::from(i) / f64::from(half));
        let waves = 8192.0 * frequency / std::f64::consts::TAU;
        let kept = ((waves - 1.0) / 3.0).clamp(0.0, 1.0);
        (1.0 / (kept + (1.0 - kept) / factor)) as f32
    };
    (0..half).map(divisor).collect()
}

fn metadata(preset: &Preset, format: Format) -> Result<Metadata> {
    let Preset { name, layers, .. } = preset;
    let number = |number: u32| Value::Unsigned(number.into());
    let llama = [
        ("context_length", number(preset.context)),
        ("embedding_length", number(preset.width)),
        ("block_count", number(preset.layers)),
        ("feed_forward_length", number(preset.ffn_width)),
        ("vocab_size", number(preset.vocab)),
        ("attention.head_count", number(preset.heads)),
        ("attention.head_count_kv", number(preset.kv_heads)),
        ("attention.layer_norm_rms_epsilon", Value::Float(f64::from(1e-5f32))),
        ("rope.dimension_count", number(preset.head_dim)),
        ("rope.freq_base", Value::Float(preset.rope_base)),
    ];
    let mut metadata = Metadata::default();
    let title = format!("{name} shape, {layers} layers, {format}, random weights");
    metadata.insert("general.architecture".into(), Value::Text("llama".into()))?;
    metadata.insert("general.name".into(), Value::Text(title))?;
    metadata.insert("general.quantization_version".into(), Value::Unsigned(2))?;
    llama.into_iter().try_for_each(|(key, value)| metadata.insert(format!("llama.{key}"), value))?;
    tokenizer::describe(preset.vocab, &mut metadata)?;
    Ok(metadata)
}
