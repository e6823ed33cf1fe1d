//! `token[o] = ` what the chain of output o draws from the largest logits that `top_k` found for it; it is fed back
//! in place of the likeliest, which `argmax` took: the next row of the sequence in `rows`.
//!
//! A chain is [`Stages`] in 32 words; one of no stages leaves the token as it is. Its step is a matter of the position
//! that the next row has. All in whole numbers, see [`crate::base::chance`].

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, Needs, ROW_WORDS, Tolerance, Variant,
    Work, argmax::NOT_A_TOKEN, made,
};
use crate::base::Seed;
use crate::base::chance::{Stage, Stages};

/// Words of a chain.
pub const CHAIN_WORDS: usize = size_of::<Stages>() / 4;

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// How many logits `top_k` found, at most 128.
    pub k: u32,
}

/// The home.
#[derive(Debug)]
pub struct Draw;

impl Home for Draw {
    type Params = Params;
    const ID: KernelId = KernelId::Draw;
    /// What `top_k` found, the rows of the outputs, chains, rows, tokens.
    const ARGS: &'static [ArgKind] =
        &[ArgKind::U32, ArgKind::U32, ArgKind::U32, ArgKind::U32Mut, ArgKind::U32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[Fragment::Text(include_str!("../../shaders/draw.wgsl"))],
        needs: Needs::NOTHING,
    }];

    fn grid(_p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [call.rows, 1, 1]
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::U32(found), Arg::U32(outputs), Arg::U32(chains), Arg::U32Mut(rows), Arg::U32Mut(tokens)] =
            args
        else {
            unreachable!("checked by the caller")
        };
        let k = p.k as usize;
        let chains = chains.chunks_exact(CHAIN_WORDS).zip(found.chunks_exact(2 * k + 1));
        let places = outputs.iter().zip(tokens.iter_mut()).take(call.rows as usize);
        for ((&row, token), (chain, found)) in places.zip(chains) {
            let stages: Stages = bytemuck::pod_read_unaligned(bytemuck::cast_slice(chain));
            let row = &mut rows[row as usize * ROW_WORDS..][..ROW_WORDS];
            if stages.count == 0 {
                continue;
            }
            let logits: Vec<f32> = found[k..2 * k].iter().map(|&bits| f32::from_bits(bits)).collect();
            let place = if found[0] == NOT_A_TOKEN { 0 } else { stages.draw(&logits, row[1]) };
            *token = found[place];
            row[0] = found[place];
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let candidates = f64::from(call.rows) * f64::from(p.k);
        Work { bytes: 8.0 * candidates, flops: 0.0 }
    }

    fn cases() -> Vec<Case> {
        let mut seed = Seed::new(12);
        let (most, near, share, draw) = (Stage::most, Stage::near, Stage::share, Stage::draw);
        let mut cases = vec![
            case("plain draws", &mut seed, 5, &[&[draw(1.0)], &[draw(1.0)], &[draw(0.0)]], 4.0),
            case("one", &mut seed, 1, &[&[most(1), share(0.5, 1.0), near(0.5, 1.0), draw(1.0)], &[]], 4.0),
            case(
                "a usual chain",
                &mut seed,
                64,
                &[&[most(40), share(0.95, 1.0), near(0.05, 1.0), draw(1.25)]],
                6.0,
            ),
        ];
        for round in 0..6 {
            let mut stage = || match seed.below(4) {
                0 => most(seed.below(140) as u32),
                1 => near(seed.signed().abs(), f64::from(seed.signed().abs())),
                _ => share(seed.signed().abs(), f64::from(seed.signed().abs())),
            };
            let chains: Vec<Vec<Stage>> = (0..40)
                .map(|length| {
                    (0..length % 7).map(|_| stage()).chain([draw(f64::from(length) / 20.0)]).collect()
                })
                .collect();
            let chains: Vec<&[Stage]> = chains.iter().map(Vec::as_slice).collect();
            let (k, range) = [(64, 3.0), (128, 1.0), (128, 60.0), (7, 0.1), (33, 1e6), (64, 1e-3)][round];
            cases.push(case("chains", &mut seed, k, &chains, range));
        }
        let extremes =
            [0.0, 1e-300, 1e300].map(|sharpness| [share(1.0, sharpness), near(0.0, 1.0), draw(sharpness)]);
        let extremes: Vec<&[Stage]> = extremes.iter().map(<[Stage; 3]>::as_slice).collect();
        cases.push(case("extremes", &mut seed, 20, &extremes, f32::MAX));
        cases
    }
}

/// An output for each chain. The last candidates of the second are impossible, those of the fourth are no numbers.
fn case(name: &str, seed: &mut Seed, k: usize, chains: &[&[Stage]], range: f32) -> Case {
    let outputs = chains.len();
    let mut found = Vec::with_capacity(outputs * (2 * k + 1));
    for output in 0..outputs {
        let mut logits = seed.vector(k, range);
        // Of every third some are equal, of either sign of zero.
        if output % 3 == 2 {
            logits.iter_mut().for_each(|logit| *logit = (8.0 * (*logit / range)).round() * (range / 8.0));
        }
        logits.sort_by(|a, b| b.total_cmp(a));
        match output {
            1 => logits[1 + k / 2..].fill(f32::NEG_INFINITY),
            3 => logits.fill(f32::NAN),
            _ => {}
        }
        found.extend((0..k as u32).map(|token| if output == 3 { NOT_A_TOKEN } else { 1000 + token }));
        found.extend(logits.iter().map(|logit| logit.to_bits()));
        found.push(0);
    }
    let mut words = Vec::with_capacity(outputs * CHAIN_WORDS);
    for stages in chains {
        let mut chain = Stages {
            count: stages.len() as u32,
            seed: [seed.bits() as u32, seed.bits() as u32],
            first: seed.below(5) as u32,
            ..Stages::default()
        };
        chain.list[..stages.len()].copy_from_slice(stages);
        words.extend_from_slice(bytemuck::cast_slice(bytemuck::bytes_of(&chain)));
    }
    // The outputs are the rows from the second on, backwards.
    let places: Vec<u32> = (1..=outputs as u32).rev().collect();
    let rows: Vec<[u32; 3]> = (0..=outputs as u32).map(|row| [7, 3 + 5 * row, row]).collect();
    let call = Call { rows: outputs as u32, kv_len: 1 };
    let args = vec![
        Data::U32(found),
        Data::U32(places),
        Data::U32(words),
        made::rows(&rows),
        Data::U32(vec![7; outputs]),
    ];
    let name = format!("{name}, {outputs} of {k} within {range:e}");
    Case::of::<Draw>(name, Params { k: k as u32 }, call, Form::default(), args, Tolerance::EXACT)
}
