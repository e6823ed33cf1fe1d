//! GPT-2: learned positions in place of rotation, norms to mean 0 with biases, biases everywhere, and no gate. (Radford et
//! al. 2019.) Hugging Face stores its matrices as (inputs, outputs), and the published file leaves out the first word of
//! each name.

use crate::error::{Error, Result};
use crate::model::{Blueprint, Ffn, Naming, Norm, Part, Slot, Stems};

use super::{Arch, Folder, Gguf, Shape, divide, missing};

pub(super) const ARCH: Arch = Arch {
    name: "gpt2",
    class: "GPT2LMHeadModel",
    stems: &STEMS,
    from_gguf: Some(from_gguf),
    from_hugging_face,
};

const PARTS: &[(Part, &str)] = &[
    (Part::AttentionNorm, "ln_1"),
    (Part::Qkv, "attn.c_attn"),
    (Part::O, "attn.c_proj"),
    (Part::FfnNorm, "ln_2"),
    (Part::Up, "mlp.c_fc"),
    (Part::Down, "mlp.c_proj"),
];
const STEMS: Stems = Stems {
    embedding: "transformer.wte",
    positions: "transformer.wpe",
    final_norm: "transformer.ln_f",
    blocks: "transformer.h.",
    parts: PARTS,
};
const BARE: Stems =
    Stems { embedding: "wte", positions: "wpe", final_norm: "ln_f", blocks: "h.", parts: PARTS };

fn from_gguf(file: &Gguf<'_>) -> Result<Blueprint> {
    adopt(file.shape("attention.layer_norm_epsilon")?)
}

fn from_hugging_face(folder: &Folder<'_>) -> Result<Blueprint> {
    let config = folder.config;
    folder.check_activation(&["activation_function"], "gelu_new")?;
    for (key, usual) in [("scale_attn_weights", true), ("scale_attn_by_inverse_layer_idx", false)] {
        if config.bool(key)?.unwrap_or(usual) != usual {
            return Err(Error::unsupported("another scale of attention is not supported").at(key));
        }
    }
    let (width, heads) = (folder.required("n_embd")?, folder.required("n_head")?);
    let ffn_width = config.u32("n_inner")?;
    let naming = [&STEMS, &BARE].map(Naming::HuggingFace);
    let tensors = &folder.checkpoint.tensors;
    let is_bare = tensors.contains_key(&naming[1].weight(Slot::Positions));
    let naming = naming[usize::from(is_bare)];
    // A head that stands in the file is the embedding once more, unless that is no matrix.
    let head = format!("{}.", naming.stem(Slot::Head));
    let is_own_head = !tensors.contains_key(&naming.weight(Slot::Embedding))
        && tensors.keys().any(|name| name.starts_with(&head));
    let shape = Shape {
        arch: folder.arch,
        name: config.text("_name_or_path")?.unwrap_or_default().to_owned(),
        width,
        vocab: folder.required("vocab_size")?,
        context: folder.required("n_positions")?,
        heads,
        kv_heads: heads,
        head_dim: divide(width, heads).map_err(|error| error.at("n_head"))?,
        ffn_width: ffn_width.unwrap_or(width.saturating_mul(4)),
        layers: folder.required("n_layer")?,
        norm_eps: config.float("layer_norm_epsilon")?.ok_or_else(|| missing("layer_norm_epsilon"))?,
        tied: config.bool("tie_word_embeddings")?.unwrap_or(true) && !is_own_head,
        naming,
    };
    let mut blueprint = adopt(shape)?;
    blueprint.layout.transposed = true;
    let parts = [Part::Qkv, Part::O, Part::Up, Part::Down];
    folder.check_biases(&blueprint, &parts, true, "architectures")?;
    Ok(blueprint)
}

fn adopt(shape: Shape) -> Result<Blueprint> {
    let mut blueprint = shape.llama(Vec::new())?;
    blueprint.positions = true;
    blueprint.norm = Norm::Layer;
    blueprint.layout.joined_qkv = true;
    for block in &mut blueprint.blocks {
        block.attention.rope = None;
        block.ffn = Ffn::Gelu;
    }
    Ok(blueprint)
}
