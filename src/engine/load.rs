//! From a path to a model that answers.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::Caps;
use crate::base::Bytes;
use crate::error::{Error, Kind, Result};
use crate::format::{Checkpoint, Chunk, Dialect, Files};
use crate::kernel::{KvType, PAGE};
use crate::model::{
    Block, Blueprint, CacheOptions, LowerOptions, Lowered, Phase, Weights, lower, open_adapter,
};
use crate::plan::Item;
use crate::text::{ChatTemplate, Tokenizer};

use super::device::{self, Opened};
use super::estimate::{Budget, Estimate, foresee};
use super::identity::identity;
use super::model::{Model, ModelInfo};
use super::options::{Device, EngineOptions, LoadOptions, Sampling};
use super::pace::Control;
use super::recover::{Made, Place, Rebuild, befell_device};
use super::remedy::Subject;
use super::runner::Runner;
use super::verify;
use super::worker::Signal;

/// The context that is taken where nobody asks for one, if the model was trained for as much.
const USUAL_CONTEXT: u32 = 4096;
/// Rows that are computed as matrix times vector.
const DECODE_ROWS: u32 = 4;
/// How many of the largest logits the device hands out at once.
const TOP: u32 = 64;

/// How far a load is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadProgress {
    /// What is being done.
    pub stage: LoadStage,
    /// How much of the stage, 0 ..= 1.
    pub fraction: f32,
}

/// A stage of a load, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadStage {
    /// Reading names, shapes and settings.
    Reading,
    /// Starting the device.
    Opening,
    /// Moving weights to the device.
    Uploading,
    /// Making what is left of the device's programs.
    Compiling,
    /// Waiting for what is not yet held against the manifest, where there is one.
    Verifying,
}

/// Loads what `checkpoint` opens. A manifest of the options names files from `root`.
pub(super) fn load(
    (root, checkpoint): (&Path, impl FnOnce(&Files) -> Result<Checkpoint>),
    engine: &EngineOptions,
    options: &LoadOptions,
    waker: (Arc<Signal>, Arc<Control>),
    progress: &mut dyn FnMut(LoadProgress) -> Result<()>,
) -> Result<Model> {
    let begun = Instant::now();
    let mut tell = |stage, fraction| progress(LoadProgress { stage, fraction });
    tell(LoadStage::Reading, 0.0)?;
    let files = Files::default();
    let opened = checkpoint(&files).and_then(|checkpoint| Ok((checkpoint, open_adapters(&files, options)?)));
    let ((checkpoint, adapters), chunks) = match (&options.verify, opened) {
        (None, opened) => (opened?, Vec::new()),
        (Some(manifest), Ok(opened)) => (opened, manifest.chunks(root, &files.all())?),
        (Some(manifest), Err(error)) => {
            // What cannot be read may not be what it should be; then that is the reason.
            let chunks = manifest.chunks(root, &manifest.present(root))?;
            return chunks.iter().try_for_each(Chunk::check).and(Err(error));
        }
    };
    let model = verify::checked(&chunks, |checking| {
        let mut careful = |stage, fraction| checking.verdict().and_then(|()| tell(stage, fraction));
        let model = build(&checkpoint, &adapters, engine, options, (waker, &chunks), &mut careful)?;
        checking.run(|fraction| tell(LoadStage::Verifying, fraction))?;
        Ok(model)
    })?;
    Ok(model.loaded_in(begun.elapsed()))
}

