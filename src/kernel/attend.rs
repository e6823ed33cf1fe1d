//! `y[r, h, :] = Σₜ softmaxₜ(s(scale · q[r, h, :]·k[t, g, :])) · v[t, g, :]` over t = 0 ..= position(r), with g the KV head
//! of query head h: causal attention with grouped queries (Ainslie et al. 2023, arXiv 2305.13245), one pass with
//! a running maximum (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135).
//!
//! With a window, t begins at position(r) + 1 − window (Beltagy et al. 2020, arXiv 2004.05150). With a cap, scores are
//! bent by `s(a) = cap · tanh(a / cap)` (Gemma Team 2024, arXiv 2408.00118), else s(a) = a. A model without them runs
//! shaders without them.
//!
//! A row sees the keys of its own sequence up to its own position, those of earlier rows of the same call included. The
//! best variant is for many rows: it computes tiles of queries by keys, and fetches keys and values once for all query
//! heads that share them. On a GPU, plans of few rows have `attend_split` and `attend_join` instead.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, KvType, Needs, Overrides, PAGE,
    ROW_WORDS, Tolerance, Variant, Work, hadamard, kv_at, kv_blocks, made,
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
    /// Keys that a row sees at most, its own among them; `pages_per_sequence` · [`PAGE`] for all.
    pub window: u32,
    /// What scores stay below, softly; 0 for nothing.
    pub cap: f32,
    /// Where heads are stored in blocks and turned ([`super::kv_blocks`]): elements of a block of the transform, the largest
    /// that there is for `head_dim`, which turns the result back; else 1.
    pub block: u32,
}

/// `cap · tanh(a / cap)`.
pub(super) const SOFT_CAP: Fragment = Fragment::Text(include_str!("../../shaders/part/soft_cap.wgsl"));

/// `key_four` and the like for blocks; nothing for floats.
const READ_BLOCKS: Fragment = Fragment::ByKv("", include_str!("../../shaders/part/kv_read_blocks.wgsl"));
/// `key_pair` and `value_pair`.
pub(super) const READ_PAIRS: Fragment = Fragment::ByKv(
    include_str!("../../shaders/part/kv_read_pairs.wgsl"),
    include_str!("../../shaders/part/kv_read_blocks.wgsl"),
);

/// The home.
#[derive(Debug)]
pub struct Attend;

