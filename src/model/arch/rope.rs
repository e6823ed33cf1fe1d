//! The frequencies of rotary position embeddings as `config.json` has them, with what scales them for long contexts.
//! Source: `modeling_rope_utils.py` of huggingface/transformers; for Llama 3, Meta's `models/llama3/model.py`.

use std::f64::consts::TAU;

use crate::error::{Error, Result};
use crate::format::Config;
use crate::model::{Pairing, Rope};

use super::missing;

/// The base of the frequencies where the file names none.
pub(in crate::model) const BASE: f64 = 10_000.0;

/// The rotary settings of a model: `rope_theta` and `rope_scaling`, or both in `rope_parameters`, as newer writers have
/// it.
pub(super) struct RopeSettings {
    settings: Config,
    base: f64,
    /// Which part of a head turns.
    partial: f64,
    /// Positions of the whole training and of the first, where the latter is named.
    contexts: Option<(u32, u32)>,
}

impl RopeSettings {
    pub(super) fn read(config: &Config) -> Result<Self> {
        let parameters = config.object("rope_parameters")?;
        let settings = parameters.or(config.object("rope_scaling")?).unwrap_or_default();
        Self::of(config, settings, config.float("rope_theta")?)
    }

    /// Where layers of a kind have settings of their own in `rope_parameters`; without them, the base is `base`, and only
    /// layers that are `scaled` heed `rope_scaling`.
    pub(super) fn of_layers(config: &Config, kind: &str, base: f64, scaled: bool) -> Result<Self> {
        let own = config.object("rope_parameters")?.map(|all| all.object(kind)).transpose()?.flatten();
        let scaling = if scaled { config.object("rope_scaling")? } else { None };
        Self::of(config, own.or(scaling).unwrap_or_default(), Some(base))
    }

    fn of(config: &Config, settings: Config, base: Option<f64>) -> Result<Self> {
        let partial = settings.float("partial_rotary_factor")?.or(config.float("partial_rotary_factor")?);
        let key = "original_max_position_embeddings";
        let original = settings.u32(key)?.or(config.u32(key)?);
        Ok(Self {
            base: settings.float("rope_theta")?.or(base).unwrap_or(BASE),
            partial: partial.unwrap_or(1.0),
            contexts: config.u32("max_position_embeddings")?.zip(original),
            settings,
        })
    }

    /// The rotation of whole heads.
    pub(super) fn whole(&self, pairing: Pairing, head_dim: u32) -> Result<Rope> {
        if self.partial != 1.0 {
            return Err(Error::unsupported("rotation of a part of each head is not supported")
                .at("partial_rotary_factor"));
        }
        self.rope(pairing, head_dim)
    }

    /// The rotation of the part of a head that the settings name.
    pub(super) fn part(&self, pairing: Pairing, head_dim: u32) -> Result<Rope> {
        if !(self.partial > 0.0 && self.partial <= 1.0) {
            return Err(Error::bad_file(format!("{} is not a part of a head", self.partial))
                .at("partial_rotary_factor"));
        }
        self.rope(pairing, (f64::from(head_dim) * self.partial) as u32)
    }

    fn rope(&self, pairing: Pairing, dims: u32) -> Result<Rope> {
        let inv_freq = Rope::inv_freq(self.base, dims)?;
        let of = |inv_freq| Rope { dims, pairing, inv_freq, attention_factor: 1.0, long: None };
        let kind = self.settings.text("rope_type")?.or(self.settings.text("type")?).unwrap_or("default");
        Ok(match kind {
            "default" => of(inv_freq),
            "linear" => {
                let factor = required(&self.settings, "factor")?;
                of(inv_freq.iter().map(|freq| freq / factor).collect())
            }
            "llama3" => {
                let scaling = Llama3Scaling::read(&self.settings)?;
                of(inv_freq.iter().map(|freq| scaling.apply(*freq)).collect())
            }
            "longrope" | "su" => self.long_rope(of(inv_freq))?,
            kind => return Err(unknown(kind).at("rope_type")),
        })
    }

