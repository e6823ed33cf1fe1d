//! MobileLLM: Llama, deep and thin. The layer-shared variants compute each layer twice in a row, with keys and values of
//! its own each time. (Liu et al. 2024, arXiv 2402.14905.) In GGUF it goes by the name of Llama.
//!
//! The configuration says `tie_word_embeddings: false` beside a `share_embedding` that ties them all the same.

use crate::error::Result;
use crate::model::{Block, Blueprint, Stems};

use super::{Arch, Folder};

pub(super) const ARCH: Arch = Arch {
    name: "mobilellm",
    class: "MobileLLMForCausalLM",
    stems: &Stems::LLAMA,
    from_gguf: None,
    from_hugging_face,
};

fn from_hugging_face(folder: &Folder<'_>) -> Result<Blueprint> {
    let mut blueprint = folder.like_llama()?;
    blueprint.tied |= folder.config.bool("share_embedding")?.unwrap_or(false);
    if folder.config.bool("layer_sharing")?.unwrap_or(false) {
        let twice = |block: Block| [block.clone(), block];
        blueprint.blocks = blueprint.blocks.into_iter().flat_map(twice).collect();
    }
    folder.check_usual_biases(&blueprint)?;
    Ok(blueprint)
}
