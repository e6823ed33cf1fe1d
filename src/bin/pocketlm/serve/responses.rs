//! `/v1/responses`. Nothing is stored: who goes on with a conversation sends all of it.

use std::sync::Arc;

use axum::response::Response;
use pocketlm::{Event, Finish, FinishReason, Prompt, ToolCall};
use serde_json::{Map, Value, json};

use super::answering::Answering;
use super::body::{Asked, json_body};
use super::chat::asks;
use super::fields::Fields;
use super::options::{self, MOST_LIKELIEST};
use super::refusal::Refusal;
use super::slots::{News, Work};
use super::sse::{self, Script};
use super::usage::{Usage, id, log_probability, now};
use super::{Server, messages};

/// What `include` may ask for and get.
const ODDS: &str = "message.output_text.logprobs";

pub(crate) async fn answer(asked: Asked) -> Result<Response, Refusal> {
    let Asked { server, client, map, .. } = &asked;
    let fields = Fields::new(map);
    server.check_model(fields.text("model")?)?;
    fields.refuse(&[
        ("background", &["false"]),
        ("conversation", &[]),
        ("max_tool_calls", &[]),
        ("previous_response_id", &[]),
        ("prompt", &[]),
        ("truncation", &["\"disabled\""]),
    ])?;
    let said = messages::read(&conversation(&fields)?, "input")?;
    let mut options = options::read(&fields, server, &["max_output_tokens"])?;
    let format = fields.object("text")?.map_or(Ok(None), |text| text.object("format"))?;
    let constraint = format.as_ref().map_or(Ok(None), |form| options::format(form, false))?;
    options.constraint = constraint.or(options::constraint(&fields)?).or(options.constraint);
    options::tools(&fields, &mut options)?;
    let is_included = fields.list("include")?.unwrap_or_default().iter().any(|wish| wish == ODDS);
    let top = fields.count("top_logprobs", 0)?;
    if top.is_some_and(|count| count > MOST_LIKELIEST) {
        return Err(fields.wrong("top_logprobs", &format!("a whole number, at most {MOST_LIKELIEST}")));
    }
    options.log_probabilities = top.or(is_included.then_some(0));
    let streams = fields.flag("stream")?.unwrap_or(false);
    let one_call = !fields.flag("parallel_tool_calls")?.unwrap_or(true);
    let echo = |name: &str, otherwise: Value| {
        map.get(name).filter(|value| !value.is_null()).cloned().unwrap_or(otherwise)
    };
    let format =
        map.get("text").and_then(|text| text.get("format")).cloned().unwrap_or(json!({"type": "text"}));
    let frame = json!({
        "id": id("resp_"),
        "object": "response",
        "created_at": now(),
        "status": "in_progress",
        "error": null,
        "incomplete_details": null,
        "instructions": echo("instructions", Value::Null),
        "max_output_tokens": echo("max_output_tokens", Value::Null),
        "metadata": echo("metadata", json!({})),
        "model": server.name(),
        "output": [],
        "parallel_tool_calls": !one_call,
        "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null},
        "store": false,
        "temperature": options.sampling.temperature,
        "text": {"format": format},
        "tool_choice": echo("tool_choice", json!("auto")),
        "tools": echo("tools", json!([])),
        "top_logprobs": options.log_probabilities.unwrap_or(0),
        "top_p": options.sampling.top_p,
        "truncation": "disabled",
        "usage": null,
        "user": echo("user", Value::Null)
    });
    let tokens = server
        .tokens(Prompt::Chat(said), &options)
        .await
        .map_err(|refusal| refusal.instead_of("messages", "input"))?;
    let (server, client) = (server.clone(), *client);
    // What was sent is not needed any more.
    drop(asked);
    let mut answering = Answering::queue(&server, client, Work::Answers(asks(&tokens, &options, 1)));
    answering.begun().await?;
    let mut responding = Responding {
        server,
        frame,
        output: Vec::new(),
        open: None,
        pending: Vec::new(),
        one_call,
        number: 0,
    };
    if streams {
        return Ok(sse::stream(answering, responding));
    }
    let mut unheard = String::new();
    while let Some(news) = answering.next().await {
        match news {
            News::Failed(refusal) => return Err(refusal),
            news => responding.tell(news, &mut unheard),
        }
        unheard.clear();
    }
    Ok(json_body(&responding.frame))
}

