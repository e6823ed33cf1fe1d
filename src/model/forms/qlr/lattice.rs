//! Points of the lattice E8 in 16 bits for eight numbers, the codebook E8P (Tseng et al. 2024, QuIP#, arXiv 2402.04396).
//!
//! The upper byte of a code names a pattern of the table, its lower byte b the signs. A pattern is eight nibbles n, each for
//! the number (n − 8)/2; with p the parity of b, bit t of b, with bit 0 flipped where p is 1, turns the sign of nibble t; 1/4
//! is added to all eight where p is 0, and taken from them where it is 1. Element i is nibble SLOTS\[i\].

use std::sync::Arc;

use crate::base::Bytes;
use crate::error::Result;
use crate::format::{Dtype, Tensor};
use crate::quant::{Format, Matrix, Rows};

use super::super::grouped::words;

/// The nibble of each element.
const SLOTS: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];
/// Patterns of a table.
const PATTERNS: usize = 256;
/// Elements of a block of the format that codes become.
const BLOCK: usize = 32;

/// The matrix of the codes `(rows, cols / 8)` over the table `(256)`, in [`Format::E8P`].
///
/// # Errors
/// [`crate::Kind::BadFile`] naming the tensor.
pub(super) fn matrix(codes: &Tensor, table: &Tensor, rows: usize, cols: usize) -> Result<Matrix> {
    let is_fitting = codes.dtype == Dtype::Other(safetensors::Dtype::U16)
        && codes.dims == [rows as u64, cols as u64 / 8]
        && cols.is_multiple_of(BLOCK);
    if !is_fitting {
        let due = format!("16-bit integers for {rows} rows of {cols} numbers, a multiple of {BLOCK},");
        return Err(codes.refuse(format!("{:?} of shape {:?}, where {due} belong", codes.dtype, codes.dims)));
    }
    let points = Points { table: read(table)?, codes: codes.bytes.clone(), row_codes: cols / 8 };
    Matrix::made(&codes.name, Format::E8P, rows, cols, Arc::new(points))
}

/// Twice the numbers of each pattern, in the order of elements.
fn read(table: &Tensor) -> Result<Vec<[i8; 8]>> {
    let flat = Tensor { dims: [&[1], &table.dims[..]].concat(), ..table.clone() };
    let patterns = words(&flat, [1, PATTERNS])?;
    let pattern = |index: usize| {
        let pattern = patterns.get(0, index);
        let twice = SLOTS.map(|slot| (pattern >> (4 * slot) & 15) as i8 - 8);
        match twice.contains(&-8) {
            true => Err(table.refuse(format!("pattern {index} holds the nibble 0, and 1 to 15 are allowed"))),
            false => Ok(twice),
        }
    };
    (0..PATTERNS).map(pattern).collect()
}

#[derive(Debug)]
struct Points {
    table: Vec<[i8; 8]>,
    codes: Bytes,
    row_codes: usize,
}

impl Points {
    /// The elements as codes of [`Format::E8P`], (4·w + 15)/2.
    fn decode(&self, code: u16) -> [u8; 8] {
        let (pattern, signs) = (&self.table[usize::from(code >> 8)], u32::from(code & 255));
        let parity = signs.count_ones() & 1;
        let (signs, middle) = (signs ^ parity, 8 - parity as i8);
        std::array::from_fn(|i| {
            let is_negative = signs >> SLOTS[i] & 1 == 1;
            (middle + if is_negative { -pattern[i] } else { pattern[i] }) as u8
        })
    }
}

impl Rows for Points {
    fn write(&self, row: usize, bytes: &mut [u8]) {
        let codes = &self.codes[2 * row * self.row_codes..][..2 * self.row_codes];
        let blocks = codes.as_chunks::<2>().0.chunks_exact(BLOCK / 8);
        for (codes, bytes) in blocks.zip(bytes.chunks_exact_mut(BLOCK / 2)) {
            let (low, high) = codes.split_at(BLOCK / 16);
            for ((low, high), bytes) in low.iter().zip(high).zip(bytes.chunks_exact_mut(8)) {
                let [low, high] = [low, high].map(|code| self.decode(u16::from_le_bytes(*code)));
                for ((byte, low), high) in bytes.iter_mut().zip(low).zip(high) {
                    *byte = low | high << 4;
                }
            }
        }
    }

    fn release(&self) {
        self.codes.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (n − 8)/2 of all nibbles, with every sign, and the quarter of each parity.
    #[test]
    fn every_code_is_its_formula() {
        let nibble = |index: usize, slot: usize| 9 + 2 * (index >> (slot % 4)) as i32 % 6;
        let pattern = |index: usize| -> [i32; 8] { std::array::from_fn(|slot| nibble(index, slot).min(15)) };
        let table = (0..PATTERNS).map(|index| SLOTS.map(|slot| (pattern(index)[slot as usize] - 8) as i8));
        let points = Points { table: table.collect(), codes: Vec::new().into(), row_codes: 0 };
        for code in 0..=u16::MAX {
            let signs = u32::from(code & 255);
            let odd = signs.count_ones() % 2 == 1;
            for (i, got) in points.decode(code).into_iter().enumerate() {
                let slot = SLOTS[i];
                let mut value = f64::from(pattern(usize::from(code >> 8))[slot as usize] - 8) / 2.0;
                if (signs >> slot & 1 == 1) != (odd && slot == 0) {
                    value = -value;
                }
                value += if odd { -0.25 } else { 0.25 };
                assert_eq!((2.0 * f64::from(got) - 15.0) / 4.0, value, "{code:04x}, element {i}");
            }
        }
    }
}
