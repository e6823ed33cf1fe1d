//! The one seam through which the engine sees a weight matrix, whatever form it was compressed to.

use crate::quant::Matrix;

/// `y = base · x + bias`, `(cols) -> (rows)`.
///
/// Every form of compression is meant to become data of this value, so that nothing else learns its name:
///
/// ```text
/// y = post( base · pre(x)  +  scale · L (R · pre(x)) ) + bias
/// ```
///
/// A form that needs more than `base` and `bias` adds its field here: `pre` and `post`, short lists of
/// transforms of a vector (multiply, Walsh–Hadamard, permute); `side`, a low-rank path `(scale, L, R)`; a base
/// that is a Kronecker product. `lower` then grows the steps before and after the product, and no other place.
#[derive(Clone, Debug)]
pub struct Linear {
    /// The matrix, `(rows, cols)` = (outputs, inputs).
    pub base: Matrix,
    /// Added to the output, `(rows)`.
    pub bias: Option<Vec<f32>>,
}

impl Linear {
    /// Outputs.
    pub fn rows(&self) -> usize {
        self.base.rows()
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.base.cols()
    }
}
