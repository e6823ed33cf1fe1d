//! A session: one sequence of tokens that can be continued, again and again.

use std::path::Path;
use std::sync::Arc;

use crate::base::replace;
use crate::error::{Error, Kind, Result};
use crate::kernel::KvType;

use super::condense::Condense;
use super::event::{Event, FinishReason, Stream};
use super::keep::Kept;
use super::model::Core;
use super::options::{GenerateOptions, SaveOptions};
use super::prompt::{Message, Prompt};
use super::runner::SessionId;
use super::saved::{Saved, Unfinished};
use super::view::Overflow;

/// A conversation with a model, or any other sequence of tokens. What two prompts of a session have in common at
/// their beginning is computed once. One answer at a time.
#[derive(Debug)]
pub struct Session {
    core: Arc<Core>,
    id: SessionId,
    /// The conversation of [`Self::say`].
    pub(super) transcript: Vec<Message>,
    /// The answer that was under way when it was saved.
    unfinished: Option<Unfinished>,
    condense: Option<Condense>,
}

impl Session {
    pub(super) fn new(core: Arc<Core>, id: SessionId) -> Self {
        Self::restored(core, id, Vec::new(), None)
    }

    pub(super) fn restored(
        core: Arc<Core>,
        id: SessionId,
        transcript: Vec<Message>,
        unfinished: Option<Unfinished>,
    ) -> Self {
        Self { core, id, transcript, unfinished, condense: None }
    }

    /// Starts an answer to `prompt`.
    ///
    /// # Errors
    /// `ContextOverflow` with both numbers where the prompt does not fit, `SessionBusy` while an answer is under
    /// way, `Template`, `InvalidArgument`.
    pub fn generate(&mut self, prompt: &Prompt, options: &GenerateOptions) -> Result<Stream> {
        let tokens = self.core.tokens_with(prompt, options.told_tools())?;
        let queue = self.core.begin(self.id, tokens, None, options)?;
        self.unfinished = None;
        Ok(Stream::new(self.core.clone(), queue))
    }

