//! Tools in a conversation: the model is told of them, its calls are read, their results are handed back; by the host, or in
//! a loop here.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::text::{Constraint, Decoder, Manner, Message, Reader, Tool, ToolCall, ToolChoice, marks};

use super::caught::said;
use super::event::{Event, Finish, FinishReason, Stream};
use super::model::Core;
use super::options::GenerateOptions;
use super::prompt::Prompt;
use super::session::Session;

/// Calls a tool with its arguments: the result, or what went wrong, either of which the model is told.
pub type Handler<'a> = Box<dyn FnMut(&serde_json::Map<String, Value>) -> Result<String, String> + 'a>;

impl Core {
    /// A decoder and a reader of the calls in an answer to a prompt of so many tokens, where there are tools.
    pub(super) fn listen(
        &self,
        decoder: Option<Decoder>,
        options: &GenerateOptions,
        prompt_tokens: u32,
    ) -> (Option<Decoder>, Option<Reader>) {
        let tools = options.told_tools();
        let Some((decoder, tokenizer)) = decoder.clone().zip(self.tokenizer().ok()) else {
            return (decoder, None);
        };
        if tools.is_empty() {
            return (Some(decoder), None);
        }
        let reader = Reader::new(self.manner(), tools.to_vec(), prompt_tokens);
        let kept = marks(tokenizer).into_iter().map(|(_, token)| token).collect();
        (Some(decoder.keeping(kept)), Some(reader))
    }

    /// What a call that has to be made must be.
    pub(super) fn due_call(&self, options: &GenerateOptions) -> Result<Option<Constraint>> {
        let due: Vec<&Tool> = match &options.tool_choice {
            ToolChoice::Auto | ToolChoice::None => return Ok(None),
            ToolChoice::Required => options.tools.iter().collect(),
            ToolChoice::Named(name) => options.tools.iter().filter(|tool| tool.name == *name).collect(),
        };
        self.manner().grammar(&due, self.tokenizer()?).map(Constraint::Lark).map(Some)
    }

    /// How the model writes calls: as its template shows, or as its vocabulary has marks for.
    pub(super) fn manner(&self) -> Manner {
        let Some(template) = &self.template else { return Manner::Hermes };
        let of_vocabulary = || Manner::of_vocabulary(self.tokenizer().ok()?);
        template.manner().or_else(of_vocabulary).unwrap_or(Manner::Hermes)
    }
}

/// Texts that follow each other as one.
pub(super) fn joined(events: Vec<Event>) -> Vec<Event> {
    let mut joined: Vec<Event> = Vec::with_capacity(events.len());
    for event in events {
        match (joined.last_mut(), event) {
            (Some(Event::Text(before)), Event::Text(text)) => before.push_str(&text),
            (_, event) => joined.push(event),
        }
    }
    joined
}

impl Session {
    /// Adds an answer to the conversation, with the calls in it.
    pub fn answered_with(&mut self, finish: &Finish) {
        let mut message = Message::new("assistant", &finish.text);
        if !finish.calls.is_empty() {
            let calls: Value = finish.calls.iter().map(ToolCall::to_json).collect();
            message.0.insert("tool_calls".into(), calls);
        }
        self.transcript.push(message);
    }

    /// Adds what a call came to.
    pub fn returned(&mut self, call: &ToolCall, result: &str) {
        let mut message = Message::new("tool", result);
        message.0.insert("name".into(), call.name.clone().into());
        message.0.insert("tool_call_id".into(), call.id.clone().into());
        self.transcript.push(message);
    }

    /// Starts the answer to the conversation as it is, such as to the results of calls.
    ///
    /// # Errors
    /// As [`Self::say`].
    pub fn go_on(&mut self, options: &GenerateOptions) -> Result<Stream> {
        self.make_room(options)?;
        self.generate(&Prompt::Chat(self.transcript.clone()), options)
    }

    /// Says `text`, calls the tools that the model asks for, hands the results back, and so on until it answers without a
    /// call, `rounds` times at most. Where it has to call one, that is for the first round. `listen` hears all events. What a
    /// tool fails with, or panics with, is told to the model, and so is that there is none of a name. The conversation
    /// keeps all of it; the last answer is returned, with the reason [`FinishReason::ToolCalls`] where the
    /// rounds did not suffice.
    ///
    /// # Errors
    /// As [`Self::say`], and what ends an answer.
    pub fn run_tools(
        &mut self,
        text: impl Into<String>,
        tools: &mut [(Tool, Handler<'_>)],
        options: &GenerateOptions,
        rounds: u32,
        mut listen: impl FnMut(&Event),
    ) -> Result<Finish> {
        let list = tools.iter().map(|(tool, _)| tool.clone()).collect();
        let mut options = GenerateOptions { tools: list, ..options.clone() };
        let mut stream = self.say(text, &options)?;
        for round in 0..=rounds {
            let finish = follow(stream, &mut listen)?;
            self.answered_with(&finish);
            if finish.reason != FinishReason::ToolCalls || round == rounds {
                return Ok(finish);
            }
            for call in &finish.calls {
                let result = match tools.iter_mut().find(|(tool, _)| tool.name == call.name) {
                    Some((_, handler)) => handle(handler, call),
                    None => Err(format!("there is no tool {:?}", call.name)),
                };
                let result = result.unwrap_or_else(|error| serde_json::json!({"error": error}).to_string());
                self.returned(call, &result);
            }
            options.tool_choice = ToolChoice::Auto;
            stream = self.go_on(&options)?;
        }
        Err(Error::internal("a loop of tools without an end"))
    }
}

fn follow(stream: Stream, listen: &mut impl FnMut(&Event)) -> Result<Finish> {
    for event in stream {
        let event = event?;
        listen(&event);
        if let Event::Finished(finish) = event {
            return Ok(finish);
        }
    }
    Err(Error::internal("a stream ended without its last event"))
}

/// What a call comes to; a panic is an error like others.
fn handle(handler: &mut Handler<'_>, call: &ToolCall) -> Result<String, String> {
    catch_unwind(AssertUnwindSafe(|| handler(&call.arguments)))
        .unwrap_or_else(|panic| Err(format!("the tool panicked: {}", said(&*panic))))
}
