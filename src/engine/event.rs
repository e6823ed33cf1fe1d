//! What a session says while it generates, and how to listen and to stop it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::text::ToolCall;

use super::model::Core;
use super::worker::Signal;

/// A piece of news from a session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Tokens of the prompt that have been computed.
    Prefill {
        /// So far.
        done: u32,
        /// In all.
        total: u32,
    },
    /// A token was chosen, and how likely it was; only with [`super::GenerateOptions::log_probabilities`], before the text that it
    /// brings, and not for the token that ends the answer.
    Chosen(Chosen),
    /// Whole characters of the answer; never part of a stop string.
    Text(String),
    /// More of the arguments of a call, as the model writes them; the call itself follows when it is whole.
    ToolArguments {
        /// The call's id.
        id: String,
        /// The tool's name.
        name: String,
        /// More of them.
        text: String,
    },
    /// The model wants a tool called. The answer ends with [`FinishReason::ToolCalls`].
    ToolCall(ToolCall),
    /// The device was lost, and another took its place: the answer goes on with the tokens that it would have had.
    Recovered {
        /// What befell the device.
        why: Error,
        /// Where the answer goes on.
        device: String,
    },
    /// The engine stands still, as [`super::Engine::suspend`] wanted it; the answer waits.
    Suspended,
    /// The answer goes on.
    Resumed,
    /// The last event.
    Finished(Finish),
}

/// How likely a token was by the model itself, whatever sampling and constraint made of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The token.
    pub token: u32,
    /// The natural logarithm of its probability.
    pub log_probability: f64,
    /// The likeliest tokens and theirs, the likeliest first.
    pub likeliest: Vec<(u32, f64)>,
}

/// How an answer ended.
#[derive(Clone, Debug)]
pub struct Finish {
    /// Why.
    pub reason: FinishReason,
    /// All of the answer's text, without the calls of tools.
    pub text: String,
    /// The tools that are to be called.
    pub calls: Vec<ToolCall>,
    /// The prompt's tokens.
    pub prompt_tokens: Vec<u32>,
    /// The answer's tokens, the one that ended it included.
    pub tokens: Vec<u32>,
    /// How long it took.
    pub timings: Timings,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model or a stop string ended it.
    Stop,
    /// The limit of tokens or the context is full.
    Length,
    /// The caller stopped it.
    Cancelled,
    /// The model waits for the results of its calls.
    ToolCalls,
}

impl FinishReason {
    /// `stop`, `length`, `cancelled` or `tool_calls`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
            Self::ToolCalls => "tool_calls",
        }
    }
}

/// How long an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Those of them whose keys and values were still there.
    pub cached_tokens: u32,
    /// Tokens of the answer.
    pub generated_tokens: u32,
    /// Tokens that were guessed by [`super::Draft`].
    pub guessed_tokens: u32,
    /// Those of them that were picked.
    pub accepted_tokens: u32,
    /// From the request to the first token.
    pub first_token: Duration,
    /// From the request to the end.
    pub total: Duration,
}

impl Timings {
    /// Tokens of the prompt computed per second, until the first token.
    pub fn prefill_rate(&self) -> f64 {
        rate(self.prompt_tokens - self.cached_tokens, self.first_token)
    }

    /// Tokens generated per second, after the first.
    pub fn decode_rate(&self) -> f64 {
        rate(self.generated_tokens.saturating_sub(1), self.total.saturating_sub(self.first_token))
    }
}

fn rate(count: u32, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { f64::from(count) / time.as_secs_f64() }
}

/// The events of one answer, in order. Iterating computes, unless a [`super::Worker`] does. Dropping it cancels.
#[derive(Debug)]
pub struct Stream {
    core: Arc<Core>,
    queue: Arc<Queue>,
    ended: bool,
}

impl Stream {
    pub(super) fn new(core: Arc<Core>, queue: Arc<Queue>) -> Self {
        Self { core, queue, ended: false }
    }

    /// A handle that stops this answer from any thread.
    pub fn cancel_handle(&self) -> Cancel {
        Cancel { queue: self.queue.clone(), signal: self.core.signal.clone() }
    }

    /// The next event if it is there already; never computes and never waits.
    pub fn try_next(&mut self) -> Option<Result<Event>> {
        let event = self.queue.pop();
        self.ended |= matches!(event, Some(Ok(Event::Finished(_)) | Err(_)));
        event
    }

    /// Waits for the end and gives it.
    ///
    /// # Errors
    /// What ended the answer, where that is an error.
    pub fn finish(self) -> Result<Finish> {
        for event in self {
            if let Event::Finished(finish) = event? {
                return Ok(finish);
            }
        }
        Err(Error::internal("a stream ended without its last event"))
    }
}

impl Iterator for Stream {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            if let Err(error) = self.core.advance(&self.queue) {
                self.ended = true;
                return Some(Err(error));
            }
        }
        None
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.queue.cancel();
        self.core.signal.raise();
    }
}

/// Stops an answer from any thread: it finishes as [`FinishReason::Cancelled`] with the text so far.
#[derive(Clone, Debug)]
pub struct Cancel {
    queue: Arc<Queue>,
    signal: Arc<Signal>,
}

impl Cancel {
    /// Stops it. Returns at once; safe in a signal handler's thread.
    pub fn cancel(&self) {
        self.queue.cancel();
        // Who rests, because tokens are not to come faster, rests no longer.
        self.signal.raise();
    }
}

/// The events of one answer on their way from the tick to the stream.
#[derive(Debug, Default)]
pub(super) struct Queue {
    events: Mutex<VecDeque<Result<Event>>>,
    arrived: Condvar,
    cancelled: AtomicBool,
}

impl Queue {
    pub(super) fn push(&self, event: Result<Event>) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
        self.arrived.notify_all();
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Waits until an event is there, for at most `patience`.
    pub(super) fn wait(&self, patience: Duration) {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        // Why it woke does not matter: the caller looks again.
        let _woken = self.arrived.wait_timeout_while(events, patience, |events| events.is_empty());
    }

    pub(super) fn pop(&self) -> Option<Result<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}
