//! `logit / temperature` (Ackley, Hinton and Sejnowski 1985).

use super::{Candidates, Lowering, Past};
use crate::error::{Error, Result};

/// Flattens above 1, sharpens below.
#[derive(Clone, Debug, PartialEq)]
pub struct Temperature {
    /// Above 0; a chain without chance is greedy instead.
    pub temperature: f32,
}

impl Temperature {
    pub(super) fn check(&self) -> Result<()> {
        match self.temperature.is_finite() && self.temperature > 0.0 {
            true => Ok(()),
            false => Err(Error::invalid(format!("a temperature of {} is not above 0", self.temperature))),
        }
    }

    pub(super) fn apply(&self, candidates: &mut Candidates, _past: &Past) {
        candidates.sharpness /= f64::from(self.temperature);
    }

    pub(super) fn lower(&self, lowering: &mut Lowering) {
        lowering.sharpness /= f64::from(self.temperature);
    }
}

impl std::fmt::Display for Temperature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "temperature {}", self.temperature)
    }
}
