//! Rotary frequencies as settings say them: a base, and divisors of what follows from it.

use crate::error::Result;
use crate::model::Rope;
use crate::model::arch::rope::{BASE, Llama3Scaling};

/// How far apart two frequencies may be, relatively, and be the same. Tensors of divisors are f32, and converters compute
/// them in f32: a power of the base, off by the logarithm of the base times its rounding, ends in the blend of Llama 3,
/// whose divisor is at most 31 times as sensitive.
pub(super) const SAME_FREQUENCY: f64 = 1.0 / 65536.0;
/// The same for numbers that have been through a few operations in f64.
const SAME_F64: f64 = 1e-12;

/// The published factors of Llama 3's scaling (3.1, and the small models of 3.2); its other numbers are always the same.
const LLAMA_3_FACTORS: [f64; 2] = [8.0, 32.0];

/// What frequencies are divided by.
#[derive(Debug, PartialEq)]
pub(super) enum Divisors {
    /// Nothing.
    None,
    /// All by the same.
    Linear(f64),
    /// As Llama 3 does; `list` are the divisors.
    Llama3 { scaling: Llama3Scaling, list: Vec<f64> },
    /// Each by its own.
    List(Vec<f64>),
    /// Each by its own, others where the context is longer than this.
    Long { short: Vec<f64>, long: Vec<f64>, above: u32 },
}

/// The base and the divisors that give the frequencies of `rope`.
///
/// The base is in the ratio of the first two frequencies, which the usual scalings keep; where they do not, it is
/// another one, and the divisors make up for it.
pub(super) fn settings(rope: &Rope) -> Result<(f64, Divisors)> {
    let base = base(rope);
    let plain = Rope::inv_freq(base, rope.dims)?;
    let divisors_of = |freqs: &[f64]| plain.iter().zip(freqs).map(|(plain, freq)| plain / freq).collect();
    let short: Vec<f64> = divisors_of(&rope.inv_freq);
    if let Some((above, long)) = &rope.long {
        return Ok((base, Divisors::Long { short, long: divisors_of(long), above: *above }));
    }
    let first = short.first().copied().unwrap_or(1.0);
    let scalings =
        LLAMA_3_FACTORS.map(|factor| Llama3Scaling { factor, low: 1.0, high: 4.0, context: 8192.0 });
    let gives = |scaling: &Llama3Scaling| {
        plain
            .iter()
            .zip(&rope.inv_freq)
            .all(|(plain, freq)| near(scaling.apply(*plain), *freq, SAME_FREQUENCY))
    };
    Ok((
        base,
        match scalings.into_iter().find(gives) {
            _ if short.iter().all(|divisor| near(*divisor, 1.0, SAME_F64)) => Divisors::None,
            _ if short.iter().all(|divisor| near(*divisor, first, SAME_F64)) => {
                Divisors::Linear(short_number(first))
            }
            Some(scaling) => Divisors::Llama3 { scaling, list: short },
            None => Divisors::List(short),
        },
    ))
}

fn base(rope: &Rope) -> f64 {
    match rope.inv_freq[..] {
        [first, second, ..] => short_number((first / second).powf(f64::from(rope.dims) / 2.0)),
        _ => BASE,
    }
}

/// The f32 that `value` was before it went through a few operations, if it was one.
fn short_number(value: f64) -> f64 {
    let short = f64::from(value as f32);
    if near(short, value, SAME_F64) { short } else { value }
}

/// Whether two numbers differ by at most the share `by`.
pub(super) fn near(a: f64, b: f64, by: f64) -> bool {
    (a - b).abs() <= by * b.abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Pairing;

    fn rope(base: f64, dims: u32, divisor: impl Fn(usize, f64) -> f64) -> Rope {
        let plain = Rope::inv_freq(base, dims).unwrap();
        let inv_freq = plain.iter().enumerate().map(|(at, freq)| freq / divisor(at, *freq)).collect();
        Rope { dims, pairing: Pairing::HalfSplit, inv_freq, attention_factor: 1.0, long: None }
    }

    #[test]
    fn the_base_is_found_again() {
        for base in [100.0, 1e4, 5e5, 1e6, 8e6, 1e9] {
            for dims in [4, 6, 64, 80, 128, 256] {
                assert_eq!(
                    settings(&rope(base, dims, |_, _| 1.0)).unwrap(),
                    (base, Divisors::None),
                    "{dims}"
                );
            }
            assert_eq!(settings(&rope(base, 64, |_, _| 4.0)).unwrap(), (base, Divisors::Linear(4.0)));
        }
        assert_eq!(
            settings(&rope(5e5, 2, |_, _| 1.0)).unwrap(),
            (BASE, Divisors::None),
            "the one frequency is 1"
        );
    }

    #[test]
    fn llama_3_is_known_by_its_frequencies_and_nothing_else_is() {
        for factor in LLAMA_3_FACTORS {
            let scaling = Llama3Scaling { factor, low: 1.0, high: 4.0, context: 8192.0 };
            // Through a tensor of f32.
            let rope = rope(5e5, 64, |_, freq| f64::from((freq / scaling.apply(freq)) as f32));
            let (base, divisors) = settings(&rope).unwrap();
            assert_eq!(base, 5e5);
            assert!(matches!(divisors, Divisors::Llama3 { scaling, .. } if scaling.factor == factor));
        }
        let other = Llama3Scaling { factor: 16.0, low: 1.0, high: 4.0, context: 8192.0 };
        let (_, divisors) = settings(&rope(5e5, 64, |_, freq| freq / other.apply(freq))).unwrap();
        assert!(matches!(divisors, Divisors::List(_)));
        let (_, divisors) = settings(&rope(100.0, 8, |at, _| 1.0 + at as f64)).unwrap();
        let Divisors::List(list) = divisors else { panic!("{divisors:?}") };
        assert_eq!(list.len(), 4);
    }
}
