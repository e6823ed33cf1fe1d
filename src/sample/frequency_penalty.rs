//! `logit −= penalty · how often the token is in the recent past` (OpenAI's API reference, "frequency and presence penalties").

use super::{Candidates, Lowering, Past};
use crate::error::{Error, Result};

/// Makes a token less likely each time that it comes again.
#[derive(Clone, Debug, PartialEq)]
pub struct FrequencyPenalty {
    /// 0 changes nothing; below it, repetition is made likelier.
    pub penalty: f32,
    /// How many tokens of the past count.
    pub last: usize,
}

impl FrequencyPenalty {
    pub(super) fn check(&self) -> Result<()> {
        match self.penalty.is_finite() {
            true => Ok(()),
            false => Err(Error::invalid(format!("a frequency penalty of {} is no number", self.penalty))),
        }
    }

    pub(super) fn apply(&self, candidates: &mut Candidates, past: &Past) {
        let counts = past.counts(self.last);
        for (token, logit) in &mut candidates.entries {
            if let Some(&count) = counts.get(token) {
                *logit -= self.penalty * count as f32;
            }
        }
    }

    /// Needs the history, which no device has.
    pub(super) fn lower(&self, lowering: &mut Lowering) {
        lowering.is_possible = false;
    }
}

impl std::fmt::Display for FrequencyPenalty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "frequency-penalty {} over {}", self.penalty, self.last)
    }
}
