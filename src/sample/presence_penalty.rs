//! `logit −= penalty for tokens of the recent past, however often` (OpenAI's API reference, "frequency and presence penalties").

use super::{Candidates, Lowering, Past};
use crate::error::{Error, Result};

/// Makes tokens of the recent past less likely, once.
#[derive(Clone, Debug, PartialEq)]
pub struct PresencePenalty {
    /// 0 changes nothing; below it, repetition is made likelier.
    pub penalty: f32,
    /// How many tokens of the past count.
    pub last: usize,
}

impl PresencePenalty {
    pub(super) fn check(&self) -> Result<()> {
        match self.penalty.is_finite() {
            true => Ok(()),
            false => Err(Error::invalid(format!("a presence penalty of {} is no number", self.penalty))),
        }
    }

    pub(super) fn apply(&self, candidates: &mut Candidates, past: &Past) {
        let counts = past.counts(self.last);
        for (token, logit) in &mut candidates.entries {
            if counts.contains_key(token) {
                *logit -= self.penalty;
            }
        }
    }

    /// Needs the history, which no device has.
    pub(super) fn lower(&self, lowering: &mut Lowering) {
        lowering.is_possible = false;
    }
}

impl std::fmt::Display for PresencePenalty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "presence-penalty {} over {}", self.penalty, self.last)
    }
}
