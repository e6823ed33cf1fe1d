//! The app's own rule for conversations that outgrow the context, and a session that waits for nobody while it is asked.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use pocketlm::{Error, Kind, Session};

use crate::error::{ListenerError, PocketlmError, Result, busy};
use crate::message::{Message, meant, told};

/// Makes conversations shorter.
#[uniffi::export(with_foreign)]
pub trait Condenser: Send + Sync {
    /// What is to stand for a conversation that no longer fits, all of which it is given, what the user said last included. What
    /// is thrown ends the call that asked. The session is busy meanwhile; others may be asked.
    fn condense(&self, messages: Vec<Message>) -> std::result::Result<Vec<Message>, ListenerError>;
}

/// A session that one call at a time has. Others wait for it, but not while the app's rule is asked: what that waits for may be
/// one of them.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Nothing while a call has it.
    session: Option<Session>,
    is_condensing: bool,
    /// What the rule threw in this call.
    thrown: Option<ListenerError>,
}

/// The session, brought back when the call is over, however it ends.
struct Taken<'a>(&'a Gate, Option<Session>);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.session = self.1.take();
        state.is_condensing = false;
        drop(state);
        self.0.changed.notify_all();
    }
}

impl Gate {
    pub(crate) fn new(session: Session) -> Arc<Self> {
        let state = State { session: Some(session), is_condensing: false, thrown: None };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// What `work` makes of the session.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Session) -> T) -> Result<T> {
        let is_away = |state: &mut State| state.session.is_none() && !state.is_condensing;
        let mut state =
            self.changed.wait_while(self.state(), is_away).unwrap_or_else(PoisonError::into_inner);
        let session = state.session.take();
        drop(state);
        let session = session.ok_or_else(|| busy("the session asks its app for a shorter conversation"))?;
        let mut taken = Taken(self, Some(session));
        let Some(session) = &mut taken.1 else { return Err(busy("the session is away")) };
        Ok(work(session))
    }

    /// As [`Self::with`], of what may ask the rule: what that threw stands for what came of it.
    pub(crate) fn asking<T>(&self, work: impl FnOnce(&mut Session) -> pocketlm::Result<T>) -> Result<T> {
        let result = self.with(work)?;
        let thrown = self.state().thrown.take();
        result.map_err(|error| thrown.map_or_else(|| error.into(), PocketlmError::from))
    }

    /// Has the session made shorter by `condenser`.
    pub(crate) fn bind(self: &Arc<Self>, condenser: Arc<dyn Condenser>) -> Result<()> {
        // The session is in the gate, so the rule must not keep that.
        let gate = Arc::downgrade(self);
        self.with(|session| session.condense_with(move |messages| ask(&gate, &*condenser, messages)))
    }

    fn set_condensing(&self, is_condensing: bool) {
        self.state().is_condensing = is_condensing;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ask(
    gate: &Weak<Gate>,
    condenser: &dyn Condenser,
    messages: &[pocketlm::Message],
) -> pocketlm::Result<Vec<pocketlm::Message>> {
    let gate = gate.upgrade().ok_or_else(|| Error::internal("a session without its gate"))?;
    gate.set_condensing(true);
    let shorter = condenser.condense(told(messages));
    gate.set_condensing(false);
    match shorter {
        Ok(shorter) => meant(shorter),
        Err(error) => {
            gate.state().thrown = Some(error);
            Err(Error::new(Kind::Cancelled, "the app's rule for long conversations failed"))
        }
    }
}
