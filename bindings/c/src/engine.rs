//! The engine: a choice of device, loads, and the time that is given to them.

use std::ffi::{c_char, c_void};
use std::time::Duration;

use pocketlm::{Engine, Error, Kind, LoadProgress, LoadStage, Pace, Result as CoreResult, Suspend, Worker};

use crate::handles;
use crate::input::{self, list, text};
use crate::model::{ModelObject, plm_model};
use crate::options::{plm_engine_options, plm_load_options};
use crate::prompt::plm_text;
use crate::status::{Refusal, door, plm_status};

/// The number of this interface: it grows by 1 with each change that breaks programs made with an older header.
pub const PLM_ABI_VERSION: u32 = 1;

/// A choice of device, and the models loaded on it. The memory goes when it and all that it loaded are freed.
pub enum plm_engine {}

/// A stage of a load, in order. Newer libraries may have more.
#[repr(u32)]
pub enum plm_load_stage {
    /// Reading names, shapes and settings.
    PLM_LOAD_READING = 0,
    /// Starting the device.
    PLM_LOAD_OPENING = 1,
    /// Moving weights to the device.
    PLM_LOAD_UPLOADING = 2,
    /// Making what is left of the device's programs.
    PLM_LOAD_COMPILING = 3,
    /// Waiting for what is not yet held against the manifest.
    PLM_LOAD_VERIFYING = 4,
}

/// How an engine shares a device with the app's own work.
#[repr(u32)]
pub enum plm_pace {
    /// As fast as it goes.
    PLM_PACE_FULL = 0,
    /// A frame waits no longer for its turn than so many milliseconds; 4 leave an app its 60 frames a second.
    PLM_PACE_FRAME = 1,
    /// Slices of 2 ms, and as long a rest after each.
    PLM_PACE_BACKGROUND = 2,
}

/// What a tick did.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plm_progress {
    /// `sizeof(plm_progress)`.
    pub struct_size: usize,
    /// Rows computed.
    pub rows: u32,
    /// Slices that the device has finished.
    pub slices: u32,
    /// Answers still under way.
    pub under_way: u32,
    /// For how many microseconds nothing is to be done, where the pace wants a rest or the engine stands still; else 0.
    pub rest_us: u64,
}

/// Hears how far a load is: a `plm_load_stage` and how much of it, 0 to 1. Returns 0 to stop it, with `PLM_CANCELLED`.
/// Called in the thread that loads. It must neither throw nor jump out.
pub type plm_load_callback =
    Option<unsafe extern "C-unwind" fn(stage: u32, fraction: f32, user: *mut c_void) -> i32>;

pub(crate) struct EngineObject {
    pub(crate) engine: Engine,
    /// Computes until the last of the engine, its models, sessions and streams is freed.
    _worker: Option<Worker>,
}

/// `PLM_ABI_VERSION` of the library; it must be the header's.
#[unsafe(no_mangle)]
pub extern "C" fn plm_abi_version() -> u32 {
    PLM_ABI_VERSION
}

/// The version of the library, ended by a null byte.
#[unsafe(no_mangle)]
pub extern "C" fn plm_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Makes an engine. Touches no device before a model is loaded. Null for `options` takes the usual ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_engine_new(
    options: *const plm_engine_options,
    engine: Option<&mut *mut plm_engine>,
) -> plm_status {
    door(|| {
        let place = fresh(engine)?;
        // SAFETY: as the caller promised.
        let options = unsafe { input::options(options)? };
        // SAFETY: as the caller promised.
        let made = Engine::new(unsafe { options.meant()? });
        let worker = if options.worker != 0 { Some(Worker::start(&made)?) } else { None };
        *place = handles::give(EngineObject { engine: made, _worker: worker })?;
        Ok(plm_status::PLM_OK)
    })
}

/// Frees an engine. What it loaded goes on.
#[unsafe(no_mangle)]
pub extern "C" fn plm_engine_free(engine: *mut plm_engine) -> plm_status {
    door(|| {
        handles::take::<EngineObject, _>(engine)?;
        Ok(plm_status::PLM_OK)
    })
}

/// Loads a model from a file or a folder: seconds. Null for `options` takes the usual ones, null for `progress` tells nobody.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_engine_load(
    engine: *mut plm_engine,
    path: plm_text,
    options: *const plm_load_options,
    progress: plm_load_callback,
    user: *mut c_void,
    model: Option<&mut *mut plm_model>,
) -> plm_status {
    door(|| {
        let place = fresh(model)?;
        let engine = handles::get::<EngineObject, _>(engine)?;
        // SAFETY: as the caller promised, for all of it.
        let (path, options) = unsafe { (text(path, "path")?, input::options(options)?.meant()?) };
        let model = engine.engine.load(path, &options, told(progress, user))?;
        *place = handles::give(ModelObject { model, engine })?;
        Ok(plm_status::PLM_OK)
    })
}

/// Loads a model from the bytes of a GGUF file, which are copied; `plm_engine_load` otherwise. `name` stands for the path in
/// errors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_engine_load_bytes(
    engine: *mut plm_engine,
    name: plm_text,
    bytes: *const u8,
    count: usize,
    options: *const plm_load_options,
    progress: plm_load_callback,
    user: *mut c_void,
    model: Option<&mut *mut plm_model>,
) -> plm_status {
    door(|| {
        let place = fresh(model)?;
        let engine = handles::get::<EngineObject, _>(engine)?;
        // SAFETY: as the caller promised, for all of it.
        let (name, options) = unsafe { (text(name, "name")?, input::options(options)?.meant()?) };
        // SAFETY: as the caller promised.
        let bytes = unsafe { list(bytes, count, "bytes")? }.to_vec();
        let model = engine.engine.load_bytes(name, bytes, &options, told(progress, user))?;
        *place = handles::give(ModelObject { model, engine })?;
        Ok(plm_status::PLM_OK)
    })
}

