//! The smallest set of the likeliest whose probabilities reach p (Holtzman et al. 2020, arXiv 1904.09751).

use super::{Candidates, Lowering, Past};
use crate::base::chance::Stage;
use crate::error::{Error, Result};

/// Keeps the likeliest that together reach a probability.
#[derive(Clone, Debug, PartialEq)]
pub struct TopP {
    /// 1 keeps all.
    pub p: f32,
}

impl TopP {
    pub(super) fn check(&self) -> Result<()> {
        match (0.0..=1.0).contains(&self.p) {
            true => Ok(()),
            false => Err(Error::invalid(format!("a top-p of {} is not in 0 ..= 1", self.p))),
        }
    }

    pub(super) fn apply(&self, candidates: &mut Candidates, _past: &Past) {
        if self.p < 1.0 {
            candidates.keep(Stage::share(self.p, candidates.sharpness));
        }
    }

    pub(super) fn lower(&self, lowering: &mut Lowering) {
        if self.p < 1.0 {
            lowering.push(Stage::share(self.p, lowering.sharpness));
        }
    }
}

impl std::fmt::Display for TopP {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "top-p {}", self.p)
    }
}
