//! `W ≈ Q + L·R`: a matrix of few bits and a correction of low rank, found in turns (Saha et al. 2024, CALDERA, arXiv
//! 2405.18886): Q is the quantized W − L·R; L·R is the nearest matrix of rank r to W − Q where the error of each input
//! counts as calibration says. With D the diagonal of these weights that is the truncated singular value decomposition of
//! (W − Q)·√D, divided by √D again.

use crate::base::Seed;
use crate::error::{Error, Result};

/// Columns of the subspace beyond the rank: they make it settle sooner (Halko, Martinsson and Tropp 2011, arXiv 0909.4061).
const SPARE: usize = 8;
/// Turns of the subspace iteration: the first time, and when it begins where the last one ended.
const FIRST_TURNS: usize = 3;
const TURNS: usize = 1;

/// A row-major matrix of f32.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Dense {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) values: Vec<f32>,
}

/// What a matrix became.
#[derive(Clone, Debug)]
pub(super) struct Split<Q> {
    pub(super) base: Q,
    /// `(N, r)`.
    pub(super) up: Dense,
    /// `(r, K)`.
    pub(super) down: Dense,
    /// The weighed error over the weighed norm, without the correction and with it.
    pub(super) errors: [f64; 2],
}

/// Splits `matrix`; `importance` has a positive number for each column. `quantize` gives a base and its values, `round` what
/// rows of the factors, `(r, K)` and `(r, N)`, are after storing.
pub(super) fn split<Q>(
    matrix: &Dense,
    importance: &[f32],
    rank: usize,
    turns: usize,
    mut quantize: impl FnMut(&Dense) -> Result<(Q, Dense)>,
    round: impl Fn(&mut Dense),
) -> Result<Split<Q>> {
    let roots: Vec<f32> = importance.iter().map(|weight| weight.sqrt()).collect();
    let norm = weighed(matrix, &roots).norm();
    let mut subspace = Subspace::new(matrix.cols, rank.min(matrix.rows).min(matrix.cols));
    let (mut up, mut down) = (Dense::zero(matrix.rows, 0), Dense::zero(0, matrix.cols));
    let mut best: Option<Split<Q>> = None;
    let mut alone = 0.0;
    for turn in 0..turns.max(1) {
        let (base, values) = quantize(&matrix.minus(&up.times(&down)))?;
        let rest = weighed(&matrix.minus(&values), &roots);
        if turn == 0 {
            alone = rest.norm() / norm;
        }
        (up, down) = subspace.nearest(&rest, if turn == 0 { FIRST_TURNS } else { TURNS });
        for row in down.values.chunks_exact_mut(matrix.cols) {
            row.iter_mut().zip(&roots).for_each(|(value, root)| *value /= root);
        }
        let mut across = up.transposed();
        round(&mut across);
        round(&mut down);
        up = across.transposed();
        let left = weighed(&matrix.minus(&values).minus(&up.times(&down)), &roots).norm() / norm;
        if best.as_ref().is_none_or(|best| left < best.errors[1]) {
            best = Some(Split { base, up: up.clone(), down: down.clone(), errors: [alone, left] });
        }
    }
    best.ok_or_else(|| Error::internal("no turn was taken"))
}

/// Each column times its root.
fn weighed(matrix: &Dense, roots: &[f32]) -> Dense {
    let mut weighed = matrix.clone();
    for row in weighed.values.chunks_exact_mut(roots.len()) {
        row.iter_mut().zip(roots).for_each(|(value, root)| *value *= root);
    }
    weighed
}

/// Directions of the inputs in which matrices were largest.
struct Subspace {
    rank: usize,
    /// `(rank + spare, K)`, orthonormal rows.
    directions: Dense,
}

impl Subspace {
    fn new(cols: usize, rank: usize) -> Self {
        let count = (rank + SPARE).min(cols);
        let values = Seed::new(cols as u64).vector(count * cols, 1.0);
        let mut directions = Dense { rows: count, cols, values };
        directions.orthonormalize();
        Self { rank, directions }
    }

