//! `y[r, i] = x[r, i] · g[i] / sqrt(mean(x[r, :]²) + ε)`: root-mean-square normalisation (Zhang and Sennrich 2019,
//! arXiv 1910.07467) with a gain. With the epilogue `Add`, the result is added to y.

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Epilogue, Form, Fragment, Home, KernelId, Needs, Overrides, Tolerance,
    Variant, Work, made,
};
use crate::base::Seed;

/// Immediates after `rows` and `kv_len`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Params {
    /// Elements of a row.
    pub width: u32,
    /// ε.
    pub epsilon: f32,
}

/// The home.
#[derive(Debug)]
pub struct RmsNorm;

impl Home for RmsNorm {
    type Params = Params;
    const ID: KernelId = KernelId::RmsNorm;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::F32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[
        Variant {
            name: "subgroup",
            fragments: &[
                Fragment::Text(include_str!("../../shaders/part/reduce_subgroup.wgsl")),
                Fragment::Text(include_str!("../../shaders/part/each_row.wgsl")),
                Fragment::Epilogue,
                BODY,
            ],
            needs: Needs::SUBGROUP,
        },
        Variant {
            name: "plain",
            fragments: &[
                Fragment::Text(include_str!("../../shaders/part/reduce_plain.wgsl")),
                Fragment::Text(include_str!("../../shaders/part/each_row.wgsl")),
                Fragment::Epilogue,
                BODY,
            ],
            needs: Needs::NOTHING,
        },
    ];

    fn overrides(p: &Params, variant: &Variant) -> Overrides {
        overrides(p, variant)
    }

    fn grid(_p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [call.rows, 1, 1]
    }

    fn twin(p: &Params, call: Call, form: Form, args: &mut [Arg<'_>]) {
        let [Arg::F32(x), Arg::F32(gain), Arg::F32Mut(y)] = args else {
            unreachable!("checked by the caller")
        };
        let width = p.width as usize;
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).take(call.rows as usize) {
            let before = y.to_vec();
            norm(p, x, gain, y);
            if form.epilogue == Some(Epilogue::Add) {
                y.iter_mut().zip(before).for_each(|(y, before)| *y += before);
            }
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let elements = f64::from(call.rows) * f64::from(p.width);
        Work { bytes: 8.0 * elements + 4.0 * f64::from(p.width), flops: 4.0 * elements }
    }

    fn cases() -> Vec<Case> {
        let shapes = [(8, 1), (1, 1), (31, 3), (64, 2), (65, 1), (172, 5), (576, 2), (2048, 1), (4099, 1)];
        let added = [(8, 1), (65, 3), (640, 1)];
        let stored = shapes.map(|shape| case(shape, Epilogue::Store));
        stored.into_iter().chain(added.map(|shape| case(shape, Epilogue::Add))).collect()
    }

    fn probe(p: &Params, form: Form) -> Option<Case> {
        form.epilogue.map(|epilogue| case((p.width as usize, 3), epilogue))
    }
}

/// The body of `rms_norm` and of `pick_norm`, behind `source` and `finish`.
pub(super) const BODY: Fragment = Fragment::Text(include_str!("../../shaders/rms_norm.wgsl"));

/// For `rms_norm` and `pick_norm`: eight elements a thread, so that short rows do not wait for threads without work.
pub(super) fn overrides(p: &Params, variant: &Variant) -> Overrides {
    match variant.name {
        "subgroup" => vec![("WG", f64::from((p.width / 8).next_power_of_two().clamp(32, 256)))],
        _ => Vec::new(),
    }
}

/// The meaning of `rms_norm` for a row.
pub(super) fn norm(p: &Params, x: &[f32], gain: &[f32], y: &mut [f32]) {
    let squares: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let scale = 1.0 / (squares / f64::from(p.width) + f64::from(p.epsilon)).sqrt();
    for ((y, x), gain) in y.iter_mut().zip(x).zip(gain) {
        *y = (f64::from(*x) * scale * f64::from(*gain)) as f32;
    }
}

/// What an error may be for `rows` rows of x.
pub(super) fn tolerance(x: &[f32], width: usize, rows: usize) -> Tolerance {
    let scale = (width as f32).sqrt() / made::largest_norm(x, width, width).max(1e-3);
    let largest = made::magnitude(x) * scale * 2.0 * rows as f32;
    // A thread adds a 64th of the squares and then 64 sums, none negative: at most that many halves of ε, and half of
    // it after the root; WGSL allows the root, the quotient and two products ten more.
    let additions = width.div_ceil(64) + 64;
    Tolerance::roundings(10 + additions as u32 / 4, largest)
}

fn case((width, rows): (usize, usize), epilogue: Epilogue) -> Case {
    let mut seed = Seed::new(2);
    let x = made::activations(&mut seed, rows, width, width);
    let gain = seed.vector(width, 2.0);
    // What is added to is at most 1.
    let tolerance = tolerance(&x, width, rows).and(Tolerance::roundings(1, 1.0));
    let call = Call { rows: rows as u32, kv_len: 1 };
    let args = vec![Data::F32(x), Data::F32(gain), Data::F32(seed.vector(rows * width, 1.0))];
    let params = Params { width: width as u32, epsilon: 1e-5 };
    let form = Form { epilogue: Some(epilogue), ..Form::default() };
    Case::of::<RmsNorm>(format!("{rows} × {width}"), params, call, form, args, tolerance)
}
