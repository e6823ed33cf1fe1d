//! `y[r, i] = silu(x[r, i]) · x[r, width + i]` with silu(a) = a / (1 + e⁻ᵃ): the gate of the feed-forward network
//! (Shazeer 2020, arXiv 2002.05202); gate and up projections stand side by side in x.

use bytemuck::{Pod, Zeroable};

use super::{Arg, ArgKind, Call, Case, Form, Fragment, Home, KernelId, Needs, Variant, Work};

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements of a row of y; a row of x has twice as many.
    pub width: u32,
}

/// The home.
#[derive(Debug)]
pub struct Swiglu;

impl Home for Swiglu {
    type Params = Params;
    const ID: KernelId = KernelId::Swiglu;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[Fragment::Text(include_str!("../../shaders/swiglu.wgsl"))],
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
                let gate = f64::from(*gate);
                *y = (gate / (1.0 + (-gate).exp()) * f64::from(*up)) as f32;
            }
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let elements = f64::from(call.rows) * f64::from(p.width);
        Work { bytes: 12.0 * elements, flops: 5.0 * elements }
    }

    fn cases() -> Vec<Case> {
        Vec::new()
    }
}
