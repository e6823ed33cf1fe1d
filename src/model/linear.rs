//! The one seam through which the engine sees a weight matrix, whatever form it was compressed to.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::quant::Matrix;

use super::adapter::Adapted;

/// `y = post(base · pre(x) + Σ scale · up · down · pre(x)) + bias`, `(cols) -> (rows)`, where the base is a matrix or a sum of
/// Kronecker products.
///
/// Every form of compression becomes data of this value, so that nothing else learns its name: a rotation of activations
/// is a transform in `pre`, a low-rank correction or an adapter a [`Side`], a permutation a transform again.
#[derive(Clone, Debug)]
pub struct Linear {
    /// Elements of the input.
    pub cols: u32,
    /// What is done to the input, first to last.
    pub pre: Vec<Transform>,
    /// The matrix; those of all terms, row after row, where there are factors.
    pub base: Matrix,
    /// What makes of those matrices a sum of Kronecker products.
    pub factors: Option<Factors>,
    /// Low-rank paths beside it.
    pub side: Vec<Side>,
    /// What is done to the sum, first to last.
    pub post: Vec<Transform>,
    /// Added to the output, `(rows)`.
    pub bias: Option<Vec<f32>>,
    /// What adapters add to the output, of the input as it comes.
    pub adapters: Vec<Adapted>,
}

/// The small factors of the base `Σ F_t ⊗ W_t`, whose W_t are the matrix: part i of its output is
/// `Σ_t Σ_j F_t[i, j] · W_t · (part j of the input)`, where parts follow one another.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors {
    /// Matrices that are summed.
    pub terms: u32,
    /// Parts of the output.
    pub rows: u32,
    /// Parts of the input.
    pub cols: u32,
    /// F, `(terms, rows, cols)`.
    pub values: Arc<[f32]>,
}

/// `scale · up · down`, beside a base.
#[derive(Clone, Debug)]
pub struct Side {
    /// `(rank, inputs of the base)`.
    pub down: Matrix,
    /// `(outputs of the base, rank)`.
    pub up: Matrix,
    /// A factor.
    pub scale: f32,
}

/// A linear map of a vector that takes no matrix.
#[derive(Clone, Debug, PartialEq)]
pub enum Transform {
    /// `y[i] = x[i] · g[i]`.
    Scale(Arc<[f32]>),
    /// `y[i] = x[order[i]]`.
    Gather(Arc<[u32]>),
    /// The normalised Walsh–Hadamard transform of each block.
    Hadamard(Hadamard),
}

/// `H_n / √n` with n = k·2ᵐ and H_n = T ⊗ H₂ ⊗ … ⊗ H₂ in Sylvester's order, of each block of n elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Hadamard {
    /// n.
    pub block: u32,
    /// k.
    pub order: u32,
    /// T, `(k, k)` of ±1; `[1]` for a power of two.
    pub table: Arc<[f32]>,
}

/// Elements that a gather can name: its order stands in f32.
const MOST_GATHERED: u32 = 1 << 24;
/// Terms of a sum of Kronecker products, and parts of its input and output.
const MOST_PARTS: u32 = 64;
/// Elements between the factors of Kronecker products, for each row.
const MOST_BETWEEN: u64 = 1 << 22;

impl Linear {
    /// `y = base · x`.
    pub fn plain(base: Matrix) -> Self {
        Self {
            cols: base.cols() as u32,
            pre: Vec::new(),
            base,
            factors: None,
            side: Vec::new(),
            post: Vec::new(),
            bias: None,
            adapters: Vec::new(),
        }
    }

    /// Elements of the output.
    pub fn rows(&self) -> u32 {
        self.post.iter().fold(self.base_rows(), |width, transform| transform.width(width))
    }

    /// Elements of what the base yields.
    pub(super) fn base_rows(&self) -> u32 {
        let rows = wide(self.base.rows());
        self.factors.as_ref().map_or(rows, |factors| factors.rows.saturating_mul(rows / factors.terms.max(1)))
    }

