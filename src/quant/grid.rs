//! Codebooks of the `iq` formats: a code names a point, four or eight levels at once.
//!
//! The points are data of ggml (`ggml-common.h`, MIT), written to `grids/*.bin` by `tools/fixtures/grids.py`: 16 bits
//! each, eight digits of 2 bits or four of 4, the first lowest; a digit is the number of a level.
//!
//! The point nearest to some values is found by weighing all: the costs of each half of a point are tabled, so that a
//! point costs two look-ups and a sum.

use half::f16;

use super::fit::{inverse, level_scale, nearest_f16, scale_code};

/// Points, and the levels that their digits stand for.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    points: &'static [u8],
    levels: &'static [f32],
    digit_bits: usize,
}

/// The magnitudes of `iq2_xxs`, `iq2_xs` and `iq2_s`.
const MAGNITUDES_2: [f32; 3] = [8.0, 25.0, 43.0];
/// Those of `iq3_xxs`.
const MAGNITUDES_3: [f32; 8] = [4.0, 12.0, 20.0, 28.0, 36.0, 44.0, 52.0, 62.0];
/// Those of `iq3_s`.
const ODD: [f32; 8] = [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0];
/// −1, 0 and 1, all moved up or down by an eighth, for `iq1_s` and `iq1_m`.
const MOVED: [[f32; 3]; 2] = [[-0.875, 0.125, 1.125], [-1.125, -0.125, 0.875]];

macro_rules! points {
    ($name:literal) => {
        include_bytes!(concat!("grids/", $name, ".bin"))
    };
}

pub(super) const IQ2_XXS: Grid = Grid { points: points!("iq2_xxs"), levels: &MAGNITUDES_2, digit_bits: 2 };
pub(super) const IQ2_XS: Grid = Grid { points: points!("iq2_xs"), levels: &MAGNITUDES_2, digit_bits: 2 };
pub(super) const IQ2_S: Grid = Grid { points: points!("iq2_s"), levels: &MAGNITUDES_2, digit_bits: 2 };
pub(super) const IQ3_XXS: Grid = Grid { points: points!("iq3_xxs"), levels: &MAGNITUDES_3, digit_bits: 4 };
pub(super) const IQ3_S: Grid = Grid { points: points!("iq3_s"), levels: &ODD, digit_bits: 4 };
/// Moved up, and moved down.
pub(super) const IQ1: [Grid; 2] = [
    Grid { points: points!("iq1_s"), levels: &MOVED[0], digit_bits: 2 },
    Grid { points: points!("iq1_s"), levels: &MOVED[1], digit_bits: 2 },
];

impl Grid {
    /// The digits of a point, as many as it has elements.
    pub(super) fn digits(self, index: usize) -> impl Iterator<Item = usize> {
        let point = usize::from(u16::from_le_bytes([self.points[2 * index], self.points[2 * index + 1]]));
        (0..self.len()).map(move |i| point >> (self.digit_bits * i) & ((1 << self.digit_bits) - 1))
    }

    /// The levels of a point.
    pub(super) fn levels(self, index: usize) -> impl Iterator<Item = f32> {
        self.digits(index).map(move |digit| self.levels[digit])
    }

    /// Elements of a point.
    pub(super) fn len(self) -> usize {
        16 / self.digit_bits
    }

    /// The point whose levels, times `scale`, err least from a point's `targets`, and its weighted squared error.
    pub(super) fn nearest(self, targets: &[f32], weights: &[f32], scale: f32) -> (usize, f32) {
        let half = self.len() / 2;
        let [low, high] =
            [0, half].map(|at| self.costs(&targets[at..][..half], &weights[at..][..half], scale));
        let mut best = (0, f32::INFINITY);
        for (index, point) in self.points.as_chunks::<2>().0.iter().enumerate() {
            let cost = low[usize::from(point[0])] + high[usize::from(point[1])];
            if cost < best.1 {
                best = (index, cost);
            }
        }
        best
    }