impl Home for Attend {
    type Params = Params;
    const ID: KernelId = KernelId::Attend;
    const ARGS: &'static [ArgKind] =
        &[ArgKind::U32, ArgKind::U32, ArgKind::F32, ArgKind::U32, ArgKind::U32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[
        Variant {
            name: "tile",
            fragments: &[
                Fragment::Kv(KvType::ALL),
                READ_BLOCKS,
                Fragment::ByKv(
                    include_str!("../../shaders/part/kv_tile_floats.wgsl"),
                    include_str!("../../shaders/part/kv_tile_blocks.wgsl"),
                ),
                SOFT_CAP,
                Fragment::Text(include_str!("../../shaders/attend_tile.wgsl")),
            ],
            needs: Needs::NOTHING,
        },
        Variant {
            name: "plain",
            fragments: &[
                Fragment::Kv(KvType::ALL),
                READ_PAIRS,
                SOFT_CAP,
                Fragment::Text(include_str!("../../shaders/attend.wgsl")),
            ],
            needs: Needs::NOTHING,
        },
    ];

    fn suits(p: &Params, variant: &Variant) -> bool {
        let vectors = [p.head_dim, p.q_stride, p.q_offset].iter().all(|n| n.is_multiple_of(4));
        let turns = p.block == 1 || p.block >= 4;
        variant.name == "plain" || vectors && turns && p.head_dim <= 128
    }

    fn overrides(p: &Params, variant: &Variant) -> Overrides {
        let shape = match variant.name {
            "tile" => vec![("FOURS", f64::from(p.head_dim / 4)), ("HEADS", f64::from(heads_of_group(p)))],
            _ => vec![("PAIRS", f64::from(p.head_dim / 2))],
        };
        shape.into_iter().chain(mechanisms(p)).collect()
    }

    fn grid(p: &Params, call: Call, variant: &Variant) -> [u32; 3] {
        match variant.name {
            "tile" => [groups(p), call.rows.div_ceil(32 / heads_of_group(p)), 1],
            _ => [p.heads, call.rows, 1],
        }
    }

    fn twin(p: &Params, call: Call, form: Form, args: &mut [Arg<'_>]) {
        let [Arg::U32(rows), Arg::U32(pages), Arg::F32(q), Arg::U32(keys), Arg::U32(values), Arg::F32Mut(y)] =
            args
        else {
            unreachable!("checked by the caller")
        };
        let look = Look { p, form, rows, pages, q, keys, values };
        for (row, head, y) in look.heads_of(call, y) {
            let (mean, _) = look.over(row, head, seen(p, rows[row * ROW_WORDS + 1]));
            y.iter_mut().zip(turned_back(p, mean)).for_each(|(y, mean)| *y = mean as f32);
        }
    }

    fn work(p: &Params, call: Call, form: Form) -> Work {
        let (rows, heads) = (f64::from(call.rows), f64::from(p.heads) * f64::from(p.head_dim));
        let of_vector = form.kv.unwrap_or(KvType::F32).words(1, p.head_dim as usize) as f64;
        let kv_bytes = 8.0 * f64::from(call.kv_len) * f64::from(p.kv_heads) * of_vector;
        Work { bytes: kv_bytes + 8.0 * rows * heads, flops: 4.0 * rows * heads * f64::from(call.kv_len) }
    }

    fn cases() -> Vec<Case> {
        let shapes = [
            (shape(2, 2, 8), vec![(0, 2)]),
            (shape(1, 1, 2), vec![(0, 0)]),
            (shape(2, 2, 8), vec![(0, 30), (0, 31), (0, 32), (0, 33)]),
            (aside(shape(3, 1, 80), 5, 3), vec![(1, 63), (0, 5), (2, 64)]),
            (shape(9, 3, 64), vec![(1, 100)]),
            (aside(shape(6, 2, 128), 5, 3), vec![(1, 127), (0, 31)]),
            (shape(2, 1, 256), vec![(0, 33)]),
            // Tiles that end with rows, with sequences, with keys; more query heads than a workgroup takes.
            (shape(2, 2, 8), run(0, 0, 65)),
            (aside(shape(6, 2, 80), 4, 8), run(1, 22, 23)),
            (shape(8, 2, 64), [run(0, 14, 3), run(2, 47, 2), run(1, 0, 7)].concat()),
            (shape(15, 1, 96), [run(0, 31, 3), run(1, 15, 2)].concat()),
            (shape(2, 2, 128), [run(2, 60, 6), run(0, 3, 1)].concat()),
            // Windows that begin inside a page and at its edge, in one tile and over several; bent scores.
            (windowed(shape(2, 1, 8), 33), vec![(0, 2), (1, 64), (2, 65)]),
            (windowed(shape(4, 2, 64), 5), [run(0, 30, 6), run(2, 90, 1), run(1, 0, 7)].concat()),
            (capped(shape(2, 1, 8), 1.5), vec![(0, 40)]),
            (capped(windowed(shape(2, 2, 256), 32), 0.5), vec![(1, 95), (1, 96)]),
            // Turned back: in each variant, and in one block or several.
            (turned(shape(2, 1, 8)), vec![(0, 40), (1, 3)]),
            (turned(shape(2, 1, 6)), vec![(0, 33)]),
            (turned(aside(shape(6, 2, 80), 4, 8)), run(1, 22, 13)),
            (turned(shape(1, 1, 256)), vec![(0, 2)]),
        ];
        let of_kv = |kv: KvType| {
            let fit = shapes.iter().filter(move |(params, _)| kv.is_blocks() || params.block == 1);
            fit.map(move |(params, places)| case(kv, *params, places))
        };
        KvType::ALL.iter().copied().flat_map(of_kv).collect()
    }

    fn probe(p: &Params, form: Form) -> Option<Case> {
        form.kv.map(|kv| case(kv, like(p), &[run(0, 30, 6), run(2, 90, 1)].concat()))
    }
}

/// Parameters of small cases for steps with those of `p`: as many query heads to a KV head.
pub(super) fn like(p: &Params) -> Params {
    let small = shape(2 * (p.heads / p.kv_heads), 2, p.head_dim);
    let window = if p.window < PAGE * p.pages_per_sequence { 33 } else { small.window };
    let small = Params { window, cap: p.cap, block: p.block, ..small };
    aside(small, p.q_stride % 4, p.q_offset % 4)
}

/// Query heads that a workgroup takes of those that share a KV head: all of them, or about as many in each of several.
pub(super) fn heads_of_group(p: &Params) -> u32 {
    let heads = p.heads / p.kv_heads;
    heads.div_ceil(heads.div_ceil(if p.head_dim <= 128 { 8 } else { 4 }))
}

/// Whether rows see less than all of their keys, what bends scores, and what turns results back.
pub(super) fn mechanisms(p: &Params) -> Overrides {
    let windowed = if p.window < PAGE * p.pages_per_sequence { 1.0 } else { 0.0 };
    let share = kv_blocks::share(p.block);
    vec![("WINDOWED", windowed), ("CAP", f64::from(p.cap)), ("BLOCK", p.block.into()), ("SHARE", share)]
}

/// A mean of turned values as one of values.
pub(super) fn turned_back(p: &Params, mut mean: Vec<f64>) -> Vec<f64> {
    if p.block > 1 {
        mean.chunks_exact_mut(p.block as usize).for_each(hadamard::walsh);
        let share = kv_blocks::share(p.block);
        mean.iter_mut().for_each(|mean| *mean *= share);
    }
    mean
}

/// The keys that a row at `position` sees.
pub(super) fn seen(p: &Params, position: u32) -> Range<u32> {
    position + 1 - (position + 1).min(p.window)..position + 1
}

/// Groups of query heads.
pub(super) fn groups(p: &Params) -> u32 {
    p.kv_heads * (p.heads / p.kv_heads).div_ceil(heads_of_group(p))
}

/// What the twins of attention read.
pub(super) struct Look<'a> {
    pub(super) p: &'a Params,
    pub(super) form: Form,
    pub(super) rows: &'a [u32],
    pub(super) pages: &'a [u32],
    pub(super) q: &'a [f32],
    pub(super) keys: &'a [u32],
    pub(super) values: &'a [u32],
}

impl Look<'_> {
    /// Each row, head, and the result's elements for both.
    pub(super) fn heads_of<'y>(
        &self,
        call: Call,
        y: &'y mut [f32],
    ) -> impl Iterator<Item = (usize, u32, &'y mut [f32])> {
        let heads = self.p.heads as usize;
        let each = y.chunks_exact_mut(self.p.head_dim as usize).take(call.rows as usize * heads);
        each.enumerate().map(move |(at, y)| (at / heads, (at % heads) as u32, y))
    }

    /// The mean of the values at `places`, weighted by the exponentials of their scores, and the logarithm of the sum
    /// of these.
    pub(super) fn over(&self, row: usize, head: u32, places: Range<u32>) -> (Vec<f64>, f64) {
        let Self { p, form, rows, pages, q, keys, values } = self;
        let kv = form.kv.unwrap_or(KvType::F32);
        let (head_dim, kv_head) = (p.head_dim as usize, head / (p.heads / p.kv_heads));
        let sequence = rows[row * ROW_WORDS + 2];
        let at = |t| kv_at(pages, p.pages_per_sequence, sequence, t, kv_head, p.kv_heads);
        let q = &q[row * p.q_stride as usize + p.q_offset as usize + head as usize * head_dim..][..head_dim];
        let score = |t: u32| {
            let key = |i| f64::from(kv.get(keys, head_dim, at(t), i));
            let products = q.iter().enumerate().map(|(i, &q)| f64::from(q) * key(i));
            let score = products.sum::<f64>() * f64::from(p.scale);
            let cap = f64::from(p.cap);
            if cap > 0.0 { cap * (score / cap).tanh() } else { score }
        };
        let scores: Vec<f64> = places.clone().map(score).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        let sum = |i: usize| -> f64 {
            let each = weights.iter().zip(places.clone());
            each.map(|(weight, t)| weight * f64::from(kv.get(values, head_dim, at(t), i))).sum()
        };
        ((0..head_dim).map(|i| sum(i) / total).collect(), largest + total.ln())
    }
}

