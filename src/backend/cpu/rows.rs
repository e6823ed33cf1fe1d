//! Kernels that treat each row by itself: `embed`, `rms_norm`, `rope`, `kv_write`, `swiglu`, `scale`, `gather`, `hadamard`,
//! `kronecker`.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::error::Result;
use crate::kernel::{
    Call, Epilogue, Form, KvType, ROW_WORDS, embed, gather, geglu, gelu, hadamard, head_norm, kronecker,
    kv_at, kv_blocks, kv_write, rms_norm, rope, scale, soft_cap, squares, swiglu,
};
use crate::quant::Matrix;

use super::cores::Cores;
use super::packed::Packed;
use super::product::finish;
use super::simd::{Simd, dispatch};
use super::unit::decode;

/// x[r, :] = scale · E[token(r), :], where this piece of E holds the token.
pub(super) fn embed(
    cores: &mut Cores,
    p: &embed::Params,
    call: Call,
    rows: &[u32],
    matrix: &Matrix,
    packed: Option<Packed<'_>>,
    x: &mut [f32],
) -> Result<()> {
    let rows = rows.chunks_exact(ROW_WORDS).take(call.rows as usize);
    let (isa, format) = (cores.isa, matrix.format());
    let scratch = || vec![0; packed.map_or(0, Packed::row_bytes)];
    cores.pool.each_with(rows.zip(x.chunks_exact_mut(p.width as usize)), scratch, |bytes, (row, x)| {
        let token = row[0].wrapping_sub(p.first_token);
        if token >= p.tokens {
            return;
        }
        let token = token as usize;
        dispatch!(isa, s => match packed {
            Some(packed) => packed.decode_row(s, format, token, bytes, x),
            None => decode(s, format, &matrix.row(token), x),
        });
        if p.scale != 1.0 {
            x.iter_mut().for_each(|x| *x *= p.scale);
        }
    })
}

/// y[r, :] (+)= x[r, :] · gain / sqrt(mean(x[r, :]²) + ε)
pub(super) fn rms_norm(
    cores: &mut Cores,
    p: &rms_norm::Params,
    call: Call,
    form: Form,
    x: &[f32],
    gain: &[f32],
    y: &mut [f32],
) -> Result<()> {
    let width = p.width as usize;
    let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width)).take(call.rows as usize);
    let (isa, gain, adds) = (cores.isa, &gain[..width], form.epilogue == Some(Epilogue::Add));
    cores.pool.each(rows, |(x, y)| {
        dispatch!(isa, s => {
            let mean = f64::from(s.dot(x, x)) / width as f64;
            let scale = (1.0 / (mean + f64::from(p.epsilon)).sqrt()) as f32;
            let of_row = y.iter_mut().zip(x).zip(gain);
            if adds {
                of_row.for_each(|((y, x), gain)| *y += x * scale * gain);
            } else {
                of_row.for_each(|((y, x), gain)| *y = x * scale * gain);
            }
        });
    })
}

/// x[r, h, :] = x[r, h, :] · gain / sqrt(mean(x[r, h, :]²) + ε)
pub(super) fn head_norm(
    cores: &mut Cores,
    p: &head_norm::Params,
    call: Call,
    gains: &[f32],
    x: &mut [f32],
) -> Result<()> {
    let (head_dim, heads) = (p.head_dim as usize, (p.heads + p.kv_heads) as usize);
    let (of_queries, of_keys) = gains.split_at(head_dim);
    let isa = cores.isa;
    cores.pool.each(x.chunks_mut(p.stride as usize).take(call.rows as usize), |row| {
        for (head, x) in row.chunks_exact_mut(head_dim).take(heads).enumerate() {
            let gain = if head < p.heads as usize { of_queries } else { of_keys };
            dispatch!(isa, s => {
                let mean = f64::from(s.dot(x, x)) / head_dim as f64;
                let scale = (1.0 / (mean + f64::from(p.epsilon)).sqrt()) as f32;
                x.iter_mut().zip(gain).for_each(|(x, gain)| *x = *x * scale * gain);
            });
        }
    })
}

/// y[r, i] = silu(x[r, i]) · x[r, width + i]
pub(super) fn swiglu(
    cores: &mut Cores,
    p: &swiglu::Params,
    call: Call,
    x: &[f32],
    y: &mut [f32],
) -> Result<()> {
    let width = p.width as usize;
    let rows = x.chunks_exact(2 * width).zip(y.chunks_exact_mut(width)).take(call.rows as usize);
    let isa = cores.isa;
    cores.pool.each(rows, |(x, y)| {
        let (gate, up) = x.split_at(width);
        dispatch!(isa, s => gate_row::<_, false>(s, gate, up, y));
    })
}