/// Moves the sessions of all models for about so many microseconds, for hosts with a loop of their own. Null for `progress`
/// tells nobody.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_engine_tick(
    engine: *mut plm_engine,
    budget_us: u64,
    progress: *mut plm_progress,
) -> plm_status {
    door(|| {
        let engine = handles::get::<EngineObject, _>(engine)?;
        let done = engine.engine.tick(Duration::from_micros(budget_us))?;
        let rest = done.rest.map_or(0, |rest| u64::try_from(rest.as_micros()).unwrap_or(u64::MAX));
        let struct_size = size_of::<plm_progress>();
        let told = plm_progress {
            struct_size,
            rows: done.rows,
            slices: done.slices,
            under_way: done.under_way,
            rest_us: rest,
        };
        if !progress.is_null() {
            // SAFETY: as the caller promised.
            unsafe { input::give(progress, told)? };
        }
        Ok(plm_status::PLM_OK)
    })
}

/// `plm_progress` as `plm_engine_tick` takes it.
#[unsafe(no_mangle)]
pub extern "C" fn plm_progress_default() -> plm_progress {
    <plm_progress as input::Versioned>::usual()
}

/// Shares the device from now on as `pace`, a `plm_pace`, says; `frame_ms` is for `PLM_PACE_FRAME`.
#[unsafe(no_mangle)]
pub extern "C" fn plm_engine_set_pace(engine: *mut plm_engine, pace: u32, frame_ms: f64) -> plm_status {
    door(|| {
        let engine = handles::get::<EngineObject, _>(engine)?;
        engine.engine.set_pace(match pace {
            0 => Pace::Full,
            1 if (0.1..=1e4).contains(&frame_ms) => Pace::Frame(Duration::from_secs_f64(frame_ms / 1e3)),
            1 => return Err(Refusal::invalid(&format!("a frame of {frame_ms} ms is none"))),
            2 => Pace::Background,
            pace => return Err(Refusal::invalid(&format!("{pace} is no plm_pace"))),
        });
        Ok(plm_status::PLM_OK)
    })
}

/// Generates no more than so many tokens a second for each answer; 0 as many as it can.
#[unsafe(no_mangle)]
pub extern "C" fn plm_engine_sustain(engine: *mut plm_engine, tokens_per_second: f64) -> plm_status {
    door(|| {
        let engine = handles::get::<EngineObject, _>(engine)?;
        engine.engine.sustain((tokens_per_second != 0.0).then_some(tokens_per_second))?;
        Ok(plm_status::PLM_OK)
    })
}

/// Stops submitting, as an app that goes to the background must. Answers wait until `plm_engine_resume`. Returns after
/// `within_ms` at the latest, `PLM_PENDING` where not all stands still by then. 1 for `release` gives the memory of the device
/// back: resuming loads the weights again.
#[unsafe(no_mangle)]
pub extern "C" fn plm_engine_suspend(engine: *mut plm_engine, within_ms: u32, release: u32) -> plm_status {
    door(|| {
        let engine = handles::get::<EngineObject, _>(engine)?;
        let within = Duration::from_millis(within_ms.into());
        let stands = engine.engine.suspend(Suspend { within, release: release != 0 });
        Ok(if stands { plm_status::PLM_OK } else { plm_status::PLM_PENDING })
    })
}

/// Goes on after `plm_engine_suspend`.
#[unsafe(no_mangle)]
pub extern "C" fn plm_engine_resume(engine: *mut plm_engine) -> plm_status {
    door(|| {
        handles::get::<EngineObject, _>(engine)?.engine.resume();
        Ok(plm_status::PLM_OK)
    })
}

/// Where a new handle is to be written; null until then.
pub(crate) fn fresh<P>(place: Option<&mut *mut P>) -> Result<&mut *mut P, Refusal> {
    let place = place.ok_or_else(|| Refusal::invalid("the place for the handle is null"))?;
    *place = std::ptr::null_mut();
    Ok(place)
}

/// Tells the caller of a load.
fn told(progress: plm_load_callback, user: *mut c_void) -> impl FnMut(LoadProgress) -> CoreResult<()> {
    move |LoadProgress { stage, fraction }| {
        let Some(progress) = progress else { return Ok(()) };
        let stage = match stage {
            LoadStage::Reading => plm_load_stage::PLM_LOAD_READING,
            LoadStage::Opening => plm_load_stage::PLM_LOAD_OPENING,
            LoadStage::Uploading => plm_load_stage::PLM_LOAD_UPLOADING,
            LoadStage::Compiling => plm_load_stage::PLM_LOAD_COMPILING,
            LoadStage::Verifying => plm_load_stage::PLM_LOAD_VERIFYING,
        };
        // SAFETY: the caller's own function, with what the caller gave for it.
        match unsafe { progress(stage as u32, fraction, user) } {
            0 => Err(Error::new(Kind::Cancelled, "the caller stopped the load")),
            _ => Ok(()),
        }
    }
}

// SAFETY: numbers, the size first.
unsafe impl input::Versioned for plm_progress {
    fn usual() -> Self {
        Self { struct_size: size_of::<Self>(), rows: 0, slices: 0, under_way: 0, rest_us: 0 }
    }
}
