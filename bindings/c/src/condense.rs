//! The app's own rule for conversations that outgrow the context.

use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use pocketlm::{Error, Kind, Message, Session};

use crate::handles;
use crate::input::text;
use crate::prompt::{json, messages, plm_text};
use crate::status::{door, plm_status};

/// What a callback answers with, for as long as it runs.
pub enum plm_reply {}

/// Makes a conversation shorter: `messages` is all of it, what the user said last included, as a JSON array of objects with
/// `role` and `content`; `plm_reply_write` says what is to stand for it, in the same form. Returns 0 to give up, with
/// `PLM_CANCELLED`. Called in the thread that says something in the session or in a branch of it; the session is busy meanwhile,
/// and others, such as one that is asked for a summary, are not. It must neither throw nor jump out.
pub type plm_condense_callback =
    Option<unsafe extern "C-unwind" fn(messages: plm_text, reply: *mut plm_reply, user: *mut c_void) -> i32>;

#[derive(Default)]
pub(crate) struct ReplyObject {
    text: Mutex<String>,
}

/// The caller's function, with what the caller gave for it.
#[derive(Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) callback: unsafe extern "C-unwind" fn(plm_text, *mut plm_reply, *mut c_void) -> i32,
    pub(crate) user: *mut c_void,
}

// SAFETY: the caller lets the function be called in every thread that uses the session.
unsafe impl Send for Rule {}

/// Adds `text` to what a callback answers with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_reply_write(reply: *mut plm_reply, more: plm_text) -> plm_status {
    door(|| {
        let reply = handles::get::<ReplyObject, _>(reply)?;
        // SAFETY: as the caller promised.
        let more = unsafe { text(more, "reply")? };
        reply.text.lock().unwrap_or_else(PoisonError::into_inner).push_str(more);
        Ok(plm_status::PLM_OK)
    })
}

/// A reply that is out of use when the callback is over, however it ends.
struct Open(*mut plm_reply);

impl Open {
    fn close(self) -> String {
        let held = handles::take::<ReplyObject, _>(self.0);
        std::mem::forget(self);
        held.map_or_else(
            |_| String::new(),
            |held| std::mem::take(&mut *held.text.lock().unwrap_or_else(PoisonError::into_inner)),
        )
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _freed = handles::take::<ReplyObject, _>(self.0);
    }
}

/// Lets `ask` have a reply written: what it returns, and the reply.
pub(crate) fn replied<T>(ask: impl FnOnce(*mut plm_reply) -> T) -> pocketlm::Result<(T, String)> {
    let reply = handles::give(ReplyObject::default());
    let open = Open(reply.map_err(|refusal| Error::internal(refusal.0))?);
    let outcome = ask(open.0);
    Ok((outcome, open.close()))
}

impl Rule {
    /// Has `session` made shorter by it.
    pub(crate) fn bind(self, session: &mut Session) {
        session.condense_with(move |messages| self.ask(messages));
    }

    fn ask(self, said: &[Message]) -> pocketlm::Result<Vec<Message>> {
        let said = json(said);
        // SAFETY: the caller's own function, with what the caller gave for it.
        let ask = |reply| unsafe { (self.callback)(plm_text::of(&said), reply, self.user) };
        let (done, reply) = replied(ask)?;
        if done == 0 {
            return Err(Error::new(Kind::Cancelled, "the rule for conversations that are too long gave up"));
        }
        messages(&reply)
    }
}
