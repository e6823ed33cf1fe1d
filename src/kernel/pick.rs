//! `y[r, :] = x[index(r), :]`: gathers the rows whose logits are wanted, before the last norm and the head.

use bytemuck::{Pod, Zeroable};

use super::{Arg, ArgKind, Call, Case, Form, Fragment, Home, KernelId, Needs, Variant, Work};

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements of a row.
    pub width: u32,
}

/// The home.
#[derive(Debug)]
pub struct Pick;

impl Home for Pick {
    type Params = Params;
    const ID: KernelId = KernelId::Pick;
    const ARGS: &'static [ArgKind] = &[ArgKind::U32, ArgKind::F32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[Fragment::Text(include_str!("../../shaders/pick.wgsl"))],
        needs: Needs::NOTHING,
    }];

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [p.width.div_ceil(64), call.rows, 1]
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::U32(index), Arg::F32(x), Arg::F32Mut(y)] = args else {
            unreachable!("checked by the caller")
        };
        let width = p.width as usize;
        for (&index, y) in index.iter().zip(y.chunks_exact_mut(width)).take(call.rows as usize) {
            y.copy_from_slice(&x[index as usize * width..][..width]);
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        Work { bytes: 8.0 * f64::from(call.rows) * f64::from(p.width), flops: 0.0 }
    }

    fn cases() -> Vec<Case> {
        Vec::new()
    }
}
