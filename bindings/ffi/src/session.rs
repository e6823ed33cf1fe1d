//! A session: what is asked of it, and what is kept of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pocketlm::SaveOptions;

use crate::condense::{Condenser, Gate};
use crate::error::Result;
use crate::message::{self, Message};
use crate::options::{GenerateOptions, KvType, Prompt};
use crate::stream::Stream;
use crate::tools::ToolCall;

/// What becomes of a session that outgrows the context.
#[derive(Clone, Debug, uniffi::Enum)]
pub enum Overflow {
    /// A prompt that does not fit is refused, and an answer ends with `Length`.
    Stop,
    /// It goes on with its first tokens, the sinks, and as many of the latest ones as fit. At least 4 sinks are advisable.
    Slide { sinks: u32 },
}

/// A conversation with a model, or any other sequence of tokens. What two of its prompts have in common at their beginning is
/// computed once. One answer at a time: another is `SessionBusy`, and so is whatever else is asked of it while it asks its
/// app's rule for a shorter conversation.
#[derive(uniffi::Object)]
pub struct Session {
    gate: Arc<Gate>,
    /// By which it is made shorter, for its branches.
    rule: Mutex<Option<Arc<dyn Condenser>>>,
}

impl Session {
    pub(crate) fn new(session: pocketlm::Session) -> Arc<Self> {
        Arc::new(Self { gate: Gate::new(session), rule: Mutex::default() })
    }

    fn rule(&self) -> MutexGuard<'_, Option<Arc<dyn Condenser>>> {
        self.rule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[uniffi::export]
impl Session {
    /// Starts an answer to `prompt`.
    pub fn generate(&self, prompt: Prompt, options: GenerateOptions) -> Result<Arc<Stream>> {
        let (prompt, options) = (prompt.meant()?, options.meant()?);
        Stream::start(self.gate.with(|session| session.generate(&prompt, &options))??)
    }

    /// Adds what the user says to the conversation and starts the answer; hand the whole of it to `answered`.
    pub fn say(&self, text: String, options: GenerateOptions) -> Result<Arc<Stream>> {
        let options = options.meant()?;
        Stream::start(self.gate.asking(|session| session.say(text, &options))?)
    }

    /// Starts the answer to the conversation as it is, such as to the results of calls.
    pub fn go_on(&self, options: GenerateOptions) -> Result<Arc<Stream>> {
        let options = options.meant()?;
        Stream::start(self.gate.asking(|session| session.go_on(&options))?)
    }

    /// Computes the beginning of what will be asked, ahead of time; pull the stream to its end, it has no token.
    pub fn prewarm(&self, prompt: Prompt) -> Result<Arc<Stream>> {
        let prompt = prompt.meant()?;
        Stream::start(self.gate.with(|session| session.prewarm(&prompt))??)
    }

    /// Another session that goes on from here, with the same history and conversation; what is computed is shared.
    pub fn branch(&self) -> Result<Arc<Self>> {
        let branch = Self::new(self.gate.with(|session| session.branch())?);
        // One of its own: who is asked for a shorter conversation may ask the other.
        if let Some(rule) = &*self.rule() {
            branch.condense_with(rule.clone())?;
        }
        Ok(branch)
    }

    /// What becomes of the session when it outgrows the context.
    pub fn set_overflow(&self, overflow: Overflow) -> Result<()> {
        let overflow = match overflow {
            Overflow::Stop => pocketlm::Overflow::Stop,
            Overflow::Slide { sinks } => pocketlm::Overflow::Slide { sinks },
        };
        Ok(self.gate.with(|session| session.set_overflow(overflow))??)
    }

    /// Has keys and values of this session kept in another type than those of others, where the model was loaded with places for
    /// that (`more_sessions`). What was computed is computed again.
    pub fn set_kv_type(&self, kv_type: KvType) -> Result<()> {
        Ok(self.gate.with(|session| session.set_kv_type(kv_type.into()))??)
    }

    /// Has a conversation that no longer fits forget its oldest exchange before the next answer; instructions stay.
    pub fn forget_oldest(&self) -> Result<()> {
        self.gate.with(|session| session.condense_with(pocketlm::forget_oldest))?;
        *self.rule() = None;
        Ok(())
    }

    /// Has a conversation that no longer fits made shorter by `condenser` before the next answer, again and again until there is
    /// room for that.
    pub fn condense_with(&self, condenser: Arc<dyn Condenser>) -> Result<()> {
        self.gate.bind(condenser.clone())?;
        *self.rule() = Some(condenser);
        Ok(())
    }

    /// Adds the model's answer to the conversation, and the calls in it.
    #[uniffi::method(default(calls = []))]
    pub fn answered(&self, text: String, calls: Vec<ToolCall>) -> Result<()> {
        let calls = calls.into_iter().map(ToolCall::meant).collect::<Result<_>>()?;
        self.gate.with(|session| {
            session.answered_with(&pocketlm::Finish {
                reason: pocketlm::FinishReason::Stop,
                text,
                calls,
                prompt_tokens: Vec::new(),
                tokens: Vec::new(),
                timings: pocketlm::Timings::default(),
            });
        })
    }

    /// Adds to the conversation what a call came to. When all have come to something, `go_on`.
    pub fn returned(&self, call: ToolCall, result: String) -> Result<()> {
        let call = call.meant()?;
        self.gate.with(|session| session.returned(&call, &result))
    }

    /// Begins the conversation with an instruction to the model, in place of all that was said.
    pub fn instruct(&self, instructions: String) -> Result<()> {
        self.gate.with(|session| session.instruct(instructions))
    }

    /// Puts a conversation in place of this one; what both begin with is not computed again.
    pub fn take_up(&self, conversation: Vec<Message>) -> Result<()> {
        let conversation = message::meant(conversation)?;
        self.gate.with(|session| session.take_up(conversation))
    }

    /// Forgets what was said, but for the instructions.
    pub fn reset(&self) -> Result<()> {
        self.gate.with(|session| session.reset())
    }

    /// The conversation so far.
    pub fn transcript(&self) -> Result<Vec<Message>> {
        self.gate.with(|session| message::told(session.transcript()))
    }

    /// Whether an answer was under way when the session was saved, and has not gone on since.
    pub fn is_unfinished(&self) -> Result<bool> {
        self.gate.with(|session| session.is_unfinished())
    }

    /// Goes on with the answer that was under way when the session was saved; the stream begins with its text so far.
    pub fn proceed(&self, options: GenerateOptions) -> Result<Arc<Stream>> {
        let options = options.meant()?;
        Stream::start(self.gate.with(|session| session.proceed(&options))??)
    }

    /// Saves the session to a file, which is whole whatever happens on the way. `kv` keeps keys and values too.
    #[uniffi::method(default(kv = false))]
    pub fn save(&self, path: String, kv: bool) -> Result<()> {
        let options = SaveOptions { kv, ..SaveOptions::default() };
        Ok(self.gate.with(|session| session.save(path, &options))??)
    }

    /// The session in bytes.
    #[uniffi::method(default(kv = false))]
    pub fn to_bytes(&self, kv: bool) -> Result<Vec<u8>> {
        let options = SaveOptions { kv, ..SaveOptions::default() };
        Ok(self.gate.with(|session| session.to_bytes(&options))??)
    }
}
