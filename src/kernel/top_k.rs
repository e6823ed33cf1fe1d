//! The `k` largest logits of each row, largest first and the smaller token first among equals: row r of `found` is
//! `[token × k, logit × k (f32 bits), log Σⱼ exp(logit[j]) (f32 bits)]`.
//!
//! Logits compare as numbers: the two zeros are equal. A row whose largest logit is not finite, or that holds NaN,
//! gives [`NOT_A_TOKEN`] for each token and NaN for each number.

use std::cmp::Ordering;

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Form, Fragment, Home, KernelId, Needs, Variant, Work, argmax::NOT_A_TOKEN,
};

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Logits of a row.
    pub width: u32,
    /// How many, at most 128 and at most `width`.
    pub k: u32,
}

/// The home.
#[derive(Debug)]
pub struct TopK;

impl Home for TopK {
    type Params = Params;
    const ID: KernelId = KernelId::TopK;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::U32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[
            Fragment::Text(include_str!("../../shaders/part/order.wgsl")),
            Fragment::Text(include_str!("../../shaders/top_k.wgsl")),
        ],
        needs: Needs::NOTHING,
    }];

    fn grid(_p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [call.rows, 1, 1]
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::F32(logits), Arg::U32Mut(found)] = args else { unreachable!("checked by the caller") };
        let k = p.k as usize;
        for (logits, found) in logits
            .chunks_exact(p.width as usize)
            .zip(found.chunks_exact_mut(2 * k + 1))
            .take(call.rows as usize)
        {
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if !largest.is_finite() || logits.iter().any(|logit| logit.is_nan()) {
                found[..k].fill(NOT_A_TOKEN);
                found[k..].fill(f32::NAN.to_bits());
                continue;
            }
            let logit = |token: u32| logits[token as usize];
            let mut order: Vec<u32> = (0..p.width).collect();
            order
                .sort_by(|&a, &b| logit(b).partial_cmp(&logit(a)).unwrap_or(Ordering::Equal).then(a.cmp(&b)));
            let largest = f64::from(largest);
            let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum();
            for (i, &token) in order[..k].iter().enumerate() {
                found[i] = token;
                found[k + i] = logits[token as usize].to_bits();
            }
            found[2 * k] = ((largest + sum.ln()) as f32).to_bits();
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let elements = f64::from(call.rows) * f64::from(p.width);
        Work { bytes: 4.0 * elements, flops: 3.0 * elements }
    }

    fn cases() -> Vec<Case> {
        Vec::new()
    }
}