    /// The costs of each half of a point: of what its byte stands for, for two or four elements.
    fn costs(self, targets: &[f32], weights: &[f32], scale: f32) -> [f32; 256] {
        let mut costs = [0.0; 256];
        let mut filled = 1;
        for (&target, &weight) in targets.iter().zip(weights) {
            let before = costs;
            for digit in 0..1 << self.digit_bits {
                let cost = self.levels.get(digit).map_or(f32::INFINITY, |level| {
                    let error = target - scale * level;
                    weight * error * error
                });
                for (cost_of, before) in costs[digit * filled..].iter_mut().zip(&before[..filled]) {
                    *cost_of = before + cost;
                }
            }
            filled <<= self.digit_bits;
        }
        costs
    }

    fn nearest_level(self, v: f32) -> f32 {
        self.levels[self.levels.windows(2).filter(|pair| v > (pair[0] + pair[1]) / 2.0).count()]
    }
}

/// How groups of elements that share a scale are put to points: of each run the elements are points of one of `grids`.
#[derive(Clone, Copy)]
pub(super) struct Search {
    pub(super) grids: &'static [Grid],
    pub(super) run: usize,
}

/// Scales d·(first + step·code), codes 0 to `last`.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    pub(super) first: f32,
    pub(super) step: f32,
    pub(super) last: f32,
}

impl Steps {
    pub(super) fn of(self, d: f32, code: f32) -> f32 {
        d * (self.first + self.step * code)
    }
}

impl Search {
    /// d and the codes of the scales of N groups.
    pub(super) fn scales<const N: usize>(
        self,
        targets: &[f32],
        weights: &[f32],
        steps: Steps,
    ) -> (f16, [u8; N]) {
        let len = targets.len() / N;
        let group = |i: usize| (&targets[i * len..][..len], &weights[i * len..][..len]);
        let fits: [f32; N] = std::array::from_fn(|i| self.scale(group(i).0, group(i).1));
        let most = fits.iter().copied().fold(0.0, f32::max);
        let half = nearest_f16(most / steps.of(1.0, steps.last));
        let d = half.to_f32();
        let codes = std::array::from_fn(|i| {
            let (targets, weights) = group(i);
            let near = (fits[i] * inverse(d) - steps.first) / steps.step;
            scale_code(near, 0.0, steps.last, |code| self.error(targets, weights, steps.of(d, code))) as u8
        });
        (half, codes)
    }

    /// Calls `take` for each run with the number of its grid, and with the indices of its points.
    pub(super) fn points(
        self,
        targets: &[f32],
        weights: &[f32],
        scale: f32,
        mut take: impl FnMut(usize, &mut dyn Iterator<Item = usize>),
    ) {
        for (targets, weights) in targets.chunks_exact(self.run).zip(weights.chunks_exact(self.run)) {
            let (number, _) = self.best(targets, weights, scale);
            let grid = self.grids[number];
            let points = targets.chunks_exact(grid.len()).zip(weights.chunks_exact(grid.len()));
            take(number, &mut points.map(|(targets, weights)| grid.nearest(targets, weights, scale).0));
        }
    }

    /// The grid that a run is put to with the least error, and that error.
    fn best(self, targets: &[f32], weights: &[f32], scale: f32) -> (usize, f32) {
        let error = |grid: &Grid| -> f32 {
            let points = targets.chunks_exact(grid.len()).zip(weights.chunks_exact(grid.len()));
            points.map(|(targets, weights)| grid.nearest(targets, weights, scale).1).sum()
        };
        let errors = self.grids.iter().map(error).enumerate();
        errors.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, f32::INFINITY))
    }

    fn error(self, targets: &[f32], weights: &[f32], scale: f32) -> f32 {
        let runs = targets.chunks_exact(self.run).zip(weights.chunks_exact(self.run));
        runs.map(|(targets, weights)| self.best(targets, weights, scale).1).sum()
    }

    /// The scale, not negative, by which points come nearest to `targets`: that of the nearest levels, then twice the one
    /// that fits the points which it leads to.
    fn scale(self, targets: &[f32], weights: &[f32]) -> f32 {
        let grid = self.grids[0];
        let (least, most) = (grid.levels[0].min(0.0), grid.levels[grid.levels.len() - 1]);
        let mut scale = level_scale(targets, weights, [least, most], |v| grid.nearest_level(v)).abs();
        for _ in 0..2 {
            let (mut products, mut squares, mut at) = (0.0, 0.0, 0);
            self.points(targets, weights, scale, |number, indices| {
                for level in indices.flat_map(|index| self.grids[number].levels(index)) {
                    products += weights[at] * targets[at] * level;
                    squares += weights[at] * level * level;
                    at += 1;
                }
            });
            if products > 0.0 && squares > 0.0 {
                scale = products / squares;
            }
        }
        scale
    }
}

