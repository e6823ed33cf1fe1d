//! Floor 3: from logits to one token. Slices in, a token out; nothing here knows a tokenizer or a device.
//!
//! A [`Chain`] is data: filters in order, then a seeded pick. Each filter is a file with its formula, and a line
//! in the list below. What is weighed is weighed in whole numbers ([`crate::base::chance`]): a chain that needs no more
//! than the largest logits can be [lowered](Chain::lower) for a device, which then picks the same tokens.

use std::collections::HashMap;

use crate::base::chance::{Stage, Stages, counted};
use crate::error::{Error, Kind, Result};

/// Tokens still in question with their logits, the largest first; among equals the smaller token.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidates {
    /// Token and logit.
    pub entries: Vec<(u32, f32)>,
    /// By what differences of logits are multiplied: 1 / temperature.
    pub sharpness: f64,
}

/// A chain on its way to a device.
#[derive(Debug)]
struct Lowering {
    stages: Vec<Stage>,
    sharpness: f64,
    is_possible: bool,
}

macro_rules! samplers {
    ($($(#[$doc:meta])* $name:ident => $module:ident,)*) => {
        $(mod $module; pub use $module::$name;)*

        /// A step of the chain.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Filter {
            $($(#[$doc])* $name($name),)*
        }

        impl Filter {
            fn apply(&self, candidates: &mut Candidates, past: &Past) {
                match self {
                    $(Self::$name(filter) => filter.apply(candidates, past),)*
                }
            }

            fn lower(&self, lowering: &mut Lowering) {
                match self {
                    $(Self::$name(filter) => filter.lower(lowering),)*
                }
            }

            fn check(&self) -> Result<()> {
                match self {
                    $(Self::$name(filter) => filter.check(),)*
                }
            }
        }

        impl std::fmt::Display for Filter {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Self::$name(filter) => write!(f, "{filter}"),)*
                }
            }
        }
    };
}

samplers! {
    /// Makes tokens likelier, less likely or impossible.
    LogitBias => logit_bias,
    /// Makes tokens of the recent past less likely.
    RepeatPenalty => repeat_penalty,
    /// Makes a token less likely each time that it comes again.
    FrequencyPenalty => frequency_penalty,
    /// Makes tokens of the recent past less likely, once.
    PresencePenalty => presence_penalty,
    /// Makes tokens that would go on with a repetition less likely.
    Dry => dry,
    /// Keeps the k likeliest.
    TopK => top_k,
    /// Keeps those that are as surprising as the text on average.
    Typical => typical,
    /// Keeps the likeliest that together reach a probability.
    TopP => top_p,
    /// Keeps those not much less likely than the likeliest.
    MinP => min_p,
    /// Sometimes takes the likeliest out.
    Xtc => xtc,
    /// Flattens or sharpens.
    Temperature => temperature,
    /// Keeps the text as surprising as is wished.
    Mirostat => mirostat,
}

/// How the next token is chosen: filters in order, then a pick.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    filters: Vec<Filter>,
    greedy: bool,
    seed: u64,
}

/// What came before the token that is picked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Past<'a> {
    /// The tokens so far, those of the prompt included.
    pub tokens: &'a [u32],
    /// Which token of the answer is picked.
    pub step: u64,
    /// Mirostat's limit, which [`Picked`] told of the token before; `None` for the first.
    pub limit: Option<f64>,
    /// What the chain's draws are a function of.
    seed: [u32; 2],
}

/// A token, and what the next pick has to know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Picked {
    /// The token.
    pub token: u32,
    /// Mirostat's limit, where the chain has one.
    pub limit: Option<f64>,
}

/// How much of the logits a [`Chain`] has to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    /// The token of the largest.
    Best,
    /// This many of the largest.
    Top(u32),
    /// All.
    All,
}

impl Chain {
    /// A chain that takes the likeliest token after `filters` (greedy), or draws one with `seed`.
    ///
    /// # Errors
    /// [`crate::Kind::InvalidArgument`] where a number is outside its range.
    pub fn new(filters: Vec<Filter>, greedy: bool, seed: u64) -> Result<Self> {
        filters.iter().try_for_each(Filter::check)?;
        Ok(Self { filters, greedy, seed })
    }

    /// What its draws are a function of, where it draws.
    pub fn seed(&self) -> Option<u64> {
        (!self.greedy).then_some(self.seed)
    }

    /// Whether a pick depends on the one before it by more than its token, so that none can be made ahead.
    pub fn remembers(&self) -> bool {
        self.filters.iter().any(|filter| matches!(filter, Filter::Mirostat(_)))
    }