pub(super) fn shape(heads: u32, kv_heads: u32, head_dim: u32) -> Params {
    Params {
        q_stride: (heads + 2 * kv_heads) * head_dim,
        q_offset: 0,
        heads,
        kv_heads,
        head_dim,
        pages_per_sequence: 4,
        scale: 1.0 / (head_dim as f32).sqrt(),
        window: 4 * PAGE,
        cap: 0.0,
        block: 1,
    }
}

/// The same with heads that are turned.
pub(super) fn turned(params: Params) -> Params {
    Params { block: kv_blocks::block_of(params.head_dim), ..params }
}

/// The same with a window.
pub(super) fn windowed(params: Params, window: u32) -> Params {
    Params { window, ..params }
}

/// The same with scores that stay below `cap`.
pub(super) fn capped(params: Params, cap: f32) -> Params {
    Params { cap, ..params }
}

/// The same with `spare` elements more to a row, `offset` of them before the queries.
pub(super) fn aside(params: Params, spare: u32, offset: u32) -> Params {
    Params { q_stride: params.q_stride + spare, q_offset: offset, ..params }
}

/// `count` rows of a sequence from a position on.
pub(super) fn run(sequence: u32, first: u32, count: u32) -> Vec<(u32, u32)> {
    (first..first + count).map(|position| (sequence, position)).collect()
}

fn case(kv: KvType, params: Params, places: &[(u32, u32)]) -> Case {
    let made = made_up(kv, params, places);
    let Params { heads, kv_heads, head_dim, q_offset, .. } = params;
    let name = format!(
        "{heads} heads of {head_dim} on {kv_heads} from {q_offset}, {}{}",
        made.places,
        mechanisms_of(&params)
    );
    Case::of::<Attend>(name, params, made.call, made.form, made.args, made.tolerance)
}

