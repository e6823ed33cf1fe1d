//! `quantize`: a smaller model of a model.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::{fs, thread};

use clap::builder::PossibleValuesParser;
use pocketlm::engine::{calibrate, tokenizer};
use pocketlm::format::Checkpoint;
use pocketlm::model::quantize::{self, Coding, Importance, Recipe, Report};
use pocketlm::text::Special;
use pocketlm::{Error, Format, LoadOptions};
use serde_json::json;

use super::perplexity::measure;
use super::score::OUTPUTS;
use crate::args::{DeviceArgs, JsonArgs, ModelArgs};
use crate::interrupt::Work;
use crate::{load, models, output};

/// Tokens of a window of a text.
const WINDOW: u32 = 512;

/// Makes a smaller model: every weight matrix in another format
///
/// OUT is a GGUF where its name ends in .gguf, else a folder with safetensors as Hugging Face has them: int4 and int8 in the
/// form compressed-tensors, nf4 in that of bitsandbytes, blocks and corrections of low rank in qlr. Embedding and head get
/// at least 6 bits unless a rule says otherwise, and stay floats beside int4, int8 and nf4. An interrupted run is taken up
/// again by the same command.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model: a GGUF, or a folder with safetensors or torch checkpoints
    #[arg(value_name = "IN")]
    model: String,
    /// The file or folder to write
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// The format of weight matrices
    #[arg(long, value_name = "FORMAT", ignore_case = true, required_unless_present = "like")]
    #[arg(value_parser = PossibleValuesParser::new(Coding::all().map(Coding::name)))]
    to: Option<String>,
    /// Formats of some tensors: PATTERN=FORMAT, separated by commas, or @FILE with a rule on each line
    #[arg(long, value_name = "RULES")]
    recipe: Option<String>,
    /// The formats of another file of this model, tensor by tensor
    #[arg(long, value_name = "FILE.gguf")]
    like: Option<PathBuf>,
    /// Beside each matrix of the layers a correction of this rank, in 8 bits, found in turns with the matrix
    #[arg(long, value_name = "R")]
    low_rank: Option<NonZero<u16>>,
    /// A text like those the model will meet: errors count as much as it uses what they touch
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,
    /// The most tokens of that text
    #[arg(long, value_name = "N", default_value = "16384")]
    calibrate_tokens: usize,
    /// A text on which the perplexity of both models is measured
    #[arg(long, value_name = "FILE")]
    evaluate: Option<PathBuf>,
    /// The most windows of 512 tokens of that text
    #[arg(long, value_name = "N", default_value = "20")]
    evaluate_windows: usize,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let path = models::resolve(Some(&args.model))?;
    let checkpoint = Checkpoint::open(&path)?;
    let recipe = recipe(args)?;
    let threads = args.device.threads.or(thread::available_parallelism().ok()).map_or(1, NonZero::get);
    let work = Work::begin();
    let importance = importance(args, &checkpoint, threads, &work)?;
    let bar = output::progress("quantizing", 0);
    let report =
        quantize::quantize(&checkpoint, &recipe, &importance, &args.out, threads, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
            work.check()
        });
    bar.finish_and_clear();
    let report = report?;
    if report.resumed > 0 {
        output::note(&format!("{} tensors were there from an earlier run", report.resumed));
    }
    report.notes.iter().for_each(|note| output::note(note));
    let perplexity = match &args.evaluate {
        Some(text) => Some([perplexity(args, &path, text)?, perplexity(args, &args.out, text)?]),
        None => None,
    };
    match args.json.json {
        true => in_json(&report, &recipe, &importance, perplexity),
        false => in_words(&report, &args.out, perplexity),
    }
}

fn recipe(args: &Args) -> anyhow::Result<Recipe> {
    let mut recipe = Recipe::all(args.to.as_deref().and_then(Coding::named).unwrap_or(Format::Q8_0.into()));
    if let Some(rules) = &args.recipe {
        recipe = match rules.strip_prefix('@') {
            Some(file) => {
                recipe.with_rules(&fs::read_to_string(file).map_err(|e| Error::from(e).in_file(file))?)?
            }
            None => recipe.with_rules(rules)?,
        };
    }
    if let Some(other) = &args.like {
        recipe = recipe.like(&Checkpoint::open(other)?)?;
    }
    if let Some(rank) = args.low_rank {
        recipe = recipe.with_rank(rank.get().into());
    }
    Ok(recipe)
}

fn in_json(
    report: &Report,
    recipe: &Recipe,
    importance: &Importance,
    perplexity: Option<[f64; 2]>,
) -> anyhow::Result<()> {
    let changed = report.changed.iter().map(|changed| {
        json!({
            "name": changed.name, "from": changed.from.name(), "to": changed.to.name(), "error": changed.error,
            "error_uncorrected": changed.uncorrected,
        })
    });
    output::json(&json!({
        "bytes": report.bytes, "bits_per_weight": report.bits_per_weight, "recipe": recipe.to_string(),
        "calibration": importance.to_string(), "perplexity_before": perplexity.map(|both| both[0]),
        "perplexity_after": perplexity.map(|both| both[1]), "tensors": changed.collect::<Vec<_>>(),
    }))
}

fn in_words(report: &Report, out: &Path, perplexity: Option<[f64; 2]>) -> anyhow::Result<()> {
    for changed in &report.changed {
        let (from, to) = (changed.from, changed.to);
        let alone = changed.uncorrected.map(|error| format!(", {error:.5} without its correction"));
        output::line(&format!(
            "{:32} {from:>6} -> {to:6} relative error {:.5}{}",
            changed.name,
            changed.error,
            alone.unwrap_or_default(),
        ))?;
    }
    let mib = report.bytes as f64 / f64::from(1 << 20);
    let bits = report.bits_per_weight;
    output::line(&format!("{}: {mib:.1} MiB, {bits:.3} bits per weight", out.display()))?;
    if let Some([before, after]) = perplexity {
        output::line(&format!("perplexity {after:.4}, before {before:.4}"))?;
    }
    Ok(())
}

/// What the calibration text says.
fn importance(
    args: &Args,
    checkpoint: &Checkpoint,
    threads: usize,
    work: &Work,
) -> anyhow::Result<Importance> {
    let Some(file) = &args.calibrate else { return Ok(Importance::default()) };
    let text = fs::read_to_string(file).map_err(|error| Error::from(error).in_file(file))?;
    let tokenizer = tokenizer(checkpoint)?
        .ok_or_else(|| Error::unsupported("a model without a tokenizer cannot read a calibration text"))?;
    let mut tokens = tokenizer.encode(&text, Special::Plain)?;
    tokens.truncate(args.calibrate_tokens);
    let bar = output::progress("calibrating", 0);
    let importance = calibrate(checkpoint, &tokens, WINDOW, Some(threads), &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        work.check()
    });
    bar.finish_and_clear();
    Ok(importance?)
}

/// How the model at `path` does on the beginning of a text.
fn perplexity(args: &Args, path: &Path, text: &Path) -> anyhow::Result<f64> {
    let text = fs::read_to_string(text).map_err(|error| Error::from(error).in_file(text))?;
    let options = LoadOptions { context: Some(WINDOW), outputs: OUTPUTS, ..LoadOptions::default() };
    let model = ModelArgs { model: Some(path.display().to_string()) };
    let model = load::load(&model, &args.device, &options)?;
    let hear = |line: String| log::info!("{line}");
    Ok(measure(&model, &text, WINDOW as usize, args.evaluate_windows, hear)?.perplexity)
}
