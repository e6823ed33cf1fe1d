//! Scales and codes for encoding: the value of a code, not the code of a value, is what must come out near, so
//! codes are always chosen against the scale as it will be stored.
//!
//! A scale is searched: for each of some candidates the codes are chosen, the scale that fits these codes best follows
//! by least squares, and so does its error in closed form; the least error wins. Errors are weighed
//! ([`error_weights`]), since large weights, and those that meet large activations, matter more.

use half::f16;

/// The longest block.
const LONGEST: usize = 256;

/// How much the squared error of each element counts: its importance, such as the mean square of the activations that
/// it is multiplied by (one where `importance` is empty), times √(σ² + x²), σ² the mean square of the values.
pub(super) fn error_weights(values: &[f32], importance: &[f32]) -> [f32; LONGEST] {
    let mean = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>() / values.len() as f64;
    let mut weights = [1.0; LONGEST];
    if mean > 0.0 {
        for (weight, &v) in weights.iter_mut().zip(values) {
            *weight = (1.0 + f64::from(v) * f64::from(v) / mean).sqrt() as f32;
        }
    }
    weights.iter_mut().zip(importance).for_each(|(weight, importance)| *weight *= importance);
    weights
}

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
    let Affine { scale, min } = Affine::of((values, &error_weights(values, &[]), last));
    // Half the codes times the greatest scale are still finite.
    let scale = scale.min(f32::MAX / last * 1.99);
    // Where all values are one, it is that of code 0.
    if scale > 0.0 { (scale, min / scale) } else { (min, 1.0) }
}

/// 1/d, or 0 where a block is all zero.
pub(super) fn inverse(d: f32) -> f32 {
    let inverse = 1.0 / d;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// The nearest whole number from `least` to `most`, which are below 2²²: 1.5·2²³ leaves no fraction bits.
pub(super) fn whole(v: f32, least: f32, most: f32) -> f32 {
    v.clamp(least, most) + 12_582_912.0 - 12_582_912.0
}

/// The nearest code in 0..=`last` for w = (q − `zero`)·d.
pub(super) fn codes_around(d: f32, zero: f32, last: f32) -> impl Fn(f32) -> u8 {
    let inverse = inverse(d);
    move |v| whole(v * inverse + zero, 0.0, last) as u8
}

/// The nearest code in 0..=`last` for w = q·d + m.
pub(super) fn codes_above(d: f32, m: f32, last: f32) -> impl Fn(f32) -> u8 {
    let inverse = inverse(d);
    move |v| whole((v - m) * inverse, 0.0, last) as u8
}

/// Scales tried, as shares of the one that maps the extreme to the last code: a little clipping of the extreme is often
/// paid back by the finer steps of all others, the more so the fewer codes there are.
const SHARES: [f32; 15] =
    [1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.82, 0.79, 0.76, 0.73, 1.03, 1.06, 1.09, 1.12, 1.15];

/// The same for four levels and fewer.
const WIDE_SHARES: [f32; 15] =
    [1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3];

/// The least share where calibration weighs the errors of whole blocks: it knows how large inputs are, not which come
/// together, and would clip the weights of quiet ones further than the outputs bear. Measured on Q4_0 and Q5_0
/// (docs/formats.md); formats with groups in their blocks or with uneven levels gain from all shares.
const LEAST_SHARE_WEIGHED: f32 = 0.9;

/// The scale of w ≈ scale·level, where `level` gives the nearest level to w/scale, and `ends` are the least and the
/// greatest level (0 where none is on that side). Not finite only where the values are not.
pub(super) fn level_scale(
    values: &[f32],
    weights: &[f32],
    ends: [f32; 2],
    level: impl Fn(f32) -> f32,
) -> f32 {
    scale_from(0.0, values, weights, ends, level)
}

/// The same with no share below `least`.
fn scale_from(
    least: f32,
    values: &[f32],
    weights: &[f32],
    ends: [f32; 2],
    level: impl Fn(f32) -> f32,
) -> f32 {
    let extreme = extreme(values);
    let shares = if ends[1] - ends[0] < 4.0 { WIDE_SHARES } else { SHARES };
    let mut best = (0.0, 0.0);
    for end in ends.into_iter().filter(|end| *end != 0.0) {
        for share in shares.into_iter().filter(|share| *share >= least) {
            let inverse = inverse(extreme / end * share);
            let (mut products, mut squares) = (0.0f32, 0.0f32);
            for (&v, &weight) in values.iter().zip(weights) {
                let level = level(v * inverse);
                products += weight * v * level;
                squares += weight * level * level;
            }
            // What of Σ w·v² the best scale for these levels explains.
            let gain = if squares > 0.0 { products / squares * products } else { 0.0 };
            if gain > best.0 {
                best = (gain, products / squares);
            }
        }
    }
    if best.0 > 0.0 { best.1 } else { extreme / if ends[0] == 0.0 { ends[1] } else { ends[0] } }
}

/// The scale of w ≈ scale·(q − `zero`), q in 0..2·`zero`.
pub(super) fn symmetric_scale(values: &[f32], weights: &[f32], zero: f32) -> f32 {
    level_scale(values, weights, [-zero, zero - 1.0], |v| whole(v, -zero, zero - 1.0))
}

/// The same of a block for which an `importance` may be known.
pub(super) fn block_scale(values: &[f32], importance: &[f32], zero: f32) -> f32 {
    let weights = error_weights(values, importance);
    let least = if importance.is_empty() { 0.0 } else { LEAST_SHARE_WEIGHED };
    scale_from(least, values, &weights, [-zero, zero - 1.0], |v| whole(v, -zero, zero - 1.0))
}

/// Σ w·(v − scale·q)² with the nearest whole q in −`zero`..`zero`.
pub(super) fn symmetric_error(values: &[f32], weights: &[f32], scale: f32, zero: f32) -> f32 {
    level_error(values, weights, scale, |v| whole(v, -zero, zero - 1.0))
}

/// Of the codes `least ..= most` near `near`, the one whose scale d·code errs least, where `error` says how much.
pub(super) fn scale_code(near: f32, least: f32, most: f32, error: impl Fn(f32) -> f32) -> f32 {
    let near = whole(near, least, most);
    let codes = [near, near - 1.0, near + 1.0].into_iter().filter(|code| (least..=most).contains(code));
    let errors = codes.map(|code| (error(code), code));
    errors.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(near, |(_, code)| code)
}

/// Σ w·(v − scale·level)², where `level` gives the nearest level.
pub(super) fn level_error(values: &[f32], weights: &[f32], scale: f32, level: impl Fn(f32) -> f32) -> f32 {
    let inverse = inverse(scale);
    let error = |(&v, &weight): (&f32, &f32)| {
        let error = v - scale * level(v * inverse);
        weight * error * error
    };
    values.iter().zip(weights).map(error).sum()
}

/// w ≈ scale·q − min with q in 0..=last and a scale that is not negative.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Affine {
    pub(super) scale: f32,
    pub(super) min: f32,
}