    /// Elements of what the base takes.
    pub(super) fn base_cols(&self) -> u32 {
        let cols = wide(self.base.cols());
        self.factors.as_ref().map_or(cols, |factors| factors.cols.saturating_mul(cols))
    }

    /// Whether it is a matrix, and a bias at most.
    pub fn is_plain(&self) -> bool {
        self.pre.is_empty() && self.factors.is_none() && self.side.is_empty() && self.post.is_empty()
    }

    /// Checks that everything fits: from `cols` inputs to `rows` outputs.
    ///
    /// # Errors
    /// [`crate::Kind::BadFile`].
    pub fn checked(self, rows: u32, cols: u32) -> Result<Self> {
        self.factors.as_ref().map_or(Ok(()), |factors| factors.check(&self.base))?;
        let (base_rows, base_cols) = (self.base_rows(), self.base_cols());
        same("inputs", self.cols, cols)?;
        same("inputs of the base", base_cols, through(cols, &self.pre)?)?;
        same("outputs", rows, through(base_rows, &self.post)?)?;
        for side in &self.side {
            same("inputs of a low-rank path", wide(side.down.cols()), base_cols)?;
            same("the rank of a low-rank path", wide(side.up.cols()), wide(side.down.rows()))?;
            same("outputs of a low-rank path", wide(side.up.rows()), base_rows)?;
            if !side.scale.is_finite() {
                return Err(Error::bad_file(format!("{} cannot scale a low-rank path", side.scale)));
            }
        }
        if let Some(bias) = &self.bias {
            same("elements of the bias", wide(bias.len()), rows)?;
        }
        Ok(self)
    }
}

impl Factors {
    /// Whether they can stand beside the matrices.
    fn check(&self, base: &Matrix) -> Result<()> {
        let Self { terms, rows, cols, values } = self;
        for (what, count) in [("terms", terms), ("parts of the output", rows), ("parts of the input", cols)] {
            if !(1..=MOST_PARTS).contains(count) {
                let what =
                    format!("{count} {what} of Kronecker products, where 1 to {MOST_PARTS} are possible");
                return Err(Error::bad_file(what));
            }
        }
        if !base.rows().is_multiple_of(*terms as usize) {
            return Err(Error::bad_file(format!("{} rows are not {terms} matrices", base.rows())));
        }
        let between = base.rows() as u64 * u64::from(*cols);
        if between > MOST_BETWEEN {
            return Err(Error::bad_file(format!(
                "{between} elements between factors, where {MOST_BETWEEN} fit"
            )));
        }
        same("elements of the factors", wide(values.len()), terms * rows * cols)?;
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(Error::bad_file(format!("{value} cannot be an element of a factor"))),
            None => Ok(()),
        }
    }
}

impl Transform {
    /// Elements of the result for `width` elements of input.
    pub fn width(&self, width: u32) -> u32 {
        match self {
            Self::Gather(order) => order.len() as u32,
            Self::Scale(_) | Self::Hadamard(_) => width,
        }
    }

    /// Whether it can take `width` elements.
    fn check(&self, width: u32) -> Result<()> {
        match self {
            Self::Scale(gains) => {
                same("factors", gains.len() as u32, width)?;
                match gains.iter().find(|gain| !gain.is_finite()) {
                    Some(gain) => Err(Error::bad_file(format!("{gain} cannot be a factor of an activation"))),
                    None => Ok(()),
                }
            }
            Self::Gather(order) => match order.iter().find(|&&from| from >= width.min(MOST_GATHERED)) {
                Some(from) => Err(Error::bad_file(format!("element {from} is to be taken of {width}"))),
                None => Ok(()),
            },
            Self::Hadamard(Hadamard { block, order, table }) => {
                let power = block.checked_div(*order).unwrap_or(0);
                let fits = power.is_power_of_two()
                    && u64::from(power) * u64::from(*order) == u64::from(*block)
                    && width.is_multiple_of(*block)
                    && table.len() as u64 == u64::from(*order) * u64::from(*order);
                if fits {
                    return Ok(());
                }
                let blocks = format!("blocks of {block} over a table of order {order}");
                Err(Error::bad_file(format!(
                    "a Hadamard transform of {blocks} does not fit {width} elements"
                )))
            }
        }
    }
}

