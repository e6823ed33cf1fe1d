//! Qwen 2 and 2.5: Llama with biases on the projections to queries, keys and values. (Yang et al. 2024,
//! arXiv 2407.10671.)

use crate::error::Result;
use crate::model::{Blueprint, Pairing, Part, Stems};

use super::hugging_face::QKV;
use super::{Arch, Folder, Gguf};

pub(super) const ARCH: Arch = Arch {
    name: "qwen2",
    class: "Qwen2ForCausalLM",
    stems: &Stems::LLAMA,
    from_gguf: Some(from_gguf),
    from_hugging_face,
};

fn from_gguf(file: &Gguf<'_>) -> Result<Blueprint> {
    file.like_llama(Pairing::HalfSplit)
}

fn from_hugging_face(folder: &Folder<'_>) -> Result<Blueprint> {
    let mut blueprint = folder.like_llama()?;
    slide(folder, &mut blueprint)?;
    folder.check_biases(&blueprint, QKV, true, "architectures")?;
    folder.check_biases(&blueprint, &[Part::O, Part::Gate, Part::Up, Part::Down], false, "architectures")?;
    Ok(blueprint)
}

/// A window is used only where the settings say so, and then in the upper layers.
pub(super) fn slide(folder: &Folder<'_>, blueprint: &mut Blueprint) -> Result<()> {
    if !folder.config.bool("use_sliding_window")?.unwrap_or(false) {
        return Ok(());
    }
    let first = folder.config.u32("max_window_layers")?.unwrap_or(0);
    folder.slide(blueprint, |layer| layer >= first)
}
