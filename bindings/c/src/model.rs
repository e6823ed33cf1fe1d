//! A loaded model: what is known of it, how it fares, and what it would be asked.

use std::sync::Arc;
use std::time::Duration;

use pocketlm::{Model, Pooling, Trim};

use crate::engine::{EngineObject, fresh};
use crate::handles;
use crate::input::{self, Versioned, copy_out, list, put, text};
use crate::prompt::{plm_prompt, plm_text, prompt};
use crate::session::{SessionObject, plm_session};
use crate::status::{Refusal, door, plm_status};

/// A model on a device, for as many sessions as one likes.
pub enum plm_model {}

/// What is known of a model, in numbers. `plm_model_text` has the words.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plm_model_info {
    /// `sizeof(plm_model_info)`.
    pub struct_size: usize,
    /// Tokens of the vocabulary.
    pub vocab: u32,
    /// Positions of a session.
    pub context: u32,
    /// Positions it was trained for.
    pub trained_context: u32,
    /// 1 where the file brings a chat template.
    pub can_chat: u32,
    /// Weights, by count.
    pub parameters: u64,
    /// Bytes of the weights in the file.
    pub weight_bytes: u64,
    /// What it was estimated to take of memory, of the host and the device.
    pub total_bytes: u64,
    /// From the call to the first possible prompt.
    pub load_seconds: f64,
}

/// How a model has fared on its device.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plm_health {
    /// `sizeof(plm_health)`.
    pub struct_size: usize,
    /// Devices that took the place of a lost one.
    pub recoveries: u32,
    /// 1 where numbers come from software pretending to be a GPU.
    pub software: u32,
    /// What the device was given at a time, by count.
    pub slices: u64,
    /// How long half of the last slices took at most.
    pub slice_median_seconds: f64,
    /// How long 95 of 100 of them took at most.
    pub slice_p95_seconds: f64,
    /// How long the longest of them took.
    pub slice_max_seconds: f64,
}

/// A text about a model.
#[repr(u32)]
pub enum plm_model_fact {
    /// What the file calls it.
    PLM_MODEL_NAME = 0,
    /// The architecture.
    PLM_MODEL_ARCH = 1,
    /// The device that computes now.
    PLM_MODEL_DEVICE = 2,
    /// `cpu`, `vulkan`, `metal`, `dx12`.
    PLM_MODEL_BACKEND = 3,
    /// Why this device.
    PLM_MODEL_REASON = 4,
}

/// How badly an app is in need of memory.
#[repr(u32)]
pub enum plm_trim {
    /// What nobody waits for goes; answers under way keep what they have.
    PLM_TRIM_IDLE = 0,
    /// All that can be made again goes; answers under way go on with the same tokens, later.
    PLM_TRIM_CRITICAL = 1,
}

/// Which of a text's positions an embedding is made of.
#[repr(u32)]
pub enum plm_pooling {
    /// Their mean.
    PLM_POOLING_MEAN = 0,
    /// The last one, which has seen all.
    PLM_POOLING_LAST = 1,
    /// The first one, as models with a token for it want it (`CLS`).
    PLM_POOLING_FIRST = 2,
}

pub(crate) struct ModelObject {
    pub(crate) model: Model,
    /// Its worker goes on as long as there is a model.
    pub(crate) engine: Arc<EngineObject>,
}

/// Frees a model. Its sessions and streams go on; the memory goes with the last of them.
#[unsafe(no_mangle)]
pub extern "C" fn plm_model_free(model: *mut plm_model) -> plm_status {
    door(|| {
        handles::take::<ModelObject, _>(model)?;
        Ok(plm_status::PLM_OK)
    })
}

/// What is known of a model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_model_get_info(model: *mut plm_model, info: *mut plm_model_info) -> plm_status {
    door(|| {
        let model = &handles::get::<ModelObject, _>(model)?.model;
        let known = model.info();
        let told = plm_model_info {
            vocab: known.vocab,
            context: known.context,
            trained_context: known.trained_context,
            can_chat: model.can_chat().into(),
            parameters: known.parameters,
            weight_bytes: known.weight_bytes,
            total_bytes: known.estimate.total(),
            load_seconds: known.load_time.as_secs_f64(),
            ..plm_model_info::usual()
        };
        // SAFETY: as the caller promised.
        unsafe { input::give(info, told)? };
        Ok(plm_status::PLM_OK)
    })
}

