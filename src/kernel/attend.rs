//! `y[r, h, :] = Σₜ softmaxₜ(scale · q[r, h, :]·k[t, g, :]) · v[t, g, :]` over t = 0 ..= position(r), with g the KV head
//! of query head h: causal attention with grouped queries (Ainslie et al. 2023, arXiv 2305.13245), one pass with
//! a running maximum (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135).
//!
//! A row sees the keys of its own sequence up to its own position, those of earlier rows of the same call included.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, KvType, Needs, Overrides, PAGE,
    ROW_WORDS, Tolerance, Variant, Work, kv_at, made,
};
use crate::base::Seed;

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
        let shape = |heads, kv_heads, head_dim| Params {
            q_stride: (heads + 2 * kv_heads) * head_dim,
            q_offset: 0,
            heads,
            kv_heads,
            head_dim,
            pages_per_sequence: 4,
            scale: 1.0 / (head_dim as f32).sqrt(),
        };
        let aside = |params: Params| Params { q_stride: params.q_stride + 5, q_offset: 3, ..params };
        let shapes = [
            (shape(2, 1, 8), vec![(0, 2)]),
            (shape(1, 1, 2), vec![(0, 0)]),
            (shape(2, 2, 8), vec![(0, 30), (0, 31), (0, 32), (0, 33)]),
            (aside(shape(3, 1, 80)), vec![(1, 63), (0, 5), (2, 64)]),
            (shape(9, 3, 64), vec![(1, 100)]),
            (aside(shape(6, 2, 128)), vec![(1, 127), (0, 31)]),
            (shape(2, 1, 256), vec![(0, 33)]),
        ];
        let of_kv = |kv| shapes.iter().map(move |(params, places)| case(kv, *params, places));
        [KvType::F32, KvType::F16].into_iter().flat_map(of_kv).collect()
    }
}

/// Rows of sequences at positions; keys and values that no row may see are NaN.
fn case(kv: KvType, params: Params, places: &[(u32, u32)]) -> Case {
    let mut seed = Seed::new(9);
    let Params { heads, kv_heads, head_dim, pages_per_sequence, scale, .. } = params;
    let pages = made::pages(&mut seed, 3, pages_per_sequence);
    let words = kv.words(pages.len() * (kv_heads * PAGE * head_dim) as usize);
    // As a pair of halves and as a float.
    let mut keys = vec![0x7fff_7fff; words];
    let mut values = keys.clone();
    let (mut k_norm, mut v_largest) = (0.0f32, 0.0f32);
    for sequence in 0..3 {
        let last = places.iter().filter(|place| place.0 == sequence).map(|place| place.1).max();
        for (position, head) in
            (0..last.map_or(0, |last| last + 1)).flat_map(|t| (0..kv_heads).map(move |h| (t, h)))
        {
            let at = kv_at(&pages, pages_per_sequence, sequence, position, head, kv_heads, head_dim);
            let key = made::activations(&mut seed, 1, head_dim as usize, head_dim as usize);
            let value = made::activations(&mut seed, 1, head_dim as usize, head_dim as usize);
            k_norm = k_norm.max(made::largest_norm(&key, key.len(), key.len()));
            v_largest = v_largest.max(made::magnitude(&value));
            for (i, (key, value)) in key.into_iter().zip(value).enumerate() {
                kv.set(&mut keys, at + i, key);
                kv.set(&mut values, at + i, value);
            }
        }
    }
    let q_stride = params.q_stride as usize;
    // Small enough that the softmax has more than one key to tell about.
    let q: Vec<f32> =
        made::activations(&mut seed, places.len(), q_stride, q_stride).iter().map(|q| q / 10.0).collect();
    let q_norm =
        q.windows(head_dim as usize).map(|q| made::largest_norm(q, q.len(), q.len())).fold(0.0, f32::max);
    let kv_len = 1 + places.iter().map(|place| place.1).max().unwrap_or(0);
    // An error of a score is a relative error of its weight, exp adds 3 + 2|x| units of e^x ≤ 1, each page rescales
    // once; errors of weights move the mean of the values by at most twice themselves; the sums over keys add theirs.
    let of_weights =
        Tolerance::dot(k_norm, q_norm * scale).and(Tolerance::roundings(5 + kv_len.div_ceil(PAGE), 1.0));
    let of_sums = Tolerance::roundings(8 + kv_len.isqrt(), 1.0);
    let tolerance = Tolerance((2.0 * of_weights.0 + of_sums.0) * v_largest);
    let rows: Vec<_> = places.iter().map(|&(sequence, position)| [9, position, sequence]).collect();
    let y = seed.vector(rows.len() * (heads * head_dim) as usize, 1.0);
    let args = vec![
        made::rows(&rows),
        Data::U32(pages),
        Data::F32(q),
        Data::U32(keys),
        Data::U32(values),
        Data::F32(y),
    ];
    let name = format!("{heads} heads of {head_dim} on {kv_heads}, {places:?}");
    let call = Call { rows: rows.len() as u32, kv_len };
    Case::of::<Attend>(name, params, call, Form { kv: Some(kv), ..Form::default() }, args, tolerance)
}
