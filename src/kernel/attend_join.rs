//! The results of `attend_split` as one: `y[r, h, :] = Σₛ wₛ · parts[r, s, h, :] / Σₛ wₛ` with the weights
//! `wₛ = exp(parts[r, s, h, head_dim])`, over the splits that hold keys of row r. Nothing where there is one split.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, Needs, PAGE, ROW_WORDS, Tolerance,
    Variant, Work, attend_split, made,
};
use crate::base::Seed;

use attend_split::{SPLITS, pages_of_split, splits};

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Query heads.
    pub heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// As in `attend`.
    pub window: u32,
}

/// The home.
#[derive(Debug)]
pub struct AttendJoin;

impl Home for AttendJoin {
    type Params = Params;
    const ID: KernelId = KernelId::AttendJoin;
    const ARGS: &'static [ArgKind] = &[ArgKind::U32, ArgKind::F32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[Fragment::Text(include_str!("../../shaders/attend_join.wgsl")), SPLITS],
        needs: Needs::NOTHING,
    }];

    fn grid(p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        match splits(call.kv_len, p.window) {
            1 => [0; 3],
            _ => [(p.heads * p.head_dim).div_ceil(64), call.rows, 1],
        }
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::U32(rows), Arg::F32(parts), Arg::F32Mut(y)] = args else {
            unreachable!("checked by the caller")
        };
        let splits = splits(call.kv_len, p.window) as usize;
        if splits == 1 {
            return;
        }
        let (heads, head_dim) = (p.heads as usize, p.head_dim as usize);
        for (at, y) in y.chunks_exact_mut(head_dim).take(call.rows as usize * heads).enumerate() {
            let (row, head) = (at / heads, at % heads);
            let count = rows[row * ROW_WORDS + 1] + 1;
            let pages = count.div_ceil(PAGE) - (count - count.min(p.window)) / PAGE;
            let seen = pages.div_ceil(pages_of_split(call.kv_len, p.window));
            let part = |split: u32| {
                let place = (row * splits + split as usize) * heads + head;
                &parts[place * (head_dim + 1)..][..=head_dim]
            };
            let sum = |split| f64::from(part(split)[head_dim]);
            let largest = (0..seen).map(sum).fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = (0..seen).map(|split| (sum(split) - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for (i, y) in y.iter_mut().enumerate() {
                let mean = weights.iter().zip(0..).map(|(weight, split)| weight * f64::from(part(split)[i]));
                *y = (mean.sum::<f64>() / total) as f32;
            }
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let splits = match splits(call.kv_len, p.window) {
            1 => return Work::default(),
            splits => f64::from(splits),
        };
        let elements = f64::from(call.rows) * f64::from(p.heads) * f64::from(p.head_dim);
        Work { bytes: 4.0 * elements * (splits + 1.0), flops: 2.0 * elements * splits }
    }

    fn cases() -> Vec<Case> {
        let shape = |heads, head_dim| Params { heads, head_dim, window: 1 << 20 };
        vec![
            case(shape(2, 8), &[600]),
            case(shape(1, 2), &[511]),
            case(shape(3, 80), &[512, 287, 288, 3]),
            case(shape(9, 64), &[1500, 9000]),
            case(Params { window: 600, ..shape(2, 8) }, &[3, 511, 700, 2000]),
        ]
    }
}

/// Rows at positions, each of a sequence of its own; parts of splits without keys of the row are NaN.
fn case(params: Params, positions: &[u32]) -> Case {
    let mut seed = Seed::new(5);
    let Params { heads, head_dim, window } = params;
    let kv_len = 1 + positions.iter().copied().max().unwrap_or(0);
    let (splits, pages) = (splits(kv_len, window), pages_of_split(kv_len, window));
    let mut parts = Vec::new();
    let (mut largest, mut sums) = (0.0f32, 0.0f32);
    for &position in positions {
        let first_page = (position + 1).saturating_sub(window) / PAGE;
        for split in 0..splits {
            for _ in 0..heads {
                if split > (position / PAGE - first_page) / pages {
                    parts.extend(vec![f32::NAN; head_dim as usize + 1]);
                    continue;
                }
                let part = made::activations(&mut seed, 1, head_dim as usize, head_dim as usize);
                largest = largest.max(made::magnitude(&part));
                let sum = 4.0 * seed.signed();
                sums = sums.max(sum.abs());
                parts.extend(part);
                parts.push(sum);
            }
        }
    }
    // The difference of two sums is rounded and is a relative error of its weight; exp adds 3 + 2|x| units of e^x ≤ 1;
    // errors of weights move the mean by at most twice themselves; the sums over splits add theirs.
    let of_weights = Tolerance::roundings(1, 2.0 * sums).and(Tolerance::roundings(4, 1.0));
    let of_sums = Tolerance::roundings(2 + splits, 1.0);
    let tolerance = Tolerance((2.0 * of_weights.0 + of_sums.0) * largest);
    let rows: Vec<_> = (0..).zip(positions).map(|(sequence, &position)| [9, position, sequence]).collect();
    let y = seed.vector(rows.len() * (heads * head_dim) as usize, 1.0);
    let args = vec![made::rows(&rows), Data::F32(parts), Data::F32(y)];
    let call = Call { rows: rows.len() as u32, kv_len };
    let name = format!("{heads} heads of {head_dim}, rows at {positions:?}");
    Case::of::<AttendJoin>(name, params, call, Form::default(), args, tolerance)
}
