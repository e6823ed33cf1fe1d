//! What a session sees of its history. Where the history is longer than the context and the session slides, it sees its
//! first tokens, which attention leans on (Xiao et al. 2023, arXiv 2309.17453, *attention sinks*), and the latest ones, side by side,
//! at positions without a gap. Which ones is a function of the history's length alone, so whoever computes it again, on another
//! device or in another process, sees the same.
//!
//! What moves to other positions is computed again: half a context for each half a context that is said. The keys are not
//! turned to their new places as some engines do, because keys that have seen forgotten tokens are not those of any text.

use crate::error::{Error, Kind, Result};

use super::runner::State;

/// What becomes of a session whose tokens are more than its context holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// A prompt that does not fit is refused with [`crate::Kind::ContextOverflow`], and an answer ends with
    /// [`super::FinishReason::Length`].
    #[default]
    Stop,
    /// It goes on with its first `sinks` tokens and as many of the latest ones as fit, between half of what is left and all of
    /// it. At least 4 sinks are advisable; more where instructions at the beginning are to stay.
    Slide {
        /// Tokens at the beginning that always stay in sight.
        sinks: u32,
    },
}

/// Tokens out of sight, those after the first `sinks`, where `total` are known and fewer than `context` can be seen.
fn dropped(total: u32, context: u32, sinks: u32) -> u32 {
    let step = ((context - sinks) / 2).max(1);
    match total.checked_sub(context) {
        None => 0,
        Some(over) => (over / step + 1) * step,
    }
}

impl Overflow {
    /// Tokens that a session does not see of so many; `None` where they do not fit.
    pub(super) fn dropped(self, total: u32, context: u32) -> Option<u32> {
        match self {
            Self::Stop => (total < context).then_some(0),
            Self::Slide { sinks } => Some(dropped(total, context, sinks)),
        }
    }

    /// The tokens of `history` that a session with a context of so many sees, and how many more it may know before it sees others;
    /// `None` where they do not fit.
    pub fn view(self, history: &[u32], context: u32) -> Option<(Vec<u32>, u32)> {
        let total = history.len() as u32;
        let state = State {
            history: history.to_vec(),
            overflow: self,
            dropped: self.dropped(total, context)?,
            ..State::default()
        };
        let seen: Vec<u32> = (0..state.seen()).map(|position| state.token(position)).collect();
        let room = context - seen.len() as u32 - 1;
        Some((seen, room))
    }

    /// # Errors
    /// `InvalidArgument` where the sinks leave no room in the context.
    pub fn check(self, context: u32) -> Result<()> {
        match self {
            Self::Slide { sinks } if sinks > context / 2 => {
                let what = format!("{sinks} sinks leave too little of a context of {context} tokens");
                Err(Error::invalid(what).hint("keep at most half of the context"))
            }
            Self::Slide { .. } | Self::Stop => Ok(()),
        }
    }
}

/// More tokens than a context holds.
pub(super) fn overflow(tokens: u32, context: u32) -> Error {
    let what = format!("the prompt has {tokens} tokens and the context holds {context}");
    Error::new(Kind::ContextOverflow, what)
        .hint("shorten it, let the session slide, or load with a larger context")
}

impl State {
    /// Tokens in sight.
    pub(super) fn seen(&self) -> u32 {
        self.history.len() as u32 - self.dropped
    }

    /// The token at a position, of the history or behind it of the guesses.
    pub(super) fn token(&self, position: u32) -> u32 {
        let place = self.place(position);
        let guessed = || self.guesses[place - self.history.len()];
        self.history.get(place).copied().unwrap_or_else(guessed)
    }

    /// Tokens in sight that are not computed yet.
    pub(super) fn pending(&self) -> u32 {
        self.seen() - self.computed
    }

    /// Puts `tokens` in place of the history, `dropped` of them out of sight, and keeps what is computed of the common
    /// beginning of what is seen, but for the last token: its logits are wanted.
    pub(super) fn rewrite(&mut self, tokens: Vec<u32>, dropped: u32) {
        let old = std::mem::replace(
            self,
            Self { history: tokens, overflow: self.overflow, dropped, ..Self::default() },
        );
        let most = old.computed.min(self.seen() - 1);
        let common = (0..most).take_while(|&position| old.token(position) == self.token(position)).count();
        let (history, computed) = (std::mem::take(&mut self.history), common as u32);
        *self = Self { history, dropped, computed, ..old };
    }

    /// Takes `dropped` tokens out of sight: whether others than before.
    pub(super) fn slide(&mut self, dropped: u32) -> bool {
        let slides = dropped != self.dropped;
        if slides {
            // The sinks stay where they are.
            self.computed = self.computed.min(self.sinks());
            self.dropped = dropped;
        }
        slides
    }

    fn sinks(&self) -> u32 {
        match self.overflow {
            Overflow::Stop => 0,
            Overflow::Slide { sinks } => sinks,
        }
    }

    fn place(&self, position: u32) -> usize {
        let skipped = if position < self.sinks() { 0 } else { self.dropped };
        (position + skipped) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(total: u32, context: u32, sinks: u32) -> State {
        let overflow = Overflow::Slide { sinks };
        let dropped = overflow.dropped(total, context).unwrap();
        State { history: (0..total).collect(), overflow, dropped, ..State::default() }
    }

    #[test]
    fn what_is_seen_fits_and_ends_with_the_latest() {
        for (context, sinks) in [(16, 4), (17, 0), (9, 4), (2, 1), (128, 64)] {
            for total in 1..5 * context {
                let state = state(total, context, sinks);
                let seen: Vec<u32> = (0..state.seen()).map(|position| state.token(position)).collect();
                assert!((1..context).contains(&state.seen()), "{total} of {context}");
                let tail = if state.dropped == 0 { 0 } else { sinks };
                assert!(seen[..tail as usize].iter().copied().eq(0..tail), "the sinks stay");
                assert!(
                    seen[tail as usize..].iter().copied().eq(tail + state.dropped..total),
                    "and the latest"
                );
                assert!(total < context || state.seen() + 1 >= context / 2, "half of it at least");
            }
        }
    }

    #[test]
    fn it_moves_rarely() {
        let mut moves = 0;
        let mut last = 0;
        for total in 0..4096 {
            let dropped = dropped(total, 1024, 4);
            assert!(dropped >= last);
            moves += u32::from(dropped != last);
            last = dropped;
        }
        assert_eq!(moves, 7);
    }

    #[test]
    fn what_is_computed_of_the_same_beginning_stays() {
        let mut state = state(100, 64, 4);
        state.computed = state.seen();
        let (history, dropped) = (state.history.clone(), state.dropped);
        let before = state.seen();
        state.rewrite([history.clone(), vec![7, 8]].concat(), dropped);
        assert_eq!((state.computed, state.pending()), (before, 2));
        // Another view shares the sinks and no more.
        state.computed = state.seen();
        state.rewrite([history, vec![7; 60]].concat(), dropped + 60);
        assert_eq!(state.computed, 4);
    }

    #[test]
    fn sinks_that_leave_no_room_are_refused() {
        assert!(Overflow::Slide { sinks: 65 }.check(128).is_err());
        assert!(Overflow::Slide { sinks: 64 }.check(128).is_ok());
        assert_eq!(Overflow::Stop.dropped(127, 128), Some(0));
        assert_eq!(Overflow::Stop.dropped(128, 128), None);
    }
}