fn build(
    checkpoint: &Checkpoint,
    adapters: &[Checkpoint],
    engine: &EngineOptions,
    options: &LoadOptions,
    ((signal, control), chunks): ((Arc<Signal>, Arc<Control>), &[Chunk]),
    tell: Tell<'_>,
) -> Result<Model> {
    let path = &checkpoint.path;
    let in_file = |error: Error| error.in_file(path);
    let blueprint = Blueprint::read(checkpoint)?;
    let weights = weights(checkpoint, &blueprint, adapters)?;
    let identity = [checkpoint].into_iter().chain(adapters).map(identity).collect();
    let tokenizer = tokenizer(checkpoint)?;
    let template = template(&checkpoint.dialect, tokenizer.as_ref()).map_err(in_file)?;
    if let Some(tokenizer) = &tokenizer {
        fits(tokenizer, &blueprint).map_err(in_file)?;
    }
    let chosen = choose(&blueprint, engine, options)?;
    let context = chosen.context;
    let all = adapters.iter().chain([checkpoint]).flat_map(|checkpoint| checkpoint.tensors.values());
    let files: BTreeMap<&Path, Bytes> = all.map(|tensor| (&*tensor.file, tensor.bytes.clone())).collect();
    let (vocab, trained_context) = (blueprint.vocab, blueprint.context);
    let (name, arch) = (blueprint.name.clone(), blueprint.arch.into());
    let files = files.into_values().collect();
    let origin = Origin {
        blueprint,
        weights,
        vocabulary: Tokenizer::footprint(&checkpoint.dialect, vocab),
        chosen,
        engine: engine.clone(),
        options: options.clone(),
        is_refused: Cell::new(false),
        files,
    };
    let made = origin.make_somewhere(tell).map_err(in_file)?;

    let lowered = &made.lowered;
    let matrices = || {
        lowered.store.items().filter_map(|(_, item)| if let Item::Matrix(m) = item { Some(m) } else { None })
    };
    let info = ModelInfo {
        path: path.to_owned(),
        name,
        arch,
        vocab,
        context,
        trained_context,
        parameters: matrices().map(|matrix| matrix.rows() as u64 * matrix.cols() as u64).sum(),
        weight_bytes: matrices().map(|matrix| matrix.bytes()).sum(),
        device: made.backend.caps().clone(),
        reason: made.reason.clone(),
        estimate: origin.subject(made.backend.caps()).admit(options)?,
        load_time: Duration::ZERO,
    };
    let chunks = chunks.to_vec();
    // The weights are read again, so they are held against the manifest again.
    let rebuild: Rebuild = Box::new(move |place| {
        verify::checked(&chunks, |checking| origin.make(place, &mut |_, _| checking.verdict()))
    });
    let mut runner = Runner::new(made, Some(rebuild), control, engine.patience);
    runner.weigh(&options.adapters.iter().map(|adapter| adapter.weight).collect::<Vec<_>>())?;
    Ok(Model::new(info, tokenizer, template, defaults(&checkpoint.dialect), identity, runner, signal))
}

/// What is known of a model before a device is chosen, kept so that it can be made again on another. Weights are in the
/// bytes of the files still, whose pages come and go.
struct Origin {
    blueprint: Blueprint,
    weights: Weights,
    /// Bytes of the tokenizer.
    vocabulary: u64,
    chosen: LowerOptions,
    engine: EngineOptions,
    options: LoadOptions,
    /// It was found to take too much memory.
    is_refused: Cell<bool>,
    files: Vec<Bytes>,
}

/// Hears of stages; an error from it stops the load.
type Tell<'a> = &'a mut dyn FnMut(LoadStage, f32) -> Result<()>;

/// Times that a device is tried which fails while a model is loaded.
const TRIES: u32 = 2;

impl Origin {
    /// The model where the options want it; where a device fails that was there, on the CPU.
    fn make_somewhere(&self, tell: Tell<'_>) -> Result<Made> {
        let stopped = Cell::new(false);
        let mut tell = |stage, fraction| tell(stage, fraction).inspect_err(|_| stopped.set(true));
        for attempt in 1.. {
            let error = match self.make(Place::Chosen, &mut tell) {
                Err(error) if !(stopped.get() || self.is_refused.get()) => error,
                outcome => return outcome,
            };
            // A device that was never there is the caller's affair.
            let is_absent = error.kind() == Kind::DeviceUnavailable;
            if is_absent || !(befell_device(&error) || error.kind() == Kind::WrongNumbers) {
                return Err(error);
            }
            if attempt < TRIES && error.kind() != Kind::WrongNumbers {
                log::warn!("{error}; trying again");
                continue;
            }
            if self.engine.pinned || self.engine.device == Device::Cpu {
                return Err(error);
            }
            log::warn!("{error}; taking the CPU");
            let made = self.make(Place::Cpu, &mut tell)?;
            return Ok(Made { reason: format!("the device that was chosen failed: {error}"), ..made });
        }
        Err(Error::internal("no attempt was made"))
    }

    /// The model and its choices, for a device.
    fn subject<'a>(&'a self, caps: &'a Caps) -> Subject<'a> {
        let Self { blueprint, weights, engine, vocabulary, .. } = self;
        let budget = Budget::of(self.options.memory);
        Subject { blueprint, weights, engine, caps, vocabulary: *vocabulary, budget }
    }

