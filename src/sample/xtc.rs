//! "Exclude top choices" (p-e-w, text-generation-webui, pull request 6335): with a probability, all tokens that reach a
//! threshold are taken out, but for the least likely of them.

use super::{Candidates, Lowering, Past};
use crate::error::{Error, Result};

/// Sometimes takes the likeliest out, where others are likely too.
#[derive(Clone, Debug, PartialEq)]
pub struct Xtc {
    /// How often; 0 never.
    pub probability: f32,
    /// From which probability on a token is a top choice; above 0.5 there is never more than one.
    pub threshold: f32,
}

impl Default for Xtc {
    /// Off, and otherwise as its author uses it.
    fn default() -> Self {
        Self { probability: 0.0, threshold: 0.1 }
    }
}

impl Xtc {
    pub(super) fn check(&self) -> Result<()> {
        let is_share = |share: f32| (0.0..=1.0).contains(&share);
        match is_share(self.probability) && is_share(self.threshold) {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "an XTC probability of {} and a threshold of {} are not in 0 ..= 1",
                self.probability, self.threshold
            ))),
        }
    }

    pub(super) fn apply(&self, candidates: &mut Candidates, past: &Past) {
        if past.chance() >= f64::from(self.probability) {
            return;
        }
        let chances = candidates.probabilities();
        let top = chances.iter().take_while(|&&q| q >= f64::from(self.threshold)).count();
        candidates.entries.drain(..top.saturating_sub(1));
    }

    /// Takes away from the top, where a device cuts at the end.
    pub(super) fn lower(&self, lowering: &mut Lowering) {
        lowering.is_possible = false;
    }
}

impl std::fmt::Display for Xtc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "xtc {} from {}", self.probability, self.threshold)
    }
}
