//! Random weights in any format, faster than a disk takes them: some Gaussian blocks are encoded, and a matrix is
//! drawn from those. What a kernel reads is as long, as random to its caches and as far from zero as real weights.

use std::collections::BTreeMap;
use std::io::Write;

use crate::base::Seed;
use crate::error::Result;
use crate::format::NewTensor;
use crate::quant::Format;

/// Elements of a pool: small enough for a cache, and 128 blocks of 256 make 2⁵⁶ rows of 2048.
const ELEMENTS: usize = 1 << 15;
/// Bytes between two reports.
const PIECE: usize = 1 << 20;

/// The pools that the tensors of a file are drawn from, by format and number of columns.
pub(super) struct Pools {
    seed: Seed,
    pools: BTreeMap<(Format, u64), Pool>,
}

struct Pool {
    chunks: Vec<u8>,
    chunk_bytes: usize,
}

impl Pools {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed: Seed::new(seed), pools: BTreeMap::new() }
    }

    /// Writes the data of a tensor; `report` hears of its bytes so far.
    pub(super) fn fill(
        &mut self,
        tensor: &NewTensor,
        out: &mut dyn Write,
        report: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let Self { seed, pools } = self;
        let cols = tensor.dims.last().copied().unwrap_or(1);
        let pool = pools.entry((tensor.format, cols)).or_insert_with(|| Pool::new(tensor.format, cols, seed));
        let bytes = tensor.bytes()?;
        let piece = (PIECE / pool.chunk_bytes * pool.chunk_bytes) as u64;
        let mut buffer = Vec::with_capacity(PIECE);
        let mut written = 0;
        while written < bytes {
            buffer.clear();
            let chunks = piece.min(bytes - written) / pool.chunk_bytes as u64;
            (0..chunks).for_each(|_| buffer.extend_from_slice(pool.draw(seed)));
            if buffer.is_empty() {
                break; // Part of a chunk is left, and the writer counts.
            }
            out.write_all(&buffer)?;
            written += buffer.len() as u64;
            report(written)?;
        }
        Ok(())
    }
}

impl Pool {
    fn new(format: Format, cols: u64, seed: &mut Seed) -> Self {
        // At least 32 elements at a time, whatever the block.
        let chunk_len = 32usize.next_multiple_of(format.block_len());
        // The sum of four uniform numbers in −1 .. 1 has a variance of 4/3.
        let scale = (0.75 / cols as f64).sqrt() as f32;
        let values: Vec<f32> = (0..ELEMENTS / chunk_len * chunk_len)
            .map(|_| scale * (0..4).map(|_| seed.signed()).sum::<f32>())
            .collect();
        let chunk_bytes = chunk_len / format.block_len() * format.block_bytes();
        Self { chunks: format.encode(&values), chunk_bytes }
    }

    fn draw(&self, seed: &mut Seed) -> &[u8] {
        let chunk = seed.below((self.chunks.len() / self.chunk_bytes) as u64) as usize;
        &self.chunks[chunk * self.chunk_bytes..][..self.chunk_bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_every_format_have_the_deviation_of_their_inputs() {
        for format in Format::all_in_gguf() {
            let tensor = NewTensor { name: "w".into(), dims: vec![256, 1024], format };
            let mut bytes = Vec::new();
            let mut reports = Vec::new();
            let mut report = |written| {
                reports.push(written);
                Ok(())
            };
            Pools::new(1).fill(&tensor, &mut bytes, &mut report).unwrap();
            assert_eq!(reports.last(), Some(&tensor.bytes().unwrap()), "{format}");
            let mut values = vec![0.0; 256 * 1024];
            format.decode(&bytes, &mut values);
            let square: f64 = values.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
            let deviation = (square / values.len() as f64).sqrt() * 32.0;
            // Formats of less than two bits err by a third.
            assert!((0.6..1.4).contains(&deviation), "{format}: {deviation}");
            assert_ne!(values[..1024], values[1024..2048], "{format}: two rows are the same");
        }
    }
}