/// y[r, i] = gelu(x[r, i]) · x[r, width + i]
pub(super) fn geglu(
    cores: &mut Cores,
    p: &geglu::Params,
    call: Call,
    x: &[f32],
    y: &mut [f32],
) -> Result<()> {
    let width = p.width as usize;
    let rows = x.chunks_exact(2 * width).zip(y.chunks_exact_mut(width)).take(call.rows as usize);
    let isa = cores.isa;
    cores.pool.each(rows, |(x, y)| {
        let (gate, up) = x.split_at(width);
        dispatch!(isa, s => gate_row::<_, true>(s, gate, up, y));
    })
}

/// x[r, i] = cap · tanh(x[r, i] / cap)
pub(super) fn soft_cap(cores: &mut Cores, p: &soft_cap::Params, call: Call, x: &mut [f32]) -> Result<()> {
    /// Elements of a task.
    const PIECE: usize = 4096;
    let x = &mut x[..p.width as usize * call.rows as usize];
    cores.pool.each(x.chunks_mut(PIECE), |x| x.iter_mut().for_each(|x| *x = p.cap * (*x / p.cap).tanh()))
}

/// y[r, i] = gelu(x[r, i])
pub(super) fn gelu(cores: &mut Cores, p: &gelu::Params, call: Call, x: &[f32], y: &mut [f32]) -> Result<()> {
    let width = p.width as usize;
    let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width)).take(call.rows as usize);
    let isa = cores.isa;
    let ones = || vec![1.0; width];
    cores.pool.each_with(rows, ones, |ones, (x, y)| dispatch!(isa, s => gate_row::<_, true>(s, x, ones, y)))
}

/// `act(gate) · up`, where act is silu or gelu.
#[inline(always)]
fn gate_row<S: Simd, const GELU: bool>(s: S, gate: &[f32], up: &[f32], y: &mut [f32]) {
    let ((gates, gate), (ups, up)) = (gate.as_chunks::<8>(), up.as_chunks::<8>());
    let (ys, y) = y.as_chunks_mut::<8>();
    for ((gate, up), y) in gates.iter().zip(ups).zip(ys) {
        gate_eight::<S, GELU>(s, gate, up, y);
    }
    let (mut last_gate, mut last_up, mut last_y) = ([0.0; 8], [0.0; 8], [0.0; 8]);
    last_gate[..gate.len()].copy_from_slice(gate);
    last_up[..up.len()].copy_from_slice(up);
    gate_eight::<S, GELU>(s, &last_gate, &last_up, &mut last_y);
    y.copy_from_slice(&last_y[..y.len()]);
}

#[inline(always)]
fn gate_eight<S: Simd, const GELU: bool>(s: S, gate: &[f32; 8], up: &[f32; 8], y: &mut [f32; 8]) {
    let gate = s.load(gate);
    // gelu(a) = a / (1 + exp(−2·√(2/π)·(a + 0.044715·a³)))
    let steep = match GELU {
        true => {
            s.fma(s.mul(gate, gate), s.splat(-2.0 * 0.797_884_6 * 0.044_715), s.splat(-2.0 * 0.797_884_6))
        }
        false => s.splat(-1.0),
    };
    let below = s.add(s.splat(1.0), s.exp(s.mul(gate, steep)));
    s.store(s.mul(s.div(gate, below), s.load(up)), y);
}

/// y[r, i] (+)= x[r, i] · gain[i]
pub(super) fn scale(
    cores: &mut Cores,
    p: &scale::Params,
    call: Call,
    form: Form,
    [x, gains]: [&[f32]; 2],
    y: &mut [f32],
) -> Result<()> {
    let width = p.width as usize;
    let rows = x.chunks_exact(width).zip(y.chunks_mut(p.y_stride as usize)).take(call.rows as usize);
    let isa = cores.isa;
    cores.pool.each(rows, |(x, y)| {
        let y = &mut y[p.y_offset as usize..][..width];
        dispatch!(isa, _s => {
            for ((y, x), gain) in y.iter_mut().zip(x).zip(gains) {
                *y = finish(form.epilogue, *y, x * gain);
            }
        });
    })
}

/// y[i] += Σ_r x[r, i]²
pub(super) fn squares(
    cores: &mut Cores,
    p: &squares::Params,
    call: Call,
    x: &[f32],
    y: &mut [f32],
) -> Result<()> {
    /// Elements that a thread sums over all rows.
    const PIECE: usize = 64;
    let (width, isa) = (p.width as usize, cores.isa);
    let pieces = y[..width].chunks_mut(PIECE).enumerate();
    cores.pool.each(pieces, |(piece, y)| {
        let columns = piece * PIECE..piece * PIECE + y.len();
        dispatch!(isa, _s => {
            for x in x.chunks_exact(width).take(call.rows as usize) {
                for (y, x) in y.iter_mut().zip(&x[columns.clone()]) {
                    *y += x * x;
                }
            }
        });
    })
}

