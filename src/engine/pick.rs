//! Tokens that the host picks: by a chain that no device can be given, or of those that a constraint allows.

use std::borrow::Cow;

use crate::error::Result;
use crate::sample::Past;
use crate::text::Guide;

use super::runner::{Runner, SessionId};

impl Runner {
    /// Finds out what a constraint lets follow, if the session's answer has one. What goes wrong is said when a token is
    /// picked by it.
    pub(super) fn prepare(&mut self, id: SessionId) {
        let job = self.sessions.get_mut(&id).and_then(|state| state.job.as_mut());
        let _said_later = job.and_then(|job| job.guide.as_mut()).map(Guide::prepare);
    }

    /// Whether the session's answer has a constraint.
    pub(super) fn is_guided(&self, id: SessionId) -> bool {
        let job = self.sessions.get(&id).and_then(|state| state.job.as_ref());
        job.is_some_and(|job| job.guide.is_some())
    }

    /// The next token after the history and `guesses` by the session's chain, of those that its constraint allows; `None`
    /// without an answer.
    pub(super) fn choose(&mut self, id: SessionId, logits: &[f32], guesses: &[u32]) -> Option<Result<u32>> {
        let state = self.sessions.get_mut(&id)?;
        let job = state.job.as_mut()?;
        let known = match guesses {
            [] => Cow::Borrowed(&state.history),
            guesses => Cow::Owned([&state.history, guesses].concat()),
        };
        let step = known.len() as u64 - u64::from(job.prompt_tokens);
        let past = Past::of(&known, step, job.limits[0]);
        let picked = match &mut job.guide {
            None => job.chain.pick_allowed(logits, None, past),
            Some(guide) => {
                guide.allowed().and_then(|allowed| job.chain.pick_allowed(logits, Some(allowed), past))
            }
        };
        Some(picked.map(|picked| {
            job.limits[1] = picked.limit;
            picked.token
        }))
    }

    /// What mirostat knows of the tokens so far.
    pub(super) fn limit(&self, id: SessionId) -> Option<f64> {
        self.sessions.get(&id)?.job.as_ref()?.limits[0]
    }
}
