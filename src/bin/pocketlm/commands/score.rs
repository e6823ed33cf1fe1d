//! `score`: what the model expects at each position of a text.

use pocketlm::engine::log_sum_exp;
use pocketlm::format::Checkpoint;
use pocketlm::model::Blueprint;
use pocketlm::{LoadOptions, Model, Result as Outcome, Score};
use serde::Serialize;
use serde_json::json;

use crate::args::{
    AdapterArgs, ContextArgs, DeviceArgs, FormArgs, Input, InputArgs, JsonArgs, ModelArgs, VerifyArgs,
};
use crate::interrupt::Work;
use crate::{load, models, output};

/// Rows of logits at a time.
pub(super) const OUTPUTS: u32 = 32;
/// Tokens that a chat template may add to what it wraps.
const TEMPLATE: usize = 1024;

/// Shows the likeliest next tokens at each position, or how likely a continuation is
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    form: FormArgs,
    /// Show instead how likely this text is after the input, token by token; mostly it begins with a space
    #[arg(long, value_name = "TEXT")]
    continuation: Option<String>,
    /// How many tokens at each position
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,
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

#[derive(Serialize)]
struct Report {
    positions: Vec<Position>,
}

/// The token at a position and what may follow it.
#[derive(Serialize)]
struct Position {
    token: u32,
    /// Token and log-probability, the likeliest first.
    top: Vec<(u32, f32)>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let input = args.input.read()?;
    let mut options =
        LoadOptions { outputs: OUTPUTS, ..args.verify.on(args.adapters.beside(args.context.options()))? };
    if options.context.is_none() {
        options.context = Some(enough(args, &input)?);
    }
    let prompt = args.form.prompt(input);
    let model = load::load(&args.model, &args.device, &options)?;
    if let Some(continuation) = &args.continuation {
        return continued(&model, &model.score(&prompt, continuation)?, args.json.json);
    }
    let tokens = model.tokens(&prompt)?;
    let work = Work::begin();
    let mut positions = Vec::with_capacity(tokens.len());
    model.logits(&tokens, 0, |at, logits| {
        work.check()?;
        positions.push(Position { token: tokens[at], top: likeliest(logits, args.top) });
        Ok(())
    })?;
    match args.json.json {
        true => output::json(&Report { positions }),
        false => table(&model, &positions),
    }
}

/// A context that surely holds the input, or all that the model has: no text has more tokens than bytes.
fn enough(args: &Args, input: &Input) -> Outcome<u32> {
    let most = match input {
        Input::Ids(ids) => ids.len().max(1),
        Input::Text(text) => text.len() + TEMPLATE,
    };
    let most = most + args.continuation.as_ref().map_or(0, String::len);
    let path = models::resolve(args.model.model.as_deref())?;
    let trained = Blueprint::read(&Checkpoint::open(path)?)?.context;
    Ok(u32::try_from(most).map_or(trained, |most| most.min(trained)))
}

fn likeliest(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let offset = log_sum_exp(logits);
    let order = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
    if count < tokens.len() {
        tokens.select_nth_unstable_by(count, order);
        tokens.truncate(count);
    }
    tokens.sort_unstable_by(order);
    tokens.into_iter().map(|token| (token, (f64::from(logits[token as usize]) - offset) as f32)).collect()
}

fn continued(model: &Model, score: &Score, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return output::json(&json!({
            "tokens": score.tokens,
            "log_probabilities": score.log_probabilities,
            "total": score.total(),
            "is_greedy": score.is_greedy,
        }));
    }
    for (token, log_probability) in score.tokens.iter().zip(&score.log_probabilities) {
        let text = model.tokenizer()?.token_text(*token).unwrap_or_default();
        output::line(&format!("{token:7}  {log_probability:9.4}  {text:?}"))?;
    }
    let greedy = if score.is_greedy { ", the likeliest there is" } else { "" };
    output::line(&format!("  total  {:9.4}{greedy}", score.total()))
}

fn table(model: &Model, positions: &[Position]) -> anyhow::Result<()> {
    let name = |token: u32| match model.tokenizer() {
        Ok(tokenizer) => format!("{:?}", tokenizer.token_text(token).unwrap_or_default()),
        Err(_) => token.to_string(),
    };
    for (at, Position { token, top }) in positions.iter().enumerate() {
        let next: Vec<String> = top.iter().map(|(token, log)| format!("{} {log:.3}", name(*token))).collect();
        output::line(&format!("{at:5}  {:<16} → {}", name(*token), next.join("  ")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pocketlm::Prompt;

    use super::*;

    #[test]
    fn the_likeliest_come_first_and_sum_to_one() {
        let logits = [0.0, 2.0f32.ln(), 5.0f32.ln(), 2.0f32.ln()];
        let all = likeliest(&logits, 9);
        assert_eq!(all.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [2, 1, 3, 0]);
        assert!((all.iter().map(|(_, log)| log.exp()).sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((all[0].1 - 0.5f32.ln()).abs() < 1e-6);
        assert_eq!(likeliest(&logits, 2), all[..2]);
        assert_eq!(likeliest(&logits, 0), []);
        assert!(log_sum_exp(&[1000.0, 1000.0]) < 1001.0);
    }

    #[test]
    fn prompts_are_taken_raw_unless_told() {
        let raw = FormArgs { raw: false, chat: false }.prompt(Input::Text("a".into()));
        assert!(matches!(raw, Prompt::Raw(_)));
    }
}
