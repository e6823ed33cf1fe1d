//! TQCompressor (Abronin et al. 2024, arXiv 2401.16367), which wrote TQCompressedGPT-2: a linear of K = m₁·m₂ inputs and
//! N = n₁·n₂ outputs is a sum of R Kronecker products between two permutations. `A` `(R, n₁, m₁)`, `B` `(R, m₂, n₂)`, `p_inv`
//! `(K)`, `q` `(N)` and a bias `b` `(N)`: with X = x\[p_inv\] as `(m₁, m₂)` and Y = Σ A_r X B_r as `(n₁, n₂)`, row after row,
//! y = Y\[q\] + b. The inner indices of X and Y become the outer ones here, by the orders of the permutations: so A is read as
//! it stands, row after row, and x in parts.
//!
//! An embedding is a narrower one, `STEM.embedding`, of which each element becomes as many as `B` `(1, n)` has,
//! e\[i·n + j\] = x\[i\]·B\[j\], in the order of `p`. The narrower one may be such an embedding again; all of them together are
//! one gather and one scale.
//!
//! There are no settings: the names of the tensors say it.

use std::sync::Arc;

use safetensors::Dtype::{I32, I64};

use crate::error::Result;
use crate::format::{Checkpoint, Config, Dtype, Tensor};
use crate::model::source::{Stem, check_shape, vector};
use crate::model::{Factors, Linear, Transform};
use crate::quant::Matrix;

use super::grouped::type_of;
use super::{Form, Kind};

pub(super) const KIND: Kind = Kind { method: "tqcompressor", read };

/// Whether a linear or the embedding of `checkpoint` is in this form: each has a permutation of its own name.
pub(super) fn is_here(checkpoint: &Checkpoint) -> bool {
    checkpoint.tensors.keys().any(|name| name.ends_with(".p_inv") || name.ends_with(".p"))
}

/// Whether the linear `stem` is in this form and has a bias.
pub(super) fn has_bias(checkpoint: &Checkpoint, stem: &str) -> bool {
    [".p_inv", ".b"].iter().all(|ending| checkpoint.tensors.contains_key(&format!("{stem}{ending}")))
}

#[derive(Debug)]
struct TqCompressor;

fn read(_checkpoint: &Checkpoint, _settings: &Config) -> Result<Box<dyn Form>> {
    Ok(Box::new(TqCompressor))
}

impl Form for TqCompressor {
    fn linear(&self, stem: &Stem<'_>, rows: u32, cols: u32) -> Result<Option<Linear>> {
        let Some(order) = stem.get(".p_inv") else { return Ok(None) };
        let (large, small) = (stem.tensor(".A")?, stem.tensor(".B")?);
        let refuse = |tensor: &Tensor| {
            let shapes = format!("the shapes of A and B are {:?} and {:?}", large.dims, small.dims);
            Err(tensor.refuse(format!("{shapes}, whose products are not {cols} inputs and {rows} outputs")))
        };
        let dims = |tensor: &Tensor| {
            let dims: Vec<u32> = tensor.dims.iter().filter_map(|&dim| u32::try_from(dim).ok()).collect();
            <[u32; 3]>::try_from(dims).ok().filter(|dims| !dims.contains(&0))
        };
        let Some([terms, m2, n2]) = dims(small) else { return refuse(small) };
        let Some([also_terms, n1, m1]) = dims(large) else { return refuse(large) };
        let fits =
            terms == also_terms && m1.checked_mul(m2) == Some(cols) && n1.checked_mul(n2) == Some(rows);
        if !fits {
            return refuse(large);
        }
        floats(large)?;
        let values = floats(small)?;
        // B of each term is (parts of the input, parts of the output): its transpose is the factor.
        let at = |t, i, j| values[((t * m2 + j) * n2 + i) as usize];
        let transposed = (0..terms).flat_map(|t| (0..n2).flat_map(move |i| (0..m2).map(move |j| (t, i, j))));
        let factors =
            Factors { terms, rows: n2, cols: m2, values: transposed.map(|(t, i, j)| at(t, i, j)).collect() };
        let base = Matrix::new(
            &large.name,
            large.format()?,
            terms as usize * n1 as usize,
            m1 as usize,
            large.bytes.clone(),
        )
        .map_err(|error| error.at_offset(large.offset).in_file(&large.file))?;
        let order = permutation(order, cols)?;
        let outputs = permutation(stem.tensor(".q")?, rows)?;
        Ok(Some(Linear {
            cols,
            pre: vec![Transform::Gather(
                (0..cols).map(|at| order[(at % m1 * m2 + at / m1) as usize]).collect(),
            )],
            factors: Some(factors),
            post: vec![Transform::Gather(outputs.iter().map(|at| at % n2 * n1 + at / n2).collect())],
            bias: stem.get(".b").map(|bias| vector(bias, rows)).transpose()?,
            ..Linear::plain(base)
        }))
    }

