//! `inspect`: what is in a model file, without loading its weights.

use std::collections::BTreeMap;
use std::fmt::Debug;

use pocketlm::engine::{plans, tokenizer};
use pocketlm::format::{self, Checkpoint, Config, Dialect, Dtype, Tensor};
use pocketlm::model::{Blueprint, form_name};
use pocketlm::{EngineOptions, LoadOptions, Result as Outcome};
use serde_json::{Map, Value, json};

use crate::args::JsonArgs;
use crate::{models, output};

/// Shows what a model file holds; fails after that where it could not be loaded
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A model as -m of the other commands takes it
    #[arg(default_value = models::DEFAULT)]
    model: String,
    /// List the tensors
    #[arg(long)]
    tensors: bool,
    /// Print the plans that would run
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    json: JsonArgs,
}

/// The longest metadata text that is shown whole.
const LONGEST: usize = 60;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let path = models::resolve(Some(&args.model))?;
    let checkpoint = Checkpoint::open(&path)?;
    let has_weights = !checkpoint.tensors.is_empty();
    let blueprint = has_weights.then(|| Blueprint::read(&checkpoint)).transpose();
    let plan = match &blueprint {
        Ok(Some(_)) => plan(&checkpoint).map(Some),
        _ => Ok(None),
    };
    match args.json.json {
        true => output::json(&report(args, &checkpoint, &blueprint, &plan))?,
        false => describe(args, &checkpoint, &blueprint, &plan)?,
    }
    tokenizer(&checkpoint)?;
    plan?;
    blueprint?;
    Ok(())
}

/// The plans of decode and prefill as text.
fn plan(checkpoint: &Checkpoint) -> Outcome<[String; 2]> {
    let lowered = plans(checkpoint, &EngineOptions::default(), &LoadOptions::default())?;
    Ok([&lowered.caches[0].decode, &lowered.caches[0].prefill]
        .map(|phase| phase.plan.dump(&lowered.store).to_string()))
}

fn describe(
    args: &Args,
    checkpoint: &Checkpoint,
    blueprint: &Outcome<Option<Blueprint>>,
    plan: &Outcome<Option<[String; 2]>>,
) -> anyhow::Result<()> {
    let fact = |name: &str, value: &dyn std::fmt::Display| output::line(&format!("{name:14}{value}"));
    fact("file", &checkpoint.path.display())?;
    let (weights, bytes) = totals(checkpoint, blueprint);
    if let Ok(Some(blueprint)) = blueprint {
        fact("name", &blueprint.name)?;
        fact("architecture", &blueprint.arch)?;
        fact("shape", &shape(blueprint))?;
        fact("context", &blueprint.context)?;
    }
    match weights {
        0 => fact("weights", &"none: a vocabulary")?,
        _ => {
            let (millions, mib) = (weights as f64 / 1e6, bytes as f64 / f64::from(1 << 20));
            let bits = bytes as f64 * 8.0 / weights as f64;
            fact("weights", &format!("{millions:.2} M in {mib:.1} MiB, {bits:.2} bits each"))?;
            fact("formats", &formats(checkpoint))?;
            if let Some(form) = form_name(checkpoint)? {
                fact("form", &form)?;
            }
        }
    }
    output::line("")?;
    for (key, value) in metadata(checkpoint) {
        output::line(&format!("{key:40} {value}"))?;
    }
    if args.tensors {
        output::line("")?;
        for tensor in in_order(checkpoint) {
            let Tensor { name, dims, bytes, offset, .. } = tensor;
            let dims = dims.iter().map(u64::to_string).collect::<Vec<_>>().join(" × ");
            output::line(&format!(
                "{name:40} {:6} {dims:>16} {:>12} bytes at {offset}",
                dtype(tensor),
                bytes.len()
            ))?;
        }
    }
    if let (true, Ok(Some(plans))) = (args.plan, plan) {
        for plan in plans {
            output::line(&format!("\n{}", plan.trim_end()))?;
        }
    }
    Ok(())
}

/// The tensors as they lie in the files.
fn in_order(checkpoint: &Checkpoint) -> Vec<&Tensor> {
    let mut tensors: Vec<&Tensor> = checkpoint.tensors.values().collect();
    tensors.sort_by_key(|tensor| (&tensor.file, tensor.offset));
    tensors
}

fn shape(blueprint: &Blueprint) -> String {
    let Blueprint { width, vocab, blocks, tied, .. } = blueprint;
    let block = blocks.first().map_or_else(String::new, |block| {
        let attention = &block.attention;
        format!(
            " of {} heads ({} of keys and values) of {}, feed-forward {}",
            attention.heads, attention.kv_heads, attention.head_dim, block.ffn_width
        )
    });
    let head = if *tied { ", head tied" } else { "" };
    format!("width {width}, vocabulary {vocab}{head}, {} layers{block}", blocks.len())
}

