//! `y[i] += Σ_r x[r, i]²`: how much each element of an input counts, summed over rows; what calibration measures.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, Needs, Tolerance, Variant, Work, made,
};
use crate::base::Seed;

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements of a row of x.
    pub width: u32,
}

/// The home.
#[derive(Debug)]
pub struct Squares;

impl Home for Squares {
    type Params = Params;
    const ID: KernelId = KernelId::Squares;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[Fragment::Text(include_str!("../../shaders/squares.wgsl"))],
        needs: Needs::NOTHING,
    }];

    fn grid(p: &Params, _call: Call, _variant: &Variant) -> [u32; 3] {
        [p.width.div_ceil(64), 1, 1]
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::F32(x), Arg::F32Mut(y)] = args else { unreachable!("checked by the caller") };
        let width = p.width as usize;
        let mut sums = vec![0.0; width];
        for x in x.chunks_exact(width).take(call.rows as usize) {
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += f64::from(*x) * f64::from(*x));
        }
        y.iter_mut().zip(sums).for_each(|(y, sum)| *y = (f64::from(*y) + sum) as f32);
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let elements = f64::from(call.rows) * f64::from(p.width);
        Work { bytes: 4.0 * elements + 8.0 * f64::from(p.width), flops: 2.0 * elements }
    }

    fn cases() -> Vec<Case> {
        [(3, 1), (1, 2), (64, 3), (65, 7), (576, 33)].map(case).into()
    }
}

fn case((width, rows): (usize, usize)) -> Case {
    let mut seed = Seed::new(34);
    let x = made::activations(&mut seed, rows, width, width);
    let y: Vec<f32> = seed.vector(width, 1.0).iter().map(|v| v.abs()).collect();
    let largest = made::magnitude(&x);
    // Each term is rounded twice, and terms are never negative.
    let tolerance = Tolerance::roundings(2 * rows as u32 + 1, 1.0 + rows as f32 * largest * largest);
    let call = Call { rows: rows as u32, kv_len: 1 };
    let args = vec![Data::F32(x), Data::F32(y)];
    let params = Params { width: width as u32 };
    Case::of::<Squares>(format!("{rows} × {width}"), params, call, Form::default(), args, tolerance)
}
