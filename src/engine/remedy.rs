//! What would fit where a model does not: the same model with less of one thing, and at last with less of everything.

use std::fmt;

use crate::backend::{Caps, Footprint};
use crate::error::Result;
use crate::kernel::{KvType, PAGE};
use crate::model::{Blueprint, LowerOptions, Lowered, Weights, outline};
use crate::plan::{Item, Store};
use crate::quant::Format;

use super::estimate::{Budget, Bytes, Estimate, Verdict};
use super::load::{choose, most_pages};
use super::options::{EngineOptions, LoadOptions};

/// The formats that a model may be quantized to, from near to the original to small.
const FORMATS: [Format; 6] =
    [Format::Q8_0, Format::Q6_K, Format::Q5_K, Format::Q4_K, Format::Q3_K, Format::Q2_K];
/// The smallest choices that are worth proposing.
const LEAST: Choice = Choice { kv: KvType::Q4, context: 512, sessions: 1, prefill: 32, outputs: 1 };

/// Choices with which a model fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// How keys and values are stored.
    pub kv_type: KvType,
    /// Positions of a session.
    pub context: u32,
    /// Sessions with keys and values at the same time.
    pub sessions: u32,
    /// The most tokens of a prompt that are computed at once.
    pub prefill: u32,
    /// The most rows of logits that are computed at once.
    pub outputs: u32,
    /// The format that the model would have to be quantized to.
    pub format: Option<Format>,
    /// What it takes then at most, in bytes.
    pub peak: u64,
}

/// A model that is asked about.
pub(super) struct Subject<'a> {
    pub(super) blueprint: &'a Blueprint,
    pub(super) weights: &'a Weights,
    pub(super) engine: &'a EngineOptions,
    pub(super) caps: &'a Caps,
    /// Bytes of the tokenizer.
    pub(super) vocabulary: u64,
    pub(super) budget: Budget,
}

/// What an app may ask for less of.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Choice {
    kv: KvType,
    context: u32,
    sessions: u32,
    prefill: u32,
    outputs: u32,
}

