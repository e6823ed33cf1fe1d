//! `x[r, i] = cap · tanh(x[r, i] / cap)`, in place: logits near themselves where they are small, and never beyond the cap
//! (Gemma Team 2024, arXiv 2408.00118).

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, Needs, Tolerance, Variant, Work, attend,
    made,
};
use crate::base::Seed;

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements of a row.
    pub width: u32,
    /// What they stay below.
    pub cap: f32,
}

/// The home.
#[derive(Debug)]
pub struct SoftCap;

impl Home for SoftCap {
    type Params = Params;
    const ID: KernelId = KernelId::SoftCap;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[attend::SOFT_CAP, Fragment::Text(include_str!("../../shaders/soft_cap.wgsl"))],
        needs: Needs::NOTHING,
    }];

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [p.width.div_ceil(256), call.rows, 1]
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::F32Mut(x)] = args else { unreachable!("checked by the caller") };
        let cap = f64::from(p.cap);
        for x in x.iter_mut().take(p.width as usize * call.rows as usize) {
            *x = (cap * (f64::from(*x) / cap).tanh()) as f32;
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let elements = f64::from(call.rows) * f64::from(p.width);
        Work { bytes: 8.0 * elements, flops: 6.0 * elements }
    }

    fn cases() -> Vec<Case> {
        [(5, 1, 2.0), (1, 1, 30.0), (257, 3, 30.0), (1026, 2, 0.5)].map(case).into()
    }
}

fn case((width, rows, cap): (usize, usize, f32)) -> Case {
    let mut seed = Seed::new(17);
    let mut x = made::activations(&mut seed, rows, width, width);
    if width == 5 {
        // Beyond what exp can take.
        (x[0], x[1]) = (-1e4, 1e4);
    }
    // WGSL allows exp(b) an error of 3 + 2|b| units, of which at most 1/4 each reach 2 / (eᵇ + 1); the quotients, the
    // sums and the product add 8, of a magnitude of the cap.
    let tolerance = Tolerance::roundings(12, cap);
    let call = Call { rows: rows as u32, kv_len: 1 };
    let params = Params { width: width as u32, cap };
    let name = format!("{rows} × {width} below {cap}");
    Case::of::<SoftCap>(name, params, call, Form::default(), vec![Data::F32(x)], tolerance)
}
