//! Writes each row's keys and values to the page and slot of its sequence and position, in blocks (see
//! [`super::kv`]). A row of x is the heads of Q, of K and of V side by side.
//!
//! With blocks of the Walsh–Hadamard transform H (n elements each, a power of two), `u ← H·u / √n` for each block u of each
//! head before: in x for queries, on the way to the cache for keys and values. Queries and keys are turned alike, so that
//! their products stay; attention yields means of turned values, which the same transform turns back. It spreads the
//! outliers of a few dimensions, which are the same for all keys, over all of a block, where they do not take the steps
//! of the others (Ashkboos et al. 2024, arXiv 2404.00456).
//!
//! A workgroup is a head: sums run in its memory, in the order of the twin, so that their bits are the same.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, KvType, Needs, Overrides, PAGE,
    ROW_WORDS, Tolerance, Variant, Work, kv_at, made,
};
use crate::base::Seed;

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements from one row of x to the next.
    pub stride: u32,
    /// Heads of Q.
    pub heads: u32,
    /// Heads of K and of V.
    pub kv_heads: u32,
    /// Elements of a head, an even number up to 256.
    pub head_dim: u32,
    /// n: elements of a block of the transform, a power of two that divides `head_dim`; 1 for none.
    pub block: u32,
    /// Entries of a sequence in `pages`.
    pub pages_per_sequence: u32,
}

impl Params {
    /// Heads of a row that are read.
    fn all(&self) -> u32 {
        2 * self.kv_heads + if self.block > 1 { self.heads } else { 0 }
    }
}

/// The largest block of the transform for heads of `head_dim` elements.
pub fn block_of(head_dim: u32) -> u32 {
    1 << head_dim.trailing_zeros()
}

/// `u ← H·u / √n` for each block of n elements, each sum rounded to f32, in the order in which devices compute it.
#[inline(always)]
pub fn turn(x: &mut [f32], n: usize) {
    if n <= 1 {
        return;
    }
    let mut half = 1;
    while half < n {
        for pair in x.chunks_exact_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let share = share(n as u32) as f32;
    x.iter_mut().for_each(|x| *x *= share);
}

/// 1 / √n
pub(super) fn share(n: u32) -> f64 {
    1.0 / f64::from(n).sqrt()
}

pub(super) const BODY: Fragment = Fragment::Text(include_str!("../../shaders/kv_blocks.wgsl"));

/// The home.
#[derive(Debug)]
pub struct KvBlocks;

impl Home for KvBlocks {
    type Params = Params;
    const ID: KernelId = KernelId::KvBlocks;
    const ARGS: &'static [ArgKind] =
        &[ArgKind::U32, ArgKind::U32, ArgKind::F32Mut, ArgKind::U32Mut, ArgKind::U32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[
            Fragment::Text(include_str!("../../shaders/part/half_bits.wgsl")),
            Fragment::Kv(KvType::BLOCKS),
            Fragment::Text(include_str!("../../shaders/part/head_plain.wgsl")),
            BODY,
        ],
        needs: Needs::NOTHING,
    }];

    fn overrides(p: &Params, _variant: &Variant) -> Overrides {
        vec![("SHARE", share(p.block))]
    }

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [p.all(), call.rows, 1]
    }

    fn twin(p: &Params, call: Call, form: Form, args: &mut [Arg<'_>]) {
        let [Arg::U32(rows), Arg::U32(pages), Arg::F32Mut(x), Arg::U32Mut(keys), Arg::U32Mut(values)] = args
        else {
            unreachable!("checked by the caller")
        };
        let kv = form.kv.unwrap_or(KvType::Q8);
        let rows = rows.chunks_exact(ROW_WORDS).take(call.rows as usize);
        for (row, x) in rows.zip(x.chunks_mut(p.stride as usize)) {
            for (number, head) in (0..).zip(x.chunks_exact_mut(p.head_dim as usize)) {
                let mut turned = head.to_vec();
                turn(&mut turned, p.block as usize);
                let at = |kv_head| kv_at(pages, p.pages_per_sequence, row[2], row[1], kv_head, p.kv_heads);
                match number {
                    number if number < p.heads => head.copy_from_slice(&turned),
                    number if number < p.heads + p.kv_heads => kv.put(keys, at(number - p.heads), &turned),
                    number if number < p.heads + 2 * p.kv_heads => {
                        kv.put(values, at(number - p.heads - p.kv_heads), &turned);
                    }
                    _ => {}
                }
            }
        }
    }

    fn work(p: &Params, call: Call, form: Form) -> Work {
        let (rows, width) = (f64::from(call.rows), f64::from(p.head_dim));
        let read = f64::from(p.all()) * width;
        let queries = if p.block > 1 { f64::from(p.heads) * width } else { 0.0 };
        let words = form.kv.unwrap_or(KvType::Q8).words(1, p.head_dim as usize) as f64;
        let written = queries + 2.0 * f64::from(p.kv_heads) * words;
        Work { bytes: 4.0 * rows * (read + written), flops: rows * read * f64::from(p.block).log2() }
    }

    fn cases() -> Vec<Case> {
        let shape = |heads, kv_heads, head_dim, block, spare| Params {
            stride: (heads + 2 * kv_heads) * head_dim + spare,
            heads,
            kv_heads,
            head_dim,
            block,
            pages_per_sequence: 3,
        };
        let shapes = [
            (shape(1, 1, 8, 1, 0), vec![(1, 0)]),
            (shape(1, 1, 2, 2, 0), vec![(0, 95)]),
            (shape(2, 1, 64, 64, 0), vec![(1, 64), (0, 30), (0, 31)]),
            (shape(3, 3, 6, 2, 5), vec![(0, 31), (0, 32), (0, 33), (2, 0), (1, 63)]),
            (shape(2, 2, 80, 16, 1), vec![(1, 63), (0, 5)]),
            (shape(1, 2, 96, 1, 2), vec![(2, 40)]),
            (shape(2, 1, 128, 128, 0), vec![(2, 7)]),
            (shape(1, 1, 256, 256, 0), vec![(2, 8), (0, 0)]),
        ];
        let of_kv = |kv| shapes.iter().map(move |(params, places)| case(kv, *params, places));
        KvType::BLOCKS.iter().copied().flat_map(of_kv).collect()
    }

    fn probe(p: &Params, form: Form) -> Option<Case> {
        let stride = 4 * p.head_dim;
        let small = Params { stride, heads: 2, kv_heads: 1, pages_per_sequence: 3, ..*p };
        form.kv.map(|kv| case(kv, small, &[(1, 64), (0, 31)]))
    }
}

