//! Floor 3: from logits to one token. Slices in, a token out; nothing here knows a tokenizer or a device.
//!
//! A [`Chain`] is data: filters in order, then a seeded pick. Each filter is a file with its formula, and a line
//! in the list below.

mod pick;

use crate::error::{Error, Kind, Result};

pub use pick::uniform;

/// Tokens still in question with their logits, the largest first; among equals the smaller token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Candidates {
    /// Token and logit.
    pub entries: Vec<(u32, f32)>,
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

    /// How much of the logits the chain has to see to give the same answer as with all of them.
    pub fn sees(&self) -> Sees {
        match self.filters.first() {
            Some(Filter::RepeatPenalty(_)) => Sees::All,
            _ if self.greedy => Sees::Best,
            Some(Filter::TopK(top)) => Sees::Top(top.k),
            _ => Sees::All,
        }
    }

    /// The token at step `step` of the answer, given all logits and the tokens so far.
    ///
    /// # Errors
    /// [`crate::Kind::WrongNumbers`] where a logit is NaN or infinite upwards.
    pub fn pick(&self, logits: &[f32], history: &[u32], step: u64) -> Result<u32> {
        let entries = logits.iter().enumerate().map(|(token, &logit)| (token as u32, logit)).collect();
        self.pick_from(Candidates { entries }, history, step)
    }

    /// The token at step `step`, given as many candidates as [`Self::sees`] asks for.
    ///
    /// # Errors
    /// [`crate::Kind::WrongNumbers`] where a logit is NaN or infinite upwards, or where there is none.
    pub fn pick_from(&self, mut candidates: Candidates, history: &[u32], step: u64) -> Result<u32> {
        if let Some((token, logit)) =
            candidates.entries.iter().find(|(_, logit)| logit.is_nan() || *logit == f32::INFINITY)
        {
            let what = format!("the logit of token {token} is {logit}");
            return Err(Error::new(Kind::WrongNumbers, what).at(format!("step {step}")));
        }
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
        Ok(if self.greedy { best } else { pick::draw(&candidates, uniform(self.seed, step)) })
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
    /// Keeps the `count` largest, in order.
    pub fn keep_largest(&mut self, count: usize) {
        if count == 0 || count >= self.entries.len() {
            return;
        }
        self.entries.select_nth_unstable_by(count - 1, order);
        self.entries.truncate(count);
        self.sort();
    }

    /// Probabilities in the order of the entries.
    pub fn probabilities(&self) -> Vec<f64> {
        let largest =
            self.entries.iter().fold(f64::NEG_INFINITY, |largest, &(_, logit)| largest.max(f64::from(logit)));
        let weights: Vec<f64> =
            self.entries.iter().map(|&(_, logit)| (f64::from(logit) - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / total).collect()
    }

    fn sort(&mut self) {
        if !self.entries.is_sorted_by(|a, b| order(a, b).is_le()) {
            self.entries.sort_unstable_by(order);
        }
    }
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
        let mut top =
            Candidates { entries: logits.iter().enumerate().map(|(t, &l)| (t as u32, l)).collect() };
        top.keep_largest(40);
        for step in 0..200 {
            let from_top = chain.pick_from(top.clone(), &[], step).unwrap();
            assert_eq!(chain.pick(&logits, &[], step).unwrap(), from_top);
        }
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
        assert!(chain.pick(&[f32::NEG_INFINITY, 0.0], &[], 0).is_ok());
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
