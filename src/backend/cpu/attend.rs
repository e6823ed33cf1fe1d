//! `attend`: blocks of query rows and one KV head a task, so that the queries of a block share each page of keys
//! and values while it is in the cache; each query has a running maximum and sum (Milakov and Gimelshein 2018,
//! *Online normalizer calculation for softmax*). A few rows are cut along the positions instead, and the parts are
//! combined as in Dao et al. 2023, *Flash-Decoding*. The cuts depend on the call alone, not on the threads. With a
//! window, pages before all of a task's queries are passed over.

use std::ops::Range;

use crate::error::Result;
use crate::kernel::attend::Params;
use crate::kernel::kv::BLOCK;
use crate::kernel::kv_blocks::turn;
use crate::kernel::{Call, Form, KvType, PAGE, ROW_WORDS, kv_at};

use super::cores::{Columns, Cores};
use super::simd::{Simd, dispatch};

/// Rows of a block.
const ROWS: usize = 8;
/// Calls of at most so many rows are cut into parts of [`PART`] positions.
const FEW_ROWS: usize = 4;
/// Positions of a part, a multiple of [`PAGE`]: few, so that threads share a model of three KV heads evenly.
const PART: u32 = 64;

/// The cache of a layer and where sequences keep their pages.
#[derive(Clone, Copy)]
pub(super) struct Cache<'a> {
    pub(super) pages: &'a [u32],
    pub(super) keys: &'a [u32],
    pub(super) values: &'a [u32],
}

/// What all tasks of a call share.
struct Shared<'a> {
    p: &'a Params,
    kv: KvType,
    rows: &'a [[u32; ROW_WORDS]],
    q: &'a [f32],
    cache: Cache<'a>,
}

/// A head of a row: what it looks for, and what it has found of the positions `first .. len` so far.
struct Query<'a> {
    q: &'a [f32],
    y: &'a mut [f32],
    first: u32,
    len: u32,
    most: f32,
    total: f32,
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
    let (head_dim, width) = (p.head_dim as usize, p.heads as usize * p.head_dim as usize);
    let group = p.heads as usize / p.kv_heads as usize * head_dim;
    let rows = &rows.as_chunks().0[..call.rows as usize];
    let shared = Shared { p, kv: form.kv.unwrap_or(KvType::F32), rows, q, cache };
    let scratch = || vec![0.0; 2 * PAGE as usize * head_dim];
    let y = &mut y[..rows.len() * width];
    let longest = rows.iter().map(|row| row[1] + 1).max().unwrap_or(0);
    let isa = cores.isa;
    if rows.len() <= FEW_ROWS && longest > PART {
        let parts = longest.div_ceil(PART) as usize;
        let mut found: Vec<Found> = Vec::new();
        found.resize_with(rows.len() * p.kv_heads as usize * parts, || Found::new(group, head_dim));
        let work = found.iter_mut().enumerate();
        cores.pool.each_with(work, scratch, |scratch, (task, found)| {
            let (piece, part) = (task / parts, (task % parts) as u32);
            let (row, kv_head) = (piece / p.kv_heads as usize, piece % p.kv_heads as usize);
            let mut queries = shared.queries(row, kv_head, vec![&mut found.y]);
            let positions = part * PART..(part + 1) * PART;
            dispatch!(isa, s => shared.look(s, row, kv_head, positions, &mut queries, scratch));
            found.softmax = queries.iter().map(|query| (query.most, query.total)).collect();
        })?;
        for (y, parts) in y.chunks_exact_mut(group).zip(found.chunks_exact(parts)) {
            combine(parts, y, head_dim);
            y.chunks_exact_mut(head_dim).for_each(|y| turn(y, p.block as usize));
        }
        return Ok(());
    }

    let work = y.chunks_mut(ROWS * width).enumerate().flat_map(|(block, y)| {
        let shape = [y.len() / width, width];
        Columns::of(y, shape, 0, width, group).map(move |(column, y)| (block * ROWS, column / group, y))
    });
    cores.pool.each_with(work, scratch, |scratch, (first, kv_head, y)| {
        let mut queries = shared.queries(first, kv_head, y);
        let heads = group / head_dim;
        let (mut row, mut left) = (first, queries.as_mut_slice());
        for same in rows[first..][..left.len() / heads].chunk_by(|a, b| a[2] == b[2]) {
            let (now, rest) = left.split_at_mut(same.len() * heads);
            dispatch!(isa, s => shared.look(s, row, kv_head, 0..u32::MAX, now, scratch));
            (row, left) = (row + same.len(), rest);
        }
        for Query { y, total, .. } in queries {
            y.iter_mut().for_each(|y| *y /= total);
            turn(y, p.block as usize);
        }
    })
}

