//! `token[r] = argmaxⱼ logits[r, j]`, the smallest j where several are equal; a row that holds NaN gives
//! [`NOT_A_TOKEN`], which no vocabulary reaches.

use bytemuck::{Pod, Zeroable};

use super::{Arg, ArgKind, Call, Case, Form, Fragment, Home, KernelId, Needs, Variant, Work};

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Logits of a row.
    pub width: u32,
}

/// The home.
#[derive(Debug)]
pub struct Argmax;

impl Home for Argmax {
    type Params = Params;
    const ID: KernelId = KernelId::Argmax;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::U32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[
            Fragment::Text(include_str!("../../shaders/part/order.wgsl")),
            Fragment::Text(include_str!("../../shaders/argmax.wgsl")),
        ],
        needs: Needs::NOTHING,
    }];

    fn grid(_p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [call.rows, 1, 1]
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::F32(logits), Arg::U32Mut(tokens)] = args else { unreachable!("checked by the caller") };
        for (logits, token) in
            logits.chunks_exact(p.width as usize).zip(tokens.iter_mut()).take(call.rows as usize)
        {
            let best = |best: u32, j: u32| if logits[j as usize] > logits[best as usize] { j } else { best };
            *token = if logits.iter().any(|logit| logit.is_nan()) {
                NOT_A_TOKEN
            } else {
                (0..p.width).fold(0, best)
            };
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let elements = f64::from(call.rows) * f64::from(p.width);
        Work { bytes: 4.0 * elements, flops: elements }
    }

    fn cases() -> Vec<Case> {
        Vec::new()
    }
}

/// What stands for a token where the logits are not numbers.
pub const NOT_A_TOKEN: u32 = u32::MAX;
