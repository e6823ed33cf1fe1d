//! A session: what is asked of it, and what is kept of it.

use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use pocketlm::{Overflow, Session, Stream, forget_oldest};

use crate::condense::Rule;
use crate::engine::fresh;
use crate::handles;
use crate::input::{self, copy_out, put, text};
use crate::model::ModelObject;
use crate::options::{kv_type_of, plm_generate_options, plm_save_options};
use crate::prompt::{plm_prompt, plm_text, prompt};
use crate::status::{Outcome, Refusal, door, plm_status};
use crate::stream::{StreamObject, plm_event_callback, plm_stream, run};

/// One sequence of tokens that can be continued, again and again: a conversation, usually. What two of its prompts have in
/// common at their beginning is computed once. One answer at a time.
pub enum plm_session {}

/// What becomes of a session that outgrows the context.
#[repr(u32)]
pub enum plm_overflow {
    /// A prompt that does not fit is refused, and an answer ends with `PLM_FINISH_LENGTH`.
    PLM_OVERFLOW_STOP = 0,
    /// It goes on with its first tokens, the sinks, and as many of the latest ones as fit.
    PLM_OVERFLOW_SLIDE = 1,
}

pub(crate) struct SessionObject {
    session: Mutex<Session>,
    /// By which it is made shorter, for its branches.
    rule: Mutex<Option<Rule>>,
    model: Arc<ModelObject>,
}

/// Frees a session. An answer under way goes on, in its stream.
#[unsafe(no_mangle)]
pub extern "C" fn plm_session_free(session: *mut plm_session) -> plm_status {
    door(|| {
        handles::take::<SessionObject, _>(session)?;
        Ok(plm_status::PLM_OK)
    })
}

/// Starts an answer to `asked`, to be pulled from `stream`. Null for `options` takes the usual ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_session_generate(
    session: *mut plm_session,
    asked: *const plm_prompt,
    options: *const plm_generate_options,
    stream: Option<&mut *mut plm_stream>,
) -> plm_status {
    door(|| {
        let place = fresh(stream)?;
        // SAFETY: as the caller promised.
        *place = handles::give(unsafe { generate(session, asked, options)? })?;
        Ok(plm_status::PLM_OK)
    })
}

/// Computes the beginning of what will be asked, ahead of time: instructions, what a user is still writing. Pull `stream` to its
/// end; it has no token.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_session_prewarm(
    session: *mut plm_session,
    beginning: *const plm_prompt,
    stream: Option<&mut *mut plm_stream>,
) -> plm_status {
    door(|| {
        let place = fresh(stream)?;
        let object = handles::get::<SessionObject, _>(session)?;
        // SAFETY: as the caller promised, for all of it.
        let prompt = unsafe { prompt(beginning)? };
        let stream = object.lock()?.prewarm(&prompt)?;
        *place = handles::give(object.stream(stream))?;
        Ok(plm_status::PLM_OK)
    })
}

/// Another session that goes on from here, with the same history and conversation; what is computed is shared.
#[unsafe(no_mangle)]
pub extern "C" fn plm_session_branch(
    session: *mut plm_session,
    branch: Option<&mut *mut plm_session>,
) -> plm_status {
    door(|| {
        let place = fresh(branch)?;
        let object = handles::get::<SessionObject, _>(session)?;
        let branch = SessionObject::new(object.lock()?.branch(), object.model.clone());
        // One of its own: who is asked for a shorter conversation may ask the other.
        if let Some(rule) = object.rule() {
            branch.bind(Some(rule))?;
        }
        *place = handles::give(branch)?;
        Ok(plm_status::PLM_OK)
    })
}

/// What becomes of the session when it outgrows the context, a `plm_overflow`; `sinks` is for `PLM_OVERFLOW_SLIDE`, at least 4 are
/// advisable.
#[unsafe(no_mangle)]
pub extern "C" fn plm_session_set_overflow(
    session: *mut plm_session,
    overflow: u32,
    sinks: u32,
) -> plm_status {
    door(|| {
        let object = handles::get::<SessionObject, _>(session)?;
        object.lock()?.set_overflow(match overflow {
            0 => Overflow::Stop,
            1 => Overflow::Slide { sinks },
            overflow => return Err(Refusal::invalid(&format!("{overflow} is no plm_overflow"))),
        })?;
        Ok(plm_status::PLM_OK)
    })
}

