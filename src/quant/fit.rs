//! Scales and codes for encoding: the value of a code, not the code of a value, is what must come out near, so
//! codes are always chosen against the scale as it will be stored.

use half::f16;

/// The nearest finite f16.
pub(super) fn nearest_f16(v: f32) -> f16 {
    f16::from_f32(v.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()))
}

/// The value of the largest magnitude, with its sign.
pub(super) fn extreme(values: &[f32]) -> f32 {
    values.iter().fold(0.0f32, |extreme, &v| if v.abs() > extreme.abs() { v } else { extreme })
}

/// The least and the greatest value.
pub(super) fn range(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(least, most), &v| (least.min(v), most.max(v)))
}

/// s and z of w = (q − z)·s with codes 0..=`last`.
pub(super) fn scale_and_zero(values: &[f32], last: f32) -> (f32, f32) {
    let Affine { scale, min } = Affine::of(values, last);
    // Half the codes times the greatest scale are still finite.
    let scale = scale.min(f32::MAX / last * 1.99);
    // Where all values are one, it is that of code 0.
    if scale > 0.0 { (scale, min / scale) } else { (min, 1.0) }
}

/// 1/d, or 0 where a block is all zero.
pub(super) fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The nearest code in 0..=`last` for w = (q − `zero`)·d.
pub(super) fn codes_around(d: f32, zero: f32, last: f32) -> impl Fn(f32) -> u8 {
    let inverse = inverse(d);
    move |v| (v * inverse + zero).round().clamp(0.0, last) as u8
}

/// The nearest code in 0..=`last` for w = q·d + m.
pub(super) fn codes_above(d: f32, m: f32, last: f32) -> impl Fn(f32) -> u8 {
    let inverse = inverse(d);
    move |v| ((v - m) * inverse).round().clamp(0.0, last) as u8
}

/// Scales tried around the one that maps the extreme to the last code, as shares of it: a little clipping of
/// the extreme is often paid back by the finer steps of all others.
const SHARES: [f32; 9] = [1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 1.03, 1.06, 1.09];

/// w ≈ scale·q − min with q in 0..=last and both parts not negative.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Affine {
    pub(super) scale: f32,
    pub(super) min: f32,
}

impl Affine {
    /// The best of a few candidates by squared error, each refined by least squares on its codes.
    pub(super) fn of(values: &[f32], last: f32) -> Self {
        let (least, most) = range(values);
        let least = least.min(0.0);
        let first = Self { scale: (most / last - least / last).max(0.0), min: -least };
        if first.scale == 0.0 {
            return first;
        }
        let candidates = SHARES.iter().flat_map(|share| {
            let rough = Self { scale: first.scale * share, min: first.min };
            [rough, rough.refined(values, last)]
        });
        best(candidates, |fit| {
            let code = codes_above(fit.scale, -fit.min, last);
            values.iter().map(|&v| square(fit.scale * f32::from(code(v)) - fit.min - v)).sum()
        })
        .unwrap_or(first)
    }

    /// The least squares fit to the codes that `self` gives.
    fn refined(self, values: &[f32], last: f32) -> Self {
        let code = codes_above(self.scale, -self.min, last);
        let n = values.len() as f64;
        let (mut q_sum, mut v_sum, mut qq_sum, mut qv_sum) = (0.0, 0.0, 0.0, 0.0);
        for &v in values {
            let (q, v) = (f64::from(code(v)), f64::from(v));
            q_sum += q;
            v_sum += v;
            qq_sum += q * q;
            qv_sum += q * v;
        }
        let determinant = n * qq_sum - q_sum * q_sum;
        let (scale, offset) = if determinant > 0.0 {
            let scale = (n * qv_sum - q_sum * v_sum) / determinant;
            (scale, (v_sum - scale * q_sum) / n)
        } else {
            return self;
        };
        if scale > 0.0 && offset <= 0.0 {
            Self { scale: scale as f32, min: -offset as f32 }
        } else if qq_sum > 0.0 && qv_sum > 0.0 {
            Self { scale: (qv_sum / qq_sum) as f32, min: 0.0 }
        } else {
            self
        }
    }
}

/// The scale of w ≈ scale·(q − `zero`), q in 0..2·`zero`: the best of a few candidates by squared error, each
/// refined by least squares on its codes.
pub(super) fn symmetric_scale(values: &[f32], zero: f32) -> f32 {
    let first = extreme(values) / -zero;
    let last = 2.0 * zero - 1.0;
    let candidates = SHARES.iter().flat_map(|share| {
        let rough = first * share;
        let code = codes_around(rough, zero, last);
        let (mut qq_sum, mut qv_sum) = (0.0, 0.0);
        for &v in values {
            let q = f64::from(code(v)) - f64::from(zero);
            qq_sum += q * q;
            qv_sum += q * f64::from(v);
        }
        [rough, if qq_sum > 0.0 { (qv_sum / qq_sum) as f32 } else { rough }]
    });
    best(candidates, |&scale| {
        let code = codes_around(scale, zero, last);
        values.iter().map(|&v| square(scale * (f32::from(code(v)) - zero) - v)).sum()
    })
    .unwrap_or(first)
}

fn square(v: f32) -> f64 {
    f64::from(v) * f64::from(v)
}

/// The candidate of the least error, the first of equals.
fn best<T>(candidates: impl Iterator<Item = T>, error: impl Fn(&T) -> f64) -> Option<T> {
    candidates.map(|fit| (error(&fit), fit)).min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, fit)| fit)
}