/// Rows of sequences at positions.
fn case(kv: KvType, params: Params, places: &[(u32, u32)]) -> Case {
    let mut seed = Seed::new(8);
    let Params { stride, heads, kv_heads, head_dim, block, pages_per_sequence } = params;
    let mut x = made::activations(&mut seed, places.len(), stride as usize, stride as usize);
    // Codes halfway between two, of a step that is a power of two; the largest with either sign.
    let hard = [-127.0, 127.0, 0.5, 1.5, -0.5, -1.5, 126.5, -126.5, -0.0, 1e-30];
    for (x, hard) in x[((heads + kv_heads) * head_dim) as usize..].iter_mut().zip(hard) {
        *x = hard;
    }
    let rows: Vec<_> = places.iter().map(|&(sequence, position)| [9, position, sequence]).collect();
    let pages = made::pages(&mut seed, 3, pages_per_sequence);
    let words = kv.words(pages.len() * (kv_heads * PAGE) as usize, head_dim as usize);
    let mut old = || Data::U32((0..words).map(|_| seed.bits() as u32).collect());
    let args = vec![made::rows(&rows), Data::U32(pages), Data::F32(x), old(), old()];
    let call = Call { rows: rows.len() as u32, kv_len: 1 + rows.iter().map(|row| row[1]).max().unwrap_or(0) };
    let form = Form { kv: Some(kv), ..Form::default() };
    let name = format!("{heads} + {kv_heads} heads of {head_dim} turned in blocks of {block}, {places:?}");
    Case::of::<KvBlocks>(name, params, call, form, args, Tolerance::EXACT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_twice_is_nothing_and_products_stay() {
        let mut seed = Seed::new(2);
        for (head_dim, block) in [(64, 64), (80, 16), (96, 32), (6, 2), (5, 1)] {
            assert_eq!(block_of(head_dim as u32), block as u32);
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            let (a, b) = (seed.vector(head_dim, 1.0), seed.vector(head_dim, 1.0));
            let (mut turned_a, mut turned_b) = (a.clone(), b.clone());
            turn(&mut turned_a, block);
            turn(&mut turned_b, block);
            assert!(block == 1 || turned_a != a);
            assert!((dot(&a, &b) - dot(&turned_a, &turned_b)).abs() < 1e-4 * head_dim as f32);
            turn(&mut turned_a, block);
            assert!(a.iter().zip(&turned_a).all(|(a, back)| (a - back).abs() < 1e-5), "{head_dim}");
        }
    }
}