/// Has keys and values of this session kept in another type than those of others, a `plm_kv_type`, where the model was loaded
/// with places for that (`more_sessions`). What was computed is computed again.
#[unsafe(no_mangle)]
pub extern "C" fn plm_session_set_kv_type(session: *mut plm_session, kv_type: u32) -> plm_status {
    door(|| {
        let object = handles::get::<SessionObject, _>(session)?;
        object.lock()?.set_kv_type(kv_type_of(kv_type)?)?;
        Ok(plm_status::PLM_OK)
    })
}

/// Has a conversation that no longer fits forget its oldest exchange before the next answer; instructions stay.
#[unsafe(no_mangle)]
pub extern "C" fn plm_session_forget_oldest(session: *mut plm_session) -> plm_status {
    door(|| {
        handles::get::<SessionObject, _>(session)?.bind(None)?;
        Ok(plm_status::PLM_OK)
    })
}

/// Answers `asked`, and hands each event to `listen` in the calling thread, the last one included. Where `listen` returns 0 the
/// answer is stopped, and ends with an event that says so. What fails on the way is returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_session_run(
    session: *mut plm_session,
    asked: *const plm_prompt,
    options: *const plm_generate_options,
    listen: plm_event_callback,
    user: *mut c_void,
) -> plm_status {
    door(|| {
        let listen = listen.ok_or_else(|| Refusal::invalid("the callback is null"))?;
        // SAFETY: as the caller promised.
        let stream = unsafe { generate(session, asked, options)? };
        // SAFETY: the caller's own function, with what the caller gave for it.
        run(&stream, |event| unsafe { listen(event, user) } != 0)?;
        Ok(plm_status::PLM_OK)
    })
}

/// Says `said` in the conversation that the session keeps, and starts the answer. When it is there, hand it to
/// `plm_session_answered`, or its end to `plm_session_answered_with`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_session_say(
    session: *mut plm_session,
    said: plm_text,
    options: *const plm_generate_options,
    stream: Option<&mut *mut plm_stream>,
) -> plm_status {
    door(|| {
        let place = fresh(stream)?;
        let object = handles::get::<SessionObject, _>(session)?;
        // SAFETY: as the caller promised, for all of it.
        let (said, options) = unsafe { (text(said, "text")?, input::options(options)?.meant()?) };
        let stream = object.lock()?.say(said, &options)?;
        *place = handles::give(object.stream(stream))?;
        Ok(plm_status::PLM_OK)
    })
}

/// Adds the model's answer to the conversation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_session_answered(session: *mut plm_session, answer: plm_text) -> plm_status {
    door(|| {
        let object = handles::get::<SessionObject, _>(session)?;
        // SAFETY: as the caller promised.
        object.lock()?.answered(unsafe { text(answer, "answer")? });
        Ok(plm_status::PLM_OK)
    })
}

/// Begins the conversation with an instruction to the model, in place of all that was said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_session_instruct(
    session: *mut plm_session,
    instructions: plm_text,
) -> plm_status {
    door(|| {
        let object = handles::get::<SessionObject, _>(session)?;
        // SAFETY: as the caller promised.
        object.lock()?.instruct(unsafe { text(instructions, "instruction")? });
        Ok(plm_status::PLM_OK)
    })
}

/// Forgets what was said, but for the instructions.
#[unsafe(no_mangle)]
pub extern "C" fn plm_session_reset(session: *mut plm_session) -> plm_status {
    door(|| {
        handles::get::<SessionObject, _>(session)?.lock()?.reset();
        Ok(plm_status::PLM_OK)
    })
}

