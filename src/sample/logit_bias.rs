//! `logit += bias` for some tokens (OpenAI's API reference, "logit_bias"); −∞ makes one impossible.

use super::{Candidates, Lowering, Past};
use crate::error::{Error, Result};

/// Makes tokens likelier, less likely or impossible.
#[derive(Clone, Debug, PartialEq)]
pub struct LogitBias {
    /// Token and what is added to its logit.
    pub biases: Vec<(u32, f32)>,
}

impl LogitBias {
    pub(super) fn check(&self) -> Result<()> {
        let is_wrong = |bias: f32| !(bias.is_finite() || bias == f32::NEG_INFINITY);
        match self.biases.iter().find(|(_, bias)| is_wrong(*bias)) {
            None => Ok(()),
            Some((token, bias)) => Err(Error::invalid(format!(
                "a bias of {bias} for token {token} is neither a number nor -inf"
            ))),
        }
    }

    pub(super) fn apply(&self, candidates: &mut Candidates, _past: &Past) {
        for (token, logit) in &mut candidates.entries {
            *logit += self.biases.iter().filter(|bias| bias.0 == *token).map(|bias| bias.1).sum::<f32>();
        }
    }

    /// Changes the order, and a device knows only the largest.
    pub(super) fn lower(&self, lowering: &mut Lowering) {
        lowering.is_possible &= self.biases.is_empty();
    }
}

impl std::fmt::Display for LogitBias {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let biases: Vec<String> = self.biases.iter().map(|(token, bias)| format!("{token}={bias}")).collect();
        write!(f, "logit-bias {}", biases.join(","))
    }
}
