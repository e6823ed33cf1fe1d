//! `chat`: one answer, or a conversation.

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use pocketlm::{
    Error, FinishReason, GenerateOptions, Kind, Model, Result, SaveOptions, Session, Timings, ToolCall,
};

use super::generate;
use crate::args::{
    AdapterArgs, ConstraintArgs, ContextArgs, DeviceArgs, DraftArgs, ModelArgs, Overflowing, SamplingArgs,
    ToolArgs, VerifyArgs,
};
use crate::{failure, interrupt, load, models, output};

/// Answers a question, or talks: without PROMPT each line is a question
///
/// In a conversation: /help, /reset, /stats and /quit; Ctrl-C stops an answer.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The question; without one, a conversation
    prompt: Option<String>,
    /// Instructions that the conversation begins with
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    file: SessionArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    adapters: AdapterArgs,
    #[command(flatten)]
    verify: VerifyArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    draft: DraftArgs,
    /// What becomes of a conversation that outgrows the context
    #[arg(long, value_enum, default_value_t = Overflowing::Forget)]
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

/// Where the conversation is kept.
#[derive(clap::Args)]
struct SessionArgs {
    /// Go on with the conversation in this file, if it is there, and save it there after each answer
    #[arg(long, value_name = "FILE")]
    session: Option<PathBuf>,
    /// Save keys and values too: a larger file, and the next start computes nothing again
    #[arg(long, requires = "session")]
    session_kv: bool,
}

impl SessionArgs {
    /// The conversation of before, or a new one that begins with `system`.
    fn open(&self, model: &Model, system: Option<&String>) -> Result<Session> {
        let restored = match &self.session {
            Some(path) => match model.restore(path) {
                Err(error) if error.kind() == Kind::NotFound => None,
                restored => Some(restored?),
            },
            None => None,
        };
        let is_new = restored.is_none();
        let mut session = restored.unwrap_or_else(|| model.session());
        match system {
            Some(system) if is_new => session.instruct(system),
            Some(_) => {
                output::note("the conversation goes on with the instructions that it has, not --system")
            }
            None => {}
        }
        Ok(session)
    }

    fn save(&self, session: &Session) -> Result<()> {
        let Some(path) = &self.session else { return Ok(()) };
        session.save(path, &SaveOptions { kv: self.session_kv })
    }
}

const HELP: &str = "/help   this
/reset  forgets the conversation, but for --system
/stats  how long the last answer took, and how full the context is
/quit   ends; so does the end of the input
Ctrl-C  stops an answer; between two answers it ends the program";

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut options = args.sampling.options(None, &models::recommended(args.model.model.as_deref()));
    options.constraint = args.constraint.read()?;
    let mut options = args.tools.beside(options)?;
    let model = load::load(
        &args.model,
        &args.device,
        &args.draft.within(args.verify.on(args.adapters.beside(args.context.options()))?),
    )?;
    if !model.can_chat() {
        let error = Error::new(Kind::Template, "the model has no chat template");
        return Err(error.hint("`pocketlm generate` continues text with it").into());
    }
    options.draft = load::draft(&args.draft, &args.device)?;
    let mut session = args.file.open(&model, args.system.as_ref())?;
    args.overflow.apply(&mut session)?;
    match &args.prompt {
        Some(prompt) => match answer(&mut session, prompt, &options, &args.file)? {
            (FinishReason::Cancelled, _) => Err(interrupt::interrupted().into()),
            _ => Ok(()),
        },
        None => talk(&model, &mut session, &options, &args.file),
    }
}

fn talk(
    model: &Model,
    session: &mut Session,
    options: &GenerateOptions,
    file: &SessionArgs,
) -> anyhow::Result<()> {
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if is_terminal {
        output::note(&format!("{} listens; /help lists the commands", model.info().name));
    }
    let mut last: Option<Timings> = None;
    let mut lines = io::stdin().lock().lines();
    loop {
        if is_terminal {
            output::piece("> ")?;
        }
        let Some(line) = lines.next() else {
            // The end of the input leaves the cursor behind the marker.
            return if is_terminal { output::piece("\n") } else { Ok(()) };
        };
        let line = line.map_err(|error| Error::new(Kind::Io, error.to_string()).at("standard input"))?;
        match line.trim() {
            "" => {}
            "/quit" | "/exit" | "/bye" => return Ok(()),
            "/help" | "/?" => output::line(HELP)?,
            "/reset" | "/clear" => {
                session.reset();
                file.save(session)?;
                output::note("the conversation begins anew");
            }
            "/stats" => output::line(&stats(last.as_ref(), model.info().context))?,
            command if command.starts_with('/') && !command.contains(char::is_whitespace) => {
                output::note(&format!("{command} is no command; /help lists them"));
            }
            question => match answer(session, question, options, file) {
                Ok((reason, timings)) => {
                    last = Some(timings);
                    if let Some(call) = due(session).first() {
                        output::note(&format!("the next line is what {} comes to", call.name));
                    }
                    if reason == FinishReason::Length {
                        output::note("the answer was cut: -n or the context is full");
                    }
                }
                Err(error) if failure::kind(&error) == Some(Kind::ContextOverflow) => {
                    output::note(&format!("{error}; /reset begins anew"));
                }
                Err(error) => return Err(error),
            },
        }
    }
}

/// Streams the answer to `question`, or to the results of calls that it gives line by line, keeps both in the conversation,
/// and saves it.
fn answer(
    session: &mut Session,
    question: &str,
    options: &GenerateOptions,
    file: &SessionArgs,
) -> anyhow::Result<(FinishReason, Timings)> {
    let stream = match due(session) {
        calls if calls.is_empty() => session.say(question, options)?,
        calls => {
            session.returned(&calls[0], question);
            if calls.len() > 1 {
                file.save(session)?;
                return Ok((FinishReason::ToolCalls, Timings::default()));
            }
            session.go_on(options)?
        }
    };
    let finish = generate::print(stream)?;
    session.answered_with(&finish);
    file.save(session)?;
    Ok((finish.reason, finish.timings))
}

/// The calls of the conversation that nothing was returned for yet.
fn due(session: &Session) -> Vec<ToolCall> {
    let messages = session.transcript();
    let results =
        messages.iter().rev().take_while(|message| message.0.get("role").is_some_and(|role| role == "tool"));
    let results = results.count();
    let called =
        messages.iter().rev().nth(results).and_then(|message| message.0.get("tool_calls")?.as_array());
    let calls = called.map_or(&[][..], Vec::as_slice).iter().filter_map(ToolCall::from_json);
    calls.skip(results).collect()
}

fn stats(last: Option<&Timings>, context: u32) -> String {
    let Some(last) = last else { return "nothing was said yet".into() };
    let used = last.prompt_tokens + last.generated_tokens;
    format!("{}; {used} of {context} tokens of the context are used", generate::timings(last))
}
