//! How far ahead of their use a product asks memory for its weights.
//!
//! With few rows a weight is done with sooner than memory brings the next one. Some processors see a long read coming, and
//! asking costs them; others see less, the more is computed between two reads. So it is measured, on the products themselves: each of
//! the first ones takes a distance by chance, and the one that was fastest stays for a while. What is computed is the same.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::base::Seed;

use super::simd::{Isa, Simd, dispatch};

/// Bytes from a weight to the one that is asked for; at 0 none is.
const DISTANCES: [usize; 4] = [0, 2560, 5120, 10240];
/// Products that are measured with each.
const TRIALS: usize = 32;
/// Products until the next trial.
const STAY: u32 = 1 << 15;
/// Products of more rows wait for arithmetic rather than for memory.
const FEW_ROWS: usize = 8;
/// Bytes of a matrix that may still be in a cache.
const CACHED: usize = 128 << 10;

/// The distances that are best, for one row and for a few.
#[derive(Debug)]
pub(super) struct Ahead([Choice; 2]);

/// A product that was begun.
pub(super) struct Begun {
    pub(super) distance: usize,
    trial: Option<(usize, usize, Instant)>,
}

impl Default for Ahead {
    fn default() -> Self {
        Self([Choice::new(1), Choice::new(2)])
    }
}

impl Ahead {
    /// The distance for a product of `rows` rows with a matrix of `bytes`.
    pub(super) fn begin(&mut self, rows: usize, bytes: usize) -> Begun {
        let class = usize::from(rows > 1);
        let choice = &mut self.0[class];
        if rows > FEW_ROWS || bytes <= CACHED {
            return Begun { distance: DISTANCES[choice.best], trial: None };
        }
        match choice.next() {
            Some(tried) => Begun { distance: DISTANCES[tried], trial: Some((class, tried, Instant::now())) },
            None => Begun { distance: DISTANCES[choice.best], trial: None },
        }
    }

    /// A product with a matrix of `bytes` is done.
    pub(super) fn end(&mut self, begun: &Begun, bytes: usize) {
        if let Some((class, tried, since)) = begun.trial {
            self.0[class].took(tried, bytes, since.elapsed());
        }
    }
}

/// A distance that was found, and the search for the next one.
#[derive(Debug)]
struct Choice {
    seed: Seed,
    best: usize,
    /// Seconds for a byte, by distance.
    costs: [Vec<f64>; DISTANCES.len()],
    stays: u32,
}

impl Choice {
    fn new(seed: u64) -> Self {
        Self { seed: Seed::new(seed), best: 0, costs: Default::default(), stays: 0 }
    }

    /// The distance to try next, if any. By chance: the matrices of a model come in turns, and one would always have the same.
    fn next(&mut self) -> Option<usize> {
        if let Some(left) = self.stays.checked_sub(1) {
            self.stays = left;
            return None;
        }
        Some(self.seed.below(DISTANCES.len() as u64) as usize)
    }

    fn took(&mut self, tried: usize, bytes: usize, time: Duration) {
        self.costs[tried].push(time.as_secs_f64() / bytes as f64);
        if self.costs.iter().any(|costs| costs.len() < TRIALS) {
            return;
        }
        let median = |costs: &mut Vec<f64>| {
            costs.sort_by(f64::total_cmp);
            let median = costs[costs.len() / 2];
            costs.clear();
            median
        };
        let medians = self.costs.each_mut().map(median);
        let order = |&a: &usize, &b: &usize| medians[a].total_cmp(&medians[b]);
        self.best = (0..DISTANCES.len()).min_by(order).unwrap_or(0);
        self.stays = STAY;
        log::debug!("weights are asked for {} bytes ahead", DISTANCES[self.best]);
    }
}

/// Reads bytes and does as good as nothing with them, in the widest pieces that this processor has: as fast as memory
/// gives them to one thread. With `ahead` they are asked for beforehand.
pub fn read(bytes: &[u8], ahead: bool) {
    dispatch!(Isa::find(), s => read_with(s, bytes, if ahead { DISTANCES[2] } else { 0 }));
}

#[inline(always)]
fn read_with<S: Simd>(s: S, bytes: &[u8], distance: usize) {
    let mut seen = [s.quads(&[0; 64]); 4];
    for piece in bytes.as_chunks::<256>().0 {
        for (seen, bytes) in seen.iter_mut().zip(piece.as_chunks::<64>().0) {
            if distance > 0 {
                s.fetch(bytes, distance);
            }
            *seen = s.quads_or(*seen, s.quads(bytes));
        }
    }
    black_box(seen);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where distance `fastest` takes the least time; one product in ten is held up by something else.
    fn found(fastest: usize) -> usize {
        let mut choice = Choice::new(3);
        let mut seed = Seed::new(fastest as u64);
        while let Some(tried) = choice.next() {
            // Matrices differ in what a byte costs.
            let usual = [100, 130][seed.below(2) as usize];
            let slow = if tried == fastest { 0 } else { 40 };
            let held = if seed.below(10) == 0 { 5000 } else { 0 };
            choice.took(tried, 1 << 20, Duration::from_micros(usual + slow + held));
        }
        choice.best
    }

    #[test]
    fn the_fastest_distance_is_found_and_stays() {
        for fastest in 0..DISTANCES.len() {
            assert_eq!(found(fastest), fastest);
        }
        let mut ahead = Ahead::default();
        let mut trials = 0;
        for _ in 0..STAY / 2 {
            let begun = ahead.begin(1, 1 << 20);
            trials += usize::from(begun.trial.is_some());
            ahead.end(&begun, 1 << 20);
        }
        assert!((TRIALS * DISTANCES.len()..TRIALS * DISTANCES.len() * 3).contains(&trials), "{trials}");
        for (rows, bytes) in [(1, 1000), (FEW_ROWS + 1, 1 << 20)] {
            assert!(ahead.begin(rows, bytes).trial.is_none());
        }
    }

    #[test]
    fn every_instruction_set_reads() {
        for isa in Isa::all() {
            for distance in DISTANCES {
                dispatch!(isa, s => read_with(s, &[1; 1000], distance));
            }
        }
        read(&[], true);
    }
}
