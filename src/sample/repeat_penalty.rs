//! `logit /= penalty` where positive, `*= penalty` where negative, for tokens of the recent past (Keskar et al.
//! 2019, arXiv 1909.05858, 4.1).

use super::{Candidates, Lowering, Past};
use crate::error::{Error, Result};

/// Makes tokens of the recent past less likely.
#[derive(Clone, Debug, PartialEq)]
pub struct RepeatPenalty {
    /// 1 changes nothing.
    pub penalty: f32,
    /// How many tokens of the past count.
    pub last: usize,
}

impl RepeatPenalty {
    pub(super) fn check(&self) -> Result<()> {
        match self.penalty.is_finite() && self.penalty > 0.0 {
            true => Ok(()),
            false => Err(Error::invalid(format!("a repeat penalty of {} is not above 0", self.penalty))),
        }
    }

    pub(super) fn apply(&self, candidates: &mut Candidates, past: &Past) {
        let counts = past.counts(self.last);
        for (token, logit) in &mut candidates.entries {
            if counts.contains_key(token) {
                *logit = if *logit > 0.0 { *logit / self.penalty } else { *logit * self.penalty };
            }
        }
    }

    /// Needs the history, which no device has.
    pub(super) fn lower(&self, lowering: &mut Lowering) {
        lowering.is_possible = false;
    }
}

impl std::fmt::Display for RepeatPenalty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "repeat-penalty {} over {}", self.penalty, self.last)
    }
}
