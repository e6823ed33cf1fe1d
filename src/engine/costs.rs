//! What steps cost on a device: a guess by their work, corrected by what slices took as they landed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use crate::kernel::KernelId;
use crate::plan::{Inputs, Step};
use crate::quant::Format;

/// Slices that are remembered.
const REMEMBERED: usize = 4096;

/// How long slices took lately.
#[derive(Clone, Debug, Default)]
pub struct Slices {
    times: VecDeque<Duration>,
    /// Since the model was loaded.
    pub count: u64,
}

impl Slices {
    pub(super) fn push(&mut self, time: Duration) {
        if self.times.len() == REMEMBERED {
            self.times.pop_front();
        }
        self.times.push_back(time);
        self.count += 1;
    }

    /// The time that a share of the last 4096 slices did not exceed: `quantile(0.95)`. Zero without slices.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut sorted: Vec<Duration> = self.times.iter().copied().collect();
        sorted.sort_unstable();
        let at = (share.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
        sorted.get(at.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// What the last `count` of them took, the latest last; 4096 are remembered.
    pub fn latest(&self, count: usize) -> impl Iterator<Item = Duration> + '_ {
        self.times.range(self.times.len().saturating_sub(count)..).copied()
    }

    /// The longest of them.
    pub fn max(&self) -> Duration {
        self.quantile(1.0)
    }
}

/// What steps cost on a device: a guess by their work, corrected for each kernel and format by what slices took.
#[derive(Clone, Debug)]
pub(super) struct Costs {
    /// Of all that has not been met yet.
    common: f64,
    factors: BTreeMap<Key, f64>,
    is_known: bool,
}

type Key = (KernelId, Option<Format>);

/// A device to begin with: bytes and operations per second, and what a dispatch costs.
const BYTES: f64 = 10e9;
const FLOPS: f64 = 50e9;
const DISPATCH: f64 = 5e-6;
/// How far a slice corrects the kernels that took most of it.
const RATE: f64 = 0.5;
/// Slices are planned shorter by this, since half of all guesses are too low.
const CAUTION: f64 = 0.8;

impl Default for Costs {
    fn default() -> Self {
        Self { common: 1.0, factors: BTreeMap::new(), is_known: false }
    }
}

impl Costs {
    /// The end of the slice that begins with `steps` and takes about `most`: at least one step. The first one of all is a
    /// single step, for nothing is known yet.
    pub(super) fn cut(&self, steps: &[Step], rest: Range<usize>, inputs: Inputs, most: Duration) -> usize {
        let mut left = most.as_secs_f64() * CAUTION;
        let first = rest.start;
        for at in rest.clone() {
            left -= self.of(&steps[at], inputs);
            if at > first && (left < 0.0 || !self.is_known) {
                return at;
            }
        }
        rest.end
    }

    /// The most rows, of those that `inputs` holds, with which no step alone takes longer than `most`; at least `least`.
    pub(super) fn rows(&self, steps: &[Step], inputs: Inputs, most: Duration, least: u32) -> u32 {
        let longest = |rows: u32| {
            let inputs = Inputs { rows, ..inputs };
            steps.iter().map(|step| self.of(step, inputs)).fold(0.0, f64::max)
        };
        let mut rows = inputs.rows;
        while rows > least && longest(rows) > most.as_secs_f64() * CAUTION {
            rows = (rows / 2).max(least);
        }
        rows
    }

    /// Corrects what is known of the steps of a slice that took `time`.
    pub(super) fn learn(&mut self, steps: &[Step], inputs: Inputs, time: Duration) {
        let mut shares: BTreeMap<Key, f64> = BTreeMap::new();
        for step in steps {
            *shares.entry(key(step)).or_default() += self.of(step, inputs);
        }
        let guess: f64 = shares.values().sum();
        let most = shares.values().copied().fold(0.0, f64::max);
        if most <= 0.0 {
            return;
        }
        let ratio = time.as_secs_f64().max(1e-6) / guess;
        if !self.is_known {
            (self.common, self.is_known) = (ratio, true);
            return;
        }
        for (key, share) in shares {
            let factor = self.factors.entry(key).or_insert(self.common);
            *factor *= ratio.clamp(0.1, 10.0).powf(RATE * share / most);
        }
    }

