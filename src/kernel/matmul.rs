//! `y[r, j] = Σₖ W[j, k] · x[r, k]` for many rows r: tiles of W are decoded once into workgroup memory and used for
//! all rows of the tile. With the epilogue `Add`, the result is added to y. The same parameters as `matvec`.

use super::{Arg, ArgKind, Call, Case, Form, Fragment, Home, KernelId, Needs, Variant, Work, matvec};

pub use super::matvec::Params;

/// The home.
#[derive(Debug)]
pub struct Matmul;

impl Home for Matmul {
    type Params = Params;
    const ID: KernelId = KernelId::Matmul;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::Matrix, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[Fragment::Quant, Fragment::Epilogue, Fragment::Text(include_str!("../../shaders/matmul.wgsl"))],
        needs: Needs { subgroup: false, f16: false },
    }];

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [p.n.div_ceil(64), call.rows.div_ceil(64), 1]
    }

    fn twin(p: &Params, call: Call, form: Form, args: &mut [Arg<'_>]) {
        matvec::product(p, call, form, args);
    }

    fn work(p: &Params, call: Call, form: Form) -> Work {
        let bits = form.format.map_or(32.0, crate::quant::Format::bits_per_weight);
        let (rows, k, n) = (f64::from(call.rows), f64::from(p.k), f64::from(p.n));
        Work { bytes: k * n * bits / 8.0 + 4.0 * rows * (k + n), flops: 2.0 * rows * k * n }
    }

    fn cases() -> Vec<Case> {
        Vec::new()
    }
}
