//! `quantization_config` of a folder: what readers need to know of its codes.

use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::format::Config;
use crate::quant::Format;

use super::coding::{Coding, Method};
use super::item::{Item, Role};

const HEAD: &str = "lm_head";

/// The files beside the weights, `config.json` with what it has to say of these items.
pub(super) fn with_method(
    files: Vec<(&'static str, Vec<u8>)>,
    method: Method,
    items: &[Item],
) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let settings = match method {
        Method::Gguf | Method::Plain => Value::Null,
        Method::CompressedTensors => compressed_tensors(items),
        Method::BitsAndBytes => bits_and_bytes(items),
        Method::Qlr => qlr(items),
    };
    let with = |(name, bytes): (&'static str, Vec<u8>)| match name {
        "config.json" => {
            let config = Config::parse(&bytes)?.with("torch_dtype", dtype(items).into());
            // Libraries stumble over a null here.
            let config = match settings.is_null() {
                true => config,
                false => config.with("quantization_config", settings.clone()),
            };
            Ok((name, config.to_json()))
        }
        _ => Ok((name, bytes)),
    };
    files.into_iter().map(with).collect()
}

/// The type of floats, in torch's words.
fn dtype(items: &[Item]) -> &'static str {
    let floats = || items.iter().filter(|item| item.coding.is_float());
    let first = floats().find(|item| item.role != Role::Table).or(floats().next());
    match first.map(|item| item.coding.format()) {
        Some(Format::BF16) => "bfloat16",
        Some(Format::F32 | Format::F64) => "float32",
        _ => "float16",
    }
}

/// The names of matrices that fit.
fn names(items: &[Item], fits: impl Fn(&Item) -> bool) -> Vec<&str> {
    let matrices = items.iter().filter(|item| item.role != Role::Table && fits(item));
    matrices.map(|item| stem(&item.name)).collect()
}

/// The names of matrices in floats. Where the head is the embedding, other libraries know it by its own name all the same.
fn floats(items: &[Item]) -> Vec<&str> {
    let mut floats = names(items, |item| item.coding.is_float());
    if !items.iter().any(|item| stem(&item.name) == HEAD) {
        floats.push(HEAD);
    }
    floats
}

fn stem(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}

/// As llm-compressor writes it for weights alone.
fn compressed_tensors(items: &[Item]) -> Value {
    let kinds: Vec<Coding> = [Coding::Int4, Coding::Int8]
        .into_iter()
        .filter(|kind| items.iter().any(|item| item.coding == *kind))
        .collect();
    let group = |(index, kind): (usize, &Coding)| {
        let targets = match kinds.len() {
            1 => vec!["Linear"],
            _ => names(items, |item| item.coding == *kind),
        };
        let weights = json!({
            "num_bits": kind.bits(), "type": "int", "symmetric": true, "strategy": "group", "group_size": 32,
            "dynamic": false, "observer": "mse",
        });
        let group = json!({
            "targets": targets, "weights": weights, "input_activations": null, "output_activations": null,
        });
        (format!("group_{index}"), group)
    };
    json!({
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "config_groups": kinds.iter().enumerate().map(group).collect::<Map<_, _>>(),
        "ignore": floats(items),
    })
}

fn bits_and_bytes(items: &[Item]) -> Value {
    json!({
        "quant_method": "bitsandbytes", "load_in_4bit": true, "load_in_8bit": false,
        "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": false,
        "bnb_4bit_compute_dtype": "float16", "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": floats(items),
    })
}

/// docs/qlr.md. What most matrices are is the default.
fn qlr(items: &[Item]) -> Value {
    let coded = || items.iter().filter(|item| !item.coding.is_float());
    let described = |item: &Item| {
        let [rows, cols] = item.rows.shape();
        let path = item.rank.map(|rank| {
            let (l, r) = (Coding::of_factor(rows), Coding::of_factor(cols));
            json!({"rank": rank, "l": codec(l), "r": codec(r), "scale": 1.0})
        });
        json!({"base": codec(item.coding), "lr": path})
    };
    let count = |value: &Value| coded().filter(|item| described(item) == *value).count();
    let default = coded().map(described).max_by_key(count).unwrap_or_default();
    let others = coded().filter(|item| described(item) != default);
    let modules: Map<_, _> = others.map(|item| (regex::escape(stem(&item.name)), described(item))).collect();
    json!({"quant_method": "qlr", "version": 1, "default": default, "modules": modules})
}

fn codec(coding: Coding) -> Value {
    match coding {
        Coding::Int4 | Coding::Int8 => json!({"codec": coding.name(), "group": 32}),
        Coding::Blocks(Format::F16) => json!({"codec": "fp16"}),
        _ => json!({"codec": coding.name()}),
    }
}
