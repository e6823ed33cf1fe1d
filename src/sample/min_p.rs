//! Those with at least p times the probability of the likeliest (Nguyen et al. 2024, arXiv 2407.01082).

use super::{Candidates, Lowering, Past};
use crate::base::chance::Stage;
use crate::error::{Error, Result};

/// Keeps those not much less likely than the likeliest.
#[derive(Clone, Debug, PartialEq)]
pub struct MinP {
    /// 0 keeps all.
    pub p: f32,
}

impl MinP {
    pub(super) fn check(&self) -> Result<()> {
        match (0.0..=1.0).contains(&self.p) {
            true => Ok(()),
            false => Err(Error::invalid(format!("a min-p of {} is not in 0 ..= 1", self.p))),
        }
    }

    pub(super) fn apply(&self, candidates: &mut Candidates, _past: &Past) {
        candidates.keep(Stage::near(self.p, candidates.sharpness));
    }

    pub(super) fn lower(&self, lowering: &mut Lowering) {
        lowering.push(Stage::near(self.p, lowering.sharpness));
    }
}

impl std::fmt::Display for MinP {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "min-p {}", self.p)
    }
}
