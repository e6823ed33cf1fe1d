//! Qwen 3: Llama with a norm of each head of queries and keys. (Yang et al. 2025, arXiv 2505.09388.)

use crate::error::Result;
use crate::model::{Blueprint, HeadNorm, Pairing, Stems};

use super::{Arch, Folder, Gguf, qwen2};

pub(super) const ARCH: Arch = Arch {
    name: "qwen3",
    class: "Qwen3ForCausalLM",
    stems: &Stems::LLAMA,
    from_gguf: Some(from_gguf),
    from_hugging_face,
};

fn from_gguf(file: &Gguf<'_>) -> Result<Blueprint> {
    file.like_llama(Pairing::HalfSplit).map(with_head_norms)
}

fn from_hugging_face(folder: &Folder<'_>) -> Result<Blueprint> {
    let mut blueprint = with_head_norms(folder.like_llama()?);
    qwen2::slide(folder, &mut blueprint)?;
    folder.check_usual_biases(&blueprint)?;
    Ok(blueprint)
}

fn with_head_norms(mut blueprint: Blueprint) -> Blueprint {
    blueprint.blocks.iter_mut().for_each(|block| block.attention.head_norm = Some(HeadNorm::Gain));
    blueprint
}
