//! The events of an answer: pulled one by one, or handed to a callback.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use pocketlm::{Cancel, Event, Finish, FinishReason, Stream, ToolCall};

use crate::engine::EngineObject;
use crate::handles;
use crate::input::{self, Versioned};
use crate::prompt::plm_text;
use crate::status::{Outcome, Refusal, door, plm_status};
use crate::tools::{arguments, plm_tool_call};

/// The events of one answer, in order.
pub enum plm_stream {}

/// What an event is. Newer libraries may have more: leave them aside.
#[repr(u32)]
pub enum plm_event_kind {
    /// So many tokens of the prompt are `done`, of a `total`.
    PLM_EVENT_PREFILL = 0,
    /// `text`: whole characters of the answer.
    PLM_EVENT_TEXT = 1,
    /// The device was lost, and another took its place; `text` says why. The answer goes on.
    PLM_EVENT_RECOVERED = 2,
    /// The engine stands still; the answer waits.
    PLM_EVENT_SUSPENDED = 3,
    /// The answer goes on.
    PLM_EVENT_RESUMED = 4,
    /// The last event; `finish` says how it ended.
    PLM_EVENT_FINISHED = 5,
    /// Something that this interface has no number for.
    PLM_EVENT_OTHER = 6,
    /// `text`: more of the arguments of `call`, as the model writes them. The call itself follows when it is whole.
    PLM_EVENT_TOOL_ARGUMENTS = 7,
    /// The model wants `call` called; the answer ends with `PLM_FINISH_TOOL_CALLS`.
    PLM_EVENT_TOOL_CALL = 8,
}

/// Why an answer ended.
#[repr(u32)]
pub enum plm_finish_reason {
    /// The model or a stop string ended it.
    PLM_FINISH_STOP = 0,
    /// The limit of tokens or the context is full.
    PLM_FINISH_LENGTH = 1,
    /// The caller stopped it.
    PLM_FINISH_CANCELLED = 2,
    /// Something that this interface has no number for.
    PLM_FINISH_OTHER = 3,
    /// The model waits for the results of its calls.
    PLM_FINISH_TOOL_CALLS = 4,
}

/// How an answer ended.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plm_finish {
    /// How many bytes of this struct the library has written.
    pub struct_size: usize,
    /// A `plm_finish_reason`.
    pub reason: u32,
    /// Tokens of the prompt whose keys and values were still there.
    pub cached_tokens: u32,
    /// All of the answer's text, without the calls of tools.
    pub text: plm_text,
    /// The prompt's tokens.
    pub prompt_tokens: *const u32,
    /// How many.
    pub prompt_token_count: usize,
    /// The answer's tokens, the one that ended it included.
    pub tokens: *const u32,
    /// How many.
    pub token_count: usize,
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
    /// The tools that are to be called.
    pub calls: *const plm_tool_call,
    /// How many.
    pub call_count: usize,
}

/// A piece of news from a session. What it points to is valid until the stream is freed; of `plm_session_run`, until the
/// callback returns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plm_event {
    /// `sizeof(plm_event)`.
    pub struct_size: usize,
    /// A `plm_event_kind`.
    pub kind: u32,
    /// See `PLM_EVENT_PREFILL`.
    pub done: u32,
    /// See `PLM_EVENT_PREFILL`.
    pub total: u32,
    /// See `PLM_EVENT_TEXT`.
    pub text: plm_text,
    /// See `PLM_EVENT_FINISHED`; null in other events.
    pub finish: *const plm_finish,
    /// See `PLM_EVENT_TOOL_CALL` and `PLM_EVENT_TOOL_ARGUMENTS`, whose call has no `arguments`; null in other events.
    pub call: *const plm_tool_call,
}

/// Hears of each event. Returns 0 to stop the answer. It must neither throw nor jump out.
pub type plm_event_callback =
    Option<unsafe extern "C-unwind" fn(event: *const plm_event, user: *mut c_void) -> i32>;

pub(crate) struct StreamObject {
    stream: Mutex<Stream>,
    cancel: Cancel,
    kept: Mutex<Kept>,
    /// The last event, or an error in its place, has been handed out.
    ended: AtomicBool,
    _engine: Arc<EngineObject>,
}

/// What events point to: all of an answer, until its stream is freed, so that no call takes a text away from another.
#[derive(Default)]
struct Kept {
    texts: Vec<Box<str>>,
    calls: Vec<Box<[plm_tool_call]>>,
    finish: Option<Box<(Finish, plm_finish)>>,
}

// SAFETY: the pointers in `plm_finish` are into the `Finish` beside it, which is not changed any more, and those in it and in
// calls to texts and calls that are kept as long.
unsafe impl Send for Kept {}

