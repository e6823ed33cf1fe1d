//! `attend`, one query row and one KV head a task: the query heads of the group share each page of keys and
//! values while it is in the cache, with a running maximum and sum.

use crate::error::Result;
use crate::kernel::attend::Params;
use crate::kernel::{Call, Form, KvType, PAGE, ROW_WORDS, kv_at};

use super::cores::Cores;
use super::simd::{Simd, dispatch};

/// The cache of a layer and where sequences keep their pages.
#[derive(Clone, Copy)]
pub(super) struct Cache<'a> {
    pub(super) pages: &'a [u32],
    pub(super) keys: &'a [u32],
    pub(super) values: &'a [u32],
}

/// Scratch of a thread: a page of keys and of values as f32, and for each head of the group its maximum and sum.
struct Scratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    softmax: Vec<(f32, f32)>,
}

/// y[r, h] = softmax(scale · q[r, h] · keys) · values; y is `(rows, heads · head_dim)`.
pub(super) fn attend(
    cores: &mut Cores,
    p: &Params,
    call: Call,
    form: Form,
    rows: &[u32],
    q: &[f32],
    cache: Cache<'_>,
    y: &mut [f32],
) -> Result<()> {
    let (head_dim, heads) = (p.head_dim as usize, p.heads as usize);
    let group = heads / p.kv_heads as usize;
    let kv = form.kv.unwrap_or(KvType::F32);
    let scratch = || Scratch {
        keys: vec![0.0; PAGE as usize * head_dim],
        values: vec![0.0; PAGE as usize * head_dim],
        softmax: vec![(f32::NEG_INFINITY, 0.0); group],
    };
    let y = &mut y[..call.rows as usize * heads * head_dim];
    let isa = cores.isa;
    cores.pool.each_with(y.chunks_exact_mut(group * head_dim).enumerate(), scratch, |scratch, (task, y)| {
        let (r, kv_head) = (task / p.kv_heads as usize, task % p.kv_heads as usize);
        let row = &rows[r * ROW_WORDS..][..ROW_WORDS];
        let q = &q[r * p.q_stride as usize + p.q_offset as usize + kv_head * group * head_dim..];
        let q = &q[..group * head_dim];
        let page = |from: u32| {
            kv_at(cache.pages, p.pages_per_sequence, row[2], from, kv_head as u32, p.kv_heads, p.head_dim)
        };
        dispatch!(isa, s => attend_row(s, p, kv, row[1] + 1, q, &page, cache, scratch, y));
    })
}

/// The heads of a group for one row that sees `len` positions.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "one call, kept apart to be compiled for each instruction set")]
fn attend_row<S: Simd>(
    s: S,
    p: &Params,
    kv: KvType,
    len: u32,
    q: &[f32],
    page: &impl Fn(u32) -> usize,
    cache: Cache<'_>,
    scratch: &mut Scratch,
    y: &mut [f32],
) {
    let head_dim = p.head_dim as usize;
    scratch.softmax.fill((f32::NEG_INFINITY, 0.0));
    y.fill(0.0);
    for from in (0..len).step_by(PAGE as usize) {
        let positions = PAGE.min(len - from) as usize;
        let at = page(from);
        let keys = floats(s, kv, cache.keys, at, positions * head_dim, &mut scratch.keys);
        let values = floats(s, kv, cache.values, at, positions * head_dim, &mut scratch.values);
        let heads = q.chunks_exact(head_dim).zip(y.chunks_exact_mut(head_dim));
        for ((q, y), (most, total)) in heads.zip(&mut scratch.softmax) {
            // Behind the last position a weight is zero.
            let mut weights = [f32::NEG_INFINITY; PAGE as usize];
            for (weight, key) in weights.iter_mut().zip(keys.chunks_exact(head_dim)) {
                *weight = s.dot(q, key) * p.scale;
            }
            let largest = weights.iter().copied().fold(*most, f32::max);
            let shift = s.splat(-largest);
            for weights in weights.as_chunks_mut::<8>().0 {
                s.store(s.exp(s.add(s.load(weights), shift)), weights);
            }
            weights[positions..].fill(0.0);
            let shrink = if *most == largest { 1.0 } else { (*most - largest).exp() };
            *total = *total * shrink + weights.iter().sum::<f32>();
            *most = largest;
            add_values(s, &weights[..positions], values, shrink, y);
        }
    }
    for (y, (_, total)) in y.chunks_exact_mut(head_dim).zip(&scratch.softmax) {
        y.iter_mut().for_each(
            #[inline(always)]
            |y| *y /= total,
        );
    }
}

/// `y = y · shrink + Σₜ weights[t] · values[t, :]`
#[inline(always)]
fn add_values<S: Simd>(s: S, weights: &[f32], values: &[f32], shrink: f32, y: &mut [f32]) {
    let head_dim = y.len();
    let (eights, rest) = y.as_chunks_mut::<8>();
    let (fours, left) = eights.as_chunks_mut::<4>();
    let shrink_lanes = s.splat(shrink);
    let mut column = 0;
    for y in fours {
        let mut sums = [s.splat(0.0); 4];
        for i in 0..4 {
            sums[i] = s.mul(s.load(&y[i]), shrink_lanes);
        }
        for (weight, value) in weights.iter().zip(values.chunks_exact(head_dim)) {
            let (weight, value) = (s.splat(*weight), value[column..].as_chunks::<8>().0);
            for i in 0..4 {
                sums[i] = s.fma(weight, s.load(&value[i]), sums[i]);
            }
        }
        for i in 0..4 {
            s.store(sums[i], &mut y[i]);
        }
        column += 32;
    }
    for y in left {
        let mut sum = s.mul(s.load(y), shrink_lanes);
        for (weight, value) in weights.iter().zip(values.chunks_exact(head_dim)) {
            sum = s.fma(
                s.splat(*weight),
                s.load(value[column..].first_chunk().expect("8 columns are left")),
                sum,
            );
        }
        s.store(sum, y);
        column += 8;
    }
    for y in rest {
        let terms = weights.iter().zip(values[column..].iter().step_by(head_dim));
        *y = terms.fold(
            *y * shrink,
            #[inline(always)]
            |sum, (weight, value)| sum + weight * value,
        );
        column += 1;
    }
}

/// Elements `at .. at + len` of the cache as f32, through `scratch` where they are stored otherwise.
#[inline(always)]
fn floats<'a, S: Simd>(
    s: S,
    kv: KvType,
    words: &'a [u32],
    at: usize,
    len: usize,
    scratch: &'a mut [f32],
) -> &'a [f32] {
    match kv {
        KvType::F32 => bytemuck::cast_slice(&words[at..at + len]),
        KvType::F16 => {
            let words = &words[at / 2..(at + len) / 2];
            let (eights, rest) = scratch[..len].as_chunks_mut::<8>();
            let (fours, words_rest) = words.as_chunks::<4>();
            for (out, four) in eights.iter_mut().zip(fours) {
                let mut bytes = [0; 16];
                for (bytes, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(four) {
                    *bytes = word.to_le_bytes();
                }
                s.store(s.half(&bytes), out);
            }
            for (i, out) in rest.iter_mut().enumerate() {
                *out = kv.get(words_rest, i);
            }
            &scratch[..len]
        }
    }
}
