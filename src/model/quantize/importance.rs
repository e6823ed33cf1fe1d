//! How much each input of each matrix counts.

use std::collections::BTreeMap;
use std::fmt;

use crate::base::checksum;
use crate::error::{Error, Result};

/// The sum of squares of each input, by the name of the matrix.
#[derive(Clone, Debug, Default)]
pub struct Importance {
    of: BTreeMap<String, Vec<f32>>,
}

impl Importance {
    /// Adds a matrix. Sums are scaled to a mean of 1, and none is less than a millionth: an input that the text did not use
    /// still counts.
    ///
    /// # Errors
    /// [`crate::Kind::InvalidArgument`] for a sum that is no number.
    pub fn insert(&mut self, name: &str, sums: Vec<f32>) -> Result<()> {
        if let Some(sum) = sums.iter().find(|sum| !sum.is_finite()) {
            return Err(Error::invalid(format!("{sum} is no sum of squares")).at(format!("tensor {name}")));
        }
        let mean = sums.iter().map(|&sum| f64::from(sum)).sum::<f64>() / sums.len().max(1) as f64;
        if mean > 0.0 {
            let scaled = sums.iter().map(|&sum| (f64::from(sum) / mean).max(1e-6) as f32).collect();
            self.of.insert(name.to_owned(), scaled);
        }
        Ok(())
    }

    /// The inputs of a matrix, if they are known.
    pub fn of(&self, name: &str) -> Option<&[f32]> {
        self.of.get(name).map(Vec::as_slice)
    }
}

/// How many matrices, and a number that stands for the sums.
impl fmt::Display for Importance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.of.is_empty() {
            return f.write_str("none");
        }
        let bytes: Vec<u8> = self.of.values().flatten().flat_map(|sum| sum.to_le_bytes()).collect();
        write!(f, "{} matrices, {:016x}", self.of.len(), checksum(&bytes))
    }
}