/// Instructions and input as messages of a chat.
fn conversation(fields: &Fields<'_>) -> Result<Vec<Value>, Refusal> {
    let mut said = Vec::new();
    if let Some(instructions) = fields.text("instructions")? {
        said.push(json!({"role": "system", "content": instructions}));
    }
    let list = match fields.get("input") {
        Some(Value::String(text)) => {
            said.push(json!({"role": "user", "content": text}));
            return Ok(said);
        }
        Some(Value::Array(list)) => list,
        _ => return Err(fields.wrong("input", "a string or an array")),
    };
    for (at, item) in list.iter().enumerate() {
        let field = |name: &str| item.get(name).cloned().unwrap_or_default();
        match item.get("type").and_then(Value::as_str) {
            None | Some("message") => said.push(item.clone()),
            Some("function_call") => {
                let function = json!({"name": field("name"), "arguments": field("arguments")});
                let call = json!({"id": field("call_id"), "type": "function", "function": function});
                // Calls of one answer stand in one message.
                match said.last_mut().and_then(|last: &mut Value| last.get_mut("tool_calls")?.as_array_mut())
                {
                    Some(calls) => calls.push(call),
                    None => said.push(json!({"role": "assistant", "content": null, "tool_calls": [call]})),
                }
            }
            Some("function_call_output") => {
                said.push(
                    json!({"role": "tool", "tool_call_id": field("call_id"), "content": field("output")}),
                );
            }
            // What another model thought is nothing to this one.
            Some("reasoning") => {}
            Some(kind) => {
                let param = format!("input[{at}]");
                return Err(Refusal::unsupported(
                    &param,
                    format!("Items of the type {kind:?} are not supported here."),
                ));
            }
        }
    }
    Ok(said)
}

/// A response as it grows.
struct Responding {
    server: Arc<Server>,
    /// The response, without its output while that grows.
    frame: Value,
    output: Vec<Value>,
    open: Option<Item>,
    /// How likely the tokens were of text that is not told yet.
    pending: Vec<Value>,
    one_call: bool,
    /// Of the next event.
    number: u64,
}

/// What is written to now.
enum Item {
    Message { id: String, text: String, odds: Vec<Value> },
    Call { id: String, call: String, name: String, arguments: String },
}

impl Item {
    fn to_json(&self, status: &str) -> Value {
        match self {
            Self::Message { id, text, odds } => {
                let content = if status == "in_progress" { json!([]) } else { json!([part(text, odds)]) };
                json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content})
            }
            Self::Call { id, call, name, arguments } => json!({
                "id": id, "type": "function_call", "status": status, "call_id": call, "name": name, "arguments": arguments
            }),
        }
    }

    fn id(&self) -> &str {
        match self {
            Self::Message { id, .. } | Self::Call { id, .. } => id,
        }
    }
}

fn part(text: &str, odds: &[Value]) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": odds})
}

impl Responding {
    fn say(&mut self, out: &mut String, kind: &str, mut fields: Value) {
        let mut event =
            Map::from_iter([("type".into(), kind.into()), ("sequence_number".into(), self.number.into())]);
        event.append(fields.as_object_mut().unwrap_or(&mut Map::new()));
        self.number += 1;
        sse::event(out, kind, &event.into());
    }

    /// Says something of the item that is open.
    fn say_of(&mut self, out: &mut String, kind: &str, mut fields: Value) {
        let Some(item) = &self.open else { return };
        fields["item_id"] = item.id().into();
        fields["output_index"] = self.output.len().into();
        if matches!(item, Item::Message { .. }) {
            fields["content_index"] = 0.into();
        }
        self.say(out, kind, fields);
    }

    fn open(&mut self, out: &mut String, item: Item) {
        self.close(out);
        let is_message = matches!(item, Item::Message { .. });
        let added = json!({"output_index": self.output.len(), "item": item.to_json("in_progress")});
        self.open = Some(item);
        self.say(out, "response.output_item.added", added);
        if is_message {
            self.say_of(out, "response.content_part.added", json!({"part": part("", &[])}));
        }
    }

    fn close(&mut self, out: &mut String) {
        match &self.open {
            None => return,
            Some(Item::Message { text, odds, .. }) => {
                let (text, odds) = (text.clone(), odds.clone());
                self.say_of(out, "response.output_text.done", json!({"text": text, "logprobs": odds}));
                self.say_of(out, "response.content_part.done", json!({"part": part(&text, &odds)}));
            }
            Some(Item::Call { arguments, name, .. }) => {
                let told = json!({"name": name, "arguments": arguments});
                self.say_of(out, "response.function_call_arguments.done", told);
            }
        }
        let Some(item) = self.open.take() else { return };
        let item = item.to_json("completed");
        self.say(out, "response.output_item.done", json!({"output_index": self.output.len(), "item": item}));
        self.output.push(item);
    }

