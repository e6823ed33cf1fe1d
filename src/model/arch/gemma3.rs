//! Gemma 3, the models of text: Gemma 2 without caps, with norms of heads, and five layers with a window and a rotation of
//! their own to each without. (Gemma Team 2025, arXiv 2503.19786.)

use crate::error::{Error, Result};
use crate::format::{Array, Value};
use crate::model::{Blueprint, HeadNorm, Pairing, Rope};

use super::rope::RopeSettings;
use super::{Arch, Folder, Gguf, gemma2};

pub(super) const ARCH: Arch = Arch {
    name: "gemma3",
    class: "Gemma3ForCausalLM",
    stems: &gemma2::STEMS,
    from_gguf: Some(from_gguf),
    from_hugging_face,
};

/// Layers from one that sees everything to the next, where nothing else is said.
const INTERVAL: u32 = 6;
/// Bases of the rotary frequencies: of layers that see everything, and of those with a window.
const BASES: [f64; 2] = [1_000_000.0, 10_000.0];

fn from_gguf(file: &Gguf<'_>) -> Result<Blueprint> {
    let mut blueprint = gemma2::with_post_norms(file.like_llama(Pairing::HalfSplit)?);
    let Rope { dims, .. } = blueprint.ropes[0];
    let base = file.float("rope.freq_base_swa")?.unwrap_or(BASES[1]);
    let (inv_freq, pairing) = (Rope::inv_freq(base, dims)?, Pairing::HalfSplit);
    blueprint.ropes.push(Rope { dims, pairing, inv_freq, attention_factor: 1.0, long: None });
    let slides = pattern(file, blueprint.blocks.len())?;
    let window = file.window()?;
    for block in &mut blueprint.blocks {
        block.attention.window = window.filter(|_| slides(block.layer));
    }
    blueprint.logit_cap = file.float("final_logit_softcapping")?.map(|cap| cap as f32);
    gemma2::rescale(file, &mut blueprint, 62)?;
    Ok(adopt(blueprint, slides))
}

/// Which layers slide: `attention.sliding_window_pattern` has an entry for each, or counts from one that does not to the
/// next.
fn pattern(file: &Gguf<'_>, layers: usize) -> Result<impl Fn(u32) -> bool + use<>> {
    let key = file.key("attention.sliding_window_pattern");
    let (list, interval) = match file.metadata.get(&key) {
        Some(Value::Array(Array::Bool(list))) if list.len() >= layers => (Some(list.clone()), INTERVAL),
        Some(Value::Array(_)) => {
            return Err(Error::bad_file(format!("not a boolean for each of {layers} layers")).at(key));
        }
        _ => (None, file.metadata.u32(&key)?.unwrap_or(INTERVAL)),
    };
    Ok(move |layer: u32| {
        list.as_ref().map_or_else(|| every_but(interval, layer), |list| list[layer as usize])
    })
}

fn from_hugging_face(folder: &Folder<'_>) -> Result<Blueprint> {
    let config = folder.config;
    folder.check_activation(&["hidden_activation", "hidden_act"], "gelu_pytorch_tanh")?;
    if config.bool("use_bidirectional_attention")?.unwrap_or(false) {
        let what = "attention in both directions is not supported";
        return Err(Error::unsupported(what).at("use_bidirectional_attention"));
    }
    let shape = folder.shape()?;
    let bases = [config.float("rope_theta")?, config.float("rope_local_base_freq")?];
    let global = RopeSettings::of_layers(config, "full_attention", bases[0].unwrap_or(BASES[0]), true)?;
    let local = RopeSettings::of_layers(config, "sliding_attention", bases[1].unwrap_or(BASES[1]), false)?;
    let ropes =
        [global, local].map(|settings| settings.whole(Pairing::HalfSplit, shape.head_dim)).into_iter();
    let mut blueprint = gemma2::adopt(folder, shape.llama(ropes.collect::<Result<_>>()?)?)?;
    let interval = config.u32("sliding_window_pattern")?.unwrap_or(INTERVAL);
    folder.slide(&mut blueprint, |layer| every_but(interval, layer))?;
    folder.check_usual_biases(&blueprint)?;
    let windows: Vec<bool> = blueprint.blocks.iter().map(|block| block.attention.window.is_some()).collect();
    Ok(adopt(blueprint, |layer| windows[layer as usize]))
}

fn every_but(interval: u32, layer: u32) -> bool {
    interval == 0 || !(layer + 1).is_multiple_of(interval)
}

fn adopt(mut blueprint: Blueprint, slides: impl Fn(u32) -> bool) -> Blueprint {
    for block in &mut blueprint.blocks {
        block.attention.head_norm = Some(HeadNorm::Gain);
        block.attention.rope = Some(usize::from(slides(block.layer)));
    }
    blueprint
}