    /// The factors of the nearest matrix of this rank, `(N, r)` and `(r, K)`, of the same size in every direction.
    fn nearest(&mut self, matrix: &Dense, turns: usize) -> (Dense, Dense) {
        for _ in 0..turns {
            let mut outputs = self.directions.times_transposed(matrix);
            outputs.orthonormalize();
            self.directions = outputs.times(matrix);
            self.directions.orthonormalize();
        }
        // matrix ≈ outputsᵀ · directions; its Gram matrix has the squares of the singular values.
        let outputs = self.directions.times_transposed(matrix);
        let gram = outputs.times_transposed(&outputs);
        let (values, vectors) = eigen(&gram);
        let mut order: Vec<usize> = (0..gram.rows).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        let chosen = Dense {
            rows: self.rank,
            cols: gram.rows,
            values: order[..self.rank]
                .iter()
                .flat_map(|&i| (0..gram.rows).map(move |j| (i, j)))
                .map(|(i, j)| vectors[j * gram.rows + i] as f32)
                .collect(),
        };
        let (mut up, mut down) = (chosen.times(&outputs), chosen.times(&self.directions));
        for r in 0..self.rank {
            let size = values[order[r]].max(0.0).sqrt().sqrt().max(f64::from(f32::MIN_POSITIVE)) as f32;
            up.values[r * up.cols..][..up.cols].iter_mut().for_each(|value| *value /= size);
            down.values[r * down.cols..][..down.cols].iter_mut().for_each(|value| *value *= size);
        }
        (up.transposed(), down)
    }
}

impl Dense {
    fn zero(rows: usize, cols: usize) -> Self {
        Self { rows, cols, values: vec![0.0; rows * cols] }
    }

    fn norm(&self) -> f64 {
        self.values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
    }

    fn minus(&self, other: &Self) -> Self {
        let values = self.values.iter().zip(&other.values).map(|(a, b)| a - b).collect();
        Self { values, ..*self }
    }

    pub(super) fn transposed(&self) -> Self {
        let mut turned = Self::zero(self.cols, self.rows);
        for (i, row) in self.values.chunks_exact(self.cols.max(1)).enumerate() {
            turned.values.iter_mut().skip(i).step_by(self.rows).zip(row).for_each(|(to, value)| *to = *value);
        }
        turned
    }

    /// `self · other`
    fn times(&self, other: &Self) -> Self {
        let mut product = Self::zero(self.rows, other.cols);
        if self.cols == 0 || other.cols == 0 {
            return product;
        }
        for (row, out) in self.values.chunks_exact(self.cols).zip(product.values.chunks_exact_mut(other.cols))
        {
            for (factor, row) in row.iter().zip(other.values.chunks_exact(other.cols)) {
                out.iter_mut().zip(row).for_each(|(out, value)| *out += factor * value);
            }
        }
        product
    }

    /// `self · otherᵀ`
    fn times_transposed(&self, other: &Self) -> Self {
        let dot = |a: &[f32], b: &[f32]| {
            let (a, a_rest) = a.as_chunks::<16>();
            let (b, b_rest) = b.as_chunks::<16>();
            let mut sums = [0.0f32; 16];
            for (a, b) in a.iter().zip(b) {
                for i in 0..16 {
                    sums[i] += a[i] * b[i];
                }
            }
            let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
            sums.iter().sum::<f32>() + rest
        };
        let rows = self.values.chunks_exact(self.cols.max(1));
        let values = rows.flat_map(|a| other.values.chunks_exact(other.cols.max(1)).map(move |b| dot(a, b)));
        Self { values: values.collect(), rows: self.rows, cols: other.rows }
    }

    /// Rows of norm 1, each at right angles to those before; one that depends on them becomes zero. Twice, as once leaves
    /// what rounding has left.
    fn orthonormalize(&mut self) {
        let cols = self.cols;
        for _ in 0..2 {
            for i in 0..self.rows {
                let (before, rest) = self.values.split_at_mut(i * cols);
                let row = &mut rest[..cols];
                let first = norm(row);
                for other in before.chunks_exact(cols) {
                    let dot: f64 = other.iter().zip(&*row).map(|(a, b)| f64::from(a * b)).sum();
                    row.iter_mut().zip(other).for_each(|(value, other)| *value -= dot as f32 * other);
                }
                let left = norm(row);
                let scale = if left > 1e-6 * first { 1.0 / left } else { 0.0 };
                row.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
            }
        }
    }
}