    fn embedding(&self, stem: &Stem<'_>, rows: u32, cols: u32) -> Result<Option<(Matrix, Vec<Transform>)>> {
        // Element i of the result is element `from[i]` of the embedding inside times `gains[i]`.
        let mut from: Vec<u32> = (0..cols).collect();
        let mut gains = vec![1.0; cols as usize];
        let (mut inner, mut width) = (String::new(), cols);
        while let Some(small) = stem.get(&format!("{inner}.B")) {
            let order = permutation(stem.tensor(&format!("{inner}.p"))?, width)?;
            let n = small.dims.last().and_then(|&n| u32::try_from(n).ok()).unwrap_or(0);
            if small.dims != [1, u64::from(n)] || n == 0 || !width.is_multiple_of(n) {
                let what =
                    format!("the shape is {:?}, where [1, n] belongs, n a divisor of {width}", small.dims);
                return Err(small.refuse(what));
            }
            let values = floats(small)?;
            for (from, gain) in from.iter_mut().zip(&mut gains) {
                let at = order[*from as usize];
                *from = at / n;
                *gain *= f64::from(values[(at % n) as usize]);
            }
            inner.push_str(".embedding");
            width /= n;
        }
        if inner.is_empty() {
            return Ok(None);
        }
        let table = stem.tensor(&format!("{inner}.weight"))?;
        check_shape(table, &[rows, width])?;
        let matrix =
            Matrix::new(&table.name, table.format()?, rows as usize, width as usize, table.bytes.clone())
                .map_err(|error| error.at_offset(table.offset).in_file(&table.file))?;
        let gains: Arc<[f32]> = gains.into_iter().map(|gain| gain as f32).collect();
        Ok(Some((matrix, vec![Transform::Gather(from.into()), Transform::Scale(gains)])))
    }
}

/// The elements of a tensor of any shape, all of them finite.
fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    let len = tensor.dims.iter().try_fold(1u32, |len, &dim| len.checked_mul(u32::try_from(dim).ok()?));
    let Some(len) = len else { return Err(tensor.refuse("too many elements")) };
    vector(&Tensor { dims: vec![u64::from(len)], ..tensor.clone() }, len)
}

/// A tensor of the whole numbers below `len`, each once.
fn permutation(tensor: &Tensor, len: u32) -> Result<Vec<u32>> {
    check_shape(tensor, &[len])?;
    let numbers: Vec<i64> = match tensor.dtype {
        Dtype::Other(I64) => {
            tensor.bytes.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
        }
        Dtype::Other(I32) => {
            tensor.bytes.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes).into()).collect()
        }
        _ => return Err(tensor.refuse(format!("{}, where whole numbers belong", type_of(tensor)))),
    };
    let mut seen = vec![false; len as usize];
    let mut order = Vec::with_capacity(numbers.len());
    for (index, number) in numbers.into_iter().enumerate() {
        let place = u32::try_from(number).ok().filter(|&place| place < len);
        let Some(place) = place.filter(|&place| !std::mem::replace(&mut seen[place as usize], true)) else {
            let what = format!("element {index} is {number}, where each number below {len} belongs once");
            return Err(tensor.refuse(what));
        };
        order.push(place);
    }
    match order.len() == len as usize {
        true => Ok(order),
        false => Err(tensor.refuse(format!("{} elements, where {len} belong", order.len()))),
    }
}