/// How a model has fared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_model_get_health(model: *mut plm_model, health: *mut plm_health) -> plm_status {
    door(|| {
        let known = handles::get::<ModelObject, _>(model)?.model.health();
        let seconds = |share| Duration::as_secs_f64(&known.slices.quantile(share));
        let told = plm_health {
            recoveries: known.recoveries,
            software: known.device.software.into(),
            slices: known.slices.count,
            slice_median_seconds: seconds(0.5),
            slice_p95_seconds: seconds(0.95),
            slice_max_seconds: seconds(1.0),
            ..plm_health::usual()
        };
        // SAFETY: as the caller promised.
        unsafe { input::give(health, told)? };
        Ok(plm_status::PLM_OK)
    })
}

/// `plm_model_info` as `plm_model_get_info` takes it.
#[unsafe(no_mangle)]
pub extern "C" fn plm_model_info_default() -> plm_model_info {
    plm_model_info::usual()
}

/// `plm_health` as `plm_model_get_health` takes it.
#[unsafe(no_mangle)]
pub extern "C" fn plm_health_default() -> plm_health {
    plm_health::usual()
}

/// Copies a text about a model, a `plm_model_fact`, to `buffer` without a null byte, and says in `size` how many bytes it has.
/// `PLM_TOO_SMALL` where they are more than `capacity`; null and 0 ask for the size alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_model_text(
    model: *mut plm_model,
    fact: u32,
    buffer: *mut u8,
    capacity: usize,
    size: Option<&mut usize>,
) -> plm_status {
    door(|| {
        let model = &handles::get::<ModelObject, _>(model)?.model;
        let known = model.info();
        let text = match fact {
            0 => known.name.clone(),
            1 => known.arch.clone(),
            2 => model.health().device.name,
            3 => model.health().device.backend.to_owned(),
            4 => model.health().reason,
            fact => return Err(Refusal::invalid(&format!("{fact} is no plm_model_fact"))),
        };
        // SAFETY: as the caller promised.
        unsafe { copy_out(text.as_bytes(), buffer, capacity, size) }
    })
}

/// The tokens of a prompt as a session would compute them, copied to `tokens`; `count` says how many there are.
/// `PLM_TOO_SMALL` where they are more than `capacity`; null and 0 ask for the count alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_model_tokens(
    model: *mut plm_model,
    asked: *const plm_prompt,
    tokens: *mut u32,
    capacity: usize,
    count: Option<&mut usize>,
) -> plm_status {
    door(|| {
        let model = handles::get::<ModelObject, _>(model)?;
        // SAFETY: as the caller promised, for all of it.
        unsafe { copy_out(&model.model.tokens(&prompt(asked)?)?, tokens, capacity, count) }
    })
}

/// The embedding of a prompt, of length 1, pooled by a `plm_pooling`, copied to `numbers`; `count` says how many there are.
/// `PLM_TOO_SMALL` where they are more than `capacity`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_model_embed(
    model: *mut plm_model,
    asked: *const plm_prompt,
    pooling: u32,
    numbers: *mut f32,
    capacity: usize,
    count: Option<&mut usize>,
) -> plm_status {
    door(|| {
        let model = handles::get::<ModelObject, _>(model)?;
        let pooling = match pooling {
            0 => Pooling::Mean,
            1 => Pooling::Last,
            2 => Pooling::First,
            pooling => return Err(Refusal::invalid(&format!("{pooling} is no plm_pooling"))),
        };
        // SAFETY: as the caller promised, for all of it.
        unsafe { copy_out(&model.model.embed(&prompt(asked)?, pooling)?, numbers, capacity, count) }
    })
}

