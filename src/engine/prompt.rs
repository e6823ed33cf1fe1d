//! What a session is asked.

use std::time::SystemTime;

use crate::error::{Error, Kind, Result};
use crate::text::{ChatRequest, Special, Tool, brief, shown};

use super::model::Core;

pub use crate::text::Message;

/// What to continue.
#[derive(Clone, Debug)]
pub enum Prompt {
    /// Text as it is; the beginning-of-sequence token is put before it where the model's metadata says so.
    /// Special tokens in it are recognised.
    Raw(String),
    /// A conversation, rendered by the model's chat template, to be answered.
    Chat(Vec<Message>),
    /// Tokens as they are.
    Tokens(Vec<u32>),
}

impl Prompt {
    /// A conversation of one question.
    pub fn user(text: impl Into<String>) -> Self {
        Self::Chat(vec![Message::new("user", &text.into())])
    }
}

impl Core {
    /// The tokens that a prompt begins with, however it goes on: of a conversation what two that differ in what is said next
    /// have in common.
    pub(super) fn beginning(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        let Prompt::Chat(messages) = prompt else { return self.tokens(prompt) };
        let going_on = |with: &str| {
            let mut messages = messages.clone();
            let last =
                messages.last_mut().filter(|last| last.0.get("role").is_some_and(|role| role == "user"));
            let said = last.and_then(|last| match last.0.get_mut("content") {
                Some(serde_json::Value::String(said)) => Some(said),
                _ => None,
            });
            match said {
                Some(said) => said.push_str(with),
                None => messages.push(Message::new("user", with)),
            }
            self.tokens(&Prompt::Chat(messages))
        };
        // Nothing that both would be encoded into one token with.
        let (one, other) = (going_on(" A1")?, going_on("\n#2")?);
        let common = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
        match common {
            0 => Err(Error::new(Kind::Template, "a conversation has no beginning that stays as it is")),
            common => Ok(one[..common].to_vec()),
        }
    }

    /// The tokens of a prompt.
    pub(super) fn tokens(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        self.tokens_with(prompt, &[])
    }

    /// The tokens of a prompt, a conversation with tools.
    pub(super) fn tokens_with(&self, prompt: &Prompt, tools: &[Tool]) -> Result<Vec<u32>> {
        let tokens = match prompt {
            Prompt::Tokens(tokens) => tokens.clone(),
            Prompt::Raw(text) => {
                let tokenizer = self.tokenizer()?;
                let bos = tokenizer.bos().filter(|_| tokenizer.add_bos() || text.is_empty());
                let mut tokens: Vec<u32> = bos.into_iter().collect();
                tokens.extend(tokenizer.encode(text, Special::Parse)?);
                tokens
            }
            Prompt::Chat(messages) => {
                self.tokenizer()?.encode(&self.render(messages, tools)?, Special::Parse)?
            }
        };
        let vocab = self.info.vocab;
        if let Some(token) = tokens.iter().find(|&&token| token >= vocab) {
            let what = format!("token {token} is not in the vocabulary of {vocab}");
            return Err(Error::invalid(what));
        }
        match tokens.is_empty() {
            true => Err(Error::invalid("the prompt is empty and the model has no token to begin with")
                .hint("give at least one token")),
            false => Ok(tokens),
        }
    }

    /// The tokens of a prompt that `more` text follows.
    pub(super) fn tokens_on(&self, prompt: &Prompt, more: &str) -> Result<Vec<u32>> {
        match prompt {
            Prompt::Raw(text) => self.tokens(&Prompt::Raw([text, more].concat())),
            Prompt::Chat(messages) => {
                self.tokenizer()?.encode(&[&self.render(messages, &[])?, more].concat(), Special::Parse)
            }
            Prompt::Tokens(tokens) => {
                let mut tokens = tokens.clone();
                tokens.extend(self.tokenizer()?.encode(more, Special::Plain)?);
                Ok(tokens)
            }
        }
    }

    fn render(&self, messages: &[Message], tools: &[Tool]) -> Result<String> {
        let Some(template) = &self.template else {
            let what = "the model has no chat template";
            return Err(
                Error::new(Kind::Template, what).hint("give the prompt raw, or use an instruct model")
            );
        };
        let now = SystemTime::now();
        if !template.knows_tools() {
            return template.render(&ChatRequest::new(&brief(messages, tools), now));
        }
        let messages = shown(messages, tools, template.source(), self.manner());
        let list = || tools.iter().map(Tool::to_json).collect::<serde_json::Value>();
        let tools = (!tools.is_empty()).then(list);
        template.render(&ChatRequest { tools, ..ChatRequest::new(&messages, now) })
    }
}
