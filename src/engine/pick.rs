//! Tokens that the host picks: by a chain that no device can be given, or of those that a constraint allows.

use std::borrow::Cow;

use crate::error::Result;
use crate::sample::Past;

use super::caught::caught;
use super::event::Chosen;
use super::runner::{Runner, SessionId};
use super::score::log_sum_exp;

/// A token that follows a history.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Next {
    pub(super) token: u32,
    /// How likely it was, where somebody asked.
    pub(super) chosen: Option<Chosen>,
}

impl From<u32> for Next {
    fn from(token: u32) -> Self {
        Self { token, chosen: None }
    }
}

impl Runner {
    /// Finds out what a constraint lets follow, if the session's answer has one. What goes wrong is said when a token is
    /// picked by it.
    pub(super) fn prepare(&mut self, id: SessionId) {
        let job = self.sessions.get_mut(&id).and_then(|state| state.job.as_mut());
        let _said_later = job.and_then(|job| job.guide.as_mut()).map(|guide| caught(|| guide.prepare()));
    }

    /// Whether the host has to see the logits, whatever the chain: for a constraint, or to tell of them.
    pub(super) fn needs_logits(&self, id: SessionId) -> bool {
        let job = self.sessions.get(&id).and_then(|state| state.job.as_ref());
        job.is_some_and(|job| job.guide.is_some() || job.log_probabilities.is_some())
    }

    /// The next token after the history and `guesses` by the session's chain, of those that its constraint allows; `None`
    /// without an answer.
    pub(super) fn choose(&mut self, id: SessionId, logits: &[f32], guesses: &[u32]) -> Option<Result<Next>> {
        let state = self.sessions.get_mut(&id)?;
        let job = state.job.as_mut()?;
        let known = match guesses {
            [] => Cow::Borrowed(&state.history),
            guesses => Cow::Owned([&state.history, guesses].concat()),
        };
        let step = known.len() as u64 - u64::from(job.prompt_tokens);
        let past = Past::of(&known, step, job.limits[0]);
        let (chain, guide) = (&job.chain, &mut job.guide);
        let picked = caught(|| match guide {
            None => chain.pick_allowed(logits, None, past),
            Some(guide) => {
                guide.allowed().and_then(|allowed| chain.pick_allowed(logits, Some(allowed), past))
            }
        });
        Some(picked.map(|picked| {
            job.limits[1] = picked.limit;
            let chosen = job.log_probabilities.map(|count| Chosen::of(picked.token, logits, count as usize));
            Next { token: picked.token, chosen }
        }))
    }

    /// The next tokens of an answer that its constraint leaves no choice about, where nobody wants to know how likely they are. They
    /// need not be chosen, so what they would be chosen from is not computed.
    pub(super) fn forced(&mut self, id: SessionId) -> Result<Vec<u32>> {
        let job = self.sessions.get_mut(&id).and_then(|state| state.job.as_mut());
        let job = job.filter(|job| job.log_probabilities.is_none() && job.chain.takes_the_only_one());
        let Some(guide) = job.and_then(|job| job.guide.as_mut()) else { return Ok(Vec::new()) };
        caught(|| Ok(guide.forced()))
    }

    /// What mirostat knows of the tokens so far.
    pub(super) fn limit(&self, id: SessionId) -> Option<f64> {
        self.sessions.get(&id)?.job.as_ref()?.limits[0]
    }
}

impl Chosen {
    /// A token and the `count` likeliest by `logits`; among equals the smaller token.
    fn of(token: u32, logits: &[f32], count: usize) -> Self {
        let total = log_sum_exp(logits);
        let log_probability =
            |token: u32| logits.get(token as usize).map_or(f64::NAN, |&logit| f64::from(logit) - total);
        let mut likeliest: Vec<(u32, f32)> = Vec::with_capacity(count + 1);
        for (token, &logit) in (0..).zip(logits) {
            if likeliest.len() == count && likeliest.last().is_none_or(|&(_, least)| logit <= least) {
                continue;
            }
            let at = likeliest.partition_point(|&(_, other)| other >= logit);
            likeliest.insert(at, (token, logit));
            likeliest.truncate(count);
        }
        let likeliest = likeliest.into_iter().map(|(token, _)| (token, log_probability(token))).collect();
        Self { token, log_probability: log_probability(token), likeliest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_first_and_all_are_one() {
        let logits = [0.0, 2.0, 1.0, 2.0, -1.0];
        let of = |count| Chosen::of(2, &logits, count);
        let tokens = |count| of(count).likeliest.iter().map(|(token, _)| *token).collect::<Vec<_>>();
        assert_eq!((tokens(0), tokens(1), tokens(3)), (vec![], vec![1], vec![1, 3, 2]));
        assert_eq!(tokens(9), [1, 3, 2, 0, 4]);
        let sum: f64 = of(9).likeliest.iter().map(|(_, log)| log.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{sum}");
        assert_eq!(of(3).log_probability, of(3).likeliest[2].1);
    }
}
