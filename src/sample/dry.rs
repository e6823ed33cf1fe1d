//! "Don't repeat yourself" (p-e-w, text-generation-webui, pull request 5677): where the past ends in n tokens that it held
//! before, the token that followed them then loses `multiplier · base^(n − allowed)`, for the longest such n ≥ `allowed`.

use std::collections::HashMap;

use super::{Candidates, Lowering, Past};
use crate::error::{Error, Result};

/// The longest repetition that is told from longer ones; what it costs is beyond any logit.
const MOST: usize = 128;

/// Makes tokens that would go on with a repetition less likely, the more the longer it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Dry {
    /// 0 changes nothing.
    pub multiplier: f32,
    /// What each token of a repetition adds to the penalty, as a factor.
    pub base: f32,
    /// The length from which a repetition counts.
    pub allowed: usize,
    /// How many tokens of the past count.
    pub last: usize,
    /// Tokens that no repetition goes over.
    pub breakers: Vec<u32>,
}

impl Default for Dry {
    /// Off, and otherwise as its author uses it.
    fn default() -> Self {
        Self { multiplier: 0.0, base: 1.75, allowed: 2, last: 1024, breakers: Vec::new() }
    }
}

impl Dry {
    pub(super) fn check(&self) -> Result<()> {
        let is_sound = self.multiplier.is_finite() && self.multiplier >= 0.0;
        match is_sound && self.base.is_finite() && self.base >= 1.0 {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "a DRY multiplier of {} and a base of {} are not from 0 and from 1 on",
                self.multiplier, self.base
            ))),
        }
    }

    pub(super) fn apply(&self, candidates: &mut Candidates, past: &Past) {
        let longest = self.longest(past.recent(self.last));
        for (token, logit) in &mut candidates.entries {
            if let Some(&length) = longest.get(token) {
                let power = i32::try_from(length - self.allowed).unwrap_or(i32::MAX);
                *logit -= (self.multiplier * self.base.powi(power)).min(f32::MAX);
            }
        }
    }

    /// By token, the longest repetition that it would go on with.
    fn longest(&self, past: &[u32]) -> HashMap<u32, usize> {
        let mut longest = HashMap::new();
        let goes_on = |at: usize, back: usize| {
            let token = past[at - back];
            token == past[past.len() - 1 - back] && !self.breakers.contains(&token)
        };
        for at in 0..past.len().saturating_sub(1) {
            let length = (0..=at.min(MOST - 1)).take_while(|&back| goes_on(at, back)).count();
            if length >= self.allowed.max(1) && !self.breakers.contains(&past[at + 1]) {
                let most = longest.entry(past[at + 1]).or_default();
                *most = length.max(*most);
            }
        }
        longest
    }

    /// Needs the history, which no device has.
    pub(super) fn lower(&self, lowering: &mut Lowering) {
        lowering.is_possible = false;
    }
}

impl std::fmt::Display for Dry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "dry {} · {}^(n − {}) over {}", self.multiplier, self.base, self.allowed, self.last)
    }
}
