//! Phi-3 and Phi-4-mini: Llama with queries, keys and values from one matrix and gate and up from another, with rotation of a
//! part of each head, LongRoPE, and a window in all layers. (Abdin et al. 2024, arXiv 2404.14219.)

use crate::error::{Error, Result};
use crate::model::{Blueprint, Pairing, Part, Rope, Slot, Stems};

use super::rope::RopeSettings;
use super::{Arch, Folder, Gguf, missing};

pub(super) const ARCH: Arch = Arch {
    name: "phi3",
    class: "Phi3ForCausalLM",
    stems: &Stems::LLAMA,
    from_gguf: Some(from_gguf),
    from_hugging_face,
};

fn from_gguf(file: &Gguf<'_>) -> Result<Blueprint> {
    let mut blueprint = joined(file.like_llama(Pairing::HalfSplit)?);
    let rope = &blueprint.ropes[0];
    let short = file.divided(&rope.inv_freq, Slot::ShortRopeFactors)?;
    let long = file.divided(&rope.inv_freq, Slot::LongRopeFactors)?;
    blueprint.ropes[0] = match (short, long) {
        (None, None) => rope.clone(),
        (Some(short), Some(long)) => {
            let original = "rope.scaling.original_context_length";
            let original = file.u32(original)?.ok_or_else(|| missing(&file.key(original)))?;
            Rope { inv_freq: short, long: Some((original, long)), ..rope.clone() }
        }
        _ => return Err(Error::bad_file("divisors of frequencies for long contexts or for short, not both")),
    };
    Ok(blueprint)
}

fn from_hugging_face(folder: &Folder<'_>) -> Result<Blueprint> {
    folder.check_activation(&["hidden_act"], "silu")?;
    let shape = folder.shape()?;
    let rope = RopeSettings::read(folder.config)?.part(Pairing::HalfSplit, shape.head_dim)?;
    let mut blueprint = joined(shape.llama(vec![rope])?);
    folder.slide(&mut blueprint, |_| true)?;
    let parts = [Part::Qkv, Part::O, Part::GateUp, Part::Down];
    folder.check_biases(&blueprint, &parts, false, "architectures")?;
    Ok(blueprint)
}

fn joined(mut blueprint: Blueprint) -> Blueprint {
    blueprint.layout.joined_qkv = true;
    blueprint.layout.joined_gate_up = true;
    blueprint
}