fn norm(row: &[f32]) -> f64 {
    row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

/// Eigenvalues and eigenvectors (columns) of a symmetric matrix, by Jacobi's rotations (Golub and Van Loan 2013, *Matrix
/// Computations*, 8.5).
fn eigen(matrix: &Dense) -> (Vec<f64>, Vec<f64>) {
    let n = matrix.rows;
    let mut a: Vec<f64> = matrix.values.iter().map(|&value| f64::from(value)).collect();
    let mut vectors = vec![0.0; n * n];
    (0..n).for_each(|i| vectors[i * n + i] = 1.0);
    let all: f64 = a.iter().map(|value| value * value).sum();
    for _ in 0..30 {
        let off = (0..n).flat_map(|i| (0..i).map(move |j| (i, j)));
        if off.map(|(i, j)| a[i * n + j] * a[i * n + j]).sum::<f64>() <= 1e-20 * all {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                if a[p * n + q] != 0.0 {
                    rotate(&mut a, &mut vectors, n, p, q);
                }
            }
        }
    }
    ((0..n).map(|i| a[i * n + i]).collect(), vectors)
}

/// Makes the element in row p and column q zero.
fn rotate(a: &mut [f64], vectors: &mut [f64], n: usize, p: usize, q: usize) {
    let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * a[p * n + q]);
    let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    let turn = |x: f64, y: f64| (c * x - s * y, s * x + c * y);
    for k in 0..n {
        (a[k * n + p], a[k * n + q]) = turn(a[k * n + p], a[k * n + q]);
    }
    for k in 0..n {
        (a[p * n + k], a[q * n + k]) = turn(a[p * n + k], a[q * n + k]);
        (vectors[k * n + p], vectors[k * n + q]) = turn(vectors[k * n + p], vectors[k * n + q]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(seed: u64, rows: usize, cols: usize) -> Dense {
        Dense { rows, cols, values: Seed::new(seed).vector(rows * cols, 1.0) }
    }

    /// To a grid of this step.
    fn rounded(step: f32) -> impl Fn(&Dense) -> Result<((), Dense)> {
        move |matrix| {
            let values = matrix.values.iter().map(|value| (value / step).round() * step).collect();
            Ok(((), Dense { values, ..*matrix }))
        }
    }

    #[test]
    fn a_matrix_of_low_rank_is_found_exactly() {
        let matrix = random(1, 40, 5).times(&random(2, 5, 64));
        let nothing = |matrix: &Dense| Ok(((), Dense::zero(matrix.rows, matrix.cols)));
        let importance: Vec<f32> = Seed::new(3).vector(64, 1.0).iter().map(|v| v.abs() + 0.1).collect();
        let found = split(&matrix, &importance, 5, 1, nothing, |_| {}).unwrap();
        assert!(found.errors[1] < 1e-5, "{:?}", found.errors);
        let missing = split(&matrix, &importance, 4, 1, nothing, |_| {}).unwrap();
        assert!(missing.errors[1] > 1e-2, "one rank less passed: {:?}", missing.errors);
    }

    #[test]
    fn the_correction_is_the_best_of_its_rank() {
        // With the singular values 1, 1/2, 1/4 … the error of rank 3 is known.
        let (mut left, mut right) = (random(4, 8, 30), random(5, 8, 20));
        left.orthonormalize();
        right.orthonormalize();
        for (i, row) in left.values.chunks_exact_mut(30).enumerate() {
            row.iter_mut().for_each(|value| *value *= 0.5f32.powi(i as i32));
        }
        let matrix = left.transposed().times(&right);
        let (up, down) = Subspace::new(20, 3).nearest(&matrix, 4);
        let squares = |range: std::ops::Range<i32>| range.map(|i| 0.25f64.powi(i)).sum::<f64>();
        let error = matrix.minus(&up.times(&down)).norm();
        assert!((error - squares(3..8).sqrt()).abs() < 1e-4, "{error}");
    }

    #[test]
    fn turns_and_importance_pay() {
        let matrix = random(6, 48, 64);
        let importance: Vec<f32> = (0..64).map(|i| if i < 8 { 20.0 } else { 0.5 }).collect();
        let errors = |turns| split(&matrix, &importance, 8, turns, rounded(0.7), |_| {}).unwrap().errors;
        let [alone, once] = errors(1);
        let [_, often] = errors(6);
        assert!(once < 0.9 * alone && often <= once, "{alone} {once} {often}");
        // Blind to importance, the same rank leaves more of the weighed error.
        let blind = split(&matrix, &[1.0; 64], 8, 6, rounded(0.7), |_| {}).unwrap();
        let roots: Vec<f32> = importance.iter().map(|weight| weight.sqrt()).collect();
        let base = rounded(0.7)(&matrix).unwrap().1;
        let left = weighed(&matrix.minus(&base).minus(&blind.up.times(&blind.down)), &roots).norm()
            / weighed(&matrix, &roots).norm();
        assert!(often < left, "{often} {left}");
    }
}