/// What the queries of a row and KV head found in a part of the positions.
struct Found {
    y: Vec<f32>,
    softmax: Vec<(f32, f32)>,
}

impl Found {
    fn new(group: usize, head_dim: usize) -> Self {
        Self { y: vec![0.0; group], softmax: vec![(f32::NEG_INFINITY, 0.0); group / head_dim] }
    }
}

/// What the heads of `y` find in all parts.
fn combine(parts: &[Found], y: &mut [f32], head_dim: usize) {
    y.fill(0.0);
    for (head, y) in y.chunks_exact_mut(head_dim).enumerate() {
        let most = parts.iter().map(|part| part.softmax[head].0).fold(f32::NEG_INFINITY, f32::max);
        let mut total = 0.0;
        for part in parts.iter().filter(|part| part.softmax[head].1 != 0.0) {
            let weight = (part.softmax[head].0 - most).exp();
            total += part.softmax[head].1 * weight;
            for (y, found) in y.iter_mut().zip(&part.y[head * head_dim..]) {
                *y += found * weight;
            }
        }
        y.iter_mut().for_each(|y| *y /= total);
    }
}

impl<'a> Shared<'a> {
    /// The queries of rows `first ..` to a KV head, heads of a row together; `y` is what they write.
    fn queries<'y>(&self, first: usize, kv_head: usize, y: Vec<&'y mut [f32]>) -> Vec<Query<'y>>
    where
        'a: 'y,
    {
        let head_dim = self.p.head_dim as usize;
        let rows = self.rows[first..].iter().zip(first..).zip(y);
        rows.flat_map(|((row, r), y)| {
            let at = r * self.p.q_stride as usize + self.p.q_offset as usize + kv_head * y.len();
            y.fill(0.0);
            let heads = self.q[at..][..y.len()].chunks_exact(head_dim).zip(y.chunks_exact_mut(head_dim));
            let len = row[1] + 1;
            let first = len - len.min(self.p.window);
            heads.map(move |(q, y)| Query { q, y, first, len, most: f32::NEG_INFINITY, total: 0.0 })
        })
        .collect()
    }

    /// Lets queries of the sequence of row `row` look at those of the positions that they may see.
    #[inline(always)]
    fn look<S: Simd>(
        &self,
        s: S,
        row: usize,
        kv_head: usize,
        positions: Range<u32>,
        queries: &mut [Query<'_>],
        scratch: &mut [f32],
    ) {
        let p = self.p;
        let end = queries.iter().map(|query| query.len).max().unwrap_or(0).min(positions.end);
        let first = queries.iter().map(|query| query.first).min().unwrap_or(0) / PAGE * PAGE;
        let (keys, values) = scratch.split_at_mut(PAGE as usize * p.head_dim as usize);
        for from in (positions.start.max(first)..end).step_by(PAGE as usize) {
            // Scores are computed eight at a time.
            let len = (end - from).min(PAGE).next_multiple_of(8) as usize;
            let sequence = self.rows[row][2];
            let at =
                kv_at(self.cache.pages, p.pages_per_sequence, sequence, from, kv_head as u32, p.kv_heads);
            let page = Page {
                keys: floats(s, self.kv, self.cache.keys, p.head_dim as usize, at..at + len, keys),
                values: floats(s, self.kv, self.cache.values, p.head_dim as usize, at..at + len, values),
                from,
                scale: p.scale,
                cap: p.cap,
            };
            let (pairs, rest) = queries.as_chunks_mut::<2>();
            for pair in pairs {
                page.show::<S, 2>(s, pair);
            }
            for query in rest {
                page.show::<S, 1>(s, std::array::from_mut(query));
            }
        }
    }
}

/// Up to [`PAGE`] positions from `from` on, `(position, head_dim)`, a multiple of eight.
struct Page<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    from: u32,
    scale: f32,
    cap: f32,
}

