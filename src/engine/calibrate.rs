//! Calibration: which inputs of each matrix carry the signal, measured on a text. Encoders weigh errors by it.

use crate::backend::cpu::{Cpu, CpuOptions};
use crate::backend::{Backend, Progress};
use crate::error::{Error, Result};
use crate::format::Checkpoint;
use crate::kernel::{KvType, PAGE};
use crate::model::quantize::Importance;
use crate::model::{Blueprint, CacheOptions, LowerOptions, Weights, lower};
use crate::plan::Inputs;

/// Positions of a window whose logits are computed, so that the head's inputs count too.
const OUTPUTS: u32 = 64;

/// Runs the model of `checkpoint` over `tokens`, in windows of `window` from an empty context each, on the CPU. `progress`
/// hears of the tokens done and in all.
///
/// # Errors
/// As [`super::Engine::load`] for the file; [`crate::Kind::InvalidArgument`] where the tokens do not fill a window, or the
/// window is longer than the model's context; what `progress` returns.
pub fn calibrate(
    checkpoint: &Checkpoint,
    tokens: &[u32],
    window: u32,
    threads: Option<usize>,
    progress: Progress<'_>,
) -> Result<Importance> {
    let blueprint = Blueprint::read(checkpoint)?;
    let weights = Weights::gather(checkpoint, &blueprint)?;
    if window == 0 || window > blueprint.context {
        let what = format!("a window of {window} tokens does not fit a context of {}", blueprint.context);
        return Err(Error::invalid(what));
    }
    let windows = tokens.chunks_exact(window as usize);
    if windows.len() == 0 {
        let what = format!("{} tokens do not fill a window of {window}", tokens.len());
        return Err(Error::invalid(what).hint("calibrate on a longer text"));
    }
    let pages = window.div_ceil(PAGE);
    let outputs = OUTPUTS.min(window);
    let options = LowerOptions {
        context: window,
        caches: vec![CacheOptions::full(KvType::F32, window, 1)],
        prefill_rows: window,
        decode_rows: 1,
        outputs,
        top: 1,
        max_matrix_bytes: u64::MAX,
        fused: false,
        calibrates: true,
        int8_activations: false,
    };
    let lowered = lower(&blueprint, &weights, options)?;
    let mut cpu = Cpu::new(CpuOptions { threads, exact: false })?;
    cpu.load(&lowered.store, &mut |_, _| Ok(()))?;
    let prefill = &lowered.caches[0].prefill;
    let program = cpu.prepare(prefill.plan.clone())?;
    let ports = &lowered.ports;
    let table: Vec<u32> = (0..pages).collect();
    let wanted: Vec<u32> = (window - outputs..window).collect();
    cpu.write(ports.pages, 0, bytemuck::cast_slice(&table))?;
    cpu.write(ports.outputs, 0, bytemuck::cast_slice(&wanted))?;
    let total = windows.len() as u64 * u64::from(window);
    for (done, tokens) in (1..).zip(windows) {
        let rows: Vec<[u32; 4]> = (0..).zip(tokens).map(|(at, &token)| [token, at, 0, 0]).collect();
        cpu.write(ports.rows, 0, bytemuck::cast_slice(&rows))?;
        cpu.submit(&program, 0..prefill.logits, Inputs { rows: window, outputs, kv_len: window })?;
        progress(done * u64::from(window), total)?;
    }
    let mut importance = Importance::default();
    for (name, state) in &ports.squares {
        let mut sums = vec![0.0f32; lowered.store.item(*state).words()];
        cpu.read(*state, 0, bytemuck::cast_slice_mut(&mut sums))?;
        importance.insert(name, sums)?;
    }
    Ok(importance)
}