/// Waits for the next event; computes it where no worker does. `PLM_END` after the last one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_stream_next(stream: *mut plm_stream, event: *mut plm_event) -> plm_status {
    // SAFETY: as the caller promised.
    door(|| unsafe { pull(stream, event, Stream::next, plm_status::PLM_END) })
}

/// The next event where it is there already, `PLM_PENDING` where it is not; never computes and never waits. `PLM_END` after
/// the last one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_stream_poll(stream: *mut plm_stream, event: *mut plm_event) -> plm_status {
    // SAFETY: as the caller promised.
    door(|| unsafe { pull(stream, event, Stream::try_next, plm_status::PLM_PENDING) })
}

/// Stops an answer from any thread: it ends with the text so far. Returns at once.
#[unsafe(no_mangle)]
pub extern "C" fn plm_stream_cancel(stream: *mut plm_stream) -> plm_status {
    door(|| {
        handles::get::<StreamObject, _>(stream)?.cancel.cancel();
        Ok(plm_status::PLM_OK)
    })
}

/// Frees a stream, its events and their texts. An answer under way is stopped; a call that waits for it in another thread
/// returns `PLM_INVALID_HANDLE`.
#[unsafe(no_mangle)]
pub extern "C" fn plm_stream_free(stream: *mut plm_stream) -> plm_status {
    door(|| {
        handles::take::<StreamObject, _>(stream)?.cancel.cancel();
        Ok(plm_status::PLM_OK)
    })
}

/// `plm_event` as `plm_stream_next` takes it.
#[unsafe(no_mangle)]
pub extern "C" fn plm_event_default() -> plm_event {
    plm_event::usual()
}

impl StreamObject {
    pub(crate) fn new(stream: Stream, engine: Arc<EngineObject>) -> Self {
        let (cancel, kept) = (stream.cancel_handle(), Mutex::default());
        Self { stream: Mutex::new(stream), cancel, kept, ended: AtomicBool::new(false), _engine: engine }
    }

    /// The stream, unless another thread waits for its next event.
    fn lock(&self) -> Outcome<MutexGuard<'_, Stream>> {
        match self.stream.try_lock() {
            Ok(stream) => Ok(stream),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                let message = "another thread waits for this stream's next event";
                Err(Refusal::new(plm_status::PLM_SESSION_BUSY, message, "pull a stream from one thread"))
            }
        }
    }

    /// `event` as C has it; what it points to is kept.
    fn told(&self, event: Event) -> plm_event {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let usual = plm_event::usual();
        let of = |kind: plm_event_kind| plm_event { kind: kind as u32, ..usual };
        match event {
            Event::Prefill { done, total } => {
                plm_event { done, total, ..of(plm_event_kind::PLM_EVENT_PREFILL) }
            }
            Event::Text(text) => plm_event { text: kept.text(text), ..of(plm_event_kind::PLM_EVENT_TEXT) },
            Event::Recovered { why, device } => {
                let text = kept.text(format!("{why}; it goes on on {device}"));
                plm_event { text, ..of(plm_event_kind::PLM_EVENT_RECOVERED) }
            }
            Event::ToolArguments { id, name, text } => {
                let (id, name, text) = (kept.text(id), kept.text(name), kept.text(text));
                let call = kept.calls(vec![plm_tool_call { id, name, arguments: plm_text::of("") }]);
                plm_event { text, call, ..of(plm_event_kind::PLM_EVENT_TOOL_ARGUMENTS) }
            }
            Event::ToolCall(call) => {
                let call = kept.call(&call);
                plm_event { call: kept.calls(vec![call]), ..of(plm_event_kind::PLM_EVENT_TOOL_CALL) }
            }
            Event::Suspended => of(plm_event_kind::PLM_EVENT_SUSPENDED),
            Event::Resumed => of(plm_event_kind::PLM_EVENT_RESUMED),
            Event::Finished(finish) => {
                let finish = kept.finish(finish);
                plm_event { finish, ..of(plm_event_kind::PLM_EVENT_FINISHED) }
            }
            _ => of(plm_event_kind::PLM_EVENT_OTHER),
        }
    }
}

impl Kept {
    fn text(&mut self, text: String) -> plm_text {
        let text = text.into_boxed_str();
        let told = plm_text::of(&text);
        self.texts.push(text);
        told
    }

    fn call(&mut self, call: &ToolCall) -> plm_tool_call {
        let arguments = self.text(arguments(call));
        plm_tool_call { id: self.text(call.id.clone()), name: self.text(call.name.clone()), arguments }
    }

