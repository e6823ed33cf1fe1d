//! AWQ (Lin et al. 2023, arXiv 2306.00978) as AutoAWQ writes it for its GEMM kernel: for N outputs and K inputs in groups of
//! g, `qweight` i32 `(K, N/8)` and `qzeros` i32 `(K/g, N/8)` pack eight outputs in a word, of which the nibbles from the
//! lowest hold outputs 0, 2, 4, 6, 1, 3, 5, 7; `scales` `(K/g, N)`. w = (q − z)·s. The scales of activations that the
//! method searches for are in the norms and the matrices before.

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Config};
use crate::model::Linear;
use crate::model::source::Stem;

use super::grouped::{Floats, Grouped, Shape, Words, group_of, matrix, whole, words};
use super::{Form, Kind};

pub(super) const KIND: Kind = Kind { method: "awq", read };

const BITS: u32 = 4;

/// Outputs in a word.
const PACKED: usize = 8;

/// The bit at which each of eight outputs begins.
const SHIFTS: [u32; PACKED] = [0, 16, 4, 20, 8, 24, 12, 28];

#[derive(Debug)]
struct Awq {
    /// `None` for one group of all inputs.
    group: Option<u32>,
}

fn read(_checkpoint: &Checkpoint, settings: &Config) -> Result<Box<dyn Form>> {
    let bits = settings.u32("bits")?.or(settings.u32("w_bit")?).unwrap_or(BITS);
    if bits != BITS {
        return Err(Error::unsupported(format!("{bits} bits are not supported")).at("bits").hint("4 are"));
    }
    let version = settings.text("version")?.unwrap_or("gemm");
    if !version.eq_ignore_ascii_case("gemm") {
        let what = format!("the layout {version:?} is not supported");
        return Err(Error::unsupported(what).at("version").hint("gemm is"));
    }
    let key = if settings.get("group_size").is_some() { "group_size" } else { "q_group_size" };
    let group = match settings.float(key)? {
        Some(-1.0) => None,
        None => Some(128),
        Some(_) => settings.u32(key)?,
    };
    Ok(Box::new(Awq { group }))
}

impl Form for Awq {
    fn linear(&self, stem: &Stem<'_>, rows: u32, cols: u32) -> Result<Option<Linear>> {
        let Some(weights) = stem.get(".qweight") else { return Ok(None) };
        let (n, k) = (rows as usize, cols as usize);
        let group = group_of(weights, self.group, k)?;
        if !n.is_multiple_of(PACKED) {
            return Err(weights.refuse(format!("{n} outputs are no multiple of {PACKED}")));
        }
        let groups = k / group;
        let codes = Codes {
            weights: words(weights, [k, n / PACKED])?,
            zeros: words(stem.tensor(".qzeros")?, [groups, n / PACKED])?,
            scales: Floats::of(stem.tensor(".scales")?, &[groups, n])?,
            rows: n,
        };
        let is_symmetric = (0..groups).all(|group| (0..n).all(|row| codes.zero(row, group) == 8.0));
        let format = whole(BITS, is_symmetric, codes.scales.are_halves());
        let shape = Shape { rows: n, cols: k, group, format };
        Ok(Some(Linear::plain(matrix(stem.name(), shape, codes)?)))
    }
}

/// Where codes, scales and zero points stand.
#[derive(Debug)]
struct Codes {
    weights: Words,
    zeros: Words,
    scales: Floats,
    rows: usize,
}

impl Grouped for Codes {
    fn codes(&self, row: usize, codes: &mut [u8]) {
        let (col, shift) = (row / PACKED, SHIFTS[row % PACKED]);
        let words = self.weights.column(col);
        codes.iter_mut().zip(words).for_each(|(code, word)| *code = (word >> shift & 15) as u8);
    }

    fn scale(&self, row: usize, group: usize) -> f32 {
        self.scales.get(group * self.rows + row)
    }

    fn zero(&self, row: usize, group: usize) -> f32 {
        (self.zeros.get(group, row / PACKED) >> SHIFTS[row % PACKED] & 15) as f32
    }

    fn release(&self) {
        self.weights.release();
    }
}
