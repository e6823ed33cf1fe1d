//! `token[o] = argmaxⱼ logits[o, j]`, the smallest j where several are equal; logits that hold NaN, or whose largest is not
//! finite, give [`NOT_A_TOKEN`], which no vocabulary reaches.
//!
//! The token is fed back: the row of the output becomes the next row of its sequence, so that decoding can go on before
//! the host has seen the token.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, Needs, ROW_WORDS, Tolerance, Variant,
    Work, made,
};
use crate::base::Seed;

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Logits of a row.
    pub width: u32,
}

/// The home.
#[derive(Debug)]
pub struct Argmax;

impl Home for Argmax {
    type Params = Params;
    const ID: KernelId = KernelId::Argmax;
    /// Logits, the rows of the outputs, rows, tokens.
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::U32, ArgKind::U32Mut, ArgKind::U32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[
            Fragment::Text(include_str!("../../shaders/part/order.wgsl")),
            Fragment::Text(include_str!("../../shaders/argmax.wgsl")),
        ],
        needs: Needs::NOTHING,
    }];

    fn grid(_p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [call.rows, 1, 1]
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::F32(logits), Arg::U32(outputs), Arg::U32Mut(rows), Arg::U32Mut(tokens)] = args else {
            unreachable!("checked by the caller")
        };
        for (logits, token) in
            logits.chunks_exact(p.width as usize).zip(tokens.iter_mut()).take(call.rows as usize)
        {
            let best = |best: u32, j: u32| if logits[j as usize] > logits[best as usize] { j } else { best };
            let largest = (0..p.width).fold(0, best);
            let is_number =
                logits[largest as usize].is_finite() && !logits.iter().any(|logit| logit.is_nan());
            *token = if is_number { largest } else { NOT_A_TOKEN };
        }
        feed(rows, &outputs[..call.rows as usize], tokens);
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let elements = f64::from(call.rows) * f64::from(p.width);
        Work { bytes: 4.0 * elements, flops: elements }
    }

    fn cases() -> Vec<Case> {
        let mut seed = Seed::new(10);
        let mut coarse = |rows: usize, width: usize| -> Vec<Vec<f32>> {
            (0..rows).map(|_| seed.vector(width, 4.0).iter().map(|logit| logit.round()).collect()).collect()
        };
        let mut cases: Vec<_> = [(1, 5), (3, 1), (2, 255), (1, 256), (2, 257), (3, 1000)]
            .map(|(r, w)| case("ties", &coarse(r, w)))
            .into();
        let mut fine = |width: usize| seed.vector(width, 9.0);
        cases.push(case("a vocabulary", &[fine(49152)]));
        let with = |width, at: &[(usize, f32)], rest: f32| {
            let mut row = vec![rest; width];
            at.iter().for_each(|&(at, logit)| row[at] = logit);
            row
        };
        cases.push(case(
            "zeros of either sign",
            &[with(600, &[(7, -0.0), (300, 0.0)], -1.0), with(600, &[(300, -0.0)], 0.0)],
        ));
        cases.push(case(
            "subnormals",
            &[with(300, &[(299, 1e-44)], 0.0), with(300, &[(299, -1e-45)], -1e-44)],
        ));
        let inf = f32::INFINITY;
        cases.push(case("infinities", &[vec![-inf; 300], with(300, &[(256, inf), (299, inf)], 3.0)]));
        cases.push(case("masked", &[with(300, &[(299, -9.0)], -inf), with(300, &[(0, -inf)], f32::MAX)]));
        let nan = f32::NAN;
        cases.push(case(
            "NaN",
            &[with(300, &[(299, nan)], 1.0), with(300, &[(0, -nan), (9, inf)], 1.0), vec![1.0; 300]],
        ));
        cases
    }

    fn probe(p: &Params, _form: Form) -> Option<Case> {
        let mut seed = Seed::new(10);
        let rows = [(); 2].map(|()| seed.vector(p.width.min(4096) as usize, 9.0));
        Some(case("a vocabulary", &rows))
    }
}

/// Makes the row of each output the next of its sequence.
pub fn feed(rows: &mut [u32], outputs: &[u32], tokens: &[u32]) {
    for (&row, &token) in outputs.iter().zip(tokens) {
        let row = &mut rows[row as usize * ROW_WORDS..][..ROW_WORDS];
        row[0] = token;
        row[1] = row[1].wrapping_add(1);
    }
}

/// What stands for a token where nothing can be picked from the logits.
pub const NOT_A_TOKEN: u32 = u32::MAX;

fn case(name: &str, rows: &[Vec<f32>]) -> Case {
    let width = rows[0].len();
    let call = Call { rows: rows.len() as u32, kv_len: 1 };
    // The outputs are the rows from the second on, backwards.
    let outputs: Vec<u32> = (1..=call.rows).rev().collect();
    let fed: Vec<[u32; 3]> = (0..=call.rows).map(|row| [9, 5 * row, row]).collect();
    let args =
        vec![Data::F32(rows.concat()), Data::U32(outputs), made::rows(&fed), Data::U32(vec![7; rows.len()])];
    let params = Params { width: width as u32 };
    Case::of::<Argmax>(
        format!("{name}, {} × {width}", rows.len()),
        params,
        call,
        Form::default(),
        args,
        Tolerance::EXACT,
    )
}