/// How likely `continuation` is after a prompt: the natural logarithm of its probability. `is_greedy`, which may be null, hears
/// whether the model would say exactly this by itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_model_score(
    model: *mut plm_model,
    asked: *const plm_prompt,
    continuation: plm_text,
    log_probability: Option<&mut f64>,
    is_greedy: Option<&mut u32>,
) -> plm_status {
    door(|| {
        let model = handles::get::<ModelObject, _>(model)?;
        // SAFETY: as the caller promised, for all of it.
        let (prompt, continuation) = unsafe { (prompt(asked)?, text(continuation, "continuation")?) };
        let score = model.model.score(&prompt, continuation)?;
        put(log_probability, score.total())?;
        if let Some(is_greedy) = is_greedy {
            *is_greedy = score.is_greedy.into();
        }
        Ok(plm_status::PLM_OK)
    })
}

/// Gives memory back while the model stays loaded, as much as `level`, a `plm_trim`, allows. `bytes` hears how many, and may
/// be null.
#[unsafe(no_mangle)]
pub extern "C" fn plm_model_trim(model: *mut plm_model, level: u32, bytes: Option<&mut u64>) -> plm_status {
    door(|| {
        let model = handles::get::<ModelObject, _>(model)?;
        let level = match level {
            0 => Trim::Idle,
            1 => Trim::Critical,
            level => return Err(Refusal::invalid(&format!("{level} is no plm_trim"))),
        };
        let trimmed = model.model.trim(level)?;
        if let Some(bytes) = bytes {
            *bytes = trimmed.bytes;
        }
        Ok(plm_status::PLM_OK)
    })
}

/// Gives each adapter its weight, in the order in which they were loaded; 0 takes one out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_model_weigh_adapters(
    model: *mut plm_model,
    weights: *const f32,
    count: usize,
) -> plm_status {
    door(|| {
        let model = handles::get::<ModelObject, _>(model)?;
        // SAFETY: as the caller promised.
        model.model.weigh_adapters(unsafe { list(weights, count, "weights")? })?;
        Ok(plm_status::PLM_OK)
    })
}

/// A new session without a history.
#[unsafe(no_mangle)]
pub extern "C" fn plm_session_new(
    model: *mut plm_model,
    session: Option<&mut *mut plm_session>,
) -> plm_status {
    door(|| {
        let place = fresh(session)?;
        let model = handles::get::<ModelObject, _>(model)?;
        *place = handles::give(SessionObject::new(model.model.session(), model))?;
        Ok(plm_status::PLM_OK)
    })
}

/// The session that `plm_session_save` wrote to a file, on whatever device it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_session_restore(
    model: *mut plm_model,
    path: plm_text,
    session: Option<&mut *mut plm_session>,
) -> plm_status {
    door(|| {
        let place = fresh(session)?;
        let model = handles::get::<ModelObject, _>(model)?;
        // SAFETY: as the caller promised.
        let restored = model.model.restore(unsafe { text(path, "path")? })?;
        *place = handles::give(SessionObject::new(restored, model))?;
        Ok(plm_status::PLM_OK)
    })
}

/// The session that `plm_session_to_bytes` gave, `plm_session_restore` otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_session_from_bytes(
    model: *mut plm_model,
    bytes: *const u8,
    count: usize,
    session: Option<&mut *mut plm_session>,
) -> plm_status {
    door(|| {
        let place = fresh(session)?;
        let model = handles::get::<ModelObject, _>(model)?;
        // SAFETY: as the caller promised.
        let restored = model.model.restore_bytes(unsafe { list(bytes, count, "bytes")? }.to_vec())?;
        *place = handles::give(SessionObject::new(restored, model))?;
        Ok(plm_status::PLM_OK)
    })
}

// SAFETY: numbers, the size first.
unsafe impl Versioned for plm_model_info {
    fn usual() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            vocab: 0,
            context: 0,
            trained_context: 0,
            can_chat: 0,
            parameters: 0,
            weight_bytes: 0,
            total_bytes: 0,
            load_seconds: 0.0,
        }
    }
}

// SAFETY: numbers, the size first.
unsafe impl Versioned for plm_health {
    fn usual() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            recoveries: 0,
            software: 0,
            slices: 0,
            slice_median_seconds: 0.0,
            slice_p95_seconds: 0.0,
            slice_max_seconds: 0.0,
        }
    }
}
