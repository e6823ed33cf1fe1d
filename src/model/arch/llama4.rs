//! Llama 4's text models without experts, which MobileLLM-R1 is: Llama with norms of heads without gains, layers without
//! rotation whose queries may have a temperature, and attention in chunks. (Zhao et al. 2025, arXiv 2509.24945.)
//!
//! Heads are normalised after they turn; a turn keeps the norm, so here it is before. As long as there is one chunk,
//! there are none: the context ends with the first.

use crate::error::{Error, Result};
use crate::model::{Blueprint, HeadNorm, Naming, Pairing, Part, Stems, Temperature};

use super::hugging_face::Kind;
use super::rope::RopeSettings;
use super::{Arch, Folder};

pub(super) const ARCH: Arch =
    Arch { name: "llama4", class: "Llama4ForCausalLM", stems: &STEMS, from_gguf: None, from_hugging_face };

pub(super) const STEMS: Stems = Stems {
    parts: &[
        (Part::Gate, "feed_forward.gate_proj"),
        (Part::Up, "feed_forward.up_proj"),
        (Part::Down, "feed_forward.down_proj"),
    ],
    ..Stems::LLAMA
};

/// Layers from one without rotation to the next.
const INTERVAL: u32 = 4;
/// Settings of the temperature where none are there.
const TEMPERATURE: Temperature = Temperature { scale: 0.1, floor: 8192.0 };

pub(super) fn from_hugging_face(folder: &Folder<'_>) -> Result<Blueprint> {
    let config = folder.config;
    folder.check_activation(&["hidden_act"], "silu")?;
    if config.array("moe_layers")?.is_some_and(|layers| !layers.is_empty()) {
        return Err(Error::unsupported("a mixture of experts is not supported").at("moe_layers"));
    }
    let mut shape = folder.shape()?;
    shape.ffn_width = config.u32("intermediate_size_mlp")?.unwrap_or(shape.ffn_width);
    let rope = RopeSettings::read(config)?.whole(Pairing::Interleaved, shape.head_dim)?;
    let mut blueprint = shape.llama(vec![rope])?;
    blueprint.layout.naming = Naming::HuggingFace(&STEMS);
    folder.check_usual_biases(&blueprint)?;
    if config.bool("attn_temperature_tuning")?.unwrap_or(false) {
        let scale = config.float("attn_scale")?.unwrap_or(TEMPERATURE.scale);
        let floor = config.float("floor_scale")?.unwrap_or(TEMPERATURE.floor);
        blueprint.temperature = Some(Temperature { scale, floor });
    }
    let is_normed = config.bool("use_qk_norm")?.unwrap_or(true);
    let rotated = folder.rotated(blueprint.blocks.len(), INTERVAL)?;
    for block in &mut blueprint.blocks {
        let attention = &mut block.attention;
        attention.rope = attention.rope.filter(|_| rotated(block.layer));
        attention.head_norm = (is_normed && attention.rope.is_some()).then_some(HeadNorm::Plain);
        attention.tempered = blueprint.temperature.is_some() && attention.rope.is_none();
    }
    folder.slide(&mut blueprint, |_| false)?;
    let is_chunked = match folder.kinds(blueprint.blocks.len())? {
        Some(kinds) => kinds.contains(&Kind::Chunked),
        None => blueprint.blocks.iter().any(|block| block.attention.rope.is_some()),
    };
    let chunk = config.u32("attention_chunk_size")?.filter(|_| is_chunked).unwrap_or(u32::MAX);
    blueprint.context = blueprint.context.min(chunk);
    Ok(blueprint)
}
