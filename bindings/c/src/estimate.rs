//! What a model would take of memory, before it is loaded.

use pocketlm::Verdict;

use crate::engine::{EngineObject, plm_engine};
use crate::handles;
use crate::input::{self, Versioned, text};
use crate::options::plm_load_options;
use crate::prompt::plm_text;
use crate::status::{door, plm_status};

/// Whether a model fits.
#[repr(u32)]
pub enum plm_verdict {
    /// It does.
    PLM_FITS = 0,
    /// It does where others make room for it.
    PLM_TIGHT = 1,
    /// It fits in the host's memory; how much the device has, it does not say.
    PLM_UNKNOWN = 2,
    /// It takes more than the app allows.
    PLM_OVER_BUDGET = 3,
    /// It takes more than there is.
    PLM_OVER_MACHINE = 4,
    /// The device has no buffer as large as one that it needs.
    PLM_OVER_BUFFER = 5,
}

/// What a model would take, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plm_estimate {
    /// `sizeof(plm_estimate)`.
    pub struct_size: usize,
    /// A `plm_verdict`.
    pub verdict: u32,
    /// 1 where it can be loaded.
    pub fits: u32,
    /// Positions of a session.
    pub context: u32,
    /// Positions the model was trained for.
    pub trained_context: u32,
    /// The longest context that fits, the other choices as they are; 0 where none does.
    pub largest_context: u32,
    /// 1 where weights, keys and values are in memory of the host's.
    pub shares_memory: u32,
    /// Matrices, and the vectors and tables beside them.
    pub weights: u64,
    /// Keys and values of all sessions, full.
    pub kv: u64,
    /// Inputs, results and what a submission keeps in between.
    pub scratch: u64,
    /// On the host beside all that.
    pub host: u64,
    /// On the host beside all that, while it loads.
    pub staging: u64,
    /// Pages of the file that are read for every token; no part of the sums.
    pub mapped: u64,
    /// On the device; 0 where that is the CPU.
    pub device_bytes: u64,
    /// On the host.
    pub host_bytes: u64,
    /// Of both, after the load.
    pub total: u64,
    /// Of both, at any moment.
    pub peak: u64,
    /// What this process can have now without pushing others out; 0 where the system does not say.
    pub available: u64,
}

/// What a model would take of memory with these options. Reads names, shapes and settings, and no weights. That it does not
/// fit is no failure: `fits` says it, and `plm_last_error` then says what would fit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plm_engine_estimate(
    engine: *mut plm_engine,
    path: plm_text,
    options: *const plm_load_options,
    estimate: *mut plm_estimate,
) -> plm_status {
    door(|| {
        let engine = handles::get::<EngineObject, _>(engine)?;
        // SAFETY: as the caller promised, for all of it.
        let (path, options) = unsafe { (text(path, "path")?, input::options(options)?.meant()?) };
        let known = engine.engine.estimate(path, &options)?;
        let verdict = match known.verdict {
            Verdict::Fits => plm_verdict::PLM_FITS,
            Verdict::Tight => plm_verdict::PLM_TIGHT,
            Verdict::Unknown => plm_verdict::PLM_UNKNOWN,
            Verdict::OverBudget => plm_verdict::PLM_OVER_BUDGET,
            Verdict::OverMachine => plm_verdict::PLM_OVER_MACHINE,
            Verdict::OverBuffer => plm_verdict::PLM_OVER_BUFFER,
        };
        let told = plm_estimate {
            verdict: verdict as u32,
            fits: known.fits().into(),
            context: known.context,
            trained_context: known.trained_context,
            largest_context: known.largest_context.unwrap_or(0),
            shares_memory: known.shares_memory.into(),
            weights: known.weights,
            kv: known.kv,
            scratch: known.scratch,
            host: known.host,
            staging: known.staging,
            mapped: known.mapped,
            device_bytes: known.device_bytes(),
            host_bytes: known.host_bytes(),
            total: known.total(),
            peak: known.peak(),
            available: known.budget.available.unwrap_or(0),
            ..plm_estimate::usual()
        };
        // SAFETY: as the caller promised.
        unsafe { input::give(estimate, told)? };
        if let Err(error) = known.check() {
            // The sentence is kept for the thread, and the call has done what it says.
            let _kept = door(|| Err(error.into()));
        }
        Ok(plm_status::PLM_OK)
    })
}

/// `plm_estimate` as `plm_engine_estimate` takes it.
#[unsafe(no_mangle)]
pub extern "C" fn plm_estimate_default() -> plm_estimate {
    plm_estimate::usual()
}

// SAFETY: numbers, the size first.
unsafe impl Versioned for plm_estimate {
    fn usual() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            verdict: plm_verdict::PLM_UNKNOWN as u32,
            fits: 0,
            context: 0,
            trained_context: 0,
            largest_context: 0,
            shares_memory: 0,
            weights: 0,
            kv: 0,
            scratch: 0,
            host: 0,
            staging: 0,
            mapped: 0,
            device_bytes: 0,
            host_bytes: 0,
            total: 0,
            peak: 0,
            available: 0,
        }
    }
}
