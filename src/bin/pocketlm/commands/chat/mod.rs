//! `chat`: one answer, or a conversation.

mod input;
mod orders;
mod talk;

use std::path::{Path, PathBuf};

use pocketlm::{
    Error, FinishReason, GenerateOptions, Kind, LoadOptions, Model, Result, SaveOptions, Session,
};

use crate::args::{
    AdapterArgs, ConstraintArgs, ContextArgs, DeviceArgs, DraftArgs, ModelArgs, Overflowing, SamplingArgs,
    ToolArgs, VerifyArgs,
};
use crate::{interrupt, load, models, output};

use input::Input;
use talk::Talk;

/// Answers a question, or talks: without PROMPT each line is a question
///
/// In a conversation /help lists what else can be asked of it: another model, other instructions, JSON, to save and load
/// it. Ctrl-C stops an answer.
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
    /// Print the answer as the model writes it, without styles where it is Markdown
    #[arg(long)]
    plain: bool,
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
        self.session.as_ref().map_or(Ok(()), |path| self.save_to(path, session))
    }

    fn save_to(&self, path: &Path, session: &Session) -> Result<()> {
        session.save(path, &SaveOptions { kv: self.session_kv })
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let model = args.load(&args.model)?;
    let mut options = args.options(&args.model)?;
    options.draft = load::draft(&args.draft, &args.device)?;
    let session = args.file.open(&model, args.system.as_ref())?;
    let mut talk = Talk::new(args, model, session, options)?;
    match &args.prompt {
        Some(prompt) => match talk.answer(prompt)? {
            FinishReason::Cancelled => Err(interrupt::interrupted().into()),
            FinishReason::Stop | FinishReason::Length | FinishReason::ToolCalls => Ok(()),
        },
        None => talk.go_on(Input::open()?),
    }
}

impl Args {
    /// How answers of a model are made; guesses are not among it.
    fn options(&self, model: &ModelArgs) -> Result<GenerateOptions> {
        let mut options = self.sampling.options(None, &models::recommended(model.model.as_deref()));
        options.constraint = self.constraint.read()?;
        self.tools.beside(options)
    }

    /// Loads a model that can chat.
    fn load(&self, model: &ModelArgs) -> Result<Model> {
        let options = self.verify.on(self.adapters.beside(self.context.options()))?;
        let options: LoadOptions = self.draft.within(options);
        let model = load::load(model, &self.device, &options)?;
        match model.can_chat() {
            true => Ok(model),
            false => Err(Error::new(Kind::Template, "the model has no chat template")
                .hint("`pocketlm generate` continues text with it")),
        }
    }
}
