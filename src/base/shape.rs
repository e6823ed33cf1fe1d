//! Arithmetic on sizes that came from outside and may not wrap.

use crate::error::{Error, Result};

/// The product of `dims` as a `usize`.
///
/// # Errors
/// [`crate::Kind::BadFile`] where it does not fit.
pub fn product(dims: &[u64]) -> Result<usize> {
    dims.iter()
        .try_fold(1u64, |product, &dim| product.checked_mul(dim))
        .and_then(|product| usize::try_from(product).ok())
        .ok_or_else(|| {
            Error::bad_file(format!("the dimensions {dims:?} multiply to more than can be addressed"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_that_wraps_is_refused() {
        assert_eq!(product(&[2, 3, 4]).unwrap(), 24);
        assert_eq!(product(&[]).unwrap(), 1);
        assert!(product(&[u64::MAX, 2]).is_err());
        assert!(product(&[1 << 32, 1 << 32]).is_err());
    }
}
