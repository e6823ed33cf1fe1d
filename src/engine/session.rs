//! A session: one sequence of tokens that can be continued, again and again.

use std::sync::Arc;

use crate::error::Result;

use super::event::{Event, FinishReason, Stream};
use super::model::Core;
use super::options::GenerateOptions;
use super::prompt::{Message, Prompt};
use super::runner::SessionId;

/// A conversation with a model, or any other sequence of tokens. What two prompts of a session have in common at
/// their beginning is computed once. One answer at a time.
#[derive(Debug)]
pub struct Session {
    core: Arc<Core>,
    id: SessionId,
    /// The conversation of [`Self::say`].
    transcript: Vec<Message>,
}

impl Session {
    pub(super) fn new(core: Arc<Core>, id: SessionId) -> Self {
        Self { core, id, transcript: Vec::new() }
    }

    /// Starts an answer to `prompt`.
    ///
    /// # Errors
    /// `ContextOverflow` with both numbers where the prompt does not fit, `SessionBusy` while an answer is under
    /// way, `Template`, `InvalidArgument`.
    pub fn generate(&mut self, prompt: &Prompt, options: &GenerateOptions) -> Result<Stream> {
        let tokens = self.core.tokens(prompt)?;
        let queue = self.core.begin(self.id, tokens, options)?;
        Ok(Stream::new(self.core.clone(), queue))
    }

    /// Adds what the user says to the conversation and starts the answer; hand the whole of it to
    /// [`Self::answered`] when it is there.
    ///
    /// # Errors
    /// As [`Self::generate`]; the conversation stays as it was then.
    pub fn say(&mut self, text: impl Into<String>, options: &GenerateOptions) -> Result<Stream> {
        self.transcript.push(Message::new("user", &text.into()));
        let stream = self.generate(&Prompt::Chat(self.transcript.clone()), options);
        if stream.is_err() {
            self.transcript.pop();
        }
        stream
    }

    /// Adds the model's answer to the conversation.
    pub fn answered(&mut self, text: impl Into<String>) {
        self.transcript.push(Message::new("assistant", &text.into()));
    }

    /// Begins the conversation with an instruction to the model, in place of all that was said.
    pub fn instruct(&mut self, instructions: impl Into<String>) {
        self.transcript = vec![Message::new("system", &instructions.into())];
    }

    /// Forgets what was said, but for the instructions.
    pub fn reset(&mut self) {
        self.transcript.retain(|message| message.0.get("role").is_some_and(|role| role == "system"));
    }

    /// The conversation so far.
    pub fn transcript(&self) -> &[Message] {
        &self.transcript
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
