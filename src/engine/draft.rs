//! Drafts: the next tokens guessed, and all of them checked in one submission, which costs a device little more than one token
//! (Leviathan et al. 2023, arXiv 2211.17192). Every token is still picked by the answer's own chain from the model's own logits:
//! a guess counts only where it is what was picked, so the answer is the same with drafts and without.
//!
//! Guessing pays where the guesses are good and a submission of a few rows costs about as much as one of one row. Nobody can know
//! that beforehand, so it is measured: an answer begins without drafts, tries them, and leaves them off for a while,
//! each time for longer, wherever they make it slower.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::sample::Chain;

use super::answer::Answer;
use super::event::Event;
use super::model::{Core, Model};
use super::runner::{Request, SessionId};
use super::view::Overflow;

/// Where guesses of the next tokens come from.
#[derive(Clone, Debug)]
pub enum Draft {
    /// What followed the last time that the latest tokens stood in the session (Saxena 2023, *prompt lookup decoding*): good where
    /// an answer repeats what it was given, as summaries and changed code do. Takes no second model.
    Lookup,
    /// The likeliest tokens of a smaller model with the same vocabulary.
    Model(Model),
}

/// The fewest latest tokens that must have stood there before, and the most that are looked for.
const GRAM: std::ops::RangeInclusive<usize> = 2..=4;

/// The guesses of an answer, and whether they pay.
pub(super) struct Drafter {
    source: Source,
    judge: Judge,
    landed: Option<Instant>,
    /// Tokens guessed, and those of them that were picked.
    pub(super) tally: [u32; 2],
}

enum Source {
    Lookup,
    /// A session of another model.
    Model(Arc<Core>, SessionId),
}

impl Drafter {
    /// # Errors
    /// `InvalidArgument` where the model cannot guess for `target`.
    pub(super) fn new(draft: &Draft, target: &Core) -> Result<Self> {
        let source = match draft {
            Draft::Lookup => Source::Lookup,
            Draft::Model(model) => Source::of(model, target)?,
        };
        Ok(Self { source, judge: Judge::default(), landed: None, tally: [0; 2] })
    }

    /// Whether guesses are to be made now.
    pub(super) fn is_on(&self) -> bool {
        matches!(self.judge.phase, Phase::Drafted(_))
    }

    /// Guesses of what follows `history`, at most `most`.
    pub(super) fn guess(&mut self, history: &[u32], most: usize) -> Vec<u32> {
        let guesses = match &self.source {
            Source::Lookup => lookup(history, most),
            Source::Model(core, id) => core.guess(*id, history, most as u32),
        };
        self.tally[0] += guesses.len() as u32;
        guesses
    }

    /// So many tokens landed at once.
    pub(super) fn landed(&mut self, tokens: u32) {
        self.tally[1] += tokens.saturating_sub(1);
        let now = Instant::now();
        // What came before the first token was the prompt.
        if let Some(last) = self.landed.replace(now) {
            self.judge.landed(tokens, now - last);
        }
    }
}

impl Source {
    fn of(model: &Model, target: &Core) -> Result<Self> {
        let core = model.core();
        let (own, other) = (core.info.vocab, target.info.vocab);
        if std::ptr::eq(&raw const **core, target) {
            return Err(Error::invalid("a model cannot draft for itself")
                .hint("load it a second time, or better a smaller one"));
        }
        if own != other {
            let what = format!("the drafting model has {own} tokens and the model {other}");
            return Err(Error::invalid(what).hint("draft with a model of the same family"));
        }
        let mut runner = core.runner();
        let id = runner.open();
        let sinks = 4.min(core.info.context / 2);
        runner.set_overflow(id, Overflow::Slide { sinks })?;
        drop(runner);
        Ok(Self::Model(core.clone(), id))
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Self::Model(core, id) = self {
            core.leave(*id);
        }
    }
}

/// What followed the latest place where the longest run of the latest tokens stood before.
fn lookup(history: &[u32], most: usize) -> Vec<u32> {
    for gram in GRAM.rev() {
        let Some(start) = history.len().checked_sub(gram) else { continue };
        let latest = &history[start..];
        let found = (0..start).rev().find(|&at| &history[at..at + gram] == latest);
        if let Some(at) = found {
            let after = &history[at + gram..];
            return after[..most.min(after.len())].to_vec();
        }
    }
    Vec::new()
}