    /// Whether a token is picked, whatever its logit, where it is the only one that is allowed: no bias bars it, and no pick
    /// after it depends on how likely it was.
    pub fn takes_the_only_one(&self) -> bool {
        !self.filters.iter().any(|filter| matches!(filter, Filter::LogitBias(_) | Filter::Mirostat(_)))
    }

    /// How much of the logits the chain has to see to give the same answer as with all of them.
    pub fn sees(&self) -> Sees {
        match self.filters.first() {
            Some(filter) if filter.weighs() => Sees::All,
            _ if self.greedy => Sees::Best,
            Some(Filter::TopK(top)) if top.k > 0 => Sees::Top(top.k),
            _ => Sees::All,
        }
    }

    /// The chain for a device that has as many of the largest logits as [`Self::sees`] asks for; `first` is the
    /// position of the answer's first token. `None` where a device cannot do what a filter does.
    pub fn lower(&self, first: u32) -> Option<Stages> {
        let mut lowering = Lowering { stages: Vec::new(), sharpness: 1.0, is_possible: true };
        self.filters.iter().for_each(|filter| filter.lower(&mut lowering));
        lowering.push(Stage::draw(lowering.sharpness));
        let count = lowering.stages.len();
        if self.greedy || !lowering.is_possible || count > Stages::MOST {
            return None;
        }
        let mut stages = Stages { count: count as u32, seed: halves(self.seed), first, ..Stages::default() };
        stages.list[..count].copy_from_slice(&lowering.stages);
        Some(stages)
    }

    /// The token at step `step` of the answer, given all logits and the tokens so far.
    ///
    /// # Errors
    /// As [`check_logits`].
    pub fn pick(&self, logits: &[f32], history: &[u32], step: u64) -> Result<u32> {
        let entries = (0..).zip(logits.iter().copied()).collect();
        self.pick_from(Candidates::new(entries), history, step)
    }

    /// The token at step `step`, given as many candidates as [`Self::sees`] asks for.
    ///
    /// # Errors
    /// As [`check_logits`].
    pub fn pick_from(&self, candidates: Candidates, history: &[u32], step: u64) -> Result<u32> {
        let past = Past { tokens: history, step, ..Past::default() };
        self.pick_after(candidates, past).map(|picked| picked.token)
    }

    /// The token after `past`, given all logits, of those that are allowed: all, or token `t` where bit `t % 32` of
    /// `allowed[t / 32]` is set.
    ///
    /// # Errors
    /// As [`check_logits`].
    pub fn pick_allowed(&self, logits: &[f32], allowed: Option<&[u32]>, past: Past) -> Result<Picked> {
        let entries = || (0u32..).zip(logits.iter().copied());
        let Some(allowed) = allowed else {
            return self.pick_after(Candidates::new(entries().collect()), past);
        };
        check_logits(entries()).map_err(|error| error.at(format!("step {}", past.step)))?;
        let is_allowed = |token: u32| {
            let word = allowed.get(token as usize / 32);
            word.is_some_and(|word| word >> (token % 32) & 1 == 1)
        };
        let mut entries: Vec<(u32, f32)> = entries().filter(|&(token, _)| is_allowed(token)).collect();
        // A model may think all of them impossible; then they are alike.
        if !entries.is_empty() && entries.iter().all(|&(_, logit)| logit == f32::NEG_INFINITY) {
            entries.iter_mut().for_each(|entry| entry.1 = 0.0);
        }
        self.pick_after(Candidates::new(entries), past)
    }

    /// The token after `past`, given as many candidates as [`Self::sees`] asks for.
    ///
    /// # Errors
    /// As [`check_logits`].
    pub fn pick_after(&self, mut candidates: Candidates, past: Past) -> Result<Picked> {
        let step = past.step;
        check_logits(candidates.entries.iter().copied()).map_err(|error| error.at(format!("step {step}")))?;
        let past = Past { seed: halves(self.seed), ..past };
        // Only the first filter of a chain that weighs nothing anew may cut before sorting.
        match self.filters.first() {
            Some(filter) if filter.weighs() => {}
            Some(Filter::TopK(top)) if !self.greedy => candidates.keep_largest(top.k as usize),
            _ if self.greedy => candidates.keep_largest(1),
            _ => {}
        }
        for filter in &self.filters {
            if !filter.weighs() {
                candidates.sort();
            }
            filter.apply(&mut candidates, &past);
        }
        candidates.sort();
        let Some(&(best, largest)) = candidates.entries.first() else {
            return Err(Error::new(Kind::WrongNumbers, "no token is left to pick from"));
        };
        // What all tokens of an answer are barred from by biases is no answer.
        if largest == f32::NEG_INFINITY {
            return Err(Error::invalid("every token that could follow has a bias of -inf")
                .at(format!("step {step}"))
                .hint("leave one"));
        }
        let token = if self.greedy { best } else { candidates.draw(counted(past.seed, step)) };
        let limit = self.filters.iter().find_map(|filter| match filter {
            Filter::Mirostat(mirostat) => Some(mirostat.next(&candidates, token, &past)),
            _ => None,
        });
        Ok(Picked { token, limit })
    }
}