    fn calls(&mut self, calls: Vec<plm_tool_call>) -> *const plm_tool_call {
        self.calls.push(calls.into_boxed_slice());
        self.calls.last().map_or(std::ptr::null(), |calls| calls.as_ptr())
    }

    fn finish(&mut self, finish: Finish) -> *const plm_finish {
        let calls = finish.calls.iter().map(|call| self.call(call)).collect();
        let timings = finish.timings;
        let reason = match finish.reason {
            FinishReason::Stop => plm_finish_reason::PLM_FINISH_STOP,
            FinishReason::Length => plm_finish_reason::PLM_FINISH_LENGTH,
            FinishReason::Cancelled => plm_finish_reason::PLM_FINISH_CANCELLED,
            FinishReason::ToolCalls => plm_finish_reason::PLM_FINISH_TOOL_CALLS,
            #[allow(unreachable_patterns, reason = "the engine learns new ones")]
            _ => plm_finish_reason::PLM_FINISH_OTHER,
        };
        let told = plm_finish {
            struct_size: size_of::<plm_finish>(),
            reason: reason as u32,
            cached_tokens: timings.cached_tokens,
            text: plm_text::of(&finish.text),
            prompt_tokens: finish.prompt_tokens.as_ptr(),
            prompt_token_count: finish.prompt_tokens.len(),
            tokens: finish.tokens.as_ptr(),
            token_count: finish.tokens.len(),
            first_token_seconds: timings.first_token.as_secs_f64(),
            total_seconds: timings.total.as_secs_f64(),
            prefill_rate: timings.prefill_rate(),
            decode_rate: timings.decode_rate(),
            guessed_tokens: timings.guessed_tokens,
            accepted_tokens: timings.accepted_tokens,
            calls: self.calls(calls),
            call_count: finish.calls.len(),
        };
        &raw const self.finish.insert(Box::new((finish, told))).1
    }
}

/// Hands each event of a stream to `listen` until it is over; where `listen` says no, the answer is stopped. Returns how it ended.
pub(crate) fn run(
    stream: &StreamObject,
    mut listen: impl FnMut(*const plm_event) -> bool,
) -> Outcome<Option<Finish>> {
    let mut finish = None;
    while let Some(event) = { stream.lock()?.next() } {
        let event = event?;
        if let Event::Finished(end) = &event {
            finish = Some(end.clone());
        }
        let told = stream.told(event);
        if !listen(&raw const told) {
            stream.cancel.cancel();
        }
    }
    Ok(finish)
}

/// The next event as `next` has it; `none` where it has none and the stream goes on.
///
/// # Safety
/// `event` is null, or as large as it says.
unsafe fn pull(
    stream: *mut plm_stream,
    event: *mut plm_event,
    next: impl FnOnce(&mut Stream) -> Option<pocketlm::Result<Event>>,
    none: plm_status,
) -> Outcome {
    let object = handles::get::<StreamObject, _>(stream)?;
    if event.is_null() {
        // Before an event is taken that nobody would see.
        return Err(Refusal::invalid("the place for the event is null"));
    }
    // SAFETY: as the caller promised.
    unsafe { input::give(event, plm_event::usual())? };
    let next = next(&mut *object.lock()?);
    // What it would point to is freed.
    handles::get::<StreamObject, _>(stream)?;
    let Some(next) = next else {
        return Ok(if object.ended.load(Ordering::Relaxed) { plm_status::PLM_END } else { none });
    };
    object.ended.store(matches!(next, Err(_) | Ok(Event::Finished(_))), Ordering::Relaxed);
    // SAFETY: as the caller promised.
    unsafe { input::give(event, object.told(next?))? };
    Ok(plm_status::PLM_OK)
}

// SAFETY: numbers and pointers, the size first.
unsafe impl Versioned for plm_event {
    fn usual() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            kind: plm_event_kind::PLM_EVENT_OTHER as u32,
            done: 0,
            total: 0,
            text: plm_text::of(""),
            finish: std::ptr::null(),
            call: std::ptr::null(),
        }
    }
}

// SAFETY: numbers and pointers, the size first.
unsafe impl Versioned for plm_finish {
    fn usual() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            reason: plm_finish_reason::PLM_FINISH_OTHER as u32,
            cached_tokens: 0,
            text: plm_text::of(""),
            prompt_tokens: std::ptr::null(),
            prompt_token_count: 0,
            tokens: std::ptr::null(),
            token_count: 0,
            first_token_seconds: 0.0,
            total_seconds: 0.0,
            prefill_rate: 0.0,
            decode_rate: 0.0,
            guessed_tokens: 0,
            accepted_tokens: 0,
            calls: std::ptr::null(),
            call_count: 0,
        }
    }
}
