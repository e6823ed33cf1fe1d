//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864): in each head, pair i of the first `dims` elements,
//! `(a, b)`, becomes `(a·c − b·s, a·s + b·c)` with `(c, s) = table[position, i]`.
//!
//! The pairs are (2i, 2i+1) when interleaved, else (i, i + dims/2). The table `(context, dims/2, 2)` is made on
//! the host in f64: a GPU's sine of a large angle is not to be trusted.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, Needs, ROW_WORDS, Tolerance, Variant,
    Work, made,
};
use crate::base::Seed;

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements from one row of x to the next.
    pub stride: u32,
    /// Column of x where head 0 begins.
    pub offset: u32,
    /// Heads to rotate, side by side.
    pub heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Elements of a head that are rotated, an even number.
    pub dims: u32,
    /// 1: the pairs are neighbours; 0: they are half of `dims` apart.
    pub interleaved: u32,
}

/// The home.
#[derive(Debug)]
pub struct Rope;

impl Home for Rope {
    type Params = Params;
    const ID: KernelId = KernelId::Rope;
    const ARGS: &'static [ArgKind] = &[ArgKind::U32, ArgKind::F32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[Fragment::Text(include_str!("../../shaders/rope.wgsl"))],
        needs: Needs::NOTHING,
    }];

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [(p.heads * p.dims / 2).div_ceil(64), call.rows, 1]
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::U32(rows), Arg::F32(table), Arg::F32Mut(x)] = args else {
            unreachable!("checked by the caller")
        };
        let half = p.dims as usize / 2;
        for (r, row) in rows.chunks_exact(ROW_WORDS).take(call.rows as usize).enumerate() {
            let turns = &table[row[1] as usize * 2 * half..][..2 * half];
            for head in 0..(p.heads as usize) {
                let at = r * p.stride as usize + p.offset as usize + head * p.head_dim as usize;
                for (i, turn) in turns.chunks_exact(2).enumerate() {
                    let (a, b) = if p.interleaved == 1 {
                        (at + 2 * i, at + 2 * i + 1)
                    } else {
                        (at + i, at + i + half)
                    };
                    let (xa, xb, c, s) =
                        (f64::from(x[a]), f64::from(x[b]), f64::from(turn[0]), f64::from(turn[1]));
                    x[a] = (xa * c - xb * s) as f32;
                    x[b] = (xa * s + xb * c) as f32;
                }
            }
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let elements = f64::from(call.rows) * f64::from(p.heads) * f64::from(p.dims);
        Work { bytes: 8.0 * elements, flops: 3.0 * elements }
    }

    fn cases() -> Vec<Case> {
        let shape = |stride, offset, heads, head_dim, dims, interleaved| Params {
            stride,
            offset,
            heads,
            head_dim,
            dims,
            interleaved,
        };
        let shapes = [
            (shape(8, 0, 1, 8, 8, 1), vec![3]),
            (shape(8, 0, 1, 8, 8, 0), vec![3]),
            (shape(2, 0, 1, 2, 2, 1), vec![0, 1]),
            (shape(40, 3, 3, 10, 6, 1), vec![1, 0, 40]),
            (shape(40, 3, 3, 10, 6, 0), vec![1, 0, 40]),
            (shape(960, 0, 12, 64, 64, 1), vec![7, 33]),
            (shape(960, 192, 3, 64, 64, 0), vec![32, 31, 0]),
            (shape(130, 1, 1, 128, 128, 0), vec![40]),
        ];
        shapes.into_iter().map(|(params, positions)| case(params, &positions)).collect()
    }
}

fn case(params: Params, positions: &[u32]) -> Case {
    let mut seed = Seed::new(6);
    let (half, context) = (params.dims / 2, positions.iter().max().map_or(0, |last| last + 1));
    let angle =
        |at: u32| f64::from(at / half) * 10000f64.powf(-2.0 * f64::from(at % half) / f64::from(params.dims));
    let table = (0..context * half).flat_map(|at| [angle(at).cos() as f32, angle(at).sin() as f32]).collect();
    let x = made::activations(&mut seed, positions.len(), params.stride as usize, params.stride as usize);
    let rows: Vec<_> = positions.iter().map(|&position| [9, position, 1]).collect();
    let call = Call { rows: rows.len() as u32, kv_len: context };
    // Two products and a sum, of terms up to the largest element each.
    let tolerance = Tolerance::roundings(3, 2.0 * made::magnitude(&x));
    let name = format!("{params:?}");
    let args = vec![made::rows(&rows), Data::F32(table), Data::F32(x)];
    Case::of::<Rope>(name, params, call, Form::default(), args, tolerance)
}
