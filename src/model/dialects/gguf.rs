//! A blueprint in the words of GGUF: metadata under the architecture's name, and divisors of frequencies as tensors.
//!
//! What a kind of setting is called is the same for all architectures; keys that one does not know do no harm.

use crate::error::{Error, Result};
use crate::format::{Array, Metadata, Value};
use crate::model::{Blueprint, Norm, Slot};

use super::rope::{Divisors, settings};

/// Settings that are tensors.
pub(super) type Vectors = Vec<(Slot, Vec<f32>)>;

/// The settings of `blueprint` for the architecture that GGUF calls `arch`.
pub(super) fn describe(blueprint: &Blueprint, arch: &str) -> Result<(Metadata, Vectors)> {
    let mut metadata = Metadata::default();
    metadata.insert("general.architecture".to_owned(), Value::Text(arch.to_owned()))?;
    if !blueprint.name.is_empty() {
        metadata.insert("general.name".to_owned(), Value::Text(blueprint.name.clone()))?;
    }
    let (ropes, vectors) = ropes(blueprint)?;
    for (key, value) in shape(blueprint)?.into_iter().chain(attention(blueprint)).chain(ropes) {
        metadata.insert(format!("{arch}.{key}"), value)?;
    }
    Ok((metadata, vectors))
}

type Entry = (&'static str, Value);

fn number(number: u32) -> Value {
    Value::Unsigned(number.into())
}

fn float(float: f32) -> Value {
    Value::Float(float.into())
}

fn shape(blueprint: &Blueprint) -> Result<Vec<Entry>> {
    let block = blueprint.blocks.first().ok_or_else(|| Error::internal("a model without blocks"))?;
    let attention = &block.attention;
    let eps = match blueprint.norm {
        Norm::RootMeanSquare => "attention.layer_norm_rms_epsilon",
        Norm::Layer => "attention.layer_norm_epsilon",
    };
    Ok(vec![
        ("vocab_size", number(blueprint.vocab)),
        ("context_length", number(blueprint.context)),
        ("embedding_length", number(blueprint.width)),
        ("block_count", number(blueprint.layers().count() as u32)),
        ("feed_forward_length", number(block.ffn_width)),
        ("attention.head_count", number(attention.heads)),
        ("attention.head_count_kv", number(attention.kv_heads)),
        ("attention.key_length", number(attention.head_dim)),
        ("attention.value_length", number(attention.head_dim)),
        (eps, float(blueprint.norm_eps)),
    ])
}

fn attention(blueprint: &Blueprint) -> Vec<Entry> {
    let mut entries = Vec::new();
    if let Some(attention) = blueprint.blocks.first().map(|block| &block.attention) {
        let usual = (1.0 / f64::from(attention.head_dim).sqrt()) as f32;
        // Gemma's largest models are known by their layers where the key is not there.
        if attention.scale != usual || blueprint.blocks[0].post_norms {
            entries.push(("attention.scale", float(attention.scale)));
        }
        entries.extend(attention.cap.map(|cap| ("attn_logit_softcapping", float(cap))));
    }
    entries.extend(blueprint.logit_cap.map(|cap| ("final_logit_softcapping", float(cap))));
    let windows: Vec<bool> = blueprint.layers().map(|block| block.attention.window.is_some()).collect();
    if let Some(window) = blueprint.blocks.iter().find_map(|block| block.attention.window) {
        entries.push(("attention.sliding_window", number(window)));
        // Where there is one rope, the architecture knows which layers have the window.
        if blueprint.ropes.len() > 1 {
            entries.push(("attention.sliding_window_pattern", pattern(windows)));
        }
    }
    entries
}

/// Which layers have a window: how many from one that has none to the next, or an entry for each.
fn pattern(windows: Vec<bool>) -> Value {
    let interval = windows.iter().position(|window| !window).map_or(0, |first| first + 1);
    let is_regular =
        (1..).zip(&windows).all(|(layer, window)| (interval == 0 || layer % interval != 0) == *window);
    match is_regular {
        true => Value::Unsigned(interval as u64),
        false => Value::Array(Array::Bool(windows)),
    }
}

fn ropes(blueprint: &Blueprint) -> Result<(Vec<Entry>, Vectors)> {
    let (mut entries, mut vectors) = (Vec::new(), Vec::new());
    let single = |list: &[f64]| list.iter().map(|divisor| *divisor as f32).collect();
    if let Some(rope) = blueprint.ropes.first() {
        let (base, divisors) = settings(rope)?;
        entries.push(("rope.dimension_count", number(rope.dims)));
        entries.push(("rope.freq_base", Value::Float(base)));
        if rope.attention_factor != 1.0 {
            entries.push(("rope.scaling.attn_factor", float(rope.attention_factor)));
        }
        match divisors {
            Divisors::None => {}
            Divisors::Linear(factor) => {
                entries.push(("rope.scaling.type", Value::Text("linear".to_owned())));
                entries.push(("rope.scaling.factor", Value::Float(factor)));
            }
            Divisors::Llama3 { list, .. } | Divisors::List(list) => {
                vectors.push((Slot::RopeFactors, single(&list)));
            }
            Divisors::Long { short, long, above } => {
                entries.push(("rope.scaling.original_context_length", number(above)));
                vectors.push((Slot::ShortRopeFactors, single(&short)));
                vectors.push((Slot::LongRopeFactors, single(&long)));
            }
        }
    }
    if let Some(local) = blueprint.ropes.get(1) {
        entries.push(("rope.freq_base_swa", Value::Float(settings(local)?.0)));
    }
    Ok((entries, vectors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_pattern_is_a_number() {
        let of = |windows: &[u8]| pattern(windows.iter().map(|&window| window == 1).collect());
        assert_eq!(of(&[1, 1, 1, 1, 1, 0, 1, 1]), Value::Unsigned(6));
        assert_eq!(of(&[1, 1]), Value::Unsigned(0));
        assert_eq!(of(&[0, 0]), Value::Unsigned(1));
        assert_eq!(of(&[1, 0, 0]), Value::Array(Array::Bool(vec![true, false, false])));
    }
}