    fn make(&self, place: Place, tell: Tell<'_>) -> Result<Made> {
        tell(LoadStage::Opening, 0.0)?;
        let Opened { mut backend, reason } = match place {
            Place::Chosen => device::open(&self.engine)?,
            Place::Cpu if self.engine.pinned => {
                return Err(Error::new(Kind::DeviceUnavailable, "no other device is allowed"));
            }
            Place::Cpu => device::cpu(&self.engine, "the device that was chosen was lost".into())?,
        };
        let Caps { max_matrix_bytes, fuses: fused, .. } = *backend.caps();
        let admitted = self.subject(backend.caps()).admit(&self.options);
        admitted.inspect_err(|_| self.is_refused.set(true))?;
        let options = LowerOptions { max_matrix_bytes, fused, ..self.chosen.clone() };
        let lowered = lower(&self.blueprint, &self.weights, options)?;

        tell(LoadStage::Uploading, 0.0)?;
        let plans: Vec<_> = lowered.plans().cloned().collect();
        backend.expect(&plans);
        backend.load(&lowered.store, &mut |done, total| {
            tell(LoadStage::Uploading, done as f32 / total.max(1) as f32)
        })?;
        tell(LoadStage::Compiling, 0.0)?;
        let mut programs = Vec::with_capacity(lowered.caches.len());
        for (done, cache) in (0u8..).zip(&lowered.caches) {
            let mut prepare = |half, phase: &Phase| {
                let program = backend.prepare(phase.plan.clone())?;
                let done = (f32::from(done) + half) / lowered.caches.len() as f32;
                tell(LoadStage::Compiling, done).map(|()| program)
            };
            programs.push([prepare(0.5, &cache.decode)?, prepare(1.0, &cache.prefill)?]);
        }
        // What was read of the files is elsewhere now, or is read again when it is used.
        self.files.iter().for_each(Bytes::release_file);
        Ok(Made { backend, reason, lowered, programs })
    }
}

/// What a checkpoint would take of memory. Reads no weights but the small ones: gains, biases.
pub(super) fn estimate(
    checkpoint: &Checkpoint,
    engine: &EngineOptions,
    options: &LoadOptions,
) -> Result<Estimate> {
    let blueprint = Blueprint::read(checkpoint)?;
    let weights = weights(checkpoint, &blueprint, &open_adapters(&Files::default(), options)?)?;
    let caps = foresee(engine)?;
    let vocabulary = Tokenizer::footprint(&checkpoint.dialect, blueprint.vocab);
    let budget = Budget::of(options.memory);
    let (blueprint, weights, caps) = (&blueprint, &weights, &caps);
    Subject { blueprint, weights, engine, caps, vocabulary, budget }.estimate(options)
}

/// The plans of a checkpoint as a GPU without limits would get them. Reads no weights.
///
/// # Errors
/// As [`super::Engine::load`] for the file and the options.
pub fn plans(checkpoint: &Checkpoint, engine: &EngineOptions, options: &LoadOptions) -> Result<Lowered> {
    let blueprint = Blueprint::read(checkpoint)?;
    let weights = weights(checkpoint, &blueprint, &open_adapters(&Files::default(), options)?)?;
    lower(&blueprint, &weights, choose(&blueprint, engine, options)?)
}

fn open_adapters(files: &Files, options: &LoadOptions) -> Result<Vec<Checkpoint>> {
    options.adapters.iter().map(|adapter| open_adapter(files, &adapter.path)).collect()
}

/// The weights of a checkpoint with the adapters beside them.
fn weights(checkpoint: &Checkpoint, blueprint: &Blueprint, adapters: &[Checkpoint]) -> Result<Weights> {
    let mut weights = Weights::gather(checkpoint, blueprint)?;
    for (index, adapter) in adapters.iter().enumerate() {
        weights.adapt(&checkpoint.dialect, blueprint, adapter, index)?;
    }
    Ok(weights)
}

