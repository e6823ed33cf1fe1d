//! The `k` largest logits of each row, largest first and the smaller token first among equals: row r of `found` is
//! `[token × k, logit × k (f32 bits), log Σⱼ exp(logit[j]) (f32 bits)]`.
//!
//! Logits compare as numbers: the two zeros are equal. A row whose largest logit is not finite, or that holds NaN,
//! gives [`NOT_A_TOKEN`] for each token and NaN for each number.

use std::cmp::Ordering;

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, Needs, Tolerance, Variant, Work,
    argmax::NOT_A_TOKEN,
};
use crate::base::Seed;

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Logits of a row.
    pub width: u32,
    /// How many, at most 128 and at most `width`.
    pub k: u32,
}

const ORDER: Fragment = Fragment::Text(include_str!("../../shaders/part/order.wgsl"));

/// The home.
#[derive(Debug)]
pub struct TopK;

impl Home for TopK {
    type Params = Params;
    const ID: KernelId = KernelId::TopK;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::U32Mut];
    const VARIANTS: &'static [Variant] = &[
        Variant {
            name: "select",
            fragments: &[ORDER, Fragment::Text(include_str!("../../shaders/top_k.wgsl"))],
            needs: Needs::NOTHING,
        },
        // For drivers whose atomics in workgroup memory are wrong.
        Variant {
            name: "plain",
            fragments: &[ORDER, Fragment::Text(include_str!("../../shaders/top_k_rounds.wgsl"))],
            needs: Needs::NOTHING,
        },
    ];

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
        let mut seed = Seed::new(11);
        let mut fine = |width: usize| seed.vector(width, 9.0);
        let mut cases: Vec<_> = [(5, 3), (1, 1), (5, 5), (256, 128), (257, 40), (1000, 128), (49152, 40)]
            .map(|(width, k)| case("random", k, &[fine(width)]))
            .into();
        let coarse = |row: Vec<f32>| row.iter().map(|logit| logit.round()).collect::<Vec<_>>();
        cases.push(case("ties", 64, &[coarse(fine(700)), coarse(fine(700)), vec![1.5; 700]]));
        cases.push(case("rising", 128, &[(0..3000).map(|i| i as f32 * 1e-3).collect()]));
        // All that is wanted is in the hands of one thread of 256.
        let clustered = (0..65536).map(|i| if i % 256 == 3 { i as f32 * 1e-4 } else { -1.0 }).collect();
        cases.push(case("clustered", 100, &[clustered]));
        let zeros = (0..300).map(|i| if i % 3 == 0 { -0.0 } else { 0.0 }).collect();
        cases.push(case("zeros of either sign", 20, &[zeros]));
        let inf = f32::INFINITY;
        let masked =
            |but: usize| (0..600).map(|i| if i < but { -0.01 * i as f32 } else { -inf }).collect::<Vec<_>>();
        cases.push(case("masked", 12, &[masked(100), masked(5), masked(1)]));
        let holding = |logit: f32| [vec![1.0; 299], vec![logit]].concat();
        cases.push(case(
            "not finite",
            9,
            &[holding(inf), holding(f32::NAN), holding(-f32::NAN), vec![-inf; 300]],
        ));
        cases
    }

    fn probe(p: &Params, _form: Form) -> Option<Case> {
        let mut seed = Seed::new(11);
        let rows = [(); 2].map(|()| seed.vector(p.width.min(4096) as usize, 9.0));
        Some(case("a vocabulary", p.k.min(p.width) as usize, &rows))
    }
}

fn case(name: &str, k: usize, rows: &[Vec<f32>]) -> Case {
    let width = rows[0].len();
    let largest =
        rows.iter().flatten().filter(|logit| logit.is_finite()).fold(1.0, |m: f32, logit| m.max(logit.abs()));
    // The sum of exponentials: 3 + 2|x| units of e^x ≤ 1 each, then additions of what is not negative. Its logarithm is
    // off by as much, by 2⁻²¹ or 3 units of it (WGSL), and rounded once in the sum with the largest.
    let additions = width.div_ceil(256) + 256;
    let logarithm = Tolerance(2f32.powi(-21)).and(Tolerance::roundings(3, (width as f32).ln()));
    let tolerance = Tolerance::roundings(5 + additions as u32 / 2, 1.0)
        .and(logarithm)
        .and(Tolerance::roundings(1, largest));
    let call = Call { rows: rows.len() as u32, kv_len: 1 };
    let stride = 2 * k + 1;
    let args = vec![Data::F32(rows.concat()), Data::U32(vec![7; rows.len() * stride])];
    let params = Params { width: width as u32, k: k as u32 };
    let name = format!("{name}, {k} of {} × {width}", rows.len());
    Case::of::<TopK>(name, params, call, Form::default(), args, tolerance)
        .with_f32_words((1..=rows.len()).map(|row| row * stride - 1))
}