/// The eight signs that 7 bits stand for: there is an even number of minuses.
pub(super) fn even_signs(bits: u32) -> u8 {
    let low = (bits & 127) as u8;
    low | ((low.count_ones() % 2) as u8) << 7
}

/// Makes the values of each eight magnitudes, in `values`, and gives their signs, a bit each, set for a minus. Where
/// there has to be an even number of minuses, the value that costs least has the wrong one, and becomes negative.
pub(super) fn split_signs<const N: usize>(values: &mut [f32], weights: &[f32], even: bool) -> [u8; N] {
    let mut signs = [0; N];
    for (signs, (values, weights)) in
        signs.iter_mut().zip(values.chunks_exact_mut(8).zip(weights.chunks_exact(8)))
    {
        *signs = values.iter().enumerate().fold(0, |signs, (i, v)| signs | u8::from(*v < 0.0) << i);
        if even && signs.count_ones() % 2 == 1 {
            let cost = |i: usize| weights[i] * values[i] * values[i];
            let cheapest = (0..8).min_by(|a, b| cost(*a).total_cmp(&cost(*b))).unwrap_or(0);
            *signs ^= 1 << cheapest;
        }
        for (i, v) in values.iter_mut().enumerate() {
            *v = if *signs >> i & 1 == 1 { -*v } else { *v };
        }
    }
    signs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Seed;

    #[test]
    fn the_nearest_point_is_nearest() {
        let mut seed = Seed::new(5);
        for grid in [IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S, IQ1[0], IQ1[1]] {
            let (targets, weights) = (seed.vector(grid.len(), 40.0), vec![2.0; grid.len()]);
            let cost = |index: usize| -> f32 {
                grid.levels(index).zip(&targets).map(|(level, v)| 2.0 * (v - 1.5 * level).powi(2)).sum()
            };
            let (index, error) = grid.nearest(&targets, &weights, 1.5);
            assert!((cost(index) / error - 1.0).abs() < 1e-5);
            let count = grid.points.len() / 2;
            assert!((0..count).all(|other| cost(other) >= 0.9999 * error), "of {count}");
            // A point that stands on the grid finds itself.
            let exact: Vec<f32> = grid.levels(count - 1).map(|level| level * 1.5).collect();
            assert_eq!(grid.nearest(&exact, &weights, 1.5).0, count - 1);
        }
    }

    #[test]
    fn signs_are_even_where_they_have_to_be() {
        let values = Seed::new(6).vector(64, 1.0);
        let mut made = values.clone();
        let signs: [u8; 8] = split_signs(&mut made, &[1.0; 64], true);
        for (i, (v, made)) in values.iter().zip(&made).enumerate() {
            assert_eq!(*v, if signs[i / 8] >> (i % 8) & 1 == 1 { -made } else { *made });
        }
        for (signs, made) in signs.iter().zip(made.chunks(8)) {
            assert_eq!(even_signs(u32::from(*signs)), *signs);
            assert!(made.iter().filter(|v| **v < 0.0).count() <= 1);
        }
        assert!((0..128).all(|bits| even_signs(bits).count_ones().is_multiple_of(2)));
    }
}
