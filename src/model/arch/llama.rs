//! Llama 2 and 3, TinyLlama, SmolLM2, stories: RMSNorm, rotary positions, grouped-query attention, SwiGLU.
//!
//! The two dialects hold the same model differently: conversion to GGUF reorders the rows of Q and K so that
//! rotated pairs are neighbours, and writes the Llama 3 frequency scaling as a tensor of divisors; Hugging
//! Face keeps the halves apart and the scaling in `config.json`.
//! Scaling: `modeling_rope_utils.py` of huggingface/transformers, and Meta's `models/llama3/model.py`.

use std::f64::consts::TAU;

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Config, Metadata};
use crate::model::source::vector;
use crate::model::{Attention, Block, Blueprint, Naming, Pairing, Part, Rope, Slot};

use super::{Arch, missing};

pub(super) const ARCH: Arch = Arch { name: "llama", class: "LlamaForCausalLM", from_gguf, from_hugging_face };

/// The base of the rotary frequencies where the file names none.
pub(super) const ROPE_BASE: f64 = 10_000.0;

fn from_gguf(checkpoint: &Checkpoint, metadata: &Metadata) -> Result<Blueprint> {
    let key = |key: &str| format!("llama.{key}");
    let optional = |name: &str| metadata.u32(&key(name));
    let required = |name: &str| optional(name)?.ok_or_else(|| missing(&key(name)));
    refuse_gguf_features(metadata)?;

    let width = required("embedding_length")?;
    let heads = required("attention.head_count")?;
    let head_dim = match optional("attention.key_length")? {
        Some(length) => length,
        None => divide(width, heads).map_err(|error| error.at(key("attention.head_count")))?,
    };
    let value_length = optional("attention.value_length")?.unwrap_or(head_dim);
    if value_length != head_dim {
        return Err(Error::unsupported(format!(
            "values of {value_length} beside keys of {head_dim} elements"
        ))
        .at(key("attention.value_length")));
    }
    let eps_key = key("attention.layer_norm_rms_epsilon");
    let block = Block {
        attention: Attention {
            heads,
            kv_heads: optional("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            scale: default_scale(head_dim),
        },
        ffn_width: required("feed_forward_length")?,
    };
    Ok(Blueprint {
        arch: ARCH.name,
        name: metadata.text("general.name")?.unwrap_or_default().to_owned(),
        width,
        vocab: gguf_vocab(checkpoint, metadata)?,
        context: required("context_length")?,
        norm_eps: metadata.float(&eps_key)?.ok_or_else(|| missing(&eps_key))? as f32,
        tied: !checkpoint.tensors.contains_key(&Naming::Gguf.weight(Slot::Head)),
        rope: gguf_rope(checkpoint, metadata, optional("rope.dimension_count")?.unwrap_or(head_dim))?,
        blocks: block.repeat(required("block_count")?)?,
    })
}

/// Features that other engines put under the name llama and that would go wrong in silence.
fn refuse_gguf_features(metadata: &Metadata) -> Result<()> {
    let experts = "llama.expert_count";
    if metadata.u32(experts)?.unwrap_or(0) > 0 {
        return Err(Error::unsupported("a mixture of experts is not supported").at(experts));
    }
    let window = "llama.attention.sliding_window";
    if metadata.u32(window)?.unwrap_or(0) > 0 {
        return Err(Error::unsupported("sliding-window attention is not supported").at(window));
    }
    Ok(())
}

/// The rows of the embedding, which must cover every token of the vocabulary, if there is one.
fn gguf_vocab(checkpoint: &Checkpoint, metadata: &Metadata) -> Result<u32> {
    let embedding = checkpoint.tensor(&Naming::Gguf.weight(Slot::Embedding))?;
    let rows = embedding.dims[0];
    let tokens_key = "tokenizer.ggml.tokens";
    let tokens = metadata.texts(tokens_key)?.map(|tokens| tokens.len() as u64);
    let size_key = "llama.vocab_size";
    let size = metadata.u32(size_key)?.map(u64::from);
    for (key, count) in [(tokens_key, tokens), (size_key, size)] {
        let Some(count) = count else { continue };
        if count == 0 {
            return Err(Error::bad_file("the vocabulary is empty").at(key));
        }
        if count > rows {
            return Err(Error::bad_file(format!("{count} tokens, but the embedding has {rows} rows")).at(key));
        }
    }
    u32::try_from(rows).map_err(|_| embedding.refuse(format!("{rows} rows are not a vocabulary")))
}

fn gguf_rope(checkpoint: &Checkpoint, metadata: &Metadata, dims: u32) -> Result<Rope> {
    let base = metadata.float("llama.rope.freq_base")?.unwrap_or(ROPE_BASE);
    let mut inv_freq = Rope::inv_freq(base, dims)?;
    let kind_key = "llama.rope.scaling.type";
    let factor = match metadata.text(kind_key)? {
        None => metadata.float("llama.rope.scale_linear")?.unwrap_or(1.0),
        Some("none") => 1.0,
        Some("linear") => {
            let key = "llama.rope.scaling.factor";
            metadata.float(key)?.ok_or_else(|| missing(key))?
        }
        Some(kind) => return Err(unknown_scaling(kind).at(kind_key)),
    };
    inv_freq.iter_mut().for_each(|freq| *freq /= factor);
    if let Some(tensor) = checkpoint.tensors.get(&Naming::Gguf.weight(Slot::RopeFactors)) {
        let divisors = vector(tensor, dims / 2)?;
        inv_freq.iter_mut().zip(divisors).for_each(|(freq, divisor)| *freq /= f64::from(divisor));
    }
    let attention_factor = metadata.float("llama.rope.scaling.attn_factor")?.unwrap_or(1.0) as f32;
    Ok(Rope { dims, pairing: Pairing::Interleaved, inv_freq, attention_factor })
}

fn from_hugging_face(checkpoint: &Checkpoint, config: &Config) -> Result<Blueprint> {
    let required = |key: &str| config.u32(key)?.ok_or_else(|| missing(key));
    refuse_hugging_face_features(config)?;

    let width = required("hidden_size")?;
    let heads = required("num_attention_heads")?;
    let head_dim = match config.u32("head_dim")? {
        Some(head_dim) => head_dim,
        None => divide(width, heads).map_err(|error| error.at("num_attention_heads"))?,
    };
    let block = Block {
        attention: Attention {
            heads,
            kv_heads: config.u32("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            scale: default_scale(head_dim),
        },
        ffn_width: required("intermediate_size")?,
    };
    let blocks = block.repeat(required("num_hidden_layers")?)?;
    check_biases(checkpoint, config, blocks.len())?;
    Ok(Blueprint {
        arch: ARCH.name,
        name: config.text("_name_or_path")?.unwrap_or_default().to_owned(),
        width,
        vocab: required("vocab_size")?,
        context: required("max_position_embeddings")?,
        norm_eps: config.float("rms_norm_eps")?.ok_or_else(|| missing("rms_norm_eps"))? as f32,
        tied: config.bool("tie_word_embeddings")?.unwrap_or(false),
        rope: hugging_face_rope(config, head_dim)?,
        blocks,
    })
}

fn refuse_hugging_face_features(config: &Config) -> Result<()> {
    let activation = config.text("hidden_act")?.unwrap_or("silu");
    if activation != "silu" {
        return Err(Error::unsupported(format!("the activation {activation:?} is not supported"))
            .at("hidden_act")
            .hint("supported is silu"));
    }
    Ok(())
}

/// A bias that the settings promise must be there in every layer, and no other.
fn check_biases(checkpoint: &Checkpoint, config: &Config, layers: usize) -> Result<()> {
    let attention = ("attention_bias", [Part::Q, Part::K, Part::V, Part::O].as_slice());
    let ffn = ("mlp_bias", [Part::Gate, Part::Up, Part::Down].as_slice());
    for (key, parts) in [attention, ffn] {
        let promised = config.bool(key)?.unwrap_or(false);
        let slots = (0..layers).flat_map(|layer| parts.iter().map(move |&part| Slot::Block(layer, part)));
        let mut names = slots.map(|slot| Naming::HuggingFace.bias(slot));
        if let Some(name) = names.find(|name| checkpoint.tensors.contains_key(name) != promised) {
            let what = if promised { "the bias is missing" } else { "a bias that the settings do not know" };
            return Err(Error::bad_file(what).at(format!("tensor {name}")).at(key));
        }
    }
    Ok(())
}

/// `rope_theta` and `rope_scaling`, or both in `rope_parameters`, as newer writers have it.
fn hugging_face_rope(config: &Config, dims: u32) -> Result<Rope> {
    let parameters = config.object("rope_parameters")?;
    let scaling = config.object("rope_scaling")?;
    let settings = parameters.or(scaling).unwrap_or_default();
    let base = settings.float("rope_theta")?.or(config.float("rope_theta")?).unwrap_or(ROPE_BASE);
    let partial = settings.float("partial_rotary_factor")?.or(config.float("partial_rotary_factor")?);
    if partial.is_some_and(|factor| factor != 1.0) {
        return Err(Error::unsupported("rotation of a part of each head is not supported")
            .at("partial_rotary_factor"));
    }
    let mut inv_freq = Rope::inv_freq(base, dims)?;
    let kind = settings.text("rope_type")?.or(settings.text("type")?).unwrap_or("default");
    match kind {
        "default" => {}
        "linear" => {
            let factor = required_float(&settings, "factor")?;
            inv_freq.iter_mut().for_each(|freq| *freq /= factor);
        }
        "llama3" => {
            let scaling = Llama3Scaling::read(&settings)?;
            inv_freq.iter_mut().for_each(|freq| *freq = scaling.apply(*freq));
        }
        kind => return Err(unknown_scaling(kind).at("rope_type")),
    }
    Ok(Rope { dims, pairing: Pairing::HalfSplit, inv_freq, attention_factor: 1.0 })
}

/// Slow frequencies divided by `factor`, fast ones kept, those between blended.
pub(super) struct Llama3Scaling {
    pub(super) factor: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) context: f64,
}

impl Llama3Scaling {
    fn read(settings: &Config) -> Result<Self> {
        let scaling = Self {
            factor: required_float(settings, "factor")?,
            low: required_float(settings, "low_freq_factor")?,
            high: required_float(settings, "high_freq_factor")?,
            context: required_float(settings, "original_max_position_embeddings")?,
        };
        if scaling.high <= scaling.low {
            return Err(Error::bad_file(format!(
                "{} is not above low_freq_factor, {}",
                scaling.high, scaling.low
            ))
            .at("high_freq_factor"));
        }
        Ok(scaling)
    }

    pub(super) fn apply(&self, freq: f64) -> f64 {
        // How often the original context holds the wavelength.
        let turns = self.context * freq / TAU;
        let keep = ((turns - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        (1.0 - keep) * freq / self.factor + keep * freq
    }
}

fn required_float(settings: &Config, key: &str) -> Result<f64> {
    settings.float(key)?.ok_or_else(|| missing(key))
}

fn unknown_scaling(kind: &str) -> Error {
    Error::unsupported(format!("the rotary scaling {kind:?} is not supported"))
        .hint("supported are linear and that of Llama 3")
}

pub(super) fn divide(width: u32, heads: u32) -> Result<u32> {
    match width.checked_rem(heads) {
        Some(0) => Ok(width / heads),
        _ => Err(Error::bad_file(format!("a width of {width} does not divide into {heads} heads"))),
    }
}

pub(super) fn default_scale(head_dim: u32) -> f32 {
    (1.0 / f64::from(head_dim).sqrt()) as f32
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::error::Kind;
    use crate::format::{Dialect, Dtype, Tensor, Value};
    use crate::quant::Format;

    /// A tensor of f32 elements.
    fn tensor(name: &str, dims: &[u64], values: &[f32]) -> Tensor {
        Tensor {
            name: name.to_owned(),
            dims: dims.to_vec(),
            dtype: Dtype::Format(Format::F32),
            bytes: Format::F32.encode(values).into(),
            file: Path::new("test.gguf").into(),
            offset: 0,
        }
    }

    /// Width 8, two heads of 4, an embedding of three rows; `more` replaces and adds.
    fn gguf(more: &[(&str, Value)], tensors: Vec<Tensor>) -> Checkpoint {
        let base = [
            ("general.architecture", Value::Text("llama".to_owned())),
            ("llama.embedding_length", Value::Unsigned(8)),
            ("llama.attention.head_count", Value::Unsigned(2)),
            ("llama.feed_forward_length", Value::Unsigned(16)),
            ("llama.context_length", Value::Unsigned(32)),
            ("llama.block_count", Value::Unsigned(1)),
            ("llama.attention.layer_norm_rms_epsilon", Value::Float(1e-5)),
        ];
        let mut metadata = Metadata::default();
        let kept = base.iter().filter(|(key, _)| more.iter().all(|(other, _)| other != key));
        for (key, value) in kept.chain(more) {
            metadata.insert((*key).to_owned(), value.clone()).unwrap();
        }
        let embedding = tensor("token_embd.weight", &[3, 8], &[0.5; 24]);
        let tensors =
            tensors.into_iter().chain([embedding]).map(|tensor| (tensor.name.clone(), tensor)).collect();
        Checkpoint { path: "test.gguf".into(), dialect: Dialect::Gguf(metadata), tensors }
    }

    #[test]
    fn absent_settings_have_their_defaults() {
        let blueprint = Blueprint::read(&gguf(&[], Vec::new())).unwrap();
        let attention = &blueprint.blocks[0].attention;
        assert_eq!((attention.kv_heads, attention.head_dim, attention.scale), (2, 4, 0.5));
        assert_eq!((blueprint.vocab, blueprint.tied), (3, true));
        assert_eq!(blueprint.rope.pairing, Pairing::Interleaved);
        assert_eq!(blueprint.rope.inv_freq, [1.0, 0.01]);
        assert_eq!(blueprint.rope.attention_factor, 1.0);
    }

    #[test]
    fn settings_are_followed() {
        let more = [
            ("llama.attention.key_length", Value::Unsigned(6)),
            ("llama.attention.value_length", Value::Unsigned(6)),
            ("llama.rope.dimension_count", Value::Signed(4)),
            ("llama.rope.freq_base", Value::Float(100.0)),
            ("llama.rope.scaling.type", Value::Text("linear".to_owned())),
            ("llama.rope.scaling.factor", Value::Float(2.0)),
        ];
        let tensors = vec![
            tensor("rope_freqs.weight", &[2], &[1.0, 8.0]),
            tensor("output.weight", &[3, 8], &[0.0; 24]),
        ];
        let blueprint = Blueprint::read(&gguf(&more, tensors)).unwrap();
        assert_eq!(blueprint.blocks[0].attention.head_dim, 6);
        assert_eq!(blueprint.rope.inv_freq, [0.5, 0.1 / 2.0 / 8.0]);
        assert!(!blueprint.tied);
    }

    #[test]
    fn what_would_go_wrong_in_silence_is_refused() {
        let cases = [
            ("llama.expert_count", Value::Unsigned(8), Kind::Unsupported),
            ("llama.attention.sliding_window", Value::Unsigned(16), Kind::Unsupported),
            ("llama.attention.value_length", Value::Unsigned(8), Kind::Unsupported),
            ("llama.rope.scaling.type", Value::Text("yarn".to_owned()), Kind::Unsupported),
            ("llama.rope.scale_linear", Value::Float(f64::NAN), Kind::BadFile),
            ("llama.rope.scaling.attn_factor", Value::Float(0.0), Kind::BadFile),
            ("llama.vocab_size", Value::Unsigned(4), Kind::BadFile),
            ("llama.attention.key_length", Value::Unsigned(1 << 20), Kind::BadFile),
            ("llama.attention.head_count", Value::Unsigned(0), Kind::BadFile),
        ];
        for (key, value, kind) in cases {
            let error = Blueprint::read(&gguf(&[(key, value)], Vec::new())).unwrap_err();
            assert_eq!(error.kind(), kind, "{key}: {error}");
        }
        for divisors in [[1.0, 0.0], [1.0, -2.0], [1.0, f32::NAN]] {
            let factors = tensor("rope_freqs.weight", &[2], &divisors);
            let error = Blueprint::read(&gguf(&[], vec![factors])).unwrap_err();
            assert_eq!(error.kind(), Kind::BadFile, "{divisors:?}: {error}");
        }
        let too_many = tensor("rope_freqs.weight", &[3], &[1.0; 3]);
        assert!(Blueprint::read(&gguf(&[], vec![too_many])).is_err());
    }

    /// The settings of Llama 3.2 at the edges of the three ranges.
    #[test]
    fn llama_3_keeps_fast_frequencies_and_divides_slow_ones() {
        let scaling = Llama3Scaling { factor: 32.0, low: 1.0, high: 4.0, context: 8192.0 };
        let of_wavelength = |wavelength: f64| TAU / wavelength;
        for (wavelength, factor) in [(100.0, 1.0), (2048.0, 1.0), (8192.0, 1.0 / 32.0), (1e6, 1.0 / 32.0)] {
            let freq = of_wavelength(wavelength);
            assert!((scaling.apply(freq) / freq - factor).abs() < 1e-12, "{wavelength}");
        }
        // Two turns in the context: a third of the way from low to high.
        let freq = of_wavelength(4096.0);
        assert!((scaling.apply(freq) / freq - (1.0 / 3.0 + 2.0 / 3.0 / 32.0)).abs() < 1e-12);
    }
}
