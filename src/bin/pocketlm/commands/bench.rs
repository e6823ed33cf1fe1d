//! `bench`: how fast a model reads and generates here.

use std::num::NonZero;
use std::thread;

use pocketlm::base::Seed;
use pocketlm::{Error, GenerateOptions, LoadOptions, Model, Prompt, Result as Outcome, Sampling, Timings};
use serde_json::json;

use crate::args::{DeviceArgs, JsonArgs, ModelArgs};
use crate::interrupt::Work;
use crate::{load, output};

/// Measures tokens per second: reading a prompt (prefill) and generating (decode)
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Tokens of the prompt
    #[arg(short = 'p', long = "n-prompt", value_name = "N", default_value = "128")]
    prompt: NonZero<u32>,
    /// Tokens to generate
    #[arg(short = 'n', long = "n-gen", value_name = "N", default_value = "32", value_parser = clap::value_parser!(u32).range(2..))]
    predict: u32,
    /// Measurements of each, after one that does not count
    #[arg(short, long, value_name = "N", default_value = "5")]
    repetitions: NonZero<usize>,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

/// A measurement and its repetitions.
struct Row {
    test: &'static str,
    tokens: u32,
    /// Tokens per second, ascending.
    rates: Vec<f64>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let prompt = args.prompt.get();
    let context = prompt.max(args.predict).checked_add(1);
    let context = context.ok_or_else(|| Error::invalid("that many tokens fit in no context"))?;
    let options = LoadOptions { context: Some(context), sessions: 1, ..LoadOptions::default() };
    let model = load::load(&args.model, &args.device, &options)?;
    let work = Work::begin();
    let prefill = |seed| answer(&model, seed, prompt, 1, &work).map(|timings| timings.prefill_rate());
    let decode = |seed| answer(&model, seed, 1, args.predict, &work).map(|timings| timings.decode_rate());
    let rows = [
        Row { test: "prefill", tokens: prompt, rates: rates(args.repetitions, prefill)? },
        Row { test: "decode", tokens: args.predict, rates: rates(args.repetitions, decode)? },
    ];
    let info = model.info();
    let threads = (info.device.backend == "cpu").then(|| {
        let all = || thread::available_parallelism().map_or(1, NonZero::get);
        args.device.threads.map_or_else(all, NonZero::get)
    });
    if args.json.json {
        let tests: Vec<_> = rows
            .iter()
            .map(|Row { test, tokens, rates }| {
                json!({
                    "test": test, "tokens": tokens, "median_tok_s": median(rates),
                    "min_tok_s": rates.first(), "max_tok_s": rates.last(), "tok_s": rates,
                })
            })
            .collect();
        return output::json(&json!({
            "model": info.name, "path": info.path, "bytes": info.weight_bytes, "parameters": info.parameters,
            "device": load::device_json(info), "threads": threads, "exact": args.device.exact,
            "load_ms": info.load_time.as_secs_f64() * 1e3, "tests": tests,
        }));
    }
    let (mib, millions) = (info.weight_bytes as f64 / f64::from(1 << 20), info.parameters as f64 / 1e6);
    output::line(&format!("{}: {mib:.1} MiB, {millions:.1} M weights", info.name))?;
    output::line(&format!("{}\n", load::device_name(info)))?;
    output::line("test      tokens   tok/s (median)   from … to")?;
    for Row { test, tokens, rates } in &rows {
        let (least, most) = (rates.first().unwrap_or(&0.0), rates.last().unwrap_or(&0.0));
        output::line(&format!("{test:8}  {tokens:6}   {:14.2}   {least:.2} … {most:.2}", median(rates)))?;
    }
    Ok(())
}

/// Measures once for nothing and then `repetitions` times.
fn rates(repetitions: NonZero<usize>, measure: impl Fn(u64) -> Outcome<f64>) -> Outcome<Vec<f64>> {
    measure(0)?;
    let mut rates = (1..=repetitions.get() as u64).map(measure).collect::<Outcome<Vec<f64>>>()?;
    rates.sort_unstable_by(f64::total_cmp);
    Ok(rates)
}

/// Reads `prompt` random tokens in a fresh session and generates `predict`.
fn answer(model: &Model, seed: u64, prompt: u32, predict: u32, work: &Work) -> Outcome<Timings> {
    work.check()?;
    let mut seed = Seed::new(seed);
    let vocab = u64::from(model.info().vocab);
    let tokens = (0..prompt).map(|_| seed.below(vocab) as u32).collect();
    let options = GenerateOptions {
        max_tokens: Some(predict),
        sampling: Sampling { temperature: Some(0.0), repeat_penalty: Some(1.0), ..Sampling::default() },
        ignore_end: true,
        ..GenerateOptions::default()
    };
    let finish = model.session().generate(&Prompt::Tokens(tokens), &options)?.finish()?;
    Ok(finish.timings)
}

/// The middle of what is sorted.
fn median(sorted: &[f64]) -> f64 {
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
    f64::midpoint(at(low), at(high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[1.0, 2.0, 9.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
        assert_eq!(median(&[7.0]), 7.0);
    }

    #[test]
    fn the_first_measurement_does_not_count() {
        let rates = rates(NonZero::new(3).unwrap(), |seed| Ok(10.0 - seed as f64)).unwrap();
        assert_eq!(rates, [7.0, 8.0, 9.0]);
    }
}
