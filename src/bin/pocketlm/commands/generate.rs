//! `generate`: continues a text, or answers it.

use std::time::Duration;

use pocketlm::{Error, Event, Finish, FinishReason, Model, Sampling, Stream, Timings, ToolCall};
use serde_json::{Value, json};

use crate::args::{
    AdapterArgs, ConstraintArgs, ContextArgs, DeviceArgs, DraftArgs, FormArgs, InputArgs, JsonArgs,
    ModelArgs, Overflowing, SamplingArgs, ToolArgs, VerifyArgs,
};
use crate::terminal::Screen;
use crate::{interrupt, load, output};

/// How much is generated where nobody says.
const PREDICT: u32 = 256;

/// Continues a text, or answers it with --chat
///
/// Without sampling flags the likeliest token is taken each time; -n is 256.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    adapters: AdapterArgs,
    #[command(flatten)]
    verify: VerifyArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    draft: DraftArgs,
    /// What becomes of a text that outgrows the context: stop or slide
    #[arg(long, value_enum, hide_possible_values = true, default_value_t = Overflowing::Stop)]
    overflow: Overflowing,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    constraint: ConstraintArgs,
    #[command(flatten)]
    tools: ToolArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let prompt = args.form.prompt(args.input.read()?);
    let mut options = args.sampling.options(Some(PREDICT), &Sampling::default());
    options.constraint = args.constraint.read()?;
    if args.overflow == Overflowing::Forget {
        let error = Error::invalid("only a conversation forgets");
        return Err(error.hint("--overflow slide would work").into());
    }
    let mut options = args.tools.beside(options)?;
    let model = load::load(
        &args.model,
        &args.device,
        &args.draft.within(args.verify.on(args.adapters.beside(args.context.options()))?),
    )?;
    options.draft = load::draft(&args.draft, &args.device)?;
    let mut session = model.session();
    args.overflow.apply(&mut session)?;
    let stream = session.generate(&prompt, &options)?;
    let finish = match args.json.json {
        true => follow(stream, |_| Ok(()))?,
        false => print(stream, Screen::new(false))?,
    };
    if args.json.json {
        output::json(&report(&finish, &model))?;
    }
    match finish.reason {
        FinishReason::Cancelled => Err(interrupt::interrupted().into()),
        FinishReason::Stop | FinishReason::Length | FinishReason::ToolCalls => Ok(()),
    }
}

/// Streams an answer to `screen` and ends its line.
pub(super) fn print(stream: Stream, mut screen: Screen) -> anyhow::Result<Finish> {
    let finish = follow(stream, |said| match said {
        Said::Text(text) => screen.show(text),
        Said::Call(call) => output::line(&call_json(call).to_string()),
    })?;
    screen.end()?;
    Ok(finish)
}

/// What of an answer is printed.
enum Said<'a> {
    Text(&'a str),
    Call(&'a ToolCall),
}

/// Hands each piece of an answer to `listen`; Ctrl-C stops the answer.
fn follow(stream: Stream, mut listen: impl FnMut(Said) -> anyhow::Result<()>) -> anyhow::Result<Finish> {
    let cancel = stream.cancel_handle();
    let _stopping = interrupt::stops(move || cancel.cancel());
    for event in stream {
        match event? {
            Event::Text(text) => listen(Said::Text(&text))?,
            Event::ToolCall(call) => listen(Said::Call(&call))?,
            Event::Prefill { done, total } => log::debug!("{done} of {total} tokens of the prompt are read"),
            Event::Recovered { why, device } => output::note(&format!("{why}; going on with {device}")),
            Event::Finished(finish) => {
                log::info!("{}: {}", finish.reason.name(), timings(&finish.timings));
                return Ok(finish);
            }
            _ => {}
        }
    }
    Err(pocketlm::Error::new(pocketlm::Kind::Internal, "an answer without an end").into())
}

/// How long an answer took, in words.
pub(super) fn timings(timings: &Timings) -> String {
    let Timings { prompt_tokens, cached_tokens, generated_tokens, first_token, .. } = timings;
    let Timings { guessed_tokens, accepted_tokens, .. } = timings;
    let guessed = match guessed_tokens {
        0 => String::new(),
        _ => format!(", {accepted_tokens} of {guessed_tokens} guesses right"),
    };
    let cached = if *cached_tokens > 0 { format!(" ({cached_tokens} kept)") } else { String::new() };
    format!(
        "{prompt_tokens} tokens read{cached} at {:.1}/s, the first after {:.0} ms; {generated_tokens} generated at {:.1}/s{guessed}",
        timings.prefill_rate(),
        first_token.as_secs_f64() * 1e3,
        timings.decode_rate(),
    )
}

/// A call as a line.
fn call_json(call: &ToolCall) -> Value {
    json!({"id": call.id, "name": call.name, "arguments": call.arguments})
}

fn report(finish: &Finish, model: &Model) -> Value {
    let (timings, info, health) = (&finish.timings, model.info(), model.health());
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    json!({
        "text": finish.text,
        "tokens": finish.tokens,
        "prompt_tokens": finish.prompt_tokens,
        "finish_reason": finish.reason.name(),
        "tool_calls": finish.calls.iter().map(call_json).collect::<Vec<_>>(),
        "timings": {
            "load_ms": info.load_time.as_secs_f64() * 1e3,
            "ttft_ms": timings.first_token.as_secs_f64() * 1e3,
            "prefill_tok_s": timings.prefill_rate(),
            "decode_tok_s": timings.decode_rate(),
            "cached_tokens": timings.cached_tokens,
            "guessed_tokens": timings.guessed_tokens,
            "accepted_tokens": timings.accepted_tokens,
        },
        "slices": {
            "count": health.slices.count,
            "p50_ms": ms(health.slices.quantile(0.5)),
            "p95_ms": ms(health.slices.quantile(0.95)),
            "max_ms": ms(health.slices.max()),
        },
        "recoveries": health.recoveries,
        "device": load::device_json(info),
    })
}
