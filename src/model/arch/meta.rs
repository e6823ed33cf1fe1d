//! Llama 2 and 3 as Meta publishes them: settings in `params.json`, rotated pairs side by side.
//!
//! `params.json` leaves much to the code that reads it. The width of the feed-forward network is a formula. That the
//! frequencies are scaled is said, by how much is not: 32 in the small models, 8 from 8 billion weights on, which are
//! those 4096 wide. The context is not said either: it is the one of the family.
//! Formulas: `models/llama3/model.py` of meta-llama/llama-models.

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Config, Meta};
use crate::model::{Blueprint, Naming, Pairing, Rope, Slot};

use super::rope::{BASE, Llama3Scaling};
use super::{Shape, divide, llama, missing};

/// The width from which on Llama 3.1 stretches its context 8 times and no longer 32 times.
const LARGE_WIDTH: u32 = 4096;

/// The context of Llama 3 before it is stretched.
const LLAMA_3_CONTEXT: u32 = 8192;

/// Positions of a model by what `params.json` says: stretched, quantized for phones, else by its vocabulary.
const STRETCHED_CONTEXT: u32 = 131_072;
const LLAMA_2_CONTEXT: u32 = 4096;
const LLAMA_3_VOCAB: u32 = 128_000;

pub(super) fn read(checkpoint: &Checkpoint, folder: &Meta) -> Result<Blueprint> {
    let Some(params) = &folder.params else {
        return Err(Error::bad_file("there is no params.json beside the weights")
            .hint("download the whole folder of the model"));
    };
    blueprint(checkpoint, params)
        .map_err(|error| error.in_file(checkpoint.path.with_file_name("params.json")))
}

fn blueprint(checkpoint: &Checkpoint, params: &Config) -> Result<Blueprint> {
    let required = |key: &str| params.u32(key)?.ok_or_else(|| missing(key));
    if params.get("moe").is_some() {
        return Err(Error::unsupported("a mixture of experts is not supported").at("moe"));
    }
    let width = required("dim")?;
    let heads = required("n_heads")?;
    let head_dim = match params.u32("head_dim")? {
        Some(head_dim) => head_dim,
        None => divide(width, heads).map_err(|error| error.at("n_heads"))?,
    };
    let vocab = vocab(checkpoint, params)?;
    let shape = Shape {
        arch: llama::ARCH.name,
        name: String::new(),
        width,
        vocab,
        context: context(params, vocab)?,
        heads,
        kv_heads: params.u32("n_kv_heads")?.unwrap_or(heads),
        head_dim,
        ffn_width: ffn_width(params, width)?,
        layers: required("n_layers")?,
        norm_eps: params.float("norm_eps")?.ok_or_else(|| missing("norm_eps"))?,
        tied: tied(checkpoint),
        naming: Naming::Meta,
    };
    shape.llama(vec![rope(params, width, head_dim)?])
}

/// `hidden_dim` where it is said, else two thirds of four times the width, stretched and rounded up.
fn ffn_width(params: &Config, width: u32) -> Result<u32> {
    if let Some(said) = params.u32("hidden_dim")? {
        return Ok(said);
    }
    let key = "ffn_dim_multiplier";
    let multiplier = params.float(key)?.unwrap_or(1.0);
    // What is absurd saturates, and is refused with the other widths.
    let hidden = (multiplier * (u64::from(width) * 8 / 3) as f64) as u32;
    let multiple = params.u32("multiple_of")?.ok_or_else(|| missing("multiple_of"))?;
    hidden.checked_next_multiple_of(multiple).ok_or_else(|| {
        Error::bad_file(format!("{hidden} cannot be rounded up to {multiple}")).at("multiple_of")
    })
}

/// The rows of the embedding; `vocab_size` may be -1, which is unsaid.
fn vocab(checkpoint: &Checkpoint, params: &Config) -> Result<u32> {
    let embedding = checkpoint.tensor(&Naming::Meta.weight(Slot::Embedding))?;
    let rows = embedding.dims.first().copied().unwrap_or(0);
    let key = "vocab_size";
    let said =
        params.get(key).filter(|value| value.as_i64() != Some(-1)).map(|_| params.u32(key)).transpose()?;
    if let Some(said) = said.flatten().filter(|&said| u64::from(said) != rows) {
        return Err(Error::bad_file(format!("{said} tokens, but the embedding has {rows} rows")).at(key));
    }
    u32::try_from(rows).map_err(|_| embedding.refuse(format!("{rows} rows are not a vocabulary")))
}

fn context(params: &Config, vocab: u32) -> Result<u32> {
    if let Some(said) = params.u32("max_seq_len")? {
        return Ok(said);
    }
    let stretched =
        params.bool("use_scaled_rope")?.unwrap_or(false) && params.get("quantization_args").is_none();
    Ok(match (stretched, vocab >= LLAMA_3_VOCAB) {
        (true, _) => STRETCHED_CONTEXT,
        (false, true) => LLAMA_3_CONTEXT,
        (false, false) => LLAMA_2_CONTEXT,
    })
}

/// Whether the head is the embedding: it is absent, or both are the same bytes of the file.
fn tied(checkpoint: &Checkpoint) -> bool {
    let tensor = |slot| checkpoint.tensors.get(&Naming::Meta.weight(slot));
    match (tensor(Slot::Head), tensor(Slot::Embedding)) {
        (Some(head), Some(embedding)) => {
            (head.dtype, &head.dims) == (embedding.dtype, &embedding.dims)
                && std::ptr::eq(&*head.bytes, &*embedding.bytes)
        }
        (head, _) => head.is_none(),
    }
}

fn rope(params: &Config, width: u32, dims: u32) -> Result<Rope> {
    let base = params.float("rope_theta")?.unwrap_or(BASE);
    let mut inv_freq = Rope::inv_freq(base, dims)?;
    if params.bool("use_scaled_rope")?.unwrap_or(false) {
        let of_family = if width < LARGE_WIDTH { 32.0 } else { 8.0 };
        let factor = params.float("rope_scaling_factor")?.unwrap_or(of_family);
        let scaling = Llama3Scaling { factor, low: 1.0, high: 4.0, context: f64::from(LLAMA_3_CONTEXT) };
        inv_freq.iter_mut().for_each(|freq| *freq = scaling.apply(*freq));
    }
    Ok(Rope { dims, pairing: Pairing::Interleaved, inv_freq, attention_factor: 1.0, long: None })
}
