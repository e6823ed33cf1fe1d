//! A blueprint in the words of Hugging Face's `config.json`.
//!
//! What a kind of setting is called is the same for all architectures but GPT-2; keys that one does not know do no harm.

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::format::Config;
use crate::model::{Attention, Blueprint, Ffn, Norm};

use super::judge::Biases;
use super::rope::{Divisors, settings};

/// The settings of `blueprint` for the architecture `arch`, whose class there is `class`.
pub(super) fn describe(blueprint: &Blueprint, arch: &str, class: &str, biases: &Biases) -> Result<Config> {
    let mut config = Map::new();
    config.insert("architectures".to_owned(), json!([class]));
    // The one whose name is another: `gemma3` has eyes.
    let kind = if arch == "gemma3" { "gemma3_text" } else { arch };
    config.insert("model_type".to_owned(), json!(kind));
    if !blueprint.name.is_empty() {
        config.insert("_name_or_path".to_owned(), json!(blueprint.name));
    }
    let entries = match blueprint.norm {
        Norm::RootMeanSquare => like_llama(blueprint, arch, biases)?,
        Norm::Layer => like_gpt2(blueprint)?,
    };
    config.extend(entries.into_iter().map(|(key, value)| (key.to_owned(), value)));
    Ok(Config::from(config))
}

type Entry = (&'static str, Value);

fn like_gpt2(blueprint: &Blueprint) -> Result<Vec<Entry>> {
    let block = blueprint.blocks.first().ok_or_else(|| Error::internal("a model without blocks"))?;
    Ok(vec![
        ("n_embd", json!(blueprint.width)),
        ("n_head", json!(block.attention.heads)),
        ("n_inner", json!(block.ffn_width)),
        ("n_layer", json!(blueprint.layers().count())),
        ("n_positions", json!(blueprint.context)),
        ("vocab_size", json!(blueprint.vocab)),
        ("layer_norm_epsilon", decimal(blueprint.norm_eps)),
        ("activation_function", json!("gelu_new")),
        ("tie_word_embeddings", json!(blueprint.tied)),
    ])
}

fn like_llama(blueprint: &Blueprint, arch: &str, biases: &Biases) -> Result<Vec<Entry>> {
    let block = blueprint.blocks.first().ok_or_else(|| Error::internal("a model without blocks"))?;
    let attention = &block.attention;
    let activation = match block.ffn {
        Ffn::SwiGlu => "silu",
        Ffn::GeGlu | Ffn::Gelu => "gelu_pytorch_tanh",
    };
    let mut entries = vec![
        ("hidden_size", json!(blueprint.width)),
        ("intermediate_size", json!(block.ffn_width)),
        ("num_hidden_layers", json!(blueprint.layers().count())),
        ("num_attention_heads", json!(attention.heads)),
        ("num_key_value_heads", json!(attention.kv_heads)),
        ("head_dim", json!(attention.head_dim)),
        ("vocab_size", json!(blueprint.vocab)),
        ("max_position_embeddings", json!(blueprint.context)),
        ("rms_norm_eps", decimal(blueprint.norm_eps)),
        ("hidden_act", json!(activation)),
        ("tie_word_embeddings", json!(blueprint.tied)),
        ("attention_bias", json!(biases.attention)),
        ("mlp_bias", json!(biases.ffn)),
    ];
    if block.post_norms {
        entries.push(("hidden_activation", json!(activation)));
        entries.push(("query_pre_attn_scalar", scalar(attention)));
        entries.push(("attn_logit_softcapping", attention.cap.map_or(Value::Null, decimal)));
        entries.push(("final_logit_softcapping", blueprint.logit_cap.map_or(Value::Null, decimal)));
    }
    entries.extend(windows(blueprint));
    if blueprint.blocks.iter().any(|block| block.attention.rope.is_none()) || arch == "smollm3" {
        let rotated = blueprint.layers().map(|block| u8::from(block.attention.rope.is_some()));
        entries.push(("no_rope_layers", rotated.collect()));
    }
    entries.extend(ropes(blueprint, attention)?);
    Ok(entries)
}

/// What `query_pre_attn_scalar` is for the scale of scores: whole where it can be, as it is in the published models.
fn scalar(attention: &Attention) -> Value {
    let scalar = f64::from(attention.scale).powi(-2);
    let of = |scalar: f64| (1.0 / scalar.sqrt()) as f32;
    match scalar.round() {
        whole if of(whole) == attention.scale && whole < f64::from(u32::MAX) => json!(whole as u32),
        _ => json!(scalar),
    }
}

/// One window for all layers is the architecture's own matter; where some have none, each layer is named.
fn windows(blueprint: &Blueprint) -> Vec<Entry> {
    let window = blueprint.blocks.iter().find_map(|block| block.attention.window);
    let mut entries = vec![("sliding_window", json!(window))];
    if window.is_some() {
        entries.push(("use_sliding_window", json!(true)));
        entries.push(("max_window_layers", json!(0)));
    }
    if blueprint.blocks.iter().any(|block| block.attention.window != window) {
        let kind =
            |window: Option<u32>| if window.is_some() { "sliding_attention" } else { "full_attention" };
        entries.push(("layer_types", blueprint.layers().map(|block| kind(block.attention.window)).collect()));
    }
    entries
}

fn ropes(blueprint: &Blueprint, attention: &Attention) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    if let Some(rope) = blueprint.ropes.first() {
        let (base, divisors) = settings(rope)?;
        entries.push(("rope_theta", json!(base)));
        if rope.dims != attention.head_dim {
            let head_dim = f64::from(attention.head_dim);
            let part = f64::from(rope.dims) / head_dim;
            // Readers cut the product off.
            let part = if (head_dim * part) as u32 == rope.dims { part } else { part.next_up() };
            entries.push(("partial_rotary_factor", json!(part)));
        }
        let long_rope = |short: Vec<f64>, long: Vec<f64>, original: u32| {
            json!({
                "rope_type": "longrope", "type": "longrope", "short_factor": short, "long_factor": long,
                "original_max_position_embeddings": original, "attention_factor": decimal(rope.attention_factor),
            })
        };
        let scaling = match divisors {
            Divisors::None if rope.attention_factor == 1.0 => Value::Null,
            Divisors::None => {
                let ones = vec![1.0; rope.inv_freq.len()];
                long_rope(ones.clone(), ones, blueprint.context)
            }
            Divisors::Linear(factor) => json!({ "rope_type": "linear", "type": "linear", "factor": factor }),
            Divisors::Llama3 { scaling, .. } => json!({
                "rope_type": "llama3", "factor": scaling.factor, "low_freq_factor": scaling.low,
                "high_freq_factor": scaling.high, "original_max_position_embeddings": scaling.context as u32,
            }),
            Divisors::List(list) => long_rope(list.clone(), list, blueprint.context),
            Divisors::Long { short, long, above } => {
                entries.push(("original_max_position_embeddings", json!(above)));
                long_rope(short, long, above)
            }
        };
        entries.push(("rope_scaling", scaling));
    }
    if let Some(local) = blueprint.ropes.get(1) {
        entries.push(("rope_local_base_freq", json!(settings(local)?.0)));
    }
    Ok(entries)
}

/// The shortest decimal number that is this one in f32, and not all digits of its binary fraction.
fn decimal(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(decimal(1e-5), json!(1e-5));
        assert_eq!(decimal(0.1), json!(0.1));
        for value in [1e-6f32, 0.204_124_15, 30.0, 1.190_238] {
            assert_eq!(decimal(value).as_f64().unwrap() as f32, value);
        }
    }
}
