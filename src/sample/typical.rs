//! Those whose surprise is nearest to what is to be expected (Meister et al. 2022, arXiv 2202.00666): with probabilities q and
//! their entropy H = −Σ q ln q, the fewest with the smallest |−ln q − H| that together reach p.

use super::{Candidates, Lowering, Past};
use crate::error::{Error, Result};

/// Keeps those that are as surprising as the text on average.
#[derive(Clone, Debug, PartialEq)]
pub struct Typical {
    /// 1 keeps all.
    pub p: f32,
}

impl Typical {
    pub(super) fn check(&self) -> Result<()> {
        match self.p > 0.0 && self.p <= 1.0 {
            true => Ok(()),
            false => Err(Error::invalid(format!("a typical p of {} is not above 0 and up to 1", self.p))),
        }
    }

    pub(super) fn apply(&self, candidates: &mut Candidates, _past: &Past) {
        if self.p >= 1.0 {
            return;
        }
        let chances = candidates.probabilities();
        let possible = || chances.iter().filter(|&&q| q > 0.0);
        let entropy: f64 = possible().map(|q| -q * q.ln()).sum();
        let mut order: Vec<usize> = (0..chances.len()).filter(|&i| chances[i] > 0.0).collect();
        let off = |i: usize| (-chances[i].ln() - entropy).abs();
        // Among equals the likelier, which comes first.
        order.sort_by(|&a, &b| off(a).total_cmp(&off(b)));
        let mut sum = 0.0;
        let reached = order.iter().position(|&i| {
            sum += chances[i];
            sum >= f64::from(self.p)
        });
        order.truncate(reached.map_or(order.len(), |last| last + 1));
        order.sort_unstable();
        candidates.entries = order.into_iter().map(|i| candidates.entries[i]).collect();
    }

    /// Another order than by size, which no device keeps.
    pub(super) fn lower(&self, lowering: &mut Lowering) {
        lowering.is_possible &= self.p >= 1.0;
    }
}

impl std::fmt::Display for Typical {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "typical-p {}", self.p)
    }
}
