//! `quantize`: a smaller model of a model.

use std::num::NonZero;
use std::path::PathBuf;
use std::{fs, thread};

use clap::builder::PossibleValuesParser;
use pocketlm::engine::{calibrate, tokenizer};
use pocketlm::format::Checkpoint;
use pocketlm::model::quantize::{self, Importance, Recipe};
use pocketlm::text::Special;
use pocketlm::{Error, Format};
use serde_json::json;

use crate::args::JsonArgs;
use crate::interrupt::Work;
use crate::{models, output};

/// Tokens of a window of the calibration text.
const WINDOW: u32 = 512;

/// Makes a smaller model: every weight matrix in another format
///
/// The embedding and the head get at least 6 bits unless a rule says otherwise. An interrupted run is taken up again by the
/// same command.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model, in GGUF
    #[arg(value_name = "IN")]
    model: String,
    /// The file to write
    #[arg(value_name = "OUT.gguf")]
    out: PathBuf,
    /// The format of weight matrices
    #[arg(long, value_name = "FORMAT", ignore_case = true, required_unless_present = "like")]
    #[arg(value_parser = PossibleValuesParser::new(Format::all_in_gguf().map(Format::name)))]
    to: Option<String>,
    /// Formats of some tensors: PATTERN=FORMAT, separated by commas, or @FILE with a rule on each line
    #[arg(long, value_name = "RULES")]
    recipe: Option<String>,
    /// The formats of another file of this model, tensor by tensor
    #[arg(long, value_name = "FILE.gguf")]
    like: Option<PathBuf>,
    /// A text like those the model will meet: errors count as much as it uses what they touch
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,
    /// The most tokens of that text
    #[arg(long, value_name = "N", default_value = "16384")]
    calibrate_tokens: usize,
    /// CPU threads [default: one for each core]
    #[arg(short, long)]
    threads: Option<NonZero<usize>>,
    #[command(flatten)]
    json: JsonArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let path = models::resolve(Some(&args.model))?;
    let checkpoint = Checkpoint::open(&path)?;
    let format = args.to.as_deref().and_then(Format::from_name).unwrap_or(Format::Q8_0);
    let mut recipe = Recipe::all(format);
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
    let threads = args.threads.or(thread::available_parallelism().ok()).map_or(1, NonZero::get);
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
    if args.json.json {
        let changed = report.changed.iter().map(|changed| {
            json!({
                "name": changed.name, "from": changed.from.name(), "to": changed.to.name(), "error": changed.error,
            })
        });
        return output::json(&json!({
            "bytes": report.bytes, "bits_per_weight": report.bits_per_weight, "recipe": recipe.to_string(),
            "calibration": importance.to_string(), "tensors": changed.collect::<Vec<_>>(),
        }));
    }
    for changed in &report.changed {
        let (from, to) = (changed.from, changed.to);
        output::line(&format!(
            "{:32} {from:>6} -> {to:6} relative error {:.5}",
            changed.name, changed.error
        ))?;
    }
    let mib = report.bytes as f64 / f64::from(1 << 20);
    let bits = report.bits_per_weight;
    output::line(&format!("{}: {mib:.1} MiB, {bits:.3} bits per weight", args.out.display()))
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