    fn text(&mut self, out: &mut String, more: &str) {
        if !matches!(self.open, Some(Item::Message { .. })) {
            self.open(out, Item::Message { id: id("msg_"), text: String::new(), odds: Vec::new() });
        }
        let new = std::mem::take(&mut self.pending);
        if let Some(Item::Message { text, odds, .. }) = &mut self.open {
            text.push_str(more);
            odds.extend(new.iter().cloned());
        }
        self.say_of(out, "response.output_text.delta", json!({"delta": more, "logprobs": new}));
    }

    /// Whether the call is the open one, from here on at the latest.
    fn call(&mut self, out: &mut String, of: &str, tool: &str) -> bool {
        self.pending.clear();
        if matches!(&self.open, Some(Item::Call { call, .. }) if call == of) {
            return true;
        }
        let is_call = |item: &Value| item["type"] == "function_call";
        let is_open = matches!(self.open, Some(Item::Call { .. }));
        if self.one_call && (is_open || self.output.iter().any(is_call)) {
            return false;
        }
        let (call, name, arguments) = (of.to_owned(), tool.to_owned(), String::new());
        self.open(out, Item::Call { id: id("fc_"), call, name, arguments });
        true
    }

    fn arguments(&mut self, out: &mut String, more: &str) {
        if let Some(Item::Call { arguments, .. }) = &mut self.open {
            arguments.push_str(more);
        }
        self.say_of(out, "response.function_call_arguments.delta", json!({"delta": more}));
    }

    fn event(&mut self, out: &mut String, event: Event) {
        match event {
            Event::Chosen(chosen) => {
                if let Ok(tokenizer) = self.server.model.tokenizer() {
                    self.pending.push(log_probability(&chosen, tokenizer));
                }
            }
            Event::Text(text) => self.text(out, &text),
            Event::ToolArguments { id, name, text } if self.call(out, &id, &name) => {
                self.arguments(out, &text)
            }
            Event::ToolCall(ToolCall { id, name, arguments }) => {
                let is_told = self.output.iter().any(|item| item["call_id"] == id.as_str());
                if !is_told && self.call(out, &id, &name) {
                    // In some manners a call is read when it is whole.
                    if matches!(&self.open, Some(Item::Call { arguments, .. }) if arguments.is_empty()) {
                        self.arguments(out, &Value::Object(arguments).to_string());
                    }
                    self.close(out);
                }
            }
            Event::Finished(finish) => self.finish(out, &finish),
            _ => {}
        }
    }

    fn finish(&mut self, out: &mut String, finish: &Finish) {
        if self.output.is_empty() && self.open.is_none() {
            // An answer of nothing is a message all the same.
            self.open(out, Item::Message { id: id("msg_"), text: String::new(), odds: Vec::new() });
        }
        self.close(out);
        let mut usage = Usage::default();
        usage.add(finish, true);
        self.frame["usage"] = json!({
            "input_tokens": usage.prompt,
            "input_tokens_details": {"cached_tokens": usage.cached},
            "output_tokens": usage.answer,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.prompt + usage.answer
        });
        self.frame["output"] = std::mem::take(&mut self.output).into();
        let is_cut = finish.reason == FinishReason::Length;
        self.frame["status"] = if is_cut { "incomplete" } else { "completed" }.into();
        if is_cut {
            self.frame["incomplete_details"] = json!({"reason": "max_output_tokens"});
        }
        let kind = if is_cut { "response.incomplete" } else { "response.completed" };
        self.say(out, kind, json!({"response": self.frame}));
    }
}

impl Script for Responding {
    fn tell(&mut self, news: News, out: &mut String) {
        match news {
            News::Begun => {
                for kind in ["response.created", "response.in_progress"] {
                    self.say(out, kind, json!({"response": self.frame}));
                }
            }
            News::Event(_, event) => self.event(out, event),
            News::Failed(refusal) => {
                self.frame["status"] = "failed".into();
                self.frame["error"] = json!({"code": "server_error", "message": refusal.message});
                self.frame["output"] = std::mem::take(&mut self.output).into();
                self.say(out, "response.failed", json!({"response": self.frame}));
            }
            News::Embedding(_) | News::Done => {}
        }
    }
}