/// For the names of cases.
pub(super) fn mechanisms_of(p: &Params) -> String {
    let window =
        if p.window < PAGE * p.pages_per_sequence { format!(", window {}", p.window) } else { String::new() };
    let cap = if p.cap > 0.0 { format!(", cap {}", p.cap) } else { String::new() };
    let turned = if p.block > 1 { format!(", turned back in blocks of {}", p.block) } else { String::new() };
    window + &cap + &turned
}

/// What the cases of attention are about.
pub(super) struct MadeUp {
    pub(super) call: Call,
    pub(super) form: Form,
    /// Those of [`Attend`].
    pub(super) args: Vec<Data>,
    /// For means of values, and for logarithms of sums.
    pub(super) tolerance: Tolerance,
    pub(super) places: String,
}

/// Rows of sequences at positions; keys and values that no row may see are NaN, those before all windows too.
pub(super) fn made_up(kv: KvType, params: Params, places: &[(u32, u32)]) -> MadeUp {
    let mut seed = Seed::new(9);
    let Params { heads, kv_heads, head_dim, pages_per_sequence, scale, .. } = params;
    let pages = made::pages(&mut seed, 3, pages_per_sequence);
    let words = kv.words(pages.len() * (kv_heads * PAGE) as usize, head_dim as usize);
    // As a pair of halves, as a float, as two scales.
    let mut keys = vec![0x7fff_7fff; words];
    let mut values = keys.clone();
    let (mut k_norm, mut v_largest) = (0.0f32, 0.0f32);
    for sequence in 0..3 {
        let seen = || places.iter().filter(|place| place.0 == sequence).map(|place| seen(&params, place.1));
        let (first, end) = (seen().map(|seen| seen.start).min(), seen().map(|seen| seen.end).max());
        let positions = first.unwrap_or(0)..end.unwrap_or(0);
        for (position, head) in positions.flat_map(|t| (0..kv_heads).map(move |h| (t, h))) {
            let at = kv_at(&pages, pages_per_sequence, sequence, position, head, kv_heads);
            let width = head_dim as usize;
            let stored = |words: &mut [u32], x: Vec<f32>| -> Vec<f32> {
                kv.put(words, at, &x);
                (0..width).map(|i| kv.get(words, width, at, i)).collect()
            };
            let key = stored(&mut keys, made::activations(&mut seed, 1, width, width));
            let value = stored(&mut values, made::activations(&mut seed, 1, width, width));
            k_norm = k_norm.max(made::largest_norm(&key, width, width));
            v_largest = v_largest.max(made::magnitude(&value));
        }
    }
    let q_stride = params.q_stride as usize;
    // Small enough that the softmax has more than one key to tell about.
    let q: Vec<f32> =
        made::activations(&mut seed, places.len(), q_stride, q_stride).iter().map(|q| q / 10.0).collect();
    let q_norm =
        q.windows(head_dim as usize).map(|q| made::largest_norm(q, q.len(), q.len())).fold(0.0, f32::max);
    let kv_len = 1 + places.iter().map(|place| place.1).max().unwrap_or(0);
    // An error of a score is a relative error of its weight, and a bent one has those of
    // 1 − 2 / (exp + 1) besides, of a magnitude of the cap; exp adds 3 + 2|x| units of e^x ≤ 1, each tile of 16 keys or more rescales once; errors of weights move the mean of the values by at most twice themselves; the sums over
    // keys add theirs. They move the logarithm of the sum of weights by as much as values of 1, and it is rounded with
    // the largest score.
    let of_weights =
        Tolerance::dot(k_norm, q_norm * scale).and(Tolerance::roundings(5 + kv_len.div_ceil(16), 1.0));
    let of_weights = of_weights.and(Tolerance::roundings(8, params.cap));
    let of_sums = Tolerance::roundings(8 + kv_len.isqrt(), 1.0);
    let of_logarithm = Tolerance::roundings(2, k_norm * q_norm * scale + (kv_len as f32).ln());
    let of_means = (2.0 * of_weights.0 + of_sums.0) * v_largest.max(1.0);
    // A sum of n elements over √n, as far as each of them is off in the same direction, and what it is rounded.
    let spread = (params.block as f32).sqrt();
    let of_turns = Tolerance::roundings(params.block.ilog2(), v_largest * spread);
    let tolerance = Tolerance(of_means * spread).and(of_turns).and(of_logarithm);
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
    let call = Call { rows: rows.len() as u32, kv_len };
    let name = format!("{} rows at {:?}", places.len(), &places[..places.len().min(4)]);
    MadeUp { call, form: Form { kv: Some(kv), ..Form::default() }, args, tolerance, places: name }
}
