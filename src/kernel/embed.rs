//! `x[r, :] = E[token(r), :]`: gathers rows of the embedding matrix `(vocabulary, width)` by token.
//!
//! A matrix too large for one binding is cut by rows; each piece writes only the rows whose token it holds.

use bytemuck::{Pod, Zeroable};

use super::{Arg, ArgKind, Call, Case, Form, Fragment, Home, KernelId, Needs, ROW_WORDS, Variant, Work};

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements of a row.
    pub width: u32,
    /// The token of the first row of the matrix (of this piece of it).
    pub first_token: u32,
    /// Rows of the matrix.
    pub tokens: u32,
    /// `vec4<u32>`s of a row of codes.
    pub code_stride: u32,
    /// u32s of a row of scales.
    pub scale_stride: u32,
}

/// The home.
#[derive(Debug)]
pub struct Embed;

impl Home for Embed {
    type Params = Params;
    const ID: KernelId = KernelId::Embed;
    const ARGS: &'static [ArgKind] = &[ArgKind::U32, ArgKind::Matrix, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[Fragment::Quant, Fragment::Text(include_str!("../../shaders/embed.wgsl"))],
        needs: Needs::NOTHING,
    }];

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [p.width.div_ceil(32).div_ceil(64), call.rows, 1]
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::U32(rows), Arg::Matrix(matrix), Arg::F32Mut(x)] = args else {
            unreachable!("checked by the caller")
        };
        let width = p.width as usize;
        for (row, x) in rows.chunks_exact(ROW_WORDS).zip(x.chunks_exact_mut(width)).take(call.rows as usize) {
            let token = row[0].wrapping_sub(p.first_token);
            if token < p.tokens {
                matrix.decode_row(token as usize, x);
            }
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let row = 4.0 * f64::from(p.width);
        Work { bytes: f64::from(call.rows) * row * 2.0, flops: 0.0 }
    }

    fn cases() -> Vec<Case> {
        Vec::new()
    }
}
