//! Mirostat 2 (Basu et al. 2020, arXiv 2007.14966): a limit μ follows how surprising the tokens were. Tokens more surprising
//! than μ, −log₂ q > μ, are left out, and of the others, whose probabilities are made to sum to 1 again, one is drawn; then
//! μ −= η · (−log₂ q − τ). It begins at 2 τ.

use super::{Candidates, Lowering, Past};
use crate::error::{Error, Result};

/// Keeps the text as surprising as is wished.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirostat {
    /// τ: bits of surprise that a token is to have.
    pub tau: f32,
    /// η: how fast the limit follows.
    pub eta: f32,
}

impl Default for Mirostat {
    /// As its authors use it.
    fn default() -> Self {
        Self { tau: 5.0, eta: 0.1 }
    }
}

impl Mirostat {
    pub(super) fn check(&self) -> Result<()> {
        let is_sound = |number: f32| number.is_finite() && number >= 0.0;
        match is_sound(self.tau) && is_sound(self.eta) {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "a mirostat tau of {} and an eta of {} are not from 0 on",
                self.tau, self.eta
            ))),
        }
    }

    pub(super) fn apply(&self, candidates: &mut Candidates, past: &Past) {
        let limit = self.limit(past);
        let chances = candidates.probabilities();
        let kept = chances.iter().take_while(|q| -q.log2() <= limit).count();
        candidates.entries.truncate(kept.max(1));
    }

    /// The limit after `token` was drawn from `candidates`.
    pub(super) fn next(&self, candidates: &Candidates, token: u32, past: &Past) -> f64 {
        let chances = candidates.probabilities();
        let at = candidates.entries.iter().position(|entry| entry.0 == token);
        let surprise = at.map_or(0.0, |at| -chances[at].log2());
        self.limit(past) - f64::from(self.eta) * (surprise - f64::from(self.tau))
    }

    fn limit(&self, past: &Past) -> f64 {
        past.limit.unwrap_or(2.0 * f64::from(self.tau))
    }

    /// Its limit follows each token, and a device that runs ahead has no time to tell.
    pub(super) fn lower(&self, lowering: &mut Lowering) {
        lowering.is_possible = false;
    }
}

impl std::fmt::Display for Mirostat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "mirostat {} by {}", self.tau, self.eta)
    }
}
