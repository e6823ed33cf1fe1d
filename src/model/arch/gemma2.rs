//! Gemma 2: Llama with norms after each half too, scores and logits that are bent below a cap, a window in every other
//! layer, a GELU in the gate, and embeddings times the root of their width. (Gemma Team 2024, arXiv 2408.00118.)
//!
//! Hugging Face stores gains less one; conversion to GGUF adds it. The root of the width is rounded to the type of the
//! embedding by the reference that the weights were trained with, and so it is here for Hugging Face's dialect; other
//! engines for GGUF do not round it.

use crate::error::Result;
use crate::format::Dtype;
use crate::model::{Blueprint, Ffn, Naming, Pairing, Part, Slot, Stems};
use crate::quant::Format;

use super::rope::RopeSettings;
use super::{Arch, Folder, Gguf, missing};

pub(super) const ARCH: Arch = Arch {
    name: "gemma2",
    class: "Gemma2ForCausalLM",
    stems: &STEMS,
    from_gguf: Some(from_gguf),
    from_hugging_face,
};

/// What the caps are in files that were written before there were keys for them.
const CAPS: (f64, f64) = (50.0, 30.0);
const WINDOW: u32 = 4096;

/// Names of tensors in Hugging Face's dialect.
pub(super) const STEMS: Stems = Stems {
    parts: &[
        (Part::PostAttentionNorm, "post_attention_layernorm"),
        (Part::FfnNorm, "pre_feedforward_layernorm"),
        (Part::PostFfnNorm, "post_feedforward_layernorm"),
    ],
    ..Stems::LLAMA
};

fn from_gguf(file: &Gguf<'_>) -> Result<Blueprint> {
    let mut blueprint = with_post_norms(file.like_llama(Pairing::HalfSplit)?);
    let window = file.window()?.unwrap_or(WINDOW);
    let cap = file.float("attn_logit_softcapping")?.unwrap_or(CAPS.0) as f32;
    for block in &mut blueprint.blocks {
        block.attention.window = slides(block.layer).then_some(window);
        block.attention.cap = Some(cap);
    }
    blueprint.logit_cap = Some(file.float("final_logit_softcapping")?.unwrap_or(CAPS.1) as f32);
    rescale(file, &mut blueprint, 46)?;
    Ok(blueprint)
}

fn from_hugging_face(folder: &Folder<'_>) -> Result<Blueprint> {
    let config = folder.config;
    folder.check_activation(&["hidden_activation", "hidden_act"], "gelu_pytorch_tanh")?;
    let shape = folder.shape()?;
    let rope = RopeSettings::read(config)?.whole(Pairing::HalfSplit, shape.head_dim)?;
    let mut blueprint = adopt(folder, shape.llama(vec![rope])?)?;
    folder.slide(&mut blueprint, slides)?;
    folder.check_usual_biases(&blueprint)?;
    Ok(blueprint)
}

/// Every other layer, from the first on.
fn slides(layer: u32) -> bool {
    layer.is_multiple_of(2)
}

/// What Gemma 2 and 3 have in common in both dialects.
pub(super) fn with_post_norms(mut blueprint: Blueprint) -> Blueprint {
    blueprint.embedding_scale = (blueprint.width as f32).sqrt();
    for block in &mut blueprint.blocks {
        block.ffn = Ffn::GeGlu;
        block.post_norms = true;
    }
    blueprint
}

/// What their folders have in common.
pub(super) fn adopt(folder: &Folder<'_>, blueprint: Blueprint) -> Result<Blueprint> {
    let config = folder.config;
    let mut blueprint = with_post_norms(blueprint);
    blueprint.tied = config.bool("tie_word_embeddings")?.unwrap_or(true);
    blueprint.layout.naming = Naming::HuggingFace(&STEMS);
    blueprint.layout.gain_offset = 1.0;
    let embedding = folder.checkpoint.tensor(&blueprint.layout.naming.weight(Slot::Embedding))?;
    if let Dtype::Format(format @ (Format::BF16 | Format::F16)) = embedding.dtype {
        blueprint.embedding_scale = rounded(blueprint.embedding_scale, format);
    }
    let key = "query_pre_attn_scalar";
    let scalar = config.float(key)?.ok_or_else(|| missing(key))?;
    let cap = config.float("attn_logit_softcapping")?.map(|cap| cap as f32);
    for block in &mut blueprint.blocks {
        block.attention.scale = (1.0 / scalar.sqrt()) as f32;
        block.attention.cap = cap;
    }
    blueprint.logit_cap = config.float("final_logit_softcapping")?.map(|cap| cap as f32);
    Ok(blueprint)
}

fn rounded(value: f32, format: Format) -> f32 {
    let mut rounded = [0.0];
    format.decode(&format.encode(&[value]), &mut rounded);
    rounded[0]
}

/// GGUF has no key that its converter fills for what scores are multiplied by; it differs from the usual in the largest
/// model alone, which is known by its layers.
pub(super) fn rescale(file: &Gguf<'_>, blueprint: &mut Blueprint, layers_of_largest: usize) -> Result<()> {
    let named = file.float("attention.scale")?.map(|scale| scale as f32);
    let is_largest = blueprint.blocks.len() == layers_of_largest;
    let width = blueprint.width as f32;
    for block in &mut blueprint.blocks {
        let largest = is_largest.then(|| (block.attention.heads as f32 / width).sqrt());
        block.attention.scale = named.or(largest).unwrap_or(block.attention.scale);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The widths of Gemma 3 270M and 1B; the second is as `modeling_gemma3.py` says of its own.
    #[test]
    fn the_scale_of_the_embedding_is_rounded_to_its_type() {
        assert_eq!(rounded(640f32.sqrt(), Format::BF16), 25.25);
        assert_eq!(rounded(1152f32.sqrt(), Format::BF16), 34.0);
        assert_eq!(rounded(1152f32.sqrt(), Format::F16), 33.9375);
    }
}
