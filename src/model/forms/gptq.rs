//! GPTQ (Frantar et al. 2022, arXiv 2210.17323) as AutoGPTQ and GPTQModel write it: for N outputs and K inputs in groups of
//! g, `qweight` i32 `(K·b/32, N)` packs codes along K, low bits first; `qzeros` i32 `(K/g, N·b/32)` packs zero points along
//! N; `scales` `(K/g, N)`; `g_idx` i32 `(K)` names the group of each input. w = (q − z)·s, where a file of version 1 holds
//! z − 1, and its sum with 1 keeps b bits.
//!
//! With `desc_act` the inputs of a group do not stand together: the columns are put in the order of their groups, and so is
//! the input.

use crate::error::{Error, Result};
use crate::format::{Checkpoint, Config};
use crate::model::source::Stem;
use crate::model::{Linear, Transform};

use super::grouped::{
    Floats, Grouped, Shape, Words, field, fields, group_of, matrix, order_of_groups, reorder, whole, words,
};
use super::{Form, Kind};

pub(super) const KIND: Kind = Kind { method: "gptq", read };

#[derive(Debug)]
struct Gptq {
    bits: u32,
    /// `None` for one group of all inputs.
    group: Option<u32>,
    /// What is added to a zero point of the file.
    above: u32,
}

fn read(_checkpoint: &Checkpoint, settings: &Config) -> Result<Box<dyn Form>> {
    let bits = settings.u32("bits")?.unwrap_or(4);
    if !matches!(bits, 2 | 3 | 4 | 8) {
        return Err(Error::unsupported(format!("{bits} bits are not supported"))
            .at("bits")
            .hint("2, 3, 4 or 8 are"));
    }
    let group = match settings.float("group_size")? {
        None | Some(-1.0) => None,
        Some(_) => settings.u32("group_size")?,
    };
    let above = match settings.text("checkpoint_format")?.unwrap_or("gptq") {
        "gptq" => 1,
        "gptq_v2" => 0,
        other => {
            let what = format!("the layout {other:?} is not supported");
            return Err(Error::unsupported(what).at("checkpoint_format").hint("gptq and gptq_v2 are"));
        }
    };
    Ok(Box::new(Gptq { bits, group, above }))
}

impl Form for Gptq {
    fn linear(&self, stem: &Stem<'_>, rows: u32, cols: u32) -> Result<Option<Linear>> {
        let Some(weights) = stem.get(".qweight") else { return Ok(None) };
        let (n, k, bits) = (rows as usize, cols as usize, self.bits as usize);
        let group = group_of(weights, self.group, k)?;
        if !(k * bits).is_multiple_of(32) || !(n * bits).is_multiple_of(32) {
            return Err(weights.refuse(format!("{bits} bits do not fit a matrix of {n} by {k}")));
        }
        let groups = k / group;
        let scales = stem.tensor(".scales")?;
        let codes = Codes {
            bits: self.bits,
            above: self.above,
            weights: words(weights, [k * bits / 32, n])?,
            zeros: words(stem.tensor(".qzeros")?, [groups, n * bits / 32])?,
            scales: Floats::of(scales, &[groups, n])?,
            rows: n,
            order: stem.get(".g_idx").map(|tensor| order_of_groups(tensor, k, group)).transpose()?.flatten(),
        };
        let middle = (1 << (self.bits - 1)) as f32;
        let is_symmetric = (0..groups).all(|group| (0..n).all(|row| codes.zero(row, group) == middle));
        let format = whole(self.bits, is_symmetric, codes.scales.are_halves());
        let shape = Shape { rows: n, cols: k, group, format };
        let pre = codes.order.clone().map(|order| Transform::Gather(order.into())).into_iter().collect();
        Ok(Some(Linear { pre, ..Linear::plain(matrix(stem.name(), shape, codes)?) }))
    }
}

/// Where codes, scales and zero points stand.
#[derive(Debug)]
struct Codes {
    bits: u32,
    above: u32,
    weights: Words,
    zeros: Words,
    scales: Floats,
    rows: usize,
    order: Option<Vec<u32>>,
}

impl Grouped for Codes {
    fn codes(&self, row: usize, codes: &mut [u8]) {
        fields(self.bits, self.weights.column(row), codes);
        reorder(codes, self.order.as_deref());
    }

    fn scale(&self, row: usize, group: usize) -> f32 {
        self.scales.get(group * self.rows + row)
    }

    fn zero(&self, row: usize, group: usize) -> f32 {
        let zero = u32::from(field(self.bits, row, |word| self.zeros.get(group, word)));
        ((zero + self.above) & ((1 << self.bits) - 1)) as f32
    }

    fn release(&self) {
        self.weights.release();
        self.zeros.release();
    }
}
