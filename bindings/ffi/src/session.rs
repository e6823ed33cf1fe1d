//! A session: what is asked of it, and what is kept of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pocketlm::SaveOptions;

use crate::error::Result;
use crate::options::{GenerateOptions, Message, Prompt};
use crate::stream::Stream;

/// What becomes of a session that outgrows the context.
#[derive(Clone, Debug, uniffi::Enum)]
pub enum Overflow {
    /// A prompt that does not fit is refused, and an answer ends with `Length`.
    Stop,
    /// It goes on with its first tokens, the sinks, and as many of the latest ones as fit. At least 4 sinks are advisable.
    Slide { sinks: u32 },
}

/// A conversation with a model, or any other sequence of tokens. What two of its prompts have in common at their beginning is
/// computed once. One answer at a time: another is `SessionBusy`.
#[derive(Debug, uniffi::Object)]
pub struct Session {
    session: Mutex<pocketlm::Session>,
}

impl Session {
    pub(crate) fn new(session: pocketlm::Session) -> Arc<Self> {
        Arc::new(Self { session: Mutex::new(session) })
    }

    fn session(&self) -> MutexGuard<'_, pocketlm::Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[uniffi::export]
impl Session {
    /// Starts an answer to `prompt`.
    pub fn generate(&self, prompt: Prompt, options: GenerateOptions) -> Result<Arc<Stream>> {
        Stream::start(self.session().generate(&prompt.meant()?, &options.meant()?)?)
    }

    /// Adds what the user says to the conversation and starts the answer; hand the whole of it to `answered`.
    pub fn say(&self, text: String, options: GenerateOptions) -> Result<Arc<Stream>> {
        Stream::start(self.session().say(text, &options.meant()?)?)
    }

    /// Computes the beginning of what will be asked, ahead of time; pull the stream to its end, it has no token.
    pub fn prewarm(&self, prompt: Prompt) -> Result<Arc<Stream>> {
        Stream::start(self.session().prewarm(&prompt.meant()?)?)
    }

    /// Another session that goes on from here, with the same history and conversation; what is computed is shared.
    pub fn branch(&self) -> Arc<Self> {
        Self::new(self.session().branch())
    }

    /// What becomes of the session when it outgrows the context.
    pub fn set_overflow(&self, overflow: Overflow) -> Result<()> {
        let overflow = match overflow {
            Overflow::Stop => pocketlm::Overflow::Stop,
            Overflow::Slide { sinks } => pocketlm::Overflow::Slide { sinks },
        };
        Ok(self.session().set_overflow(overflow)?)
    }

    /// Has a conversation that no longer fits forget its oldest exchange before the next answer; instructions stay.
    pub fn forget_oldest(&self) {
        self.session().condense_with(pocketlm::forget_oldest);
    }

    /// Adds the model's answer to the conversation.
    pub fn answered(&self, text: String) {
        self.session().answered(text);
    }

    /// Begins the conversation with an instruction to the model, in place of all that was said.
    pub fn instruct(&self, instructions: String) {
        self.session().instruct(instructions);
    }

    /// Forgets what was said, but for the instructions.
    pub fn reset(&self) {
        self.session().reset();
    }

    /// The conversation so far.
    pub fn transcript(&self) -> Vec<Message> {
        let text = |message: &pocketlm::Message, key| {
            let value = message.0.get(key).and_then(serde_json::Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let session = self.session();
        let said = session.transcript().iter();
        said.map(|message| Message { role: text(message, "role"), content: text(message, "content") })
            .collect()
    }

    /// Whether an answer was under way when the session was saved, and has not gone on since.
    pub fn is_unfinished(&self) -> bool {
        self.session().is_unfinished()
    }

    /// Goes on with the answer that was under way when the session was saved; the stream begins with its text so far.
    pub fn proceed(&self, options: GenerateOptions) -> Result<Arc<Stream>> {
        Stream::start(self.session().proceed(&options.meant()?)?)
    }

    /// Saves the session to a file, which is whole whatever happens on the way. `kv` keeps keys and values too.
    #[uniffi::method(default(kv = false))]
    pub fn save(&self, path: String, kv: bool) -> Result<()> {
        Ok(self.session().save(path, &SaveOptions { kv, ..SaveOptions::default() })?)
    }

    /// The session in bytes.
    #[uniffi::method(default(kv = false))]
    pub fn to_bytes(&self, kv: bool) -> Result<Vec<u8>> {
        Ok(self.session().to_bytes(&SaveOptions { kv, ..SaveOptions::default() })?)
    }
}
