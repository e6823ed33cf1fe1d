//! SmolLM3: Llama in which every fourth layer does without rotation (Yang et al. 2025, arXiv 2501.18795). GGUF has no
//! key for which layers these are: other engines count to four.

use crate::error::Result;
use crate::model::{Blueprint, Pairing, Stems};

use super::{Arch, Folder, Gguf};

pub(super) const ARCH: Arch = Arch {
    name: "smollm3",
    class: "SmolLM3ForCausalLM",
    stems: &Stems::LLAMA,
    from_gguf: Some(from_gguf),
    from_hugging_face,
};

/// Layers from one without rotation to the next.
const INTERVAL: u32 = 4;

fn from_gguf(file: &Gguf<'_>) -> Result<Blueprint> {
    let mut blueprint = file.like_llama(Pairing::Interleaved)?;
    for block in &mut blueprint.blocks {
        block.attention.rope = block.attention.rope.filter(|_| !(block.layer + 1).is_multiple_of(INTERVAL));
    }
    Ok(blueprint)
}

fn from_hugging_face(folder: &Folder<'_>) -> Result<Blueprint> {
    let mut blueprint = folder.like_llama()?;
    let rotated = folder.rotated(blueprint.blocks.len(), INTERVAL)?;
    for block in &mut blueprint.blocks {
        block.attention.rope = block.attention.rope.filter(|_| rotated(block.layer));
    }
    if folder.config.bool("use_sliding_window")?.unwrap_or(false) {
        folder.slide(&mut blueprint, |layer| !rotated(layer))?;
    }
    folder.check_usual_biases(&blueprint)?;
    Ok(blueprint)
}
