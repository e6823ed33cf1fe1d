//! Floor 3: from logits to one token. Slices in, a token out; nothing here knows a tokenizer or a device.
//!
//! A [`Chain`] is data: filters in order, then a seeded pick. Each filter is a file with its formula, and a line
//! in the list below. What is weighed is weighed in whole numbers ([`crate::base::chance`]): a chain that needs no more
//! than the largest logits can be [lowered](Chain::lower) for a device, which then picks the same tokens.

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
            fn apply(&self, candidates: &mut Candidates, history: &[u32]) {
                match self {
                    $(Self::$name(filter) => filter.apply(candidates, history),)*
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
    /// Makes tokens of the recent past less likely.
    RepeatPenalty => repeat_penalty,
    /// Keeps the k likeliest.
    TopK => top_k,
    /// Keeps the likeliest that together reach a probability.
    TopP => top_p,
    /// Keeps those not much less likely than the likeliest.
    MinP => min_p,
    /// Flattens or sharpens.
    Temperature => temperature,
}

/// How the next token is chosen: filters in order, then a pick.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    filters: Vec<Filter>,
    greedy: bool,
    seed: u64,
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

    /// How much of the logits the chain has to see to give the same answer as with all of them.
    pub fn sees(&self) -> Sees {
        match self.filters.first() {
            Some(Filter::RepeatPenalty(_)) => Sees::All,
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
        let entries = logits.iter().enumerate().map(|(token, &logit)| (token as u32, logit)).collect();
        self.pick_from(Candidates::new(entries), history, step)
    }

    /// [`Self::pick`] of the tokens that are allowed: token `t` where bit `t % 32` of `allowed[t / 32]` is set.
    ///
    /// # Errors
    /// As [`check_logits`].
    pub fn pick_allowed(&self, logits: &[f32], allowed: &[u32], history: &[u32], step: u64) -> Result<u32> {
        let entries = || (0u32..).zip(logits.iter().copied());
        check_logits(entries())?;
        let is_allowed =
            |token: u32| allowed.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1);
        let mut entries: Vec<(u32, f32)> = entries().filter(|&(token, _)| is_allowed(token)).collect();
        // A model may think all of them impossible; then they are alike.
        if !entries.is_empty() && entries.iter().all(|&(_, logit)| logit == f32::NEG_INFINITY) {
            entries.iter_mut().for_each(|entry| entry.1 = 0.0);
        }
        self.pick_from(Candidates::new(entries), history, step)
    }

    /// The token at step `step`, given as many candidates as [`Self::sees`] asks for.
    ///
    /// # Errors
    /// As [`check_logits`].
    pub fn pick_from(&self, mut candidates: Candidates, history: &[u32], step: u64) -> Result<u32> {
        check_logits(candidates.entries.iter().copied()).map_err(|error| error.at(format!("step {step}")))?;
        // Only the first filter of a chain without penalties may cut before sorting.
        match self.filters.first() {
            Some(Filter::TopK(top)) if !self.greedy => candidates.keep_largest(top.k as usize),
            Some(Filter::RepeatPenalty(_)) => {}
            _ if self.greedy => candidates.keep_largest(1),
            _ => {}
        }
        for filter in &self.filters {
            if !matches!(filter, Filter::RepeatPenalty(_)) {
                candidates.sort();
            }
            filter.apply(&mut candidates, history);
        }
        candidates.sort();
        let Some(&(best, _)) = candidates.entries.first() else {
            return Err(Error::new(Kind::WrongNumbers, "no token is left to pick from"));
        };
        Ok(if self.greedy { best } else { candidates.draw(counted(halves(self.seed), step)) })
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
mod tests {
    use super::*;

    fn chain(filters: Vec<Filter>) -> Chain {
        Chain::new(filters, false, 42).unwrap()
    }

    fn logits() -> Vec<f32> {
        crate::base::Seed::new(3).vector(1000, 8.0)
    }

    #[test]
    fn greedy_takes_the_largest_and_the_smaller_token_among_equals() {
        let chain = Chain::new(Vec::new(), true, 0).unwrap();
        assert_eq!(chain.pick(&[1.0, 3.0, 3.0, 2.0], &[], 0).unwrap(), 1);
        assert_eq!(chain.sees(), Sees::Best);
    }

    #[test]
    fn what_a_chain_sees_suffices() {
        let chain = chain(vec![
            Filter::TopK(TopK { k: 40 }),
            Filter::TopP(TopP { p: 0.9 }),
            Filter::Temperature(Temperature { temperature: 1.3 }),
        ]);
        assert_eq!(chain.sees(), Sees::Top(40));
        let logits = logits();
        let mut top = Candidates::new(logits.iter().enumerate().map(|(t, &l)| (t as u32, l)).collect());
        top.keep_largest(40);
        for step in 0..200 {
            let from_top = chain.pick_from(top.clone(), &[], step).unwrap();
            assert_eq!(chain.pick(&logits, &[], step).unwrap(), from_top);
        }
    }

    #[test]
    fn a_lowered_chain_picks_the_same_tokens() {
        let mut seed = crate::base::Seed::new(8);
        let mut kinds = std::collections::BTreeSet::new();
        for _ in 0..500 {
            let top = 1 + seed.below(64) as usize;
            let mut entries: Vec<(u32, f32)> = (0..top as u32)
                .zip(seed.vector(top, 9.0))
                .map(|(t, l)| (t, (8.0 * l).round() / 8.0))
                .collect();
            entries.sort_by(order);
            let filters: Vec<Filter> = (0..seed.below(5))
                .map(|_| {
                    let number = seed.signed().abs();
                    match seed.below(4) {
                        0 => Filter::TopK(TopK { k: seed.below(70) as u32 }),
                        1 => Filter::TopP(TopP { p: number }),
                        2 => Filter::MinP(MinP { p: number / 2.0 }),
                        _ => Filter::Temperature(Temperature { temperature: 3.0 * number + 0.01 }),
                    }
                })
                .collect();
            let chain = Chain::new(filters, false, seed.bits()).unwrap();
            let first = seed.below(100) as u32;
            let stages = chain.lower(first).unwrap();
            let logits: Vec<f32> = entries.iter().map(|entry| entry.1).collect();
            for step in 0..8u32 {
                let (token, _) = entries[stages.draw(&logits, first + step)];
                let picked = chain.pick_from(Candidates::new(entries.clone()), &[], step.into());
                assert_eq!(picked.unwrap(), token, "{chain}");
                kinds.insert(token);
            }
        }
        assert!(kinds.len() > 30, "draws of all kinds: {kinds:?}");
    }

    #[test]
    fn what_a_device_cannot_do_is_not_lowered() {
        let penalty = Filter::RepeatPenalty(RepeatPenalty { penalty: 1.1, last: 64 });
        assert_eq!(chain(vec![Filter::TopK(TopK { k: 4 }), penalty]).lower(0), None);
        assert_eq!(chain(vec![Filter::TopK(TopK { k: 4 }); 7]).lower(0), None);
        assert_eq!(Chain::new(Vec::new(), true, 0).unwrap().lower(0), None);
        assert_eq!(chain(vec![Filter::TopK(TopK { k: 0 })]).sees(), Sees::All);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let chain = chain(vec![Filter::Temperature(Temperature { temperature: 1.0 })]);
        let logits = [1.0f32.ln(), 2.0f32.ln(), 5.0f32.ln()];
        let mut counts = [0u32; 3];
        for step in 0..8000 {
            counts[chain.pick(&logits, &[], step).unwrap() as usize] += 1;
        }
        // Three standard deviations of a binomial count of 8000.
        for (count, expected) in counts.iter().zip([1000.0, 2000.0, 5000.0f64]) {
            assert!((f64::from(*count) - expected).abs() < 3.0 * 45.0, "{counts:?}");
        }
    }

    #[test]
    fn a_seed_gives_one_answer_and_another_seed_another() {
        let logits = logits();
        let warm = |seed| {
            let filters = vec![Filter::Temperature(Temperature { temperature: 2.0 })];
            let chain = Chain::new(filters, false, seed).unwrap();
            (0..20).map(|step| chain.pick(&logits, &[], step).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(warm(1), warm(1));
        assert_ne!(warm(1), warm(2));
    }

    #[test]
    fn not_a_number_is_refused() {
        let chain = Chain::new(Vec::new(), true, 0).unwrap();
        assert_eq!(chain.pick(&[1.0, f32::NAN], &[], 0).unwrap_err().kind(), Kind::WrongNumbers);
        let inf = f32::INFINITY;
        for logits in [&[1.0, inf][..], &[-inf, -inf], &[-inf, f32::NAN], &[]] {
            assert_eq!(chain.pick(logits, &[], 0).unwrap_err().kind(), Kind::WrongNumbers, "{logits:?}");
        }
        // A token may be impossible.
        assert_eq!(chain.pick(&[-inf, 0.0, -inf], &[], 0).unwrap(), 1);
        let drawn = Chain::new(vec![Filter::TopK(TopK { k: 3 })], false, 5).unwrap();
        assert!((0..50).all(|step| drawn.pick(&[-inf, 0.0, -inf], &[], step).unwrap() == 1));
        assert!(drawn.pick(&[-inf; 3], &[], 0).is_err());
    }

    #[test]
    fn a_penalty_lowers_what_was_said() {
        let greedy = |penalty| {
            let filter = Filter::RepeatPenalty(RepeatPenalty { penalty, last: 64 });
            Chain::new(vec![filter], true, 0).unwrap()
        };
        assert_eq!(greedy(1.0).pick(&[2.0, 1.5], &[0], 0).unwrap(), 0);
        assert_eq!(greedy(2.0).pick(&[2.0, 1.5], &[0], 0).unwrap(), 1);
        assert_eq!(greedy(2.0).pick(&[-2.0, -3.0], &[0], 0).unwrap(), 1);
        assert_eq!(greedy(2.0).sees(), Sees::All);
    }

    #[test]
    fn absurd_numbers_are_refused() {
        assert!(Chain::new(vec![Filter::TopP(TopP { p: f32::NAN })], false, 0).is_err());
        assert!(Chain::new(vec![Filter::Temperature(Temperature { temperature: -1.0 })], false, 0).is_err());
        assert!(Chain::new(vec![Filter::MinP(MinP { p: 2.0 })], false, 0).is_err());
        assert!(
            Chain::new(vec![Filter::RepeatPenalty(RepeatPenalty { penalty: 0.0, last: 1 })], false, 0)
                .is_err()
        );
    }
}