impl Hadamard {
    /// The transform of blocks of a power of two.
    pub fn power_of_two(block: u32) -> Self {
        Self { block, order: 1, table: Arc::new([1.0]) }
    }
}

/// Elements of what `transforms` make of `width` elements.
///
/// # Errors
/// [`crate::Kind::BadFile`] for one that cannot take what is before it.
pub(super) fn through(width: u32, transforms: &[Transform]) -> Result<u32> {
    transforms.iter().try_fold(width, |width, transform| {
        transform.check(width)?;
        Ok(transform.width(width))
    })
}

fn wide(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

pub(super) fn same(what: &str, are: u32, should: u32) -> Result<()> {
    if are == should { Ok(()) } else { Err(Error::bad_file(format!("{what}: {are}, where {should} belong"))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::Format;

    fn matrix(rows: usize, cols: usize) -> Matrix {
        Matrix::new("w", Format::F32, rows, cols, vec![0; 4 * rows * cols].into()).unwrap()
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let whole = Linear {
            pre: vec![
                Transform::Gather(vec![2, 0, 1, 1].into()),
                Transform::Hadamard(Hadamard::power_of_two(2)),
            ],
            side: vec![Side { down: matrix(1, 4), up: matrix(6, 1), scale: 2.0 }],
            post: vec![Transform::Scale([1.0; 6].into())],
            bias: Some(vec![0.0; 6]),
            cols: 3,
            ..Linear::plain(matrix(6, 4))
        };
        assert!(whole.clone().checked(6, 3).is_ok());
        let factors = |terms, rows, cols, count| {
            let values = vec![1.0; count].into();
            Some(Factors { terms, rows, cols, values })
        };
        // Three matrices of 2 by 2.
        let sum = Linear { factors: factors(3, 3, 2, 18), base: matrix(6, 2), ..whole.clone() };
        assert_eq!((sum.base_rows(), sum.base_cols()), (6, 4));
        assert!(sum.clone().checked(6, 3).is_ok());
        let faults =
            [(4, 3, 2, 24), (3, 2, 2, 12), (3, 3, 1, 9), (3, 3, 2, 17), (0, 3, 2, 0), (1, 1, 65, 65)];
        for (terms, rows, cols, count) in faults {
            let linear = Linear { factors: factors(terms, rows, cols, count), ..sum.clone() };
            assert!(linear.checked(6, 3).is_err(), "{terms} terms of {rows} by {cols}, {count} elements");
        }
        let faults: [fn(&mut Linear); 8] = [
            |l| l.pre[0] = Transform::Gather(vec![3, 0, 1, 1].into()),
            |l| l.pre[0] = Transform::Gather(vec![0, 1, 2].into()),
            |l| l.pre[1] = Transform::Hadamard(Hadamard::power_of_two(8)),
            |l| l.pre[1] = Transform::Hadamard(Hadamard { block: 0, order: 0, table: Arc::new([]) }),
            |l| l.side[0].down = matrix(2, 4),
            |l| l.side[0].scale = f32::NAN,
            |l| l.post[0] = Transform::Scale([f32::INFINITY; 6].into()),
            |l| l.bias = Some(vec![0.0; 5]),
        ];
        for (index, fault) in faults.into_iter().enumerate() {
            let mut linear = whole.clone();
            fault(&mut linear);
            assert!(linear.checked(6, 3).is_err(), "fault {index}");
        }
    }
}
