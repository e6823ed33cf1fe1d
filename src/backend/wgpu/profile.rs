//! How long each step takes on the device, by its own clock, and how fast its memory is, by the host's.

use std::time::Instant;

use wgpu::BufferUsages;

use super::device::Device;
use super::program::Ready;
use super::readback::Readback;
use super::submit;
use crate::error::{Error, Result};
use crate::plan::Inputs;

/// Steps that are timed in one submission.
const BATCH: usize = wgpu::QUERY_SET_MAX_QUERIES as usize / 2;

/// Copies that are timed together, so that starting them takes no part of it.
const COPIES: u32 = 8;

/// Copies `bytes` from one buffer to another, several times, and gives the GB/s read and written.
pub(super) fn copy_rate(device: &Device, bytes: u64) -> Result<f64> {
    let bytes = bytes.min(device.info.max_buffer_bytes).min(device.info.max_binding_bytes) / 256 * 256;
    let from = device.buffer("copied from", bytes, BufferUsages::COPY_SRC | BufferUsages::COPY_DST)?;
    let to = device.buffer("copied to", bytes, BufferUsages::COPY_DST)?;
    // The first one meets fresh memory.
    device.wait(&submit::copy(device, &from, 0, &to, bytes)?)?;
    let begun = Instant::now();
    for _ in 1..COPIES {
        submit::copy(device, &from, 0, &to, bytes)?;
    }
    device.wait(&submit::copy(device, &from, 0, &to, bytes)?)?;
    Ok(2.0 * (bytes * u64::from(COPIES)) as f64 / begun.elapsed().as_secs_f64() / 1e9)
}

/// Runs the plan once, a pass for each step, and gives the label and the microseconds of each step that was not
/// passed over. Passes cost time of their own between the steps, which is not counted.
pub(super) fn profile(
    device: &Device,
    readback: &mut Readback,
    ready: &Ready,
    inputs: Inputs,
) -> Result<Vec<(String, f64)>> {
    if !device.info.timestamps {
        return Err(Error::unsupported("the device has no clock for its steps").at(&device.info.name));
    }
    let stamps = device.scoped("profile", || {
        device.raw.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("profile"),
            ty: wgpu::QueryType::Timestamp,
            count: wgpu::QUERY_SET_MAX_QUERIES,
        })
    })?;
    let bytes = 8 * u64::from(wgpu::QUERY_SET_MAX_QUERIES);
    let ticks = device.buffer("profile", bytes, BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC)?;
    let micros = f64::from(device.queue.get_timestamp_period()) / 1000.0;

    let mut times = Vec::new();
    for first in (0..ready.plan.steps.len()).step_by(BATCH) {
        let steps = first..(first + BATCH).min(ready.plan.steps.len());
        let run: Vec<_> =
            ready.plan.steps[steps.clone()].iter().filter(|step| step.call(inputs).is_some()).collect();
        if run.is_empty() {
            continue;
        }
        submit::timed(device, ready, steps, inputs, &stamps, &ticks)?;
        let mut words = vec![0u64; 2 * run.len()];
        readback.read(device, &ticks, 0, bytemuck::cast_slice_mut(&mut words))?;
        for (step, stamps) in run.iter().zip(words.chunks_exact(2)) {
            times.push((step.label.clone(), stamps[1].saturating_sub(stamps[0]) as f64 * micros));
        }
    }
    Ok(times)
}