/// Whether an answer was under way when the session was saved, and has not gone on since: 1 or 0.
#[unsafe(no_mangle)]
pub extern "C" fn plm_session_is_unfinished(
    session: *mut plm_session,
    unfinished: Option<&mut u32>,
) -> plm_status {
    door(|| {
        put(unfinished, handles::get::<SessionObject, _>(session)?.lock()?.is_unfinished().into())?;
        Ok(plm_status::PLM_OK)
    })
}

/// Goes on with the answer that was under way when the session was saved; the stream begins with its text so far.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_session_proceed(
    session: *mut plm_session,
    options: *const plm_generate_options,
    stream: Option<&mut *mut plm_stream>,
) -> plm_status {
    door(|| {
        let place = fresh(stream)?;
        let object = handles::get::<SessionObject, _>(session)?;
        // SAFETY: as the caller promised, for all of it.
        let options = unsafe { input::options(options)?.meant()? };
        let stream = object.lock()?.proceed(&options)?;
        *place = handles::give(object.stream(stream))?;
        Ok(plm_status::PLM_OK)
    })
}

/// Saves a session to a file, which is whole whatever happens on the way; an answer under way is saved as far as it is.
/// Null for `options` takes the usual ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_session_save(
    session: *mut plm_session,
    path: plm_text,
    options: *const plm_save_options,
) -> plm_status {
    door(|| {
        let object = handles::get::<SessionObject, _>(session)?;
        // SAFETY: as the caller promised, for all of it.
        let (path, options) = unsafe { (text(path, "path")?, input::options(options)?.meant()) };
        object.lock()?.save(path, &options)?;
        Ok(plm_status::PLM_OK)
    })
}

/// The session in bytes, copied to `bytes`; `count` says how many there are. `PLM_TOO_SMALL` where they are more than
/// `capacity`; null and 0 ask for the count alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_session_to_bytes(
    session: *mut plm_session,
    options: *const plm_save_options,
    bytes: *mut u8,
    capacity: usize,
    count: Option<&mut usize>,
) -> plm_status {
    door(|| {
        let object = handles::get::<SessionObject, _>(session)?;
        // SAFETY: as the caller promised.
        let options = unsafe { input::options(options)?.meant() };
        let saved = object.lock()?.to_bytes(&options)?;
        // SAFETY: as the caller promised.
        unsafe { copy_out(&saved, bytes, capacity, count) }
    })
}

impl SessionObject {
    pub(crate) fn new(session: Session, model: Arc<ModelObject>) -> Self {
        Self { session: Mutex::new(session), rule: Mutex::default(), model }
    }

    /// Has it made shorter by a rule of the caller's; by the engine's own without one.
    pub(crate) fn bind(&self, rule: Option<Rule>) -> Outcome<()> {
        let mut session = self.lock()?;
        match rule {
            Some(rule) => rule.bind(&mut session),
            None => session.condense_with(forget_oldest),
        }
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner) = rule;
        Ok(())
    }

    fn rule(&self) -> Option<Rule> {
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session, unless another thread is in a call with it.
    pub(crate) fn lock(&self) -> Outcome<MutexGuard<'_, Session>> {
        match self.session.try_lock() {
            Ok(session) => Ok(session),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                let message = "another thread is in a call with this session";
                Err(Refusal::new(
                    plm_status::PLM_SESSION_BUSY,
                    message,
                    "use a session from one thread at a time",
                ))
            }
        }
    }

    pub(crate) fn stream(&self, stream: Stream) -> StreamObject {
        StreamObject::new(stream, self.model.engine.clone())
    }
}

/// Starts an answer.
///
/// # Safety
/// What the arguments point to is there.
unsafe fn generate(
    session: *mut plm_session,
    asked: *const plm_prompt,
    options: *const plm_generate_options,
) -> Outcome<StreamObject> {
    let object = handles::get::<SessionObject, _>(session)?;
    // SAFETY: as the caller promised, for all of it.
    let (prompt, options) = unsafe { (prompt(asked)?, input::options(options)?.meant()?) };
    let stream = object.lock()?.generate(&prompt, &options)?;
    Ok(object.stream(stream))
}
