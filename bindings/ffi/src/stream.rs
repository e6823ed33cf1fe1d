//! The events of an answer, pulled.

use std::sync::Arc;

use pocketlm::Cancel;

use crate::error::{Result, internal};
use crate::tools::ToolCall;
use crate::wait::{Channel, pump};

/// A piece of news from a session.
#[derive(Clone, Debug, uniffi::Enum)]
pub enum Event {
    /// Tokens of the prompt that have been computed.
    Prefill { done: u32, total: u32 },
    /// Whole characters of the answer.
    Text { text: String },
    /// More of the arguments of a call, as the model writes them; the call itself follows when it is whole.
    ToolArguments { id: String, name: String, text: String },
    /// The model wants a tool called. The answer ends with `ToolCalls`.
    ToolCall { call: ToolCall },
    /// The device was lost, and another took its place: the answer goes on.
    Recovered { why: String, device: String },
    /// The engine stands still; the answer waits.
    Suspended,
    /// The answer goes on.
    Resumed,
    /// The last event.
    Finished { finish: Finish },
}

/// How an answer ended.
#[derive(Clone, Debug, uniffi::Record)]
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
#[derive(Clone, Copy, Debug, uniffi::Enum)]
pub enum FinishReason {
    /// The model or a stop string ended it.
    Stop,
    /// The limit of tokens or the context is full.
    Length,
    /// The caller stopped it.
    Cancelled,
    /// The model waits for the results of its calls.
    ToolCalls,
    /// Something that these bindings have no name for.
    Other,
}

/// How long an answer took.
#[derive(Clone, Copy, Debug, uniffi::Record)]
pub struct Timings {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Those of them whose keys and values were still there.
    pub cached_tokens: u32,
    /// Tokens of the answer.
    pub generated_tokens: u32,
    /// From the request to the first token.
    pub first_token_seconds: f64,
    /// From the request to the end.
    pub total_seconds: f64,
    /// Tokens of the prompt computed per second.
    pub prefill_rate: f64,
    /// Tokens generated per second, after the first.
    pub decode_rate: f64,
    /// Tokens that were guessed, where a draft was wanted.
    pub guessed_tokens: u32,
    /// Those of them that were right.
    pub accepted_tokens: u32,
}

/// The events of one answer, in order. Nobody holding it stops the answer.
#[derive(Debug, uniffi::Object)]
pub struct Stream {
    events: Arc<Channel<Result<Event>>>,
    cancel: Cancel,
}

impl Stream {
    /// Computes an answer in a thread of its own.
    pub(crate) fn start(stream: pocketlm::Stream) -> Result<Arc<Self>> {
        let (events, cancel) = (Channel::new(), stream.cancel_handle());
        let work = move |events: &Channel<Result<Event>>| {
            for event in stream {
                match event.map(told) {
                    Ok(None) => {}
                    Ok(Some(event)) => events.push(Ok(event), join),
                    Err(error) => events.push(Err(error.into()), |_, event| Some(event)),
                }
            }
        };
        pump(events.clone(), work, || Err(internal("a panic while generating; please report it")))?;
        Ok(Arc::new(Self { events, cancel }))
    }
}

#[uniffi::export]
impl Stream {
    /// The next event, awaited; nothing after the last. Text that has gathered meanwhile comes as one event.
    pub async fn next(&self) -> Result<Option<Event>> {
        self.events.next().await.transpose()
    }

    /// The next event, for which the calling thread waits; nothing after the last.
    pub fn wait(&self) -> Result<Option<Event>> {
        self.events.wait().transpose()
    }

    /// Stops the answer from any thread: it ends with the text so far. Returns at once.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Text that follows text nobody has taken yet is one event with it, and so are arguments of one call: a call into another
/// language costs.
fn join(last: &mut Result<Event>, event: Result<Event>) -> Option<Result<Event>> {
    match (last, event) {
        (Ok(Event::Text { text }), Ok(Event::Text { text: more })) => {
            text.push_str(&more);
            None
        }
        (Ok(Event::ToolArguments { id, text, .. }), Ok(Event::ToolArguments { id: of, text: more, .. }))
            if *id == of =>
        {
            text.push_str(&more);
            None
        }
        (_, event) => Some(event),
    }
}

fn told(event: pocketlm::Event) -> Option<Event> {
    Some(match event {
        pocketlm::Event::Prefill { done, total } => Event::Prefill { done, total },
        pocketlm::Event::Text(text) => Event::Text { text },
        pocketlm::Event::ToolArguments { id, name, text } => Event::ToolArguments { id, name, text },
        pocketlm::Event::ToolCall(call) => Event::ToolCall { call: call.into() },
        pocketlm::Event::Recovered { why, device } => Event::Recovered { why: why.to_string(), device },
        pocketlm::Event::Suspended => Event::Suspended,
        pocketlm::Event::Resumed => Event::Resumed,
        pocketlm::Event::Finished(finish) => Event::Finished { finish: finish.into() },
        // Of a newer engine.
        _ => return None,
    })
}

impl From<pocketlm::Finish> for Finish {
    fn from(finish: pocketlm::Finish) -> Self {
        let reason = match finish.reason {
            pocketlm::FinishReason::Stop => FinishReason::Stop,
            pocketlm::FinishReason::Length => FinishReason::Length,
            pocketlm::FinishReason::Cancelled => FinishReason::Cancelled,
            pocketlm::FinishReason::ToolCalls => FinishReason::ToolCalls,
            #[allow(unreachable_patterns, reason = "the engine learns new ones")]
            _ => FinishReason::Other,
        };
        let timings = Timings {
            prompt_tokens: finish.timings.prompt_tokens,
            cached_tokens: finish.timings.cached_tokens,
            generated_tokens: finish.timings.generated_tokens,
            first_token_seconds: finish.timings.first_token.as_secs_f64(),
            total_seconds: finish.timings.total.as_secs_f64(),
            prefill_rate: finish.timings.prefill_rate(),
            decode_rate: finish.timings.decode_rate(),
            guessed_tokens: finish.timings.guessed_tokens,
            accepted_tokens: finish.timings.accepted_tokens,
        };
        let pocketlm::Finish { text, calls, prompt_tokens, tokens, .. } = finish;
        let calls = calls.into_iter().map(ToolCall::from).collect();
        Self { reason, text, calls, prompt_tokens, tokens, timings }
    }
}