    /// Seconds.
    fn of(&self, step: &Step, inputs: Inputs) -> f64 {
        let Some(call) = step.call(inputs) else { return 0.0 };
        let work = step.home().work(&step.params, call, step.form);
        let factor = self.factors.get(&key(step)).unwrap_or(&self.common);
        factor * (DISPATCH + (work.bytes / BYTES).max(work.flops / FLOPS))
    }
}

fn key(step: &Step) -> Key {
    (step.kernel, step.form.format)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Seed;
    use crate::engine::{EngineOptions, LoadOptions, plans};
    use crate::format::Checkpoint;

    /// A device on which a kernel takes its own multiple of what is guessed, and each step up to a fifth more by chance.
    struct Simulated {
        seed: Seed,
        learns: bool,
    }

    impl Simulated {
        fn seconds(&mut self, guess: &Costs, step: &Step, inputs: Inputs) -> f64 {
            let slow = [2.0, 6.0, 25.0][step.kernel as usize % 3];
            slow * guess.of(step, inputs) * (1.0 + 0.2 * f64::from(self.seed.signed().abs()))
        }

        /// Slices of a prompt read again and again, and the longest step among them.
        fn run(&mut self, most: Duration) -> (Slices, Duration) {
            let path =
                concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stories260k/stories260K-f32.gguf");
            let lowered =
                plans(&Checkpoint::open(path).unwrap(), &EngineOptions::default(), &LoadOptions::default())
                    .unwrap();
            let steps = &lowered.caches[0].prefill.plan.steps;
            let inputs = Inputs { rows: 256, outputs: 1, kv_len: 256 };
            let (guess, mut costs) = (Costs::default(), Costs::default());
            let (mut slices, mut longest) = (Slices::default(), 0.0f64);
            for round in 0..40 {
                let mut at = 0;
                while at < steps.len() {
                    let end = costs.cut(steps, at..steps.len(), inputs, most);
                    let mut took = 0.0;
                    for step in &steps[at..end] {
                        let seconds = self.seconds(&guess, step, inputs);
                        (took, longest) = (took + seconds, longest.max(seconds));
                    }
                    let took = Duration::from_secs_f64(took);
                    if self.learns {
                        costs.learn(&steps[at..end], inputs, took);
                    } else {
                        costs.is_known = true;
                    }
                    // What is learned is learned in the first rounds.
                    if round >= 5 {
                        slices.push(took);
                    }
                    at = end;
                }
            }
            (slices, Duration::from_secs_f64(longest))
        }
    }

    #[test]
    fn slices_keep_to_their_time_and_fill_it() {
        let most = Duration::from_millis(2);
        let (slices, longest) = Simulated { seed: Seed::new(1), learns: true }.run(most);
        assert!(slices.quantile(0.95) <= most + longest, "{:?}, a step {longest:?}", slices.quantile(0.95));
        let mean = slices.times.iter().sum::<Duration>() / slices.count as u32;
        assert!(mean >= most / 4, "{mean:?} in {} slices", slices.count);
        // Without learning they do not: the guess is too low for some.
        let (slices, longest) = Simulated { seed: Seed::new(1), learns: false }.run(most);
        assert!(slices.quantile(0.95) > most + longest, "{:?}, a step {longest:?}", slices.quantile(0.95));
    }

    #[test]
    fn quantiles_are_those_of_the_last_slices() {
        let mut slices = Slices::default();
        assert_eq!(slices.quantile(0.95), Duration::ZERO);
        (1..=100).for_each(|ms| slices.push(Duration::from_millis(ms)));
        assert_eq!(slices.quantile(0.5), Duration::from_millis(50));
        assert_eq!(slices.quantile(0.95), Duration::from_millis(95));
        assert_eq!((slices.max(), slices.count), (Duration::from_millis(100), 100));
        assert!(
            slices.latest(2).eq([99, 100].map(Duration::from_millis)) && slices.latest(1000).count() == 100
        );
        (0..REMEMBERED).for_each(|_| slices.push(Duration::from_millis(7)));
        assert_eq!(slices.max(), Duration::from_millis(7));
    }
}
