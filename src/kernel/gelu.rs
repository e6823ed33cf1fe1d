//! `y[r, i] = gelu(x[r, i])` with gelu(a) = a/2 · (1 + tanh(√(2/π) · (a + 0.044715 · a³))), the approximation of Hendrycks and
//! Gimpel 2016, arXiv 1606.08415: the nonlinearity of a feed-forward network without a gate.

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

/// The function in WGSL.
pub(super) const GELU: Fragment = Fragment::Text(include_str!("../../shaders/part/gelu.wgsl"));

/// The home.
#[derive(Debug)]
pub struct Gelu;

impl Home for Gelu {
    type Params = Params;
    const ID: KernelId = KernelId::Gelu;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[GELU, Fragment::Text(include_str!("../../shaders/gelu.wgsl"))],
        needs: Needs::NOTHING,
    }];

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [p.width.div_ceil(64), call.rows, 1]
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::F32(x), Arg::F32Mut(y)] = args else { unreachable!("checked by the caller") };
        let count = p.width as usize * call.rows as usize;
        y[..count].iter_mut().zip(*x).for_each(|(y, &x)| *y = gelu(f64::from(x)) as f32);
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let elements = f64::from(call.rows) * f64::from(p.width);
        Work { bytes: 8.0 * elements, flops: 8.0 * elements }
    }

    fn cases() -> Vec<Case> {
        [(5, 1), (1, 1), (65, 3), (3072, 1)].map(case).into()
    }
}

pub(super) fn gelu(a: f64) -> f64 {
    0.5 * a * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (a + 0.044715 * a * a * a)).tanh())
}

/// Roundings of a gelu. WGSL allows exp(b) an error of 3 + 2|b| units; b has three roundings of its own, and what of all
/// that reaches a / (1 + eᵇ) is |b|·eᵇ / (1 + eᵇ)² of it, less than 1/4 for each; the quotient adds 2.5, the sum one.
pub(super) const ROUNDINGS: u32 = 10;

fn case((width, rows): (usize, usize)) -> Case {
    let mut seed = Seed::new(15);
    let mut x = made::activations(&mut seed, rows, width, width);
    if width == 5 {
        // Beyond what exp can take.
        (x[0], x[1]) = (-120.0, 120.0);
    }
    let tolerance = Tolerance::roundings(ROUNDINGS, made::magnitude(&x).max(1.0));
    let call = Call { rows: rows as u32, kv_len: 1 };
    let args = vec![Data::F32(x), Data::F32(seed.vector(rows * width, 1.0))];
    let params = Params { width: width as u32 };
    Case::of::<Gelu>(format!("{rows} × {width}"), params, call, Form::default(), args, tolerance)
}
