//! Figures that are better looked at than read.

use std::collections::VecDeque;
use std::time::Instant;

use pocketlm::Finish;

use crate::state::Answering;
use crate::worker::Measured;

/// Slices that are shown.
const SLICES: usize = 240;
/// Rates that are shown.
const RATES: usize = 120;

/// The figures of the latest answer, and of the device.
#[derive(Clone, Debug, Default)]
pub struct Meters {
    /// Tokens per second of the answer: an estimate while it is being written.
    pub rate: Option<f64>,
    /// The same over time.
    pub rates: VecDeque<f32>,
    /// Seconds from the request to the first token.
    pub first_token: Option<f64>,
    /// Tokens of the context that are in use.
    pub used: u32,
    /// Tokens of the prompt that were still computed from before, and all.
    pub reused: Option<(u32, u32)>,
    /// Joules of the answer, and for each of its tokens.
    pub joules: Option<(f64, f64)>,
    /// Milliseconds of the latest slices, the latest last.
    pub slices: VecDeque<f32>,
    /// How the device fares.
    pub device: Measured,
    /// Whether the latest answer has ended, so that its figures are exact.
    pub is_exact: bool,
}

impl Meters {
    /// An answer begins.
    pub fn begin(&mut self) {
        (self.rate, self.first_token, self.joules, self.reused) = (None, None, None, None);
        self.used = 0;
        self.rates.clear();
        self.is_exact = false;
    }

    /// An answer goes on.
    pub fn follow(&mut self, answering: &Answering, now: Instant) {
        let prompt = answering.read.map_or(0, |(_, total)| total);
        self.used = self.used.max(prompt).max(prompt + answering.pieces);
        let Some(first) = answering.first else { return };
        self.first_token = Some((first - answering.begun).as_secs_f64());
        let time = (now - first).as_secs_f64();
        if answering.pieces > 1 && time > 0.0 {
            let rate = f64::from(answering.pieces - 1) / time;
            self.rate = Some(rate);
            push(&mut self.rates, rate as f32, RATES);
        }
    }

    /// An answer has ended.
    pub fn finish(&mut self, finish: &Finish, joules: Option<f64>) {
        let timings = finish.timings;
        self.used = timings.prompt_tokens + timings.generated_tokens;
        self.reused = Some((timings.cached_tokens, timings.prompt_tokens));
        self.first_token = Some(timings.first_token.as_secs_f64()).filter(|_| timings.generated_tokens > 0);
        self.rate = Some(timings.decode_rate()).filter(|&rate| rate > 0.0).or(self.rate);
        let each = |joules: f64| (joules, joules / f64::from(timings.generated_tokens.max(1)));
        self.joules = joules.map(each);
    }

    /// Nothing is under way.
    pub fn rest(&mut self) {
        self.is_exact = true;
    }

    /// The device was looked at.
    pub fn hear(&mut self, measured: Measured) {
        measured.slices.iter().for_each(|&slice| push(&mut self.slices, slice, SLICES));
        self.device = Measured { slices: Vec::new(), ..measured };
    }
}

fn push(figures: &mut VecDeque<f32>, figure: f32, most: usize) {
    if figures.len() == most {
        figures.pop_front();
    }
    figures.push_back(figure);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_slices_are_kept() {
        let mut meters = Meters::default();
        let slices = (0..SLICES + 5).map(|ms| ms as f32).collect();
        meters.hear(Measured { slices, p95: 3.0, ..Measured::default() });
        assert_eq!((meters.slices.len(), meters.slices[0], meters.device.p95), (SLICES, 5.0, 3.0));
    }
}
