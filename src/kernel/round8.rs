//! `y[r, i] = (q − z)·s` with `q = round(x[r, i] / s) + z` in −128 ..= 127: each row rounded to 256 steps between its least
//! and its greatest element, 0 among them. s = (max − min) / 255, z = −128 − round(min / s).
//!
//! What runtimes for phones do to activations before they multiply whole numbers ("8-bit dynamic, asymmetric, per token";
//! `quantize_per_token` of pytorch/ao): the numbers stay floats here, and are the same.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, Needs, Tolerance, Variant, Work, made,
};
use crate::base::Seed;

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements of a row.
    pub width: u32,
}

/// The home.
#[derive(Debug)]
pub struct Round8;

impl Home for Round8 {
    type Params = Params;
    const ID: KernelId = KernelId::Round8;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[Fragment::Text(include_str!("../../shaders/round8.wgsl"))],
        needs: Needs::NOTHING,
    }];

    fn grid(_p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [call.rows, 1, 1]
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::F32(x), Arg::F32Mut(y)] = args else { unreachable!("checked by the caller") };
        let width = p.width as usize;
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).take(call.rows as usize) {
            let (min, max) = x.iter().fold((0.0f32, 0.0f32), |(min, max), &x| (min.min(x), max.max(x)));
            let step = ((max - min) / 255.0).max(f32::EPSILON);
            let zero = (-128.0 - (min / step).round_ties_even()).clamp(-128.0, 127.0);
            for (x, y) in x.iter().zip(y) {
                let code = ((x / step).round_ties_even() + zero).clamp(-128.0, 127.0);
                *y = (code - zero) * step;
            }
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let elements = f64::from(call.rows) * f64::from(p.width);
        Work { bytes: 12.0 * elements, flops: 7.0 * elements }
    }

    fn cases() -> Vec<Case> {
        [(1, 1), (2, 3), (64, 2), (65, 1), (576, 3)].map(case).into()
    }
}

/// Elements near whole steps: a device may divide a little differently, and must find the same steps.
fn case((width, rows): (usize, usize)) -> Case {
    let mut seed = Seed::new(37);
    let mut x = Vec::with_capacity(rows * width);
    for row in 0..rows {
        // The last of several rows is all zeros; the others have 0 in different places of their range.
        let step = if row > 0 && row + 1 == rows { 0.0 } else { 0.25 * (row + 1) as f32 };
        let below = seed.below(256) as f32;
        let element = |i: usize| match i {
            0 => -below,
            1 => 255.0 - below,
            _ => (seed.below(254) as f32 + 1.0 - below) + 0.35 * seed.signed(),
        };
        x.extend((0..width).map(element).map(|steps| steps * step));
    }
    // Two quotients, which WGSL allows five roundings each, and a product.
    let tolerance = Tolerance::roundings(11, made::magnitude(&x));
    let call = Call { rows: rows as u32, kv_len: 1 };
    let args = vec![Data::F32(x), Data::F32(seed.vector(rows * width, 1.0))];
    let params = Params { width: width as u32 };
    Case::of::<Round8>(format!("{rows} × {width}"), params, call, Form::default(), args, tolerance)
}
