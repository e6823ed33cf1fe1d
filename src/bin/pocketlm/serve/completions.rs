//! `/v1/completions`.

use std::sync::Arc;

use axum::response::Response;
use pocketlm::{Chosen, Event, Finish, Prompt};
use serde_json::{Map, Value, json};

use super::Server;
use super::answering::Answering;
use super::body::{Asked, json_body};
use super::chat::asks;
use super::fields::Fields;
use super::options::{self, MOST_ANSWERS, MOST_LIKELIEST};
use super::refusal::Refusal;
use super::slots::{News, Work};
use super::sse::{self, Script};
use super::usage::{Usage, bytes, finite, id, now, timings};

pub(crate) async fn answer(asked: Asked) -> Result<Response, Refusal> {
    let Asked { server, client, map, .. } = &asked;
    let fields = Fields::new(map);
    server.check_model(fields.text("model")?)?;
    fields.refuse(&[("best_of", &["1"]), ("suffix", &["\"\""])])?;
    let prompts = prompts(&fields)?;
    let mut options = options::read(&fields, server, &["max_tokens", "n_predict"])?;
    options.constraint = options::constraint(&fields)?.or(options.constraint);
    options.log_probabilities = fields.count("logprobs", 0)?;
    if options.log_probabilities.is_some_and(|count| count > MOST_LIKELIEST) {
        return Err(fields.wrong("logprobs", &format!("a whole number, at most {MOST_LIKELIEST}")));
    }
    let count = options::answers(&fields)?;
    if prompts.len() as u64 * count > MOST_ANSWERS.into() {
        return Err(fields.wrong("n", &format!("such that there are no more than {MOST_ANSWERS} answers")));
    }
    let echoes = fields.flag("echo")?.unwrap_or(false);
    if echoes && options.log_probabilities.is_some() {
        return Err(Refusal::unsupported("echo", "`echo` is not supported here together with `logprobs`."));
    }
    let streams = fields.flag("stream")?.unwrap_or(false);
    let told = fields.object("stream_options")?;
    let tells_usage = told.map_or(Ok(None), |told| told.flag("include_usage"))?.unwrap_or(false);
    let (mut all, mut choices) = (Vec::new(), Vec::new());
    for prompt in prompts {
        let tokens = server
            .tokens(prompt, &options)
            .await
            .map_err(|refusal| refusal.instead_of("messages", "prompt"))?;
        let echo = match server.model.tokenizer() {
            Ok(tokenizer) if echoes => tokenizer.decode(&tokens, false),
            _ => String::new(),
        };
        all.extend(asks(&tokens, &options, count));
        choices.extend((0..count).map(|number| Choice {
            is_first: number == 0,
            echo: echo.clone(),
            ..Choice::default()
        }));
    }
    let (server, client) = (server.clone(), *client);
    // What was sent is not needed any more.
    drop(asked);
    let mut answering = Answering::queue(&server, client, Work::Answers(all));
    answering.begun().await?;
    let tells_odds = options.log_probabilities.is_some();
    let completions = Completions {
        server,
        id: id("cmpl-"),
        created: now(),
        choices,
        tells_odds,
        tells_usage,
        usage: Usage::default(),
    };
    if streams { Ok(sse::stream(answering, completions)) } else { completions.whole(answering).await }
}

/// Texts or lists of tokens, one or several.
fn prompts(fields: &Fields<'_>) -> Result<Vec<Prompt>, Refusal> {
    let wrong = || {
        fields.wrong("prompt", &format!("a string, an array of tokens, or at most {MOST_ANSWERS} of them"))
    };
    read_prompts(fields.get("prompt").ok_or_else(wrong)?, MOST_ANSWERS as usize).ok_or_else(wrong)
}

/// A string, an array of tokens, or an array of such.
pub(crate) fn read_prompts(value: &Value, most: usize) -> Option<Vec<Prompt>> {
    let tokens = |list: &[Value]| {
        let token = |token: &Value| u32::try_from(token.as_u64()?).ok();
        list.iter().map(token).collect::<Option<Vec<u32>>>().map(Prompt::Tokens)
    };
    match value {
        Value::String(text) => Some(vec![Prompt::Raw(text.clone())]),
        Value::Array(list) if list.first().is_some_and(Value::is_number) => Some(vec![tokens(list)?]),
        Value::Array(list) if !list.is_empty() && list.len() <= most => {
            let one = |value: &Value| match value {
                Value::String(text) => Some(Prompt::Raw(text.clone())),
                Value::Array(list) => tokens(list),
                _ => None,
            };
            list.iter().map(one).collect()
        }
        _ => None,
    }
}

/// Continuations as they grow.
struct Completions {
    server: Arc<Server>,
    id: String,
    created: u64,
    choices: Vec<Choice>,
    tells_odds: bool,
    tells_usage: bool,
    usage: Usage,
}

