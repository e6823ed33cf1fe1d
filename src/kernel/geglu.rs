//! `y[r, i] = gelu(x[r, i]) · x[r, width + i]`: the gate of the feed-forward network with the gelu of [`super::gelu`] (Shazeer
//! 2020, arXiv 2002.05202); gate and up projections stand side by side in x.

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, Needs, Tolerance, Variant, Work, gelu,
    made,
};
use crate::base::Seed;

pub use super::swiglu::Params;

/// The home.
#[derive(Debug)]
pub struct Geglu;

impl Home for Geglu {
    type Params = Params;
    const ID: KernelId = KernelId::Geglu;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[gelu::GELU, Fragment::Text(include_str!("../../shaders/geglu.wgsl"))],
        needs: Needs::NOTHING,
    }];

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [p.width.div_ceil(64), call.rows, 1]
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::F32(x), Arg::F32Mut(y)] = args else { unreachable!("checked by the caller") };
        let width = p.width as usize;
        for (x, y) in x.chunks_exact(2 * width).zip(y.chunks_exact_mut(width)).take(call.rows as usize) {
            let (gate, up) = x.split_at(width);
            for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
                *y = (gelu::gelu(f64::from(*gate)) * f64::from(*up)) as f32;
            }
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let elements = f64::from(call.rows) * f64::from(p.width);
        Work { bytes: 12.0 * elements, flops: 9.0 * elements }
    }

    fn cases() -> Vec<Case> {
        [(5, 1), (1, 1), (65, 3), (2048, 2)].map(case).into()
    }
}

fn case((width, rows): (usize, usize)) -> Case {
    let mut seed = Seed::new(16);
    let mut x = made::activations(&mut seed, rows, 2 * width, 2 * width);
    if width == 5 {
        // Gates beyond what exp can take.
        (x[0], x[1], x[5], x[6]) = (-120.0, 120.0, 1.0, 1.0);
    }
    let (gates, ups): (Vec<_>, Vec<_>) = x.chunks_exact(2 * width).map(|row| row.split_at(width)).unzip();
    let products =
        gates.concat().into_iter().zip(ups.concat()).map(|(gate, up)| gate.abs().max(1.0) * up.abs());
    let tolerance = Tolerance::roundings(gelu::ROUNDINGS + 1, products.fold(0.0, f32::max));
    let call = Call { rows: rows as u32, kv_len: 1 };
    let args = vec![Data::F32(x), Data::F32(seed.vector(rows * width, 1.0))];
    let params = Params { width: width as u32 };
    Case::of::<Geglu>(format!("{rows} × {width}"), params, call, Form::default(), args, tolerance)
}