impl Page<'_> {
    #[inline(always)]
    fn show<S: Simd, const Q: usize>(&self, s: S, queries: &mut [Query<'_>; Q]) {
        let (mut first, mut seen) = ([0; Q], [0; Q]);
        for ((first, seen), query) in first.iter_mut().zip(&mut seen).zip(&*queries) {
            *seen = query.len.saturating_sub(self.from).min(PAGE) as usize;
            *first = query.first.saturating_sub(self.from).min(PAGE) as usize;
        }
        let most_seen = seen.iter().copied().fold(0, usize::max);
        if most_seen == 0 {
            return;
        }
        let mut weights = [[0.0; PAGE as usize]; Q];
        self.scores::<S, Q>(s, queries, most_seen, &mut weights);
        if self.cap > 0.0 {
            weights.iter_mut().flatten().for_each(|score| *score = self.cap * (*score / self.cap).tanh());
        }
        let mut shrinks = [1.0; Q];
        for q in 0..Q {
            let (query, weights) = (&mut queries[q], &mut weights[q]);
            if first[q] >= seen[q] {
                // Nothing for this one, beside another query; it stays as it is.
                weights.fill(0.0);
                continue;
            }
            let largest = weights[first[q]..seen[q]].iter().copied().fold(query.most, f32::max);
            let shift = s.splat(-largest);
            for weights in weights.as_chunks_mut::<8>().0 {
                s.store(s.exp(s.add(s.load(weights), shift)), weights);
            }
            weights[..first[q]].fill(0.0);
            weights[seen[q]..].fill(0.0);
            if query.most != largest {
                shrinks[q] = (query.most - largest).exp();
            }
            query.total = query.total * shrinks[q] + weights.iter().sum::<f32>();
            query.most = largest;
        }
        if first.iter().any(|&first| first > 0) {
            for q in 0..Q {
                let query = std::array::from_mut(&mut queries[q]);
                let positions = first[q].min(seen[q])..seen[q];
                self.add_values::<S, 1>(s, positions, &[weights[q]], [shrinks[q]], query);
            }
            return;
        }
        let both = seen.iter().copied().fold(most_seen, usize::min);
        self.add_values::<S, Q>(s, 0..both, &weights, shrinks, queries);
        for q in 0..Q {
            if seen[q] > both {
                let query = std::array::from_mut(&mut queries[q]);
                self.add_values::<S, 1>(s, both..seen[q], &[weights[q]], [1.0], query);
            }
        }
    }

    /// `weights[q][t] = scale · q · keys[t]`, for at least the first `seen` positions.
    #[inline(always)]
    fn scores<S: Simd, const Q: usize>(
        &self,
        s: S,
        queries: &[Query<'_>; Q],
        seen: usize,
        weights: &mut [[f32; PAGE as usize]; Q],
    ) {
        let (head_dim, at_once) = (queries[0].q.len(), 8 / Q);
        for (first, keys) in self.keys.chunks_exact(at_once * head_dim).enumerate() {
            if first * at_once >= seen {
                break;
            }
            let mut sums = [s.splat(0.0); 8];
            for lane in 0..head_dim / 8 {
                for q in 0..Q {
                    let x = s.load(eight(&queries[q].q[8 * lane..]));
                    for t in 0..at_once {
                        let sum = &mut sums[q * at_once + t];
                        *sum = s.fma(x, s.load(eight(&keys[t * head_dim + 8 * lane..])), *sum);
                    }
                }
            }
            let mut dots = [0.0; 8];
            s.store(s.mul(s.sums(sums), s.splat(self.scale)), &mut dots);
            for q in 0..Q {
                for t in 0..at_once {
                    let mut rest = 0.0;
                    for i in head_dim / 8 * 8..head_dim {
                        rest += queries[q].q[i] * keys[t * head_dim + i];
                    }
                    weights[q][first * at_once + t] = dots[q * at_once + t] + rest * self.scale;
                }
            }
        }
    }

    /// `y = y · shrink + Σₜ weights[t] · values[t, :]` of each query.
    #[inline(always)]
    fn add_values<S: Simd, const Q: usize>(
        &self,
        s: S,
        positions: Range<usize>,
        weights: &[[f32; PAGE as usize]; Q],
        shrinks: [f32; Q],
        queries: &mut [Query<'_>; Q],
    ) {
        let head_dim = queries[0].y.len();
        let values = &self.values[positions.start * head_dim..positions.end * head_dim];
        let mut column = 0;
        while column + 32 <= head_dim {
            add_columns::<S, Q, 4>(s, column, values, &positions, weights, shrinks, queries);
            column += 32;
        }
        while column + 8 <= head_dim {
            add_columns::<S, Q, 1>(s, column, values, &positions, weights, shrinks, queries);
            column += 8;
        }
        for column in column..head_dim {
            for q in 0..Q {
                let mut sum = queries[q].y[column] * shrinks[q];
                for (weight, value) in
                    weights[q][positions.clone()].iter().zip(values[column..].iter().step_by(head_dim))
                {
                    sum += weight * value;
                }
                queries[q].y[column] = sum;
            }
        }
    }
}

/// [`Page::add_values`] for `8 · C` columns.
#[inline(always)]
fn add_columns<S: Simd, const Q: usize, const C: usize>(
    s: S,
    column: usize,
    values: &[f32],
    positions: &Range<usize>,
    weights: &[[f32; PAGE as usize]; Q],
    shrinks: [f32; Q],
    queries: &mut [Query<'_>; Q],
) {
    let head_dim = queries[0].y.len();
    let mut sums = [[s.splat(0.0); C]; Q];
    for q in 0..Q {
        for (c, sum) in sums[q].iter_mut().enumerate() {
            *sum = s.mul(s.load(eight(&queries[q].y[column + 8 * c..])), s.splat(shrinks[q]));
        }
    }
    for (value, t) in values.chunks_exact(head_dim).zip(positions.clone()) {
        for c in 0..C {
            let value = s.load(eight(&value[column + 8 * c..]));
            for q in 0..Q {
                sums[q][c] = s.fma(s.splat(weights[q][t]), value, sums[q][c]);
            }
        }
    }
    for q in 0..Q {
        for (c, sum) in sums[q].into_iter().enumerate() {
            let y = queries[q].y[column + 8 * c..].first_chunk_mut().expect("a vector is left");
            s.store(sum, y);
        }
    }
}

/// The first eight.
#[inline(always)]
fn eight(values: &[f32]) -> &[f32; 8] {
    values.first_chunk().expect("a vector is left")
}

/// Vectors of a run of the cache as f32, through `scratch` where they are stored otherwise.
#[inline(always)]
fn floats<'a, S: Simd>(
    s: S,
    kv: KvType,
    words: &'a [u32],
    head_dim: usize,
    vectors: Range<usize>,
    scratch: &'a mut [f32],
) -> &'a [f32] {
    let (at, len) = (vectors.start * head_dim, vectors.len() * head_dim);
    match kv {
        KvType::F32 => bytemuck::cast_slice(&words[at..at + len]),
        KvType::F16 => {
            let words = &words[at / 2..(at + len) / 2];
            let (eights, rest) = scratch[..len].as_chunks_mut::<8>();
            let (fours, words_rest) = words.as_chunks::<4>();
            for (out, four) in eights.iter_mut().zip(fours) {
                s.store(s.half(&bytes_of(four)), out);
            }
            for (i, out) in rest.iter_mut().enumerate() {
                *out = kv.get(words_rest, 2, i / 2, i % 2);
            }
            &scratch[..len]
        }
        KvType::Q8 | KvType::Q4 => {
            for (vector, out) in vectors.zip(scratch.chunks_exact_mut(head_dim)) {
                let [codes, scales] = kv.places(head_dim, vector);
                let (codes, scales) = (&words[codes..], &words[scales..]);
                let (whole, rest) = out.as_chunks_mut::<BLOCK>();
                let mut block = 0;
                for out in whole {
                    decode(s, kv, codes, scales, block, out);
                    block += 1;
                }
                if !rest.is_empty() {
                    let mut last = [0.0; BLOCK];
                    decode(s, kv, codes, scales, block, &mut last);
                    rest.copy_from_slice(&last[..rest.len()]);
                }
            }
            &scratch[..len]
        }
    }
}

/// A block of a vector.
#[inline(always)]
fn decode<S: Simd>(s: S, kv: KvType, codes: &[u32], scales: &[u32], block: usize, out: &mut [f32; BLOCK]) {
    let scale = s.splat(s.half_bits((scales[block / 2] >> (16 * (block % 2))) as u16));
    let count = kv.words_of_block();
    let (quads, _) = codes[count * block..][..count].as_chunks::<4>();
    let out = out.as_chunks_mut::<8>().0;
    if kv == KvType::Q8 {
        for (quad, out) in quads.iter().zip(out.as_chunks_mut::<2>().0) {
            let [low, high] = s.signed(s.bytes(&bytes_of(quad)));
            s.store(s.mul(low, scale), &mut out[0]);
            s.store(s.mul(high, scale), &mut out[1]);
        }
        return;
    }
    for quad in quads {
        let bytes = s.bytes(&bytes_of(quad));
        let eight = s.splat(-8.0);
        for (codes, out) in [s.low(bytes), s.high(bytes)].into_iter().zip(out.as_chunks_mut::<2>().0) {
            let [low, high] = s.unsigned(codes);
            s.store(s.mul(s.add(low, eight), scale), &mut out[0]);
            s.store(s.mul(s.add(high, eight), scale), &mut out[1]);
        }
    }
}

#[inline(always)]
fn bytes_of(words: &[u32; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (bytes, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    bytes
}
