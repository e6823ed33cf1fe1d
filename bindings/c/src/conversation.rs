//! The conversation that a session keeps: with the calls of tools and their results, handed out and taken up, made shorter.

use std::ffi::c_void;

use pocketlm::{Finish, FinishReason, Timings};

use crate::condense::{Rule, plm_condense_callback};
use crate::engine::fresh;
use crate::handles;
use crate::input::{self, copy_out, list, text};
use crate::options::plm_generate_options;
use crate::prompt::{json, messages, plm_text};
use crate::session::{SessionObject, plm_session};
use crate::status::{Outcome, Refusal, door, plm_status};
use crate::stream::{plm_finish, plm_stream};
use crate::tools::plm_tool_call;

/// Adds an answer to the conversation, with the calls in it: what `plm_session_answered` does, where there are tools.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_session_answered_with(
    session: *mut plm_session,
    finish: *const plm_finish,
) -> plm_status {
    door(|| {
        let object = handles::get::<SessionObject, _>(session)?;
        // SAFETY: as the caller promised.
        object.lock()?.answered_with(&unsafe { finished(finish)? });
        Ok(plm_status::PLM_OK)
    })
}

/// Adds to the conversation what a call came to. When all have come to something, `plm_session_go_on`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_session_returned(
    session: *mut plm_session,
    call: *const plm_tool_call,
    result: plm_text,
) -> plm_status {
    door(|| {
        let object = handles::get::<SessionObject, _>(session)?;
        if call.is_null() || !call.is_aligned() {
            return Err(Refusal::invalid("the call is null"));
        }
        // SAFETY: as the caller promised, for all of it.
        let (call, result) = unsafe { ((*call).meant()?, text(result, "result")?) };
        object.lock()?.returned(&call, result);
        Ok(plm_status::PLM_OK)
    })
}

/// Starts the answer to the conversation as it is, such as to the results of calls. Null for `options` takes the usual ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_session_go_on(
    session: *mut plm_session,
    options: *const plm_generate_options,
    stream: Option<&mut *mut plm_stream>,
) -> plm_status {
    door(|| {
        let place = fresh(stream)?;
        let object = handles::get::<SessionObject, _>(session)?;
        // SAFETY: as the caller promised, for all of it.
        let options = unsafe { input::options(options)?.meant()? };
        let stream = object.lock()?.go_on(&options)?;
        *place = handles::give(object.stream(stream))?;
        Ok(plm_status::PLM_OK)
    })
}

/// The conversation so far, a JSON array of objects with `role` and `content`, copied to `buffer` without a null byte; `size` says
/// how many bytes it has. `PLM_TOO_SMALL` where they are more than `capacity`; null and 0 ask for the size alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_session_transcript(
    session: *mut plm_session,
    buffer: *mut u8,
    capacity: usize,
    size: Option<&mut usize>,
) -> plm_status {
    door(|| {
        let object = handles::get::<SessionObject, _>(session)?;
        let said = json(object.lock()?.transcript());
        // SAFETY: as the caller promised.
        unsafe { copy_out(said.as_bytes(), buffer, capacity, size) }
    })
}

/// Puts a conversation, a JSON array as `plm_session_transcript` gives it, in place of this one. What both begin with is not
/// computed again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_session_take_up(
    session: *mut plm_session,
    conversation: plm_text,
) -> plm_status {
    door(|| {
        let object = handles::get::<SessionObject, _>(session)?;
        // SAFETY: as the caller promised.
        let conversation = messages(unsafe { text(conversation, "conversation")? })?;
        object.lock()?.take_up(conversation);
        Ok(plm_status::PLM_OK)
    })
}

/// Has a conversation that no longer fits made shorter by `condense` before the next answer, again and again until there is room
/// for that. `user` has to be there until the session and its branches are freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_session_condense_with(
    session: *mut plm_session,
    condense: plm_condense_callback,
    user: *mut c_void,
) -> plm_status {
    door(|| {
        let object = handles::get::<SessionObject, _>(session)?;
        let callback = condense.ok_or_else(|| Refusal::invalid("the callback is null"))?;
        object.bind(Some(Rule { callback, user }))?;
        Ok(plm_status::PLM_OK)
    })
}

/// Of how an answer ended, what a conversation keeps.
///
/// # Safety
/// What it points to is there.
unsafe fn finished(finish: *const plm_finish) -> Outcome<Finish> {
    if finish.is_null() {
        return Err(Refusal::invalid("the finish is null"));
    }
    // SAFETY: as the caller promised, for all of it.
    let (text, calls) = unsafe {
        let finish = input::options(finish)?;
        let calls = list(finish.calls, finish.call_count, "calls")?.iter();
        let calls = calls.map(|call| call.meant()).collect::<Outcome<_>>()?;
        (text(finish.text, "answer")?.to_owned(), calls)
    };
    let (prompt_tokens, tokens, timings) = (Vec::new(), Vec::new(), Timings::default());
    Ok(Finish { reason: FinishReason::Stop, text, calls, prompt_tokens, tokens, timings })
}
