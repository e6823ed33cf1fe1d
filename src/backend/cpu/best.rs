//! `argmax` and `top_k` over a vocabulary: one pass of vectors that only looks closer where something can win.

use crate::error::Result;
use crate::kernel::{Call, argmax, top_k};

use super::cores::Cores;
use super::simd::{Simd, dispatch};

/// Logits looked at together.
const CHUNK: usize = 256;

/// The token of the largest logit of each row, fed back.
pub(super) fn argmax(
    cores: &mut Cores,
    p: &argmax::Params,
    call: Call,
    logits: &[f32],
    outputs: &[u32],
    rows: &mut [u32],
    tokens: &mut [u32],
) -> Result<()> {
    let each = logits.chunks_exact(p.width as usize).zip(tokens.iter_mut()).take(call.rows as usize);
    let isa = cores.isa;
    cores.pool.each(each, |(logits, token)| {
        let mut best = (f32::NEG_INFINITY, 0);
        let mut numbers = true;
        for (index, chunk) in logits.chunks(CHUNK).enumerate() {
            let most = dispatch!(isa, s => most(s, chunk));
            numbers &= !most.is_nan();
            if most > best.0 {
                best = (most, index);
            }
        }
        let from = best.1 * CHUNK;
        let place = logits[from..].iter().position(|&logit| logit == best.0).unwrap_or(0);
        *token = if numbers && best.0.is_finite() { (from + place) as u32 } else { argmax::NOT_A_TOKEN };
    })?;
    argmax::feed(rows, &outputs[..call.rows as usize], tokens);
    Ok(())
}

/// The `k` largest logits of each row with their tokens, and the logarithm of the sum of exponentials.
pub(super) fn top_k(
    cores: &mut Cores,
    p: &top_k::Params,
    call: Call,
    logits: &[f32],
    found: &mut [u32],
) -> Result<()> {
    let k = p.k as usize;
    let rows = logits.chunks_exact(p.width as usize).zip(found.chunks_exact_mut(2 * k + 1));
    let isa = cores.isa;
    cores.pool.each(rows.take(call.rows as usize), |(logits, found)| {
        let best = dispatch!(isa, s => select(s, k, logits));
        let largest = logits[best[0] as u32 as usize];
        let numbers = !logits.chunks(CHUNK).any(|chunk| dispatch!(isa, s => most(s, chunk)).is_nan());
        if !largest.is_finite() || !numbers {
            found[..k].fill(argmax::NOT_A_TOKEN);
            found[k..].fill(f32::NAN.to_bits());
            return;
        }
        for (i, &order) in best.iter().enumerate() {
            let token = order as u32;
            found[i] = token;
            found[k + i] = logits[token as usize].to_bits();
        }
        let sum = dispatch!(isa, s => sum_exp(s, logits, largest));
        found[2 * k] = ((f64::from(largest) + sum.ln()) as f32).to_bits();
    })
}

/// The largest of `logits`; NaN where one is NaN.
#[inline(always)]
fn most<S: Simd>(s: S, logits: &[f32]) -> f32 {
    let (eights, rest) = logits.as_chunks::<8>();
    let (mut most, mut nan) = (s.splat(f32::NEG_INFINITY), s.splat(0.0));
    for eight in eights {
        let v = s.load(eight);
        most = s.at_least(v, most);
        // Zero as long as all are finite.
        nan = s.fma(v, s.splat(0.0), nan);
    }
    let finite = s.sum(nan) == 0.0;
    let (most, unseen) = if finite { (s.max(most), rest) } else { (f32::NEG_INFINITY, logits) };
    unseen.iter().copied().fold(most, larger)
}

/// The larger; NaN where one is NaN.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}

/// The first `k` of the order of [`order`].
#[inline(always)]
fn select<S: Simd>(s: S, k: usize, logits: &[f32]) -> Vec<u64> {
    let mut best: Vec<u64> = Vec::with_capacity(4 * k + CHUNK);
    let mut bar = f32::NEG_INFINITY;
    for (index, chunk) in logits.chunks(CHUNK).enumerate() {
        if most(s, chunk) < bar {
            continue;
        }
        for (logit, token) in chunk.iter().zip((index * CHUNK) as u32..) {
            if *logit >= bar || logit.is_nan() {
                best.push(order(*logit, token));
            }
        }
        if best.len() >= 4 * k {
            let (_, last, _) = best.select_nth_unstable(k - 1);
            bar = logits[*last as u32 as usize];
            best.truncate(k);
        }
    }
    best.sort_unstable();
    best.truncate(k);
    best
}

/// Ascending where logits descend (NaN somewhere), and tokens ascend where they are equal; the token is the lower
/// half.
#[inline(always)]
fn order(logit: f32, token: u32) -> u64 {
    // Negative zero becomes positive.
    let bits = (logit + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(!ascending) << 32 | u64::from(token)
}

/// Σ exp(logit − largest)
#[inline(always)]
fn sum_exp<S: Simd>(s: S, logits: &[f32], largest: f32) -> f64 {
    let shift = s.splat(-largest);
    let mut total = 0.0;
    for chunk in logits.chunks(CHUNK) {
        let (eights, rest) = chunk.as_chunks::<8>();
        let mut sum = s.splat(0.0);
        for eight in eights {
            sum = s.add(sum, s.exp(s.add(s.load(eight), shift)));
        }
        total += f64::from(s.sum(sum));
        for &logit in rest {
            total += f64::from(logit - largest).exp();
        }
    }
    total
}
