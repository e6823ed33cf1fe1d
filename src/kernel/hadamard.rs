//! `y[r, offset + b·n ..] (+)= H_n · x[r, b·n ..] / √n` for each block b of n elements of a row: the Walsh–Hadamard
//! transform, which spreads outliers over all elements of a block.
//!
//! n = k·2ᵐ and H_n = T ⊗ H₂ ⊗ … ⊗ H₂ in Sylvester's order, T a k × k matrix of ±1 (k = 1 for powers of two; Horadam 2007,
//! *Hadamard Matrices and Their Applications*). A workgroup yields up to 4096 neighbouring outputs: it adds with signs what
//! belongs to them from the other parts of the block, and does the rest in its memory.

use bytemuck::{Pod, Zeroable};

use super::scale::finish;
use super::{
    Arg, ArgKind, Call, Case, Data, Epilogue, Form, Fragment, Home, KernelId, Needs, Tolerance, Variant,
    Work, made,
};
use crate::base::Seed;

/// Outputs of a workgroup; the same number stands in the shader.
const PART: u32 = 4096;

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements of a row of x, whole blocks.
    pub width: u32,
    /// n: elements of a block, `order` times a power of two.
    pub block: u32,
    /// k: rows and columns of T.
    pub order: u32,
    /// Elements from one row of y to the next.
    pub y_stride: u32,
    /// Column of y where element 0 goes.
    pub y_offset: u32,
}

/// The home. The second argument is T.
#[derive(Debug)]
pub struct Hadamard;

impl Home for Hadamard {
    type Params = Params;
    const ID: KernelId = KernelId::Hadamard;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::F32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[Fragment::Epilogue, Fragment::Text(include_str!("../../shaders/hadamard.wgsl"))],
        needs: Needs::NOTHING,
    }];

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [p.width / (p.block / p.order).min(PART), call.rows, 1]
    }

    fn twin(p: &Params, call: Call, form: Form, args: &mut [Arg<'_>]) {
        let [Arg::F32(x), Arg::F32(table), Arg::F32Mut(y)] = args else {
            unreachable!("checked by the caller")
        };
        let (block, order) = (p.block as usize, p.order as usize);
        let part = block / order;
        for (r, x) in x.chunks_exact(p.width as usize).take(call.rows as usize).enumerate() {
            let y = &mut y[r * p.y_stride as usize + p.y_offset as usize..][..p.width as usize];
            for (x, y) in x.chunks_exact(block).zip(y.chunks_exact_mut(block)) {
                let mut turned: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
                turned.chunks_exact_mut(part).for_each(walsh);
                for (i, y) in y.iter_mut().enumerate() {
                    let row = &table[i / part * order..][..order];
                    let terms = row.iter().zip(turned.chunks_exact(part));
                    let sum: f64 = terms.map(|(t, turned)| f64::from(*t) * turned[i % part]).sum();
                    *y = finish(form, *y, (sum / f64::from(p.block).sqrt()) as f32);
                }
            }
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let elements = f64::from(call.rows) * f64::from(p.width);
        let additions = f64::from(p.order) + f64::from(p.block / p.order).log2();
        Work { bytes: 8.0 * elements, flops: additions * elements }
    }

    fn cases() -> Vec<Case> {
        use Epilogue::{Add, Store};
        vec![
            case(8, 8, 1, 1, 0, Store),
            case(1, 1, 1, 2, 0, Store),
            case(6, 2, 1, 2, 3, Add),
            case(192, 64, 1, 2, 0, Store),
            case(24, 24, 12, 2, 1, Store),
            case(96, 48, 12, 1, 0, Add),
            case(8192, 8192, 1, 1, 0, Store),
        ]
    }
}

/// The transform of a power of two, unscaled, in place.
pub(super) fn walsh(x: &mut [f64]) {
    let mut half = 1;
    while half < x.len() {
        for pair in x.chunks_exact_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

fn case(width: u32, block: u32, order: u32, rows: u32, spare: u32, epilogue: Epilogue) -> Case {
    let mut seed = Seed::new(33);
    let x = made::activations(&mut seed, rows as usize, width as usize, width as usize);
    let y_stride = width + 2 * spare;
    let y = seed.vector((rows * y_stride) as usize, 1.0);
    // Each output is the product of a row of norm 1 with the block; it is rounded, and so is its sum with y.
    let norm = made::largest_norm(&x, width as usize, width as usize);
    let tolerance = Tolerance::dot(1.0, norm).and(Tolerance::roundings(2, 1.0 + norm));
    let params = Params { width, block, order, y_stride, y_offset: spare };
    let call = Call { rows, kv_len: 1 };
    let form = Form { epilogue: Some(epilogue), ..Form::default() };
    let args = vec![Data::F32(x), Data::F32(paley(order as usize)), Data::F32(y)];
    let name = format!("{rows} × {width} in blocks of {block}, {epilogue:?}");
    Case::of::<Hadamard>(name, params, call, form, args, tolerance)
}

/// T of order 1, or of a prime p ≡ 3 (mod 4) plus 1 by Paley's first construction: 1 + S with S the differences' quadratic
/// characters, bordered by ones.
pub fn paley(order: usize) -> Vec<f32> {
    let p = order.saturating_sub(1);
    let is_square = |n: usize| (1..p).any(|i| i * i % p == n);
    let entry = |i: usize, j: usize| match (i, j) {
        (0, _) => 1.0,
        (_, 0) => -1.0,
        (i, j) if i == j => 1.0,
        (i, j) if is_square((p + j - i) % p) => 1.0,
        _ => -1.0,
    };
    (0..order * order).map(|at| entry(at / order, at % order)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_table_are_orthogonal() {
        for order in [1, 4, 12, 20] {
            let table = paley(order);
            let rows: Vec<&[f32]> = table.chunks_exact(order).collect();
            for (i, a) in rows.iter().enumerate() {
                for (j, b) in rows.iter().enumerate() {
                    let dot: f32 = a.iter().zip(*b).map(|(a, b)| a * b).sum();
                    assert_eq!(dot, if i == j { order as f32 } else { 0.0 }, "{order}: {i}, {j}");
                }
            }
        }
    }
}