impl Filter {
    /// Whether it changes logits by what they stand for, so that their order may be another.
    fn weighs(&self) -> bool {
        matches!(
            self,
            Self::LogitBias(_)
                | Self::RepeatPenalty(_)
                | Self::FrequencyPenalty(_)
                | Self::PresencePenalty(_)
                | Self::Dry(_)
        )
    }
}

impl<'a> Past<'a> {
    /// What came before: the tokens, how many of them are the answer's, and mirostat's limit.
    pub fn of(tokens: &'a [u32], step: u64, limit: Option<f64>) -> Self {
        Self { tokens, step, limit, seed: [0; 2] }
    }

    /// The last tokens.
    fn recent(&self, last: usize) -> &'a [u32] {
        &self.tokens[self.tokens.len().saturating_sub(last)..]
    }

    /// How often each of the last tokens is there.
    fn counts(&self, last: usize) -> HashMap<u32, u32> {
        let mut counts = HashMap::new();
        for &token in self.recent(last) {
            *counts.entry(token).or_default() += 1;
        }
        counts
    }

    /// A number in 0 .. 1 for this step, another than the one that draws.
    fn chance(&self) -> f64 {
        let seed = [self.seed[0] ^ 0x7874_6321, self.seed[1]];
        f64::from(counted(seed, self.step)) / f64::from(1 << 24)
    }
}

/// Whether a token can be picked from these: tokens and their logits. Infinite downwards is a token that is impossible.
///
/// # Errors
/// [`crate::Kind::WrongNumbers`] where a logit is NaN or infinite upwards, or where no token is possible.
pub fn check_logits(entries: impl Iterator<Item = (u32, f32)>) -> Result<()> {
    let mut is_possible = false;
    for (token, logit) in entries {
        if logit.is_nan() || logit == f32::INFINITY {
            let what = format!("the logit of token {token} is {logit}");
            return Err(Error::new(Kind::WrongNumbers, what));
        }
        is_possible |= logit.is_finite();
    }
    match is_possible {
        true => Ok(()),
        false => Err(Error::new(Kind::WrongNumbers, "no token is possible: no logit is finite")),
    }
}

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for filter in &self.filters {
            write!(f, "{filter} → ")?;
        }
        match self.greedy {
            true => f.write_str("greedy"),
            false => write!(f, "seed {}", self.seed),
        }
    }
}

impl Candidates {
    /// Candidates that nothing has been done to.
    pub fn new(entries: Vec<(u32, f32)>) -> Self {
        Self { entries, sharpness: 1.0 }
    }

    /// Keeps the `count` largest, in order.
    pub fn keep_largest(&mut self, count: usize) {
        if count == 0 || count >= self.entries.len() {
            return;
        }
        self.entries.select_nth_unstable_by(count - 1, order);
        self.entries.truncate(count);
        self.sort();
    }

    /// Keeps what `stage` keeps of entries in order.
    fn keep(&mut self, stage: Stage) {
        self.entries.truncate(stage.kept(&self.logits()));
    }

    /// The token of entries in order that `chance` falls on.
    fn draw(&self, chance: u32) -> u32 {
        self.entries[Stage::draw(self.sharpness).drawn(&self.logits(), chance)].0
    }

    /// The probabilities of entries in order, as they are now.
    fn probabilities(&self) -> Vec<f64> {
        let largest = self.entries.first().map_or(0.0, |entry| f64::from(entry.1));
        let weight = |&(_, logit): &(u32, f32)| ((f64::from(logit) - largest) * self.sharpness).exp();
        let weights: Vec<f64> = self.entries.iter().map(weight).collect();
        let total: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / total).collect()
    }

    fn logits(&self) -> Vec<f32> {
        self.entries.iter().map(|&(_, logit)| logit).collect()
    }

    fn sort(&mut self) {
        if !self.entries.is_sorted_by(|a, b| order(a, b).is_le()) {
            self.entries.sort_unstable_by(order);
        }
    }
}

impl Lowering {
    fn push(&mut self, stage: Stage) {
        self.stages.push(stage);
    }
}

/// The lower and the upper half.
fn halves(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}

fn order(a: &(u32, f32), b: &(u32, f32)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
