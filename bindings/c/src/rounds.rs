//! A loop of answers and calls: a function of the caller's is called for each call of a tool, until the model answers without.

use std::ffi::c_void;

use pocketlm::{Error, FinishReason, Kind, Session, ToolCall, ToolChoice};
use serde_json::json;

use crate::condense::{plm_reply, replied};
use crate::handles;
use crate::input::{self, text};
use crate::options::plm_generate_options;
use crate::prompt::plm_text;
use crate::session::{SessionObject, plm_session};
use crate::status::{Outcome, Refusal, door, plm_status};
use crate::stream::{StreamObject, plm_event, plm_event_callback, run};
use crate::tools::{arguments, plm_tool_call};

/// What became of a call.
#[repr(i32)]
pub enum plm_tool_outcome {
    /// The caller gives up: the loop ends with `PLM_CANCELLED`.
    PLM_TOOL_GIVEN_UP = 0,
    /// The tool was called, and the reply is what it came to.
    PLM_TOOL_RETURNED = 1,
    /// The tool failed, and the reply says why; the model is told, and goes on.
    PLM_TOOL_FAILED = 2,
}

/// Calls a tool: `call` is what the model wants, `plm_reply_write` says what it came to. Returns a `plm_tool_outcome`. Called in the
/// thread that runs the loop; its session is busy meanwhile, and others are not. What `call` points to is valid until it returns. It
/// must neither throw nor jump out.
pub type plm_tool_callback = Option<
    unsafe extern "C-unwind" fn(call: *const plm_tool_call, reply: *mut plm_reply, user: *mut c_void) -> i32,
>;

type Call = unsafe extern "C-unwind" fn(*const plm_tool_call, *mut plm_reply, *mut c_void) -> i32;

/// Says `said` in the conversation that the session keeps, has `call` call each of the tools of `options` that the model asks for,
/// hands it the results, and so on until it answers without a call, `rounds` times at most. Where it has to call one, that is for
/// the first round. `listen` hears the events of all answers, in which each ends with a `PLM_EVENT_FINISHED`: the last one has the
/// reason `PLM_FINISH_TOOL_CALLS` where the rounds did not suffice. Where `listen` returns 0 the answer is stopped, and the loop is
/// over; null for it listens to nothing. A call of a tool that there is not is answered with an error, without `call`. The conversation
/// keeps all of it, also where something fails on the way, which is returned. `user` is handed to both functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_session_run_tools(
    session: *mut plm_session,
    said: plm_text,
    options: *const plm_generate_options,
    rounds: u32,
    call: plm_tool_callback,
    listen: plm_event_callback,
    user: *mut c_void,
) -> plm_status {
    door(|| {
        let object = handles::get::<SessionObject, _>(session)?;
        let call = call.ok_or_else(|| Refusal::invalid("the callback for calls is null"))?;
        // SAFETY: as the caller promised, for all of it.
        let (said, mut options) = unsafe { (text(said, "text")?, input::options(options)?.meant()?) };
        if options.tools.is_empty() {
            let message = "the options have no tools, and a loop is for calling them";
            return Err(Refusal::new(
                plm_status::PLM_INVALID_ARGUMENT,
                message,
                "say it with plm_session_say, or list tools",
            ));
        }
        let mut session = object.lock()?;
        let mut hear = |event: *const plm_event| match listen {
            // SAFETY: the caller's own function, with what the caller gave for it.
            Some(listen) => unsafe { listen(event, user) != 0 },
            None => true,
        };
        let mut stream = session.say(said, &options)?;
        for round in 0..=rounds {
            let answer: StreamObject = object.stream(stream);
            let Some(finish) = run(&answer, &mut hear)? else {
                return Err(Error::internal("a stream ended without its last event").into());
            };
            session.answered_with(&finish);
            if finish.reason != FinishReason::ToolCalls || round == rounds {
                break;
            }
            for wanted in &finish.calls {
                let is_known = options.tools.iter().any(|tool| tool.name == wanted.name);
                let result = match is_known {
                    true => came_to(wanted, call, user)?,
                    false => Err(format!("there is no tool {:?}", wanted.name)),
                };
                answer_to(&mut session, wanted, result);
            }
            options.tool_choice = ToolChoice::Auto;
            stream = session.go_on(&options)?;
        }
        Ok(plm_status::PLM_OK)
    })
}

fn answer_to(session: &mut Session, call: &ToolCall, result: Result<String, String>) {
    let result = result.unwrap_or_else(|error| json!({"error": error}).to_string());
    session.returned(call, &result);
}

/// What a call comes to; what the tool failed with is for the model.
fn came_to(wanted: &ToolCall, call: Call, user: *mut c_void) -> Outcome<Result<String, String>> {
    let arguments = arguments(wanted);
    let told = plm_tool_call {
        id: plm_text::of(&wanted.id),
        name: plm_text::of(&wanted.name),
        arguments: plm_text::of(&arguments),
    };
    // SAFETY: the caller's own function, with what the caller gave for it.
    let (outcome, reply) = replied(|reply| unsafe { call(&raw const told, reply, user) })?;
    match outcome {
        0 => {
            let what = format!("the caller gave up at a call of {:?}", wanted.name);
            Err(Error::new(Kind::Cancelled, what).into())
        }
        1 => Ok(Ok(reply)),
        2 => Ok(Err(reply)),
        outcome => {
            let message = format!("{outcome} is no plm_tool_outcome, and the callback for calls returned it");
            Err(Refusal::new(plm_status::PLM_INVALID_ARGUMENT, &message, "PLM_TOOL_RETURNED would work"))
        }
    }
}