    /// Computes the beginning of what will be asked, ahead of time: instructions, tools, what a user is still writing. An answer to
    /// a prompt that begins so computes only the rest. A conversation is taken to go on: with its last message, where
    /// that is the user's, and otherwise with one that the user has yet to begin. The stream ends without a token.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub fn prewarm(&mut self, prompt: &Prompt) -> Result<Stream> {
        let tokens = self.core.beginning(prompt)?;
        let queue = self.core.prewarm(self.id, tokens)?;
        self.unfinished = None;
        Ok(Stream::new(self.core.clone(), queue))
    }

    /// Another session that goes on from here, with the same history and conversation: what is computed is shared by whole pages
    /// of 32 tokens, not computed again and not copied. It has a place in the KV cache of its own
    /// ([`super::LoadOptions::sessions`]); without one it computes its history again. Of an answer under way it has the
    /// tokens so far.
    pub fn branch(&self) -> Self {
        let id = self.core.runner().branch(self.id);
        let mut branch = Self::restored(self.core.clone(), id, self.transcript.clone(), self.unfinished);
        branch.condense.clone_from(&self.condense);
        branch
    }

    /// What becomes of the session when it outgrows the context, from the next answer on.
    ///
    /// # Errors
    /// `InvalidArgument` where the sinks leave no room, `SessionBusy` while an answer is under way.
    pub fn set_overflow(&mut self, overflow: Overflow) -> Result<()> {
        self.core.runner().set_overflow(self.id, overflow)
    }

    /// How keys and values of the session are stored.
    pub fn kv_type(&self) -> KvType {
        // A session whose runner does not know it has none.
        self.core.runner().kv_type(self.id).unwrap_or(self.core.info.estimate.kv_type)
    }

    /// Has keys and values of this session stored in another way than those of others, where the model was loaded with places
    /// for that ([`super::LoadOptions::more_sessions`]). What was computed is computed again.
    ///
    /// # Errors
    /// `InvalidArgument` where the model has no such places, `SessionBusy` while an answer is under way.
    pub fn set_kv_type(&mut self, kv_type: KvType) -> Result<()> {
        self.core.runner().set_kv_type(self.id, kv_type)
    }

    /// Has a conversation that no longer fits made shorter before the next answer: `condense` is given all of it, what the user said
    /// last included, and returns what is to stand for it. It is asked again until there is room for the answer:
    /// [`GenerateOptions::max_tokens`], or a quarter of the context where that is open, and at most half. It may ask the model for a
    /// summary, in another session; [`super::forget_oldest`] leaves out the oldest exchange.
    pub fn condense_with(
        &mut self,
        condense: impl FnMut(&[Message]) -> Result<Vec<Message>> + Send + 'static,
    ) {
        self.condense = Some(Condense::new(condense));
    }

    /// Whether an answer was under way when the session was saved, and has not gone on since.
    pub fn is_unfinished(&self) -> bool {
        self.unfinished.is_some()
    }

    /// Goes on with the answer that was under way when the session was saved: with the same options, its tokens are those
    /// that it would have had. A seed that nobody gave is the one of then. The stream begins with the text of the answer
    /// so far.
    ///
    /// # Errors
    /// `InvalidArgument` where none was under way, or where it has ended by these options; [`Self::generate`] otherwise.
    pub fn proceed(&mut self, options: &GenerateOptions) -> Result<Stream> {
        let none = || Error::invalid("no answer was under way when the session was saved");
        let queue = self.core.proceed(self.id, self.unfinished.ok_or_else(none)?, options)?;
        self.unfinished = None;
        Ok(Stream::new(self.core.clone(), queue))
    }

    /// Saves the session to a file, for [`super::Model::restore`]. Whatever happens on the way, be it that the process is
    /// killed, the file is whole: as it was before, or new. While an answer is under way its tokens so far are saved,
    /// and [`Self::proceed`] goes on with it.
    ///
    /// # Errors
    /// `Io`, `NotFound` with the path. A device that is lost costs keys and values, and is no error.
    pub fn save(&self, path: impl AsRef<Path>, options: &SaveOptions) -> Result<()> {
        let saved = self.saved(options)?;
        replace(path.as_ref(), |out| saved.write(out))
    }

    /// The session in bytes, [`Self::save`] otherwise.
    ///
    /// # Errors
    /// None but `Internal`.
    pub fn to_bytes(&self, options: &SaveOptions) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.saved(options)?.write(&mut bytes)?;
        Ok(bytes)
    }

    /// Adds what the user says to the conversation and starts the answer; hand the whole of it to
    /// [`Self::answered`] when it is there.
    ///
    /// # Errors
    /// As [`Self::generate`], and what [`Self::condense_with`] was given returns, or `SessionBusy` while that is asked for another session
    /// that shares it; the conversation stays as it was then.
    pub fn say(&mut self, text: impl Into<String>, options: &GenerateOptions) -> Result<Stream> {
        let before = self.transcript.clone();
        self.transcript.push(Message::new("user", &text.into()));
        let stream = self
            .make_room(options)
            .and_then(|()| self.generate(&Prompt::Chat(self.transcript.clone()), options));
        if stream.is_err() {
            self.transcript = before;
        }
        stream
    }

    /// Condenses the conversation until an answer has room.
    pub(super) fn make_room(&mut self, options: &GenerateOptions) -> Result<()> {
        let Some(condense) = &self.condense else { return Ok(()) };
        let context = self.core.info.context;
        let room = options.max_tokens.unwrap_or(context / 4).min(context / 2);
        let tokens = |messages: &[Message]| {
            let prompt = Prompt::Chat(messages.to_vec());
            self.core.tokens_with(&prompt, options.told_tools()).map(|tokens| tokens.len())
        };
        let mut length = tokens(&self.transcript)?;
        while length + room as usize > context as usize {
            let shorter = condense.call(&self.transcript)?;
            let now = tokens(&shorter)?;
            if now >= length {
                let what = format!("the conversation has {length} tokens, and condensed {now}");
                return Err(Error::new(Kind::ContextOverflow, what)
                    .hint("condense it to fewer, or ask for a shorter answer"));
            }
            (self.transcript, length) = (shorter, now);
        }
        Ok(())
    }

    /// Adds the model's answer to the conversation.
    pub fn answered(&mut self, text: impl Into<String>) {
        self.transcript.push(Message::new("assistant", &text.into()));
    }

    /// Begins the conversation with an instruction to the model, in place of all that was said.
    pub fn instruct(&mut self, instructions: impl Into<String>) {
        self.transcript = vec![Message::new("system", &instructions.into())];
    }

    /// Puts a conversation in place of this one: one that was held elsewhere, or this one changed. What both begin with is not computed
    /// again.
    pub fn take_up(&mut self, conversation: Vec<Message>) {
        self.transcript = conversation;
    }

    /// Forgets what was said, but for the instructions.
    pub fn reset(&mut self) {
        self.transcript.retain(|message| message.0.get("role").is_some_and(|role| role == "system"));
    }

    /// The conversation so far.
    pub fn transcript(&self) -> &[Message] {
        &self.transcript
    }

    fn saved(&self, options: &SaveOptions) -> Result<Saved> {
        let (model, kept) = self.core.keep(self.id, options.kv)?;
        let answer = kept.answer.or(self.unfinished);
        let Kept { overflow, kv_type, history, kv, .. } = kept;
        Ok(Saved { model, overflow, kv_type, history, transcript: self.transcript.clone(), answer, kv })
    }

    /// Says `text`, hands each piece of the answer to `listen`, and keeps the conversation.
    ///
    /// # Errors
    /// As [`Self::generate`], and what ends the answer.
    pub fn respond(
        &mut self,
        text: impl Into<String>,
        options: &GenerateOptions,
        mut listen: impl FnMut(&str),
    ) -> Result<FinishReason> {
        let stream = self.say(text, options)?;
        let mut reason = FinishReason::Cancelled;
        let mut answer = String::new();
        for event in stream {
            match event? {
                Event::Text(text) => {
                    listen(&text);
                    answer += &text;
                }
                Event::Finished(finish) => reason = finish.reason,
                Event::Prefill { .. } | Event::Recovered { .. } | Event::Suspended | Event::Resumed => {}
                Event::Chosen(_) | Event::ToolArguments { .. } | Event::ToolCall(_) => {}
            }
        }
        self.answered(answer);
        Ok(reason)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.core.leave(self.id);
    }
}