/// Weights and their bytes. In files of compressed folders tensors are no matrices, but what stands for them.
fn totals(checkpoint: &Checkpoint, blueprint: &Outcome<Option<Blueprint>>) -> (u64, u64) {
    let tensors = || checkpoint.tensors.values();
    let are_weights = tensors().all(|tensor| matches!(tensor.dtype, Dtype::Format(_)));
    let weights = match blueprint {
        Ok(Some(blueprint)) if !are_weights => blueprint.parameters(),
        _ => tensors().map(|tensor| tensor.dims.iter().product::<u64>()).sum(),
    };
    (weights, tensors().map(|tensor| tensor.bytes.len() as u64).sum())
}

fn formats(checkpoint: &Checkpoint) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for tensor in checkpoint.tensors.values() {
        *counts.entry(dtype(tensor)).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(format, count)| format!("{count} {format}")).collect();
    counts.join(", ")
}

fn dtype(tensor: &Tensor) -> String {
    match tensor.dtype {
        Dtype::Format(format) => format.name().to_owned(),
        Dtype::Other(dtype) => dtype.to_string(),
    }
}

/// What the file says of itself, each value short.
fn metadata(checkpoint: &Checkpoint) -> Vec<(String, String)> {
    match &checkpoint.dialect {
        Dialect::Gguf(metadata) => {
            metadata.iter().map(|(key, value)| (key.to_owned(), shown(value))).collect()
        }
        Dialect::HuggingFace(files) => settings(files.config.as_ref()),
        Dialect::Meta(files) => settings(files.params.as_ref()),
    }
}

fn settings(config: Option<&Config>) -> Vec<(String, String)> {
    let entries = config.into_iter().flat_map(Config::iter);
    entries.map(|(key, value)| (key.to_owned(), brief(&value.to_string()))).collect()
}

fn shown(value: &format::Value) -> String {
    use format::{Array, Value};
    match value {
        Value::Unsigned(value) => value.to_string(),
        Value::Signed(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Text(text) => brief(text),
        Value::Array(Array::Unsigned(values)) => row(values),
        Value::Array(Array::Signed(values)) => row(values),
        Value::Array(Array::Float(values)) => row(values),
        Value::Array(Array::Bool(values)) => row(values),
        Value::Array(Array::Text(values)) => row(values),
    }
}

/// The first of an array, and how many there are.
fn row<T: Debug>(values: &[T]) -> String {
    let first: Vec<String> = values.iter().take(4).map(|value| cut(&format!("{value:?}"))).collect();
    match values.len() > first.len() {
        true => format!("[{}, … {} in all]", first.join(", "), values.len()),
        false => format!("[{}]", first.join(", ")),
    }
}

/// A text on one line.
fn brief(text: &str) -> String {
    cut(&text
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect::<String>())
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}… ({} bytes)", &line[..at], line.len()),
        None => line.to_owned(),
    }
}

fn report(
    args: &Args,
    checkpoint: &Checkpoint,
    blueprint: &Outcome<Option<Blueprint>>,
    plan: &Outcome<Option<[String; 2]>>,
) -> Value {
    let (weights, bytes) = totals(checkpoint, blueprint);
    let mut report = json!({
        "path": checkpoint.path, "weights": weights, "bytes": bytes,
        "bits_per_weight": if weights > 0 { Some(bytes as f64 * 8.0 / weights as f64) } else { None },
        "metadata": metadata(checkpoint).into_iter().map(|(key, value)| (key, value.into())).collect::<Map<_, _>>(),
    });
    if let Ok(Some(form)) = form_name(checkpoint) {
        report["form"] = form.into();
    }
    if let Ok(Some(blueprint)) = blueprint {
        report["name"] = blueprint.name.as_str().into();
        report["architecture"] = blueprint.arch.into();
        report["width"] = blueprint.width.into();
        report["vocabulary"] = blueprint.vocab.into();
        report["context"] = blueprint.context.into();
        report["layers"] = blueprint.blocks.len().into();
        report["tied"] = blueprint.tied.into();
    }
    if args.tensors {
        let row = |tensor: &Tensor| {
            json!({
                "name": tensor.name, "format": dtype(tensor), "dims": tensor.dims, "bytes": tensor.bytes.len(),
                "offset": tensor.offset,
            })
        };
        report["tensors"] = in_order(checkpoint).into_iter().map(row).collect();
    }
    if let (true, Ok(Some([decode, prefill]))) = (args.plan, plan) {
        report["plans"] = json!({ "decode": decode, "prefill": prefill });
    }
    report
}
