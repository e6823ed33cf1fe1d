//! `/v1/chat/completions`.

use std::sync::Arc;

use axum::response::Response;
use pocketlm::{Event, Finish, GenerateOptions, Prompt, ToolCall};
use serde_json::{Value, json};

use super::answering::Answering;
use super::body::{Asked, json_body};
use super::fields::Fields;
use super::options::{self, MOST_LIKELIEST};
use super::refusal::Refusal;
use super::slots::{Ask, News, Work};
use super::sse::{self, Script};
use super::usage::{Usage, id, log_probability, now, timings};
use super::{Server, messages};

pub(crate) async fn answer(asked: Asked) -> Result<Response, Refusal> {
    let Asked { server, client, map, .. } = &asked;
    let fields = Fields::new(map);
    server.check_model(fields.text("model")?)?;
    fields.refuse(&[
        ("audio", &[]),
        ("function_call", &["\"none\"", "\"auto\""]),
        ("functions", &["[]"]),
        ("modalities", &["[\"text\"]", "[]"]),
        ("web_search_options", &[]),
    ])?;
    let said = messages::read(
        fields.list("messages")?.ok_or_else(|| fields.wrong("messages", "there"))?,
        "messages",
    )?;
    let mut options = options::read(&fields, server, &["max_completion_tokens", "max_tokens", "n_predict"])?;
    options.constraint = options::constraint(&fields)?.or(options.constraint);
    options::tools(&fields, &mut options)?;
    options.log_probabilities = log_probabilities(&fields)?;
    let count = options::answers(&fields)?;
    let streams = fields.flag("stream")?.unwrap_or(false);
    let told = fields.object("stream_options")?;
    let tells_usage = told.map_or(Ok(None), |told| told.flag("include_usage"))?.unwrap_or(false);
    let one_call = !fields.flag("parallel_tool_calls")?.unwrap_or(true);
    let tokens = server.tokens(Prompt::Chat(said), &options).await?;
    let asks = asks(&tokens, &options, count);
    let (server, client) = (server.clone(), *client);
    // What was sent is not needed any more.
    drop(asked);
    let mut answering = Answering::queue(&server, client, Work::Answers(asks));
    answering.begun().await?;
    let chat = Chat::new(&server, options, count as usize, one_call, tells_usage);
    if streams { Ok(sse::stream(answering, chat)) } else { chat.whole(answering).await }
}

/// Several answers to a prompt, which differ in what is drawn.
pub(crate) fn asks(tokens: &[u32], options: &GenerateOptions, count: u64) -> Vec<Ask> {
    (0..count).map(|number| Ask { tokens: tokens.to_vec(), options: options::nth(options, number) }).collect()
}

fn log_probabilities(fields: &Fields<'_>) -> Result<Option<u32>, Refusal> {
    let top = fields.count("top_logprobs", 0)?;
    match (fields.flag("logprobs")?.unwrap_or(false), top) {
        (_, Some(count)) if count > MOST_LIKELIEST => {
            Err(fields.wrong("top_logprobs", &format!("a whole number, at most {MOST_LIKELIEST}")))
        }
        (false, Some(1..)) => Err(fields.wrong("logprobs", "true where `top_logprobs` is given")),
        (is_wanted, top) => Ok(is_wanted.then_some(top.unwrap_or(0))),
    }
}

/// The answers to a chat as they grow.
struct Chat {
    server: Arc<Server>,
    id: String,
    created: u64,
    choices: Vec<Choice>,
    /// Tells how likely tokens were.
    tells_odds: bool,
    one_call: bool,
    tells_usage: bool,
    usage: Usage,
}

#[derive(Default)]
struct Choice {
    has_begun: bool,
    /// How likely the tokens were of text that is not told yet, and of text that is.
    pending: Vec<Value>,
    told: Vec<Value>,
    /// Ids of calls, and whether arguments of theirs were told.
    calls: Vec<(String, bool)>,
    finish: Option<Finish>,
}

impl Chat {
    fn new(
        server: &Arc<Server>,
        options: GenerateOptions,
        count: usize,
        one_call: bool,
        tells_usage: bool,
    ) -> Self {
        Self {
            server: server.clone(),
            id: id("chatcmpl-"),
            created: now(),
            choices: std::iter::repeat_with(Choice::default).take(count).collect(),
            tells_odds: options.log_probabilities.is_some(),
            one_call,
            tells_usage,
            usage: Usage::default(),
        }
    }

    async fn whole(mut self, mut answering: Answering) -> Result<Response, Refusal> {
        while let Some(news) = answering.next().await {
            match news {
                News::Event(number, Event::Text(_)) => {
                    let choice = &mut self.choices[number];
                    choice.told.append(&mut choice.pending);
                }
                News::Event(number, event) => self.hear(number, &event),
                News::Failed(refusal) => return Err(refusal),
                News::Begun | News::Embedding(_) | News::Done => {}
            }
        }
        let usage = self.usage;
        let lasts = self.lasts();
        let choices: Vec<Value> = self
            .choices
            .drain(..)
            .enumerate()
            .map(|(number, choice)| choice.whole(number, self.tells_odds))
            .collect();
        let mut object = self.object("chat.completion", choices.into());
        object["usage"] = usage.to_json();
        object["timings"] = lasts.into();
        Ok(json_body(&object))
    }

