//! The k largest logits (Fan et al. 2018, arXiv 1805.04833).

use super::{Candidates, Lowering, Past};
use crate::base::chance::Stage;
use crate::error::Result;

/// Keeps the k likeliest.
#[derive(Clone, Debug, PartialEq)]
pub struct TopK {
    /// How many; 0 keeps all.
    pub k: u32,
}

impl TopK {
    pub(super) fn check(&self) -> Result<()> {
        Ok(())
    }

    pub(super) fn apply(&self, candidates: &mut Candidates, _past: &Past) {
        candidates.keep_largest(self.k as usize);
    }

    pub(super) fn lower(&self, lowering: &mut Lowering) {
        lowering.push(Stage::most(self.k));
    }
}

impl std::fmt::Display for TopK {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "top-k {}", self.k)
    }
}
