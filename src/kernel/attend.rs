//! `y[r, h, :] = Σₜ softmaxₜ(scale · q[r, h, :]·k[t, g, :]) · v[t, g, :]` over t = 0 ..= position(r), with g the KV head
//! of query head h: causal attention with grouped queries (Ainslie et al. 2023, arXiv 2305.13245), one pass with
//! a running maximum (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135).
//!
//! A row sees the keys of its own sequence up to its own position, those of earlier rows of the same call included.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Form, Fragment, Home, KernelId, KvType, Needs, Overrides, ROW_WORDS, Variant,
    Work, kv_at,
};

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements from one row of q to the next.
    pub q_stride: u32,
    /// Column of q where head 0 begins.
    pub q_offset: u32,
    /// Query heads.
    pub heads: u32,
    /// Heads of K and of V; divides `heads`.
    pub kv_heads: u32,
    /// Elements of a head, an even number up to 256.
    pub head_dim: u32,
    /// Entries of a sequence in `pages`.
    pub pages_per_sequence: u32,
    /// Factor of the scores, usually 1/√head_dim.
    pub scale: f32,
}

/// The home.
#[derive(Debug)]
pub struct Attend;

impl Home for Attend {
    type Params = Params;
    const ID: KernelId = KernelId::Attend;
    const ARGS: &'static [ArgKind] =
        &[ArgKind::U32, ArgKind::U32, ArgKind::F32, ArgKind::U32, ArgKind::U32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[Fragment::Kv, Fragment::Text(include_str!("../../shaders/attend.wgsl"))],
        needs: Needs::NOTHING,
    }];

    fn overrides(p: &Params, _variant: &Variant) -> Overrides {
        vec![("PAIRS", f64::from(p.head_dim / 2))]
    }

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [p.heads, call.rows, 1]
    }

    fn twin(p: &Params, call: Call, form: Form, args: &mut [Arg<'_>]) {
        let [Arg::U32(rows), Arg::U32(pages), Arg::F32(q), Arg::U32(keys), Arg::U32(values), Arg::F32Mut(y)] =
            args
        else {
            unreachable!("checked by the caller")
        };
        let kv = form.kv.unwrap_or(KvType::F32);
        let head_dim = p.head_dim as usize;
        for (r, row) in rows.chunks_exact(ROW_WORDS).take(call.rows as usize).enumerate() {
            for head in 0..p.heads {
                let kv_head = head / (p.heads / p.kv_heads);
                let at =
                    |t: u32| kv_at(pages, p.pages_per_sequence, row[2], t, kv_head, p.kv_heads, p.head_dim);
                let q = &q[r * p.q_stride as usize + p.q_offset as usize + head as usize * head_dim..]
                    [..head_dim];
                let score = |t: u32| {
                    let dot: f64 = q
                        .iter()
                        .enumerate()
                        .map(|(i, &q)| f64::from(q) * f64::from(kv.get(keys, at(t) + i)))
                        .sum();
                    dot * f64::from(p.scale)
                };
                let scores: Vec<f64> = (0..=row[1]).map(score).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let total: f64 = weights.iter().sum();
                let y = &mut y[(r * p.heads as usize + head as usize) * head_dim..][..head_dim];
                for (i, y) in y.iter_mut().enumerate() {
                    let sum: f64 = weights
                        .iter()
                        .zip(0..)
                        .map(|(weight, t)| weight * f64::from(kv.get(values, at(t) + i)))
                        .sum();
                    *y = (sum / total) as f32;
                }
            }
        }
    }

    fn work(p: &Params, call: Call, form: Form) -> Work {
        let (rows, heads) = (f64::from(call.rows), f64::from(p.heads) * f64::from(p.head_dim));
        let kv_bytes = 2.0 * f64::from(call.kv_len) * f64::from(p.kv_heads) * f64::from(p.head_dim);
        let kv_bytes = kv_bytes * form.kv.map_or(4.0, |kv| 2.0 * kv.words(2) as f64);
        Work { bytes: kv_bytes + 8.0 * rows * heads, flops: 4.0 * rows * heads * f64::from(call.kv_len) }
    }

    fn cases() -> Vec<Case> {
        Vec::new()
    }
}