/// The choices for a GPU without limits.
pub(super) fn choose(
    blueprint: &Blueprint,
    engine: &EngineOptions,
    options: &LoadOptions,
) -> Result<LowerOptions> {
    let refuse = |what: &str| Err(Error::invalid(what));
    let context = options.context.unwrap_or(blueprint.context.min(USUAL_CONTEXT));
    if context > blueprint.context {
        let what = format!(
            "a context of {context} was asked for and the model was trained for {}",
            blueprint.context
        );
        return Err(Error::invalid(what).hint(format!("ask for at most {}", blueprint.context)));
    }
    if context == 0 || options.sessions == 0 || options.prefill == 0 || options.outputs == 0 {
        return refuse("context, sessions, prefill and outputs must each be at least 1");
    }
    let more = options.more_sessions.iter().map(|&(_, sessions)| sessions);
    if more.clone().any(|sessions| sessions == 0) {
        return refuse("of keys and values of another type, places for at least 1 session must be asked for");
    }
    let sessions = more.fold(options.sessions, u32::saturating_add);
    if sessions > 1024 || options.prefill > 1 << 16 || options.outputs > 1 << 12 {
        return refuse("at most 1024 sessions, 65536 rows of prefill and 4096 outputs can be asked for");
    }
    let usual = if engine.exact { KvType::F32 } else { KvType::F16 };
    let mut wanted = vec![(options.kv_type.unwrap_or(usual), options.sessions)];
    for &(kv, sessions) in &options.more_sessions {
        match wanted.iter_mut().find(|(known, _)| *known == kv) {
            Some((_, known)) => *known = known.saturating_add(sessions),
            None => wanted.push((kv, sessions)),
        }
    }
    let mut caches = Vec::with_capacity(wanted.len());
    for (kv, sequences) in wanted {
        if engine.exact && kv != KvType::F32 {
            let what = format!("keys and values in {} were asked for, and to be exact", kv.name());
            return Err(Error::invalid(what).hint("exact needs f32; or leave exact out"));
        }
        let cache = CacheOptions::full(kv, context, sequences);
        if cache.pages > most_pages(blueprint) {
            return refuse("context times sessions is more than can be addressed");
        }
        caches.push(CacheOptions { turned: options.kv_turned.unwrap_or(cache.turned), ..cache });
    }
    Ok(LowerOptions {
        context,
        caches,
        prefill_rows: options.prefill.min(context),
        decode_rows: DECODE_ROWS.min(options.prefill).min(context),
        outputs: options.outputs,
        top: TOP.min(blueprint.vocab),
        max_matrix_bytes: u64::MAX,
        fused: true,
        calibrates: false,
        int8_activations: engine.int8_activations,
    })
}

/// Pages of keys and values that can be addressed.
pub(super) fn most_pages(blueprint: &Blueprint) -> u32 {
    let of_page = |block: &Block| PAGE.saturating_mul(block.attention.kv_heads * block.attention.head_dim);
    blueprint.blocks.iter().map(|block| u32::MAX / of_page(block)).fold(1 << 22, u32::min)
}

/// The tokenizer of a checkpoint, if it brings one; a vocabulary without weights is enough.
///
/// # Errors
/// `BadFile` and `Unsupported` for the vocabulary.
pub fn tokenizer(checkpoint: &Checkpoint) -> Result<Option<Tokenizer>> {
    Tokenizer::of(&checkpoint.dialect).map_err(|error| error.in_file(&checkpoint.path))
}

fn template(dialect: &Dialect, tokenizer: Option<&Tokenizer>) -> Result<Option<ChatTemplate>> {
    let source = Tokenizer::chat_template(dialect, tokenizer)?;
    let special = |id: Option<u32>| {
        let text = tokenizer.zip(id).and_then(|(tokenizer, id)| tokenizer.token_text(id));
        text.unwrap_or_default()
    };
    let bos = special(tokenizer.and_then(Tokenizer::bos));
    let eos = special(tokenizer.and_then(Tokenizer::eos));
    source.map(|source| ChatTemplate::new(&source, &bos, &eos)).transpose()
}

fn fits(tokenizer: &Tokenizer, blueprint: &Blueprint) -> Result<()> {
    let (tokens, rows) = (tokenizer.vocab_size(), blueprint.vocab as usize);
    match tokens <= rows {
        true => Ok(()),
        false => {
            Err(Error::bad_file(format!("the tokenizer has {tokens} tokens and the embedding {rows} rows")))
        }
    }
}

/// What the model's own generation config says of sampling (Hugging Face's `generation_config.json`).
fn defaults(dialect: &Dialect) -> Sampling {
    let Dialect::HuggingFace(files) = dialect else { return Sampling::default() };
    let Some(config) = &files.generation_config else { return Sampling::default() };
    // A config of the wrong types is no reason not to run the model: what cannot be read is left unsaid.
    let float = |key| config.float(key).ok().flatten().map(|value| value as f32);
    let chance = config.bool("do_sample").ok().flatten().unwrap_or(false);
    Sampling {
        temperature: if chance { float("temperature") } else { None },
        top_k: if chance { config.u32("top_k").ok().flatten() } else { None },
        top_p: if chance { float("top_p") } else { None },
        min_p: if chance { float("min_p") } else { None },
        typical_p: if chance { float("typical_p") } else { None },
        repeat_penalty: float("repetition_penalty"),
        ..Sampling::default()
    }
}
