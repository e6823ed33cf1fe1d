//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864): in each head, pair i of the first `dims` elements,
//! `(a, b)`, becomes `(a·c − b·s, a·s + b·c)` with `(c, s) = table[position, i]`.
//!
//! The pairs are (2i, 2i+1) when interleaved, else (i, i + dims/2). The table `(context, dims/2, 2)` is made on
//! the host in f64: a GPU's sine of a large angle is not to be trusted.

use bytemuck::{Pod, Zeroable};

use super::{Arg, ArgKind, Call, Case, Form, Fragment, Home, KernelId, Needs, ROW_WORDS, Variant, Work};

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
        Vec::new()
    }
}
