//! Llama 2 and 3, TinyLlama, SmolLM2, stories: RMSNorm, rotary positions, grouped-query attention, SwiGLU. In GGUF,
//! Mistral and MobileLLM go by this name too.
//!
//! The two dialects hold the same model differently: conversion to GGUF reorders the rows of Q and K so that
//! rotated pairs are neighbours, and writes the Llama 3 frequency scaling as a tensor of divisors; Hugging
//! Face keeps the halves apart and the scaling in `config.json`.

use crate::error::Result;
use crate::model::{Blueprint, Pairing, Stems};

use super::{Arch, Folder, Gguf};

pub(super) const ARCH: Arch = Arch {
    name: "llama",
    class: "LlamaForCausalLM",
    stems: &Stems::LLAMA,
    from_gguf: Some(from_gguf),
    from_hugging_face,
};

fn from_gguf(file: &Gguf<'_>) -> Result<Blueprint> {
    file.like_llama(Pairing::Interleaved)
}

fn from_hugging_face(folder: &Folder<'_>) -> Result<Blueprint> {
    let blueprint = folder.like_llama()?;
    folder.check_usual_biases(&blueprint)?;
    Ok(blueprint)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::error::Kind;
    use crate::format::{Checkpoint, Dialect, Dtype, Metadata, Tensor, Value};
    use crate::model::{Blueprint, Pairing};
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
        assert_eq!(blueprint.ropes[0].pairing, Pairing::Interleaved);
        assert_eq!(blueprint.ropes[0].inv_freq, [1.0, 0.01]);
        assert_eq!(blueprint.ropes[0].attention_factor, 1.0);
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
            ("llama.attention.sliding_window", Value::Unsigned(16)),
        ];
        let tensors = vec![
            tensor("rope_freqs.weight", &[2], &[1.0, 8.0]),
            tensor("output.weight", &[3, 8], &[0.0; 24]),
        ];
        let blueprint = Blueprint::read(&gguf(&more, tensors)).unwrap();
        let attention = &blueprint.blocks[0].attention;
        assert_eq!((attention.head_dim, attention.window), (6, Some(16)));
        assert_eq!(blueprint.ropes[0].inv_freq, [0.5, 0.1 / 2.0 / 8.0]);
        assert!(!blueprint.tied);
    }

    #[test]
    fn what_would_go_wrong_in_silence_is_refused() {
        let cases = [
            ("llama.expert_count", Value::Unsigned(8), Kind::Unsupported),
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
}
