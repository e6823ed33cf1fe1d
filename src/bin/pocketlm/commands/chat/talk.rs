//! The conversation itself: questions are answered, orders are followed.

use std::path::Path;

use indicatif::BinaryBytes;
use pocketlm::{
    Constraint, Draft, Error, FinishReason, GenerateOptions, Kind, Message, Model, Result, Session, Timings,
    ToolCall,
};

use super::super::generate;
use super::Args;
use super::input::Input;
use super::orders::{self, Turn};
use crate::args::{self, ModelArgs};
use crate::failure::{self, ReaderLeft};
use crate::models;
use crate::output;
use crate::terminal::Screen;

/// A conversation and what it is held with.
pub(super) struct Talk<'a> {
    args: &'a Args,
    model: Model,
    session: Session,
    options: GenerateOptions,
    /// How long the last answer took.
    last: Option<Timings>,
}

impl<'a> Talk<'a> {
    pub(super) fn new(
        args: &'a Args,
        model: Model,
        mut session: Session,
        options: GenerateOptions,
    ) -> Result<Self> {
        args.overflow.apply(&mut session)?;
        Ok(Self { args, model, session, options, last: None })
    }

    /// Takes turns until the input ends. Where somebody types, only the end of the input or `/quit` ends it; where nobody does, the
    /// first failure.
    pub(super) fn go_on(&mut self, mut input: Input) -> anyhow::Result<()> {
        let is_terminal = input.is_terminal();
        if is_terminal {
            output::note(&format!("{} listens; /help lists the commands", self.model.info().name));
        }
        while let Some(text) = input.next()? {
            let turn = match Turn::of(&text) {
                Turn::Nothing => Ok(()),
                Turn::Order("/quit", _) => return Ok(()),
                Turn::Order("/retry", _) => self.again().map(|reason| self.after(reason, is_terminal)),
                Turn::Order(word, rest) => self.follow(word, rest),
                Turn::Unknown(word) => {
                    output::note(&format!("{word} is no command; /help lists them"));
                    Ok(())
                }
                Turn::Said(question) => self.answer(question).map(|reason| self.after(reason, is_terminal)),
            };
            match turn {
                Err(error) if failure::kind(&error) == Some(Kind::ContextOverflow) => {
                    output::note(&format!("{error}; /reset begins anew"));
                }
                Err(error) if is_terminal && !error.is::<ReaderLeft>() => output::error(&error.to_string()),
                turn => turn?,
            }
        }
        Ok(())
    }

    /// Streams the answer to `question`, or to the results of calls that it gives line by line, keeps both in the
    /// conversation, and saves it.
    pub(super) fn answer(&mut self, question: &str) -> anyhow::Result<FinishReason> {
        let (session, options, file) = (&mut self.session, &self.options, &self.args.file);
        let stream = match due(session) {
            calls if calls.is_empty() => session.say(question, options)?,
            calls => {
                session.returned(&calls[0], question);
                if calls.len() > 1 {
                    file.save(session)?;
                    return Ok(FinishReason::ToolCalls);
                }
                session.go_on(options)?
            }
        };
        let is_markdown = self.options.constraint.is_none() && !self.args.plain;
        let finish = generate::print(stream, Screen::new(is_markdown))?;
        self.session.answered_with(&finish);
        self.last = Some(finish.timings);
        self.args.file.save(&self.session)?;
        Ok(finish.reason)
    }

    /// What is said behind an answer.
    fn after(&self, reason: FinishReason, is_terminal: bool) {
        if let Some(call) = due(&self.session).first() {
            output::note(&format!("the next line is what {} comes to", call.name));
        }
        if reason == FinishReason::Length {
            output::note("the answer was cut: -n or the context is full");
        }
        if let (true, Some(last)) = (is_terminal, &self.last) {
            output::aside(&format!(
                "{} tokens, {:.1} tok/s, the first after {:.0} ms",
                last.generated_tokens,
                last.decode_rate(),
                last.first_token.as_secs_f64() * 1e3
            ));
        }
    }

    fn follow(&mut self, word: &str, rest: &str) -> anyhow::Result<()> {
        match (word, rest) {
            ("/help", _) => output::line(&orders::help()),
            ("/stats", _) => output::line(&self.stats()),
            ("/reset", _) => {
                self.session.reset();
                self.args.file.save(&self.session)?;
                output::note("the conversation begins anew");
                Ok(())
            }
            ("/system", text) => self.instruct(text),
            ("/json", text) => self.constrain(text),
            ("/model", "") => self.list(),
            ("/model", name) => self.take(name),
            ("/save" | "/load", "") => {
                Err(Error::invalid(format!("{word} wants a file")).hint(format!("{word} FILE")).into())
            }
            ("/save", path) => {
                self.args.file.save_to(Path::new(path), &self.session)?;
                output::note(&format!("saved in {path}; /load {path} goes on with it"));
                Ok(())
            }
            ("/load", path) => {
                let mut session = self.model.restore(path)?;
                self.args.overflow.apply(&mut session)?;
                self.session = session;
                output::note(&format!("going on with {path}: {} messages", self.session.transcript().len()));
                Ok(())
            }
            _ => Err(Error::new(Kind::Internal, format!("{word} is listed and not known")).into()),
        }
    }