impl Subject<'_> {
    /// What it takes with these choices, and what would fit.
    pub(super) fn estimate(&self, options: &LoadOptions) -> Result<Estimate> {
        let asked = self.asked(options)?;
        let estimate = self.tried(options, asked, None)?;
        let caches = choose(self.blueprint, self.engine, options)?.caches;
        let most_sessions = caches.iter().map(|cache| cache.sequences).max().unwrap_or(asked.sessions);
        let addressed = (most_pages(self.blueprint) / most_sessions).saturating_mul(PAGE);
        let largest_context = largest(PAGE, self.blueprint.context.min(addressed), |context| {
            Ok(self.tried(options, Choice { context, ..asked }, None)?.fits())
        })?;
        let remedies = match estimate.fits() {
            true => Vec::new(),
            false => self.remedies(options, asked, largest_context)?,
        };
        Ok(Estimate { largest_context, remedies, ..estimate })
    }

    /// What it takes with these choices.
    ///
    /// # Errors
    /// `OutOfMemory` where that does not fit, with what would.
    pub(super) fn admit(&self, options: &LoadOptions) -> Result<Estimate> {
        let estimate = self.tried(options, self.asked(options)?, None)?;
        if !estimate.fits() {
            self.estimate(options)?.check()?;
        }
        if estimate.verdict == Verdict::Tight {
            log::warn!("the model takes more memory than is free now: others have to make room");
        }
        Ok(estimate)
    }

    fn asked(&self, options: &LoadOptions) -> Result<Choice> {
        let chosen = choose(self.blueprint, self.engine, options)?;
        let &LoadOptions { sessions, prefill, outputs, .. } = options;
        Ok(Choice { kv: chosen.caches[0].kv, context: chosen.context, sessions, prefill, outputs })
    }

    /// The first of each way to ask for less that fits.
    fn remedies(&self, options: &LoadOptions, asked: Choice, longest: Option<u32>) -> Result<Vec<Remedy>> {
        let less = |most: u32| (1..32).map(move |shift| most >> shift).take_while(|&less| less > 0);
        let plain =
            |choices: Vec<Choice>| choices.into_iter().map(|choice| (choice, None)).collect::<Vec<_>>();
        // Fewer bits than were asked for, but where the numbers are to be exact.
        let fewer = KvType::BLOCKS.iter().filter(|kv| !self.engine.exact && **kv > asked.kv);
        let least = Choice {
            kv: if self.engine.exact { asked.kv } else { LEAST.kv },
            context: LEAST.context.min(asked.context),
            prefill: LEAST.prefill.min(asked.prefill),
            ..LEAST
        };
        let context =
            longest.filter(|&context| context >= least.context).map(|context| context.min(asked.context));
        let single = [
            plain(fewer.map(|&kv| Choice { kv, ..asked }).collect()),
            plain(context.map(|context| Choice { context, ..asked }).into_iter().collect()),
            plain(less(asked.sessions).map(|sessions| Choice { sessions, ..asked }).collect()),
            plain(less(asked.prefill).map(|prefill| Choice { prefill, ..asked }).collect()),
            plain(less(asked.outputs).map(|outputs| Choice { outputs, ..asked }).collect()),
            FORMATS.map(|format| (asked, Some(format))).to_vec(),
        ];
        let mut remedies = Vec::new();
        for way in single {
            remedies.extend(self.first(options, &way)?);
        }
        if remedies.is_empty() {
            let formats = [None].into_iter().chain(FORMATS.map(Some));
            let all: Vec<_> = formats.map(|format| (least, format)).collect();
            remedies.extend(self.first(options, &all)?);
        }
        Ok(remedies)
    }

    /// The first that fits.
    fn first(&self, options: &LoadOptions, ways: &[(Choice, Option<Format>)]) -> Result<Option<Remedy>> {
        for &(choice, format) in ways {
            let estimate = self.tried(options, choice, format)?;
            if estimate.fits() {
                let Choice { kv: kv_type, context, sessions, prefill, outputs } = choice;
                let peak = estimate.peak();
                return Ok(Some(Remedy { kv_type, context, sessions, prefill, outputs, format, peak }));
            }
        }
        Ok(None)
    }

    /// What it takes with another choice, and with the matrices in another format.
    fn tried(&self, options: &LoadOptions, choice: Choice, format: Option<Format>) -> Result<Estimate> {
        let lowered = self.outline(options, choice)?;
        let estimate = Estimate::of(&lowered, self.caps, self.vocabulary);
        let Blueprint { name, context, .. } = self.blueprint;
        let estimate =
            Estimate { name: name.clone(), trained_context: *context, ..estimate }.judged(self.budget);
        let Some(format) = format else { return Ok(estimate) };
        let (was, is) = self.weights_in(&lowered.store, format);
        let weights = (estimate.weights - was.held).saturating_add(is);
        Ok(Estimate { weights, mapped: estimate.mapped - was.mapped, ..estimate }.judged(self.budget))
    }

    fn outline(&self, options: &LoadOptions, choice: Choice) -> Result<Lowered> {
        let Choice { kv, context, sessions, prefill, outputs } = choice;
        let kv_type = Some(kv);
        let options =
            LoadOptions { kv_type, context: Some(context), sessions, prefill, outputs, ..options.clone() };
        let Caps { max_matrix_bytes, fuses: fused, .. } = *self.caps;
        let chosen = choose(self.blueprint, self.engine, &options)?;
        outline(self.blueprint, self.weights, LowerOptions { max_matrix_bytes, fused, ..chosen })
    }

    /// What the matrices take, and the bytes that they would take in `format` where that is smaller.
    fn weights_in(&self, store: &Store, format: Format) -> (Footprint, u64) {
        let order = self.caps.order;
        let (mut was, mut is) = (Footprint::default(), 0u64);
        for (_, item) in store.items() {
            let Item::Matrix(matrix) = item else { continue };
            let cols = matrix.cols() as u64;
            let is_table = matrix.rows() >= self.blueprint.vocab as usize;
            let to = if is_table { format.for_vocabulary(cols) } else { format.for_columns(cols) };
            let footprint = order.item(item);
            let quantized = order.weights(to, matrix.rows(), matrix.cols());
            was = was.and(footprint);
            is = is.saturating_add(quantized.min(footprint.held + footprint.mapped));
        }
        (was, is)
    }
}

/// `most`, or the largest multiple of `step` below it, that fits; where one fits, so do all below it.
fn largest(step: u32, most: u32, fits: impl Fn(u32) -> Result<bool>) -> Result<Option<u32>> {
    if fits(most)? {
        return Ok(Some(most));
    }
    let (mut good, mut bad) = (0, most.div_ceil(step));
    while good + 1 < bad {
        let middle = good.midpoint(bad);
        if fits(middle * step)? { good = middle } else { bad = middle }
    }
    Ok((good > 0).then_some(good * step))
}

impl Remedy {
    /// What of it differs from what was estimated, in words.
    pub fn beside(&self, estimate: &Estimate) -> impl fmt::Display {
        let mut parts = Vec::new();
        if self.kv_type != estimate.kv_type {
            parts.push(format!("keys and values in {}", self.kv_type.name()));
        }
        if self.context != estimate.context {
            parts.push(format!("a context of {}", self.context));
        }
        if self.sessions != estimate.sessions {
            parts.push(format!("{} sessions", self.sessions).replace("1 sessions", "1 session"));
        }
        if self.prefill != estimate.prefill && self.prefill < estimate.prefill {
            parts.push(format!("{} rows of prefill", self.prefill));
        }
        if let Some(format) = self.format {
            parts.push(format!("weights in {format}"));
        }
        if parts.is_empty() {
            parts.push(format!("{} outputs at once", self.outputs));
        }
        format!("{} ({})", parts.join(", "), Bytes(self.peak))
    }
}
