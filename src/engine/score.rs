//! What a model makes of a text without saying anything: how likely a continuation is, and where the text lies among others.

use crate::error::{Error, Result};

use super::compute::Wanted;
use super::model::Model;
use super::prompt::Prompt;

/// How the rows of a text become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// The last one, which has seen all.
    Last,
    /// The first one, as models with a token for it want it (`CLS`).
    First,
}

/// How likely a continuation is.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// The natural logarithm of the probability of each, after the prompt and those before it.
    pub log_probabilities: Vec<f64>,
    /// Whether each is the likeliest, so that the model would say exactly this by itself.
    pub is_greedy: bool,
}

impl Score {
    /// The natural logarithm of the probability of all of it.
    pub fn total(&self) -> f64 {
        self.log_probabilities.iter().sum()
    }
}

impl Model {
    /// The embedding of a text: what the head is given at its positions (the last norm's output), pooled and made one long, by
    /// Euclid. As many numbers as the model is wide. Models that were not trained for it still tell near texts from far ones,
    /// though not as well.
    ///
    /// # Errors
    /// As [`super::Session::generate`] for the prompt; `WrongNumbers` where the device computes none.
    pub fn embed(&self, prompt: &Prompt, pooling: Pooling) -> Result<Vec<f32>> {
        let tokens = self.tokens(prompt)?;
        let from = if pooling == Pooling::Last { tokens.len() - 1 } else { 0 };
        let seen = if pooling == Pooling::First { &tokens[..1] } else { &tokens[..] };
        let mut sums: Vec<f64> = Vec::new();
        self.core().runner().visit_rows(Wanted::Hidden, seen, from, &mut |_, row| {
            sums.resize(row.len(), 0.0);
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
            Ok(())
        })?;
        // The mean has the same direction as the sum.
        let length = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
        Ok(sums.iter().map(|sum| (sum / length.max(f64::MIN_POSITIVE)) as f32).collect())
    }

    /// How likely `continuation` is after `prompt`. Both are tokenized together, so it should begin where a word does, mostly with a
    /// space: what becomes one token with the prompt's end counts whole.
    ///
    /// # Errors
    /// As [`super::Session::generate`]; `InvalidArgument` where the continuation is empty.
    pub fn score(&self, prompt: &Prompt, continuation: &str) -> Result<Score> {
        let before = self.tokens(prompt)?;
        let all = self.core().tokens_on(prompt, continuation)?;
        let first = before.iter().zip(&all).take_while(|(before, all)| before == all).count();
        if first == all.len() || first == 0 {
            return Err(Error::invalid("there is nothing to score")
                .hint("give a prompt and a continuation of a token or more"));
        }
        let tokens = all[first..].to_vec();
        let (mut log_probabilities, mut is_greedy) = (Vec::with_capacity(tokens.len()), true);
        // The last row predicts what follows the continuation.
        self.logits(&all[..all.len() - 1], first - 1, |at, logits| {
            let logit = logits[all[at + 1] as usize];
            log_probabilities.push(f64::from(logit) - log_sum_exp(logits));
            is_greedy &= logits.iter().all(|&other| other <= logit);
            Ok(())
        })?;
        Ok(Score { tokens, log_probabilities, is_greedy })
    }
}

/// ln Σ exp(logit), in f64.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    largest + logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum::<f64>().ln()
}