/// Values, how much their errors count, and the last code.
type Group<'a> = (&'a [f32], &'a [f32], f32);

/// The sums that a least squares fit to codes follows from.
#[derive(Default)]
struct Sums {
    one: f32,
    q: f32,
    v: f32,
    qq: f32,
    qv: f32,
    vv: f32,
}

impl Affine {
    /// The best with a minimum that is not negative.
    pub(super) fn of(group: Group<'_>) -> Self {
        let (least, most) = range(group.0);
        Self::between(least.min(0.0), most.max(0.0), group, Sums::fit_below)
    }

    /// The best with any minimum.
    pub(super) fn free(group: Group<'_>) -> Self {
        let (least, most) = range(group.0);
        Self::between(least, most, group, Sums::fit)
    }

    /// The best of those that `fit` finds for the codes of scales around the one from `least` to `most`.
    fn between(least: f32, most: f32, group: Group<'_>, fit: impl Fn(&Sums) -> Option<Self>) -> Self {
        let first = Self { scale: most / group.2 - least / group.2, min: -least };
        if first.scale == 0.0 {
            return first;
        }
        let mut best = (first.error(group), first);
        for share in SHARES {
            let sums = Sums::of(Self { scale: first.scale * share, ..first }, group);
            if let Some(fit) = fit(&sums) {
                let error = sums.error(fit);
                if error < best.0 {
                    best = (error, fit);
                }
            }
        }
        best.1
    }

    /// The weighted squared error with the nearest codes.
    fn error(self, (values, weights, last): Group<'_>) -> f32 {
        let inverse = inverse(self.scale);
        let error = |(&v, &weight): (&f32, &f32)| {
            let q = whole((v + self.min) * inverse, 0.0, last);
            let error = self.scale * q - self.min - v;
            weight * error * error
        };
        values.iter().zip(weights).map(error).sum()
    }

    /// The whole numbers up to `most` by which `d` and `dmin` give the least error near `self`, and what they give.
    pub(super) fn rounded(self, group: Group<'_>, (d, dmin, most): (f32, f32, f32)) -> (u8, u8) {
        let near = |v: f32| {
            let near = whole(v, 0.0, most);
            [near, near - 1.0, near + 1.0].into_iter().filter(move |code| (0.0..=most).contains(code))
        };
        let mut best = (f32::INFINITY, (0.0, 0.0));
        for scale in near(self.scale * inverse(d)) {
            for min in near(self.min * inverse(dmin)) {
                let error = Self { scale: d * scale, min: dmin * min }.error(group);
                if error < best.0 {
                    best = (error, (scale, min));
                }
            }
        }
        (best.1.0 as u8, best.1.1 as u8)
    }
}

impl Sums {
    fn of(Affine { scale, min }: Affine, (values, weights, last): Group<'_>) -> Self {
        let inverse = inverse(scale);
        let mut sums = Self::default();
        for (&v, &weight) in values.iter().zip(weights) {
            let q = whole((v + min) * inverse, 0.0, last);
            sums.one += weight;
            sums.q += weight * q;
            sums.v += weight * v;
            sums.qq += weight * q * q;
            sums.qv += weight * q * v;
            sums.vv += weight * v * v;
        }
        sums
    }

    /// The best fit, where its scale is positive.
    fn fit(&self) -> Option<Affine> {
        let determinant = self.one * self.qq - self.q * self.q;
        let scale = (self.one * self.qv - self.q * self.v) / determinant;
        let min = (self.q * self.qv - self.qq * self.v) / determinant;
        (determinant > 0.0 && scale > 0.0).then_some(Affine { scale, min })
    }

    /// The best fit whose minimum is not negative.
    fn fit_below(&self) -> Option<Affine> {
        let through_zero = || {
            let scale = self.qv / self.qq;
            (scale > 0.0).then_some(Affine { scale, min: 0.0 })
        };
        self.fit().filter(|fit| fit.min >= 0.0).or_else(through_zero)
    }

    /// Σ w·(scale·q − min − v)².
    fn error(&self, Affine { scale, min }: Affine) -> f32 {
        scale * scale * self.qq + min * min * self.one + self.vv
            - 2.0 * (scale * min * self.q + scale * self.qv - min * self.v)
    }
}
