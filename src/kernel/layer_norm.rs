//! `y[r, i] = (x[r, i] − m) · g[i] / sqrt(v + ε) + b[i]` with the mean m and the variance v of x[r, :]: layer normalisation
//! (Ba et al. 2016, arXiv 1607.06450).

use bytemuck::{Pod, Zeroable};

use super::{
    Arg, ArgKind, Call, Case, Data, Form, Fragment, Home, KernelId, Needs, Tolerance, Variant, Work, made,
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
pub struct LayerNorm;

impl Home for LayerNorm {
    type Params = Params;
    const ID: KernelId = KernelId::LayerNorm;
    const ARGS: &'static [ArgKind] = &[ArgKind::F32, ArgKind::F32, ArgKind::F32, ArgKind::F32Mut];
    const VARIANTS: &'static [Variant] = &[Variant {
        name: "plain",
        fragments: &[Fragment::Text(include_str!("../../shaders/layer_norm.wgsl"))],
        needs: Needs::NOTHING,
    }];

    fn grid(_p: &Params, call: Call, _variant: &Variant) -> [u32; 3] {
        [call.rows, 1, 1]
    }

    fn twin(p: &Params, call: Call, _form: Form, args: &mut [Arg<'_>]) {
        let [Arg::F32(x), Arg::F32(gain), Arg::F32(bias), Arg::F32Mut(y)] = args else {
            unreachable!("checked by the caller")
        };
        let width = p.width as usize;
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).take(call.rows as usize) {
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / width as f64;
            let squares: f64 = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
            let scale = 1.0 / (squares / width as f64 + f64::from(p.epsilon)).sqrt();
            for (((y, x), gain), bias) in y.iter_mut().zip(x).zip(*gain).zip(*bias) {
                *y = ((f64::from(*x) - mean) * scale * f64::from(*gain) + f64::from(*bias)) as f32;
            }
        }
    }

    fn work(p: &Params, call: Call, _form: Form) -> Work {
        let elements = f64::from(call.rows) * f64::from(p.width);
        Work { bytes: 8.0 * elements + 8.0 * f64::from(p.width), flops: 8.0 * elements }
    }

    fn cases() -> Vec<Case> {
        [(8, 1), (2, 1), (31, 3), (65, 2), (768, 2), (1027, 1)].map(case).into()
    }
}

fn case((width, rows): (usize, usize)) -> Case {
    let mut seed = Seed::new(14);
    let x = made::activations(&mut seed, rows, width, width);
    let (gain, bias) = (seed.vector(width, 2.0), seed.vector(width, 1.0));
    // A thread adds a 64th of a row and then 64 sums, twice. The mean is off by half an ε of the magnitudes for each
    // addition, and so is each difference; no quotient is beyond the root of the width, and its relative error is that
    // of a difference against the deviation, which one outlier of size m makes at least m/√width where there is one.
    let additions = (width.div_ceil(64) + 64) as u32;
    let root = (width as f32).sqrt();
    let deviation = x.chunks_exact(width).map(deviation).fold(f32::INFINITY, f32::min);
    let of_differences = Tolerance::roundings(additions, 2.0 * made::magnitude(&x) / deviation);
    let tolerance = of_differences.and(Tolerance::roundings(10 + additions / 2, 2.0 * root + 1.0));
    let call = Call { rows: rows as u32, kv_len: 1 };
    let y = seed.vector(rows * width, 1.0);
    let args = vec![Data::F32(x), Data::F32(gain), Data::F32(bias), Data::F32(y)];
    let params = Params { width: width as u32, epsilon: 1e-5 };
    Case::of::<LayerNorm>(format!("{rows} × {width}"), params, call, Form::default(), args, tolerance)
}

fn deviation(x: &[f32]) -> f32 {
    let mean = x.iter().sum::<f32>() / x.len() as f32;
    (x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / x.len() as f32).sqrt()
}
