//! `x[r, :] = scale · E[token(r), :]`: gathers rows of the embedding matrix `(vocabulary, width)` by token.
//!
//! A matrix too large for one binding is cut by rows; each piece writes only the rows whose token it holds.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, Needs, ROW_WORDS, Tolerance, Variant,
    Work, made,
};
use crate::base::Seed;
use crate::quant::Format;

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
    /// Factor of every element.
    pub scale: f32,
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
                x.iter_mut().for_each(|x| *x *= p.scale);
            }
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let row = 4.0 * f64::from(p.width);
        Work { bytes: f64::from(call.rows) * row * 2.0, flops: 0.0 }
    }

    fn cases() -> Vec<Case> {
        let shapes = [(33, 3, 1, 1.0), (1, 2, 0, 1.0), (172, 5, 3, 4.5), (576, 4, 9, 1.0)];
        Format::ALL.iter().flat_map(|&format| shapes.map(|shape| case(format, shape))).collect()
    }

    fn probe(p: &Params, form: Form) -> Option<Case> {
        form.format.map(|format| case(format, (p.width as usize, 3, 1, p.scale)))
    }
}

/// A piece of `tokens` tokens from `first_token` on, and rows in front of it, in it and behind it.
fn case(format: Format, (width, tokens, first_token, scale): (usize, u32, u32, f32)) -> Case {
    let mut seed = Seed::new(1);
    let width = width.next_multiple_of(format.block_len());
    let matrix = made::matrix(&mut seed, format, tokens as usize, width);
    let last = first_token + tokens - 1;
    let rows = [last, first_token, 0, last + 1, u32::MAX, first_token].map(|token| [token, 0, 0]);
    let x = seed.vector(rows.len() * width, 1.0);
    let params = Params {
        width: width as u32,
        first_token,
        tokens,
        code_stride: (format.code_words(width) / 4) as u32,
        scale_stride: format.scale_words(width) as u32,
        scale,
    };
    // A scale times a code plus a minimum: two roundings more or less, of terms larger than their sum; and the factor's.
    let tolerance = Tolerance::roundings(5, scale * 30.0 / 8.0);
    let call = Call { rows: rows.len() as u32, kv_len: 1 };
    let form = Form { format: Some(format), ..Form::default() };
    let args = vec![made::rows(&rows), Data::Matrix(matrix), Data::F32(x)];
    Case::of::<Embed>(format!("{tokens} of {width} from {first_token}"), params, call, form, args, tolerance)
}