    /// LongRoPE (Ding et al. 2024, arXiv 2402.13753): a divisor for each frequency, others where the context is longer
    /// than that of the first training, and longer turns.
    fn long_rope(&self, rope: Rope) -> Result<Rope> {
        let (context, original) = self.contexts.ok_or_else(|| missing("original_max_position_embeddings"))?;
        let factor = self.settings.float("factor")?.unwrap_or(f64::from(context) / f64::from(original));
        let usual = match factor > 1.0 {
            true => (1.0 + factor.ln() / f64::from(original).ln()).sqrt(),
            false => 1.0,
        };
        let divided = |key: &str| {
            let divisors = self.settings.array(key)?.ok_or_else(|| missing(key))?;
            if divisors.len() != rope.inv_freq.len() {
                let what = format!("{} divisors for {} frequencies", divisors.len(), rope.inv_freq.len());
                return Err(Error::bad_file(what).at(key));
            }
            let of_pair = |(freq, divisor): (&f64, &serde_json::Value)| match divisor.as_f64() {
                Some(divisor) => Ok(freq / divisor),
                None => Err(Error::bad_file(format!("{divisor} where a number belongs")).at(key)),
            };
            rope.inv_freq.iter().zip(divisors).map(of_pair).collect::<Result<Vec<f64>>>()
        };
        let (short, long) = (divided("short_factor")?, divided("long_factor")?);
        let attention_factor = self.settings.float("attention_factor")?.unwrap_or(usual) as f32;
        let long = (long != short).then_some((original, long));
        Ok(Rope { inv_freq: short, long, attention_factor, ..rope })
    }
}

/// Slow frequencies divided by `factor`, fast ones kept, those between blended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::model) struct Llama3Scaling {
    pub(in crate::model) factor: f64,
    pub(in crate::model) low: f64,
    pub(in crate::model) high: f64,
    pub(in crate::model) context: f64,
}

impl Llama3Scaling {
    fn read(settings: &Config) -> Result<Self> {
        let scaling = Self {
            factor: required(settings, "factor")?,
            low: required(settings, "low_freq_factor")?,
            high: required(settings, "high_freq_factor")?,
            context: required(settings, "original_max_position_embeddings")?,
        };
        if scaling.high <= scaling.low {
            return Err(Error::bad_file(format!(
                "{} is not above low_freq_factor, {}",
                scaling.high, scaling.low
            ))
            .at("high_freq_factor"));
        }
        Ok(scaling)
    }

    /// The frequency, scaled.
    pub(in crate::model) fn apply(&self, freq: f64) -> f64 {
        // How often the original context holds the wavelength.
        let turns = self.context * freq / TAU;
        let keep = ((turns - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        (1.0 - keep) * freq / self.factor + keep * freq
    }
}

/// The error for a scaling that is not there.
pub(super) fn unknown(kind: &str) -> Error {
    Error::unsupported(format!("the rotary scaling {kind:?} is not supported"))
        .hint("supported are linear, that of Llama 3 and LongRoPE")
}

fn required(settings: &Config, key: &str) -> Result<f64> {
    settings.float(key)?.ok_or_else(|| missing(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings of Llama 3.2 at the edges of the three ranges.
    #[test]
    fn llama_3_keeps_fast_frequencies_and_divides_slow_ones() {
        let scaling = Llama3Scaling { factor: 32.0, low: 1.0, high: 4.0, context: 8192.0 };
        let of_wavelength = |wavelength: f64| TAU / wavelength;
        for (wavelength, factor) in [(100.0, 1.0), (2048.0, 1.0), (8192.0, 1.0 / 32.0), (1e6, 1.0 / 32.0)] {
            let freq = of_wavelength(wavelength);
            assert!((scaling.apply(freq) / freq - factor).abs() < 1e-12, "{wavelength}");
        }
        // Two turns in the context: a third of the way from low to high.
        let freq = of_wavelength(4096.0);
        assert!((scaling.apply(freq) / freq - (1.0 / 3.0 + 2.0 / 3.0 / 32.0)).abs() < 1e-12);
    }
}
