//! `perplexity`: how surprised the model is by a text.
//!
//! As llama.cpp's tool: windows of -c tokens without overlap, each from an empty context; the predictions of the
//! second half are scored; where the model's metadata asks for a token at the beginning it takes the first place
//! of each window. exp of the mean negative log-probability.

use pocketlm::text::Special;
use pocketlm::{Error, LoadOptions, Model};
use serde_json::json;

use super::score::{OUTPUTS, log_sum_exp};
use crate::args::{AdapterArgs, ContextArgs, DeviceArgs, FileArgs, JsonArgs, ModelArgs, VerifyArgs};
use crate::interrupt::Work;
use crate::{load, output};

/// Tokens of a window where -c is not given.
const WINDOW: u32 = 512;

/// Measures how well the model predicts a text; lower is better
///
/// Windows of -c tokens (512 unless given) without overlap, the second half of each scored: the figures compare
/// with llama.cpp's.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    adapters: AdapterArgs,
    #[command(flatten)]
    verify: VerifyArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let Some(text) = args.file.read()? else {
        return Err(Error::invalid("no text is given").hint("name its file with -f, or - for stdin").into());
    };
    let options = args.verify.on(args.adapters.beside(args.context.options()))?;
    let window = options.context.unwrap_or(WINDOW);
    if window < 4 {
        return Err(Error::invalid(format!("a window of {window} tokens has no half to score")).into());
    }
    let options = LoadOptions { context: Some(window), outputs: OUTPUTS, ..options };
    let model = load::load(&args.model, &args.device, &options)?;
    let Measured { perplexity, tokens, chunks, scored } =
        measure(&model, &text, window as usize, usize::MAX, |line| output::note(&line))?;
    if args.json.json {
        let report = json!({
            "perplexity": perplexity, "tokens": tokens, "chunks": chunks, "window": window, "scored": scored,
        });
        return output::json(&report);
    }
    output::line(&format!(
        "perplexity {perplexity:.4} ({chunks} windows of {window} tokens, {scored} predictions scored)"
    ))
}

/// What a text says of a model.
pub(super) struct Measured {
    pub(super) perplexity: f64,
    tokens: usize,
    chunks: usize,
    scored: u32,
}

/// Scores the second half of each of the first `most` windows of `text`; `hear` is told after each.
pub(super) fn measure(
    model: &Model,
    text: &str,
    window: usize,
    most: usize,
    hear: impl Fn(String),
) -> pocketlm::Result<Measured> {
    let tokenizer = model.tokenizer()?;
    let first = tokenizer.bos().filter(|_| tokenizer.add_bos());
    let mut tokens: Vec<u32> = first.into_iter().collect();
    tokens.extend(tokenizer.encode(text, Special::Plain)?);
    let chunks = (tokens.len() / window).min(most);
    if chunks == 0 {
        let what = format!("the text has {} tokens and a window {window}", tokens.len());
        return Err(Error::invalid(what).hint("take a longer text, or a smaller -c"));
    }
    let work = Work::begin();
    let (mut surprise, mut scored) = (0.0, 0u32);
    for (chunk, tokens) in tokens.chunks_exact(window).take(chunks).enumerate() {
        let mut tokens = tokens.to_vec();
        if let Some(first) = first {
            tokens[0] = first;
        }
        model.logits(&tokens, window / 2, |at, logits| {
            work.check()?;
            if let Some(&next) = tokens.get(at + 1) {
                surprise += log_sum_exp(logits) - f64::from(logits[next as usize]);
                scored += 1;
            }
            Ok(())
        })?;
        let so_far = (surprise / f64::from(scored)).exp();
        hear(format!("{} of {chunks} windows: {so_far:.4}", chunk + 1));
    }
    Ok(Measured { perplexity: (surprise / f64::from(scored)).exp(), tokens: tokens.len(), chunks, scored })
}