impl Core {
    /// The tokens that the model finds likeliest after `history`; none where it cannot say at once.
    fn guess(&self, id: SessionId, history: &[u32], most: u32) -> Vec<u32> {
        // Not a wait: whoever computes there may wait for who asks here.
        let Some(mut runner) = self.try_runner() else { return Vec::new() };
        let Ok(chain) = Chain::new(Vec::new(), true, 0) else { return Vec::new() };
        let request = Request {
            tokens: history.to_vec(),
            prompt_tokens: None,
            chain,
            answer: Answer::new(None, Vec::new()),
            guide: None,
            limit: None,
            drafter: None,
            log_probabilities: None,
            max_tokens: Some(most),
            ends: Vec::new(),
        };
        let Ok(queue) = runner.begin(id, request).inspect_err(|error| log::debug!("no draft: {error}"))
        else {
            return Vec::new();
        };
        loop {
            let progress = runner.tick(None, true);
            while let Some(event) = queue.pop() {
                match event {
                    Ok(Event::Finished(finish)) => return finish.tokens,
                    Ok(_) => {}
                    Err(_) => return Vec::new(),
                }
            }
            // It stands still, or its device is gone.
            if !progress.is_ok_and(|progress| progress.rest.is_none()) {
                queue.cancel();
                runner.cancel();
                return Vec::new();
            }
        }
    }
}

/// Tokens without drafts before the first ones are tried.
const PLAIN: u32 = 8;
/// Tokens with drafts before they are judged.
const TRIAL: u32 = 16;
/// Tokens without drafts after the first time that they did not pay, and at most.
const REST: [u32; 2] = [64, 1024];
/// What of the past counts beside each new time.
const MEMORY: f64 = 0.9;

/// Whether drafts pay.
#[derive(Debug)]
struct Judge {
    plain: Rate,
    drafted: Rate,
    phase: Phase,
    rest: u32,
}

#[derive(Debug, PartialEq)]
enum Phase {
    /// So many tokens without drafts are left.
    Plain(u32),
    /// So many tokens came with drafts.
    Drafted(u32),
}

impl Default for Judge {
    fn default() -> Self {
        Self { plain: Rate::default(), drafted: Rate::default(), phase: Phase::Plain(PLAIN), rest: REST[0] }
    }
}

impl Judge {
    fn landed(&mut self, tokens: u32, time: Duration) {
        match &mut self.phase {
            Phase::Plain(left) => {
                self.plain.add(tokens, time);
                *left = left.saturating_sub(tokens);
                if *left == 0 {
                    self.drafted = Rate::default();
                    self.phase = Phase::Drafted(0);
                }
            }
            Phase::Drafted(so_far) => {
                self.drafted.add(tokens, time);
                *so_far += tokens;
                if *so_far >= TRIAL && self.drafted.seconds() > self.plain.seconds() {
                    self.phase = Phase::Plain(self.rest);
                    self.rest = (2 * self.rest).min(REST[1]);
                }
            }
        }
    }
}

/// Seconds that a token takes, lately.
#[derive(Debug, Default)]
struct Rate {
    time: f64,
    tokens: f64,
}

impl Rate {
    fn add(&mut self, tokens: u32, time: Duration) {
        self.time = MEMORY * self.time + time.as_secs_f64();
        self.tokens = MEMORY * self.tokens + f64::from(tokens);
    }

    fn seconds(&self) -> f64 {
        if self.tokens == 0.0 { 0.0 } else { self.time / self.tokens }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_place_of_the_longest_run_is_looked_up() {
        let history = [1, 2, 3, 4, 5, 9, 2, 3, 7, 8, 1, 2, 3];
        assert_eq!(lookup(&history, 3), [4, 5, 9], "1 2 3, not the later 2 3");
        assert_eq!(lookup(&history, 1), [4]);
        assert_eq!(lookup(&[2, 3, 7, 2, 3, 8, 2, 3], 2), [8, 2], "the later one");
        assert_eq!(lookup(&[5, 5, 5], 4), [5], "as far as there is anything");
        for nothing in [&[][..], &[1], &[1, 1], &[1, 2, 3, 4]] {
            assert!(lookup(nothing, 4).is_empty());
        }
    }

    fn run(judge: &mut Judge, tokens: u32, plain_ms: u64, drafted: (u32, u64)) -> u32 {
        let (mut told, mut with) = (0, 0);
        while told < tokens {
            let (count, ms) = match judge.phase {
                Phase::Plain(_) => (1, plain_ms),
                Phase::Drafted(_) => drafted,
            };
            with += if matches!(judge.phase, Phase::Drafted(_)) { count } else { 0 };
            judge.landed(count, Duration::from_millis(ms));
            told += count;
        }
        with
    }

    #[test]
    fn what_pays_stays_on_and_what_does_not_is_left() {
        // Three tokens for the time of two.
        assert_eq!(run(&mut Judge::default(), 2000, 10, (3, 20)), 1992);
        // One token for the time of one and a half: tried ever more rarely.
        let with = run(&mut Judge::default(), 2000, 10, (1, 15));
        assert!((TRIAL..6 * TRIAL).contains(&with), "{with} tokens were drafted in vain");
        // An answer that begins to repeat itself.
        let mut judge = Judge::default();
        run(&mut judge, 300, 10, (1, 15));
        assert!(run(&mut judge, 1000, 10, (4, 15)) > 600);
    }
}