    /// Other instructions; what was said stays.
    fn instruct(&mut self, text: &str) -> anyhow::Result<()> {
        let mut messages = self.session.transcript().to_vec();
        let has_instructions = messages.first().is_some_and(|message| is_of(message, "system"));
        if text.is_empty() {
            let shown = messages.first().filter(|_| has_instructions).and_then(content);
            return output::line(shown.as_deref().unwrap_or("there are no instructions"));
        }
        if has_instructions {
            messages.remove(0);
        }
        if text != "off" {
            messages.insert(0, Message::new("system", text));
        }
        self.session.take_up(messages);
        self.args.file.save(&self.session)?;
        output::note(if text == "off" { "no more instructions" } else { "instructed" });
        Ok(())
    }

    /// What answers must be from now on.
    fn constrain(&mut self, text: &str) -> anyhow::Result<()> {
        let (constraint, what) = match text {
            "" => (Some(Constraint::JsonObject), "answers are JSON objects; /json off ends it"),
            "off" => (None, "answers are free"),
            schema => (Some(args::schema(schema)?), "answers are JSON by the schema; /json off ends it"),
        };
        self.options.constraint = constraint;
        output::note(what);
        Ok(())
    }

    /// The models that `/model` can name.
    fn list(&self) -> anyhow::Result<()> {
        output::line(&format!("{} ({})", self.model.info().name, self.model.info().path.display()))?;
        for known in models::known() {
            let place = if models::find(known)?.is_some() { "here" } else { "not here yet" };
            output::line(&format!("  {:24} {:>10}  {place}", known.name, BinaryBytes(known.bytes)))?;
        }
        Ok(())
    }

    /// Goes on with another model. The one of before stays until the other is there, and where that fails.
    fn take(&mut self, name: &str) -> anyhow::Result<()> {
        let choice = ModelArgs { model: Some(name.to_owned()) };
        let mut options = self.args.options(&choice)?;
        options.constraint.clone_from(&self.options.constraint);
        let model = self.args.load(&choice)?;
        match &self.options.draft {
            Some(Draft::Model(_)) => {
                output::note("the draft model is of the model of before, and not used now")
            }
            draft => options.draft.clone_from(draft),
        }
        let mut session = model.session();
        self.args.overflow.apply(&mut session)?;
        session.take_up(self.session.transcript().to_vec());
        (self.session, self.model, self.options, self.last) = (session, model, options, None);
        output::note(&format!("{} goes on", self.model.info().name));
        Ok(())
    }

    /// Has the last question answered again.
    fn again(&mut self) -> anyhow::Result<FinishReason> {
        let messages = self.session.transcript().to_vec();
        let asked = messages.iter().rposition(|message| is_of(message, "user"));
        let Some((at, question)) = asked.and_then(|at| Some((at, content(&messages[at])?))) else {
            return Err(Error::invalid("nothing was asked yet").into());
        };
        self.session.take_up(messages[..at].to_vec());
        let answered = self.answer(&question);
        if answered.is_err() {
            self.session.take_up(messages);
        }
        answered
    }

    fn stats(&self) -> String {
        let Some(last) = &self.last else { return "nothing was said yet".into() };
        let used = last.prompt_tokens + last.generated_tokens;
        let context = self.model.info().context;
        format!("{}; {used} of {context} tokens of the context are used", generate::timings(last))
    }
}

fn is_of(message: &Message, role: &str) -> bool {
    message.0.get("role").is_some_and(|of| of == role)
}

fn content(message: &Message) -> Option<String> {
    message.0.get("content")?.as_str().map(ToOwned::to_owned)
}

/// The calls of the conversation that nothing was returned for yet.
fn due(session: &Session) -> Vec<ToolCall> {
    let messages = session.transcript();
    let results = messages.iter().rev().take_while(|message| is_of(message, "tool")).count();
    let called =
        messages.iter().rev().nth(results).and_then(|message| message.0.get("tool_calls")?.as_array());
    let calls = called.map_or(&[][..], Vec::as_slice).iter().filter_map(ToolCall::from_json);
    calls.skip(results).collect()
}