/// y[r, i] (+)= x[r, order[i]]
pub(super) fn gather(
    cores: &mut Cores,
    p: &gather::Params,
    call: Call,
    form: Form,
    [x, order]: [&[f32]; 2],
    y: &mut [f32],
) -> Result<()> {
    let rows = x.chunks_exact(p.x_stride as usize).zip(y.chunks_mut(p.y_stride as usize));
    cores.pool.each(rows.take(call.rows as usize), |(x, y)| {
        let y = &mut y[p.y_offset as usize..][..p.width as usize];
        for (y, from) in y.iter_mut().zip(order) {
            *y = finish(form.epilogue, *y, x[*from as usize]);
        }
    })
}

/// y[r, i·n + a] (+)= Σ_t Σ_j F[t, i, j] · v[r, j, t, a]
pub(super) fn kronecker(
    cores: &mut Cores,
    p: &kronecker::Params,
    call: Call,
    form: Form,
    [v, factors]: [&[f32]; 2],
    y: &mut [f32],
) -> Result<()> {
    let [width, terms, y_parts, x_parts] =
        [p.width, p.terms, p.y_parts, p.x_parts].map(|count| count as usize);
    let rows = v.chunks_exact(x_parts * terms * width).zip(y.chunks_mut(p.y_stride as usize));
    let isa = cores.isa;
    let scratch = || vec![0.0; width];
    cores.pool.each_with(rows.take(call.rows as usize), scratch, |sums, (v, y)| {
        let y = &mut y[p.y_offset as usize..][..y_parts * width];
        dispatch!(isa, _s => for (i, y) in y.chunks_exact_mut(width).enumerate() {
            sums.fill(0.0);
            for (at, v) in v.chunks_exact(width).enumerate() {
                let factor = factors[(at % terms * y_parts + i) * x_parts + at / terms];
                sums.iter_mut().zip(v).for_each(#[inline(always)] |(sum, v)| *sum += factor * v);
            }
            for (y, sum) in y.iter_mut().zip(&*sums) {
                *y = finish(form.epilogue, *y, *sum);
            }
        });
    })
}

/// The transform of each block of a row, in f32.
pub(super) fn hadamard(
    cores: &mut Cores,
    p: &hadamard::Params,
    call: Call,
    form: Form,
    [x, table]: [&[f32]; 2],
    y: &mut [f32],
) -> Result<()> {
    let (width, block, order) = (p.width as usize, p.block as usize, p.order as usize);
    let part = block / order;
    let share = (1.0 / f64::from(p.block).sqrt()) as f32;
    let rows = x.chunks_exact(width).zip(y.chunks_mut(p.y_stride as usize)).take(call.rows as usize);
    let isa = cores.isa;
    let scratch = || (vec![0.0; block], vec![0.0; part]);
    cores.pool.each_with(rows, scratch, |(turned, sums), (x, y)| {
        let y = &mut y[p.y_offset as usize..][..width];
        for (x, y) in x.chunks_exact(block).zip(y.chunks_exact_mut(block)) {
            turned.copy_from_slice(x);
            dispatch!(isa, _s => {
                turned.chunks_exact_mut(part).for_each(walsh);
                for (signs, y) in table.chunks_exact(order).zip(y.chunks_exact_mut(part)) {
                    sums.fill(0.0);
                    for (sign, turned) in signs.iter().zip(turned.chunks_exact(part)) {
                        sums.iter_mut().zip(turned).for_each(#[inline(always)] |(sum, turned)| *sum += sign * turned);
                    }
                    for (y, sum) in y.iter_mut().zip(&*sums) {
                        *y = finish(form.epilogue, *y, sum * share);
                    }
                }
            });
        }
    })
}

/// The transform of a power of two, unscaled, in place.
#[inline(always)]
fn walsh(x: &mut [f32]) {
    let mut half = 1;
    while half < x.len() {
        for pair in x.chunks_exact_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

/// Rotates pairs of the heads of x by the angles of the row's position.
pub(super) fn rope(
    cores: &mut Cores,
    p: &rope::Params,
    call: Call,
    rows: &[u32],
    table: &[f32],
    x: &mut [f32],
) -> Result<()> {
    let (head_dim, dims) = (p.head_dim as usize, p.dims as usize);
    let rows = rows.chunks_exact(ROW_WORDS).take(call.rows as usize);
    cores.pool.each(rows.zip(x.chunks_mut(p.stride as usize)), |(row, x)| {
        let turns = table[row[1] as usize * dims..][..dims].as_chunks::<2>().0;
        let heads = &mut x[p.offset as usize..][..p.heads as usize * head_dim];
        for head in heads.chunks_exact_mut(head_dim) {
            let head = &mut head[..dims];
            if p.interleaved == 1 {
                for (pair, turn) in head.as_chunks_mut::<2>().0.iter_mut().zip(turns) {
                    *pair = turned(*pair, *turn).into();
                }
            } else {
                let (a, b) = head.split_at_mut(dims / 2);
                for ((a, b), turn) in a.iter_mut().zip(b).zip(turns) {
                    (*a, *b) = turned([*a, *b], *turn);
                }
            }
        }
    })
}

#[inline(always)]
fn turned([a, b]: [f32; 2], [cos, sin]: [f32; 2]) -> (f32, f32) {
    (a * cos - b * sin, a * sin + b * cos)
}

/// Writes the rows' keys and values to their pages. Rows may share a page, so one thread does it.
pub(super) fn kv_write(
    p: &kv_write::Params,
    call: Call,
    form: Form,
    [rows, pages]: [&[u32]; 2],
    x: &[f32],
    [keys, values]: [&mut [u32]; 2],
) {
    let head_dim = p.head_dim as usize;
    let kv = form.kv.unwrap_or(KvType::F32);
    for (r, row) in rows.chunks_exact(ROW_WORDS).take(call.rows as usize).enumerate() {
        let x = &x[r * p.stride as usize..];
        for head in 0..p.kv_heads {
            let at = kv_at(pages, p.pages_per_sequence, row[2], row[1], head, p.kv_heads) * head_dim;
            let of = |offset: u32| &x[offset as usize + head as usize * head_dim..][..head_dim];
            set(kv, keys, at, of(p.k_offset));
            set(kv, values, at, of(p.v_offset));
        }
    }
}

/// Turns heads, and writes keys and values to their pages in blocks. One thread does it, as [`kv_write`].
pub(super) fn kv_blocks(
    cores: &Cores,
    p: &kv_blocks::Params,
    call: Call,
    form: Form,
    [rows, pages]: [&[u32]; 2],
    x: &mut [f32],
    [keys, values]: [&mut [u32]; 2],
) {
    let (head_dim, block) = (p.head_dim as usize, p.block as usize);
    let kv = form.kv.unwrap_or(KvType::Q8);
    let (queries, all) = (p.heads as usize * head_dim, (p.heads + 2 * p.kv_heads) as usize * head_dim);
    let rows = rows.chunks_exact(ROW_WORDS).take(call.rows as usize);
    let isa = cores.isa;
    let mut scratch = vec![0.0; all - queries];
    for (row, x) in rows.zip(x.chunks_mut(p.stride as usize)) {
        let (queries, pairs) = x[..all].split_at_mut(queries);
        scratch.copy_from_slice(pairs);
        let (k, v) = scratch.split_at_mut(pairs.len() / 2);
        dispatch!(isa, _s => {
            queries.chunks_exact_mut(head_dim).for_each(#[inline(always)] |head| kv_blocks::turn(head, block));
            for (x, words) in [(k, &mut *keys), (v, &mut *values)] {
                for (head, x) in x.chunks_exact_mut(head_dim).enumerate() {
                    kv_blocks::turn(x, block);
                    kv.put(words, kv_at(pages, p.pages_per_sequence, row[2], row[1], head as u32, p.kv_heads), x);
                }
            }
        });
    }
}

/// Stores `x`, an even number of elements, from element `at` of the cache on.
fn set(kv: KvType, words: &mut [u32], at: usize, x: &[f32]) {
    match kv {
        KvType::Q8 | KvType::Q4 => kv.put(words, at / x.len(), x),
        KvType::F32 => words[at..at + x.len()].copy_from_slice(bytemuck::cast_slice(x)),
        KvType::F16 => {
            let mut halves = [f16::ZERO; 64];
            for (x, words) in x.chunks(64).zip(words[at / 2..(at + x.len()) / 2].chunks_mut(32)) {
                let halves = &mut halves[..x.len()];
                halves.convert_from_f32_slice(x);
                for (word, pair) in words.iter_mut().zip(halves.as_chunks::<2>().0) {
                    *word = u32::from(pair[0].to_bits()) | u32::from(pair[1].to_bits()) << 16;
                }
            }
        }
    }
}