    /// How long the first answer that has ended took.
    fn lasts(&self) -> Option<Value> {
        let ended = self.choices.iter().find_map(|choice| choice.finish.as_ref());
        ended.map(|finish| timings(&finish.timings))
    }

    /// Keeps what is not told at once.
    fn hear(&mut self, number: usize, event: &Event) {
        let choice = &mut self.choices[number];
        match event {
            Event::Chosen(chosen) if self.tells_odds => {
                if let Ok(tokenizer) = self.server.model.tokenizer() {
                    choice.pending.push(log_probability(chosen, tokenizer));
                }
            }
            Event::ToolArguments { .. } | Event::ToolCall(_) => choice.pending.clear(),
            Event::Finished(finish) => {
                self.usage.add(finish, number == 0);
                let mut finish = finish.clone();
                if self.one_call {
                    finish.calls.truncate(1);
                }
                choice.finish = Some(finish);
            }
            _ => {}
        }
    }

    fn object(&self, kind: &str, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.server.name(),
            "system_fingerprint": concat!("pocketlm-", env!("CARGO_PKG_VERSION")),
            "choices": choices
        })
    }

    fn chunk(
        &self,
        out: &mut String,
        number: usize,
        delta: &Value,
        odds: Option<Vec<Value>>,
        finish: Option<&str>,
    ) {
        let odds = odds.filter(|odds| !odds.is_empty()).map(|odds| json!({"content": odds, "refusal": null}));
        let choice = json!({"index": number, "delta": delta, "logprobs": odds, "finish_reason": finish});
        let mut object = self.object("chat.completion.chunk", json!([choice]));
        if self.tells_usage {
            object["usage"] = Value::Null;
        }
        sse::data(out, &object);
    }

    fn begin(&mut self, out: &mut String, number: usize) {
        if !std::mem::replace(&mut self.choices[number].has_begun, true) {
            self.chunk(out, number, &json!({"role": "assistant", "content": ""}), None, None);
        }
    }

    /// The number of a call, which is told when it is new; `None` where it is one too many.
    fn call(&mut self, out: &mut String, number: usize, id: &str, name: &str) -> Option<usize> {
        let calls = &mut self.choices[number].calls;
        if let Some(at) = calls.iter().position(|(known, _)| known == id) {
            return Some(at);
        }
        let at = calls.len();
        if self.one_call && at > 0 {
            return None;
        }
        calls.push((id.to_owned(), false));
        let call =
            json!({"index": at, "id": id, "type": "function", "function": {"name": name, "arguments": ""}});
        self.chunk(out, number, &json!({"tool_calls": [call]}), None, None);
        Some(at)
    }

    fn arguments(&mut self, out: &mut String, number: usize, at: usize, text: &str) {
        self.choices[number].calls[at].1 = true;
        self.chunk(
            out,
            number,
            &json!({"tool_calls": [{"index": at, "function": {"arguments": text}}]}),
            None,
            None,
        );
    }

    fn event(&mut self, out: &mut String, number: usize, event: Event) {
        self.begin(out, number);
        self.hear(number, &event);
        match event {
            Event::Text(text) => {
                let odds = std::mem::take(&mut self.choices[number].pending);
                self.chunk(out, number, &json!({"content": text}), Some(odds), None);
            }
            Event::ToolArguments { id, name, text } => {
                if let Some(at) = self.call(out, number, &id, &name) {
                    self.arguments(out, number, at, &text);
                }
            }
            Event::ToolCall(ToolCall { id, name, arguments }) => {
                // In some manners a call is read when it is whole.
                if let Some(at) = self.call(out, number, &id, &name)
                    && !self.choices[number].calls[at].1
                {
                    self.arguments(out, number, at, &Value::Object(arguments).to_string());
                }
            }
            Event::Finished(finish) => self.chunk(out, number, &json!({}), None, Some(finish.reason.name())),
            _ => {}
        }
    }
}

impl Script for Chat {
    fn tell(&mut self, news: News, out: &mut String) {
        match news {
            News::Begun => self.begin(out, 0),
            News::Event(number, event) => self.event(out, number, event),
            News::Embedding(_) => {}
            News::Failed(refusal) => sse::data(out, &refusal.to_json()),
            News::Done => {
                if self.tells_usage {
                    let mut object = self.object("chat.completion.chunk", json!([]));
                    object["usage"] = self.usage.to_json();
                    object["timings"] = self.lasts().into();
                    sse::data(out, &object);
                }
                sse::done(out);
            }
        }
    }
}

impl Choice {
    fn whole(self, number: usize, tells_odds: bool) -> Value {
        let Self { told, finish, .. } = self;
        let (text, calls, reason) = finish.map_or((String::new(), Vec::new(), "stop"), |finish| {
            (finish.text, finish.calls, finish.reason.name())
        });
        let mut message = json!({"role": "assistant", "content": text, "refusal": null});
        if !calls.is_empty() {
            message["content"] = if text.is_empty() { Value::Null } else { text.into() };
            message["tool_calls"] = calls.iter().map(call).collect();
        }
        let odds = tells_odds.then(|| json!({"content": told, "refusal": null}));
        json!({"index": number, "message": message, "logprobs": odds, "finish_reason": reason})
    }
}

/// A call as clients are told of it: its arguments are a text.
fn call(call: &ToolCall) -> Value {
    let arguments = Value::Object(call.arguments.clone()).to_string();
    json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
}
