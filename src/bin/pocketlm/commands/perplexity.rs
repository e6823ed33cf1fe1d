//! `perplexity`: how surprised the model is by a text.
//!
//! As llama.cpp's tool: windows of -c tokens without overlap, each from an empty context; the predictions of the
//! second half are scored; where the model's metadata asks for a token at the beginning it takes the first place
//! of each window. exp of the mean negative log-probability.

use pocketlm::engine::log_sum_exp;
use pocketlm::text::Special;
use pocketlm::{Error, Kind, LoadOptions, Model, Overflow, Prompt};
use serde_json::json;

use super::score::OUTPUTS;
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
    /// Read the text as one session that slides in a context of -c tokens and keeps the first N in sight; all predictions behind
    /// the first -c tokens are scored
    #[arg(long, value_name = "N")]
    slide: Option<u32>,
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
    if let Some(sinks) = args.slide {
        return slid(&model, &text, window, sinks, args.json.json);
    }
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

/// Reads the text as a session does that outgrows its context.
fn slid(model: &Model, text: &str, window: u32, sinks: u32, as_json: bool) -> anyhow::Result<()> {
    let overflow = Overflow::Slide { sinks };
    overflow.check(window)?;
    let tokens = model.tokens(&Prompt::Raw(text.into()))?;
    let work = Work::begin();
    let (mut surprise, mut scored) = (0.0, 0u32);
    // As it grows behind its first context: what is in sight stays until it slides.
    let mut known = window as usize;
    while known < tokens.len() {
        let Some((mut seen, room)) = overflow.view(&tokens[..known], window) else {
            return Err(Error::new(Kind::Internal, "a session that slides sees nothing").into());
        };
        let more = tokens.len().min(known + 1 + room as usize) - known;
        let first = seen.len() - 1;
        seen.extend(&tokens[known..known + more - 1]);
        model.logits(&seen, first, |at, logits| {
            work.check()?;
            let next = tokens[known + at - first];
            surprise += log_sum_exp(logits) - f64::from(logits[next as usize]);
            scored += 1;
            Ok(())
        })?;
        known += more;
    }
    if scored == 0 {
        let what = format!("the text has {} tokens and the context {window}", tokens.len());
        return Err(Error::invalid(what).hint("take a longer text, or a smaller -c").into());
    }
    let perplexity = (surprise / f64::from(scored)).exp();
    if as_json {
        return output::json(&json!({
            "perplexity": perplexity, "tokens": tokens.len(), "context": window, "sinks": sinks, "scored": scored,
        }));
    }
    output::line(&format!(
        "perplexity {perplexity:.4} ({} tokens sliding in a context of {window} behind {sinks}, {scored} predictions scored)",
        tokens.len(),
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