#[derive(Default)]
struct Choice {
    /// Whether it is the first of its prompt.
    is_first: bool,
    /// What is told before the answer.
    echo: String,
    has_begun: bool,
    pending: Vec<Chosen>,
    told: Vec<Chosen>,
    /// Characters that the told tokens began behind.
    offset: usize,
    finish: Option<Finish>,
}

impl Completions {
    async fn whole(mut self, mut answering: Answering) -> Result<Response, Refusal> {
        while let Some(news) = answering.next().await {
            match news {
                News::Event(number, event) => self.hear(number, event),
                News::Failed(refusal) => return Err(refusal),
                News::Begun | News::Embedding(_) | News::Done => {}
            }
        }
        let choices: Vec<Value> = (0..self.choices.len())
            .map(|number| {
                let told = std::mem::take(&mut self.choices[number].told);
                let odds = self.tells_odds.then(|| self.odds(number, &told));
                let choice = &self.choices[number];
                let (text, reason) = choice
                    .finish
                    .as_ref()
                    .map_or(("", "stop"), |finish| (&finish.text, finish.reason.name()));
                let text = format!("{}{text}", choice.echo);
                json!({"index": number, "text": text, "logprobs": odds, "finish_reason": reason})
            })
            .collect();
        let mut object = self.object(choices.into());
        object["usage"] = self.usage.to_json();
        object["timings"] = self.timings();
        Ok(json_body(&object))
    }

    fn timings(&self) -> Value {
        self.choices
            .iter()
            .find_map(|choice| choice.finish.as_ref())
            .map(|finish| timings(&finish.timings))
            .into()
    }

    /// Keeps what is not told at once.
    fn hear(&mut self, number: usize, event: Event) {
        let choice = &mut self.choices[number];
        match event {
            Event::Chosen(chosen) if self.tells_odds => choice.pending.push(chosen),
            Event::Text(_) => choice.told.append(&mut choice.pending),
            Event::Finished(finish) => {
                self.usage.add(&finish, choice.is_first);
                choice.finish = Some(finish);
            }
            _ => {}
        }
    }

    /// How likely tokens were, in the manner of old.
    fn odds(&mut self, number: usize, told: &[Chosen]) -> Value {
        let Ok(tokenizer) = self.server.model.tokenizer() else { return Value::Null };
        let text = |token| String::from_utf8_lossy(&bytes(tokenizer, token)).into_owned();
        let (mut tokens, mut logs, mut tops, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for chosen in told {
            let token = text(chosen.token);
            offsets.push(self.choices[number].offset);
            self.choices[number].offset += token.chars().count();
            tokens.push(token);
            logs.push(finite(chosen.log_probability));
            let top = chosen.likeliest.iter().map(|&(token, log)| (text(token), finite(log).into()));
            tops.push(top.collect::<Map<String, Value>>());
        }
        json!({"tokens": tokens, "token_logprobs": logs, "top_logprobs": tops, "text_offset": offsets})
    }

    fn object(&self, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.server.name(),
            "system_fingerprint": concat!("pocketlm-", env!("CARGO_PKG_VERSION")),
            "choices": choices
        })
    }

    fn chunk(&self, out: &mut String, number: usize, text: &str, odds: Option<Value>, finish: Option<&str>) {
        let choice = json!({"index": number, "text": text, "logprobs": odds, "finish_reason": finish});
        let mut object = self.object(json!([choice]));
        if self.tells_usage {
            object["usage"] = Value::Null;
        }
        sse::data(out, &object);
    }

    fn begin(&mut self, out: &mut String, number: usize) {
        let choice = &mut self.choices[number];
        if !std::mem::replace(&mut choice.has_begun, true) && !choice.echo.is_empty() {
            let echo = std::mem::take(&mut choice.echo);
            self.chunk(out, number, &echo, None, None);
        }
    }
}

impl Script for Completions {
    fn tell(&mut self, news: News, out: &mut String) {
        match news {
            News::Begun => self.begin(out, 0),
            News::Event(number, event) => {
                self.begin(out, number);
                let text = if let Event::Text(text) = &event { Some(text.clone()) } else { None };
                let reason =
                    if let Event::Finished(finish) = &event { Some(finish.reason.name()) } else { None };
                self.hear(number, event);
                if let Some(text) = text {
                    let told = std::mem::take(&mut self.choices[number].told);
                    let odds = (self.tells_odds && !told.is_empty()).then(|| self.odds(number, &told));
                    self.chunk(out, number, &text, odds, None);
                }
                if reason.is_some() {
                    self.chunk(out, number, "", None, reason);
                }
            }
            News::Embedding(_) => {}
            News::Failed(refusal) => sse::data(out, &refusal.to_json()),
            News::Done => {
                if self.tells_usage {
                    let mut object = self.object(json!([]));
                    object["usage"] = self.usage.to_json();
                    object["timings"] = self.timings();
                    sse::data(out, &object);
                }
                sse::done(out);
            }
        }
    }
}
